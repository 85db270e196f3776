//! The folder that a loop works in.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use bellwether_env_adapter::EpisodeId;
use rustix::fs::{CWD, FallocateFlags, FlockOperation, RenameFlags};

/// A folder with an inbox and the places that files go to. One loop at a time has it.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    _lock: File,
}

/// A file that was taken from the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The episode that it was taken for.
    pub episode: EpisodeId,
    /// Where it lies now.
    pub path: PathBuf,
    /// Its name.
    pub name: OsString,
}

/// Where a file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Back to the inbox: nothing has happened to it.
    Inbox,
    /// It was found harmless.
    Released,
    /// It was convicted.
    Terminated,
    /// No verdict fell.
    Undecided,
    /// It is in the vault, or gone: nothing is to be moved, unless it is still there. Then it was convicted.
    Vault,
}

/// Why a folder cannot be worked in.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// Another loop has it.
    #[error("another loop works in {}: give it a folder of its own", folder.display())]
    Taken {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder or file cannot be had.
    #[error("cannot {what} {}: {cause}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
}

impl Place {
    fn folder(self) -> &'static str {
        match self {
            Place::Inbox => "inbox",
            Place::Released => "released",
            Place::Terminated | Place::Vault => "terminated",
            Place::Undecided => "undecided",
        }
    }
}

impl Folder {
    /// Opens a folder, and makes it and the places in it where they are missing.
    ///
    /// # Errors
    /// Another loop works there, or a folder cannot be made.
    pub fn open(root: &Path) -> Result<Folder, IntakeError> {
        for name in ["", "inbox", "work", "released", "terminated", "undecided", "episodes"] {
            let path = root.join(name);
            let made = DirBuilder::new().mode(0o700).recursive(true).create(&path);
            made.map_err(|cause| IntakeError::System { what: "make", path, cause })?;
        }
        let lock = File::open(root).map_err(|cause| failed("open", root, cause))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Folder { root: root.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(IntakeError::Taken { folder: root.to_owned() }),
            Err(error) => Err(failed("lock", root, error.into())),
        }
    }

    /// Where the files of episodes go.
    pub fn episodes(&self) -> PathBuf {
        self.root.join("episodes")
    }

    /// Whether the disk has room for an episode that needs `bytes` before it begins: as many can be had, and as many again are left
    /// for those that go on.
    pub fn has_room(&self, bytes: u64) -> bool {
        let folder = self.episodes();
        let free = rustix::fs::statvfs(&folder).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        // Quotas and the number of files are told by trying alone.
        free.is_ok_and(|free| free >= bytes.saturating_mul(2))
            && tempfile::tempfile_in(&folder).is_ok_and(|file| {
                let had = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes);
                // Some file systems cannot promise room.
                matches!(had, Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS))
            })
    }

    /// Files in the inbox, those that came first ahead, and beside them the names of what is no file. Names that begin with a dot
    /// are on their way.
    ///
    /// # Errors
    /// The inbox cannot be read.
    pub fn waiting(&self) -> Result<(Vec<OsString>, Vec<OsString>), IntakeError> {
        let inbox = self.root.join("inbox");
        let entries = fs::read_dir(&inbox).map_err(|cause| failed("read", &inbox, cause))?;
        let (mut files, mut odd) = (Vec::new(), Vec::new());
        for entry in entries {
            let name = entry.map_err(|cause| failed("read", &inbox, cause))?.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            match fs::symlink_metadata(inbox.join(&name)) {
                // A rename sets the time of change: that of arrival.
                Ok(file) if file.is_file() => files.push((file.ctime(), file.ctime_nsec(), name)),
                Ok(_) => odd.push(name),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(failed("look at", &inbox.join(name), cause)),
            }
        }
        files.sort();
        odd.sort();
        Ok((files.into_iter().map(|(_, _, name)| name).collect(), odd))
    }

    /// Takes a file from the inbox for an episode; nothing where it is gone.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn take(&self, name: &OsStr, episode: EpisodeId) -> Result<Option<Taken>, IntakeError> {
        self.bring(&self.root.join("inbox").join(name), name, episode)
    }

    /// What was in work when another loop ended.
    ///
    /// # Errors
    /// The folder of work cannot be read.
    pub fn left(&self) -> Result<Vec<Taken>, IntakeError> {
        let work = self.root.join("work");
        let read = |path: &Path| -> Result<Vec<(OsString, PathBuf)>, IntakeError> {
            let entries = fs::read_dir(path).map_err(|cause| failed("read", path, cause))?;
            let mut found = entries
                .map(|entry| entry.map(|entry| (entry.file_name(), entry.path())))
                .collect::<io::Result<Vec<_>>>()
                .map_err(|cause| failed("read", path, cause))?;
            found.sort();
            Ok(found)
        };
        let mut left = Vec::new();
        for (episode, folder) in read(&work)? {
            let files = read(&folder)?;
            if files.is_empty() {
                fs::remove_dir(&folder).map_err(|cause| failed("remove", &folder, cause))?;
            }
            let episode = EpisodeId(episode.to_string_lossy().into_owned());
            left.extend(files.into_iter().map(|(name, path)| Taken { episode: episode.clone(), path, name }));
        }
        Ok(left)
    }

    /// Takes a file that was in work already for another episode; nothing where it is gone.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn again(&self, taken: &Taken, episode: EpisodeId) -> Result<Option<Taken>, IntakeError> {
        let moved = self.bring(&taken.path, &taken.name, episode)?;
        self.clear(taken)?;
        Ok(moved)
    }

    /// Puts a file where it goes, under its name, or with the name of its episode behind that where it is given. Where it went;
    /// nothing for a file that is no longer there.
    ///
    /// # Errors
    /// It cannot be moved: it stays in work.
    pub fn settle(&self, taken: &Taken, place: Place) -> Result<Option<PathBuf>, IntakeError> {
        let folder = self.root.join(place.folder());
        let mut second = taken.name.clone();
        second.push(format!(".{}", taken.episode.0));
        let mut to = folder.join(&taken.name);
        let moved = match rename(&taken.path, &to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                to = folder.join(second);
                rename(&taken.path, &to)
            }
            moved => moved,
        };
        let there = match moved {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(cause) => return Err(failed("move", &taken.path, cause)),
        };
        sync(&folder)?;
        self.clear(taken)?;
        Ok(there.then_some(to))
    }

    fn bring(&self, from: &Path, name: &OsStr, episode: EpisodeId) -> Result<Option<Taken>, IntakeError> {
        let work = self.root.join("work");
        let folder = work.join(&episode.0);
        DirBuilder::new().mode(0o700).create(&folder).map_err(|cause| failed("make", &folder, cause))?;
        let path = folder.join(name);
        match rename(from, &path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::remove_dir(&folder).map_err(|cause| failed("remove", &folder, cause))?;
                return Ok(None);
            }
            Err(cause) => {
                // The first error is the one to tell.
                _ = fs::remove_dir(&folder);
                return Err(failed("move", from, cause));
            }
        }
        // Nothing runs before it is certain that the file lies in work.
        [&folder, &work].into_iter().try_for_each(|folder| sync(folder))?;
        Ok(Some(Taken { episode, path, name: name.to_owned() }))
    }

    fn clear(&self, taken: &Taken) -> Result<(), IntakeError> {
        let Some(folder) = taken.path.parent() else { return Ok(()) };
        match fs::remove_dir(folder) {
            Ok(()) => sync(&self.root.join("work")),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => Ok(()),
            Err(cause) => Err(failed("remove", folder, cause)),
        }
    }
}

/// Renames, and takes nobody's place.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems cannot say "only if there is nothing"; nobody else works in these folders.
        Err(rustix::io::Errno::INVAL) if fs::symlink_metadata(to).is_err() => fs::rename(from, to),
        Err(rustix::io::Errno::INVAL) => Err(io::ErrorKind::AlreadyExists.into()),
        renamed => renamed.map_err(io::Error::from),
    }
}

fn sync(folder: &Path) -> Result<(), IntakeError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|cause| failed("sync", folder, cause))
}

fn failed(what: &'static str, path: &Path, cause: io::Error) -> IntakeError {
    IntakeError::System { what, path: path.to_owned(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_artifact::durable;
    use proptest::prelude::*;

    fn episode(number: usize) -> EpisodeId {
        EpisodeId(format!("e{number}"))
    }

    #[test]
    fn a_folder_has_one_loop() {
        let root = tempfile::tempdir().unwrap();
        let first = Folder::open(root.path()).unwrap();
        assert!(matches!(Folder::open(root.path()), Err(IntakeError::Taken { .. })));
        drop(first);
        Folder::open(root.path()).unwrap();
    }

    #[test]
    fn what_is_on_its_way_or_no_file_stays_in_the_inbox() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(root.path()).unwrap();
        let inbox = root.path().join("inbox");
        durable::write_bytes(inbox.join(".coming"), b"x").unwrap();
        durable::write_bytes(inbox.join("there"), b"x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", inbox.join("link")).unwrap();
        fs::create_dir(inbox.join("folder")).unwrap();
        let (files, odd) = folder.waiting().unwrap();
        assert_eq!((files, odd), (vec!["there".into()], vec!["folder".into(), "link".into()]));
        assert_eq!(folder.take(OsStr::new("none"), episode(1)).unwrap(), None);
        assert_eq!(folder.left().unwrap(), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever is done with files, and whenever a loop is killed, each file is in one place, with what it held.
        #[test]
        fn no_file_is_lost_or_doubled(steps in prop::collection::vec((0usize..4, 0usize..5, 0usize..5), 1..40)) {
            let root = tempfile::tempdir().unwrap();
            let mut folder = Folder::open(root.path()).unwrap();
            let (mut made, mut next, mut work) = (0, 0, Vec::new());
            let places = [Place::Inbox, Place::Released, Place::Terminated, Place::Undecided, Place::Vault];
            for (step, which, place) in steps {
                next += 1;
                match step {
                    // The same few names again and again.
                    0 => {
                        let path = root.path().join("inbox").join(format!("f{which}"));
                        if !path.exists() {
                            durable::write_bytes(path, format!("{made}").as_bytes()).unwrap();
                            made += 1;
                        }
                    }
                    1 => {
                        let (files, _) = folder.waiting().unwrap();
                        if let Some(name) = files.get(which) {
                            work.push(folder.take(name, episode(next)).unwrap().unwrap());
                        }
                    }
                    2 if !work.is_empty() => {
                        let taken = work.remove(which % work.len());
                        prop_assert!(folder.settle(&taken, places[place]).unwrap().is_some());
                    }
                    // Killed, and begun again.
                    3 => {
                        drop(folder);
                        folder = Folder::open(root.path()).unwrap();
                        let mut left = folder.left().unwrap();
                        work.sort_by(|one, other| one.path.cmp(&other.path));
                        left.sort_by(|one, other| one.path.cmp(&other.path));
                        prop_assert_eq!(&left, &work);
                        work.clear();
                        for (at, taken) in left.iter().enumerate() {
                            let again = folder.again(taken, EpisodeId(format!("again{next}-{at}"))).unwrap();
                            work.push(again.unwrap());
                        }
                    }
                    _ => {}
                }
            }
            let mut held = Vec::new();
            let mut folders = vec![root.path().to_owned()];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() { folders.push(path) } else { held.push(fs::read_to_string(path).unwrap()) }
                }
            }
            held.sort_by_key(|text| text.parse::<usize>().unwrap());
            prop_assert_eq!(held, (0..made).map(|number| number.to_string()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_cannot_be_taken_leaves_no_folder() {
        use std::os::unix::fs::MetadataExt as _;
        let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let device = |path: &Path| fs::metadata(path).unwrap().dev();
        if device(root.path()) == device(other.path()) {
            eprintln!(
                "skipped what_cannot_be_taken_leaves_no_folder: /dev/shm and the folder of temporary files are one file system"
            );
            return;
        }
        let folder = Folder::open(root.path()).unwrap();
        fs::remove_dir(root.path().join("inbox")).unwrap();
        std::os::unix::fs::symlink(other.path(), root.path().join("inbox")).unwrap();
        durable::write_bytes(other.path().join("far"), b"x").unwrap();
        for number in 0..3 {
            assert!(folder.take(OsStr::new("far"), episode(number)).is_err());
        }
        assert_eq!(fs::read_dir(root.path().join("work")).unwrap().count(), 0);
    }
}
