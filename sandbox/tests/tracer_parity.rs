//! The same call is the same event, whether this tracer recorded it or strace did.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "these are tests")]

mod launch;

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::Path;
use std::process::Command;

use bellwether_env_adapter::calls::strace_filter;
use bellwether_env_adapter::ingest::{Description, Options as IngestOptions, QualityReport, read_strace_log};
use bellwether_env_adapter::{EpisodeAttributes, Event, EventBuf, EventSink};
use bellwether_sandbox::tracer::{End, Flow, Options};
use launch::{Kept, command, compile, trace};

#[derive(Default)]
struct Read(Vec<EventBuf>);

impl EventSink for Read {
    type Error = std::convert::Infallible;

    fn begin(&mut self, _: &EpisodeAttributes) -> Result<(), Self::Error> {
        Ok(())
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Self::Error> {
        self.0.push(EventBuf::from(event));
        Ok(())
    }

    fn end(&mut self, _: bool) -> Result<(), Self::Error> {
        Ok(())
    }
}

fn by_strace(program: &Path, folder: &Path, log: &Path) -> Option<Vec<EventBuf>> {
    let strace = Command::new("strace").arg("--version").output();
    if !strace.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let trace = format!("trace={}", strace_filter());
    let args = ["-f", "--seccomp-bpf", "-e", &trace, "-yy", "-s", "512", "-xx", "--absolute-timestamps=unix,ns", "-o"];
    let mut arguments: Vec<&str> = args.to_vec();
    arguments.extend([log.to_str().unwrap(), program.to_str().unwrap()]);
    let strace = ["/usr/bin/strace", "/bin/strace"].into_iter().map(Path::new).find(|path| path.is_file())?;
    command(strace, &arguments, folder, &log.with_file_name("out")).status().unwrap();
    let mut read = Read::default();
    let mut description = Description::unknown("deeds");
    description.cwd = Some(folder.display().to_string());
    let from = BufReader::new(std::fs::File::open(log).unwrap());
    let mut report = QualityReport::default();
    read_strace_log(from, "deeds", &description, &IngestOptions::default(), &mut read, &mut report).unwrap();
    assert_eq!(report.bad_lines.count, 0, "{report:?}");
    Some(read.0)
}

/// Events of each task in order, the tasks in the order in which they were made, with numbers that differ from run to run
/// replaced.
fn by_task(events: &[EventBuf]) -> Vec<Vec<String>> {
    let mut order = BTreeMap::new();
    let mut tasks: Vec<Vec<String>> = Vec::new();
    let index = |order: &mut BTreeMap<u32, usize>, tid: u32| {
        let next = order.len();
        *order.entry(tid).or_insert(next)
    };
    for event in events {
        // Where the C library finds no clone3 it takes clone.
        let name = event.name.replace("clone3", "clone");
        let makes = matches!(name.as_str(), "fork" | "vfork" | "clone") && event.errno.is_none();
        let task = index(&mut order, event.tid.unwrap());
        let process = index(&mut order, event.pid.unwrap());
        let parent = event.ppid.map(|parent| index(&mut order, parent));
        let ret = match (event.ret, makes) {
            (Some(child), true) => Some(index(&mut order, child as u32) as i64),
            // Sessions are numbered like processes.
            (Some(_), _) if name == "setsid" => None,
            (ret, _) => ret,
        };
        tasks.resize_with(order.len().max(tasks.len()), Vec::new);
        let args = match name.as_str() {
            "clone" => None,
            // The caller's own number.
            "kill" | "tgkill" => event.args.as_ref().map(|args| args.replace(|digit: char| digit.is_ascii_digit(), "")),
            _ => event.args.clone(),
        };
        // Ports that the kernel picks.
        let port = event.peer_port.map(|port| if port >= 32768 && port != 40777 { 0 } else { port });
        tasks[task].push(format!(
            "{process} {parent:?} {name} {:?} {:?} {args:?} {:?} {:?} {:?} {ret:?} {:?} {:?} {:?} {:?}",
            event.path,
            event.path2,
            event.peer_addr,
            port,
            event.bytes,
            event.errno,
            event.entropy,
            event.flags,
            event.created,
        ));
    }
    tasks
}

#[test]
fn the_same_call_gives_the_same_event_as_the_reader_of_straces_logs() {
    let base = tempfile::tempdir().unwrap();
    let program = compile(base.path(), "deeds");
    let folder = base.path().join("work");
    let empty = || {
        _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
    };
    empty();
    let Some(expected) = by_strace(&program, &folder, &base.path().join("log")) else {
        eprintln!("skipped the_same_call_gives_the_same_event_as_the_reader_of_straces_logs: strace is not installed");
        return;
    };
    empty();
    let mut kept = Kept::new(|_: &Event<'_>| Flow::Go);
    let summary = trace(command(&program, &[], &folder, &base.path().join("out")), Options::default(), &mut kept);
    assert_eq!(summary.first, Some(End::Exited(7)));
    assert_eq!(
        summary.ends,
        BTreeMap::from([("exit 3", 2), ("exit 7", 1), ("SIGKILL", 1)].map(|(end, count)| (end.to_owned(), count)))
    );
    let (expected, found) = (by_task(&expected), by_task(&kept.events));
    for (task, (expected, found)) in expected.iter().zip(&found).enumerate() {
        for (at, (expected, found)) in expected.iter().zip(found).enumerate() {
            assert_eq!(found, expected, "event {at} of task {task}");
        }
        assert_eq!(found.len(), expected.len(), "task {task}");
    }
    assert_eq!(found.len(), expected.len());
    assert!(kept.events.len() > 150, "{}", kept.events.len());
    assert!(kept.events.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq && pair[0].time_ns <= pair[1].time_ns));
}
