//! Played episodes in Parquet, one row per step, written and read as a stream.
//!
//! `docs/formats/episodes.md` is the specification. A [`EpisodeWriter`] writes one file, [`EpisodeParts`] a sequence of
//! them so that a killed process loses at most the part that it was writing, and an [`EpisodeReader`] reads one back and
//! refuses what does not follow the rules.

mod batch;
mod header;
mod order;
mod parts;
mod play;
mod reader;
mod writer;

pub(crate) use header::reseal;
pub use header::{EpisodeFileHeader, Expect};
pub use parts::{EpisodeParts, Parts};
pub use play::Player;
pub use reader::{EpisodeReader, Loaded, Shard, Survey};
pub use writer::{EpisodeWriter, Written};

use crate::{ActionMask, Played};

/// One step of an episode, as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step<'a> {
    /// The episode; not empty. Its steps follow one another, and no other episode of the file has this name.
    pub episode_id: &'a str,
    /// Number of the step in the episode: 0, 1, 2, ...
    pub step: u32,
    /// Stage of the episode; it never falls.
    pub stage: u8,
    /// The state; finite values, as many as the header says.
    pub state: &'a [f32],
    /// Allowed actions of the state; at least one.
    pub action_mask: ActionMask,
    /// What was played in the state. Absent in the final state of an episode that was cut off.
    pub played: Option<PlayedParts>,
    /// How the episode ends with this row, if it does.
    pub end: Option<End>,
    /// Something of the episode is missing: a sandbox failed, or the recording is incomplete. Only on a row that ends one.
    pub partial: bool,
    /// Label of the sample, where it is known; the same in all rows of an episode.
    pub label: Option<&'a str>,
    /// Events seen up to this state; it never falls.
    pub events_seen: u64,
    /// What the policy valued each action at, masked ones included; finite, as many as the header has actions. All rows of
    /// a file have them or none: see [`EpisodeFileHeader::q_values`].
    pub q_values: Option<&'a [f32]>,
}

/// What was played in a state, with the reward in two parts so that a later cost of false positives can weigh them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlayedParts {
    /// Action number; the mask allows it.
    pub action: u32,
    /// Reward that does not depend on the cost; finite.
    pub r0: f32,
    /// Reward that the cost multiplies; finite.
    pub r1: f32,
    /// Probability with which the behaviour policy chose the action, above 0 and at most 1.
    pub behaviour_probability: f32,
    /// The safe rule decided, for want of an answer of the policy. Only in a file whose rows say so: see
    /// [`EpisodeFileHeader::safe_rule`].
    pub safe_rule: bool,
}

/// How an episode ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By its own rules, with the action of this row.
    Terminated,
    /// It was cut off. With an action in this row, what the action led to was not observed; without one, this is the
    /// observed final state.
    Truncated,
}

/// One step as it is read; kept by the caller and filled again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRow {
    /// See [`Step::episode_id`].
    pub episode_id: String,
    /// See [`Step::step`].
    pub step: u32,
    /// See [`Step::stage`].
    pub stage: u8,
    /// See [`Step::state`].
    pub state: Vec<f32>,
    /// See [`Step::action_mask`].
    pub action_mask: ActionMask,
    /// See [`Step::played`].
    pub played: Option<PlayedParts>,
    /// See [`Step::end`].
    pub end: Option<End>,
    /// See [`Step::partial`].
    pub partial: bool,
    /// See [`Step::label`].
    pub label: Option<String>,
    /// See [`Step::events_seen`].
    pub events_seen: u64,
    /// See [`Step::q_values`].
    pub q_values: Option<Vec<f32>>,
}

impl PlayedParts {
    /// As a replay buffer takes it, with the reward that the caller weighed out of the parts.
    pub fn with_reward(&self, reward: f32) -> Played {
        Played { action: self.action, reward, behaviour_probability: self.behaviour_probability }
    }
}

impl Default for StepRow {
    /// An empty row to read into.
    fn default() -> Self {
        StepRow {
            episode_id: String::new(),
            step: 0,
            stage: 0,
            state: Vec::new(),
            action_mask: ActionMask::default(),
            played: None,
            end: None,
            partial: false,
            label: None,
            events_seen: 0,
            q_values: None,
        }
    }
}

impl StepRow {
    /// The row as it is written.
    pub fn as_step(&self) -> Step<'_> {
        Step {
            episode_id: &self.episode_id,
            step: self.step,
            stage: self.stage,
            state: &self.state,
            action_mask: self.action_mask,
            played: self.played,
            end: self.end,
            partial: self.partial,
            label: self.label.as_deref(),
            events_seen: self.events_seen,
            q_values: self.q_values.as_deref(),
        }
    }
}
