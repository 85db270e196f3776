//! What can go wrong with files, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::{CanonicalError, ManifestError, Sha256};

/// Why a file could not be written, read or believed.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The operating system refused an operation on a path.
    #[error("cannot {action} {}: {cause}{}", path.display(), advice(action, cause))]
    Io {
        /// What was tried, as a verb: "write", "rename into place".
        action: &'static str,
        /// The file or folder it was tried on.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// Something stands already where a new, immutable file or folder was to appear.
    #[error("{} exists already and is never overwritten: choose another name or remove it first", path.display())]
    Exists {
        /// The taken name.
        path: PathBuf,
    },
    /// A path has no file name or no folder to hold it.
    #[error("{} names no file: give a path that ends in a file name", path.display())]
    NoFileName {
        /// The path as given.
        path: PathBuf,
    },
    /// A file is larger than its kind may be, and was not read.
    #[error("{} has {bytes} bytes, more than the {limit} that are read: it is damaged or no such file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size, or the number of bytes seen before reading stopped.
        bytes: u64,
        /// The largest size accepted.
        limit: u64,
    },
    /// A file that is read from a folder alone lies elsewhere, or is no plain file.
    #[error("{} is {what}: copy the file there", path.display())]
    Outside {
        /// Its name in the folder.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The content of a file is not what its hash says.
    #[error("{} has SHA-256 {found}, expected {expected}: the file was changed or damaged, fetch it again", path.display())]
    HashMismatch {
        /// The file.
        path: PathBuf,
        /// The hash on record.
        expected: Sha256,
        /// The hash of what is on disk.
        found: Sha256,
    },
    /// A line of a JSON Lines file, other than a torn last one, is no valid record.
    #[error("{}, line {line}: {cause}; remove the line or restore the file", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What the parser said.
        cause: serde_json::Error,
    },
    /// A JSON file does not hold what it should.
    #[error("{}: {cause}; restore the file or write it anew", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        cause: serde_json::Error,
    },
    /// A value has no canonical JSON.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// A `model.json` breaks one of its rules.
    #[error("{}: {cause}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// The broken rule.
        cause: ManifestError,
    },
}

impl ArtifactError {
    /// An error of the operating system while trying to `action` the `path`.
    pub fn io(action: &'static str, path: &Path, cause: io::Error) -> ArtifactError {
        ArtifactError::Io { action, path: path.to_path_buf(), cause }
    }
}

/// What helps against an error of the operating system at this action; empty where its own words say enough.
fn advice(action: &str, error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space or choose another folder",
        io::ErrorKind::FileTooLarge => "; raise the file-size limit (ulimit -f) or choose another file system",
        io::ErrorKind::PermissionDenied if reads(action) => "; change its permissions, or read it as another user",
        io::ErrorKind::PermissionDenied => "; choose a folder that this user may write to, or change its permissions",
        io::ErrorKind::ReadOnlyFilesystem => "; the file system is mounted read-only, choose another folder",
        io::ErrorKind::NotFound if reads(action) => "; check the path",
        io::ErrorKind::NotFound => "; check the path, its folder must exist",
        io::ErrorKind::IsADirectory if reads(action) => "; give a file",
        io::ErrorKind::IsADirectory => "; a folder stands there, choose another name",
        _ => "",
    }
}

/// Whether an action only looks at what is there.
fn reads(action: &str) -> bool {
    action.starts_with("read") || action == "look at"
}
