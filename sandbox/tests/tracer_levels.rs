//! Actions on running samples through the tracer, in cages, and a sample that waits for who takes its events.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "these are tests")]

mod launch;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bellwether_env_adapter::event::flags;
use bellwether_env_adapter::sensor::Decoys;
use bellwether_env_adapter::{Event, EventBuf};
use bellwether_sandbox::cage::{Cage, CageError, Plan};
use bellwether_sandbox::filter;
use bellwether_sandbox::isolation::{WriteDenial, deny_writes};
use bellwether_sandbox::tracer::{Act, End, Flow, Options, Proof, Sink, Summary, Tracer};
use launch::{Kept, command, compile, start, trace};
use rustix::fs::{MemfdFlags, memfd_create};

/// What a caged sample said, and what was seen of it.
struct Run {
    said: BTreeMap<String, i64>,
    events: Vec<EventBuf>,
    acted: Vec<(Act, Proof)>,
    summary: Summary,
}

impl Run {
    fn said(&self, word: &str) -> i64 {
        *self.said.get(word).unwrap_or_else(|| panic!("{word} was not said: {:?} {:?}", self.said, self.summary))
    }
}

/// Runs `writers NAME` in a cage and does `act` when it makes the folder /tmp/now; nothing where there are no cages.
fn caged(test: &str, name: &str, act: Act) -> Option<Run> {
    let folder = tempfile::tempdir().unwrap();
    let program = compile(folder.path(), "writers");
    let mut copy = File::from(memfd_create("sample", MemfdFlags::CLOEXEC).unwrap());
    std::io::copy(&mut File::open(&program).unwrap(), &mut copy).unwrap();
    copy.rewind().unwrap();
    let (mut output, writer) = std::io::pipe().unwrap();
    let program = bellwether_sandbox::cage::Program::File(OwnedFd::from(copy));
    let arguments = ["sample", name].map(|text| CString::new(text).unwrap()).to_vec();
    let plan = Plan {
        filter: filter::Program::new().instructions().to_vec(),
        output: Some(OwnedFd::from(writer)),
        ..Plan::new(program, arguments)
    };
    let held = match Cage::start(&plan) {
        Err(CageError::Namespaces { cause }) => {
            eprintln!("skipped {test}: no namespaces ({cause})");
            return None;
        }
        held => held.unwrap(),
    };
    drop(plan);
    let (pid, gate, enclosure) = (held.pid, held.gate, Arc::new(held.enclosure));
    let seal = Arc::clone(&enclosure);
    // The cage's init is a child of this thread; the tracer has one of its own.
    let tracer =
        thread::spawn(move || {
            let options = Options {
                program: Some("/home/user/work/sample".to_owned()),
                scratch: ["/tmp", "/var/tmp", "/dev/shm"].map(str::to_owned).to_vec(),
                seal: Some(Box::new(move || match deny_writes(&seal, Duration::from_secs(10)) {
                    Ok(denial) => Ok(denial == WriteDenial::Done),
                    Err(error) => Err(std::io::Error::other(error)),
                })),
                ..Options::default()
            };
            let mut kept = Kept::new(move |event: &Event<'_>| {
                if event.name == "mkdir" && event.path == Some("/tmp/now") { Flow::Act(act) } else { Flow::Go }
            });
            let tracer = Tracer::attach(pid.as_raw_pid() as u32, || gate.open(), options).unwrap();
            let summary = tracer.run(&mut kept).unwrap();
            (kept.events, kept.acted, summary)
        });
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    let (events, acted, summary) = tracer.join().unwrap();
    if let Some(failure) = enclosure.failed_start() {
        panic!("{failure}");
    }
    let said = text.lines().filter_map(|line| {
        let (word, number) = line.rsplit_once(' ')?;
        Some((word.to_owned(), number.parse().ok()?))
    });
    Some(Run { said: said.collect(), events, acted, summary })
}

#[test]
fn level_2_takes_every_writer_and_the_sample_goes_on() {
    let test = "level_2_takes_every_writer_and_the_sample_goes_on";
    let Some(run) = caged(test, "writers", Act::Level(2)) else { return };
    assert_eq!(run.acted, [(Act::Level(2), Proof::Done)], "{:?} {:?}", run.said, run.summary);
    // What was open leads nowhere now, and is still what it was for the rest of the program.
    assert_eq!((run.said("write"), run.said("gone"), run.said("null")), (5, 5, 1));
    assert_eq!(run.said("closes"), i64::from(libc::FD_CLOEXEC));
    assert_eq!(run.said("mapping"), i64::from(libc::SIGSEGV));
    assert_eq!(run.said("/home/user/new"), -i64::from(libc::EROFS));
    let denied: Vec<_> = run.events.iter().filter(|event| event.denied == Some(true)).collect();
    assert_eq!(denied.len(), 1);
    assert_eq!((denied[0].path.as_deref(), denied[0].isolation), (Some("/home/user/new"), Some(2)));
    assert!(run.said("read") >= 0 && run.said("/tmp/new") >= 0);
    assert_eq!(run.said("append"), 5);
    // What the threads were in the middle of went on.
    assert_eq!((run.said("reads"), run.said("sleeps"), run.said("writes"), run.said("spins")), (1, 1, 1, 1));
    // Its table is its own: what it inherited leads nowhere either, and it was stopped and went on.
    assert_eq!(run.said("child"), 7);
    assert_eq!(run.summary.first, Some(End::Exited(0)));
    assert_eq!(run.events[0].path.as_deref(), Some("/home/user/work/sample"));
    assert_eq!(run.events[0].name, "execve");
}

#[test]
fn writers_that_cannot_be_reached_keep_level_2_from_taking_hold() {
    let test = "writers_that_cannot_be_reached_keep_level_2_from_taking_hold";
    for name in ["queue", "vfork"] {
        let Some(run) = caged(test, name, Act::Level(2)) else { return };
        assert_eq!(run.acted, [(Act::Level(2), Proof::Busy)], "{name}");
        assert_eq!(run.said("alive"), 1, "{name}");
    }
}

#[test]
fn level_3_refuses_processes_and_leaves_threads_and_programs() {
    let test = "level_3_refuses_processes_and_leaves_threads_and_programs";
    let Some(run) = caged(test, "forks", Act::Level(3)) else { return };
    assert_eq!(run.said("before"), 1);
    for word in ["fork", "vfork", "clone"] {
        assert_eq!(run.said(word), -i64::from(libc::EPERM), "{word}");
    }
    assert_eq!((run.said("thread"), run.said("program")), (0, 1));
    assert_eq!(run.events.iter().filter(|event| event.denied == Some(true)).count(), 3);
}

#[test]
fn a_fork_bomb_is_killed_whole() {
    let test = "a_fork_bomb_is_killed_whole";
    let Some(run) = caged(test, "bomb", Act::Kill) else { return };
    assert_eq!(run.acted, [(Act::Kill, Proof::Done)]);
    assert_eq!(run.summary.first, Some(End::Killed(libc::SIGKILL)));
}

fn shell(folder: &std::path::Path, script: &str) -> std::process::Command {
    command("/bin/sh".as_ref(), &["-c", script], folder, &folder.join("out"))
}

#[test]
fn events_say_what_was_planted_and_hide_what_is_personal() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret.txt").display().to_string();
    let options = Options {
        stage: 2,
        program: Some("/sample".to_owned()),
        decoys: Some(Decoys::new([secret.clone()])),
        ..Options::default()
    };
    let mut kept = Kept::new(|_: &Event<'_>| Flow::Go);
    let summary = trace(shell(folder.path(), "echo > secret.txt; echo > ann@example.com; exit 5"), options, &mut kept);
    assert_eq!(summary.first, Some(End::Exited(5)));
    assert!(summary.traffic.writes >= 2 && summary.traffic.written_bytes >= 2, "{summary:?}");
    assert_eq!(
        (kept.events[0].path.as_deref(), kept.events[0].args.as_deref().map(|args| &args[..12])),
        (Some("/sample"), Some("[\"/bin/sh\", "))
    );
    assert!(kept.events.iter().all(|event| event.stage == 2 && event.isolation == Some(0)));
    let opened: Vec<_> =
        kept.named("openat").into_iter().filter(|event| event.flags.unwrap_or(0) & flags::WRITE != 0).collect();
    let [planted, personal] = opened[..] else { panic!("{opened:?}") };
    assert_eq!(planted.path, Some(secret));
    assert!(planted.flags.unwrap_or(0) & flags::DECOY != 0 && personal.flags.unwrap_or(0) & flags::DECOY == 0);
    assert!(personal.path.as_deref().is_some_and(|path| path.contains("<email:")), "{personal:?}");
}

#[test]
fn what_is_wanted_at_the_end_of_a_process_is_done_when_it_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut sealed = 0;
    let options = Options {
        seal: Some(Box::new(move || {
            sealed += 1;
            Ok(sealed == 1)
        })),
        ..Options::default()
    };
    let mut kept =
        Kept::new(|event: &Event<'_>| if event.name == "exit_group" { Flow::Act(Act::Level(3)) } else { Flow::Go });
    // The first process leaves its child behind, which is raised to level 3 on behalf of its parent's last event.
    let script = "exec 3>file; (i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit 4) & exit 3";
    let summary = trace(shell(folder.path(), script), options, &mut kept);
    assert_eq!((summary.first, summary.ends.get("exit 4")), (Some(End::Exited(3)), Some(&1)), "{summary:?}");
    assert_eq!(kept.acted.first(), Some(&(Act::Level(3), Proof::Done)));
    assert_eq!(kept.named("exit_group").len(), kept.acted.len());
}

/// Has things done to a sample at ticks, once a folder is there.
struct AtTicks {
    folder: PathBuf,
    acts: VecDeque<Act>,
    acted: Vec<(Act, Proof)>,
}

impl Sink for AtTicks {
    fn event(&mut self, _: &Event<'_>) -> Flow {
        Flow::Go
    }

    fn tick(&mut self, _: u64) -> Flow {
        if self.folder.exists() { self.acts.pop_front().map_or(Flow::Go, Flow::Act) } else { Flow::Go }
    }

    fn acted(&mut self, act: Act, proof: Proof) {
        self.acted.push((act, proof));
    }
}

#[test]
fn a_sleeping_sample_is_reached_at_a_tick() {
    let folder = tempfile::tempdir().unwrap();
    let acts = [Act::Level(1), Act::Level(2), Act::Kill];
    let mut sink = AtTicks { folder: folder.path().join("a"), acts: acts.into(), acted: Vec::new() };
    let summary = trace(shell(folder.path(), "mkdir a; sleep 1000"), Options::default(), &mut sink);
    assert_eq!(summary.first, Some(End::Killed(libc::SIGKILL)));
    // Nothing was given that closes what the sample may write to, so nothing proves that it is closed.
    assert_eq!(sink.acted, acts.into_iter().zip([Proof::Done, Proof::Busy, Proof::Done]).collect::<Vec<_>>());
}

#[test]
fn the_sample_waits_while_its_events_are_taken_and_none_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let held = start(shell(folder.path(), "for i in 1 2 3 4 5 6 7 8; do mkdir d$i; done"));
    let (sender, receiver) = mpsc::sync_channel::<EventBuf>(1);
    let tracer = thread::spawn(move || {
        let mut kept = Kept::new(|event: &Event<'_>| match sender.send(EventBuf::from(event)) {
            Ok(()) => Flow::Go,
            Err(_) => Flow::Act(Act::Kill),
        });
        held.attach(Options::default()).run(&mut kept).unwrap()
    });
    let first = receiver.recv().unwrap();
    assert_eq!((first.seq, first.name.as_str()), (0, "execve"));
    thread::sleep(Duration::from_millis(100));
    assert!(!folder.path().join("d1").exists());
    let rest: Vec<EventBuf> = receiver.iter().collect();
    let summary = tracer.join().unwrap();
    assert_eq!(summary.events, rest.len() as u64 + 1);
    assert!(rest.iter().zip(1..).all(|(event, seq)| event.seq == seq));
    assert_eq!(rest.iter().filter(|event| event.name == "mkdir").count(), 8);
}

#[test]
fn every_call_of_a_crowd_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let program = compile(folder.path(), "crowd");
    let output = folder.path().join("out");
    let (processes, threads, rounds) = (64, 32, 10);
    let args = ["64", "32", "10"];
    let mut counts = BTreeMap::<String, u64>::new();
    let mut kept = Kept::new(|event: &Event<'_>| {
        if event.name == "uname" || event.path == Some("/dev/null") {
            *counts.entry(event.name.to_owned()).or_default() += 1;
        }
        Flow::Go
    });
    let summary = trace(command(&program, &args, folder.path(), &output), Options::default(), &mut kept);
    let said = std::fs::read_to_string(&output).unwrap();
    let said: Vec<u64> = said.split_ascii_whitespace().map(|word| word.parse().unwrap()).collect();
    let each = processes * threads * rounds;
    assert_eq!(said, [each, each, each, processes * threads, processes], "{summary:?}");
    // One more is the file's being opened.
    let found = ["uname", "pwrite64", "pread64", "openat"].map(|name| counts[name]);
    assert_eq!(found, [each, each, each, 1]);
}
