//! What a watcher writes down, so that a program that starts anew goes on where the one before it ended.

use std::io;
use std::path::{Path, PathBuf};

use bellwether_artifact::{ArtifactError, ModelVersion, canonical_json_pretty, durable};
use serde::{Deserialize, Serialize};

use super::WatchError;
use crate::policy::Policy;

/// The only version of the file's format.
const FORMAT_VERSION: u32 = 1;

/// Largest file that is read; 64 versions take two thousand bytes.
const MAX_BYTES: u64 = 64 * 1_024;

/// What is known of the program before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    format_version: u32,
    /// The champion at the end.
    pub served: Served,
    /// Whether it was pinned.
    pub pinned: bool,
    /// What was brought last of what the source wanted; where an operator put another model in its place, that one stays while
    /// the source wants the same.
    pub brought: Option<ModelVersion>,
    /// Versions that were taken back and not brought again since, oldest first.
    pub rolled_back: Vec<ModelVersion>,
}

/// A model that was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Served {
    pub version: ModelVersion,
    pub number: Option<u32>,
}

/// The file, and what it holds.
#[derive(Debug)]
pub(super) struct Diary {
    path: PathBuf,
    written: Option<Memory>,
    /// Why the last writing failed.
    failure: Option<String>,
}

impl Memory {
    /// What is to be known of a policy.
    pub(super) fn of(policy: &Policy, brought: Option<ModelVersion>) -> Memory {
        let status = policy.status();
        Memory {
            format_version: FORMAT_VERSION,
            served: Served { version: status.champion.version, number: status.champion.number },
            pinned: status.pinned,
            brought,
            rolled_back: policy.rolled_back(),
        }
    }

    /// Reads a file; `None` where there is none yet.
    pub(super) fn read(path: &Path) -> Result<Option<Memory>, WatchError> {
        let refused = |reason: String| {
            let advice = "take it away to begin anew, which also forgets what was rolled back and pinned";
            WatchError::Memory { path: path.to_path_buf(), reason: format!("{reason}; {advice}") }
        };
        let bytes = match durable::read(path, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(ArtifactError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(refused(error.to_string())),
        };
        let memory: Memory = serde_json::from_slice(&bytes).map_err(|error| refused(error.to_string()))?;
        match memory.format_version {
            FORMAT_VERSION => Ok(Some(memory)),
            found => Err(refused(format!("it has format version {found}, and {FORMAT_VERSION} is known"))),
        }
    }
}

impl Diary {
    pub(super) fn new(path: PathBuf) -> Diary {
        Diary { path, written: None, failure: None }
    }

    /// Writes a memory unless it stands there already. What fails is told once, and tried again at the next call.
    pub(super) fn keep(&mut self, memory: Memory) {
        if self.written.as_ref() == Some(&memory) {
            return;
        }
        let failure = self.write(&memory).err();
        match (&failure, &self.failure) {
            (Some(text), before) if before.as_ref() != Some(text) => {
                tracing::warn!(path = %self.path.display(), text, "what a restart must know is not written down");
            }
            (None, Some(_)) => {
                tracing::info!(path = %self.path.display(), "what a restart must know is written down again")
            }
            _ => {}
        }
        self.written = failure.is_none().then_some(memory);
        self.failure = failure;
    }

    fn write(&self, memory: &Memory) -> Result<(), String> {
        let text = canonical_json_pretty(memory).map_err(|error| error.to_string())?;
        durable::write_bytes(&self.path, text.as_bytes()).map_err(|error| error.to_string())
    }

    /// Fails where the last writing failed.
    pub(super) fn check(&self) -> Result<(), WatchError> {
        match &self.failure {
            None => Ok(()),
            Some(reason) => Err(WatchError::Memory { path: self.path.clone(), reason: reason.clone() }),
        }
    }

    /// Why what is to be known is not written down, while it is not.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}
