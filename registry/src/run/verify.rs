//! Whether a run's files are still what its manifest says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bellwether_artifact::{Sha256, durable};
use serde::Serialize;

use super::{ArtifactEntry, RunManifest, RunPaths, RunStatus, Terminal, read_json, status, walk_artifacts};
use crate::{RegistryError, clock};

/// One thing that is not as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Problem {
    /// A recorded file is gone or cannot be read.
    Missing {
        /// Relative to the run's folder.
        path: String,
        /// What reading it failed with.
        reason: String,
    },
    /// A recorded file has another content.
    Changed {
        /// Relative to the run's folder.
        path: String,
        /// The hash on record.
        expected: Sha256,
        /// The hash on disk.
        found: Sha256,
    },
    /// A file stands in the run that no record speaks of.
    Unlisted {
        /// Relative to the run's folder.
        path: String,
    },
}

/// The result of re-hashing a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Verification {
    /// The run's id.
    pub id: String,
    /// Where the run stands; only a complete one has recorded artefacts.
    pub status: RunStatus,
    /// Number of files that were hashed and found unchanged.
    pub intact: u64,
    /// What was found, by path; empty where all is as recorded.
    pub problems: Vec<Problem>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Problem::Missing { path, reason } => write!(f, "{path} is missing: {reason}"),
            Problem::Changed { path, expected, found } => {
                write!(f, "{path} was changed: its hash is {found}, on record is {expected}")
            }
            Problem::Unlisted { path } => write!(f, "{path} is on no record"),
        }
    }
}

impl Verification {
    /// Whether the run is complete and every file is as recorded.
    pub fn passed(&self) -> bool {
        self.status == RunStatus::Complete && self.problems.is_empty()
    }
}

/// Hashes every artefact of the run in `folder` and compares it with the manifest, and the manifest with the terminal
/// record.
///
/// # Errors
/// [`RegistryError::Artifact`] where the manifest or the terminal record cannot be read.
pub fn verify_run(folder: &Path) -> Result<Verification, RegistryError> {
    let paths = RunPaths::new(folder);
    let manifest = RunManifest::read(&paths.manifest())?;
    let status = status::status_of(&paths, clock::unix_ms())?;
    let mut result = Verification { id: paths.id(), status, intact: 0, problems: Vec::new() };
    if matches!(status, RunStatus::Complete | RunStatus::Failed) {
        let terminal: Terminal = read_json(&paths.terminal())?;
        compare(&mut result, &paths.manifest(), "manifest.json", terminal.manifest_sha256);
    }
    if status != RunStatus::Complete {
        return Ok(result);
    }
    let mut unseen: BTreeMap<&str, &ArtifactEntry> =
        manifest.artifacts.iter().map(|entry| (entry.path.as_str(), entry)).collect();
    let mut unlisted = BTreeSet::new();
    walk_artifacts(folder, "", &mut |path, name| {
        match unseen.remove(name.as_str()) {
            Some(entry) => compare(&mut result, path, &name, entry.sha256),
            None => {
                unlisted.insert(name);
            }
        }
        Ok(())
    })?;
    for name in unseen.into_keys() {
        result.problems.push(Problem::Missing { path: name.to_owned(), reason: "the file is gone".into() });
    }
    result.problems.extend(unlisted.into_iter().map(|path| Problem::Unlisted { path }));
    result.problems.sort_by(|first, second| first.path().cmp(second.path()));
    Ok(result)
}

impl Problem {
    /// The file it is about.
    pub fn path(&self) -> &str {
        match self {
            Problem::Missing { path, .. } | Problem::Changed { path, .. } | Problem::Unlisted { path } => path,
        }
    }
}

fn compare(result: &mut Verification, path: &Path, name: &str, expected: Sha256) {
    let path_name = name.to_owned();
    match durable::hash_file(path) {
        Ok((found, _)) if found == expected => result.intact += 1,
        Ok((found, _)) => result.problems.push(Problem::Changed { path: path_name, expected, found }),
        Err(error) => result.problems.push(Problem::Missing { path: path_name, reason: error.to_string() }),
    }
}
