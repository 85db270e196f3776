//! Rows of episode files as steps of a buffer.

use super::End;
use crate::{ActionMask, Outcome, Played, ReplayBuffer, ReplayError, StreamId};

/// Plays the rows of whole episodes, one after the other, into a stream of a buffer. Every row stores one state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Player {
    stream: StreamId,
    /// The step that waits for the state that it led to.
    waiting: Option<Played>,
}

impl Player {
    /// A player into a stream in which no episode is under way.
    pub fn new(stream: StreamId) -> Player {
        Player { stream, waiting: None }
    }

    /// Plays the next row. A step whose successor was not observed is kept, and never drawn.
    ///
    /// # Errors
    /// As [`ReplayBuffer::append`].
    pub fn play(
        &mut self,
        buffer: &mut ReplayBuffer,
        state: &[f32],
        mask: ActionMask,
        played: Option<Played>,
        end: Option<End>,
    ) -> Result<(), ReplayError> {
        match self.waiting.take() {
            Some(before) => buffer.append(self.stream, before, Outcome::Continues { state, mask })?,
            None => buffer.begin(self.stream, state, mask)?,
        }
        match (played, end) {
            (None, _) => buffer.abandon(self.stream),
            (Some(played), None) => {
                self.waiting = Some(played);
                Ok(())
            }
            (Some(played), Some(End::Terminated)) => buffer.append(self.stream, played, Outcome::Terminated),
            (Some(played), Some(End::Truncated)) => {
                buffer.append(self.stream, played, Outcome::Truncated { observed: None })
            }
        }
    }
}
