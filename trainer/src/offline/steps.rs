//! The steps that a run learns from: all of them in memory, or a part of them at a time.

use super::OfflineConfig;
use crate::dqn::{DqnError, require};
use crate::streams::stream;
use bellwether_replay::streamed::{EpisodeSource, RowReward, StreamedReplay};
use bellwether_replay::{ActionMask, BufferConfig, ReplayBuffer, ReplayError, SampleSpec};

/// Steps that others played.
#[derive(Debug)]
pub enum Steps {
    /// All of them, in memory.
    InMemory(Box<ReplayBuffer>),
    /// More than fit, of which memory holds a part that changes.
    Streamed(Box<StreamedReplay>),
}

impl From<ReplayBuffer> for Steps {
    fn from(buffer: ReplayBuffer) -> Steps {
        Steps::InMemory(Box::new(buffer))
    }
}

impl From<StreamedReplay> for Steps {
    fn from(streamed: StreamedReplay) -> Steps {
        Steps::Streamed(Box::new(streamed))
    }
}

impl OfflineConfig {
    /// An empty buffer for this run's steps, to be filled before the run is made. `width` is that of a state.
    ///
    /// # Errors
    /// [`DqnError::Replay`] if there cannot be such a buffer.
    pub fn buffer(&self, width: usize, actions: usize, capacity: usize) -> Result<ReplayBuffer, DqnError> {
        let buffer = BufferConfig { width, actions: actions as u32, capacity };
        Ok(match self.update.priorities() {
            None => ReplayBuffer::new(buffer)?,
            Some(priorities) => ReplayBuffer::with_priorities(buffer, priorities)?,
        })
    }

    /// The steps of files that this run's memory cannot hold. `states` says what they are; its capacity is left aside.
    ///
    /// # Errors
    /// [`DqnError::Config`] if the memory does not hold two batches; otherwise as [`StreamedReplay::new`].
    pub fn streamed(
        &self,
        sources: Vec<EpisodeSource>,
        states: BufferConfig,
        reward: RowReward,
    ) -> Result<StreamedReplay, DqnError> {
        let (seed, priorities, memory) = (self.seed, self.update.priorities(), self.memory_bytes);
        let fits = states.within(memory, priorities.is_some()).capacity / 2 >= self.update.batch_size;
        require("memory_bytes", memory, fits, "it does not hold two batches of steps: allow more")?;
        let rng = move |pass| {
            let mut rng = stream(seed, "passes");
            rng.set_stream(pass);
            Box::new(rng) as Box<dyn rand::Rng>
        };
        Ok(StreamedReplay::new(sources, states, priorities, memory, (Box::new(rng), reward))?)
    }

    /// States that streamed steps have brought into memory when an update begins that so many came before.
    fn states_at(&self, capacity: usize, updates: u64) -> u64 {
        let drawn = updates as f64 * self.update.batch_size as f64;
        capacity as u64 + (drawn / self.samples_per_insert) as u64
    }
}

impl Steps {
    /// What memory holds of them.
    pub fn buffer(&self) -> &ReplayBuffer {
        match self {
            Steps::InMemory(buffer) => buffer,
            Steps::Streamed(streamed) => streamed.buffer(),
        }
    }

    pub(super) fn buffer_mut(&mut self) -> &mut ReplayBuffer {
        match self {
            Steps::InMemory(buffer) => buffer,
            Steps::Streamed(streamed) => streamed.buffer_mut(),
        }
    }

    /// All steps that can be learned from, in memory or not.
    pub fn transitions(&self) -> u64 {
        match self {
            Steps::InMemory(buffer) => buffer.transitions() as u64,
            Steps::Streamed(streamed) => streamed.transitions(),
        }
    }

    /// How often all states were brought into memory; 1 where they are there all the time.
    pub fn passes(&self) -> f64 {
        match self {
            Steps::InMemory(_) => 1.0,
            Steps::Streamed(streamed) => streamed.buffer().states_written() as f64 / streamed.states() as f64,
        }
    }

    /// Brings in what belongs into memory when an update begins that so many came before.
    pub(super) fn advance(&mut self, config: &OfflineConfig, updates: u64) -> Result<(), ReplayError> {
        match self {
            Steps::InMemory(_) => Ok(()),
            Steps::Streamed(streamed) => {
                let capacity = streamed.buffer().config().capacity;
                streamed.fill_to(config.states_at(capacity, updates))
            }
        }
    }

    /// Actions that one of the steps allowed, and those that were played.
    pub(super) fn actions(&self) -> Result<(ActionMask, ActionMask), ReplayError> {
        let buffer = match self {
            Steps::InMemory(buffer) => buffer,
            Steps::Streamed(streamed) => return Ok(streamed.actions()),
        };
        let (mut allowed, mut played) = (0, 0);
        for row in buffer.oldest_first() {
            if let Some(transition) = buffer.transition(row, &SampleSpec::default())? {
                allowed |= transition.mask.bits();
                played |= 1 << transition.action;
            }
        }
        Ok((ActionMask::from_bits(allowed), ActionMask::from_bits(played)))
    }
}
