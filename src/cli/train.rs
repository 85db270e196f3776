//! `bellwether train`: a training run.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::anyhow;
use bellwether_trainer::config::TrainConfig;
use bellwether_trainer::evaluate::render_table;
use bellwether_trainer::run::{self, TrainRequest};
use schemars::JsonSchema;
use serde::Serialize;

use super::learner::{Chosen, LearnerFlags};
use super::progress::Progress;
use super::run_metrics::MetricsFlags;
use super::{Failure, Output, build};
use crate::settings;

/// Trains a policy on recordings: a run directory with metrics, checkpoints, the model and its evaluation.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Telemetry to learn from.
    #[arg(long, value_name = "FILE", required_unless_present = "print_config")]
    data: Option<PathBuf>,
    /// Held-out telemetry to evaluate on in the end; nothing is chosen by it.
    #[arg(long, value_name = "FILE")]
    valid: Option<PathBuf>,
    /// Folder of run directories.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
    /// What to call the run and its model.
    #[arg(long, default_value = "policy", value_parser = super::plain_name)]
    name: String,
    /// Go on with a run that was cut off, from its last checkpoint; give the same data and configuration.
    #[arg(long, value_name = "RUN")]
    resume: Option<String>,
    #[command(flatten)]
    learner: LearnerFlags,
    #[command(flatten)]
    metrics: MetricsFlags,
    /// Print the resolved configuration as a file for --config that explains every key, and end.
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Flags of every verb that takes a training configuration.
#[derive(clap::Args)]
pub(crate) struct Settings {
    /// Configuration file (TOML); flags and variables beat it, and it beats the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key: `--set trainer.batch_size=64`. Also as a variable: `BELLWETHER__TRAINER__BATCH_SIZE=64`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Master seed, like `--set seed=N`.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// A line for people about episodes that nothing can be learnt from or measured on; empty where there are none.
pub(crate) fn left_out(unlabelled: u64) -> String {
    match unlabelled {
        0 => String::new(),
        count => format!("\nleft out {count} episodes without a label"),
    }
}

impl Settings {
    /// Whether any of the flags was given.
    pub(crate) fn is_given(&self) -> bool {
        self.config.is_some() || !self.set.is_empty() || self.seed.is_some()
    }

    /// The resolved and validated configuration.
    pub(crate) fn resolve(&self) -> Result<TrainConfig, Failure> {
        let mut flags = self.set.clone();
        flags.extend(self.seed.map(|seed| format!("seed={seed}")));
        let config: TrainConfig = settings::resolve(self.config.as_deref(), &flags).map_err(Failure::usage)?;
        config.validate().map_err(Failure::usage)?;
        Ok(config)
    }
}

/// What `train` reports as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "TrainReport")]
pub(crate) struct Report {
    /// Id of the run.
    run: String,
    /// Folder of the model.
    model: PathBuf,
    /// Version of the model.
    model_version: String,
    /// What computed the updates.
    learner: &'static str,
    /// Where it did.
    device: String,
    /// Why it was this one.
    learner_reason: &'static str,
    /// Gradient steps of the released network.
    updates: u64,
    /// Recorded states that the released network drew; recordings are not stepped.
    environment_steps: u64,
    /// Episodes that were left out because they have no label.
    unlabelled_episodes: u64,
    /// Time that the whole took, in seconds.
    wall_seconds: f64,
    /// The evaluation on held-out telemetry; null without `--valid`.
    evaluation: Option<bellwether_trainer::evaluate::Evaluation>,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let config = self.settings.resolve()?;
        if self.print_config {
            let page = settings::page(&config)?;
            return Ok(output.report(&config, || page)?);
        }
        let Some(data) = &self.data else { return Err(Failure::usage(anyhow!("give recordings with --data"))) };
        let isa = build::isa()?;
        let Chosen { learner, reason } = self.learner.choose(isa)?;
        let resume = match &self.resume {
            Some(text) => Some(bellwether_registry::find_run(&self.runs, text).map_err(Failure::usage)?),
            None => None,
        };
        let started = Instant::now();
        let request = TrainRequest {
            name: &self.name,
            config: &config,
            data,
            valid: self.valid.as_deref(),
            runs: &self.runs,
            resume: resume.as_deref(),
            flags: Default::default(),
            learner,
            isa,
            source: build::source(),
        };
        let mut progress = Progress::new(output).with_metrics(self.metrics.start(output)?);
        let ran = run::train(&request, &mut progress);
        progress.end(ran.is_ok());
        drop(progress);
        let report = ran.map_err(Failure::of_run)?;
        let report = Report {
            model: report.folder.join("model"),
            run: report.run,
            model_version: report.version.to_string(),
            learner: learner.name(),
            device: learner.device().to_string(),
            learner_reason: reason,
            updates: report.updates,
            environment_steps: report.states_drawn,
            unlabelled_episodes: report.unlabelled,
            wall_seconds: started.elapsed().as_secs_f64(),
            evaluation: report.evaluation,
        };
        output.report(&report, || {
            let table = report.evaluation.as_ref().map(render_table).unwrap_or_default();
            format!(
                "{table}\nrun      {}\nmodel    {} (version {})\nupdates  {} in {:.0} s\nlearner  {} on {}: {}{}",
                report.run,
                report.model.display(),
                report.model_version,
                report.updates,
                report.wall_seconds,
                report.learner,
                report.device,
                report.learner_reason,
                left_out(report.unlabelled_episodes)
            )
        })?;
        Ok(())
    }
}
