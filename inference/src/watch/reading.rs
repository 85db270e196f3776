//! Reading a release that somebody else may be writing: each file once, from one open folder, and nothing from outside it.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use bellwether_artifact::keys::TrustedKeys;
use bellwether_artifact::release::{MANIFEST_FILE, ONNX_FILE, SIGNATURE_FILE};
use bellwether_artifact::signature::MAX_SIGNATURE_BYTES;
use bellwether_artifact::{MAX_MANIFEST_BYTES, ModelManifest, Sha256};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::reason::Problem;
use super::{Reason, Wanted, WatchOptions};
use crate::model::{Contract, Expectation};
use crate::release::{LoadedRelease, check_release};

/// A release folder, open: whatever takes its name meanwhile, this one is read.
#[derive(Debug)]
pub(super) struct Folder(File);

/// What can be seen of a release without reading it. Equal marks are taken for equal contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub wanted: Wanted,
    folder: Option<(u64, u64)>,
    files: [Option<Stamp>; 3],
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

/// The files whose change makes a release another one.
const FILES: [&str; 3] = [MANIFEST_FILE, ONNX_FILE, SIGNATURE_FILE];

impl Mark {
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
        }
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
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        Ok(Folder(File::from(folder)))
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
        let unreadable = |cause: io::Error| Problem::new(Reason::Unreadable, format!("cannot read {name}: {cause}"));
        let too_large =
            || Problem::new(Reason::TooLarge, format!("{name} has more than the {limit} bytes that are read"));
        let file = match self.open_file(name) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::XDEV | Errno::LOOP) => {
                return Err(Problem::new(
                    Reason::Link,
                    format!("{name} is a link out of the folder: copy the file there"),
                ));
            }
            Err(errno) => return Err(unreadable(errno.into())),
        };
        // Asked of the open file, so that no other can take its place.
        let data = file.metadata().map_err(unreadable)?;
        if !data.is_file() {
            return Err(Problem::new(Reason::Link, format!("{name} is no plain file: copy the file there")));
        }
        if data.len() > limit {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(data.len() as usize);
        // The file may grow while it is read, so its length is no bound.
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(Some(bytes)) }
    }

    /// Opens a file of the folder. Links that stay inside are followed, as some volumes are made of them.
    fn open_file(&self, name: &str) -> Result<File, Errno> {
        // Without waiting: a pipe would not answer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::ResolveFlags;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            match rustix::fs::openat2(&self.0, name, flags, Mode::empty(), resolve) {
                // Old kernels do not have the call, and some sandboxes forbid it; then no link is followed.
                Err(Errno::NOSYS | Errno::PERM) => {}
                opened => return opened.map(File::from),
            }
        }
        rustix::fs::openat(&self.0, name, flags | OFlags::NOFOLLOW, Mode::empty()).map(File::from)
    }
}

fn missing(name: &str) -> Problem {
    Problem::new(Reason::Missing, format!("{name} is missing"))
}
