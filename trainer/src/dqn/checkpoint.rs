//! A run as bytes, from which it goes on as if it had never stopped.
//!
//! An environment need not be saved: the seed of the episode under way and the actions played in it are the episode, so
//! a restored run plays them once more and checks that it sees what was seen.

use super::framed::{Format, unusable};
use super::trainer::Seat;
use super::update::{Position, UpdaterState};
use super::{DqnConfig, DqnError, DqnTrainer};
use crate::learner::{LearnerChoice, LearnerState};
use bellwether_env_adapter::Environment;
use bellwether_replay::ReplayBuffer;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};

const FORMAT: Format = Format { magic: b"BWDQNRUN", version: 3 };

/// Everything but the learner and the buffer.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    config: DqnConfig,
    environment_steps: u64,
    episodes: u64,
    exploration: Position,
    environment: Position,
    updater: UpdaterState,
    seats: Vec<SavedSeat>,
}

/// The episode under way in one environment.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedSeat {
    playing: bool,
    seed: u64,
    actions: Vec<u32>,
    /// Bits of the observation, so that every value comes back.
    observation: Vec<u32>,
}

impl<E: Environment> DqnTrainer<E> {
    /// Writes the whole run: configuration, counters, random streams, learner, buffer, and the episodes under way. The
    /// caller puts the bytes under a durable name.
    ///
    /// # Errors
    /// What the writer says.
    pub fn save(&self, mut writer: impl Write) -> Result<(), DqnError> {
        let header = Header {
            config: self.config.clone(),
            environment_steps: self.environment_steps,
            episodes: self.episodes,
            exploration: Position::of(&self.exploration),
            environment: Position::of(&self.environment),
            updater: self.updater.state(),
            seats: self.seats.iter().map(SavedSeat::of).collect(),
        };
        FORMAT.write(&mut writer, &header)?;
        self.learner.state().write(&mut writer)?;
        self.buffer.save(&mut writer)?;
        Ok(())
    }

    /// Goes on from what [`save`](Self::save) wrote, with fresh environments of the same kind. The configuration must be
    /// that of the saved run; only `total_steps` may differ, which extends the run. `limit_bytes` bounds the buffer.
    ///
    /// # Errors
    /// [`DqnError::Checkpoint`] if it is damaged, cut short, or of another run; [`DqnError::Environment`] if an
    /// environment does not repeat the episode that was under way.
    pub fn restore(
        mut reader: impl Read,
        config: DqnConfig,
        environments: Vec<E>,
        learner: impl Into<LearnerChoice>,
        limit_bytes: u64,
    ) -> Result<Self, DqnError> {
        let mut run = Self::new(config, environments, learner)?;
        let header: Header = FORMAT.read(&mut reader)?;
        if (DqnConfig { total_steps: run.config.total_steps, ..header.config }) != run.config {
            return Err(unusable("it was saved under another configuration; only total_steps may change"));
        }
        if header.seats.len() != run.seats.len() {
            let (saved, given) = (header.seats.len(), run.seats.len());
            return Err(unusable(format!("it was saved with {saved} environments, not {given}")));
        }
        let state =
            LearnerState::read(&mut reader, run.learner.shape()).map_err(|error| unusable(error.to_string()))?;
        run.learner.restore(&state)?;
        let expected = *run.buffer.config();
        run.buffer = ReplayBuffer::restore(&mut reader, limit_bytes)?;
        let prioritised = run.buffer.priority_config() == run.config.update.priorities().as_ref();
        if *run.buffer.config() != expected || !prioritised || run.buffer.streams().len() != run.seats.len() {
            return Err(unusable("its buffer belongs to another run"));
        }
        (run.environment_steps, run.episodes) = (header.environment_steps, header.episodes);
        header.exploration.go(&mut run.exploration)?;
        header.environment.go(&mut run.environment)?;
        run.updater.restore(&header.updater)?;
        let streams: Vec<_> = run.buffer.streams().collect();
        for (environment, (seat, saved)) in run.seats.iter_mut().zip(&header.seats).enumerate() {
            seat.stream = streams[environment];
            if run.buffer.is_open(seat.stream) != saved.playing {
                return Err(unusable("its buffer and its environments do not match"));
            }
            if saved.playing {
                saved.replay(seat).map_err(|reason| DqnError::Environment { environment, reason })?;
            }
        }
        Ok(run)
    }
}

impl SavedSeat {
    /// Of an episode that has ended nothing is needed, and nothing is saved: a restored run does not know it any more, and its
    /// bytes would differ.
    fn of<E>(seat: &Seat<E>) -> SavedSeat {
        if !seat.playing {
            return SavedSeat { playing: false, seed: 0, actions: Vec::new(), observation: Vec::new() };
        }
        SavedSeat {
            playing: seat.playing,
            seed: seat.seed,
            actions: seat.actions.clone(),
            observation: seat.observation.iter().map(|value| value.to_bits()).collect(),
        }
    }

    /// Plays the episode once more.
    fn replay<E: Environment>(&self, seat: &mut Seat<E>) -> Result<(), String> {
        let differs = || "it does not repeat the saved episode, so the run cannot go on exactly".to_owned();
        seat.reset(self.seed);
        for action in &self.actions {
            let allowed = seat.mask.get(*action as usize).copied().unwrap_or(false);
            if !allowed {
                return Err(differs());
            }
            let step = seat.env.step(*action as usize);
            if step.terminated || step.truncated {
                return Err(differs());
            }
            seat.total += f64::from(step.reward);
            seat.actions.push(*action);
            seat.look();
        }
        let same = seat.observation.iter().map(|value| value.to_bits()).eq(self.observation.iter().copied());
        if same { Ok(()) } else { Err(differs()) }
    }
}
