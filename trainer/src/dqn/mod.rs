//! DQN online: play, remember, learn. The page `docs/algorithms/dqn.md` lists what differs from the paper.

mod best;
mod checkpoint;
mod config;
mod framed;
mod greedy;
mod trainer;
mod update;

pub use best::{Selected, Selection};
pub use config::{DqnConfig, Variant};
pub use greedy::{GreedyEvaluation, evaluate_greedy};
pub use trainer::DqnTrainer;
pub use update::{DrawConfig, LossConfig, MAX_BATCH, MunchausenConfig, PrioritisedConfig, UpdateConfig};

pub(crate) use framed::{Format, unusable};
pub(crate) use update::{Drawn, POSITIVE, Position, Updater, UpdaterState, require};

use crate::config::ConfigError;
use crate::learner::LearnerError;
use crate::network::NetworkError;
use bellwether_replay::ReplayError;
use serde::Serialize;
use std::ops::ControlFlow;

/// Something that happened in a run; a function of configuration and seed, without times.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DqnEvent {
    /// An episode ended.
    Episode {
        /// Environment steps so far.
        environment_steps: u64,
        /// Number of the environment.
        environment: usize,
        /// Sum of the rewards, without discount, exploration included.
        episode_return: f64,
        /// Steps of the episode.
        length: u64,
        /// Ended by its own rules; otherwise it was cut off.
        terminated: bool,
    },
    /// A round of updates is done.
    Updates {
        /// Environment steps so far.
        environment_steps: u64,
        /// Updates so far.
        updates: u64,
        /// Probability of a random action now.
        epsilon: f64,
        /// Mean loss of the round's updates.
        loss: f64,
        /// Mean q-value of the actions learned from.
        mean_q: f64,
        /// Mean target.
        mean_target: f64,
        /// Largest absolute temporal-difference error of the round.
        max_error: f64,
        /// Mean norm of the gradient before clipping.
        gradient_norm: f64,
        /// Transitions that can be drawn.
        transitions: usize,
    },
}

/// Watches a run, and may stop it.
pub trait DqnObserver {
    /// Takes note of an event; `Break` stops the run after it.
    fn observe(&mut self, event: &DqnEvent) -> ControlFlow<()>;
}

impl<F: FnMut(&DqnEvent) -> ControlFlow<()>> DqnObserver for F {
    fn observe(&mut self, event: &DqnEvent) -> ControlFlow<()> {
        self(event)
    }
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DqnReport {
    /// Environment steps.
    pub environment_steps: u64,
    /// Updates.
    pub updates: u64,
    /// Episodes that ended.
    pub episodes: u64,
    /// Whether all steps were taken; otherwise the observer stopped the run.
    pub finished: bool,
}

/// Why a run does not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DqnError {
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The network cannot be made.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The learner refuses, or its update diverged.
    #[error(transparent)]
    Learner(#[from] LearnerError),
    /// The replay buffer refuses.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// An environment does not keep its contract, or does not fit the others.
    #[error("environment {environment}: {reason}")]
    Environment {
        /// Number of the environment.
        environment: usize,
        /// What is wrong.
        reason: String,
    },
    /// A checkpoint cannot be read.
    #[error("the checkpoint cannot be used: {0}")]
    Checkpoint(String),
    /// A checkpoint cannot be written or read.
    #[error("the checkpoint cannot be written or read")]
    Io(#[from] std::io::Error),
}
