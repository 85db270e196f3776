//! Reading files that somebody else put into a folder: nothing from outside it, and no more than is wanted.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::ArtifactError;

/// An open folder: whatever takes its name meanwhile, this one is read. (On systems that are no Unix it is found by its name each
/// time.)
#[derive(Debug)]
pub struct ConfinedFolder {
    #[cfg(unix)]
    folder: File,
    path: PathBuf,
}

/// Why there is no file to read.
enum NoFile {
    Absent,
    LinkOut,
    Failed(io::Error),
}

impl ConfinedFolder {
    /// Opens a folder, following links to it.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] where it cannot be opened.
    pub fn open(path: &Path) -> Result<ConfinedFolder, ArtifactError> {
        #[cfg(unix)]
        return {
            use rustix::fs::{Mode, OFlags};
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            let folder = rustix::fs::open(path, flags, Mode::empty())
                .map_err(|errno| ArtifactError::io("open the folder", path, errno.into()))?;
            Ok(ConfinedFolder { folder: File::from(folder), path: path.to_path_buf() })
        };
        #[cfg(not(unix))]
        Ok(ConfinedFolder { path: path.to_path_buf() })
    }

    /// Reads a whole plain file of at most `limit` bytes; `None` where there is none of this name.
    ///
    /// # Errors
    /// [`ArtifactError::Outside`] for links out of the folder and for what is no plain file, [`ArtifactError::TooLarge`] before more
    /// than `limit` bytes were taken into memory, else [`ArtifactError::Io`].
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, ArtifactError> {
        let path = self.path.join(name);
        let failed = |cause: io::Error| ArtifactError::io("read", &path, cause);
        let file = match self.open_file(name) {
            Ok(file) => file,
            Err(NoFile::Absent) => return Ok(None),
            Err(NoFile::LinkOut) => return Err(ArtifactError::Outside { path, what: "a link out of the folder" }),
            Err(NoFile::Failed(cause)) => return Err(failed(cause)),
        };
        // Asked of the open file, so that no other can take its place.
        let data = file.metadata().map_err(failed)?;
        if !data.is_file() {
            return Err(ArtifactError::Outside { path, what: "no plain file" });
        }
        let too_large = |bytes| ArtifactError::TooLarge { path: path.clone(), bytes, limit };
        if data.len() > limit {
            return Err(too_large(data.len()));
        }
        let mut bytes = Vec::new();
        // The file may grow while it is read, so its length is no bound.
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > limit { Err(too_large(bytes.len() as u64)) } else { Ok(Some(bytes)) }
    }

    /// As [`read`](Self::read), for a file that must be there.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`ArtifactError::Io`] where there is none.
    pub fn read_present(&self, name: &str, limit: u64) -> Result<Vec<u8>, ArtifactError> {
        let absent = || ArtifactError::io("read", &self.path.join(name), io::ErrorKind::NotFound.into());
        self.read(name, limit)?.ok_or_else(absent)
    }

    /// Opens a file of the folder. Links that stay inside are followed, as some volumes are made of them.
    #[cfg(unix)]
    fn open_file(&self, name: &str) -> Result<File, NoFile> {
        use rustix::fs::{Mode, OFlags};
        use rustix::io::Errno;
        // Without waiting: a pipe would not answer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let unfollowed = || rustix::fs::openat(&self.folder, name, flags | OFlags::NOFOLLOW, Mode::empty());
        #[cfg(not(target_os = "linux"))]
        let opened = unfollowed();
        #[cfg(target_os = "linux")]
        let opened = {
            use rustix::fs::ResolveFlags;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            match rustix::fs::openat2(&self.folder, name, flags, Mode::empty(), resolve) {
                // Old kernels do not have the call, and some sandboxes forbid it; then no link is followed.
                Err(Errno::NOSYS | Errno::PERM) => unfollowed(),
                resolved => resolved,
            }
        };
        opened.map(File::from).map_err(|errno| match errno {
            Errno::NOENT => NoFile::Absent,
            Errno::XDEV | Errno::LOOP => NoFile::LinkOut,
            errno => NoFile::Failed(errno.into()),
        })
    }

    /// Opens a file of the folder; no link is followed.
    #[cfg(not(unix))]
    fn open_file(&self, name: &str) -> Result<File, NoFile> {
        let path = self.path.join(name);
        match std::fs::symlink_metadata(&path) {
            Ok(data) if data.is_symlink() => Err(NoFile::LinkOut),
            Ok(_) => File::open(&path).map_err(NoFile::Failed),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(NoFile::Absent),
            Err(cause) => Err(NoFile::Failed(cause)),
        }
    }
}

#[cfg(all(test, unix))]
#[allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::Mode;

    use super::*;

    #[test]
    fn only_plain_files_of_the_folder_are_read() {
        let root = tempfile::tempdir().unwrap();
        let inside = root.path().join("inside");
        fs::create_dir_all(inside.join("folder")).unwrap();
        fs::write(root.path().join("secret"), "outside").unwrap();
        fs::write(inside.join("file"), "content").unwrap();
        symlink("file", inside.join("near")).unwrap();
        symlink("../secret", inside.join("far")).unwrap();
        symlink(root.path().join("secret"), inside.join("absolute")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            inside.join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        let folder = ConfinedFolder::open(&inside).unwrap();
        assert_eq!(folder.read("file", 7).unwrap().as_deref(), Some(&b"content"[..]));
        assert_eq!(folder.read("near", 7).unwrap().as_deref(), Some(&b"content"[..]));
        assert_eq!(folder.read("none", 7).unwrap(), None);
        assert!(matches!(folder.read_present("none", 7), Err(ArtifactError::Io { .. })));
        assert!(matches!(folder.read("file", 6), Err(ArtifactError::TooLarge { bytes: 7, limit: 6, .. })));
        for name in ["far", "absolute", "../secret", "folder", "pipe"] {
            let refused = folder.read(name, 100);
            assert!(matches!(refused, Err(ArtifactError::Outside { .. })), "{name}: {refused:?}");
        }
        // The folder that was opened is read, and not what took its name.
        fs::rename(&inside, root.path().join("away")).unwrap();
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join("file"), "another").unwrap();
        assert_eq!(folder.read("file", 7).unwrap().as_deref(), Some(&b"content"[..]));
    }
}
