//! One run of one sample at one stage: what is asked for, what is told and asked while it runs, and what came of it.
//!
//! A [`Stage`] runs samples; a [`Course`] follows one run and answers for it. The stage tells the course every event, asks it at
//! the close of every window and does what the answer says, then tells what came of that. [`LocalStage`] runs samples in this
//! process; the same words would travel to one elsewhere.

mod command;
mod ledger;
mod local;
mod outcome;
#[cfg(feature = "serve")]
pub mod remote;
mod watch;

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bellwether_env_adapter::reward::Toll;
use bellwether_env_adapter::{
    ACTION_COUNT, Action, ActionMask, EpisodeId, Event, RewardConfig, StateVector, WindowConfig,
};

use crate::Limits;

pub use command::{Came, Command, Context, DecisionId, Feedback, Level, Proof, Refusal};
pub use ledger::{Admission, Ledger};
pub use local::{LocalStage, identity};
pub use outcome::{Ended, Fault, Outcome, StageError};

/// Runs samples at one stage.
pub trait Stage {
    /// Runs a sample to its end. However that comes about, nothing of the sample lives when this returns.
    ///
    /// # Errors
    /// The sample did not start, and the course was told nothing. Whatever happens later is part of the outcome.
    fn run(&self, order: &Order, course: &mut dyn Course) -> Result<Outcome, StageError>;
}

/// Follows one run of a sample and answers for it. While it takes its time, the sample waits.
pub trait Course: Send {
    /// The next event. When it cannot be kept, the sample has no business to go on.
    fn event(&mut self, event: &Event<'_>) -> Kept;

    /// What is to be done at the close of a window.
    fn window(&mut self, question: &Question, state: &StateVector) -> Command;

    /// The same where the stage is elsewhere: `bring` takes the answer there, once, and says what holds. What is kept is what holds.
    fn window_elsewhere(&mut self, question: &Question, state: &StateVector, bring: Bring<'_>) {
        let command = self.window(question, state);
        bring(&command, &Grounds::default());
    }

    /// What came of a command other than `continue`, or of what the stage did by itself.
    fn feedback(&mut self, feedback: Feedback);

    /// Why nobody follows the run any more, if so: the sample is killed then. Asked for many times a second.
    fn gone(&self) -> Option<String> {
        None
    }
}

/// Takes an answer to a stage elsewhere.
pub type Bring<'a> = &'a mut dyn FnMut(&Command, &Grounds) -> Brought;

/// What became of an answer on its way to a stage elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// It holds, as far as is known.
    Taken,
    /// It came too late. The stage had applied the safe rule, and this holds.
    Late {
        /// What was done, one of the allowed actions.
        action: Action,
        /// How long the stage had waited, in milliseconds.
        limit_ms: u64,
    },
}

/// What a decision rests on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grounds {
    /// What each action is worth to the policy; absent where the safe rule decided.
    pub q_values: Option<[f32; ACTION_COUNT]>,
    /// Lead over the next best allowed action.
    pub margin: Option<f32>,
    /// Version of the model; absent where the safe rule decided.
    pub model_version: Option<String>,
    /// Why the safe rule decided; absent where the policy did.
    pub safe_rule: Option<String>,
}

/// Whether an event was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was.
    Yes,
    /// It was not, and later ones would not be.
    No,
}

/// What a stage is to run.
#[derive(Clone, Debug)]
pub struct Order {
    /// The episode.
    pub episode: EpisodeId,
    /// Stage, 1 or 2.
    pub stage: u8,
    /// What runs.
    pub sample: Arc<Specimen>,
    /// How events are cut into windows.
    pub window: WindowConfig,
    /// What events of a window weigh.
    pub reward: RewardConfig,
    /// What it may use up, time included.
    pub limits: Limits,
    /// Seed of the made-up home.
    pub seed: u64,
}

/// A sample, ready to run.
#[derive(Debug)]
pub struct Specimen {
    /// The file, sealed so that nobody can change it.
    pub memory: OwnedFd,
    /// Its name, as it is called by.
    pub name: String,
    /// Arguments after the name.
    pub arguments: Vec<CString>,
    /// The home carries the markers without which programs of the corpus refuse to run, and the ports of their peer are answered.
    pub marked_home: bool,
}

/// A file that lies in the working folder when a sample starts, such as the script that it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// Its name, without a slash.
    pub name: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// A window that has closed and waits for an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The episode.
    pub episode: EpisodeId,
    /// Stage, 1 or 2.
    pub stage: u8,
    /// Number of the question in this stage, from 0.
    pub step: u32,
    /// Number of the window in this stage, from 0. A verdict may be asked for about a window that was asked about already.
    pub window: u32,
    /// Events of the window.
    pub events: u32,
    /// What they do.
    pub toll: Toll,
    /// Events of this stage so far.
    pub events_seen: u64,
    /// Time since the stage began, in nanoseconds.
    pub time_ns: u64,
    /// Isolation level in force, or about to be.
    pub level: u8,
    /// Why it is asked.
    pub close: Close,
    /// Allowed actions.
    pub mask: ActionMask,
}

/// Why a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Close {
    /// The window is full, by events or by time.
    Window,
    /// The most windows of a stage were seen: a verdict must fall.
    Windows,
    /// The time is up: a verdict must fall.
    Time,
    /// The sample has ended: a verdict must fall.
    End,
}

impl Close {
    /// Whether a verdict must fall.
    pub const fn is_last(self) -> bool {
        !matches!(self, Close::Window)
    }
}

impl Question {
    /// The decision that answers it.
    pub fn decision(&self) -> DecisionId {
        DecisionId::new(&self.episode, self.stage, self.step)
    }
}
