//! JSON Lines: one event per line under the names of the telemetry columns, episode attributes on its first line.
//!
//! A line that names no `episode_id` belongs to the episode before it. `stage` defaults to that of the line before,
//! `seq` to the next number, `kind` to the domain of the call. A line of nothing but attributes is an episode without
//! events, or the head of the lines that follow. `complete` counts where it was last said. Behind a bad line that names
//! an episode, lines that name none are left out too: nobody knows whose they are.

use std::borrow::Cow;
use std::fmt;
use std::io::{BufRead, Write};

use memchr::memmem;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::intake::Intake;
use super::lines::{Lines, MAX_LINE_BYTES};
use super::telemetry::{MAX_ATTRIBUTE_BYTES, column, kind_from_name, kind_name};
use super::{IngestError, Options, QualityReport};
use crate::calls::kind_of;
use crate::{EpisodeAttributes, EpisodeId, Event, EventKind, EventSink, Label};

/// Reads JSON Lines from a stream; `file` is its name in the report.
///
/// Types are strict. A line that is no JSON object, has a wrong type, a key twice, a value out of range or an event out
/// of order is counted with its number and skipped; keys that the format does not know are counted.
///
/// # Errors
/// [`IngestError::Stream`] when the stream fails, and the errors of the sink.
pub fn read_jsonl<S: EventSink + ?Sized>(
    from: impl BufRead,
    file: &str,
    options: &Options,
    sink: &mut S,
    report: &mut QualityReport,
) -> Result<(), IngestError> {
    report.files += 1;
    let intake = Intake::new(sink, report, options.redactor.as_ref());
    let mut reader = Reader { intake, episode: None, head_lost: false };
    let mut lines = Lines::new(from);
    let failed = |cause| IngestError::Stream { doing: "read JSON lines", cause };
    while let Some(line) = lines.next().map_err(failed)? {
        let reason = if line.too_long {
            reader.head_lost |= names_an_episode(line.bytes);
            Err(format!("longer than {MAX_LINE_BYTES} bytes"))
        } else if line.bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        } else {
            match serde_json::from_slice::<Record<'_>>(line.bytes) {
                Ok(record) => reader.record(record)?,
                Err(error) => {
                    reader.head_lost |= names_an_episode(line.bytes);
                    Err(error.to_string())
                }
            }
        };
        if let Err(reason) = reason {
            reader.intake.report.bad_lines.add(file, line.number, &reason);
        }
    }
    reader.close()
}

/// Whether a line that cannot be read seems to name an episode.
fn names_an_episode(line: &[u8]) -> bool {
    memmem::find(line, b"\"episode_id\"").is_some()
}

struct Reader<'a, S: ?Sized> {
    intake: Intake<'a, S>,
    episode: Option<Open>,
    /// The last line that named an episode was a bad one.
    head_lost: bool,
}

/// The episode that is being read.
struct Open {
    attributes: EpisodeAttributes,
    complete: bool,
    stage: u8,
    next_seq: u64,
    /// Its id was met before: its lines are left out.
    repeated: bool,
}

impl<S: EventSink + ?Sized> Reader<'_, S> {
    /// Takes a line; the inner error is what is wrong with it.
    fn record(&mut self, record: Record<'_>) -> Result<Result<(), String>, IngestError> {
        for key in &record.unknown {
            self.intake.report.unknown_keys.add(key, 1);
        }
        if let Some(reason) = record.unusable_attribute() {
            self.head_lost |= record.episode_id.is_some();
            return Ok(Err(reason));
        }
        self.head_lost &= record.episode_id.is_none();
        match (&record.episode_id, &self.episode) {
            (None, _) if self.head_lost => {
                return Ok(Err("the line that named its episode was a bad one".to_owned()));
            }
            (None, None) => return Ok(Err("the first line names no `episode_id`".to_owned())),
            (Some(id), Some(open)) if open.attributes.episode_id.0 == *id => {}
            (None, Some(_)) => {}
            (Some(id), _) => {
                let id = EpisodeId(id.clone().into_owned());
                self.close()?;
                self.open(id, &record)?;
            }
        }
        let Some(open) = &mut self.episode else { return Ok(Ok(())) };
        if let Some(column) = record.changed_attribute(&open.attributes) {
            return Ok(Err(format!("`{column}` differs from the first line of the episode")));
        }
        if let Some(complete) = record.complete {
            open.complete = complete;
        }
        let Some(name) = &record.name else {
            return Ok(match record.has_event_fields {
                true => Err("an event without `name`".to_owned()),
                false => Ok(()),
            });
        };
        if open.repeated {
            return Ok(Err("its episode was over already, or its id was met before".to_owned()));
        }
        let stage = record.stage.unwrap_or(open.stage);
        let next = if stage == open.stage { open.next_seq } else { 0 };
        let seq = record.seq.unwrap_or(next);
        let event = Event {
            stage,
            seq,
            time_ns: record.time_ns,
            pid: record.pid,
            tid: record.tid,
            ppid: record.ppid,
            kind: record.kind.unwrap_or_else(|| kind_of(name)),
            name,
            path: record.path.as_deref(),
            path2: record.path2.as_deref(),
            args: record.args.as_deref(),
            peer_addr: record.peer_addr.as_deref(),
            peer_port: record.peer_port,
            bytes: record.bytes,
            entropy: record.entropy,
            ret: record.ret,
            errno: record.errno,
            flags: record.flags,
            created: record.created,
            denied: record.denied,
            isolation: record.isolation,
            raced: record.raced,
        };
        if let Some(fault) = self.intake.event(&event)? {
            return Ok(Err(fault.to_string()));
        }
        open.stage = stage;
        open.next_seq = seq.saturating_add(1);
        Ok(Ok(()))
    }

    fn open(&mut self, episode_id: EpisodeId, record: &Record<'_>) -> Result<(), IngestError> {
        let text = |text: &Option<Cow<'_, str>>| text.clone().map(Cow::into_owned);
        let complete = record.complete.unwrap_or(true);
        let attributes = EpisodeAttributes {
            episode_id,
            label: record.label,
            family: text(&record.family),
            source: text(&record.source),
            sample_sha256: text(&record.sample_sha256),
            complete,
        };
        let repeated = !self.intake.begin(&attributes)?;
        self.episode = Some(Open { attributes, complete, stage: 1, next_seq: 0, repeated });
        Ok(())
    }

    fn close(&mut self) -> Result<(), IngestError> {
        match self.episode.take() {
            Some(open) if !open.repeated => self.intake.end(open.complete),
            _ => Ok(()),
        }
    }
}

/// One line.
#[derive(Default)]
struct Record<'a> {
    episode_id: Option<Cow<'a, str>>,
    label: Option<Label>,
    family: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    sample_sha256: Option<Cow<'a, str>>,
    complete: Option<bool>,
    stage: Option<u8>,
    seq: Option<u64>,
    time_ns: Option<u64>,
    pid: Option<u32>,
    tid: Option<u32>,
    ppid: Option<u32>,
    kind: Option<EventKind>,
    name: Option<Cow<'a, str>>,
    path: Option<Cow<'a, str>>,
    path2: Option<Cow<'a, str>>,
    args: Option<Cow<'a, str>>,
    peer_addr: Option<Cow<'a, str>>,
    peer_port: Option<u16>,
    bytes: Option<u64>,
    entropy: Option<f32>,
    ret: Option<i64>,
    errno: Option<i32>,
    flags: Option<u32>,
    created: Option<bool>,
    denied: Option<bool>,
    isolation: Option<u8>,
    raced: Option<bool>,
    /// Any field of an event was there, whatever its value.
    has_event_fields: bool,
    unknown: Vec<String>,
}

impl Record<'_> {
    /// What is wrong with an attribute that no telemetry file could hold.
    fn unusable_attribute(&self) -> Option<String> {
        if self.episode_id.as_ref().is_some_and(|id| id.is_empty()) {
            return Some("`episode_id` is empty".to_owned());
        }
        let texts = [
            (&self.episode_id, column::EPISODE_ID),
            (&self.family, column::FAMILY),
            (&self.source, column::SOURCE),
            (&self.sample_sha256, column::SAMPLE_SHA256),
        ];
        let over_long =
            |text: &Option<Cow<'_, str>>| text.as_ref().is_some_and(|text| text.len() > MAX_ATTRIBUTE_BYTES);
        let (_, column) = texts.into_iter().find(|(text, _)| over_long(text))?;
        Some(format!("`{column}` is longer than {MAX_ATTRIBUTE_BYTES} bytes"))
    }

    /// The attribute that says other than the episode's first line.
    fn changed_attribute(&self, first: &EpisodeAttributes) -> Option<&'static str> {
        if self.label.is_some() && self.label != first.label {
            return Some(column::LABEL);
        }
        let pairs = [
            (&self.family, &first.family, column::FAMILY),
            (&self.source, &first.source, column::SOURCE),
            (&self.sample_sha256, &first.sample_sha256, column::SAMPLE_SHA256),
        ];
        let differs = |text: &Option<Cow<'_, str>>, first: &Option<String>| {
            text.as_ref().is_some_and(|text| Some(text.as_ref()) != first.as_deref())
        };
        pairs.into_iter().find(|(text, first, _)| differs(text, first)).map(|(_, _, column)| column)
    }
}

/// Text that borrows from the line where it holds no escapes.
#[derive(Deserialize)]
struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);

/// A kind under its name.
struct Kind(EventKind);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        kind_from_name(&name).map(Kind).ok_or_else(|| {
            de::Error::custom(format!(
                "unknown kind `{name}`; use syscall, file, network, process, memory or behaviour"
            ))
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Record<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RecordVisitor)
    }
}

struct RecordVisitor;

impl<'de> Visitor<'de> for RecordVisitor {
    type Value = Record<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event as a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record<'de>, A::Error> {
        let mut record = Record::default();
        // One bit per known key, in the order of the columns: a key that comes twice is an error.
        let mut met = 0u32;
        while let Some(Borrowed(key)) = map.next_key()? {
            let Some(index) = column::ALL.iter().position(|name| *name == key) else {
                map.next_value::<IgnoredAny>()?;
                record.unknown.push(key.into_owned());
                continue;
            };
            if met & (1 << index) != 0 {
                return Err(de::Error::custom(format!("`{key}` comes twice")));
            }
            met |= 1 << index;
            let known = column::ALL[index];
            record.read(known, &mut map).map_err(|error| de::Error::custom(format!("`{known}`: {error}")))?;
        }
        Ok(record)
    }
}

impl<'de> Record<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &'static str, map: &mut A) -> Result<(), A::Error> {
        let text = |map: &mut A| Ok(map.next_value::<Option<Borrowed<'de>>>()?.map(|text| text.0));
        match key {
            column::EPISODE_ID => self.episode_id = text(map)?,
            column::LABEL => self.label = map.next_value()?,
            column::FAMILY => self.family = text(map)?,
            column::SOURCE => self.source = text(map)?,
            column::SAMPLE_SHA256 => self.sample_sha256 = text(map)?,
            column::COMPLETE => self.complete = map.next_value()?,
            _ => {
                self.has_event_fields = true;
                match key {
                    column::STAGE => self.stage = map.next_value()?,
                    column::SEQ => self.seq = map.next_value()?,
                    column::TIME_NS => self.time_ns = map.next_value()?,
                    column::PID => self.pid = map.next_value()?,
                    column::TID => self.tid = map.next_value()?,
                    column::PPID => self.ppid = map.next_value()?,
                    column::KIND => self.kind = map.next_value::<Option<Kind>>()?.map(|kind| kind.0),
                    column::NAME => self.name = text(map)?,
                    column::PATH => self.path = text(map)?,
                    column::PATH2 => self.path2 = text(map)?,
                    column::ARGS => self.args = text(map)?,
                    column::PEER_ADDR => self.peer_addr = text(map)?,
                    column::PEER_PORT => self.peer_port = map.next_value()?,
                    column::BYTES => self.bytes = map.next_value()?,
                    column::ENTROPY => self.entropy = map.next_value()?,
                    column::RET => self.ret = map.next_value()?,
                    column::ERRNO => self.errno = map.next_value()?,
                    column::FLAGS => self.flags = map.next_value()?,
                    column::CREATED => self.created = map.next_value()?,
                    column::DENIED => self.denied = map.next_value()?,
                    column::ISOLATION => self.isolation = map.next_value()?,
                    _ => self.raced = map.next_value()?,
                }
            }
        }
        Ok(())
    }
}

/// Writes episodes as JSON Lines that [`read_jsonl`] reads back exactly. What is null is left out.
pub struct JsonlWriter<W: Write> {
    to: W,
    episode: Option<EpisodeAttributes>,
    /// The episode's attributes are not written yet.
    head: bool,
    line: Vec<u8>,
}

impl<W: Write> JsonlWriter<W> {
    /// A writer; give it a buffered destination.
    pub fn new(to: W) -> Self {
        JsonlWriter { to, episode: None, head: false, line: Vec::new() }
    }

    /// Flushes and hands back the destination.
    ///
    /// # Errors
    /// [`IngestError::Stream`] when flushing fails, [`IngestError::OutOfTurn`] within an episode.
    pub fn finish(mut self) -> Result<W, IngestError> {
        if self.episode.is_some() {
            return Err(IngestError::OutOfTurn("the file was finished within an episode"));
        }
        self.to.flush().map_err(failed)?;
        Ok(self.to)
    }

    fn put(&mut self, value: &impl Serialize) -> Result<(), IngestError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, value).map_err(|error| failed(error.into()))?;
        self.line.push(b'\n');
        self.to.write_all(&self.line).map_err(failed)
    }
}

impl<W: Write> EventSink for JsonlWriter<W> {
    type Error = IngestError;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), IngestError> {
        if self.episode.is_some() {
            return Err(IngestError::OutOfTurn("an episode began within another"));
        }
        self.episode = Some(attributes.clone());
        self.head = true;
        Ok(())
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), IngestError> {
        let Some(attributes) = self.episode.take() else {
            return Err(IngestError::OutOfTurn("an event came outside an episode"));
        };
        let head = std::mem::take(&mut self.head);
        let result = self.put(&EventLine { attributes: head.then_some(&attributes), event });
        self.episode = Some(attributes);
        result
    }

    fn end(&mut self, complete: bool) -> Result<(), IngestError> {
        let Some(mut attributes) = self.episode.take() else {
            return Err(IngestError::OutOfTurn("an episode ended that had not begun"));
        };
        // An empty episode still has its line; otherwise only a change of mind needs one.
        if self.head {
            attributes.complete = complete;
            self.put(&attributes)
        } else if attributes.complete != complete {
            self.put(&serde_json::json!({ "complete": complete }))
        } else {
            Ok(())
        }
    }
}

fn failed(cause: std::io::Error) -> IngestError {
    IngestError::Stream { doing: "write JSON lines", cause }
}

struct EventLine<'a> {
    attributes: Option<&'a EpisodeAttributes>,
    event: &'a Event<'a>,
}

impl Serialize for EventLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(attributes) = self.attributes {
            map.serialize_entry(column::EPISODE_ID, &attributes.episode_id)?;
            entry(&mut map, column::LABEL, attributes.label)?;
            entry(&mut map, column::FAMILY, attributes.family.as_ref())?;
            entry(&mut map, column::SOURCE, attributes.source.as_ref())?;
            entry(&mut map, column::SAMPLE_SHA256, attributes.sample_sha256.as_ref())?;
            map.serialize_entry(column::COMPLETE, &attributes.complete)?;
        }
        let event = self.event;
        map.serialize_entry(column::STAGE, &event.stage)?;
        map.serialize_entry(column::SEQ, &event.seq)?;
        entry(&mut map, column::TIME_NS, event.time_ns)?;
        entry(&mut map, column::PID, event.pid)?;
        entry(&mut map, column::TID, event.tid)?;
        entry(&mut map, column::PPID, event.ppid)?;
        map.serialize_entry(column::KIND, kind_name(event.kind))?;
        map.serialize_entry(column::NAME, event.name)?;
        entry(&mut map, column::PATH, event.path)?;
        entry(&mut map, column::PATH2, event.path2)?;
        entry(&mut map, column::ARGS, event.args)?;
        entry(&mut map, column::PEER_ADDR, event.peer_addr)?;
        entry(&mut map, column::PEER_PORT, event.peer_port)?;
        entry(&mut map, column::BYTES, event.bytes)?;
        entry(&mut map, column::ENTROPY, event.entropy)?;
        entry(&mut map, column::RET, event.ret)?;
        entry(&mut map, column::ERRNO, event.errno)?;
        entry(&mut map, column::FLAGS, event.flags)?;
        entry(&mut map, column::CREATED, event.created)?;
        entry(&mut map, column::DENIED, event.denied)?;
        entry(&mut map, column::ISOLATION, event.isolation)?;
        entry(&mut map, column::RACED, event.raced)?;
        map.end()
    }
}

fn entry<M: SerializeMap>(map: &mut M, key: &'static str, value: Option<impl Serialize>) -> Result<(), M::Error> {
    match value {
        Some(value) => map.serialize_entry(key, &value),
        None => Ok(()),
    }
}
