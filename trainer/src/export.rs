//! From a trained network to a release: ONNX, `model.json` and the vectors that prove an engine.

use bellwether_artifact::{
    ActionBinding, DataFingerprint, FORMAT_VERSION, FeatureBinding, GoldenVector, ManifestError, Metric, ModelManifest,
    ModelVersion, OnnxFile, OperatingPoint, Sha256, SourceRevision, WindowLimits,
};
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_env_adapter::{ACTION_COUNT, Action};
use bellwether_inference::engine::{DecideError, Engine, EngineError, Isa};
use bellwether_inference::model::{Contract, ModelError, encode};
use bellwether_inference::release::golden_vector;
use std::collections::BTreeMap;

use crate::network::{NetworkError, NetworkShape};

/// What a model is made from.
pub struct Export<'a> {
    /// What people call the model.
    pub name: String,
    /// Widths of the network.
    pub shape: &'a NetworkShape,
    /// Its parameters, in canonical layout.
    pub parameters: &'a [f32],
    /// The state that it reads.
    pub spec: &'a FeatureSpec,
    /// The costs to ask for.
    pub operating_points: Vec<OperatingPoint>,
    /// The resolved configuration of the run.
    pub training: serde_json::Value,
    /// Held-out results by name.
    pub metrics: BTreeMap<String, Metric>,
    /// The data that shaped the model.
    pub data: Vec<DataFingerprint>,
    /// States and masks whose q-values are kept as golden vectors.
    pub golden: Vec<(Vec<f32>, [bool; ACTION_COUNT])>,
    /// The code that made it.
    pub source: SourceRevision,
}

/// Why a network cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The parameters do not fit the network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The network cannot be written as ONNX.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The engine does not take the network.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine does not take a golden state.
    #[error(transparent)]
    Decide(#[from] DecideError),
    /// The manifest breaks a rule of its format.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl Export<'_> {
    /// The manifest and the ONNX bytes. The same input gives the same bytes.
    ///
    /// # Errors
    /// If the network does not fit the state or the format.
    pub fn build(self) -> Result<(ModelManifest, Vec<u8>), ExportError> {
        let mlp = self.shape.to_mlp(self.parameters)?;
        let contract = Contract::sandbox(self.spec.width(), Sha256::from_bytes(self.spec.hash()));
        let onnx = encode(&mlp, &contract)?;
        let engine = Engine::new(&mlp, Isa::best())?;
        let mut scratch = engine.scratch();
        let golden = self
            .golden
            .iter()
            .map(|(state, mask)| golden_vector(&engine, &mut scratch, state, mask))
            .collect::<Result<Vec<GoldenVector>, _>>()?;
        let window = self.spec.window();
        let manifest = ModelManifest {
            format_version: FORMAT_VERSION,
            name: self.name,
            version: ModelVersion::UNSEALED,
            onnx: OnnxFile { sha256: Sha256::of(&onnx), bytes: onnx.len() as u64 },
            widths: self.shape.widths().iter().map(|width| *width as u32).collect(),
            graph: None,
            features: FeatureBinding {
                spec_version: FeatureSpec::VERSION,
                spec_sha256: contract.feature_spec,
                width: self.spec.width() as u32,
                window: WindowLimits {
                    max_events: window.max_events,
                    max_ns: window.max_ns,
                    max_windows: window.max_windows,
                },
            },
            actions: ActionBinding {
                set_version: Action::SET_VERSION,
                names: Action::ALL.iter().map(|action| action.name().to_owned()).collect(),
            },
            operating_points: self.operating_points,
            training: self.training,
            metrics: self.metrics,
            data: self.data,
            golden,
            source: self.source,
        };
        Ok((manifest.sealed()?, onnx))
    }
}
