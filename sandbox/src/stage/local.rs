//! A stage in this process: cage, tracer and watch around one sample.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bellwether_env_adapter::Action;
use bellwether_env_adapter::sensor::Decoys;

use super::watch::{Hands, Seen, Watch};
use super::{Beside, Came, Course, Fault, Feedback, Order, Outcome, Proof, Specimen, Stage, StageError};
use crate::abilities;
use crate::cage::{Activity, Bounds, Cage, CgroupHandle, Enclosure, Gate, Held, Home, Identity, Placed, Plan, Program};
use crate::filter;
use crate::isolation::{self, WriteDenial};
use crate::network::Network;
use crate::tracer::{Options, Summary, Tracer};

/// How long the end of everything may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a sample outlives its time where whoever counts that waits for something else.
const GRACE: Duration = Duration::from_secs(5);
/// How long the kernel may take to set mounts read-only.
const SEAL_PATIENCE: Duration = Duration::from_millis(200);

/// Ports of the peer that programs of the corpus talk to: each is given three of these.
const CORPUS_PORTS: [u16; 13] = [80, 443, 2525, 3000, 4000, 5000, 5222, 6667, 8000, 8080, 8443, 9000, 9200];

/// Whether this host gives a decoy network, and why not. It is tried once.
static DECOY_NETWORK: LazyLock<Result<(), String>> = LazyLock::new(abilities::decoy_network);

/// Runs samples on this machine, in this process. Each run has a thread of its own for its tracer.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalStage;

/// Who a sample believes to be at a stage: not the same user on the same host twice.
pub fn identity(stage: u8) -> Identity {
    match stage {
        2 => Identity { host_name: "ws-0417".to_owned(), user: "anna".to_owned(), uid: 1001 },
        _ => Identity::default(),
    }
}

struct Outside {
    enclosure: Arc<Enclosure>,
    cgroup: Arc<CgroupHandle>,
}

/// A user at work in the home of a sample, shared with whoever ends that.
type Shared = Arc<Mutex<User>>;

struct User {
    activity: Activity,
    /// Nothing can be written any more.
    away: bool,
}

/// Kills a sample that runs on when its time is long over, because whoever counts it waits for a disk or for an answer. Ends with the
/// channel before that.
fn cap(outside: &Outside, ended: &mpsc::Receiver<()>, latest: Duration) {
    if ended.recv_timeout(latest) == Err(mpsc::RecvTimeoutError::Timeout) {
        // What comes of it is told where the sample is found dead.
        _ = outside.cgroup.kill();
        outside.enclosure.kill();
    }
}

/// Lets the user work until the sample has ended, which ends the channel.
fn work(user: &Shared, enclosure: &Enclosure, ended: &mpsc::Receiver<()>) {
    loop {
        let pause = lock(user).activity.pause();
        if ended.recv_timeout(pause) != Err(mpsc::RecvTimeoutError::Timeout) {
            return;
        }
        let mut user = lock(user);
        if !user.away {
            user.activity.act(enclosure);
        }
    }
}

fn lock(user: &Shared) -> MutexGuard<'_, User> {
    // Each act leaves the model of a file as it was or as it is.
    user.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hands for Outside {
    fn cut_network(&mut self) -> Result<(), String> {
        isolation::cut_network(&self.enclosure).map_err(|error| error.to_string())
    }

    fn kill(&mut self) -> Result<(), String> {
        match self.cgroup.holds().listing {
            true => self.cgroup.kill().map_err(|error| error.to_string()),
            // The tracer kills what it traces, and the end of the init ends the rest.
            false => Ok(()),
        }
    }
}

impl Stage for LocalStage {
    fn run(&self, order: &Order, course: &mut dyn Course) -> Result<Outcome, StageError> {
        self.run_beside(order, &[], course)
    }
}

impl LocalStage {
    /// Runs a sample to its end, with further files beside it in its working folder.
    ///
    /// # Errors
    /// Those of [`Stage::run`].
    pub fn run_beside(&self, order: &Order, beside: &[Beside], course: &mut dyn Course) -> Result<Outcome, StageError> {
        let identity = identity(order.stage);
        let home = Home::draw(order.seed, &identity);
        let home = if order.sample.marked_home { home.marked(&identity) } else { home };
        let decoys = home.decoys;
        let host_name = identity.host_name.clone();
        // Stage 2 is looked for by samples that want to see somebody at work.
        let activity = (order.stage == 2).then(|| Activity::draw(order.seed, &identity));
        let files = home.files.into_iter().chain(activity.iter().flat_map(Activity::files).cloned()).collect();
        let user = activity.map(|activity| Arc::new(Mutex::new(User { activity, away: false })));
        let mut plan = plan(order, identity, files)?;
        plan.files.extend(beside.iter().map(|file| Placed {
            path: format!("{}/{}", plan.folder, file.name),
            bytes: file.bytes.clone(),
            mode: 0o644,
            modified_s: None,
        }));
        let Held { pid, gate, enclosure, cgroup, .. } = Cage::start(&plan)?;
        let began = Instant::now();
        let outside = Outside { enclosure: Arc::new(enclosure), cgroup: Arc::new(cgroup) };
        let pid = pid.as_raw_nonzero().get().unsigned_abs();
        // What the tracer's thread waits for are its own children, and it has none but the traced.
        let (summary, seen) = thread::scope(|scope| {
            let (course, outside, decoys) = (&mut *course, &outside, Decoys::new(decoys));
            let (_running, ended) = mpsc::channel();
            if let Some(user) = &user {
                let working = thread::Builder::new().name("user at work".to_owned());
                working
                    .spawn_scoped(scope, move || work(user, &outside.enclosure, &ended))
                    .map_err(|cause| StageError::System { what: "start the thread of the user at work", cause })?;
            }
            let (_tracing, traced) = mpsc::channel();
            let latest = order.limits.time().saturating_add(GRACE);
            thread::Builder::new()
                .name("time cap".to_owned())
                .spawn_scoped(scope, move || cap(outside, &traced, latest))
                .map_err(|cause| StageError::System { what: "start the thread of the time cap", cause })?;
            let user = user.clone();
            let tracing = thread::Builder::new()
                .name(format!("tracer-{}", order.stage))
                .spawn_scoped(scope, move || trace(order, course, (outside, user), decoys, (pid, gate)))
                .map_err(|cause| StageError::System { what: "start the tracer's thread", cause })?;
            tracing.join().unwrap_or_else(|_| {
                let fault = Fault::Tracer { why: "its thread panicked".to_owned() };
                Ok((Summary::default(), Seen::failed(fault)))
            })
        })?;
        let mut outcome = conclude(order, course, &outside, began, seen);
        outcome.count(summary);
        outcome.host_name = host_name;
        outcome.traffic = outside.enclosure.traffic();
        if let Err(why) = &*DECOY_NETWORK {
            outcome.lacking.push(format!("the decoy network: {why}"));
        }
        let holds = outside.cgroup.holds();
        outcome.pressure = holds.listing.then(|| outside.cgroup.pressure());
        if !(holds.tasks && holds.memory) {
            outcome.lacking.push("control groups that bound tasks and memory: see `bellwether doctor`".to_owned());
        }
        for file in user.iter().flat_map(|user| lock(user).activity.files().cloned().collect::<Vec<_>>()) {
            // What the user did is none of the sample's changes.
            plan.files.iter_mut().filter(|placed| placed.path == file.path).for_each(|placed| *placed = file.clone());
        }
        if outcome.dead.is_some() {
            outcome.changes =
                Some(outside.enclosure.changes(&plan.files, &Bounds { kept_bytes: 0, ..Bounds::default() }));
        }
        Ok(outcome)
    }
}

/// Follows a sample from its gate to its end.
fn trace(
    order: &Order,
    course: &mut dyn Course,
    (outside, user): (&Outside, Option<Shared>),
    decoys: Decoys,
    (pid, gate): (u32, Gate),
) -> Result<(Summary, Seen), StageError> {
    let Outside { enclosure, cgroup } = outside;
    let sealed = Arc::clone(enclosure);
    let options = Options {
        stage: order.stage,
        program: Some(path(order)),
        decoys: Some(decoys),
        scratch: enclosure.scratch().iter().map(|(path, _)| (*path).to_owned()).collect(),
        seal: Some(Box::new(move || {
            // Who is about to write keeps the mounts from being closed.
            let mut user = user.as_ref().map(lock);
            if let Some(user) = &mut user {
                user.away = true;
            }
            isolation::deny_writes(&sealed, SEAL_PATIENCE)
                .map(|denial| denial == WriteDenial::Done)
                .map_err(io::Error::other)
        })),
        skip_waits: skips_waits(order),
        ..Options::default()
    };
    let mut hands = Outside { enclosure: Arc::clone(enclosure), cgroup: Arc::clone(cgroup) };
    let mut watch = Watch::new(order, course, &mut hands);
    let summary = Tracer::attach(pid, || gate.open(), options)?.run(&mut watch).unwrap_or_else(|error| {
        watch.fail(Fault::Tracer { why: error.to_string() });
        Summary::default()
    });
    if let Some(failure) = enclosure.failed_start() {
        watch.fail(Fault::NotStarted { why: failure.to_string() });
    }
    Ok((summary, watch.finish()))
}

/// Makes sure that nothing lives, tells what came of the verdict, and sums up.
fn conclude(order: &Order, course: &mut dyn Course, outside: &Outside, began: Instant, seen: Seen) -> Outcome {
    let Outside { enclosure, cgroup } = outside;
    let asked = Instant::now();
    let dead = isolation::terminate(enclosure, cgroup, PATIENCE);
    let mut faults = seen.faults;
    let came = match &dead {
        Ok(terminated) => Came::Done { proof: terminated.proof.into() },
        Err(error) => {
            faults.push(Fault::Alive { why: error.to_string() });
            Came::Failed { why: error.to_string() }
        }
    };
    let (verdict, verdict_at) = seen.verdict.unzip();
    if verdict.is_some() || seen.killed.is_some() {
        course.feedback(Feedback {
            decision: verdict.as_ref().map(|command| command.decision.clone()),
            stage: order.stage,
            action: verdict.as_ref().map_or(Action::Terminate, |command| command.action),
            level: seen.level,
            came,
            took_us: u64::try_from(seen.killed.unwrap_or(asked).elapsed().as_micros()).unwrap_or(u64::MAX),
            attempts: 1,
        });
    }
    Outcome {
        stage: order.stage,
        verdict: verdict.map(|command| command.action),
        verdict_at,
        level: seen.level,
        events: seen.events,
        undecided: seen.undecided,
        windows: seen.windows,
        run_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        dead: dead.ok().map(|terminated| terminated.proof.into()),
        faults,
        ..Outcome::of_nothing(order.stage)
    }
}

fn plan(order: &Order, identity: Identity, mut files: Vec<Placed>) -> Result<Plan, StageError> {
    let failed = |what| move |cause| StageError::System { what, cause };
    let Specimen { memory, arguments, .. } = &*order.sample;
    let path = path(order);
    let mut bytes = Vec::new();
    // Every reader of a duplicate would move the same offset.
    let file = File::open(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    file.and_then(|mut file| file.read_to_end(&mut bytes)).map_err(failed("read the sample"))?;
    // Its interpreter opens a script by its path; anything else runs from memory that nobody can change.
    let program = match bytes.starts_with(b"#!") {
        true => Program::Path(path.clone()),
        false => Program::File(memory.try_clone().map_err(failed("hand the sample over"))?),
    };
    let name = CString::new(path.clone()).map_err(|error| failed("name the sample")(error.into()))?;
    let asks = if skips_waits(order) { filter::Program::with_time() } else { filter::Program::new() };
    files.push(Placed { path, bytes, mode: 0o755, modified_s: None });
    let arguments = std::iter::once(name).chain(arguments.iter().cloned()).collect();
    Ok(Plan {
        network: if DECOY_NETWORK.is_ok() { Network::Decoy } else { Network::Loopback },
        ports: if order.sample.marked_home { CORPUS_PORTS.to_vec() } else { Vec::new() },
        seed: order.seed,
        environment: identity.environment(),
        folder: identity.work(),
        identity,
        files,
        limits: order.limits.clone(),
        filter: asks.instructions().to_vec(),
        ..Plan::new(program, arguments)
    })
}

/// Whether time passes at once for a sample that waits: stage 2 outlasts those that wait for stage 1 to end.
fn skips_waits(order: &Order) -> bool {
    order.stage == 2
}

/// Where the sample finds itself.
fn path(order: &Order) -> String {
    format!("{}/{}", identity(order.stage).work(), order.sample.name)
}

impl From<isolation::Proof> for Proof {
    fn from(proof: isolation::Proof) -> Proof {
        match proof {
            isolation::Proof::EmptyCgroup => Proof::EmptyCgroup,
            isolation::Proof::EndedInit => Proof::EndedInit,
        }
    }
}
