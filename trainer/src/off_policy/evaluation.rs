//! A policy beside the steps that another one played: its probabilities, a model of what it earns, and the estimates.

use super::estimators::{Estimates, Trajectories, TrajectoryStep, Trust};
use crate::dqn::{DqnError, LossConfig, POSITIVE, UpdateConfig, Updater, require};
use crate::evaluate::{Bootstrap, EvaluationError};
use crate::greedy::greedy;
use crate::learner::fused::{FusedLearner, FusedOptions, Isa};
use crate::learner::{Learner, TargetSync};
use crate::logged::Logged;
use crate::network::NetworkConfig;
use crate::recorded::TrainingError;
use crate::recorded::playback::{Judge, Policy};
use crate::schedule::TargetSchedule;
use crate::streams::stream;
use bellwether_replay::{SampledRows, StateRows};
use rand::{Rng, RngExt};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The policy that is judged.
#[derive(Clone, Copy)]
pub struct TargetPolicy<'a> {
    /// What gives q-values.
    pub policy: Policy<'a>,
    /// Probability of a random allowed action; otherwise the best is taken. 0 to 1.
    pub epsilon: f32,
}

/// Fitted Q evaluation (Le et al. 2019, algorithm 3): a network that learns what the policy that is judged earns, by the same
/// updates as DQN, with that policy's action in the place of the best one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FittedQ {
    /// Master seed; each purpose derives its own stream from it.
    pub seed: u64,
    /// Gradient steps of each fold.
    pub updates: u64,
    /// Folds of the episodes, at least 2: what is expected in one is learned from the others, for a model that has seen an episode
    /// explains away what doubly robust estimates correct it by. Episodes of one recording lie in one fold.
    pub folds: usize,
    /// The network of the model.
    pub network: NetworkConfig,
    /// The updates; their discount is that of the estimates.
    pub update: UpdateConfig,
    /// Gradient steps between two synchronisations of the target network.
    pub target_update_interval: u64,
    /// How far the target network moves at each synchronisation: 1 copies the online network.
    pub tau: f64,
}

impl Default for FittedQ {
    fn default() -> Self {
        FittedQ {
            seed: 0,
            updates: 4_000,
            folds: 5,
            network: NetworkConfig { hidden: vec![128, 64], ..NetworkConfig::default() },
            update: UpdateConfig {
                batch_size: 128,
                gamma: 1.0,
                learning_rate: 1e-3,
                double: false,
                loss: LossConfig::Mse,
                ..UpdateConfig::default()
            },
            target_update_interval: 1,
            tau: 0.02,
        }
    }
}

impl FittedQ {
    /// Refuses settings that are out of range, with the key, the value and the reason.
    ///
    /// # Errors
    /// [`DqnError::Config`] for the first of them, [`DqnError::Network`] for those of the network.
    pub fn validate(&self) -> Result<(), DqnError> {
        require("updates", self.updates, self.updates > 0, POSITIVE)?;
        require("folds", self.folds, (2..=50).contains(&self.folds), "give 2 to 50 folds")?;
        let update = &self.update;
        update.validate(&self.network.shape(1, 1)?)?;
        let reason = "what was played after the first step is not what the judged policy plays: choose 1";
        require("update.n_step", update.n_step, update.n_step == 1, reason)?;
        let reason = "the target is the judged policy's own: leave it out";
        require("update.munchausen", update.munchausen, update.munchausen.is_none(), reason)?;
        let noisy = self.network.noisy_layers;
        require("network.noisy_layers", noisy, noisy == 0, "played steps leave nothing to explore: choose 0")?;
        let reason = "priorities are not supported here: choose `uniform`";
        require("update.draw", update.draw, update.priorities().is_none(), reason)?;
        let interval = self.target_update_interval;
        require("target_update_interval", interval, interval > 0, "the target must follow: 1 or more")?;
        require("tau", self.tau, self.tau > 0.0 && self.tau <= 1.0, "choose a value above 0, at most 1")?;
        Ok(())
    }
}

/// Estimates what a policy is worth by played steps: mean discounted return of an episode, at the cost that the states were made
/// for.
///
/// # Errors
/// On a bad configuration or policy, and where the model diverges.
pub fn estimate(
    logged: &Logged,
    target: TargetPolicy<'_>,
    fitted: &FittedQ,
    bootstrap: &Bootstrap,
    isa: Isa,
) -> Result<(Estimates, Trust), OffPolicyError> {
    fitted.validate()?;
    require("epsilon", target.epsilon, (0.0..=1.0).contains(&target.epsilon), "choose a value from 0 to 1")
        .map_err(DqnError::from)?;
    let probabilities = probabilities(logged, target)?;
    let clusters = logged.clusters();
    let q_values = fit(logged, &clusters, &probabilities, fitted, isa)?;
    let actions = logged.buffer.config().actions as usize;
    let of = |row: usize| {
        let (q, p) = (&q_values[row * actions..][..actions], &probabilities[row * actions..][..actions]);
        (q, p, q.iter().zip(p).map(|(q, p)| f64::from(*q) * f64::from(*p)).sum::<f64>())
    };
    let mut trajectories = Trajectories::default();
    for (episode, cluster) in logged.episodes.iter().zip(clusters) {
        let mut cut_off = 0.0;
        let mut steps = Vec::with_capacity(episode.rows.len());
        for at in episode.rows.clone() {
            let (row, (q, p, v)) = (&logged.rows[at], of(at));
            match row.action {
                Some(action) => steps.push(TrajectoryStep {
                    ratio: f64::from(p[action as usize]) / f64::from(row.behaviour_probability),
                    // Of one allowed action, the probabilities sum to 1 but for rounding.
                    covered: row.behaviour_probability < 1.0
                        || p[action as usize] >= 1.0
                        || row.mask.bits().is_power_of_two(),
                    reward: f64::from(row.reward),
                    q: f64::from(q[action as usize]),
                    v,
                }),
                None => cut_off = v,
            }
        }
        trajectories.push(cluster, steps, cut_off);
    }
    Ok((trajectories.estimates(fitted.update.gamma, bootstrap)?, trajectories.trust()))
}

/// Why no estimate is made.
#[derive(Debug, thiserror::Error)]
pub enum OffPolicyError {
    /// The model cannot be made or fitted.
    #[error(transparent)]
    Model(#[from] DqnError),
    /// The policy does not fit the states.
    #[error("the policy cannot judge these states")]
    Policy(#[from] TrainingError),
    /// The bootstrap cannot be made.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
}

/// States that are valued together.
const TOGETHER: usize = 1024;

/// The probability of each action in each state, row-major.
fn probabilities(logged: &Logged, target: TargetPolicy<'_>) -> Result<Vec<f32>, OffPolicyError> {
    let actions = logged.buffer.config().actions as usize;
    let mut judge = Judge::new(target.policy)?;
    let (mut out, mut q, mut mask) = (vec![0.0; logged.rows.len() * actions], Vec::new(), vec![false; actions]);
    let rows: Vec<u32> = (0..logged.rows.len() as u32).collect();
    for rows in rows.chunks(TOGETHER) {
        judge.q_values(&SampledRows::new(&logged.buffer, rows), &mut q)?;
        for (row, q) in rows.iter().zip(q.chunks_exact(actions)) {
            let row = *row as usize;
            logged.rows[row].mask.write(&mut mask);
            let allowed = mask.iter().filter(|allowed| **allowed).count();
            let out = &mut out[row * actions..][..actions];
            for (probability, _) in out.iter_mut().zip(&mask).filter(|(_, allowed)| **allowed) {
                *probability = target.epsilon / allowed as f32;
            }
            if let Some(best) = greedy(q, &mask) {
                out[best] += 1.0 - target.epsilon;
            }
        }
    }
    Ok(out)
}

/// The q-values of the policy with these probabilities in each state, row-major, each by the network that has not seen its
/// recording.
fn fit(
    logged: &Logged,
    clusters: &[usize],
    probabilities: &[f32],
    fitted: &FittedQ,
    isa: Isa,
) -> Result<Vec<f32>, DqnError> {
    let actions = logged.buffer.config().actions as usize;
    let folds = folds(clusters, fitted)?;
    let models: Vec<FusedLearner> = (0..fitted.folds)
        .into_par_iter()
        .map(|fold| fit_fold(logged, probabilities, fitted, (fold, &folds), isa))
        .collect::<Result<_, _>>()?;
    let (mut out, mut q) = (vec![0.0; logged.rows.len() * actions], Vec::new());
    for (fold, mut model) in models.into_iter().enumerate() {
        let numbered = logged.episodes.iter().zip(&folds).filter(|(_, of)| **of == fold);
        let rows: Vec<u32> = numbered.flat_map(|(episode, _)| episode.rows.clone()).map(|row| row as u32).collect();
        for rows in rows.chunks(TOGETHER) {
            model.q_values(&SampledRows::new(&logged.buffer, rows), &[], &mut q)?;
            for (row, q) in rows.iter().zip(q.chunks_exact(actions)) {
                out[*row as usize * actions..][..actions].copy_from_slice(q);
            }
        }
    }
    Ok(out)
}

/// The fold of each episode, by its cluster.
fn folds(clusters: &[usize], fitted: &FittedQ) -> Result<Vec<usize>, DqnError> {
    let count = clusters.iter().max().map_or(0, |last| last + 1);
    if count < fitted.folds {
        let reason = "the episodes are of fewer recordings: give more of them, or fewer folds";
        return Err(crate::config::ConfigError::new("folds", fitted.folds, reason).into());
    }
    let mut folds: Vec<usize> = (0..count).map(|number| number % fitted.folds).collect();
    let mut rng = stream(fitted.seed, "folds");
    for place in (1..count).rev() {
        folds.swap(place, rng.random_range(0..=place));
    }
    Ok(clusters.iter().map(|cluster| folds[*cluster]).collect())
}

/// What the episodes outside of a fold tell.
fn fit_fold(
    logged: &Logged,
    probabilities: &[f32],
    fitted: &FittedQ,
    (fold, folds): (usize, &[usize]),
    isa: Isa,
) -> Result<FusedLearner, DqnError> {
    let (mut buffer, places) = logged.part(|episode| folds[episode] != fold)?;
    let actions = buffer.config().actions as usize;
    let shape = fitted.network.shape(buffer.width(), actions)?;
    let parameters = shape.initial_parameters(&mut stream(fitted.seed, &format!("init {fold}")));
    let spec = fitted.update.spec(&shape);
    let mut learner = FusedLearner::new(shape, &parameters, FusedOptions { isa, threads: 1 })?;
    learner.supports(&spec)?;
    let mut updater = Updater::new(fitted.update.clone(), spec, fitted.seed);
    let schedule = TargetSchedule { interval: fitted.target_update_interval, tau: fitted.tau as f32 };
    let mut choice = stream(fitted.seed, &format!("judged {fold}"));
    for update in 1..=fitted.updates {
        let drawn = updater.draw(&buffer, actions)?;
        for place in 0..drawn.next_rows().len() {
            let row = places[drawn.next_rows()[place] as usize];
            let chosen = choose(&probabilities[row * actions..][..actions], &mut choice);
            for (action, allowed) in drawn.next_masks[place * actions..][..actions].iter_mut().enumerate() {
                *allowed &= action == chosen;
            }
        }
        updater.update(&mut learner, &mut buffer)?;
        let sync = schedule.after(update);
        if sync != TargetSync::Keep {
            learner.sync_target(sync)?;
        }
    }
    Ok(learner)
}

/// An action, as often as its probability says.
fn choose(probabilities: &[f32], rng: &mut impl Rng) -> usize {
    let point = f64::from(rng.next_u32()) / f64::from(u32::MAX);
    let mut sum = 0.0;
    let likely = probabilities.iter().position(|probability| {
        sum += f64::from(*probability);
        *probability > 0.0 && sum >= point
    });
    // Rounding may leave the sum just below 1.
    likely.or_else(|| probabilities.iter().rposition(|probability| *probability > 0.0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn episodes_of_one_recording_lie_in_one_fold() {
        let clusters: Vec<usize> = (0..60).map(|episode| episode % 20).collect();
        let fitted = FittedQ::default();
        let folds = folds(&clusters, &fitted).unwrap();
        for (episode, fold) in folds.iter().enumerate() {
            assert_eq!(*fold, folds[episode % 20]);
        }
        for fold in 0..fitted.folds {
            assert_eq!(folds.iter().filter(|of| **of == fold).count(), 12);
        }
        assert!(super::folds(&[0, 1, 2, 3, 0, 1, 2, 3], &fitted).is_err(), "eight episodes of four recordings");
    }
}
