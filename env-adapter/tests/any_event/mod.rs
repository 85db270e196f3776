//! Arbitrary events: bare ones, rich ones, absurd ones.
#![allow(dead_code, reason = "each test binary uses its own part")]

use bellwether_env_adapter::{EpisodeAttributes, EpisodeId, EventBuf, EventKind};
use proptest::option;
use proptest::prelude::*;

pub(crate) const NAMES: [&str; 40] = [
    "openat",
    "open",
    "creat",
    "read",
    "write",
    "pwrite64",
    "rename",
    "renameat2",
    "unlink",
    "rmdir",
    "mkdir",
    "link",
    "symlink",
    "chmod",
    "chown",
    "utimensat",
    "truncate",
    "getdents64",
    "sendfile",
    "socket",
    "connect",
    "bind",
    "sendto",
    "recvfrom",
    "clone",
    "fork",
    "execve",
    "exit_group",
    "kill",
    "ptrace",
    "process_vm_writev",
    "setuid",
    "mmap",
    "mprotect",
    "memfd_create",
    "nanosleep",
    "mount",
    "bpf",
    "NtSetValueKey",
    "stat",
];

pub(crate) const PATHS: [&str; 16] = [
    "/home/user/a.txt",
    "/home/user/a.txt.locked",
    "/home/user/docs/b.docx",
    "/home/user/.ssh/id_rsa",
    "/home/user/.bashrc",
    "/home/user/.hidden",
    "/tmp/x/y.tmp",
    "/usr/lib/libc.so.6",
    "/dev/null",
    "/var/log/syslog",
    "/home/user/work/run.py",
    "relative",
    "",
    "pipe:[7]",
    "C:\\Users\\u\\x.docx",
    "/",
];

fn text(choices: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![9 => prop::sample::select(choices).prop_map(str::to_owned), 1 => ".{0,12}"]
}

fn number<T: Arbitrary + Clone + std::fmt::Debug + 'static>(
    small: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Option<T>> {
    prop_oneof![3 => Just(None), 3 => small.prop_map(Some), 1 => any::<T>().prop_map(Some)].boxed()
}

/// An event of any shape, with a time that may run anywhere.
pub(crate) fn event() -> impl Strategy<Value = EventBuf> {
    let kind = prop::sample::select(vec![
        EventKind::Syscall,
        EventKind::File,
        EventKind::Network,
        EventKind::Process,
        EventKind::Memory,
        EventKind::Behaviour,
    ]);
    let head = (kind, text(&NAMES), number(0_u64..2_000_000_000), number(1_u32..5), number(1_u32..5), number(0_u32..3));
    let texts = (
        option::of(text(&PATHS)),
        option::of(text(&PATHS)),
        option::of("[a-z/\" ,]{0,30}"),
        option::of(prop::sample::select(vec!["127.0.0.1", "<ip:3f>", "::1"]).prop_map(str::to_owned)),
        number(0_u16..100),
    );
    let values = (
        number(0_u64..10_000),
        prop_oneof![
            2 => Just(None),
            3 => (0.0_f32..8.0).prop_map(Some),
            1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, -1.0, 9.0, f32::MAX]).prop_map(Some),
        ],
        number(-5_i64..10_000),
        number(-1_i32..120),
        number(0_u32..4_096),
    );
    let bits = (any::<Option<bool>>(), any::<Option<bool>>(), number(0_u8..5), any::<Option<bool>>());
    (head, texts, values, bits).prop_map(|(head, texts, values, bits)| EventBuf {
        stage: 1,
        seq: 0,
        time_ns: head.2,
        pid: head.3,
        tid: head.4,
        ppid: head.5,
        kind: head.0,
        name: head.1,
        path: texts.0,
        path2: texts.1,
        args: texts.2,
        peer_addr: texts.3,
        peer_port: texts.4,
        bytes: values.0,
        entropy: values.1,
        ret: values.2,
        errno: values.3,
        flags: values.4,
        created: bits.0,
        denied: bits.1,
        isolation: bits.2,
        raced: bits.3,
    })
}

/// Events of an episode in order: `seq` counts up and stage 2 follows stage 1 at some point or not at all.
pub(crate) fn episode(most: usize) -> impl Strategy<Value = Vec<EventBuf>> {
    (prop::collection::vec(event(), 0..most), any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(mut events, at, two)| {
            let turn = if two && !events.is_empty() { at.index(events.len()) } else { events.len() };
            for (place, event) in events.iter_mut().enumerate() {
                event.stage = if place < turn { 1 } else { 2 };
                event.seq = if place < turn { place } else { place - turn } as u64;
            }
            events
        },
    )
}

pub(crate) fn attributes(id: &str) -> EpisodeAttributes {
    EpisodeAttributes {
        episode_id: EpisodeId(id.to_owned()),
        label: None,
        family: None,
        source: None,
        sample_sha256: None,
        complete: true,
    }
}
