//! A second copy of an episode while it happens, in lines: Parquet can be read when it is whole, lines whenever their writer was
//! killed. It goes when all that is to be made of the episode is made.
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
use bellwether_env_adapter::ingest::{
    JsonlWriter, Options, QualityReport, TelemetryReader, TelemetryWriter, read_jsonl,
};
use bellwether_env_adapter::reward::Toll;
use bellwether_env_adapter::spec::WIDTH;
use bellwether_env_adapter::{EpisodeAttributes, Event, EventSink, RewardConfig, StateVector, WindowConfig};
use serde::{Deserialize, Serialize};

use super::machine::{Happening, Machine, Phase, Transition};
use super::record::{Decided, RecordError, Recorded, terms};
use super::retry::Schedule;
use super::run::{Decision, Report};
use super::trajectory::Trajectory;
use crate::stage::{Command, Outcome, Question};
use crate::vault::SampleIdentity;

/// Writes it.
pub(super) struct Journal {
    folder: PathBuf,
    events: JsonlWriter<Held>,
    held: Held,
    steps: JsonLines,
    /// It could not be written any more. It stands as it was.
    stopped: bool,
    /// Why, until that is asked for.
    why: Option<RecordError>,
}

/// What an episode is about, as far as its files tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subject {
    pub(super) attributes: EpisodeAttributes,
    pub(super) sample: SampleIdentity,
    pub(super) stages: u8,
    pub(super) schedule: Schedule,
    pub(super) reward: RewardConfig,
    pub(super) window: WindowConfig,
    pub(super) policy: Option<String>,
    /// Absent in journals of before there was one.
    pub(super) seed: Option<u64>,
}

/// A line of the steps.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Begun(Box<Subject>),
    Decided(Box<DecidedLine>),
    Transition(Box<Transition>),
    /// A stage began, at this time in milliseconds since 1970.
    Began {
        stage: u8,
        ms: u64,
    },
    Outcome(Box<Outcome>),
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
    /// Begins the journal of an episode in its folder. Where it cannot be begun it leaves nothing.
    pub(super) fn begin(folder: &Path, subject: &Subject) -> Result<Journal, RecordError> {
        if is_in(folder) {
            return Err(RecordError::Unfinished { folder: folder.to_owned() });
        }
        Journal::create(folder, subject).inspect_err(|_| _ = forget(folder))
    }

    fn create(folder: &Path, subject: &Subject) -> Result<Journal, RecordError> {
        let to = path(folder, EVENTS);
        let file = File::options().append(true).create_new(true).open(&to);
        let file = file.map_err(|cause| ArtifactError::io("create", &to, cause))?;
        let held = Held(Arc::new(Mutex::new(Waiting { file, bytes: Vec::new() })));
        let mut events = JsonlWriter::new(held.clone());
        // Whoever reads it back reads of a run that was cut off.
        events.begin(&EpisodeAttributes { complete: false, ..subject.attributes.clone() })?;
        let mut steps = JsonLines::create(path(folder, STEPS))?;
        steps.append(&Line::Begun(Box::new(subject.clone())))?;
        Ok(Journal { folder: folder.to_owned(), events, held, steps, stopped: false, why: None })
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

    pub(super) fn began(&mut self, stage: u8, ms: u64) {
        self.write(|journal| journal.steps.append(&Line::Began { stage, ms }).map_err(RecordError::from));
    }

    pub(super) fn outcome(&mut self, outcome: &Outcome) {
        self.flush();
        self.write(|journal| match journal.steps.append(&Line::Outcome(Box::new(outcome.clone()))) {
            // A sample may leave thousands of files with the longest names: then it is told of without them.
            Err(ArtifactError::TooLarge { .. }) => Ok(()),
            appended => appended.map_err(RecordError::from),
        });
    }

    /// Says once why it could not be written any more.
    pub(super) fn stopped(&mut self) -> Result<(), RecordError> {
        self.why.take().map_or(Ok(()), Err)
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

    /// What stands when it cannot be written any more is kept: the episode ends then.
    fn write(&mut self, write: impl FnOnce(&mut Journal) -> Result<(), RecordError>) {
        if self.stopped {
            return;
        }
        if let Err(error) = write(self) {
            (self.stopped, self.why) = (true, Some(error));
        }
    }
}

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

/// Whether a folder has a journal.
pub(super) fn is_in(folder: &Path) -> bool {
    [EVENTS, STEPS].iter().any(|name| path(folder, name).exists())
}

/// What the journal in a folder says of its episode, and the files of it; nothing where there is none.
pub(super) fn recover(folder: &Path) -> Result<Option<Report>, RecordError> {
    let (events, steps) = (path(folder, EVENTS), path(folder, STEPS));
    if !steps.is_file() || !events.is_file() {
        return Ok(None);
    }
    let mut lines = JsonLinesReader::open(&steps)?;
    let Some(Line::Begun(subject)) = lines.next_record()? else { return Ok(None) };
    let [telemetry, played] = ["telemetry.parquet", "steps.parquet"].map(|name| folder.join(name));
    // Files that have their names are whole. A journal may be less, after a power cut.
    let whole = telemetry.is_file() && played.is_file();
    let mut machine = Machine::new(subject.attributes.episode_id.clone(), subject.stages, subject.schedule);
    let mut trajectory = match whole {
        true => None,
        false => Some(Trajectory::new(DurableFile::create(&played)?, terms(&subject))?),
    };
    let (mut decisions, mut feedback, mut quarantine) = (Vec::new(), Vec::new(), None);
    let (mut began_ms, mut outcomes) = ([None; 2], Vec::new());
    while let Some(line) = lines.next_record()? {
        match line {
            Line::Begun(_) => {}
            Line::Began { stage, ms } => began_ms[usize::from(stage.clamp(1, 2)) - 1] = Some(ms),
            Line::Outcome(outcome) => outcomes.push(*outcome),
            Line::Decided(line) => {
                let DecidedLine { command, decision, harm, breakage, state } = *line;
                let question = question(&command, &decision, Toll { harm, breakage });
                if let Some(trajectory) = &mut trajectory {
                    trajectory.decided(&question, &command, dense(&state)?, decision.safe_rule.is_some())?;
                }
                decisions.push(decision);
            }
            Line::Transition(transition) => {
                match &transition.happening {
                    Happening::Fed { feedback: fed } => feedback.push(fed.clone()),
                    Happening::Sealed { quarantined } => quarantine = Some(quarantined.clone()),
                    _ => {}
                }
                machine.take(transition.happening);
            }
        }
    }
    if !whole || machine.phase() != Phase::Over {
        machine.unrecorded("the program that ran the file was killed: this is what it left".to_owned());
    }
    let files = match trajectory {
        None => Recorded {
            events: TelemetryReader::open(&telemetry)?.rows(),
            telemetry,
            steps: played,
            decisions: decisions.len() as u64,
        },
        Some(trajectory) => {
            let (telemetry, events) = telemetry_of(&events, &telemetry)?;
            let (steps, written) = trajectory.end(machine.verdict().is_some(), true)?;
            let files = Recorded {
                telemetry: telemetry.path().to_owned(),
                events,
                steps: steps.path().to_owned(),
                decisions: written,
            };
            telemetry.commit()?;
            steps.commit()?;
            files
        }
    };
    Ok(Some(Report {
        episode_id: subject.attributes.episode_id,
        sample: subject.sample,
        seed: subject.seed,
        began_ms,
        verdict: machine.verdict(),
        stage: machine.stage(),
        decisions,
        feedback,
        outcomes,
        quarantine,
        partial: machine.partial().to_vec(),
        safe_rule: machine.safe_rule(),
        strays: machine.strays(),
        files: Some(files),
    }))
}

/// Telemetry from the events of a journal, and how many there are.
fn telemetry_of(events: &Path, to: &Path) -> Result<(DurableFile, u64), RecordError> {
    let mut telemetry = TelemetryWriter::new(DurableFile::create(to)?)?;
    let from = File::open(events).map_err(|cause| ArtifactError::io("read", events, cause))?;
    let options = Options { redactor: None, ..Options::default() };
    read_jsonl(BufReader::new(from), EVENTS, &options, &mut telemetry, &mut QualityReport::default())?;
    let (file, summary) = telemetry.finish()?;
    Ok((file, summary.events))
}

/// Removes a journal.
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
