//! Run directories: one folder per run, one writer, and a status that any reader derives.

mod events;
mod lease;
mod manifest;
mod status;
mod verify;

use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use bellwether_artifact::durable::{self, DurableFolder};
use bellwether_artifact::{ArtifactError, JsonLines, Sha256, canonical_json_pretty};
use serde::{Deserialize, Serialize};

use crate::lock::{FileLock, Mode};
use crate::{RegistryError, clock};

pub use events::EventFile;
pub use lease::Lease;
pub use manifest::{ArtifactEntry, InputFile, MANIFEST_FORMAT, RunManifest};
pub use status::{RunReport, RunStatus, RunSummary, find_run, list_runs, show_run};
pub use verify::{Problem, Verification, verify_run};

pub(crate) use manifest::read_json;
pub(crate) use status::run_folders;

/// Where the parts of a run lie; knows names only and touches no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPaths {
    folder: PathBuf,
}

/// A run that this process works on.
///
/// Dropping it without [`complete`](RunDirectory::complete) or [`fail`](RunDirectory::fail) leaves an aborted run.
#[derive(Debug)]
pub struct RunDirectory {
    paths: RunPaths,
    manifest: RunManifest,
    metrics: JsonLines,
    timings: JsonLines,
    _heartbeat: lease::Heartbeat,
    _lock: FileLock,
}

/// The content of `terminal.json`, the last thing a run writes; a run without one did not end by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed; null when it is complete.
    pub reason: Option<String>,
    /// SHA-256 of `manifest.json` at the end.
    pub manifest_sha256: Sha256,
    /// When it ended, in milliseconds since 1970.
    pub ended_unix_ms: u64,
}

/// How a run ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did all it was asked for.
    Complete,
    /// It met an error and said so.
    Failed,
}

/// The content of `host.json`: when and where a run was started. Nothing of it is hashed or decides a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HostFacts {
    /// When the run was created, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// The host's name; null where the system has none.
    pub host: Option<String>,
    /// Operating system and processor family, as Rust names them.
    pub platform: String,
    /// Processors that the process may use.
    pub processors: u64,
}

impl RunPaths {
    /// The parts of the run in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> RunPaths {
        RunPaths { folder: folder.into() }
    }

    /// The run's folder; its last part is the run's id.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The run's id.
    pub fn id(&self) -> String {
        self.folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The resolved configuration alone, for people and for `--config`.
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.json")
    }

    /// The [`RunManifest`].
    pub fn manifest(&self) -> PathBuf {
        self.folder.join("manifest.json")
    }

    /// Records of training, one per line, without times.
    pub fn metrics(&self) -> PathBuf {
        self.folder.join("metrics.jsonl")
    }

    /// How long things took, one record per line; never hashed.
    pub fn timings(&self) -> PathBuf {
        self.folder.join("timings.jsonl")
    }

    /// Files for TensorBoard; never hashed, for they hold times.
    pub fn tensorboard(&self) -> PathBuf {
        self.folder.join("tensorboard")
    }

    /// Saved states of training.
    pub fn checkpoints(&self) -> PathBuf {
        self.folder.join("checkpoints")
    }

    /// The exported model, in the layout of a release.
    pub fn model(&self) -> PathBuf {
        self.folder.join("model")
    }

    /// The evaluation on held-out data.
    pub fn evaluation(&self) -> PathBuf {
        self.folder.join("evaluation.json")
    }

    /// The [`Terminal`] record.
    pub fn terminal(&self) -> PathBuf {
        self.folder.join("terminal.json")
    }

    /// The [`Lease`] of the process at work.
    pub fn lease(&self) -> PathBuf {
        self.folder.join("lease.json")
    }

    /// The [`HostFacts`].
    pub fn host(&self) -> PathBuf {
        self.folder.join("host.json")
    }

    fn lock(&self) -> PathBuf {
        self.folder.join("lock")
    }
}

/// Names at the top of a run that hold times, host facts or the manifest itself, and so are no artefacts.
const UNHASHED: [&str; 7] =
    ["manifest.json", "timings.jsonl", "tensorboard", "terminal.json", "lease.json", "host.json", "lock"];

impl RunDirectory {
    /// Creates the folder of a new run below `root`, which is made where it is missing.
    ///
    /// The run's id is its name, the first 8 digits of the manifest's [fingerprint](RunManifest::fingerprint) and a number
    /// that counts the re-runs: `adfa-ld-3f2a91cc-1`. The folder appears with configuration, manifest and lease in it or
    /// not at all; of processes that create the same run at once, each gets a number of its own.
    ///
    /// # Errors
    /// [`RegistryError::Name`] where the manifest's name is not plain, [`RegistryError::Artifact`] where the folder cannot
    /// be written.
    pub fn create(root: &Path, mut manifest: RunManifest) -> Result<RunDirectory, RegistryError> {
        manifest.format_version = MANIFEST_FORMAT;
        manifest.artifacts.clear();
        manifest.inputs.sort();
        let json = manifest.to_json()?;
        let config = canonical_json_pretty(&manifest.config)?;
        let fingerprint = manifest.fingerprint()?.to_string();
        durable::create_folder(root)?;
        let stem = format!("{}-{}", manifest.name, &fingerprint[..8]);
        let folder = publish_first_free(root, &stem, &|new| {
            new.write_bytes("config.json", config.as_bytes())?;
            new.write_bytes("manifest.json", json.as_bytes())?;
            new.write_bytes("host.json", canonical_json_pretty(&HostFacts::of_this_process())?.as_bytes())?;
            new.write_bytes("lease.json", canonical_json_pretty(&Lease::of_this_process())?.as_bytes())?;
            Ok(())
        })?;
        let paths = RunPaths::new(folder);
        let lock = FileLock::try_take(&paths.lock(), Mode::Exclusive)?;
        RunDirectory::open(paths, manifest, lock)
    }

    /// Takes up a run that was aborted or failed; the caller then cuts the metrics back to its checkpoint with
    /// [`rewind_metrics`](RunDirectory::rewind_metrics).
    ///
    /// # Errors
    /// [`RegistryError::NotResumable`] where the run is complete or still running, [`RegistryError::Busy`] where another
    /// process takes it up at this moment, [`RegistryError::Artifact`] where its files cannot be read.
    pub fn resume(folder: &Path) -> Result<RunDirectory, RegistryError> {
        let paths = RunPaths::new(folder);
        let mut manifest = RunManifest::read(&paths.manifest())?;
        let resumable = || match status::status_of(&paths, clock::unix_ms())? {
            RunStatus::Aborted | RunStatus::Failed => Ok(()),
            status => Err(RegistryError::NotResumable { path: folder.to_path_buf(), status }),
        };
        resumable()?;
        let lock = FileLock::try_take(&paths.lock(), Mode::Exclusive)?;
        // Another process may have taken the run up and ended it since the first look.
        resumable()?;
        durable::remove_file(&paths.terminal())?;
        manifest.artifacts.clear();
        RunDirectory::open(paths, manifest, lock)
    }

    fn open(paths: RunPaths, manifest: RunManifest, lock: FileLock) -> Result<RunDirectory, RegistryError> {
        Lease::of_this_process().write(&paths.lease())?;
        let heartbeat = lease::Heartbeat::start(paths.lease());
        // A torn line is cut off here; `show` has told of it before.
        let (metrics, _) = JsonLines::append_to(paths.metrics())?;
        let (timings, _) = JsonLines::append_to(paths.timings())?;
        durable::create_folder(&paths.checkpoints())?;
        Ok(RunDirectory { paths, manifest, metrics, timings, _heartbeat: heartbeat, _lock: lock })
    }

    /// The run's id.
    pub fn id(&self) -> String {
        self.paths.id()
    }

    /// Where the parts of the run lie.
    pub fn paths(&self) -> &RunPaths {
        &self.paths
    }

    /// The manifest as it stands; without artefacts until the run is complete.
    pub fn manifest(&self) -> &RunManifest {
        &self.manifest
    }

    /// The log of training metrics; its [`offset`](JsonLines::offset) belongs into every checkpoint.
    pub fn metrics(&mut self) -> &mut JsonLines {
        &mut self.metrics
    }

    /// The log of durations.
    pub fn timings(&mut self) -> &mut JsonLines {
        &mut self.timings
    }

    /// A new file for TensorBoard, behind those of earlier starts of the run.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where it cannot be made.
    pub fn event_file(&self) -> Result<EventFile, RegistryError> {
        EventFile::create(&self.paths.tensorboard())
    }

    /// Cuts the metrics back to where a checkpoint was taken.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where `offset` is not the end of a record.
    pub fn rewind_metrics(&mut self, offset: u64) -> Result<(), RegistryError> {
        self.metrics = JsonLines::resume_at(self.paths.metrics(), offset)?;
        Ok(())
    }

    /// Writes a file inside the run durably; folders in between are made.
    ///
    /// # Errors
    /// [`RegistryError::OutsideRun`] where `name` is absolute or climbs, [`RegistryError::Artifact`] where writing fails;
    /// the old content stands then.
    pub fn write(
        &self,
        name: &str,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<PathBuf, RegistryError> {
        let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside || name.is_empty() {
            return Err(RegistryError::OutsideRun { path: name.chars().take(200).collect() });
        }
        let path = self.paths.folder.join(name);
        if let Some(folder) = path.parent() {
            durable::create_folder(folder)?;
        }
        durable::write(&path, fill)?;
        Ok(path)
    }

    /// Ends the run: hashes everything it made, writes the final manifest and then the terminal record.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where a file cannot be read or written; the run counts as aborted then.
    pub fn complete(mut self) -> Result<RunManifest, RegistryError> {
        self.metrics.sync()?;
        self.timings.sync()?;
        self.manifest.artifacts = hash_artifacts(&self.paths.folder)?;
        self.end(Outcome::Complete, None)?;
        Ok(self.manifest)
    }

    /// Ends the run with the reason of its failure.
    ///
    /// # Errors
    /// [`RegistryError::Artifact`] where the record cannot be written; the run counts as aborted then.
    pub fn fail(self, reason: &str) -> Result<(), RegistryError> {
        // Losing the reason would be worse than metrics that a power cut could still take.
        let synced = self.metrics.sync();
        self.end(Outcome::Failed, Some(reason.to_owned()))?;
        Ok(synced?)
    }

    fn end(&self, outcome: Outcome, reason: Option<String>) -> Result<(), RegistryError> {
        let json = self.manifest.to_json()?;
        durable::write_bytes(self.paths.manifest(), json.as_bytes())?;
        let manifest_sha256 = Sha256::of(json.as_bytes());
        let terminal = Terminal { outcome, reason, manifest_sha256, ended_unix_ms: clock::unix_ms() };
        durable::write_bytes(self.paths.terminal(), canonical_json_pretty(&terminal)?.as_bytes())?;
        Ok(())
    }
}

impl HostFacts {
    fn of_this_process() -> HostFacts {
        HostFacts {
            started_unix_ms: clock::unix_ms(),
            host: clock::host_name(),
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            processors: std::thread::available_parallelism().map_or(1, |count| count.get() as u64),
        }
    }
}

/// Publishes a filled folder under the first free of `STEM-1`, `STEM-2`, ...
fn publish_first_free(
    root: &Path,
    stem: &str,
    fill: &dyn Fn(&DurableFolder) -> Result<(), RegistryError>,
) -> Result<PathBuf, RegistryError> {
    for number in 1_u32.. {
        let folder = root.join(format!("{stem}-{number}"));
        let new = match DurableFolder::create(&folder) {
            Err(ArtifactError::Exists { .. }) => continue,
            other => other?,
        };
        fill(&new)?;
        match new.commit() {
            Err(ArtifactError::Exists { .. }) => {}
            other => return other.map(|()| folder).map_err(RegistryError::from),
        }
    }
    Err(ArtifactError::Exists { path: root.join(stem) }.into())
}

/// Hashes every file below a run's folder that its manifest decides, by path.
fn hash_artifacts(folder: &Path) -> Result<Vec<ArtifactEntry>, RegistryError> {
    let mut found = Vec::new();
    walk_artifacts(folder, "", &mut |path, name| {
        let (sha256, bytes) = durable::hash_file(path)?;
        found.push(ArtifactEntry { path: name, sha256, bytes });
        Ok(())
    })?;
    found.sort();
    Ok(found)
}

/// Calls `visit` with path and relative name of every file that counts as an artefact.
fn walk_artifacts(
    folder: &Path,
    prefix: &str,
    visit: &mut dyn FnMut(&Path, String) -> Result<(), RegistryError>,
) -> Result<(), RegistryError> {
    let failed = |source| ArtifactError::io("read the folder", folder, source);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, file_name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if durable::is_temporary(&path) || (prefix.is_empty() && UNHASHED.contains(&file_name.as_str())) {
            continue;
        }
        let name = format!("{prefix}{file_name}");
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            walk_artifacts(&path, &format!("{name}/"), visit)?;
        } else {
            visit(&path, name)?;
        }
    }
    Ok(())
}
