//! Attempts to get out, each as a whole episode: what the cage and the tracer keep from happening stands in the report, and the host is
//! as it was.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use bellwether_env_adapter::ingest::telemetry::TelemetryReader;
use bellwether_env_adapter::{Action, EpisodeAttributes, Event, EventBuf, EventSink, WindowConfig};
use bellwether_sandbox::Limits;
use bellwether_sandbox::episode::Setup;
use bellwether_sandbox::stage::{Close, Ended, Outcome, Specimen};

use super::real::{detonate_file, wait_then_release};
use super::{launch, setup};

/// An attempt by a program of `tests/programs/attempts.c`, and what is to be told of it.
struct Attempt {
    name: &'static str,
    /// Calls on the list that were denied, and how often.
    denied: &'static [(&'static str, usize)],
    /// Calls beside the list that were refused, each once.
    refused: &'static [&'static str],
    /// How its processes ended, and how many did so.
    ends: &'static [(&'static str, u64)],
}

const ATTEMPTS: [Attempt; 8] = [
    // In its namespace the number of its tracer is 0, so there is nobody to seize.
    Attempt { name: "tracing", denied: &[("ptrace", 2)], refused: &[], ends: &[] },
    Attempt { name: "daemonize", denied: &[], refused: &[], ends: &[("exit 0", 3)] },
    Attempt { name: "chain", denied: &[], refused: &[], ends: &[("exit 42", 101)] },
    Attempt { name: "untraced", denied: &[("clone", 2), ("setns", 1), ("unshare", 1)], refused: &[], ends: &[] },
    Attempt { name: "filter", denied: &[("seccomp", 1)], refused: &["io_setup"], ends: &[] },
    Attempt { name: "foreign", denied: &[], refused: &["x32"], ends: &[("SIGSYS", 1)] },
    Attempt {
        name: "aside",
        denied: &[
            ("bpf", 1),
            ("io_uring_setup", 1),
            ("keyctl", 1),
            ("mount", 1),
            ("perf_event_open", 1),
            ("userfaultfd", 1),
        ],
        refused: &["io_uring_enter", "io_setup", "io_submit", "memfd_secret", "open_tree", "personality", "ioctl"],
        ends: &[],
    },
    Attempt { name: "descriptors", denied: &[], refused: &[], ends: &[] },
];

/// The events of an episode, from its file.
#[derive(Default)]
struct Events(Vec<EventBuf>);

impl EventSink for Events {
    type Error = std::convert::Infallible;

    fn begin(&mut self, _: &EpisodeAttributes) -> Result<(), Self::Error> {
        Ok(())
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Self::Error> {
        self.0.push(EventBuf::from(event));
        Ok(())
    }

    fn end(&mut self, complete: bool) -> Result<(), Self::Error> {
        assert!(complete);
        Ok(())
    }
}

/// Detonates a program with arguments, and holds the report to what is true of every attempt; `None` where this machine has no sandbox.
fn attempt(test: &str, program: &Path, arguments: &[&str]) -> Option<(Outcome, Vec<EventBuf>)> {
    let folder = tempfile::tempdir().unwrap();
    let plain = setup(folder.path(), File::open(program).unwrap().into(), 1);
    let sample = Specimen {
        memory: File::open(program).unwrap().into(),
        name: "sample".to_owned(),
        arguments: arguments.iter().map(|text| CString::new(*text).unwrap()).collect(),
        marked_home: false,
    };
    let limits = [Limits { tasks: 128, ..Limits::default() }, Limits::default()];
    let setup = Setup { sample: sample.into(), window: WindowConfig::default(), limits, ..plain };
    let report = detonate_file(test, setup, wait_then_release)?;
    assert_eq!((report.verdict, &report.partial[..]), (Some(Action::Release), &[][..]), "{arguments:?}");
    let mut events = Events::default();
    TelemetryReader::open(&report.files.unwrap().telemetry).unwrap().read(&mut events).unwrap();
    let [outcome]: [Outcome; 1] = report.outcomes.try_into().unwrap();
    assert_eq!(
        (outcome.verdict_at, &outcome.faults[..]),
        (Some(Close::End), &[][..]),
        "it ended by itself: {arguments:?}"
    );
    assert!(outcome.dead.is_some(), "nothing of it lives: {arguments:?}");
    let denied = events.0.iter().filter(|event| event.denied == Some(true)).count() as u64;
    assert_eq!((outcome.events, outcome.denied), (events.0.len() as u64, denied), "{arguments:?}");
    Some((outcome, events.0))
}

#[test]
fn what_is_tried_against_the_tracer_stands_in_the_report() {
    const TEST: &str = "what_is_tried_against_the_tracer_stands_in_the_report";
    let folder = tempfile::tempdir().unwrap();
    let program = launch::compile(folder.path(), "attempts");
    for Attempt { name, denied, refused, ends } in ATTEMPTS {
        let Some((outcome, events)) = attempt(TEST, &program, &[name]) else { return };
        let mut counted = BTreeMap::<&str, usize>::new();
        for event in events.iter().filter(|event| event.denied == Some(true)) {
            *counted.entry(&event.name).or_default() += 1;
        }
        assert_eq!(counted.into_iter().collect::<Vec<_>>(), denied, "{name}");
        for call in refused {
            assert_eq!(outcome.refused.get(*call), Some(&1), "{name}: {:?}", outcome.refused);
        }
        for (end, count) in ends {
            assert_eq!(outcome.ends.get(*end), Some(count), "{name}: {:?}", outcome.ends);
        }
    }
}

/// Compiles an attempt on the cage, of `tests/cage/samples`.
fn compile(folder: &Path, name: &str) -> PathBuf {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cage/samples");
    let program = folder.join(name);
    let output = Command::new("cc")
        .args(["-O1", "-w", "-pthread", "-include"])
        .arg(samples.join("prelude.h"))
        .arg("-o")
        .arg(&program)
        .arg(samples.join(format!("{name}.c")))
        .output()
        .expect("a C compiler, cc, is needed to build");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

#[test]
fn what_is_tried_against_the_cage_stands_in_the_report_and_the_host_is_as_it_was() {
    const TEST: &str = "what_is_tried_against_the_cage_stands_in_the_report_and_the_host_is_as_it_was";
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut bystander = Command::new("sleep").arg("600").spawn().unwrap();
    let number = bystander.id().to_string();
    // What failed, by the errors that tell of a wall; and what is there afterwards that was not before.
    let failed = |events: &[EventBuf], name: &str, errors: &[i32]| {
        events
            .iter()
            .filter(|event| event.name == name && event.errno.is_some_and(|error| errors.contains(&error)))
            .count()
    };
    let program = compile(folder.path(), "writing_outside");
    if let Some((outcome, events)) = attempt(TEST, &program, &[]) {
        assert!(failed(&events, "openat", &[libc::EROFS, libc::EACCES]) >= 7, "{events:?}");
        let created = outcome.changes.unwrap().created;
        let inside = ["/dev/shm/", "/home/user/", "/tmp/"];
        assert!(created.iter().all(|found| inside.iter().any(|place| found.path.starts_with(place))), "{created:?}");
        assert!(created.iter().any(|found| found.path == "/home/user/x"), "{created:?}");
        assert!(["/x", "/usr/x", "/etc/x", "/etc/ssl/certs/x"].iter().all(|path| !Path::new(path).exists()));
    }
    let program = compile(folder.path(), "signals_and_looks_at_other_processes");
    if let Some((outcome, events)) = attempt(TEST, &program, &[&number]) {
        assert!(failed(&events, "kill", &[libc::ESRCH]) >= 1, "{events:?}");
        assert_eq!(events.iter().filter(|event| event.name == "ptrace" && event.denied == Some(true)).count(), 2);
        assert_eq!(outcome.ended, Ended::Exited { code: 0 });
        assert!(bystander.try_wait().unwrap().is_none(), "a process of the host was killed");
    }
    let program = compile(folder.path(), "raw_sockets_and_the_hosts_network");
    if let Some((_, events)) = attempt(TEST, &program, &[&port]) {
        assert_eq!(failed(&events, "socket", &[libc::EPERM]), 2, "{events:?}");
        assert!(failed(&events, "connect", &[libc::ECONNREFUSED]) >= 1, "{events:?}");
        assert!(listener.accept().is_err(), "nobody came");
    }
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}
