//! What a run looks like from outside.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use bellwether_artifact::{ArtifactError, JsonLinesReader, durable};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{HostFacts, Lease, Outcome, RunManifest, RunPaths, Terminal, read_json};
use crate::{RegistryError, clock};

/// Where a run stands; derived from its terminal record and its lease, never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// No terminal record, and the process of the lease lives.
    Running,
    /// The terminal record says that all was done.
    Complete,
    /// The terminal record says what went wrong.
    Failed,
    /// Neither a terminal record nor a live lease: the process was killed, or the machine went down.
    Aborted,
}

/// One line of a list of runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RunSummary {
    /// The run's id, the name of its folder.
    pub id: String,
    /// Where it stands; null where its files cannot be read.
    pub status: Option<RunStatus>,
    /// When it was created, in milliseconds since 1970; null where that is not known.
    pub started_unix_ms: Option<u64>,
    /// The verb that ran; null where the manifest cannot be read.
    pub command: Option<String>,
    /// Why something above is null.
    pub problem: Option<String>,
}

/// Everything about one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RunReport {
    /// The run's id.
    pub id: String,
    /// Where it stands.
    pub status: RunStatus,
    /// Its manifest.
    pub manifest: RunManifest,
    /// How it ended, if it did.
    pub terminal: Option<Terminal>,
    /// When and where it was started.
    pub host: Option<HostFacts>,
    /// Number of whole metrics records.
    pub metrics_records: u64,
    /// The last of them.
    pub last_metrics: Option<Value>,
    /// Bytes of a record that was being written when the process died, or is being written now.
    pub torn_bytes: u64,
}

impl fmt::Display for RunStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            RunStatus::Running => "running",
            RunStatus::Complete => "complete",
            RunStatus::Failed => "failed",
            RunStatus::Aborted => "aborted",
        })
    }
}

/// Derives the status of a run at `now_unix_ms`.
pub(super) fn status_of(paths: &RunPaths, now_unix_ms: u64) -> Result<RunStatus, RegistryError> {
    // The lease is read first: a run that ends between the two reads then shows its terminal record.
    let lease = Lease::read(&paths.lease());
    if let Some(terminal) = read_terminal(paths)? {
        return Ok(match terminal.outcome {
            Outcome::Complete => RunStatus::Complete,
            Outcome::Failed => RunStatus::Failed,
        });
    }
    let live = lease?.is_some_and(|lease| lease.is_live(now_unix_ms));
    Ok(if live { RunStatus::Running } else { RunStatus::Aborted })
}

fn read_terminal(paths: &RunPaths) -> Result<Option<Terminal>, RegistryError> {
    let path = paths.terminal();
    if path.exists() { read_json(&path).map(Some) } else { Ok(None) }
}

/// All runs below `root` by id; a folder that cannot be read is listed with its problem, and a missing root has no runs.
///
/// # Errors
/// [`RegistryError::Artifact`] where the root itself cannot be read.
pub fn list_runs(root: &Path) -> Result<Vec<RunSummary>, RegistryError> {
    let now = clock::unix_ms();
    let mut runs: Vec<RunSummary> = run_folders(root)?.into_iter().map(|folder| summary(folder, now)).collect();
    runs.sort_by(|first, second| first.id.cmp(&second.id));
    Ok(runs)
}

fn summary(folder: PathBuf, now: u64) -> RunSummary {
    let paths = RunPaths::new(folder);
    let (status, manifest) = (status_of(&paths, now), RunManifest::read(&paths.manifest()));
    let problem = manifest.as_ref().err().or(status.as_ref().err()).map(ToString::to_string);
    RunSummary {
        id: paths.id(),
        // A folder that is no run has no lease either, and was not aborted.
        status: status.ok().filter(|_| manifest.is_ok()),
        started_unix_ms: read_json::<HostFacts>(&paths.host()).ok().map(|host| host.started_unix_ms),
        command: manifest.ok().map(|manifest| manifest.command),
        problem,
    }
}

/// Every folder below `root` that is no unfinished one.
pub(crate) fn run_folders(root: &Path) -> Result<Vec<PathBuf>, RegistryError> {
    if !root.exists() {
        return Ok(Vec::new());
    }
    let failed = |source| ArtifactError::io("read the folder", root, source);
    let mut folders = Vec::new();
    for entry in fs::read_dir(root).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() && !durable::is_temporary(&path) {
            folders.push(path);
        }
    }
    Ok(folders)
}

/// The folder of the run that `text` means: a path of a run, an id below `root`, or the only id that begins with it.
///
/// # Errors
/// [`RegistryError::UnknownRun`] where there is none, [`RegistryError::AmbiguousRun`] where there are several.
pub fn find_run(root: &Path, text: &str) -> Result<PathBuf, RegistryError> {
    let mut found: Vec<String> = Vec::new();
    for summary in run_folders(root)?.into_iter().map(RunPaths::new) {
        let id = summary.id();
        if id == text {
            return Ok(root.join(id));
        }
        if id.starts_with(text) {
            found.push(id);
        }
    }
    found.sort();
    match found.as_slice() {
        [only] => Ok(root.join(only)),
        // A path such as `.` has no last part to be the id.
        [] if RunPaths::new(text).manifest().is_file() && Path::new(text).file_name().is_none() => {
            fs::canonicalize(text).map_err(|source| ArtifactError::io("look at", Path::new(text), source).into())
        }
        [] if RunPaths::new(text).manifest().is_file() => Ok(PathBuf::from(text)),
        [] => Err(RegistryError::UnknownRun { text: text.to_owned(), root: root.to_path_buf() }),
        _ => Err(RegistryError::AmbiguousRun { text: text.to_owned(), candidates: found }),
    }
}

/// Everything about the run in `folder`, whoever works on it and however it ended.
///
/// # Errors
/// [`RegistryError::Artifact`] where the manifest, the terminal record or a whole line of the metrics cannot be read.
pub fn show_run(folder: &Path) -> Result<RunReport, RegistryError> {
    let paths = RunPaths::new(folder);
    let manifest = RunManifest::read(&paths.manifest())?;
    let status = status_of(&paths, clock::unix_ms())?;
    let (mut metrics_records, mut last_metrics, mut torn_bytes) = (0, None, 0);
    if paths.metrics().exists() {
        let mut reader = JsonLinesReader::open(&paths.metrics())?;
        while let Some(record) = reader.next_record::<Value>()? {
            metrics_records += 1;
            last_metrics = Some(record);
        }
        torn_bytes = reader.torn().map_or(0, |torn| torn.bytes);
    }
    Ok(RunReport {
        id: paths.id(),
        status,
        manifest,
        terminal: read_terminal(&paths)?,
        host: read_json(&paths.host()).ok(),
        metrics_records,
        last_metrics,
        torn_bytes,
    })
}
