//! A run on played steps as bytes, from which it goes on as if it had never stopped. The steps are not among them: they
//! stand in their files.

use super::trainer::OfflineTrainer;
use super::{Algorithm, OfflineConfig};
use crate::dqn::{DqnError, Format, Position, UpdaterState, unusable};
use crate::learner::LearnerState;
use bellwether_replay::ReplayBuffer;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};

const FORMAT: Format = Format { magic: b"BWPLAYED", version: 1 };

/// Everything but the learners and the priorities.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    config: OfflineConfig,
    updater: UpdaterState,
    imitator: Option<Position>,
    /// Steps that were learned from, of which it must be these once more.
    transitions: usize,
}

impl OfflineTrainer {
    /// Writes everything but the steps. The caller puts the bytes under a durable name.
    ///
    /// # Errors
    /// What the writer says.
    pub fn save(&self, mut writer: impl Write) -> Result<(), DqnError> {
        let header = Header {
            config: self.config.clone(),
            updater: self.updater.state(),
            imitator: self.imitator.as_ref().map(|imitator| Position::of(&imitator.dropout)),
            transitions: self.buffer.transitions(),
        };
        FORMAT.write(&mut writer, &header)?;
        self.learner.state().write(&mut writer)?;
        if let Some(imitator) = &self.imitator {
            imitator.learner.state().write(&mut writer)?;
        }
        if self.buffer.priority_config().is_some() {
            self.buffer.save(&mut writer)?;
        }
        Ok(())
    }

    /// Goes on from what [`save`](Self::save) wrote: this run is a fresh one, on the same steps. The configuration must be that
    /// of the saved run; only `updates` may differ, which extends the run, and `memory_bytes`.
    ///
    /// # Errors
    /// [`DqnError::Checkpoint`] if it is damaged, cut short, or of another self. This run is not to be used then.
    pub fn restore(&mut self, mut reader: impl Read) -> Result<(), DqnError> {
        let header: Header = FORMAT.read(&mut reader)?;
        let OfflineConfig { updates, memory_bytes, .. } = self.config;
        if (OfflineConfig { updates, memory_bytes, ..header.config }) != self.config {
            let reason = "it was saved under another configuration; only updates and memory_bytes may change";
            return Err(unusable(reason));
        }
        if header.transitions != self.buffer.transitions() {
            let (saved, given) = (header.transitions, self.buffer.transitions());
            return Err(unusable(format!("it learned from {saved} transitions, not from these {given}")));
        }
        let mut state = |shape: &_| LearnerState::read(&mut reader, shape).map_err(|error| unusable(error.to_string()));
        let learner = state(self.learner.shape())?;
        self.learner.restore(&learner)?;
        if let (Some(imitator), Some(position)) = (&mut self.imitator, &header.imitator) {
            let learner = state(imitator.learner.shape())?;
            imitator.learner.restore(&learner)?;
            position.go(&mut imitator.dropout)?;
        } else if self.config.algorithm == Algorithm::Bcq {
            return Err(unusable("it lacks the cloned policy"));
        }
        if self.buffer.priority_config().is_some() {
            let restored = ReplayBuffer::restore(&mut reader, self.buffer.memory_bytes() as u64 * 2)?;
            if restored.config() != self.buffer.config() || restored.priority_config() != self.buffer.priority_config()
            {
                return Err(unusable("its buffer belongs to another run"));
            }
            self.buffer = restored;
        }
        self.updater.restore(&header.updater)
    }
}
