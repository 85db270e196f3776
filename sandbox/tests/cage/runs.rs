//! Runs samples: commands of the shell, and small C programs that are compiled here.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use bellwether_sandbox::abilities::Abilities;
use bellwether_sandbox::cage::{Cage, CgroupHandle, Enclosure, Ending, Held, Plan, Program};
use rustix::fs::{MemfdFlags, SealFlags};

/// Time for anything that happens at all, on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What every C sample begins with: `SAY` prints whether a call worked, or the name of its error.
const PRELUDE: &str = include_str!("samples/prelude.h");

/// A plan that runs a command of the shell.
pub(crate) fn shell(command: &str) -> Plan {
    plan(Program::Path("/bin/sh".to_owned()), &["sh", "-c", command])
}

/// A plan that runs a program with arguments.
pub(crate) fn plan(program: Program, arguments: &[&str]) -> Plan {
    Plan::new(program, arguments.iter().map(|text| CString::new(*text).unwrap()).collect())
}

/// Whether this host can cage a program; where it cannot, a line says which test is skipped and why.
pub(crate) fn can_cage() -> bool {
    static LACKING: OnceLock<Option<String>> = OnceLock::new();
    let lacking = LACKING.get_or_init(|| {
        let detonation = Abilities::of_this_host().abilities.into_iter().find(|ability| ability.name == "detonation");
        detonation.filter(|detonation| !detonation.here).map(|detonation| detonation.found)
    });
    if let Some(why) = lacking {
        // The thread of a test has its name.
        eprintln!("skipped {}: {why}", std::thread::current().name().unwrap_or("a test"));
    }
    lacking.is_none()
}

/// A plan that runs a C program, whose source follows the prelude; none, and a word on it, where there is no compiler or no cage.
pub(crate) fn compiled(test: &str, source: &str, arguments: &[&str]) -> Option<Plan> {
    if !can_cage() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let (text, program) = (folder.path().join("sample.c"), folder.path().join("sample"));
    let mut file = File::options().write(true).create_new(true).open(&text).unwrap();
    write!(file, "{PRELUDE}\n#line 1 \"{test}\"\n{source}").unwrap();
    let compiler = Command::new("cc").args(["-O1", "-w", "-pthread", "-o"]).arg(&program).arg(&text).output();
    let Ok(compiler) = compiler else {
        eprintln!("skipped {test}: no C compiler, install gcc");
        return None;
    };
    assert!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
    let arguments: Vec<&str> = ["sample"].into_iter().chain(arguments.iter().copied()).collect();
    Some(plan(Program::File(sealed(&program)), &arguments))
}

/// A sealed copy of a file, as samples are detonated from.
pub(crate) fn sealed(path: &Path) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = File::from(rustix::fs::memfd_create("sample", flags).unwrap());
    std::io::copy(&mut File::open(path).unwrap(), &mut copy).unwrap();
    copy.rewind().unwrap();
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&copy, seals).unwrap();
    OwnedFd::from(copy)
}

/// A sample that runs, and the pipe that it writes to.
pub(crate) struct Running {
    pub(crate) enclosure: Enclosure,
    pub(crate) cgroup: CgroupHandle,
    pub(crate) output: std::io::PipeReader,
}

/// Starts a plan and opens the gate.
pub(crate) fn start(mut plan: Plan) -> Running {
    let (output, writer) = std::io::pipe().unwrap();
    plan.output = Some(OwnedFd::from(writer));
    let Held { gate, enclosure, cgroup, .. } = Cage::start(&plan).unwrap();
    gate.open().unwrap();
    Running { enclosure, cgroup, output }
}

impl Running {
    /// Waits for the end of the first process; returns how it ended and all that was written.
    pub(crate) fn finish(mut self) -> (Ending, String) {
        let ending = self.enclosure.wait(PATIENCE).unwrap().expect("the sample ends in time");
        if let Some(failure) = self.enclosure.failed_start() {
            panic!("{failure}");
        }
        // What still runs holds the pipe open.
        drop(self.enclosure);
        let mut text = Vec::new();
        self.output.read_to_end(&mut text).unwrap();
        (ending, String::from_utf8_lossy(&text).into_owned())
    }

    /// Reads from the sample until it has written `text`.
    pub(crate) fn read_until(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(text.as_bytes()) {
            assert_eq!(self.output.read(&mut byte).unwrap(), 1, "ended after {}", String::from_utf8_lossy(&seen));
            seen.push(byte[0]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }
}

/// Runs a plan to the end of its first process; returns how it ended and what it wrote.
pub(crate) fn run(plan: Plan) -> (Ending, String) {
    start(plan).finish()
}

/// Whether a process of this number exists and is no zombie.
pub(crate) fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with(['Z', 'X']))
}
