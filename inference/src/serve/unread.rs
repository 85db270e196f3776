//! Answers that their clients do not take.
//!
//! HTTP/2 lets a peer hold an answer back for as long as it likes. Meanwhile the body of the answer is asked for nothing, so that no
//! timer in it runs; the task around the body has one.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::rt::Executor;
use tokio::time::{Sleep, sleep};

use super::shared::{Shared, Slot};

/// Runs the tasks of requests, and ends those whose answers are not taken in time.
#[derive(Clone, Debug)]
pub(super) struct Impatient {
    pub(super) shared: Arc<Shared>,
}

/// What a poll of the task at hand came upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Neither a service nor the body of an answer had its turn, or the service is not done.
    Nothing,
    /// Something for the client to take.
    Ready {
        /// Whether the answer is one of a stream.
        stream: bool,
    },
    /// The body waits for what is to be said next.
    Waiting,
}

thread_local! {
    static SEEN: Cell<Seen> = const { Cell::new(Seen::Nothing) };
}

/// How long the client of one task has kept it waiting.
#[derive(Debug, Default)]
struct Patience {
    /// The last thing that was ready for the client.
    ready: Option<Seen>,
    /// From when it was not taken at once.
    held_back: Option<HeldBack>,
}

#[derive(Debug)]
struct HeldBack {
    until: Pin<Box<Sleep>>,
    _slot: Option<Slot>,
}

impl Seen {
    /// Tells the task that polls, if one does.
    pub(super) fn tell(self) {
        SEEN.set(self);
    }
}

impl<T: Future<Output = ()> + Send + 'static> Executor<T> for Impatient {
    fn execute(&self, task: T) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let mut task = pin!(task);
            let mut patience = Patience::default();
            std::future::poll_fn(|cx| {
                SEEN.set(Seen::Nothing);
                if task.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                // Dropping the task resets the stream.
                patience.is_over(SEEN.get(), &shared, cx)
            })
            .await;
        });
    }
}

impl Patience {
    /// Whether a task that waits, and was seen to do this, has waited for its client too long.
    fn is_over(&mut self, seen: Seen, shared: &Arc<Shared>, cx: &mut Context<'_>) -> Poll<()> {
        match (seen, self.ready) {
            // It may wait for the client again, which is what it did not do just now.
            (Seen::Waiting, _) => {
                self.ready = Some(self.ready.unwrap_or(Seen::Ready { stream: true }));
                self.held_back = None;
                return Poll::Pending;
            }
            (Seen::Nothing, None) => return Poll::Pending,
            (Seen::Nothing, Some(_)) => (),
            (Seen::Ready { .. }, _) => {
                self.ready = Some(seen);
                self.held_back = None;
            }
        }
        if self.held_back.is_none() {
            // Streams have slots of their own for as long as they last. Others gave theirs back when they were answered.
            let slot = if self.ready == Some(Seen::Ready { stream: false }) {
                let Some(slot) = shared.take(|shared| &shared.unread) else { return Poll::Ready(()) };
                Some(slot)
            } else {
                None
            };
            self.held_back = Some(HeldBack { until: Box::pin(sleep(shared.config.times.write())), _slot: slot });
        }
        match &mut self.held_back {
            Some(HeldBack { until, .. }) => until.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}
