//! What a policy promises: the answers of the engine alone, one model per episode, and changes that are whole or refused.
#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod manifests;
mod nets;

use std::collections::BTreeMap;

use bellwether_artifact::{OperatingPoint, Sha256};
use bellwether_inference::model::{Contract, Expectation, Mlp};
use bellwether_inference::policy::{Latency, Limits, ModelId, Options, Refusal, Role, SampleCounts, Sampling};
use bellwether_inference::release::check_release;
use bellwether_inference::{DecideError, Decider, GoldenError, Isa, LoadedRelease, Policy, PolicyError, Precision};
use manifests::{release, sealed};
use nets::{Draw, state_for};
use proptest::prelude::*;

const WIDTH: usize = 12;
const ALL: [bool; 5] = [true; 5];

fn network(seed: u64) -> Mlp {
    Draw(seed).mlp(&[WIDTH, 16, 5])
}

fn policy(seed: u64) -> Policy {
    Policy::new(release(&network(seed)), Some(0), Options::default()).unwrap()
}

/// A network of widths that a policy with this limit admits.
fn within(limit: usize) -> impl Strategy<Value = Mlp> {
    let width = prop_oneof![3 => 1..=limit, 1 => Just(limit)];
    (proptest::collection::vec(width, 0..4), any::<u64>()).prop_map(|(hidden, seed)| {
        let widths = [&[WIDTH], hidden.as_slice(), &[5]].concat();
        Draw(seed).mlp(&widths)
    })
}

fn precision() -> impl Strategy<Value = Precision> {
    prop_oneof![Just(Precision::Exact), Just(Precision::Certified)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn decisions_are_those_of_the_engine_alone_before_and_after_a_swap(
        networks in (within(48), within(48)),
        precision in precision(),
        mask in proptest::array::uniform5(any::<bool>()),
        seed in any::<u64>(),
    ) {
        let options = Options { precision, limits: Limits { hidden_width: 48 }, time_every: 3, ..Options::default() };
        let policy = Policy::new(release(&networks.0), None, options).unwrap();
        let mut decider = policy.decider();
        for (mlp, number) in [(&networks.0, None), (&networks.1, Some(7))] {
            if number.is_some() {
                policy.swap(release(mlp), number).unwrap();
            }
            let LoadedRelease { manifest, engine, .. } = release(mlp);
            let engine = engine.with_precision(precision);
            let (mut scratch, mut again) = (engine.scratch(), engine.scratch());
            let states: Vec<f32> = (0..4).flat_map(|row| state_for(mlp, seed ^ row)).collect();
            let masks = [mask, ALL, [false; 5], mask].concat();
            let mut batch = Vec::new();
            decider.decide_batch(&states, &masks, |row, answer| {
                let answer = answer.map(|answer| (answer.decision.action, answer.decision.q_values.to_vec(), answer.model));
                batch.push((row, answer));
            }).unwrap();
            for (row, (state, mask)) in states.chunks(WIDTH).zip(masks.chunks(5)).enumerate() {
                let expected = engine.decide(&mut scratch, state, mask);
                let id = ModelId { version: manifest.version, number };
                let of_batch = expected.clone().map(|decision| (decision.action, decision.q_values.to_vec(), id));
                prop_assert_eq!(&batch[row], &(row, of_batch));
                let answer = decider.decide(state, mask);
                prop_assert!(answer.is_err() || answer.is_ok_and(|answer| (answer.model, answer.role) == (id, Role::Champion)));
                prop_assert_eq!(decider.decide(state, mask).map(|answer| answer.decision), expected);
                let alone = engine.decide(&mut again, state, mask);
                prop_assert_eq!(decider.decide_in(seed, state, mask).map(|answer| answer.decision), alone);
            }
        }
    }

    #[test]
    fn an_episode_has_one_model_and_the_canary_its_share(share in 0.02_f64..1.0, first in any::<u64>()) {
        let (policy, state) = (policy(1), state_for(&network(1), 1));
        policy.try_out(release(&network(2)), Some(1), share).unwrap();
        let mut deciders = [policy.decider(), policy.decider()];
        let roles: Vec<Role> = (0..400_u64).map(|episode| role(&mut deciders[0], first.wrapping_add(episode), &state)).collect();
        // Again, by another decider, and after the canary's share has grown.
        for (episode, &before) in roles.iter().enumerate() {
            prop_assert_eq!(role(&mut deciders[1], first.wrapping_add(episode as u64), &state), before);
        }
        let canaries = roles.iter().filter(|role| **role == Role::Canary).count() as f64;
        prop_assert!((canaries - 400.0 * share).abs() <= 6.0 * (400.0 * share * (1.0 - share)).sqrt() + 1.0, "{canaries}");
        policy.set_share(share + (1.0 - share) / 2.0).unwrap();
        for (episode, &before) in roles.iter().enumerate() {
            let after = role(&mut deciders[1], first.wrapping_add(episode as u64), &state);
            prop_assert!(before == Role::Champion || after == Role::Canary);
        }
        // Without an episode there is no canary.
        prop_assert_eq!(deciders[0].decide(&state, &ALL).unwrap().role, Role::Champion);
    }

    #[test]
    fn any_sequence_of_changes_leaves_what_the_rules_say(
        changes in proptest::collection::vec((0_usize..8, any::<bool>()), 0..24),
    ) {
        let (policy, state) = (policy(0), state_for(&network(0), 3));
        let mut decider = policy.decider();
        let (mut champion, mut previous, mut canary, mut pinned) = (0, None, None, false);
        let mut counts = BTreeMap::<u32, u64>::new();
        for ((change, look), number) in changes.into_iter().zip(1_u32..) {
            let model = || release(&network(u64::from(number)));
            let done = match change {
                0 | 1 => policy.swap(model(), Some(number)).map(|before| assert_eq!(before.number, Some(champion))),
                2 => policy.try_out(model(), Some(number), 1.0),
                3 => policy.withdraw().map(|id| assert_eq!(id.number, canary)),
                4 => policy.promote().map(|id| assert_eq!(id.number, canary)),
                5 => policy.roll_back().map(|id| assert_eq!(id.number, previous)),
                6 => { policy.pin(); Ok(()) }
                _ => { policy.unpin(); Ok(()) }
            };
            let expected = match change {
                0 | 1 | 4 | 5 if pinned => Err(PolicyError::Pinned),
                3 | 4 if canary.is_none() => Err(PolicyError::NoCanary),
                5 if previous.is_none() => Err(PolicyError::NoPrevious),
                _ => Ok(()),
            };
            prop_assert_eq!(&done, &expected);
            if done.is_ok() {
                match change {
                    0 | 1 => previous = Some(std::mem::replace(&mut champion, number)),
                    2 => canary = Some(number),
                    3 => canary = None,
                    4 => previous = canary.take().map(|new| std::mem::replace(&mut champion, new)),
                    5 => champion = previous.take().unwrap(),
                    6 => pinned = true,
                    _ => pinned = false,
                }
            }
            let status = policy.status();
            prop_assert_eq!(status.champion.number, Some(champion));
            prop_assert_eq!(status.previous.and_then(|id| id.number), previous);
            prop_assert_eq!(status.canary.and_then(|(id, _)| id.number), canary);
            prop_assert_eq!(status.pinned, pinned);
            let kept = 1 + usize::from(previous.is_some()) + usize::from(canary.is_some());
            prop_assert_eq!(status.models_resident, kept);
            if look {
                prop_assert_eq!(decider.decide(&state, &ALL).unwrap().model.number, Some(champion));
                let by = canary.unwrap_or(champion);
                prop_assert_eq!(decider.decide_in(u64::from(number), &state, &ALL).unwrap().model.number, Some(by));
                *counts.entry(champion).or_default() += 1;
                *counts.entry(by).or_default() += 1;
            }
        }
        let tallies = policy.metrics().models;
        let counted = tallies.iter().map(|(id, tally)| (id.number.unwrap(), tally.total())).filter(|(_, count)| *count > 0);
        prop_assert_eq!(counted.collect::<BTreeMap<_, _>>(), counts);
    }
}

fn role(decider: &mut Decider, episode: u64, state: &[f32]) -> Role {
    decider.decide_in(episode, state, &ALL).unwrap().role
}

/// A release of a network under another contract or with a changed manifest.
fn foreign(mlp: &Mlp, change: impl FnOnce(&mut Contract)) -> LoadedRelease {
    let mut contract = Contract::sandbox(mlp.inputs(), Sha256::of(b"spec"));
    change(&mut contract);
    let (manifest, onnx) = sealed(mlp, &contract, |_| {});
    check_release(manifest, &onnx, &Expectation::new(contract), Isa::best()).unwrap()
}

#[test]
fn another_contract_is_refused_by_name_and_changes_nothing() {
    let policy = policy(1);
    let mut decider = policy.decider();
    let check = |release: LoadedRelease, expected: &str| {
        let before = policy.status();
        match policy.swap(release, None).unwrap_err() {
            PolicyError::Contract { field, .. } => assert_eq!(field, expected),
            error => panic!("{error}"),
        }
        assert_eq!(policy.status(), before);
    };
    check(foreign(&network(2), |contract| contract.feature_spec = Sha256::of(b"other")), "features.spec_sha256");
    check(release(&Draw(2).mlp(&[WIDTH + 1, 16, 5])), "features.width");
    check(foreign(&network(2), |contract| contract.action_set += 1), "actions.set_version");
    check(foreign(&network(2), |contract| contract.actions.swap(2, 3)), "actions.names");
    let mut windows = release(&network(2));
    windows.manifest.features.window.max_events = 16;
    check(windows, "features.window");
    assert_eq!(decider.decide(&[0.5; WIDTH], &ALL).unwrap().model.number, Some(0));
}

#[test]
fn a_policy_states_the_contract_that_its_models_keep() {
    let policy = policy(1);
    let contract = policy.contract();
    assert_eq!(contract, Contract::sandbox(WIDTH, Sha256::of(b"spec")));
    assert_eq!((policy.width(), policy.actions()), (WIDTH, contract.actions.as_slice()));
}

#[test]
fn a_model_that_is_not_what_it_says_is_refused() {
    let policy = policy(1);
    let refused = |change: &dyn Fn(&mut LoadedRelease)| {
        let mut release = release(&network(2));
        change(&mut release);
        let before = policy.status();
        let error = policy.swap(release, None).unwrap_err();
        assert_eq!(policy.status(), before);
        error
    };
    assert_eq!(refused(&|release| release.manifest.golden.clear()), PolicyError::Golden(GoldenError::Missing));
    let nudge = |release: &mut LoadedRelease| {
        let value = &mut release.manifest.golden[3].q_values[0];
        *value = value.next_up();
    };
    let error = refused(&nudge);
    assert!(matches!(error, PolicyError::Golden(GoldenError::Values { index: 3, action: 0, .. })), "{error}");
    let relabel = |release: &mut LoadedRelease| release.manifest.golden[0].action ^= 1;
    let error = refused(&relabel);
    assert!(matches!(error, PolicyError::Golden(GoldenError::Action { index: 0, .. })), "{error}");
    let error = refused(&|release| release.manifest.golden[1].mask = vec![false; 5]);
    assert_eq!(error, PolicyError::Golden(GoldenError::Refused { index: 1, cause: DecideError::EmptyMask }));
    let error = refused(&|other| other.engine = release(&Draw(3).mlp(&[WIDTH + 1, 4, 5])).engine);
    assert!(matches!(error, PolicyError::Binding { found: 12, expected: 13, .. }), "{error}");
}

#[test]
fn a_network_beyond_the_limits_is_refused_by_layer() {
    let options = Options { limits: Limits { hidden_width: 32 }, ..Options::default() };
    let policy = Policy::new(release(&network(1)), None, options).unwrap();
    policy.swap(release(&Draw(2).mlp(&[WIDTH, 32, 32, 5])), None).unwrap();
    let too_wide = || release(&Draw(2).mlp(&[WIDTH, 32, 33, 5]));
    let expected = PolicyError::TooWide { layer: 1, width: 33, limit: 32 };
    assert_eq!(policy.swap(too_wide(), None), Err(expected.clone()));
    assert_eq!(policy.try_out(too_wide(), None, 0.5), Err(expected.clone()));
    assert_eq!(Policy::new(too_wide(), None, options).unwrap_err(), expected);
    for hidden_width in [0, 65_537, usize::MAX] {
        let options = Options { limits: Limits { hidden_width }, ..options };
        let error = Policy::new(release(&network(1)), None, options).unwrap_err();
        assert_eq!(error, PolicyError::Limits { hidden_width });
    }
}

#[test]
fn shares_out_of_range_are_refused_before_any_work() {
    let policy = policy(1);
    for share in [0.0, -1.0, 1.5, f64::NAN] {
        assert!(matches!(policy.try_out(release(&network(2)), None, share), Err(PolicyError::Share(_))));
        assert!(matches!(policy.set_share(share), Err(PolicyError::Share(_))));
    }
    assert_eq!(policy.set_share(0.5), Err(PolicyError::NoCanary));
}

#[test]
fn metrics_keep_what_deciders_that_are_gone_have_counted() {
    let policy = Policy::new(release(&network(1)), None, Options { time_every: 2, ..Options::default() }).unwrap();
    let state = [0.5; WIDTH];
    for _ in 0..3 {
        let mut decider = policy.decider();
        (0..10).for_each(|_| assert!(decider.decide(&state, &ALL).is_ok()));
        assert!(decider.decide(&state[1..], &ALL).is_err());
        assert!(decider.decide(&[2.0; WIDTH], &ALL).is_err());
        assert!(decider.decide(&[f32::INFINITY; WIDTH], &ALL).is_err());
        assert!(decider.decide(&state, &ALL[1..]).is_err());
        assert!(decider.decide(&state, &[false; 5]).is_err());
        assert!(decider.decide_batch(&state, &[], |_, _| ()).is_err());
    }
    let (metrics, status) = (policy.metrics(), policy.status());
    assert_eq!(status.deciders, 0);
    assert_eq!(metrics.models.len(), 1);
    let (id, tally) = &metrics.models[0];
    let action = policy.decider().decide(&state, &ALL).unwrap().decision.action;
    let decisions: Vec<u64> = (0..5).map(|other| if other == action { 30 } else { 0 }).collect();
    assert_eq!((*id, &tally.decisions, tally.overflows), (status.champion, &decisions, 0));
    let expected = |refusal| match refusal {
        Refusal::Overflow | Refusal::Scratch | Refusal::OnnxRuntime => 0,
        _ => 3,
    };
    assert_eq!(metrics.refusals, Refusal::ALL.map(|refusal| (refusal, expected(refusal))));
    // One of two is timed, refused ones left out: the 2nd, 4th, ... of ten.
    assert_eq!(metrics.latency.counts.iter().sum::<u64>(), 15);
    let upper: u128 = (0..Latency::BOUNDS)
        .map(|index| u128::from(metrics.latency.counts[index]) * Latency::bound(index).as_nanos())
        .sum();
    assert!(metrics.latency.counts[Latency::BOUNDS] > 0 || metrics.latency.total.as_nanos() <= upper);
}

#[test]
fn untimed_policies_read_no_clock_and_models_that_overflow_are_named() {
    // A state of ones overflows; the golden states, which are mostly zero, do not.
    let mut mlp = network(1);
    mlp.layers[0].weights.iter_mut().for_each(|weight| *weight = 3.2e37);
    mlp.layers[1].weights.iter_mut().for_each(|weight| *weight = 1e-38);
    let options = Options { time_every: 0, precision: Precision::Exact, ..Options::default() };
    let policy = Policy::new(release(&mlp), None, options).unwrap();
    let mut decider = policy.decider();
    assert!(decider.decide(&[0.1; WIDTH], &ALL).is_ok());
    assert_eq!(decider.decide(&[1.0; WIDTH], &ALL), Err(DecideError::Overflow { layer: 0 }));
    let metrics = policy.metrics();
    assert_eq!((metrics.models[0].1.total(), metrics.models[0].1.overflows), (1, 1));
    assert_eq!(metrics.latency.counts, [0; Latency::BOUNDS + 1]);
}

#[test]
fn counts_of_many_models_are_kept_in_bounded_memory() {
    let policy = policy(0);
    let (mut decider, state) = (policy.decider(), [0.5; WIDTH]);
    for number in 1..=100 {
        assert!(decider.decide(&state, &ALL).is_ok());
        policy.swap(release(&network(number)), Some(number as u32)).unwrap();
    }
    let metrics = policy.metrics();
    assert_eq!((metrics.models.len(), metrics.models_resident), (34, 2));
    let named: u64 = metrics.models.iter().map(|(_, tally)| tally.total()).sum();
    assert_eq!((named, metrics.earlier.total()), (33, 67));
}

#[test]
fn a_held_model_answers_throughout_a_swap_and_shows_its_own_table() {
    let table = |target_fpr: f64| {
        let contract = Contract::sandbox(WIDTH, Sha256::of(b"spec"));
        let point =
            OperatingPoint { target_fpr, cost: 0.5, calibration_fpr: Some(target_fpr), calibration_tpr: Some(0.9) };
        let (manifest, onnx) = sealed(&network(1), &contract, |manifest| manifest.operating_points = vec![point]);
        check_release(manifest, &onnx, &Expectation::new(contract), Isa::best()).unwrap()
    };
    let policy = Policy::new(table(0.01), Some(1), Options::default()).unwrap();
    let mut decider = policy.decider();
    let state = state_for(&network(1), 3);
    let first = decider.decide(&state, &ALL).unwrap().model;
    decider.hold(None, |held| {
        policy.swap(table(0.05), Some(2)).unwrap();
        assert_eq!((held.id(), held.role()), (first, Role::Champion));
        assert_eq!(held.operating_points()[0].target_fpr, 0.01);
        assert_eq!(held.decide(&state, &ALL).unwrap().model, first);
    });
    let after = decider.hold(None, |held| (held.id().number, held.operating_points()[0].target_fpr));
    assert_eq!(after, (Some(2), 0.05));
    let decided = policy.metrics().models.iter().map(|(_, tally)| tally.total()).sum::<u64>();
    assert_eq!(decided, 2);
}

#[test]
fn rows_of_a_batch_go_to_the_models_of_their_episodes() {
    let (policy, state) = (policy(1), state_for(&network(1), 1));
    policy.try_out(release(&network(2)), Some(1), 0.5).unwrap();
    let (mut decider, mut other) = (policy.decider(), policy.decider());
    let episodes: Vec<u64> = (0..200).map(|row| row / 4).collect();
    let states = state.repeat(episodes.len());
    let masks = vec![true; 5 * episodes.len()];
    let mut roles = Vec::new();
    let batch = decider.decide_batch_in(&episodes, &states, &masks, |row, answer| {
        let answer = answer.unwrap();
        roles.push(answer.role);
        let alone = other.decide_in(episodes[row], &state, &ALL).unwrap();
        assert_eq!((alone.decision, alone.model, alone.role), (answer.decision, answer.model, answer.role));
    });
    batch.unwrap();
    assert!(roles.len() == 200 && roles.contains(&Role::Canary) && roles.contains(&Role::Champion));
    for wrong in [&episodes[1..], &[]] {
        let refused = decider.decide_batch_in(wrong, &states, &masks, |_, _| panic!("no row is decided"));
        assert!(matches!(refused, Err(DecideError::BatchShape { .. })));
    }
}

/// All states that a policy has set aside, with their masks.
fn samples(policy: &Policy) -> Vec<(Vec<f32>, Vec<bool>)> {
    let mut all = Vec::new();
    policy.drain_samples(|state, mask| all.push((state.to_vec(), mask.to_vec())));
    all
}

#[test]
fn one_state_of_so_many_is_set_aside_while_somebody_listens() {
    let sampling = Sampling { every: 3, capacity: 4 };
    let policy = Policy::new(release(&network(1)), None, Options { sampling, ..Options::default() }).unwrap();
    let mut decider = policy.decider();
    let states: Vec<Vec<f32>> = (0..30).map(|seed| state_for(&network(1), seed)).collect();
    for state in &states[..9] {
        decider.decide(state, &ALL).unwrap();
    }
    assert_eq!(samples(&policy), []);
    policy.listen(true);
    // What was refused is not set aside, and does not count.
    assert!(decider.decide(&[f32::NAN; WIDTH], &ALL).is_err());
    let mask = [true, false, true, true, false];
    for state in &states[9..18] {
        decider.decide(state, &mask).unwrap();
    }
    let expected: Vec<_> = [11, 14, 17].map(|index| (states[index].clone(), mask.to_vec())).into();
    assert_eq!(samples(&policy), expected);
    // Rows of batches and what is asked of a held model too.
    decider.decide_batch(&states[18..21].concat(), &[true; 15], |_, _| ()).unwrap();
    decider.hold(None, |held| {
        for state in &states[21..24] {
            held.decide(state, &ALL).unwrap();
        }
    });
    let expected: Vec<_> = [20, 23].map(|index| (states[index].clone(), ALL.to_vec())).into();
    assert_eq!(samples(&policy), expected);
    for state in &states {
        decider.decide(state, &ALL).unwrap();
    }
    assert_eq!((samples(&policy).len(), policy.metrics().samples), (4, SampleCounts { taken: 9, dropped: 6 }));
    policy.listen(false);
    decider.decide_batch(&states.concat(), &[true; 150], |_, _| ()).unwrap();
    assert_eq!(samples(&policy), []);
    drop(decider);
    assert_eq!(policy.metrics().samples, SampleCounts { taken: 9, dropped: 6 });
}

#[test]
fn a_candidate_decides_beside_the_policy_and_takes_the_place_of_the_champion_it_expects() {
    let (policy, state) = (policy(1), state_for(&network(1), 1));
    let mut scratch = policy.scratch();
    let candidate = policy.prepare(release(&network(2)), Some(2)).unwrap();
    assert_eq!(policy.status().models_resident, 1);
    let (champion, previous) = policy.kept();
    assert!(previous.is_none());
    let q_values =
        |decision: Result<bellwether_inference::Decision<'_>, DecideError>| decision.unwrap().q_values.to_vec();
    let before = q_values(champion.decide(&mut scratch, &state, &ALL));
    let after = q_values(candidate.decide(&mut scratch, &state, &ALL));
    let mut decider = policy.decider();
    assert_eq!(decider.decide(&state, &ALL).unwrap().decision.q_values, before);
    let other = ModelId { number: Some(99), ..champion.id() };
    let refused = policy.prepare(release(&network(3)), Some(3)).unwrap().swap_in(other);
    assert_eq!(refused, Err(PolicyError::Changed { found: champion.id(), expected: other }));
    assert_eq!(candidate.swap_in(champion.id()).unwrap(), champion.id());
    assert_eq!(decider.decide(&state, &ALL).unwrap().decision.q_values, after);
    // What is kept outside stays in memory, and is given back after.
    policy.swap(release(&network(4)), Some(4)).unwrap();
    assert_eq!(policy.status().models_resident, 3);
    drop(champion);
    assert_eq!((policy.reap(), policy.status().models_resident), (1, 2));
}

#[test]
fn a_version_that_was_rolled_back_is_remembered_until_it_is_brought_or_forgiven() {
    let policy = policy(1);
    let version = release(&network(2)).manifest.version;
    let id = ModelId { version, number: Some(2) };
    for forgiven in [true, false] {
        policy.swap(release(&network(2)), Some(2)).unwrap();
        assert!(!policy.was_rolled_back(version));
        let other = ModelId { version, number: Some(3) };
        assert_eq!(policy.roll_back_from(other), Err(PolicyError::Changed { found: id, expected: other }));
        policy.roll_back_from(id).unwrap();
        assert!(policy.was_rolled_back(version));
        if forgiven {
            policy.forgive();
            assert!(!policy.was_rolled_back(version));
        }
    }
}

#[test]
fn each_model_has_its_own_times() {
    let options = Options { time_every: 1, ..Options::default() };
    let policy = Policy::new(release(&network(1)), Some(1), options).unwrap();
    let (mut decider, state) = (policy.decider(), state_for(&network(1), 1));
    for (number, decisions) in [(2, 5), (3, 7)] {
        policy.swap(release(&network(number)), Some(number as u32)).unwrap();
        (0..decisions).for_each(|_| assert!(decider.decide(&state, &ALL).is_ok()));
    }
    let metrics = policy.metrics();
    let timed: Vec<u64> = metrics.models.iter().map(|(_, tally)| tally.latency.timed()).collect();
    assert_eq!((timed, metrics.latency.timed()), (vec![0, 5, 7], 12));
}
