//! `model.json`: what a model was made from, what it promises, and how to check that it still keeps it.

mod rules;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{ModelVersion, Sha256, canonical_json, canonical_json_pretty};

pub use rules::ManifestError;

/// Version of the format of a `model.json` that names no [`Graph`].
pub const FORMAT_VERSION: u32 = 1;

/// Version of the format of one that does. What else would be in doubt is the same in both; any other version is refused.
pub const FORMAT_VERSION_WITH_GRAPH: u32 = 2;

/// Largest `model.json` that is read, in bytes.
pub const MAX_MANIFEST_BYTES: u64 = 16 * 1024 * 1024;

/// The content of `model.json`. Every field must be present, unknown ones are refused, times and host facts have no place
/// here: the same data, configuration and seed give the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelManifest {
    /// [`FORMAT_VERSION`], or [`FORMAT_VERSION_WITH_GRAPH`] where `graph` is given.
    pub format_version: u32,
    /// What the model is called by people: 1 to 64 of `a-z`, `0-9`, `.`, `_` and `-`, beginning with a letter or digit.
    pub name: String,
    /// Derived from all other fields by [`sealed`](ModelManifest::sealed).
    pub version: ModelVersion,
    /// The ONNX file that this manifest speaks of.
    pub onnx: OnnxFile,
    /// Widths of the layers, from the state to the q-values.
    pub widths: Vec<u32>,
    /// What the network is where it is no plain multi-layer perceptron. Absent otherwise, so that the bytes and the versions of
    /// plain models are those they always had, and a program that knows no other network refuses one by its format version.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub graph: Option<Graph>,
    /// What the state is.
    pub features: FeatureBinding,
    /// What the q-values stand for.
    pub actions: ActionBinding,
    /// From a target false-positive rate to the cost that is fed to the network, by ascending target.
    pub operating_points: Vec<OperatingPoint>,
    /// The whole resolved configuration of the training run, seed included, as a JSON object.
    pub training: Value,
    /// Held-out results by name ("tpr@fpr=0.05").
    pub metrics: BTreeMap<String, Metric>,
    /// Every data set that influenced the model, calibration and test included.
    pub data: Vec<DataFingerprint>,
    /// States with the q-values that the network gives on them; an engine that gives others is refused.
    pub golden: Vec<GoldenVector>,
    /// The code that made the model.
    pub source: SourceRevision,
}

/// A field that may be absent, but not null.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A network that is no plain multi-layer perceptron.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Graph {
    /// A multi-layer perceptron whose last hidden layer feeds a value and advantages, which are joined to q-values. `widths` are
    /// those of the layers to the advantages, of which there are as many as q-values; the value is one more output.
    Dueling,
    /// Any graph that keeps the interface, for ONNX Runtime. `widths` are those of the state and of the q-values alone.
    General,
}

/// Identity of an ONNX file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnnxFile {
    /// SHA-256 of the file.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Which features a model reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureBinding {
    /// Version of the feature specification.
    pub spec_version: u32,
    /// SHA-256 of the feature specification.
    pub spec_sha256: Sha256,
    /// Width of the state.
    pub width: u32,
    /// How events were cut into windows in training.
    pub window: WindowLimits,
}

/// When a window closes; whichever limit is reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowLimits {
    /// Number of events, at least 1.
    pub max_events: u32,
    /// Time since the window's first event in nanoseconds; not applied where events carry no time.
    pub max_ns: u64,
    /// Windows per stage after which a verdict must fall; 0 for no such cap.
    pub max_windows: u32,
}

/// Which actions a model chooses among.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionBinding {
    /// Version of the action set.
    pub set_version: u32,
    /// Names of the actions; the position is the action's number.
    pub names: Vec<String>,
}

/// One row of the table by which a target false-positive rate is served.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatingPoint {
    /// The rate asked for, above 0 and below 1.
    pub target_fpr: f64,
    /// The cost `z` of a false positive that goes into the state, at least 0 and below 1.
    pub cost: f32,
    /// Share of benign calibration episodes convicted at this cost; null where there were too few to tell.
    #[serde(deserialize_with = "explicit")]
    pub calibration_fpr: Option<f64>,
    /// Share of malicious calibration episodes convicted at this cost; null where there were too few to tell.
    #[serde(deserialize_with = "explicit")]
    pub calibration_tpr: Option<f64>,
}

/// One result with its uncertainty.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// The value; null where the data cannot support one.
    #[serde(deserialize_with = "explicit")]
    pub value: Option<f64>,
    /// Lower and upper end of the 95 % interval; null where none was computed.
    #[serde(deserialize_with = "explicit")]
    pub ci95: Option<[f64; 2]>,
}

/// A data set, known by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFingerprint {
    /// What it was used for: "train", "calibration", "test".
    pub role: String,
    /// What it is called by people; no path.
    pub name: String,
    /// SHA-256 of the file, or of the canonical list of the episodes used.
    pub sha256: Sha256,
    /// Number of episodes used.
    pub episodes: u64,
    /// Number of events in them.
    pub events: u64,
}

/// A state and what the network makes of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenVector {
    /// The elements of the state that are not 0, as (index, value) by ascending index; values in [0, 1].
    pub state: Vec<(u32, f32)>,
    /// Which actions are allowed, at least one.
    pub mask: Vec<bool>,
    /// The q-values, unmasked, one per action.
    pub q_values: Vec<f32>,
    /// The allowed action with the largest q-value, the lowest number on a tie.
    pub action: u32,
}

/// The code that made a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SourceRevision {
    /// Version of the package.
    pub package: String,
    /// Commit of the source tree; null where the build knew none.
    #[serde(deserialize_with = "explicit")]
    pub revision: Option<String>,
    /// Whether the source tree had changes beside that commit; null where the build knew none.
    #[serde(deserialize_with = "explicit")]
    pub modified: Option<bool>,
}

impl ModelManifest {
    /// The manifest with the version that belongs to its content.
    ///
    /// # Errors
    /// [`ManifestError`] where a rule of the format is broken.
    pub fn sealed(mut self) -> Result<ModelManifest, ManifestError> {
        self.version = self.derived_version()?;
        self.check()?;
        Ok(self)
    }

    /// Reads a `model.json`.
    ///
    /// # Errors
    /// [`ManifestError::Json`] with line and column for anything but a complete manifest of this format, else the rule
    /// that is broken; among them a version that does not fit the content.
    pub fn from_json(bytes: &[u8]) -> Result<ModelManifest, ManifestError> {
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge { bytes: bytes.len() as u64 });
        }
        let manifest: ModelManifest =
            serde_json::from_slice(bytes).map_err(|error| ManifestError::Json(error.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The bytes of `model.json`, laid out for people; reading them gives the same manifest.
    ///
    /// # Errors
    /// [`ManifestError`] where a rule is broken or the manifest was changed since it was sealed.
    pub fn to_json(&self) -> Result<String, ManifestError> {
        self.check()?;
        Ok(canonical_json_pretty(self)?)
    }

    /// The row of the operating-point table with this target.
    pub fn operating_point(&self, target_fpr: f64) -> Option<&OperatingPoint> {
        self.operating_points.iter().find(|point| point.target_fpr == target_fpr)
    }

    fn derived_version(&self) -> Result<ModelVersion, ManifestError> {
        let unsealed = ModelManifest { version: ModelVersion::UNSEALED, ..self.clone() };
        Ok(ModelVersion::of_digest(&Sha256::of(canonical_json(&unsealed)?.as_bytes())))
    }
}

impl GoldenVector {
    /// The state as a dense vector; an index past `width` is left out, which [`ModelManifest::from_json`] excludes.
    pub fn dense_state(&self, width: usize) -> Vec<f32> {
        let mut dense = vec![0.0; width];
        for (index, value) in &self.state {
            if let Some(element) = dense.get_mut(*index as usize) {
                *element = *value;
            }
        }
        dense
    }

    /// The non-zero elements of a dense state, as [`state`](GoldenVector::state) holds them.
    pub fn sparse_state(dense: &[f32]) -> Vec<(u32, f32)> {
        // Feature vectors are far narrower than u32.
        (0..).zip(dense).filter(|(_, value)| **value != 0.0).map(|(index, value)| (index, *value)).collect()
    }
}

/// Reads an optional field that must be written out: `null` is a statement, a missing field is a mistake.
fn explicit<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}
