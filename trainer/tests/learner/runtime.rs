//! The learner and the engine that decides agree to the last bit.

use crate::case::any_case;
use crate::gradient::learner;
use bellwether_inference::engine::{Engine, Isa};
use bellwether_trainer::learner::Learner;
use bellwether_trainer::learner::fused::FusedOptions;
use bellwether_trainer::network::Returns;
use proptest::prelude::*;

/// The engine gives a zero without its sign; adding +0 takes it from the learner's as well.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| (value + 0.0).to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn q_values_are_the_bits_of_the_engine(mut case in any_case(), zeros: u64) {
        // Many zeros, as in a state of counters: the engine skips them.
        for (place, value) in case.states.iter_mut().enumerate() {
            *value *= f32::from((zeros >> (place % 64) & 1) as u8);
        }
        let mut learner = learner(&case, FusedOptions::default());
        case.with_batch(|batch, noise| learner.update(&case.spec, batch, noise, &mut Vec::new())).unwrap();
        let mut q = Vec::new();
        learner.q_values(&case.states(), &[], &mut q).unwrap();
        let Returns::Mean = case.shape.returns() else {
            // Quantiles are joined in another order; categories are not for the engine.
            let mlp = case.shape.to_mlp(learner.parameters());
            prop_assert_eq!(mlp.is_ok(), matches!(case.shape.returns(), Returns::Quantiles(_)));
            if let Ok(mlp) = mlp {
                let engine = Engine::new(&mlp, Isa::best()).unwrap().with_state_range(-1.0..=1.0);
                let mut scratch = engine.scratch();
                for (state, ours) in case.states.chunks(case.shape.inputs()).zip(q.chunks(case.shape.actions())) {
                    let theirs = engine.q_values(&mut scratch, state).unwrap();
                    let close = theirs.iter().zip(ours).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0));
                    prop_assert!(close, "{theirs:?} and {ours:?}");
                }
            }
            return Ok(());
        };
        let mlp = case.shape.to_mlp(learner.parameters()).unwrap();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let engine = Engine::new(&mlp, isa).unwrap().with_state_range(-1.0..=1.0);
            let mut scratch = engine.scratch();
            for (state, ours) in case.states.chunks(case.shape.inputs()).zip(q.chunks(case.shape.actions())) {
                let theirs = engine.q_values(&mut scratch, state).unwrap();
                prop_assert_eq!(bits(theirs), bits(ours), "{}", isa);
            }
        }
    }
}
