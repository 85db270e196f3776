//! The native engine: same bytes everywhere, the argmax of the masked q-values, and clear refusals.
#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod nets;

use bellwether_inference::model::{Linear, Mlp};
use bellwether_inference::{DecideError, Engine, EngineError, Isa, Precision};
use nets::{Draw, arbitrary_mlp, state_for};
use proptest::prelude::*;

/// The numeric contract without any cleverness: every input takes part.
fn plain_chain(mlp: &Mlp, state: &[f32]) -> Vec<f32> {
    let affine = |layer: &Linear, flow: &[f32]| -> Vec<f32> {
        let weight = |k: usize, j: usize| layer.weights[k * layer.outputs + j];
        let chain = |j: usize| flow.iter().enumerate().fold(layer.bias[j], |sum, (k, x)| x.mul_add(weight(k, j), sum));
        (0..layer.outputs).map(chain).collect()
    };
    let (last, trunk) = mlp.layers.split_last().unwrap();
    let rectified = |flow: Vec<f32>, layer| affine(layer, &flow).into_iter().map(|sum| sum.max(0.0)).collect();
    let flow = trunk.iter().fold(state.to_vec(), rectified);
    let outputs = affine(last, &flow);
    let Some(value) = mlp.value() else { return outputs.into_iter().map(|q| q + 0.0).collect() };
    let value = affine(value, &flow)[0];
    let mut sum = outputs[0];
    outputs[1..].iter().for_each(|advantage| sum += advantage);
    let mean = sum / outputs.len() as f32;
    outputs.into_iter().map(|advantage| value + (advantage - mean) + 0.0).collect()
}

/// The same network in f64.
fn reference(mlp: &Mlp, state: &[f32]) -> Vec<f64> {
    let affine = |layer: &Linear, flow: &[f64]| -> Vec<f64> {
        let term = |k: usize, j: usize| flow[k] * f64::from(layer.weights[k * layer.outputs + j]);
        let sum = |j: usize| f64::from(layer.bias[j]) + (0..flow.len()).map(|k| term(k, j)).sum::<f64>();
        (0..layer.outputs).map(sum).collect()
    };
    let (last, trunk) = mlp.layers.split_last().unwrap();
    let rectified = |flow: Vec<f64>, layer| affine(layer, &flow).into_iter().map(|sum| sum.max(0.0)).collect();
    let flow = trunk.iter().fold(state.iter().map(|&x| f64::from(x)).collect(), rectified);
    let outputs = affine(last, &flow);
    let Some(value) = mlp.value() else { return outputs };
    let value = affine(value, &flow)[0];
    let mean = outputs.iter().sum::<f64>() / outputs.len() as f64;
    outputs.into_iter().map(|advantage| value + (advantage - mean)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn available() -> Vec<Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
}

proptest! {
    #[test]
    fn every_instruction_set_gives_the_bytes_of_the_plain_chain(mlp in arbitrary_mlp(), seed: u64) {
        let state = state_for(&mlp, seed);
        let expected = bits(&plain_chain(&mlp, &state));
        for isa in available() {
            let engine = Engine::new(&mlp, isa).unwrap();
            let mut scratch = engine.scratch();
            prop_assert_eq!(bits(engine.q_values(&mut scratch, &state).unwrap()), expected.clone(), "{}", isa);
        }
    }

    #[test]
    fn q_values_are_close_to_those_in_double_precision(mlp in arbitrary_mlp(), seed: u64) {
        let state = state_for(&mlp, seed);
        let engine = Engine::new(&mlp, Isa::best()).unwrap();
        let mut scratch = engine.scratch();
        let found = engine.q_values(&mut scratch, &state).unwrap();
        for (&found, expected) in found.iter().zip(reference(&mlp, &state)) {
            prop_assert!((f64::from(found) - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{found} {expected}");
        }
    }

    #[test]
    fn the_action_is_the_first_largest_allowed_one(mlp in arbitrary_mlp(), seed: u64, allowed: u64) {
        let state = state_for(&mlp, seed);
        let actions = mlp.outputs();
        let mut mask: Vec<bool> = (0..actions).map(|action| allowed >> (action % 64) & 1 == 1).collect();
        mask[(seed % actions as u64) as usize] = true;
        let engine = Engine::new(&mlp, Isa::best()).unwrap();
        let mut scratch = engine.scratch();
        let decision = engine.decide(&mut scratch, &state, &mask).unwrap();
        let mut ranked: Vec<usize> = (0..actions).filter(|&action| mask[action]).collect();
        ranked.sort_by(|&a, &b| decision.q_values[b].total_cmp(&decision.q_values[a]).then(a.cmp(&b)));
        prop_assert_eq!(decision.action, ranked[0]);
        let margin = ranked.get(1).map(|&next| decision.q_values[ranked[0]] - decision.q_values[next]);
        prop_assert_eq!(decision.margin, margin);
    }

    #[test]
    fn a_batch_gives_what_its_rows_give(mlp in arbitrary_mlp(), seed: u64, rows in 0_usize..6, bad in 0_usize..6) {
        let (width, actions) = (mlp.inputs(), mlp.outputs());
        let mut states: Vec<f32> = (0..rows).flat_map(|row| state_for(&mlp, seed ^ row as u64)).collect();
        if bad < rows {
            states[bad * width] = f32::NAN;
        }
        let masks = vec![true; rows * actions];
        let engine = Engine::new(&mlp, Isa::best()).unwrap();
        let (mut scratch, mut single) = (engine.scratch(), engine.scratch());
        let mut seen = Vec::new();
        let result = engine.decide_batch(&mut scratch, &states, &masks, |row, found| {
            let expected = engine.decide(&mut single, &states[row * width..][..width], &masks[..actions]);
            assert_eq!(found.is_err(), row == bad);
            // NaN is not equal to itself, so a refusal is compared by its text.
            assert_eq!(found.map_err(|error| error.to_string()), expected.map_err(|error| error.to_string()));
            seen.push(row);
        });
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(seen, (0..rows).collect::<Vec<_>>());
    }
}

/// One layer whose q-values are its biases.
fn constant(values: &[f32]) -> Mlp {
    nets::single(1, &vec![0.0; values.len()], values)
}

#[test]
fn ties_go_to_the_lowest_number() {
    let check = |values: &[f32], mask: &[bool], action: usize, margin: Option<f32>| {
        for isa in available() {
            let engine = Engine::new(&constant(values), isa).unwrap();
            let mut scratch = engine.scratch();
            let decision = engine.decide(&mut scratch, &[0.5], mask).unwrap();
            assert_eq!((decision.action, decision.margin), (action, margin), "{values:?} {mask:?} on {isa}");
            assert_eq!(decision.q_values, values);
        }
    };
    check(&[1.0, 1.0, 1.0], &[true; 3], 0, Some(0.0));
    check(&[1.0, 1.0, 1.0], &[false, true, true], 1, Some(0.0));
    check(&[0.0, -0.0, 0.0], &[false, true, true], 1, Some(0.0));
    check(&[1.0, 3.0, 2.0], &[true; 3], 1, Some(1.0));
    check(&[3.0, 1.0, 2.0], &[true; 3], 0, Some(1.0));
    check(&[1.0, 3.0, 2.0], &[true, false, false], 0, None);
    check(&[-5.0, 3.0, -7.0], &[true, false, true], 0, Some(2.0));
    check(&[f32::MIN, f32::MIN], &[false, true], 1, None);
}

#[test]
fn a_q_value_of_zero_has_no_sign() {
    for isa in available() {
        let engine = Engine::new(&constant(&[-0.0]), isa).unwrap();
        let mut scratch = engine.scratch();
        assert_eq!(bits(engine.q_values(&mut scratch, &[0.0]).unwrap()), [0], "{isa}");
    }
}

#[test]
fn what_cannot_be_decided_is_refused_by_name() {
    let engine = Engine::new(&nets::single(2, &[1.0; 6], &[0.0; 3]), Isa::best()).unwrap();
    let check = |state: &[f32], mask: &[bool], expected: &str| {
        let mut scratch = engine.scratch();
        let error = engine.decide(&mut scratch, state, mask).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(&[0.0], &[true; 3], "the state has 1 values, the model wants 2; make states by its feature specification");
    check(&[0.0; 3], &[true; 3], "the state has 3 values, the model wants 2; make states by its feature specification");
    check(&[], &[true; 3], "the state has 0 values, the model wants 2; make states by its feature specification");
    check(&[0.0; 2], &[true; 2], "the mask has 2 entries, the model has 3 actions; give an entry for each");
    check(&[0.0; 2], &[false; 3], "the mask allows no action; one must be allowed");
    check(&[0.0, f32::NAN], &[true; 3], "value 1 of the state is NaN, which is not finite; mend what made the state");
    check(
        &[f32::INFINITY, 0.0],
        &[true; 3],
        "value 0 of the state is inf, which is not finite; mend what made the state",
    );
    check(
        &[0.0, -0.25],
        &[true; 3],
        "value 1 of the state is -0.25, outside 0 to 1; scale it as the feature specification says",
    );
    check(
        &[0.0, 1.5],
        &[true; 3],
        "value 1 of the state is 1.5, outside 0 to 1; scale it as the feature specification says",
    );
}

#[test]
fn a_wider_range_lets_finite_states_pass_and_no_others() {
    let engine = Engine::new(&nets::single(1, &[1.0], &[0.0]), Isa::best()).unwrap();
    let engine = engine.with_state_range(f32::MIN..=f32::MAX);
    let mut scratch = engine.scratch();
    assert_eq!(engine.q_values(&mut scratch, &[-7.5]), Ok(&[-7.5_f32][..]));
    let error = engine.q_values(&mut scratch, &[f32::NEG_INFINITY]).unwrap_err();
    assert_eq!(error, DecideError::NonFiniteState { index: 0, value: f32::NEG_INFINITY });
}

#[test]
fn an_overflow_is_refused_wherever_it_happens() {
    for isa in available() {
        let one = Engine::new(&nets::single(2, &[f32::MAX; 2], &[0.0]), isa).unwrap();
        let error = one.q_values(&mut one.scratch(), &[1.0; 2]).unwrap_err();
        assert_eq!(error, DecideError::NonFiniteValue { action: 0 }, "{isa}");
        // A hidden sum of minus infinity would rectify to an innocent zero.
        let mut deep = nets::single(2, &[f32::MIN; 2], &[0.0]);
        deep.layers.extend(nets::single(1, &[1.0], &[0.0]).layers);
        let two = Engine::new(&deep, isa).unwrap();
        let error = two.q_values(&mut two.scratch(), &[1.0; 2]).unwrap_err();
        assert_eq!(error, DecideError::Overflow { layer: 0 }, "{isa}");
    }
}

#[test]
fn an_overflow_in_a_dueling_head_is_refused() {
    let column = |bias: &[f32]| nets::single(1, &vec![0.0; bias.len()], bias).layers.remove(0);
    for isa in available() {
        // Advantages whose sum overflows, a value that does with an advantage, and both well within.
        for (advantages, value, sound) in
            [([f32::MAX, f32::MAX], 0.0, false), ([1e38, -1e38], f32::MAX, false), ([1.0, -1.0], 1e38, true)]
        {
            let mlp = Mlp::dueling(vec![column(&advantages)], column(&[value]));
            let engine = Engine::new(&mlp, isa).unwrap();
            let found = engine.q_values(&mut engine.scratch(), &[0.5]).map(<[f32]>::to_vec);
            assert_eq!(found.is_ok(), sound, "{found:?} on {isa}");
            assert!(sound || matches!(found, Err(DecideError::NonFiniteValue { .. })), "{found:?}");
        }
    }
}

#[test]
fn a_value_that_swallows_the_advantages_makes_a_tie() {
    let column = |bias: &[f32]| nets::single(1, &vec![0.0; bias.len()], bias).layers.remove(0);
    for precision in [Precision::Exact, Precision::Certified] {
        let mut layers = nets::single(1, &[1.0], &[0.0]).layers;
        layers.push(column(&[0.25, 0.5, 0.75]));
        let mlp = Mlp::dueling(layers, column(&[3e9]));
        let engine = Engine::new(&mlp, Isa::best()).unwrap().with_precision(precision);
        let mut scratch = engine.scratch();
        let decision = engine.decide(&mut scratch, &[0.5], &[false, true, true]).unwrap();
        assert_eq!((decision.action, decision.margin, decision.certified), (1, Some(0.0), false));
    }
}

#[test]
fn a_scratch_serves_smaller_engines_and_refuses_larger_ones() {
    let mut draw = Draw(1);
    let small = Engine::new(&draw.mlp(&[3, 5, 2]), Isa::best()).unwrap();
    let large = Engine::new(&draw.mlp(&[40, 70, 4]), Isa::best()).unwrap();
    let mut scratch = small.scratch();
    assert_eq!(large.q_values(&mut scratch, &[0.5; 40]), Err(DecideError::ScratchTooSmall));
    scratch.grow(&large);
    assert!(large.q_values(&mut scratch, &[0.5; 40]).is_ok());
    let expected = small.q_values(&mut small.scratch(), &[0.5; 3]).unwrap().to_vec();
    assert_eq!(small.q_values(&mut scratch, &[0.5; 3]), Ok(expected.as_slice()));
}

#[test]
fn a_batch_of_the_wrong_shape_is_refused_whole() {
    let engine = Engine::new(&Draw(1).mlp(&[3, 2]), Isa::best()).unwrap();
    for (states, masks) in [(4, 2), (3, 3), (3, 4), (6, 2), (0, 2)] {
        let (state, mask) = (vec![0.0; states], vec![true; masks]);
        let error = engine.decide_batch(&mut engine.scratch(), &state, &mask, |_, _| panic!("no row may be decided"));
        assert_eq!(error, Err(DecideError::BatchShape { states, masks, width: 3, actions: 2 }));
    }
}

#[test]
fn an_engine_needs_a_sound_network_and_a_fitting_processor() {
    let mut mlp = Draw(1).mlp(&[3, 4, 2]);
    mlp.layers[1].inputs = 5;
    assert!(matches!(Engine::new(&mlp, Isa::Scalar), Err(EngineError::Model(_))));
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
        let error = Engine::new(&Draw(1).mlp(&[3, 2]), isa).map(|_| ());
        assert_eq!(error, Err(EngineError::IsaUnavailable(isa)));
    }
}

#[test]
fn instruction_sets_are_found_by_name() {
    for isa in Isa::ALL {
        assert_eq!(isa.name().parse(), Ok(isa));
    }
    assert!("AVX".parse::<Isa>().is_err());
    assert!(Isa::best().is_available());
}
