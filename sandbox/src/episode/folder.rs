//! The folder of an episode: one program at a time has it, and what a killed one left there can be taken up.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bellwether_artifact::{ArtifactError, durable};
use rustix::fs::FlockOperation;

use super::journal;
use super::record::RecordError;
use super::run::Report;

/// The folder of an episode, taken: as long as this or a copy of it lives, nobody else can take it.
#[derive(Clone, Debug)]
pub struct EpisodeFolder {
    path: PathBuf,
    _lock: Arc<File>,
}

impl EpisodeFolder {
    /// Takes a folder, which is made where it is missing.
    ///
    /// # Errors
    /// [`RecordError::Taken`] while another program has it; it cannot be made or locked.
    pub fn take(path: impl Into<PathBuf>) -> Result<EpisodeFolder, RecordError> {
        let path = path.into();
        durable::create_folder(&path)?;
        let lock = File::open(&path).map_err(|cause| ArtifactError::io("open", &path, cause))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(EpisodeFolder { path, _lock: Arc::new(lock) }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(RecordError::Taken { folder: path }),
            Err(error) => Err(ArtifactError::io("lock", &path, error.into()).into()),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether an episode in this folder goes on, or was cut off: it has a journal.
    pub fn is_open(path: &Path) -> bool {
        journal::is_in(path)
    }

    /// What an episode comes to that was cut off, from its journal: its files are made, where they are not there already. Nothing where
    /// it left no journal that can be read from its beginning. The journal stays until [`settle`](EpisodeFolder::settle).
    ///
    /// # Errors
    /// The journal cannot be read, or the files cannot be written.
    pub fn recover(&self) -> Result<Option<Report>, RecordError> {
        journal::recover(&self.path)
    }

    /// Removes the journal, and whatever else was begun and not ended: what is to be made of the episode is made.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn settle(&self) -> Result<(), ArtifactError> {
        durable::sweep(&self.path).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_and_is_free_when_its_last_copy_goes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("episodes/e1");
        let first = EpisodeFolder::take(&path).unwrap();
        let copy = first.clone();
        drop(first);
        assert!(matches!(EpisodeFolder::take(&path), Err(RecordError::Taken { .. })));
        drop(copy);
        assert_eq!(EpisodeFolder::take(&path).unwrap().path(), path);
    }
}
