//! strace logs: real ones in three styles, and small ones for what real ones seldom hold.
#![cfg(feature = "ingest")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod arbitrary;

use std::path::Path;

use arbitrary::{Episode, Kept};
use bellwether_env_adapter::event::flags;
use bellwether_env_adapter::ingest::{Description, Format, IngestError, Options, QualityReport, read_strace_log};
use bellwether_env_adapter::sensor::Decoys;
use bellwether_env_adapter::{EventBuf, Label};
use proptest::prelude::*;

fn file(name: &str) -> (Episode, QualityReport) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let (mut kept, mut report) = (Kept::default(), QualityReport::default());
    Format::Strace.read(&path, &Options::default(), &mut kept, &mut report).unwrap();
    (kept.0.remove(0), report)
}

fn log_of(text: &str, description: &Description, keep_all_calls: bool) -> (Episode, QualityReport) {
    let (mut kept, mut report) = (Kept::default(), QualityReport::default());
    let options = Options { keep_all_calls, ..Options::default() };
    read_strace_log(text.as_bytes(), "log", description, &options, &mut kept, &mut report).unwrap();
    (kept.0.remove(0), report)
}

fn log(text: &str) -> (Vec<EventBuf>, QualityReport) {
    let mut description = Description::unknown("e");
    description.cwd = Some("/home/user".to_owned());
    let (episode, report) = log_of(text, &description, false);
    (episode.events, report)
}

/// `name path -> path2` of the events below `/home`.
fn story(episode: &Episode) -> Vec<String> {
    let at_home = |event: &&EventBuf| event.path.as_deref().is_some_and(|path| path.starts_with("/home"));
    let tell = |event: &EventBuf| {
        let path2 = event.path2.as_ref().map(|path| format!(" -> {path}")).unwrap_or_default();
        format!("{} {}{path2}", event.name, event.path.as_deref().unwrap_or_default())
    };
    episode.events.iter().filter(at_home).map(tell).collect()
}

#[test]
fn a_recording_with_threads_peers_and_samples() {
    let (episode, report) = file("threads.strace");
    let attributes = &episode.attributes;
    assert_eq!((attributes.episode_id.0.as_str(), attributes.label), ("run-1", Some(Label::Malicious)));
    assert_eq!((attributes.family.as_deref(), attributes.source.as_deref()), (Some("walk"), Some("strace")));
    assert!(attributes.complete && attributes.sample_sha256.is_some());
    // The thread changes the folder of the whole process.
    assert_eq!(
        story(&episode),
        [
            "execve /home/user/work/sample",
            "chdir /home/user/work/notes",
            "openat /home/user/work/notes/plan.txt",
            "read /home/user/work/notes/plan.txt",
            "openat /home/user/work/notes/fresh.bin",
            "write /home/user/work/notes/fresh.bin",
            "fchmod /home/user/work/notes/fresh.bin",
            "rename /home/user/work/notes/fresh.bin -> /home/user/work/fresh.old",
            "unlink /home/user/work/fresh.old",
        ]
    );
    let event = |name: &str| episode.events.iter().find(|event| event.name == name).unwrap();
    let thread = event("chdir");
    assert_eq!((thread.pid, thread.tid, thread.ppid), (Some(26794), Some(26795), None));
    assert_eq!(event("clone3").flags, Some(flags::THREAD));
    let child = event("kill");
    assert_eq!((child.pid, child.tid, child.ppid), (Some(26797), Some(26797), Some(26794)));
    assert_eq!((child.ret, child.errno), (None, None));
    let write = event("write");
    assert_eq!((write.bytes, write.entropy), (Some(256), Some(8.0)));
    assert_eq!(event("clock_nanosleep").args.as_deref(), Some("0.005000000"));
    let created = episode.events.iter().find(|event| event.created == Some(true)).unwrap();
    assert_eq!(created.path.as_deref(), Some("/home/user/work/notes/fresh.bin"));
    let expected = flags::WRITE | flags::CREATE | flags::EXCLUSIVE | flags::DECOY;
    assert_eq!(created.flags, Some(expected));
    let connect = event("connect");
    assert_eq!((connect.peer_addr.as_deref(), connect.peer_port), (Some("127.0.0.1"), Some(9)));
    assert_eq!((connect.ret, connect.errno), (Some(-1), Some(111)));
    let send = event("sendto");
    assert_eq!((send.bytes, send.peer_port, send.entropy), (Some(4), Some(9), Some(2.0)));
    let anonymous = flags::READ | flags::WRITE | flags::EXECUTE | flags::ANONYMOUS;
    assert!(episode.events.iter().any(|event| event.name == "mmap" && event.flags == Some(anonymous)));
    // What strace knows of addresses differs from run to run.
    assert!(episode.events.iter().all(|event| event.name != "mmap" || event.ret.is_none()));
    let run = episode.events.iter().rfind(|event| event.name == "execve").unwrap();
    assert!(run.args.as_ref().unwrap().starts_with("[\"true\", \"--mail=<email:"), "{:?}", run.args);
    assert_eq!((report.bad_lines.count, report.redacted.total()), (0, 1));
    assert!(episode.events.is_sorted_by_key(|event| event.time_ns));
    assert!(episode.events.iter().zip(0..).all(|(event, seq)| event.seq == seq));
}

#[test]
fn a_plain_log_with_descriptors() {
    let (episode, report) = file("shell.strace");
    let story = story(&episode);
    for expected in [
        "openat /home/user/work/note.txt",
        "write /home/user/work/note.txt",
        "chdir /home/user/work/notes",
        "copy_file_range /home/user/work/copy.txt",
        "unlinkat /home/user/work/note.txt",
    ] {
        assert!(story.contains(&expected.to_owned()), "{expected} in {story:#?}");
    }
    assert_eq!((episode.attributes.label, report.missing_labels.count), (None, 1));
    assert!(episode.attributes.complete);
    assert!(report.not_recorded.counts["close"] > 0 && report.bad_lines.count == 0);
}

#[test]
fn a_bare_log_follows_descriptors_itself() {
    let (episode, report) = file("bare.strace");
    assert_eq!(report.bad_lines.count, 0);
    assert!(episode.events.iter().all(|event| event.time_ns.is_none()));
    // The shell opened the files under other numbers and handed them on as 0 and 1.
    let copy = episode.events.iter().find(|event| event.name == "copy_file_range").unwrap();
    assert_eq!((copy.path.as_deref(), copy.args.as_deref()), (Some("copy2.txt"), Some("notes/plan.txt")));
    let opened = episode.events.iter().rev().find(|event| event.name == "openat").unwrap();
    assert_eq!(opened.path.as_deref(), Some("/home/user/work/d/x"));
}

#[test]
fn every_cut_of_a_log_is_readable_and_incomplete() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/shell.strace");
    let text = std::fs::read_to_string(path).unwrap();
    let (whole, _) = log_of(&text, &Description::unknown("e"), true);
    for cut in (0..text.len()).step_by(97) {
        let (episode, report) = log_of(&text[..cut], &Description::unknown("e"), true);
        assert!(!episode.attributes.complete, "cut at {cut}");
        assert!(report.bad_lines.count <= 1, "cut at {cut}: {report}");
        assert!(episode.events.len() <= whole.events.len());
    }
}

#[test]
fn joined_calls_keep_the_order_of_each_thread() {
    let (events, report) = log(concat!(
        "1 1.0 clone(child_stack=NULL, flags=SIGCHLD) = 2\n",
        "1 1.1 read(0,  <unfinished ...>\n",
        "2 1.2 mkdir(\"a\", 0755) = 0\n",
        "2 1.3 rmdir(\"a\" <unfinished ...>\n",
        "1 1.4 <... read resumed>\"x\", 1) = 1\n",
        "2 1.5 <... rmdir resumed>) = 0\n",
        "2 1.6 exit_group(0) = ?\n",
    ));
    let told: Vec<_> =
        events.iter().map(|event| (event.tid.unwrap(), event.name.as_str(), event.time_ns.unwrap())).collect();
    assert_eq!(
        told,
        [
            (1, "clone", 0),
            (2, "mkdir", 200_000_000),
            (1, "read", 400_000_000),
            (2, "rmdir", 500_000_000),
            (2, "exit_group", 600_000_000),
        ]
    );
    assert_eq!(events[1].ppid, Some(1));
    assert_eq!(report.bad_lines.count, 0);
}

#[test]
fn a_child_that_speaks_before_its_creation_returns_finds_its_parent() {
    // Two calls are under way when 4 speaks; what follows tells whose child it is.
    let (events, _) = log(concat!(
        "1 vfork() = 2\n",
        "1 vfork( <unfinished ...>\n",
        "2 clone(child_stack=NULL, flags=CLONE_VM|CLONE_THREAD|CLONE_FS <unfinished ...>\n",
        "4 chdir(\"x\") = 0\n",
        "3 chdir(\"/y\") = 0\n",
        "1 <... vfork resumed>) = 3\n",
        "2 <... clone resumed>, child_tidptr=0x1) = 4\n",
        "2 mkdir(\"d\", 0700) = 0\n",
        "1 mkdir(\"d\", 0700) = 0\n",
    ));
    let of = |tid: u32| events.iter().rfind(|event| event.tid == Some(tid)).unwrap();
    assert_eq!((of(4).pid, of(4).ppid), (Some(2), Some(1)));
    assert_eq!((of(3).pid, of(3).ppid), (Some(3), Some(1)));
    assert_eq!(of(2).path.as_deref(), Some("/home/user/x/d"));
    assert_eq!(of(1).path.as_deref(), Some("/home/user/d"));
}

#[test]
fn a_child_of_another_namespace_is_known_by_its_silence() {
    let (events, _) = log(concat!(
        "100 clone(child_stack=NULL, flags=CLONE_NEWPID|SIGCHLD) = 1\n",
        "150 mkdir(\"d\", 0700) = 0\n",
        "77 mkdir(\"d\", 0700) = 0\n",
    ));
    assert_eq!((events[1].pid, events[1].ppid), (Some(150), Some(100)));
    // Nothing tells where this one comes from.
    assert_eq!((events[2].pid, events[2].ppid, events[2].tid), (None, None, Some(77)));
    assert_eq!(events[2].path.as_deref(), Some("d"));
}

#[test]
fn a_thread_that_runs_a_program_becomes_the_leader() {
    let (events, report) = log(concat!(
        "1 clone(child_stack=0x1, flags=CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_THREAD) = 2\n",
        "2 execve(\"/bin/true\", [\"true\"], 0x1 /* 0 vars */ <unfinished ...>\n",
        "1 +++ superseded by execve in pid 2 +++\n",
        "1 <... execve resumed>) = 0\n",
        "1 exit_group(0) = ?\n",
        "1 +++ exited with 0 +++\n",
    ));
    assert_eq!(report.bad_lines.count, 0);
    let told: Vec<_> = events.iter().map(|event| (event.name.as_str(), event.pid, event.tid)).collect();
    assert_eq!(told[1..], [("execve", Some(1), Some(1)), ("exit_group", Some(1), Some(1))]);
}

#[test]
fn the_call_that_a_leader_is_in_when_a_thread_takes_over_is_kept() {
    let (events, report) = log(concat!(
        "1 clone(child_stack=0x1, flags=CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_THREAD) = 2\n",
        "1 nanosleep({tv_sec=9, tv_nsec=0},  <unfinished ...>\n",
        "2 execve(\"/bin/true\", [\"true\"], 0x1 /* 0 vars */ <unfinished ...>\n",
        "1 +++ superseded by execve in pid 2 +++\n",
        "1 <... execve resumed>) = 0\n",
        "1 +++ exited with 0 +++\n",
    ));
    assert_eq!(report.bad_lines.count, 0, "{report}");
    let told: Vec<_> = events.iter().map(|event| (event.name.as_str(), event.tid)).collect();
    assert_eq!(told, [("clone", Some(1)), ("nanosleep", Some(1)), ("execve", Some(1))]);
}

#[test]
fn sockets_and_descriptors_across_exec() {
    let (events, _) = log(concat!(
        "1 socket(AF_INET, SOCK_STREAM, 0) = 3\n",
        "1 connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr(\"93.184.216.34\")}, 16) = 0\n",
        "1 write(3, \"GET\", 3) = 3\n",
        "1 open(\"kept\", O_RDONLY) = 4\n",
        "1 open(\"gone\", O_RDONLY|O_CLOEXEC) = 5\n",
        "1 execve(\"/bin/x\", [\"x\"], []) = 0\n",
        "1 read(4, \"\", 1) = 0\n",
        "1 read(5, \"\", 1) = -1 EBADF (Bad file descriptor)\n",
        "1 connect(6, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, \"::1\", &sin6_addr), sin6_scope_id=0}, 28) = 0\n",
        "1 connect(7, {sa_family=AF_UNIX, sun_path=\"run/s\"}, 110) = 0\n",
        "1 sendmmsg(8<UDP:[10.0.0.1:5->10.0.0.2:53]>, [{msg_hdr={msg_name=NULL, msg_iov=[{iov_base=\"ab\", iov_len=2}], msg_iovlen=1}, msg_len=2}, {msg_hdr={}, msg_len=5}], 2, 0) = 2\n",
    ));
    let peer = |index: usize| (events[index].peer_addr.clone(), events[index].peer_port);
    let token = peer(1).0.unwrap();
    assert!(token.starts_with("<ip:"), "{token}");
    assert_eq!(peer(2), (Some(token), Some(443)));
    assert_eq!(events[6].path.as_deref(), Some("/home/user/kept"));
    assert_eq!((events[7].path.as_deref(), events[7].errno), (None, Some(9)));
    assert_eq!(peer(8), (Some("::1".to_owned()), Some(80)));
    assert_eq!(events[9].path.as_deref(), Some("/home/user/run/s"));
    assert_eq!((events[10].bytes, events[10].peer_port, events[10].entropy), (Some(7), Some(53), Some(1.0)));
}

#[test]
fn what_is_no_call_is_counted_with_its_line() {
    let (events, report) = log(
        "1 mkdir(\"a\", 0700) = 0\nnonsense\n1 read(3\n1 <... write resumed>) = 1\n\n1 --- SIG\nstrace: Process 2 attached\n",
    );
    assert_eq!(events.len(), 1);
    let lines: Vec<u64> = report.bad_lines.examples.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [2, 3, 4, 6]);
    assert_eq!(report.notes.counts["remarks of strace"], 1);
}

#[test]
fn a_named_file_that_is_no_log_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.strace");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"), &path).unwrap();
    let (mut kept, mut report) = (Kept::default(), QualityReport::default());
    let error = Format::Strace.read(&path, &Options::default(), &mut kept, &mut report).unwrap_err();
    assert!(matches!(error, IngestError::NotThisFormat { .. }), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let error = Format::Strace.read(empty.path(), &Options::default(), &mut kept, &mut report).unwrap_err();
    assert!(matches!(error, IngestError::NothingFound { .. }), "{error}");
}

#[test]
fn calls_off_the_list_are_kept_on_demand() {
    let text = "1 stat(\"a\", {st_mode=S_IFREG}) = -1 ENOENT (No such file or directory)\n1 close(3) = 0\n";
    let mut description = Description::unknown("e");
    description.decoys = Some(Decoys::new(["/b".to_owned()]));
    let (dropped, report) = log_of(text, &description, false);
    assert!(dropped.events.is_empty());
    assert_eq!(report.not_recorded.total(), 2);
    let (kept, report) = log_of(text, &description, true);
    assert_eq!((kept.events.len(), report.not_recorded.total()), (2, 0));
    assert_eq!((kept.events[0].path.as_deref(), kept.events[0].errno), (Some("a"), Some(2)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// However the calls of two threads are cut and interleaved, each thread's calls come out in its order and none is
    /// lost.
    #[test]
    fn interleaving_loses_nothing(turns in prop::collection::vec((0u32..2, any::<bool>()), 1..40)) {
        let mut text = String::from("1 clone(child_stack=0x1, flags=CLONE_VM|CLONE_THREAD) = 2\n");
        let mut expected = [vec![], vec![]];
        let mut open = [None, None];
        let mut next = 0;
        for (thread, whole) in turns {
            let slot = thread as usize;
            let tid = thread + 1;
            match open[slot].take() {
                Some(number) => {
                    text += &format!("{tid} <... mkdir resumed>, 0755) = 0\n");
                    expected[slot].push(number);
                }
                None if whole => {
                    text += &format!("{tid} mkdir(\"/{next}\", 0755) = 0\n");
                    expected[slot].push(next);
                    next += 1;
                }
                None => {
                    text += &format!("{tid} mkdir(\"/{next}\" <unfinished ...>\n");
                    open[slot] = Some(next);
                    next += 1;
                }
            }
        }
        // What never returns comes last.
        for slot in [0, 1] {
            expected[slot].extend(open[slot]);
        }
        let (events, report) = log(&text);
        prop_assert_eq!(report.bad_lines.count, 0);
        for thread in [1, 2] {
            let of_thread = events.iter().filter(|event| event.tid == Some(thread) && event.name == "mkdir");
            let paths: Vec<String> = of_thread.map(|event| event.path.clone().unwrap()).collect();
            let wanted: Vec<String> = expected[thread as usize - 1].iter().map(|number: &u32| format!("/{number}")).collect();
            prop_assert_eq!(paths, wanted);
        }
        prop_assert!(events.iter().all(|event| event.pid == Some(1)));
    }
}

#[test]
fn arguments_are_cut_after_redaction_so_that_no_half_of_an_address_stays() {
    for blanks in 980..1_030 {
        let text = format!("1 execve(\"/bin/mail\", [\"{}ada.lovelace@example.org\"], 0x1) = 0\n", " ".repeat(blanks));
        let (events, _) = log(&text);
        let args = events[0].args.as_deref().unwrap();
        assert!(args.len() <= 1_024 && !args.contains("lovelace"), "{blanks}: {args}");
    }
}
