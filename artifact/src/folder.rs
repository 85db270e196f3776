//! A folder that appears whole or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::durable::{TEMPORARY_PREFIX, cause_in, parent, sync_folder};
use crate::{ArtifactError, durable};

/// A folder being filled; it takes its final name on [`commit`](DurableFolder::commit) and vanishes when dropped before.
pub struct DurableFolder {
    temporary: TempDir,
    path: PathBuf,
}

impl DurableFolder {
    /// Starts a folder that will be called `path`; the folder above it must exist.
    ///
    /// # Errors
    /// [`ArtifactError::Exists`] where something stands under the name already, [`ArtifactError::Io`] where the folder
    /// above is missing or not writable.
    pub fn create(path: impl Into<PathBuf>) -> Result<DurableFolder, ArtifactError> {
        let path = path.into();
        let above = parent(&path)?;
        refuse_existing(&path)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY_PREFIX);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let temporary = builder
            .tempdir_in(above)
            .map_err(|source| ArtifactError::io("create a folder in", above, cause_in(above, source)))?;
        Ok(DurableFolder { temporary, path })
    }

    /// The name that the folder will take.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where to put the files until then.
    pub fn work_path(&self) -> &Path {
        self.temporary.path()
    }

    /// Writes one file of the folder, named by a relative path; folders in between are made.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] where the file cannot be written.
    pub fn write_bytes(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<(), ArtifactError> {
        let path = self.work_path().join(name);
        durable::create_folder(parent(&path)?)?;
        durable::write_bytes(path, bytes)
    }

    /// Forces everything below to disk and takes the final name.
    ///
    /// # Errors
    /// [`ArtifactError::Exists`] where the name was taken meanwhile, else [`ArtifactError::Io`]; nothing appears then.
    pub fn commit(self) -> Result<(), ArtifactError> {
        sync_tree(self.temporary.path())?;
        refuse_existing(&self.path)?;
        // Between the check and the rename only an empty folder could be replaced: the system refuses all else.
        fs::rename(self.temporary.path(), &self.path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => {
                ArtifactError::Exists { path: self.path.clone() }
            }
            _ => ArtifactError::io("rename into place", &self.path, source),
        })?;
        // The name that the guard would remove is gone, so it must let go.
        let _ = self.temporary.keep();
        sync_folder(parent(&self.path)?)
    }
}

fn refuse_existing(path: &Path) -> Result<(), ArtifactError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(ArtifactError::Exists { path: path.to_path_buf() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ArtifactError::io("look at", path, source)),
    }
}

/// Forces every file and folder below `folder` to disk, the folder last.
fn sync_tree(folder: &Path) -> Result<(), ArtifactError> {
    let failed = |source| ArtifactError::io("read the folder", folder, source);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            sync_tree(&path)?;
        } else if kind.is_file() {
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(|source| ArtifactError::io("force to disk", &path, source))?;
        }
    }
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_whole() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("release");
        let folder = DurableFolder::create(&path).unwrap();
        folder.write_bytes("model.onnx", b"weights").unwrap();
        folder.write_bytes("more/card.md", b"card").unwrap();
        assert!(!path.exists());
        folder.commit().unwrap();
        assert_eq!(fs::read(path.join("more/card.md")).unwrap(), b"card");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_exists_is_refused_and_what_is_dropped_vanishes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("release");
        let early = DurableFolder::create(&path).unwrap();
        early.write_bytes("model.onnx", b"early").unwrap();
        let late = DurableFolder::create(&path).unwrap();
        late.write_bytes("model.onnx", b"late").unwrap();
        late.commit().unwrap();
        assert!(matches!(early.commit(), Err(ArtifactError::Exists { .. })));
        assert!(matches!(DurableFolder::create(&path), Err(ArtifactError::Exists { .. })));
        drop(DurableFolder::create(root.path().join("never")).unwrap());
        assert_eq!(fs::read(path.join("model.onnx")).unwrap(), b"late");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
