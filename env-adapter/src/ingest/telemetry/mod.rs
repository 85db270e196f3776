//! Telemetry Parquet, version 1: one row per event, sorted by episode, stage and position.
//!
//! [`TelemetryWriter`] is an [`EventSink`](crate::EventSink); [`TelemetryReader`] streams a file into one. Both hold one
//! batch and one row group at most, never a file or an episode. `docs/formats/telemetry.md` is the specification.

mod columns;
mod group;
mod keyed;
mod reader;
mod rows;
mod writer;

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};

use crate::{Event, EventKind};

pub use reader::{ReadSummary, TelemetryReader};
pub use writer::{TelemetrySummary, TelemetryWriter, WriterOptions};

/// Version of the format, in the file's metadata under [`VERSION_KEY`].
pub const VERSION: &str = "1";
/// Key of the version in the file's metadata.
pub const VERSION_KEY: &str = "bellwether.telemetry.version";

/// The longest text of one attribute, in bytes.
pub(crate) const MAX_ATTRIBUTE_BYTES: usize = 64 << 10;

/// What a row can have wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowFault {
    /// A column that every row needs is null here.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A value lies outside its range.
    #[error("`{column}` is {value}, outside {allowed}")]
    OutOfRange {
        /// The column.
        column: &'static str,
        /// The value.
        value: String,
        /// The range.
        allowed: &'static str,
    },
    /// The kind has a name that does not exist.
    #[error("`kind` is `{0}`; it is one of syscall, file, network, process, memory and behaviour")]
    UnknownKind(String),
    /// The label has a name that does not exist.
    #[error("`label` is `{0}`; it is benign, malicious or null")]
    UnknownLabel(String),
    /// The episode was over already: its rows do not lie together.
    #[error("the rows of the episode do not lie together; sort by episode_id, stage and seq")]
    NotContiguous,
    /// The row does not follow the one before it.
    #[error("(stage, seq) does not rise within the episode; sort by episode_id, stage and seq")]
    OutOfOrder,
    /// A value that is constant over an episode differs from the episode's first row.
    #[error("`{0}` differs from the first row of the episode")]
    AttributeChanged(&'static str),
}

/// Checks the ranges of an event: stage 1 or 2, a name, entropy 0 to 8, isolation level 0 to 3.
///
/// # Errors
/// The first value out of range.
#[inline]
pub fn check_event(event: &Event<'_>) -> Result<(), RowFault> {
    if is_valid(event) { Ok(()) } else { Err(fault_of(event)) }
}

/// Whether all values of an event lie in their ranges.
#[inline]
pub(crate) fn is_valid(event: &Event<'_>) -> bool {
    (1..=2).contains(&event.stage)
        && !event.name.is_empty()
        && event.entropy.is_none_or(|entropy| (0.0..=8.0).contains(&entropy))
        && event.isolation.is_none_or(|isolation| isolation <= 3)
}

#[cold]
fn fault_of(event: &Event<'_>) -> RowFault {
    let fault = |column, value: String, allowed| RowFault::OutOfRange { column, value, allowed };
    if !(1..=2).contains(&event.stage) {
        return fault("stage", event.stage.to_string(), "1 to 2");
    }
    if event.name.is_empty() {
        return RowFault::Missing("name");
    }
    match (event.entropy, event.isolation) {
        (Some(entropy), _) if !(0.0..=8.0).contains(&entropy) => {
            fault("entropy", entropy.to_string(), "0 to 8 bits per byte")
        }
        (_, isolation) => fault("isolation", isolation.unwrap_or_default().to_string(), "0 to 3"),
    }
}

/// The columns of a telemetry file, in order.
pub(crate) mod column {
    pub(crate) const EPISODE_ID: &str = "episode_id";
    pub(crate) const STAGE: &str = "stage";
    pub(crate) const SEQ: &str = "seq";
    pub(crate) const TIME_NS: &str = "time_ns";
    pub(crate) const PID: &str = "pid";
    pub(crate) const TID: &str = "tid";
    pub(crate) const PPID: &str = "ppid";
    pub(crate) const KIND: &str = "kind";
    pub(crate) const NAME: &str = "name";
    pub(crate) const PATH: &str = "path";
    pub(crate) const PATH2: &str = "path2";
    pub(crate) const ARGS: &str = "args";
    pub(crate) const PEER_ADDR: &str = "peer_addr";
    pub(crate) const PEER_PORT: &str = "peer_port";
    pub(crate) const BYTES: &str = "bytes";
    pub(crate) const ENTROPY: &str = "entropy";
    pub(crate) const RET: &str = "ret";
    pub(crate) const ERRNO: &str = "errno";
    pub(crate) const FLAGS: &str = "flags";
    pub(crate) const CREATED: &str = "created";
    pub(crate) const DENIED: &str = "denied";
    pub(crate) const ISOLATION: &str = "isolation";
    pub(crate) const RACED: &str = "raced";
    pub(crate) const LABEL: &str = "label";
    pub(crate) const FAMILY: &str = "family";
    pub(crate) const SOURCE: &str = "source";
    pub(crate) const SAMPLE_SHA256: &str = "sample_sha256";
    pub(crate) const COMPLETE: &str = "complete";
    pub(crate) const ALL: [&str; 28] = [
        EPISODE_ID,
        STAGE,
        SEQ,
        TIME_NS,
        PID,
        TID,
        PPID,
        KIND,
        NAME,
        PATH,
        PATH2,
        ARGS,
        PEER_ADDR,
        PEER_PORT,
        BYTES,
        ENTROPY,
        RET,
        ERRNO,
        FLAGS,
        CREATED,
        DENIED,
        ISOLATION,
        RACED,
        LABEL,
        FAMILY,
        SOURCE,
        SAMPLE_SHA256,
        COMPLETE,
    ];
}

/// The Arrow schema of version 1.
pub fn schema() -> SchemaRef {
    use column::*;
    let required = |name, kind| Field::new(name, kind, false);
    let optional = |name, kind| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        required(EPISODE_ID, DataType::Utf8),
        required(STAGE, DataType::UInt8),
        required(SEQ, DataType::UInt64),
        optional(TIME_NS, DataType::UInt64),
        optional(PID, DataType::UInt32),
        optional(TID, DataType::UInt32),
        optional(PPID, DataType::UInt32),
        required(KIND, DataType::Utf8),
        required(NAME, DataType::Utf8),
        optional(PATH, DataType::Utf8),
        optional(PATH2, DataType::Utf8),
        optional(ARGS, DataType::Utf8),
        optional(PEER_ADDR, DataType::Utf8),
        optional(PEER_PORT, DataType::UInt16),
        optional(BYTES, DataType::UInt64),
        optional(ENTROPY, DataType::Float32),
        optional(RET, DataType::Int64),
        optional(ERRNO, DataType::Int32),
        optional(FLAGS, DataType::UInt32),
        optional(CREATED, DataType::Boolean),
        optional(DENIED, DataType::Boolean),
        optional(ISOLATION, DataType::UInt8),
        optional(RACED, DataType::Boolean),
        optional(LABEL, DataType::Utf8),
        optional(FAMILY, DataType::Utf8),
        optional(SOURCE, DataType::Utf8),
        optional(SAMPLE_SHA256, DataType::Utf8),
        optional(COMPLETE, DataType::Boolean),
    ]))
}

/// The kinds in the order of their numbers, with the name each has in files.
pub(crate) const KINDS: [(EventKind, &str); 6] = [
    (EventKind::Syscall, "syscall"),
    (EventKind::File, "file"),
    (EventKind::Network, "network"),
    (EventKind::Process, "process"),
    (EventKind::Memory, "memory"),
    (EventKind::Behaviour, "behaviour"),
];

/// The kind with this name.
pub(crate) fn kind_from_name(name: &str) -> Option<EventKind> {
    Some(match name {
        "syscall" => EventKind::Syscall,
        "file" => EventKind::File,
        "network" => EventKind::Network,
        "process" => EventKind::Process,
        "memory" => EventKind::Memory,
        "behaviour" => EventKind::Behaviour,
        _ => return None,
    })
}

/// The name of a kind in files.
pub(crate) fn kind_name(kind: EventKind) -> &'static str {
    KINDS[kind as usize].1
}
