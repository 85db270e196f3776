//! Settings that change as a run goes on.

use crate::learner::TargetSync;

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
