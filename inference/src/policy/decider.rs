//! Decisions on one thread.

use std::sync::Arc;
use std::time::Instant;

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
    /// Decisions until one is timed.
    until_timed: u32,
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
        let until_timed = policy.time_every();
        policy.warm_thread();
        Decider { policy, scratch, shard, until_timed }
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

    fn single(&mut self, episode: Option<u64>, state: &[f32], mask: &[bool]) -> Result<Answer<'_>, DecideError> {
        let start = self.is_timed().then(Instant::now);
        // The guard ends with this function; until then the reaper leaves the model alone.
        let serving = self.policy.serving().load();
        let (model, role) = serving.choose(episode);
        let result = model.engine.decide(&mut self.scratch, state, mask);
        // Counted before the guard ends, so that a slot has its last count when it is given to another model.
        count(&self.shard, model, &result);
        let decision = result?;
        if let Some(start) = start {
            self.shard.timed(start.elapsed());
        }
        Ok(Answer { decision, model: model.id, role })
    }

    /// Whether this decision is one of those that are timed.
    fn is_timed(&mut self) -> bool {
        match self.until_timed {
            0 => false,
            1 => {
                self.until_timed = self.policy.time_every();
                true
            }
            _ => {
                self.until_timed -= 1;
                false
            }
        }
    }
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
