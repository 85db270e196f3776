//! Decisions on disk: one JSON object a line, written by a thread of its own.
//!
//! A decision never waits for the log. What does not fit into the queue is left out and counted.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};
use std::{io, iter};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::chain::Chain;
use super::log_file::{LogFile, LogFileError, Rotation};
use super::metrics::role_name;
use crate::Answer;
use crate::policy::{ModelId, Role};

/// What of the decisions is logged, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionLogConfig {
    /// The file; it and those that were put aside are for its owner alone.
    pub path: PathBuf,
    /// One decision of so many is logged; 1 logs all.
    #[serde(default = "all")]
    pub one_in: NonZeroU32,
    /// Whether the states go with the decisions. They are by far the largest part, and say much about what was run.
    #[serde(default)]
    pub states: bool,
    /// Decisions that can wait for the disk.
    #[serde(default = "queue")]
    pub queue: usize,
    /// When a file is put aside.
    #[serde(default)]
    pub rotation: Rotation,
}

/// The right to log decisions. Clones log into the same file.
#[derive(Clone, Debug)]
pub struct DecisionLog {
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
}

/// The thread that writes. Dropping it ends it, after it has written what waits, as long as that takes ten seconds at most.
#[derive(Debug)]
pub struct DecisionLogWriter {
    thread: Option<JoinHandle<()>>,
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
}

/// Where in an episode a decision falls, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place<'a> {
    /// Name of the episode.
    pub episode: Option<&'a str>,
    /// Its number, by which a canary is chosen.
    pub episode_number: Option<u64>,
    /// Stage of the sandbox, from 1.
    pub stage: Option<u32>,
    /// Window of the stage, from 0.
    pub window: Option<u64>,
}

/// What became of the decisions since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecisionLogCounts {
    /// Decisions in the file.
    pub written: u64,
    /// Decisions that found the queue full, or came after the end.
    pub dropped: u64,
    /// Decisions that the system did not take.
    pub failed: u64,
}

/// Why decisions cannot be logged.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DecisionLogError {
    /// The queue is empty or larger than what memory should be given to it.
    #[error("the queue of the decision log holds {found} decisions: give from 1 to {limit}")]
    Queue {
        /// What was asked for.
        found: usize,
        /// The largest that is taken.
        limit: usize,
    },
    /// The file was not opened.
    #[error(transparent)]
    File(#[from] LogFileError),
    /// The system gave no thread.
    #[error("cannot start the thread of the decision log: let the service have more threads or memory")]
    Thread(#[source] io::Error),
}

#[derive(Debug)]
struct Shared {
    one_in: NonZeroU32,
    states: bool,
    actions: Box<[String]>,
    seen: AtomicU64,
    /// Decisions whose turn it was.
    offered: AtomicU64,
    written: AtomicU64,
    /// Those that found the queue full. Of what came too late for the thread nobody else knows.
    refused: AtomicU64,
    failed: AtomicU64,
    ending: AtomicBool,
    ended: AtomicBool,
}

/// What the thread is told.
#[derive(Debug)]
enum Message {
    Write(Record),
    /// Look whether to end.
    Wake,
}

/// A decision on its way to the file.
#[derive(Debug)]
struct Record {
    time: SystemTime,
    episode: Option<Box<str>>,
    episode_number: Option<u64>,
    stage: Option<u32>,
    window: Option<u64>,
    action: usize,
    q_values: Box<[f32]>,
    margin: Option<f32>,
    certified: bool,
    bound: f32,
    model: ModelId,
    role: Role,
    state: Option<Box<[f32]>>,
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    episode: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    episode_number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<u64>,
    action: &'a str,
    action_number: usize,
    q_values: &'a [f32],
    margin: Option<f32>,
    certified: bool,
    bound: f32,
    model_version: String,
    model_number: Option<u32>,
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a [f32]>,
}

/// Where lines go.
trait Lines: Send + 'static {
    fn append(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()>;
}

impl Lines for LogFile {
    fn append(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()> {
        LogFile::append(self, lines, now)?;
        if let Some(error) = self.stuck() {
            tracing::warn!(error = %Chain(&error), "the decision log cannot be put aside, and grows");
        }
        Ok(())
    }
}

fn all() -> NonZeroU32 {
    NonZeroU32::MIN
}

fn queue() -> usize {
    8_192
}

impl DecisionLogConfig {
    /// Largest queue.
    pub const MAX_QUEUE: usize = 1 << 20;

    /// Every decision to `path`, without states.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        DecisionLogConfig {
            path: path.into(),
            one_in: all(),
            states: false,
            queue: queue(),
            rotation: Rotation::default(),
        }
    }

    /// Refuses limits that make no sense, before any file is touched.
    ///
    /// # Errors
    /// The field that is out of range.
    pub fn check(&self) -> Result<(), DecisionLogError> {
        if self.queue == 0 || self.queue > Self::MAX_QUEUE {
            return Err(DecisionLogError::Queue { found: self.queue, limit: Self::MAX_QUEUE });
        }
        Ok(self.rotation.check()?)
    }
}

impl DecisionLog {
    /// Opens the log and starts its thread. `actions` are the names of the actions, by number.
    ///
    /// # Errors
    /// Limits out of range, or a file or a thread that the system refuses.
    pub fn start(
        config: &DecisionLogConfig,
        actions: &[String],
    ) -> Result<(DecisionLog, DecisionLogWriter), DecisionLogError> {
        config.check()?;
        let file = LogFile::open(&config.path, config.rotation, now())?;
        start(config, actions, file)
    }

    /// Logs a decision, where it is its turn, with the time of now. Never waits.
    pub fn record(&self, place: Place<'_>, state: &[f32], answer: &Answer<'_>) {
        let shared = &self.shared;
        let turn = shared.seen.fetch_add(1, Ordering::Relaxed);
        if !turn.is_multiple_of(u64::from(shared.one_in.get())) {
            return;
        }
        shared.offered.fetch_add(1, Ordering::Relaxed);
        let decision = answer.decision;
        let record = Record {
            time: now(),
            episode: place.episode.map(Into::into),
            episode_number: place.episode_number,
            stage: place.stage,
            window: place.window,
            action: decision.action,
            q_values: decision.q_values.into(),
            margin: decision.margin,
            certified: decision.certified,
            bound: decision.bound,
            model: answer.model,
            role: answer.role,
            state: shared.states.then(|| state.into()),
        };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.sender.try_send(Message::Write(record))
        {
            shared.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What became of the decisions so far.
    pub fn counts(&self) -> DecisionLogCounts {
        self.shared.counts()
    }
}

impl DecisionLogWriter {
    /// Writes what waits, closes the file and says what became of the decisions. What is logged from now on is dropped, and so is
    /// what the disk does not take `within` this time: its thread is then left behind.
    pub fn finish(mut self, within: Duration) -> DecisionLogCounts {
        self.end(within);
        self.shared.counts()
    }

    fn end(&mut self, within: Duration) {
        const LOOK: Duration = Duration::from_millis(5);
        let Some(thread) = self.thread.take() else { return };
        self.shared.ending.store(true, Ordering::Release);
        // A full queue needs no waking: the thread looks when it has emptied it.
        let _ = self.sender.try_send(Message::Wake);
        let began = Instant::now();
        while !thread.is_finished() && began.elapsed() < within {
            thread::sleep(LOOK);
        }
        let stuck = !thread.is_finished();
        // Of what a thread that is stuck still writes, nobody hears any more.
        let panicked = !stuck && thread.join().is_err();
        self.shared.ended.store(true, Ordering::Release);
        let lost = self.shared.counts().dropped;
        if stuck {
            tracing::error!(
                lost,
                "the disk does not take the decision log in time: what waited for it is lost; mend the disk"
            );
        } else if panicked {
            tracing::error!(lost, "the thread of the decision log panicked; what waited for it is lost");
        }
    }
}

impl Drop for DecisionLogWriter {
    fn drop(&mut self) {
        self.end(LAST);
    }
}

impl Shared {
    fn counts(&self) -> DecisionLogCounts {
        let [written, failed, refused] =
            [&self.written, &self.failed, &self.refused].map(|count| count.load(Ordering::Relaxed));
        let dropped = if self.ended.load(Ordering::Acquire) {
            self.offered.load(Ordering::Relaxed).saturating_sub(written + failed)
        } else {
            refused
        };
        DecisionLogCounts { written, dropped, failed }
    }
}

#[expect(clippy::disallowed_methods, reason = "a log tells the time; no decision depends on it")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn start(
    config: &DecisionLogConfig,
    actions: &[String],
    lines: impl Lines,
) -> Result<(DecisionLog, DecisionLogWriter), DecisionLogError> {
    let (sender, receiver) = sync_channel(config.queue);
    let shared = Arc::new(Shared {
        one_in: config.one_in,
        states: config.states,
        actions: actions.into(),
        seen: AtomicU64::new(0),
        offered: AtomicU64::new(0),
        written: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        ending: AtomicBool::new(false),
        ended: AtomicBool::new(false),
    });
    let owned = Arc::clone(&shared);
    let builder = thread::Builder::new().name("decision-log".to_owned());
    let thread = builder.spawn(move || write(&receiver, &owned, lines)).map_err(DecisionLogError::Thread)?;
    let log = DecisionLog { sender: sender.clone(), shared: Arc::clone(&shared) };
    Ok((log, DecisionLogWriter { thread: Some(thread), sender, shared }))
}

/// How long the thread sleeps at most before it looks whether it should end, in case that nothing woke it.
const NAP: Duration = Duration::from_secs(1);

/// How long a log that is merely dropped may take to write what waits.
const LAST: Duration = Duration::from_secs(10);

/// Bytes that are written at once, when there are so many.
const CHUNK: usize = 64 << 10;

/// Writes until the log ends and nothing waits.
fn write(receiver: &Receiver<Message>, shared: &Shared, mut lines: impl Lines) {
    // Decisions that were lost since one was written.
    let (mut chunk, mut lost) = (Vec::new(), 0);
    loop {
        let first = if shared.ending.load(Ordering::Acquire) {
            receiver.try_recv().ok()
        } else {
            match receiver.recv_timeout(NAP) {
                Err(RecvTimeoutError::Timeout) => continue,
                received => received.ok(),
            }
        };
        let Some(first) = first else { return };
        chunk.clear();
        let mut count = 0;
        for message in iter::once(first).chain(iter::from_fn(|| receiver.try_recv().ok())) {
            // What wakes says nothing more.
            if let Message::Write(record) = message {
                record.write_to(&mut chunk, &shared.actions);
                count += 1;
            }
            if chunk.len() >= CHUNK {
                break;
            }
        }
        if count == 0 {
            continue;
        }
        match lines.append(&chunk, now()) {
            Ok(()) => {
                shared.written.fetch_add(count, Ordering::Relaxed);
                if lost > 0 {
                    tracing::warn!(lost, "decisions are logged again");
                }
                lost = 0;
            }
            Err(error) => {
                shared.failed.fetch_add(count, Ordering::Relaxed);
                // Said once, and again after it had worked in between: the counter says how often.
                if lost == 0 {
                    let error = Chain(&error);
                    tracing::error!(%error, "decisions are not logged until they can be: make room or mend the disk");
                }
                lost += count;
            }
        }
    }
}

impl Record {
    fn write_to(&self, out: &mut Vec<u8>, actions: &[String]) {
        let line = Line {
            time: humantime::format_rfc3339_micros(self.time).to_string(),
            episode: self.episode.as_deref(),
            episode_number: self.episode_number,
            stage: self.stage,
            window: self.window,
            action: actions.get(self.action).map_or("", String::as_str),
            action_number: self.action,
            q_values: &self.q_values,
            margin: self.margin,
            certified: self.certified,
            bound: self.bound,
            model_version: self.model.version.to_string(),
            model_number: self.model.number,
            role: role_name(self.role),
            state: self.state.as_deref(),
        };
        // Nothing in a line can fail to be written as JSON, and memory does not refuse bytes.
        if serde_json::to_writer(&mut *out, &line).is_ok() {
            out.push(b'\n');
        }
    }
}
