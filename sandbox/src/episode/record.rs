//! Writing an episode down while it happens, on a thread of its own behind a bounded queue.
//!
//! The queue makes whoever fills it wait, and so the sample: nothing that was told is dropped. When the disk is full a reserve
//! is used to end the files in good order, and the episode is told to end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

use bellwether_artifact::ArtifactError;
use bellwether_artifact::durable::DurableFile;
use bellwether_env_adapter::ingest::IngestError;
use bellwether_env_adapter::ingest::telemetry::{TelemetryWriter, WriterOptions};
use bellwether_env_adapter::{EpisodeAttributes, Event, EventBuf, EventSink, StateVector};
use bellwether_replay::ReplayError;

use super::journal::{Journal, Subject};
use super::machine::Transition;
use super::reserve::{Reserve, Reserved};
use super::run::Decision;
use super::trajectory::{Terms, Trajectory};
use crate::stage::{Command, Outcome, Question};

/// Entries that wait to be written at most.
const QUEUE: usize = 4_096;
/// Bytes of a row group of telemetry: what is lost from memory when everything fails.
const ROW_GROUP_BYTES: usize = 4 << 20;
/// Bytes that an episode takes of a disk before it begins, for ending its files on a full one: row groups of both, footers, and what
/// waits in the queue.
pub const RESERVE_BYTES: u64 = 24 << 20;

/// Hears of an episode while it happens, on the recorder's thread.
pub trait Listener: Send {
    /// A step of the episode.
    ///
    /// # Errors
    /// It cannot be kept. The sample is terminated: what is not on record is not done.
    fn transition(&mut self, _transition: &Transition) -> Result<(), String> {
        Ok(())
    }

    /// A decision.
    fn decision(&mut self, _decision: &Decision) {}
}

/// The files of an episode.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Recorded {
    /// Telemetry Parquet.
    pub telemetry: PathBuf,
    /// Its rows.
    pub events: u64,
    /// Played steps, Parquet.
    pub steps: PathBuf,
    /// Its rows.
    pub decisions: u64,
}

/// Why an episode is not recorded, or not in full.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file cannot be had.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// Telemetry cannot be written.
    #[error(transparent)]
    Telemetry(#[from] IngestError),
    /// Steps cannot be written.
    #[error(transparent)]
    Steps(#[from] ReplayError),
    /// The disk has no room for an episode.
    #[error("no {} MiB are free in {} ({cause}): free some space", RESERVE_BYTES >> 20, folder.display())]
    Room {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// Another program has the folder.
    #[error("the episode in {} goes on in another program: wait for its end", folder.display())]
    Taken {
        /// The folder.
        folder: PathBuf,
    },
    /// An earlier episode in the folder was cut off.
    #[error("an episode in {} was cut off: `bellwether recover` makes of it what can be made", folder.display())]
    Unfinished {
        /// The folder.
        folder: PathBuf,
    },
    /// There is no thread for it.
    #[error("no thread for the recorder ({0})")]
    Thread(io::Error),
    /// A listener failed.
    #[error("{0}")]
    Listener(String),
    /// The journal of an episode makes no sense.
    #[error(
        "the journal of the episode makes no sense ({0}): remove the files in its folder whose names begin with a dot"
    )]
    Journal(String),
    /// The disk is full.
    #[error("the disk was full: the episode ended there, and nothing that had happened is lost")]
    Full,
}

/// What the recorder is given. Events are the many and the large.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every entry is an event, and a box for each would be one more allocation"
)]
pub(super) enum Entry {
    Event(EventBuf),
    Decided(Box<Decided>),
    Transition(Box<Transition>),
    /// A stage began, at this time in milliseconds since 1970.
    Began {
        stage: u8,
        ms: u64,
    },
    Outcome(Box<Outcome>),
    /// To be told of when everything before it is written.
    Mark(mpsc::Sender<()>),
    Close {
        attributes_complete: bool,
        decided: bool,
    },
}

/// A decision, with what it rests on.
pub(super) struct Decided {
    pub(super) question: Question,
    pub(super) command: Command,
    pub(super) state: StateVector,
    pub(super) decision: Decision,
}

/// What to write, and where.
pub(super) struct Plan<'a> {
    pub(super) folder: &'a Path,
    pub(super) subject: Subject,
    pub(super) listeners: Vec<Box<dyn Listener>>,
}

/// The near end of the queue.
pub(super) struct Recorder {
    sender: SyncSender<Entry>,
    broken: Arc<AtomicBool>,
    thread: JoinHandle<(Option<Recorded>, Option<RecordError>)>,
}

impl Recorder {
    /// Begins the files of an episode in a folder.
    pub(super) fn start(plan: Plan<'_>) -> Result<Recorder, RecordError> {
        let Plan { folder, subject, listeners } = plan;
        let reserve = Reserve::new(folder, RESERVE_BYTES)
            .map_err(|cause| RecordError::Room { folder: folder.to_path_buf(), cause })?;
        let create =
            |name: &str| DurableFile::create(folder.join(name)).map(|file| Reserved::new(file, reserve.clone()));
        let options = WriterOptions { row_group_bytes: ROW_GROUP_BYTES, ..WriterOptions::default() };
        let mut telemetry = TelemetryWriter::with_options(create("telemetry.parquet")?, options)?;
        let steps = Trajectory::new(create("steps.parquet")?, terms(&subject))?;
        telemetry.begin(&subject.attributes)?;
        let journal = Journal::begin(folder, &subject)?;
        let broken = Arc::new(AtomicBool::new(false));
        let writing =
            Writing { telemetry, steps, journal, reserve, listeners, broken: Arc::clone(&broken), error: None };
        let (sender, entries) = mpsc::sync_channel(QUEUE);
        let thread = thread::Builder::new().name("recorder".to_owned()).spawn(move || writing.write(&entries));
        Ok(Recorder { sender, broken, thread: thread.map_err(RecordError::Thread)? })
    }

    /// Takes an event; false when it, or what comes after it, cannot be kept.
    pub(super) fn event(&self, event: &Event<'_>) -> bool {
        self.sender.send(Entry::Event(EventBuf::from(event))).is_ok() && !self.broken.load(Ordering::Relaxed)
    }

    /// Takes anything else. Whoever cannot take it any more says why at the end.
    pub(super) fn put(&self, entry: Entry) {
        _ = self.sender.send(entry);
    }

    /// Waits until everything so far is kept; false when some of it cannot be.
    pub(super) fn has_kept_all(&self) -> bool {
        let (tell, told) = mpsc::channel();
        self.put(Entry::Mark(tell));
        told.recv().is_ok() && !self.broken.load(Ordering::Relaxed)
    }

    /// Ends the files and gives them their names.
    pub(super) fn close(self, complete: bool, decided: bool) -> (Option<Recorded>, Option<RecordError>) {
        self.put(Entry::Close { attributes_complete: complete, decided });
        drop(self.sender);
        self.thread
            .join()
            .unwrap_or_else(|_| (None, Some(RecordError::Listener("the recorder's thread panicked".to_owned()))))
    }
}

impl RecordError {
    /// Whether it is that the disk, or what its user may have of it, is full.
    pub fn is_full(&self) -> bool {
        match self {
            RecordError::Full => true,
            RecordError::Artifact(ArtifactError::Io { cause, .. })
            | RecordError::Telemetry(IngestError::Stream { cause, .. })
            | RecordError::Room { cause, .. } => {
                matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}

/// What a file of steps is about.
pub(super) fn terms(subject: &Subject) -> Terms<'_> {
    let EpisodeAttributes { episode_id, label, sample_sha256, .. } = &subject.attributes;
    Terms {
        episode: &episode_id.0,
        label: *label,
        reward: &subject.reward,
        window: &subject.window,
        source: format!("sha256:{}", sample_sha256.as_deref().unwrap_or("unknown")),
        policy: subject.policy.clone(),
    }
}

type File = Reserved<DurableFile>;

/// The far end of the queue.
struct Writing {
    telemetry: TelemetryWriter<File>,
    steps: Trajectory<File>,
    journal: Journal,
    reserve: Reserve,
    listeners: Vec<Box<dyn Listener>>,
    broken: Arc<AtomicBool>,
    /// The first thing that went wrong.
    error: Option<RecordError>,
}

impl Writing {
    fn write(mut self, entries: &Receiver<Entry>) -> (Option<Recorded>, Option<RecordError>) {
        let had_room = self.reserve.is_whole();
        while let Some(entry) = self.next(entries) {
            let written = match entry {
                Entry::Event(event) => {
                    self.journal.event(&event.as_event());
                    self.telemetry.event(&event.as_event()).map_err(RecordError::from)
                }
                Entry::Began { stage, ms } => {
                    self.journal.began(stage, ms);
                    Ok(())
                }
                Entry::Outcome(outcome) => {
                    self.journal.outcome(&outcome);
                    Ok(())
                }
                Entry::Decided(decided) => {
                    self.journal.decided(&decided);
                    let Decided { question, command, state, decision } = *decided;
                    self.listeners.iter_mut().for_each(|listener| listener.decision(&decision));
                    let safe_rule = decision.safe_rule.is_some();
                    self.steps.decided(&question, &command, state, safe_rule).map_err(RecordError::from)
                }
                Entry::Transition(transition) => {
                    self.journal.transition(&transition);
                    let mut listeners = self.listeners.iter_mut();
                    let told = listeners.try_for_each(|listener| listener.transition(&transition));
                    told.map_err(RecordError::Listener)
                }
                Entry::Mark(tell) => {
                    self.journal.flush();
                    let stopped = self.journal.stopped();
                    self.note(stopped);
                    _ = tell.send(());
                    Ok(())
                }
                Entry::Close { attributes_complete, decided } => return self.close(attributes_complete, decided),
            };
            let full = had_room && !self.reserve.is_whole();
            self.note(written.and(if full { Err(RecordError::Full) } else { Ok(()) }));
            let stopped = self.journal.stopped();
            self.note(stopped);
        }
        // Whoever fills the queue is gone without a word: what there is, is kept.
        self.close(false, false)
    }

    /// Tells the episode to end where something could not be written. What was told before goes on being written.
    fn note(&mut self, written: Result<(), RecordError>) {
        if let Err(error) = written {
            self.error.get_or_insert(if error.is_full() { RecordError::Full } else { error });
            self.broken.store(true, Ordering::Relaxed);
        }
    }

    /// The next entry. While there is none, nothing of the journal waits in memory.
    fn next(&mut self, entries: &Receiver<Entry>) -> Option<Entry> {
        entries.try_recv().ok().or_else(|| {
            self.journal.flush();
            let stopped = self.journal.stopped();
            self.note(stopped);
            entries.recv().ok()
        })
    }

    fn close(self, complete: bool, decided: bool) -> (Option<Recorded>, Option<RecordError>) {
        // The last bytes may need the room.
        self.reserve.free();
        let complete = complete && self.error.is_none();
        let (error, telemetry, steps) = (self.error, self.telemetry, self.steps);
        match commit(telemetry, steps, complete, decided) {
            Ok(recorded) => {
                // The journal does not know of the error, and on a full disk the reports want its room.
                if error.is_some() {
                    _ = self.journal.remove();
                }
                (Some(recorded), error)
            }
            Err(failed) => (None, error.or(Some(failed))),
        }
    }
}

fn commit(
    mut telemetry: TelemetryWriter<File>,
    steps: Trajectory<File>,
    complete: bool,
    decided: bool,
) -> Result<Recorded, RecordError> {
    telemetry.end(complete)?;
    let (file, summary) = telemetry.finish()?;
    let (steps, decisions) = steps.end(decided, !complete)?;
    let (file, steps) = (file.into_inner(), steps.into_inner());
    let recorded = Recorded {
        telemetry: file.path().to_path_buf(),
        events: summary.events,
        steps: steps.path().to_path_buf(),
        decisions,
    };
    file.commit()?;
    steps.commit()?;
    Ok(recorded)
}
