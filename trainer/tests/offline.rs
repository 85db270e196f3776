//! What is learned from steps that others played.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use bellwether_replay::{ActionMask, DenseRows, Outcome, Played, ReplayBuffer};
use bellwether_trainer::dqn::{DqnError, DrawConfig, MunchausenConfig, PrioritisedConfig, UpdateConfig};
use bellwether_trainer::learner::Learner;
use bellwether_trainer::learner::fused::{FusedLearner, FusedOptions, Isa};
use bellwether_trainer::network::{NetworkConfig, Returns};
use bellwether_trainer::offline::{Algorithm, Judged, OfflineConfig, OfflineTrainer};
use bellwether_trainer::streams::stream;
use proptest::prelude::*;
use rand::Rng;

/// Rooms in a row; the last one's way to the right leads out and earns 1.
const ROOMS: usize = 5;
const GAMMA: f64 = 0.9;
const LEFT: u32 = 0;
const RIGHT: u32 = 1;
/// Nobody plays it, though the mask may allow it.
const UNTRIED: usize = 2;
const ACTIONS: usize = 3;

fn room(number: usize) -> [f32; ROOMS] {
    let mut state = [0.0; ROOMS];
    state[number] = 1.0;
    state
}

/// Fills a buffer with walks that go right in 7 of 10 steps.
fn walks(config: &OfflineConfig, steps: usize, untried_is_allowed: bool) -> ReplayBuffer {
    let mask = ActionMask::from_bools(&[true, true, untried_is_allowed]);
    let mut buffer = config.buffer(ROOMS, ACTIONS, steps).unwrap();
    let stream_id = buffer.add_stream();
    let mut rng = stream(9, "walks");
    let mut at = 0;
    buffer.begin(stream_id, &room(at), mask).unwrap();
    for _ in 0..steps - 1 {
        let right = rng.next_u32() % 10 < 7;
        let out = right && at == ROOMS - 1;
        let played = Played {
            action: if right { RIGHT } else { LEFT },
            reward: f32::from(u8::from(out)),
            behaviour_probability: if right { 0.7 } else { 0.3 },
        };
        at = if right { (at + 1) % ROOMS } else { at.saturating_sub(1) };
        if out {
            buffer.append(stream_id, played, Outcome::Terminated).unwrap();
            buffer.begin(stream_id, &room(at), mask).unwrap();
        } else {
            buffer.append(stream_id, played, Outcome::Continues { state: &room(at), mask }).unwrap();
        }
    }
    buffer
}

fn config(algorithm: Algorithm) -> OfflineConfig {
    OfflineConfig {
        seed: 4,
        updates: 1500,
        algorithm,
        cql_weight: 0.5,
        bcq_share: 0.2,
        network: NetworkConfig { hidden: vec![16], ..NetworkConfig::default() },
        update: UpdateConfig { batch_size: 32, gamma: GAMMA, learning_rate: 3e-3, ..UpdateConfig::default() },
        target_update_interval: 20,
        tau: 1.0,
        ..OfflineConfig::default()
    }
}

fn train(config: &OfflineConfig, buffer: ReplayBuffer) -> OfflineTrainer {
    let mut run = OfflineTrainer::new(config.clone(), buffer, FusedOptions::default()).unwrap();
    while !run.is_finished() {
        run.round().unwrap();
    }
    run
}

/// What the policy makes of every room, all actions being allowed.
fn judged(run: &mut OfflineTrainer) -> Judged {
    let rooms: Vec<f32> = (0..ROOMS).flat_map(room).collect();
    let mut judged = Judged::default();
    run.judge(&DenseRows::new(ROOMS, &rooms), &[true; ROOMS * ACTIONS], &mut judged).unwrap();
    judged
}

fn choices(judged: &Judged) -> Vec<usize> {
    let rows = judged.q_values.chunks(ACTIONS).zip(judged.masks.chunks(ACTIONS));
    rows.map(|(q, mask)| (0..ACTIONS).filter(|a| mask[*a]).max_by(|a, b| q[*a].total_cmp(&q[*b])).unwrap()).collect()
}

/// The value of an action in a room by Bellman's equation: it takes so many steps to the way out.
fn exact(at: usize, action: u32) -> f64 {
    let steps = if action == RIGHT { ROOMS - 1 - at } else { ROOMS - at.saturating_sub(1) };
    GAMMA.powi(steps as i32)
}

fn is_exact(judged: &Judged) {
    for (at, q) in judged.q_values.chunks(ACTIONS).enumerate() {
        for action in [LEFT, RIGHT] {
            let (found, exact) = (f64::from(q[action as usize]), exact(at, action));
            assert!((found - exact).abs() < 0.03, "room {at}, action {action}: {found}, not {exact}");
        }
    }
}

#[test]
fn where_all_that_is_allowed_was_tried_the_values_are_those_of_the_bellman_equation() {
    let config = config(Algorithm::Dqn);
    let mut run = train(&config, walks(&config, 2000, false));
    is_exact(&judged(&mut run));
}

/// The values that DQN makes up for what nobody tried spoil all others; BCQ asks for none of them.
#[test]
fn bcq_never_values_nor_plays_what_nobody_tried() {
    let config = config(Algorithm::Bcq);
    let mut run = train(&config, walks(&config, 2000, true));
    let judged = judged(&mut run);
    assert!(judged.masks.chunks(ACTIONS).all(|mask| mask == [true, true, false]), "{:?}", judged.masks);
    is_exact(&judged);
    assert_eq!(choices(&judged), [RIGHT as usize; ROOMS]);
    // What is released is one network that does the same.
    let (shape, parameters) = run.release().unwrap();
    let mut released = FusedLearner::new(shape, &parameters, FusedOptions::default()).unwrap();
    let rooms: Vec<f32> = (0..ROOMS).flat_map(room).collect();
    let mut q_values = Vec::new();
    released.q_values(&DenseRows::new(ROOMS, &rooms), &[], &mut q_values).unwrap();
    assert_eq!(choices(&Judged { q_values, masks: vec![true; ROOMS * ACTIONS] }), [RIGHT as usize; ROOMS]);
}

#[test]
fn cql_values_what_nobody_tried_least() {
    let config = config(Algorithm::Cql);
    let mut run = train(&config, walks(&config, 2000, true));
    let judged = judged(&mut run);
    for q in judged.q_values.chunks(ACTIONS) {
        assert!(q[UNTRIED] < q[0].min(q[1]) - 0.5, "{q:?}");
    }
    assert_eq!(choices(&judged), [RIGHT as usize; ROOMS]);
}

#[test]
fn cloning_plays_as_often_as_was_played() {
    let config = config(Algorithm::Cloning);
    let mut run = train(&config, walks(&config, 2000, true));
    for logits in judged(&mut run).q_values.chunks(ACTIONS) {
        let odds: Vec<f64> = logits.iter().map(|logit| f64::from(*logit).exp()).collect();
        let sum: f64 = odds.iter().sum();
        assert!((odds[RIGHT as usize] / sum - 0.7).abs() < 0.06, "{odds:?}");
        assert!(odds[UNTRIED] / sum < 0.02, "{odds:?}");
    }
}

/// A share that rules nothing out leaves DQN, to the byte: the imitator takes nothing from its streams.
#[test]
fn bcq_that_rules_nothing_out_is_dqn() {
    let state = |algorithm, share| {
        let mut config = OfflineConfig { bcq_share: share, ..config(algorithm) };
        (config.updates, config.update.input_dropout) = (50, 0.2);
        let mut run = train(&config, walks(&config, 300, false));
        run.learner().state()
    };
    let dqn = state(Algorithm::Dqn, 0.3);
    assert!(state(Algorithm::Bcq, 1e-30) == dqn);
    assert!(state(Algorithm::Bcq, 1.0) != dqn);
}

fn saved(run: &OfflineTrainer) -> Vec<u8> {
    let mut bytes = Vec::new();
    run.save(&mut bytes).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_restored_run_goes_on_exactly_on_every_machine(
        first in 1..60u64, more in 1..40u64, prioritised in any::<bool>(), dropout in any::<bool>(),
        algorithm in prop::sample::select(&[
            Algorithm::Dqn, Algorithm::Cql, Algorithm::Bcq, Algorithm::Cloning,
        ][..]),
    ) {
        let mut config = config(algorithm);
        config.metrics_interval = 7;
        if prioritised {
            config.update.draw = DrawConfig::Prioritised(PrioritisedConfig::default());
        }
        (config.update.input_dropout, config.update.n_step) = if dropout { (0.1, 3) } else { (0.0, 1) };
        let of = |updates| OfflineConfig { updates, ..config.clone() };
        let data = || walks(&config, 200, algorithm != Algorithm::Dqn);
        let expected = saved(&train(&of(first + more), data()));
        let begun = saved(&train(&of(first), data()));
        let scalar = FusedOptions { isa: Isa::Scalar, threads: 1 };
        let mut run = OfflineTrainer::new(of(first + more), data(), scalar).unwrap();
        run.restore(&begun[..]).unwrap();
        prop_assert_eq!(run.updates(), first);
        while !run.is_finished() {
            run.round().unwrap();
        }
        prop_assert!(saved(&run) == expected, "the bytes differ");
    }
}

#[test]
fn damage_and_other_runs_are_refused() {
    let mut config = config(Algorithm::Bcq);
    (config.updates, config.update.draw) = (5, DrawConfig::Prioritised(PrioritisedConfig::default()));
    let data = |steps| walks(&config, steps, true);
    let bytes = saved(&train(&config, data(100)));
    let restore = |bytes: &[u8], config: &OfflineConfig, steps| {
        let mut run = OfflineTrainer::new(config.clone(), data(steps), FusedOptions::default()).unwrap();
        run.restore(bytes).err()
    };
    assert!(restore(&bytes, &config, 100).is_none());
    for (config, steps) in [(OfflineConfig { tau: 0.5, ..config.clone() }, 100), (config.clone(), 90)] {
        assert!(matches!(restore(&bytes, &config, steps), Some(DqnError::Checkpoint(_))));
    }
    for at in (0..bytes.len()).step_by(61) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(restore(&damaged, &config, 100).is_some(), "byte {at}");
        assert!(restore(&bytes[..at], &config, 100).is_some(), "cut at {at}");
    }
}

#[test]
fn a_run_that_cannot_be_is_refused_by_its_key() {
    type Change = fn(&mut OfflineConfig);
    let cases: [(&str, Change); 12] = [
        ("updates", |c| c.updates = 0),
        ("cql_weight", |c| c.cql_weight = 0.0),
        ("bcq_share", |c| c.bcq_share = 1.5),
        ("update.munchausen", |c| {
            c.algorithm = Algorithm::Cloning;
            c.update.munchausen = Some(MunchausenConfig::default());
        }),
        ("network.returns", |c| {
            (c.algorithm, c.network.returns) = (Algorithm::Cloning, Returns::Quantiles(8));
        }),
        ("network.noisy_layers", |c| c.network.noisy_layers = 1),
        ("update.learning_rate", |c| c.update.learning_rate = f64::NAN),
        ("update.munchausen", |c| c.update.munchausen = Some(MunchausenConfig::default())),
        ("target_update_interval", |c| c.target_update_interval = 0),
        ("tau", |c| c.tau = 0.0),
        ("metrics_interval", |c| c.metrics_interval = 0),
        ("checkpoint_interval", |c| c.checkpoint_interval = 0),
    ];
    for (key, change) in cases {
        let mut config = OfflineConfig::default();
        config.validate().unwrap();
        change(&mut config);
        match config.validate() {
            Err(DqnError::Config(refused)) => assert_eq!(refused.key, key),
            other => panic!("{key}: {other:?}"),
        }
    }
    let text = serde_json::to_string(&OfflineConfig::default()).unwrap();
    assert_eq!(serde_json::from_str::<OfflineConfig>(&text).unwrap(), OfflineConfig::default());
    assert!(serde_json::from_str::<OfflineConfig>(r#"{"algoritm":"dqn"}"#).is_err());
}

#[test]
fn a_buffer_that_nothing_can_be_learned_from_is_refused() {
    let config = config(Algorithm::Dqn);
    let untried = OfflineTrainer::new(config.clone(), walks(&config, 50, true), FusedOptions::default()).err();
    let told = untried.unwrap().to_string();
    assert!(told.contains("action 2") && told.contains("cql"), "{told}");
    let empty = config.buffer(ROOMS, ACTIONS, 10).unwrap();
    let refused = OfflineTrainer::new(config.clone(), empty, FusedOptions::default()).err();
    assert!(matches!(refused, Some(DqnError::Replay(_))), "{refused:?}");
    let mut prioritised = config.clone();
    prioritised.update.draw = DrawConfig::Prioritised(PrioritisedConfig::default());
    let refused = OfflineTrainer::new(config.clone(), walks(&prioritised, 50, false), FusedOptions::default()).err();
    assert!(matches!(refused, Some(DqnError::Replay(_))), "{refused:?}");
}
