//! A training run on recordings.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bellwether_artifact::{ModelVersion, OperatingPoint, release};
use bellwether_env_adapter::ACTION_COUNT;
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_registry::{
    InputFile, RunDirectory, RunManifest, RunPaths, RunStatus, check_name, list_runs, verify_run,
};
use bellwether_replay::StateRows;

use super::drive::{Learning, Mark, drive, end, manifest, open};
use super::publish::{golden, metrics, publish, telemetry_fingerprint, write_evaluation};
use super::{RunError, RunEvent, RunObserver, RunRequest, read, require_both_classes, require_held_out};
use crate::config::TrainConfig;
use crate::evaluate::Evaluation;
use crate::export::Export;
use crate::metrics::UpdateMetrics;
use crate::recorded::TrainingError;
use crate::recorded::calibration::{Calibrated, calibrate};
use crate::recorded::checkpoint::Checkpoint;
use crate::recorded::evaluation::{Background, Tested, evaluate};
use crate::recorded::playback::Learnt;
use crate::recorded::predictions::Predicts;
use crate::recorded::recordings::Recordings;
use crate::recorded::training::Training;

/// What to train, on telemetry.
pub type TrainRequest<'a> = RunRequest<'a, TrainConfig, &'a Path>;

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

/// Runs a training run to its end.
///
/// # Errors
/// See [`RunError`]. What was written until then stays readable in the run's folder; the run counts as failed.
pub fn train(request: &TrainRequest<'_>, observer: &mut dyn RunObserver) -> Result<TrainReport, RunError> {
    let config = request.config;
    config.validate()?;
    check_name("name of a run", request.name)?;
    observer.event(RunEvent::Phase("reading recordings"));
    let recordings = read(request.data, config)?;
    require_both_classes(request.data, &recordings)?;
    let held_out = request.valid.map(|path| read(path, config)).transpose()?;
    if let (Some(path), Some(held_out)) = (request.valid, &held_out) {
        require_held_out((request.data, &recordings), (path, held_out))?;
    }
    let manifest = terms(request)?;
    let episodes: Vec<u32> = recordings.episodes().collect();
    let mut training = Training::new(&recordings, &episodes, config, request.isa, request.learner)?;
    let mut directory = open(request, manifest, &mut training)?;
    let (run, folder) = (directory.id(), directory.paths().folder().to_path_buf());
    let states = recordings.store().states().len() as u64;
    observer.event(RunEvent::Begun { run: &run, states, updates: training.updates() });
    let finished = finish(request, &recordings, held_out.as_ref(), training, &mut directory, observer);
    let (version, evaluation) = end(directory, finished)?;
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

/// What [`train_once`] trained or found.
#[derive(Debug)]
pub struct Trained {
    /// Id of the run.
    pub run: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Version of the model that it made.
    pub version: ModelVersion,
}

/// Sees to it that `request.runs` holds a complete run on these terms: one that is complete and intact is taken as it is, one that was
/// cut off or failed is gone on with, and only where there is neither a new one is begun. `request.resume` is not looked at.
///
/// # Errors
/// As [`train`]; [`NotResumable`](bellwether_registry::RegistryError::NotResumable) where another process is at work on the run.
pub fn train_once(request: &TrainRequest<'_>, observer: &mut dyn RunObserver) -> Result<Trained, RunError> {
    let fingerprint = terms(request)?.fingerprint()?;
    let mut resume = None;
    for summary in list_runs(request.runs)? {
        let folder = request.runs.join(&summary.id);
        let Some(status) = summary.status else { continue };
        if RunManifest::read(&RunPaths::new(&folder).manifest())?.fingerprint()? != fingerprint {
            continue;
        }
        if status != RunStatus::Complete {
            resume.get_or_insert(folder);
        } else if verify_run(&folder)?.passed() {
            observer.event(RunEvent::Phase("taking the run that is complete"));
            let version = release::read(&RunPaths::new(&folder).model())?.manifest.version;
            return Ok(Trained { run: summary.id, folder, version });
        }
    }
    let request = TrainRequest {
        resume: resume.as_deref(),
        flags: request.flags.clone(),
        source: request.source.clone(),
        ..*request
    };
    let TrainReport { run, folder, version, .. } = train(&request, observer)?;
    Ok(Trained { run, folder, version })
}

/// Everything that decides the result of a run.
fn terms(request: &TrainRequest<'_>) -> Result<RunManifest, RunError> {
    let config = request.config;
    let inputs = vec![InputFile::of("train", request.data)?];
    manifest(request, "train", (as_json(config)?, config.seed, &config.window), inputs)
}

/// The configuration without what changes no byte of the result.
fn as_json(config: &TrainConfig) -> Result<serde_json::Value, RunError> {
    let mut config = config.clone();
    (config.trainer.threads, config.trainer.memory_bytes) = (0, 0);
    serde_json::to_value(config).map_err(|error| RunError::Training(TrainingError::Checkpoint(error.to_string())))
}

impl Learning for Training<'_> {
    fn updates(&self) -> u64 {
        Training::updates(self)
    }

    fn total(&self) -> u64 {
        self.config().trainer.updates
    }

    fn round(&mut self) -> Result<Vec<UpdateMetrics>, RunError> {
        let before = Training::updates(self);
        let mut lines = Training::round(self)?;
        let done = Training::updates(self);
        if self.config().trainer.validates(before, done) {
            for (network, validation) in self.validate()? {
                let own = lines.iter_mut().find(|line| line.network == network && line.update == done);
                own.into_iter().for_each(|line| line.validation = Some(validation));
            }
        }
        Ok(lines)
    }

    fn save(&self, mark: Mark, to: &mut dyn Write) -> std::io::Result<()> {
        let Mark { fingerprint, metrics_bytes } = mark;
        Checkpoint { fingerprint, updates: self.updates(), metrics_bytes, members: self.states() }.write(to)
    }

    fn restore(&mut self, from: &mut dyn Read) -> Result<Mark, RunError> {
        let members = self.config().calibration.folds + 1;
        let checkpoint = Checkpoint::read(from, self.released().len(), members)?;
        Training::restore(self, checkpoint.updates, &checkpoint.members)?;
        Ok(Mark { fingerprint: checkpoint.fingerprint, metrics_bytes: checkpoint.metrics_bytes })
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
    observer.event(RunEvent::Phase("training"));
    drive(&mut training, directory, config.trainer.checkpoint_interval, observer)?;
    observer.event(RunEvent::Phase("calibrating"));
    let shape = config.network.shape(recordings.width(), ACTION_COUNT)?;
    let calibrated = calibrate(&training, &shape, config, request.isa)?;
    let policy = Learnt { shape: &shape, parameters: training.released(), isa: request.isa };
    let evaluation = match held_out {
        None => None,
        Some(held_out) => {
            observer.event(RunEvent::Phase("evaluating"));
            let (episodes, known): (Vec<u32>, Vec<u32>) =
                (held_out.episodes().collect(), recordings.episodes().collect());
            let tested = Tested {
                recordings: held_out,
                episodes: &episodes,
                policy: policy.into(),
                operating_points: &calibrated.operating_points,
                config,
                predicts: Some(Predicts::of_recordings(config)),
                background: Some(Background { recordings, episodes: &known }),
            };
            let evaluation = training.pool().install(|| evaluate(&tested))?;
            write_evaluation(directory, &evaluation)?;
            observer.event(RunEvent::Evaluated(&evaluation));
            Some(evaluation)
        }
    };
    observer.event(RunEvent::Phase("exporting"));
    let mut data = vec![telemetry_fingerprint("train", request.data, recordings)?];
    if let (Some(path), Some(held_out)) = (request.valid, held_out) {
        data.push(telemetry_fingerprint("test", path, held_out)?);
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
        golden: golden(recordings.store().states()),
        source: request.source.clone(),
    };
    let version = publish(directory, export, evaluation.as_ref())?;
    Ok((version, evaluation))
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
