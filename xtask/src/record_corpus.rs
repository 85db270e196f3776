//! `cargo xtask record-corpus`: records the jobs and emulations of `corpus/programs` into telemetry.
//!
//! Each run gets a made-up home by its seed, in the sandbox's cage, in one of the two stages. What a run is (job, language, seed,
//! stage, ports, names) follows from `--seed` alone; times and interleavings are the machine's.
#![allow(
    clippy::disallowed_methods,
    reason = "programs and their list are scratch; the Parquet file is written durably by the binary that this calls"
)]

mod plan;
mod program;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use plan::{Plan, Run};
use program::Programs;

/// Events of a stage that are kept; a recording that is cut is marked incomplete, whatever its class.
const MOST_EVENTS: usize = 3_000;

/// Seconds that a program has in each stage: many times what the longest takes, because a host that others use lets it wait.
const SECONDS: &str = "60";

/// What must be on the machine: the program, and the Debian package that brings it.
const TOOLS: &[(&str, &str)] = &[
    ("cc", "gcc"),
    ("python3", "python3-minimal"),
    ("perl", "perl"),
    ("make", "make"),
    ("git", "git"),
    ("sqlite3", "sqlite3"),
    ("gpg", "gnupg"),
    ("openssl", "openssl"),
    ("curl", "curl"),
    ("zip", "zip"),
    ("unzip", "unzip"),
    ("xz", "xz-utils"),
    ("ed", "ed"),
    ("patch", "patch"),
    ("ssh-keygen", "openssh-client"),
    ("bash", "bash"),
];

/// Options of `record-corpus`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder for the programs of the runs, their list and `recordings.parquet`; made if missing.
    #[arg(long)]
    out: PathBuf,
    /// Runs per job, instead of the number in `corpus/programs/jobs.csv`.
    #[arg(long)]
    runs: Option<usize>,
    /// Record this job alone.
    #[arg(long)]
    only: Option<String>,
    /// Seed of the plan.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Stop after the programs and their list, which `bellwether record --list` takes.
    #[arg(long)]
    list_only: bool,
    /// Put the result into `corpus/`, to be committed.
    #[arg(long, conflicts_with = "list_only")]
    install: bool,
}

/// Makes the programs of all runs, lists them, and has them recorded.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let folder = root.join("corpus/programs");
    require_tools()?;
    let plan = Plan::new(&plan::read_jobs(&folder.join("jobs.csv"))?, args.seed, args.runs, args.only.as_deref())?;
    let scratch = args.out.join("programs");
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    ensure!(fs::read_dir(&scratch)?.next().is_none(), "{} is not empty; choose a fresh folder", scratch.display());
    let programs = Programs::build(&folder, &scratch)?;
    let list = args.out.join("list.jsonl");
    let mut lines = Vec::new();
    for run in &plan.runs {
        writeln!(lines, "{}", entry(run, &programs)?)?;
    }
    fs::write(&list, lines)?;
    if args.list_only {
        return Ok(());
    }
    let parquet = args.out.join("recordings.parquet");
    record(root, &list, &parquet, args.jobs.max(1))?;
    fs::remove_dir_all(&scratch)?;
    if args.install {
        install(&parquet, &root.join("corpus"))?;
    }
    Ok(())
}

/// A line of the list: the run, whose files are made.
fn entry(run: &Run, programs: &Programs) -> Result<serde_json::Value> {
    let sample = programs.sample(run)?;
    Ok(serde_json::json!({
        "episode_id": run.name,
        "file": sample.program,
        "name": sample.name,
        "arguments": sample.arguments,
        "label": run.job.label,
        "family": run.job.name,
        "seed": run.seed,
        "stage": run.stage,
        "marked_home": true,
        // Every run has the file, and those that run no shell script have an empty one.
        "beside": { "steps.sh": sample.steps },
    }))
}

/// Puts the file and its checksum into the crate that embeds it.
fn install(parquet: &Path, folder: &Path) -> Result<()> {
    let bytes = fs::read(parquet)?;
    let put = |name: &str, bytes: &[u8]| -> Result<()> {
        let (target, fresh) = (folder.join(name), folder.join(format!("{name}.new")));
        fs::write(&fresh, bytes).with_context(|| format!("cannot write {}", fresh.display()))?;
        fs::rename(&fresh, &target).with_context(|| format!("cannot write {}", target.display()))
    };
    put("recordings.parquet", &bytes)?;
    put("recordings.sha256", format!("{}\n", program::sha256_hex(&[&bytes])).as_bytes())?;
    say(&format!("installed {}; its counts stand in corpus/CARD.md", folder.join("recordings.parquet").display()));
    Ok(())
}

/// A line on the terminal.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Says all at once what is missing, with the command that installs it.
fn require_tools() -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let found =
        |tool: &str| path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(tool).is_file());
    let missing: Vec<_> = TOOLS.iter().filter(|(tool, _)| !found(tool)).collect();
    if !missing.is_empty() {
        let tools: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
        let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        bail!("recording needs {}; install with: apt-get install {}", tools.join(", "), packages.join(" "));
    }
    Ok(())
}

/// Has the project's own binary record what is listed.
fn record(root: &Path, list: &Path, parquet: &Path, jobs: usize) -> Result<()> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root)
        .args(["run", "--quiet", "--profile", "ci", "--package", "bellwether", "--", "record", "--only-successful"])
        .args(["--time", SECONDS, SECONDS, "--most-events", &MOST_EVENTS.to_string(), "--jobs", &jobs.to_string()])
        .arg("--list")
        .arg(fs::canonicalize(list)?)
        .arg("--out")
        .arg(std::path::absolute(parquet)?)
        .status()?;
    ensure!(status.success(), "`bellwether record` left something out; its list is {}", list.display());
    say(&format!("wrote {} ({} bytes)", parquet.display(), fs::metadata(parquet)?.len()));
    Ok(())
}
