//! Q-learning from recordings: full-information replay, values of waiting that are judged by networks that have not seen
//! the episode, and operating points calibrated on the same networks. The algorithm's page is `docs/algorithms/recorded.md`.

pub mod answers;
pub mod calibration;
pub mod checkpoint;
pub mod evaluation;
pub mod member;
pub mod playback;
pub mod played;
pub mod predictions;
pub mod recordings;
pub mod training;
pub mod validation;

use bellwether_artifact::CanonicalError;
use bellwether_env_adapter::spec;
use bellwether_inference::DecideError;
use bellwether_replay::ReplayError;

use crate::baselines::BaselineError;
use crate::evaluate::{EvaluationError, FoldItem, grouped_folds};
use crate::learner::LearnerError;
use crate::network::NetworkError;
use recordings::Recordings;

/// Why training or playing on recordings failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The learner refused or diverged.
    #[error(transparent)]
    Learner(#[from] LearnerError),
    /// The network cannot be built.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The store of states refused.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The episodes cannot be split or summarised.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// A baseline cannot be fitted or tuned.
    #[error(transparent)]
    Baseline(#[from] BaselineError),
    /// A released model refused a state.
    #[error("the released model does not decide a recorded state")]
    Released(#[from] DecideError),
    /// States that were spilled to disk cannot be read back.
    #[error("the states cannot be read back from the spill file: {0}")]
    States(String),
    /// The threads cannot be started.
    #[error("the threads of the run cannot be started: {0}")]
    Threads(String),
    /// An update failed.
    #[error("the network `{network}` failed at update {update}")]
    Update {
        /// Name of the network.
        network: String,
        /// Update, from 1.
        update: u64,
        /// Why.
        source: Box<TrainingError>,
    },
    /// What an episode file says of itself cannot be written as JSON.
    #[error("the configuration cannot be written into an episode file")]
    Canonical(#[from] CanonicalError),
    /// A checkpoint does not belong to this run, or is damaged.
    #[error("the checkpoint cannot be used: {0}")]
    Checkpoint(String),
}

impl TrainingError {
    /// Whether the settings made the values run away.
    pub fn is_divergence(&self) -> bool {
        match self {
            TrainingError::Learner(error) => error.is_divergence(),
            TrainingError::Update { source, .. } => source.is_divergence(),
            _ => false,
        }
    }
}

/// Elements of a state that depend on play and are written when it is used: the cost and the isolation level.
pub(crate) const OVERLAY: [u16; 2] = [spec::element::COST as u16, spec::element::LEVEL as u16];

/// The values of [`OVERLAY`].
pub(crate) fn overlay(z: f32, level: u8) -> [f32; 2] {
    [spec::encode_cost(z), spec::encode_level(level)]
}

/// The fold of every episode by its number; families and exact duplicates stay together. Episodes that are not in the list
/// get a number past the folds.
pub(crate) fn folds_of(
    recordings: &Recordings,
    episodes: &[u32],
    folds: usize,
    seed: u64,
) -> Result<Vec<u32>, TrainingError> {
    let items: Vec<FoldItem> = episodes
        .iter()
        .map(|&episode| {
            let facts = recordings.facts(episode);
            let group = recordings.store().episode(episode).group;
            FoldItem { group, label: facts.label, content: Some(facts.content.0) }
        })
        .collect();
    let mut by_number = vec![u32::MAX; recordings.store().len()];
    for (&episode, fold) in episodes.iter().zip(grouped_folds(&items, folds as u32, seed)?) {
        by_number[episode as usize] = fold;
    }
    Ok(by_number)
}
