//! One decision: the native engine beside ONNX Runtime and tract.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

use super::{Effort, report};
use crate::python;
use crate::workspace::{Workspace, cargo, output, shown};

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
    over_certified: OverCertified,
}

/// Times over those of the certified native engine.
#[derive(Debug, Deserialize)]
struct OverCertified {
    p50: f64,
    p50_of_rounds: [f64; 2],
    p99: f64,
    p99_of_rounds: [f64; 2],
}

/// A runtime that is not here.
#[derive(Debug, Deserialize)]
struct Skipped {
    runtime: String,
    reason: String,
}

/// The shape that peers publish figures of.
const COMMON_SHAPE: &str = "64,256,256,6";

/// The model that ships, and the recordings whose states it decides.
const SHIPPED: &str = "models/quickstart";
const RECORDINGS: &str = "corpus/recordings.parquet";

/// Prints the table.
pub(super) fn print(workspace: &Workspace, effort: Effort) -> anyhow::Result<()> {
    let library = match std::env::var_os("ORT_DYLIB_PATH") {
        Some(named) => Some(PathBuf::from(named)),
        None => {
            python::set_up(workspace, python::Purpose::Tests)?.ok().and_then(|environment| environment.onnx_runtime())
        }
    };
    let folder = tempfile::tempdir().context("cannot make a folder for the drawn network")?;
    let drawn = folder.path().join("drawn.onnx");
    let mut draw = peers(effort, None);
    draw.args(["draw", "--widths", COMMON_SHAPE, "--out"]).arg(&drawn);
    eprintln!("$ {}", shown(&draw));
    output(&mut draw)?;
    let recorded = folder.path().join("states.parquet");
    record_states(workspace, effort, &recorded)?;
    println!("\n## One decision on one thread, batch 1\n");
    println!("| network, states | caches | runtime | p50 | p99 | over ours at p50 (of rounds) | at p99 (of rounds) |");
    println!("|---|---|---|---|---|---|---|");
    let warm = effort.choose(&[][..], &["--rounds", "2", "--calls", "500"]);
    // Emptying the caches takes milliseconds a call.
    let cold =
        effort.choose(["--cold", "--rounds", "5", "--calls", "100"], ["--cold", "--rounds", "1", "--calls", "5"]);
    let mut notes = Vec::new();
    for (model, recorded) in [(drawn, None), (workspace.root.join(SHIPPED), Some(&recorded))] {
        for (caches, schedule) in [("warm", warm), ("cold", &cold[..])] {
            let mut latency = peers(effort, library.as_deref());
            latency.args(["latency", "--model"]).arg(&model).args(schedule);
            latency.args(recorded.into_iter().flat_map(|states| [OsStr::new("--states"), states.as_os_str()]));
            let found: LatencyReport = report(&mut latency)?;
            let subject = format!("{}, {}", network(&found), if recorded.is_some() { "recorded" } else { "drawn" });
            rows(&found, &subject, caches).iter().for_each(|row| println!("{row}"));
            // The few calls with cold caches say little of shares.
            if caches == "warm" {
                notes.extend(self::notes(&found));
            }
        }
    }
    println!(
        "\nOf a drawn state about half is zero. `native certified` is ours: 16-bit integers where a bound proves the action, f32 for the rest."
    );
    if let Some(library) = library {
        println!("ONNX Runtime is {}.", version(&library));
    }
    notes.dedup();
    notes.iter().for_each(|note| println!("{note}"));
    Ok(())
}

/// The peers, with the library that they compare with.
fn peers(effort: Effort, onnx_runtime: Option<&Path>) -> Command {
    let mut command = cargo();
    command.args(["run", "--quiet", "--profile", effort.profile(), "--locked", "--package", "bellwether-peers"]);
    command.args(["--features", "ort,tract", "--"]);
    command.envs(onnx_runtime.map(|library| ("ORT_DYLIB_PATH", library)));
    command
}

/// Writes all states of the recordings as an episode file.
fn record_states(workspace: &Workspace, effort: Effort, into: &Path) -> anyhow::Result<()> {
    let mut evaluate = cargo();
    evaluate.args(["run", "--quiet", "--profile", effort.profile(), "--locked", "--package", "bellwether", "--"]);
    evaluate.args(["evaluate", "--json", "--to-the-end", "--model"]).arg(workspace.root.join(SHIPPED));
    evaluate.arg("--data").arg(workspace.root.join(RECORDINGS)).arg("--episodes").arg(into);
    eprintln!("$ {}", shown(&evaluate));
    output(&mut evaluate).map(drop)
}

/// A line for each runtime.
fn rows(report: &LatencyReport, subject: &str, caches: &str) -> Vec<String> {
    let row = |Latency { runtime, p50_ns, p99_ns, over_certified }: &Latency| {
        let OverCertified { p50, p50_of_rounds: [least, most], p99, p99_of_rounds: [least_p99, most_p99] } =
            over_certified;
        let (p50_us, p99_us) = (*p50_ns as f64 / 1e3, *p99_ns as f64 / 1e3);
        format!(
            "| {subject} | {caches} | {runtime} | {p50_us:.2} us | {p99_us:.2} us | {p50:.1} ({least:.1} to {most:.1}) | \
             {p99:.1} ({least_p99:.1} to {most_p99:.1}) |"
        )
    };
    report.runtimes.iter().map(row).collect()
}

/// What the table cannot say.
fn notes(report: &LatencyReport) -> Vec<String> {
    let certified = format!(
        "Of {}, {:.2} % of the decisions were certified ({}).",
        network(report),
        report.certified * 100.0,
        report.isa
    );
    let skipped = |Skipped { runtime, reason }: &Skipped| format!("{runtime} was left out: {reason}.");
    std::iter::once(certified).chain(report.skipped.iter().map(skipped)).collect()
}

fn network(report: &LatencyReport) -> String {
    report.widths.iter().map(ToString::to_string).collect::<Vec<_>>().join("-")
}

/// What the name of the library says: its files are called `libonnxruntime.so.1.2.3`.
fn version(library: &Path) -> String {
    let found = library.canonicalize().unwrap_or_else(|_| library.to_path_buf());
    let name = found.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match name.split_once(".so.") {
        Some((_, version)) => version.to_owned(),
        None => format!("{name}, whose name tells no version"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report as `peers latency` writes it.
    const REPORT: &str = r#"{"widths": [64, 256, 256, 6], "dueling": false, "isa": "avx512", "rounds": 2, "calls": 500,
        "cold": false, "certified": 0.9975, "runtimes": [{"runtime": "onnxruntime", "p50_ns": 6610, "p99_ns": 9420,
        "p999_ns": 20000, "over_exact": {"p50": 2.4, "p50_of_rounds": [2.3, 2.5], "p99": 2.0, "p99_of_rounds": [1.9, 2.2]},
        "over_certified": {"p50": 4.97, "p50_of_rounds": [4.81, 5.02], "p99": 3.3, "p99_of_rounds": [3.0, 3.6]}}],
        "skipped": [{"runtime": "tract", "reason": "this build lacks it"}]}"#;

    #[test]
    fn a_report_becomes_rows_and_notes() {
        let report: LatencyReport = serde_json::from_str(REPORT).unwrap();
        assert_eq!(
            rows(&report, "64-256-256-6, drawn", "warm"),
            ["| 64-256-256-6, drawn | warm | onnxruntime | 6.61 us | 9.42 us | 5.0 (4.8 to 5.0) | 3.3 (3.0 to 3.6) |"]
        );
        assert_eq!(
            notes(&report),
            [
                "Of 64-256-256-6, 99.75 % of the decisions were certified (avx512).",
                "tract was left out: this build lacks it."
            ]
        );
    }

    #[test]
    fn the_library_tells_its_version_by_its_name() {
        assert_eq!(version(Path::new("/absent/libonnxruntime.so.1.31.1")), "1.31.1");
        assert!(version(Path::new("/absent/libonnxruntime.so")).contains("tells no version"));
    }
}
