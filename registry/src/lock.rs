//! Locks between processes, let go by the system when their holder dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::thread;
use std::time::Duration;

use bellwether_artifact::ArtifactError;

use crate::RegistryError;

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Beside other sharers.
    Shared,
    /// Alone.
    Exclusive,
}

/// An advisory lock on a file, held until dropped.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

/// How often a busy lock is tried before giving up, and how long between two tries: ten seconds in all.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(50);

impl FileLock {
    /// Takes the lock at once, or says that somebody else holds it.
    pub(crate) fn try_take(path: &Path, mode: Mode) -> Result<FileLock, RegistryError> {
        let io = |source| ArtifactError::io("lock", path, source);
        // The file is never removed: a lock on a removed file would exclude nobody.
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(io)?;
        let taken = match mode {
            Mode::Shared => file.try_lock_shared(),
            Mode::Exclusive => file.try_lock(),
        };
        match taken {
            Ok(()) => Ok(FileLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(RegistryError::Busy { path: path.to_path_buf() }),
            Err(TryLockError::Error(source)) => Err(io(source).into()),
        }
    }

    /// Takes the lock, waiting some seconds for holders that are about to finish.
    pub(crate) fn take(path: &Path, mode: Mode) -> Result<FileLock, RegistryError> {
        for _ in 1..TRIES {
            match FileLock::try_take(path, mode) {
                Err(RegistryError::Busy { .. }) => thread::sleep(PAUSE),
                other => return other,
            }
        }
        FileLock::try_take(path, mode)
    }
}
