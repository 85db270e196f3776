//! The learner and the engine that decides agree to the last bit.

use crate::case::any_case;
use crate::gradient::learner;
use bellwether_inference::engine::{Engine, Isa};
use bellwether_trainer::learner::Learner;
use bellwether_trainer::learner::fused::FusedOptions;
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
        learner.q_values(&case.states(), &mut q).unwrap();
        let mlp = case.shape.to_mlp(learner.parameters()).unwrap();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let engine = Engine::new(&mlp, isa).unwrap().with_state_range(-1.0..=1.0);
            let mut scratch = engine.scratch();
            for (state, ours) in case.states.chunks(case.shape.inputs()).zip(q.chunks(case.shape.outputs())) {
                let theirs = engine.q_values(&mut scratch, state).unwrap();
                prop_assert_eq!(bits(theirs), bits(ours), "{}", isa);
            }
        }
    }
}
