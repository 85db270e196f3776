//! A decider's decision allocates nothing, before a swap, right after it and on another thread: counted, not claimed.
#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod counting;
mod manifests;
mod nets;

use std::thread;

use bellwether_inference::policy::{Decider, Limits, Options, Sampling};
use bellwether_inference::{Policy, Precision};
use counting::calls_during;
use manifests::release;
use nets::Draw;

const WIDTH: usize = 24;

fn policy(precision: Precision) -> Policy {
    // Every state is set aside, where somebody listens, in rings that are soon full.
    let sampling = Sampling { every: 1, capacity: 8 };
    let options = Options { precision, limits: Limits { hidden_width: 128 }, time_every: 1, sampling };
    Policy::new(release(&Draw(1).mlp(&[WIDTH, 16, 5])), None, options).unwrap()
}

/// Decides in every way, and is refused in some.
fn decide(decider: &mut Decider) {
    let (states, masks) = ([0.25; 3 * WIDTH], [true; 15]);
    let (state, mask) = (&states[..WIDTH], &masks[..5]);
    for episode in 0..20 {
        assert!(decider.decide(state, mask).is_ok());
        assert!(decider.decide_in(episode, state, mask).is_ok());
        assert!(decider.decide(state, &[false; 5]).is_err());
        assert!(decider.decide(&[f32::NAN; WIDTH], mask).is_err());
    }
    assert!(decider.decide_batch(&states, &masks, |_, answer| assert!(answer.is_ok())).is_ok());
    assert!(decider.decide_batch(state, &masks, |_, _| ()).is_err());
    assert!(decider.decide_batch_in(&[1, 2, 3], &states, &masks, |_, answer| assert!(answer.is_ok())).is_ok());
}

#[test]
fn neither_the_first_decision_nor_one_after_a_swap_allocates() {
    for precision in [Precision::Exact, Precision::Certified] {
        let policy = policy(precision);
        let mut decider = policy.decider();
        assert_eq!(calls_during(|| decide(&mut decider)), 0, "first");
        // The largest network that the limits admit, and a canary.
        policy.swap(release(&Draw(2).mlp(&[WIDTH, 128, 128, 128, 5])), None).unwrap();
        assert_eq!(calls_during(|| decide(&mut decider)), 0, "after a swap");
        policy.try_out(release(&Draw(3).mlp(&[WIDTH, 100, 5])), None, 0.5).unwrap();
        assert_eq!(calls_during(|| decide(&mut decider)), 0, "with a canary");
        policy.roll_back().unwrap();
        assert_eq!(calls_during(|| decide(&mut decider)), 0, "after a rollback");
        for ring in ["empty", "full"] {
            policy.listen(true);
            assert_eq!(calls_during(|| decide(&mut decider)), 0, "into a ring that is {ring}");
        }
        let samples = policy.metrics().samples;
        assert!(samples.taken == 8 && samples.dropped > 0, "{samples:?}");
    }
}

#[test]
fn a_decider_may_go_to_another_thread_that_was_made_ready() {
    let policy = policy(Precision::Certified);
    let mut decider = policy.decider();
    let calls = thread::spawn(move || {
        policy.warm_thread();
        calls_during(|| decide(&mut decider))
    });
    assert_eq!(calls.join().unwrap(), 0);
}

#[test]
fn the_thread_that_makes_a_decider_is_ready() {
    let policy = policy(Precision::Certified);
    let calls = thread::spawn(move || {
        let mut decider = policy.decider();
        calls_during(|| decide(&mut decider))
    });
    assert_eq!(calls.join().unwrap(), 0);
}

#[test]
fn a_swap_while_a_batch_is_under_way_leaves_nothing_to_the_decider() {
    let policy = policy(Precision::Certified);
    let mut decider = policy.decider();
    let other = release(&Draw(2).mlp(&[WIDTH, 64, 5]));
    let mut other = Some(other);
    let mut inside = 0;
    let calls = calls_during(|| {
        let batch = decider.decide_batch(&[0.5; 2 * WIDTH], &[true; 10], |_, _| {
            inside += calls_during(|| {
                if let Some(other) = other.take() {
                    policy.swap(other, None).unwrap();
                }
            });
        });
        assert!(batch.is_ok());
    });
    // What was allocated and released is the swap's alone: the old model outlives the batch, though it was let go within.
    assert_eq!((calls - inside, inside > 0), (0, true));
    assert_eq!(policy.status().models_resident, 2);
}
