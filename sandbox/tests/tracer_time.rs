//! Waiting that is skipped: all clocks agree on it, nobody is late for it, and who works is waited for.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, reason = "these are tests")]

mod launch;

use std::path::Path;
use std::time::Duration;

use bellwether_env_adapter::Event;
use bellwether_sandbox::filter::Program;
use bellwether_sandbox::tracer::{Act, End, Flow, Options, Proof, Summary};
use launch::{Kept, command, compile, start_under};

/// Runs a program whose waits are skipped; returns what it printed and the tracer's sums.
fn skipped(
    program: &Path,
    arguments: &[&str],
    folder: &Path,
    flow: impl FnMut(&Event<'_>) -> Flow,
) -> (String, Summary) {
    let output = folder.join("out");
    let mut kept = Kept::new(flow);
    let options = Options { skip_waits: true, ..Options::default() };
    let held = start_under(command(program, arguments, folder, &output), Program::with_time());
    let summary = held.attach(options).run(&mut kept).unwrap();
    (std::fs::read_to_string(output).unwrap(), summary)
}

fn waits(what: &str) -> (String, Summary) {
    let folder = tempfile::tempdir().unwrap();
    let program = compile(folder.path(), "waits");
    skipped(&program, &[what], folder.path(), |_| Flow::Go)
}

const HOUR_NS: u64 = 3_600_000_000_000;

#[test]
fn every_wait_is_over_at_once_and_every_clock_says_so() {
    let (text, summary) = waits("every");
    let mut expected = String::from("page 0\n");
    for (name, returned) in [
        ("nanosleep", 0),
        ("clock_nanosleep", 0),
        ("until", 0),
        ("poll", 0),
        ("ppoll", 0),
        ("select", 0),
        ("pselect", 0),
        ("epoll", 0),
        ("signal", -libc::EAGAIN),
        ("semaphore", -libc::ETIMEDOUT),
        ("condition", -libc::ETIMEDOUT),
    ] {
        expected += &format!("{name} returned {returned}\n{name} moved 1\n");
        expected += match name {
            "poll" => "polled 0\n",
            "select" => "selected 0\n",
            _ => "",
        };
    }
    expected += &format!("processor 1\nbad {}\n", -libc::EFAULT);
    assert_eq!(text, expected);
    assert_eq!(summary.first, Some(End::Exited(0)));
    assert!(summary.skipped_ns > 28 * HOUR_NS && summary.skipped_ns < 34 * HOUR_NS, "{summary:?}");
}

#[test]
fn who_works_is_waited_for() {
    let (text, summary) = waits("worker");
    assert_eq!((text.as_str(), summary.skipped_ns < HOUR_NS / 60), ("answered 1\n", true), "{summary:?}");
}

#[test]
fn sleepers_wake_in_their_order() {
    assert_eq!(waits("two").0, "first 1\nsecond 1\n");
}

#[test]
fn a_signal_wakes_a_sleeper_before_its_time() {
    assert_eq!(waits("woken").0, "left 1\ncaught 1\nearly 1\n");
}

#[test]
fn timers_go_off_by_the_clock_that_the_sample_sees() {
    let (text, summary) = waits("timers");
    let mut expected = String::from("set 600\n");
    for (name, returned, then) in [
        ("alarm", -libc::EINTR, "caught 1\nnothing left 0\n"),
        ("first", -libc::EINTR, ""),
        ("second", -libc::EINTR, "next 1\nstopped 1\n"),
        ("cut short", 1, ""),
        ("read", 8, "times 1\n"),
        ("epoll", 1, ""),
        ("silent", 0, "inherited 0\n"),
    ] {
        expected += &format!("{name} returned {returned}\n{name} moved 1\n{then}");
    }
    assert_eq!(text, expected);
    assert!(summary.skipped_ns > HOUR_NS * 9 / 10, "{summary:?}");
}

#[test]
fn a_shell_waits_for_its_children_and_programs_are_told_the_time() {
    let folder = tempfile::tempdir().unwrap();
    let script = "a=$(date +%s); sleep 7200; b=$(date +%s); [ $((b - a)) -ge 7200 ] && echo later; \
                  timeout 5 sleep 1000; echo $?";
    // A program that a program of the sample's runs loses the page of clocks, too.
    let (text, _) = skipped(Path::new("/bin/sh"), &["-c", script], folder.path(), |_| Flow::Go);
    assert_eq!(text, "later\n124\n");
}

#[test]
fn levels_hold_while_a_sample_sleeps_and_its_sleep_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let mut raised = false;
    let mut kept = Kept::new(move |event: &Event<'_>| match event.name {
        "openat" if event.path.is_some_and(|path| path.ends_with("begun")) && !std::mem::replace(&mut raised, true) => {
            Flow::Act(Act::Level(2))
        }
        _ => Flow::Go,
    });
    let options = Options {
        skip_waits: true,
        seal: Some(Box::new(|| Ok(true))),
        scratch: vec![folder.path().display().to_string()],
        tick: Duration::from_millis(10),
        ..Options::default()
    };
    let script = "sleep 5000 & : > begun; wait; echo slept";
    let held =
        start_under(command(Path::new("/bin/sh"), &["-c", script], folder.path(), &output), Program::with_time());
    let summary = held.attach(options).run(&mut kept).unwrap();
    assert_eq!(kept.acted, [(Act::Level(2), Proof::Done)]);
    assert_eq!(std::fs::read_to_string(output).unwrap(), "slept\n");
    assert!(summary.skipped_ns > HOUR_NS, "{summary:?}");
}
