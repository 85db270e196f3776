//! What a stage is told to do, and what it tells of it.

use std::fmt;

use bellwether_env_adapter::{Action, EpisodeId};
use serde::{Deserialize, Serialize};

use super::Question;

/// Names a decision: the same name means the same decision, however often it arrives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DecisionId(pub String);

/// A level of isolation: 0 open to the decoy network, 1 network cut, 2 writes denied outside scratch, 3 no new processes.
pub type Level = u8;

/// An action, with all that is needed to see what it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The decision.
    pub decision: DecisionId,
    /// What it is about.
    pub context: Context,
    /// What is to be done.
    pub action: Action,
}

/// Where in its episode a command belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The episode.
    pub episode: EpisodeId,
    /// Stage, 1 or 2.
    pub stage: u8,
    /// Number of the question in this stage, from 0.
    pub step: u32,
    /// Number of the window in this stage, from 0.
    pub window: u32,
    /// The level that the decision rests on.
    pub level: Level,
    /// The level that is to be in force afterwards.
    pub level_after: Level,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feedback {
    /// The decision; absent for what the stage did by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionId>,
    /// Stage, 1 or 2.
    pub stage: u8,
    /// What was done, or was to be.
    pub action: Action,
    /// The level in force now.
    pub level: Level,
    /// What came of it.
    #[serde(flatten)]
    pub came: Came,
    /// From the arrival of the command to its effect, in microseconds.
    pub took_us: u64,
    /// How often the command was brought to the stage until it was admitted, at least 1.
    #[serde(default = "once")]
    pub attempts: u32,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Came {
    /// It holds.
    Done {
        /// What shows it.
        proof: Proof,
    },
    /// It was not done.
    Refused {
        /// Why not.
        why: Refusal,
    },
    /// It was tried in vain. The sample is terminated.
    Failed {
        /// What went wrong.
        why: String,
    },
}

/// What shows that an action took hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The sample's network interface reads as down.
    NetworkDown,
    /// The kernel has set the mounts read-only, which it does only without writers.
    MountsReadOnly,
    /// Every call that starts a process is refused before it runs.
    ProcessesRefused,
    /// The sample's control groups are empty.
    EmptyCgroup,
    /// The init of the sample's process namespace has ended, the last of all.
    EndedInit,
}

/// Why a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It belongs to another episode, stage or question, or does not say which.
    Context,
    /// Its name is that of another decision.
    Name,
    /// A later decision has been carried out.
    Stale,
    /// A verdict has fallen.
    Over,
    /// The action is not allowed where it was decided.
    Masked,
}

fn once() -> u32 {
    1
}

impl DecisionId {
    /// The decision that answers a question of a stage.
    pub fn new(episode: &EpisodeId, stage: u8, step: u32) -> DecisionId {
        DecisionId(format!("{}:{stage}:{step}", episode.0))
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Command {
    /// The answer to a question.
    pub fn to(question: &Question, action: Action) -> Command {
        let level_after = question.level + u8::from(action == Action::RaiseIsolation);
        Command {
            decision: question.decision(),
            context: Context {
                episode: question.episode.clone(),
                stage: question.stage,
                step: question.step,
                window: question.window,
                level: question.level,
                level_after,
            },
            action,
        }
    }
}

impl Proof {
    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Proof::NetworkDown => "the network reads as down",
            Proof::MountsReadOnly => "the kernel has set the mounts read-only",
            Proof::ProcessesRefused => "calls that start processes are refused",
            Proof::EmptyCgroup => "the control groups are empty",
            Proof::EndedInit => "the last process of the namespace has ended",
        }
    }
}
