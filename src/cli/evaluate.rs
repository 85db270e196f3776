//! `bellwether evaluate`: a policy on held-out recordings, beside its baselines.

use std::path::PathBuf;

use anyhow::anyhow;
use bellwether_artifact::durable;
use bellwether_trainer::evaluate::{Evaluation, OperatingPoint, render_table};
use bellwether_trainer::recorded::evaluation::{Background, Tested, evaluate};
use bellwether_trainer::recorded::validation::{Beside, cross_validate};
use bellwether_trainer::run::{self, Judged};
use schemars::JsonSchema;
use serde::Serialize;

use super::progress::Progress;
use super::train::{Settings, left_out};
use super::{Failure, Output, build, model, played};

/// Plays a model on held-out recordings by exact replay, or cross-validates a configuration.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder of the model.
    #[arg(long, value_name = "DIR", required_unless_present = "cv")]
    model: Option<PathBuf>,
    /// Telemetry to evaluate on.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Telemetry that the model was trained on: baselines are fitted to it and stand beside the policy.
    #[arg(long, value_name = "FILE")]
    train: Option<PathBuf>,
    /// Grouped cross-validation of a configuration in this many folds, beside its baselines, instead of a model.
    #[arg(long, value_name = "K", conflicts_with_all = ["model", "train"])]
    cv: Option<usize>,
    #[command(flatten)]
    played: played::Flags,
    #[command(flatten)]
    engine: model::EngineFlags,
    #[command(flatten)]
    settings: Settings,
}

/// What `evaluate` reports as JSON; `evaluation.json` of a run and of a release is the same without the last two.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "Evaluation")]
pub(crate) struct Report {
    #[serde(flatten)]
    evaluation: Evaluation,
    /// Episodes that were left out because they have no label.
    #[serde(default)]
    unlabelled_episodes: u64,
    /// The episode file, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    played: Option<played::Report>,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let mut played = None;
        let (evaluation, unlabelled) = match (self.cv, &self.model) {
            (Some(folds), _) => {
                if self.engine.is_given() {
                    return Err(Failure::usage(anyhow!(
                        "what is trained here is played as it was trained: leave out --engine and --onnx-runtime, or give --model \
                         instead of --cv"
                    )));
                }
                let config = self.settings.resolve()?;
                let recordings = run::read(&self.data, &config)?;
                run::require_both_classes(&self.data, &recordings).map_err(Failure::of_run)?;
                let evaluation = cross_validate(
                    &recordings,
                    &config,
                    folds,
                    Beside::Baselines,
                    build::isa()?,
                    &mut Progress::new(output),
                )
                .map_err(|error| Failure::of_run(error.into()))?;
                (evaluation, recordings.unlabelled().len())
            }
            (None, Some(folder)) => {
                if self.settings.is_given() {
                    return Err(Failure::usage(anyhow!(
                        "a model is played under the configuration that it was trained with: leave out --config, --set and \
                         --seed, or give --cv instead of --model"
                    )));
                }
                let inputs = [Some(&self.data), self.train.as_ref()];
                self.played.keep(inputs.into_iter().flatten().map(PathBuf::as_path))?;
                let release = self.engine.load(folder, 0)?;
                let (data, _) = durable::hash_file(&self.data)?;
                if release.manifest.data.iter().any(|known| known.role == "train" && known.sha256 == data) {
                    tracing::warn!(
                        "{} is what the model was trained on: its rates say nothing about samples that it has not seen",
                        self.data.display()
                    );
                }
                let Judged { config, predicts } = run::judged(&release.manifest.training)?;
                let episode_file = self.played.start(&release)?;
                let playable = model::Playable::of(&release)?;
                let recordings = run::read(&self.data, &config)?;
                let train = self.train.as_ref().map(|path| run::read(path, &config)).transpose()?;
                let operating_points: Vec<OperatingPoint> = release
                    .manifest
                    .operating_points
                    .iter()
                    .map(|point| OperatingPoint {
                        target_fpr: point.target_fpr,
                        setting: point.cost,
                        calibrated_fpr: point.calibration_fpr.unwrap_or(1.0),
                        met: point.calibration_fpr.is_some_and(|rate| rate <= point.target_fpr),
                        supported: point.calibration_fpr.is_some(),
                    })
                    .collect();
                let episodes: Vec<u32> = recordings.episodes().collect();
                let known: Vec<u32> = train.iter().flat_map(|train| train.episodes()).collect();
                let evaluation = evaluate(&Tested {
                    recordings: &recordings,
                    episodes: &episodes,
                    policy: playable.policy(),
                    operating_points: &operating_points,
                    config: &config,
                    predicts,
                    background: train.as_ref().map(|recordings| Background { recordings, episodes: &known }),
                })?;
                played = episode_file.map(|file| file.write(&release, &config, &recordings, &self.data)).transpose()?;
                (evaluation, recordings.unlabelled().len())
            }
            (None, None) => return Err(Failure::usage(anyhow!("give --model, or --cv with a configuration"))),
        };
        let report = Report { evaluation, unlabelled_episodes: unlabelled as u64, played };
        output.report(&report, || {
            let played = report.played.as_ref().map(played::Report::describe).unwrap_or_default();
            format!("{}{}\n{played}", render_table(&report.evaluation), left_out(report.unlabelled_episodes))
        })?;
        Ok(())
    }
}
