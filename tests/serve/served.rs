//! A server that runs beside a test, and what a client asks of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::program::{command, keeps_schema, post};

/// Longer than anything takes on a healthy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that is killed where a test fails.
pub(crate) struct Served {
    pub(crate) child: Child,
}

pub(crate) fn model() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/quickstart").to_str().unwrap().to_owned()
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    /// Starts a server and waits for the line that says where it listens.
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> (Served, Value) {
        Served::run(&mut command(folder, &[&["--json", "serve"], arguments].concat()))
    }

    /// The same by a command of the caller's.
    pub(crate) fn run(command: &mut Command) -> (Served, Value) {
        let mut served = Served { child: command.spawn().unwrap() };
        let mut line = String::new();
        BufReader::new(served.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let told =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}: {}", served.complaints()));
        keeps_schema("serve-listening.schema.json", &told);
        (served, told)
    }

    pub(crate) fn tell(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Asks it to stop and waits until it has.
    pub(crate) fn stop(mut self, signal: &str) -> Option<i32> {
        self.tell(signal);
        self.ended().code()
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it said on standard error until it ended.
    pub(crate) fn complaints(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.as_mut().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

/// Asks for the decisions on this many states in one request, and fails where one of them is not answered.
#[track_caller]
pub(crate) fn ask(address: &str, states: usize) {
    let state = json!({ "name": "state", "datatype": "FP32", "shape": [states, 512], "data": vec![0.5; 512 * states] });
    let (status, answer) = post(address, "/v2/models/quickstart/infer", &json!({ "inputs": [state] }));
    let action = answer["outputs"].as_array().and_then(|outputs| outputs.iter().find(|one| one["name"] == "action"));
    let decided = action.and_then(|action| action["data"].as_array()).map(Vec::len);
    assert_eq!((status, decided), (200, Some(states)), "{answer}");
}

/// What became of the decisions that were to be logged: written, dropped, failed.
pub(crate) fn fates(address: &str) -> [u64; 3] {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    ["written", "dropped", "failed"].map(|fate| {
        let row = format!("bellwether_decision_log_total{{fate=\"{fate}\"}} ");
        let count = page.lines().find_map(|line| line.strip_prefix(&row)?.parse().ok());
        count.unwrap_or_else(|| panic!("no {fate} decisions in {page}"))
    })
}

/// Waits until what became of the decisions is as it should be, and returns it.
#[track_caller]
pub(crate) fn fates_until(address: &str, what: &str, so: impl Fn([u64; 3]) -> bool) -> [u64; 3] {
    let begun = Instant::now();
    loop {
        let found = fates(address);
        if so(found) {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} did not come to be: written, dropped, failed are {found:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
