//! Files by content: what goes in is hashed on disk before it counts, never changes, and leaves only when no manifest
//! refers to it.
//!
//! ```text
//! STORE/objects/ab/cdef...   one file per content, mode 0444, named by its SHA-256
//! STORE/quarantine/          files on their way in, and objects that no longer fit their name
//! STORE/lock                 shared by sessions, exclusive for the collection of garbage
//! ```

mod references;

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use bellwether_artifact::durable::{self, DurableFile};
use bellwether_artifact::{ArtifactError, Sha256};
use serde::Serialize;

use crate::RegistryError;
use crate::lock::{FileLock, Mode};

pub use references::References;

/// A folder of files by content.
#[derive(Clone, Debug)]
pub struct ArtifactStore {
    root: PathBuf,
}

/// The right to put and get: while one exists, nothing is collected. Keep it from the first `put` until the manifest that
/// refers to the object is written.
#[derive(Debug)]
pub struct StoreSession<'a> {
    store: &'a ArtifactStore,
    _lock: FileLock,
}

/// What a collection of garbage removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Whether nothing was really removed.
    pub dry_run: bool,
    /// Objects that are referred to.
    pub kept: u64,
    /// Objects without a reference and their lengths in bytes, by hash.
    pub removed: Vec<(Sha256, u64)>,
    /// Unfinished or set-aside files in quarantine that went too.
    pub quarantined: u64,
}

impl Collected {
    /// Length of everything in [`removed`](Collected::removed) together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.removed.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl ArtifactStore {
    /// Opens the store in `root`, which is made where it is missing.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where the folders cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<ArtifactStore, RegistryError> {
        let root = root.into();
        let store = ArtifactStore { root };
        durable::create_folder(&store.objects())?;
        durable::create_folder(&store.quarantine())?;
        Ok(store)
    }

    /// Begins a session, waiting some seconds for a collection to end.
    ///
    /// # Errors
    /// [`RegistryError::Busy`] where a collection takes longer.
    pub fn session(&self) -> Result<StoreSession<'_>, RegistryError> {
        Ok(StoreSession { store: self, _lock: FileLock::take(&self.root.join("lock"), Mode::Shared)? })
    }

    /// Removes every object that `references` does not hold; with `dry_run` only tells which.
    ///
    /// # Errors
    /// [`RegistryError::Busy`] while any session is open, [`RegistryError::Artifact`] where a file cannot be removed.
    pub fn collect(&self, references: &References, dry_run: bool) -> Result<Collected, RegistryError> {
        let _lock = FileLock::try_take(&self.root.join("lock"), Mode::Exclusive)?;
        let mut collected = Collected { dry_run, ..Collected::default() };
        for (hash, bytes) in self.list()? {
            if references.count(&hash) > 0 {
                collected.kept += 1;
                continue;
            }
            if !dry_run {
                durable::remove_file(&self.object(&hash))?;
            }
            collected.removed.push((hash, bytes));
        }
        for path in files_in(&self.quarantine())? {
            if !dry_run {
                durable::remove_file(&path)?;
            }
            collected.quarantined += 1;
        }
        Ok(collected)
    }

    /// Every object with its length in bytes, by hash.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where a folder cannot be read.
    pub fn list(&self) -> Result<Vec<(Sha256, u64)>, RegistryError> {
        let mut found = Vec::new();
        for folder in entries(&self.objects())? {
            for path in files_in(&folder)? {
                let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
                let digits = name(&folder).unwrap_or_default() + &name(&path).unwrap_or_default();
                // A name that is no hash is nobody's object; it is neither served nor removed.
                if let Ok(hash) = digits.parse() {
                    let length = fs::metadata(&path).map_err(|source| ArtifactError::io("look at", &path, source))?;
                    found.push((hash, length.len()));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    fn object(&self, hash: &Sha256) -> PathBuf {
        let digits = hash.to_string();
        self.objects().join(&digits[..2]).join(&digits[2..])
    }
}

impl StoreSession<'_> {
    /// Puts in everything that `reader` yields; content that is there already is not stored twice.
    ///
    /// The bytes go to quarantine, are forced to disk, read back from there and hashed again; only when both hashes agree
    /// does the file become an object.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where reading or writing fails, or the disk gave back other bytes than it was given.
    pub fn put(&self, reader: impl Read) -> Result<Sha256, RegistryError> {
        self.put_checked(reader, None)
    }

    /// As [`put`](StoreSession::put), for content whose hash is known beforehand.
    ///
    /// # Errors
    /// As [`put`](StoreSession::put), and [`ArtifactError::HashMismatch`] where the content is another one; nothing is
    /// stored then.
    pub fn put_expected(&self, reader: impl Read, expected: Sha256) -> Result<(), RegistryError> {
        self.put_checked(reader, Some(expected)).map(drop)
    }

    fn put_checked(&self, reader: impl Read, expected: Option<Sha256>) -> Result<Sha256, RegistryError> {
        let quarantine = self.store.quarantine();
        // The final name is not known before the content is, so it is spooled under a provisional one.
        let mut spool = DurableFile::create_in(&quarantine, quarantine.join("incoming"))?;
        let copied = {
            let mut tee = Tee { reader, copy: &mut spool };
            Sha256::of_reader(&mut tee)
        };
        let (given, _) = copied.map_err(|source| ArtifactError::io("write into", &quarantine, source))?;
        let (on_disk, _) = spool.hash_on_disk()?;
        let expected = expected.unwrap_or(given);
        for found in [given, on_disk] {
            if found != expected {
                return Err(ArtifactError::HashMismatch { path: quarantine, expected, found }.into());
            }
        }
        let path = self.store.object(&given);
        if let Some(folder) = path.parent() {
            durable::create_folder(folder)?;
        }
        spool.rename_to(path);
        match spool.commit_new_read_only() {
            // The same content under the same name is what was wanted.
            Err(ArtifactError::Exists { .. }) => Ok(given),
            other => other.map(|()| given).map_err(RegistryError::from),
        }
    }

    /// Whether the store holds this content; it is not looked at.
    pub fn contains(&self, hash: &Sha256) -> bool {
        self.store.object(hash).is_file()
    }

    /// The content of an object of at most `limit` bytes, checked against its hash.
    ///
    /// # Errors
    /// [`RegistryError::UnknownObject`], or [`RegistryError::Artifact`] where it is larger, unreadable or damaged.
    pub fn get(&self, hash: &Sha256, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let path = self.known(hash)?;
        let bytes = durable::read(&path, limit)?;
        let found = Sha256::of(&bytes);
        if found != *hash {
            return Err(ArtifactError::HashMismatch { path, expected: *hash, found }.into());
        }
        Ok(bytes)
    }

    /// An object opened for streaming, its whole content checked against its hash beforehand.
    ///
    /// # Errors
    /// As [`get`](StoreSession::get).
    pub fn open(&self, hash: &Sha256) -> Result<File, RegistryError> {
        let path = self.known(hash)?;
        let io = |source| ArtifactError::io("read", &path, source);
        let mut file = File::open(&path).map_err(io)?;
        let (found, _) = Sha256::of_reader(&mut file).map_err(io)?;
        if found != *hash {
            return Err(ArtifactError::HashMismatch { path, expected: *hash, found }.into());
        }
        file.rewind().map_err(io)?;
        Ok(file)
    }

    /// Re-hashes every object; those that no longer fit their name, by hash. They stay where they are.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where a folder cannot be read.
    pub fn damaged(&self) -> Result<Vec<Sha256>, RegistryError> {
        let objects = self.store.list()?;
        let fits = |hash: &Sha256| durable::hash_file(&self.store.object(hash)).is_ok_and(|(found, _)| found == *hash);
        Ok(objects.into_iter().map(|(hash, _)| hash).filter(|hash| !fits(hash)).collect())
    }

    /// Moves a damaged object into quarantine, so that its content can be put in again.
    ///
    /// # Errors
    /// [`RegistryError::UnknownObject`], or [`RegistryError::Artifact`] where it cannot be moved.
    pub fn set_aside(&self, hash: &Sha256) -> Result<(), RegistryError> {
        let path = self.known(hash)?;
        let aside = self.store.quarantine().join(hash.to_string());
        fs::rename(&path, &aside).map_err(|source| ArtifactError::io("set aside", &path, source))?;
        durable::sync_folder(&self.store.quarantine())?;
        Ok(())
    }

    fn known(&self, hash: &Sha256) -> Result<PathBuf, RegistryError> {
        let path = self.store.object(hash);
        if path.is_file() {
            return Ok(path);
        }
        Err(RegistryError::UnknownObject { root: self.store.root.clone(), hash: *hash })
    }
}

/// Copies what is read.
struct Tee<'a, R> {
    reader: R,
    copy: &'a mut DurableFile,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.copy.write_all(&buffer[..count])?;
        Ok(count)
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, RegistryError> {
    let failed = |source| ArtifactError::io("read the folder", folder, source);
    let paths: io::Result<Vec<PathBuf>> =
        fs::read_dir(folder).map_err(failed)?.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(failed)?;
    paths.sort();
    Ok(paths)
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>, RegistryError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    Ok(entries(folder)?.into_iter().filter(|path| path.is_file()).collect())
}
