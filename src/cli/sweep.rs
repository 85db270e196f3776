//! `bellwether sweep`: which configuration is best.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use bellwether_registry::{ModelRegistry, Move};
use bellwether_trainer::learner::fused::FusedOptions;
use bellwether_trainer::run::{self, TrainRequest};
use bellwether_trainer::sweep::{self, Outcome, Standing, SweepConfig, SweepError, Watch};
use indicatif::ProgressBar;
use schemars::JsonSchema;
use serde::Serialize;

use super::layers::Layers;
use super::progress::Progress;
use super::{Failure, Output, build, gates};

/// What begins the variables of its configuration.
const PREFIX: &str = "BELLWETHER_SWEEP__";

/// Tries settings of the training configuration, each judged by grouped cross-validation of the training data, on all cores, and
/// trains with the best of them. What was cut off goes on where it stood when the same command is given again.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Telemetry to train on; what judges the winner in the end is not in it.
    #[arg(long, value_name = "FILE", required_unless_present = "print_config")]
    data: Option<PathBuf>,
    /// Held-out telemetry to evaluate the winner on; nothing is chosen by it.
    #[arg(long, value_name = "FILE")]
    valid: Option<PathBuf>,
    /// Folder of the sweep: its trials, its standings, and the run of the winner.
    #[arg(long, value_name = "DIR", default_value = "sweep")]
    out: PathBuf,
    /// Trials at a time; 0 takes as many as the machine has cores.
    #[arg(long, value_name = "N", default_value_t = 0)]
    jobs: usize,
    /// Publish the winner in this registry, and move the name `candidate` to it.
    #[arg(long, value_name = "DIR")]
    registry: Option<PathBuf>,
    #[command(flatten)]
    layers: Layers,
}

/// What `sweep` reports as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "SweepReport")]
pub(crate) struct Report {
    /// All settings, the best first.
    standings: Vec<Standing>,
    /// Id of the winner's run.
    run: String,
    /// Folder of the winner's model.
    model: PathBuf,
    /// Version of the winner's model.
    model_version: String,
    /// Where the name `candidate` went; null without a registry.
    candidate: Option<Move>,
    /// Time that the whole took, in seconds.
    wall_seconds: f64,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let config: SweepConfig = self.layers.resolve(PREFIX)?;
        let data = match &self.data {
            Some(data) if !self.layers.print_config => data,
            _ => return Layers::print(output, PREFIX, &config),
        };
        config.validate().map_err(Failure::usage)?;
        let started = Instant::now();
        let threads = match self.jobs {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            jobs => jobs,
        };
        let bar = Bar { output, shown: Mutex::default() };
        let standings =
            sweep::sweep(&config, data, &self.out, threads, build::isa()?, &bar).map_err(|error| match error {
                SweepError::Config(_) | SweepError::Other { .. } => Failure::usage(error),
                SweepError::Run(error) => Failure::of_run(error),
                error => error.into(),
            })?;
        bar.clear();
        let best = standings.first().ok_or_else(|| anyhow::anyhow!("no setting was tried"))?;
        if best.value.is_none() {
            return Err(Failure::Failed(anyhow::anyhow!("no setting could be judged; {} has why", self.out.display())));
        }
        let winner = config.configured(&best.settings)?;
        let runs = self.out.join("runs");
        let isa = build::isa()?;
        let request = TrainRequest {
            name: "winner",
            config: &winner,
            data,
            valid: self.valid.as_deref(),
            runs: &runs,
            resume: None,
            flags: Default::default(),
            learner: FusedOptions { isa, threads: 1 }.into(),
            isa,
            source: build::source(),
        };
        let trained = run::train(&request, &mut Progress::new(output)).map_err(Failure::of_run)?;
        let folder = trained.folder.join("model");
        let candidate = match &self.registry {
            None => None,
            Some(registry) => {
                let registry = ModelRegistry::open(registry)?;
                let number = registry.publish(&folder)?.number;
                let gates = gates::check_whole(&registry.folder(number), build::isa()?.into())?;
                Some(registry.promote(number, "candidate", &gates, gates::WHOLE)?)
            }
        };
        let report = Report {
            run: trained.run,
            model: folder,
            model_version: trained.version.to_string(),
            candidate,
            standings,
            wall_seconds: started.elapsed().as_secs_f64(),
        };
        output.report(&report, || report.describe())?;
        Ok(())
    }
}

impl Report {
    /// For people: the first of the standings, and the winner.
    fn describe(&self) -> String {
        const SHOWN: usize = 20;
        let lines: Vec<String> = self.standings.iter().take(SHOWN).map(line).collect();
        let rest = self.standings.len().saturating_sub(SHOWN);
        let more = if rest > 0 { format!("\nand {rest} more; --json tells all") } else { String::new() };
        let candidate = self.candidate.as_ref().map_or(String::new(), |moved| format!("\ncandidate {}", moved.to));
        format!(
            "setting  value  lowest to highest     TPR    FPR  updates\n{}{more}\n\nrun      {}\nmodel    {} (version {}){candidate}",
            lines.join("\n"),
            self.run,
            self.model.display(),
            self.model_version
        )
    }
}

fn line(standing: &Standing) -> String {
    let value = standing.value.map_or("  none".to_owned(), |value| format!("{value:6.3}"));
    let range = standing.range.map_or(String::new(), |[low, high]| format!("{low:.3} to {high:.3}"));
    let rates = standing.rates.map_or(String::new(), |[tpr, fpr]| format!("{tpr:.3}  {fpr:.3}"));
    let settings: Vec<String> = standing.settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let (number, updates) = (standing.number, standing.updates);
    format!("{number:>7} {value}  {range:<18} {rates:>13} {updates:>8}  {}", settings.join(", "))
}

/// A bar for each round.
struct Bar<'a> {
    output: &'a Output,
    shown: Mutex<Option<(u32, ProgressBar)>>,
}

impl Bar<'_> {
    fn clear(&self) {
        if let Some((_, bar)) = self.shown.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}

impl Watch for Bar<'_> {
    fn done(&self, round: u32, done: usize, of: usize, latest: Option<&Outcome>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.as_ref().is_none_or(|(of_round, _)| *of_round != round) {
            if let Some((_, bar)) = shown.take() {
                bar.finish_and_clear();
            }
            self.output.say(format_args!("round {}: {of} trials", round + 1));
            *shown = Some((round, self.output.progress("trials", of as u64)));
        }
        let Some((_, bar)) = shown.as_ref() else { return };
        bar.set_position(done as u64);
        if let Some(value) = latest.and_then(|outcome| outcome.value) {
            bar.set_message(format!("{value:.3}"));
        }
    }
}
