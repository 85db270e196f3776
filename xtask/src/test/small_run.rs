//! A run with little training, which several stages look at.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use super::Findings;
use crate::workspace::{cargo, shown};

/// The run and what stands beside it; all of it goes when this does.
#[derive(Debug)]
pub(super) struct SmallRun {
    folder: TempDir,
    run: PathBuf,
}

/// The whole main job on the recordings that ship, with gates that let anything pass.
const JOB: [&str; 11] = [
    "quickstart",
    "--json",
    "--set",
    "trainer.updates=300",
    "--set",
    "trainer.target_update_interval=50",
    "--max-fpr",
    "1",
    "--min-tpr",
    "0",
    "--out",
];

impl SmallRun {
    /// The run, made when it is first asked for.
    pub(super) fn of(findings: &mut Findings) -> anyhow::Result<&SmallRun> {
        let run = match findings.small_run.take() {
            Some(run) => run,
            None => SmallRun::make()?,
        };
        Ok(findings.small_run.insert(run))
    }

    fn make() -> anyhow::Result<SmallRun> {
        let folder = tempfile::tempdir().context("cannot make a folder for a small run")?;
        let out = folder.path().join("quickstart");
        succeed(bellwether().args(JOB).arg(&out))?;
        let runs = out.join("runs");
        let entries = std::fs::read_dir(&runs).with_context(|| format!("cannot read {}", runs.display()))?;
        let run = entries.filter_map(Result::ok).map(|entry| entry.path()).find(|path| path.is_dir());
        let run = run.with_context(|| format!("there is no run in {}", runs.display()))?;
        Ok(SmallRun { folder, run })
    }

    /// The folder of its model.
    pub(super) fn model(&self) -> PathBuf {
        self.run.join("model")
    }

    /// Writes all states of all recordings, with what the model chooses in them, as an episode file.
    pub(super) fn states(&self) -> anyhow::Result<PathBuf> {
        let states = self.folder.path().join("states.parquet");
        let mut evaluate = bellwether();
        evaluate.args(["evaluate", "--json", "--model"]).arg(self.model());
        evaluate.arg("--data").arg(self.folder.path().join("quickstart/recordings.parquet"));
        evaluate.arg("--episodes").arg(&states).arg("--to-the-end");
        succeed(&mut evaluate)?;
        Ok(states)
    }
}

fn bellwether() -> Command {
    let mut command = cargo();
    command.args(["run", "--quiet", "--profile", "ci", "--locked", "--package", "bellwether", "--"]);
    command.stdout(Stdio::null());
    command
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    ensure!(status.success(), "{}: {status}", shown(command));
    Ok(())
}

/// Fails unless a report of `peers parity` says that every runtime agreed on at least this many states.
pub(super) fn require_parity(report: &[u8], least: u64) -> anyhow::Result<()> {
    let report: serde_json::Value =
        serde_json::from_slice(report).context("the report of `peers parity` is no JSON")?;
    ensure!(report["agree"] == true, "the runtimes do not agree: {report:#}");
    let runtimes = report["runtimes"].as_array().filter(|runtimes| !runtimes.is_empty());
    for runtime in runtimes.context("the report of `peers parity` names no runtime")? {
        match runtime["states"].as_u64() {
            Some(states) if states >= least => {
                println!("{}: the same on {states} recorded states", runtime["runtime"].as_str().unwrap_or_default());
            }
            states => bail!("{states:?} recorded states were compared, and {least} are needed: {runtime:#}"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::require_parity;

    #[test]
    fn parity_is_on_enough_states_in_every_runtime_or_it_is_none() {
        let report = |agree: bool, states: &[u64]| {
            let runtimes: Vec<_> = states.iter().map(|n| serde_json::json!({ "runtime": "a", "states": n })).collect();
            serde_json::json!({ "agree": agree, "runtimes": runtimes }).to_string().into_bytes()
        };
        assert!(require_parity(&report(true, &[100, 200]), 100).is_ok());
        for (wrong, says) in [
            (report(false, &[100]), "do not agree"),
            (report(true, &[100, 99]), "needed"),
            (report(true, &[]), "no runtime"),
            (b"{".to_vec(), "no JSON"),
        ] {
            let error = format!("{:#}", require_parity(&wrong, 100).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
    }
}
