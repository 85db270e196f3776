//! Signs: little stories, event by event.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use bellwether_env_adapter::behaviour::{Facts, NEVER_DENIED, Sign, Tracker};
use bellwether_env_adapter::event::flags::*;
use bellwether_env_adapter::reward::HarmWeights;
use bellwether_env_adapter::{Event, EventKind};

fn call<'a>(name: &'a str, path: &'a str, flags: u32) -> Event<'a> {
    Event { path: Some(path), flags: Some(flags), ..Event::named(0, EventKind::File, name) }
}

/// Plays the events and gives what each of them means.
fn story(events: &[Event<'_>]) -> Vec<Facts> {
    let mut tracker = Tracker::default();
    events.iter().map(|event| tracker.observe(event)).collect()
}

/// Checks which of `signs` the last event of a story has.
#[track_caller]
fn check(events: &[Event<'_>], has: &[Sign], lacks: &[Sign]) {
    let last = story(events).pop().unwrap();
    for sign in has {
        assert!(last.signs.has(*sign), "{sign:?} is missing from {:?}", last.signs);
    }
    for sign in lacks {
        assert!(!last.signs.has(*sign), "{sign:?} is in {:?}", last.signs);
    }
}

const DOC: &str = "/home/user/report.docx";
const NEW: &str = "/home/user/report.docx.locked";

#[test]
fn files_of_the_user_and_files_of_its_own() {
    use Sign::*;
    let make = call("openat", NEW, WRITE | CREATE | TRUNCATE);
    check(&[make], &[Open, OpenWrite, Create, NewExtension, NewFolder], &[Overwrite, NewFileRead]);
    check(&[make, call("unlink", NEW, 0)], &[Delete], &[ForeignDelete]);
    check(&[call("unlink", DOC, 0)], &[Delete, ForeignDelete], &[ReadThenRemoved, DecoyRemoved]);
    let read = call("openat", DOC, READ);
    check(&[read], &[NewFileRead], &[DecoyRead, OpenWrite]);
    check(&[read, read], &[Open], &[NewFileRead]);
    check(&[read, call("unlink", DOC, 0)], &[ForeignDelete, ReadThenRemoved], &[]);
    check(&[read, call("openat", DOC, WRITE | CREATE | TRUNCATE)], &[Overwrite, ReadThenWritten], &[Create]);
    check(&[call("openat", DOC, WRITE | TRUNCATE)], &[Overwrite], &[Create, ReadThenWritten]);
    check(&[call("openat", DOC, WRITE | APPEND), call("write", DOC, 0)], &[Write, NewFileWritten], &[Overwrite]);
    let in_place = [call("openat", DOC, READ | WRITE), call("read", DOC, 0), call("pwrite64", DOC, 0)];
    check(&in_place, &[Overwrite, ReadThenWritten, NewFileWritten], &[]);
    let again = [in_place[0], in_place[1], in_place[2], in_place[2]];
    check(&again, &[Write], &[Overwrite, ReadThenWritten, NewFileWritten]);
    // An inherited descriptor is nothing that the episode opened.
    check(&[call("write", "/home/user/out.log", 0)], &[Write, NewFileWritten], &[Overwrite]);
    // What is gone and made again is its own.
    let remake = [call("unlink", DOC, 0), call("openat", DOC, WRITE | CREATE | TRUNCATE)];
    check(&remake, &[Create], &[Overwrite]);
    check(&[call("openat", "/dev/null", WRITE | TRUNCATE)], &[OpenWrite], &[Overwrite, NewFolder]);
    let known = Event { created: Some(false), ..make };
    check(&[known], &[Overwrite], &[Create]);
}

#[test]
fn renames() {
    use Sign::*;
    let rename = |from, to| Event { path2: Some(to), ..call("renameat2", from, 0) };
    check(&[rename(DOC, NEW)], &[Rename, ForeignRename, ChangeExtension, NewExtension], &[Overwrite, DecoyRemoved]);
    let own = call("openat", "/home/user/.report.tmp", WRITE | CREATE);
    check(&[own, rename("/home/user/.report.tmp", DOC)], &[ChangeExtension], &[ForeignRename, Overwrite]);
    let saved = [call("openat", DOC, READ), own, rename("/home/user/.report.tmp", DOC)];
    check(&saved, &[Overwrite, ReadThenWritten], &[ForeignRename]);
    let planted = Event { flags: Some(DECOY), ..rename(DOC, NEW) };
    check(&[planted], &[DecoyRemoved, ForeignRename], &[]);
    // The content keeps its history under its new name.
    check(&[rename(DOC, NEW), call("unlink", NEW, 0)], &[ForeignDelete], &[]);
    check(&[own, rename("/home/user/.report.tmp", NEW), call("unlink", NEW, 0)], &[Delete], &[ForeignDelete]);
}

#[test]
fn decoys_are_told_apart_by_what_is_done_to_them() {
    use Sign::*;
    let decoy = |name, flags| call(name, DOC, flags | DECOY);
    check(&[decoy("openat", READ)], &[DecoyRead], &[DecoyChanged]);
    check(&[decoy("openat", READ | DIRECTORY)], &[Open], &[DecoyRead]);
    check(&[decoy("openat", WRITE | CREATE | TRUNCATE)], &[DecoyChanged, Overwrite], &[DecoyRead, Create]);
    check(&[decoy("openat", WRITE), decoy("write", 0)], &[DecoyChanged], &[]);
    check(&[decoy("openat", WRITE), decoy("write", 0), decoy("write", 0)], &[], &[DecoyChanged]);
    check(&[decoy("unlink", 0)], &[DecoyRemoved], &[]);
    check(&[decoy("truncate", 0)], &[DecoyChanged], &[]);
    let denied = Event { denied: Some(true), ..decoy("unlink", 0) };
    check(&[denied], &[Denied, Failed], &[DecoyRemoved, Delete]);
}

#[test]
fn credentials_persistence_logs_and_programs() {
    use Sign::*;
    let key = "/home/user/.ssh/id_rsa";
    check(&[call("openat", key, READ)], &[CredentialRead], &[CredentialProbed]);
    check(&[call("openat", key, READ), call("read", key, 0)], &[Read], &[CredentialRead]);
    let absent = Event { errno: Some(2), ..call("openat", key, READ) };
    check(&[absent], &[CredentialProbed, Failed], &[CredentialRead, Open]);
    check(&[call("openat", key, WRITE | CREATE), call("openat", key, READ)], &[Open], &[CredentialRead]);
    check(&[call("openat", "/home/user/.bashrc", WRITE | APPEND)], &[PersistenceWritten], &[]);
    check(&[call("openat", "/home/user/.bashrc", READ)], &[], &[PersistenceWritten]);
    check(&[call("unlink", "/var/log/auth.log", 0)], &[LogRemoved, ForeignDelete], &[]);
    check(&[call("openat", "/var/log/auth.log", WRITE | TRUNCATE)], &[LogRemoved], &[]);
    check(&[call("utimensat", DOC, 0)], &[SetTimes, ForeignTimes], &[]);
    check(&[call("openat", NEW, WRITE | CREATE), call("utimensat", NEW, 0)], &[SetTimes], &[ForeignTimes]);

    let program = "/home/user/work/run.py";
    let start =
        Event { args: Some("[\"python3\", \"/home/user/work/run.py\"]"), ..call("execve", "/usr/bin/python3", 0) };
    check(&[start, call("unlink", program, 0)], &[SelfDeleted], &[]);
    check(&[start, call("unlink", DOC, 0)], &[], &[SelfDeleted]);
    let dropped = "/home/user/.cache/x";
    let made = call("openat", dropped, WRITE | CREATE);
    check(&[made, call("fchmodat", dropped, EXECUTE)], &[ExecutableDropped, ChangeAttributes], &[]);
    check(&[made, call("execve", dropped, 0)], &[ExecutableDropped, Exec], &[]);
    check(&[made, call("execve", dropped, 0), call("execve", dropped, 0)], &[Exec], &[ExecutableDropped]);
    check(&[call("fchmodat", DOC, EXECUTE)], &[], &[ExecutableDropped]);
    check(&[call("mkdir", NEW, 0), call("chmod", NEW, EXECUTE)], &[ChangeAttributes], &[ExecutableDropped]);
    check(&[call("openat", "/home/user/.profile", WRITE | CREATE | APPEND)], &[OpenWrite], &[Create, HiddenCreated]);
}

#[test]
fn network_processes_memory_and_sleep() {
    use Sign::*;
    let peer = |name, port| Event {
        peer_addr: Some("127.0.0.1"),
        peer_port: Some(port),
        ..Event::named(0, EventKind::Network, name)
    };
    check(&[peer("connect", 80)], &[Connect, NewPeer, NewPort], &[ConnectFailed, Dns]);
    check(&[peer("connect", 80), peer("connect", 81)], &[Connect, NewPort], &[NewPeer]);
    check(&[Event { errno: Some(111), ..peer("connect", 80) }], &[Connect, ConnectFailed], &[]);
    check(&[Event { errno: Some(115), ..peer("connect", 80) }], &[Connect], &[ConnectFailed, Failed]);
    check(&[peer("sendto", 53)], &[Send, Dns], &[Write]);
    check(&[Event { peer_port: Some(9), ..Event::named(0, EventKind::File, "write") }], &[Send], &[Write]);
    check(&[call("connect", "/run/socket", 0)], &[], &[Connect]);

    let by = |pid, name| Event { pid: Some(pid), ..Event::named(0, EventKind::Process, name) };
    let fork = Event { ret: Some(8), ..by(7, "clone") };
    check(&[fork], &[Fork, NewProcess], &[Thread]);
    check(&[Event { flags: Some(THREAD), ..fork }], &[Thread], &[Fork]);
    assert_eq!(
        story(&[fork, by(8, "read"), by(7, "read")]).iter().map(|facts| facts.depth).collect::<Vec<_>>(),
        [0, 1, 0]
    );
    check(&[fork, by(8, "read")], &[NewProcess], &[]);
    check(&[by(7, "process_vm_writev")], &[Inject], &[]);

    let map = |flags| Event { flags: Some(flags), ..Event::named(0, EventKind::Memory, "mmap") };
    check(&[map(READ | EXECUTE)], &[], &[MapExecutable]);
    check(&[map(READ | WRITE | EXECUTE | ANONYMOUS)], &[MapExecutable, WriteExecutable], &[]);

    let at = |name, time_ns| Event { time_ns: Some(time_ns), ..Event::named(0, EventKind::Process, name) };
    let facts = story(&[at("nanosleep", 10), at("read", 510), at("read", 900)]);
    assert_eq!(facts.iter().map(|facts| facts.slept_ns).collect::<Vec<_>>(), [0, 500, 0]);
}

#[test]
fn what_an_isolation_level_denies() {
    let network = Event { peer_port: Some(80), ..Event::named(0, EventKind::Network, "connect") };
    let cases = [
        (network, 1),
        (Event::named(0, EventKind::Network, "sendto"), 1),
        (call("openat", DOC, WRITE | CREATE), 2),
        (call("openat", DOC, READ), NEVER_DENIED),
        (call("openat", "/tmp/x", WRITE | CREATE), NEVER_DENIED),
        (call("unlink", DOC, 0), 2),
        (call("unlink", "/tmp/x", 0), NEVER_DENIED),
        (call("write", "/dev/null", 0), NEVER_DENIED),
        (Event { path2: Some(DOC), ..call("rename", "/tmp/x", 0) }, 2),
        (Event { path2: Some("/tmp/y"), ..call("rename", "/tmp/x", 0) }, NEVER_DENIED),
        (Event::named(0, EventKind::Process, "fork"), 3),
        (Event { flags: Some(THREAD), ..Event::named(0, EventKind::Process, "clone") }, NEVER_DENIED),
        (call("execve", "/bin/ls", 0), NEVER_DENIED),
        (Event::named(0, EventKind::File, "write"), NEVER_DENIED),
    ];
    for (event, expected) in cases {
        assert_eq!(story(&[event])[0].denied_at, expected, "{event:?}");
    }
}

#[test]
fn entropy_is_judged_by_what_so_many_bytes_can_have() {
    let write = |entropy, bytes| Event { entropy: Some(entropy), bytes, ..call("write", NEW, 0) };
    let cases = [
        (7.6, Some(4_096), true),
        (6.0, Some(4_096), false),
        (5.8, Some(64), true),
        (4.0, Some(64), false),
        (5.0, Some(32), false),
        (f32::NAN, Some(4_096), false),
        (f32::INFINITY, None, false),
        (1e9, None, true),
    ];
    for (entropy, bytes, expected) in cases {
        let facts = story(&[write(entropy, bytes)])[0];
        assert_eq!(facts.signs.has(Sign::HighEntropy), expected, "{entropy} of {bytes:?}");
        assert!(facts.entropy.is_none_or(|entropy| (0.0..=8.0).contains(&entropy)));
    }
}

#[test]
fn harm_is_charged_once_for_what_happens_once() {
    let weights = HarmWeights::default();
    let cases = [
        (vec![call("unlink", DOC, DECOY)], weights.decoy_removed),
        (vec![call("unlink", DOC, 0)], weights.file_destroyed),
        (vec![call("unlink", "/var/log/x", 0)], weights.log_removed),
        (vec![call("openat", NEW, WRITE | CREATE)], 0.0),
        (vec![Event { path2: Some(NEW), ..call("rename", DOC, 0) }], weights.file_destroyed),
        (vec![Event { path2: Some("/home/user/b.docx"), ..call("rename", DOC, 0) }], 0.0),
        (vec![Event { bytes: Some(2_048), ..Event::named(0, EventKind::Network, "sendto") }], 2.0 * weights.kib_sent),
        (vec![call("openat", DOC, DECOY | WRITE), call("write", DOC, DECOY)], weights.decoy_changed),
    ];
    for (events, expected) in cases {
        let last = story(&events).pop().unwrap();
        assert!((weights.of(&last) - expected).abs() < 1e-7, "{:?}", events.last());
    }
}
