//! The messages of `bellwether.telemetry.v1`, and the way from them to events and back.
//!
//! A message is read once and refused by the name of the field that cannot be right; nothing is guessed and nothing is cut.

#![allow(missing_docs, clippy::doc_markdown, reason = "the generated part is described in the proto file")]

use crate::event::{Event as Record, EventKind as Kind};

include!(concat!(env!("OUT_DIR"), "/bellwether.telemetry.v1.rs"));

/// Longest text of an event, in bytes.
pub const MAX_TEXT_BYTES: usize = 1 << 16;

/// Why a message is no event.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EventError {
    /// A field has a value that no event has.
    #[error("{field} is {value}; give {expected}")]
    Value {
        /// Name of the field.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it may hold.
        expected: &'static str,
    },
    /// A text is too long.
    #[error("{field} has {bytes} bytes; at most {MAX_TEXT_BYTES} are taken")]
    Long {
        /// Name of the field.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
}

impl Event {
    /// The record, borrowed.
    ///
    /// # Errors
    /// [`EventError`] with the first field that cannot be right.
    pub fn record(&self) -> Result<Record<'_>, EventError> {
        let text = |field, text: &Option<String>| text.as_ref().map_or(Ok(()), |text| check_text(field, text));
        check_text("name", &self.name)?;
        text("path", &self.path)?;
        text("path2", &self.path2)?;
        text("args", &self.args)?;
        text("peer_addr", &self.peer_addr)?;
        if self.name.is_empty() {
            return Err(refused("name", "empty", "the name of the call or of the behaviour"));
        }
        let entropy = self.entropy.filter(|entropy| !(0.0..=8.0).contains(entropy));
        if let Some(entropy) = entropy {
            return Err(refused("entropy", entropy, "0 to 8 bits per byte"));
        }
        let kind = match self.kind() {
            EventKind::Syscall => Kind::Syscall,
            EventKind::File => Kind::File,
            EventKind::Network => Kind::Network,
            EventKind::Process => Kind::Process,
            EventKind::Memory => Kind::Memory,
            EventKind::Behaviour => Kind::Behaviour,
            EventKind::Unspecified => return Err(refused("kind", self.kind, "a kind of EventKind")),
        };
        Ok(Record {
            stage: within("stage", self.stage, 1..=2, "1 or 2")?,
            seq: self.seq,
            time_ns: self.time_ns,
            pid: self.pid,
            tid: self.tid,
            ppid: self.ppid,
            kind,
            name: &self.name,
            path: self.path.as_deref(),
            path2: self.path2.as_deref(),
            args: self.args.as_deref(),
            peer_addr: self.peer_addr.as_deref(),
            peer_port: self.peer_port.map(|port| within("peer_port", port, 0..=65_535, "0 to 65535")).transpose()?,
            bytes: self.bytes,
            entropy: self.entropy,
            ret: self.ret,
            errno: self.errno,
            flags: self.flags,
            created: self.created,
            denied: self.denied,
            isolation: self.isolation.map(|level| within("isolation", level, 0..=3, "0 to 3")).transpose()?,
            raced: self.raced,
        })
    }
}

impl From<&Record<'_>> for Event {
    fn from(record: &Record<'_>) -> Self {
        let kind = match record.kind {
            Kind::Syscall => EventKind::Syscall,
            Kind::File => EventKind::File,
            Kind::Network => EventKind::Network,
            Kind::Process => EventKind::Process,
            Kind::Memory => EventKind::Memory,
            Kind::Behaviour => EventKind::Behaviour,
        };
        Event {
            stage: u32::from(record.stage),
            seq: record.seq,
            time_ns: record.time_ns,
            pid: record.pid,
            tid: record.tid,
            ppid: record.ppid,
            kind: kind.into(),
            name: record.name.to_owned(),
            path: record.path.map(str::to_owned),
            path2: record.path2.map(str::to_owned),
            args: record.args.map(str::to_owned),
            peer_addr: record.peer_addr.map(str::to_owned),
            peer_port: record.peer_port.map(u32::from),
            bytes: record.bytes,
            entropy: record.entropy,
            ret: record.ret,
            errno: record.errno,
            flags: record.flags,
            created: record.created,
            denied: record.denied,
            isolation: record.isolation.map(u32::from),
            raced: record.raced,
        }
    }
}

fn refused(field: &'static str, value: impl ToString, expected: &'static str) -> EventError {
    EventError::Value { field, value: value.to_string(), expected }
}

fn check_text(field: &'static str, text: &str) -> Result<(), EventError> {
    let bytes = text.len();
    if bytes > MAX_TEXT_BYTES { Err(EventError::Long { field, bytes }) } else { Ok(()) }
}

fn within<T: TryFrom<u32>>(
    field: &'static str,
    value: u32,
    range: std::ops::RangeInclusive<u32>,
    expected: &'static str,
) -> Result<T, EventError> {
    let inside = range.contains(&value).then_some(value);
    inside.and_then(|value| T::try_from(value).ok()).ok_or_else(|| refused(field, value, expected))
}
