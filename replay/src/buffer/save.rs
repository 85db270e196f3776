//! Saving the ring and restoring it exactly.
//!
//! All numbers are little-endian. `BWREPLAY`, version u32, width u32, actions u32, capacity u64, states written u64,
//! number of streams u32, and whether there are priorities, u8; where there are, their exponent, floor and largest, f64 each;
//! two u64 per stream (its open state and the one before, all bits set for none); then the columns
//! of the slots in use, one after the other: kind u8, mask u32, action u8, reward f32, behaviour probability f32, next
//! slot u32, state f32 x width, and where there are priorities that of the slot, f64 (0 where it cannot be drawn); and the CRC-32C of
//! everything before it, u32. Slots in use follow from states written and
//! capacity. What is drawn after a restore depends on nothing else, so a resumed run goes on byte for byte.

use super::priority::{Priorities, PriorityConfig};
use super::{BufferConfig, Kind, NO_SLOT, ReplayBuffer, Stream};
use crate::error::all_finite;
use crate::{ActionMask, ReplayError};
use std::io::{Read, Write};

const MAGIC: [u8; 8] = *b"BWREPLAY";
const VERSION: u32 = 2;
const PRIORITIES: [u8; 8] = *b"BWPRIORI";
const NONE: u64 = u64::MAX;
/// Bytes that are read or written at a time: what a header claims is allocated only as the data for it arrives.
const CHUNK_BYTES: usize = 1 << 16;

impl ReplayBuffer {
    /// Writes everything that later draws depend on. The caller puts the bytes under a durable name.
    ///
    /// # Errors
    /// [`ReplayError::Io`] with what the writer said.
    pub fn save(&self, writer: impl Write) -> Result<(), ReplayError> {
        let mut out = Summed { inner: writer, sum: 0, chunk: Vec::with_capacity(CHUNK_BYTES) };
        out.put(MAGIC)?;
        out.put(VERSION.to_le_bytes())?;
        out.put((self.config.width as u32).to_le_bytes())?;
        out.put(self.config.actions.to_le_bytes())?;
        out.put((self.config.capacity as u64).to_le_bytes())?;
        out.put(self.written.to_le_bytes())?;
        out.put((self.streams.len() as u32).to_le_bytes())?;
        out.put([u8::from(self.priorities.is_some())])?;
        if let Some(priorities) = &self.priorities {
            let PriorityConfig { exponent, floor } = *priorities.config();
            [exponent, floor, priorities.highest()].iter().try_for_each(|v| out.put(v.to_le_bytes()))?;
        }
        for stream in &self.streams {
            out.put(stream.open.unwrap_or(NONE).to_le_bytes())?;
            out.put(stream.previous.unwrap_or(NONE).to_le_bytes())?;
        }
        self.kinds.iter().try_for_each(|v| out.put([*v as u8]))?;
        self.masks.iter().try_for_each(|v| out.put(v.bits().to_le_bytes()))?;
        self.actions.iter().try_for_each(|v| out.put([*v]))?;
        self.rewards.iter().try_for_each(|v| out.put(v.to_le_bytes()))?;
        self.behaviour_probabilities.iter().try_for_each(|v| out.put(v.to_le_bytes()))?;
        self.next.iter().try_for_each(|v| out.put(v.to_le_bytes()))?;
        self.states.iter().try_for_each(|v| out.put(v.to_le_bytes()))?;
        if let Some(priorities) = &self.priorities {
            (0..self.kinds.len()).try_for_each(|slot| out.put(priorities.of(slot).to_le_bytes()))?;
        }
        out.finish()
    }

    /// Reads what [`save`](Self::save) wrote, and nothing after it. `limit_bytes` bounds the memory that is taken.
    ///
    /// # Errors
    /// [`ReplayError::Saved`] if it is damaged, cut short or of another version; [`ReplayError::TooLarge`] beyond the
    /// limit; [`ReplayError::Io`] with what the reader said.
    pub fn restore(reader: impl Read, limit_bytes: u64) -> Result<Self, ReplayError> {
        let mut from = Summing { inner: reader, sum: 0 };
        if from.take()? != MAGIC {
            return Err(saved("it does not begin with BWREPLAY; give a file that a replay buffer was saved to"));
        }
        let version = u32::from_le_bytes(from.take()?);
        if version != VERSION {
            return Err(saved(format!("it has version {version}, and only version {VERSION} is known")));
        }
        let width = u32::from_le_bytes(from.take()?) as usize;
        let actions = u32::from_le_bytes(from.take()?);
        let capacity = u64::from_le_bytes(from.take()?);
        let written = u64::from_le_bytes(from.take()?);
        let streams = u32::from_le_bytes(from.take()?);
        let prioritised = match from.take()? {
            [0] => None,
            [1] => Some([from.take()?, from.take()?, from.take()?].map(f64::from_le_bytes)),
            _ => return Err(saved("whether it has priorities cannot be told")),
        };
        let capacity = usize::try_from(capacity).map_err(|_| saved("its capacity is beyond this machine"))?;
        let config = BufferConfig { width, actions, capacity };
        config.check().map_err(|error| saved(error.to_string()))?;
        // Numbers of states are compared with a capacity added to them.
        if written > u64::MAX / 2 {
            return Err(saved("its count of states written is out of range"));
        }
        let slots = written.min(capacity as u64);
        let tree = if prioritised.is_some() { Priorities::bytes(capacity) } else { 0 };
        let bytes = slots * config.state_bytes() + u64::from(streams) * size_of::<Stream>() as u64 + tree;
        if bytes > limit_bytes {
            return Err(ReplayError::TooLarge { bytes, limit: limit_bytes });
        }
        let slots = slots as usize;
        let number = |bytes: [u8; 8]| Some(u64::from_le_bytes(bytes)).filter(|number| *number != NONE);
        let numbers = from.column(streams as usize * 2, number)?;
        let mut buffer = ReplayBuffer {
            config,
            written,
            drawable: 0,
            streams: numbers
                .as_chunks::<2>()
                .0
                .iter()
                .map(|[open, previous]| Stream { open: *open, previous: *previous })
                .collect(),
            kinds: Vec::new(),
            masks: Vec::new(),
            actions: Vec::new(),
            rewards: Vec::new(),
            behaviour_probabilities: Vec::new(),
            next: Vec::new(),
            states: Vec::new(),
            priorities: None,
        };
        let kinds = from.column(slots, |[byte]: [u8; 1]| byte)?;
        buffer.masks = from.column(slots, |bytes| ActionMask::from_bits(u32::from_le_bytes(bytes)))?;
        buffer.actions = from.column(slots, |[byte]: [u8; 1]| byte)?;
        buffer.rewards = from.column(slots, f32::from_le_bytes)?;
        buffer.behaviour_probabilities = from.column(slots, f32::from_le_bytes)?;
        buffer.next = from.column(slots, u32::from_le_bytes)?;
        buffer.states = from.column(slots * width, f32::from_le_bytes)?;
        if let Some([exponent, floor, highest]) = prioritised {
            let priorities = from.column(slots, f64::from_le_bytes)?;
            let config = PriorityConfig { exponent, floor };
            let restored = Priorities::restored(config, capacity, highest, &priorities);
            buffer.priorities = Some(restored.map_err(|error| saved(error.to_string()))?);
        }
        let sum = from.sum;
        if u32::from_le_bytes(from.take()?) != sum {
            return Err(saved("its checksum does not match, so it is damaged; restore an older checkpoint"));
        }
        buffer.kinds = kinds
            .into_iter()
            .map(Kind::from_byte)
            .collect::<Option<_>>()
            .ok_or_else(|| saved("a kind of slot is unknown"))?;
        buffer.drawable = buffer.kinds.iter().filter(|kind| kind.is_drawable()).count() as u32;
        buffer.check()?;
        Ok(buffer)
    }

    /// Writes the priorities alone, where the states are kept elsewhere: `BWPRIORI`, the largest, f64, the number of slots in use,
    /// u64, the priority of each, f64, and the CRC-32C of all that, u32. Of a buffer without priorities, nothing is written.
    ///
    /// # Errors
    /// [`ReplayError::Io`] with what the writer said.
    pub fn save_priorities(&self, writer: impl Write) -> Result<(), ReplayError> {
        let Some(priorities) = &self.priorities else { return Ok(()) };
        let mut out = Summed { inner: writer, sum: 0, chunk: Vec::with_capacity(CHUNK_BYTES) };
        out.put(PRIORITIES)?;
        out.put(priorities.highest().to_le_bytes())?;
        out.put((self.kinds.len() as u64).to_le_bytes())?;
        (0..self.kinds.len()).try_for_each(|slot| out.put(priorities.of(slot).to_le_bytes()))?;
        out.finish()
    }

    /// Reads what [`save_priorities`](Self::save_priorities) wrote of a buffer that held the same states in the same rows, and
    /// nothing after it. Without priorities, nothing is read.
    ///
    /// # Errors
    /// [`ReplayError::Saved`] if it is damaged, cut short or of other states; the priorities are as they were then.
    pub fn restore_priorities(&mut self, reader: impl Read) -> Result<(), ReplayError> {
        let Some(priorities) = &self.priorities else { return Ok(()) };
        let mut from = Summing { inner: reader, sum: 0 };
        if from.take()? != PRIORITIES {
            return Err(saved("no priorities stand where they are expected"));
        }
        let highest = f64::from_le_bytes(from.take()?);
        let slots = u64::from_le_bytes(from.take()?);
        if slots != self.kinds.len() as u64 {
            return Err(saved(format!("its priorities are of {slots} states, and there are {}", self.kinds.len())));
        }
        let column = from.column(self.kinds.len(), f64::from_le_bytes)?;
        let sum = from.sum;
        if u32::from_le_bytes(from.take()?) != sum {
            return Err(saved("the checksum of its priorities does not match, so it is damaged"));
        }
        if column.iter().zip(&self.kinds).any(|(priority, kind)| (*priority > 0.0) != kind.is_drawable()) {
            return Err(saved("its priorities are of other states"));
        }
        let restored = Priorities::restored(*priorities.config(), self.config.capacity, highest, &column);
        self.priorities = Some(restored.map_err(|error| saved(error.to_string()))?);
        Ok(())
    }

    /// Refuses what no buffer can hold, so that a forged checkpoint cannot break a later draw.
    fn check(&self) -> Result<(), ReplayError> {
        all_finite("the saved states", &self.states).map_err(|error| saved(error.to_string()))?;
        let capacity = self.config.capacity as u64;
        let oldest = self.written.saturating_sub(capacity);
        let number = |slot: u64| oldest + (slot + capacity - oldest % capacity) % capacity;
        for slot in 0..self.kinds.len() {
            let refuse = |reason: String| saved(format!("slot {slot}: {reason}"));
            self.masks[slot].check(self.config.actions).map_err(|error| refuse(error.to_string()))?;
            let kind = self.kinds[slot];
            if kind.is_drawable() || kind == Kind::TruncatedBlind {
                let played = super::Played {
                    action: u32::from(self.actions[slot]),
                    reward: self.rewards[slot],
                    behaviour_probability: self.behaviour_probabilities[slot],
                };
                self.check_played(slot, played).map_err(|error| refuse(error.to_string()))?;
            }
            let next = self.next[slot];
            let linked = matches!(kind, Kind::Continues | Kind::TruncatedObserved);
            let sound = if linked {
                (next as usize) < self.kinds.len() && number(u64::from(next)) > number(slot as u64)
            } else {
                next == NO_SLOT
            };
            let priority = self.priorities.as_ref().map(|priorities| priorities.of(slot) > 0.0);
            if priority.is_some_and(|above| above != kind.is_drawable()) {
                return Err(refuse("its priority is not that of what it holds".into()));
            }
            if !sound {
                return Err(refuse(format!("its link to slot {next} is wrong")));
            }
        }
        let mut open: Vec<u64> = Vec::new();
        for (index, stream) in self.streams.iter().enumerate() {
            let in_order = match (stream.previous, stream.open) {
                (Some(previous), Some(open)) => previous < open && open < self.written,
                (None, Some(open)) => open < self.written,
                (previous, None) => previous.is_none(),
            };
            let held =
                |number: Option<u64>| number.filter(|number| self.is_held(*number)).map(|number| self.slot(number));
            let fits = in_order
                && held(stream.open).is_none_or(|slot| self.kinds[slot] == Kind::Open)
                && held(stream.previous).is_none_or(|slot| self.kinds[slot] == Kind::Continues);
            if !fits {
                return Err(saved(format!("the open state of stream {index} is wrong")));
            }
            open.extend(stream.open.filter(|number| self.is_held(*number)));
        }
        open.sort_unstable();
        open.dedup();
        if open.len() != self.kinds.iter().filter(|kind| **kind == Kind::Open).count() {
            return Err(saved("its open states and its streams do not match"));
        }
        Ok(())
    }
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        let all =
            [Kind::Open, Kind::Continues, Kind::Terminated, Kind::TruncatedObserved, Kind::TruncatedBlind, Kind::Final];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A writer that sums what passes through.
struct Summed<W> {
    inner: W,
    sum: u32,
    chunk: Vec<u8>,
}

impl<W: Write> Summed<W> {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Result<(), ReplayError> {
        if self.chunk.len() + N > CHUNK_BYTES {
            self.flush_chunk()?;
        }
        self.chunk.extend_from_slice(&bytes);
        Ok(())
    }

    /// Writes the sum behind all that was put.
    fn finish(mut self) -> Result<(), ReplayError> {
        self.flush_chunk()?;
        let sum = self.sum;
        self.put(sum.to_le_bytes())?;
        self.flush_chunk()?;
        self.inner.flush().map_err(writing)
    }

    fn flush_chunk(&mut self) -> Result<(), ReplayError> {
        self.sum = crc32c::crc32c_append(self.sum, &self.chunk);
        self.inner.write_all(&self.chunk).map_err(writing)?;
        self.chunk.clear();
        Ok(())
    }
}

/// A reader that sums what passes through.
struct Summing<R> {
    inner: R,
    sum: u32,
}

impl<R: Read> Summing<R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ReplayError> {
        self.inner.read_exact(bytes).map_err(|cause| match cause.kind() {
            std::io::ErrorKind::UnexpectedEof => saved("it ends early; restore an older checkpoint"),
            _ => ReplayError::Io { action: "read the saved replay buffer", cause },
        })?;
        self.sum = crc32c::crc32c_append(self.sum, bytes);
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ReplayError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn column<const N: usize, T>(&mut self, count: usize, value: impl Fn([u8; N]) -> T) -> Result<Vec<T>, ReplayError> {
        let mut chunk = vec![0; (CHUNK_BYTES / N * N).min(count * N)];
        let mut column = Vec::new();
        while column.len() < count {
            let bytes = ((count - column.len()) * N).min(chunk.len());
            self.fill(&mut chunk[..bytes])?;
            column.extend(chunk[..bytes].as_chunks::<N>().0.iter().map(|bytes| value(*bytes)));
        }
        Ok(column)
    }
}

fn saved(reason: impl Into<String>) -> ReplayError {
    ReplayError::Saved { reason: reason.into() }
}

fn writing(cause: std::io::Error) -> ReplayError {
    ReplayError::Io { action: "write the replay buffer", cause }
}
