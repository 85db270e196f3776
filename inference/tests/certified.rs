//! Certified decisions: the canonical kernel's actions, the same bytes everywhere, and honest about what they are.
//! The hunt for counter-examples to the bound itself stands beside it, in `engine::certified`.

#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod nets;

use bellwether_inference::model::Mlp;
use bellwether_inference::{Engine, EngineError, Isa, Precision};
use nets::{Draw, arbitrary_mlp, state_for};
use proptest::prelude::*;

fn certified(mlp: &Mlp, isa: Isa) -> Engine {
    Engine::new(mlp, isa).unwrap().with_precision(Precision::Certified)
}

/// An engine for each instruction set with each one for its integers, as far as this processor has them.
fn combinations(mlp: &Mlp) -> Vec<Engine> {
    let engines = Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(|isa| certified(mlp, isa));
    engines.flat_map(|engine| Isa::ALL.map(|integers| engine_with(mlp, engine.isa(), integers))).flatten().collect()
}

fn engine_with(mlp: &Mlp, isa: Isa, integers: Isa) -> Option<Engine> {
    match certified(mlp, isa).with_integers(integers) {
        Ok(engine) => Some(engine),
        Err(EngineError::IntegersUnavailable(lacking)) if lacking == integers => None,
        Err(error) => panic!("{error}"),
    }
}

fn paths(engine: &Engine) -> String {
    format!("{} with integers on {}", engine.isa(), engine.integer_isa())
}

#[test]
fn integers_are_forced_apart_from_the_rest() {
    let mlp = Draw(1).mlp(&[8, 40, 3]);
    let found: Vec<(Isa, Isa)> = combinations(&mlp).iter().map(|engine| (engine.isa(), engine.integer_isa())).collect();
    for isa in Isa::ALL {
        if !isa.is_available() {
            eprintln!("skipped {isa}: this processor lacks it");
            continue;
        }
        for integers in Isa::ALL {
            // AVX-512 for integers is more than AVX-512F.
            let must = integers.is_available() && integers != Isa::Avx512;
            assert!(!must || found.contains(&(isa, integers)), "{isa} with integers on {integers}: {found:?}");
            if !found.contains(&(isa, integers)) {
                eprintln!("skipped {isa} with integers on {integers}: this processor lacks them");
            }
        }
    }
}

proptest! {
    #[test]
    fn every_instruction_set_gives_the_same_bytes(mlp in arbitrary_mlp(), seed: u64, allowed: u64) {
        let state = state_for(&mlp, seed);
        let actions = mlp.outputs();
        let mut mask: Vec<bool> = (0..actions).map(|action| allowed >> (action % 64) & 1 == 1).collect();
        mask[(seed % actions as u64) as usize] = true;
        let exact = Engine::new(&mlp, Isa::Scalar).unwrap();
        let mut exact_scratch = exact.scratch();
        let exact = exact.decide(&mut exact_scratch, &state, &mask).unwrap();
        prop_assert!(!exact.certified && exact.bound == 0.0);
        let mut all = Vec::new();
        for engine in combinations(&mlp) {
            let (isa, mut scratch) = (paths(&engine), engine.scratch());
            let found = engine.decide(&mut scratch, &state, &mask).unwrap();
            prop_assert_eq!(found.action, exact.action, "{}", isa);
            for (ours, theirs) in found.q_values.iter().zip(exact.q_values) {
                prop_assert!((f64::from(*ours) - f64::from(*theirs)).abs() <= f64::from(found.bound), "{}", isa);
            }
            if let (Some(ours), Some(theirs)) = (found.margin, exact.margin) {
                prop_assert!((f64::from(ours) - f64::from(theirs)).abs() <= 2.001 * f64::from(found.bound) + 1e-6);
            }
            let bits: Vec<u32> = found.q_values.iter().chain([&found.bound]).map(|value| value.to_bits()).collect();
            all.push((found.certified, found.margin.map(f32::to_bits), bits));
        }
        prop_assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
    }

    #[test]
    fn q_values_and_exact_decisions_are_canonical_whatever_the_precision(mlp in arbitrary_mlp(), seed: u64) {
        let state = state_for(&mlp, seed);
        let mask = vec![true; mlp.outputs()];
        let (plain, engine) = (Engine::new(&mlp, Isa::best()).unwrap(), certified(&mlp, Isa::best()));
        let (mut ours, mut theirs) = (engine.scratch(), plain.scratch());
        let expected: Vec<u32> =
            plain.q_values(&mut theirs, &state).unwrap().iter().map(|value| value.to_bits()).collect();
        let found: Vec<u32> = engine.q_values(&mut ours, &state).unwrap().iter().map(|value| value.to_bits()).collect();
        prop_assert_eq!(&found, &expected);
        let decision = engine.decide_exactly(&mut ours, &state, &mask).unwrap();
        prop_assert_eq!(decision, plain.decide(&mut theirs, &state, &mask).unwrap());
    }
}

#[test]
fn most_decisions_of_the_common_shapes_are_certified() {
    for (widths, dueling) in [(&[64, 256, 256, 6][..], false), (&[512, 128, 64, 5], false), (&[64, 256, 256, 6], true)]
    {
        let mut draw = Draw(5);
        let mlp = if dueling { draw.dueling(widths) } else { draw.mlp(widths) };
        let engine = certified(&mlp, Isa::best());
        let mut scratch = engine.scratch();
        let mask = vec![true; engine.actions()];
        let mut count = 0;
        for _ in 0..500 {
            let state: Vec<f32> =
                (0..engine.width()).map(|_| if draw.bits() & 1 == 0 { 0.0 } else { draw.unit() }).collect();
            let decision = engine.decide(&mut scratch, &state, &mask).unwrap();
            count += usize::from(decision.certified);
            assert!(decision.certified == (decision.bound > 0.0) && decision.bound < 0.02, "{decision:?}");
        }
        assert!(count >= 480, "{count} of 500 for {widths:?}, {dueling}");
    }
}

/// A network whose last two actions are the same, or differ by `difference` in one bias.
fn near_tie(difference: f32) -> Mlp {
    let mut mlp = Draw(3).mlp(&[20, 40, 40, 2]);
    let last = mlp.layers.last_mut().unwrap();
    last.weights.chunks_exact_mut(2).for_each(|row| row[1] = row[0]);
    last.bias = vec![0.25, 0.25 + difference];
    mlp
}

#[test]
fn ties_and_near_ties_are_left_to_the_canonical_kernel() {
    let check = |difference: f32, is_certified: bool| {
        let exact = Engine::new(&near_tie(difference), Isa::Scalar).unwrap();
        let action = exact.decide(&mut exact.scratch(), &[0.5; 20], &[true; 2]).unwrap().action;
        for engine in combinations(&near_tie(difference)) {
            let (isa, mut scratch) = (paths(&engine), engine.scratch());
            let decision = engine.decide(&mut scratch, &[0.5; 20], &[true; 2]).unwrap();
            assert_eq!((decision.action, decision.certified), (action, is_certified), "{difference} on {isa}");
            let alone = engine.decide(&mut scratch, &[0.5; 20], &[true, false]).unwrap();
            assert_eq!((alone.action, alone.margin, alone.certified), (0, None, true), "{difference} on {isa}");
        }
    };
    for difference in [0.0, 1e-7, -1e-7, 1e-6, -1e-6] {
        check(difference, false);
    }
    // The rows are equal, so that only the roundings of the last layer count against the difference.
    check(0.01, true);
    check(-0.01, true);
}

#[test]
fn refusals_are_those_of_the_canonical_kernel() {
    let mut overflowing = Draw(3).mlp(&[4, 8, 2]);
    overflowing.layers[0].weights.fill(f32::MAX);
    let mut large = Draw(3).mlp(&[4, 8, 2]);
    large.layers[1].weights.fill(3e38);
    for mlp in [Draw(3).mlp(&[4, 8, 2]), overflowing, large] {
        let (plain, engine) = (Engine::new(&mlp, Isa::best()).unwrap(), certified(&mlp, Isa::best()));
        let (mut ours, mut theirs) = (engine.scratch(), plain.scratch());
        for state in [&[0.0; 4][..], &[1.0; 4], &[f32::NAN; 4], &[2.0; 4], &[0.5; 3]] {
            for mask in [&[true; 2][..], &[false; 2], &[true; 3]] {
                let found = engine.decide(&mut ours, state, mask).map(|decision| decision.action);
                let expected = plain.decide(&mut theirs, state, mask).map(|decision| decision.action);
                assert_eq!(found.map_err(|error| error.to_string()), expected.map_err(|error| error.to_string()));
            }
        }
    }
}

#[test]
fn what_the_arithmetic_is_not_made_for_is_never_certified() {
    let check = |mlp: &Mlp, range: f32| {
        let engine = certified(mlp, Isa::best()).with_state_range(-range..=range);
        assert_eq!(engine.precision(), Precision::Certified);
        let mask = vec![true; engine.actions()];
        let state = vec![range.min(1.0); engine.width()];
        engine.decide(&mut engine.scratch(), &state, &mask).unwrap().certified
    };
    let mut huge = Draw(1).mlp(&[3, 4, 2]);
    huge.layers[0].weights[0] = 1e20;
    assert!(check(&Draw(1).mlp(&[3, 4, 2]), 1.0));
    assert!(check(&Draw(1).mlp(&[3, 4, 2]), 4.8));
    assert!(!check(&Draw(1).mlp(&[3, 4, 2]), f32::MAX));
    assert!(!check(&Draw(1).mlp(&[3, 2]), 1.0));
    assert!(!check(&Draw(1).mlp(&[3, 4, 65]), 1.0));
    assert!(!check(&huge, 1.0));
    // A range with an end that is no number lets any finite state pass.
    for range in [f32::NAN..=1.0, -1.0..=f32::NAN] {
        let engine = certified(&Draw(1).mlp(&[3, 4, 2]), Isa::best()).with_state_range(range);
        assert!(!engine.decide(&mut engine.scratch(), &[0.5; 3], &[true; 2]).unwrap().certified);
    }
}

#[test]
fn a_scratch_of_an_exact_engine_is_refused_or_grown() {
    let mlp = Draw(1).mlp(&[3, 40, 2]);
    let mut scratch = Engine::new(&mlp, Isa::best()).unwrap().scratch();
    let engine = certified(&mlp, Isa::best());
    assert!(engine.decide(&mut scratch, &[0.5; 3], &[true; 2]).is_err());
    scratch.grow(&engine);
    assert!(engine.decide(&mut scratch, &[0.5; 3], &[true; 2]).is_ok());
}
