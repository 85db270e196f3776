//! Decisions on one thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::held::{Held, HeldAll};
use super::metrics::Shard;
use super::served::Model;
use super::{ModelId, Policy, Role};
use crate::engine::{DecideError, Decision, Scratch};

/// Decides by whatever its policy serves: memory and counters for one thread at a time.
///
/// A decision takes no lock and allocates nothing, and sees a swap that ended before it began. Between decisions a decider
/// holds no model. It is made ready for the thread that makes it; see [`Policy::warm_thread`] for others.
///
/// It has cache lines of its own, so that deciders in one vector do not slow each other down.
#[derive(Debug)]
#[repr(align(128))]
pub struct Decider {
    policy: Policy,
    scratch: Scratch,
    notes: Notes,
}

/// What a decider writes down about its decisions.
#[derive(Debug)]
pub(super) struct Notes {
    shard: Arc<Shard>,
    /// Decisions that are timed.
    timing: Every,
    /// Decisions whose states are set aside, if somebody listens.
    sampling: Every,
}

/// One of so many.
#[derive(Debug)]
struct Every {
    /// 0 for none.
    every: u32,
    /// Until the next one.
    until: u32,
}

/// A decision, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer<'a> {
    /// What the model decides.
    pub decision: Decision<'a>,
    /// The model.
    pub model: ModelId,
    /// Why this model.
    pub role: Role,
}

impl Decider {
    pub(super) fn new(policy: Policy, scratch: Scratch, shard: Arc<Shard>) -> Self {
        let one_of = |every| Every { every, until: every };
        let (timing, sampling) = (one_of(policy.time_every()), one_of(policy.sample_every()));
        policy.warm_thread();
        Decider { policy, scratch, notes: Notes { shard, timing, sampling } }
    }

    /// The champion's action for `state` among those that `mask` allows, as [`Engine::decide`](crate::Engine::decide).
    ///
    /// # Errors
    /// As that one. Refusals are counted.
    pub fn decide(&mut self, state: &[f32], mask: &[bool]) -> Result<Answer<'_>, DecideError> {
        self.single(None, state, mask)
    }

    /// [`Decider::decide`] within an episode: by the canary, where one is served and the episode is in its share, otherwise
    /// by the champion. `episode` is any number that is the episode's own; it is hashed here.
    ///
    /// The choice is a function of the number, the share and the canary alone, so an episode keeps its model while both are
    /// served. Another canary gets other episodes.
    ///
    /// # Errors
    /// As [`Decider::decide`].
    pub fn decide_in(&mut self, episode: u64, state: &[f32], mask: &[bool]) -> Result<Answer<'_>, DecideError> {
        self.single(Some(episode), state, mask)
    }

    /// Decides row after row, all by the same champion, as [`Engine::decide_batch`](crate::Engine::decide_batch). Until it
    /// ends that model stays in memory.
    ///
    /// # Errors
    /// [`DecideError::BatchShape`], and then `each` is not called.
    pub fn decide_batch(
        &mut self,
        states: &[f32],
        masks: &[bool],
        each: impl FnMut(usize, Result<Answer<'_>, DecideError>),
    ) -> Result<(), DecideError> {
        self.rows(None, states, masks, each)
    }

    /// [`Decider::decide_batch`] of rows that belong to episodes, one number for each row, as [`Decider::decide_in`]: the
    /// champion and the canary are the same for all rows, so that rows of one episode have one model.
    ///
    /// # Errors
    /// [`DecideError::BatchShape`], also where there are more or fewer numbers than rows, and then `each` is not called.
    pub fn decide_batch_in(
        &mut self,
        episodes: &[u64],
        states: &[f32],
        masks: &[bool],
        each: impl FnMut(usize, Result<Answer<'_>, DecideError>),
    ) -> Result<(), DecideError> {
        self.rows(Some(episodes), states, masks, each)
    }

    /// Holds the model that decides for `episode`, or the champion without one, while `work` runs: whatever `work` asks is
    /// answered by that model, and until it ends the model stays in memory.
    pub fn hold<R>(&mut self, episode: Option<u64>, work: impl FnOnce(&mut Held<'_>) -> R) -> R {
        self.hold_all(|all| work(&mut all.choose(episode)))
    }

    /// Holds the champion and the canary as they are now while `work` runs, so that whatever it asks is answered by these two:
    /// no swap comes between two questions of it. Until it ends they stay in memory.
    pub fn hold_all<R>(&mut self, work: impl FnOnce(&mut HeldAll<'_>) -> R) -> R {
        let Decider { policy, scratch, notes } = self;
        let serving = policy.serving().load();
        work(&mut HeldAll::new(&serving, scratch, notes, policy.listening()))
    }

    fn single(&mut self, episode: Option<u64>, state: &[f32], mask: &[bool]) -> Result<Answer<'_>, DecideError> {
        let Decider { policy, scratch, notes } = self;
        let start = notes.start();
        // The guard ends with this function; until then the reaper leaves the model alone.
        let serving = policy.serving().load();
        notes.decide(serving.choose(episode), scratch, policy.listening(), start, state, mask)
    }

    fn rows(
        &mut self,
        episodes: Option<&[u64]>,
        states: &[f32],
        masks: &[bool],
        mut each: impl FnMut(usize, Result<Answer<'_>, DecideError>),
    ) -> Result<(), DecideError> {
        let Decider { policy, scratch, notes } = self;
        let serving = policy.serving().load();
        let (champion, _) = serving.choose(None);
        let (width, actions) = (champion.engine.width(), champion.engine.actions());
        let rows = states.len() / width;
        let fits = states.len() == rows * width && masks.len() == rows * actions;
        if !fits || episodes.is_some_and(|episodes| episodes.len() != rows) {
            let error = DecideError::BatchShape { states: states.len(), masks: masks.len(), width, actions };
            notes.shard.refused(champion.slot, &error);
            return Err(error);
        }
        for (row, (state, mask)) in states.chunks_exact(width).zip(masks.chunks_exact(actions)).enumerate() {
            let chosen = serving.choose(episodes.map(|episodes| episodes[row]));
            // Batches are not timed.
            each(row, notes.decide(chosen, scratch, policy.listening(), None, state, mask));
        }
        Ok(())
    }
}

impl Notes {
    /// The time, where the next decision is one of those that are timed.
    pub(super) fn start(&mut self) -> Option<Instant> {
        self.timing.is_due().then(Instant::now)
    }

    /// One decision by one model: counted, timed where it has a start, and set aside where that is due.
    #[inline]
    pub(super) fn decide<'s>(
        &mut self,
        (model, role): (&Model, Role),
        scratch: &'s mut Scratch,
        listening: &AtomicBool,
        start: Option<Instant>,
        state: &[f32],
        mask: &[bool],
    ) -> Result<Answer<'s>, DecideError> {
        let result = model.engine.decide(scratch, state, mask);
        // Counted before the caller lets go of the model, so that a slot has its last count when it is given to another.
        count(&self.shard, model, &result);
        let decision = result?;
        if let Some(start) = start {
            self.shard.timed(model.slot, start.elapsed());
        }
        if self.sampling.is_due() && listening.load(Ordering::Relaxed) {
            self.shard.sample(state, mask);
        }
        Ok(Answer { decision, model: model.id, role })
    }
}

impl Every {
    fn is_due(&mut self) -> bool {
        match self.until {
            0 => false,
            1 => {
                self.until = self.every;
                true
            }
            _ => {
                self.until -= 1;
                false
            }
        }
    }
}

impl Drop for Decider {
    fn drop(&mut self) {
        self.policy.depart(&self.notes.shard);
    }
}

fn count(shard: &Shard, model: &Model, result: &Result<Decision<'_>, DecideError>) {
    match result {
        Ok(decision) => shard.decided(model.slot, decision.action, decision.certified),
        Err(error) => shard.refused(model.slot, error),
    }
}
