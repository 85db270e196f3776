//! The learner and the engine that serves its networks compute the same q-values, to the last bit.
#![allow(clippy::unwrap_used, reason = "the functions beside the tests fail like tests")]

use bellwether_inference::{Engine, Isa};
use bellwether_replay::DenseRows;
use bellwether_trainer::learner::Learner;
use bellwether_trainer::learner::fused::{FusedLearner, FusedOptions};
use bellwether_trainer::network::NetworkShape;
use bellwether_trainer::streams::stream;
use proptest::prelude::*;
use rand::RngExt;

proptest! {
    #[test]
    fn the_engine_gives_the_learners_bytes(
        widths in proptest::collection::vec(1_usize..80, 2..5),
        rows in 1_usize..9,
        seed: u64,
    ) {
        let shape = NetworkShape::new(widths).unwrap();
        let parameters = shape.initial_parameters(&mut stream(seed, "init"));
        let mut draw = stream(seed, "states");
        // Many zeros, as in a state of counters.
        let mut element = || if draw.random::<bool>() { 0.0 } else { draw.random::<f32>() };
        let states: Vec<f32> = (0..rows * shape.inputs()).map(|_| element()).collect();

        let mut learner = FusedLearner::new(shape.clone(), &parameters, FusedOptions::default()).unwrap();
        let mut expected = Vec::new();
        learner.q_values(&DenseRows::new(shape.inputs(), &states), &mut expected).unwrap();

        let mlp = shape.to_mlp(&parameters).unwrap();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let engine = Engine::new(&mlp, isa).unwrap();
            let mut scratch = engine.scratch();
            for (state, expected) in states.chunks(shape.inputs()).zip(expected.chunks(shape.outputs())) {
                let found = engine.q_values(&mut scratch, state).unwrap();
                // The engine gives a zero without its sign; adding +0 takes it from the learner's as well.
                let bits = |values: &[f32]| values.iter().map(|value| (value + 0.0).to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(found), bits(expected), "{}", isa);
            }
        }
    }
}
