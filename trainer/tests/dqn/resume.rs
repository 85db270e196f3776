//! A run that was stopped goes on as if it had not been.

use crate::loops::{events, small};
use bellwether_trainer::control::CartPole;
use bellwether_trainer::dqn::{DqnConfig, DqnError, DqnEvent, DqnTrainer};
use bellwether_trainer::learner::fused::FusedOptions;
use proptest::prelude::*;

const LIMIT: u64 = 1 << 24;

fn config(total_steps: u64) -> DqnConfig {
    DqnConfig { total_steps, input_dropout: 0.1, n_step: 2, ..small() }
}

fn seats() -> Vec<CartPole> {
    vec![CartPole::default(); 2]
}

fn restore(bytes: &[u8], config: DqnConfig) -> Result<DqnTrainer<CartPole>, DqnError> {
    DqnTrainer::restore(bytes, config, seats(), FusedOptions::default(), LIMIT)
}

/// A run of this many steps, what happened in it, and its bytes.
fn run(total_steps: u64) -> (Vec<DqnEvent>, Vec<u8>) {
    let mut run = DqnTrainer::new(config(total_steps), seats(), FusedOptions::default()).unwrap();
    let events = events(&mut run);
    let mut bytes = Vec::new();
    run.save(&mut bytes).unwrap();
    (events, bytes)
}

/// Compares a run with one that was stopped after `first` steps and went on for `more`.
fn goes_on_exactly(first: u64, more: u64) -> Result<(), TestCaseError> {
    let (expected, last) = run(first + more);
    let (mut seen, bytes) = run(first);
    let mut restored = restore(&bytes, config(first + more)).unwrap();
    seen.extend(events(&mut restored));
    prop_assert_eq!(seen, expected);
    let mut again = Vec::new();
    restored.save(&mut again).unwrap();
    prop_assert!(again == last, "the bytes differ");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_restored_run_goes_on_exactly(first in 1..200u64, more in 1..100u64) {
        goes_on_exactly(first, more)?;
    }
}

/// An episode of one environment has ended after 22 steps, and the other one takes the next step.
#[test]
fn an_episode_that_has_ended_leaves_nothing_behind() {
    goes_on_exactly(22, 1).unwrap();
}

#[test]
fn damage_and_other_runs_are_refused() {
    let (_, bytes) = run(150);
    assert!(restore(&bytes, config(150)).is_ok());
    let other = DqnConfig { learning_rate: 0.5, ..config(150) };
    assert!(matches!(restore(&bytes, other), Err(DqnError::Checkpoint(_))));
    let one = DqnTrainer::restore(&bytes[..], config(150), vec![CartPole::default()], FusedOptions::default(), LIMIT);
    assert!(matches!(one.err(), Some(DqnError::Checkpoint(_))));
    for at in (0..bytes.len()).step_by(97) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(restore(&damaged, config(150)).is_err(), "byte {at}");
        assert!(restore(&bytes[..at], config(150)).is_err(), "cut at {at}");
    }
}
