//! The telemetry record: what a running sample did, one event at a time.

use serde::{Deserialize, Serialize};

/// The identity of an episode: one sample through stage 1 and, when released, stage 2.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EpisodeId(pub String);

/// What a sample is, where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Harmless.
    Benign,
    /// Malware, or an emulation of its behaviour.
    Malicious,
}

impl Label {
    /// The name used in files.
    pub const fn name(self) -> &'static str {
        match self {
            Label::Benign => "benign",
            Label::Malicious => "malicious",
        }
    }
}

/// The domain of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum EventKind {
    /// A system call of no domain below.
    Syscall = 0,
    /// Files and folders.
    File = 1,
    /// Sockets and peers.
    Network = 2,
    /// Processes, identity and time.
    Process = 3,
    /// Mappings and protections.
    Memory = 4,
    /// A behaviour that a sensor derived: not a call.
    Behaviour = 5,
}

/// Bits of [`Event::flags`].
pub mod flags {
    /// The descriptor or mapping is readable.
    pub const READ: u32 = 1;
    /// The descriptor or mapping is writable.
    pub const WRITE: u32 = 1 << 1;
    /// The call may create its target (`O_CREAT`).
    pub const CREATE: u32 = 1 << 2;
    /// The call empties its target (`O_TRUNC`).
    pub const TRUNCATE: u32 = 1 << 3;
    /// Writes go to the end (`O_APPEND`).
    pub const APPEND: u32 = 1 << 4;
    /// The target must not exist (`O_EXCL`, `RENAME_NOREPLACE`).
    pub const EXCLUSIVE: u32 = 1 << 5;
    /// The mapping is executable, or the mode has an execute bit.
    pub const EXECUTE: u32 = 1 << 6;
    /// The target is a folder.
    pub const DIRECTORY: u32 = 1 << 7;
    /// The path was planted by the sandbox; nobody who is not curious or hostile has business with it.
    pub const DECOY: u32 = 1 << 8;
    /// The new task is a thread of the caller (`CLONE_THREAD`).
    pub const THREAD: u32 = 1 << 9;
    /// The mapping is shared with its file or with other processes.
    pub const SHARED: u32 = 1 << 10;
    /// The mapping has no file behind it.
    pub const ANONYMOUS: u32 = 1 << 11;
}

/// One telemetry record, with text of the kind `S`. What a source does not tell is `None`, never 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EventRecord<S> {
    /// Stage of the episode, 1 or 2.
    pub stage: u8,
    /// Position within the stage, from 0.
    pub seq: u64,
    /// Nanoseconds since the stage began.
    pub time_ns: Option<u64>,
    /// Process (thread group) as seen from outside.
    pub pid: Option<u32>,
    /// Thread as seen from outside.
    pub tid: Option<u32>,
    /// Parent process as seen from outside.
    pub ppid: Option<u32>,
    /// Domain.
    pub kind: EventKind,
    /// Name of the call or of the behaviour, as its system spells it (`openat`, `NtCreateFile`).
    pub name: S,
    /// Path, resolved where the source allows it.
    pub path: Option<S>,
    /// Target of a rename or of a link.
    pub path2: Option<S>,
    /// Remaining arguments as text, redacted.
    pub args: Option<S>,
    /// Peer address as text, redacted to a token unless it is loopback.
    pub peer_addr: Option<S>,
    /// Peer port.
    pub peer_port: Option<u16>,
    /// Bytes moved.
    pub bytes: Option<u64>,
    /// Shannon entropy of the written bytes, in bits per byte, 0 to 8.
    pub entropy: Option<f32>,
    /// Result of the call.
    pub ret: Option<i64>,
    /// Error number; `None` where the call succeeded or the source does not tell.
    pub errno: Option<i32>,
    /// Bits of [`flags`].
    pub flags: Option<u32>,
    /// The call created its target.
    pub created: Option<bool>,
    /// The sandbox denied the call.
    pub denied: Option<bool>,
    /// Isolation level in force, 0 to 3.
    pub isolation: Option<u8>,
    /// A field of this record was read while the sample could change it.
    pub raced: Option<bool>,
}

/// A telemetry record that borrows its text from whoever read it.
pub type Event<'a> = EventRecord<&'a str>;

/// A telemetry record that owns its text.
pub type EventBuf = EventRecord<String>;

impl<'a> Event<'a> {
    /// A record of nothing but a name and its domain.
    pub const fn named(seq: u64, kind: EventKind, name: &'a str) -> Self {
        Event {
            stage: 1,
            seq,
            time_ns: None,
            pid: None,
            tid: None,
            ppid: None,
            kind,
            name,
            path: None,
            path2: None,
            args: None,
            peer_addr: None,
            peer_port: None,
            bytes: None,
            entropy: None,
            ret: None,
            errno: None,
            flags: None,
            created: None,
            denied: None,
            isolation: None,
            raced: None,
        }
    }
}

impl EventBuf {
    /// The record, borrowed.
    pub fn as_event(&self) -> Event<'_> {
        self.with_text(String::as_str)
    }
}

impl From<&Event<'_>> for EventBuf {
    fn from(event: &Event<'_>) -> Self {
        event.with_text(|text| (*text).to_owned())
    }
}

impl<S> EventRecord<S> {
    /// The same record with text of another kind.
    fn with_text<'s, T>(&'s self, text: impl Fn(&'s S) -> T) -> EventRecord<T> {
        EventRecord {
            stage: self.stage,
            seq: self.seq,
            time_ns: self.time_ns,
            pid: self.pid,
            tid: self.tid,
            ppid: self.ppid,
            kind: self.kind,
            name: text(&self.name),
            path: self.path.as_ref().map(&text),
            path2: self.path2.as_ref().map(&text),
            args: self.args.as_ref().map(&text),
            peer_addr: self.peer_addr.as_ref().map(&text),
            peer_port: self.peer_port,
            bytes: self.bytes,
            entropy: self.entropy,
            ret: self.ret,
            errno: self.errno,
            flags: self.flags,
            created: self.created,
            denied: self.denied,
            isolation: self.isolation,
            raced: self.raced,
        }
    }
}

/// What is constant over an episode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpisodeAttributes {
    /// Identity, unique within a file.
    pub episode_id: EpisodeId,
    /// What the sample is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Label>,
    /// Malware family, intrusion or benign job: the unit that a split keeps together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Where the recording comes from (`adfa-ld`, `strace`, ...).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// SHA-256 of the sample, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_sha256: Option<String>,
    /// Whether the recording holds the whole run.
    #[serde(default = "complete_by_default")]
    pub complete: bool,
}

fn complete_by_default() -> bool {
    true
}

/// Takes episodes as a reader finds them: `begin`, any number of `event`s in order, `end`. Nothing has to fit in memory.
pub trait EventSink {
    /// What can go wrong in the sink.
    type Error: std::error::Error + Send + Sync + 'static;

    /// An episode begins.
    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), Self::Error>;
    /// Its next event, sorted by (stage, seq).
    fn event(&mut self, event: &Event<'_>) -> Result<(), Self::Error>;
    /// The episode is over. A source may learn only at the end whether it was complete; what it says here counts.
    fn end(&mut self, complete: bool) -> Result<(), Self::Error>;
}
