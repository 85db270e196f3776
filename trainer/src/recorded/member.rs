//! One network that learns from recordings: draws states, derives their answers, takes gradient steps.

use bellwether_env_adapter::ACTION_COUNT;
use bellwether_env_adapter::spec;
use bellwether_env_adapter::window::LEVELS;
use bellwether_replay::{DrawnStates, EpisodeSampler, SampledRows, StateRows};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::answers::{AnswerModel, Place};
use super::{OVERLAY, TrainingError, overlay};
use crate::config::{TrainConfig, TrainerConfig};
use crate::learner::fused::{Forward, Isa};
use crate::learner::{Answer, Batch, Learner, LearnerState, Loss, Noise, TargetSync, UpdateReport, UpdateSpec};
use crate::learner::{draw_keep, require_bounded};
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
    atoms: Vec<f32>,
    keep: Vec<Vec<u8>>,
    /// Scales of the elements of the drawn states, row-major.
    scales: Vec<f32>,
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
        let Scratch { drawn, overlay, answers, keep: kept, scales, errors, largest_reward, .. } = &mut self.scratch;
        let trainer = &config.trainer;
        // The input is dropped where it is gathered, by what each recording tells.
        let mut dropout = trainer.dropout_rates(config.network.hidden.len() + 1);
        dropout[0] = 0.0;
        let update = UpdateSpec {
            double: false,
            loss: if trainer.huber > 0.0 { Loss::Huber(trainer.huber) } else { Loss::Mse },
            learning_rate: rates.learning,
            weight_decay: trainer.weight_decay,
            l2: trainer.l2,
            max_gradient_norm: trainer.max_gradient_norm,
            dropout,
            normaliser: answers.len() as f32,
            target_sync: TargetSync::Soft(rates.target),
            ..UpdateSpec::default()
        };
        draw_keep(&mut self.dropout, &update, self.learner.shape(), drawn.len(), kept);
        let located = drawn.episodes.iter().map(|episode| model.recordings().facts(*episode).located);
        draw_scales(&mut self.dropout, trainer, located, self.learner.shape().inputs(), scales);
        let store = model.recordings().store();
        let states = SampledRows::new(store.states(), &drawn.rows).with_overlay(&OVERLAY, overlay);
        let states = Dropped { rows: states, scales };
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
    /// it earns; what goes on is worth what the judge expects, or, where judges tell quantiles, one of these by chance: quantile
    /// regression on single draws of the target fits the same quantiles.
    fn judge(&mut self, model: &AnswerModel<'_>, judges: &Judges<'_>, gamma: f32) -> Result<(), TrainingError> {
        let Scratch { answers, successors, rows, next_overlay, q, atoms, .. } = &mut self.scratch;
        let each = self.learner.shape().returns().atoms();
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
            self.forward.q_values_and_atoms(&judges.parameters[group[0].fold as usize], &states, q, atoms)?;
            let told = q.chunks_exact(ACTION_COUNT).zip(atoms.chunks_exact(ACTION_COUNT * each));
            for (successor, (q, atoms)) in group.iter().zip(told) {
                let drawn = if each > 1 { self.sampling.next_u32() as usize % each } else { 0 };
                let value = model.value(successor.place, q, successor.z, |action| atoms[action * each + drawn]);
                answers[successor.answer as usize].reward += gamma * value;
            }
        }
        Ok(())
    }
}

/// Rows of which each element is multiplied by its scale; scales are row-major.
struct Dropped<'a> {
    rows: SampledRows<'a>,
    scales: &'a [f32],
}

impl StateRows for Dropped<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn width(&self) -> usize {
        self.rows.width()
    }

    fn gather(&self, row: usize, out: &mut [f32]) {
        self.rows.gather(row, out);
        let width = out.len();
        for (value, scale) in out.iter_mut().zip(&self.scales[row * width..]) {
            *value *= scale;
        }
    }
}

/// Draws the scales of drop-out on the input, row by row: 0, or `1 / (1 - rate)`, which keeps the mean.
///
/// Hashed calls fall all at once in some states: they know a family by its habits, and a family that was never seen has others. A
/// recording of bare calls keeps most of them, it has nothing else. The elements that an overlay writes take no part: a cost that is
/// dropped half the time is soon ignored, and then every cost gives the same policy.
fn draw_scales(
    rng: &mut impl Rng,
    trainer: &TrainerConfig,
    located: impl Iterator<Item = bool>,
    width: usize,
    scales: &mut Vec<f32>,
) {
    scales.clear();
    let full = trainer.dropout_rates(1)[0];
    for located in located {
        let rate = if located { full } else { trainer.bare_dropout };
        let (start, scale) = (scales.len(), 1.0 / (1.0 - rate));
        scales.extend((0..width).map(|_| if unit(rng) < rate { 0.0 } else { scale }));
        let row = &mut scales[start..];
        if located && unit(rng) < trainer.call_dropout {
            row[spec::group::CALLS..].fill(0.0);
        }
        for element in OVERLAY {
            row[usize::from(element)] = 1.0;
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

    #[test]
    fn what_is_dropped_goes_by_what_a_recording_tells() {
        let (width, rows) = (spec::group::CALLS + 40, 4000);
        let trainer = TrainerConfig {
            dropout: vec![0.5, 0.0],
            call_dropout: 0.3,
            bare_dropout: 0.05,
            ..TrainerConfig::default()
        };
        let located = |row: usize| row.is_multiple_of(2);
        let mut scales = Vec::new();
        draw_scales(&mut stream(1, "dropout"), &trainer, (0..rows).map(located), width, &mut scales);
        assert_eq!(scales.len(), rows * width);
        let share = |of: &dyn Fn(&[f32]) -> (usize, usize), kind: bool| {
            let rows = scales.chunks_exact(width).enumerate().filter(|(row, _)| located(*row) == kind);
            let (dropped, all) = rows.map(|(_, row)| of(row)).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            dropped as f64 / all as f64
        };
        let zeros = |row: &[f32]| (row.iter().filter(|scale| **scale == 0.0).count(), row.len());
        let after_overlay = usize::from(OVERLAY[OVERLAY.len() - 1]) + 1;
        let facts = |row: &[f32]| zeros(&row[after_overlay..spec::group::CALLS]);
        let calls = |row: &[f32]| zeros(&row[spec::group::CALLS..]);
        for (found, expected) in [
            (share(&facts, true), 0.5),
            (share(&calls, true), 0.3 + 0.7 * 0.5),
            (share(&facts, false), 0.05),
            (share(&calls, false), 0.05),
        ] {
            assert!((found - expected).abs() < 0.01, "{found} for {expected}");
        }
        for (row, scales) in scales.chunks_exact(width).enumerate() {
            let kept = if located(row) { 2.0 } else { 1.0 / 0.95 };
            assert!(OVERLAY.iter().all(|element| scales[usize::from(*element)] == 1.0));
            let others = (0..width).filter(|at| !OVERLAY.iter().any(|element| usize::from(*element) == *at));
            assert!(others.map(|at| scales[at]).all(|scale| scale == 0.0 || scale == kept));
        }
        let none = TrainerConfig { dropout: vec![], call_dropout: 0.0, bare_dropout: 0.0, ..trainer };
        draw_scales(&mut stream(1, "dropout"), &none, (0..rows).map(located), width, &mut scales);
        assert!(scales.iter().all(|scale| *scale == 1.0));
    }
}
