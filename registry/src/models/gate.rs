//! What a model was checked for before a name may move to it.

use std::path::Path;

use bellwether_artifact::durable::{self, DurableFile};
use bellwether_artifact::{ArtifactError, ModelManifest, ModelVersion, Sha256, canonical_json_pretty};
use serde::{Deserialize, Serialize};

use super::VersionRecord;
use crate::RegistryError;

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What was checked: `golden_vectors`, `tpr@fpr=0.05`.
    pub name: String,
    /// Whether it holds.
    pub passed: bool,
    /// The measured value; null where the check has none.
    pub value: Option<f64>,
    /// What the value was held against; null where the check has none.
    pub limit: Option<f64>,
    /// One sentence for people.
    pub detail: String,
}

/// The outcome of all checks of one model, bound to it by its hashes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GateReport {
    /// SHA-256 of the network that was checked.
    pub onnx_sha256: Sha256,
    /// Version of the model that was checked.
    pub version: ModelVersion,
    /// The checks, in the order they were made.
    pub checks: Vec<Check>,
}

impl GateReport {
    /// A report on this model.
    pub fn of(manifest: &ModelManifest, checks: Vec<Check>) -> GateReport {
        GateReport { onnx_sha256: manifest.onnx.sha256, version: manifest.version, checks }
    }

    /// Whether there were checks and all of them passed.
    pub fn passed(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.passed)
    }

    /// Whether this report lets `name` move to the model of `record`.
    pub(super) fn admit(&self, record: &VersionRecord, name: &str, required: &[&str]) -> Result<(), RegistryError> {
        if (self.onnx_sha256, self.version) != (record.onnx_sha256, record.version) {
            return Err(RegistryError::GateForAnother { expected: record.version, found: self.version });
        }
        let made = |wanted: &str| self.checks.iter().any(|check| check.name == wanted);
        let mut missing: Vec<String> =
            required.iter().filter(|wanted| !made(wanted)).map(|wanted| (*wanted).to_owned()).collect();
        if self.checks.is_empty() && missing.is_empty() {
            missing.push("(it has none at all)".to_owned());
        }
        if !missing.is_empty() {
            return Err(RegistryError::GateMissing { missing });
        }
        let failed: Vec<String> = self.checks.iter().filter(|check| !check.passed).map(Check::summary).collect();
        if !failed.is_empty() {
            return Err(RegistryError::GateFailed { name: name.to_owned(), failed });
        }
        Ok(())
    }

    /// Keeps the report under its SHA-256.
    pub(super) fn keep(&self, folder: &Path) -> Result<Sha256, RegistryError> {
        let json = canonical_json_pretty(self)?;
        let hash = Sha256::of(json.as_bytes());
        if report_path(folder, &hash).exists() {
            return Ok(hash);
        }
        let mut file = DurableFile::create(report_path(folder, &hash))?;
        std::io::Write::write_all(&mut file, json.as_bytes())
            .map_err(|source| ArtifactError::io("write", file.path(), source))?;
        match file.commit_new_read_only() {
            Err(ArtifactError::Exists { .. }) => Ok(hash),
            other => other.map(|()| hash).map_err(RegistryError::from),
        }
    }

    /// Reads a kept report and checks its hash.
    pub(super) fn recall(folder: &Path, hash: &Sha256) -> Result<GateReport, RegistryError> {
        let path = report_path(folder, hash);
        let bytes = durable::read(&path, 1024 * 1024)?;
        let found = Sha256::of(&bytes);
        if found != *hash {
            return Err(ArtifactError::HashMismatch { path, expected: *hash, found }.into());
        }
        serde_json::from_slice(&bytes).map_err(|cause| ArtifactError::Json { path, cause }.into())
    }
}

impl Check {
    fn summary(&self) -> String {
        match (self.value, self.limit) {
            (Some(value), Some(limit)) => format!("{} ({value} against {limit}: {})", self.name, self.detail),
            (Some(value), None) => format!("{} ({value}: {})", self.name, self.detail),
            _ => format!("{} ({})", self.name, self.detail),
        }
    }
}

fn report_path(folder: &Path, hash: &Sha256) -> std::path::PathBuf {
    folder.join(format!("{hash}.json"))
}
