//! Call names: the recorded list `calls-v1`, what each call does, and the tables of numbers.

mod i386;
mod names;
mod x86_64;

use std::sync::LazyLock;

pub use i386::i386_name;

use crate::event::EventKind;

/// What a call or behaviour does, as far as the features and the rewards tell calls apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Operation {
    /// None of those below.
    Other,
    /// Opens or creates a file.
    Open,
    /// Reads from a descriptor.
    Read,
    /// Writes to a descriptor.
    Write,
    /// Moves bytes from one descriptor to another.
    Copy,
    /// Makes a device, pipe or plain node.
    MakeNode,
    /// Renames.
    Rename,
    /// Removes a file or an empty folder.
    Delete,
    /// Makes a folder.
    MakeFolder,
    /// Makes a hard or symbolic link.
    Link,
    /// Changes permission bits.
    ChangeMode,
    /// Changes the owner.
    ChangeOwner,
    /// Sets access and modification times.
    SetTimes,
    /// Sets the length of a file.
    Truncate,
    /// Reserves room in a file.
    Allocate,
    /// Lists a folder.
    List,
    /// Changes the working folder.
    ChangeFolder,
    /// Sets an extended or information attribute.
    SetAttribute,
    /// Changes what is mounted, or the root.
    Mount,
    /// Asks for the attributes of a file.
    Query,
    /// Closes a descriptor or handle.
    Close,
    /// Makes a socket or asks about one.
    Socket,
    /// Connects, or resolves a name.
    Connect,
    /// Binds, listens or accepts.
    Bind,
    /// Sends to a peer.
    Send,
    /// Receives from a peer.
    Receive,
    /// Starts a process.
    Fork,
    /// Starts a thread.
    Thread,
    /// Replaces the program of a process.
    Exec,
    /// Ends the process.
    Exit,
    /// Signals or ends another process.
    Kill,
    /// Traces another process.
    Trace,
    /// Reads the memory of another process.
    ReadProcess,
    /// Writes the memory of another process, or makes it run code.
    WriteProcess,
    /// Changes user, group or capabilities.
    ChangeUser,
    /// Restricts itself or changes process attributes.
    Restrict,
    /// Leaves its session or process group.
    Session,
    /// Enters other namespaces.
    Namespace,
    /// Sleeps.
    Sleep,
    /// Asks what system this is.
    Identify,
    /// Waits for a child or an object.
    Wait,
    /// Maps memory.
    Map,
    /// Changes the protection of memory.
    Protect,
    /// Makes a file that lives in memory alone.
    MemoryFile,
    /// Reads the Windows registry.
    ReadRegistry,
    /// Writes the Windows registry.
    WriteRegistry,
    /// Loads code into the kernel or uses one of its privileged interfaces.
    Kernel,
    /// Sets the clock or the name of the host, or restarts it.
    SetClock,
}

/// What a name stands for, found once per event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameInfo {
    /// [`name_hash`] of the name; the hashed n-grams start from it.
    pub hash: u64,
    /// What the call does.
    pub operation: Operation,
    /// Its domain.
    pub kind: EventKind,
}

/// The 64-bit offset basis of FNV-1a XOR the seed `bellweth` in ASCII.
const HASH_BASIS: u64 = 0xcbf2_9ce4_8422_2325 ^ 0x6265_6c6c_7765_7468;
/// FNV-1a's 64-bit prime.
const HASH_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Seeded FNV-1a, 64 bits, over the bytes of `text`: the one hash of the features.
///
/// The offset basis is FNV's XOR `0x62656c6c77657468`; the prime is FNV's.
#[inline]
pub fn name_hash(text: &str) -> u64 {
    let mut hash = HASH_BASIS;
    for &byte in text.as_bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(HASH_PRIME);
    }
    hash
}

/// Slots of the lookup table: a power of two, at least twice the number of known names, so that a probe is short.
const SLOTS: usize = 2048;

/// The known names by hash: open addressing, linear probing; the hash 0 marks a free slot.
#[derive(Debug)]
pub struct NameTable {
    slots: Box<[NameInfo]>,
}

impl NameTable {
    fn build() -> NameTable {
        let free = NameInfo { hash: 0, operation: Operation::Other, kind: EventKind::Syscall };
        let mut slots = vec![free; SLOTS].into_boxed_slice();
        for &(kind, operation, names) in names::NAMES {
            for name in names.split_ascii_whitespace() {
                let hash = name_hash(name);
                let mut at = hash as usize % SLOTS;
                while slots[at].hash != 0 && slots[at].hash != hash {
                    at = (at + 1) % SLOTS;
                }
                slots[at] = NameInfo { hash, operation, kind };
            }
        }
        NameTable { slots }
    }

    /// The table of all known names.
    pub fn get() -> &'static NameTable {
        static TABLE: LazyLock<NameTable> = LazyLock::new(NameTable::build);
        &TABLE
    }

    /// What `name` stands for; an unknown name is [`Operation::Other`] of kind [`EventKind::Syscall`].
    #[inline]
    pub fn identify(&self, name: &str) -> NameInfo {
        let hash = name_hash(name);
        let mut at = hash as usize % SLOTS;
        loop {
            let slot = self.slots[at];
            if slot.hash == hash {
                return slot;
            }
            if slot.hash == 0 {
                return NameInfo { hash, operation: Operation::Other, kind: EventKind::Syscall };
            }
            at = (at + 1) % SLOTS;
        }
    }
}

/// The table of names as text, one line per kind and operation: part of what a state means.
pub(crate) fn names_text() -> String {
    let lines = names::NAMES.iter().map(|(kind, operation, names)| {
        let names: Vec<_> = names.split_ascii_whitespace().collect();
        format!("{kind:?} {operation:?} {}\n", names.join(" "))
    });
    lines.collect()
}

/// What a call of this name does; [`Operation::Other`] where the name is unknown.
pub fn operation_of(name: &str) -> Operation {
    NameTable::get().identify(name).operation
}

/// The domain of a call of this name; [`EventKind::Syscall`] where the name is unknown.
pub fn kind_of(name: &str) -> EventKind {
    NameTable::get().identify(name).kind
}

/// One call of the recorded list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedCall {
    /// Its domain.
    pub kind: EventKind,
    /// Its name.
    pub name: &'static str,
    /// Its number on x86-64.
    pub x86_64: u32,
}

/// The text of the recorded list, `docs/formats/calls-v1.txt`.
pub const CALLS_V1: &str = include_str!("../../../docs/formats/calls-v1.txt");

/// The recorded calls in the order of the list: every recorder's filter is made from them.
pub fn recorded_calls() -> &'static [RecordedCall] {
    static CALLS: LazyLock<Vec<RecordedCall>> = LazyLock::new(|| {
        let lines = CALLS_V1.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .zip(&x86_64::NUMBERS)
            .filter_map(|(line, &(name, x86_64))| {
                let kind = parse_kind(line.split_ascii_whitespace().next()?)?;
                Some(RecordedCall { kind, name, x86_64 })
            })
            .collect()
    });
    &CALLS
}

/// Whether a call of this name is on the recorded list.
pub fn is_recorded(name: &str) -> bool {
    static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        let mut names: Vec<_> = recorded_calls().iter().map(|call| call.name).collect();
        names.sort_unstable();
        names
    });
    NAMES.binary_search(&name).is_ok()
}

/// What stands after `strace -e trace=` to record the list.
pub fn strace_filter() -> String {
    let names: Vec<_> = recorded_calls().iter().map(|call| call.name).collect();
    names.join(",")
}

fn parse_kind(word: &str) -> Option<EventKind> {
    match word {
        "syscall" => Some(EventKind::Syscall),
        "file" => Some(EventKind::File),
        "network" => Some(EventKind::Network),
        "process" => Some(EventKind::Process),
        "memory" => Some(EventKind::Memory),
        "behaviour" => Some(EventKind::Behaviour),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_whole() {
        let lines: Vec<_> =
            CALLS_V1.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect();
        let calls = recorded_calls();
        assert_eq!(calls.len(), lines.len());
        for (call, line) in calls.iter().zip(&lines) {
            let word = format!("{:?}", call.kind).to_lowercase();
            assert_eq!(&format!("{word} {}", call.name), line);
        }
        assert_eq!(strace_filter().split(',').count(), lines.len());
    }

    #[test]
    fn every_recorded_call_is_known_with_the_same_kind() {
        for call in recorded_calls() {
            assert_eq!(kind_of(call.name), call.kind, "{}", call.name);
            assert!(is_recorded(call.name));
        }
        assert!(!is_recorded("brk"));
        assert_eq!(recorded_calls().iter().find(|call| call.name == "openat").map(|call| call.x86_64), Some(257));
    }

    #[test]
    fn no_name_stands_twice_and_no_two_hashes_meet() {
        let mut seen = std::collections::BTreeMap::new();
        for (_, _, text) in names::NAMES {
            for name in text.split_ascii_whitespace() {
                assert_ne!(name_hash(name), 0);
                assert_eq!(seen.insert(name_hash(name), name), None, "{name}");
            }
        }
        assert!(seen.len() * 2 <= SLOTS, "{} names need a larger table", seen.len());
    }

    #[test]
    fn numbers_of_old_recordings_have_names() {
        for (number, name) in [(3, "read"), (4, "write"), (5, "open"), (102, "socketcall"), (265, "clock_gettime")] {
            assert_eq!(i386_name(number), Some(name));
        }
        assert_eq!(i386_name(222), None);
        assert_eq!(i386_name(100_000), None);
        let named = (0..=340).filter_map(i386_name);
        let unknown: Vec<_> = named.filter(|name| NameTable::get().identify(name).hash != name_hash(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn operations_and_kinds() {
        let cases = [
            ("openat", Operation::Open, EventKind::File),
            ("NtCreateFile", Operation::Open, EventKind::File),
            ("NtWriteVirtualMemory", Operation::WriteProcess, EventKind::Process),
            ("socketcall", Operation::Socket, EventKind::Network),
            ("mmap2", Operation::Map, EventKind::Memory),
            ("no_such_call", Operation::Other, EventKind::Syscall),
            ("", Operation::Other, EventKind::Syscall),
        ];
        for (name, operation, kind) in cases {
            assert_eq!((operation_of(name), kind_of(name)), (operation, kind), "{name}");
        }
    }
}
