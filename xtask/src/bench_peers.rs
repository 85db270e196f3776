//! `cargo xtask bench-peers`: ours and its peers, timed in turn in one run, as tables of ratios.
//!
//! Every figure is measured by a binary of the workspace that interleaves the two; here their reports are only asked for and
//! set out. Builds are release builds, for the assertions of the `ci` profile cost more than what is compared.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Deserialize;

use crate::python;
use crate::workspace::{Workspace, cargo, output, shown};

/// Arguments of `bench-peers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Compare these alone; may be given several times.
    #[arg(long, value_enum)]
    only: Vec<Subject>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// One decision: the native engine beside ONNX Runtime and tract.
    Decision,
    /// The service: a decision over gRPC beside an echo of the same messages.
    Service,
}

/// Runs the comparisons and prints their tables.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    for subject in Subject::value_variants() {
        if args.only.is_empty() || args.only.contains(subject) {
            match subject {
                Subject::Decision => decision(&workspace)?,
                Subject::Service => service()?,
            }
        }
    }
    Ok(())
}

/// A report of `peers latency`, as far as the table needs it.
#[derive(Debug, Deserialize)]
struct LatencyReport {
    widths: Vec<usize>,
    isa: String,
    certified: f64,
    runtimes: Vec<Latency>,
    skipped: Vec<Skipped>,
}

/// The times of one runtime.
#[derive(Debug, Deserialize)]
struct Latency {
    runtime: String,
    p50_ns: u64,
    p99_ns: u64,
    over_certified: Ratio,
}

/// Times over those of the certified native engine.
#[derive(Debug, Deserialize)]
struct Ratio {
    p50: f64,
    p50_of_rounds: [f64; 2],
    p99: f64,
}

/// A runtime that is not here.
#[derive(Debug, Deserialize)]
struct Skipped {
    runtime: String,
    reason: String,
}

/// The shape that peers publish figures of.
const COMMON_SHAPE: &str = "64,256,256,6";

/// The model that ships, with states of its width.
const SHIPPED: &str = "models/quickstart";

fn decision(workspace: &Workspace) -> anyhow::Result<()> {
    let library = match std::env::var_os("ORT_DYLIB_PATH") {
        Some(named) => Some(PathBuf::from(named)),
        None => python::set_up(workspace)?.ok().and_then(|environment| environment.onnx_runtime()),
    };
    let folder = tempfile::tempdir().context("cannot make a folder for the drawn network")?;
    let drawn = folder.path().join("drawn.onnx");
    peers(None, &["draw", "--widths", COMMON_SHAPE, "--out", &drawn.to_string_lossy()])?;
    println!("\n## One decision on one thread, batch 1\n");
    println!("| network | caches | runtime | p50 | p99 | over ours at p50 (of rounds) | at p99 |");
    println!("|---|---|---|---|---|---|---|");
    let mut notes = Vec::new();
    for model in [drawn, workspace.root.join(SHIPPED)] {
        // Emptying the caches takes milliseconds a call.
        for (caches, schedule) in [("warm", &[][..]), ("cold", &["--cold", "--rounds", "5", "--calls", "100"])] {
            let model = model.to_string_lossy();
            let report = peers(library.as_deref(), &[&["latency", "--model", &model], schedule].concat())?;
            let report: LatencyReport =
                serde_json::from_str(&report).context("`peers latency` reports other fields")?;
            notes.extend(print_rows(&report, caches));
        }
    }
    println!("\n`native certified` is ours: 16-bit integers where a bound proves the action, f32 for the rest.");
    notes.dedup();
    notes.iter().for_each(|note| println!("{note}"));
    Ok(())
}

fn service() -> anyhow::Result<()> {
    let mut bench = cargo();
    bench.args(["bench", "--quiet", "--locked", "--package", "bellwether-inference", "--features", "serve"]);
    bench.args(["--bench", "serve"]);
    eprintln!("$ {}", shown(&bench));
    let table = output(&mut bench)?;
    println!("\n## One decision over gRPC, server and clients each on one processor\n\n{table}");
    Ok(())
}

/// Prints a line for each runtime; returns what the table cannot say.
fn print_rows(report: &LatencyReport, caches: &str) -> Vec<String> {
    let network = report.widths.iter().map(ToString::to_string).collect::<Vec<_>>().join("-");
    for Latency { runtime, p50_ns, p99_ns, over_certified: Ratio { p50, p50_of_rounds: [least, most], p99 } } in
        &report.runtimes
    {
        let us = |ns: &u64| *ns as f64 / 1e3;
        println!(
            "| {network} | {caches} | {runtime} | {:.2} us | {:.2} us | {p50:.1} ({least:.1} to {most:.1}) | {p99:.1} |",
            us(p50_ns),
            us(p99_ns)
        );
    }
    let mut notes = vec![format!(
        "Of {network}, {:.2} % of the decisions were certified ({}).",
        report.certified * 100.0,
        report.isa
    )];
    notes.extend(report.skipped.iter().map(|Skipped { runtime, reason }| format!("{runtime} was left out: {reason}.")));
    notes
}

/// Runs a verb of the peers in a release build, with what it compares with; its report.
fn peers(onnx_runtime: Option<&Path>, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--release", "--locked", "--package", "bellwether-peers"]);
    command.args(["--features", "ort,tract", "--"]).args(arguments);
    if let Some(library) = onnx_runtime {
        command.env("ORT_DYLIB_PATH", library);
    }
    eprintln!("$ {}", shown(&command));
    let report = output(&mut command)?;
    if report.is_empty() {
        bail!("{} reported nothing", shown(&command));
    }
    Ok(report)
}
