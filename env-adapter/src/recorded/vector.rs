//! Many recordings played side by side.

use super::RecordedEnvironment;
use super::environment::draw;
use crate::action::ACTION_COUNT;
use crate::environment::{Environment, Step};
use crate::spec::WIDTH;

/// Environments over the same recordings, stepped together. An episode that ends stays at its final observation until
/// [`RecordedVector::reset_one`] begins another.
#[derive(Debug)]
pub struct RecordedVector {
    environments: Vec<RecordedEnvironment>,
}

impl RecordedVector {
    /// `count` environments like `environment`, in front of the episodes of seed 0.
    pub fn new(environment: RecordedEnvironment, count: usize) -> RecordedVector {
        let siblings = (1..count.max(1)).map(|_| environment.sibling()).collect::<Vec<_>>();
        let mut environments = vec![environment];
        environments.extend(siblings);
        let mut vector = RecordedVector { environments };
        vector.reset(0);
        vector
    }

    /// Number of environments.
    pub fn len(&self) -> usize {
        self.environments.len()
    }

    /// Whether there is none: never.
    pub fn is_empty(&self) -> bool {
        self.environments.is_empty()
    }

    /// The environments.
    pub fn environments(&self) -> &[RecordedEnvironment] {
        &self.environments
    }

    /// Begins an episode in each environment; each draws from its own stream of `seed`.
    pub fn reset(&mut self, seed: u64) {
        for (at, environment) in self.environments.iter_mut().enumerate() {
            environment.reset(draw(seed, at as u64));
        }
    }

    /// Begins an episode in environment `at`.
    ///
    /// # Panics
    /// If there is no such environment.
    pub fn reset_one(&mut self, at: usize, seed: u64) {
        self.environments[at].reset(seed);
    }

    /// Takes an action in each environment and writes what it gave into `steps`.
    ///
    /// # Panics
    /// If the slices do not have one element per environment, on masked actions and after ends.
    pub fn step(&mut self, actions: &[usize], steps: &mut [Step]) {
        assert!(actions.len() == self.len() && steps.len() == self.len(), "one action and one step per environment");
        for ((environment, action), step) in self.environments.iter_mut().zip(actions).zip(steps) {
            *step = environment.step(*action);
        }
    }

    /// Writes the observations into `out`, one row after the other.
    ///
    /// # Panics
    /// If `out` does not have [`WIDTH`] elements per environment.
    pub fn observe(&self, out: &mut [f32]) {
        assert_eq!(out.len(), self.len() * WIDTH, "one row of {WIDTH} elements per environment");
        for (environment, row) in self.environments.iter().zip(out.chunks_exact_mut(WIDTH)) {
            environment.observe(row);
        }
    }

    /// Writes the masks into `out`, one row after the other.
    ///
    /// # Panics
    /// If `out` does not have one element per action and environment.
    pub fn masks(&self, out: &mut [bool]) {
        assert_eq!(out.len(), self.len() * ACTION_COUNT, "one row of {ACTION_COUNT} elements per environment");
        for (environment, row) in self.environments.iter().zip(out.chunks_exact_mut(ACTION_COUNT)) {
            environment.mask(row);
        }
    }
}
