//! Programs that run on while a test looks at them, and what they need.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{bellwether, command, files, keeps_schema};

/// A program that is killed where a test fails.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts the program and waits for the line that says that it is ready.
    pub(crate) fn start(folder: &Path, schema: &str, arguments: &[&str]) -> (Running, Value) {
        let all = [&["--json", "--log-format", "json"], arguments].concat();
        let mut child = command(folder, &all);
        child.env("BELLWETHER_LOG", "info").stderr(std::fs::File::create(folder.join("log.jsonl")).unwrap());
        let mut running = Running(child.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(running.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let log = || std::fs::read_to_string(folder.join("log.jsonl")).unwrap();
        let told = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}: {}", log()));
        keeps_schema(schema, &told);
        (running, told)
    }

    pub(crate) fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap().success());
    }

    pub(crate) fn end(mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

/// The model that ships.
pub(crate) fn model() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/quickstart").to_str().unwrap().to_owned()
}

/// Waits until something is so, for as long as no healthy machine needs.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what} never came about");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whether this machine can run files; says why not.
pub(crate) fn can_run(test: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sample"), "#!/bin/sh\nexit 0\n").unwrap();
    let ran = bellwether(folder.path(), &["detonate", "sample", "--model", &model(), "--one-stage"]);
    let can = !ran.stderr.contains("could not run the file");
    if !can {
        eprintln!("skipped {test}: {}", ran.stderr.trim());
    }
    can
}

/// How many processes there are whose command line holds a text that nothing else has.
pub(crate) fn alive(marker: &str) -> usize {
    processes(marker).len()
}

/// Their numbers.
pub(crate) fn processes(marker: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let holds = line.windows(marker.len()).any(|part| part == marker.as_bytes());
        holds.then(|| entry.file_name().into_string().unwrap())
    });
    processes.collect()
}

/// Puts a file into the inbox of a loop.
pub(crate) fn drop_in(root: &Path, name: &str, text: &str) {
    let inbox = root.join("inbox");
    std::fs::create_dir_all(&inbox).unwrap();
    std::fs::write(inbox.join(format!(".{name}")), text).unwrap();
    std::fs::rename(inbox.join(format!(".{name}")), inbox.join(name)).unwrap();
}

/// What lies in a place of a loop.
pub(crate) fn there(root: &Path, place: &str) -> Vec<String> {
    files(&root.join(place))
}

/// What a loop tells of itself at the address that it said.
pub(crate) fn scrape(told: &Value) -> String {
    let mut stream = std::net::TcpStream::connect(told["metrics"].as_str().unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
