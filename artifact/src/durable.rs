//! Files and folders that appear under their final name whole or not at all.
//!
//! The bytes go into a temporary file in the same folder, are forced to disk, renamed over the final name, and the
//! folder is forced to disk too. The temporary file has no name until the rename, where the system can do that, and is gone
//! with its process. Elsewhere, and between naming and renaming, a process that dies leaves the old content and a file whose
//! name begins with [`TEMPORARY_PREFIX`], which every reader of the project ignores; an error leaves nothing.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

pub use crate::folder::DurableFolder;
use crate::{ArtifactError, Sha256};

/// How the names of temporary files and folders begin.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// The mode of files that hold no secret. What readers may do is the umask's business; temporary files would be private otherwise.
const PUBLIC: u32 = 0o666;

/// A file being written; it takes its final name on [`commit`](DurableFile::commit) and vanishes when dropped before.
pub struct DurableFile {
    file: BufWriter<File>,
    /// Its name until then, where it has one.
    name: Option<TempPath>,
    /// Where it is until then.
    folder: PathBuf,
    path: PathBuf,
}

impl DurableFile {
    /// Starts a file that will be called `path`; its folder must exist.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] where the folder is missing or not writable, or a folder stands under the name.
    pub fn create(path: impl Into<PathBuf>) -> Result<DurableFile, ArtifactError> {
        let path = path.into();
        let folder = parent(&path)?.to_path_buf();
        DurableFile::create_in(&folder, path)
    }

    /// As [`create`](DurableFile::create), for a secret: from the beginning nobody but the owner can read the file (mode 0600).
    ///
    /// # Errors
    /// As [`create`](DurableFile::create).
    pub fn create_private(path: impl Into<PathBuf>) -> Result<DurableFile, ArtifactError> {
        let path = path.into();
        let folder = parent(&path)?.to_path_buf();
        DurableFile::create_with_mode(&folder, path, 0o600)
    }

    /// As [`create`](DurableFile::create), with the temporary file in another `folder` of the same file system.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] where the folder is missing or not writable.
    pub fn create_in(folder: &Path, path: impl Into<PathBuf>) -> Result<DurableFile, ArtifactError> {
        DurableFile::create_with_mode(folder, path.into(), PUBLIC)
    }

    /// Systems other than Unix have no such modes.
    fn create_with_mode(folder: &Path, path: PathBuf, mode: u32) -> Result<DurableFile, ArtifactError> {
        parent(&path)?;
        // The rename would refuse too, after all the work.
        if path.is_dir() {
            return Err(ArtifactError::io("write", &path, io::ErrorKind::IsADirectory.into()));
        }
        let failed = |source| ArtifactError::io("create a file in", folder, cause_in(folder, source));
        let (file, name) = match unnamed::create(folder, mode) {
            Some(file) => (file, None),
            None => temporary_name(mode).tempfile_in(folder).map_err(failed).map(|file| {
                let (file, name) = file.into_parts();
                (file, Some(name))
            })?,
        };
        Ok(DurableFile { file: BufWriter::with_capacity(64 * 1024, file), name, folder: folder.to_path_buf(), path })
    }

    /// The name that the file will take.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file itself, to set its owner, mode or times before it takes its name. Behind
    /// [`hash_on_disk`](DurableFile::hash_on_disk) nothing is left to write that would change them again.
    pub fn as_file(&self) -> &File {
        self.file.get_ref()
    }

    /// Chooses another final name on the same file system, for content that is named by what it turned out to be.
    pub fn rename_to(&mut self, path: impl Into<PathBuf>) {
        self.path = path.into();
    }

    /// Forces what was written to disk and hashes it from there: its SHA-256 and its length in bytes.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] where writing or reading fails.
    pub fn hash_on_disk(&mut self) -> Result<(Sha256, u64), ArtifactError> {
        self.sync()?;
        // Reading ends where writing goes on.
        let hashed = self.file.get_ref().try_clone().and_then(|mut file| {
            file.rewind()?;
            Sha256::of_reader(file)
        });
        hashed.map_err(|source| ArtifactError::io("read back", &self.path, source))
    }

    /// Takes the final name and replaces what stands there.
    ///
    /// # Errors
    /// [`ArtifactError::Io`]; the old content stands then and the temporary file is gone, except where only the last
    /// step, forcing the folder to disk, failed: then the new content stands but may not survive a power cut.
    pub fn commit(self) -> Result<(), ArtifactError> {
        let Finished { file, name, folder, path } = self.finished(false)?;
        let failed = |source| ArtifactError::io("rename into place", &path, source);
        // A link takes no name that is taken, so the file gets a temporary name first.
        let name = match name {
            Some(name) => name,
            None => {
                let named = temporary_name(PUBLIC).make_in(&folder, |name| unnamed::link(&file, name));
                named.map_err(failed)?.into_temp_path()
            }
        };
        name.persist(&path).map_err(|error| failed(error.error))?;
        sync_folder(parent(&path)?)
    }

    /// Takes the final name unless something stands there.
    ///
    /// # Errors
    /// [`ArtifactError::Exists`] where the name is taken, else as [`commit`](DurableFile::commit).
    pub fn commit_new(self) -> Result<(), ArtifactError> {
        self.persist_new(false)
    }

    /// As [`commit_new`](DurableFile::commit_new), and nobody may write to the file from then on (mode 0444).
    ///
    /// # Errors
    /// As [`commit_new`](DurableFile::commit_new).
    pub fn commit_new_read_only(self) -> Result<(), ArtifactError> {
        self.persist_new(true)
    }

    fn persist_new(self, read_only: bool) -> Result<(), ArtifactError> {
        let Finished { file, name, path, .. } = self.finished(read_only)?;
        let persisted = match name {
            Some(name) => name.persist_noclobber(&path).map_err(|error| error.error),
            None => unnamed::link(&file, &path),
        };
        persisted.map_err(|cause| match cause.kind() {
            io::ErrorKind::AlreadyExists => ArtifactError::Exists { path: path.clone() },
            _ => ArtifactError::io("rename into place", &path, cause),
        })?;
        sync_folder(parent(&path)?)
    }

    fn sync(&mut self) -> Result<(), ArtifactError> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|source| ArtifactError::io("write", &self.path, source))
    }

    fn finished(self, read_only: bool) -> Result<Finished, ArtifactError> {
        let DurableFile { file, name, folder, path } = self;
        let failed = |source| ArtifactError::io("write", &path, source);
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        if read_only {
            let sealed = file.metadata().and_then(|data| {
                let mut permissions = data.permissions();
                permissions.set_readonly(true);
                file.set_permissions(permissions)
            });
            sealed.map_err(|source| ArtifactError::io("make read-only", &path, source))?;
        }
        file.sync_all().map_err(failed)?;
        Ok(Finished { file, name, folder, path })
    }
}

/// A file with all its bytes on disk.
struct Finished {
    file: File,
    name: Option<TempPath>,
    folder: PathBuf,
    path: PathBuf,
}

/// How temporary files are named.
fn temporary_name(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

/// Files without a name: the system forgets them with the process that wrote them, however it ends.
#[cfg(target_os = "linux")]
mod unnamed {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::path::Path;

    use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};

    /// A file in `folder`; none where the file system has no such files, or where they could not be named later.
    pub(super) fn create(folder: &Path, mode: u32) -> Option<File> {
        if !Path::new(DESCRIPTORS).is_dir() {
            return None;
        }
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        open(folder, flags, Mode::from_raw_mode(mode)).ok().map(File::from)
    }

    /// Gives the file a name that is free.
    pub(super) fn link(file: &File, name: &Path) -> io::Result<()> {
        let at = format!("{DESCRIPTORS}/{}", file.as_raw_fd());
        Ok(linkat(CWD, at, CWD, name, AtFlags::SYMLINK_FOLLOW)?)
    }

    const DESCRIPTORS: &str = "/proc/self/fd";
}

/// Other systems have names alone.
#[cfg(not(target_os = "linux"))]
mod unnamed {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    pub(super) fn create(_: &Path, _: u32) -> Option<File> {
        None
    }

    pub(super) fn link(_: &File, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Write for DurableFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a file through `fill` and gives it its name when `fill` has succeeded; what stood there is replaced.
///
/// # Errors
/// [`ArtifactError::Io`], with what `fill` failed with or as [`DurableFile::commit`]; the old content stands then.
///
/// ```
/// # use std::io::Write;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("report.txt");
/// bellwether_artifact::durable::write(&path, |out| writeln!(out, "all well"))?;
/// assert_eq!(std::fs::read_to_string(&path)?, "all well\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(
    path: impl Into<PathBuf>,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), ArtifactError> {
    let mut file = DurableFile::create(path)?;
    fill(&mut file).map_err(|source| ArtifactError::io("write", file.path(), source))?;
    file.commit()
}

/// Writes `bytes` as the whole content of a file; what stood there is replaced.
///
/// # Errors
/// As [`write`](write()).
pub fn write_bytes(path: impl Into<PathBuf>, bytes: &[u8]) -> Result<(), ArtifactError> {
    write(path, |out| out.write_all(bytes))
}

/// Reads a whole plain file of at most `limit` bytes.
///
/// # Errors
/// [`ArtifactError::Io`], for folders, pipes and devices too, or [`ArtifactError::TooLarge`] before more than `limit` bytes were taken into memory.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ArtifactError> {
    let failed = |source| ArtifactError::io("read", path, source);
    // Asked before it is opened: opening a pipe waits for somebody to write.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "no plain file; copy what is meant there")));
    }
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > limit {
        return Err(ArtifactError::TooLarge { path: path.to_path_buf(), bytes: length, limit });
    }
    let mut bytes = Vec::new();
    // The file may grow while it is read, so its length is no bound.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(ArtifactError::TooLarge { path: path.to_path_buf(), bytes: bytes.len() as u64, limit });
    }
    Ok(bytes)
}

/// The SHA-256 and the length in bytes of a file, streamed.
///
/// # Errors
/// [`ArtifactError::Io`] where the file cannot be read.
pub fn hash_file(path: &Path) -> Result<(Sha256, u64), ArtifactError> {
    let hashed = File::open(path).and_then(Sha256::of_reader);
    hashed.map_err(|source| ArtifactError::io("read", path, source))
}

/// Makes a folder and those above it, durably; one that exists already is fine.
///
/// # Errors
/// [`ArtifactError::Io`] where a folder cannot be made.
pub fn create_folder(path: &Path) -> Result<(), ArtifactError> {
    if path.is_dir() {
        return Ok(());
    }
    let above = parent(path)?;
    create_folder(above)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(source) => Err(ArtifactError::io("create the folder", path, source)),
        Ok(()) => sync_folder(above),
    }
}

/// Removes a file durably; one that is not there is fine.
///
/// # Errors
/// [`ArtifactError::Io`] where the file cannot be removed.
pub fn remove_file(path: &Path) -> Result<(), ArtifactError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ArtifactError::io("remove", path, source)),
        Ok(()) => sync_folder(parent(path)?),
    }
}

/// Removes what killed processes left unfinished in a folder, and says how many things that were. Only for callers that
/// keep all other writers out of the folder, for it cannot tell the dead from the living.
///
/// # Errors
/// [`ArtifactError::Io`] where something cannot be removed.
pub fn sweep(folder: &Path) -> Result<u64, ArtifactError> {
    let failed = |source| ArtifactError::io("read the folder", folder, source);
    let mut swept = 0;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if is_temporary(&path) {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|source| ArtifactError::io("remove", &path, source))?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Forces the entries of a folder to disk.
///
/// # Errors
/// [`ArtifactError::Io`] where the folder cannot be opened or synchronised.
pub fn sync_folder(folder: &Path) -> Result<(), ArtifactError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| ArtifactError::io("force to disk", folder, source))
}

/// Whether a file or folder is somebody's unfinished work, to be ignored.
pub fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()))
}

/// Why nothing can be created in `folder`: where the folder itself is at fault, without the drawn name that was tried.
pub(crate) fn cause_in(folder: &Path, tried: io::Error) -> io::Error {
    match fs::metadata(folder) {
        Err(missing) => missing,
        Ok(found) if !found.is_dir() => io::ErrorKind::NotADirectory.into(),
        Ok(_) => tried,
    }
}

/// The folder that holds `path`.
pub(crate) fn parent(path: &Path) -> Result<&Path, ArtifactError> {
    match (path.file_name(), path.parent()) {
        (Some(_), Some(folder)) if folder.as_os_str().is_empty() => Ok(Path::new(".")),
        (Some(_), Some(folder)) => Ok(folder),
        _ => Err(ArtifactError::NoFileName { path: path.to_path_buf() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failing_writer_leaves_the_old_content_and_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.json");
        write_bytes(&path, b"old").unwrap();
        let failed = write(&path, |out| {
            out.write_all(&[b'x'; 100_000])?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        let message = failed.unwrap_err().to_string();
        assert!(message.contains("metrics.json") && message.contains("free some space"), "{message}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["metrics.json"]);
    }

    #[test]
    fn a_failed_rename_leaves_the_old_content_and_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        let file = DurableFile::create(&path).unwrap();
        fs::create_dir(&path).unwrap();
        write_bytes(path.join("inside"), b"old").unwrap();
        assert!(matches!(file.commit(), Err(ArtifactError::Io { action: "rename into place", .. })));
        let early = DurableFile::create(&path).map(drop).unwrap_err().to_string();
        assert!(early.contains("a folder stands there"), "{early}");
        assert_eq!(fs::read(path.join("inside")).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_being_written_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = DurableFile::create(folder.path().join("file")).unwrap();
        file.write_all(&[7; 100_000]).unwrap();
        file.hash_on_disk().unwrap();
        // A file system that cannot do it would leave the temporary name here.
        assert_eq!(names(folder.path()), [""; 0]);
        file.write_all(&[8]).unwrap();
        assert_eq!(file.hash_on_disk().unwrap().1, 100_001);
        file.commit().unwrap();
        assert_eq!(names(folder.path()), ["file"]);
        let bytes = fs::read(folder.path().join("file")).unwrap();
        assert_eq!((bytes.len(), bytes[100_000]), (100_001, 8));
    }

    #[test]
    fn new_files_never_overwrite() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("object");
        let put = |bytes: &[u8]| {
            let mut file = DurableFile::create(&path)?;
            file.write_all(bytes).unwrap();
            assert_eq!(file.hash_on_disk()?, (Sha256::of(bytes), bytes.len() as u64));
            file.commit_new_read_only()
        };
        put(b"one").unwrap();
        assert!(matches!(put(b"two"), Err(ArtifactError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert!(fs::metadata(&path).unwrap().permissions().readonly());
        assert_eq!(names(folder.path()), ["object"]);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let message = write_bytes(folder.path().join("no/such/file"), b"").unwrap_err().to_string();
        assert!(message.contains("no/such") && message.contains("its folder must exist"), "{message}");
        assert!(!message.contains(TEMPORARY_PREFIX), "{message}");
        let message = read(&folder.path().join("none"), 1).unwrap_err().to_string();
        assert!(message.ends_with("; check the path"), "{message}");
        write_bytes(folder.path().join("file"), b"").unwrap();
        let message = write_bytes(folder.path().join("file/under"), b"").unwrap_err().to_string();
        assert!(message.contains("cannot create a file in") && message.contains("not a directory"), "{message}");
        assert!(matches!(write_bytes("/", b""), Err(ArtifactError::NoFileName { .. })));
    }

    #[test]
    fn reading_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_bytes(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert!(matches!(read(&path, 4), Err(ArtifactError::TooLarge { bytes: 5, limit: 4, .. })));
        // A plain file whose length says nothing.
        #[cfg(target_os = "linux")]
        assert!(matches!(read(Path::new("/proc/self/status"), 10), Err(ArtifactError::TooLarge { .. })));
    }

    #[test]
    fn sweeping_removes_the_unfinished_alone() {
        let folder = tempfile::tempdir().unwrap();
        write_bytes(folder.path().join("file"), b"").unwrap();
        write_bytes(folder.path().join(".tmp-file"), b"").unwrap();
        create_folder(&folder.path().join(".tmp-folder/deep")).unwrap();
        assert_eq!(sweep(folder.path()).unwrap(), 2);
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn folders_are_made_with_those_above() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        create_folder(&deep).unwrap();
        create_folder(&deep).unwrap();
        assert!(deep.is_dir());
        write_bytes(folder.path().join("file"), b"").unwrap();
        assert!(create_folder(&folder.path().join("file/below")).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_no_plain_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        for path in [pipe.as_path(), folder.path(), Path::new("/dev/zero")] {
            let error = read(path, 10).unwrap_err().to_string();
            assert!(error.contains("no plain file"), "{error}");
        }
    }
}
