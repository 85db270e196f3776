//! From a release folder to an engine that was checked against everything the folder says about itself.

use std::path::Path;

use bellwether_artifact::{ArtifactError, GoldenVector, Graph, ModelManifest, release};
use thiserror::Error;

#[cfg(feature = "ort")]
use crate::engine::OnnxRuntime;
use crate::engine::{Backend, DecideError, Engine, EngineError, Isa, Scratch};
use crate::model::{Expectation, Mlp, ModelError, load};

/// A release whose file, contract and golden vectors were all checked.
#[derive(Debug)]
pub struct LoadedRelease {
    /// `model.json`.
    pub manifest: ModelManifest,
    /// The network; `None` of a general graph, which ONNX Runtime holds.
    pub mlp: Option<Mlp>,
    /// The network, ready to decide.
    pub engine: Engine,
}

/// What may evaluate a model that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engines {
    /// The instruction set of the native kernels.
    pub isa: Isa,
    /// Where given, general graphs are loaded too, and evaluated by it; otherwise they are refused. Hostile files are refused
    /// either way, before any engine sees them.
    #[cfg(feature = "ort")]
    pub onnx_runtime: Option<OnnxRuntime>,
}

impl From<Isa> for Engines {
    /// The native engine alone.
    fn from(isa: Isa) -> Self {
        Engines {
            isa,
            #[cfg(feature = "ort")]
            onnx_runtime: None,
        }
    }
}

/// Why a release was refused. The folder was not changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// A file cannot be read, breaks its format, or the network is not the one that the manifest names.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The network is refused, or keeps another contract than expected.
    #[error("model.onnx: {0}")]
    Model(ModelError),
    /// The network fits, but no engine can be built for it here.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The manifest says something else than the caller expects or than the network shows.
    #[error("model.json: {field} is {found}, expected {expected}: the files are of different models")]
    Binding {
        /// The field of the manifest.
        field: &'static str,
        /// What the manifest says.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// The golden vectors do not come out.
    #[error(transparent)]
    Golden(#[from] GoldenError),
}

/// Why golden vectors do not show that an engine computes what the exporter did.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum GoldenError {
    /// There is none.
    #[error("model.json has no golden vectors: export the model again")]
    Missing,
    /// The engine refuses the state of one.
    #[error("golden vector {index}: {cause}")]
    Refused {
        /// Position in the manifest.
        index: usize,
        /// Why.
        cause: DecideError,
    },
    /// The engine's q-values are not those of the vector: to the last bit, or with ONNX Runtime within its tolerance.
    #[error(
        "golden vector {index}: the q-value of action {action} is {found}, expected {expected}: do not serve this model"
    )]
    Values {
        /// Position in the manifest.
        index: usize,
        /// The first action that differs.
        action: usize,
        /// What the engine computes.
        found: f32,
        /// What the manifest says.
        expected: f32,
    },
    /// The engine decides otherwise, in the precision that it will decide with.
    #[error("golden vector {index}: the engine chooses action {found}, expected {expected}: do not serve this model")]
    Action {
        /// Position in the manifest.
        index: usize,
        /// What the engine chooses.
        found: usize,
        /// What the manifest says.
        expected: usize,
    },
}

impl From<ModelError> for ReleaseError {
    fn from(cause: ModelError) -> Self {
        ReleaseError::Model(cause)
    }
}

/// Reads a release, each file once, and checks it: the manifest's rules, the network's hash, its graph, the contract in
/// the network and in the manifest against `expectation`, and the golden vectors, which the engine must reproduce: the native
/// one bit for bit, ONNX Runtime within [`TOLERANCE`] and with the same actions. `engines` says what may evaluate it; an [`Isa`]
/// is the native engine alone.
///
/// # Errors
/// The first violation.
pub fn load_release(
    folder: &Path,
    expectation: &Expectation,
    engines: impl Into<Engines>,
) -> Result<LoadedRelease, ReleaseError> {
    let release::Release { manifest, onnx } = release::read(folder)?;
    check_release(manifest, &onnx, expectation, engines)
}

/// How far a q-value of ONNX Runtime may be from that of a golden vector, relative to `max(1, |q|)`.
pub const TOLERANCE: f64 = 1e-5;

/// [`load_release`] without the folder: the manifest and the network are in memory, and the caller has checked that the
/// network's hash is the manifest's.
///
/// # Errors
/// As [`load_release`].
pub fn check_release(
    manifest: ModelManifest,
    onnx: &[u8],
    expectation: &Expectation,
    engines: impl Into<Engines>,
) -> Result<LoadedRelease, ReleaseError> {
    let engines = engines.into();
    let (mlp, engine) = match load(onnx, expectation) {
        #[cfg(feature = "ort")]
        Err(ModelError::General) if engines.onnx_runtime.is_some() => (None, general(onnx, expectation, &engines)?),
        mlp => {
            let mlp = mlp?;
            let engine = Engine::new(&mlp, engines.isa)?;
            (Some(mlp), engine)
        }
    };
    check_binding(&manifest, onnx.len(), expectation, mlp.as_ref())?;
    check_golden(&manifest.golden, &engine, &mut engine.scratch())?;
    Ok(LoadedRelease { manifest, mlp, engine })
}

#[cfg(feature = "ort")]
fn general(onnx: &[u8], expectation: &Expectation, engines: &Engines) -> Result<Engine, ReleaseError> {
    let options = engines.onnx_runtime.clone().unwrap_or_default();
    match Engine::on_onnx_runtime(onnx, expectation, engines.isa, &options) {
        Err(EngineError::Model(error)) => Err(error.into()),
        engine => Ok(engine?),
    }
}

/// The golden vector of one state: what `engine` makes of it, to be kept in the manifest.
///
/// # Errors
/// As [`Engine::decide`].
pub fn golden_vector(
    engine: &Engine,
    scratch: &mut Scratch,
    state: &[f32],
    mask: &[bool],
) -> Result<GoldenVector, DecideError> {
    let decision = engine.decide_exactly(scratch, state, mask)?;
    Ok(GoldenVector {
        state: GoldenVector::sparse_state(state),
        mask: mask.to_vec(),
        q_values: decision.q_values.to_vec(),
        // The number of actions is bounded by the model format.
        action: decision.action as u32,
    })
}

fn check_binding(
    manifest: &ModelManifest,
    onnx_bytes: usize,
    expectation: &Expectation,
    mlp: Option<&Mlp>,
) -> Result<(), ReleaseError> {
    let contract = &expectation.contract;
    let ends = || vec![contract.width, contract.actions.len()];
    let widths = mlp.map_or_else(ends, |mlp| mlp.widths().collect());
    let graph = mlp.map_or(Some(Graph::General), Mlp::graph);
    let (features, actions) = (&manifest.features, &manifest.actions);
    let facts = [
        ("onnx.bytes", manifest.onnx.bytes.to_string(), onnx_bytes.to_string()),
        ("features.spec_sha256", features.spec_sha256.to_string(), contract.feature_spec.to_string()),
        ("features.width", features.width.to_string(), contract.width.to_string()),
        ("actions.set_version", actions.set_version.to_string(), contract.action_set.to_string()),
        ("actions.names", actions.names.join(","), contract.actions.join(",")),
        ("widths", format!("{:?}", manifest.widths), format!("{widths:?}")),
        ("graph", format!("{:?}", manifest.graph), format!("{graph:?}")),
    ];
    for (field, found, expected) in facts {
        if found != expected {
            return Err(ReleaseError::Binding { field, found, expected });
        }
    }
    Ok(())
}

/// Runs the golden vectors in `scratch`: exactly, which must give the manifest's q-values, and as the engine decides.
pub(crate) fn check_golden(golden: &[GoldenVector], engine: &Engine, scratch: &mut Scratch) -> Result<(), GoldenError> {
    if golden.is_empty() {
        return Err(GoldenError::Missing);
    }
    for (index, vector) in golden.iter().enumerate() {
        let refused = |cause: DecideError| GoldenError::Refused { index, cause };
        let state = vector.dense_state(engine.width());
        let exact = engine.decide_exactly(scratch, &state, &vector.mask).map_err(refused)?;
        for (action, (&found, &expected)) in exact.q_values.iter().zip(&vector.q_values).enumerate() {
            if !reproduces(engine.backend(), found, expected) {
                return Err(GoldenError::Values { index, action, found, expected });
            }
        }
        let (found, expected) =
            (engine.decide(scratch, &state, &vector.mask).map_err(refused)?.action, vector.action as usize);
        if found != expected {
            return Err(GoldenError::Action { index, found, expected });
        }
    }
    Ok(())
}

/// Whether a q-value is that of a golden vector.
fn reproduces(backend: Backend, found: f32, expected: f32) -> bool {
    match backend {
        Backend::Native => found.to_bits() == expected.to_bits(),
        Backend::OnnxRuntime => {
            let (found, expected) = (f64::from(found), f64::from(expected));
            (found - expected).abs() <= TOLERANCE * expected.abs().max(1.0)
        }
    }
}
