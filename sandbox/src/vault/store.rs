//! The folder of sealed samples.

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use bellwether_artifact::durable::{self, DurableFile};
use bellwether_artifact::secret::Secrets;
use bellwether_artifact::{ArtifactError, canonical_json};
use rustix::fs::{Mode, OFlags, Timespec, Timestamps};
use serde::{Deserialize, Serialize};

use super::cipher::{self, Failed, Fault, Opened};
use super::{Case, Held, QuarantineId, Removal, Sample, SampleIdentity, VaultError, original};

/// A folder of sealed samples, one file each. Any number of processes may use it at once.
#[derive(Debug)]
pub struct Vault {
    objects: PathBuf,
    secrets: Secrets,
}

/// What came of putting a sample into quarantine: the feedback of the action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The name under which it lies there.
    pub id: QuarantineId,
    /// What lies there.
    pub held: Held,
    /// The same decision had put it there before.
    pub repeated: bool,
    /// What became of the original.
    #[serde(flatten)]
    pub removal: Removal,
}

/// What came of bringing a sample back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it has its owner and group again; without them it has no set-id bits either.
    pub owner: bool,
}

/// A thing in quarantine, as a list tells of it.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub id: QuarantineId,
    /// What it is, or why that cannot be read.
    pub held: Result<Held, VaultError>,
}

/// How the names of sealed files end.
const ENDING: &str = ".sealed";

impl Vault {
    /// Uses a folder, which is made where it is missing, for its owner alone.
    ///
    /// # Errors
    /// [`VaultError::Artifact`] or [`VaultError::System`] where it cannot be made.
    pub fn open(folder: &Path, secrets: Secrets) -> Result<Vault, VaultError> {
        let objects = folder.join("objects");
        durable::create_folder(&objects)?;
        for private in [folder, &objects] {
            fs::set_permissions(private, fs::Permissions::from_mode(0o700))
                .map_err(|cause| VaultError::system("make private", private, cause))?;
        }
        Ok(Vault { objects, secrets })
    }

    /// Seals a sample away and removes the file that it was. Told twice, it does so once: the id of the decision counts.
    ///
    /// # Errors
    /// Whatever kept the sealed copy from being written; then the original is as it was. [`VaultError::Conflict`] where the
    /// decision put another sample there. An original that cannot be removed is no error: [`Removal::Kept`] says why.
    pub fn quarantine(&self, sample: &Sample, case: &Case) -> Result<Receipt, VaultError> {
        let held = Held { format_version: Held::FORMAT_VERSION, case: case.clone(), sample: sample.identity().clone() };
        let id = held.id();
        let (held, repeated) = match self.put(id, &held, sample) {
            Err(VaultError::Artifact(ArtifactError::Exists { .. })) => {
                let stands = self.get(id)?;
                if stands.sample.sha256 != held.sample.sha256 {
                    return Err(VaultError::Conflict { decision: case.decision_id.clone(), id });
                }
                (stands, true)
            }
            done => {
                done?;
                (held, false)
            }
        };
        let removal = original::remove(sample.folder.as_fd(), &sample.name, sample.identity(), id);
        Ok(Receipt { id, held, repeated, removal })
    }

    /// Tries again to remove the original of a sealed sample, by what was sealed with it: after a call that died on the way, or
    /// whose folder was read-only.
    ///
    /// # Errors
    /// As [`get`](Vault::get).
    pub fn settle(&self, id: QuarantineId) -> Result<Removal, VaultError> {
        let identity = self.get(id)?.sample;
        let path = identity.path();
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Removal::Kept { why: "its path names no file".to_owned() });
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(above, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => Ok(Removal::Gone),
            Err(error) => Ok(Removal::Kept { why: format!("its folder cannot be opened: {error}") }),
            Ok(folder) => Ok(original::remove(folder.as_fd(), &name.to_owned(), &identity, id)),
        }
    }

    /// Everything in quarantine in the order of the names, with what is wrong with it where it cannot be read.
    ///
    /// # Errors
    /// [`VaultError::System`] where the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, VaultError> {
        Ok(self.ids()?.into_iter().map(|id| Listed { id, held: self.get(id) }).collect())
    }

    /// The one thing in quarantine whose name begins so; at least 4 digits.
    ///
    /// # Errors
    /// [`VaultError::NotThere`], [`VaultError::Ambiguous`], or as [`list`](Vault::list).
    pub fn find(&self, name: &str) -> Result<QuarantineId, VaultError> {
        let mut fitting = self.ids()?.into_iter().filter(|id| name.len() >= 4 && id.to_string().starts_with(name));
        match (fitting.next(), fitting.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(VaultError::NotThere { name: name.to_owned() }),
            _ => Err(VaultError::Ambiguous { name: name.to_owned() }),
        }
    }

    /// What is sealed in front of a sample.
    ///
    /// # Errors
    /// [`VaultError::NotThere`], [`VaultError::Damaged`], [`VaultError::UnknownKey`], or [`VaultError::System`].
    pub fn get(&self, id: QuarantineId) -> Result<Held, VaultError> {
        self.begin(id).map(|(held, ..)| held)
    }

    /// Brings a sample back: to where it was, or to another path. What stands there is never overwritten, and the sealed copy
    /// stays in quarantine. Mode and times are those that it had; the owner too, where this user may give files away.
    ///
    /// # Errors
    /// As [`get`](Vault::get), and [`ArtifactError`] where it cannot be written; then nothing appears.
    pub fn restore(&self, id: QuarantineId, to: Option<&Path>) -> Result<Restored, VaultError> {
        let (held, opened, mut sealed) = self.begin(id)?;
        let identity = &held.sample;
        let path = to.map_or_else(|| identity.path(), Path::to_path_buf);
        // Nobody else may read it before it has its old permissions.
        let mut file = DurableFile::create_private(&path)?;
        let opening = opened.content(&mut sealed, identity.bytes, &mut file);
        opening.map_err(|fault| self.fault(id, fault, &path))?;
        if file.hash_on_disk()? != (identity.sha256, identity.bytes) {
            return Err(self.damaged(id, "its content is not what its hash says"));
        }
        let owner =
            set_attributes(file.as_file(), identity).map_err(|cause| VaultError::system("set up", &path, cause))?;
        file.commit_new()?;
        Ok(Restored { path, owner })
    }

    /// Destroys a sealed sample for good; whether there was one.
    ///
    /// # Errors
    /// [`VaultError::Artifact`] where it cannot be removed.
    pub fn purge(&self, id: QuarantineId) -> Result<bool, VaultError> {
        let path = self.path(id);
        let there = path.symlink_metadata().is_ok();
        durable::remove_file(&path)?;
        Ok(there)
    }

    fn path(&self, id: QuarantineId) -> PathBuf {
        self.objects.join(format!("{id}{ENDING}"))
    }

    fn put(&self, id: QuarantineId, held: &Held, sample: &Sample) -> Result<(), VaultError> {
        let path = self.path(id);
        if path.symlink_metadata().is_ok() {
            return Err(ArtifactError::Exists { path }.into());
        }
        let metadata = canonical_json(held).map_err(ArtifactError::from)?;
        let mut file = DurableFile::create_private(&path)?;
        let sealed = cipher::seal(
            self.secrets.newest(),
            metadata.as_bytes(),
            sample.reader()?,
            held.sample.bytes,
            &mut file as &mut dyn Write,
        );
        sealed.map_err(|failed| match failed {
            Failed::Io(cause) => VaultError::Artifact(ArtifactError::io("write", &path, cause)),
            Failed::Random(error) => error.into(),
        })?;
        Ok(file.commit_new()?)
    }

    fn ids(&self) -> Result<Vec<QuarantineId>, VaultError> {
        let failed = |cause| VaultError::system("read the folder", &self.objects, cause);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.objects).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(ENDING)).and_then(QuarantineId::parse);
            ids.extend(id);
        }
        ids.sort();
        Ok(ids)
    }

    fn begin(&self, id: QuarantineId) -> Result<(Held, Opened, BufReader<File>), VaultError> {
        let path = self.path(id);
        let file = File::open(&path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => VaultError::NotThere { name: id.to_string() },
            _ => VaultError::system("read", &path, cause),
        })?;
        let mut sealed = BufReader::with_capacity(128 * 1024, file);
        let opened = cipher::open(&self.secrets, &mut sealed).map_err(|fault| self.fault(id, fault, &path))?;
        let held: Held = serde_json::from_slice(&opened.metadata)
            .map_err(|_| self.damaged(id, "its metadata are of another version"))?;
        // A sealed file under another's name would give one decision the sample of another.
        if held.format_version != Held::FORMAT_VERSION || held.id() != id {
            return Err(self.damaged(id, "it stands under another name than its own"));
        }
        Ok((held, opened, sealed))
    }

    fn damaged(&self, id: QuarantineId, problem: &'static str) -> VaultError {
        VaultError::Damaged { path: self.path(id), problem }
    }

    fn fault(&self, id: QuarantineId, fault: Fault, at: &Path) -> VaultError {
        match fault {
            Fault::Io(cause) => ArtifactError::io("read or write", at, cause).into(),
            Fault::UnknownKey(key) => VaultError::UnknownKey { path: self.path(id), key },
            Fault::Damaged(problem) => self.damaged(id, problem),
        }
    }
}

/// Gives a file the owner, mode and times that a sample had; whether the owner could be set.
fn set_attributes(file: &File, identity: &SampleIdentity) -> io::Result<bool> {
    let data = file.metadata()?;
    let is_theirs = {
        use std::os::unix::fs::MetadataExt;
        (data.uid(), data.gid()) == (identity.uid, identity.gid)
    };
    let owner = is_theirs || fchown(file, Some(identity.uid), Some(identity.gid)).is_ok();
    // A set-id bit would lend the rights of somebody whose file it was not.
    let mode = if owner { identity.mode } else { identity.mode & 0o777 };
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    let time = |(seconds, nanoseconds): (i64, u32)| Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
    let times =
        Timestamps { last_access: time(identity.times.accessed), last_modification: time(identity.times.modified) };
    rustix::fs::futimens(file, &times)?;
    Ok(owner)
}
