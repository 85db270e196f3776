//! Counts traced calls against the sample's own counters, and measures how fast they are, under the tracer alone and as an episode:
//! `cargo run --release --example calls -p bellwether-sandbox -- [PROCESSES THREADS CALLS]`, 64, 32 and 2,000,000 by default.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a program for developers")]

#[path = "../tests/launch/mod.rs"]
mod launch;

use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use bellwether_artifact::Sha256;
use bellwether_env_adapter::ingest::telemetry::TelemetryReader;
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_env_adapter::{
    Action, EpisodeAttributes, EpisodeId, Event, EventSink, RewardConfig, StateVector, WindowConfig,
};
use bellwether_inference::model::{Contract, Expectation};
use bellwether_inference::{Isa, Policy, load_release};
use bellwether_sandbox::Limits;
use bellwether_sandbox::episode::{
    Away, Episode, EpisodeFolder, Judge, Judgement, Monotonic, PolicyJudge, Schedule, Setup, run, window_of,
};
use bellwether_sandbox::stage::{Ended, LocalStage, Question, Specimen};
use bellwether_sandbox::tracer::{Flow, Options, Sink};
use bellwether_sandbox::vault::Sample;

/// Recorded calls of each kind that the sample makes.
#[derive(Default)]
struct Counts {
    calls: [u64; 3],
}

impl Counts {
    fn count(&mut self, event: &Event<'_>) {
        match (event.name, event.errno) {
            ("uname", None) => self.calls[0] += 1,
            ("pwrite64", None) if event.bytes == Some(10) && event.path == Some("/dev/null") => self.calls[1] += 1,
            ("pread64", None) if event.path == Some("/dev/null") => self.calls[2] += 1,
            _ => {}
        }
    }
}

impl Sink for Counts {
    fn event(&mut self, event: &Event<'_>) -> Flow {
        self.count(event);
        Flow::Go
    }
}

impl EventSink for Counts {
    type Error = std::convert::Infallible;

    fn begin(&mut self, _: &EpisodeAttributes) -> Result<(), Self::Error> {
        Ok(())
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Self::Error> {
        self.count(event);
        Ok(())
    }

    fn end(&mut self, complete: bool) -> Result<(), Self::Error> {
        assert!(complete, "the file says that something is missing");
        Ok(())
    }
}

fn main() {
    let mut given = std::env::args().skip(1).map(|word| word.parse::<u64>().expect("a number"));
    let (processes, threads) = (given.next().unwrap_or(64), given.next().unwrap_or(32));
    let rounds = given.next().unwrap_or(2_000_000).div_ceil(3 * processes * threads);
    let folder = tempfile::tempdir().unwrap();
    let program = launch::compile(folder.path(), "crowd");
    let crowd = Crowd { program, numbers: [processes, threads, rounds] };
    println!("{processes} processes of {threads} threads, {rounds} rounds of 3 calls in each");
    bare(&crowd, folder.path());
    whole(&crowd, folder.path());
}

/// The sample.
struct Crowd {
    program: PathBuf,
    numbers: [u64; 3],
}

impl Crowd {
    fn arguments(&self) -> [String; 3] {
        self.numbers.map(|number| number.to_string())
    }

    /// Calls of each kind that it makes.
    fn each(&self) -> u64 {
        self.numbers.iter().product()
    }
}

/// The tracer alone, held against the sample's own counters.
fn bare(crowd: &Crowd, folder: &Path) {
    let arguments = crowd.arguments();
    let output = folder.join("out");
    let mut counts = Counts::default();
    let began = Instant::now();
    let command = launch::command(&crowd.program, &arguments.each_ref().map(String::as_str), folder, &output);
    let summary = launch::trace(command, Options::default(), &mut counts);
    let seconds = began.elapsed().as_secs_f64();
    let said = std::fs::read_to_string(&output).unwrap();
    let said: Vec<u64> = said.split_ascii_whitespace().map(|word| word.parse().expect("a counter")).collect();
    println!(
        "traced alone: {} events in {seconds:.2} s, {:.0} a second, {:.2} us of processor time an event; at most {} tasks at once",
        summary.events,
        summary.events as f64 / seconds,
        processor_seconds() * 1e6 / summary.events as f64,
        summary.most_tasks,
    );
    let [processes, threads, _] = crowd.numbers;
    assert_eq!(said[..3], counts.calls, "calls were lost");
    assert_eq!(said[3..], [processes * threads, processes], "threads or processes were lost");
}

/// A whole episode of one stage in a cage, as `detonate` runs it: windows, a decision at each, journal, telemetry and steps. The model
/// that ships decides on every window, and the sample goes on whatever it says.
fn whole(crowd: &Crowd, folder: &Path) {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/quickstart");
    let spec = FeatureSpec::v1(WindowConfig::default());
    let contract = Contract::sandbox(spec.width(), Sha256::from_bytes(spec.hash()));
    let release = load_release(&model, &Expectation::new(contract), Isa::best()).unwrap();
    let policy = Policy::new(release, None, Default::default()).unwrap();
    let sample = Sample::open(&crowd.program, 1 << 30).unwrap();
    let name = EpisodeId("crowd".to_owned());
    let mut judge = GoOn(PolicyJudge::new(&policy, &name, 0.01).unwrap());
    let tasks = u32::try_from((crowd.numbers[0] + 1) * (crowd.numbers[1] + 1)).unwrap().min(4_096);
    let limits = Limits { tasks, memory_bytes: 8 << 30, time_ms: 600_000, ..Limits::default() };
    let setup = Setup {
        episode: name,
        sample: Arc::new(Specimen {
            memory: sample.memory().as_fd().try_clone_to_owned().unwrap(),
            name: "crowd".to_owned(),
            arguments: crowd.arguments().map(|text| CString::new(text).unwrap()).to_vec(),
            marked_home: false,
        }),
        identity: sample.identity().clone(),
        label: None,
        family: None,
        stages: 1,
        window: window_of(&policy),
        reward: RewardConfig::default(),
        limits: [limits.clone(), limits],
        seed: 1,
        policy: None,
        schedule: Schedule::default(),
        folder: EpisodeFolder::take(folder.join("episode")).unwrap(),
        now_ms: || 0,
    };
    let began = Instant::now();
    let report = run(
        &setup,
        Episode {
            stages: [&LocalStage, &LocalStage],
            judge: &mut judge,
            seal: &mut |_| Err("nothing is sealed".to_owned()),
            listeners: Vec::new(),
            clock: &Monotonic,
            stop: &AtomicBool::new(false),
        },
    )
    .unwrap();
    let seconds = began.elapsed().as_secs_f64();
    let [outcome] = &report.outcomes[..] else { unreachable!("one stage runs: {:?}", report.partial) };
    assert_eq!((&report.partial[..], outcome.ended), (&[][..], Ended::Exited { code: 0 }), "the sample missed calls");
    let files = report.files.as_ref().unwrap();
    let mut counts = Counts::default();
    TelemetryReader::open(&files.telemetry).unwrap().read(&mut counts).unwrap();
    println!(
        "a whole episode: {} events in {seconds:.2} s, {:.0} a second, start, end and {} decisions included; at most {} tasks at once",
        outcome.events,
        outcome.events as f64 / seconds,
        files.decisions,
        outcome.most_tasks,
    );
    assert_eq!(counts.calls, [crowd.each(); 3], "calls are missing in the file");
    assert_eq!(files.events, outcome.events);
}

/// Asks a model, and goes on whatever it says while that is allowed.
struct GoOn(PolicyJudge);

impl Judge for GoOn {
    fn judge(&mut self, question: &Question, state: &mut StateVector) -> Result<Judgement, Away> {
        let judgement = self.0.judge(question, state)?;
        let action = if question.close.is_last() { Action::Release } else { Action::Continue };
        Ok(Judgement { action, ..judgement })
    }
}

/// Processor time that this thread has used: how fast the tracer could be, whatever else the machine does.
fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which lives through the call.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
