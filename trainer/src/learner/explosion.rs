//! Noticing q-values that run away while they are still finite.

use super::{LearnerError, UpdateReport};

/// Returns that no recipe has: those of 10,000 rewards of the largest size.
const REWARDS: f64 = 1e4;
/// What fresh networks put out, whatever the rewards so far, if the scale of the states is not that of the rewards.
const FRESH: f64 = 1e3;

/// Refuses to go on where q-values are beyond any return of rewards of at most `largest_reward` at the discount `gamma` per step,
/// by a margin that no recipe reaches: in the mean, or, where they run away to both sides, by the largest error. Without a reward
/// nothing is known. The step that is refused was taken.
pub(crate) fn require_bounded(report: &UpdateReport, largest_reward: f32, gamma: f64) -> Result<(), LearnerError> {
    // The sum of a discounted reward without end; without a discount, episodes are taken to have fewer steps than this.
    let steps = if gamma < 1.0 { 1.0 / (1.0 - gamma) } else { REWARDS };
    let bound = (f64::from(largest_reward) * REWARDS.max(10.0 * steps)).max(FRESH);
    let &UpdateReport { mean_q, max_error, .. } = report;
    if largest_reward > 0.0 && f64::from(mean_q.abs().max(max_error)) > bound {
        return Err(LearnerError::Exploded { mean_q, max_error, largest_reward });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_return_can_be_is_let_through_and_what_none_can_be_is_not() {
        for (gamma, most) in [(0.0, 1.0), (0.99, 100.0), (0.999_99, 1e5), (1.0, 1e4)] {
            for reward in [1e-3, 1.0, 200.0] {
                for sign in [1.0, -1.0] {
                    assert!(require_bounded(&report(sign * reward * most, reward), reward, gamma).is_ok());
                    for report in [report(sign * reward * 2e6, 1.0), report(0.0, reward * 2e6)] {
                        let exploded = require_bounded(&report, reward, gamma);
                        assert!(matches!(exploded, Err(LearnerError::Exploded { .. })), "{gamma} {reward}");
                    }
                }
            }
        }
        assert!(require_bounded(&report(1e30, 1e30), 0.0, 0.9).is_ok(), "nothing was earned yet");
        assert!(
            require_bounded(&report(3.0, 5.0), 1e-5, 0.9).is_ok(),
            "a fresh network does not know how little is earned"
        );
    }

    fn report(mean_q: f32, max_error: f32) -> UpdateReport {
        UpdateReport { loss: 0.0, mean_q, mean_target: 0.0, max_error, gradient_norm: 0.0 }
    }
}
