//! `bellwether loop`: files from a folder through the sandbox, for as long as it is let.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bellwether_artifact::secret::{Purpose, Secrets};
use bellwether_env_adapter::{Action, EpisodeId, Label};
use bellwether_inference::Policy;
use bellwether_inference::watch::{WatchOptions, Watcher};
use bellwether_registry::clock::unix_ms;
use bellwether_sandbox::Limits;
use bellwether_sandbox::episode::{
    self, Decision, Episode, EpisodeFolder, Listener, Monotonic, RESERVE_BYTES, RecordError, Trail, Transition,
};
use bellwether_sandbox::intake::{Counts, Crew, Folder, IntakeError, Place, Played, Signals, Taken, Told};
use bellwether_sandbox::stage::DecisionId;
use bellwether_sandbox::vault::{Sample, Vault};
use schemars::JsonSchema;
use serde::Serialize;

use super::audit::Witness;
use super::detonation::Report;
use super::judges::{Judges, ServiceFlags};
use super::loop_metrics::{self, Numbers};
use super::served::{AnySource, Served};
use super::stages::{AnyStage, StageFlags};
use super::stop::Stop;
use super::terms::{self, Known, Terms};
use super::{Failure, Output, build, log, played, recover};

/// Runs the files that come into a folder, several at once, and puts each where its verdict sends it.
///
/// Files are moved into DIR/inbox by a rename. A released one goes to DIR/released, a convicted one into the vault or to
/// DIR/terminated, one without a verdict to DIR/undecided; what was recorded lies in DIR/episodes. The first signal ends the loop
/// when what runs has ended, the second kills what runs; whatever was in work then is taken up again by the next loop.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The folder to work in, which is made where it is missing.
    folder: PathBuf,
    #[command(flatten)]
    models: Served,
    #[command(flatten)]
    service: ServiceFlags,
    /// False-positive rate to serve.
    #[arg(long, value_name = "RATE", default_value_t = played::TARGET_FPR)]
    target_fpr: f64,
    /// Episodes that go on at once.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    episodes: u16,
    /// Files that are taken and wait for one of them to end; the others stay in the inbox.
    #[arg(long, value_name = "N", default_value_t = 2)]
    queue: u16,
    /// Let the verdict fall in stage 1.
    #[arg(long)]
    one_stage: bool,
    /// Seconds until a verdict must fall, in stage 1 and in stage 2.
    #[arg(long, value_name = "S", num_args = 2, default_values_t = [60, 120])]
    time: Vec<u64>,
    /// Milliseconds that a window waits for a policy service or a model that ONNX Runtime evaluates; then the safe rule raises the
    /// isolation, and the episode says so. The native engine is not waited for: it decides at once.
    #[arg(long, value_name = "MS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    decide_within: u64,
    /// Seed of the made-up homes, which are then all alike; drawn for each file unless given, and told in its report.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    stages: StageFlags,
    /// What all files are, where that is known: the rewards in the steps rest on it.
    #[arg(long, value_enum)]
    label: Option<Known>,
    /// Put markers into the homes without which programs of the corpus refuse to run, and answer the ports of their peer; others
    /// could tell by them where they are.
    #[arg(long)]
    marked_home: bool,
    /// Folder of the vault into which `quarantine` moves a file. Without one it goes where other convicted files go, and its
    /// episode says so.
    #[arg(long, value_name = "DIR", requires = "vault_key")]
    vault: Option<PathBuf>,
    /// The file of the vault's secrets.
    #[arg(long, value_name = "FILE", requires = "vault")]
    vault_key: Option<PathBuf>,
    #[command(flatten)]
    witness: Witness,
    /// Loopback address on which metrics are told over HTTP, at `/metrics`; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    #[command(flatten)]
    log: log::FileFlags,
}

/// What `loop` reports when it works.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "LoopWorking")]
pub(crate) struct Working<'a> {
    /// The folder.
    folder: &'a Path,
    /// Version of the model that decides.
    model_version: String,
    /// Address at which metrics are told; null where they are not.
    metrics: Option<SocketAddr>,
}

/// What episodes share.
struct Site {
    judges: Judges,
    target_fpr: f64,
    stages: [AnyStage; 2],
    one_stage: bool,
    limits: [Limits; 2],
    seed: Option<u64>,
    label: Option<Label>,
    marked_home: bool,
    decide_within: Duration,
    vault: Option<Vault>,
    trail: Option<Arc<Mutex<Trail>>>,
    folder: PathBuf,
    signals: Arc<Signals>,
    numbers: Arc<Numbers>,
}

/// How often the inbox is looked at.
const LOOK: Duration = Duration::from_millis(200);

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let limits = terms::limits(&self.time)?;
        let _logging = self.log.open()?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), revision = build::source().revision, "bellwether loop");
        let stages = self.stages.open(self.decide_within)?;
        let (judges, following) = self.judges()?;
        let decide_within = Duration::from_millis(self.decide_within);
        // Whether the model can steer a sandbox at this rate is asked before any file is taken.
        let ground = judges.now();
        ground.judge(&EpisodeId(String::new()), self.target_fpr, decide_within).map_err(Failure::usage)?;
        let vault = match (&self.vault, &self.vault_key) {
            (Some(folder), Some(key)) => Some(Vault::open(folder, Secrets::read(key, Purpose::Vault)?)?),
            _ => None,
        };
        let trail = self.witness.open()?.map(|log| Arc::new(Mutex::new(Trail::new(log, unix_ms))));
        let folder = Folder::open(&self.folder).map_err(|error| match error {
            IntakeError::Taken { .. } => Failure::usage(error),
            error => error.into(),
        })?;
        recover::Report::at_start(&folder.episodes())?;
        // Signals are waited for before anybody can know that the loop works.
        let stop = Stop::prepare()?;
        let numbers = Arc::new(Numbers::default());
        let tell = |address| {
            let judges = judges.clone();
            loop_metrics::tell(address, Arc::clone(&numbers), Box::new(move || judges.answer()))
        };
        let metrics = self.metrics.map(tell).transpose()?;
        let follow = |(policy, source, options)| Watcher::start(policy, source, options);
        let _watcher = following.map(follow).transpose()?;
        let working = Working { folder: &self.folder, model_version: ground.model_version(), metrics };
        tracing::info!(folder = %self.folder.display(), model_version = working.model_version, "working");
        output.line(&working, || working.describe())?;
        let signals = Arc::new(Signals::default());
        let told = Arc::clone(&signals);
        stop.then_twice(move |second| {
            let signal = if second { &told.stop } else { &told.drain };
            signal.store(true, Ordering::Relaxed);
            tracing::info!(second, "told to end");
        })?;
        let site = Site {
            judges,
            target_fpr: self.target_fpr,
            stages,
            one_stage: self.one_stage,
            limits,
            seed: self.seed,
            label: self.label.map(Known::label),
            marked_home: self.marked_home,
            decide_within,
            vault,
            trail,
            folder: folder.episodes(),
            signals: Arc::clone(&signals),
            numbers: Arc::clone(&numbers),
        };
        let crew =
            Crew { episodes: self.episodes.into(), queue: self.queue.into(), look: LOOK, room_bytes: RESERVE_BYTES };
        // Names rest on random bytes; where the system gives none, on the time and on how many there were.
        let given = AtomicU64::new(0);
        let name = || {
            let number = given.fetch_add(1, Ordering::Relaxed);
            EpisodeId(terms::digits().unwrap_or_else(|_| format!("{:016x}{number:08x}", unix_ms())))
        };
        crew.work(&folder, &signals, &numbers.counts, &name, &|taken| site.play(taken), &|told| site.tell(&told))?;
        let Counts { cut_off, .. } = &numbers.counts;
        match cut_off.load(Ordering::Relaxed) {
            0 => Ok(()),
            cut_off => Err(Failure::Failed(anyhow::anyhow!(
                "{cut_off} episodes were cut off; the next loop takes their files up again"
            ))),
        }
    }
}

/// A policy that follows its models: itself, where they come from, and how.
type Following = (Policy, AnySource, WatchOptions);

impl Arguments {
    fn judges(&self) -> Result<(Judges, Option<Following>), Failure> {
        if self.service.is_given() && self.models.is_given() {
            let what = "--policy-service: the service chooses the model: leave out what names one here";
            return Err(Failure::usage(anyhow::anyhow!(what)));
        }
        if let Some(service) = self.service.find()? {
            return Ok((service, None));
        }
        let options = self.models.watch_options(1, WatchOptions::default())?;
        let (policy, _, source) = self.models.first(&options)?;
        Ok((Judges::Here(policy.clone()), Some((policy, source, options))))
    }
}

impl Working<'_> {
    fn describe(&self) -> String {
        let metrics = self.metrics.map(|address| format!("; metrics on http://{address}/metrics"));
        let folder = self.folder.display();
        format!("working in {folder} with the model {}{}", self.model_version, metrics.unwrap_or_default())
    }
}

impl Site {
    /// Plays the episode of a file.
    fn play(&self, taken: &Taken) -> Played {
        match self.episode(taken) {
            Ok(played) => played,
            Err(Failure::Failed(error)) if error.downcast_ref().is_some_and(RecordError::is_full) => {
                // A folder in which nothing was begun goes; any other says that it is left.
                _ = std::fs::remove_dir(self.folder.join(&taken.episode.0));
                Played::NoRoom
            }
            Err(failure) => {
                let why = failure.to_string();
                tracing::error!(episode = taken.episode.0, file = ?taken.name, why, "an episode did not come about");
                match self.signals.stop.load(Ordering::Relaxed) {
                    true => Played::CutOff,
                    false => Played::Ended(Place::Undecided),
                }
            }
        }
    }

    fn episode(&self, taken: &Taken) -> Result<Played, Failure> {
        if !self.await_judges() {
            return Ok(Played::Ended(Place::Inbox));
        }
        let sample = Sample::open(&taken.path, terms::MOST_BYTES)?;
        let ground = self.judges.now();
        let terms = Terms {
            ground: &ground,
            target_fpr: self.target_fpr,
            stages: if self.one_stage { 1 } else { 2 },
            limits: self.limits.clone(),
            seed: self.seed,
            label: self.label,
            marked_home: self.marked_home,
        };
        let mut judge = ground.judge(&taken.episode, self.target_fpr, self.decide_within)?;
        let setup = terms.setup(taken.episode.clone(), &sample, &taken.name, Vec::new(), &self.folder)?;
        let mut listeners: Vec<Box<dyn Listener>> = vec![Box::new(Counting(Arc::clone(&self.numbers)))];
        if let Some(trail) = &self.trail {
            listeners.push(Box::new(Shared(Arc::clone(trail))));
        }
        let mut seal = |decision: &DecisionId| terms::seal(self.vault.as_ref(), &sample, &taken.episode, decision);
        let [first, second] = &self.stages;
        let report = episode::run(
            &setup,
            Episode {
                stages: [&**first, &**second],
                judge: &mut *judge,
                seal: &mut seal,
                listeners,
                clock: &Monotonic,
                stop: &self.signals.stop,
            },
        )?;
        // The verdict counts whether or not it can be told of; the journal stays for `recover`.
        if let Err(failure) = Report::leave(&setup.folder, &report) {
            tracing::error!(episode = taken.episode.0, why = %failure, "the report of an episode could not be written");
        }
        let place = match report.verdict {
            Some(Action::Release) if report.partial.is_empty() => Place::Released,
            Some(Action::Quarantine) if report.quarantine.is_some() => Place::Vault,
            Some(Action::Terminate | Action::Quarantine) => Place::Terminated,
            _ if self.signals.stop.load(Ordering::Relaxed) => return Ok(Played::CutOff),
            _ => Place::Undecided,
        };
        self.numbers.partial.fetch_add(u64::from(!report.partial.is_empty()), Ordering::Relaxed);
        tracing::info!(
            episode = taken.episode.0,
            file = ?taken.name,
            verdict = report.verdict.map(|verdict| verdict.name()),
            stage = report.stage,
            decisions = report.decisions.len(),
            safe_rule = report.safe_rule,
            partial = ?report.partial,
            "an episode is over"
        );
        Ok(Played::Ended(place))
    }

    /// Waits for a policy service that is away: under the safe rule files that are harmless would be convicted one after the other.
    /// Whether it is there; the loop is to end otherwise.
    fn await_judges(&self) -> bool {
        while !self.judges.answer() {
            if self.signals.drain.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    fn tell(&self, told: &Told<'_>) {
        match told {
            Told::Resumed { before, now } => {
                tracing::warn!(before = before.episode.0, episode = now.episode.0, file = ?now.name, "taken up again");
                self.flag(before, now);
            }
            Told::Taken(taken) => tracing::info!(episode = taken.episode.0, file = ?taken.name, "taken"),
            Told::Full { waiting } => tracing::warn!(waiting, "the queue is full: files stay in the inbox"),
            Told::NoRoom { waiting } => {
                let (folder, mib) = (self.folder.display(), (2 * RESERVE_BYTES) >> 20);
                tracing::warn!(waiting, %folder, "the disk is full: files stay in the inbox until {mib} MiB are free");
            }
            Told::Room => tracing::info!("the disk has room again: files are taken"),
            Told::Odd(name) => tracing::warn!(?name, "this is no regular file and stays in the inbox"),
            Told::Settled { taken, to } => tracing::info!(episode = taken.episode.0, ?to, "settled"),
            Told::Trouble(error) => tracing::error!(%error, "a file could not be moved"),
        }
    }

    /// Makes of an episode that was cut off when a loop was killed what can be made, and says of it that it is partial.
    fn flag(&self, before: &Taken, now: &Taken) {
        let path = self.folder.join(&before.episode.0);
        let sha256 = || Sample::open(&now.path, terms::MOST_BYTES).map(|sample| sample.identity().sha256).ok();
        let recovered = EpisodeFolder::take(&path).map_err(Failure::from);
        let recovered = recovered.and_then(|folder| Report::recover(&folder, sha256)).map(drop);
        let flagged = recovered.or_else(|failure| {
            // What was told stays as it is: whoever looks may make more of it.
            tracing::error!(episode = before.episode.0, why = %failure, "what was told is not recovered");
            Report::cut_off(&path, sha256()).write().map(drop)
        });
        if let Err(failure) = flagged {
            tracing::error!(episode = before.episode.0, why = %failure, "an episode that was cut off is not flagged");
        }
    }
}

/// Counts decisions as they fall.
struct Counting(Arc<Numbers>);

impl Listener for Counting {
    fn decision(&mut self, decision: &Decision) {
        self.0.decisions.fetch_add(1, Ordering::Relaxed);
        self.0.safe_rule.fetch_add(u64::from(decision.safe_rule.is_some()), Ordering::Relaxed);
    }
}

/// One audit log for several episodes.
struct Shared(Arc<Mutex<Trail>>);

impl Listener for Shared {
    fn transition(&mut self, transition: &Transition) -> Result<(), String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).transition(transition)
    }
}
