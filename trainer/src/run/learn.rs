//! A run on played steps.

use std::io::{Read, Write};
use std::path::PathBuf;

use bellwether_artifact::{ModelVersion, OperatingPoint, Sha256};
use bellwether_env_adapter::reward::RewardConfig;
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_registry::{InputFile, RunDirectory, check_name};
use bellwether_replay::episodes::Loaded;
use serde::{Deserialize, Serialize};

use super::drive::{Learning, Mark, drive, end, manifest, open};
use super::publish::{Judged, fingerprint, golden, metrics, publish, telemetry_fingerprint, write_evaluation};
use super::{RunError, RunEvent, RunObserver, RunRequest, read, require_both_classes, require_unplayed};
use crate::config::TrainConfig;
use crate::dqn::{DqnError, Format};
use crate::evaluate::{self, Evaluation};
use crate::export::Export;
use crate::logged::{self, LearnableSteps, LoggedFile};
use crate::metrics::UpdateMetrics;
use crate::network::Returns;
use crate::offline::{OfflineConfig, OfflineTrainer, Steps};
use crate::recorded::evaluation::{Tested, evaluate};
use crate::recorded::playback::Learnt;
use crate::recorded::predictions::Predicts;

/// What to learn, from episode files.
pub type LearnRequest<'a> = RunRequest<'a, OfflineConfig, &'a [PathBuf]>;

/// What a run on played steps made.
#[derive(Debug)]
pub struct LearnReport {
    /// Id of the run.
    pub run: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Version of the model that it made.
    pub version: ModelVersion,
    /// Gradient steps.
    pub updates: u64,
    /// What it learned from.
    pub loaded: Loaded,
    /// States that memory had room for at a time.
    pub resident: u64,
    /// How often it was all brought into memory; 1 where it fits.
    pub passes: f64,
    /// The evaluation on the held-out telemetry, if there was any.
    pub evaluation: Option<Evaluation>,
}

/// What the manifest of a model says of a run on played steps.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Learned {
    offline: OfflineConfig,
    reward: RewardConfig,
}

impl Learned {
    /// How its policy is judged on recordings.
    pub(super) fn judged(self) -> Judged {
        let predicts = Predicts::of_played(&self.offline);
        let OfflineConfig { seed, window, network, .. } = self.offline;
        Judged {
            config: TrainConfig { seed, window, network, reward: self.reward, ..TrainConfig::default() },
            predicts,
        }
    }
}

/// Runs a run on played steps to its end.
///
/// # Errors
/// See [`RunError`]. What was written until then stays readable in the run's folder; the run counts as failed.
pub fn learn(request: &LearnRequest<'_>, observer: &mut dyn RunObserver) -> Result<LearnReport, RunError> {
    let config = request.config;
    config.validate()?;
    if matches!(config.network.returns, Returns::Categorical { .. }) {
        return Err(crate::network::NetworkError::Categorical.into());
    }
    check_name("name of a run", request.name)?;
    observer.event(RunEvent::Phase("reading episodes"));
    let data = LearnableSteps::read(request.data, config)?;
    let operating_points = operating_points(&data.files)?;
    let loaded = data.loaded();
    let LearnableSteps { steps, reward, files } = data;
    // Where all steps are in memory, its size does not change a byte.
    let memory_bytes = if matches!(steps, Steps::Streamed(_)) { config.memory_bytes } else { 0 };
    let learned = Learned { offline: OfflineConfig { memory_bytes, ..config.clone() }, reward };
    let training = serde_json::to_value(&learned).map_err(RunError::Foreign)?;
    let judged = learned.judged();
    let held_out = request.valid.map(|path| read(path, &judged.config)).transpose()?;
    if let (Some(path), Some(held_out)) = (request.valid, &held_out) {
        require_both_classes(path, held_out)?;
        require_unplayed(&files, (path, held_out))?;
    }
    let inputs = request.data.iter().map(|path| InputFile::of("episodes", path)).collect::<Result<_, _>>()?;
    let manifest = manifest(request, "learn", (training.clone(), config.seed, &config.window), inputs)?;
    let mut trainer = OfflineTrainer::new(config.clone(), steps, request.learner)?;
    let mut directory = open(request, manifest, &mut trainer)?;
    let (run, folder) = (directory.id(), directory.paths().folder().to_path_buf());
    let states = trainer.steps().transitions();
    observer.event(RunEvent::Begun { run: &run, states, updates: trainer.updates() });
    let mut finish = |directory: &mut RunDirectory| {
        observer.event(RunEvent::Phase("learning"));
        drive(&mut trainer, directory, config.checkpoint_interval, observer)?;
        observer.event(RunEvent::Phase("releasing"));
        let (shape, parameters) = trainer.release()?;
        let policy = Learnt { shape: &shape, parameters: &parameters, isa: request.isa };
        let evaluation = match &held_out {
            None => None,
            Some(held_out) => {
                observer.event(RunEvent::Phase("evaluating"));
                let episodes: Vec<u32> = held_out.episodes().collect();
                let points: Vec<evaluate::OperatingPoint> = operating_points.iter().map(uncalibrated).collect();
                let evaluation = evaluate(&Tested {
                    recordings: held_out,
                    episodes: &episodes,
                    policy: policy.into(),
                    operating_points: &points,
                    config: &judged.config,
                    predicts: judged.predicts,
                    background: None,
                })?;
                write_evaluation(directory, &evaluation)?;
                observer.event(RunEvent::Evaluated(&evaluation));
                Some(evaluation)
            }
        };
        observer.event(RunEvent::Phase("exporting"));
        let mut data = Vec::new();
        for file in &files {
            data.push(fingerprint("episodes", &file.path, file.loaded.episodes, file.events)?);
        }
        if let (Some(path), Some(held_out)) = (request.valid, &held_out) {
            data.push(telemetry_fingerprint("test", path, held_out)?);
        }
        let export = Export {
            name: request.name.to_owned(),
            shape: &shape,
            parameters: &parameters,
            spec: &FeatureSpec::v1(config.window.clone()),
            operating_points: operating_points.clone(),
            training: training.clone(),
            metrics: evaluation.as_ref().map(metrics).unwrap_or_default(),
            data,
            golden: golden(trainer.steps().buffer()),
            source: request.source.clone(),
        };
        Ok((publish(directory, export, evaluation.as_ref())?, evaluation))
    };
    let finished = finish(&mut directory);
    let (version, evaluation) = end(directory, finished)?;
    let (resident, passes) = (trainer.steps().buffer().config().capacity as u64, trainer.steps().passes());
    Ok(LearnReport { run, folder, version, updates: config.updates, loaded, resident, passes, evaluation })
}

/// The rates that the policies which played were asked for, at the costs that they played at. Nothing says yet which rate the
/// new policy keeps to at such a cost.
fn operating_points(files: &[LoggedFile]) -> Result<Vec<OperatingPoint>, RunError> {
    let mut points: Vec<OperatingPoint> = Vec::new();
    for (target_fpr, cost) in logged::operating_points(files) {
        points.retain(|point| point.target_fpr != target_fpr);
        points.push(OperatingPoint { target_fpr, cost, calibration_fpr: None, calibration_tpr: None });
    }
    points.sort_by(|a, b| a.target_fpr.total_cmp(&b.target_fpr));
    if points.is_empty() { Err(RunError::NoOperatingPoint) } else { Ok(points) }
}

fn uncalibrated(point: &OperatingPoint) -> evaluate::OperatingPoint {
    evaluate::OperatingPoint {
        target_fpr: point.target_fpr,
        setting: point.cost,
        calibrated_fpr: 1.0,
        met: false,
        supported: false,
    }
}

/// A mark before what the trainer writes.
const FORMAT: Format = Format { magic: b"BWLEARNS", version: 1 };

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkHeader {
    fingerprint: Sha256,
    metrics_bytes: u64,
}

impl Learning for OfflineTrainer {
    fn updates(&self) -> u64 {
        OfflineTrainer::updates(self)
    }

    fn total(&self) -> u64 {
        self.config().updates
    }

    fn round(&mut self) -> Result<Vec<UpdateMetrics>, RunError> {
        Ok(OfflineTrainer::round(self)?)
    }

    fn save(&self, mark: Mark, mut to: &mut dyn Write) -> std::io::Result<()> {
        let Mark { fingerprint, metrics_bytes } = mark;
        let written = FORMAT
            .write(&mut to, &MarkHeader { fingerprint, metrics_bytes })
            .and_then(|()| OfflineTrainer::save(self, to));
        written.map_err(|error| match error {
            DqnError::Io(error) => error,
            error => std::io::Error::other(error),
        })
    }

    fn restore(&mut self, mut from: &mut dyn Read) -> Result<Mark, RunError> {
        let MarkHeader { fingerprint, metrics_bytes } = FORMAT.read(&mut from)?;
        OfflineTrainer::restore(self, from)?;
        Ok(Mark { fingerprint, metrics_bytes })
    }
}
