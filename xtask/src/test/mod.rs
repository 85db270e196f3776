//! `cargo xtask test`: everything that decides whether the project is in order, in one command.

mod junit;
mod small_run;
mod stages;

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::ValueEnum;

use crate::python;
use crate::workspace::Workspace;

/// Arguments of `test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run these stages alone; may be given several times.
    #[arg(long, value_enum)]
    only: Vec<Stage>,
}

/// One part of the tests, in the order they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// A virtual environment with the Python packages that tests compare with.
    Python,
    /// `cargo fmt --check`.
    Format,
    /// `clippy` with warnings denied.
    Clippy,
    /// `cargo xtask tidy`.
    Tidy,
    /// Licences, sources and bans of the dependencies, by `cargo deny`; what needs a network is left out.
    Dependencies,
    /// The policy runtime with none of its features, and with each of them alone; the learner on libtorch without libtorch.
    Features,
    /// Unit, property and whole-system tests.
    Tests,
    /// Examples in the documentation.
    Doctests,
    /// The documentation itself, with broken links denied.
    Docs,
    /// The policy runtime beside ONNX Runtime and tract, on drawn networks and on a trained one.
    Peers,
    /// The learner on libtorch, where `LIBTORCH` or `LIBTORCH_USE_PYTORCH` names one.
    Libtorch,
    /// Checks that are written in Python.
    PythonChecks,
    /// The notebooks, on a small run that the first of them makes.
    Notebooks,
}

/// How a stage ended.
#[derive(Debug)]
enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// What stages tell each other and the summary.
#[derive(Debug, Default)]
struct Findings {
    /// The virtual environment, once it stands.
    python: Option<python::Environment>,
    /// The run that several stages look at, once it is made.
    small_run: Option<small_run::SmallRun>,
    /// What was left out, and why.
    not_run: Vec<String>,
}

/// Runs the stages, each whatever became of those before, and sums up.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    let mut findings = Findings::default();
    let mut results: Vec<(Stage, Outcome, Duration)> = Vec::new();
    for stage in Stage::value_variants() {
        if !args.only.is_empty() && !args.only.contains(stage) {
            continue;
        }
        println!("\n==> {}", name(*stage));
        let started = Instant::now();
        let outcome =
            stages::run(*stage, &workspace, &mut findings).unwrap_or_else(|e| Outcome::Failed(format!("{e:#}")));
        if let Outcome::Failed(reason) | Outcome::Skipped(reason) = &outcome {
            println!("{reason}");
        }
        results.push((*stage, outcome, started.elapsed()));
    }
    println!("\n==> summary");
    for (stage, outcome, took) in &results {
        let word = match outcome {
            Outcome::Passed => "passed",
            Outcome::Failed(_) => "FAILED",
            Outcome::Skipped(_) => "not run",
        };
        println!("{:<14} {word:<8} {:>7.1} s", name(*stage), took.as_secs_f64());
    }
    let skipped = results.iter().filter_map(|(stage, outcome, _)| match outcome {
        Outcome::Skipped(reason) => Some(format!("{}: {reason}", name(*stage))),
        _ => None,
    });
    let not_run: Vec<String> = skipped.chain(findings.not_run).collect();
    match not_run.as_slice() {
        [] if args.only.is_empty() => println!("everything was run"),
        [] => println!("only the stages above were run, on request"),
        _ => println!("not run:"),
    }
    for reason in &not_run {
        println!("- {reason}");
    }
    let failed: Vec<String> = results
        .iter()
        .filter_map(|(stage, outcome, _)| match outcome {
            Outcome::Failed(reason) => Some(format!("{} ({reason})", name(*stage))),
            _ => None,
        })
        .collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn name(stage: Stage) -> String {
    stage.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
