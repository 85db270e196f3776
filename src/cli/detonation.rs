//! What `detonate` reports.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use bellwether_artifact::{Sha256, Visible, durable};
use bellwether_sandbox::episode::{self, EpisodeFolder};
use bellwether_sandbox::report::{self, ReportError, Reports};
use bellwether_sandbox::stage::{Came, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use super::Failure;

/// What `detonate` reports as JSON, and what lies in the folder of an episode as `episode.json`.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "DetonationReport")]
pub(crate) struct Report {
    /// Name of the episode.
    episode_id: String,
    /// Hash of the file; empty where an episode was cut off before that was written down.
    sha256: String,
    /// Seed of the made-up home, which `--seed` makes once more; null where an episode was cut off before that was written down.
    seed: Option<u64>,
    /// `release`, `terminate` or `quarantine`; null where none fell.
    verdict: Option<&'static str>,
    /// Stage in which it fell, or which failed: 1 or 2.
    stage: u8,
    /// Every decision, in order.
    decisions: Vec<Decision>,
    /// What came of every action but `continue`.
    actions: Vec<Action>,
    /// How the runs ended, one for each stage that ran.
    outcome: Vec<Run>,
    /// What became of the file, where it went into the vault.
    quarantine: Option<String>,
    /// Decisions of the safe rule, because the policy did not answer.
    safe_rule: u64,
    /// Why the record is not whole; empty if it is.
    partial: Vec<String>,
    /// Telemetry of the episode, Parquet; null where it could not be written.
    telemetry: Option<PathBuf>,
    /// Its steps, Parquet; null where they could not be written.
    steps: Option<PathBuf>,
    /// The episode in CAPE's shape, with every call; null where it could not be written.
    cape: Option<PathBuf>,
    /// Its events in OCSF 1.7, a line each; null where they could not be written.
    ocsf: Option<PathBuf>,
    /// A page for people; null where it could not be written.
    page: Option<PathBuf>,
    /// Why those three could not be written; null where they were.
    unreported: Option<String>,
    /// Behaviours that were seen, as techniques of ATT&CK.
    techniques: Vec<Technique>,
    /// This report.
    report: PathBuf,
}

/// A behaviour that was seen.
#[derive(Serialize, JsonSchema)]
struct Technique {
    /// Its id, such as `T1486`.
    id: &'static str,
    /// Its name.
    name: &'static str,
    /// The behaviour.
    behaviour: &'static str,
    /// How often it was seen.
    count: u64,
}

/// One decision.
#[derive(Serialize, JsonSchema)]
struct Decision {
    /// Its name.
    decision_id: String,
    /// Stage, 1 or 2.
    stage: u8,
    /// Number of the window in the stage, from 0.
    window: u32,
    /// Events of the window.
    events: u32,
    /// Events of the stage so far.
    events_seen: u64,
    /// Nanoseconds since the stage began.
    time_ns: u64,
    /// Allowed actions, by number.
    mask: [bool; 5],
    /// What each action is worth to the policy; null where the safe rule decided.
    q_values: Option<[f32; 5]>,
    /// Lead over the next best allowed action; null where nothing else is allowed or the safe rule decided.
    margin: Option<f32>,
    /// Version of the model; null where the safe rule decided.
    model_version: Option<String>,
    /// Why the safe rule decided; null where the policy did.
    safe_rule: Option<String>,
    /// Name of the action.
    action: &'static str,
    /// Isolation level before.
    level: u8,
    /// Isolation level after.
    level_after: u8,
    /// Microseconds that the decision took.
    took_us: u64,
}

/// What came of an action.
#[derive(Serialize, JsonSchema)]
struct Action {
    /// The decision; null for what the sandbox did by itself.
    decision_id: Option<String>,
    /// Stage, 1 or 2.
    stage: u8,
    /// Name of the action.
    action: &'static str,
    /// Isolation level in force afterwards.
    level: u8,
    /// Whether it took hold.
    done: bool,
    /// What shows that it did, or why it did not.
    why: String,
    /// Microseconds from the decision to the effect.
    took_us: u64,
}

/// How the run at a stage ended.
#[derive(Serialize, JsonSchema)]
struct Run {
    /// Stage, 1 or 2.
    stage: u8,
    /// The verdict in this stage; null where none fell.
    verdict: Option<&'static str>,
    /// How the first process ended, such as `exit 0` or `signal 9`.
    ended: String,
    /// Isolation level at the end.
    level: u8,
    /// Events.
    events: u64,
    /// Events that were denied.
    denied: u64,
    /// Events behind the most windows of a stage, which no decision saw.
    undecided: u64,
    /// Calls that were refused and are not on the recorded list, by name.
    refused: BTreeMap<String, u64>,
    /// How many processes ended each way, by `exit CODE` or the name of a signal.
    ends: BTreeMap<String, u64>,
    /// Most tasks that lived at once.
    most_tasks: u64,
    /// Reading and writing of processes that exited by themselves, as the kernel counts it.
    io: Io,
    /// How the sample met the bounds on tasks and memory; null where no control group held it.
    pressure: Option<Pressure>,
    /// Windows.
    windows: u32,
    /// Milliseconds.
    run_ms: u64,
    /// Milliseconds that it waited for and that passed at once.
    skipped_ms: u64,
    /// Files that the sample created, and that are gone with the sandbox.
    created: u64,
    /// Files of the home that it changed.
    changed: u64,
    /// Files of the home that it deleted.
    deleted: u64,
    /// Conversations over the decoy network.
    contacts: u64,
    /// What shows that nothing of it lives; null where that is not shown.
    dead: Option<&'static str>,
    /// What this host could not give to the sample, and why.
    lacking: Vec<String>,
    /// What went wrong.
    faults: Vec<String>,
}

/// Reading and writing.
#[derive(Serialize, JsonSchema)]
struct Io {
    /// Bytes that were asked for.
    read_bytes: u64,
    /// Bytes that were handed over.
    written_bytes: u64,
    /// Calls that read.
    reads: u64,
    /// Calls that wrote.
    writes: u64,
}

/// What the control groups of a sample counted.
#[derive(Serialize, JsonSchema)]
struct Pressure {
    /// Forks that were refused because of the bound on tasks.
    refused_forks: u64,
    /// Tasks that were killed because of the bound on memory.
    out_of_memory_kills: u64,
    /// Most memory that was held at once, in bytes.
    peak_memory_bytes: u64,
}

impl Report {
    /// Makes what an episode leaves beside its telemetry and its steps: the reports for others, and this one as `episode.json`.
    pub(crate) fn leave(folder: &EpisodeFolder, report: &episode::Report) -> Result<Report, Failure> {
        let reports = report::write_episode(folder.path(), report, env!("CARGO_PKG_VERSION"));
        let report = Report::new(report, &path_in(folder.path())).with(reports).write()?;
        folder.settle()?;
        Ok(report)
    }

    /// The same of an episode whose program was killed, from what it left; nothing where all of it is there. `sha256` is asked for the hash
    /// of the file where the episode left no journal.
    pub(crate) fn recover(
        folder: &EpisodeFolder,
        sha256: impl FnOnce() -> Option<Sha256>,
    ) -> Result<Option<Report>, Failure> {
        if path_in(folder.path()).exists() {
            return Ok(None);
        }
        if let Some(report) = folder.recover()? {
            return Report::leave(folder, &report).map(Some);
        }
        let report = Report::cut_off(folder.path(), sha256()).write()?;
        folder.settle()?;
        Ok(Some(report))
    }

    /// Gives it its name.
    pub(crate) fn write(self) -> Result<Report, Failure> {
        durable::write(&self.report, |out| serde_json::to_writer_pretty(out, &self).map_err(io::Error::from))?;
        Ok(self)
    }

    fn new(report: &episode::Report, path: &Path) -> Report {
        let files = report.files.as_ref();
        Report {
            episode_id: report.episode_id.0.clone(),
            sha256: report.sample.sha256.to_string(),
            seed: report.seed,
            verdict: report.verdict.map(|verdict| verdict.name()),
            stage: report.stage,
            decisions: report.decisions.iter().map(Decision::from).collect(),
            actions: report.feedback.iter().map(Action::from).collect(),
            outcome: report.outcomes.iter().map(Run::from).collect(),
            quarantine: report.quarantine.as_ref().map(ToString::to_string),
            safe_rule: report.safe_rule,
            partial: report.partial.iter().map(ToString::to_string).collect(),
            telemetry: files.map(|files| files.telemetry.clone()),
            steps: files.map(|files| files.steps.clone()),
            cape: None,
            ocsf: None,
            page: None,
            unreported: None,
            techniques: Vec::new(),
            report: path.to_path_buf(),
        }
    }

    /// Of an episode that left no journal that can be read.
    pub(crate) fn cut_off(folder: &Path, sha256: Option<Sha256>) -> Report {
        let named = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
        Report {
            episode_id: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            sha256: sha256.map(|hash| hash.to_string()).unwrap_or_default(),
            seed: None,
            verdict: None,
            stage: 1,
            decisions: Vec::new(),
            actions: Vec::new(),
            outcome: Vec::new(),
            quarantine: None,
            safe_rule: 0,
            partial: vec!["the program that ran the file was killed, and left no journal".to_owned()],
            telemetry: named("telemetry.parquet"),
            steps: named("steps.parquet"),
            cape: None,
            ocsf: None,
            page: None,
            unreported: Some("nothing is known of the episode".to_owned()),
            techniques: Vec::new(),
            report: path_in(folder),
        }
    }

    /// With the reports that were written for others. That they could not be written is said, and makes no verdict uncertain.
    fn with(mut self, reports: Result<Reports, ReportError>) -> Report {
        match reports {
            Ok(reports) => {
                let techniques = reports.seen.iter().map(|seen| Technique {
                    id: seen.technique.id,
                    name: seen.technique.name,
                    behaviour: seen.behaviour,
                    count: seen.count,
                });
                self.techniques = techniques.collect();
                (self.cape, self.ocsf, self.page) = (Some(reports.cape), Some(reports.ocsf), Some(reports.page));
            }
            Err(error) => self.unreported = Some(chain(&error)),
        }
        self
    }

    /// Name of the episode.
    pub(crate) fn name(&self) -> &str {
        &self.episode_id
    }

    /// For people, after the lines that they have seen.
    pub(crate) fn describe(&self) -> String {
        let verdict = self.verdict.unwrap_or("none");
        let mut lines =
            vec![format!("verdict   {verdict} in stage {}, after {} decisions", self.stage, self.decisions.len())];
        for run in &self.outcome {
            lines.push(format!(
                "stage {}   {}, {} events in {:.2} s, {} denied; files: {} created, {} changed, {} deleted, all gone with the sandbox",
                run.stage, run.ended, run.events, run.run_ms as f64 / 1e3, run.denied, run.created, run.changed, run.deleted
            ));
            if !run.refused.is_empty() {
                let refused: Vec<String> = run.refused.iter().map(|(call, count)| format!("{call} {count}")).collect();
                lines.push(format!("          refused: {}", Visible::new(&refused.join(", "))));
            }
            if run.skipped_ms > 0 {
                lines.push(format!("          {} s that it waited for passed at once", run.skipped_ms as f64 / 1e3));
            }
            lines.extend(run.lacking.iter().map(|what| format!("          without {}", Visible::new(what))));
            lines.extend(run.faults.iter().map(|fault| format!("          {}", Visible::new(fault))));
        }
        if self.safe_rule > 0 {
            lines.push(format!("policy    away: the safe rule made {} decisions", self.safe_rule));
        }
        lines.extend(self.partial.iter().map(|why| format!("partial   {}", Visible::new(why))));
        lines.extend(
            self.techniques.iter().map(|seen| format!("seen      {} {}: {} times", seen.id, seen.name, seen.count)),
        );
        match (&self.page, &self.unreported) {
            (Some(page), _) => lines.push(format!("report    {}", page.display())),
            (None, why) => {
                let why = why.as_deref().unwrap_or_default();
                lines.push(format!("report    {}; no page: {}", self.report.display(), Visible::new(why)));
            }
        }
        lines.join("\n")
    }

    /// The exit code.
    pub(crate) fn verdict_met(&self) -> Result<(), Failure> {
        let why = self.partial.join("; ");
        match self.verdict {
            Some("release") if self.partial.is_empty() => Ok(()),
            Some("release") => Err(Failure::Failed(anyhow!("released, and not all is known: {}", Visible::new(&why)))),
            Some(verdict) => Err(Failure::NotMet(format!("the file was convicted: {verdict} in stage {}", self.stage))),
            None => Err(Failure::Failed(anyhow!("no verdict fell: {}", Visible::new(&why)))),
        }
    }
}

impl From<&episode::Decision> for Decision {
    fn from(decision: &episode::Decision) -> Decision {
        Decision {
            decision_id: decision.decision.0.clone(),
            stage: decision.stage,
            window: decision.window,
            events: decision.events,
            events_seen: decision.events_seen,
            time_ns: decision.time_ns,
            mask: decision.mask,
            q_values: decision.q_values,
            margin: decision.margin,
            model_version: decision.model_version.clone(),
            safe_rule: decision.safe_rule.clone(),
            action: decision.action.name(),
            level: decision.level,
            level_after: decision.level_after,
            took_us: decision.took_us,
        }
    }
}

impl From<&bellwether_sandbox::stage::Feedback> for Action {
    fn from(feedback: &bellwether_sandbox::stage::Feedback) -> Action {
        let (done, why) = match &feedback.came {
            Came::Done { proof } => (true, proof.text().to_owned()),
            Came::Refused { why } => (false, format!("refused: {why:?}").to_lowercase()),
            Came::Failed { why } => (false, why.clone()),
        };
        Action {
            decision_id: feedback.decision.as_ref().map(|decision| decision.0.clone()),
            stage: feedback.stage,
            action: feedback.action.name(),
            level: feedback.level,
            done,
            why,
            took_us: feedback.took_us,
        }
    }
}

impl From<&Outcome> for Run {
    fn from(outcome: &Outcome) -> Run {
        use bellwether_sandbox::stage::Ended;
        let changes = outcome.changes.as_ref();
        let count =
            |of: fn(&bellwether_sandbox::cage::Changes) -> usize| changes.map_or(0, |changes| of(changes) as u64);
        Run {
            stage: outcome.stage,
            verdict: outcome.verdict.map(|verdict| verdict.name()),
            ended: match outcome.ended {
                Ended::Exited { code } => format!("exit {code}"),
                Ended::Killed { signal } => format!("signal {signal}"),
                Ended::Unknown => "unknown".to_owned(),
            },
            level: outcome.level,
            events: outcome.events,
            denied: outcome.denied,
            undecided: outcome.undecided,
            refused: outcome.refused.clone(),
            ends: outcome.ends.clone(),
            most_tasks: outcome.most_tasks,
            io: Io {
                read_bytes: outcome.io.read_bytes,
                written_bytes: outcome.io.written_bytes,
                reads: outcome.io.reads,
                writes: outcome.io.writes,
            },
            pressure: outcome.pressure.map(|pressure| Pressure {
                refused_forks: pressure.refused_forks,
                out_of_memory_kills: pressure.out_of_memory_kills,
                peak_memory_bytes: pressure.peak_memory_bytes,
            }),
            windows: outcome.windows,
            run_ms: outcome.run_ms,
            skipped_ms: outcome.skipped_ms,
            created: count(|changes| changes.created.len()),
            changed: count(|changes| changes.changed.len()),
            deleted: count(|changes| changes.deleted.len()),
            contacts: outcome.traffic.as_ref().map_or(0, |traffic| traffic.contacts.len() as u64 + traffic.left_out),
            dead: outcome.dead.map(|proof| proof.text()),
            lacking: outcome.lacking.clone(),
            faults: outcome.faults.iter().map(ToString::to_string).collect(),
        }
    }
}

/// The report in the folder of an episode.
fn path_in(folder: &Path) -> PathBuf {
    folder.join("episode.json")
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
