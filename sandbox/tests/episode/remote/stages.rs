//! Served stages whose samples are scripts, and connections that break.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bellwether_env_adapter::reward::Toll;
use bellwether_env_adapter::spec::WIDTH;
use bellwether_env_adapter::{Action, Event, EventKind, StateVector, action};
use bellwether_sandbox::episode::{Clock, Setup};
use bellwether_sandbox::peer::Address;
use bellwether_sandbox::stage::remote::{Listen, RemoteOptions, RemoteStage, StageConfig, StageServer};
use bellwether_sandbox::stage::{
    Came, Close, Command, Course, Fault, Feedback, Kept, Order, Outcome, Proof, Question, Stage, StageError,
};

/// A stage whose sample makes so many events in each of its windows, and heeds its course as a real one does.
#[derive(Default)]
pub(super) struct Busy {
    pub(super) windows: Vec<u32>,
    /// Events that were told so far, of all runs.
    pub(super) told: AtomicU64,
    /// Commands that were carried out.
    pub(super) done: Mutex<Vec<Command>>,
    /// Why the last question is asked, where it is not because the sample has ended.
    pub(super) last: Option<Close>,
    /// The sample sleeps for ever after its last window.
    pub(super) lingers: bool,
    /// Runs that ended.
    pub(super) ended: AtomicU64,
    /// What the files held.
    pub(super) files: Mutex<Vec<Vec<u8>>>,
}

impl Busy {
    fn play(&self, order: &Order, course: &mut dyn Course, outcome: &mut Outcome) -> Option<Fault> {
        let state = StateVector::from_slice(&[0.25; WIDTH]).unwrap();
        for (step, events) in (0..).zip(&self.windows) {
            for _ in 0..*events {
                let path = format!("/home/user/{}", outcome.events);
                let event = Event {
                    stage: order.stage,
                    path: Some(&path),
                    time_ns: Some(outcome.events),
                    ..Event::named(outcome.events, EventKind::File, "openat")
                };
                outcome.events += 1;
                self.told.fetch_add(1, Ordering::Relaxed);
                if course.event(&event) == Kept::No {
                    return Some(course.gone().map_or(Fault::Recorder, |why| Fault::Abandoned { why }));
                }
            }
            let last = step as usize + 1 == self.windows.len() && !self.lingers;
            let question = Question {
                episode: order.episode.clone(),
                stage: order.stage,
                step,
                window: step,
                events: *events,
                toll: Toll { harm: [0.5; 4], breakage: [0.25; 4] },
                events_seen: outcome.events,
                time_ns: u64::from(step),
                level: outcome.level,
                close: if last { self.last.unwrap_or(Close::End) } else { Close::Window },
                mask: action::mask(last, outcome.level < 3),
            };
            let command = course.window(&question, &state);
            if let Some(why) = course.gone() {
                return Some(Fault::Abandoned { why });
            }
            assert_eq!(command, Command::to(&question, command.action));
            outcome.windows += 1;
            outcome.level = command.context.level_after;
            self.done.lock().unwrap().push(command.clone());
            if command.action != Action::Continue {
                course.feedback(Feedback {
                    decision: Some(command.decision.clone()),
                    stage: order.stage,
                    action: command.action,
                    level: outcome.level,
                    came: Came::Done { proof: Proof::EmptyCgroup },
                    took_us: 7,
                    attempts: 1,
                });
            }
            if command.action.is_verdict() {
                (outcome.verdict, outcome.verdict_at) = (Some(command.action), Some(question.close));
                return None;
            }
        }
        if !self.lingers {
            return None;
        }
        loop {
            if let Some(why) = course.gone() {
                return Some(Fault::Abandoned { why });
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Stage for Busy {
    fn run(&self, order: &Order, course: &mut dyn Course) -> Result<Outcome, StageError> {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&order.sample.memory));
        self.files.lock().unwrap().push(std::fs::read(path).unwrap());
        let mut outcome = Outcome::of_nothing(order.stage);
        let fault = self.play(order, course, &mut outcome);
        outcome.faults.extend(fault);
        outcome.dead = Some(Proof::EmptyCgroup);
        self.ended.fetch_add(1, Ordering::Relaxed);
        Ok(outcome)
    }
}

/// A served stage in a folder of its own.
pub(super) fn serve(
    folder: &Path,
    stage: Arc<dyn Stage + Send + Sync>,
    change: impl FnOnce(&mut StageConfig),
) -> (StageServer, PathBuf) {
    let path = folder.join("stage.sock");
    let mut config = StageConfig::new(1, Listen::Unix(path.clone()));
    // As long as a slow machine needs.
    config.answer_within = Duration::from_secs(60);
    change(&mut config);
    (StageServer::start(config, stage).unwrap(), path)
}

pub(super) fn client(path: &Path, clock: Arc<dyn Clock>) -> RemoteStage {
    let options = RemoteOptions {
        connect: Duration::from_secs(5),
        act: Duration::from_secs(5),
        ending: Duration::from_secs(10),
        ..RemoteOptions::default()
    };
    RemoteStage::new(1, &Address::Unix(path.to_owned()), None, options, clock).unwrap()
}

/// An episode of one stage, with a file as its sample.
pub(super) fn setup(folder: &Path, content: &[u8]) -> Setup {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    super::super::setup(&folder.join("episode"), file.into(), 1)
}

/// Passes connections on, each until so many bytes have gone through it in both directions; those beyond the list last.
pub(super) fn breaking(folder: &Path, to: &Path, lives: Vec<usize>) -> PathBuf {
    let path = folder.join("breaking.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let to = to.to_owned();
    thread::spawn(move || {
        let mut lives = lives.into_iter();
        for near in listener.incoming() {
            let (Ok(near), Ok(far)) = (near, UnixStream::connect(&to)) else { continue };
            let left = Arc::new(AtomicU64::new(lives.next().map_or(u64::MAX, |life| life as u64)));
            for (mut from, mut to) in [
                (near.try_clone().unwrap(), far.try_clone().unwrap()),
                (far.try_clone().unwrap(), near.try_clone().unwrap()),
            ] {
                let left = Arc::clone(&left);
                thread::spawn(move || {
                    _ = pass(&mut from, &mut to, &left);
                    _ = from.shutdown(Shutdown::Both);
                    _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    path
}

fn pass(from: &mut UnixStream, to: &mut UnixStream, left: &AtomicU64) -> io::Result<()> {
    let mut buffer = [0; 4_096];
    loop {
        let read = from.read(&mut buffer)?;
        let take = |left: u64| Some(left.saturating_sub(read as u64));
        let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap();
        if read == 0 || before == 0 {
            return Ok(());
        }
        // The last piece is cut wherever the end falls.
        to.write_all(&buffer[..read.min(usize::try_from(before).unwrap_or(usize::MAX))])?;
        if before <= read as u64 {
            return Ok(());
        }
    }
}

/// Waits until something holds; the test fails where it never does.
pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what} never came about");
        thread::sleep(Duration::from_millis(2));
    }
}
