//! The canonical record of a run: everything that its results are a function of, and the hashes of those results.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bellwether_artifact::{ArtifactError, Sha256, SourceRevision, canonical_json, canonical_json_pretty, durable};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::RegistryError;
use crate::error::check_name;

/// Version of the format of `manifest.json`; another one is refused.
pub const MANIFEST_FORMAT: u32 = 1;

/// Largest JSON file of a run that is read, in bytes.
pub(crate) const MAX_JSON_BYTES: u64 = 64 * 1024 * 1024;

/// The content of `manifest.json`. It holds no time, no host and no path of this machine, so two runs with the same
/// content must give the same artefacts; one that does not is a bug.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RunManifest {
    /// [`MANIFEST_FORMAT`].
    pub format_version: u32,
    /// What the run is called by people; the first part of its id.
    pub name: String,
    /// The verb that ran: "train".
    pub command: String,
    /// Flags that changed the run beside the configuration, by name.
    pub flags: BTreeMap<String, String>,
    /// The configuration as resolved from flags, environment, file and defaults.
    pub config: Value,
    /// Every seed, by purpose.
    pub seeds: BTreeMap<String, u64>,
    /// Every file that was read, by ascending role and name.
    pub inputs: Vec<InputFile>,
    /// Versions of formats and parts (`feature_spec`, `action_set`), by name.
    pub versions: BTreeMap<String, String>,
    /// The code that ran.
    pub source: SourceRevision,
    /// Every file that the run made and whose content the fields above decide, by path; empty until it is complete.
    pub artifacts: Vec<ArtifactEntry>,
}

/// A file that a run read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// What it was used for: "train", "valid".
    pub role: String,
    /// Its file name, without folders.
    pub name: String,
    /// SHA-256 of its content.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A file that a run made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ArtifactEntry {
    /// Relative to the run's folder, with `/` between folders.
    pub path: String,
    /// SHA-256 of its content.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub bytes: u64,
}

impl InputFile {
    /// Reads and hashes a file, streamed; `role` says what it is used for.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where it cannot be read.
    pub fn of(role: &str, path: &Path) -> Result<InputFile, RegistryError> {
        let (sha256, bytes) = durable::hash_file(path)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(InputFile { role: role.to_owned(), name, sha256, bytes })
    }
}

impl RunManifest {
    /// SHA-256 over everything that decides the results: the manifest without its artefacts. Two runs with the same
    /// fingerprint are re-runs of each other.
    ///
    /// # Errors
    /// [`RegistryError::Canonical`] where a value has no JSON.
    pub fn fingerprint(&self) -> Result<Sha256, RegistryError> {
        let before = RunManifest { artifacts: Vec::new(), ..self.clone() };
        Ok(Sha256::of(canonical_json(&before)?.as_bytes()))
    }

    /// Everything beside the data that decides the results, by dotted key: the configuration by its own keys, and what stands
    /// under `seeds`, `flags`, `versions` and `source`. A list is one value.
    pub fn settings(&self) -> BTreeMap<String, Value> {
        let mut found = BTreeMap::new();
        flatten("", &self.config, &mut found);
        let SourceRevision { package, revision, modified } = &self.source;
        found.extend(self.seeds.iter().map(|(name, seed)| (format!("seeds.{name}"), Value::from(*seed))));
        found.extend(self.flags.iter().map(|(name, flag)| (format!("flags.{name}"), Value::from(flag.as_str()))));
        found.extend(
            self.versions.iter().map(|(name, version)| (format!("versions.{name}"), Value::from(version.as_str()))),
        );
        found.insert("source.package".to_owned(), Value::from(package.as_str()));
        found.insert("source.revision".to_owned(), Value::from(revision.clone()));
        found.insert("source.modified".to_owned(), Value::from(*modified));
        found
    }

    /// SHA-256 of what was read, by role; several files of one role are numbered.
    pub fn data(&self) -> BTreeMap<String, Value> {
        let mut found = BTreeMap::new();
        for input in &self.inputs {
            let role =
                |number: usize| if number == 1 { input.role.clone() } else { format!("{}.{number}", input.role) };
            let free = (1..).map(role).find(|role| !found.contains_key(role));
            found.insert(free.unwrap_or_default(), Value::from(input.sha256.to_string()));
        }
        found
    }

    /// The keys of settings and data in which another manifest differs, with both values, this one's first; null where there
    /// is no such key.
    pub fn differences(&self, other: &RunManifest) -> Vec<(String, Value, Value)> {
        let all = |manifest: &RunManifest| {
            let data = manifest.data().into_iter().map(|(role, hash)| (format!("data.{role}"), hash));
            data.chain(manifest.settings()).collect::<BTreeMap<String, Value>>()
        };
        let (ours, theirs) = (all(self), all(other));
        let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let of = |values: &BTreeMap<String, Value>, key: &str| values.get(key).cloned().unwrap_or_default();
        let pairs = keys.into_iter().map(|key| (key.clone(), of(&ours, key), of(&theirs, key)));
        pairs.filter(|(_, one, other)| one != other).collect()
    }

    /// The bytes of `manifest.json`.
    pub(crate) fn to_json(&self) -> Result<String, RegistryError> {
        check_name("name of a run", &self.name)?;
        Ok(canonical_json_pretty(self)?)
    }

    /// Reads a `manifest.json`.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] with line and column where it is no complete manifest, [`RegistryError::Format`] where
    /// its format has another version.
    pub fn read(path: &Path) -> Result<RunManifest, RegistryError> {
        RunManifest::parse(&durable::read(path, MAX_JSON_BYTES)?, path)
    }

    /// Reads the bytes of a `manifest.json`; `path` is only named in errors.
    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<RunManifest, RegistryError> {
        #[derive(Deserialize)]
        struct Probe {
            format_version: u32,
        }
        // The version is looked at first: a later format may have fields that this one refuses.
        let probe: Probe = parse_json(bytes, path)?;
        if probe.format_version != MANIFEST_FORMAT {
            return Err(RegistryError::Format {
                path: path.to_path_buf(),
                found: probe.format_version,
                expected: MANIFEST_FORMAT,
            });
        }
        parse_json(bytes, path)
    }
}

/// Puts the leaves of nested objects under dotted keys; a list is a leaf.
fn flatten(prefix: &str, value: &Value, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&path, value, found);
            }
        }
        leaf => _ = found.insert(prefix.to_owned(), leaf.clone()),
    }
}

/// Reads a JSON file of bounded size.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, RegistryError> {
    parse_json(&durable::read(path, MAX_JSON_BYTES)?, path)
}

/// Reads the bytes of a JSON file; `path` is only named in errors.
fn parse_json<T: DeserializeOwned>(bytes: &[u8], path: &Path) -> Result<T, RegistryError> {
    let value = serde_json::from_slice(bytes);
    value.map_err(|cause| ArtifactError::Json { path: path.to_path_buf(), cause }.into())
}
