//! A file of lines that is replaced by a new one when it is full or old.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// When a log file is put aside, and how many of those are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rotation {
    /// A file is put aside before it would grow past this.
    pub max_bytes: u64,
    /// A file is put aside when it is older than this, in seconds.
    pub max_age_seconds: u64,
    /// Files that are kept beside the one being written; older ones are removed.
    pub keep: usize,
}

/// A file for the service log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceLogConfig {
    /// The file; it and those that were put aside are for their owner alone.
    pub path: PathBuf,
    /// When a file is put aside.
    #[serde(default)]
    pub rotation: Rotation,
}

/// Lines, appended to a file that nobody but its owner may read, and that one process alone writes.
///
/// A file that is put aside gets the time and a number into its name: `decisions.jsonl` becomes
/// `decisions-20261121T101500Z-0.jsonl`. What is written in one call stays in one file.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    bytes: u64,
    born: SystemTime,
    /// Whether the last write ended within a line.
    torn: bool,
    rotations: u64,
    /// Why the file cannot be put aside, until somebody asks; told once until it works again.
    stuck: Option<io::Error>,
    is_stuck: bool,
}

/// Why a log file was not opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogFileError {
    /// The limits are beyond what makes sense.
    #[error("{field} of a log is {value}: give one from {low} to {high}")]
    Rotation {
        /// The field.
        field: &'static str,
        /// What it is.
        value: u64,
        /// The smallest that is taken.
        low: u64,
        /// The largest that is taken.
        high: u64,
    },
    /// The path ends in no file name, or in one that is not UTF-8.
    #[error("{} is no name of a log file: name a file in a folder that exists", path.display())]
    Name {
        /// The path.
        path: PathBuf,
    },
    /// Another process writes to this file.
    #[error("{} is being written by another process: give each its own log", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// What stands under the name is a link, a folder or a device.
    #[error("{} is no regular file: move it away or log elsewhere", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file was not opened or not read.
    #[error("cannot open the log {}: the folder must exist and be writable", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system gave no thread.
    #[error("cannot start the thread of a log: let the service have more threads or memory")]
    Thread(#[source] io::Error),
}

impl Default for Rotation {
    /// 64 MiB, a day, 14 files.
    fn default() -> Self {
        Rotation { max_bytes: 64 << 20, max_age_seconds: 24 * 3_600, keep: 14 }
    }
}

impl Rotation {
    /// Refuses what would rotate at every line, never, or fill a folder.
    ///
    /// # Errors
    /// [`LogFileError::Rotation`] names the field.
    pub fn check(&self) -> Result<(), LogFileError> {
        let fields = [
            ("max_bytes", self.max_bytes, 4 << 10, 1 << 40),
            ("max_age_seconds", self.max_age_seconds, 1, 366 * 24 * 3_600),
            ("keep", self.keep as u64, 1, 10_000),
        ];
        match fields.into_iter().find(|(_, value, low, high)| !(low..=high).contains(&value)) {
            Some((field, value, low, high)) => Err(LogFileError::Rotation { field, value, low, high }),
            None => Ok(()),
        }
    }
}

impl LogFile {
    /// Opens the file for appending, or makes it. What stands in it is kept; a last line that was cut off is ended.
    ///
    /// # Errors
    /// Limits out of range, a file that another process writes, something that is no file, or what the system says.
    pub fn open(path: &Path, rotation: Rotation, now: SystemTime) -> Result<Self, LogFileError> {
        rotation.check()?;
        split_name(path).ok_or_else(|| LogFileError::Name { path: path.to_owned() })?;
        let file = open_locked(path)?;
        let failed = |source| LogFileError::Open { path: path.to_owned(), source };
        let bytes = file.metadata().map_err(failed)?.len();
        let torn = ends_within_a_line(&file, bytes).map_err(failed)?;
        // Systems that do not tell when a file was made count its age from here.
        let born = file.metadata().and_then(|data| data.created()).unwrap_or(now);
        Ok(LogFile {
            path: path.to_owned(),
            rotation,
            file,
            bytes,
            born,
            torn,
            rotations: 0,
            stuck: None,
            is_stuck: false,
        })
    }

    /// Appends whole lines, after putting the file aside where it is too old or would grow too large. A file that cannot be
    /// put aside is written on; [`LogFile::stuck`] says why.
    ///
    /// # Errors
    /// What the system says; some of the lines may then be in the file.
    pub fn append(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()> {
        let full = self.bytes.saturating_add(lines.len() as u64) > self.rotation.max_bytes;
        let old = now.duration_since(self.born).is_ok_and(|age| age > self.max_age());
        if self.bytes > 0 && (full || old) {
            let failure = self.rotate(now).err();
            let again = std::mem::replace(&mut self.is_stuck, failure.is_some());
            self.stuck = failure.filter(|_| !again);
        }
        if self.torn {
            self.file.write_all(b"\n")?;
            self.bytes += 1;
            self.torn = false;
        }
        if let Err(error) = self.file.write_all(lines) {
            // How much of it was written is not known, so the file is asked.
            self.bytes = self.file.metadata().map_or(self.bytes, |data| data.len());
            self.torn = true;
            return Err(error);
        }
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Why the file could not be put aside at the last write: said once, and again after it had worked in between.
    pub fn stuck(&mut self) -> Option<io::Error> {
        self.stuck.take()
    }

    /// Whether the file could not be put aside at the last write that it should have been.
    pub fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    /// How many files were put aside since this one was opened.
    pub fn rotations(&self) -> u64 {
        self.rotations
    }

    fn max_age(&self) -> Duration {
        Duration::from_secs(self.rotation.max_age_seconds)
    }

    fn rotate(&mut self, now: SystemTime) -> io::Result<()> {
        let aside = self.next_name(now)?;
        fs::rename(&self.path, &aside)?;
        match open_locked(&self.path) {
            Ok(file) => self.file = file,
            Err(error) => {
                // The old file is written on under its old name, so that nothing is lost.
                fs::rename(&aside, &self.path)?;
                return Err(io::Error::other(error));
            }
        }
        (self.bytes, self.born, self.torn) = (0, now, false);
        self.rotations += 1;
        self.remove_oldest()
    }

    /// A name that comes after those of all that was put aside before, also where the clock was set back.
    fn next_name(&self, now: SystemTime) -> io::Result<PathBuf> {
        let stamp: String =
            humantime::format_rfc3339_seconds(now).to_string().chars().filter(|c| !matches!(c, '-' | ':')).collect();
        let (stamp, number) = match ordered(&self.path)?.pop() {
            Some(((last, number), _)) if last >= stamp => (last, number.saturating_add(1)),
            _ => (stamp, 0),
        };
        let (stem, extension) = split_name(&self.path).unwrap_or_default();
        Ok(self.path.with_file_name(format!("{stem}-{stamp}-{number}{extension}")))
    }

    /// Removes the oldest of the files that were put aside, until no more are left than are kept.
    fn remove_oldest(&self) -> io::Result<()> {
        let mut aside = put_aside(&self.path)?;
        let surplus = aside.len().saturating_sub(self.rotation.keep);
        aside.drain(..surplus).try_for_each(fs::remove_file)
    }
}

/// Files that were put aside for the log at `path`, the oldest first.
///
/// # Errors
/// What the system says of the folder.
pub fn put_aside(path: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(ordered(path)?.into_iter().map(|(_, path)| path).collect())
}

/// Time and number in a name.
type Order = (String, u32);

fn ordered(path: &Path) -> io::Result<Vec<(Order, PathBuf)>> {
    let (stem, extension) = split_name(path).unwrap_or_default();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let middle = name.to_str().and_then(|name| name.strip_prefix(stem)?.strip_suffix(extension));
        if let Some(order) = middle.and_then(order_of) {
            found.push((order, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Time and number in the middle of a name such as `-20261121T101500Z-0`.
fn order_of(middle: &str) -> Option<Order> {
    let (stamp, number) = middle.strip_prefix('-')?.split_once('-')?;
    let shape = stamp.chars().map(|c| if c.is_ascii_digit() { '0' } else { c });
    (shape.eq("00000000T000000Z".chars())).then_some(())?;
    let plain = number == "0" || !number.starts_with(['0', '+']);
    Some((stamp.to_owned(), number.parse().ok().filter(|_| plain)?))
}

/// A file name before its last dot, and from there on.
fn split_name(path: &Path) -> Option<(&str, &str)> {
    let name = path.file_name()?.to_str()?;
    let dot = name.rfind('.').filter(|dot| *dot > 0).unwrap_or(name.len());
    Some(name.split_at(dot))
}

fn open_locked(path: &Path) -> Result<File, LogFileError> {
    let failed = |source| LogFileError::Open { path: path.to_owned(), source };
    // A link could lead the service to write elsewhere, and a pipe would make it wait for a reader.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600).custom_flags(flags.bits() as i32);
    let file = options.open(path).map_err(|error| match fs::symlink_metadata(path) {
        Ok(data) if !data.is_file() => LogFileError::NotAFile { path: path.to_owned() },
        _ => failed(error),
    })?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(LogFileError::NotAFile { path: path.to_owned() });
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(LogFileError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    // A file that stood before may be open to others.
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(file)
}

fn ends_within_a_line(mut file: &File, bytes: u64) -> io::Result<bool> {
    if bytes == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::Start(bytes - 1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000 + seconds)
    }

    fn rotation(max_bytes: u64, max_age_seconds: u64, keep: usize) -> Rotation {
        Rotation { max_bytes, max_age_seconds, keep }
    }

    /// Everything that is kept, in the order it was written.
    fn kept(path: &Path) -> String {
        let mut files = put_aside(path).unwrap();
        files.push(path.to_owned());
        files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_line_is_lost_or_moved_and_no_file_grows_past_its_limits(
            writes in proptest::collection::vec((1_usize..3_000, 0_u64..40), 1..40),
            reopen in any::<proptest::sample::Index>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log.jsonl");
            let rotation = rotation(4_096, 100, 10_000);
            let mut log = LogFile::open(&path, rotation, at(0)).unwrap();
            // The system's clock says when a file was made, so that ages are told from the first rotation on.
            log.born = at(0);
            let (mut now, mut written, mut rotations) = (0, String::new(), 0);
            let reopened = reopen.index(writes.len());
            for (number, (length, wait)) in writes.iter().enumerate() {
                now += wait;
                let line = format!("{number} {}\n", "x".repeat(*length));
                log.append(line.as_bytes(), at(now)).unwrap();
                written += &line;
                prop_assert!(log.bytes <= 4_096 && at(now).duration_since(log.born).unwrap().as_secs() <= 100);
                if number == reopened {
                    let born = log.born;
                    rotations = log.rotations();
                    drop(log);
                    log = LogFile::open(&path, rotation, at(now)).unwrap();
                    log.born = born;
                }
            }
            rotations += log.rotations();
            prop_assert_eq!(put_aside(&path).unwrap().len() as u64, rotations);
            prop_assert_eq!(kept(&path), written);
        }
    }

    #[test]
    fn old_files_go_and_the_newest_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        for stranger in ["log-old.jsonl", "log-20300317T174640Z-0.txt", "log-20300317T174640Z-00.jsonl"] {
            OpenOptions::new().write(true).create_new(true).open(folder.path().join(stranger)).unwrap();
        }
        let mut log = LogFile::open(&path, rotation(4_096, 3_600, 3), at(0)).unwrap();
        for number in 0..20 {
            let line = format!("{number:<4000}\n");
            // Several in one second, and a clock that is set back once.
            log.append(line.as_bytes(), at([5, 6, 4, 7][number / 5])).unwrap();
        }
        let lines: Vec<usize> = kept(&path).lines().map(|line| line.trim().parse().unwrap()).collect();
        assert_eq!((lines, log.rotations()), (vec![16, 17, 18, 19], 19));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3 + 3 + 1);
    }

    #[test]
    fn a_line_that_was_cut_off_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = OpenOptions::new().append(true).create_new(true).open(&path).unwrap();
        file.write_all(b"whole\ncut o").unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o644)).unwrap();
        let mut log = LogFile::open(&path, Rotation::default(), at(0)).unwrap();
        let now = log.born;
        log.append(b"next\n", now).unwrap();
        assert_eq!(kept(&path), "whole\ncut o\nnext\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_cannot_be_put_aside_is_written_on() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let path = inner.join("log");
        let mut log = LogFile::open(&path, rotation(4_096, 3_600, 3), at(0)).unwrap();
        let moved = folder.path().join("moved");
        log.append(&[b'a'; 4_000], at(0)).unwrap();
        fs::rename(&inner, &moved).unwrap();
        for first in [true, false] {
            log.append(b"\nb\n".repeat(99).as_slice(), at(1)).unwrap();
            assert_eq!((log.stuck().is_some(), log.rotations()), (first, 0));
        }
        fs::rename(&moved, &inner).unwrap();
        log.append(b"c\n", at(1)).unwrap();
        assert_eq!((log.stuck().is_some(), log.rotations()), (false, 1));
        assert_eq!(kept(&path).len(), 4_000 + 2 * 99 * 3 + 2);
    }

    #[test]
    fn what_is_no_file_of_ours_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &Path| LogFile::open(path, Rotation::default(), at(0));
        let path = folder.path().join("log");
        let log = open(&path).unwrap();
        assert!(matches!(open(&path), Err(LogFileError::Locked { .. })));
        drop(log);
        assert!(open(&path).is_ok());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for path in [link.as_path(), folder.path(), Path::new("/dev/null")] {
            assert!(matches!(open(path), Err(LogFileError::NotAFile { .. })), "{}", path.display());
        }
        assert!(matches!(open(Path::new("/")), Err(LogFileError::Name { .. })));
        assert!(matches!(open(&folder.path().join("missing/log")), Err(LogFileError::Open { .. })));
        for refused in [rotation(4_095, 1, 1), rotation(1 << 41, 1, 1), rotation(4_096, 0, 1), rotation(4_096, 1, 0)] {
            assert!(matches!(LogFile::open(&path, refused, at(0)), Err(LogFileError::Rotation { .. })), "{refused:?}");
        }
    }
}
