//! Choosing by q-values.

use rand::Rng;

/// The allowed action of the largest q-value; ties go to the lowest number, and so does what cannot be compared. `None` where
/// nothing is allowed.
pub fn greedy(q: &[f32], mask: &[bool]) -> Option<usize> {
    let allowed = mask.iter().enumerate().filter(|(_, allowed)| **allowed).map(|(action, _)| action);
    allowed.reduce(|best, action| if q[action] > q[best] { action } else { best })
}

/// With probability `epsilon` any of the allowed actions, each as likely, and otherwise `best`. Gives the action and the
/// probability that this policy gave it; `None` where nothing is allowed, or `best` is asked for and is none. Takes two numbers
/// from the stream, whatever comes of it.
pub fn epsilon_greedy(best: Option<usize>, mask: &[bool], epsilon: f64, rng: &mut impl Rng) -> Option<(usize, f32)> {
    let allowed = mask.iter().filter(|allowed| **allowed).count();
    let explores = unit(rng) < epsilon;
    let place = ((unit(rng) * allowed as f64) as usize).min(allowed.saturating_sub(1));
    let random = mask.iter().enumerate().filter(|(_, allowed)| **allowed).nth(place).map(|(action, _)| action);
    let action = if explores { random } else { best }?;
    let share = epsilon / allowed as f64;
    let probability = if best == Some(action) { share + (1.0 - epsilon) } else { share };
    Some((action, probability as f32))
}

/// A uniform number in `[0, 1)`.
fn unit(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::stream;

    #[test]
    fn the_best_action_is_an_allowed_one() {
        for (q, mask, best) in [
            ([1.0, 3.0, 3.0], [true, true, true], Some(1)),
            ([1.0, 3.0, 2.0], [true, false, true], Some(2)),
            ([f32::NAN, f32::NAN, f32::NAN], [false, true, true], Some(1)),
            ([0.0, f32::NEG_INFINITY, f32::NEG_INFINITY], [false, false, true], Some(2)),
            ([0.0; 3], [false; 3], None),
        ] {
            assert_eq!(greedy(&q, &mask), best, "{q:?} {mask:?}");
        }
    }

    #[test]
    fn actions_are_as_frequent_as_their_probabilities_say() {
        let (mask, draws) = ([true, false, true, true], 20_000);
        let mut rng = stream(3, "exploration");
        let mut counts = [0.0; 4];
        let mut said = [0.0; 4];
        for _ in 0..draws {
            let (action, probability) = epsilon_greedy(Some(2), &mask, 0.3, &mut rng).unwrap();
            counts[action] += 1.0 / f64::from(draws);
            said[action] = f64::from(probability);
        }
        for (count, expected) in counts.iter().zip([0.1, 0.0, 0.8, 0.1]) {
            assert!((count - expected).abs() < 0.01, "{counts:?}");
        }
        assert!(said.iter().zip([0.1, 0.0, 0.8, 0.1]).all(|(said, expected)| (said - expected).abs() < 1e-6));
        assert_eq!(epsilon_greedy(None, &mask, 0.0, &mut rng), None);
        assert_eq!(epsilon_greedy(None, &[false; 4], 1.0, &mut rng), None);
    }
}
