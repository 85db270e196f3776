//! Threads decide while models are swapped: every answer is that of the model whose name it carries.
#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod manifests;
mod nets;
mod over;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bellwether_artifact::ModelVersion;
use bellwether_inference::model::Mlp;
use bellwether_inference::policy::{Limits, ModelId, Options, Role};
use bellwether_inference::{Decider, Engine, Isa, Policy, PolicyError, Precision};
use manifests::release;
use nets::{Draw, state_for};
use over::Over;

const WIDTH: usize = 12;
const MASK: [bool; 5] = [true, true, false, true, true];
const SWAPS: u32 = 1_000;
const THREADS: u64 = 4;

/// What each model answers in each state, as bytes.
type Expected = BTreeMap<ModelVersion, Vec<(usize, Vec<u32>)>>;

fn networks() -> Vec<Mlp> {
    let hidden: [&[usize]; 6] = [&[20], &[33], &[48], &[20, 20], &[40, 17], &[7, 7, 7]];
    let widths = hidden.map(|hidden| [&[WIDTH], hidden, &[5]].concat());
    widths.iter().zip(1..).map(|(widths, seed)| Draw(seed).mlp(widths)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn expected(networks: &[Mlp], states: &[Vec<f32>], precision: Precision) -> Expected {
    let answers = |mlp: &Mlp| {
        let engine = Engine::new(mlp, Isa::best()).unwrap().with_precision(precision);
        let mut scratch = engine.scratch();
        let mut answer = |state: &Vec<f32>| {
            let decision = engine.decide(&mut scratch, state, &MASK).unwrap();
            (decision.action, bits(decision.q_values))
        };
        states.iter().map(&mut answer).collect()
    };
    networks.iter().map(|mlp| (release(mlp).manifest.version, answers(mlp))).collect()
}

#[test]
fn a_thousand_swaps_give_no_wrong_answer_and_leave_no_model_behind() {
    for precision in [Precision::Exact, Precision::Certified] {
        let networks = networks();
        let states: Vec<Vec<f32>> = (0..16).map(|seed| state_for(&networks[0], seed)).collect();
        let expected = expected(&networks, &states, precision);
        assert_eq!(expected.len(), networks.len());
        let options = Options { precision, limits: Limits { hidden_width: 64 }, time_every: 4, ..Options::default() };
        let policy = Policy::new(release(&networks[0]), Some(0), options).unwrap();
        let done = AtomicBool::new(false);

        let (decisions, seen) = thread::scope(|scope| {
            let over = Over(&done);
            let workers: Vec<_> = (0..THREADS)
                .map(|thread| {
                    scope.spawn({
                        let (policy, states, expected, done) = (&policy, &states, &expected, &done);
                        move || work(policy, states, expected, done, thread)
                    })
                })
                .collect();
            scope.spawn(|| scrape(&policy, &done));
            for number in 1..=SWAPS {
                let mlp = &networks[number as usize % networks.len()];
                match number % 10 {
                    7 => policy.try_out(release(mlp), Some(number), 0.5).unwrap(),
                    8 => drop(policy.promote().unwrap()),
                    9 => drop(policy.roll_back().unwrap()),
                    _ => drop(policy.swap(release(mlp), Some(number)).unwrap()),
                }
            }
            drop(over);
            let results = workers.into_iter().map(|worker| worker.join().unwrap());
            results.fold((0, 0), |(decisions, seen), (more, models)| (decisions + more, seen.max(models)))
        });

        policy.reap();
        let (status, metrics) = (policy.status(), policy.metrics());
        assert_eq!((status.models_resident, status.deciders), (2, 0), "{status:?}");
        assert_eq!(status.champion.number, Some(SWAPS));
        // Every decision is counted once, under a model that is named or has been forgotten.
        let counted: u64 = metrics.models.iter().map(|(_, tally)| tally.total()).sum();
        assert_eq!(counted + metrics.earlier.total(), decisions);
        assert!(metrics.refusals.iter().all(|(_, count)| *count == 0), "{metrics:?}");
        assert!(seen > 1, "no thread saw a swap");
    }
}

/// Reads the metrics over and over: no count goes back, whatever comes and goes.
fn scrape(policy: &Policy, done: &AtomicBool) {
    let mut last = 0;
    while !done.load(Ordering::Relaxed) {
        let metrics = policy.metrics();
        let total = metrics.models.iter().map(|(_, tally)| tally.total()).sum::<u64>() + metrics.earlier.total();
        assert!(total >= last, "{total} after {last}");
        last = total;
        thread::yield_now();
    }
}

/// Decides until told to stop. Returns how many decisions there were, and of how many models.
fn work(policy: &Policy, states: &[Vec<f32>], expected: &Expected, done: &AtomicBool, thread: u64) -> (u64, usize) {
    let mut decider = policy.decider();
    let (mut decisions, mut seen, mut last) = (0_u64, 0, None::<ModelId>);
    while !done.load(Ordering::Relaxed) {
        let index = decisions as usize % states.len();
        let answer = match decisions % 3 {
            0 => decider.decide_in(decisions / 30 * THREADS + thread, &states[index], &MASK),
            _ => decider.decide(&states[index], &MASK),
        };
        let answer = answer.unwrap();
        let (action, q_values) = &expected[&answer.model.version][index];
        assert_eq!((answer.decision.action, &bits(answer.decision.q_values)), (*action, q_values));
        if answer.role == Role::Champion && last.replace(answer.model) != Some(answer.model) {
            seen += 1;
        }
        decisions += 1;
    }
    (decisions, seen)
}

#[test]
fn a_swap_is_seen_by_the_next_decision_and_an_idle_decider_keeps_no_model() {
    let networks = networks();
    let policy = Policy::new(release(&networks[0]), None, Options::default()).unwrap();
    let mut deciders: Vec<_> = (0..4).map(|_| policy.decider()).collect();
    let state = state_for(&networks[0], 1);
    for number in 1..50 {
        policy.swap(release(&networks[number as usize % networks.len()]), Some(number)).unwrap();
        // The champion and the one before it; all but one of the deciders stay idle.
        assert_eq!(policy.status().models_resident, 2);
        let answer = deciders[0].decide(&state, &MASK).unwrap();
        assert_eq!(answer.model.number, Some(number));
    }
    for decider in &mut deciders {
        assert_eq!(decider.decide(&state, &MASK).unwrap().model.number, Some(49));
    }
}

/// Holds what is served now in a batch, swaps, and goes on with the other deciders in the midst of it.
fn hold_and_swap(policy: &Policy, deciders: &mut [Decider], networks: &[Mlp], state: &[f32]) -> Option<PolicyError> {
    let (decider, others) = deciders.split_first_mut()?;
    let number = others.len() as u32;
    let mut refused = None;
    let batch = decider.decide_batch(state, &MASK, |_, before| {
        let before = before.unwrap();
        refused = match policy.swap(release(&networks[others.len() % networks.len()]), Some(number)) {
            Ok(replaced) => {
                assert_eq!(replaced, before.model);
                hold_and_swap(policy, others, networks, state)
            }
            Err(error) => Some(error),
        };
    });
    batch.unwrap();
    refused
}

#[test]
fn a_policy_whose_models_are_all_in_use_refuses_another_and_recovers() {
    let networks = networks();
    let policy = Policy::new(release(&networks[0]), None, Options::default()).unwrap();
    let state = state_for(&networks[0], 1);
    // One thread with many batches under way stands for many threads with one.
    let mut deciders: Vec<_> = (0..20).map(|_| policy.decider()).collect();
    let refused = hold_and_swap(&policy, &mut deciders, &networks, &state);
    assert_eq!(refused, Some(PolicyError::Crowded { resident: 8 }));
    // The batches are over, and none of them dropped a model: that is the reaper's.
    assert_eq!((policy.status().models_resident, policy.reap()), (8, 6));
    assert_eq!(policy.status().models_resident, 2);
    policy.swap(release(&networks[1]), Some(100)).unwrap();
    assert_eq!(deciders[0].decide(&state, &MASK).unwrap().model.number, Some(100));
}
