//! `bellwether sweep`: which configuration is best.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bellwether_artifact::durable;
use bellwether_registry::{ModelRegistry, Move};
use bellwether_trainer::learner::fused::FusedOptions;
use bellwether_trainer::run::{self, TrainRequest};
use bellwether_trainer::sweep::{self, Outcome, Standing, SweepConfig, SweepError, SweepPage, Watch};
use indicatif::ProgressBar;
use schemars::JsonSchema;
use serde::Serialize;

use super::layers::Layers;
use super::progress::{Lines, Progress, span};
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
    /// All settings, the best first: those that came to the latest round in which any was judged, then the others, and last
    /// those that could not be judged.
    standings: Vec<Standing>,
    /// A page with them and their pictures, which lie beside it as SVG.
    page: PathBuf,
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
        let bar = Bar { output, started, shown: Mutex::default() };
        let standings =
            sweep::sweep(&config, data, &self.out, threads, build::isa()?, &bar).map_err(|error| match error {
                SweepError::Config(_) | SweepError::Other { .. } => Failure::usage(error),
                SweepError::Run(error) => Failure::of_run(error),
                error => error.into(),
            })?;
        bar.clear();
        let page = draw(&SweepPage { config: &config, standings: &standings }, &self.out.join("report"))?;
        let best = standings.first().ok_or_else(|| anyhow::anyhow!("no setting was tried"))?;
        if best.value.is_none() {
            return Err(Failure::Failed(anyhow::anyhow!("no setting could be judged; {} has why", self.out.display())));
        }
        if let Some(told) = config.early(&standings) {
            output.say(told);
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
        let trained = run::train_once(&request, &mut Progress::new(output)).map_err(Failure::of_run)?;
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
            page,
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

/// Writes the page of a sweep and its pictures into a folder; where the page is.
fn draw(page: &SweepPage<'_>, folder: &Path) -> Result<PathBuf, Failure> {
    durable::create_folder(folder)?;
    let plots = page.plots()?;
    for plot in &plots {
        durable::write_bytes(folder.join(format!("{}.svg", plot.name)), plot.svg.as_bytes())?;
    }
    let path = folder.join("report.html");
    durable::write_bytes(&path, page.html(&plots).as_bytes())?;
    Ok(path)
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
            "setting  value  lowest to highest     TPR    FPR  updates\n{}{more}\n\npage     {}\nrun      {}\nmodel    {} (version {}){candidate}",
            lines.join("\n"),
            self.page.display(),
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

/// A bar for each round, or lines where there is no terminal.
struct Bar<'a> {
    output: &'a Output,
    started: Instant,
    shown: Mutex<Option<Round>>,
}

/// A round that is watched.
struct Round {
    number: u32,
    started: Instant,
    bar: ProgressBar,
    lines: Lines,
    best: Option<f64>,
}

impl Bar<'_> {
    fn clear(&self) {
        if let Some(round) = self.shown.lock().unwrap_or_else(PoisonError::into_inner).take() {
            round.bar.finish_and_clear();
        }
    }
}

impl Round {
    /// The best value so far, and how long the rest takes at the pace so far.
    fn text(&self, done: usize, of: usize, elapsed: Duration) -> String {
        let best = self.best.map_or(String::new(), |best| format!("best {best:.3}, "));
        let left = elapsed.as_secs_f64() / done.max(1) as f64 * of.saturating_sub(done) as f64;
        format!("{best}{} left", span(left))
    }
}

impl Watch for Bar<'_> {
    fn done(&self, round: u32, done: usize, of: usize, latest: Option<&Outcome>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.as_ref().is_none_or(|watched| watched.number != round) {
            if let Some(watched) = shown.take() {
                watched.bar.finish_and_clear();
            }
            self.output.say(format_args!("round {}: {of} trials", round + 1));
            let bar = self.output.progress("trials", of as u64);
            let (started, lines) = (Instant::now(), Lines::default());
            *shown = Some(Round { number: round, started, bar, lines, best: None });
        }
        let Some(watched) = shown.as_mut() else { return };
        let Some(latest) = latest else { return };
        watched.best = watched.best.into_iter().chain(latest.value).reduce(f64::max);
        let text = watched.text(done, of, watched.started.elapsed());
        watched.bar.set_position(done as u64);
        let elapsed = self.started.elapsed();
        if !self.output.is_terminal() && watched.lines.is_due(elapsed, done == of) {
            self.output.say(format_args!("{:>6.1} s  {done} of {of} trials, {text}", elapsed.as_secs_f64()));
        }
        watched.bar.set_message(text);
    }
}
