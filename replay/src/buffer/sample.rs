//! Drawing from the ring: index arithmetic over its columns, into memory that the caller keeps.

use super::{Kind, ReplayBuffer};
use crate::draw::below;
use crate::{ActionMask, ReplayError};
use rand::Rng;

/// How steps are drawn, with replacement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Draw {
    /// Every step is as likely as any other; all weights are 1.
    #[default]
    Uniform,
    /// By their priorities, in a buffer that has them.
    Prioritised {
        /// How far weights make up for the uneven draw, 0 to 1: `beta` of Schaul et al. 2016.
        correction: f64,
    },
}

/// What to draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleSpec {
    /// Steps that a return spans at most, at least 1; fewer where the episode or the record of it ends earlier.
    pub n_step: u32,
    /// Discount per step, 0 to 1.
    pub gamma: f64,
    /// How steps are drawn.
    pub draw: Draw,
}

/// One assembled transition: `k` steps from a state, where `k` is `n_step` or what the episode has left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition {
    /// Row of the state in the buffer.
    pub row: u32,
    /// Allowed actions of the state.
    pub mask: ActionMask,
    /// What was played in it.
    pub action: u32,
    /// Probability with which it was chosen.
    pub behaviour_probability: f32,
    /// `r_0 + gamma r_1 + ... + gamma^(k-1) r_(k-1)`, summed in that order in f64 and rounded once.
    pub reward: f32,
    /// `gamma^k`; 0 where the episode ended by its own rules within the `k` steps.
    pub discount: f32,
    /// `k`.
    pub steps: u32,
    /// Row of the state `k` steps on; the row of the state itself where the episode ended by its own rules.
    pub next_row: u32,
    /// Allowed actions of the next state.
    pub next_mask: ActionMask,
}

/// Drawn transitions, a column each; see [`Transition`] for what they hold. Kept by the caller and filled again and
/// again, so that drawing allocates nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampled {
    /// Rows of the states.
    pub rows: Vec<u32>,
    /// Allowed actions of the states.
    pub masks: Vec<ActionMask>,
    /// Actions played.
    pub actions: Vec<u32>,
    /// Their behaviour probabilities.
    pub behaviour_probabilities: Vec<f32>,
    /// Discounted sums of rewards.
    pub rewards: Vec<f32>,
    /// Discounts of what follows; 0 where nothing does.
    pub discounts: Vec<f32>,
    /// Steps spanned.
    pub steps: Vec<u32>,
    /// Rows of the successors.
    pub next_rows: Vec<u32>,
    /// Allowed actions of the successors.
    pub next_masks: Vec<ActionMask>,
    /// Weights in the loss that make up for an uneven draw; 1 for a uniform one.
    pub weights: Vec<f32>,
    /// Memory of a draw by priorities.
    points: Vec<f64>,
}

/// Tries before a draw counts its way to a step instead. With half of the slots drawable, one draw in 10^19 gets there.
const TRIES: u32 = 64;

impl Default for SampleSpec {
    /// One step, gamma 0.99, uniform.
    fn default() -> Self {
        SampleSpec { n_step: 1, gamma: 0.99, draw: Draw::Uniform }
    }
}

impl ReplayBuffer {
    /// Draws `count` transitions, with replacement, into `out`; what was there is gone, its memory is used again. Rows
    /// stay valid until the buffer is written to.
    ///
    /// # Errors
    /// [`ReplayError::Empty`] if no step can be drawn; [`ReplayError::Setting`] on a specification out of range, and on a draw
    /// by priorities from a buffer without them.
    pub fn sample(
        &self,
        rng: &mut impl Rng,
        count: usize,
        spec: &SampleSpec,
        out: &mut Sampled,
    ) -> Result<(), ReplayError> {
        spec.check()?;
        if self.drawable == 0 {
            return Err(ReplayError::Empty {
                reason: "the replay buffer holds no finished step; play some first".into(),
            });
        }
        out.resize(count);
        match (spec.draw, &self.priorities) {
            (Draw::Uniform, _) => out.rows.iter_mut().for_each(|row| *row = self.draw(rng) as u32),
            (Draw::Prioritised { correction }, Some(priorities)) => {
                priorities.draw(rng, &mut out.rows, &mut out.points);
                priorities.weigh(&out.rows, correction, &mut out.weights);
            }
            (Draw::Prioritised { .. }, None) => {
                let reason = "this buffer has no priorities; make it with `with_priorities`";
                return Err(ReplayError::Setting { key: "draw", value: "prioritised".into(), reason });
            }
        }
        for at in 0..count {
            let slot = out.rows[at] as usize;
            out.set(at, &self.assemble(slot, spec));
        }
        Ok(())
    }

    /// The transition from the state in row `row`, if its step can be drawn.
    ///
    /// # Errors
    /// [`ReplayError::Setting`] on a specification out of range.
    pub fn transition(&self, row: u32, spec: &SampleSpec) -> Result<Option<Transition>, ReplayError> {
        spec.check()?;
        let drawable = self.kinds.get(row as usize).is_some_and(|kind| kind.is_drawable());
        Ok(drawable.then(|| self.assemble(row as usize, spec)))
    }

    /// The rows held, oldest first.
    pub fn oldest_first(&self) -> impl Iterator<Item = u32> + use<> {
        let held = self.kinds.len();
        let oldest = if held < self.config.capacity { 0 } else { self.slot(self.written) };
        (oldest..held).chain(0..oldest).map(|slot| slot as u32)
    }

    fn draw(&self, rng: &mut impl Rng) -> usize {
        let held = self.kinds.len() as u32;
        for _ in 0..TRIES {
            let slot = below(rng, held) as usize;
            if self.kinds[slot].is_drawable() {
                return slot;
            }
        }
        // So few slots are drawable that counting is cheaper than trying on; each is still exactly as likely.
        let mut rank = below(rng, self.drawable);
        for (slot, kind) in self.kinds.iter().enumerate() {
            if kind.is_drawable() {
                if rank == 0 {
                    return slot;
                }
                rank -= 1;
            }
        }
        unreachable!("fewer slots are drawable than were counted")
    }

    /// Follows the links from a drawable slot. Only drawable steps are followed, so the sum ends before an open state,
    /// a final state, and a step whose successor was not observed.
    fn assemble(&self, slot: usize, spec: &SampleSpec) -> Transition {
        let (mut reward, mut discount, mut at) = (0.0, 1.0, slot);
        let mut steps = 0;
        let mut terminated = false;
        while steps < spec.n_step && self.kinds[at].is_drawable() {
            reward += discount * f64::from(self.rewards[at]);
            discount *= spec.gamma;
            steps += 1;
            if self.kinds[at] == Kind::Terminated {
                terminated = true;
                break;
            }
            at = self.next[at] as usize;
        }
        let next = if terminated { slot } else { at };
        Transition {
            row: slot as u32,
            mask: self.masks[slot],
            action: u32::from(self.actions[slot]),
            behaviour_probability: self.behaviour_probabilities[slot],
            reward: reward as f32,
            discount: if terminated { 0.0 } else { discount as f32 },
            steps,
            next_row: next as u32,
            next_mask: self.masks[next],
        }
    }
}

impl SampleSpec {
    fn check(&self) -> Result<(), ReplayError> {
        if self.n_step == 0 {
            let reason = "a return spans at least one step";
            return Err(ReplayError::Setting { key: "n_step", value: "0".into(), reason });
        }
        if !(0.0..=1.0).contains(&self.gamma) {
            let reason = "a discount lies between 0 and 1";
            return Err(ReplayError::Setting { key: "gamma", value: self.gamma.to_string(), reason });
        }
        if let Draw::Prioritised { correction } = self.draw
            && !(0.0..=1.0).contains(&correction)
        {
            let reason = "a correction lies between 0 and 1";
            return Err(ReplayError::Setting { key: "correction", value: correction.to_string(), reason });
        }
        Ok(())
    }
}

impl Sampled {
    /// Number of transitions.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes the masks of the states as a learner takes them: row-major, one `bool` per action.
    pub fn write_masks(&self, actions: usize, out: &mut Vec<bool>) {
        write_masks(&self.masks, actions, out);
    }

    /// Writes the masks of the successors in the same way.
    pub fn write_next_masks(&self, actions: usize, out: &mut Vec<bool>) {
        write_masks(&self.next_masks, actions, out);
    }

    fn resize(&mut self, count: usize) {
        self.rows.resize(count, 0);
        self.masks.resize(count, ActionMask::default());
        self.actions.resize(count, 0);
        self.behaviour_probabilities.resize(count, 0.0);
        self.rewards.resize(count, 0.0);
        self.discounts.resize(count, 0.0);
        self.steps.resize(count, 0);
        self.next_rows.resize(count, 0);
        self.next_masks.resize(count, ActionMask::default());
        self.weights.clear();
        self.weights.resize(count, 1.0);
    }

    fn set(&mut self, at: usize, transition: &Transition) {
        self.rows[at] = transition.row;
        self.masks[at] = transition.mask;
        self.actions[at] = transition.action;
        self.behaviour_probabilities[at] = transition.behaviour_probability;
        self.rewards[at] = transition.reward;
        self.discounts[at] = transition.discount;
        self.steps[at] = transition.steps;
        self.next_rows[at] = transition.next_row;
        self.next_masks[at] = transition.next_mask;
    }
}

fn write_masks(masks: &[ActionMask], actions: usize, out: &mut Vec<bool>) {
    out.clear();
    out.resize(actions * masks.len(), false);
    for (mask, out) in masks.iter().zip(out.chunks_exact_mut(actions.max(1))) {
        mask.write(out);
    }
}
