//! Two models side by side on states that are being decided: before a swap, and after it.

use std::time::{Duration, Instant};

use super::Reason;
use super::reading::Mark;
use super::reason::Problem;
use crate::engine::{DecideError, Decision, Scratch};
use crate::policy::{Candidate, Kept, Latency, ModelId, Policy, PolicyError};

/// How a model is compared with the champion before it decides anything.
///
/// The states are those that deciders set aside: see [`Sampling`](crate::policy::Sampling).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShadowOptions {
    /// The comparison ends after so many states.
    pub states: u64,
    /// It ends after so long in any case.
    pub time: Duration,
    /// The least share of the states, in [0, 1], in which both must choose the same action.
    pub min_agreement: f64,
    /// Whether a model is refused that could not be compared on enough states in time. Otherwise it is judged on those that
    /// there were, and where there were none it is swapped in.
    pub demand_states: bool,
}

/// How a champion is watched after a swap.
///
/// It is taken back when it computes what is no number, once in a decision or once in a comparison, and for the reasons below.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowOptions {
    /// How long.
    pub time: Duration,
    /// The largest share of the states, in [0, 1], in which it may choose another action than the model before it.
    pub max_disagreement: f64,
    /// States before that share means anything.
    pub min_states: u64,
    /// The longest time that the 99th percentile of its timed decisions may take; `None` for any. It is found out within a factor
    /// of two, in favour of the model. A crowded machine is slow too, so there is no limit by default.
    pub latency_p99: Option<Duration>,
    /// Timed decisions before that percentile means anything.
    pub min_timed: u64,
}

/// A comparison under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrialStatus {
    /// The newer model.
    pub model: ModelId,
    /// What it is compared with.
    pub against: ModelId,
    /// States so far.
    pub states: u64,
    /// In how many of them the two chose different actions.
    pub disagreements: u64,
    /// How long it has lasted.
    pub elapsed: Duration,
    /// How long it may last.
    pub time: Duration,
}

/// What was found on the states so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    pub states: u64,
    pub disagreements: u64,
    /// States for which the newer model has no number.
    pub failures: u64,
}

/// Before a swap.
#[derive(Debug)]
pub(super) struct Shadow {
    pub options: ShadowOptions,
    pub candidate: Candidate,
    pub against: Kept,
    pub mark: Mark,
    pub since: Instant,
    pub found: Found,
}

/// After a swap.
#[derive(Debug)]
pub(super) struct Window {
    pub options: WindowOptions,
    pub model: Kept,
    pub previous: Kept,
    pub mark: Mark,
    pub since: Instant,
    pub found: Found,
    /// What was counted for the model before the swap.
    pub before: Counted,
}

/// What deciders counted for a model.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    overflows: u64,
    latency: Latency,
}

/// What follows from a comparison.
#[derive(Debug)]
pub(super) enum Judgement {
    /// It goes on.
    Open,
    /// Nothing speaks against the model.
    Passed,
    /// Something does.
    Failed(Problem),
}

impl Default for ShadowOptions {
    /// At most 1,024 states or a minute, in nine of ten the same action; no state at all is no reason to refuse.
    fn default() -> Self {
        ShadowOptions { states: 1_024, time: Duration::from_secs(60), min_agreement: 0.9, demand_states: false }
    }
}

impl Default for WindowOptions {
    /// A minute, in half of at least 256 states the same action, any latency.
    fn default() -> Self {
        let (time, max_disagreement) = (Duration::from_secs(60), 0.5);
        WindowOptions { time, max_disagreement, min_states: 256, latency_p99: None, min_timed: 1_000 }
    }
}

impl Found {
    /// Asks both models about every state that was set aside.
    fn drain(
        &mut self,
        policy: &Policy,
        scratch: &mut Scratch,
        newer: impl for<'s> Fn(&'s mut Scratch, &[f32], &[bool]) -> Result<Decision<'s>, DecideError>,
        older: &Kept,
    ) {
        policy.drain_samples(|state, mask| {
            let before = older.decide(scratch, state, mask).map(|decision| decision.action);
            let after = newer(scratch, state, mask).map(|decision| decision.action);
            self.states += 1;
            match (before, after) {
                (_, Err(_)) => self.failures += 1,
                (Ok(before), Ok(after)) => self.disagreements += u64::from(before != after),
                // Where the older model has no number, the newer one cannot be held against it.
                (Err(_), Ok(_)) => {}
            }
        });
    }

    fn share(self) -> f64 {
        // No state, no disagreement.
        self.disagreements as f64 / self.states.max(1) as f64
    }

    fn failure(self) -> Option<Problem> {
        let Found { states, failures, .. } = self;
        (failures > 0).then(|| {
            Problem::new(
                Reason::NonFinite,
                format!("it has no finite q-values in {failures} of {states} states: train it again"),
            )
        })
    }
}

impl Counted {
    pub(super) fn of(policy: &Policy, model: ModelId) -> Counted {
        let found = policy.metrics().models.into_iter().find(|(id, _)| *id == model);
        found.map(|(_, tally)| Counted { overflows: tally.overflows, latency: tally.latency }).unwrap_or_default()
    }

    /// What is wrong where decisions overflowed since.
    pub(super) fn failure_since(&self, before: &Counted) -> Option<Problem> {
        let overflows = self.overflows.saturating_sub(before.overflows);
        (overflows > 0).then(|| {
            let text = format!("it had no finite q-values in {overflows} decisions: train it again");
            Problem::new(Reason::NonFinite, text)
        })
    }
}

impl Shadow {
    pub(super) fn judge(&mut self, policy: &Policy, scratch: &mut Scratch, now: Instant) -> Judgement {
        let Shadow { options, candidate, against, found, since, .. } = self;
        found.drain(policy, scratch, |scratch, state, mask| candidate.decide(scratch, state, mask), against);
        if let Some(problem) = found.failure() {
            return Judgement::Failed(problem);
        }
        let enough = found.states >= options.states;
        if !enough && now.saturating_duration_since(*since) < options.time {
            return Judgement::Open;
        }
        let Found { states, disagreements, .. } = *found;
        if !enough && options.demand_states {
            let text = format!(
                "only {states} of {} states came in {:?}: let it decide more, or wait longer",
                options.states, options.time
            );
            return Judgement::Failed(Problem::new(Reason::TooFewStates, text));
        }
        if 1.0 - found.share() < options.min_agreement {
            let text = format!(
                "it chooses another action than the champion in {disagreements} of {states} states, at most {:.4} of them may differ",
                1.0 - options.min_agreement
            );
            return Judgement::Failed(Problem::new(Reason::Disagreement, text));
        }
        Judgement::Passed
    }

    pub(super) fn status(&self, now: Instant) -> TrialStatus {
        TrialStatus {
            model: self.candidate.id(),
            against: self.against.id(),
            states: self.found.states,
            disagreements: self.found.disagreements,
            elapsed: now.saturating_duration_since(self.since),
            time: self.options.time,
        }
    }
}

impl Window {
    pub(super) fn judge(&mut self, policy: &Policy, scratch: &mut Scratch, now: Instant) -> Judgement {
        let Window { options, model, previous, found, since, before, .. } = self;
        found.drain(policy, scratch, |scratch, state, mask| model.decide(scratch, state, mask), previous);
        if let Some(problem) = found.failure() {
            return Judgement::Failed(problem);
        }
        let counted = Counted::of(policy, model.id());
        if let Some(problem) = counted.failure_since(before) {
            return Judgement::Failed(problem);
        }
        let Found { states, disagreements, .. } = *found;
        if states >= options.min_states && found.share() > options.max_disagreement {
            let text = format!(
                "it chooses another action than the model before it in {disagreements} of {states} states, at most {} of them may differ",
                options.max_disagreement
            );
            return Judgement::Failed(Problem::new(Reason::Disagreement, text));
        }
        let latency = counted.latency.since(&before.latency);
        let slowest = latency.at_least(0.99);
        if options.latency_p99.is_some_and(|limit| latency.timed() >= options.min_timed && slowest >= limit) {
            let text = format!("the 99th percentile of {} timed decisions is above {slowest:?}", latency.timed());
            return Judgement::Failed(Problem::new(Reason::Latency, text));
        }
        if now.saturating_duration_since(*since) < options.time { Judgement::Open } else { Judgement::Passed }
    }

    pub(super) fn status(&self, now: Instant) -> TrialStatus {
        TrialStatus {
            model: self.model.id(),
            against: self.previous.id(),
            states: self.found.states,
            disagreements: self.found.disagreements,
            elapsed: now.saturating_duration_since(self.since),
            time: self.options.time,
        }
    }
}

/// Whether a change failed only because of what an operator did meanwhile.
pub(super) fn is_operators(error: &PolicyError) -> bool {
    matches!(error, PolicyError::Pinned | PolicyError::Changed { .. } | PolicyError::NoPrevious)
}
