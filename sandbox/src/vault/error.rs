//! Why a sample cannot be opened, sealed away or brought back.

use std::io;
use std::path::PathBuf;

use bellwether_artifact::secret::{SecretError, SecretId};
use bellwether_artifact::{ArtifactError, Visible};

use super::QuarantineId;

/// Why a sample cannot be opened, sealed away or brought back. Paths in texts are spelled so that no name can act on a terminal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// A file of the vault could not be read or written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The system refused something else.
    #[error("cannot {action} {}: {cause}", shown(path))]
    System {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The path leads to a symbolic link.
    #[error("{} is a symbolic link: give the file that it leads to", shown(path))]
    Symlink {
        /// The path.
        path: PathBuf,
    },
    /// The path leads to no regular file.
    #[error("{} is no regular file: give one", shown(path))]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// The sample is larger than is taken.
    #[error("{} has more than {limit} bytes: raise the limit or give a smaller sample", shown(path))]
    TooLarge {
        /// The path.
        path: PathBuf,
        /// Most bytes that are taken.
        limit: u64,
    },
    /// The decision has put another sample into quarantine.
    #[error(
        "the decision {} has put another sample into quarantine ({id}): give each decision its own id",
        shown(decision)
    )]
    Conflict {
        /// The decision.
        decision: String,
        /// What it put there.
        id: QuarantineId,
    },
    /// Nothing is there under this name.
    #[error("nothing in quarantine is called {}: see `vault list`", shown(name))]
    NotThere {
        /// The name as given.
        name: String,
    },
    /// More than one thing is there under the beginning of a name.
    #[error("more than one thing in quarantine begins with {}: give more digits", shown(name))]
    Ambiguous {
        /// The name as given.
        name: String,
    },
    /// A sealed file is not as it was written.
    #[error("{} is not as it was sealed ({problem}): restore it from a backup, nothing of it is used", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// A sealed file needs a secret that is not at hand.
    #[error("{} is sealed with the secret {key}, which is not in this file: give the file that holds it", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The name of the secret.
        key: SecretId,
    },
}

impl VaultError {
    pub(super) fn system(action: &'static str, path: impl Into<PathBuf>, cause: impl Into<io::Error>) -> VaultError {
        VaultError::System { action, path: path.into(), cause: cause.into() }
    }
}

fn shown(text: &(impl AsRef<std::ffi::OsStr> + ?Sized)) -> String {
    Visible::new(text.as_ref().as_encoded_bytes()).to_string()
}
