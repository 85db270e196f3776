//! One buffer for many threads: collectors append while learners sample.

use super::{Outcome, Played, ReplayBuffer, StreamId};
use crate::{ActionMask, ReplayError};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A handle to a [`ReplayBuffer`] that threads share; clones name the same buffer.
///
/// Every step is taken whole: a learner sees it or does not. Streams keep their order, but how they interleave is up to
/// the threads, so a run that must repeat byte for byte appends from one thread.
///
/// ```
/// use bellwether_replay::{ActionMask, BufferConfig, Outcome, Played, ReplayBuffer, SharedReplay};
/// let shared = SharedReplay::new(ReplayBuffer::new(BufferConfig { width: 1, actions: 2, capacity: 8 })?);
/// let collector = shared.clone();
/// std::thread::spawn(move || {
///     let stream = collector.add_stream()?;
///     collector.begin(stream, &[0.5], ActionMask::all(2))?;
///     collector.append(stream, Played { action: 0, reward: 1.0, behaviour_probability: 1.0 }, Outcome::Terminated)
/// })
/// .join()
/// .unwrap()?;
/// assert_eq!(shared.read()?.transitions(), 1);
/// # Ok::<(), bellwether_replay::ReplayError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SharedReplay {
    buffer: Arc<RwLock<ReplayBuffer>>,
}

impl SharedReplay {
    /// Shares a buffer.
    pub fn new(buffer: ReplayBuffer) -> Self {
        SharedReplay { buffer: Arc::new(RwLock::new(buffer)) }
    }

    /// Adds a stream of episodes, commonly one per collector.
    ///
    /// # Errors
    /// [`ReplayError::Poisoned`] if a thread panicked while it wrote.
    pub fn add_stream(&self) -> Result<StreamId, ReplayError> {
        Ok(self.write()?.add_stream())
    }

    /// See [`ReplayBuffer::begin`].
    ///
    /// # Errors
    /// As there, and [`ReplayError::Poisoned`].
    pub fn begin(&self, stream: StreamId, state: &[f32], mask: ActionMask) -> Result<(), ReplayError> {
        self.write()?.begin(stream, state, mask)
    }

    /// See [`ReplayBuffer::append`].
    ///
    /// # Errors
    /// As there, and [`ReplayError::Poisoned`].
    pub fn append(&self, stream: StreamId, played: Played, outcome: Outcome<'_>) -> Result<(), ReplayError> {
        self.write()?.append(stream, played, outcome)
    }

    /// See [`ReplayBuffer::abandon`].
    ///
    /// # Errors
    /// As there, and [`ReplayError::Poisoned`].
    pub fn abandon(&self, stream: StreamId) -> Result<(), ReplayError> {
        self.write()?.abandon(stream)
    }

    /// The buffer to sample from, to gather rows of, or to save. Drawn rows are overwritten once the guard is gone, so
    /// keep it until they are gathered. Any number of readers hold it at once; collectors wait meanwhile.
    ///
    /// # Errors
    /// [`ReplayError::Poisoned`] if a thread panicked while it wrote.
    pub fn read(&self) -> Result<RwLockReadGuard<'_, ReplayBuffer>, ReplayError> {
        self.buffer.read().map_err(|_| ReplayError::Poisoned)
    }

    fn write(&self) -> Result<RwLockWriteGuard<'_, ReplayBuffer>, ReplayError> {
        self.buffer.write().map_err(|_| ReplayError::Poisoned)
    }
}
