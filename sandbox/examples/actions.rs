//! How fast actions take hold: `cargo run --release --example actions -p bellwether-sandbox -- [ROUNDS]`. As root, with a C compiler.
//!
//! Herds of sleeping, spinning and multiplying tasks are killed, by themselves in a cage and then traced: from the decision until `SIGKILL` is
//! pending for all of them, and until their group is empty. Where tracefs is mounted (`mount -t tracefs tracefs /sys/kernel/tracing`), the kernel's own record
//! of the last signal is read too: who kills is put aside on the way back from the system call, because those who are killed run first. Then a sample that makes calls without pause is traced and decided on in process, and
//! each level is raised in turn: from the close of a window until the action is in force, the decision included, which is
//! made up on the spot. Prints quantiles in milliseconds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a program for developers")]

#[path = "../tests/launch/mod.rs"]
mod launch;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bellwether_env_adapter::{Action, EpisodeId, Event, RewardConfig, StateVector, WindowConfig};
use bellwether_sandbox::Limits;
use bellwether_sandbox::cage::{Cage, Held, Plan, Program};
use bellwether_sandbox::isolation::terminate;
use bellwether_sandbox::stage::{Came, Command, Course, Feedback, Kept, LocalStage, Order, Question, Specimen, Stage};
use bellwether_sandbox::vault::Sample;

const PATIENCE: Duration = Duration::from_secs(60);

/// The kernel's record of the `SIGKILL`s that this program sends.
struct Record(PathBuf);

impl Record {
    /// Begins a record of its own, which disturbs no other; `None` where there is no tracefs.
    fn begin() -> Option<Record> {
        let record = Record(format!("/sys/kernel/tracing/instances/actions-{}", std::process::id()).into());
        fs::create_dir(&record.0).ok()?;
        // The clock of `now`.
        record.set("trace_clock", "mono");
        record.set("events/signal/signal_generate/filter", "sig == 9");
        record.set("events/signal/signal_generate/enable", "1");
        Some(record)
    }

    #[expect(clippy::disallowed_methods, reason = "these files are the kernel's")]
    fn set(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).unwrap();
    }

    /// When the last task that was sent the signal between these times was first sent it, of those since the last call.
    fn last_between(&self, decided: Duration, end: Duration) -> Duration {
        let trace = fs::read_to_string(self.0.join("trace")).unwrap();
        self.set("trace", "");
        let mut first: BTreeMap<&str, Duration> = BTreeMap::new();
        for (head, tail) in trace.lines().filter_map(|line| line.split_once(": signal_generate:")) {
            let seconds = head.rsplit(' ').next().and_then(|word| word.parse().ok()).expect("a time in seconds");
            let task = tail.split_once(" pid=").and_then(|(_, tail)| tail.split(' ').next()).expect("a task");
            let time = Duration::from_secs_f64(seconds);
            if decided <= time && time < end {
                first.entry(task).or_insert(time);
            }
        }
        *first.values().max().expect("signals were sent")
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

/// Raises the level at each of the first windows, then ends the sample, and keeps what came of it.
#[derive(Default)]
struct Raise {
    asked: Option<Instant>,
    took: BTreeMap<&'static str, Vec<f64>>,
}

impl Raise {
    fn note(&mut self, what: &'static str, milliseconds: f64) {
        self.took.entry(what).or_default().push(milliseconds);
    }
}

impl Course for Raise {
    fn event(&mut self, _: &Event<'_>) -> Kept {
        // The sample goes on: whatever was asked last has been answered and done.
        if let Some(asked) = self.asked.take() {
            self.note("level 0", asked.elapsed().as_secs_f64() * 1e3);
        }
        Kept::Yes
    }

    fn window(&mut self, question: &Question, _: &StateVector) -> Command {
        let action = match (question.close.is_last(), question.step) {
            (false, 0..4) => Action::Continue,
            (false, 4..7) => Action::RaiseIsolation,
            _ => Action::Terminate,
        };
        self.asked = (action == Action::Continue).then(Instant::now);
        Command::to(question, action)
    }

    fn feedback(&mut self, feedback: Feedback) {
        assert!(matches!(feedback.came, Came::Done { .. }), "{feedback:?}");
        let what = match (feedback.action, feedback.level) {
            (Action::RaiseIsolation, 1) => "level 1",
            (Action::RaiseIsolation, 2) => "level 2",
            (Action::RaiseIsolation, _) => "level 3",
            _ => "terminate",
        };
        self.note(what, feedback.took_us as f64 / 1e3);
    }
}

/// Ends the sample when nearly all of its tasks are there.
#[derive(Default)]
struct Kill {
    tasks: u32,
    started: u32,
    decided: Option<Duration>,
    ended: Option<Duration>,
}

impl Course for Kill {
    fn event(&mut self, event: &Event<'_>) -> Kept {
        let starts = matches!(event.name, "fork" | "vfork" | "clone" | "clone3");
        self.started += u32::from(starts && event.ret.is_some_and(|task| task > 0));
        Kept::Yes
    }

    fn window(&mut self, question: &Question, _: &StateVector) -> Command {
        // A few of a bomb may fail to start for want of memory.
        if self.started < self.tasks * 9 / 10 && !question.close.is_last() {
            return Command::to(question, Action::Continue);
        }
        assert!(self.started >= self.tasks * 9 / 10, "the herd is not complete: {}", self.started);
        self.decided = Some(now());
        Command::to(question, Action::Terminate)
    }

    fn feedback(&mut self, feedback: Feedback) {
        assert!(matches!(feedback.came, Came::Done { .. }), "{feedback:?}");
        self.ended = (feedback.action == Action::Terminate).then(now);
    }
}

fn main() {
    let rounds = std::env::args().nth(1).map_or(200, |word| word.parse::<usize>().expect("a number of rounds"));
    let folder = tempfile::tempdir().unwrap();
    println!("milliseconds over {rounds} rounds: p50, p99, most");
    let herd = launch::compile(folder.path(), "herd");
    let record = Record::begin();
    for (tasks, what) in [(64, "sleep"), (64, "spin"), (64, "bomb"), (512, "sleep"), (512, "spin"), (512, "bomb")] {
        let (mut recorded, mut pending, mut empty) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (began, killed_after, empty_after) = kill(&herd, tasks, what);
            // Its init is killed once more when its cage is given up.
            let last = record.as_ref().map(|record| record.last_between(began, began + killed_after));
            recorded.extend(last.map(|last| (last - began).as_secs_f64() * 1e3));
            pending.push(killed_after.as_secs_f64() * 1e3);
            empty.push(empty_after.as_secs_f64() * 1e3);
        }
        if record.is_some() {
            print(&format!("{tasks} tasks, {what}: SIGKILL pending"), recorded);
        }
        print(&format!("{tasks} tasks, {what}: who killed goes on"), pending);
        print(&format!("{tasks} tasks, {what}: group empty"), empty);
        let (mut recorded, mut empty) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let mut course = Kill { tasks, ..Kill::default() };
            run(&herd, round as u64, (tasks, &[&tasks.to_string(), what]), &mut course);
            let (decided, ended) = (course.decided.expect("a decision"), course.ended.expect("an end"));
            let last = record.as_ref().map(|record| record.last_between(decided, ended));
            recorded.extend(last.map(|last| (last - decided).as_secs_f64() * 1e3));
            empty.push((ended - decided).as_secs_f64() * 1e3);
        }
        if record.is_some() {
            print(&format!("{tasks} tasks, {what}, traced: SIGKILL pending"), recorded);
        }
        print(&format!("{tasks} tasks, {what}, traced: group empty, and told"), empty);
    }
    let crowd = launch::compile(folder.path(), "crowd");
    let mut course = Raise::default();
    for round in 0..rounds {
        run(&crowd, round as u64, (64, &["4", "4", "100000"]), &mut course);
    }
    for (what, took) in course.took {
        print(&format!("window closed to {what} in force"), took);
    }
}

/// Starts a herd, waits until it is complete, and kills it: when that was decided, and how long the two steps took.
fn kill(herd: &Path, tasks: u32, what: &str) -> (Duration, Duration, Duration) {
    let sample = Sample::open(herd, 1 << 20).unwrap();
    let arguments = ["herd", &tasks.to_string(), what].map(|word| CString::new(word).unwrap()).to_vec();
    let program = Program::File(sample.memory().try_clone_to_owned().unwrap());
    // Its init counts too.
    let limits = Limits { tasks: tasks + 1, ..Limits::default() };
    let Held { gate, enclosure, cgroup, .. } =
        Cage::start(&Plan { limits, ..Plan::new(program, arguments) }).expect("a cage: `bellwether doctor` says more");
    gate.open().unwrap();
    let started = Instant::now();
    // A few of a bomb may fail to start for want of memory.
    while cgroup.processes().unwrap().len() < tasks as usize * 9 / 10 {
        assert!(
            started.elapsed() < PATIENCE,
            "the herd is not complete: {:?}",
            cgroup.processes().map(|all| all.len())
        );
        thread::sleep(Duration::from_millis(1));
    }
    let decided = now();
    let ended = terminate(&enclosure, &cgroup, PATIENCE).unwrap();
    (decided, ended.killed_after, ended.empty_after)
}

/// Runs a program in stage 1, of so many tasks at most and with these arguments.
fn run(program: &Path, round: u64, (tasks, arguments): (u32, &[&str]), course: &mut dyn Course) {
    let sample = Sample::open(program, 1 << 20).unwrap();
    let order = Order {
        episode: EpisodeId(format!("actions-{round}")),
        stage: 1,
        sample: Arc::new(Specimen {
            memory: sample.memory().as_fd().try_clone_to_owned().unwrap(),
            name: "tool".to_owned(),
            arguments: arguments.iter().map(|word| CString::new(*word).unwrap()).collect(),
            marked_home: false,
        }),
        window: WindowConfig { max_events: 4, ..WindowConfig::default() },
        reward: RewardConfig::default(),
        // Its init counts too.
        limits: Limits { tasks: tasks + 1, ..Limits::default() },
        seed: round,
    };
    let outcome = LocalStage.run(&order, course).expect("a cage: `bellwether doctor` says more");
    assert!(outcome.faults.is_empty(), "{outcome:?}");
}

fn print(what: &str, mut milliseconds: Vec<f64>) {
    milliseconds.sort_by(f64::total_cmp);
    let at = |share: f64| {
        milliseconds[((milliseconds.len() as f64 * share).ceil() as usize).clamp(1, milliseconds.len()) - 1]
    };
    println!("{what}: {:.3} {:.3} {:.3}", at(0.5), at(0.99), at(1.0));
}
