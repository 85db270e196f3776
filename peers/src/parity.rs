//! Whether another runtime gives the native engine's answers.

use serde::Serialize;

use crate::{Native, PeerError, Runtime, StateRecord};

/// Permitted difference of a q-value, relative to `max(1, |q|)`.
pub const TOLERANCE: f64 = 1e-5;

/// One runtime compared with the native engine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parity {
    /// Its name.
    pub runtime: &'static str,
    /// States compared.
    pub states: u64,
    /// States that the native engine refused; they are compared with nothing.
    pub refused: u64,
    /// The first refusal.
    pub first_refusal: Option<String>,
    /// Largest difference of a q-value, relative to `max(1, |q|)`.
    pub largest_difference: f64,
    /// Q-values that differ by more than [`TOLERANCE`], or that are not finite.
    pub beyond_tolerance: u64,
    /// States whose best two allowed q-values differ by so little that both answers are right: at most twice the
    /// tolerance.
    pub close_calls: u64,
    /// Close calls in which the actions differ.
    pub other_action_in_close_calls: u64,
    /// Other states in which the actions differ.
    pub other_action: u64,
}

impl Parity {
    /// Whether the runtimes agree: at least one state, none refused, every q-value within the tolerance, and the same
    /// action in all but close calls.
    pub fn agrees(&self) -> bool {
        self.states > 0 && self.refused == 0 && self.beyond_tolerance == 0 && self.other_action == 0
    }
}

/// Compares `peer` with the native engine on `states`.
///
/// # Errors
/// A failure of the peer. What the native engine refuses is counted.
pub fn compare<'a>(
    native: &mut Native,
    peer: &mut dyn Runtime,
    states: impl IntoIterator<Item = &'a StateRecord>,
) -> Result<Parity, PeerError> {
    let mut parity = Parity {
        runtime: peer.name(),
        states: 0,
        refused: 0,
        first_refusal: None,
        largest_difference: 0.0,
        beyond_tolerance: 0,
        close_calls: 0,
        other_action_in_close_calls: 0,
        other_action: 0,
    };
    let mut q_values = Vec::new();
    for StateRecord { state, mask } in states {
        let decision = match native.decision(state, mask) {
            Ok(decision) => decision,
            Err(refusal) => {
                parity.refused += 1;
                parity.first_refusal.get_or_insert_with(|| refusal.to_string());
                continue;
            }
        };
        q_values.clear();
        q_values.resize(mask.len(), f32::NAN);
        let action = peer.decide(state, mask, &mut q_values)?;
        parity.states += 1;
        for (&ours, &theirs) in decision.q_values.iter().zip(&q_values) {
            let (ours, theirs) = (f64::from(ours), f64::from(theirs));
            let difference = (ours - theirs).abs() / ours.abs().max(1.0);
            // `max` ignores a NaN, which is therefore counted by name.
            parity.largest_difference = parity.largest_difference.max(difference);
            parity.beyond_tolerance += u64::from(difference > TOLERANCE || difference.is_nan());
        }
        let best = f64::from(decision.q_values[decision.action]);
        let close = decision.margin.is_some_and(|margin| f64::from(margin) <= 2.0 * TOLERANCE * best.abs().max(1.0));
        let other = action != decision.action;
        parity.close_calls += u64::from(close);
        parity.other_action_in_close_calls += u64::from(close && other);
        parity.other_action += u64::from(!close && other);
    }
    Ok(parity)
}

/// Certified decisions compared with exact ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Certificates {
    /// States compared.
    pub states: u64,
    /// Of these, certified.
    pub certified: u64,
    /// `certified / states`; 0 of none.
    pub share: f64,
    /// Largest bound of a certified q-value.
    pub largest_bound: f32,
    /// Largest difference of a certified q-value.
    pub largest_difference: f32,
    /// Certified q-values that are further from the exact ones than their bound.
    pub beyond_bound: u64,
    /// States in which the actions differ, or one was decided and the other refused.
    pub other_action: u64,
}

impl Certificates {
    /// Whether every certificate holds.
    pub fn hold(&self) -> bool {
        self.beyond_bound == 0 && self.other_action == 0
    }
}

/// Holds the decisions of `certified` against those of `exact` on `states`.
pub fn certificates<'a>(
    exact: &mut Native,
    certified: &mut Native,
    states: impl IntoIterator<Item = &'a StateRecord>,
) -> Certificates {
    let mut found = Certificates::default();
    for StateRecord { state, mask } in states {
        found.states += 1;
        let (expected, decision) = match (exact.decision(state, mask), certified.decision(state, mask)) {
            (Ok(expected), Ok(decision)) => (expected, decision),
            (Err(_), Err(_)) => continue,
            _ => {
                found.other_action += 1;
                continue;
            }
        };
        found.other_action += u64::from(decision.action != expected.action);
        if decision.certified {
            found.certified += 1;
            found.largest_bound = found.largest_bound.max(decision.bound);
        }
        for (ours, theirs) in decision.q_values.iter().zip(expected.q_values) {
            let difference = (ours - theirs).abs();
            found.largest_difference = found.largest_difference.max(difference);
            found.beyond_bound += u64::from(difference > decision.bound || difference.is_nan());
        }
    }
    found.share = found.certified as f64 / found.states.max(1) as f64;
    found
}

#[cfg(test)]
mod tests {
    use bellwether_inference::{Isa, Precision};

    use super::*;
    use crate::{drawn, open};

    /// The native engine with a change to its answers.
    struct Changed<F>(Native, F);

    impl<F: FnMut(&mut [f32], &mut usize)> Runtime for Changed<F> {
        fn name(&self) -> &'static str {
            "changed"
        }

        fn decide(&mut self, state: &[f32], mask: &[bool], q_values: &mut [f32]) -> Result<usize, PeerError> {
            let mut action = self.0.decide(state, mask, q_values)?;
            (self.1)(q_values, &mut action);
            Ok(action)
        }

        fn q_values(&mut self, state: &[f32], q_values: &mut [f32]) -> Result<(), PeerError> {
            self.0.q_values(state, q_values)
        }
    }

    fn compared(change: impl FnMut(&mut [f32], &mut usize)) -> Parity {
        let onnx = drawn::model(&[8, 16, 3], false, 1).unwrap();
        let (_, _, mut native) = open(&onnx, Isa::best()).unwrap();
        let mut peer = Changed(open(&onnx, Isa::Scalar).unwrap().2, change);
        let states: Vec<StateRecord> = drawn::states(100, 8, 3, 2).collect();
        compare(&mut native, &mut peer, &states).unwrap()
    }

    #[test]
    fn certificates_are_counted_and_broken_ones_too() {
        let onnx = drawn::model(&[8, 16, 3], false, 1).unwrap();
        let (mlp, _, mut exact) = open(&onnx, Isa::best()).unwrap();
        let states: Vec<StateRecord> = drawn::states(100, 8, 3, 2).collect();
        let mut certified = Native::with_precision(&mlp, Isa::best(), Precision::Certified).unwrap();
        let found = certificates(&mut exact, &mut certified, &states);
        assert!(found.hold() && found.states == 100 && found.certified > 90, "{found:?}");
        assert!(found.largest_difference <= found.largest_bound && found.largest_bound > 0.0);
        // Certificates of another network.
        let mut other = mlp.clone();
        other.layers[1].bias[0] += 100.0;
        let mut certified = Native::with_precision(&other, Isa::best(), Precision::Certified).unwrap();
        let found = certificates(&mut exact, &mut certified, &states);
        assert!(!found.hold() && found.beyond_bound >= 100 && found.other_action > 0, "{found:?}");
    }

    #[test]
    fn equal_answers_agree() {
        let parity = compared(|_, _| {});
        assert!(parity.agrees());
        assert_eq!((parity.states, parity.largest_difference, parity.other_action), (100, 0.0, 0));
    }

    #[test]
    fn each_kind_of_difference_is_counted() {
        let parity = compared(|q_values, _| q_values[1] += 1e-3);
        assert!(!parity.agrees() && parity.beyond_tolerance == 100 && parity.largest_difference > 1e-4);
        let parity = compared(|q_values, _| q_values[2] = f32::NAN);
        assert!(!parity.agrees() && parity.beyond_tolerance == 100);
        let parity = compared(|q_values, _| q_values[0] *= 1.0 + 1e-6);
        assert!(parity.agrees() && parity.largest_difference > 1e-9);
        let parity = compared(|_, action| *action += 1);
        assert!(!parity.agrees() && parity.other_action + parity.other_action_in_close_calls == 100);
    }

    #[test]
    fn a_tie_permits_either_action() {
        let onnx = drawn::model(&[1, 2], false, 1).unwrap();
        let (mut mlp, ..) = open(&onnx, Isa::Scalar).unwrap();
        mlp.layers[0].weights.fill(0.0);
        mlp.layers[0].bias.copy_from_slice(&[1.0, 1.0 + 1e-5]);
        let native = || Native::new(&mlp, Isa::Scalar).unwrap();
        let mut peer = Changed(native(), |_: &mut [f32], action: &mut usize| *action = 0);
        let states = [StateRecord { state: vec![0.5], mask: vec![true; 2] }];
        let parity = compare(&mut native(), &mut peer, &states).unwrap();
        assert!(parity.agrees());
        assert_eq!((parity.close_calls, parity.other_action_in_close_calls), (1, 1));
    }

    #[test]
    fn refused_states_and_no_states_are_no_agreement() {
        let onnx = drawn::model(&[2, 2], false, 1).unwrap();
        let native = || open(&onnx, Isa::Scalar).unwrap().2;
        let broken = [StateRecord { state: vec![2.0, 0.0], mask: vec![true; 2] }];
        let parity = compare(&mut native(), &mut native(), &broken).unwrap();
        assert!(!parity.agrees() && parity.refused == 1);
        assert_eq!(
            parity.first_refusal.as_deref(),
            Some("value 0 of the state is 2, outside 0 to 1; scale it as the feature specification says")
        );
        assert!(!compare(&mut native(), &mut native(), &[]).unwrap().agrees());
    }
}
