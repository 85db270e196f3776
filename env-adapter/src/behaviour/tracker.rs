//! What an episode did so far, as far as the meaning of its next event depends on it.

use super::paths::{PathDigest, class, classify};
use super::seen::{Seen, Slot};
use super::sign::{Sign, Signs};
use crate::calls::{NameInfo, NameTable, Operation, name_hash};
use crate::event::{Event, flags};

/// [`Facts::denied_at`] of an event that every isolation level lets through.
pub const NEVER_DENIED: u8 = 4;

/// What one event means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// What its name stands for.
    pub name: NameInfo,
    /// What was found.
    pub signs: Signs,
    /// The lowest isolation level, 1 to 3, that denies such an event; [`NEVER_DENIED`] if none does.
    pub denied_at: u8,
    /// The event failed or was denied: it did nothing.
    pub failed: bool,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Bytes written to files.
    pub bytes_written: u64,
    /// Bytes sent to peers.
    pub bytes_sent: u64,
    /// Bytes received from peers.
    pub bytes_received: u64,
    /// Entropy of what was written to a file, 0 to 8 bits per byte.
    pub entropy: Option<f32>,
    /// Nanoseconds that the caller has slept since its last sleep began, told at its first event afterwards.
    pub slept_ns: u64,
    /// Distance of the acting process from the first one, where the source tells who started whom.
    pub depth: u32,
}

/// Marks of a path beside its classes.
mod mark {
    pub(super) const CLASSIFIED: u32 = 1 << 8;
    pub(super) const READ: u32 = 1 << 9;
    pub(super) const READABLE: u32 = 1 << 10;
    pub(super) const WRITABLE: u32 = 1 << 11;
    pub(super) const APPENDS: u32 = 1 << 12;
    pub(super) const WRITTEN: u32 = 1 << 13;
    pub(super) const OWN: u32 = 1 << 14;
    pub(super) const DECOY: u32 = 1 << 15;
    pub(super) const OVERWRITTEN: u32 = 1 << 16;
    pub(super) const DECOY_READ: u32 = 1 << 17;
    pub(super) const CREDENTIAL_READ: u32 = 1 << 18;
    pub(super) const CREDENTIAL_PROBED: u32 = 1 << 19;
    pub(super) const PERSISTENCE_WRITTEN: u32 = 1 << 20;
    pub(super) const PROGRAM: u32 = 1 << 21;
    pub(super) const DROPPED: u32 = 1 << 22;
    pub(super) const TIMES: u32 = 1 << 23;
    /// Nothing is there: it was removed, renamed away, or a call said so.
    pub(super) const GONE: u32 = 1 << 24;
    /// A folder: its execute bit lets nobody run it.
    pub(super) const FOLDER: u32 = 1 << 25;
    /// Marks that belong to the content and go along with a rename.
    pub(super) const CONTENT: u32 = READ
        | READABLE
        | WRITABLE
        | APPENDS
        | WRITTEN
        | OWN
        | DECOY
        | OVERWRITTEN
        | DECOY_READ
        | PROGRAM
        | GONE
        | FOLDER;
    /// Mark of a folder, peer, port or extension that was met.
    pub(super) const MET: u32 = 1;
}

/// Keeps keys of one table apart.
mod salt {
    pub(super) const FOLDER: u64 = 0x517c_c1b7_2722_0a95;
    pub(super) const EXTENSION: u64 = 0x2545_f491_4f6c_dd1d;
    pub(super) const PEER: u64 = 0x9e6c_63d0_876a_68ee;
    pub(super) const PORT: u64 = 0xd6e8_feb8_6659_fd93;
    pub(super) const PROCESS: u64 = 0xa076_1d64_78bd_642f;
}

/// The mark of a process: its depth, and whether it has acted (a child is known before it does).
const HAS_ACTED: u32 = 1 << 31;
/// Deepest process that is told apart.
const MAX_DEPTH: u32 = 0xffff;

/// A sleep longer than this is taken for an absurd clock.
const LONGEST_SLEEP_NS: u64 = 3_600_000_000_000;

/// Remembers one stage of one episode.
#[derive(Clone, Debug)]
pub struct Tracker {
    names: &'static NameTable,
    seen: Seen,
    last_process: Option<(u32, u32)>,
    sleeping: Option<(Option<u32>, u64)>,
}

impl Default for Tracker {
    fn default() -> Self {
        Tracker { names: NameTable::get(), seen: Seen::new(), last_process: None, sleeping: None }
    }
}

impl Tracker {
    /// Forgets the episode and keeps its memory.
    pub fn clear(&mut self) {
        self.seen.clear();
        self.last_process = None;
        self.sleeping = None;
    }

    /// Takes the next event of the stage.
    #[inline]
    pub fn observe(&mut self, event: &Event<'_>) -> Facts {
        let name = self.names.identify(event.name);
        let denied = event.denied == Some(true);
        let failed = denied || has_failed(event);
        let mut facts = Facts {
            name,
            signs: Signs::NONE,
            denied_at: NEVER_DENIED,
            failed,
            bytes_read: 0,
            bytes_written: 0,
            bytes_sent: 0,
            bytes_received: 0,
            entropy: None,
            slept_ns: 0,
            depth: 0,
        };
        facts.signs.add_if(Sign::Failed, failed);
        facts.signs.add_if(Sign::Denied, denied);
        if event.pid.is_some() {
            self.process(event, &mut facts);
        }
        if event.time_ns.is_some() {
            self.sleep(event, &mut facts);
        }
        let call = Call { event, flags: event.flags.unwrap_or(0), failed };
        match name.operation {
            Operation::Other | Operation::Close | Operation::Query | Operation::ChangeFolder => {
                self.query(call, &mut facts);
            }
            Operation::Open => self.open(call, &mut facts),
            Operation::Read | Operation::Receive => self.read(call, &mut facts),
            Operation::Write | Operation::Send | Operation::Copy => self.write(call, &mut facts),
            Operation::Connect | Operation::Bind => self.connect(call, &mut facts),
            Operation::Rename | Operation::Link => self.rename(call, &mut facts),
            Operation::Delete => self.delete(call, &mut facts),
            Operation::Exec => self.exec(call, &mut facts),
            Operation::Map | Operation::Protect | Operation::MemoryFile => memory(call, &mut facts),
            Operation::Fork | Operation::Thread => self.fork(call, &mut facts),
            Operation::MakeFolder
            | Operation::MakeNode
            | Operation::List
            | Operation::ChangeMode
            | Operation::ChangeOwner
            | Operation::SetAttribute
            | Operation::SetTimes
            | Operation::Truncate
            | Operation::Allocate
            | Operation::WriteRegistry => self.change(call, &mut facts),
            _ => plain(name.operation, failed, &mut facts),
        }
        facts
    }

    fn process(&mut self, event: &Event<'_>, facts: &mut Facts) {
        let Some(pid) = event.pid else { return };
        if let Some((last, depth)) = self.last_process
            && last == pid
        {
            facts.depth = depth;
            return;
        }
        let key = |pid: u32| u64::from(pid).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt::PROCESS;
        let parent = event.ppid.map_or(0, |ppid| self.seen.peek(key(ppid)));
        let slot = self.seen.slot(key(pid));
        let marks = self.seen.marks(slot);
        if *marks & HAS_ACTED == 0 {
            facts.signs.add(Sign::NewProcess);
            let below_parent = (parent & MAX_DEPTH) + u32::from(parent != 0);
            *marks = HAS_ACTED | (*marks).max(below_parent).min(MAX_DEPTH);
        }
        facts.depth = *marks & MAX_DEPTH;
        self.last_process = Some((pid, facts.depth));
    }

    fn sleep(&mut self, event: &Event<'_>, facts: &mut Facts) {
        let Some(now) = event.time_ns else { return };
        let who = event.tid.or(event.pid);
        if let Some((sleeper, since)) = self.sleeping
            && sleeper == who
        {
            facts.slept_ns = now.saturating_sub(since).min(LONGEST_SLEEP_NS);
            self.sleeping = None;
        }
        if facts.name.operation == Operation::Sleep {
            self.sleeping = Some((who, now));
        }
    }

    /// The slot and the marks of a path, classified.
    fn path(&mut self, path: &str, decoy: bool) -> (Slot, PathMarks, u64) {
        let digest = PathDigest::of(path);
        let slot = self.seen.slot(digest.hash);
        let marks = self.seen.marks(slot);
        if *marks & mark::CLASSIFIED == 0 {
            *marks |= mark::CLASSIFIED | classify(path, digest.name);
        }
        if decoy {
            *marks |= mark::DECOY;
        }
        (slot, PathMarks(*marks), digest.folder)
    }

    fn remember(&mut self, slot: Slot, marks: u32) {
        *self.seen.marks(slot) |= marks;
    }

    /// Counts a folder once; folders of the system and devices say nothing.
    fn folder(&mut self, marks: PathMarks, folder: u64, facts: &mut Facts) {
        if !marks.any(class::DEVICE | class::SYSTEM) && self.seen.first(folder ^ salt::FOLDER, mark::MET) {
            facts.signs.add(Sign::NewFolder);
        }
    }

    fn extension(&mut self, path: &str, facts: &mut Facts) {
        if let Some(extension) = PathDigest::of(path).extension()
            && self.seen.first(name_hash(extension) ^ salt::EXTENSION, mark::MET)
        {
            facts.signs.add(Sign::NewExtension);
        }
    }

    fn query(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        if let Some(path) = call.event.path
            && call.failed
        {
            let (slot, marks, _) = self.path(path, call.decoy());
            self.probe(call, slot, marks, facts);
        }
    }

    /// A call on a path failed.
    fn probe(&mut self, call: Call<'_, '_>, slot: Slot, marks: PathMarks, facts: &mut Facts) {
        if call.event.errno == Some(ENOENT) && !marks.any(mark::CONTENT & !mark::DECOY) {
            self.remember(slot, mark::GONE);
        }
        if marks.any(class::CREDENTIAL) && !marks.any(mark::CREDENTIAL_PROBED) {
            facts.signs.add(Sign::CredentialProbed);
            self.remember(slot, mark::CREDENTIAL_PROBED);
        }
    }

    fn open(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        let creat = call.event.name == "creat";
        let create = creat || call.has(flags::CREATE);
        let truncate = creat || call.has(flags::TRUNCATE);
        let write = creat || call.has(flags::WRITE) || call.has(flags::TRUNCATE);
        let folder_only = call.has(flags::DIRECTORY);
        if !call.failed {
            facts.signs.add(Sign::Open);
            facts.signs.add_if(Sign::OpenWrite, write);
            facts.signs.add_if(Sign::Create, call.event.created == Some(true));
        }
        let Some(path) = call.event.path else { return };
        let (slot, marks, folder) = self.path(path, call.decoy());
        if marks.any(class::DEVICE) {
            return;
        }
        if write || create {
            deny_write(marks, facts);
        }
        if call.failed {
            self.probe(call, slot, marks, facts);
            return;
        }
        if folder_only {
            return;
        }
        let mut set = 0;
        let known = marks.foreign_known();
        // Where the source does not tell, what is opened to be appended to is taken for a file that was there.
        let likely_made = create && !call.has(flags::APPEND) && !known && !marks.any(mark::OWN);
        let made = call.event.created.unwrap_or(likely_made);
        if made {
            set |= mark::OWN;
            *self.seen.marks(slot) &= !mark::GONE;
            facts.signs.add(Sign::Create);
            facts.signs.add_if(Sign::HiddenCreated, marks.any(class::HIDDEN));
        }
        if write {
            set |= mark::WRITABLE;
            set |= if call.has(flags::APPEND) { mark::APPENDS } else { 0 };
            self.persistence(slot, marks, facts);
            if !made && !marks.any(mark::OWN) && truncate {
                set |= overwrite(marks, facts);
                facts.signs.add_if(Sign::LogRemoved, marks.any(class::LOG));
            }
        } else {
            set |= mark::READABLE;
            self.reading(slot, marks, facts);
        }
        self.remember(slot, set);
        self.folder(marks, folder, facts);
        if made {
            self.extension(path, facts);
        }
    }

    /// What reading a path means.
    fn reading(&mut self, slot: Slot, marks: PathMarks, facts: &mut Facts) {
        let mut set = 0;
        let known = marks.any(mark::READ | mark::READABLE | mark::OWN);
        facts.signs.add_if(Sign::NewFileRead, !marks.any(class::SYSTEM) && !known);
        if marks.any(mark::DECOY) && !marks.any(mark::OWN | mark::DECOY_READ) {
            facts.signs.add(Sign::DecoyRead);
            set |= mark::DECOY_READ;
        }
        if marks.any(class::CREDENTIAL) && !marks.any(mark::OWN | mark::CREDENTIAL_READ) {
            facts.signs.add(Sign::CredentialRead);
            set |= mark::CREDENTIAL_READ;
        }
        self.remember(slot, set);
    }

    fn persistence(&mut self, slot: Slot, marks: PathMarks, facts: &mut Facts) {
        if marks.any(class::PERSISTENCE) && !marks.any(mark::PERSISTENCE_WRITTEN) {
            facts.signs.add(Sign::PersistenceWritten);
            self.remember(slot, mark::PERSISTENCE_WRITTEN);
        }
    }

    fn read(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        let network = facts.name.operation == Operation::Receive && call.event.path.is_none() || call.has_peer();
        if network {
            facts.denied_at = 1;
            self.peer(call, facts);
        }
        if call.failed {
            return;
        }
        let bytes = call.bytes();
        if network {
            facts.signs.add(Sign::Receive);
            facts.bytes_received = bytes;
            return;
        }
        facts.signs.add(Sign::Read);
        facts.bytes_read = bytes;
        if let Some(path) = call.event.path {
            let (slot, marks, _) = self.path(path, call.decoy());
            if !marks.any(class::DEVICE) {
                self.reading(slot, marks, facts);
                self.remember(slot, mark::READ);
            }
        }
    }

    fn write(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        let network = facts.name.operation == Operation::Send && call.event.path.is_none() || call.has_peer();
        if network {
            facts.denied_at = 1;
            self.peer(call, facts);
        }
        if call.failed {
            return;
        }
        let bytes = call.bytes();
        if network {
            facts.signs.add(Sign::Send);
            facts.bytes_sent = bytes;
            return;
        }
        facts.signs.add(Sign::Write);
        facts.bytes_written = bytes;
        if let Some(entropy) = call.event.entropy.filter(|entropy| entropy.is_finite()) {
            let entropy = entropy.clamp(0.0, 8.0);
            facts.entropy = Some(entropy);
            facts.signs.add(Sign::EntropyKnown);
            facts.signs.add_if(Sign::HighEntropy, is_high(entropy, call.event.bytes));
        }
        let Some(path) = call.event.path else { return };
        let (slot, marks, folder) = self.path(path, call.decoy());
        if marks.any(class::DEVICE) {
            return;
        }
        deny_write(marks, facts);
        self.remember(slot, mark::WRITTEN);
        if marks.any(mark::WRITTEN) {
            return;
        }
        facts.signs.add(Sign::NewFileWritten);
        // A descriptor that was open before the recording began may be a log: only an opened file is overwritten.
        if marks.any(mark::WRITABLE) && !marks.any(mark::APPENDS | mark::OWN) {
            let set = overwrite(marks, facts);
            self.remember(slot, set);
        }
        self.persistence(slot, marks, facts);
        self.folder(marks, folder, facts);
    }

    fn peer(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        if let Some(address) = call.event.peer_addr
            && self.seen.first(name_hash(address) ^ salt::PEER, mark::MET)
        {
            facts.signs.add(Sign::NewPeer);
        }
        if let Some(port) = call.event.peer_port {
            let address = call.event.peer_addr.map_or(0, name_hash);
            let key = (address ^ u64::from(port)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt::PORT;
            facts.signs.add_if(Sign::NewPort, self.seen.first(key, mark::MET));
            facts.signs.add_if(Sign::Dns, port == 53);
        }
    }

    fn connect(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        if call.event.path.is_some() && !call.has_peer() {
            return;
        }
        facts.denied_at = 1;
        if facts.name.operation == Operation::Bind {
            facts.signs.add_if(Sign::Listen, !call.failed);
            return;
        }
        facts.signs.add(Sign::Connect);
        facts.signs.add_if(Sign::ConnectFailed, call.failed);
        self.peer(call, facts);
    }

    fn rename(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        let is_rename = facts.name.operation == Operation::Rename;
        facts.denied_at = 2;
        let source = call.event.path.map(|path| self.path(path, call.decoy()).1);
        let target = call.event.path2.map(|path| self.path(path, false).1);
        let outside = |marks: Option<PathMarks>| marks.is_none_or(|marks| !marks.any(class::SCRATCH | class::DEVICE));
        // A link leaves its source alone.
        if !(outside(target) || is_rename && outside(source)) {
            facts.denied_at = NEVER_DENIED;
        }
        if call.failed {
            return;
        }
        facts.signs.add(if is_rename { Sign::Rename } else { Sign::Link });
        let marks = source.unwrap_or(PathMarks(0));
        if let Some(path) = call.event.path {
            let (slot, marks, folder) = self.path(path, call.decoy());
            if marks.any(class::CREDENTIAL) {
                self.reading(slot, marks, facts);
            }
            if is_rename {
                if !marks.any(mark::OWN | class::DEVICE) {
                    facts.signs.add(Sign::ForeignRename);
                    facts.signs.add_if(Sign::ReadThenRemoved, marks.any(mark::READ | mark::READABLE));
                    facts.signs.add_if(Sign::DecoyRemoved, marks.any(mark::DECOY));
                }
                let marks = self.seen.marks(slot);
                *marks = *marks & !mark::CONTENT | mark::GONE;
            }
            self.folder(marks, folder, facts);
        }
        let Some(path2) = call.event.path2 else { return };
        if let Some(path) = call.event.path
            && is_rename
        {
            let changed = PathDigest::of(path).extension() != PathDigest::of(path2).extension();
            facts.signs.add_if(Sign::ChangeExtension, changed);
        }
        let (slot, old, _) = self.path(path2, false);
        self.persistence(slot, old, facts);
        if is_rename {
            if old.foreign_known() && !old.any(class::DEVICE) {
                overwrite(old, facts);
            }
            let content = marks.0 & mark::CONTENT & !(mark::DECOY | mark::GONE);
            let kept = self.seen.marks(slot);
            *kept = (*kept & !(mark::CONTENT & !mark::DECOY)) | content;
        } else {
            self.remember(slot, mark::OWN);
        }
        self.extension(path2, facts);
    }

    fn delete(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        facts.denied_at = 2;
        let Some(path) = call.event.path else {
            facts.signs.add_if(Sign::Delete, !call.failed);
            return;
        };
        let (slot, marks, folder) = self.path(path, call.decoy());
        if marks.any(class::SCRATCH | class::DEVICE) {
            facts.denied_at = NEVER_DENIED;
        }
        if call.failed {
            return;
        }
        facts.signs.add(Sign::Delete);
        if !marks.any(mark::OWN | class::DEVICE) {
            facts.signs.add(Sign::ForeignDelete);
            facts.signs.add_if(Sign::ReadThenRemoved, marks.any(mark::READ | mark::READABLE));
            facts.signs.add_if(Sign::DecoyRemoved, marks.any(mark::DECOY));
            facts.signs.add_if(Sign::LogRemoved, marks.any(class::LOG));
        }
        facts.signs.add_if(Sign::SelfDeleted, marks.any(mark::PROGRAM));
        let left = self.seen.marks(slot);
        *left = *left & !mark::CONTENT | mark::GONE;
        self.folder(marks, folder, facts);
    }

    fn exec(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        if call.failed {
            return;
        }
        facts.signs.add(Sign::Exec);
        let Some(path) = call.event.path else { return };
        facts.signs.add_if(Sign::MemoryFile, path.contains("memfd:") || path.starts_with("/proc/self/fd/"));
        let (slot, marks, _) = self.path(path, call.decoy());
        self.dropped(slot, marks, facts);
        self.remember(slot, mark::PROGRAM);
        let name = PathDigest::of(path).name;
        if INTERPRETERS.iter().any(|interpreter| name.starts_with(interpreter))
            && let Some(script) = call.event.args.and_then(|args| script_of(args, path))
        {
            let (slot, marks, _) = self.path(script, false);
            self.dropped(slot, marks, facts);
            self.remember(slot, mark::PROGRAM);
        }
    }

    fn dropped(&mut self, slot: Slot, marks: PathMarks, facts: &mut Facts) {
        if marks.any(mark::OWN | mark::WRITTEN) && !marks.any(mark::DROPPED) {
            facts.signs.add(Sign::ExecutableDropped);
            self.remember(slot, mark::DROPPED);
        }
    }

    fn fork(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        let thread = facts.name.operation == Operation::Thread || call.has(flags::THREAD);
        if !thread {
            facts.denied_at = 3;
        }
        if call.failed {
            return;
        }
        facts.signs.add(if thread { Sign::Thread } else { Sign::Fork });
        if let (false, Some(_), Some(child)) =
            (thread, call.event.pid, call.event.ret.and_then(|ret| u32::try_from(ret).ok()))
        {
            let key = u64::from(child).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt::PROCESS;
            let slot = self.seen.slot(key);
            let marks = self.seen.marks(slot);
            if *marks == 0 {
                *marks = (facts.depth + 1).min(MAX_DEPTH);
            }
        }
    }

    /// The calls that change one path, or only list it.
    fn change(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        let operation = facts.name.operation;
        let lists = operation == Operation::List;
        if !lists {
            facts.denied_at = 2;
        }
        let path = call.event.path.map(|path| self.path(path, call.decoy()));
        if let Some((_, marks, _)) = path
            && marks.any(class::SCRATCH | class::DEVICE)
        {
            facts.denied_at = NEVER_DENIED;
        }
        if call.failed {
            return;
        }
        facts.signs.add(match operation {
            Operation::List => Sign::List,
            Operation::MakeFolder => Sign::MakeFolder,
            Operation::MakeNode => Sign::Create,
            Operation::SetTimes => Sign::SetTimes,
            Operation::Truncate => Sign::Truncate,
            Operation::WriteRegistry => Sign::WriteRegistry,
            _ => Sign::ChangeAttributes,
        });
        let Some((slot, marks, folder)) = path else { return };
        if marks.any(class::DEVICE) {
            return;
        }
        let foreign = !marks.any(mark::OWN);
        match operation {
            Operation::MakeFolder | Operation::MakeNode => {
                let marks = self.seen.marks(slot);
                let folder = if operation == Operation::MakeFolder { mark::FOLDER } else { 0 };
                *marks = *marks & !mark::GONE | mark::OWN | folder;
            }
            Operation::ChangeMode
                if call.has(flags::EXECUTE) && !call.has(flags::DIRECTORY) && !marks.any(mark::FOLDER) =>
            {
                self.dropped(slot, marks, facts);
            }
            Operation::SetTimes if foreign && !marks.any(mark::TIMES) => {
                facts.signs.add(Sign::ForeignTimes);
                self.remember(slot, mark::TIMES);
            }
            Operation::Truncate if foreign => {
                let set = overwrite(marks, facts);
                facts.signs.add_if(Sign::LogRemoved, marks.any(class::LOG));
                self.remember(slot, set);
            }
            Operation::WriteRegistry => self.persistence(slot, marks, facts),
            _ => {}
        }
        self.folder(marks, if lists { name_hash(call.event.path.unwrap_or("")) } else { folder }, facts);
    }
}

/// "No such file or directory".
const ENOENT: i32 = 2;

/// Marks of a path as they were before the event.
#[derive(Clone, Copy)]
struct PathMarks(u32);

impl PathMarks {
    fn any(self, marks: u32) -> bool {
        self.0 & marks != 0
    }

    /// The file is known to have been there before the episode.
    fn foreign_known(self) -> bool {
        !self.any(mark::OWN | mark::GONE) && self.any(mark::READ | mark::READABLE | mark::WRITABLE | mark::DECOY)
    }
}

/// An event with its flags at hand.
#[derive(Clone, Copy)]
struct Call<'a, 'b> {
    event: &'a Event<'b>,
    flags: u32,
    failed: bool,
}

impl Call<'_, '_> {
    fn has(self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn decoy(self) -> bool {
        self.has(flags::DECOY)
    }

    fn has_peer(self) -> bool {
        self.event.peer_addr.is_some() || self.event.peer_port.is_some()
    }

    /// Bytes moved, from the result where the source tells no number; at most 2^48, so that sums stay far from overflow.
    fn bytes(self) -> u64 {
        let from_result = || self.event.ret.and_then(|ret| u64::try_from(ret).ok()).unwrap_or(0);
        self.event.bytes.unwrap_or_else(from_result).min(1 << 48)
    }
}

/// Programs whose first path argument is the program proper.
const INTERPRETERS: [&str; 10] = ["python", "perl", "bash", "dash", "sh", "zsh", "ruby", "node", "php", "lua"];

/// The first absolute path among the arguments that is not the interpreter itself.
fn script_of<'a>(args: &'a str, interpreter: &str) -> Option<&'a str> {
    args.split([' ', '"', '\'', ',', '[', ']', '<', '>', '\t', '\n'])
        .find(|token| token.starts_with('/') && *token != interpreter)
}

/// Error numbers that are no failure: try again, interrupted, in progress, already, and the kernel's restarts.
fn has_failed(event: &Event<'_>) -> bool {
    match event.errno {
        Some(0 | 4 | 11 | 114 | 115 | 512..=516) => false,
        Some(_) => true,
        None => event.ret.is_some_and(|ret| ret < 0),
    }
}

fn deny_write(marks: PathMarks, facts: &mut Facts) {
    if !marks.any(class::SCRATCH | class::DEVICE) {
        facts.denied_at = 2;
    }
}

/// The content of a foreign file is lost; gives the marks to set.
fn overwrite(marks: PathMarks, facts: &mut Facts) -> u32 {
    if marks.any(mark::OVERWRITTEN | class::DEVICE) {
        return 0;
    }
    facts.signs.add(Sign::Overwrite);
    facts.signs.add_if(Sign::DecoyChanged, marks.any(mark::DECOY));
    facts.signs.add_if(Sign::ReadThenWritten, marks.any(mark::READ | mark::READABLE));
    mark::OVERWRITTEN
}

/// Whether written bytes look encrypted or compressed. A sensor samples 512 bytes at most, and `n` bytes can have no
/// more than `log2 n` bits of entropy: 256 random bytes show 7.2 bits, 512 show 7.6, 64 show 5.9.
fn is_high(entropy: f32, bytes: Option<u64>) -> bool {
    match bytes {
        Some(bytes) if bytes < 64 => false,
        Some(bytes) if bytes < 256 => entropy >= 0.88 * libm::log2f(bytes as f32),
        _ => entropy >= 0.88 * 8.0,
    }
}

fn memory(call: Call<'_, '_>, facts: &mut Facts) {
    if call.failed {
        return;
    }
    if facts.name.operation == Operation::MemoryFile {
        facts.signs.add(Sign::MemoryFile);
        return;
    }
    if call.has(flags::EXECUTE) {
        let from_memory = call.event.path.is_some_and(|path| path.contains("memfd:"));
        let no_file = call.has(flags::ANONYMOUS) || facts.name.operation == Operation::Protect;
        facts.signs.add_if(Sign::MapExecutable, no_file || from_memory);
        facts.signs.add_if(Sign::WriteExecutable, call.has(flags::WRITE));
        facts.signs.add_if(Sign::MemoryFile, from_memory);
    }
}

/// Operations that need no memory of what came before.
fn plain(operation: Operation, failed: bool, facts: &mut Facts) {
    let sign = match operation {
        Operation::Kill => Sign::Kill,
        Operation::Trace | Operation::WriteProcess => Sign::Inject,
        Operation::ReadProcess => Sign::ReadProcess,
        Operation::ChangeUser => Sign::ChangeUser,
        Operation::Sleep => Sign::Sleep,
        Operation::Kernel | Operation::SetClock => Sign::Kernel,
        Operation::Mount | Operation::Namespace => Sign::Mount,
        Operation::Session => Sign::Session,
        _ => return,
    };
    if matches!(sign, Sign::Kill | Sign::Inject | Sign::ReadProcess) {
        // Without new processes there is nobody of its own to act upon.
        facts.denied_at = 3;
    }
    facts.signs.add_if(sign, !failed);
}
