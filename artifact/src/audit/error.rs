//! Why an audit log cannot be written or read.

use std::path::PathBuf;

use crate::secret::{SecretError, SecretId};
use crate::{ArtifactError, CanonicalError};

/// Why an audit log cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A file could not be read or written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The body of an entry has no canonical JSON.
    #[error("the body of an entry cannot be written")]
    Canonical(#[from] CanonicalError),
    /// A kind is none.
    #[error(
        "{kind:?} is no kind of entry: use 1 to 64 of a-z 0-9 . _ -, a letter or digit first, and not `audit.` before it"
    )]
    Kind {
        /// What was given.
        kind: String,
    },
    /// An entry is longer than readers accept.
    #[error(
        "an entry of kind {kind} has {bytes} bytes, more than {}: keep large things elsewhere and log their hash",
        super::MAX_ENTRY_BYTES
    )]
    TooLong {
        /// Its kind.
        kind: String,
        /// Its length.
        bytes: u64,
    },
    /// The secret whose turn it is, is not at hand.
    #[error(
        "the log is sealed with the secret {key}, which is not in this file: give the file that holds it, or read it anew"
    )]
    UnknownKey {
        /// Its name.
        key: SecretId,
    },
    /// There is no log, or its head is gone.
    #[error("{} is missing: make a log with `audit init`, or look where its head went", path.display())]
    NoHead {
        /// Where the head should be.
        path: PathBuf,
    },
    /// The head is not one that a holder of the secrets wrote.
    #[error("{} is no head that these secrets sealed: see `audit verify`", path.display())]
    Head {
        /// The head.
        path: PathBuf,
    },
    /// The log does not go on from where its head left it; nothing is appended to it.
    #[error("{} was tampered with at byte {byte}: {problem}; see `audit verify`, keep this log and begin another", path.display())]
    Tampered {
        /// The log.
        path: PathBuf,
        /// Where.
        byte: u64,
        /// What is wrong.
        problem: String,
    },
    /// Another file stands under the name of the log.
    #[error("{} was replaced while it was open: open it anew, and see `audit verify`", path.display())]
    Replaced {
        /// The log.
        path: PathBuf,
    },
}
