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

const ATTEMPTS: [Attempt; 9] = [
    // In its namespace the number of its tracer is 0, so there is nobody to seize.
    Attempt { name: "tracing", denied: &[("ptrace", 2)], refused: &[], ends: &[] },
    Attempt { name: "daemonize", denied: &[], refused: &[], ends: &[("exit 0", 3)] },
    Attempt { name: "vfork", denied: &[], refused: &[], ends: &[("exit 0", 2)] },
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

/// Detonates a program with arguments, within limits, and holds the report to what is true of every attempt; `None` where this machine
/// has no sandbox.
fn attempt(test: &str, program: &Path, arguments: &[&str], limits: Limits) -> Option<(Outcome, Vec<EventBuf>)> {
    let folder = tempfile::tempdir().unwrap();
    let plain = setup(folder.path(), File::open(program).unwrap().into(), 1);
    let sample = Specimen {
        memory: File::open(program).unwrap().into(),
        name: "sample".to_owned(),
        arguments: arguments.iter().map(|text| CString::new(*text).unwrap()).collect(),
        marked_home: false,
    };
    let limits = [limits, Limits::default()];
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
        let Some((outcome, events)) = attempt(TEST, &program, &[name], Limits { tasks: 128, ..Limits::default() })
        else {
            return;
        };
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

/// Calls of this name that failed with one of the errors that tell of a wall.
fn failed(events: &[EventBuf], name: &str, errors: &[i32]) -> usize {
    let hit = |event: &&EventBuf| event.name == name && event.errno.is_some_and(|error| errors.contains(&error));
    events.iter().filter(hit).count()
}

/// Errors of calls on this path, 0 for each that succeeded.
fn on(events: &[EventBuf], path: &str) -> Vec<i32> {
    let hits = events.iter().filter(|event| event.path.as_deref() == Some(path));
    hits.map(|event| event.errno.unwrap_or(0)).collect()
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
    let program = compile(folder.path(), "writing_outside");
    if let Some((outcome, events)) = attempt(TEST, &program, &[], Limits::default()) {
        assert!(failed(&events, "openat", &[libc::EROFS, libc::EACCES]) >= 7, "{events:?}");
        let created = outcome.changes.unwrap().created;
        let inside = ["/dev/shm/", "/home/user/", "/tmp/"];
        assert!(created.iter().all(|found| inside.iter().any(|place| found.path.starts_with(place))), "{created:?}");
        assert!(created.iter().any(|found| found.path == "/home/user/x"), "{created:?}");
        assert!(["/x", "/usr/x", "/etc/x", "/etc/ssl/certs/x"].iter().all(|path| !Path::new(path).exists()));
    }
    let program = compile(folder.path(), "signals_and_looks_at_other_processes");
    if let Some((outcome, events)) = attempt(TEST, &program, &[&number], Limits::default()) {
        assert!(failed(&events, "kill", &[libc::ESRCH]) >= 1, "{events:?}");
        assert_eq!(events.iter().filter(|event| event.name == "ptrace" && event.denied == Some(true)).count(), 2);
        assert_eq!(outcome.ended, Ended::Exited { code: 0 });
        assert!(bystander.try_wait().unwrap().is_none(), "a process of the host was killed");
    }
    let program = compile(folder.path(), "raw_sockets_and_the_hosts_network");
    if let Some((_, events)) = attempt(TEST, &program, &[&port], Limits::default()) {
        assert_eq!(failed(&events, "socket", &[libc::EPERM]), 2, "{events:?}");
        assert!(failed(&events, "connect", &[libc::ECONNREFUSED]) >= 1, "{events:?}");
        assert!(listener.accept().is_err(), "nobody came");
    }
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn what_is_looked_for_on_the_host_is_not_found() {
    const TEST: &str = "what_is_looked_for_on_the_host_is_not_found";
    let folder = tempfile::tempdir().unwrap();
    let kept = tempfile::NamedTempFile::new().unwrap();
    let path = kept.path().to_str().unwrap();
    let program = compile(folder.path(), "reading_the_hosts_home");
    let Some((outcome, events)) = attempt(TEST, &program, &[path, "/etc/shadow"], Limits::default()) else { return };
    assert_eq!(outcome.ended, Ended::Exited { code: 0 });
    assert_eq!(on(&events, path), [libc::ENOENT]);
    assert_eq!(on(&events, "/etc/shadow"), [libc::ENOENT; 2]);
    assert_eq!(on(&events, "/dev/mem"), [libc::ENOENT]);
    assert_eq!(on(&events, "/tmp/disk"), [libc::EPERM]);
    let program = compile(folder.path(), "the_kernels_own_files");
    let Some((outcome, events)) = attempt(TEST, &program, &[], Limits::default()) else { return };
    assert_eq!(outcome.ended, Ended::Exited { code: 0 });
    assert_eq!(on(&events, "/sys/fs/cgroup"), [libc::ENOENT]);
    assert!(matches!(on(&events, "/proc/sys/kernel/core_pattern")[..], [libc::EROFS | libc::EACCES]), "{events:?}");
    for (call, denied) in [("mount", 1), ("init_module", 1)] {
        let hits = events.iter().filter(|event| event.name == call && event.denied == Some(true));
        assert_eq!(hits.count(), denied, "{call}");
    }
    assert_eq!(outcome.refused.get("syslog"), Some(&1), "{:?}", outcome.refused);
}

#[test]
fn nobody_of_the_host_is_reached_by_a_socket_or_a_fifo() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    use std::os::unix::net::{SocketAddr, UnixListener};
    const TEST: &str = "nobody_of_the_host_is_reached_by_a_socket_or_a_fifo";
    let name = format!("bellwether-test-episode-{}", std::process::id());
    let by_name = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    // Only below /usr would a sample see them at all.
    let Ok(shown) = tempfile::tempdir_in("/usr/local/share") else {
        eprintln!("skipped {TEST}: /usr/local/share cannot be written to, which takes root");
        return;
    };
    let (socket, fifo) = (shown.path().join("socket"), shown.path().join("fifo"));
    let by_path = UnixListener::bind(&socket).unwrap();
    let (kind, all) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o666));
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, all, 0).unwrap();
    for (path, mode) in [(shown.path(), 0o755), (&socket, 0o666), (&fifo, 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = compile(folder.path(), "sockets_and_fifos_of_the_host");
    let paths = [&socket, &fifo].map(|path| path.to_str().unwrap());
    let Some((_, events)) = attempt(TEST, &program, &[&name, paths[0], paths[1]], Limits::default()) else { return };
    assert_eq!(failed(&events, "connect", &[libc::ECONNREFUSED]), 2, "{events:?}");
    assert!(matches!(on(&events, paths[1])[..], [libc::ENXIO | libc::EROFS | libc::EACCES]), "{events:?}");
    for listener in [&by_name, &by_path] {
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nobody came");
    }
    drop(reader);
}

#[test]
fn a_sample_that_closes_all_it_inherited_is_seen_to_its_end() {
    const TEST: &str = "a_sample_that_closes_all_it_inherited_is_seen_to_its_end";
    let kept = tempfile::tempfile().unwrap();
    // Descriptors that are not closed on exec are the ones that leak.
    let leaking = rustix::io::fcntl_dupfd_cloexec(&kept, 700).unwrap();
    rustix::io::fcntl_setfd(&leaking, rustix::io::FdFlags::empty()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = compile(folder.path(), "inherited_descriptors");
    let Some((outcome, events)) = attempt(TEST, &program, &[], Limits::default()) else { return };
    assert_eq!(outcome.ended, Ended::Exited { code: 0 }, "it has three descriptors");
    assert_eq!(on(&events, "/tmp/after"), [0]);
    drop(leaking);
}

#[test]
fn the_program_that_runs_stays_as_it_is() {
    const TEST: &str = "the_program_that_runs_stays_as_it_is";
    let folder = tempfile::tempdir().unwrap();
    let program = compile(folder.path(), "the_program_behind_the_link_to_itself");
    let before = std::fs::read(&program).unwrap();
    let Some((_, events)) = attempt(TEST, &program, &[], Limits::default()) else { return };
    let walls = [libc::ETXTBSY, libc::EACCES, libc::EPERM];
    let opened: Vec<_> = events.iter().filter(|event| event.name == "openat").cloned().collect();
    let errors = on(&opened, "/proc/self/exe");
    assert!(errors.len() == 3 && errors[..2].iter().all(|error| walls.contains(error)) && errors[2] == 0, "{events:?}");
    assert_eq!(failed(&events, "unlink", &[libc::EPERM, libc::EACCES, libc::ENOENT]), 1);
    assert_eq!(std::fs::read(&program).unwrap(), before);
}

#[test]
fn a_sample_that_uses_up_what_there_is_uses_up_its_own() {
    const TEST: &str = "a_sample_that_uses_up_what_there_is_uses_up_its_own";
    let folder = tempfile::tempdir().unwrap();
    let program = compile(folder.path(), "filling_the_disk");
    let limits = Limits { storage_bytes: 8 << 20, ..Limits::default() };
    let Some((outcome, events)) = attempt(TEST, &program, &[], limits) else { return };
    assert_eq!(outcome.ended, Ended::Exited { code: 0 });
    // The home, scratch in its three places, and the names in it.
    assert!(failed(&events, "write", &[libc::ENOSPC]) >= 3, "{} events", events.len());
    assert_eq!(failed(&events, "symlink", &[libc::ENOSPC]), 1, "{} events", events.len());

    let program = compile(folder.path(), "filling_the_table_of_processes");
    let limits = Limits { tasks: 32, ..Limits::default() };
    let Some((outcome, events)) = attempt(TEST, &program, &[], limits) else { return };
    assert_eq!(outcome.ended, Ended::Exited { code: 0 });
    assert!(outcome.most_tasks <= 32, "{}", outcome.most_tasks);
    assert!(failed(&events, "clone", &[libc::EAGAIN]) >= 2, "{} events", events.len());

    let program = compile(folder.path(), "filling_the_memory");
    let limits = Limits { memory_bytes: 64 << 20, ..Limits::default() };
    let Some((outcome, _)) = attempt(TEST, &program, &[], limits) else { return };
    match outcome.pressure {
        Some(pressure) if pressure.peak_memory_bytes > 0 => {
            assert_eq!(outcome.ended, Ended::Killed { signal: libc::SIGKILL });
            assert!(pressure.out_of_memory_kills >= 1 && pressure.peak_memory_bytes <= 65 << 20, "{pressure:?}");
        }
        _ => eprintln!("skipped {TEST}: no control group for memory can be made here"),
    }
}
