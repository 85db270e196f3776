//! `cargo xtask record-corpus`: records the jobs and emulations of `corpus/programs` into telemetry.
//!
//! Each run gets its own mount, network, process, host-name and IPC namespaces, a made-up home by its seed, and strace.
//! What a run is (job, language, seed, ports, names) follows from `--seed` alone; times and interleavings are the machine's.
#![allow(
    clippy::disallowed_methods,
    reason = "the raw logs are scratch; the Parquet file is written durably by the binary that this calls"
)]

mod plan;
mod program;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};

use plan::{Plan, Run};
use program::Programs;

/// A recording is cut after this many lines and marked incomplete, whatever its class.
const MOST_LINES: usize = 3_000;

/// What must be on the machine: the program, the Debian package that brings it, and whether recording is impossible without.
const TOOLS: &[(&str, &str)] = &[
    ("strace", "strace"),
    ("unshare", "util-linux"),
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
    /// Folder for the raw logs, their sidecars and `recordings.parquet`; made if missing.
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
    /// Stop after the raw logs.
    #[arg(long)]
    raw_only: bool,
    /// Use the raw logs that are there and only convert them.
    #[arg(long, conflicts_with = "raw_only")]
    convert_only: bool,
    /// Put the result into `corpus/`, to be committed.
    #[arg(long)]
    install: bool,
}

/// Records the plan, reports failures by job, and converts the logs.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let raw = args.out.join("raw");
    if !args.convert_only {
        require_tools()?;
        let programs_folder = root.join("corpus/programs");
        let jobs = plan::read_jobs(&programs_folder.join("jobs.csv"))?;
        let plan = Plan::new(&jobs, args.seed, args.runs, args.only.as_deref())?;
        fs::create_dir_all(&raw).with_context(|| format!("cannot make {}", raw.display()))?;
        ensure!(fs::read_dir(&raw)?.next().is_none(), "{} is not empty; choose a fresh folder", raw.display());
        let calls = recorded_calls(&root.join("docs/formats/calls-v1.txt"))?;
        let scratch = args.out.join("programs");
        fs::create_dir_all(&scratch)?;
        let programs = Programs::build(&programs_folder, &scratch)?;
        record(&plan, &programs, &calls, &raw, args.jobs.max(1))?;
        fs::remove_dir_all(&scratch)?;
    }
    if args.raw_only {
        return Ok(());
    }
    let parquet = args.out.join("recordings.parquet");
    convert(root, &raw, &parquet)?;
    if args.install {
        install(&parquet, &root.join("corpus"))?;
    }
    Ok(())
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
    let status = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "true"])
        .stderr(Stdio::null())
        .status()?;
    ensure!(status.success(), "recording needs fresh namespaces; run it as root on a machine that allows unshare(1)");
    Ok(())
}

/// The names on the list of recorded calls, joined for `strace -e trace=`.
fn recorded_calls(list: &Path) -> Result<String> {
    let text = fs::read_to_string(list).with_context(|| format!("cannot read {}", list.display()))?;
    let names: Vec<_> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_whitespace().nth(1)).collect();
    ensure!(!names.is_empty(), "{} names no call", list.display());
    Ok(names.join(","))
}

/// Runs the plan with `workers` at a time; a run that fails is tried again once and then reported.
fn record(plan: &Plan, programs: &Programs, calls: &str, raw: &Path, workers: usize) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let cut = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(run) = plan.runs.get(index) else { break };
                    if index.is_multiple_of(100) {
                        say(&format!("{index} of {} runs", plan.runs.len()));
                    }
                    let outcome =
                        record_one(run, programs, calls, raw).or_else(|_| record_one(run, programs, calls, raw));
                    match outcome {
                        Ok(true) => _ = cut.fetch_add(1, Ordering::Relaxed),
                        Ok(false) => {}
                        Err(error) => {
                            if let Ok(mut list) = failures.lock() {
                                list.push(format!("{} {} seed {}: {error:#}", run.job.name, run.language, run.seed));
                            }
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    say(&format!(
        "{} recorded, {} of them cut after {MOST_LINES} lines, {} failed",
        plan.runs.len() - failures.len(),
        cut.into_inner(),
        failures.len()
    ));
    for failure in &failures {
        say(failure);
    }
    ensure!(failures.is_empty(), "{} runs failed; nothing was converted", failures.len());
    Ok(())
}

/// One run; returns whether its log was cut.
fn record_one(run: &Run, programs: &Programs, calls: &str, raw: &Path) -> Result<bool> {
    let sample = programs.sample(run)?;
    let spec_path = programs.scratch.join(format!("{}.spec", run.name));
    let spec = serde_json::json!({
        "name": run.name,
        "binary": sample.program,
        "steps": sample.steps,
        "program": sample.path_inside,
        "argv": sample.argv,
        "calls": calls,
        "ports": run.ports,
        "seed": run.seed,
        "episode_id": run.name,
        "label": run.job.label,
        "family": run.job.name,
        "technique": run.job.technique,
        "language": run.language,
        "job": run.job.name,
        "sample_sha256": sample.sha256,
    });
    fs::write(&spec_path, spec.to_string())?;
    let output = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"])
        .args(["/usr/bin/python3", "-I"])
        .arg(&programs.inside)
        .arg(&spec_path)
        .arg(raw)
        .stdin(Stdio::null())
        .output()?;
    let log = raw.join(format!("{}.strace", run.name));
    let sidecar = raw.join(format!("{}.json", run.name));
    for path in [&spec_path, &sample.program, &sample.steps] {
        fs::remove_file(path)?;
    }
    if !output.status.success() {
        // A half-written log must not be taken for a recording.
        _ = fs::remove_file(&log);
        _ = fs::remove_file(&sidecar);
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    cut_long(&log, &sidecar)
}

/// Cuts a log after [`MOST_LINES`] lines and marks its sidecar incomplete.
fn cut_long(log: &Path, sidecar: &Path) -> Result<bool> {
    let mut lines = BufReader::new(fs::File::open(log)?).split(b'\n');
    let mut kept = Vec::new();
    for line in lines.by_ref().take(MOST_LINES) {
        kept.extend_from_slice(&line?);
        kept.push(b'\n');
    }
    if lines.next().is_none() {
        return Ok(false);
    }
    fs::write(log, kept)?;
    let mut fields: serde_json::Value = serde_json::from_slice(&fs::read(sidecar)?)?;
    fields["complete"] = false.into();
    fs::write(sidecar, serde_json::to_vec(&fields)?)?;
    Ok(true)
}

/// Calls the project's own binary to turn the logs into telemetry.
fn convert(root: &Path, raw: &Path, parquet: &Path) -> Result<()> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root)
        .args(["run", "--quiet", "--profile", "ci", "--package", "bellwether", "--", "ingest", "--format", "strace"])
        .arg(fs::canonicalize(raw)?)
        .arg("--out")
        .arg(std::path::absolute(parquet)?)
        .status()?;
    ensure!(status.success(), "`bellwether ingest` failed; the raw logs are kept in {}", raw.display());
    say(&format!("wrote {} ({} bytes)", parquet.display(), fs::metadata(parquet)?.len()));
    Ok(())
}
