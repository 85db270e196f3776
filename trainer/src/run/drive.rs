//! What every run does: take up a run directory, update until all is done, leave metrics, curves and checkpoints.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};

use bellwether_artifact::{ArtifactError, Sha256};
use bellwether_env_adapter::Action;
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_env_adapter::window::WindowConfig;
use bellwether_registry::{EventFile, InputFile, MANIFEST_FORMAT, RunDirectory, RunManifest, RunPaths};

use super::{RunError, RunEvent, RunObserver, RunRequest};
use crate::metrics::{EventWriter, UpdateMetrics};

/// The latest checkpoint, below the run's folder.
const CHECKPOINT: &str = "checkpoints/latest.checkpoint";

/// What learns, as a run drives it.
pub(super) trait Learning {
    /// Gradient steps so far.
    fn updates(&self) -> u64;
    /// Gradient steps of the whole run.
    fn total(&self) -> u64;
    /// Learns until there is something to tell.
    fn round(&mut self) -> Result<Vec<UpdateMetrics>, RunError>;
    /// Writes a checkpoint.
    fn save(&self, mark: Mark, to: &mut dyn Write) -> std::io::Result<()>;
    /// Goes on from a checkpoint.
    fn restore(&mut self, from: &mut dyn Read) -> Result<Mark, RunError>;
}

/// Where the run of a checkpoint stands beside what learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Hash of configuration and data: a checkpoint goes on only with the same.
    pub(super) fingerprint: Sha256,
    /// Length of `metrics.jsonl` at this point, in bytes.
    pub(super) metrics_bytes: u64,
}

/// Everything that decides the result of a run.
pub(super) fn manifest<C, D>(
    request: &RunRequest<'_, C, D>,
    command: &str,
    (config, seed, window): (serde_json::Value, u64, &WindowConfig),
    mut inputs: Vec<InputFile>,
) -> Result<RunManifest, RunError> {
    inputs.extend(request.valid.map(|path| InputFile::of("valid", path)).transpose()?);
    let mut flags = request.flags.clone();
    // The fused one goes without saying, as in runs from when there was no other.
    if request.learner.name() != "fused" {
        flags.insert("learner".to_owned(), request.learner.name().to_owned());
        flags.insert("device".to_owned(), request.learner.device().to_string());
    }
    Ok(RunManifest {
        format_version: MANIFEST_FORMAT,
        name: request.name.to_owned(),
        command: command.to_owned(),
        flags,
        config,
        seeds: BTreeMap::from([("master".to_owned(), seed)]),
        inputs,
        versions: BTreeMap::from([
            ("feature_spec".to_owned(), FeatureSpec::v1(window.clone()).hash_hex()),
            ("action_set".to_owned(), Action::SET_VERSION.to_string()),
        ]),
        source: request.source.clone(),
        artifacts: Vec::new(),
    })
}

/// A new run directory, or the one to go on with at its last checkpoint.
pub(super) fn open<C, D>(
    request: &RunRequest<'_, C, D>,
    manifest: RunManifest,
    learning: &mut dyn Learning,
) -> Result<RunDirectory, RunError> {
    let fingerprint = manifest.fingerprint()?;
    let Some(folder) = request.resume else { return Ok(RunDirectory::create(request.runs, manifest)?) };
    // Asked before it is taken up: a slip of whoever calls changes nothing about the run.
    let paths = RunPaths::new(folder);
    let begun = RunManifest::read(&paths.manifest())?;
    if begun.fingerprint()? != fingerprint {
        return Err(RunError::OtherRun { run: paths.id(), differs: differences(&begun, &manifest) });
    }
    let mut directory = RunDirectory::resume(folder)?;
    let path = directory.paths().folder().join(CHECKPOINT);
    let mut metrics_bytes = 0;
    if path.exists() {
        let mut file = File::open(&path).map_err(|source| ArtifactError::io("open", &path, source))?;
        let mark = learning.restore(&mut file)?;
        if mark.fingerprint != fingerprint {
            let differs = "its checkpoint is of another run".to_owned();
            return Err(RunError::OtherRun { run: directory.id(), differs });
        }
        metrics_bytes = mark.metrics_bytes;
    }
    directory.rewind_metrics(metrics_bytes)?;
    Ok(directory)
}

/// What differs between the terms that a run was begun on and those of now, in a line.
fn differences(begun: &RunManifest, now: &RunManifest) -> String {
    const TOLD: usize = 6;
    let differing = begun.differences(now);
    let mut told: Vec<String> =
        differing.iter().take(TOLD).map(|(key, was, is)| format!("{key} was {was}, now {is}")).collect();
    if differing.is_empty() {
        // Name, command or format: no setting.
        told.push("another name or command".to_owned());
    } else if differing.len() > TOLD {
        told.push(format!("and {} more", differing.len() - TOLD));
    }
    told.join("; ")
}

/// Learns until all is done, and writes down what there is to tell.
pub(super) fn drive(
    learning: &mut dyn Learning,
    directory: &mut RunDirectory,
    checkpoint_interval: u64,
    observer: &mut dyn RunObserver,
) -> Result<(), RunError> {
    let fingerprint = directory.manifest().fingerprint()?;
    let mut saved = learning.updates();
    let mut curves = Curves::begin(directory, saved)?;
    while learning.updates() < learning.total() {
        let started = observer.seconds();
        let lines = learning.round()?;
        for line in &lines {
            directory.metrics().append(line)?;
        }
        curves.append(&lines)?;
        let seconds = observer.seconds() - started;
        let (updates, total) = (learning.updates(), learning.total());
        directory.timings().append(&serde_json::json!({ "update": updates, "seconds": seconds }))?;
        if updates - saved >= checkpoint_interval || updates >= total {
            saved = updates;
            let mark = Mark { fingerprint, metrics_bytes: directory.metrics().offset() };
            directory.metrics().sync()?;
            directory.write(CHECKPOINT, |to| learning.save(mark, to))?;
            observer.event(RunEvent::Saved);
        }
        observer.event(RunEvent::Updated { done: updates, of: total, lines: &lines });
    }
    Ok(())
}

/// Ends a run as it went: complete, or failed with its reason.
pub(super) fn end<T>(directory: RunDirectory, result: Result<T, RunError>) -> Result<T, RunError> {
    match result {
        Ok(value) => {
            directory.complete()?;
            Ok(value)
        }
        Err(error) => {
            // The first error is the one to tell; without a record of it the run counts as aborted.
            let _ = directory.fail(&with_causes(&error));
            Err(error)
        }
    }
}

/// An error with all its causes, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The metrics as curves for TensorBoard, in a file of this start of the run.
struct Curves {
    events: EventWriter<EventFile>,
}

impl Curves {
    /// Begins the file of a run that stands after `updates` updates.
    fn begin(directory: &RunDirectory, updates: u64) -> Result<Curves, RunError> {
        let file = directory.event_file()?;
        let (path, now) = (file.path().to_path_buf(), file.unix_seconds());
        let failed = |source| RunError::Artifact(ArtifactError::io("write", &path, source));
        // Indented by four blanks, Markdown shows it as it is.
        let configuration = serde_json::to_string_pretty(&directory.manifest().config).map_err(|e| failed(e.into()))?;
        let configuration = format!("    {}", configuration.replace('\n', "\n    "));
        let mut events = EventWriter::new(file, now).map_err(failed)?;
        events.session_start(updates + 1, now).map_err(failed)?;
        events.text("configuration", 0, &configuration, now).map_err(failed)?;
        Ok(Curves { events })
    }

    fn append(&mut self, lines: &[UpdateMetrics]) -> Result<(), RunError> {
        let now = self.events.get_ref().unix_seconds();
        for line in lines {
            let written = self.events.scalars(line.update, line.curves(), now);
            written.map_err(|source| ArtifactError::io("write", self.events.get_ref().path(), source))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learner::fused::{FusedOptions, Isa};
    use crate::learner::{LearnerChoice, LearnerError};
    use crate::recorded::TrainingError;
    use bellwether_artifact::SourceRevision;
    use bellwether_registry::{RunStatus, list_runs};
    use std::path::Path;

    /// Ten updates a round, thirty in all, of which the last ten fail while `fails`.
    struct Counting {
        updates: u64,
        fails: bool,
    }

    impl Learning for Counting {
        fn updates(&self) -> u64 {
            self.updates
        }
        fn total(&self) -> u64 {
            30
        }
        fn round(&mut self) -> Result<Vec<UpdateMetrics>, RunError> {
            if self.fails && self.updates == 20 {
                let source = Box::new(LearnerError::Diverged { what: "loss" }.into());
                return Err(TrainingError::Update { network: "fold-1".into(), update: 21, source }.into());
            }
            self.updates += 10;
            let (loss, mean_q, mean_target) = (0.5, 0.0, 0.0);
            let (max_error, gradient_norm, learning_rate) = (1.0, 1.0, 1e-3);
            let (network, update) = ("fold-1".to_owned(), self.updates);
            Ok(vec![UpdateMetrics {
                network,
                update,
                loss,
                mean_q,
                mean_target,
                max_error,
                gradient_norm,
                learning_rate,
                validation: None,
            }])
        }
        fn save(&self, mark: Mark, to: &mut dyn Write) -> std::io::Result<()> {
            to.write_all(mark.fingerprint.as_bytes())?;
            to.write_all(&mark.metrics_bytes.to_le_bytes())?;
            to.write_all(&self.updates.to_le_bytes())
        }
        fn restore(&mut self, from: &mut dyn Read) -> Result<Mark, RunError> {
            let (mut fingerprint, mut metrics_bytes, mut updates) = ([0; 32], [0; 8], [0; 8]);
            for part in [&mut fingerprint[..], &mut metrics_bytes, &mut updates] {
                from.read_exact(part).unwrap();
            }
            self.updates = u64::from_le_bytes(updates);
            Ok(Mark { fingerprint: Sha256::from_bytes(fingerprint), metrics_bytes: u64::from_le_bytes(metrics_bytes) })
        }
    }

    struct Silent;

    impl RunObserver for Silent {
        fn seconds(&mut self) -> f64 {
            0.0
        }
        fn event(&mut self, _: RunEvent<'_>) {}
    }

    /// Runs from the start, or goes on with a run.
    fn run(runs: &Path, resume: Option<&Path>, learning: &mut Counting) -> Result<(), RunError> {
        let request = RunRequest {
            name: "counting",
            config: &(),
            data: (),
            valid: None,
            runs,
            resume,
            flags: BTreeMap::new(),
            learner: LearnerChoice::Fused(FusedOptions::default()),
            isa: Isa::best(),
            source: SourceRevision { package: "0".to_owned(), revision: None, modified: None },
        };
        let terms = (serde_json::json!({}), 1, &WindowConfig::default());
        let manifest = manifest(&request, "train", terms, Vec::new())?;
        let mut directory = open(&request, manifest, learning)?;
        let result = drive(learning, &mut directory, 10, &mut Silent);
        end(directory, result)
    }

    #[test]
    fn a_run_that_diverges_has_failed_says_why_and_goes_on_from_its_last_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let error = run(folder.path(), None, &mut Counting { updates: 0, fails: true }).unwrap_err();
        let paths = RunPaths::new(std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path());
        let status = || list_runs(folder.path()).unwrap().remove(0).status;
        assert_eq!(status(), Some(RunStatus::Failed));
        let terminal = std::fs::read_to_string(paths.terminal()).unwrap();
        assert!(terminal.contains("the update diverged") && with_causes(&error).contains("update 21"), "{terminal}");
        let lines = || std::fs::read_to_string(paths.metrics()).unwrap().lines().count();
        assert_eq!(lines(), 2);

        let mut learning = Counting { updates: 0, fails: false };
        run(folder.path(), Some(paths.folder()), &mut learning).unwrap();
        assert_eq!((learning.updates, lines()), (30, 3));
        assert_eq!(status(), Some(RunStatus::Complete));
    }
}
