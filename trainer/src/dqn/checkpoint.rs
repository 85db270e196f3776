//! A run as bytes, from which it goes on as if it had never stopped.
//!
//! An environment need not be saved: the seed of the episode under way and the actions played in it are the episode, so
//! a restored run plays them once more and checks that it sees what was seen.

use super::trainer::{Seat, Streams};
use super::{DqnConfig, DqnError, DqnTrainer};
use crate::learner::LearnerState;
use crate::learner::fused::FusedOptions;
use bellwether_env_adapter::Environment;
use bellwether_replay::ReplayBuffer;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};

const MAGIC: &[u8; 8] = b"BWDQNRUN";
const VERSION: u32 = 2;
/// Largest header that is read: an episode under way takes some bytes for each of its steps.
const MAX_HEADER: u32 = 1 << 28;

/// Everything but the learner and the buffer.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    config: DqnConfig,
    environment_steps: u64,
    updates: u64,
    episodes: u64,
    /// Positions of the streams of random numbers, in words.
    exploration: String,
    sampling: String,
    environment: String,
    dropout: String,
    noise: String,
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

fn unusable(reason: impl Into<String>) -> DqnError {
    DqnError::Checkpoint(reason.into())
}

impl<E: Environment> DqnTrainer<E> {
    /// Writes the whole run: configuration, counters, random streams, learner, buffer, and the episodes under way. The
    /// caller puts the bytes under a durable name.
    ///
    /// # Errors
    /// What the writer says.
    pub fn save(&self, mut writer: impl Write) -> Result<(), DqnError> {
        let position = |rng: &ChaCha8Rng| rng.get_word_pos().to_string();
        let header = Header {
            config: self.config.clone(),
            environment_steps: self.environment_steps,
            updates: self.updates,
            episodes: self.episodes,
            exploration: position(&self.streams.exploration),
            sampling: position(&self.streams.sampling),
            environment: position(&self.streams.environment),
            dropout: position(&self.streams.dropout),
            noise: position(&self.streams.noise),
            seats: self.seats.iter().map(SavedSeat::of).collect(),
        };
        let header = serde_json::to_vec(&header).map_err(|error| unusable(error.to_string()))?;
        let length = u32::try_from(header.len()).ok().filter(|length| *length <= MAX_HEADER);
        let length = length.ok_or_else(|| unusable("an episode under way is too long to be saved"))?;
        writer.write_all(MAGIC)?;
        writer.write_all(&VERSION.to_le_bytes())?;
        writer.write_all(&length.to_le_bytes())?;
        writer.write_all(&crc32c::crc32c(&header).to_le_bytes())?;
        writer.write_all(&header)?;
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
        options: FusedOptions,
        limit_bytes: u64,
    ) -> Result<Self, DqnError> {
        let mut run = Self::new(config, environments, options)?;
        let header = read_header(&mut reader)?;
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
        let prioritised = run.buffer.priority_config() == run.config.priorities().as_ref();
        if *run.buffer.config() != expected || !prioritised || run.buffer.streams().len() != run.seats.len() {
            return Err(unusable("its buffer belongs to another run"));
        }
        (run.environment_steps, run.updates, run.episodes) =
            (header.environment_steps, header.updates, header.episodes);
        let Streams { exploration, sampling, environment, dropout, noise } = &mut run.streams;
        for (rng, position) in [
            (exploration, header.exploration),
            (sampling, header.sampling),
            (environment, header.environment),
            (dropout, header.dropout),
            (noise, header.noise),
        ] {
            let position = position.parse().map_err(|_| unusable("the position of a random stream is no number"))?;
            rng.set_word_pos(position);
        }
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

fn read_header(reader: &mut impl Read) -> Result<Header, DqnError> {
    let mut start = [0; 8 + 4 + 4 + 4];
    reader.read_exact(&mut start)?;
    let number = |at: usize| u32::from_le_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]);
    if &start[..8] != MAGIC {
        return Err(unusable("it does not begin with BWDQNRUN"));
    }
    if number(8) != VERSION {
        return Err(unusable(format!("it has version {}, and only version {VERSION} is known", number(8))));
    }
    if number(12) > MAX_HEADER {
        return Err(unusable("its header claims to be larger than any can be"));
    }
    // What the length claims is allocated only as the data for it arrives.
    let mut header = Vec::new();
    reader.take(u64::from(number(12))).read_to_end(&mut header)?;
    if header.len() != number(12) as usize || crc32c::crc32c(&header) != number(16) {
        return Err(unusable("its header is damaged or cut short; restore an older checkpoint"));
    }
    serde_json::from_slice(&header).map_err(|error| unusable(error.to_string()))
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
