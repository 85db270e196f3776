//! A run on played steps as bytes, from which it goes on as if it had never stopped. The steps are not among them: they
//! stand in their files, from which a part that memory held is read once more.

use super::trainer::OfflineTrainer;
use super::{Algorithm, OfflineConfig, Steps};
use crate::dqn::{DqnError, Format, Position, UpdaterState, unusable};
use crate::learner::LearnerState;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};

const FORMAT: Format = Format { magic: b"BWPLAYED", version: 2 };

/// Everything but the learners and the priorities.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    config: OfflineConfig,
    updater: UpdaterState,
    imitator: Option<Position>,
    /// Steps that can be learned from, of which it must be these once more.
    transitions: u64,
    /// Where they are streamed, what memory holds of them.
    streamed: Option<Streamed>,
}

/// A part of streamed steps, by which it is read once more.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Streamed {
    /// States that memory has room for.
    capacity: u64,
    /// States that came into it so far.
    states: u64,
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
            transitions: self.steps.transitions(),
            streamed: Streamed::of(&self.steps),
        };
        FORMAT.write(&mut writer, &header)?;
        self.learner.state().write(&mut writer)?;
        if let Some(imitator) = &self.imitator {
            imitator.learner.state().write(&mut writer)?;
        }
        self.steps.buffer().save_priorities(&mut writer)?;
        Ok(())
    }

    /// Goes on from what [`save`](Self::save) wrote: this run is a fresh one, on the same steps. The configuration must be that
    /// of the saved run; only `updates` may differ, which extends the run, and `memory_bytes` where all steps are in memory.
    ///
    /// # Errors
    /// [`DqnError::Checkpoint`] if it is damaged, cut short, or of another self; and where streamed steps cannot be read. This run is
    /// not to be used then.
    pub fn restore(&mut self, mut reader: impl Read) -> Result<(), DqnError> {
        let header: Header = FORMAT.read(&mut reader)?;
        let OfflineConfig { updates, memory_bytes, .. } = self.config;
        if (OfflineConfig { updates, memory_bytes, ..header.config }) != self.config {
            let reason = "it was saved under another configuration; only updates and memory_bytes may change";
            return Err(unusable(reason));
        }
        if header.transitions != self.steps.transitions() {
            let (saved, given) = (header.transitions, self.steps.transitions());
            return Err(unusable(format!("it learned from {saved} transitions, not from these {given}")));
        }
        let capacity = |streamed: &Option<Streamed>| streamed.as_ref().map(|streamed| streamed.capacity);
        if capacity(&header.streamed) != capacity(&Streamed::of(&self.steps)) {
            return Err(unusable(
                "memory held more or fewer of its steps: give it the memory_bytes that it was begun with",
            ));
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
        if let (Steps::Streamed(streamed), Some(saved)) = (&mut self.steps, &header.streamed) {
            streamed.go_to(saved.states)?;
        }
        self.steps.buffer_mut().restore_priorities(&mut reader)?;
        self.updater.restore(&header.updater)
    }
}

impl Streamed {
    fn of(steps: &Steps) -> Option<Streamed> {
        match steps {
            Steps::InMemory(_) => None,
            Steps::Streamed(streamed) => {
                let buffer = streamed.buffer();
                Some(Streamed { capacity: buffer.config().capacity as u64, states: buffer.states_written() })
            }
        }
    }
}
