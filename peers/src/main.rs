//! `peers`: the native engine beside other runtimes, as JSON.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use bellwether_artifact::{durable, release};
use bellwether_inference::model::{Contract, limits};
use bellwether_inference::{Isa, Precision};
use bellwether_peers::latency::{Schedule, measure};
use bellwether_peers::parity::{certificates, compare};
use bellwether_peers::{Native, Roster, StateRecord, drawn, open, recorded};
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

/// Compares the native engine with ONNX Runtime and tract.
///
/// ONNX Runtime is a shared library; the environment variable `ORT_DYLIB_PATH` names it. What is missing is reported under
/// "skipped".
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Counts where the runtimes disagree on the same states, and how many decisions are certified; exit code 2 when they
    /// disagree or a certificate is wrong.
    Parity(Subject),
    /// Times single decisions, the runtimes taking turns, the native engine in both precisions.
    Latency {
        #[command(flatten)]
        subject: Subject,
        /// Turns of each runtime.
        #[arg(long, default_value_t = 20)]
        rounds: usize,
        /// Timed calls in a turn.
        #[arg(long, default_value_t = 5_000)]
        calls: usize,
        /// Empty the caches before each timed call (some milliseconds each: ask for fewer calls).
        #[arg(long)]
        cold: bool,
    },
    /// Writes a model file with drawn weights.
    Draw {
        /// Widths from the state to the actions.
        #[arg(long, value_delimiter = ',', default_value = "64,256,256,6")]
        widths: Vec<usize>,
        /// With a dueling head.
        #[arg(long)]
        dueling: bool,
        /// Seed of the weights.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where to write it.
        #[arg(long)]
        out: PathBuf,
    },
}

/// What is evaluated, and on what.
#[derive(Args)]
struct Subject {
    /// A model file, or the folder of a release.
    #[arg(long)]
    model: PathBuf,
    /// States: an episode file, or JSON lines, {"state": [...], "mask": [...]}; without it they are drawn.
    #[arg(long)]
    states: Option<PathBuf>,
    /// How many states to draw.
    #[arg(long, default_value_t = 10_000, conflicts_with = "states")]
    drawn: usize,
    /// Seed of drawn states.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instruction set of the native engine: scalar, avx2 or avx512; the best one by default.
    #[arg(long)]
    isa: Option<Isa>,
    /// Fail where a runtime is missing.
    #[arg(long)]
    require_all: bool,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap prints each to its own stream.
            let code = if error.use_stderr() { 64 } else { 0 };
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::FAILURE };
        }
    };
    let result = match &cli.verb {
        Verb::Parity(subject) => parity(subject),
        Verb::Latency { subject, rounds, calls, cold } => {
            latency(subject, Schedule { rounds: *rounds, calls: *calls, cold: *cold })
        }
        Verb::Draw { widths, dueling, seed, out } => draw(widths, *dueling, *seed, out),
    };
    match result.and_then(|(report, code)| Ok((writeln!(std::io::stdout(), "{report:#}")?, code))) {
        Ok(((), code)) => code,
        Err(error) => {
            // Nothing is left to do when even this cannot be written.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Subject {
    fn onnx(&self) -> anyhow::Result<Vec<u8>> {
        let path = if self.model.is_dir() { release::onnx_path(&self.model) } else { self.model.clone() };
        Ok(durable::read(&path, limits::MAX_BYTES as u64)?)
    }

    fn states(&self, contract: &Contract) -> anyhow::Result<Vec<StateRecord>> {
        match &self.states {
            Some(path) => recorded::states(path, contract).with_context(|| format!("the states in {}", path.display())),
            None => Ok(drawn::states(self.drawn, contract.width, contract.actions.len(), self.seed).collect()),
        }
    }

    fn peers(&self, onnx: &[u8]) -> anyhow::Result<Roster> {
        let roster = Roster::peers(onnx)?;
        if let (true, Some(skipped)) = (self.require_all, roster.skipped.first()) {
            anyhow::bail!("{} is missing: {}", skipped.runtime, skipped.reason);
        }
        Ok(roster)
    }
}

fn parity(subject: &Subject) -> anyhow::Result<(Value, ExitCode)> {
    let onnx = subject.onnx()?;
    let (mlp, contract, mut native) = open(&onnx, subject.isa.unwrap_or_else(Isa::best)).context("the model")?;
    let states = subject.states(&contract)?;
    let mut roster = subject.peers(&onnx)?;
    anyhow::ensure!(!roster.runtimes.is_empty(), "there is nothing to compare with: {}", json!(roster.skipped));
    let mut certified = Native::with_precision(&mlp, native.isa(), Precision::Certified)?;
    let certified = certificates(&mut native, &mut certified, &states);
    let mut agree = certified.hold();
    let mut rows = Vec::new();
    for peer in &mut roster.runtimes {
        let row = compare(&mut native, peer.as_mut(), &states)?;
        agree &= row.agrees();
        rows.push(row);
    }
    let report = json!({
        "widths": mlp.widths().collect::<Vec<_>>(), "dueling": mlp.value().is_some(), "isa": native.isa().name(), "agree": agree, "certified": certified, "runtimes": rows,
        "skipped": roster.skipped,
    });
    Ok((report, if agree { ExitCode::SUCCESS } else { ExitCode::from(2) }))
}

fn latency(subject: &Subject, schedule: Schedule) -> anyhow::Result<(Value, ExitCode)> {
    let onnx = subject.onnx()?;
    let (mlp, contract, mut native) = open(&onnx, subject.isa.unwrap_or_else(Isa::best)).context("the model")?;
    let states = subject.states(&contract)?;
    let mut roster = subject.peers(&onnx)?;
    let mut certified = Native::with_precision(&mlp, native.isa(), Precision::Certified)?;
    let measured = measure(&mut native, &mut certified, &mut roster.runtimes, &states, schedule)?;
    let report = json!({
        "widths": mlp.widths().collect::<Vec<_>>(), "dueling": mlp.value().is_some(), "isa": native.isa().name(), "rounds": schedule.rounds, "calls": schedule.calls,
        "cold": schedule.cold, "certified": measured.certified, "runtimes": measured.runtimes, "skipped": roster.skipped,
    });
    Ok((report, ExitCode::SUCCESS))
}

fn draw(widths: &[usize], dueling: bool, seed: u64, out: &Path) -> anyhow::Result<(Value, ExitCode)> {
    let onnx = drawn::model(widths, dueling, seed)?;
    durable::write_bytes(out, &onnx)?;
    Ok((json!({ "widths": widths, "dueling": dueling, "bytes": onnx.len() }), ExitCode::SUCCESS))
}
