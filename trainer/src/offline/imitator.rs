//! The cloned policy of BCQ, which says what whoever played might have done.

use super::config::{OfflineConfig, cloning};
use crate::dqn::{DqnError, Drawn};
use crate::learner::{Learner, LearnerChoice, Noise, UpdateReport, UpdateSpec, draw_keep};
use crate::network::{NetworkConfig, Returns};
use crate::streams::stream;
use bellwether_replay::{ReplayBuffer, StateRows};
use rand_chacha::ChaCha8Rng;

/// A network of logits that learns from the same transitions as the one of q-values, and rules out what is unlikely.
pub(super) struct Imitator {
    pub(super) learner: Box<dyn Learner>,
    pub(super) dropout: ChaCha8Rng,
    choice: LearnerChoice,
    spec: UpdateSpec,
    /// Logarithm of the smallest share of the most probable action's probability.
    least: f32,
    keep: Vec<Vec<u8>>,
    errors: Vec<f32>,
    logits: Vec<f32>,
}

impl Imitator {
    /// A fresh one, for states of this width and so many actions.
    pub(super) fn new(
        config: &OfflineConfig,
        (width, actions): (usize, usize),
        choice: LearnerChoice,
    ) -> Result<Imitator, DqnError> {
        let network = NetworkConfig { returns: Returns::Mean, ..config.network.clone() };
        let shape = network.shape(width, actions)?;
        let parameters = shape.initial_parameters(&mut stream(config.seed, "init imitator"));
        let spec = cloning(config.update.spec(&shape));
        let learner = choice.make(shape, &parameters)?;
        learner.supports(&spec)?;
        Ok(Imitator {
            learner,
            dropout: stream(config.seed, "dropout imitator"),
            choice,
            spec,
            least: libm::log(config.bcq_share) as f32,
            keep: Vec::new(),
            errors: Vec::new(),
            logits: Vec::new(),
        })
    }

    /// A learner that begins where this one stands, and what its updates do.
    pub(super) fn copy(&self) -> Result<(Box<dyn Learner>, UpdateSpec), DqnError> {
        let learner = self.choice.make(self.learner.shape().clone(), self.learner.parameters())?;
        Ok((learner, self.spec.clone()))
    }

    /// Learns from what was drawn, and then rules out successors' actions in it.
    pub(super) fn update(
        &mut self,
        buffer: &ReplayBuffer,
        drawn: &mut Drawn,
        learning_rate: f32,
    ) -> Result<UpdateReport, DqnError> {
        self.spec.learning_rate = learning_rate;
        let (states, next_states) = (drawn.states(buffer), drawn.next_states(buffer));
        draw_keep(&mut self.dropout, &self.spec, self.learner.shape(), states.len(), &mut self.keep);
        let noise = Noise { keep: &self.keep, ..Noise::default() };
        let report = self.learner.update(&self.spec, drawn.batch(&states, &next_states), noise, &mut self.errors)?;
        let next_states = drawn.next_states(buffer);
        self.learner.q_values(&next_states, &[], &mut self.logits)?;
        rule_out(&self.logits, &mut drawn.next_masks, self.learner.shape().actions(), self.least);
        Ok(report)
    }

    /// Rules out actions of these states.
    pub(super) fn rule_out(&mut self, states: &dyn StateRows, masks: &mut [bool]) -> Result<(), DqnError> {
        self.learner.q_values(states, &[], &mut self.logits)?;
        rule_out(&self.logits, masks, self.learner.shape().actions(), self.least);
        Ok(())
    }
}

/// Leaves of the allowed actions those whose logit is at most `-least` below the largest; the largest stays.
fn rule_out(logits: &[f32], masks: &mut [bool], actions: usize, least: f32) {
    for (logits, mask) in logits.chunks_exact(actions).zip(masks.chunks_exact_mut(actions)) {
        let allowed = logits.iter().zip(mask.iter()).filter(|(_, allowed)| **allowed);
        let largest = allowed.map(|(logit, _)| *logit).fold(f32::NEG_INFINITY, f32::max);
        for (allowed, logit) in mask.iter_mut().zip(logits) {
            *allowed &= *logit >= largest + least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn what_is_left_is_allowed_likely_and_never_nothing(
            rows in prop::collection::vec((prop::array::uniform4(-5.0_f32..5.0), prop::array::uniform4(any::<bool>())), 1..20),
            share in 0.01_f64..=1.0,
        ) {
            let logits: Vec<f32> = rows.iter().flat_map(|(logits, _)| *logits).collect();
            let before: Vec<bool> = rows.iter().flat_map(|(_, mask)| *mask).collect();
            let mut after = before.clone();
            rule_out(&logits, &mut after, 4, libm::log(share) as f32);
            for ((logits, before), after) in logits.chunks(4).zip(before.chunks(4)).zip(after.chunks(4)) {
                prop_assert_eq!(before.contains(&true), after.contains(&true));
                let odds = |action: usize| f64::from(logits[action]).exp();
                let best = (0..4).filter(|action| before[*action]).map(odds).fold(0.0, f64::max);
                for action in 0..4 {
                    let near = (odds(action) / best - share).abs() < 1e-4;
                    prop_assert!(near || after[action] == (before[action] && odds(action) >= share * best));
                }
            }
        }
    }
}
