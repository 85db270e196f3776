//! Keeping the best network of a run.
//!
//! The last network of a run need not be its best: with large steps and frequent copies of the target, the greedy policy
//! swings between rounds of updates. Evaluating now and then and keeping the best is what the published recipes report.

use super::update::{POSITIVE, require};
use super::{DqnError, DqnEvent, DqnObserver, DqnReport, DqnTrainer, evaluate_greedy};
use crate::learner::LearnerState;
use bellwether_env_adapter::Environment;
use std::ops::ControlFlow;

/// When and how networks are compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// Environment steps between two evaluations, at least 1; each takes place after the next round of updates.
    pub interval: u64,
    /// Greedy episodes per evaluation, at least 1; each evaluation plays the same ones.
    pub episodes: usize,
    /// Longest episode, in steps.
    pub max_steps: u64,
    /// Seed of the episodes. What is reported of the network that they chose must come from other episodes.
    pub seed: u64,
}

/// A run with its best network.
#[derive(Clone, Debug)]
pub struct Selected {
    /// What the run came to.
    pub report: DqnReport,
    /// Environment steps and mean return of each evaluation.
    pub curve: Vec<(u64, f64)>,
    /// The learner at the first of the best evaluations; `None` if the run was stopped before any.
    pub best: Option<LearnerState>,
}

impl<E: Environment> DqnTrainer<E> {
    /// Runs as [`run`](Self::run) does, and evaluates the network on the way and at the end. The evaluations change nothing
    /// about the run. A call that goes on with a run compares anew.
    ///
    /// # Errors
    /// As [`run`](Self::run) and [`evaluate_greedy`], and [`DqnError::Config`] for a selection without an interval or episodes.
    pub fn run_selecting(
        &mut self,
        env: &mut dyn Environment,
        selection: &Selection,
        observer: &mut impl DqnObserver,
    ) -> Result<Selected, DqnError> {
        let Selection { interval, episodes, max_steps, seed } = *selection;
        for (key, value) in [("selection.interval", interval), ("selection.episodes", episodes as u64)] {
            require(key, value, value > 0, POSITIVE)?;
        }
        let mut curve: Vec<(u64, f64)> = Vec::new();
        let mut best = None;
        let mut highest = f64::NEG_INFINITY;
        loop {
            let (mut stopped, mut is_due) = (false, false);
            let report = self.run(&mut |event: &DqnEvent| {
                stopped = observer.observe(event).is_break();
                is_due = matches!(event, DqnEvent::Updates { environment_steps, .. }
                    if environment_steps / interval > curve.last().map_or(0, |(at, _)| at / interval));
                if stopped || is_due { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if is_due || report.finished {
                let mean = evaluate_greedy(self.learner(), env, episodes, max_steps, seed)?.mean_return();
                curve.push((report.environment_steps, mean));
                if mean > highest {
                    highest = mean;
                    best = Some(self.learner().state());
                }
            }
            if stopped || report.finished {
                return Ok(Selected { report, curve, best });
            }
        }
    }
}
