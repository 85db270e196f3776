//! How good the greedy policy is.

use super::DqnError;
use crate::greedy::greedy;
use crate::learner::Learner;
use crate::streams::stream;
use bellwether_env_adapter::Environment;
use bellwether_replay::DenseRows;
use rand::Rng;
use serde::Serialize;

/// Returns of the greedy policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GreedyEvaluation {
    /// Sum of the rewards of each episode, without discount.
    pub returns: Vec<f64>,
    /// Steps of each episode.
    pub lengths: Vec<u64>,
    /// Episodes that had not ended after the allowed number of steps, counted in the above as far as they went.
    pub unfinished: usize,
}

impl GreedyEvaluation {
    /// Mean return; 0 without an episode.
    pub fn mean_return(&self) -> f64 {
        self.returns.iter().sum::<f64>() / self.returns.len().max(1) as f64
    }

    /// Smallest return; infinite without an episode.
    pub fn min_return(&self) -> f64 {
        self.returns.iter().fold(f64::INFINITY, |least, value| least.min(*value))
    }
}

/// Plays `episodes` episodes of at most `max_steps` steps with the greedy policy. The episodes are drawn from the stream
/// `evaluation` of `seed`, apart from those that a run of the same seed trains on.
///
/// # Errors
/// If the learner refuses the observations, or the environment does not keep its contract.
pub fn evaluate_greedy(
    learner: &mut dyn Learner,
    env: &mut dyn Environment,
    episodes: usize,
    max_steps: u64,
    seed: u64,
) -> Result<GreedyEvaluation, DqnError> {
    let broken = |reason: &str| DqnError::Environment { environment: 0, reason: reason.to_owned() };
    if env.width() != learner.shape().inputs() || env.actions() != learner.shape().actions() {
        return Err(broken("its observations or actions are not those that the network was made for"));
    }
    let mut seeds = stream(seed, "evaluation");
    let mut observation = vec![0.0; env.width()];
    let mut mask = vec![false; env.actions()];
    let mut q = Vec::new();
    let mut evaluation = GreedyEvaluation { returns: Vec::new(), lengths: Vec::new(), unfinished: 0 };
    for _ in 0..episodes {
        env.reset(seeds.next_u64());
        let (mut total, mut length, mut over) = (0.0, 0, false);
        while !over && length < max_steps {
            env.observe(&mut observation);
            env.mask(&mut mask);
            learner.q_values(&DenseRows::new(env.width(), &observation), &[], &mut q)?;
            let action = greedy(&q, &mask).ok_or_else(|| broken("no action is allowed"))?;
            let step = env.step(action);
            total += f64::from(step.reward);
            length += 1;
            over = step.terminated || step.truncated;
        }
        evaluation.returns.push(total);
        evaluation.lengths.push(length);
        evaluation.unfinished += usize::from(!over);
    }
    Ok(evaluation)
}
