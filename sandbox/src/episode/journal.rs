//! A second copy of an episode while it happens, in lines: Parquet can be read when it is whole, lines whenever their writer was
//! killed. It goes when the files of the episode have their names.
//!
//! What was told before a decision is in the journal before that decision is told. A power cut may take what the system still held.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bellwether_artifact::durable::{self, DurableFile};
use bellwether_artifact::{ArtifactError, JsonLines, JsonLinesReader};
use bellwether_env_adapter::ingest::{JsonlWriter, Options, QualityReport, TelemetryWriter, read_jsonl};
use bellwether_env_adapter::reward::Toll;
use bellwether_env_adapter::spec::WIDTH;
use bellwether_env_adapter::{EpisodeAttributes, Event, EventSink, RewardConfig, StateVector, WindowConfig};
use serde::{Deserialize, Serialize};

use super::machine::{Happening, Machine, Transition};
use super::record::{Decided, RecordError, Recorded, terms};
use super::retry::Schedule;
use super::run::{Decision, Report};
use super::trajectory::Trajectory;
use crate::stage::{Command, Question};

/// Writes it.
pub(super) struct Journal {
    folder: PathBuf,
    events: JsonlWriter<Held>,
    held: Held,
    steps: JsonLines,
    /// It could not be written any more, and is gone.
    stopped: bool,
}

/// What an episode is about, as far as its files tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subject {
    pub(super) attributes: EpisodeAttributes,
    pub(super) stages: u8,
    pub(super) schedule: Schedule,
    pub(super) reward: RewardConfig,
    pub(super) window: WindowConfig,
    pub(super) policy: Option<String>,
}

/// A line of the steps.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Begun(Box<Subject>),
    Decided(Box<DecidedLine>),
    Transition(Box<Transition>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DecidedLine {
    command: Command,
    decision: Decision,
    harm: [f32; 4],
    breakage: [f32; 4],
    /// Elements of the state that are not 0, in base64: of each its place and its value, 2 and 4 bytes, little-endian.
    state: String,
}

/// Bytes on their way to a file, for the writer of lines and for whoever hands them on.
#[derive(Clone)]
struct Held(Arc<Mutex<Waiting>>);

struct Waiting {
    file: File,
    bytes: Vec<u8>,
}

const EVENTS: &str = "events.jsonl";
const STEPS: &str = "steps.jsonl";
/// Bytes of events that wait for the file.
const HELD_BYTES: usize = 64 << 10;

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{}{name}", durable::TEMPORARY_PREFIX))
}

impl Journal {
    /// Begins the journal of an episode in its folder.
    pub(super) fn begin(folder: &Path, subject: &Subject) -> Result<Journal, RecordError> {
        let to = path(folder, EVENTS);
        let file = File::options().append(true).create_new(true).open(&to);
        let file = file.map_err(|cause| ArtifactError::io("create", &to, cause))?;
        let held = Held(Arc::new(Mutex::new(Waiting { file, bytes: Vec::new() })));
        let mut events = JsonlWriter::new(held.clone());
        // Whoever reads it back reads of a run that was cut off.
        events.begin(&EpisodeAttributes { complete: false, ..subject.attributes.clone() })?;
        let mut steps = JsonLines::create(path(folder, STEPS))?;
        steps.append(&Line::Begun(Box::new(subject.clone())))?;
        Ok(Journal { folder: folder.to_owned(), events, held, steps, stopped: false })
    }

    pub(super) fn event(&mut self, event: &Event<'_>) {
        self.write(|journal| journal.events.event(event).map_err(RecordError::from));
    }

    pub(super) fn decided(&mut self, decided: &Decided) {
        let Decided { question, command, state, decision } = decided;
        let line = DecidedLine {
            command: command.clone(),
            decision: decision.clone(),
            harm: question.toll.harm,
            breakage: question.toll.breakage,
            state: sparse(state),
        };
        self.flush();
        self.write(|journal| journal.steps.append(&Line::Decided(Box::new(line))).map_err(RecordError::from));
    }

    pub(super) fn transition(&mut self, transition: &Transition) {
        let line = Line::Transition(Box::new(transition.clone()));
        self.write(|journal| journal.steps.append(&line).map_err(RecordError::from));
    }

    /// Hands what waits to the system.
    pub(super) fn flush(&mut self) {
        self.write(|journal| {
            let flushed = journal.held.flush();
            flushed.map_err(|cause| ArtifactError::io("write", &path(&journal.folder, EVENTS), cause).into())
        });
    }

    /// Removes it: the files of the episode are whole.
    pub(super) fn remove(self) -> Result<(), ArtifactError> {
        forget(&self.folder)
    }

    /// A journal that cannot be written, on a full disk above all, makes room: the files themselves go on.
    fn write(&mut self, write: impl FnOnce(&mut Journal) -> Result<(), RecordError>) {
        if self.stopped {
            return;
        }
        if let Err(error) = write(self) {
            self.stopped = true;
            let emptied = self.held.waiting().file.set_len(0);
            let _ = std::fs::remove_file(path(&self.folder, STEPS));
            tell(&error, emptied.is_ok());
        }
    }
}

#[cfg(feature = "serve")]
fn tell(error: &RecordError, emptied: bool) {
    tracing::warn!(%error, emptied, "the journal of an episode ended");
}

#[cfg(not(feature = "serve"))]
fn tell(_: &RecordError, _: bool) {}

impl Held {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut waiting = self.waiting();
        waiting.bytes.extend_from_slice(bytes);
        let full = waiting.bytes.len() >= HELD_BYTES;
        drop(waiting);
        if full { self.flush().map(|()| bytes.len()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let Waiting { file, bytes } = &mut *self.waiting();
        file.write_all(bytes)?;
        bytes.clear();
        Ok(())
    }
}

/// Makes files and a report of what an episode left whose program was killed; nothing where it left no journal. Whoever calls keeps
/// others out of the folder.
///
/// # Errors
/// The journal cannot be read, or the files cannot be written; the journal stays then.
pub fn recover(folder: &Path) -> Result<Option<Report>, RecordError> {
    let (events, steps) = (path(folder, EVENTS), path(folder, STEPS));
    let whole = ["telemetry.parquet", "steps.parquet"].iter().all(|name| folder.join(name).is_file());
    if whole || !steps.is_file() || !events.is_file() {
        return Ok(None);
    }
    let mut lines = JsonLinesReader::open(&steps)?;
    let Some(Line::Begun(subject)) = lines.next_record()? else { return Ok(None) };
    let mut machine = Machine::new(subject.attributes.episode_id.clone(), subject.stages, subject.schedule);
    let mut trajectory = Trajectory::new(DurableFile::create(folder.join("steps.parquet"))?, terms(&subject))?;
    let (mut decisions, mut feedback, mut quarantine) = (Vec::new(), Vec::new(), None);
    while let Some(line) = lines.next_record()? {
        match line {
            Line::Begun(_) => {}
            Line::Decided(line) => {
                let DecidedLine { command, decision, harm, breakage, state } = *line;
                let question = question(&command, &decision, Toll { harm, breakage });
                trajectory.decided(&question, &command, dense(&state)?)?;
                decisions.push(decision);
            }
            Line::Transition(transition) => {
                match &transition.happening {
                    Happening::Fed { feedback: fed } => feedback.push(fed.clone()),
                    Happening::Sealed { what } => quarantine = Some(what.clone()),
                    _ => {}
                }
                machine.take(transition.happening);
            }
        }
    }
    machine.unrecorded("the program that ran the file was killed: this is what it left".to_owned());
    let mut telemetry = TelemetryWriter::new(DurableFile::create(folder.join("telemetry.parquet"))?)?;
    let from = File::open(&events).map_err(|cause| ArtifactError::io("read", &events, cause))?;
    let options = Options { redactor: None, ..Options::default() };
    read_jsonl(BufReader::new(from), EVENTS, &options, &mut telemetry, &mut QualityReport::default())?;
    let (file, summary) = telemetry.finish()?;
    let (steps_file, written) = trajectory.end(machine.verdict().is_some(), true)?;
    let files = Recorded {
        telemetry: file.path().to_owned(),
        events: summary.events,
        steps: steps_file.path().to_owned(),
        decisions: written,
    };
    file.commit()?;
    steps_file.commit()?;
    forget(folder)?;
    Ok(Some(Report {
        episode_id: subject.attributes.episode_id,
        verdict: machine.verdict(),
        stage: machine.stage(),
        decisions,
        feedback,
        outcomes: Vec::new(),
        quarantine,
        partial: machine.partial().to_vec(),
        safe_rule: machine.safe_rule(),
        strays: machine.strays(),
        files: Some(files),
    }))
}

/// Removes a journal. After a power cut it may be there again, beside files that are whole.
fn forget(folder: &Path) -> Result<(), ArtifactError> {
    [EVENTS, STEPS].iter().map(|name| path(folder, name)).try_for_each(|path| match std::fs::remove_file(&path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(ArtifactError::io("remove", &path, cause)),
        _ => Ok(()),
    })
}

/// The question that a command answered.
fn question(command: &Command, decision: &Decision, toll: Toll) -> Question {
    let context = &command.context;
    Question {
        episode: context.episode.clone(),
        stage: context.stage,
        step: context.step,
        window: context.window,
        events: decision.events,
        toll,
        events_seen: decision.events_seen,
        time_ns: decision.time_ns,
        level: context.level,
        close: decision.close,
        mask: decision.mask,
    }
}

fn sparse(state: &StateVector) -> String {
    let mut bytes = Vec::new();
    for (place, value) in (0_u16..).zip(state.as_slice()).filter(|(_, value)| **value != 0.0) {
        bytes.extend(place.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    STANDARD.encode(bytes)
}

fn dense(state: &str) -> Result<StateVector, RecordError> {
    let wrong = || RecordError::Journal("a state is none".to_owned());
    let bytes = STANDARD.decode(state).map_err(|_| wrong())?;
    let (entries, []) = bytes.as_chunks::<6>() else { return Err(wrong()) };
    let mut values = [0.0; WIDTH];
    for &[low, high, ref value @ ..] in entries {
        let place = usize::from(u16::from_le_bytes([low, high]));
        *values.get_mut(place).ok_or_else(wrong)? = f32::from_le_bytes(*value);
    }
    StateVector::from_slice(&values).map_err(|error| RecordError::Journal(error.to_string()))
}
