//! One network that learns from recordings: draws states, derives their answers, takes gradient steps.

use bellwether_env_adapter::ACTION_COUNT;
use bellwether_env_adapter::spec;
use bellwether_env_adapter::window::LEVELS;
use bellwether_replay::{DrawnStates, EpisodeSampler, SampledRows};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::answers::{AnswerModel, Place};
use super::{OVERLAY, TrainingError, overlay};
use crate::config::TrainConfig;
use crate::learner::fused::{Forward, Isa};
use crate::learner::{Answer, Batch, Learner, LearnerState, Loss, Noise, TargetSync, UpdateReport, UpdateSpec};
use crate::learner::{draw_keep, keep, require_bounded};
use crate::streams::stream;

/// The target networks that judge successors: one per fold, each blind to the episodes of its fold.
pub struct Judges<'a> {
    /// Parameters by fold, in canonical layout.
    pub parameters: &'a [Vec<f32>],
    /// Fold by episode number.
    pub folds: &'a [u32],
}

/// One network and everything it carries from one update to the next.
pub struct Member {
    /// `fold-1`, ..., `released`.
    pub name: String,
    learner: Box<dyn Learner>,
    sampler: EpisodeSampler,
    sampling: ChaCha8Rng,
    dropout: ChaCha8Rng,
    forward: Forward,
    scratch: Scratch,
}

/// How far one update goes.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Step size of the optimiser.
    pub learning: f32,
    /// Share of the way to the online parameters that the target network goes.
    pub target: f32,
}

/// What a member is between two updates.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberState {
    /// The learner.
    pub learner: LearnerState,
    /// Position of the stream that draws states and costs, in words.
    pub sampling: u128,
    /// Position of the stream of drop-out, in words.
    pub dropout: u128,
}

/// Buffers that are reused from one update to the next.
#[derive(Default)]
struct Scratch {
    drawn: DrawnStates,
    overlay: Vec<f32>,
    answers: Vec<Answer>,
    successors: Vec<Successor>,
    rows: Vec<u32>,
    next_overlay: Vec<f32>,
    q: Vec<f32>,
    keep: Vec<Vec<u8>>,
    errors: Vec<f32>,
    /// Largest absolute reward of the batch.
    largest_reward: f32,
}

/// A state that an answer leads to, judged by the network of its fold.
#[derive(Clone, Copy)]
struct Successor {
    fold: u32,
    answer: u32,
    place: Place,
    z: f32,
}

impl Member {
    /// A fresh member; its streams are derived from the seed and its name.
    ///
    /// # Errors
    /// If the processor lacks the instruction set.
    pub fn new(
        name: String,
        seed: u64,
        learner: Box<dyn Learner>,
        sampler: EpisodeSampler,
        isa: Isa,
    ) -> Result<Member, TrainingError> {
        Ok(Member {
            forward: Forward::new(learner.shape().clone(), isa)?,
            sampling: stream(seed, &format!("sampling {name}")),
            dropout: stream(seed, &format!("dropout {name}")),
            scratch: Scratch::default(),
            name,
            learner,
            sampler,
        })
    }

    /// Parameters of the target network, in canonical layout: the running average of the online ones.
    pub fn target(&self) -> &[f32] {
        self.learner.target()
    }

    /// The state for a checkpoint.
    pub fn state(&self) -> MemberState {
        MemberState {
            learner: self.learner.state(),
            sampling: self.sampling.get_word_pos(),
            dropout: self.dropout.get_word_pos(),
        }
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// If it belongs to another network.
    pub fn restore(&mut self, state: &MemberState) -> Result<(), TrainingError> {
        self.learner.restore(&state.learner)?;
        self.sampling.set_word_pos(state.sampling);
        self.dropout.set_word_pos(state.dropout);
        Ok(())
    }

    /// One gradient step, after which the target network follows.
    ///
    /// # Errors
    /// On divergence; [`TrainingError::States`] where a state cannot be read.
    pub fn update(
        &mut self,
        model: &AnswerModel<'_>,
        judges: &Judges<'_>,
        config: &TrainConfig,
        rates: Rates,
    ) -> Result<UpdateReport, TrainingError> {
        let updated = self.step(model, judges, config, rates);
        // A state that cannot be read is not-a-number, which the learner refuses: the cause is what is to be told.
        match model.recordings().store().states().failure() {
            Some(failure) => Err(TrainingError::States(failure.to_string())),
            None => updated,
        }
    }

    fn step(
        &mut self,
        model: &AnswerModel<'_>,
        judges: &Judges<'_>,
        config: &TrainConfig,
        rates: Rates,
    ) -> Result<UpdateReport, TrainingError> {
        self.draw(model, judges, config);
        self.judge(model, judges, config.trainer.gamma)?;
        let Scratch { drawn, overlay, answers, keep: kept, errors, largest_reward, .. } = &mut self.scratch;
        let trainer = &config.trainer;
        let update = UpdateSpec {
            double: false,
            loss: if trainer.huber > 0.0 { Loss::Huber(trainer.huber) } else { Loss::Mse },
            learning_rate: rates.learning,
            weight_decay: trainer.weight_decay,
            l2: trainer.l2,
            max_gradient_norm: trainer.max_gradient_norm,
            dropout: trainer.dropout_rates(config.network.hidden.len() + 1),
            normaliser: answers.len() as f32,
            target_sync: TargetSync::Soft(rates.target),
            ..UpdateSpec::default()
        };
        draw_keep(&mut self.dropout, &update, self.learner.shape(), drawn.len(), kept);
        let width = self.learner.shape().inputs();
        let located = drawn.episodes.iter().map(|episode| model.recordings().facts(*episode).located);
        drop_calls(&mut self.dropout, trainer.call_dropout, located, width, &mut kept[0]);
        exempt(&mut kept[0], width);
        let store = model.recordings().store();
        let states = SampledRows::new(store.states(), &drawn.rows).with_overlay(&OVERLAY, overlay);
        let none = SampledRows::new(store.states(), &[]);
        let batch = Batch { states: &states, masks: &[], answers, next_states: &none, next_masks: &[] };
        let largest_reward = *largest_reward;
        let report = self.learner.update(&update, batch, Noise { keep: kept, ..Noise::default() }, errors)?;
        require_bounded(&report, largest_reward, f64::from(trainer.gamma))?;
        Ok(report)
    }

    /// Draws states, costs and levels, and what the recordings answer about them.
    fn draw(&mut self, model: &AnswerModel<'_>, judges: &Judges<'_>, config: &TrainConfig) {
        let Scratch { drawn, overlay: overlays, answers, successors, largest_reward, .. } = &mut self.scratch;
        self.sampler.sample(&mut self.sampling, config.trainer.batch_size, drawn);
        overlays.clear();
        answers.clear();
        successors.clear();
        *largest_reward = 0.0;
        for (i, (&row, &episode)) in drawn.rows.iter().zip(&drawn.episodes).enumerate() {
            let z = config.cost.z_at(unit(&mut self.sampling));
            let level = if model.isolation() { (self.sampling.next_u32() % LEVELS as u32) as u8 } else { 0 };
            let place = Place { episode, row, level };
            overlays.extend(overlay(z, level));
            let mask = model.mask(place);
            for action in (0..ACTION_COUNT).filter(|action| mask[*action]) {
                let outcome = model.outcome(place, action, z);
                if let Some(next) = outcome.next {
                    let fold = judges.folds[episode as usize];
                    successors.push(Successor { fold, answer: answers.len() as u32, place: next, z });
                }
                *largest_reward = largest_reward.max(outcome.reward.abs());
                answers.push(Answer {
                    row: i as u32,
                    action: action as u32,
                    reward: outcome.reward,
                    discount: 0.0,
                    next: 0,
                    weight: drawn.weights[i],
                });
            }
        }
    }

    /// Adds the values of the successors to the answers that lead to them.
    ///
    /// The judge of an episode's fold chooses the action without the label. A verdict is worth what the recording says
    /// it earns; what goes on is worth what the judge expects.
    fn judge(&mut self, model: &AnswerModel<'_>, judges: &Judges<'_>, gamma: f32) -> Result<(), TrainingError> {
        let Scratch { answers, successors, rows, next_overlay, q, .. } = &mut self.scratch;
        successors.sort_by_key(|successor| successor.fold);
        for group in successors.chunk_by(|a, b| a.fold == b.fold) {
            rows.clear();
            next_overlay.clear();
            for successor in group {
                rows.push(successor.place.row);
                next_overlay.extend(overlay(successor.z, successor.place.level));
            }
            let store = model.recordings().store();
            let states = SampledRows::new(store.states(), rows).with_overlay(&OVERLAY, next_overlay);
            self.forward.q_values(&judges.parameters[group[0].fold as usize], &states, q)?;
            for (successor, q) in group.iter().zip(q.chunks_exact(ACTION_COUNT)) {
                let value = model.value(successor.place, q, successor.z);
                answers[successor.answer as usize].reward += gamma * value;
            }
        }
        Ok(())
    }
}

/// Drops all hashed calls of some states at once. They know a family by its habits, and a family that was never seen has
/// others: what is learnt without them carries over. A recording of bare calls keeps them, it has nothing else.
fn drop_calls(rng: &mut impl Rng, rate: f32, located: impl Iterator<Item = bool>, width: usize, bytes: &mut [u8]) {
    if rate <= 0.0 {
        return;
    }
    for (row, located) in bytes.chunks_exact_mut(width).zip(located) {
        if unit(rng) < rate && located {
            row[spec::group::CALLS..].fill(keep::DROPPED);
        }
    }
}

/// Takes the elements that an overlay writes out of drop-out: a cost that is dropped half the time is soon ignored, and
/// then every cost gives the same policy.
fn exempt(bytes: &mut [u8], width: usize) {
    for row in bytes.chunks_exact_mut(width) {
        for element in OVERLAY {
            row[usize::from(element)] = keep::EXEMPT;
        }
    }
}

/// A number in [0, 1).
fn unit(rng: &mut impl Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn calls_are_dropped_all_at_once_and_only_where_there_is_more(
            located in prop::collection::vec(any::<bool>(), 1..40), rate in 0.0_f32..=1.0, seed: u64,
        ) {
            let width = spec::group::CALLS + 5;
            let mut bytes = vec![keep::KEPT; located.len() * width];
            let mut rng = stream(seed, "dropout");
            drop_calls(&mut rng, rate, located.iter().copied(), width, &mut bytes);
            for (row, located) in bytes.chunks_exact(width).zip(&located) {
                let (rest, calls) = row.split_at(spec::group::CALLS);
                prop_assert!(rest.iter().all(|byte| *byte == keep::KEPT));
                let dropped = calls[0] == keep::DROPPED;
                prop_assert!(calls.iter().all(|byte| (*byte == keep::DROPPED) == dropped));
                prop_assert!(!dropped || (*located && rate > 0.0));
                prop_assert!(dropped || !*located || rate < 1.0);
            }
        }
    }

    #[test]
    fn the_share_of_states_without_calls_is_the_rate() {
        let (width, rows) = (spec::group::CALLS + 1, 4000);
        let mut bytes = vec![keep::KEPT; rows * width];
        drop_calls(&mut stream(1, "dropout"), 0.3, std::iter::repeat_n(true, rows), width, &mut bytes);
        let dropped = bytes.iter().filter(|byte| **byte == keep::DROPPED).count() as f64 / rows as f64;
        assert!((dropped - 0.3).abs() < 0.03, "{dropped}");
    }
}
