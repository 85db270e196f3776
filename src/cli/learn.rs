//! `bellwether learn`: a run on played steps.

use std::path::PathBuf;
use std::time::Instant;

use bellwether_trainer::evaluate::{Evaluation, render_table};
use bellwether_trainer::offline::OfflineConfig;
use bellwether_trainer::run::{self, LearnRequest};
use schemars::JsonSchema;
use serde::Serialize;

use super::layers::Layers;
use super::learner::{Chosen, LearnerFlags};
use super::progress::Progress;
use super::run_metrics::MetricsFlags;
use super::{Failure, Output, build};

/// What begins the variables of its configuration.
const PREFIX: &str = "BELLWETHER_LEARN__";

/// Learns a policy from played episodes, those of the sandbox or of `evaluate --episodes`, with nothing to try out: conservative or
/// batch-constrained Q-learning, cloning, or plain DQN.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Episode files to learn from.
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "print_config")]
    episodes: Vec<PathBuf>,
    /// Held-out telemetry to evaluate on in the end, at the costs that the episodes were played at; nothing is chosen by it.
    #[arg(long, value_name = "FILE")]
    valid: Option<PathBuf>,
    /// Folder of run directories.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
    /// What to call the run and its model.
    #[arg(long, default_value = "policy", value_parser = super::plain_name)]
    name: String,
    /// Go on with a run that was cut off, from its last checkpoint; give the same episodes and configuration.
    #[arg(long, value_name = "RUN")]
    resume: Option<String>,
    #[command(flatten)]
    learner: LearnerFlags,
    #[command(flatten)]
    metrics: MetricsFlags,
    #[command(flatten)]
    layers: Layers,
}

/// What `learn` reports as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "LearnReport")]
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
    /// Gradient steps.
    updates: u64,
    /// Episodes that were learned from.
    episodes: u64,
    /// Steps of them in which something was played.
    steps: u64,
    /// Those of them that the safe rule decided, which `bcq` and `cloning` leave out.
    safe_rule: u64,
    /// Episodes that something is missing of.
    partial: u64,
    /// States that memory had room for at a time.
    resident: u64,
    /// How often they were all brought into it; 1 where they all fit.
    passes: f64,
    /// Time that the whole took, in seconds.
    wall_seconds: f64,
    /// The evaluation on held-out telemetry; null without `--valid`.
    evaluation: Option<Evaluation>,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let config: OfflineConfig = self.layers.resolve(PREFIX)?;
        config.validate().map_err(Failure::usage)?;
        if self.layers.print_config {
            return Layers::print(output, PREFIX, &config);
        }
        let isa = build::isa()?;
        let Chosen { learner, reason } = self.learner.choose(isa)?;
        let resume = match &self.resume {
            Some(text) => Some(bellwether_registry::find_run(&self.runs, text).map_err(Failure::usage)?),
            None => None,
        };
        let started = Instant::now();
        let request = LearnRequest {
            name: &self.name,
            config: &config,
            data: &self.episodes,
            valid: self.valid.as_deref(),
            runs: &self.runs,
            resume: resume.as_deref(),
            flags: Default::default(),
            learner,
            isa,
            source: build::source(),
        };
        let mut progress = Progress::new(output).with_metrics(self.metrics.start(output)?);
        let ran = run::learn(&request, &mut progress);
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
            episodes: report.loaded.episodes,
            steps: report.loaded.steps,
            safe_rule: report.loaded.safe_rule,
            partial: report.loaded.partial,
            resident: report.resident,
            passes: report.passes,
            wall_seconds: started.elapsed().as_secs_f64(),
            evaluation: report.evaluation,
        };
        output.report(&report, || {
            let table = report.evaluation.as_ref().map(render_table).unwrap_or_default();
            let (run, model, version) = (&report.run, report.model.display(), &report.model_version);
            let (updates, steps, episodes) = (report.updates, report.steps, report.episodes);
            let seconds = report.wall_seconds;
            let streamed = if report.resident < steps {
                format!("\nstreamed {} states in memory at a time, {:.2} passes", report.resident, report.passes)
            } else {
                String::new()
            };
            let safe_rule = match (report.safe_rule, config.algorithm.clones()) {
                (0, _) => String::new(),
                (count, true) => format!("\nleft out {count} steps that the safe rule decided"),
                (count, false) => format!("\nof them  {count} steps that the safe rule decided"),
            };
            format!(
                "{table}\nrun      {run}\nmodel    {model} (version {version})\n\
                 updates  {updates} on {steps} steps of {episodes} episodes in {seconds:.0} s\nlearner  {} on {}: {}{streamed}{safe_rule}",
                report.learner, report.device, report.learner_reason
            )
        })?;
        Ok(())
    }
}
