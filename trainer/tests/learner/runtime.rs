//! The learner and the engine that decides agree to the last bit.

use crate::case::any_case;
use crate::gradient::learner;
use bellwether_inference::engine::{Engine, Isa};
use bellwether_trainer::learner::Learner;
use bellwether_trainer::learner::fused::FusedOptions;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn q_values_are_the_bits_of_the_engine(case in any_case()) {
        let mut learner = learner(&case, FusedOptions::default());
        case.with_batch(|batch, noise| learner.update(&case.spec, batch, noise, &mut Vec::new())).unwrap();
        let mut q = Vec::new();
        learner.q_values(&case.states(), &mut q).unwrap();
        let mlp = case.shape.to_mlp(learner.parameters()).unwrap();
        let engine = Engine::new(&mlp, Isa::best()).unwrap().with_state_range(-1.0..=1.0);
        let mut scratch = engine.scratch();
        for (state, ours) in case.states.chunks(case.shape.inputs()).zip(q.chunks(case.shape.outputs())) {
            let theirs = engine.q_values(&mut scratch, state).unwrap();
            prop_assert!(theirs.iter().map(|q| q.to_bits()).eq(ours.iter().map(|q| q.to_bits())), "{:?} {:?}", theirs, ours);
        }
    }
}
