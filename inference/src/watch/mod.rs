//! Hot reload: a thread that watches a source of releases and brings what is wanted into a [`Policy`] that goes on deciding.
//!
//! A [`Source`] says which release is wanted. It is read once, checked from end to end in memory, optionally compared with the
//! champion on states that are being decided ([`ShadowOptions`]), and swapped in. For a while after that it is compared with the
//! model before it ([`WindowOptions`]), and taken back by itself when it computes what is no number, decides too differently or
//! too slowly. What is refused changes nothing, is told once, and is looked at again when its files change.
//!
//! Whoever operates the policy has the last word: what was rolled back is not brought again, nothing is swapped while the
//! champion is pinned, and a model that was swapped in by hand stays until the source wants something new. With a
//! [memory](WatchOptions::memory) that word outlives the program.
//!
//! The thread looks at files by name every second. It is not told of changes by the system, because that does not work on
//! network file systems, where releases often lie; a look is four calls of `stat`.

mod counts;
mod first;
mod keeper;
mod memory;
mod options;
mod reading;
mod reason;
mod source;
mod trial;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::policy::{ModelId, Policy, PolicyError};
use keeper::Keeper;
use memory::Memory;

pub use counts::Counts;
pub use first::open;
pub use options::{OptionError, WatchOptions};
pub use reason::{Reason, Refusal};
pub use source::{FolderSource, Source, SourceError, VersionPolicy, Wanted};
pub use trial::{ShadowOptions, TrialStatus, WindowOptions};

/// A thread that keeps a policy at what a source wants. It ends when this is dropped.
#[derive(Debug)]
pub struct Watcher {
    policy: Policy,
    board: Arc<Board>,
    events: Sender<Event>,
    thread: Option<JoinHandle<()>>,
}

/// What a watcher is about, as an operator wants to see it.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchStatus {
    /// What is watched, for people.
    pub source: String,
    /// What the source wanted when it was last asked.
    pub wanted: Option<Wanted>,
    /// What is served now.
    pub serving: ModelId,
    /// Why what is wanted is neither served nor refused yet.
    pub pending: Option<Pending>,
    /// The last refusal or automatic rollback, until a later model is swapped in.
    pub last_refusal: Option<Refusal>,
    /// The comparison before a swap, while it lasts.
    pub shadow: Option<TrialStatus>,
    /// The comparison after a swap, while it lasts.
    pub window: Option<TrialStatus>,
    /// Why what a restart must know is not written down, while it is not.
    pub unwritten: Option<String>,
}

/// Why a watcher waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// The source wants nothing: no name was moved, no release is complete.
    Nothing,
    /// Files are missing or seem to be on their way.
    Incomplete(String),
    /// The champion is pinned.
    Pinned,
}

/// Why there is no first model, or no watcher.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The source could not say what is wanted.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The source wants nothing.
    #[error("{source_name} holds no release to serve: publish one first")]
    Nothing {
        /// What was asked.
        source_name: String,
    },
    /// What is wanted is refused.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// There is no such release.
    #[error("{source_name} has no release that is {which}: list what it holds")]
    Absent {
        /// What was asked.
        source_name: String,
        /// What was asked for.
        which: VersionPolicy,
    },
    /// What is to be tried decides everything already.
    #[error("{} is the champion already: try another model", .0.version)]
    Champion(ModelId),
    /// The policy refuses.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The thread that watches is gone.
    #[error("the thread that watches is gone: start the program again")]
    Ended,
    /// An option says what no watcher can or should do.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The file of what a restart must know cannot be used.
    #[error("{}: {reason}", path.display())]
    Memory {
        /// Where it lies.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// The system starts no thread.
    #[error("cannot start the thread that watches: {0}")]
    Thread(io::Error),
}

/// Everything that can happen to a watcher beside the passing of time.
enum Event {
    /// Look at once, and say when it is done.
    Check(SyncSender<()>),
    /// Forget refusals and rollbacks, look, and say when it is done.
    Forgive(SyncSender<()>),
    /// Put this release on trial in this share of the episodes, and say what came of it.
    TryOut(VersionPolicy, f64, SyncSender<Result<ModelId, WatchError>>),
    /// Write down what a restart must know, and say when it is done.
    WriteDown(SyncSender<()>),
    Stop,
}

/// What the thread shows to others.
#[derive(Debug)]
struct Board {
    shown: Mutex<(WatchStatus, Counts)>,
}

impl fmt::Display for Pending {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pending::Nothing => out.write_str("the source wants nothing"),
            Pending::Incomplete(what) => write!(out, "waiting for the release to be complete: {what}"),
            Pending::Pinned => out.write_str("the champion is pinned"),
        }
    }
}

impl Watcher {
    /// Starts to watch. The first look comes at once; nothing waits for it. Where there is a [memory](WatchOptions::memory), what
    /// was rolled back before is taken back from it, and a pin if `policy` serves the model that was pinned.
    ///
    /// # Errors
    /// [`WatchError::Option`], [`WatchError::Thread`], and [`WatchError::Memory`] where it cannot be read and written.
    pub fn start(policy: Policy, source: impl Source + 'static, options: WatchOptions) -> Result<Watcher, WatchError> {
        options.validate()?;
        let (poll, step) = (options.poll, options.step);
        let memory = options.memory.as_deref().map(Memory::read).transpose()?.flatten();
        let mut keeper = Keeper::new(policy.clone(), Box::new(source), options, memory);
        keeper.write_down();
        keeper.check_written()?;
        let board = Arc::new(Board { shown: Mutex::new(keeper.show(Instant::now())) });
        let (events, inbox) = mpsc::channel();
        let shown = Arc::clone(&board);
        let thread = thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || watch(keeper, &inbox, &shown, poll, step))
            .map_err(WatchError::Thread)?;
        Ok(Watcher { policy, board, events, thread: Some(thread) })
    }

    /// What it is about. The model that is served is that of this moment, the rest that of the last look.
    pub fn status(&self) -> WatchStatus {
        let mut status = self.board.read().0.clone();
        status.serving = self.policy.status().champion;
        status
    }

    /// What came of all reloads since the start.
    pub fn counts(&self) -> Counts {
        self.board.read().1.clone()
    }

    /// Looks at the source at once and returns when that is done. What was refused and has not changed stays refused.
    pub fn check_now(&self) -> WatchStatus {
        self.ask(Event::Check)
    }

    /// Forgets what was refused and what was rolled back, so that it may be brought again, and looks at once.
    pub fn forgive(&self) -> WatchStatus {
        self.ask(Event::Forgive)
    }

    /// Writes down what a restart must know, where that is asked for, and returns when it is done or [known](WatchStatus::unwritten)
    /// to have failed. The watcher does so by itself after every look; this is for who changed the policy by hand and has to be sure.
    pub fn write_down(&self) {
        self.tell(Event::WriteDown);
    }

    /// Serves another release of the source to a `share` of the episodes, above 0 and at most 1, in the place of the canary before:
    /// read once and checked like a new champion. A version that was rolled back may be tried, and a pin does not matter. Returns
    /// what is on trial.
    ///
    /// Until it ends the trial is looked after: a canary that computes what is no number is withdrawn at the next look.
    ///
    /// # Errors
    /// [`WatchError`]; what is served stays as it is.
    pub fn try_out(&self, which: VersionPolicy, share: f64) -> Result<ModelId, WatchError> {
        let (done, answer) = mpsc::sync_channel(1);
        let sent = self.events.send(Event::TryOut(which, share, done));
        // A thread that is gone drops the sender, which ends the wait.
        sent.ok().and_then(|()| answer.recv().ok()).unwrap_or(Err(WatchError::Ended))
    }

    /// Whether the thread is there. It ends by [dropping](Drop) the watcher alone, unless something is wrong with the program.
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn ask(&self, event: impl FnOnce(SyncSender<()>) -> Event) -> WatchStatus {
        self.tell(event);
        self.status()
    }

    /// Waits until the thread has done as told.
    fn tell(&self, event: impl FnOnce(SyncSender<()>) -> Event) {
        let (done, answer) = mpsc::sync_channel(1);
        if self.events.send(event(done)).is_ok() {
            // A thread that is gone drops the sender, which ends the wait.
            let _ = answer.recv();
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Board {
    fn read(&self) -> MutexGuard<'_, (WatchStatus, Counts)> {
        // It is replaced whole.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread: the one owner of all that a watcher knows.
fn watch(mut keeper: Keeper, inbox: &Receiver<Event>, board: &Board, poll: Duration, step: Duration) {
    let mut next_look = Instant::now();
    loop {
        let now = Instant::now();
        if now >= next_look {
            keeper.look(now);
            next_look = now + poll;
        }
        keeper.compare(now);
        keeper.write_down();
        *board.read() = keeper.show(now);
        let until_look = next_look.saturating_duration_since(Instant::now());
        let wait = if keeper.is_comparing() { until_look.min(step) } else { until_look };
        let done = match inbox.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => continue,
            Ok(Event::Check(done)) => {
                keeper.look(Instant::now());
                done
            }
            Ok(Event::Forgive(done)) => {
                keeper.forgive();
                keeper.look(Instant::now());
                done
            }
            Ok(Event::WriteDown(done)) => done,
            Ok(Event::TryOut(which, share, answer)) => {
                let tried = keeper.try_out(&which, share);
                *board.read() = keeper.show(Instant::now());
                let _ = answer.send(tried);
                continue;
            }
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => break,
        };
        let now = Instant::now();
        keeper.compare(now);
        keeper.write_down();
        *board.read() = keeper.show(now);
        let _ = done.send(());
    }
    keeper.end();
}
