//! Starts programs for the tracer without a cage: the same filter and the same gate, and nothing that holds them in.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is part of tests")]

use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use bellwether_env_adapter::{Event, EventBuf};
use bellwether_sandbox::filter::Program;
use bellwether_sandbox::tracer::{Act, Flow, Options, Proof, Sink, Summary, Tracer};

/// Compiles a C program of `tests/programs` into a folder.
pub fn compile(folder: &Path, name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(format!("{name}.c"));
    let program = folder.join(name);
    let output = Command::new("cc")
        .args(["-O1", "-Wall", "-pthread", "-D_GNU_SOURCE", "-o"])
        .arg(&program)
        .arg(&source)
        .output()
        .expect("a C compiler, cc, is needed to build");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

/// A process that waits at its gate.
pub struct Held {
    pub pid: u32,
    gate: PipeWriter,
}

impl Held {
    /// Begins to trace it.
    pub fn attach(self, options: Options) -> Tracer {
        Tracer::attach(self.pid, || (&self.gate).write_all(b"g"), options).unwrap()
    }
}

/// Starts a command as far as its gate; behind it, it loads the filter and runs the program.
pub fn start(command: Command) -> Held {
    start_under(command, Program::new())
}

/// The same with another filter.
pub fn start_under(mut command: Command, program: Program) -> Held {
    let (mut pid_reader, pid_writer) = io::pipe().unwrap();
    let (gate_reader, gate) = io::pipe().unwrap();
    // SAFETY: the closure runs in the child between fork and exec and makes plain system calls on what it owns.
    unsafe {
        command.pre_exec(move || {
            let pid = libc::getpid().to_ne_bytes();
            (&pid_writer).write_all(&pid)?;
            let mut byte = [0u8];
            (&gate_reader).read_exact(&mut byte)?;
            let instructions = program.instructions();
            let filter = libc::sock_fprog { len: instructions.len() as u16, filter: instructions.as_ptr().cast_mut() };
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1
                || libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) == -1
            {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    // `spawn` waits until the program runs, which is after the gate.
    thread::spawn(move || drop(command.spawn()));
    let mut pid = [0; 4];
    pid_reader.read_exact(&mut pid).unwrap();
    Held { pid: u32::from_ne_bytes(pid), gate }
}

/// A command whose output goes to a file.
pub fn command(program: &Path, args: &[&str], folder: &Path, output: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    let file = File::options().create(true).append(true).open(output).unwrap();
    command.stderr(file.try_clone().unwrap()).stdout(file);
    command
}

/// Keeps events, and does what a function says after each.
pub struct Kept<F> {
    pub events: Vec<EventBuf>,
    pub acted: Vec<(Act, Proof)>,
    pub ticks: u64,
    pub flow: F,
}

impl<F: FnMut(&Event<'_>) -> Flow> Kept<F> {
    pub fn new(flow: F) -> Self {
        Kept { events: Vec::new(), acted: Vec::new(), ticks: 0, flow }
    }

    pub fn named(&self, name: &str) -> Vec<&EventBuf> {
        self.events.iter().filter(|event| event.name == name).collect()
    }
}

impl<F: FnMut(&Event<'_>) -> Flow> Sink for Kept<F> {
    fn event(&mut self, event: &Event<'_>) -> Flow {
        self.events.push(EventBuf::from(event));
        (self.flow)(event)
    }

    fn tick(&mut self, _: u64) -> Flow {
        self.ticks += 1;
        Flow::Go
    }

    fn acted(&mut self, act: Act, proof: Proof) {
        self.acted.push((act, proof));
    }
}

/// Traces a command to its end.
pub fn trace(command: Command, options: Options, sink: &mut impl Sink) -> Summary {
    start(command).attach(options).run(sink).unwrap()
}

/// Whether a process lives: it is there and no zombie.
pub fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])))
}
