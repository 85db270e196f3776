//! What can go wrong with runs, stores and registries.

use std::path::PathBuf;

use bellwether_artifact::signature::SignatureError;
use bellwether_artifact::{ArtifactError, CanonicalError, ModelVersion, Sha256, is_plain_name};

/// Why a run, a store or a registry refused.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A file could not be written, read or believed.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A value has no canonical JSON.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// A model is not signed as it should be.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Somebody else holds the lock.
    #[error("{} is held by another process: wait for it to finish and try again", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// A name is not made of the characters that names are made of.
    #[error("{name:?} is no {what}: use 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit")]
    Name {
        /// What was to be named.
        what: &'static str,
        /// The text, cut after 80 characters.
        name: String,
    },
    /// No run answers to a text.
    #[error("no run is called {text:?} in {}: `runs list` shows the runs there", root.display())]
    UnknownRun {
        /// What was asked for.
        text: String,
        /// The folder of runs.
        root: PathBuf,
    },
    /// Several runs answer to a text.
    #[error("{text:?} fits the runs {}: give more of the name", candidates.join(", "))]
    AmbiguousRun {
        /// What was asked for.
        text: String,
        /// The runs that fit.
        candidates: Vec<String>,
    },
    /// A run cannot be taken up again.
    #[error("{} is {status} and cannot be resumed: only an aborted or failed run can", path.display())]
    NotResumable {
        /// The run's folder.
        path: PathBuf,
        /// Its status.
        status: crate::RunStatus,
    },
    /// A path that should lie inside a run does not.
    #[error("{path:?} is no path inside a run: give a relative path without '..'")]
    OutsideRun {
        /// The path as given.
        path: String,
    },
    /// A record has a format of another version.
    #[error("{} has format version {found}, this program reads {expected}: use the release that wrote it", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version that is read.
        expected: u32,
    },
    /// The store has no object of this hash.
    #[error("the store in {} holds no {hash}: put the file in again", root.display())]
    UnknownObject {
        /// The store.
        root: PathBuf,
        /// The hash asked for.
        hash: Sha256,
    },
    /// References cannot be collected, so nothing may be removed.
    #[error("{}: {reason}; nothing is removed while a manifest cannot be read", path.display())]
    UnreadableReferences {
        /// The manifest.
        path: PathBuf,
        /// Why it cannot be read.
        reason: String,
    },
    /// The registry has no such model.
    #[error("the registry has no model {text:?}: `release list` shows what it has")]
    UnknownModel {
        /// What was asked for.
        text: String,
    },
    /// The same model stands in the registry with other companions.
    #[error("model {version} is number {number} already, with another {file}: a published model never changes")]
    Conflict {
        /// Version of the model.
        version: ModelVersion,
        /// The number it has.
        number: u32,
        /// The file that differs.
        file: &'static str,
    },
    /// A gate report speaks of another model than the one to promote.
    #[error(
        "the gate report is about model {found}, not {expected}: run the gates on the model that is to be promoted"
    )]
    GateForAnother {
        /// The model to promote.
        expected: ModelVersion,
        /// The model of the report.
        found: ModelVersion,
    },
    /// A gate report lacks checks that the name demands.
    #[error("the gate report lacks the checks {}: run them and promote again", missing.join(", "))]
    GateMissing {
        /// Names of the checks.
        missing: Vec<String>,
    },
    /// Some checks failed.
    #[error("the model failed {}: {name} stays where it is", failed.join("; "))]
    GateFailed {
        /// The name that was to be moved.
        name: String,
        /// What failed, with values.
        failed: Vec<String>,
    },
    /// A name has never stood elsewhere.
    #[error("{name} has no earlier model to go back to")]
    NothingToRollBack {
        /// The name.
        name: String,
    },
    /// A model in the registry is damaged.
    #[error("model {number} is damaged: {problem}; publish it anew from its run")]
    Damaged {
        /// Its number.
        number: u32,
        /// What is wrong.
        problem: String,
    },
}

/// Refuses a name that is not safe as a file name everywhere; `what` says what it would name.
///
/// # Errors
/// [`RegistryError::Name`].
pub fn check_name(what: &'static str, name: &str) -> Result<(), RegistryError> {
    if is_plain_name(name) {
        return Ok(());
    }
    Err(RegistryError::Name { what, name: name.chars().take(80).collect() })
}
