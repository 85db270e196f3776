//! Dueling heads under a policy: their memory, their swaps, and what they have in common with plain ones.
#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod manifests;
mod nets;

use bellwether_artifact::Sha256;
use bellwether_inference::model::{Contract, Expectation, Linear, Mlp};
use bellwether_inference::policy::{Limits, Options};
use bellwether_inference::release::check_release;
use bellwether_inference::{Engine, Isa, LoadedRelease, Policy, Precision};
use manifests::sealed;
use nets::{Draw, arbitrary_mlp, state_for};
use proptest::prelude::*;

fn release(mlp: &Mlp) -> LoadedRelease {
    let actions = (0..mlp.outputs()).map(|action| format!("action_{action}")).collect();
    let contract = Contract { width: mlp.inputs(), feature_spec: Sha256::of(b"spec"), action_set: 3, actions };
    let (manifest, onnx) = sealed(mlp, &contract, |_| {});
    check_release(manifest, &onnx, &Expectation::new(contract), Isa::best()).unwrap()
}

proptest! {
    #[test]
    fn a_value_of_zero_and_advantages_about_zero_are_the_plain_network(mlp in arbitrary_mlp(), seed: u64) {
        // Actions in pairs of opposite sign: their mean is exactly zero, in f32 too.
        let Mlp { mut layers, .. } = mlp;
        let last = layers.last_mut().unwrap();
        let (inputs, outputs) = (last.inputs, last.outputs);
        let opposite = |row: &[f32]| row.iter().flat_map(|&weight| [weight, -weight]).collect::<Vec<f32>>();
        last.weights = last.weights.chunks_exact(outputs).flat_map(opposite).collect();
        last.bias = opposite(&last.bias);
        last.outputs *= 2;
        let value = Linear { inputs, outputs: 1, weights: vec![0.0; inputs], bias: vec![0.0] };
        let (plain, dueling) = (Mlp::plain(layers.clone()), Mlp::dueling(layers, value));
        let state = state_for(&plain, seed);
        let bits = |mlp: &Mlp| {
            let engine = Engine::new(mlp, Isa::best()).unwrap();
            let mut scratch = engine.scratch();
            engine.q_values(&mut scratch, &state).unwrap().iter().map(|q| q.to_bits()).collect::<Vec<_>>()
        };
        prop_assert_eq!(bits(&plain), bits(&dueling));
    }
}

#[test]
fn a_policy_has_memory_for_either_head_whatever_came_first() {
    // With 16 and 32 actions the value begins a lane of its own.
    for actions in [5, 15, 16, 17, 32] {
        for precision in [Precision::Exact, Precision::Certified] {
            let options = Options { precision, limits: Limits { hidden_width: 24 }, ..Options::default() };
            let policy = Policy::new(release(&Draw(1).mlp(&[7, 12, actions])), Some(0), options).unwrap();
            let mut decider = policy.decider();
            let mask = vec![true; actions];
            for (number, hidden) in (1..).zip([&[24][..], &[3, 24], &[]]) {
                let mlp = Draw(u64::from(number)).dueling(&[&[7], hidden, &[actions]].concat());
                policy.swap(release(&mlp), Some(number)).unwrap();
                let engine = Engine::new(&mlp, Isa::Scalar).unwrap();
                let mut scratch = engine.scratch();
                for seed in 0..20 {
                    let state = state_for(&mlp, seed);
                    let expected = engine.decide(&mut scratch, &state, &mask).unwrap();
                    let found = decider.decide(&state, &mask).unwrap();
                    assert_eq!((found.decision.action, found.model.number), (expected.action, Some(number)));
                }
            }
        }
    }
}
