//! Noticing q-values that run away while they are still finite.

use super::LearnerError;

/// Returns that no recipe has: those of 10,000 rewards of the largest size.
const REWARDS: f64 = 1e4;

/// Refuses to go on where the mean q-value is beyond any return of rewards of at most `largest_reward` at the discount `gamma` per
/// step, by a margin that no recipe reaches. Without a reward nothing is known.
pub(crate) fn require_bounded(mean_q: f32, largest_reward: f32, gamma: f64) -> Result<(), LearnerError> {
    // The sum of a discounted reward without end; without a discount, episodes are taken to have fewer steps than this.
    let steps = if gamma < 1.0 { 1.0 / (1.0 - gamma) } else { REWARDS };
    let bound = f64::from(largest_reward) * REWARDS.max(10.0 * steps);
    if largest_reward > 0.0 && f64::from(mean_q.abs()) > bound {
        return Err(LearnerError::Exploded { mean_q, largest_reward });
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
                    assert!(require_bounded(sign * reward * most, reward, gamma).is_ok());
                    let exploded = require_bounded(sign * reward * 2e6, reward, gamma);
                    assert!(matches!(exploded, Err(LearnerError::Exploded { .. })), "{gamma} {reward}");
                }
            }
        }
        assert!(require_bounded(1e30, 0.0, 0.9).is_ok(), "nothing was earned yet");
    }
}
