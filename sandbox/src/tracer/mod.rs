//! The tracer: one thread that sees every recorded call of a sample's tasks.
//!
//! A task stops when its filter asks about a call, and again when the call has returned. Whatever the call's arguments point to
//! is read while the task is stopped and before the kernel reads it; fields that another task could change in between carry
//! the mark `raced`. Events leave through a [`Sink`] on the tracer's thread: while the sink takes its time the sample waits,
//! and no event is lost. Tasks are killed by the kernel when the thread that traces them ends, however it ends.
//!
//! ptrace ties a tree of tasks to the thread that seized it, so a [`Tracer`] stays on one thread. What is to be done to a sample its
//! sink says, after an event or at a tick.

mod company;
mod errands;
mod fields;
mod processes;
mod run;
mod sight;
mod skip;
mod sockets;
mod sweep;
mod timers;
mod tree;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use bellwether_env_adapter::Event;
use bellwether_env_adapter::redact::Redactor;
use bellwether_env_adapter::sensor::Decoys;

use crate::edge::bell::Bell;
use crate::edge::ptrace;
use company::Company;
use sight::Peers;
use tree::Tree;

/// Takes the events of a sample, on the tracer's thread. While it does, the task of the event is stopped.
pub trait Sink {
    /// The next event.
    fn event(&mut self, event: &Event<'_>) -> Flow;

    /// Some time has passed, whether or not there was an event; in nanoseconds since the tracer began.
    fn tick(&mut self, _now_ns: u64) -> Flow {
        Flow::Go
    }

    /// What this sink asked for has been done, or cannot be.
    fn acted(&mut self, _act: Act, _proof: Proof) {}
}

/// What happens after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The task goes on.
    Go,
    /// This is done, then the task goes on.
    Act(Act),
}

/// What can be done to a sample while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The isolation level is raised to this, 1 to 3, and events say so from now on; a level that holds already holds.
    ///
    /// Level 1 is only noted: whoever raises it has cut the network. For level 2 all tasks are stopped, descriptors and mappings
    /// through which files outside scratch can be written are taken from them, and [`Options::seal`] is to succeed. At level 3
    /// processes can no longer be started; threads and programs can.
    Level(u8),
    /// Every task is killed.
    Kill,
}

/// What shows that something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It holds from now on.
    Done,
    /// Writers remain after two sweeps, or nothing was given to close what they write to: the level is what it was.
    Busy,
}

/// Closes what the sample may write to, from outside; false while somebody can still write there.
pub type Seal = Box<dyn FnMut() -> io::Result<bool>>;

/// How a sample is traced.
pub struct Options {
    /// Stage of the episode, 1 or 2.
    pub stage: u8,
    /// The path that stands for the sample in its first event, which runs it from a sealed file without a name.
    pub program: Option<String>,
    /// Paths that were planted.
    pub decoys: Option<Decoys>,
    /// Replaces personal values in every text.
    pub redactor: Option<Redactor>,
    /// How often [`Sink::tick`] is called at least.
    pub tick: Duration,
    /// Folders, as the sample sees them, below which files stay writable.
    pub scratch: Vec<String>,
    /// What closes the rest.
    pub seal: Option<Seal>,
    /// Where all of a sample does nothing but wait, time passes at once, on every clock that a call tells. The sample's filter has
    /// to ask about time ([`Program::with_time`](crate::filter::Program::with_time)).
    pub skip_waits: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            stage: 1,
            program: None,
            decoys: None,
            redactor: Some(Redactor::default()),
            tick: Duration::from_millis(10),
            scratch: Vec::new(),
            seal: None,
            skip_waits: false,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("stage", &self.stage)
            .field("program", &self.program)
            .field("tick", &self.tick)
            .field("scratch", &self.scratch)
            .field("skip_waits", &self.skip_waits)
            .finish_non_exhaustive()
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this exit code.
    Exited(i32),
    /// By this signal. `SIGSYS` also ends a process that called the kernel for a foreign architecture.
    Killed(i32),
}

/// Bytes and calls of reading and writing, recorded or not, as the kernel counts them for processes that exited by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// Bytes that were asked for.
    pub read_bytes: u64,
    /// Bytes that were handed over.
    pub written_bytes: u64,
    /// Calls that read.
    pub reads: u64,
    /// Calls that wrote.
    pub writes: u64,
}

/// What a traced sample did in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events that were handed to the sink.
    pub events: u64,
    /// Events among them that were denied.
    pub denied: u64,
    /// Calls that were refused and are not on the recorded list, by name.
    pub refused: BTreeMap<&'static str, u64>,
    /// How the first process ended.
    pub first: Option<End>,
    /// How many processes ended each way.
    pub ends: BTreeMap<String, u64>,
    /// Most tasks that lived at once.
    pub most_tasks: usize,
    /// Reading and writing of processes that exited.
    pub traffic: Traffic,
    /// Processes that exited and whose counters could not be read: they are missing from `traffic`.
    pub uncounted: u64,
    /// Time that was skipped, in nanoseconds.
    pub skipped_ns: u64,
}

/// Why a sample cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum TracerError {
    /// The kernel lets us not trace the process.
    #[error("process {pid} cannot be traced ({cause}): run as root or as the owner of the sandbox's user namespace")]
    Seize {
        /// The process.
        pid: u32,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The process waits at its gate, and the gate does not open.
    #[error("the sample's gate does not open ({0}): the process behind it is gone")]
    Gate(io::Error),
    /// Nothing can wake the tracer's thread.
    #[error("no signal or timer for the tracer's thread ({0}): raise the limit on pending signals (ulimit -i)")]
    Bell(io::Error),
    /// The wait for tasks failed.
    #[error("waiting for the sample's tasks failed: {0}")]
    Wait(io::Error),
}

/// Traces one sample. It stays on the thread that made it, which should have no children of its own, such as the init of a cage
/// that it started: their ends would be taken in with those of the sample's tasks.
pub struct Tracer {
    options: Options,
    tree: Tree,
    peers: Peers,
    company: Company,
    summary: Summary,
    began: Instant,
    last_ns: u64,
    seq: u64,
    level: u8,
    /// The sample's clock, where its waiting is skipped.
    skips: Option<skip::Skips>,
    killing: bool,
    /// Tasks stay where they stop.
    parking: bool,
    /// Some process wrote another's memory.
    foreign_writes: bool,
    /// Ends of tasks that were found while they were to make calls for us.
    missed: VecDeque<(u32, ptrace::Change)>,
    /// What the sink asked for while something was being done to all tasks.
    later: VecDeque<Act>,
    bell: Bell,
    first: u32,
    program_seen: bool,
    ticked_ns: u64,
    texts: [String; 4],
    _one_thread: PhantomData<*const ()>,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("first", &self.first).field("options", &self.options).finish_non_exhaustive()
    }
}

impl Tracer {
    /// Begins to trace the process `pid`, which waits at its gate, then opens the gate ([`crate::cage::Gate::open`]). What the
    /// process does from its first program on is recorded.
    ///
    /// # Errors
    /// The kernel refuses, or the process is gone.
    pub fn attach(pid: u32, open: impl FnOnce() -> io::Result<()>, options: Options) -> Result<Tracer, TracerError> {
        let bell = Bell::here().map_err(TracerError::Bell)?;
        ptrace::seize(pid).map_err(|cause| TracerError::Seize { pid, cause })?;
        let tracer = Tracer {
            skips: options.skip_waits.then(skip::Skips::default),
            options,
            tree: Tree::of(pid),
            peers: Peers::default(),
            company: Company::default(),
            summary: Summary::default(),
            began: Instant::now(),
            last_ns: 0,
            seq: 0,
            level: 0,
            killing: false,
            parking: false,
            foreign_writes: false,
            missed: VecDeque::new(),
            later: VecDeque::new(),
            bell,
            first: pid,
            program_seen: false,
            ticked_ns: 0,
            texts: Default::default(),
            _one_thread: PhantomData,
        };
        open().map_err(TracerError::Gate)?;
        Ok(tracer)
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
