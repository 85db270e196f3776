//! What an episode did so far, as far as the meaning of its next event depends on it.

use super::marks::{PathMarks, mark};
use super::paths::{PathRules, split};
use super::seen::{Seen, Slot, key_of};
use super::sign::{Sign, Signs};
use crate::calls::{NameInfo, NameTable, Operation};
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

/// Keeps keys of one table apart.
pub(super) mod salt {
    pub(crate) const FOLDER: u64 = 0x517c_c1b7_2722_0a95;
    pub(crate) const EXTENSION: u64 = 0x2545_f491_4f6c_dd1d;
    pub(crate) const PEER: u64 = 0x9e6c_63d0_876a_68ee;
    pub(crate) const PORT: u64 = 0xd6e8_feb8_6659_fd93;
    pub(crate) const PROCESS: u64 = 0xa076_1d64_78bd_642f;
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
    pub(super) rules: &'static PathRules,
    pub(super) seen: Seen,
    last_process: Option<(u32, u32)>,
    sleeping: Option<(Option<u32>, u64)>,
}

impl Default for Tracker {
    fn default() -> Self {
        Tracker {
            names: NameTable::get(),
            rules: PathRules::get(),
            seen: Seen::new(),
            last_process: None,
            sleeping: None,
        }
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

    pub(super) fn peer(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        if let Some(address) = call.event.peer_addr
            && self.seen.first(key_of(address) ^ salt::PEER, mark::MET)
        {
            facts.signs.add(Sign::NewPeer);
        }
        if let Some(port) = call.event.peer_port {
            let address = call.event.peer_addr.map_or(0, key_of);
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

    fn exec(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        if call.failed {
            return;
        }
        facts.signs.add(Sign::Exec);
        let Some(path) = call.event.path else { return };
        facts.signs.add_if(Sign::MemoryFile, path.contains("memfd:") || path.starts_with("/proc/self/fd/"));
        let (slot, marks) = self.path(path, call.decoy());
        self.dropped(slot, marks, facts);
        self.remember(slot, mark::PROGRAM);
        let (_, name) = split(path);
        if INTERPRETERS.iter().any(|interpreter| name.starts_with(interpreter))
            && let Some(script) = call.event.args.and_then(|args| script_of(args, path))
        {
            let (slot, marks) = self.path(script, false);
            self.dropped(slot, marks, facts);
            self.remember(slot, mark::PROGRAM);
        }
    }

    pub(super) fn dropped(&mut self, slot: Slot, marks: PathMarks, facts: &mut Facts) {
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
}

/// An event with its flags at hand.
#[derive(Clone, Copy)]
pub(super) struct Call<'a, 'b> {
    pub(super) event: &'a Event<'b>,
    flags: u32,
    pub(super) failed: bool,
}

impl Call<'_, '_> {
    pub(super) fn has(self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn decoy(self) -> bool {
        self.has(flags::DECOY)
    }

    pub(super) fn has_peer(self) -> bool {
        self.event.peer_addr.is_some() || self.event.peer_port.is_some()
    }

    /// Bytes moved, from the result where the source tells no number; at most 2^48, so that sums stay far from overflow.
    pub(super) fn bytes(self) -> u64 {
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
