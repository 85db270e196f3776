//! Loading a model as the verbs that use one do.

use std::path::Path;

use anyhow::{Context, anyhow};
use bellwether_artifact::{ModelManifest, Sha256, release};
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_env_adapter::window::WindowConfig;
use bellwether_inference::model::{Contract, Expectation, Mlp};
use bellwether_inference::{Engines, LoadedRelease, load_release};

use super::{Failure, build};

/// Loads and checks the model in a folder, against the feature specification of this program at the model's own window
/// limits. The native engine evaluates it.
pub(crate) fn load(folder: &Path) -> Result<LoadedRelease, Failure> {
    load_for(folder, build::isa()?.into())
}

/// [`load`] for what only decides: with the feature `ort`, ONNX Runtime evaluates what the native engine does not.
pub(crate) fn load_to_decide(folder: &Path) -> Result<LoadedRelease, Failure> {
    load_for(folder, engines(1)?)
}

/// What evaluates models that are only decided by, on this many threads at a time.
#[allow(unused_mut, unused_variables, reason = "without the feature `ort` there is nothing to add")]
pub(crate) fn engines(threads: usize) -> Result<Engines, Failure> {
    let mut engines = Engines::from(build::isa()?);
    #[cfg(feature = "ort")]
    engines.onnx_runtime.replace(bellwether_inference::OnnxRuntime { library: None, sessions: threads });
    Ok(engines)
}

fn load_for(folder: &Path, engines: Engines) -> Result<LoadedRelease, Failure> {
    require(folder)?;
    let manifest = release::read_manifest(folder)?;
    Ok(load_release(folder, &Expectation::new(contract_of(&manifest)), engines)
        .with_context(|| format!("the model in {} is refused", folder.display()))?)
}

/// The network of a release, for what plays it otherwise than through an engine.
pub(crate) fn network(release: &LoadedRelease) -> Result<&Mlp, Failure> {
    release
        .mlp
        .as_ref()
        .ok_or_else(|| Failure::Failed(anyhow!("a general graph decides, but cannot be evaluated here")))
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
