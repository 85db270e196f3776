//! Reading a release that somebody else may be writing: each file once, from one open folder, and nothing from outside it.

use std::collections::VecDeque;
use std::fs::{self, Metadata};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bellwether_artifact::confined::ConfinedFolder;
use bellwether_artifact::keys::TrustedKeys;
use bellwether_artifact::release::{MANIFEST_FILE, ONNX_FILE, SIGNATURE_FILE};
use bellwether_artifact::signature::MAX_SIGNATURE_BYTES;
use bellwether_artifact::{ArtifactError, MAX_MANIFEST_BYTES, ModelManifest, Sha256};

use super::reason::Problem;
use super::{Reason, Wanted, WatchOptions};
use crate::model::{Contract, Expectation};
use crate::release::{LoadedRelease, check_release};

/// A release folder, open: whatever takes its name meanwhile, this one is read.
#[derive(Debug)]
pub(super) struct Folder(ConfinedFolder);

/// What a release looks like. Equal marks are taken for equal contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub wanted: Wanted,
    folder: Option<(u64, u64)>,
    files: [Option<Stamp>; 3],
    /// The SHA-256 of the files where their times alone do not tell: a file that changes twice within a tick of the clock has the
    /// same times and may have the same length.
    contents: Option<[Option<Sha256>; 3]>,
}

/// Marks whose contents had to be looked at, so that they are looked at no more than needed.
#[derive(Debug, Default)]
pub(super) struct Marks {
    read: VecDeque<Reading>,
}

/// What was found behind times that did not tell.
#[derive(Debug)]
struct Reading {
    mark: Mark,
    /// The files were read again when a later change would have got another time.
    for_good: bool,
}

/// What the system says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// When content, links or permissions changed, which nobody can set back.
    changed: (i64, i64),
}

/// Releases whose contents are remembered.
const REMEMBERED: usize = 64;

/// The coarsest tick of the clocks that file systems stamp changes with (FAT; one second on many network file systems, a few
/// milliseconds on others).
const TICK: Duration = Duration::from_secs(2);

/// The files whose change makes a release another one.
const FILES: [&str; 3] = [MANIFEST_FILE, ONNX_FILE, SIGNATURE_FILE];

impl Mark {
    /// What can be seen without reading.
    pub(super) fn of(wanted: &Wanted) -> Mark {
        use std::os::unix::fs::MetadataExt;
        let look = |path: &Path| fs::metadata(path).ok();
        let stamp = |data: Metadata| Stamp {
            device: data.dev(),
            inode: data.ino(),
            bytes: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        };
        Mark {
            folder: look(&wanted.folder).map(|data| (data.dev(), data.ino())),
            files: FILES.map(|name| look(&wanted.folder.join(name)).map(stamp)),
            wanted: wanted.clone(),
            contents: None,
        }
    }

    /// Whether a file may change without getting another time: the last change is not a tick ago. A change that seems to come from the
    /// future, by another machine's clock, is taken for one of this moment.
    fn is_young(&self, now: SystemTime) -> bool {
        let is_old = |stamp: &Stamp| {
            let changed = u64::try_from(stamp.changed.0).map_or(UNIX_EPOCH, |second| {
                UNIX_EPOCH + Duration::from_secs(second) + Duration::from_nanos(stamp.changed.1.unsigned_abs())
            });
            now.duration_since(changed).is_ok_and(|age| age > TICK)
        };
        !self.files.iter().flatten().all(is_old)
    }

    fn looks_like(&self, other: &Mark) -> bool {
        (&self.wanted, self.folder, self.files) == (&other.wanted, other.folder, other.files)
    }
}

impl Marks {
    /// The mark of a release, with its contents where they are needed to tell it from another: while it is younger than a tick, and once
    /// after that. What cannot be read counts as no content.
    #[expect(
        clippy::disallowed_methods,
        reason = "how old a file is tells whether it is looked at again, and nothing else"
    )]
    pub(super) fn of(&mut self, wanted: &Wanted, max_bytes: usize) -> Mark {
        self.at(wanted, max_bytes, SystemTime::now())
    }

    fn at(&mut self, wanted: &Wanted, max_bytes: usize, now: SystemTime) -> Mark {
        let mut mark = Mark::of(wanted);
        let young = mark.is_young(now);
        let known = self.read.iter().position(|read| read.mark.looks_like(&mark));
        match known.map(|at| &self.read[at]) {
            None if !young => return mark,
            Some(read) if read.for_good => return read.mark.clone(),
            _ => {}
        }
        if let Some(known) = known {
            self.read.remove(known);
        } else if self.read.len() == REMEMBERED {
            self.read.pop_front();
        }
        let folder = Folder::open(wanted).ok();
        mark.contents = Some(FILES.map(|name| {
            let bytes = folder.as_ref()?.read(name, max_bytes.max(MAX_MANIFEST_BYTES as usize) as u64).ok()??;
            Some(Sha256::of(&bytes))
        }));
        self.read.push_back(Reading { mark: mark.clone(), for_good: !young });
        mark
    }
}

impl Folder {
    /// Opens the folder that is wanted, where it may lie.
    pub(super) fn open(wanted: &Wanted) -> Result<Folder, Problem> {
        let failed = |cause: io::Error| {
            let reason = if cause.kind() == io::ErrorKind::NotFound { Reason::Missing } else { Reason::Unreadable };
            Problem::new(reason, format!("cannot open {}: {cause}", wanted.folder.display()))
        };
        let path = match &wanted.within {
            None => wanted.folder.clone(),
            Some(within) => {
                let path = fs::canonicalize(&wanted.folder).map_err(failed)?;
                if !path.starts_with(fs::canonicalize(within).map_err(failed)?) {
                    let (from, to) = (wanted.folder.display(), path.display());
                    let text = format!("{from} leads to {to}, outside {}: copy the release there", within.display());
                    return Err(Problem::new(Reason::Link, text));
                }
                path
            }
        };
        match ConfinedFolder::open(&path) {
            Ok(folder) => Ok(Folder(folder)),
            Err(ArtifactError::Io { cause, .. }) => Err(failed(cause)),
            Err(error) => Err(Problem::new(Reason::Unreadable, error.to_string())),
        }
    }

    /// Reads the manifest, and believes it where keys are given: its signature is checked before anything of it is parsed.
    pub(super) fn manifest(&self, trusted: Option<&TrustedKeys>) -> Result<ModelManifest, Problem> {
        let bytes = self.read(MANIFEST_FILE, MAX_MANIFEST_BYTES)?.ok_or_else(|| missing(MANIFEST_FILE))?;
        if let Some(trusted) = trusted {
            let signature = self.read(SIGNATURE_FILE, MAX_SIGNATURE_BYTES)?;
            trusted.check(&bytes, signature.as_deref())?;
        }
        ModelManifest::from_json(&bytes)
            .map_err(|cause| Problem::new(Reason::Manifest, format!("{MANIFEST_FILE}: {cause}")))
    }

    /// Reads the network that the manifest speaks of, and checks everything about it.
    pub(super) fn release(
        &self,
        manifest: ModelManifest,
        contract: &Contract,
        options: &WatchOptions,
    ) -> Result<LoadedRelease, Problem> {
        let version = manifest.version;
        self.checked(manifest, contract, options).map_err(|problem| problem.of(version))
    }

    fn checked(
        &self,
        manifest: ModelManifest,
        contract: &Contract,
        options: &WatchOptions,
    ) -> Result<LoadedRelease, Problem> {
        let expectation = Expectation { contract: contract.clone(), max_bytes: options.max_bytes };
        let onnx = self.read(ONNX_FILE, options.max_bytes as u64)?.ok_or_else(|| missing(ONNX_FILE))?;
        let (found, expected) = (onnx.len() as u64, manifest.onnx.bytes);
        if found != expected {
            let text =
                format!("{ONNX_FILE} has {found} bytes, {MANIFEST_FILE} says {expected}: copy the release again");
            return Err(Problem::new(Reason::NetworkBytes, text));
        }
        let (found, expected) = (Sha256::of(&onnx), manifest.onnx.sha256);
        if found != expected {
            let text =
                format!("{ONNX_FILE} has SHA-256 {found}, {MANIFEST_FILE} says {expected}: copy the release again");
            return Err(Problem::new(Reason::NetworkHash, text));
        }
        Ok(check_release(manifest, &onnx, &expectation, options.engines.clone())?)
    }

    /// The content of a plain file of at most `limit` bytes; `None` where there is none.
    fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Problem> {
        self.0.read(name, limit).map_err(|error| {
            let reason = match error {
                ArtifactError::Outside { .. } => Reason::Link,
                ArtifactError::TooLarge { .. } => Reason::TooLarge,
                _ => Reason::Unreadable,
            };
            Problem::new(reason, error.to_string())
        })
    }
}

fn missing(name: &str) -> Problem {
    Problem::new(Reason::Missing, format!("{name} is missing: wait for the copy, or publish the release again"))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]
mod tests {
    use super::*;

    /// A release whose files are no older than now.
    fn written() -> (tempfile::TempDir, Wanted) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(MANIFEST_FILE), "{}").unwrap();
        fs::write(folder.path().join(ONNX_FILE), "one").unwrap();
        let wanted = Wanted { folder: folder.path().to_path_buf(), number: None, within: None };
        (folder, wanted)
    }

    #[test]
    fn a_file_that_changes_twice_within_a_tick_is_seen_to_change() {
        let (_folder, wanted) = written();
        let (mut marks, now) = (Marks::default(), SystemTime::now());
        let first = marks.at(&wanted, 100, now);
        assert!(first.contents.is_some());
        assert_eq!(marks.at(&wanted, 100, now), first);
        // Another content behind the same times, lengths and inodes: what a second change within the tick leaves.
        marks.read[0].mark.contents = Some([None; 3]);
        let stale = marks.read[0].mark.clone();
        assert!(stale != marks.at(&wanted, 100, now) && marks.at(&wanted, 100, now) == first);
        // The first look after the tick is the last that reads, and sees the last change too.
        let later = now + TICK * 2;
        marks.read[0].mark.contents = Some([None; 3]);
        assert_eq!(marks.at(&wanted, 100, later), first);
        fs::remove_file(wanted.folder.join(ONNX_FILE)).unwrap();
        assert_ne!(marks.at(&wanted, 100, later), first);
    }

    #[test]
    fn a_release_that_stays_as_it_is_keeps_its_mark_whatever_is_looked_at_between() {
        let ((_one, first), (_other, second)) = (written(), written());
        let (mut marks, now) = (Marks::default(), SystemTime::now());
        let (one, other) = (marks.at(&first, 100, now), marks.at(&second, 100, now));
        for later in [now, now + TICK * 2, now + TICK * 9] {
            assert_eq!((marks.at(&first, 100, later), marks.at(&second, 100, later)), (one.clone(), other.clone()));
        }
        assert!(marks.read.iter().all(|read| read.for_good));
        // One that is old when it is first seen is never read.
        let mut marks = Marks::default();
        assert_eq!(marks.at(&first, 100, now + TICK * 2).contents, None);
    }
}
