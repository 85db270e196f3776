//! Samples in cages: what they see, and what the host keeps.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed set-up is a failed test")]

use std::ffi::CString;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bellwether_sandbox::Limits;
use bellwether_sandbox::cage::{Cage, Ending, Held, Identity, Plan, Program};

const PATIENCE: Duration = Duration::from_secs(30);

/// A plan that runs a command of the shell.
fn shell(command: &str) -> Plan {
    let identity = Identity::default();
    Plan {
        program: Program::Path("/bin/sh".to_owned()),
        arguments: ["sh", "-c", command].iter().map(|text| CString::new(*text).unwrap()).collect(),
        environment: identity.environment(),
        folder: identity.work(),
        identity,
        files: Vec::new(),
        limits: Limits::default(),
        filter: Vec::new(),
        output: None,
    }
}

/// Runs a plan to the end of its first process; returns how it ended and what it wrote.
fn run(mut plan: Plan) -> (Ending, String) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    plan.output = Some(OwnedFd::from(writer));
    let Held { gate, enclosure, cgroup: _cgroup, .. } = Cage::start(&plan).unwrap();
    drop(plan);
    gate.open().unwrap();
    let ending = enclosure.wait(PATIENCE).unwrap().expect("the sample ends in time");
    drop(enclosure);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    (ending, text)
}

#[test]
fn a_command_runs_as_the_user_and_to_its_end() {
    let (ending, text) = run(shell("id -u; id -g; hostname; pwd; exit 3"));
    assert_eq!((ending, text.as_str()), (Ending::Code(3), "1000\n1000\ndesk\n/home/user/work\n"));
}

#[test]
fn a_start_that_fails_says_at_which_step() {
    let mut plan = shell("true");
    plan.program = Program::Path("/no/such/program".to_owned());
    let held = Cage::start(&plan).unwrap();
    held.gate.open().unwrap();
    assert_eq!(held.enclosure.wait(PATIENCE).unwrap(), Some(Ending::Code(127)));
    let failure = held.enclosure.failed_start().unwrap();
    assert!(failure.to_string().contains("start the program"), "{failure}");
    let mut plan = shell("true");
    plan.folder = "/nowhere".to_owned();
    let failure = Cage::start(&plan).unwrap_err();
    assert!(failure.to_string().contains("enter the working folder"), "{failure}");
}
