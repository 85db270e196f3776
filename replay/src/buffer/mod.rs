//! Played experience in a ring: every state is stored once, and transitions are assembled when they are drawn.

mod power;
mod priority;
mod sample;
mod save;
mod shared;

pub use priority::PriorityConfig;
pub use sample::{Draw, SampleSpec, Sampled, Transition};
pub use shared::SharedReplay;

use crate::error::{ReplayError, all_finite};
use crate::{ActionMask, StateRows};
use priority::Priorities;

/// What a [`ReplayBuffer`] is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferConfig {
    /// Elements per state, at least 1.
    pub width: usize,
    /// Number of actions, 1 to 32.
    pub actions: u32,
    /// The most states that are held at once, at least 2; the oldest make room for the newest. An episode of `n` steps
    /// holds `n` states, and one more where it was cut off with its final state observed.
    pub capacity: usize,
}

/// One source of episodes, of which at most one is under way: an environment of many, or a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u32);

/// What was played in the open state of a stream, and what it earned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Played {
    /// Action number; the state's mask allows it.
    pub action: u32,
    /// Reward of the step; finite.
    pub reward: f32,
    /// Probability with which the behaviour policy chose this action in this state, above 0 and at most 1.
    pub behaviour_probability: f32,
}

/// What a step led to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome<'a> {
    /// The episode goes on in this state.
    Continues {
        /// The next state.
        state: &'a [f32],
        /// Its allowed actions.
        mask: ActionMask,
    },
    /// The episode ended by its own rules; nothing is bootstrapped.
    Terminated,
    /// The episode was cut off. Its last step is learned from only where the state that it led to was observed.
    Truncated {
        /// The final state with its allowed actions, where it was observed.
        observed: Option<(&'a [f32], ActionMask)>,
    },
}

/// A ring of played steps of any number of interleaved streams.
///
/// ```
/// use bellwether_replay::{ActionMask, BufferConfig, Outcome, Played, ReplayBuffer, SampleSpec, Sampled};
/// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
/// let mut buffer = ReplayBuffer::new(BufferConfig { width: 1, actions: 2, capacity: 100 })?;
/// let stream = buffer.add_stream();
/// let mask = ActionMask::all(2);
/// buffer.begin(stream, &[0.0], mask)?;
/// let played = Played { action: 1, reward: 1.0, behaviour_probability: 0.5 };
/// buffer.append(stream, played, Outcome::Continues { state: &[1.0], mask })?;
/// buffer.append(stream, played, Outcome::Terminated)?;
///
/// let mut sampled = Sampled::default();
/// let mut rng = ChaCha8Rng::seed_from_u64(7);
/// buffer.sample(&mut rng, 8, &SampleSpec { n_step: 3, gamma: 0.5, ..SampleSpec::default() }, &mut sampled)?;
/// for (row, reward) in sampled.rows.iter().zip(&sampled.rewards) {
///     assert_eq!(*reward, if *row == 0 { 1.5 } else { 1.0 });
/// }
/// assert!(sampled.discounts.iter().all(|discount| *discount == 0.0));
/// # Ok::<(), bellwether_replay::ReplayError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ReplayBuffer {
    config: BufferConfig,
    /// States ever stored; state number `i` lies in slot `i % capacity` until number `i + capacity` takes it.
    written: u64,
    /// Slots whose step can be drawn.
    drawable: u32,
    streams: Vec<Stream>,
    // One entry per slot in use, in each of these columns.
    kinds: Vec<Kind>,
    masks: Vec<ActionMask>,
    actions: Vec<u8>,
    rewards: Vec<f32>,
    behaviour_probabilities: Vec<f32>,
    /// Slot of the successor, or [`NO_SLOT`]. A link leads to a younger state, which outlives the older: it never dangles.
    next: Vec<u32>,
    /// Row-major, `width` values per slot.
    states: Vec<f32>,
    /// Where steps are drawn by their errors.
    priorities: Option<Priorities>,
}

/// The episode that is under way in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stream {
    /// Number of the state in which the next action is played.
    open: Option<u64>,
    /// Number of the state before it, in the same episode.
    previous: Option<u64>,
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// A state whose action is still to be played.
    Open = 0,
    /// A step that leads to the state in `next`.
    Continues = 1,
    /// The last step of an episode that ended by its own rules.
    Terminated = 2,
    /// The last step of an episode that was cut off; its final state is in `next`.
    TruncatedObserved = 3,
    /// The last step of an episode that was cut off, with nothing observed after it: kept as played, never drawn.
    TruncatedBlind = 4,
    /// The final state of an episode that was cut off; nothing was played in it.
    Final = 5,
}

const NO_SLOT: u32 = u32::MAX;

/// Bytes of the columns beside the state, per slot.
const COLUMN_BYTES: u64 = 1 + 4 + 1 + 4 + 4 + 4;

impl ReplayBuffer {
    /// An empty buffer. Memory is taken as it fills.
    ///
    /// # Errors
    /// [`ReplayError::Setting`] on a setting out of range.
    pub fn new(config: BufferConfig) -> Result<Self, ReplayError> {
        config.check()?;
        Ok(ReplayBuffer {
            config,
            written: 0,
            drawable: 0,
            streams: Vec::new(),
            kinds: Vec::new(),
            masks: Vec::new(),
            actions: Vec::new(),
            rewards: Vec::new(),
            behaviour_probabilities: Vec::new(),
            next: Vec::new(),
            states: Vec::new(),
            priorities: None,
        })
    }

    /// An empty buffer whose steps can be drawn by their errors: a new step is as likely as the likeliest, until
    /// [`learn`](Self::learn) tells its error.
    ///
    /// # Errors
    /// [`ReplayError::Setting`] on a setting out of range; [`ReplayError::Memory`] if there is none for the priorities, 32 to
    /// 64 bytes per state of the capacity.
    pub fn with_priorities(config: BufferConfig, priorities: PriorityConfig) -> Result<Self, ReplayError> {
        let mut buffer = Self::new(config)?;
        buffer.priorities = Some(Priorities::new(priorities, config.capacity)?);
        Ok(buffer)
    }

    /// A buffer to which `written` states were written and all of them forgotten: nothing can be drawn, and the next state gets the
    /// number, and so the row, that it would have had.
    ///
    /// # Errors
    /// As [`with_priorities`](Self::with_priorities); [`ReplayError::Memory`] if there is none for the rows.
    pub(crate) fn forgotten(
        config: BufferConfig,
        priorities: Option<PriorityConfig>,
        written: u64,
    ) -> Result<Self, ReplayError> {
        let mut buffer = match priorities {
            None => Self::new(config)?,
            Some(priorities) => Self::with_priorities(config, priorities)?,
        };
        let (state, mask) = (vec![0.0; config.width], ActionMask::all(config.actions as usize));
        for _ in 0..written.min(config.capacity as u64) {
            buffer.push(&state, mask, Kind::Final)?;
        }
        buffer.written = written;
        Ok(buffer)
    }

    /// How errors become priorities, where they do.
    pub fn priority_config(&self) -> Option<&PriorityConfig> {
        self.priorities.as_ref().map(Priorities::config)
    }

    /// Tells the errors of steps that were drawn since the buffer was last written to; the last error of a row that comes
    /// twice holds. Without priorities, nothing happens.
    ///
    /// # Errors
    /// [`ReplayError::Width`] if there are not as many errors as rows, [`ReplayError::NotFinite`] on an error that is not
    /// finite, [`ReplayError::Setting`] on a row that holds no finished step; nothing is changed then.
    pub fn learn(&mut self, rows: &[u32], errors: &[f32]) -> Result<(), ReplayError> {
        let Some(priorities) = &mut self.priorities else { return Ok(()) };
        if rows.len() != errors.len() {
            return Err(ReplayError::Width { what: "a list of errors", expected: rows.len(), found: errors.len() });
        }
        all_finite("an error", errors)?;
        let finished = |row: &&u32| !self.kinds.get(**row as usize).is_some_and(|kind| kind.is_drawable());
        if let Some(row) = rows.iter().find(finished) {
            let reason = "it holds no finished step: tell errors before the buffer is written to";
            return Err(ReplayError::Setting { key: "row", value: row.to_string(), reason });
        }
        for (row, error) in rows.iter().zip(errors) {
            priorities.learn(*row as usize, *error);
        }
        Ok(())
    }

    /// Adds a stream of episodes.
    pub fn add_stream(&mut self) -> StreamId {
        self.streams.push(Stream::default());
        StreamId(self.streams.len() as u32 - 1)
    }

    /// The streams there are, in the order of adding; after a restore, those of the saved buffer.
    pub fn streams(&self) -> impl ExactSizeIterator<Item = StreamId> + use<> {
        (0..self.streams.len() as u32).map(StreamId)
    }

    /// Whether an episode is under way in a stream.
    ///
    /// # Panics
    /// If the stream is not of this buffer.
    pub fn is_open(&self, stream: StreamId) -> bool {
        self.streams[stream.0 as usize].open.is_some()
    }

    /// Starts an episode in its first state.
    ///
    /// # Errors
    /// If one is under way in the stream, and on a state or mask that does not fit; nothing is stored then.
    pub fn begin(&mut self, stream: StreamId, state: &[f32], mask: ActionMask) -> Result<(), ReplayError> {
        if self.stream(stream)?.open.is_some() {
            let reason = "an episode is under way; end it, or abandon it before the next begins";
            return Err(ReplayError::Stream { stream: stream.0, reason });
        }
        self.check_state(state, mask)?;
        let open = self.push(state, mask, Kind::Open)?;
        self.streams[stream.0 as usize] = Stream { open: Some(open), previous: None };
        Ok(())
    }

    /// Records what was played in the open state of a stream, and what came of it. The step can be drawn at once.
    ///
    /// # Errors
    /// If no episode is under way, if its open state was overwritten, and on values that do not fit. Nothing is stored
    /// then, and the stream is as it was.
    pub fn append(&mut self, stream: StreamId, played: Played, outcome: Outcome<'_>) -> Result<(), ReplayError> {
        let Some(open) = self.stream(stream)?.open else {
            return Err(ReplayError::Stream { stream: stream.0, reason: "begin an episode before its steps" });
        };
        let (successor, kind) = match outcome {
            Outcome::Continues { state, mask } => (Some((state, mask, Kind::Open)), Kind::Continues),
            Outcome::Terminated => (None, Kind::Terminated),
            Outcome::Truncated { observed: None } => (None, Kind::TruncatedBlind),
            Outcome::Truncated { observed: Some((state, mask)) } => {
                (Some((state, mask, Kind::Final)), Kind::TruncatedObserved)
            }
        };
        if self.written + u64::from(successor.is_some()) > open + self.config.capacity as u64 {
            return Err(ReplayError::Overwritten { stream: stream.0 });
        }
        let slot = self.slot(open);
        self.check_played(slot, played)?;
        let mut next = NO_SLOT;
        let mut after = Stream::default();
        if let Some((state, mask, kind)) = successor {
            self.check_state(state, mask)?;
            let number = self.push(state, mask, kind)?;
            next = self.slot(number) as u32;
            if kind == Kind::Open {
                after = Stream { open: Some(number), previous: Some(open) };
            }
        }
        self.kinds[slot] = kind;
        self.actions[slot] = played.action as u8;
        self.rewards[slot] = played.reward;
        self.behaviour_probabilities[slot] = played.behaviour_probability;
        self.next[slot] = next;
        if kind.is_drawable() {
            self.drawable += 1;
            if let Some(priorities) = &mut self.priorities {
                priorities.add(slot);
            }
        }
        self.streams[stream.0 as usize] = after;
        Ok(())
    }

    /// Breaks off the episode of a stream in its open state, in which nothing will be played: it becomes the observed
    /// final state of an episode that was cut off, so every step that was played still counts. Without an episode under
    /// way, nothing happens.
    ///
    /// # Errors
    /// [`ReplayError::Stream`] if the stream is not of this buffer.
    pub fn abandon(&mut self, stream: StreamId) -> Result<(), ReplayError> {
        let Stream { open, previous } = self.stream(stream)?;
        for (number, kind) in [(open, Kind::Final), (previous, Kind::TruncatedObserved)] {
            if let Some(number) = number.filter(|number| self.is_held(*number)) {
                let slot = self.slot(number);
                self.kinds[slot] = kind;
            }
        }
        self.streams[stream.0 as usize] = Stream::default();
        Ok(())
    }

    /// Number of states held; never above the capacity.
    pub fn states_held(&self) -> usize {
        self.kinds.len()
    }

    /// Number of steps that can be drawn.
    pub fn transitions(&self) -> usize {
        self.drawable as usize
    }

    /// Number of states ever stored, those since overwritten included.
    pub fn states_written(&self) -> u64 {
        self.written
    }

    /// What the buffer is made of.
    pub fn config(&self) -> &BufferConfig {
        &self.config
    }

    /// Bytes of memory that everything takes now.
    pub fn memory_bytes(&self) -> usize {
        self.states.capacity() * 4
            + self.kinds.capacity() * COLUMN_BYTES as usize
            + self.streams.capacity() * size_of::<Stream>()
            + self.priorities.as_ref().map_or(0, Priorities::memory_bytes)
    }

    fn stream(&self, stream: StreamId) -> Result<Stream, ReplayError> {
        let reason = "it belongs to another buffer; add a stream to this one";
        self.streams.get(stream.0 as usize).copied().ok_or(ReplayError::Stream { stream: stream.0, reason })
    }

    fn slot(&self, number: u64) -> usize {
        (number % self.config.capacity as u64) as usize
    }

    fn is_held(&self, number: u64) -> bool {
        self.written <= number + self.config.capacity as u64
    }

    fn check_state(&self, state: &[f32], mask: ActionMask) -> Result<(), ReplayError> {
        if state.len() != self.config.width {
            return Err(ReplayError::Width { what: "a state", expected: self.config.width, found: state.len() });
        }
        all_finite("a state", state)?;
        mask.check(self.config.actions)
    }

    fn check_played(&self, slot: usize, played: Played) -> Result<(), ReplayError> {
        let Played { action, reward, behaviour_probability } = played;
        if action >= self.config.actions {
            return Err(ReplayError::Action { action, reason: "there is no such action" });
        }
        if !self.masks[slot].allows(action) {
            return Err(ReplayError::Action { action, reason: "the mask of the state forbids it" });
        }
        all_finite("a reward", &[reward])?;
        if !(behaviour_probability > 0.0 && behaviour_probability <= 1.0) {
            return Err(ReplayError::Setting {
                key: "behaviour_probability",
                value: behaviour_probability.to_string(),
                reason: "what was played had a probability above 0 and at most 1",
            });
        }
        Ok(())
    }

    /// Stores a checked state in the next slot, and gives its number.
    fn push(&mut self, state: &[f32], mask: ActionMask, kind: Kind) -> Result<u64, ReplayError> {
        let number = self.written;
        if self.kinds.len() < self.config.capacity {
            self.grow()?;
            self.kinds.push(kind);
            self.masks.push(mask);
            self.actions.push(0);
            self.rewards.push(0.0);
            self.behaviour_probabilities.push(0.0);
            self.next.push(NO_SLOT);
            self.states.extend_from_slice(state);
        } else {
            let slot = self.slot(number);
            if self.kinds[slot].is_drawable() {
                self.drawable -= 1;
                if let Some(priorities) = &mut self.priorities {
                    priorities.remove(slot);
                }
            }
            self.kinds[slot] = kind;
            self.masks[slot] = mask;
            self.actions[slot] = 0;
            self.rewards[slot] = 0.0;
            self.behaviour_probabilities[slot] = 0.0;
            self.next[slot] = NO_SLOT;
            self.states[slot * self.config.width..][..self.config.width].copy_from_slice(state);
        }
        self.written += 1;
        Ok(number)
    }

    /// Makes room for one more slot, doubling up to the capacity and not beyond.
    fn grow(&mut self) -> Result<(), ReplayError> {
        let slots = self.kinds.len();
        if slots < self.kinds.capacity() && slots * self.config.width < self.states.capacity() {
            return Ok(());
        }
        let more = slots.max(64).min(self.config.capacity - slots);
        self.kinds
            .try_reserve_exact(more)
            .and_then(|()| self.masks.try_reserve_exact(more))
            .and_then(|()| self.actions.try_reserve_exact(more))
            .and_then(|()| self.rewards.try_reserve_exact(more))
            .and_then(|()| self.behaviour_probabilities.try_reserve_exact(more))
            .and_then(|()| self.next.try_reserve_exact(more))
            .and_then(|()| self.states.try_reserve_exact(more * self.config.width))
            .map_err(|_| ReplayError::Memory {
                what: "the replay buffer",
                bytes: (slots + more) as u64 * self.config.state_bytes(),
            })
    }
}

impl StateRows for ReplayBuffer {
    fn len(&self) -> usize {
        self.kinds.len()
    }
    fn width(&self) -> usize {
        self.config.width
    }
    /// Writes the state in slot `row`.
    fn gather(&self, row: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.states[row * self.config.width..(row + 1) * self.config.width]);
    }
}

impl BufferConfig {
    /// Bytes that a full buffer takes.
    pub fn bytes(&self, prioritised: bool) -> u64 {
        let tree = if prioritised { Priorities::bytes(self.capacity) } else { 0 };
        self.capacity as u64 * self.state_bytes() + tree
    }

    /// The same with the largest capacity at which a full buffer takes at most so many bytes; 0 where there is room for nothing.
    pub fn within(self, bytes: u64, prioritised: bool) -> BufferConfig {
        let capacity_of = |bytes: u64| usize::try_from(bytes / self.state_bytes()).unwrap_or(usize::MAX);
        let mut capacity = capacity_of(bytes).min(NO_SLOT as usize - 1);
        if prioritised {
            // The tree has a power of two of leaves, so fewer leaves may let more states in.
            let of_leaves = |leaves: usize| leaves.min(capacity_of(bytes.saturating_sub(Priorities::bytes(leaves))));
            let sizes = (0..=NO_SLOT.ilog2()).map(|power| of_leaves(1 << power));
            capacity = sizes.max().unwrap_or(0).min(capacity);
        }
        BufferConfig { capacity, ..self }
    }

    /// Bytes of a state with all that stands beside it but its priority.
    fn state_bytes(&self) -> u64 {
        self.width as u64 * 4 + COLUMN_BYTES
    }

    fn check(&self) -> Result<(), ReplayError> {
        let refuse = |key, value: usize, reason| Err(ReplayError::Setting { key, value: value.to_string(), reason });
        if self.width == 0 || self.width > crate::StateStore::MAX_WIDTH {
            return refuse("width", self.width, "a state has 1 to 65,535 elements");
        }
        if self.actions == 0 || self.actions as usize > ActionMask::MAX_ACTIONS {
            return refuse("actions", self.actions as usize, "there are 1 to 32 actions");
        }
        if self.capacity < 2 || self.capacity >= NO_SLOT as usize {
            return refuse("capacity", self.capacity, "a step needs its state and the next; 2 to 4,294,967,294 states");
        }
        Ok(())
    }
}

impl StreamId {
    /// Its number: 0, 1, 2, ... in the order of adding.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl Kind {
    fn is_drawable(self) -> bool {
        matches!(self, Kind::Continues | Kind::Terminated | Kind::TruncatedObserved)
    }
}
