//! A run that was stopped goes on as if it had not been.

use crate::loops::{events, small};
use bellwether_trainer::control::CartPole;
use bellwether_trainer::dqn::{DqnConfig, DqnError, DqnEvent, DqnTrainer, LossConfig, UpdateConfig, Variant};
use bellwether_trainer::learner::fused::FusedOptions;
use bellwether_trainer::schedule::{Decay, StepSizeSchedule};
use proptest::prelude::*;

const LIMIT: u64 = 1 << 24;

fn config(total_steps: u64, variant: Variant) -> DqnConfig {
    let learning_rate_schedule =
        StepSizeSchedule { warm_up: 5, decay: Decay::Cosine, decay_steps: 40, final_share: 0.1 };
    // Errors that are cut off are the same for all targets that are far away.
    let loss = LossConfig::Huber(20.0);
    let small = small();
    let update = UpdateConfig { loss, learning_rate: 0.01, input_dropout: 0.1, learning_rate_schedule, ..small.update };
    variant.of(DqnConfig { total_steps, update, ..small }, [0.0, 50.0])
}

fn seats() -> Vec<CartPole> {
    vec![CartPole::default(); 2]
}

fn restore(bytes: &[u8], config: DqnConfig) -> Result<DqnTrainer<CartPole>, DqnError> {
    DqnTrainer::restore(bytes, config, seats(), FusedOptions::default(), LIMIT)
}

/// A run of this many steps, what happened in it, and its bytes.
fn run(total_steps: u64, variant: Variant) -> (Vec<DqnEvent>, Vec<u8>) {
    let mut run = DqnTrainer::new(config(total_steps, variant), seats(), FusedOptions::default()).unwrap();
    let events = events(&mut run);
    let mut bytes = Vec::new();
    run.save(&mut bytes).unwrap();
    (events, bytes)
}

/// Compares a run with one that was stopped after `first` steps and went on for `more`.
fn goes_on_exactly(first: u64, more: u64, variant: Variant) -> Result<(), TestCaseError> {
    let (expected, last) = run(first + more, variant);
    let (mut seen, bytes) = run(first, variant);
    let mut restored = restore(&bytes, config(first + more, variant)).unwrap();
    seen.extend(events(&mut restored));
    prop_assert_eq!(seen, expected);
    let mut again = Vec::new();
    restored.save(&mut again).unwrap();
    prop_assert!(again == last, "the bytes differ");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the algorithm: optimiser, buffer, priorities, streams of random numbers, schedules and counters are all kept.
    #[test]
    fn a_restored_run_goes_on_exactly(
        first in 1..200u64, more in 1..100u64, variant in prop::sample::select(&Variant::ALL[..]),
    ) {
        goes_on_exactly(first, more, variant)?;
    }
}

/// An episode of one environment has ended after 22 steps, and the other one takes the next step.
#[test]
fn an_episode_that_has_ended_leaves_nothing_behind() {
    goes_on_exactly(22, 1, Variant::Dqn).unwrap();
}

#[test]
fn damage_and_other_runs_are_refused() {
    let config = config(150, Variant::Rainbow);
    let (_, bytes) = run(150, Variant::Rainbow);
    assert!(restore(&bytes, config.clone()).is_ok());
    let other = DqnConfig { target_update_interval: 31, ..config.clone() };
    assert!(matches!(restore(&bytes, other), Err(DqnError::Checkpoint(_))));
    let one =
        DqnTrainer::restore(&bytes[..], config.clone(), vec![CartPole::default()], FusedOptions::default(), LIMIT);
    assert!(matches!(one.err(), Some(DqnError::Checkpoint(_))));
    for at in (0..bytes.len()).step_by(97) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(restore(&damaged, config.clone()).is_err(), "byte {at}");
        assert!(restore(&bytes[..at], config.clone()).is_err(), "cut at {at}");
    }
}

/// What a run learns is the algorithm's trace, the same on every machine: what changes it says so here.
#[test]
fn every_variant_learns_what_it_learned_before() {
    let trace = |variant: Variant| {
        let mut run = DqnTrainer::new(config(300, variant), seats(), FusedOptions::default()).unwrap();
        events(&mut run);
        let mut bytes = Vec::new();
        run.learner().state().write(&mut bytes).unwrap();
        // A checksum of bytes that end in theirs is the same for all.
        format!("{variant:?} {:08x}", crc32c::crc32c(&bytes[..bytes.len() - 4]))
    };
    let expected = [
        "Dqn 48137505",
        "Double 0d028bb7",
        "Dueling 5a588ce3",
        "MultiStep 441a61d5",
        "Prioritised 314b02aa",
        "Categorical cada36dc",
        "Quantiles 68d553e1",
        "Noisy 38676320",
        "Munchausen b500d6e1",
        "Rainbow f4a4568e",
    ];
    assert_eq!(Variant::ALL.map(trace), expected);
}
