//! The handle: what is served now, swapped while threads decide.
//!
//! A [`Policy`] is shared; each thread decides through a [`Decider`] of its own. One pointer says what is served: a decision
//! reads it once, so it is made by one model from end to end, and a swap replaces it whole. What was replaced waits in
//! a queue until no decision reads it, and is dropped by whoever calls [`Policy::reap`], which every change does at its end:
//! never by a decision.

mod control;
mod decider;
mod error;
mod held;
mod metrics;
mod samples;
mod served;

pub use decider::{Answer, Decider};
pub use error::PolicyError;
pub use held::{Held, HeldAll};
pub use metrics::{Latency, Metrics, Refusal, Tally};
pub use samples::{SampleCounts, Sampling};

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use bellwether_artifact::{ModelVersion, Sha256, WindowLimits};

use crate::engine::{DecideError, Decision, Precision, Scratch};
use crate::model::Contract;
use crate::release::LoadedRelease;
use control::Control;
use metrics::Shard;
use samples::Sample;
use served::{Admitted, Model, Serving, Share, Terms};

/// What is served, and the right to change it. Clones are handles on the same policy.
#[derive(Clone, Debug)]
pub struct Policy {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    read: Read,
    terms: Terms,
    sampling: Sampling,
    /// Never taken by a decision.
    control: Mutex<Control>,
}

/// What decisions read, apart from what others write: a lock taken beside it would take the cache line away.
#[derive(Debug)]
#[repr(align(128))]
struct Read {
    current: ArcSwap<Serving>,
    time_every: u32,
    sample_every: u32,
    /// Whether somebody reads what is set aside. Deciders look when a state is due, and not before.
    listening: AtomicBool,
}

/// Which model: its version, and the number that a registry gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelId {
    /// Derived from its content.
    pub version: ModelVersion,
    /// Its number in the registry that it came from; `None` for a model from elsewhere.
    pub number: Option<u32>,
}

/// Why a model decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It is what is served.
    Champion,
    /// It is on trial in a share of the episodes.
    Canary,
}

/// How a policy decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How decisions are computed.
    pub precision: Precision,
    /// The largest network that deciders have memory for.
    pub limits: Limits,
    /// Each decider times one single decision of so many; 0 for none, and then it reads no clock. Two readings take some 60 ns
    /// (`cargo bench --bench policy`), four times what the rest of the handle adds, and are system calls where the system
    /// offers no clock in user space.
    pub time_every: u32,
    /// Which states are set aside for [`Policy::drain_samples`] while it is [`Policy::listen`]ed to: what a comparison of two
    /// models on live traffic is made from.
    pub sampling: Sampling,
}

/// The largest network that deciders have memory for. Larger ones are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest width of a hidden layer, at least 1.
    pub hidden_width: usize,
}

/// What is served, as an operator wants to see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Status {
    /// Decides by default.
    pub champion: ModelId,
    /// What [`Policy::roll_back`] returns to.
    pub previous: Option<ModelId>,
    /// On trial, with its share of the episodes.
    pub canary: Option<(ModelId, f64)>,
    /// Whether the champion stays until it is unpinned.
    pub pinned: bool,
    /// How often another model became the champion, rollbacks left out.
    pub swaps: u64,
    /// How often the previous model came back.
    pub rollbacks: u64,
    /// Models in memory: those above, and those that a decision still reads or nobody has reaped.
    pub models_resident: usize,
    /// Deciders that exist.
    pub deciders: usize,
}

/// A model that passed every check of a policy and is not served.
#[derive(Debug)]
pub struct Candidate {
    policy: Policy,
    admitted: Admitted,
    id: ModelId,
}

/// A model that a policy holds.
#[derive(Clone, Debug)]
pub struct Kept(Arc<Model>);

impl Candidate {
    /// Which model.
    pub fn id(&self) -> ModelId {
        self.id
    }

    /// What it would do, in memory from [`Policy::scratch`].
    ///
    /// # Errors
    /// As [`Engine::decide`](crate::Engine::decide).
    pub fn decide<'s>(
        &self,
        scratch: &'s mut Scratch,
        state: &[f32],
        mask: &[bool],
    ) -> Result<Decision<'s>, DecideError> {
        self.admitted.engine.decide(scratch, state, mask)
    }

    /// Makes it the champion of its policy in the place of `expected`, as [`Policy::swap`]. Returns what was the champion.
    ///
    /// # Errors
    /// A pinned champion, another champion than expected, or no room.
    pub fn swap_in(self, expected: ModelId) -> Result<ModelId, PolicyError> {
        let policy = self.policy.clone();
        policy.install(self, |control, current, model| {
            control.check_champion(expected)?;
            control.swap(current, model)
        })
    }

    /// Serves it to a `share` of the episodes, as [`Policy::try_out`].
    ///
    /// # Errors
    /// A share out of range, or no room.
    pub fn try_out(self, share: f64) -> Result<ModelId, PolicyError> {
        let (policy, id) = (self.policy.clone(), self.id);
        let share = Share::new(share, id.version)?;
        policy.install(self, |control, current, model| {
            control.try_out(current, model, share);
            Ok(id)
        })
    }
}

impl Kept {
    /// Which model.
    pub fn id(&self) -> ModelId {
        self.0.id
    }

    /// What it would do, in memory from [`Policy::scratch`]. It is not counted.
    ///
    /// # Errors
    /// As [`Engine::decide`](crate::Engine::decide).
    pub fn decide<'s>(
        &self,
        scratch: &'s mut Scratch,
        state: &[f32],
        mask: &[bool],
    ) -> Result<Decision<'s>, DecideError> {
        self.0.engine.decide(scratch, state, mask)
    }
}

impl Default for Options {
    /// Certified decisions, hidden layers of up to 1,024 units, one decision of 16 timed, and one of 64 set aside while
    /// somebody listens.
    fn default() -> Self {
        let limits = Limits { hidden_width: 1_024 };
        Options { precision: Precision::Certified, limits, time_every: 16, sampling: Sampling::default() }
    }
}

impl Policy {
    /// How long a change waits for a decision to let go of a retired model when there is no room for another, before it is
    /// refused.
    pub const PATIENCE: Duration = Duration::from_secs(2);

    /// Serves a first model, which sets the terms for all that follow: features, windows and actions.
    ///
    /// `number` is what the registry calls it.
    ///
    /// # Errors
    /// Limits that no network can have, a network beyond them, or one that does not reproduce its golden vectors.
    pub fn new(release: LoadedRelease, number: Option<u32>, options: Options) -> Result<Self, PolicyError> {
        let Options { precision, limits, time_every, sampling } = options;
        let terms = Terms::new(&release.manifest, &release.engine, limits, precision)?;
        let id = ModelId { version: release.manifest.version, number };
        let (control, current) = Control::new(terms.admit(release)?, id);
        let listening = AtomicBool::new(false);
        let read = Read { current, time_every, sample_every: sampling.every, listening };
        Ok(Policy { shared: Arc::new(Shared { read, terms, sampling, control: Mutex::new(control) }) })
    }

    /// A decider, ready for this thread.
    pub fn decider(&self) -> Decider {
        let shard = self.control().arrive(self.shared.sampling);
        Decider::new(self.clone(), self.shared.terms.scratch.clone(), shard)
    }

    /// Makes the calling thread ready to decide, with any decider of any policy: its first decision would otherwise
    /// allocate once, for an entry in the list where threads say what they read. A thread that ends leaves its entry to another.
    pub fn warm_thread(&self) {
        drop(self.shared.read.current.load());
    }

    /// Makes `release` the champion, after all checks and a warm-up on the calling thread; decisions go on meanwhile. The
    /// champion before is kept for [`Policy::roll_back`]; a trial of the same version ends. Returns what was the champion.
    ///
    /// # Errors
    /// A model of other terms, beyond the limits or with golden vectors that it does not reproduce, or a pinned champion. Then
    /// nothing has changed.
    pub fn swap(&self, release: LoadedRelease, number: Option<u32>) -> Result<ModelId, PolicyError> {
        // Said again under the lock; here it saves the work.
        self.control().check_unpinned()?;
        self.install(self.prepare(release, number)?, |control, current, model| control.swap(current, model))
    }

    /// Does everything that [`Policy::swap`] does up to the swap: checks, preparation, warm-up. What comes out can be compared
    /// with what is served.
    ///
    /// # Errors
    /// A model of other terms, beyond the limits or with golden vectors that it does not reproduce.
    pub fn prepare(&self, release: LoadedRelease, number: Option<u32>) -> Result<Candidate, PolicyError> {
        let id = ModelId { version: release.manifest.version, number };
        Ok(Candidate { policy: self.clone(), admitted: self.shared.terms.admit(release)?, id })
    }

    /// Serves `release` to a `share` of the episodes, above 0 and at most 1, in the place of the canary before.
    ///
    /// Which episodes follows from their numbers and from the model's version: every machine that tries this model tries it on
    /// the same ones, and another model is tried on others.
    ///
    /// # Errors
    /// As [`Policy::swap`], save that a pin does not matter, and a share out of range.
    pub fn try_out(&self, release: LoadedRelease, number: Option<u32>, share: f64) -> Result<(), PolicyError> {
        // Said again below; here it saves the work.
        Self::check_share(share)?;
        self.prepare(release, number)?.try_out(share).map(drop)
    }

    /// Whether [`Policy::try_out`] and [`Policy::set_share`] take this share: above 0 and at most 1.
    ///
    /// # Errors
    /// [`PolicyError::Share`].
    pub fn check_share(share: f64) -> Result<(), PolicyError> {
        Share::check(share)
    }

    /// Gives the canary another share of the episodes. A larger share keeps the episodes of the smaller.
    ///
    /// # Errors
    /// No canary, or a share out of range.
    pub fn set_share(&self, share: f64) -> Result<(), PolicyError> {
        Self::check_share(share)?;
        self.change(|control, current| control.set_share(current, share))
    }

    /// Ends the trial: the champion decides everything again. Returns what was the canary.
    ///
    /// # Errors
    /// No canary.
    pub fn withdraw(&self) -> Result<ModelId, PolicyError> {
        self.change(Control::withdraw)
    }

    /// [`Policy::withdraw`] if the canary is still `expected`, for one who judged that model and no other.
    ///
    /// # Errors
    /// Another canary, or none.
    pub fn withdraw_expected(&self, expected: ModelId) -> Result<ModelId, PolicyError> {
        self.change(|control, current| {
            control.check_canary(expected)?;
            control.withdraw(current)
        })
    }

    /// Makes the canary the champion, as [`Policy::swap`] would. Returns it.
    ///
    /// # Errors
    /// No canary, or a pinned champion.
    pub fn promote(&self) -> Result<ModelId, PolicyError> {
        self.change(Control::promote)
    }

    /// Makes the previous model the champion again, and keeps nothing to return to: what was rolled back does not come back
    /// by a second call. Returns the champion.
    ///
    /// # Errors
    /// No previous model, or a pinned champion.
    pub fn roll_back(&self) -> Result<ModelId, PolicyError> {
        self.change(Control::roll_back)
    }

    /// [`Policy::roll_back`] if the champion is still `expected`, for one who judged that model and no other.
    ///
    /// # Errors
    /// As that one, and another champion.
    pub fn roll_back_from(&self, expected: ModelId) -> Result<ModelId, PolicyError> {
        self.change(|control, current| {
            control.check_champion(expected)?;
            control.roll_back(current)
        })
    }

    /// Whether this version was rolled back here and not brought again since by [`Policy::swap`] or [`Policy::promote`]. The last
    /// 64 are remembered.
    pub fn was_rolled_back(&self, version: ModelVersion) -> bool {
        self.control().was_rolled_back(version)
    }

    /// The versions of which [`Policy::was_rolled_back`] says so, oldest first.
    pub fn rolled_back(&self) -> Vec<ModelVersion> {
        self.control().rolled_back()
    }

    /// Takes versions for rolled back, oldest first: what the program before this one knew. The champion is left out.
    pub fn remember_rolled_back(&self, versions: &[ModelVersion]) {
        let mut control = self.control();
        let champion = control.status().champion.version;
        versions
            .iter()
            .filter(|version| **version != champion)
            .for_each(|version| control.remember_rolled_back(*version));
    }

    /// Forgets which versions were rolled back, so that a watcher may bring them again.
    pub fn forgive(&self) {
        self.control().forgive_all();
    }

    /// Starts or ends setting aside the states that [`Options::sampling`] chooses, in deciders that exist and in new ones.
    pub fn listen(&self, listening: bool) {
        self.shared.read.listening.store(listening, Ordering::Relaxed);
    }

    /// Takes what deciders have set aside: state and mask of decisions that were made, whichever model made them. What a decider
    /// holds when it ends is lost. Decisions go on meanwhile.
    pub fn drain_samples(&self, mut each: impl FnMut(&[f32], &[bool])) {
        let shards = self.control().shards();
        let mut sample = Sample::default();
        for ring in shards.iter().filter_map(|shard| shard.ring()) {
            ring.drain(&mut sample, &mut each);
        }
    }

    /// The champion and the model that a rollback returns to, to be asked beside the decisions. They stay in memory until they
    /// are dropped and the policy is [reaped](Policy::reap).
    pub fn kept(&self) -> (Kept, Option<Kept>) {
        let (champion, previous) = self.control().pair();
        (Kept(champion), previous.map(Kept))
    }

    /// Working memory for the models of this policy and its candidates.
    pub fn scratch(&self) -> Scratch {
        self.shared.terms.scratch.clone()
    }

    /// Keeps the champion until [`Policy::unpin`]: swaps, promotions and rollbacks are refused.
    pub fn pin(&self) {
        self.control().pin(true);
    }

    /// Lets the champion be replaced again.
    pub fn unpin(&self) {
        self.control().pin(false);
    }

    /// Drops, on the calling thread, the retired models that no decision reads. Returns how many; [`Status::models_resident`]
    /// says how many are left. Every change does this at its end, so it is for those who want memory back at once.
    pub fn reap(&self) -> usize {
        let dead = self.control().reap();
        // The lock is free by now: giving memory back can take long.
        dead.len()
    }

    /// What is served.
    pub fn status(&self) -> Status {
        self.control().status()
    }

    /// What all deciders have counted, those that are gone too. Decisions go on meanwhile, and one that is under way may be
    /// in one count and not yet in another.
    pub fn metrics(&self) -> Metrics {
        self.control().metrics()
    }

    /// What [`load_release`](crate::load_release) has to insist on, so that a model can be served here.
    pub fn contract(&self) -> Contract {
        let Terms { features, actions, .. } = &self.shared.terms;
        Contract {
            width: self.width(),
            feature_spec: features.spec_sha256,
            action_set: actions.set_version,
            actions: actions.names.clone(),
        }
    }

    /// Width of a state.
    pub fn width(&self) -> usize {
        self.shared.terms.features.width as usize
    }

    /// The feature specification of the states that every model reads that may be served here.
    pub fn feature_spec(&self) -> Sha256 {
        self.shared.terms.features.spec_sha256
    }

    /// How events are cut into windows for every model that may be served here.
    pub fn window(&self) -> WindowLimits {
        self.shared.terms.features.window
    }

    /// Names of the actions, by number.
    pub fn actions(&self) -> &[String] {
        &self.shared.terms.actions.names
    }

    fn install<T>(
        &self,
        Candidate { admitted, id, .. }: Candidate,
        put: impl FnOnce(&mut Control, &ArcSwap<Serving>, Model) -> Result<T, PolicyError>,
    ) -> Result<T, PolicyError> {
        let (mut control, slot) = self.room()?;
        let done = put(&mut control, &self.shared.read.current, admitted.into_model(id, slot))?;
        drop(control);
        self.reap();
        Ok(done)
    }

    /// The lock, and a slot for one more model; waits for it where a decision that was interrupted still reads a retired one.
    fn room(&self) -> Result<(MutexGuard<'_, Control>, usize), PolicyError> {
        const NAP: Duration = Duration::from_micros(200);
        let mut waited = Duration::ZERO;
        loop {
            self.reap();
            let control = self.control();
            if let Some(slot) = control.free_slot() {
                return Ok((control, slot));
            }
            if waited >= Self::PATIENCE {
                return Err(PolicyError::Crowded { resident: control.status().models_resident });
            }
            drop(control);
            thread::sleep(NAP);
            waited += NAP;
        }
    }

    fn change<T>(
        &self,
        make: impl FnOnce(&mut Control, &ArcSwap<Serving>) -> Result<T, PolicyError>,
    ) -> Result<T, PolicyError> {
        let done = make(&mut self.control(), &self.shared.read.current)?;
        self.reap();
        Ok(done)
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        // Nothing panics between two writes that belong together.
        self.shared.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serving(&self) -> &ArcSwap<Serving> {
        &self.shared.read.current
    }

    fn time_every(&self) -> u32 {
        self.shared.read.time_every
    }

    fn sample_every(&self) -> u32 {
        self.shared.read.sample_every
    }

    fn listening(&self) -> &AtomicBool {
        &self.shared.read.listening
    }

    fn depart(&self, shard: &Arc<Shard>) {
        self.control().depart(shard);
    }
}
