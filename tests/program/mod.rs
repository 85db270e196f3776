//! Runs the program as a user does, in a folder of its own, and says what came out.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a run of the program left to look at.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Fails with all that the program said unless it ended with `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails unless the program ended with `code` and said each of `parts` on standard error.
    #[allow(dead_code, reason = "not every test file makes the program fail")]
    #[track_caller]
    pub(crate) fn complains(self, code: i32, parts: &[&str]) -> Ran {
        let ran = self.expect(code);
        for part in parts {
            assert!(ran.stderr.contains(part), "`{part}` is not in\n{}", ran.stderr);
        }
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        // Nothing that an error says stands twice in its chain of causes.
        for line in ran.stderr.lines() {
            let mut clauses: Vec<&str> = line.split([':', ';', '(']).map(str::trim).filter(|c| c.len() > 3).collect();
            clauses.sort_unstable();
            let twice = clauses.array_windows().find(|[one, other]| one == other);
            assert!(twice.is_none(), "{twice:?} stands twice in\n{line}");
        }
        ran
    }

    /// Standard output as one JSON document.
    #[allow(dead_code, reason = "not every test file looks at reports")]
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in\n{}", self.stdout))
    }
}

/// A command in `folder` with nothing of the caller's environment that could change what the program prints or does.
fn clean(program: impl AsRef<std::ffi::OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BELLWETHER") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).env("COLUMNS", "100").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The program in `folder`, to be run in a way of the caller's own.
#[allow(dead_code, reason = "most test files run it as it is")]
pub(crate) fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = clean(env!("CARGO_BIN_EXE_bellwether"), folder);
    command.args(arguments);
    command
}

/// The same, started by other words, which end with what they are given.
#[allow(dead_code, reason = "most test files start it themselves")]
pub(crate) fn command_after(folder: &Path, words: &[&str], arguments: &[&str]) -> Command {
    let mut command = clean(words[0], folder);
    command.args(&words[1..]).arg(env!("CARGO_BIN_EXE_bellwether")).args(arguments);
    command
}

/// Runs the program in `folder`.
#[allow(dead_code, reason = "not every test file runs it without input")]
pub(crate) fn bellwether(folder: &Path, arguments: &[&str]) -> Ran {
    ran(clean(env!("CARGO_BIN_EXE_bellwether"), folder).args(arguments).output().unwrap())
}

/// Runs the program in `folder` with these variables.
#[allow(dead_code, reason = "not every test file sets variables")]
pub(crate) fn bellwether_in(folder: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = clean(env!("CARGO_BIN_EXE_bellwether"), folder);
    ran(command.envs(environment.iter().copied()).args(arguments).output().unwrap())
}

/// Runs the program in `folder` with `input` on standard input.
#[allow(dead_code, reason = "not every test file has something to say to the program")]
pub(crate) fn bellwether_with(folder: &Path, arguments: &[&str], input: &str) -> Ran {
    let mut command = clean(env!("CARGO_BIN_EXE_bellwether"), folder);
    let mut child = command.args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    // A program that ends before it has read everything closes the pipe; what it said is what counts.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes());
    ran(child.wait_with_output().unwrap())
}

/// Starts the program in `folder` and does not wait for it.
#[allow(dead_code, reason = "not every test file kills the program")]
pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Child {
    let mut command = clean(env!("CARGO_BIN_EXE_bellwether"), folder);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits until a run in this folder of runs has a checkpoint; the program that was started must not have ended by then.
#[allow(dead_code, reason = "not every test file kills the program")]
pub(crate) fn until_checkpoint(child: &mut Child, runs: &Path) {
    let begun = Instant::now();
    let has_checkpoint = || {
        let mut runs = std::fs::read_dir(runs).into_iter().flatten().flatten();
        runs.any(|run| run.path().join("checkpoints/latest.checkpoint").exists())
    };
    while !has_checkpoint() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it was killed");
        assert!(begun.elapsed() < Duration::from_secs(60), "no checkpoint within a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs a shell script in `folder`, in which `"$@"` is the program with these arguments; `wrapper` goes before the shell.
#[allow(dead_code, reason = "not every test file needs a shell around the program")]
pub(crate) fn shell(folder: &Path, wrapper: &[&str], script: &str, arguments: &[&str]) -> Ran {
    let words: Vec<&str> = wrapper.iter().copied().chain(["sh", "-c", script, "sh"]).collect();
    ran(command_after(folder, &words, arguments).output().unwrap())
}

/// Runs the program in `folder` with a standard output that nobody reads any more.
#[allow(dead_code, reason = "not every test file closes the output")]
pub(crate) fn unread(folder: &Path, arguments: &[&str]) -> Ran {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    ran(clean(env!("CARGO_BIN_EXE_bellwether"), folder).args(arguments).stdout(writer).output().unwrap())
}

/// Posts a JSON document over HTTP/1.1. Returns the status and the document that comes back.
#[allow(dead_code, reason = "only tests of the server speak to one")]
#[track_caller]
pub(crate) fn post(address: &str, path: &str, document: &serde_json::Value) -> (u16, serde_json::Value) {
    use std::io::{Read as _, Write as _};
    let (mut stream, body) = (std::net::TcpStream::connect(address).unwrap(), document.to_string());
    // A server that does not answer is a failure and not the end of all tests.
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let length = body.len();
    let head = "Host: localhost\r\nConnection: close\r\nContent-Type: application/json";
    write!(stream, "POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
    (status.unwrap_or_else(|| panic!("{answer}")), body.unwrap_or_else(|| panic!("{answer}")))
}

/// A JSON schema that is checked in.
#[allow(dead_code, reason = "not every test file looks at reports")]
pub(crate) fn schema(name: &str) -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/formats").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Fails with the first places where a document breaks a schema that is checked in.
#[allow(dead_code, reason = "not every test file looks at reports")]
#[track_caller]
pub(crate) fn keeps_schema(name: &str, document: &serde_json::Value) {
    let validator = jsonschema::validator_for(&schema(name)).unwrap();
    let broken: Vec<String> =
        validator.iter_errors(document).take(5).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(broken.is_empty(), "{name}: {broken:#?}");
}

/// All files below `folder`, sorted, as paths relative to it.
#[allow(dead_code, reason = "not every test file counts files")]
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = vec![folder.to_path_buf()];
    while let Some(at) = waiting.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => waiting.push(path),
                false => found.push(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned()),
            }
        }
    }
    found.sort();
    found
}
