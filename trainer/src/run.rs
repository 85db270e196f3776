//! A training run, whole: data in, a run directory with metrics, checkpoints, the model and its evaluation out.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use bellwether_artifact::{
    ArtifactError, DataFingerprint, Metric, ModelVersion, OperatingPoint, Sha256, SourceRevision, durable, release,
};
use bellwether_env_adapter::ingest::EpisodeDigest;
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_env_adapter::{ACTION_COUNT, Action, Label};
use bellwether_registry::{
    EventFile, InputFile, MANIFEST_FORMAT, RegistryError, RunDirectory, RunManifest, RunPaths, check_name,
};
use bellwether_replay::StateRows;

use crate::config::{ConfigError, TrainConfig};
use crate::evaluate::{Evaluation, FoldItem, Groups, grouped_folds};
use crate::export::{Export, ExportError};
use crate::learner::fused::Isa;
use crate::metrics::{EventWriter, UpdateMetrics};
use crate::network::NetworkError;
use crate::recorded::TrainingError;
use crate::recorded::calibration::{Calibrated, calibrate};
use crate::recorded::checkpoint::Checkpoint;
use crate::recorded::evaluation::{Background, Tested, evaluate};
use crate::recorded::playback::Learnt;
use crate::recorded::recordings::{Recordings, RecordingsError};
use crate::recorded::training::Training;

/// The latest checkpoint, below the run's folder.
const CHECKPOINT: &str = "checkpoints/latest.checkpoint";
/// Golden vectors of a model: states spread over the training recordings.
const GOLDEN_VECTORS: usize = 32;

/// What to train.
pub struct TrainRequest<'a> {
    /// What people call the run and its model: `a-z`, `0-9`, `.`, `_` and `-`.
    pub name: &'a str,
    /// The resolved configuration.
    pub config: &'a TrainConfig,
    /// Telemetry to learn from.
    pub data: &'a Path,
    /// Telemetry to evaluate on in the end; nothing is chosen by it.
    pub valid: Option<&'a Path>,
    /// Folder of run directories.
    pub runs: &'a Path,
    /// A run that was aborted, to go on with.
    pub resume: Option<&'a Path>,
    /// Flags that shaped the run beside the configuration.
    pub flags: BTreeMap<String, String>,
    /// Instruction set; it does not change a byte.
    pub isa: Isa,
    /// The code that trains.
    pub source: SourceRevision,
}

/// What a run made.
#[derive(Debug)]
pub struct TrainReport {
    /// Id of the run.
    pub run: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Version of the model that it made.
    pub version: ModelVersion,
    /// Gradient steps of the released network.
    pub updates: u64,
    /// Recorded states that those steps drew.
    pub states_drawn: u64,
    /// Episodes left out because they have no label.
    pub unlabelled: u64,
    /// The evaluation on the held-out telemetry, if there was any.
    pub evaluation: Option<Evaluation>,
}

/// What a run tells whoever waits for it.
pub trait RunObserver {
    /// Seconds since a moment of the observer's choice; kept apart from everything that is hashed.
    fn seconds(&mut self) -> f64;
    /// A phase begins.
    fn phase(&mut self, what: &str);
    /// Gradient steps done of all, with the last records of every network.
    fn progress(&mut self, done: u64, of: u64, latest: &[UpdateMetrics]);
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be run.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data cannot be read.
    #[error("cannot read {path}")]
    Recordings {
        /// The telemetry file.
        path: PathBuf,
        /// Why.
        source: RecordingsError,
    },
    /// The data holds nothing to learn from.
    #[error(
        "{path} holds {benign} benign and {malicious} malicious labelled episodes; training needs both: add recordings of \
         the class that is missing, or labels"
    )]
    OneClass {
        /// The telemetry file.
        path: PathBuf,
        /// Benign episodes with a window.
        benign: usize,
        /// Malicious episodes with a window.
        malicious: usize,
    },
    /// Training failed.
    #[error(transparent)]
    Training(#[from] TrainingError),
    /// The network cannot be built.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The model cannot be exported.
    #[error("the model cannot be exported")]
    Export(#[from] ExportError),
    /// The run directory refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file could not be read or written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The run to go on with had other data, another configuration or other code.
    #[error("the run {run} was begun on other terms ({differs}); go back to them, or start a new run")]
    OtherRun {
        /// Id of the run.
        run: String,
        /// What differs: the first few keys, with what the run was begun with and what was asked for now.
        differs: String,
    },
}

/// Runs a training run to its end.
///
/// # Errors
/// See [`RunError`]. What was written until then stays readable in the run's folder; the run counts as failed.
pub fn train(request: &TrainRequest<'_>, observer: &mut dyn RunObserver) -> Result<TrainReport, RunError> {
    let config = request.config;
    config.validate()?;
    check_name("name of a run", request.name)?;
    observer.phase("reading recordings");
    let recordings = read(request.data, config)?;
    require_both_classes(request.data, &recordings)?;
    let held_out = request.valid.map(|path| read(path, config)).transpose()?;
    let manifest = manifest(request)?;
    let episodes: Vec<u32> = recordings.episodes().collect();
    let mut training = Training::new(&recordings, &episodes, config, request.isa)?;
    let mut directory = open(request, manifest, &mut training)?;
    match finish(request, &recordings, held_out.as_ref(), training, &mut directory, observer) {
        Ok((version, evaluation)) => {
            let (run, folder) = (directory.id(), directory.paths().folder().to_path_buf());
            directory.complete()?;
            Ok(TrainReport {
                run,
                folder,
                version,
                updates: config.trainer.updates,
                states_drawn: config.trainer.updates * config.trainer.batch_size as u64,
                unlabelled: recordings.unlabelled().len() as u64,
                evaluation,
            })
        }
        Err(error) => {
            // The first error is the one to tell; without a record of it the run counts as aborted.
            let _ = directory.fail(&with_causes(&error));
            Err(error)
        }
    }
}

/// An error with all its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Reads telemetry as the configuration asks for it.
///
/// # Errors
/// [`RunError::Recordings`].
pub fn read(path: &Path, config: &TrainConfig) -> Result<Recordings, RunError> {
    Recordings::read(path, &config.window, &config.reward, config.trainer.memory_bytes)
        .map_err(|source| RunError::Recordings { path: path.to_path_buf(), source })
}

/// Refuses recordings that miss one of the two classes.
///
/// # Errors
/// [`RunError::OneClass`].
pub fn require_both_classes(path: &Path, recordings: &Recordings) -> Result<(), RunError> {
    let of_class = |class: u32| recordings.store().episodes().filter(|e| e.class == class && e.len > 0).count();
    both(path, of_class(0), of_class(1))
}

/// Refuses what [`train`] would refuse of these episodes, by their digests alone, before anything is written.
///
/// # Errors
/// [`RunError::OneClass`], and [`RunError::Training`] where a class has fewer groups than calibration has folds.
pub fn require_learnable<'a>(
    path: &Path,
    episodes: impl IntoIterator<Item = &'a EpisodeDigest>,
    config: &TrainConfig,
) -> Result<(), RunError> {
    let mut groups = Groups::new();
    let items: Vec<FoldItem> = episodes
        .into_iter()
        .filter(|episode| episode.events > 0)
        .filter_map(|episode| {
            let label = episode.label?;
            Some(FoldItem { group: groups.intern(episode.family.as_deref()), label, content: Some(episode.content.0) })
        })
        .collect();
    let malicious = items.iter().filter(|item| item.label == Label::Malicious).count();
    both(path, items.len() - malicious, malicious)?;
    grouped_folds(&items, config.calibration.folds as u32, config.seed).map_err(TrainingError::Evaluation)?;
    Ok(())
}

fn both(path: &Path, benign: usize, malicious: usize) -> Result<(), RunError> {
    if benign > 0 && malicious > 0 {
        return Ok(());
    }
    Err(RunError::OneClass { path: path.to_path_buf(), benign, malicious })
}

/// Everything that decides the result of a run.
fn manifest(request: &TrainRequest<'_>) -> Result<RunManifest, RunError> {
    let mut inputs = vec![InputFile::of("train", request.data)?];
    inputs.extend(request.valid.map(|path| InputFile::of("valid", path)).transpose()?);
    let spec = FeatureSpec::v1(request.config.window.clone());
    Ok(RunManifest {
        format_version: MANIFEST_FORMAT,
        name: request.name.to_owned(),
        command: "train".to_owned(),
        flags: request.flags.clone(),
        config: as_json(request.config)?,
        seeds: BTreeMap::from([("master".to_owned(), request.config.seed)]),
        inputs,
        versions: BTreeMap::from([
            ("feature_spec".to_owned(), spec.hash_hex()),
            ("action_set".to_owned(), Action::SET_VERSION.to_string()),
        ]),
        source: request.source.clone(),
        artifacts: Vec::new(),
    })
}

/// The configuration without what changes no byte of the result.
fn as_json(config: &TrainConfig) -> Result<serde_json::Value, RunError> {
    let mut config = config.clone();
    (config.trainer.threads, config.trainer.memory_bytes) = (0, 0);
    serde_json::to_value(config).map_err(|error| RunError::Training(TrainingError::Checkpoint(error.to_string())))
}

/// A new run directory, or the one to go on with at its last checkpoint.
fn open(
    request: &TrainRequest<'_>,
    manifest: RunManifest,
    training: &mut Training<'_>,
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
        let checkpoint = Checkpoint::read(&mut file, training.released().len(), request.config.calibration.folds + 1)?;
        if checkpoint.fingerprint != fingerprint {
            let differs = "its checkpoint is of another run".to_owned();
            return Err(RunError::OtherRun { run: directory.id(), differs });
        }
        training.restore(checkpoint.updates, &checkpoint.members)?;
        metrics_bytes = checkpoint.metrics_bytes;
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

/// Trains, calibrates, exports and evaluates.
fn finish(
    request: &TrainRequest<'_>,
    recordings: &Recordings,
    held_out: Option<&Recordings>,
    mut training: Training<'_>,
    directory: &mut RunDirectory,
    observer: &mut dyn RunObserver,
) -> Result<(ModelVersion, Option<Evaluation>), RunError> {
    let config = request.config;
    observer.phase("training");
    let fingerprint = directory.manifest().fingerprint()?;
    let mut saved = training.updates();
    let mut curves = Curves::begin(directory, saved)?;
    while !training.is_finished() {
        let started = observer.seconds();
        let lines = training.round()?;
        for line in &lines {
            directory.metrics().append(line)?;
        }
        curves.append(&lines)?;
        let seconds = observer.seconds() - started;
        directory.timings().append(&serde_json::json!({ "update": training.updates(), "seconds": seconds }))?;
        if training.updates() - saved >= config.trainer.checkpoint_interval || training.is_finished() {
            saved = training.updates();
            let checkpoint = Checkpoint {
                fingerprint,
                updates: saved,
                metrics_bytes: directory.metrics().offset(),
                members: training.states(),
            };
            directory.metrics().sync()?;
            directory.write(CHECKPOINT, |to| checkpoint.write(to))?;
        }
        observer.progress(training.updates(), config.trainer.updates, &lines);
    }
    observer.phase("calibrating");
    let shape = config.network.shape(recordings.width(), ACTION_COUNT)?;
    let calibrated = calibrate(&training, &shape, config, request.isa)?;
    let policy = Learnt { shape: &shape, parameters: training.released(), isa: request.isa };
    let evaluation = match held_out {
        None => None,
        Some(held_out) => {
            observer.phase("evaluating");
            let (episodes, known): (Vec<u32>, Vec<u32>) =
                (held_out.episodes().collect(), recordings.episodes().collect());
            let tested = Tested {
                recordings: held_out,
                episodes: &episodes,
                policy: policy.into(),
                operating_points: &calibrated.operating_points,
                config,
                background: Some(Background { recordings, episodes: &known }),
            };
            let evaluation = training.pool().install(|| evaluate(&tested))?;
            directory.write("evaluation.json", |to| {
                serde_json::to_writer_pretty(&mut *to, &evaluation)?;
                to.write_all(b"\n")
            })?;
            Some(evaluation)
        }
    };
    observer.phase("exporting");
    let mut data = vec![data_fingerprint("train", request.data, recordings)?];
    if let (Some(path), Some(held_out)) = (request.valid, held_out) {
        data.push(data_fingerprint("test", path, held_out)?);
    }
    let export = Export {
        name: request.name.to_owned(),
        shape: &shape,
        parameters: policy.parameters,
        spec: &FeatureSpec::v1(config.window.clone()),
        operating_points: operating_points(&calibrated),
        training: as_json(config)?,
        metrics: evaluation.as_ref().map(metrics).unwrap_or_default(),
        data,
        golden: golden(recordings),
        source: request.source.clone(),
    };
    let (manifest, onnx) = export.build()?;
    let folder = directory.paths().model();
    if folder.exists() {
        // Left by an attempt that was cut off after it had published the model; the bytes are the same.
        std::fs::remove_dir_all(&folder).map_err(|source| ArtifactError::io("remove", &folder, source))?;
    }
    let evaluation_json = evaluation.as_ref().and_then(|evaluation| serde_json::to_vec_pretty(evaluation).ok());
    let companions = release::Companions { evaluation: evaluation_json.as_deref(), ..release::Companions::default() };
    release::publish(&folder, &manifest, &onnx, companions)?;
    Ok((manifest.version, evaluation))
}

/// The table that a model carries, by ascending target; a larger target never costs more.
fn operating_points(calibrated: &Calibrated) -> Vec<OperatingPoint> {
    let mut points: Vec<OperatingPoint> = calibrated
        .operating_points
        .iter()
        .map(|point| {
            let outcomes = calibrated.curve.iter().find(|(z, _)| *z == point.setting).map(|(_, outcomes)| outcomes);
            let summary = outcomes.map(|outcomes| crate::evaluate::summarise(outcomes).metrics);
            OperatingPoint {
                target_fpr: point.target_fpr,
                cost: point.setting,
                calibration_fpr: point.supported.then_some(point.calibrated_fpr),
                calibration_tpr: summary.and_then(|metrics| metrics.tpr),
            }
        })
        .collect();
    points.sort_by(|a, b| a.target_fpr.total_cmp(&b.target_fpr));
    points
}

/// The results that a model carries: each rate at each operating point, with its interval.
fn metrics(evaluation: &Evaluation) -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::new();
    for point in &evaluation.operating_points {
        let (values, intervals) = (&point.metrics, &point.ci95);
        for (name, value, interval) in [
            ("fpr", values.fpr, intervals.fpr),
            ("tpr", values.tpr, intervals.tpr),
            ("mean_events", values.mean_events, intervals.mean_events),
            ("harm_prevented", values.harm_prevented, intervals.harm_prevented),
            ("mean_return", values.mean_return, intervals.mean_return),
        ] {
            metrics.insert(format!("{name}@fpr={}", point.target_fpr), Metric { value, ci95: interval });
        }
    }
    metrics
}

fn data_fingerprint(role: &str, path: &Path, recordings: &Recordings) -> Result<DataFingerprint, RunError> {
    let (sha256, _): (Sha256, u64) = durable::hash_file(path)?;
    let events = recordings.episodes().map(|episode| recordings.facts(episode).events).sum();
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(DataFingerprint { role: role.to_owned(), name, sha256, episodes: recordings.episodes().len() as u64, events })
}

/// States spread evenly over the recordings, with the mask of a window in mid-run.
fn golden(recordings: &Recordings) -> Vec<(Vec<f32>, [bool; ACTION_COUNT])> {
    let states = recordings.store().states();
    let count = GOLDEN_VECTORS.min(states.len());
    (0..count)
        .map(|i| {
            let mut state = vec![0.0; states.width()];
            states.gather(i * states.len() / count, &mut state);
            (state, bellwether_env_adapter::action::mask(i % 4 == 3, false))
        })
        .collect()
}
