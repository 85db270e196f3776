//! The local registry of released models: immutable versions under numbers, and names that move between them.
//!
//! ```text
//! REGISTRY/versions/000001/   a release (model.onnx, model.json, card.md, evaluation.json) and record.json;
//!                             signature.json, which may come later
//! REGISTRY/gates/             gate reports by their SHA-256
//! REGISTRY/history.jsonl      every move of a name; the only place that says where a name stands
//! REGISTRY/lock               held by whoever changes something
//! ```
//!
//! A name stands where the last whole line of the history puts it, so a move is one append: a process that dies leaves the
//! old state or the new one.

mod gate;
mod history;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bellwether_artifact::durable::{self, DurableFolder};
use bellwether_artifact::keys::{PrivateKey, TrustedKeys};
use bellwether_artifact::release;
use bellwether_artifact::signature::{self, ReleaseSignature};
use bellwether_artifact::{
    ArtifactError, MAX_MANIFEST_BYTES, ModelManifest, ModelVersion, Sha256, canonical_json_pretty,
};
use serde::{Deserialize, Serialize};

use crate::error::check_name;
use crate::lock::{FileLock, Mode};
use crate::run::read_json;
use crate::{ArtifactEntry, RegistryError, clock};

pub use gate::{Check, GateReport};
pub use history::{Move, MoveKind};

/// A folder of released models.
#[derive(Clone, Debug)]
pub struct ModelRegistry {
    root: PathBuf,
}

/// The content of a version's `record.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VersionRecord {
    /// The number, from 1, in the order of publication.
    pub number: u32,
    /// What the model is called by people.
    pub model: String,
    /// The version that its content gives it.
    pub version: ModelVersion,
    /// SHA-256 of its network.
    pub onnx_sha256: Sha256,
    /// When it was published, in milliseconds since 1970.
    pub published_unix_ms: u64,
    /// Every other file of the version, by path.
    pub files: Vec<ArtifactEntry>,
}

/// A version and the names that stand on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Published {
    /// Its record.
    #[serde(flatten)]
    pub record: VersionRecord,
    /// Names, sorted.
    pub names: Vec<String>,
}

/// Something in the registry that is not as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RegistryProblem {
    /// The version's number; null where it is about the registry as a whole.
    pub number: Option<u32>,
    /// What is wrong.
    pub problem: String,
}

/// The record of a version in its folder.
const RECORD_FILE: &str = "record.json";

/// Largest companion file of a release that is copied, in bytes.
const MAX_COMPANION_BYTES: u64 = 64 * 1024 * 1024;

impl ModelRegistry {
    /// Opens the registry in `root`. One that is missing is empty, and the first [`publish`](ModelRegistry::publish) makes
    /// its folders.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where `root` is something else than a folder.
    pub fn open(root: impl Into<PathBuf>) -> Result<ModelRegistry, RegistryError> {
        let root = root.into();
        if root.exists() && !root.is_dir() {
            return Err(ArtifactError::io("open the registry in", &root, io::ErrorKind::NotADirectory.into()).into());
        }
        Ok(ModelRegistry { root })
    }

    /// Copies the release in `folder` into the registry under the next number; one that is there already keeps the number
    /// it has. A signature comes along, also to a model that is there already: it is a statement about the model and no part
    /// of it.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where the release is incomplete or damaged, [`RegistryError::Conflict`] where the same
    /// model was published with another card or evaluation.
    pub fn publish(&self, folder: &Path) -> Result<VersionRecord, RegistryError> {
        let (incoming, manifest) = release::read_with_bytes(folder)?;
        let signature = signature::read_bytes(folder)?;
        let optional = |path: PathBuf| match path.exists() {
            true => durable::read(&path, MAX_COMPANION_BYTES).map(Some),
            false => Ok(None),
        };
        let companions = [
            (release::CARD_FILE, optional(release::card_path(folder))?),
            (release::EVALUATION_FILE, optional(release::evaluation_path(folder))?),
        ];
        durable::create_folder(&self.versions())?;
        durable::create_folder(&self.gates())?;
        let _lock = self.lock()?;
        durable::sweep(&self.versions())?;
        durable::sweep(&self.gates())?;
        let records = self.records()?;
        if let Some(known) = records.iter().find(|record| record.version == incoming.manifest.version) {
            for (file, bytes) in &companions {
                let held = known.files.iter().find(|entry| entry.path == *file).map(|entry| entry.sha256);
                if held != bytes.as_deref().map(Sha256::of) {
                    return Err(RegistryError::Conflict { version: known.version, number: known.number, file });
                }
            }
            if let Some(signature) = signature {
                durable::write_bytes(release::signature_path(&self.folder(known.number)), &signature)?;
            }
            return Ok(known.clone());
        }
        let number = self.last_number()?.saturating_add(1);
        // As they came: a signature speaks of these bytes.
        let mut files = vec![(release::ONNX_FILE, incoming.onnx), (release::MANIFEST_FILE, manifest)];
        files.extend(companions.into_iter().filter_map(|(name, bytes)| Some((name, bytes?))));
        files.sort();
        let entry = |(name, bytes): &(&str, Vec<u8>)| ArtifactEntry {
            path: (*name).to_owned(),
            sha256: Sha256::of(bytes),
            bytes: bytes.len() as u64,
        };
        let record = VersionRecord {
            number,
            model: incoming.manifest.name.clone(),
            version: incoming.manifest.version,
            onnx_sha256: incoming.manifest.onnx.sha256,
            published_unix_ms: clock::unix_ms(),
            files: files.iter().map(entry).collect(),
        };
        let new = DurableFolder::create(self.folder(number))?;
        for (name, bytes) in &files {
            new.write_bytes(name, bytes)?;
        }
        new.write_bytes(RECORD_FILE, canonical_json_pretty(&record)?.as_bytes())?;
        if let Some(signature) = signature {
            new.write_bytes(release::SIGNATURE_FILE, &signature)?;
        }
        new.commit()?;
        Ok(record)
    }

    /// Signs version `number`, if it is undamaged, in the place of any signature before: the one file of a version that may come
    /// later and change, so that a new key can take over from an old one.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`], [`RegistryError::UnknownModel`], [`RegistryError::Artifact`]; the old signature stands then.
    pub fn sign(&self, number: u32, key: &PrivateKey) -> Result<ReleaseSignature, RegistryError> {
        let _lock = self.lock()?;
        self.intact(number)?;
        let folder = self.folder(number);
        let manifest = durable::read(&release::manifest_path(&folder), MAX_MANIFEST_BYTES)?;
        let signature = ReleaseSignature::sign(&manifest, key);
        durable::write_bytes(release::signature_path(&folder), signature.to_json()?.as_bytes())?;
        Ok(signature)
    }

    /// Moves `name` to version `number`, if the model is undamaged and `report` is about this very model, holds every
    /// check in `required`, and all its checks passed. The report is kept either way.
    ///
    /// # Errors
    /// [`RegistryError::GateForAnother`], [`RegistryError::GateMissing`], [`RegistryError::GateFailed`],
    /// [`RegistryError::Damaged`], [`RegistryError::UnknownModel`]; the name stays where it is then.
    pub fn promote(
        &self,
        number: u32,
        name: &str,
        report: &GateReport,
        required: &[&str],
    ) -> Result<Move, RegistryError> {
        check_name("name of a model", name)?;
        let _lock = self.lock()?;
        let record = self.intact(number)?;
        let gate_sha256 = report.keep(&self.gates())?;
        report.admit(&record, name, required)?;
        self.append(MoveKind::Promote, name, &record, Some(gate_sha256))
    }

    /// Moves `name` back to where it stood before its last promotion that was not rolled back yet.
    ///
    /// # Errors
    /// [`RegistryError::NothingToRollBack`], or [`RegistryError::Damaged`] where that model is no longer intact.
    pub fn rollback(&self, name: &str) -> Result<Move, RegistryError> {
        check_name("name of a model", name)?;
        let _lock = self.lock()?;
        let mut standing = history::standings(&self.history()?).remove(name).unwrap_or_default();
        standing.pop();
        let Some(number) = standing.last() else {
            return Err(RegistryError::NothingToRollBack { name: name.to_owned() });
        };
        let record = self.intact(*number)?;
        self.append(MoveKind::Rollback, name, &record, None)
    }

    /// Every version by number, with the names that stand on it.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where a record or the history cannot be read.
    pub fn list(&self) -> Result<Vec<Published>, RegistryError> {
        let names = self.names()?;
        let standing = |number: u32| {
            names.iter().filter(|(_, stands)| *stands == number).map(|(name, _)| name.clone()).collect::<Vec<String>>()
        };
        let records = self.records()?.into_iter();
        Ok(records.map(|record| Published { names: standing(record.number), record }).collect())
    }

    /// Every name with the number that it stands on, sorted.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where the history cannot be read.
    pub fn names(&self) -> Result<Vec<(String, u32)>, RegistryError> {
        let standings = history::standings(&self.history()?);
        Ok(standings.into_iter().filter_map(|(name, stack)| Some((name, *stack.last()?))).collect())
    }

    /// The number that a name stands on; `None` where there is no such name. Reads the history alone.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where the history cannot be read.
    pub fn standing(&self, name: &str) -> Result<Option<u32>, RegistryError> {
        Ok(self.names()?.into_iter().find(|(known, _)| known == name).map(|(_, number)| number))
    }

    /// The highest number; `None` where nothing was published. Reads no version.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where the folder of versions cannot be read.
    pub fn latest(&self) -> Result<Option<u32>, RegistryError> {
        Ok(self.numbers()?.last().copied())
    }

    /// All moves of names, oldest first.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where a whole line of the history cannot be read.
    pub fn history(&self) -> Result<Vec<Move>, RegistryError> {
        history::read(&self.history_path())
    }

    /// The version that `text` means: a name, a number, or the beginning of a version (at least 4 digits) that only one
    /// model has. Names come first.
    ///
    /// # Errors
    /// [`RegistryError::UnknownModel`] where nothing or too much fits.
    pub fn resolve(&self, text: &str) -> Result<VersionRecord, RegistryError> {
        let records = self.records()?;
        let named = self.names()?.into_iter().find(|(name, _)| name == text).map(|(_, number)| number);
        let number = named.or_else(|| text.parse().ok().filter(|_| text.len() < 10));
        let fits = |record: &&VersionRecord| record.version.to_string().starts_with(text) && text.len() >= 4;
        let by_version: Vec<&VersionRecord> = records.iter().filter(fits).collect();
        let found = records.iter().find(|record| Some(record.number) == number);
        match (found, by_version.as_slice()) {
            (Some(record), _) => Ok(record.clone()),
            (None, [record]) => Ok((*record).clone()),
            _ => Err(RegistryError::UnknownModel { text: text.chars().take(80).collect() }),
        }
    }

    /// The folder of a version, in the layout of a release.
    pub fn folder(&self, number: u32) -> PathBuf {
        self.versions().join(format!("{number:06}"))
    }

    /// Re-hashes every file of every version and checks that every name stands on one.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where the folder of versions cannot be read.
    pub fn verify(&self) -> Result<Vec<RegistryProblem>, RegistryError> {
        let mut problems = Vec::new();
        for number in self.numbers()? {
            if let Err(error) = self.intact(number) {
                problems.push(RegistryProblem { number: Some(number), problem: error.to_string() });
            }
        }
        match self.history() {
            Err(error) => problems.push(RegistryProblem { number: None, problem: error.to_string() }),
            Ok(moves) => {
                for (name, stack) in history::standings(&moves) {
                    for number in stack.into_iter().filter(|number| !self.folder(*number).is_dir()) {
                        let problem = format!("{name} stood or stands on version {number}, which is gone");
                        problems.push(RegistryProblem { number: Some(number), problem });
                    }
                }
                for hash in moves.iter().filter_map(|one| one.gate_sha256) {
                    if let Err(error) = GateReport::recall(&self.gates(), &hash) {
                        problems.push(RegistryProblem { number: None, problem: error.to_string() });
                    }
                }
            }
        }
        Ok(problems)
    }

    /// Checks that every version is signed by a trusted key.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where the folder of versions cannot be read.
    pub fn verify_signatures(&self, trusted: &TrustedKeys) -> Result<Vec<RegistryProblem>, RegistryError> {
        let mut problems = Vec::new();
        for number in self.numbers()? {
            if let Err(error) = self.check_signature(number, trusted) {
                problems.push(RegistryProblem { number: Some(number), problem: error.to_string() });
            }
        }
        Ok(problems)
    }

    /// Checks that version `number` is signed by a trusted key.
    fn check_signature(&self, number: u32, trusted: &TrustedKeys) -> Result<(), RegistryError> {
        let folder = self.folder(number);
        let manifest = durable::read(&release::manifest_path(&folder), MAX_MANIFEST_BYTES)?;
        trusted.check(&manifest, signature::read_bytes(&folder)?.as_deref())?;
        Ok(())
    }

    /// The gate report of a move.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where it is gone or damaged.
    pub fn gate_report(&self, hash: &Sha256) -> Result<GateReport, RegistryError> {
        GateReport::recall(&self.gates(), hash)
    }

    /// The record of a version whose files all have the hashes on record.
    fn intact(&self, number: u32) -> Result<VersionRecord, RegistryError> {
        let folder = self.folder(number);
        if !folder.is_dir() {
            return Err(RegistryError::UnknownModel { text: number.to_string() });
        }
        let damaged = |problem: String| RegistryError::Damaged { number, problem };
        let record: VersionRecord = read_json(&folder.join(RECORD_FILE)).map_err(|error| damaged(error.to_string()))?;
        if record.number != number {
            return Err(damaged(format!("its record is that of number {}", record.number)));
        }
        for entry in &record.files {
            let (found, _) =
                durable::hash_file(&folder.join(&entry.path)).map_err(|error| damaged(error.to_string()))?;
            if found != entry.sha256 {
                return Err(damaged(format!("{} has SHA-256 {found}, recorded is {}", entry.path, entry.sha256)));
            }
        }
        let manifest: ModelManifest = release::read_manifest(&folder).map_err(|error| damaged(error.to_string()))?;
        if (manifest.version, manifest.onnx.sha256) != (record.version, record.onnx_sha256) {
            return Err(damaged("record.json and model.json speak of different models".into()));
        }
        Ok(record)
    }

    fn append(
        &self,
        kind: MoveKind,
        name: &str,
        record: &VersionRecord,
        gate_sha256: Option<Sha256>,
    ) -> Result<Move, RegistryError> {
        let from = self.names()?.into_iter().find(|(known, _)| known == name).map(|(_, number)| number);
        let one = Move {
            kind,
            name: name.to_owned(),
            from,
            to: record.number,
            version: record.version,
            gate_sha256,
            at_unix_ms: clock::unix_ms(),
        };
        history::append(&self.history_path(), &one)?;
        Ok(one)
    }

    fn records(&self) -> Result<Vec<VersionRecord>, RegistryError> {
        self.numbers()?.into_iter().map(|number| read_json(&self.folder(number).join(RECORD_FILE))).collect()
    }

    fn last_number(&self) -> Result<u32, RegistryError> {
        Ok(self.numbers()?.last().copied().unwrap_or(0))
    }

    /// The numbers of all versions, ascending.
    fn numbers(&self) -> Result<Vec<u32>, RegistryError> {
        let folder = self.versions();
        let mut numbers = Vec::new();
        if !folder.exists() {
            return Ok(numbers);
        }
        let failed = |source| ArtifactError::io("read the folder", &folder, source);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn lock(&self) -> Result<FileLock, RegistryError> {
        FileLock::take(&self.root.join("lock"), Mode::Exclusive)
    }

    /// The folder of all versions.
    pub fn versions(&self) -> PathBuf {
        self.root.join("versions")
    }

    fn gates(&self) -> PathBuf {
        self.root.join("gates")
    }

    /// The file whose change means that a name may have moved.
    pub fn history_path(&self) -> PathBuf {
        self.root.join("history.jsonl")
    }
}
