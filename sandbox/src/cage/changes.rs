//! What a sample left behind: what it created, changed and deleted, read after its death.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::ops::Bound;
use std::os::fd::OwnedFd;

use bellwether_artifact::Sha256;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Enclosure, Placed};

/// What differs from the files that were placed. Paths are as the sample saw them; bytes that are no UTF-8 stand as U+FFFD.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Changes {
    /// What was not there before, folders left out, by path.
    pub created: Vec<Found>,
    /// Placed files whose content, permissions or kind are others now, by path.
    pub changed: Vec<Found>,
    /// Placed files that are gone, by path.
    pub deleted: Vec<String>,
    /// What could not be looked at, and is in none of the lists, nor is what was placed below it; a placed file that cannot be read
    /// counts as changed.
    pub left_out: LeftOut,
}

/// One thing that lies in a folder that the sample could write to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Found {
    /// Its path, as the sample saw it.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its permissions, the last twelve bits of its mode.
    pub mode: u32,
    /// Hash of its content; none if it is no regular file, or too long.
    pub sha256: Option<Sha256>,
    /// Its content, if it was asked for and within the bounds.
    #[serde(skip)]
    pub content: Option<Vec<u8>>,
}

/// Kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// A socket, FIFO or device.
    Special,
}

/// What was not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LeftOut {
    /// Folders more than [`MOST_DEPTH`] below.
    pub too_deep: u64,
    /// Files and folders that could not be opened or read.
    pub unreadable: u64,
    /// Files beyond the number that is listed, or whose paths would be too long.
    pub beyond: u64,
}

/// How much is read and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Files that are listed at most, those that were placed aside.
    pub files: u64,
    /// Length of a path that is listed, at most, in bytes.
    pub path_bytes: usize,
    /// What all these paths take where JSON writes them, in bytes.
    pub paths_in_all_bytes: usize,
    /// Longest file that is hashed, in bytes.
    pub hashed_bytes: u64,
    /// Bytes that are read in all.
    pub read_bytes: u64,
    /// Longest file whose content is kept, in bytes; 0 for none.
    pub kept_bytes: u64,
    /// Content that is kept in all, in bytes.
    pub kept_in_all_bytes: u64,
}

/// Deepest folder that is looked into, counted from where it is mounted.
pub const MOST_DEPTH: usize = 128;

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            files: 20_000,
            // The kernel takes no longer one.
            path_bytes: 4096,
            paths_in_all_bytes: 4 << 20,
            hashed_bytes: 64 << 20,
            read_bytes: 1 << 30,
            kept_bytes: 1 << 20,
            kept_in_all_bytes: 16 << 20,
        }
    }
}

impl Enclosure {
    /// Compares what lies in the folders that the sample could write to, scratch among them, with what was placed there. The
    /// sample must be dead.
    pub fn changes(&self, placed: &[Placed], bounds: &Bounds) -> Changes {
        let placed: BTreeMap<&str, &Placed> = placed.iter().map(|file| (file.path.as_str(), file)).collect();
        let mut walk = Walk { placed, bounds: *bounds, made: Changes::default() };
        let mut there = BTreeSet::new();
        for (path, folder) in self.kept().iter().chain(self.scratch()) {
            walk.folder(path, folder, 0, &mut there);
        }
        let Walk { placed, mut made, .. } = walk;
        made.deleted = placed.keys().filter(|path| !there.contains(**path)).map(|path| (*path).to_owned()).collect();
        made.created.sort_by(|a, b| a.path.cmp(&b.path));
        made.changed.sort_by(|a, b| a.path.cmp(&b.path));
        made
    }
}

struct Walk<'a> {
    placed: BTreeMap<&'a str, &'a Placed>,
    bounds: Bounds,
    made: Changes,
}

impl Walk<'_> {
    fn folder(&mut self, path: &str, folder: &OwnedFd, depth: usize, there: &mut BTreeSet<String>) {
        let Ok(entries) = Dir::read_from(folder) else {
            self.made.left_out.unreadable += 1;
            return self.unseen(path, there);
        };
        let mut names: Vec<std::ffi::CString> = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Ok(entry) => names.push(entry.file_name().to_owned()),
                Err(_) => {
                    self.made.left_out.unreadable += 1;
                    self.unseen(path, there);
                }
            }
        }
        names.sort_unstable();
        for name in names {
            let path = format!("{path}/{}", name.to_string_lossy());
            let Ok(facts) = rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW) else {
                self.made.left_out.unreadable += 1;
                self.unseen(&path, there);
                self.seen_at(&path, there);
                continue;
            };
            let kind = match FileType::from_raw_mode(facts.st_mode) {
                FileType::Directory => {
                    match opened(folder, &name, OFlags::DIRECTORY, 0o755) {
                        _ if depth + 1 > MOST_DEPTH => {
                            self.made.left_out.too_deep += 1;
                            self.unseen(&path, there);
                        }
                        Ok(inner) => self.folder(&path, &inner, depth + 1, there),
                        Err(_) => {
                            self.made.left_out.unreadable += 1;
                            self.unseen(&path, there);
                        }
                    }
                    continue;
                }
                FileType::RegularFile => Kind::File,
                FileType::Symlink => Kind::Link,
                _ => Kind::Special,
            };
            if !self.takes(&path) {
                self.made.left_out.beyond += 1;
                continue;
            }
            self.seen_at(&path, there);
            let mode = facts.st_mode & 0o7777;
            let bytes = facts.st_size.max(0) as u64;
            let mut found = Found { path, kind, bytes, mode, sha256: None, content: None };
            if kind == Kind::File && self.read(folder, &name, &mut found).is_err() {
                self.made.left_out.unreadable += 1;
            }
            match self.placed.get(found.path.as_str()) {
                None => self.made.created.push(found),
                Some(placed) => {
                    let same = found.sha256.is_some_and(|hash| hash == Sha256::of(&placed.bytes));
                    if !same || mode != placed.mode & 0o777 {
                        self.made.changed.push(found);
                    }
                }
            }
        }
    }

    /// Whether a path is listed. What was placed always is, so that nothing hides what was done to it.
    fn takes(&mut self, path: &str) -> bool {
        if self.placed.contains_key(path) {
            return true;
        }
        let written: usize = path
            .bytes()
            .map(|byte| match byte {
                ..b' ' | 0x7f => r"\u0000".len(),
                b'"' | b'\\' => 2,
                _ => 1,
            })
            .sum();
        let Bounds { files, path_bytes, paths_in_all_bytes, .. } = &mut self.bounds;
        let takes = *files > 0 && path.len() <= *path_bytes && written <= *paths_in_all_bytes;
        if takes {
            *files -= 1;
            *paths_in_all_bytes -= written;
        }
        takes
    }

    /// What was placed at a path is there.
    fn seen_at(&self, path: &str, there: &mut BTreeSet<String>) {
        if self.placed.contains_key(path) {
            there.insert(path.to_owned());
        }
    }

    /// What was placed below a folder may be there or not.
    fn unseen(&self, path: &str, there: &mut BTreeSet<String>) {
        let inside = format!("{path}/");
        let from = (Bound::Included(inside.as_str()), Bound::Unbounded);
        let placed = self.placed.range::<str, _>(from).map(|(path, _)| *path);
        there.extend(placed.take_while(|path| path.starts_with(&inside)).map(str::to_owned));
    }

    /// Hashes a file, and keeps its content if it is short.
    fn read(&mut self, folder: &OwnedFd, name: &CStr, found: &mut Found) -> Result<(), Errno> {
        if found.bytes > self.bounds.hashed_bytes.min(self.bounds.read_bytes) {
            return Ok(());
        }
        // Not to be held up by a FIFO that took the file's place.
        let file = opened(folder, name, OFlags::NONBLOCK, 0o644)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        self.bounds.read_bytes -= found.bytes;
        let io = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let file = File::from(file).take(found.bytes);
        if found.bytes <= self.bounds.kept_bytes.min(self.bounds.kept_in_all_bytes) {
            self.bounds.kept_in_all_bytes -= found.bytes;
            let mut content = Vec::new();
            { file }.read_to_end(&mut content).map_err(io)?;
            found.sha256 = Some(Sha256::of(&content));
            found.content = Some(content);
        } else {
            found.sha256 = Some(Sha256::of_reader(file).map_err(io)?.0);
        }
        Ok(())
    }
}

/// Opens what lies in a folder. The sample may have taken away the permission; it is dead, and what it left goes with it, so the
/// permission is given again where that may be done.
fn opened(folder: &OwnedFd, name: &CStr, flags: OFlags, mode: u32) -> Result<OwnedFd, Errno> {
    below(folder, name, flags).or_else(|error| {
        if error != Errno::ACCESS {
            return Err(error);
        }
        rustix::fs::chmodat(folder, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
        below(folder, name, flags)
    })
}

/// Opens what lies in a folder and nowhere else, whatever it is called and wherever it points.
fn below(folder: &OwnedFd, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(folder, name, flags, Mode::empty(), resolve)
}
