//! Attempts to get away from the tracer, one test each: nothing goes unseen, and the sample learns no way out.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "these are tests")]

mod launch;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bellwether_env_adapter::{Event, EventBuf};
use bellwether_sandbox::tracer::{End, Flow, Options, Summary};
use launch::{Kept, command, compile, lives, start, trace};

/// What came of an attempt.
struct Attempt {
    said: BTreeMap<String, i64>,
    events: Vec<EventBuf>,
    summary: Summary,
}

impl Attempt {
    fn new(name: &str) -> Attempt {
        let folder = tempfile::tempdir().unwrap();
        let program = compile(folder.path(), "attempts");
        let output = folder.path().join("out");
        let mut kept = Kept::new(|_: &Event<'_>| Flow::Go);
        let summary = trace(command(&program, &[name], folder.path(), &output), Options::default(), &mut kept);
        let text = std::fs::read_to_string(&output).unwrap();
        let said = text.lines().filter_map(|line| {
            let (word, number) = line.rsplit_once(' ')?;
            Some((word.to_owned(), number.parse().ok()?))
        });
        Attempt { said: said.collect(), events: kept.events, summary }
    }

    fn said(&self, word: &str) -> i64 {
        *self.said.get(word).unwrap_or_else(|| panic!("{word} was not said: {:?}, {:?}", self.said, self.summary))
    }

    fn errno(&self, word: &str) -> i32 {
        i32::try_from(-self.said(word)).unwrap()
    }

    /// Events of a call on a file of this name.
    fn on(&self, name: &str, file: &str) -> Vec<&EventBuf> {
        let ends = |path: &Option<String>| path.as_deref().is_some_and(|path| path.rsplit('/').next() == Some(file));
        self.events.iter().filter(|event| event.name == name && ends(&event.path)).collect()
    }

    fn denied(&self, name: &str) -> usize {
        self.events.iter().filter(|event| event.name == name && event.denied == Some(true)).count()
    }
}

#[test]
fn nobody_traces_the_tracer_or_is_traced_by_another() {
    let attempt = Attempt::new("tracing");
    for word in ["traceme", "attach", "seize"] {
        assert_eq!(attempt.errno(word), libc::EPERM, "{word}");
    }
    assert_eq!(attempt.denied("ptrace"), 3);
    assert_eq!(attempt.summary.first, Some(End::Exited(0)));
}

#[test]
fn a_daemon_is_followed_beyond_its_parents() {
    let attempt = Attempt::new("daemonize");
    let by = attempt.on("openat", "by the grandchild");
    assert_eq!(by.len(), 1);
    assert_eq!(attempt.said("grandchild"), 0);
    // Three generations, the last of which outlives the others.
    let parents: BTreeMap<_, _> = attempt.events.iter().map(|event| (event.pid, event.ppid)).collect();
    assert_eq!(parents.len(), 3);
    assert_eq!(parents.get(&parents[&by[0].pid]).copied().flatten(), attempt.events[0].pid);
    assert_eq!(attempt.summary.ends, BTreeMap::from([("exit 0".to_owned(), 3)]));
}

#[test]
fn what_happens_within_vfork_is_seen() {
    let attempt = Attempt::new("vfork");
    let [behind] = attempt.on("openat", "behind vfork")[..] else { panic!("{:?}", attempt.events) };
    let [after] = attempt.on("openat", "touched")[..] else { panic!("{:?}", attempt.events) };
    assert_eq!((behind.pid, behind.ppid), (after.pid, attempt.events[0].pid));
    assert_eq!(attempt.said("vfork"), 0);
    // The maker waits, so nobody can change what is read of the borrowed memory.
    assert_eq!(behind.raced, Some(false));
}

#[test]
fn what_is_read_of_memory_that_others_have_too_is_marked() {
    for name in ["mapped", "attached"] {
        let attempt = Attempt::new(name);
        let [alone] = attempt.on("openat", "alone")[..] else { panic!("{:?}", attempt.events) };
        let [shared] = attempt.on("openat", "in company")[..] else { panic!("{:?}", attempt.events) };
        assert_eq!((alone.raced, shared.raced), (Some(false), Some(true)), "{name}");
    }
}

#[test]
fn memory_that_is_opened_as_a_file_is_known_by_what_was_opened() {
    for way in ["link", "around", "folder", "creat", "again"] {
        let attempt = Attempt::new(&format!("memory {way}"));
        assert_eq!(attempt.said("written"), 1, "{way}");
        for (file, raced) in [("alone", true), ("still alone", way == "again"), ("in company", true)] {
            let races = attempt
                .on("openat", file)
                .iter()
                .map(|event| event.raced == Some(file == "in company"))
                .collect::<Vec<_>>();
            assert_eq!(races, if raced { vec![true] } else { vec![] }, "{way}, {file}");
        }
    }
}

#[test]
fn calls_by_other_names_are_seen_or_not_there() {
    let attempt = Attempt::new("aliases");
    let worked = ["queue", "queue one", "by descriptor"];
    assert_eq!((worked.map(|word| attempt.said(word)), attempt.said("getdents")), ([0; 3], 1));
    for word in ["chmod", "protect", "key"] {
        assert_eq!(attempt.errno(word), libc::ENOSYS, "{word}");
    }
    let pid = attempt.said("pid");
    let sent = attempt.events.iter().filter(|event| ["kill", "tgkill"].contains(&event.name.as_str()));
    let sent: Vec<_> = sent.map(|event| (event.name.as_str(), event.args.clone().unwrap())).collect();
    let (one, two) = (format!("{pid}, SIGUSR1"), format!("{pid}, {pid}, SIGUSR1"));
    assert_eq!(sent, [("kill", one.clone()), ("tgkill", two), ("kill", one)]);
    assert_eq!(attempt.events.iter().filter(|event| event.name == "getdents64").count(), 1);
}

#[test]
fn a_chain_of_a_hundred_processes_is_followed_to_its_end() {
    let attempt = Attempt::new("chain");
    assert_eq!(attempt.on("openat", "at the end of the chain").len(), 1);
    assert_eq!(attempt.summary.first, Some(End::Exited(42)));
    assert_eq!(attempt.summary.ends, BTreeMap::from([("exit 42".to_owned(), 101)]));
    assert_eq!(attempt.summary.most_tasks, 101);
}

#[test]
fn no_child_is_untraced_or_in_a_namespace_of_its_own() {
    let attempt = Attempt::new("untraced");
    for word in ["clone", "newuser", "unshare", "setns"] {
        assert_eq!(attempt.errno(word), libc::EPERM, "{word}");
    }
    assert_eq!(attempt.errno("clone3"), libc::ENOSYS);
    assert_eq!(attempt.said("there"), 0);
    assert_eq!((attempt.denied("clone"), attempt.denied("unshare"), attempt.denied("setns")), (2, 1, 1));
    assert!(attempt.on("unlink", "unseen").is_empty());
}

#[test]
fn a_filter_of_its_own_hides_nothing() {
    let attempt = Attempt::new("filter");
    assert_eq!(attempt.errno("listener"), libc::EPERM);
    assert_eq!(attempt.said("filter"), 0);
    assert_eq!(attempt.errno("uname"), 77);
    assert_eq!(attempt.errno("io_setup"), libc::ENOSYS);
    assert_eq!(attempt.said("getppid"), 1);
    assert_eq!((attempt.said("rename"), attempt.said("unlink")), (0, 0));
    assert_eq!((attempt.on("rename", "file").len(), attempt.on("unlink", "other").len()), (1, 1));
    assert_eq!(attempt.denied("seccomp"), 1);
    assert_eq!(attempt.summary.refused.get("io_setup"), Some(&1));
}

#[test]
fn foreign_calls_end_the_process_and_x32_ones_do_not_exist() {
    let attempt = Attempt::new("foreign");
    assert_eq!(attempt.said("killed"), i64::from(libc::SIGSYS));
    assert!(!attempt.said.contains_key("int80"));
    // A raw call gives its error number as it is.
    assert_eq!(attempt.said("x32"), 0, "-ENOSYS with errno 0 is said as 0");
    assert_eq!(attempt.summary.refused.get("x32"), Some(&1));
    assert_eq!(attempt.summary.ends.get("SIGSYS"), Some(&1));
}

#[test]
fn ways_around_system_calls_are_closed() {
    let attempt = Attempt::new("aside");
    for (word, errno) in [
        ("io_uring_setup", libc::ENOSYS),
        ("io_uring_enter", libc::ENOSYS),
        ("io_setup", libc::ENOSYS),
        ("io_submit", libc::ENOSYS),
        ("userfaultfd", libc::EPERM),
        ("memfd_secret", libc::ENOSYS),
        ("bpf", libc::EPERM),
        ("perf_event_open", libc::EPERM),
        ("keyctl", libc::EPERM),
        ("mount", libc::EPERM),
        ("open_tree", libc::EPERM),
        ("personality", libc::EPERM),
        ("tiocsti", libc::EPERM),
    ] {
        assert_eq!(attempt.errno(word), errno, "{word}");
    }
    assert_eq!(attempt.said("asked"), 1);
    for name in ["io_uring_setup", "userfaultfd", "bpf", "perf_event_open", "keyctl", "mount"] {
        assert_eq!(attempt.denied(name), 1, "{name}");
    }
    for name in ["io_uring_enter", "io_setup", "io_submit", "memfd_secret", "open_tree", "personality", "ioctl"] {
        assert_eq!(attempt.summary.refused.get(name), Some(&1), "{name}");
    }
}

#[test]
fn descriptors_of_others_have_their_paths() {
    let attempt = Attempt::new("descriptors");
    assert_eq!((attempt.said("passed"), attempt.said("taken")), (27, 26));
    let parent = attempt.events[0].pid;
    for file in ["passed", "taken"] {
        let writes = attempt.on("write", file);
        assert_eq!(writes.len(), 1, "{file}");
        assert_eq!(writes[0].pid, parent, "{file}");
    }
}

#[test]
fn a_program_run_by_a_thread_goes_on_as_its_process() {
    let attempt = Attempt::new("thread");
    let [touched] = attempt.on("openat", "touched")[..] else { panic!("{:?}", attempt.events) };
    let first = attempt.events[0].pid;
    assert_eq!((touched.pid, touched.tid), (first, first));
    assert_eq!(attempt.summary.first, Some(End::Exited(0)));
    let programs: Vec<_> = attempt.events.iter().filter(|event| event.name == "execve").collect();
    assert_eq!(programs.iter().map(|event| event.ret).collect::<Vec<_>>(), [Some(0), Some(0)]);
}

#[test]
fn job_control_and_signals_work_as_without_a_tracer() {
    let stopped = Attempt::new("stopped");
    assert_eq!((stopped.said("stopped"), stopped.said("ended")), (i64::from(libc::SIGSTOP), 0));
    assert_eq!(stopped.on("openat", "after being stopped").len(), 1);
    let signals = Attempt::new("signals");
    assert_eq!(signals.errno("interrupted"), libc::EINTR);
    assert_eq!(signals.said("restarted"), 1);
    let caught = libc::SIGUSR1 + libc::SIGUSR2 + libc::SIGRTMIN() + 3;
    assert_eq!(signals.said("caught"), i64::from(caught));
}

/// Stands for a supervisor in [`a_sample_dies_with_its_tracer`]: says the sample's number, and traces it until it is killed.
#[test]
fn supervisor() {
    let Some(folder) = std::env::var_os("BELLWETHER_TEST_SUPERVISOR") else { return };
    let folder = std::path::PathBuf::from(folder);
    let program = compile(&folder, "attempts");
    let held = start(command(&program, &["sleep"], &folder, &folder.join("out")));
    println!("sample {}", held.pid);
    let mut kept = Kept::new(|event: &Event<'_>| {
        if event.path.is_some_and(|path| path.ends_with("/asleep")) {
            println!("asleep");
        }
        Flow::Go
    });
    held.attach(Options::default()).run(&mut kept).unwrap();
}

/// Processors that a task of this name may run on, as the kernel says.
fn processors(task: &str) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{task}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:")).unwrap();
    mask.chars().filter_map(|digit| digit.to_digit(16)).map(u32::count_ones).sum()
}

#[test]
fn a_task_that_calls_alone_is_kept_beside_its_tracer_and_cannot_tell() {
    let folder = tempfile::tempdir().unwrap();
    let program = compile(folder.path(), "attempts");
    let output = folder.path().join("out");
    let all = processors("thread-self");
    let mut fewest = all;
    let mut kept = Kept::new(|event: &Event<'_>| {
        fewest = fewest.min(processors(&event.tid.unwrap().to_string()));
        Flow::Go
    });
    let summary = trace(command(&program, &["processors"], folder.path(), &output), Options::default(), &mut kept);
    assert_eq!(summary.first, Some(End::Exited(0)));
    assert_eq!(fewest, 1);
    // Whoever asks is let go first, and so is a child.
    let said = std::fs::read_to_string(&output).unwrap();
    assert_eq!(said, format!("child's file {all}\nchild {all}\nasked {all}\n"));
    assert_eq!(processors("thread-self"), all);
}

#[test]
fn a_sample_dies_with_its_tracer() {
    let folder = tempfile::tempdir().unwrap();
    let mut supervisor = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "supervisor", "--nocapture"])
        .env("BELLWETHER_TEST_SUPERVISOR", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pid = None;
    for line in BufReader::new(supervisor.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((_, number)) = line.split_once("sample ") {
            pid = number.parse::<u32>().ok();
        }
        if line.ends_with("asleep") {
            break;
        }
    }
    let pid = pid.unwrap();
    assert!(lives(pid));
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while lives(pid) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!lives(pid));
}
