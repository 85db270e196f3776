//! The original of a sealed sample: removed while it is that very file, and left alone otherwise.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bellwether_artifact::Sha256;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::sample::{birth, entry, open_entry};
use super::{QuarantineId, SampleIdentity};

/// What became of the original.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "original", rename_all = "snake_case")]
pub enum Removal {
    /// It is gone, by this call.
    Removed {
        /// Hard links to the same content under other names, which are still there.
        other_names: u64,
    },
    /// It was gone already.
    Gone,
    /// It is still there, and the sealed copy is too. May be tried again.
    Kept {
        /// Why.
        why: String,
    },
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Removal::Removed { other_names: 0 } => f.write_str("the file is removed"),
            Removal::Removed { other_names } => {
                write!(f, "the file is removed, and {other_names} hard links to it are left under other names")
            }
            Removal::Gone => f.write_str("the file was gone already"),
            Removal::Kept { why } => write!(f, "the file is still there: {why}"),
        }
    }
}

/// What the file is called within the folder that it is moved into.
const MOVED: &str = "sample";

/// Removes the entry `name` of `folder`, if it is the file that `identity` speaks of and still has its content.
///
/// Whoever may write to the folder can swap the file between a look and a removal. So it is moved first, into a folder that only
/// this user can enter, and looked at there; if it is another one, it is moved back. A call that died on the way is taken up again.
pub(super) fn remove(folder: BorrowedFd<'_>, name: &OsString, identity: &SampleIdentity, id: QuarantineId) -> Removal {
    let kept = |why: String| Removal::Kept { why };
    let aside_name = OsString::from(format!(".tmp-quarantine-{:.16}", id.to_string()));
    let aside = match make_aside(folder, &aside_name) {
        Ok(aside) => aside,
        Err(why) => return kept(format!("nothing can be moved in its folder: {why}")),
    };
    let moved = OsString::from(MOVED);
    let outcome = move_and_remove(folder, name, aside.as_fd(), &moved, identity);
    // Fails where something was left in it, which is then still there to be found.
    let _ = rustix::fs::unlinkat(folder, aside_name.as_os_str(), AtFlags::REMOVEDIR);
    let synced = open_entry_of_folder(folder).and_then(|folder| rustix::fs::fsync(&folder));
    match (outcome, synced) {
        (Removal::Removed { .. }, Err(error)) => kept(format!("its removal was not forced to disk: {error}")),
        (outcome, _) => outcome,
    }
}

fn move_and_remove(
    folder: BorrowedFd<'_>,
    name: &OsString,
    aside: BorrowedFd<'_>,
    moved: &OsString,
    identity: &SampleIdentity,
) -> Removal {
    let kept = |why: String| Removal::Kept { why };
    if entry(aside, moved).is_err() {
        match entry(folder, name) {
            Err(Errno::NOENT) => return Removal::Gone,
            Err(error) => return kept(format!("it cannot be looked at: {error}")),
            Ok(found) if !is_same(&found, identity) => return kept(OTHER.to_owned()),
            Ok(_) => {}
        }
        match rustix::fs::renameat_with(folder, name.as_os_str(), aside, moved.as_os_str(), RenameFlags::NOREPLACE) {
            Err(Errno::NOENT) => return Removal::Gone,
            Err(error) => return kept(format!("it cannot be moved: {error}")),
            Ok(()) => {}
        }
    }
    let other_names = match examine(aside, moved, identity) {
        Ok(links) => links.saturating_sub(1),
        Err(why) => return put_back(folder, name, aside, moved, why),
    };
    match rustix::fs::unlinkat(aside, moved.as_os_str(), AtFlags::empty()) {
        Ok(()) => Removal::Removed { other_names },
        Err(error) => put_back(folder, name, aside, moved, format!("it cannot be removed: {error}")),
    }
}

const OTHER: &str = "another file stands under its name now";

/// Whether the moved file is the sample, and how many names it has.
fn examine(aside: BorrowedFd<'_>, moved: &OsString, identity: &SampleIdentity) -> Result<u64, String> {
    let unread = |error: Errno| format!("it cannot be read: {error}");
    let found = entry(aside, moved).map_err(unread)?;
    if !is_same(&found, identity) {
        return Err(OTHER.to_owned());
    }
    let file = open_entry(aside, moved).map_err(unread)?;
    // Without a time of birth on either side, device, inode and content must do.
    if birth(file.as_fd()).zip(identity.times.born).is_some_and(|(found, known)| found != known) {
        return Err(OTHER.to_owned());
    }
    let hashed = Sha256::of_reader(File::from(file)).map_err(|error| format!("it cannot be read: {error}"))?;
    if hashed != (identity.sha256, identity.bytes) {
        return Err("its content was changed since it was judged".to_owned());
    }
    Ok(found.st_nlink)
}

fn put_back(folder: BorrowedFd<'_>, name: &OsString, aside: BorrowedFd<'_>, moved: &OsString, why: String) -> Removal {
    let back = rustix::fs::renameat_with(aside, moved.as_os_str(), folder, name.as_os_str(), RenameFlags::NOREPLACE);
    match back {
        Ok(()) => Removal::Kept { why },
        Err(error) => Removal::Kept { why: format!("{why}; it lies in a folder .tmp-quarantine-* beside: {error}") },
    }
}

fn is_same(found: &Stat, identity: &SampleIdentity) -> bool {
    (found.st_dev, found.st_ino) == (identity.device, identity.inode)
}

/// A folder that only this user can enter; one that a call that died has left is fine.
fn make_aside(folder: BorrowedFd<'_>, name: &OsString) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(folder, name.as_os_str(), Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let aside = rustix::fs::openat(folder, name.as_os_str(), flags, Mode::empty())?;
    let found = rustix::fs::fstat(&aside)?;
    let private = found.st_uid == rustix::process::geteuid().as_raw() && found.st_mode & 0o077 == 0;
    if private { Ok(aside) } else { Err(Errno::EXIST) }
}

/// The folder, opened in a way that it can be forced to disk.
fn open_entry_of_folder(folder: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(folder, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
