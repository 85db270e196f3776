//! Played steps of which memory holds a part: a ring that is filled from episode files, and refilled as it is drawn from.
//!
//! Files are read in shards, row groups that no episode crosses the ends of, pass after pass; each pass takes all of them in a
//! random order of its own. A thread decodes ahead, and steps come into the ring when the caller asks for them, never when
//! the disk is ready. So what the ring holds is a function of the files, the generator and the number of states that were asked for.

mod ahead;
mod plan;

pub use plan::{PassRng, RowReward};

use crate::episodes::{EpisodeReader, Player, Survey};
use crate::{ActionMask, BufferConfig, PriorityConfig, ReplayBuffer, ReplayError};
use ahead::{BLOCKS, Block, ReadAhead};
use plan::Plan;
use std::sync::Arc;

/// A file to read from, again and again.
pub struct EpisodeSource {
    /// What errors call it.
    pub name: String,
    /// The file.
    pub reader: EpisodeReader,
    /// What is in it.
    pub survey: Survey,
}

/// Played steps, of which memory holds a part.
pub struct StreamedReplay {
    config: BufferConfig,
    priorities: Option<PriorityConfig>,
    block_rows: usize,
    plan: Arc<Plan>,
    transitions: u64,
    allowed: ActionMask,
    played: ActionMask,
    buffer: ReplayBuffer,
    player: Player,
    /// What is not read from at the moment.
    idle: Vec<EpisodeSource>,
    ahead: Option<ReadAhead>,
    block: Option<Block>,
    /// Row of the block that comes next.
    at: usize,
}

/// The largest part of the memory that holds what is decoded ahead: one in so many.
const AHEAD_SHARE: u64 = 8;
/// Bytes of a block at most; more would not hide more of the disk's time.
const BLOCK_BYTES: u64 = 512 << 10;

impl StreamedReplay {
    /// A ring that takes, with what is decoded ahead, at most `memory_bytes`; `states` says what its states are, and its capacity is
    /// left aside. It is empty until [`fill_to`](Self::fill_to) is called. What decoding itself needs comes on top: some two of the
    /// files' row groups as they are stored.
    ///
    /// # Errors
    /// [`ReplayError::Setting`] where the memory has no room for two states, or a file's states are others;
    /// [`ReplayError::Empty`] if no step of the files can be learned from; [`ReplayError::Memory`] without memory for priorities.
    pub fn new(
        sources: Vec<EpisodeSource>,
        states: BufferConfig,
        priorities: Option<PriorityConfig>,
        memory_bytes: u64,
        (rng, reward): (PassRng, RowReward),
    ) -> Result<Self, ReplayError> {
        let shape = |source: &EpisodeSource| (source.reader.header().width, source.reader.header().actions);
        if let Some(source) = sources.iter().find(|source| shape(source) != (states.width, states.actions)) {
            let reason = "its states or actions are not as many as those of the buffer";
            return Err(ReplayError::Setting { key: "file", value: source.name.clone(), reason });
        }
        let transitions = sources.iter().map(|source| source.survey.transitions).sum();
        if transitions == 0 {
            let reason = "no step of the episodes has a known successor; play some further";
            return Err(ReplayError::Empty { reason: reason.into() });
        }
        let row_bytes = states.width as u64 * 4 + size_of::<ahead::Row>() as u64;
        let block_bytes = BLOCK_BYTES.min(memory_bytes / AHEAD_SHARE / BLOCKS as u64);
        let block_rows = (block_bytes / row_bytes).max(1);
        let ring_bytes = memory_bytes.saturating_sub(block_rows * row_bytes * BLOCKS as u64);
        let config = states.within(ring_bytes, priorities.is_some());
        let union = |mask: fn(&Survey) -> ActionMask| {
            ActionMask::from_bits(sources.iter().fold(0, |bits, source| bits | mask(&source.survey).bits()))
        };
        let (allowed, played) = (union(|survey| survey.allowed), union(|survey| survey.played));
        let mut buffer = ReplayBuffer::forgotten(config, priorities, 0)?;
        let player = Player::new(buffer.add_stream());
        Ok(StreamedReplay {
            config,
            priorities,
            block_rows: block_rows as usize,
            plan: Arc::new(Plan::new(&sources, rng, reward)),
            transitions,
            allowed,
            played,
            buffer,
            player,
            idle: sources,
            ahead: None,
            block: None,
            at: 0,
        })
    }

    /// The part that memory holds.
    pub fn buffer(&self) -> &ReplayBuffer {
        &self.buffer
    }

    /// The same, to tell it errors. What is written to it otherwise breaks the order of its rows.
    pub fn buffer_mut(&mut self) -> &mut ReplayBuffer {
        &mut self.buffer
    }

    /// States of all files together, which a pass takes.
    pub fn states(&self) -> u64 {
        self.plan.rows()
    }

    /// Steps of all files together that can be learned from.
    pub fn transitions(&self) -> u64 {
        self.transitions
    }

    /// Actions that one of these steps allowed, and those that were played in them.
    pub fn actions(&self) -> (ActionMask, ActionMask) {
        (self.allowed, self.played)
    }

    /// Brings states into the ring until `states` were written to it in all; the oldest make room.
    ///
    /// # Errors
    /// [`ReplayError::Streamed`] with the file that cannot be read any more. The ring is not to be used then.
    pub fn fill_to(&mut self, states: u64) -> Result<(), ReplayError> {
        while self.buffer.states_written() < states {
            let block = match &mut self.block {
                Some(block) if self.at < block.rows.len() => block,
                used => {
                    let used = used.take();
                    self.at = 0;
                    let next = self.reading()?.next(used)?;
                    self.block.insert(next)
                }
            };
            let (row, width) = (block.rows[self.at], self.config.width);
            let state = &block.states[self.at * width..][..width];
            self.player.play(&mut self.buffer, state, row.mask, row.played, row.end)?;
            self.at += 1;
        }
        Ok(())
    }

    /// Makes the ring what it is after [`fill_to`](Self::fill_to) with this number, whatever it was before; priorities are those of
    /// steps that nobody has learned from.
    ///
    /// # Errors
    /// As [`fill_to`](Self::fill_to).
    pub fn go_to(&mut self, states: u64) -> Result<(), ReplayError> {
        self.stop()?;
        let place = self.plan.find(states.saturating_sub(self.config.capacity as u64));
        self.buffer = ReplayBuffer::forgotten(self.config, self.priorities, place.rows)?;
        self.player = Player::new(self.buffer.add_stream());
        self.fill_to(states)
    }

    /// The thread that reads ahead from the next state on.
    fn reading(&mut self) -> Result<&ReadAhead, ReplayError> {
        if self.ahead.is_none() {
            let place = self.plan.find(self.buffer.states_written());
            let (sources, shape) = (std::mem::take(&mut self.idle), (self.block_rows, self.config.width));
            self.ahead = Some(ReadAhead::start(self.plan.clone(), sources, place, shape)?);
        }
        match &self.ahead {
            Some(ahead) => Ok(ahead),
            None => unreachable!("it was started just now"),
        }
    }

    fn stop(&mut self) -> Result<(), ReplayError> {
        (self.block, self.at) = (None, 0);
        if let Some(ahead) = self.ahead.take() {
            let lost = || ReplayError::EpisodeFile { reason: "the thread that reads ahead has failed".into() };
            self.idle = ahead.stop().ok_or_else(lost)?;
        }
        Ok(())
    }
}

impl Drop for StreamedReplay {
    fn drop(&mut self) {
        // No thread outlives what it works for; how it ended does not matter any more.
        let _ = self.stop();
    }
}

impl std::fmt::Debug for StreamedReplay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamedReplay")
            .field("config", &self.config)
            .field("states", &self.states())
            .finish_non_exhaustive()
    }
}
