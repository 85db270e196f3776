//! A decision allocates nothing: counted, not claimed.

mod counting;
mod nets;

use bellwether_inference::{Engine, Isa, Precision};
use counting::calls_during;
use nets::Draw;

#[test]
fn the_counter_counts() {
    assert!(calls_during(|| drop(std::hint::black_box(vec![1_u8; 100]))) >= 2);
}

#[test]
fn decisions_and_refusals_allocate_nothing() {
    let mlp = Draw(1).mlp(&[64, 256, 256, 6]);
    let dueling = Draw(1).dueling(&[64, 256, 256, 6]);
    // Two equal actions, so that the certified engine has to fall back.
    let mut tied = mlp.clone();
    if let Some(last) = tied.layers.last_mut() {
        last.weights.chunks_exact_mut(6).for_each(|row| row.fill(row[0]));
        last.bias.fill(0.0);
    }
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        check(Engine::new(&mlp, isa).unwrap(), Some(false));
        check(Engine::new(&dueling, isa).unwrap(), Some(false));
        check(Engine::new(&dueling, isa).unwrap().with_precision(Precision::Certified), None);
        check(Engine::new(&mlp, isa).unwrap().with_precision(Precision::Certified), None);
        check(Engine::new(&tied, isa).unwrap().with_precision(Precision::Certified), Some(false));
    }
}

fn check(engine: Engine, certified: Option<bool>) {
    let mut scratch = engine.scratch();
    let (state, broken) = (vec![0.5; 64 * 3], vec![f32::NAN; 64]);
    let mask = vec![true; 6 * 3];
    let calls = calls_during(|| {
        for _ in 0..10 {
            let decision = engine.decide(&mut scratch, &state[..64], &mask[..6]);
            assert!(decision.is_ok_and(|decision| certified.is_none_or(|expected| decision.certified == expected)));
            assert!(engine.decide(&mut scratch, &broken, &mask[..6]).is_err());
            assert!(engine.decide(&mut scratch, &state[..64], &[false; 6]).is_err());
            let batch = engine.decide_batch(&mut scratch, &state, &mask, |_, decision| assert!(decision.is_ok()));
            assert!(batch.is_ok());
        }
    });
    assert_eq!(calls, 0, "{} {:?}", engine.isa(), engine.precision());
}
