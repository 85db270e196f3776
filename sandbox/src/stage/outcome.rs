//! How a run at one stage ended.

use std::collections::BTreeMap;
use std::fmt;

use bellwether_env_adapter::Action;
use serde::{Deserialize, Serialize};

use super::{Close, Proof};
use crate::cage::{CageError, Changes, Pressure};
use crate::network::Traffic;
use crate::tracer::{self, End, Summary, TracerError};

/// What came of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Stage, 1 or 2.
    pub stage: u8,
    /// Name that the host had in the sample's eyes; empty where nothing ran.
    pub host_name: String,
    /// The verdict: `release`, `terminate` or `quarantine`; absent where none fell.
    pub verdict: Option<Action>,
    /// What made it fall; absent where none fell.
    pub verdict_at: Option<Close>,
    /// How the first process of the sample ended.
    pub ended: Ended,
    /// How many processes ended each way, by `exit CODE` or the name of a signal.
    pub ends: BTreeMap<String, u64>,
    /// Level in force at the end.
    pub level: u8,
    /// Events that were told.
    pub events: u64,
    /// Events among them that were denied.
    pub denied: u64,
    /// Events behind the most windows of a stage: they are recorded, and no decision saw them.
    pub undecided: u64,
    /// Calls that were refused and are not on the recorded list, by name.
    pub refused: BTreeMap<String, u64>,
    /// Windows that closed.
    pub windows: u32,
    /// Most tasks that lived at once.
    pub most_tasks: u64,
    /// Reading and writing of processes that exited by themselves.
    pub io: tracer::Traffic,
    /// How the sample met the bounds on tasks and memory; absent where no control group holds it.
    pub pressure: Option<Pressure>,
    /// From the first instruction to the end of the last process, in milliseconds.
    pub run_ms: u64,
    /// Time that the sample waited for and that passed at once, in milliseconds.
    pub skipped_ms: u64,
    /// What shows that nothing of the sample lives; absent where that is not shown.
    pub dead: Option<Proof>,
    /// What differs from the files that were placed, gone with the sandbox; absent where something may still live.
    pub changes: Option<Changes>,
    /// What went over the decoy network; absent where there was none.
    pub traffic: Option<Traffic>,
    /// What this host could not give to the sample, and why.
    pub lacking: Vec<String>,
    /// What went wrong. The record of the run is whole only if this is empty.
    pub faults: Vec<Fault>,
}

/// How the first process of a sample ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Ended {
    /// By itself, with this exit code.
    Exited {
        /// The code.
        code: i32,
    },
    /// By a signal; the kernel's or another process's, or ours.
    Killed {
        /// Number of the signal.
        signal: i32,
    },
    /// Nobody saw it.
    Unknown,
}

/// Something that went wrong in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// The sample never became the program that it should be.
    NotStarted {
        /// Why.
        why: String,
    },
    /// The tracer failed; the sample was killed.
    Tracer {
        /// Why.
        why: String,
    },
    /// Events could not be kept; the sample was killed.
    Recorder,
    /// An action failed; the sample was killed.
    Action {
        /// Which.
        action: Action,
        /// Why.
        why: String,
    },
    /// What was answered made no sense; the sample was killed.
    Answer {
        /// What was wrong with it.
        why: super::Refusal,
    },
    /// It is not shown that nothing of the sample lives.
    Alive {
        /// Why not.
        why: String,
    },
    /// Nobody followed the run any more; the sample was killed.
    Abandoned {
        /// Since when, or why.
        why: String,
    },
    /// The stage was lost while the sample ran. It kills the sample when it misses whoever decides.
    Lost {
        /// What came instead of an answer.
        why: String,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotStarted { why } => write!(f, "the sample did not start: {why}"),
            Fault::Tracer { why } => write!(f, "the tracer failed, and the sample was killed: {why}"),
            Fault::Recorder => f.write_str("events could not be kept, and the sample was killed"),
            Fault::Action { action, why } => {
                write!(f, "{} did not take hold, and the sample was killed: {why}", action.name())
            }
            Fault::Answer { .. } => f.write_str("an answer made no sense, and the sample was killed"),
            Fault::Abandoned { why } => {
                write!(f, "nobody followed the run any more, and the sample was killed: {why}")
            }
            Fault::Lost { why } => {
                write!(f, "the stage was lost, and kills the sample when it misses whoever decides: {why}")
            }
            Fault::Alive { why } => write!(f, "it is not shown that nothing of the sample lives: {why}"),
        }
    }
}

/// Why a sample did not start.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// It could not be caged.
    #[error(transparent)]
    Cage(#[from] CageError),
    /// It could not be traced.
    #[error(transparent)]
    Tracer(#[from] TracerError),
    /// Something that a run needs could not be had.
    #[error("cannot {what}: {cause}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        cause: std::io::Error,
    },
    /// The stage could not start it.
    #[error("stage {stage} could not start the sample: {why}")]
    Unstarted {
        /// Stage, 1 or 2.
        stage: u8,
        /// Why.
        why: String,
        /// Whether trying again later may help.
        passing: bool,
    },
    /// The stage refuses the order.
    #[error("stage {stage} refuses the order: {why}")]
    Order {
        /// Stage, 1 or 2.
        stage: u8,
        /// Why.
        why: String,
    },
    /// The stage cannot be reached.
    #[error("stage {stage} does not answer ({why}): is it running?")]
    Away {
        /// Stage, 1 or 2.
        stage: u8,
        /// What came instead of an answer.
        why: String,
    },
}

impl StageError {
    /// Whether trying again later may help.
    pub const fn is_passing(&self) -> bool {
        matches!(
            self,
            StageError::Away { .. }
                | StageError::Cage(CageError::Slow { .. })
                | StageError::Unstarted { passing: true, .. }
        )
    }
}

impl Outcome {
    /// Whether the record of the run is whole.
    pub const fn is_complete(&self) -> bool {
        self.faults.is_empty() && self.verdict.is_some()
    }

    /// The outcome of a run in which nothing was seen and nothing fell.
    pub fn of_nothing(stage: u8) -> Outcome {
        Outcome {
            stage,
            host_name: String::new(),
            verdict: None,
            verdict_at: None,
            ended: Ended::Unknown,
            ends: BTreeMap::new(),
            level: 0,
            events: 0,
            denied: 0,
            undecided: 0,
            refused: BTreeMap::new(),
            windows: 0,
            most_tasks: 0,
            io: tracer::Traffic::default(),
            pressure: None,
            run_ms: 0,
            skipped_ms: 0,
            dead: None,
            changes: None,
            traffic: None,
            lacking: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Takes what the tracer counted.
    pub(super) fn count(&mut self, summary: Summary) {
        self.ended = match summary.first {
            Some(End::Exited(code)) => Ended::Exited { code },
            Some(End::Killed(signal)) => Ended::Killed { signal },
            None => Ended::Unknown,
        };
        self.ends = summary.ends;
        self.denied = summary.denied;
        self.refused = summary.refused.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        self.skipped_ms = summary.skipped_ns / 1_000_000;
        self.most_tasks = summary.most_tasks as u64;
        self.io = summary.traffic;
        if summary.uncounted > 0 {
            let count = summary.uncounted;
            self.lacking
                .push(format!("what {count} processes read and wrote in all: their counters could not be read"));
        }
    }
}
