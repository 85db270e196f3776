//! Settings that change as a run goes on.

use crate::learner::TargetSync;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A value that moves in a straight line from `initial` to `final_value` over the first `steps` steps, and then stays.
///
/// Steps are counted, never a share of a run's length, so that a run which is extended keeps its past.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linear {
    /// Value at step 0.
    pub initial: f64,
    /// Value from step `steps` on.
    pub final_value: f64,
    /// Steps between the two.
    pub steps: u64,
}

impl Linear {
    /// The value at a step.
    pub fn at(&self, step: u64) -> f64 {
        if step >= self.steps {
            return self.final_value;
        }
        self.initial + (self.final_value - self.initial) * (step as f64 / self.steps as f64)
    }
}

/// How a step size moves, in updates: it rises in a straight line over the first `warm_up` of them, and falls over the
/// `decay_steps` after those to `final_share` of itself, where it stays.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StepSizeSchedule {
    /// Updates over which it rises from next to nothing; 0 for none.
    pub warm_up: u64,
    /// The form in which it falls.
    pub decay: Decay,
    /// Updates over which it falls.
    pub decay_steps: u64,
    /// What is left of it at the end, 0 to 1.
    pub final_share: f64,
}

/// The form in which a value falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// It does not.
    #[default]
    Constant,
    /// In a straight line.
    Linear,
    /// Along half a period of a cosine (Loshchilov and Hutter 2017, equation 5).
    Cosine,
}

impl Default for StepSizeSchedule {
    /// It stays as it is.
    fn default() -> Self {
        StepSizeSchedule { warm_up: 0, decay: Decay::Constant, decay_steps: 0, final_share: 0.0 }
    }
}

impl StepSizeSchedule {
    /// What the step size is multiplied with in update `update`, counted from 0.
    pub fn at(&self, update: u64) -> f64 {
        if update < self.warm_up {
            return (update + 1) as f64 / (self.warm_up + 1) as f64;
        }
        let done = ((update - self.warm_up) as f64 / self.decay_steps.max(1) as f64).min(1.0);
        let left = match self.decay {
            Decay::Constant => return 1.0,
            Decay::Linear => 1.0 - done,
            Decay::Cosine => 0.5 * (1.0 + libm::cos(std::f64::consts::PI * done)),
        };
        self.final_share + (1.0 - self.final_share) * left
    }

    /// Refuses what contradicts itself: the key, the value and what would do.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String, &'static str)> {
        if !(0.0..=1.0).contains(&self.final_share) {
            return Err(("final_share", self.final_share.to_string(), "choose a value from 0 to 1"));
        }
        let falls = self.decay != Decay::Constant;
        if falls != (self.decay_steps > 0) {
            let reason =
                "give the updates over which it falls, above 0, with a `decay` of `linear` or `cosine`, and 0 without";
            return Err(("decay_steps", self.decay_steps.to_string(), reason));
        }
        Ok(())
    }
}

/// When the target network follows, and how far.
///
/// The unit of the interval is the caller's and stands in its configuration: environment steps online, gradient steps on
/// recordings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TargetSchedule {
    /// Steps between two synchronisations, at least 1.
    pub interval: u64,
    /// How far the target moves towards the online network; 1 is a copy.
    pub tau: f32,
}

impl TargetSchedule {
    /// What happens after the `done`th step (the first is 1): a synchronisation at each multiple of the interval.
    pub fn after(&self, done: u64) -> TargetSync {
        if done == 0 || !done.is_multiple_of(self.interval) {
            TargetSync::Keep
        } else if self.tau >= 1.0 {
            TargetSync::Hard
        } else {
            TargetSync::Soft(self.tau)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_starts_and_ends_where_it_says() {
        let line = Linear { initial: 1.0, final_value: 0.05, steps: 10_000 };
        for (step, value) in [(0, 1.0), (5000, 0.525), (10_000, 0.05), (u64::MAX, 0.05)] {
            assert!((line.at(step) - value).abs() < 1e-12, "{step}");
        }
        assert_eq!(Linear { initial: 1.0, final_value: 0.1, steps: 0 }.at(0), 0.1);
    }

    #[test]
    fn a_step_size_rises_falls_and_stays() {
        let schedule = |decay| StepSizeSchedule { warm_up: 3, decay, decay_steps: 100, final_share: 0.1 };
        for (decay, half) in [(Decay::Linear, 0.55), (Decay::Cosine, 0.55)] {
            let schedule = schedule(decay);
            for (update, value) in [(0, 0.25), (2, 0.75), (3, 1.0), (53, half), (103, 0.1), (u64::MAX, 0.1)] {
                assert!((schedule.at(update) - value).abs() < 1e-12, "{decay:?} {update}: {}", schedule.at(update));
            }
        }
        // A quarter of the way a cosine has lost less than a line.
        assert!((schedule(Decay::Cosine).at(28) - (0.1 + 0.9 * 0.853_553_390_593)).abs() < 1e-9);
        assert!((0..1000).all(|update| StepSizeSchedule::default().at(update) == 1.0));
    }

    #[test]
    fn a_fall_without_a_length_is_refused() {
        let falls = StepSizeSchedule { decay: Decay::Cosine, ..StepSizeSchedule::default() };
        assert_eq!(falls.check().unwrap_err().0, "decay_steps");
        let stays = StepSizeSchedule { decay_steps: 5, ..StepSizeSchedule::default() };
        assert_eq!(stays.check().unwrap_err().0, "decay_steps");
        let share = StepSizeSchedule { final_share: f64::NAN, ..StepSizeSchedule::default() };
        assert_eq!(share.check().unwrap_err().0, "final_share");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_line_falls_and_stays_within_its_ends(steps in 1..1_000_000u64, a in 0..2_000_000u64, b in 0..2_000_000u64) {
            let line = Linear { initial: 1.0, final_value: 0.04, steps };
            let (early, late) = (line.at(a.min(b)), line.at(a.max(b)));
            prop_assert!(early >= late && (0.04..=1.0).contains(&early) && (0.04..=1.0).contains(&late));
        }

        #[test]
        fn the_target_follows_exactly_at_the_interval(interval in 1..50u64, total in 0..500u64, soft in any::<bool>()) {
            let schedule = TargetSchedule { interval, tau: if soft { 0.25 } else { 1.0 } };
            let synced: Vec<u64> = (0..=total).filter(|done| schedule.after(*done) != TargetSync::Keep).collect();
            let expected: Vec<u64> = (1..=total / interval).map(|k| k * interval).collect();
            prop_assert_eq!(synced, expected);
            let sync = if soft { TargetSync::Soft(0.25) } else { TargetSync::Hard };
            prop_assert_eq!(schedule.after(interval), sync);
        }
    }
}
