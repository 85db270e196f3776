//! Why a server did not start.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::DecisionLogError;

/// Why a server did not start. Nothing listens then.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The configuration says something that no server can or should do. No port and no file was touched.
    #[error("{key}: {reason}")]
    Config {
        /// The key.
        key: &'static str,
        /// What is wrong with it, and what to set.
        reason: String,
    },
    /// A file that the configuration names cannot be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// A listener was not opened.
    #[error("cannot listen on {endpoint}: {cause}; choose an address of this machine that is free")]
    Listen {
        /// Address or path.
        endpoint: String,
        /// What the system says.
        cause: io::Error,
    },
    /// Decisions cannot be logged.
    #[error(transparent)]
    DecisionLog(#[from] DecisionLogError),
    /// The system gives no thread or no event loop.
    #[error("cannot start a thread that answers: {0}; let the service have more threads or memory")]
    Thread(io::Error),
}
