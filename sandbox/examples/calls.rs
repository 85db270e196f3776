//! Counts traced calls against the sample's own counters, and measures how fast they are: `cargo run --release --example calls
//! -p bellwether-sandbox -- [PROCESSES THREADS CALLS]`, 64, 32 and 2,000,000 by default.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a program for developers")]

#[path = "../tests/launch/mod.rs"]
mod launch;

use std::time::Instant;

use bellwether_env_adapter::Event;
use bellwether_sandbox::tracer::{Flow, Options, Sink};

#[derive(Default)]
struct Counts {
    calls: [u64; 3],
    others: u64,
}

impl Sink for Counts {
    fn event(&mut self, event: &Event<'_>) -> Flow {
        match (event.name, event.errno) {
            ("uname", None) => self.calls[0] += 1,
            ("pwrite64", None) if event.bytes == Some(10) && event.path == Some("/dev/null") => self.calls[1] += 1,
            ("pread64", None) if event.path == Some("/dev/null") => self.calls[2] += 1,
            _ => self.others += 1,
        }
        Flow::Go
    }
}

fn main() {
    let mut given = std::env::args().skip(1).map(|word| word.parse::<u64>().expect("a number"));
    let (processes, threads) = (given.next().unwrap_or(64), given.next().unwrap_or(32));
    let rounds = given.next().unwrap_or(2_000_000).div_ceil(3 * processes * threads);
    let folder = tempfile::tempdir().unwrap();
    let program = launch::compile(folder.path(), "crowd");
    let numbers = [processes, threads, rounds].map(|number| number.to_string());
    let args = [numbers[0].as_str(), &numbers[1], &numbers[2]];
    let output = folder.path().join("out");
    let mut counts = Counts::default();
    let began = Instant::now();
    let command = launch::command(&program, &args, folder.path(), &output);
    let summary = launch::trace(command, Options::default(), &mut counts);
    let seconds = began.elapsed().as_secs_f64();
    let said = std::fs::read_to_string(&output).unwrap();
    let said: Vec<u64> = said.split_ascii_whitespace().map(|word| word.parse().expect("a counter")).collect();
    println!("{:.2} us of processor time an event", processor_seconds() * 1e6 / summary.events as f64);
    println!(
        "{processes} processes of {threads} threads (most tasks at once {}): {} events in {seconds:.2} s, {:.0} a second",
        summary.most_tasks,
        summary.events,
        summary.events as f64 / seconds,
    );
    println!("the sample counted {said:?}, the tracer {:?} and {} others", counts.calls, counts.others);
    assert_eq!(said[..3], counts.calls, "calls were lost");
    assert_eq!(said[3..], [processes * threads, processes], "threads or processes were lost");
}

/// Processor time that this thread has used: how fast the tracer could be, whatever else the machine does.
fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which lives through the call.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
