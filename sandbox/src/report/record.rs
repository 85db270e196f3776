//! What an episode was: all that reports are made from, but for the events themselves.

use std::collections::BTreeMap;

use bellwether_env_adapter::{Action, ActionMask, EpisodeId};
use serde::{Deserialize, Serialize};

use crate::cage::Pressure;
use crate::network;
use crate::tracer::Traffic;
use crate::vault::{Removal, SampleIdentity};

/// One sample's way through one or two stages. Text in it comes from the sample and is shown as [`Visible`](bellwether_artifact::Visible)
/// spells it, never as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpisodeRecord {
    /// The episode.
    pub episode_id: EpisodeId,
    /// The sample.
    pub sample: SampleIdentity,
    /// Version of the program that ran it.
    pub version: String,
    /// The stages, in their order; at least one.
    pub stages: Vec<StageRecord>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why something of it is missing; empty for a whole episode.
    pub partial: Vec<String>,
}

/// One detonation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageRecord {
    /// 1 or 2.
    pub stage: u8,
    /// Name that the host had in the sample's eyes.
    pub host_name: String,
    /// When it began, in milliseconds since 1970 in UTC.
    pub began_ms: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Events that were recorded.
    pub events: u64,
    /// What was counted beside the events.
    pub counts: Counts,
    /// The windows, in their order.
    pub windows: Vec<WindowRecord>,
    /// The processes, in the order of their beginnings.
    pub processes: Vec<ProcessRecord>,
    /// Processes that did not fit into the list.
    pub further_processes: u64,
    /// What became of the files; gone with the sandbox.
    pub changes: Vec<FileChange>,
    /// Changes that did not fit into the list.
    pub further_changes: u64,
    /// What went over the decoy network; none where there was none.
    pub traffic: Option<network::Traffic>,
    /// Time that the sample waited for and that passed at once, in milliseconds.
    pub skipped_ms: u64,
    /// What the host could not give to the sample, and why.
    pub lacking: Vec<String>,
    /// What went wrong.
    pub faults: Vec<String>,
}

/// What was counted in a detonation beside its events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Events that were denied.
    pub denied: u64,
    /// Events that no decision saw.
    pub undecided: u64,
    /// Calls that were refused and are not on the list of recorded ones, by name.
    pub refused: BTreeMap<String, u64>,
    /// How many processes ended each way, by `exit CODE` or the name of a signal.
    pub ends: BTreeMap<String, u64>,
    /// Most tasks that lived at once.
    pub most_tasks: u64,
    /// Reading and writing of processes that exited by themselves.
    pub io: Traffic,
    /// How the sample met the bounds on tasks and memory; `None` where no control group held it.
    pub pressure: Option<Pressure>,
}

/// A window and what was decided at its close.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowRecord {
    /// Position in the stage, from 0.
    pub index: u32,
    /// Events of the window.
    pub events: u32,
    /// When it closed, in nanoseconds since the stage began.
    pub closed_ns: u64,
    /// Isolation level while it ran, 0 to 3.
    pub level: u8,
    /// What was decided.
    pub decision: DecisionRecord,
}

/// A decision, who took it, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionRecord {
    /// Its id; equal ids mean the same decision.
    pub decision_id: String,
    /// What was decided.
    pub action: Action,
    /// Which actions were allowed, by number.
    pub mask: ActionMask,
    /// Values of all actions by number, allowed or not; `None` where no policy decided.
    pub q_values: Option<Vec<f32>>,
    /// Distance of the best allowed value from the second best.
    pub margin: Option<f32>,
    /// Version of the model.
    pub model_version: Option<String>,
    /// Why the fixed rule decided instead of a policy.
    pub safe_rule: Option<String>,
    /// Time from the close of the window to the decision, in nanoseconds.
    pub latency_ns: u64,
    /// What came of it; `None` where nothing had to be done, or nobody said.
    pub feedback: Option<Feedback>,
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feedback {
    /// It took hold.
    pub applied: bool,
    /// What proves that, or why it did not.
    pub proof: String,
    /// Times that the action was brought to the stage.
    pub attempts: u32,
    /// Time from the decision until it had taken hold, in nanoseconds.
    pub latency_ns: u64,
}

/// A process (thread group) of the sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessRecord {
    /// Number, as seen from outside.
    pub pid: u32,
    /// Who started it; `None` for the first.
    pub ppid: Option<u32>,
    /// The program that it ran last.
    pub program: String,
    /// The arguments that the program was given.
    pub arguments: Vec<String>,
    /// Its threads, as seen from outside; the process itself among them.
    pub threads: Vec<u32>,
    /// When it began, in nanoseconds since the stage began.
    pub began_ns: u64,
    /// When it ended; `None` where it was killed with the sandbox.
    pub ended_ns: Option<u64>,
    /// How it ended; a signal's number is negative.
    pub exit_code: Option<i32>,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileChange {
    /// What happened to it.
    pub change: Change,
    /// Its path in the sample's eyes.
    pub path: String,
    /// Its length at the end.
    pub bytes: Option<u64>,
    /// Hash of its content at the end, where it was read.
    pub sha256: Option<bellwether_artifact::Sha256>,
}

/// Kinds of changes of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The sample made it.
    Created,
    /// It was there, and has another content now.
    Changed,
    /// It was there, and is gone.
    Deleted,
}

/// How an episode ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The verdict: release, terminate or quarantine; `None` where none fell.
    pub verdict: Option<Action>,
    /// The stage in which it fell, or in which the episode broke off.
    pub stage: u8,
    /// What became of the original, where the sample went into quarantine.
    pub quarantine: Option<Removal>,
    /// Name of the thing in quarantine.
    pub quarantine_id: Option<String>,
    /// In words, for people.
    pub text: String,
}

impl EpisodeRecord {
    /// When it began, in milliseconds since 1970.
    pub fn began_ms(&self) -> u64 {
        self.stages.first().map_or(0, |stage| stage.began_ms)
    }

    /// When it ended, in milliseconds since 1970; not before it began, also where the clock was set back between two stages.
    pub fn ended_ms(&self) -> u64 {
        self.stages.iter().map(|stage| stage.began_ms.saturating_add(stage.duration_ms)).max().unwrap_or(0)
    }

    /// The wall-clock time of an event of a stage, in milliseconds since 1970.
    pub fn time_ms(&self, stage: u8, time_ns: Option<u64>) -> u64 {
        let began =
            self.stages.iter().find(|record| record.stage == stage).map_or(self.began_ms(), |stage| stage.began_ms);
        began.saturating_add(time_ns.unwrap_or(0) / 1_000_000)
    }

    /// Whether the verdict calls the sample malicious.
    pub fn is_conviction(&self) -> bool {
        self.outcome.verdict.is_some_and(Action::is_conviction)
    }

    /// All decisions, with their stage and window.
    pub fn decisions(&self) -> impl Iterator<Item = (&StageRecord, &WindowRecord)> {
        self.stages.iter().flat_map(|stage| stage.windows.iter().map(move |window| (stage, window)))
    }
}
