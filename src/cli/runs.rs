//! `bellwether runs`: what training runs left behind.

use std::path::{Path, PathBuf};

use anyhow::Context;
use bellwether_artifact::{ArtifactError, JsonLinesReader, durable};
use bellwether_registry::{
    RunPaths, RunReport, RunStatus, RunSummary, Verification, find_run, list_runs, show_run, verify_run,
};
use bellwether_trainer::evaluate::Evaluation;
use bellwether_trainer::metrics::UpdateMetrics;
use bellwether_trainer::run::RunPage;
use clap::Subcommand;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Failure, Output, compare};

/// Lists, shows, draws, compares and verifies training runs.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder of run directories.
    #[arg(long, value_name = "DIR", default_value = "runs", global = true)]
    runs: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// All runs with their status: running, complete, failed, or aborted where nobody ended them.
    List,
    /// One run: its manifest, its status and its last metrics.
    Show {
        /// Id of the run, or the beginning of it.
        run: String,
    },
    /// Runs side by side: the settings in which they differ, whether they read the same data, and their results.
    Compare {
        /// Ids of the runs, or their beginnings.
        #[arg(required = true, num_args = 2.., value_name = "RUN")]
        runs_to_compare: Vec<String>,
    },
    /// Draw a run: `report.html`, one page that needs no network, and its pictures as SVG beside it.
    Report {
        /// Id of the run, or the beginning of it.
        run: String,
        /// Folder that is written to.
        #[arg(long, value_name = "DIR", default_value = "report")]
        out: PathBuf,
    },
    /// Hash everything that a run made again and compare it with the manifest.
    Verify {
        /// Id of the run, or the beginning of it.
        run: String,
    },
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let find = |text: &str| find_run(&self.runs, text).map_err(Failure::usage);
        match &self.verb {
            Verb::List => {
                let runs = list_runs(&self.runs)?;
                output.report(&runs, || table(&runs))?;
            }
            Verb::Show { run } => {
                let report = show_run(&find(run)?)?;
                output.report(&report, || describe(&report))?;
            }
            Verb::Compare { runs_to_compare } => {
                let folders: Vec<PathBuf> = runs_to_compare.iter().map(|run| find(run)).collect::<Result<_, _>>()?;
                let comparison = compare::compare(&folders)?;
                output.report(&comparison, || comparison.describe())?;
            }
            Verb::Report { run, out } => {
                let drawn = draw(&find(run)?, out)?;
                let (told, more) = RunPage::told(&drawn.unreadable);
                told.iter().for_each(|line| tracing::warn!("left out: {line}"));
                if more > 0 {
                    tracing::warn!("left out: {more} more; --json tells all");
                }
                output.report(&drawn, || drawn.page.display().to_string())?;
            }
            Verb::Verify { run } => {
                let verification = verify_run(&find(run)?)?;
                output.report(&verification, || findings(&verification))?;
                if !verification.passed() {
                    let Verification { id, status, .. } = &verification;
                    return Err(Failure::NotMet(match status {
                        RunStatus::Complete => format!("the run {id} is not what its manifest says"),
                        status => {
                            format!("the run {id} is {status}: only of a complete one is known what it should hold")
                        }
                    }));
                }
            }
        }
        Ok(())
    }
}

/// What `runs report` reports as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "RunsReport")]
pub(crate) struct Drawn {
    /// The page.
    page: PathBuf,
    /// The pictures.
    plots: Vec<PathBuf>,
    /// Lines of the metrics that hold no record of this version, with the reason; they are left out.
    unreadable: Vec<String>,
}

/// Largest evaluation that is read.
const MOST_BYTES: u64 = 1 << 26;

fn draw(folder: &Path, out: &Path) -> Result<Drawn, Failure> {
    let report = show_run(folder)?;
    let paths = RunPaths::new(folder);
    let (metrics, unreadable) = metrics(&paths.metrics())?;
    let evaluation = paths.evaluation();
    let evaluation: Option<Evaluation> = if evaluation.exists() {
        let bytes = durable::read(&evaluation, MOST_BYTES)?;
        Some(serde_json::from_slice(&bytes).with_context(|| format!("{} is no evaluation", evaluation.display()))?)
    } else {
        None
    };
    let page = RunPage { report: &report, metrics: &metrics, unreadable: &unreadable, evaluation: evaluation.as_ref() };
    let plots = page.plots()?;
    durable::create_folder(out)?;
    let mut drawn = Drawn { page: out.join("report.html"), plots: Vec::new(), unreadable: Vec::new() };
    for plot in &plots {
        let path = out.join(format!("{}.svg", plot.name));
        durable::write_bytes(&path, plot.svg.as_bytes())?;
        drawn.plots.push(path);
    }
    durable::write_bytes(&drawn.page, page.html(&plots).as_bytes())?;
    drawn.unreadable = unreadable;
    Ok(drawn)
}

/// The records of a file of metrics, and what is wrong with each line that holds none. A last line without its end is no fault: the
/// run was cut off while it wrote it, or writes it now.
fn metrics(path: &Path) -> Result<(Vec<UpdateMetrics>, Vec<String>), ArtifactError> {
    let mut reader = JsonLinesReader::open(path)?;
    let (mut records, mut unreadable) = (Vec::new(), Vec::new());
    loop {
        match reader.next_record() {
            Ok(Some(record)) => records.push(record),
            Ok(None) => return Ok((records, unreadable)),
            Err(error @ ArtifactError::Line { .. }) => unreadable.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
}

fn table(runs: &[RunSummary]) -> String {
    if runs.is_empty() {
        return "no runs".to_owned();
    }
    let line = |run: &RunSummary| {
        let status = run.status.map_or_else(|| "unreadable".to_owned(), |status| status.to_string());
        format!("{:<10} {}{}", status, run.id, run.problem.as_ref().map(|p| format!("  ({p})")).unwrap_or_default())
    };
    runs.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn describe(report: &RunReport) -> String {
    let mut lines = vec![format!("run       {}", report.id), format!("status    {}", report.status)];
    if let Some(reason) = report.terminal.as_ref().and_then(|terminal| terminal.reason.as_ref()) {
        lines.push(format!("reason    {reason}"));
    }
    for input in &report.manifest.inputs {
        lines.push(format!("{:<9} {} ({} bytes, sha256 {})", input.role, input.name, input.bytes, input.sha256));
    }
    lines.push(format!("metrics   {} records", report.metrics_records));
    if report.torn_bytes > 0 {
        lines.push(format!("          the last {} bytes are a record that was cut off", report.torn_bytes));
    }
    if let Some(last) = &report.last_metrics {
        lines.push(format!("last      {last}"));
    }
    lines.extend(report.manifest.artifacts.iter().map(|artifact| format!("made      {}", artifact.path)));
    lines.join("\n")
}

fn findings(verification: &Verification) -> String {
    let mut lines =
        vec![format!("{} ({}): {} files intact", verification.id, verification.status, verification.intact)];
    lines.extend(verification.problems.iter().map(ToString::to_string));
    lines.join("\n")
}
