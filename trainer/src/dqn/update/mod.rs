//! One update from a replay buffer: draw transitions, make a batch of them, hand it to a learner, learn priorities.

mod config;

use super::DqnError;
use crate::learner::{
    Answer, Batch, Learner, Loss, Noise, UpdateReport, UpdateSpec, draw_factors, draw_keep, require_bounded,
};
use crate::network::NetworkShape;
use crate::streams::stream;
use bellwether_replay::{ReplayBuffer, Sampled, SampledRows};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

pub use config::{DrawConfig, LossConfig, MAX_BATCH, MunchausenConfig, PrioritisedConfig, UpdateConfig};
pub(crate) use config::{POSITIVE, SHARE, require};

/// Takes updates from a buffer. Memory is kept from one to the next, so that none allocates once the first has.
pub(crate) struct Updater {
    config: UpdateConfig,
    /// What every update does; its step size is that of the last.
    spec: UpdateSpec,
    sampling: ChaCha8Rng,
    dropout: ChaCha8Rng,
    noise: ChaCha8Rng,
    updates: u64,
    /// Largest absolute reward that was drawn.
    largest_reward: f32,
    drawn: Drawn,
    keep: Vec<Vec<u8>>,
    /// Factors of the noise of the online and the target network.
    factors: [Vec<f32>; 2],
    errors: Vec<f32>,
}

/// Transitions of a buffer as a batch. Rows stay valid until the buffer is written to.
#[derive(Default)]
pub(crate) struct Drawn {
    sampled: Sampled,
    masks: Vec<bool>,
    answers: Vec<Answer>,
    /// Allowed actions of the successors, row-major.
    pub(crate) next_masks: Vec<bool>,
}

/// Where an updater stands between two updates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdaterState {
    updates: u64,
    /// Bits of the largest absolute reward.
    largest_reward: u32,
    sampling: Position,
    dropout: Position,
    noise: Position,
}

/// Position of a stream of random numbers, in words; as a string, for JSON has no such large numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position(String);

impl Position {
    pub(crate) fn of(rng: &ChaCha8Rng) -> Position {
        Position(rng.get_word_pos().to_string())
    }

    pub(crate) fn go(&self, rng: &mut ChaCha8Rng) -> Result<(), DqnError> {
        let position = self.0.parse();
        let position =
            position.map_err(|_| DqnError::Checkpoint("the position of a random stream is no number".into()))?;
        rng.set_word_pos(position);
        Ok(())
    }
}

impl Drawn {
    /// The batch, from the buffer that it was drawn from.
    pub(crate) fn batch<'a>(&'a self, states: &'a SampledRows<'_>, next_states: &'a SampledRows<'_>) -> Batch<'a> {
        Batch { states, masks: &self.masks, answers: &self.answers, next_states, next_masks: &self.next_masks }
    }

    /// Allowed actions of the states, row-major.
    pub(crate) fn masks(&self) -> &[bool] {
        &self.masks
    }

    /// Puts other actions in the place of those that were played, for an update that clones.
    pub(crate) fn relabel(&mut self, actions: impl Iterator<Item = u32>) {
        for (answer, action) in self.answers.iter_mut().zip(actions) {
            answer.action = action;
        }
    }

    /// The states.
    pub(crate) fn states<'a>(&'a self, buffer: &'a ReplayBuffer) -> SampledRows<'a> {
        SampledRows::new(buffer, &self.sampled.rows)
    }

    /// Rows of the states that they led to.
    pub(crate) fn next_rows(&self) -> &[u32] {
        &self.sampled.next_rows
    }

    /// The states that they led to.
    pub(crate) fn next_states<'a>(&'a self, buffer: &'a ReplayBuffer) -> SampledRows<'a> {
        SampledRows::new(buffer, &self.sampled.next_rows)
    }
}

impl Updater {
    /// An updater whose streams are derived from the seed; `spec` is what `config` says for the learner's network.
    pub(crate) fn new(config: UpdateConfig, spec: UpdateSpec, seed: u64) -> Updater {
        Updater {
            config,
            spec,
            sampling: stream(seed, "sampling"),
            dropout: stream(seed, "dropout"),
            noise: stream(seed, "noise"),
            updates: 0,
            largest_reward: 0.0,
            drawn: Drawn::default(),
            keep: Vec::new(),
            factors: Default::default(),
            errors: Vec::new(),
        }
    }

    /// Updates so far.
    pub(crate) fn updates(&self) -> u64 {
        self.updates
    }

    /// Draws the transitions of the next update.
    pub(crate) fn draw(&mut self, buffer: &ReplayBuffer, actions: usize) -> Result<&mut Drawn, DqnError> {
        let Drawn { sampled, masks, answers, next_masks } = &mut self.drawn;
        let batch_size = self.config.batch_size;
        buffer.sample(&mut self.sampling, batch_size, &self.config.sample_at(self.updates), sampled)?;
        answers.clear();
        answers.extend((0..batch_size).map(|i| Answer {
            row: i as u32,
            action: sampled.actions[i],
            reward: sampled.rewards[i],
            discount: sampled.discounts[i],
            next: i as u32,
            weight: sampled.weights[i],
        }));
        sampled.write_masks(actions, masks);
        sampled.write_next_masks(actions, next_masks);
        Ok(&mut self.drawn)
    }

    /// Updates the learner with what was drawn last, and the buffer's priorities with its errors.
    pub(crate) fn update(
        &mut self,
        learner: &mut dyn Learner,
        buffer: &mut ReplayBuffer,
    ) -> Result<UpdateReport, DqnError> {
        for factors in &mut self.factors {
            draw_factors(&mut self.noise, learner.shape(), factors);
        }
        self.spec.learning_rate = self.config.learning_rate_at(self.updates);
        draw_keep(&mut self.dropout, &self.spec, learner.shape(), self.config.batch_size, &mut self.keep);
        let noise = Noise { keep: &self.keep, online: &self.factors[0], target: &self.factors[1] };
        let (states, next_states) = (self.drawn.states(buffer), self.drawn.next_states(buffer));
        let report = learner.update(&self.spec, self.drawn.batch(&states, &next_states), noise, &mut self.errors)?;
        buffer.learn(&self.drawn.sampled.rows, &self.errors)?;
        self.updates += 1;
        if self.spec.loss != Loss::Cloning {
            let rewards = self.drawn.sampled.rewards.iter().map(|reward| reward.abs());
            self.largest_reward = rewards.fold(self.largest_reward, f32::max);
            require_bounded(&report, self.largest_reward, self.config.gamma)?;
        }
        Ok(report)
    }

    /// Factors of the noise of an online network that acts.
    pub(crate) fn acting_noise(&mut self, shape: &NetworkShape) -> &[f32] {
        draw_factors(&mut self.noise, shape, &mut self.factors[0]);
        &self.factors[0]
    }

    pub(crate) fn state(&self) -> UpdaterState {
        UpdaterState {
            updates: self.updates,
            largest_reward: self.largest_reward.to_bits(),
            sampling: Position::of(&self.sampling),
            dropout: Position::of(&self.dropout),
            noise: Position::of(&self.noise),
        }
    }

    pub(crate) fn restore(&mut self, state: &UpdaterState) -> Result<(), DqnError> {
        state.sampling.go(&mut self.sampling)?;
        state.dropout.go(&mut self.dropout)?;
        state.noise.go(&mut self.noise)?;
        self.updates = state.updates;
        self.largest_reward = f32::from_bits(state.largest_reward);
        Ok(())
    }
}
