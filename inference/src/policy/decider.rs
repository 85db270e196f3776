//! Decisions on one thread.

use std::sync::Arc;
use std::time::Instant;

use super::held::Held;
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
    shard: Arc<Shard>,
    timing: Timing,
}

/// Which decisions are timed.
#[derive(Debug)]
pub(super) struct Timing {
    /// One of so many; 0 for none.
    every: u32,
    /// Decisions until one is timed.
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
        let every = policy.time_every();
        policy.warm_thread();
        Decider { policy, scratch, shard, timing: Timing { every, until: every } }
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
    /// The choice is a function of the number and the share alone, so an episode keeps its model while both are served.
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
        mut each: impl FnMut(usize, Result<Answer<'_>, DecideError>),
    ) -> Result<(), DecideError> {
        let serving = self.policy.serving().load();
        let (model, role) = serving.choose(None);
        let shard = &self.shard;
        let result = model.engine.decide_batch(&mut self.scratch, states, masks, |row, result| {
            count(shard, model, &result);
            each(row, result.map(|decision| Answer { decision, model: model.id, role }));
        });
        result.inspect_err(|error| shard.refused(model.slot, error))
    }

    /// Holds the model that decides for `episode`, or the champion without one, while `work` runs: whatever `work` asks is
    /// answered by that model, and until it ends the model stays in memory.
    pub fn hold<R>(&mut self, episode: Option<u64>, work: impl FnOnce(&mut Held<'_>) -> R) -> R {
        let serving = self.policy.serving().load();
        let (model, role) = serving.choose(episode);
        work(&mut Held::new(model, role, &mut self.scratch, &self.shard, &mut self.timing))
    }

    fn single(&mut self, episode: Option<u64>, state: &[f32], mask: &[bool]) -> Result<Answer<'_>, DecideError> {
        let start = self.timing.start();
        // The guard ends with this function; until then the reaper leaves the model alone.
        let serving = self.policy.serving().load();
        let (model, role) = serving.choose(episode);
        single(model, role, &mut self.scratch, &self.shard, start, state, mask)
    }
}

impl Timing {
    /// The time, where this decision is one of those that are timed.
    pub(super) fn start(&mut self) -> Option<Instant> {
        match self.until {
            0 => None,
            1 => {
                self.until = self.every;
                Some(Instant::now())
            }
            _ => {
                self.until -= 1;
                None
            }
        }
    }
}

/// One decision by one model, counted, and timed where it has a start.
#[inline]
pub(super) fn single<'s>(
    model: &Model,
    role: Role,
    scratch: &'s mut Scratch,
    shard: &Shard,
    start: Option<Instant>,
    state: &[f32],
    mask: &[bool],
) -> Result<Answer<'s>, DecideError> {
    let result = model.engine.decide(scratch, state, mask);
    // Counted before the caller lets go of the model, so that a slot has its last count when it is given to another.
    count(shard, model, &result);
    let decision = result?;
    if let Some(start) = start {
        shard.timed(start.elapsed());
    }
    Ok(Answer { decision, model: model.id, role })
}

impl Drop for Decider {
    fn drop(&mut self) {
        self.policy.depart(&self.shard);
    }
}

fn count(shard: &Shard, model: &Model, result: &Result<Decision<'_>, DecideError>) {
    match result {
        Ok(decision) => shard.decided(model.slot, decision.action, decision.certified),
        Err(error) => shard.refused(model.slot, error),
    }
}
