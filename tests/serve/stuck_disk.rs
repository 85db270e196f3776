//! A disk that does not answer, under the log of decisions or that of the service, holds up neither clients nor the end of the
//! server.
//!
//! What makes it one is strace: it holds each write to the file for longer than any test lasts, whoever writes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::command;
use crate::served::{Served, ask, fates, fates_until, model};

/// Holds whoever writes to a file of a server until it is dropped.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        // What it traced goes on.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Held {
    /// Nothing where strace is missing or may not trace another process; the test says so.
    fn writes(served: &Served, file: &Path, test: &str) -> Option<Held> {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-p", &served.child.id().to_string(), "-P"]).arg(file);
        strace.args(["-e", "trace=write", "-e", "inject=write:delay_enter=1800000000"]);
        let spawned = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let Ok(child) = spawned else {
            eprintln!("skipped: {test} needs strace(1)");
            return None;
        };
        let mut held = Held(child);
        let mut said = String::new();
        BufReader::new(held.0.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
        if !said.contains("attached") || said.contains("Operation not permitted") {
            eprintln!("skipped: {test} needs an strace(1) that may trace other processes: {}", said.trim_end());
            return None;
        }
        Some(held)
    }
}

/// A server that logs what it should to standard error, and as much as it can to a file.
fn serve(folder: &Path, log: &str) -> (Served, String) {
    let model = model();
    let arguments =
        ["--models", &model, "--no-grpc", "--http", "127.0.0.1:0", "--set", log, "--set", "times.drain_ms=100"];
    let mut command = command(folder, &[&["--json", "serve"], &arguments[..]].concat());
    if log.starts_with("log.") {
        command.env("BELLWETHER_LOG", "debug");
    }
    let (served, told) = Served::run(&mut command);
    (served, told["endpoints"]["http"].as_str().unwrap().to_owned())
}

const DECISIONS: &str = "decisions={ path = \"decisions.jsonl\", queue = 16, states = true }";

/// Stops a server, which ends by itself: what strace holds is all that is left of it then.
fn ends_though(served: &mut Served, held: Held) {
    served.tell("-TERM");
    let status = format!("/proc/{}/status", served.child.id());
    let begun = Instant::now();
    while !std::fs::read_to_string(&status).unwrap().contains("State:\tZ") {
        assert!(begun.elapsed() < Duration::from_secs(60), "the server waits for the disk");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(held);
    assert_eq!(served.ended().code(), Some(0));
}

#[test]
fn decisions_go_on_while_the_disk_of_their_log_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (served, address) = serve(folder.path(), DECISIONS);
    let file = folder.path().join("decisions.jsonl");
    let Some(held) = Held::writes(&served, &file, "decisions_go_on_while_the_disk_of_their_log_does_not_answer") else {
        return;
    };
    for _ in 0..8 {
        ask(&address, 64);
    }
    // All are answered, while of what the thread holds (64 KiB at most) and what waits nothing is written.
    let [written, dropped, failed] = fates(&address);
    assert!((written, failed) == (0, 0) && (400..=511).contains(&dropped), "{written} {dropped} {failed}");
    drop(held);
    let all = fates_until(&address, "what waited in the log", |fates| fates.iter().sum::<u64>() == 512);
    assert_eq!(all, [512 - dropped, dropped, 0]);
    assert_eq!(served.stop("-TERM"), Some(0));
    let lines = std::fs::read_to_string(file).unwrap();
    assert_eq!(lines.lines().count() as u64, 512 - dropped);
}

#[test]
fn a_server_ends_though_the_disk_of_its_log_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (mut served, address) = serve(folder.path(), DECISIONS);
    let file = folder.path().join("decisions.jsonl");
    let Some(held) = Held::writes(&served, &file, "a_server_ends_though_the_disk_of_its_log_does_not_answer") else {
        return;
    };
    ask(&address, 64);
    ends_though(&mut served, held);
    let complaints = served.complaints();
    assert!(complaints.contains("does not take the decision log") && complaints.contains("lost=64"), "{complaints}");
}

#[test]
fn decisions_go_on_while_the_disk_of_the_service_log_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (mut served, address) = serve(folder.path(), "log.path=\"service.jsonl\"");
    let file = folder.path().join("service.jsonl");
    let test = "decisions_go_on_while_the_disk_of_the_service_log_does_not_answer";
    let Some(held) = Held::writes(&served, &file, test) else { return };
    let before = std::fs::read(&file).unwrap();
    for _ in 0..100 {
        // The thread that decides logs that this is no HTTP.
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        stream.write_all(b"\0\0\0\0\r\n\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        ask(&address, 1);
    }
    assert_eq!(std::fs::read(&file).unwrap(), before);
    ends_though(&mut served, held);
    let complaints = served.complaints();
    assert!(complaints.contains("the disk of the log does not answer: its last lines are lost"), "{complaints}");
}
