//! Loading a model as the verbs that use one do.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use bellwether_artifact::{ModelManifest, Sha256, release};
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_env_adapter::window::WindowConfig;
use bellwether_inference::model::{Contract, Expectation};
use bellwether_inference::{Engines, Isa, LoadedRelease, load_release};
use bellwether_trainer::network::NetworkShape;
use bellwether_trainer::recorded::playback::{Learnt, Policy};

use super::{Failure, build};

/// Loads and checks the model in a folder, against the feature specification of this program at the model's own window
/// limits. The native engine evaluates it.
pub(crate) fn load(folder: &Path) -> Result<LoadedRelease, Failure> {
    load_for(folder, build::isa()?.into())
}

/// What may evaluate models that are not trained on.
#[derive(clap::Args)]
pub(crate) struct EngineFlags {
    /// What may evaluate a model: the native engine alone, or ONNX Runtime too, for the general graphs that the native one does not
    /// cover. By default what the program was built with.
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// The shared library of ONNX Runtime; without it, the one that the variable `ORT_DYLIB_PATH` names.
    #[arg(long, value_name = "FILE")]
    onnx_runtime: Option<PathBuf>,
}

/// What may evaluate a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Engine {
    /// The native engine; general graphs are refused.
    Native,
    /// ONNX Runtime for general graphs, the native engine for all others.
    Ort,
}

impl EngineFlags {
    /// The engines, for so many threads that decide at a time. What was asked for by name is there, or it is said.
    pub(crate) fn engines(&self, threads: usize) -> Result<Engines, Failure> {
        let isa = build::isa()?;
        match (self.engine, &self.onnx_runtime) {
            (Some(Engine::Native), Some(_)) => {
                Err(Failure::usage(anyhow!("--onnx-runtime is of no use with --engine native: leave out one of them")))
            }
            (Some(Engine::Native), None) => Ok(isa.into()),
            (None, None) => Ok(self.with_onnx_runtime(isa, threads).unwrap_or_else(|| isa.into())),
            (Some(Engine::Ort) | None, _) => {
                let engines = self.with_onnx_runtime(isa, threads).ok_or_else(|| {
                    let how = "cargo build --release --features serve,ort";
                    Failure::usage(anyhow!(
                        "this program was built without ONNX Runtime: build it with the feature `ort`, as in `{how}`"
                    ))
                })?;
                loaded(&engines)?;
                Ok(engines)
            }
        }
    }

    /// Loads and checks a model as [`load`] does, for so many threads that decide by it at a time; 0 for as many as can run.
    pub(crate) fn load(&self, folder: &Path, threads: usize) -> Result<LoadedRelease, Failure> {
        load_for(folder, self.engines(threads)?)
    }

    /// Whether any of them is given.
    pub(crate) fn is_given(&self) -> bool {
        self.engine.is_some() || self.onnx_runtime.is_some()
    }

    #[cfg(feature = "ort")]
    fn with_onnx_runtime(&self, isa: Isa, threads: usize) -> Option<Engines> {
        let library = self.onnx_runtime.clone();
        let runtime = bellwether_inference::OnnxRuntime { library, sessions: threads };
        Some(Engines { isa, onnx_runtime: Some(runtime) })
    }

    #[cfg(not(feature = "ort"))]
    fn with_onnx_runtime(&self, _: Isa, _: usize) -> Option<Engines> {
        None
    }
}

/// Loads the library now, not with the first model that wants it.
#[cfg(feature = "ort")]
fn loaded(engines: &Engines) -> Result<(), Failure> {
    engines.onnx_runtime.as_ref().map_or(Ok(()), |runtime| runtime.load().map_err(Failure::usage))
}

#[cfg(not(feature = "ort"))]
fn loaded(_: &Engines) -> Result<(), Failure> {
    Ok(())
}

/// [`load`], evaluated by what was chosen.
pub(crate) fn load_for(folder: &Path, engines: Engines) -> Result<LoadedRelease, Failure> {
    require(folder)?;
    let manifest = release::read_manifest(folder)?;
    Ok(load_release(folder, &Expectation::new(contract_of(&manifest)), engines)
        .with_context(|| format!("the model in {} is refused", folder.display()))?)
}

/// A model that can be played on recordings.
pub(crate) struct Playable<'a> {
    /// A network as learners have it, whose rows are computed together; the q-values are the same.
    network: Option<(NetworkShape, Vec<f32>)>,
    engine: &'a bellwether_inference::Engine,
    isa: Isa,
}

impl<'a> Playable<'a> {
    pub(crate) fn of(release: &'a LoadedRelease) -> Result<Self, Failure> {
        let network = match release.mlp.as_ref().map(NetworkShape::from_mlp) {
            None => None,
            Some(network) => Some(network?),
        };
        Ok(Playable { network, engine: &release.engine, isa: build::isa()? })
    }

    /// The policy that it is.
    pub(crate) fn policy(&self) -> Policy<'_> {
        match &self.network {
            Some((shape, parameters)) => Learnt { shape, parameters, isa: self.isa }.into(),
            None => Policy::Released(self.engine),
        }
    }
}

/// What this program offers a model: its feature specification at the model's own window limits, and its actions.
pub(crate) fn contract_of(manifest: &ModelManifest) -> Contract {
    let spec = FeatureSpec::v1(window_of(manifest));
    Contract::sandbox(spec.width(), Sha256::from_bytes(spec.hash()))
}

/// Refuses a folder, or a file, in which no model lies.
pub(crate) fn require(folder: &Path) -> Result<(), Failure> {
    if release::manifest_path(folder).is_file() {
        return Ok(());
    }
    let folder = folder.display();
    Err(Failure::Failed(anyhow!("no model is in {folder}: give the folder that holds model.onnx and model.json")))
}

/// The window limits that a model was trained with.
pub(crate) fn window_of(manifest: &ModelManifest) -> WindowConfig {
    let window = &manifest.features.window;
    WindowConfig { max_events: window.max_events, max_ns: window.max_ns, max_windows: window.max_windows }
}

/// The cost of a false positive that serves a rate.
pub(crate) fn cost_of(manifest: &ModelManifest, target_fpr: f64) -> Result<f32, Failure> {
    let point = manifest.operating_point(target_fpr).ok_or_else(|| {
        let known: Vec<String> = manifest.operating_points.iter().map(|point| point.target_fpr.to_string()).collect();
        Failure::usage(anyhow!("the model was not calibrated for {target_fpr}; it knows {}", known.join(", ")))
    })?;
    Ok(point.cost)
}
