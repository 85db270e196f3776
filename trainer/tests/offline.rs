//! What is learned from steps that others played.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use bellwether_replay::episodes::{End, EpisodeFileHeader, EpisodeReader, EpisodeWriter, PlayedParts, Step, StepRow};
use bellwether_replay::streamed::{EpisodeSource, StreamedReplay};
use bellwether_replay::{ActionMask, BufferConfig, DenseRows, Encoding, ReplayBuffer};
use bellwether_trainer::dqn::{DqnError, DrawConfig, MunchausenConfig, PrioritisedConfig, UpdateConfig};
use bellwether_trainer::learner::Learner;
use bellwether_trainer::learner::fused::{FusedLearner, FusedOptions, Isa};
use bellwether_trainer::network::{NetworkConfig, Returns};
use bellwether_trainer::offline::{Algorithm, Judged, OfflineConfig, OfflineTrainer, Steps};
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

/// A file of walks that go right in 7 of 10 steps.
fn walk(steps: usize, untried_is_allowed: bool) -> EpisodeReader {
    interrupted_walk(steps, untried_is_allowed, usize::MAX)
}

/// The same, where the safe rule decides one step in so many, to do what the policy never does; it leads to the left.
fn interrupted_walk(steps: usize, untried_is_allowed: bool, one_in: usize) -> EpisodeReader {
    let mask = ActionMask::from_bools(&[true, true, untried_is_allowed]);
    let header = EpisodeFileHeader {
        width: ROOMS,
        actions: ACTIONS as u32,
        encoding: Encoding::Dense,
        spec_hash: "rooms".into(),
        action_set: "1".into(),
        reward: "{}".into(),
        sources: Vec::new(),
        policy: None,
        q_values: false,
        safe_rule: true,
    };
    let mut writer = EpisodeWriter::new(Vec::new(), header).unwrap().with_row_group_bytes(500);
    let mut rng = stream(9, "walks");
    let (mut episode, mut step, mut at) = (0, 0, 0);
    for left in (0..steps).rev() {
        let safe_rule = left % one_in == one_in - 1;
        let right = rng.next_u32() % 10 < 7 && !safe_rule;
        let out = right && at == ROOMS - 1;
        let played = PlayedParts {
            action: if safe_rule { UNTRIED as u32 } else { u32::from(right) },
            r0: f32::from(u8::from(out)),
            r1: 0.0,
            behaviour_probability: if right { 0.7 } else { 0.3 },
            safe_rule,
        };
        let end = if left == 0 { Some(End::Truncated) } else { out.then_some(End::Terminated) };
        let row = Step {
            episode_id: &format!("{episode}"),
            step,
            stage: 1,
            state: &room(at),
            action_mask: mask,
            played: (left > 0).then_some(played),
            end,
            partial: false,
            label: None,
            events_seen: 0,
            q_values: None,
        };
        writer.write(&row).unwrap();
        at = if right { (at + 1) % ROOMS } else { at.saturating_sub(1) };
        (episode, step) = if out { (episode + 1, 0) } else { (episode, step + 1) };
    }
    EpisodeReader::from_bytes(writer.finish().unwrap().0, None).unwrap()
}

fn earned(row: &StepRow) -> f32 {
    row.played.map_or(0.0, |played| played.r0)
}

/// The walks in memory.
fn walks(config: &OfflineConfig, steps: usize, untried_is_allowed: bool) -> ReplayBuffer {
    let mut buffer = config.buffer(ROOMS, ACTIONS, steps).unwrap();
    let stream_id = buffer.add_stream();
    walk(steps, untried_is_allowed).load(&mut buffer, stream_id, earned).unwrap();
    buffer
}

/// The walks, of which memory holds a part.
fn streamed_walks(config: &OfflineConfig, steps: usize, untried_is_allowed: bool) -> Result<StreamedReplay, DqnError> {
    let mut reader = walk(steps, untried_is_allowed);
    let survey = reader.survey(|_| ()).unwrap();
    let states = BufferConfig { width: ROOMS, actions: ACTIONS as u32, capacity: 2 };
    config.streamed(vec![EpisodeSource { name: "walks".into(), reader, survey }], states, Box::new(earned))
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

fn train(config: &OfflineConfig, steps: impl Into<Steps>) -> OfflineTrainer {
    let mut run = OfflineTrainer::new(config.clone(), steps, FusedOptions::default()).unwrap();
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

/// Memory that holds a tenth of the walks at a time is as good, and passes over them again and again.
#[test]
fn steps_that_are_streamed_teach_the_same_values() {
    let config = OfflineConfig { memory_bytes: 10_000, ..config(Algorithm::Dqn) };
    let mut run = train(&config, streamed_walks(&config, 2000, false).unwrap());
    let capacity = run.steps().buffer().config().capacity;
    assert!((150..250).contains(&capacity), "{capacity}");
    assert_eq!(run.steps().transitions(), walks(&config, 2000, false).transitions() as u64);
    let states = capacity as f64 + (1499 * 32) as f64 / config.samples_per_insert;
    assert!((run.steps().passes() - states / 2000.0).abs() < 1e-3, "{}", run.steps().passes());
    is_exact(&judged(&mut run));
}

/// What is released of BCQ is cloned from streamed steps too.
#[test]
fn the_two_networks_of_bcq_become_one_while_steps_are_streamed() {
    let config = OfflineConfig { memory_bytes: 10_000, ..config(Algorithm::Bcq) };
    let mut run = train(&config, streamed_walks(&config, 2000, true).unwrap());
    let before = run.steps().passes();
    let (shape, parameters) = run.release().unwrap();
    assert!(run.steps().passes() > 1.9 * before, "it goes on through the files");
    let mut released = FusedLearner::new(shape, &parameters, FusedOptions::default()).unwrap();
    let rooms: Vec<f32> = (0..ROOMS).flat_map(room).collect();
    let mut q_values = Vec::new();
    released.q_values(&DenseRows::new(ROOMS, &rooms), &[], &mut q_values).unwrap();
    assert_eq!(choices(&Judged { q_values, masks: vec![true; ROOMS * ACTIONS] }), [RIGHT as usize; ROOMS]);
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

/// One step in three of the safe rule is nothing to clone, in memory and streamed. Taken for the policy's own, it is a third of all.
#[test]
fn what_the_safe_rule_decided_is_not_cloned() {
    let config = OfflineConfig { memory_bytes: 20_000, ..config(Algorithm::Cloning) };
    let walk = || interrupted_walk(3000, true, 3);
    let in_memory = |mut reader: EpisodeReader| {
        let mut buffer = config.buffer(ROOMS, ACTIONS, 3000).unwrap();
        let stream_id = buffer.add_stream();
        reader.load(&mut buffer, stream_id, earned).unwrap();
        Steps::from(buffer)
    };
    let streamed = |mut reader: EpisodeReader| {
        let survey = reader.survey(|_| ()).unwrap();
        let states = BufferConfig { width: ROOMS, actions: ACTIONS as u32, capacity: 2 };
        let source = EpisodeSource { name: "walks".into(), reader, survey };
        Steps::from(config.streamed(vec![source], states, Box::new(earned)).unwrap())
    };
    let odds = |steps: Steps| {
        let mut run = train(&config, steps);
        let logits = judged(&mut run).q_values;
        let room = logits[..ACTIONS].iter().map(|logit| f64::from(*logit).exp()).collect::<Vec<_>>();
        let sum: f64 = room.iter().sum();
        room.iter().map(|odds| odds / sum).collect::<Vec<_>>()
    };
    for steps in [in_memory(walk().policy_alone()), streamed(walk().policy_alone())] {
        let odds = odds(steps);
        assert!((odds[RIGHT as usize] - 0.7).abs() < 0.08 && odds[UNTRIED] < 0.02, "{odds:?}");
    }
    let taken = odds(in_memory(walk()));
    assert!((taken[UNTRIED] - 0.33).abs() < 0.08, "{taken:?}");
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
        first in 1..60u64, more in 1..40u64, prioritised in any::<bool>(), dropout in any::<bool>(), streamed in any::<bool>(),
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
        config.memory_bytes = if prioritised { 8000 } else { 4000 };
        let of = |updates| OfflineConfig { updates, ..config.clone() };
        let data = || {
            let untried = algorithm != Algorithm::Dqn;
            if streamed { streamed_walks(&config, 200, untried).unwrap().into() } else { Steps::from(walks(&config, 200, untried)) }
        };
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
fn a_run_goes_on_with_as_much_of_its_steps_in_memory_as_before() {
    let config = OfflineConfig { updates: 5, memory_bytes: 5000, ..config(Algorithm::Cql) };
    let bytes = saved(&train(&config, streamed_walks(&config, 300, true).unwrap()));
    let restore = |memory_bytes, in_memory: bool| {
        let config = OfflineConfig { memory_bytes, ..config.clone() };
        let steps = match in_memory {
            true => Steps::from(walks(&config, 300, true)),
            false => streamed_walks(&config, 300, true).unwrap().into(),
        };
        OfflineTrainer::new(config, steps, FusedOptions::default()).unwrap().restore(&bytes[..]).err()
    };
    assert!(restore(5000, false).is_none());
    for refused in [restore(6000, false), restore(5000, true)] {
        let refused = refused.unwrap().to_string();
        assert!(refused.contains("memory_bytes"), "{refused}");
    }
}

/// What a run learns is the algorithm's trace, the same on every machine: what changes it says so here.
#[test]
fn every_algorithm_learns_what_it_learned_before() {
    let trace = |(algorithm, streamed): (Algorithm, bool)| {
        let mut config = OfflineConfig { updates: 120, memory_bytes: 8000, ..config(algorithm) };
        (config.update.input_dropout, config.update.n_step) = (0.1, 3);
        config.update.draw = DrawConfig::Prioritised(PrioritisedConfig::default());
        let untried = algorithm != Algorithm::Dqn;
        let steps = match streamed {
            true => streamed_walks(&config, 400, untried).unwrap().into(),
            false => Steps::from(walks(&config, 400, untried)),
        };
        let mut bytes = Vec::new();
        let mut run = train(&config, steps);
        run.learner().state().write(&mut bytes).unwrap();
        // A checksum of bytes that end in theirs is the same for all.
        let kept = if streamed { "streamed" } else { "in memory" };
        format!("{algorithm:?} {kept} {:08x}", crc32c::crc32c(&bytes[..bytes.len() - 4]))
    };
    let cases = [
        (Algorithm::Dqn, false),
        (Algorithm::Cql, false),
        (Algorithm::Bcq, false),
        (Algorithm::Cloning, false),
        (Algorithm::Cql, true),
        (Algorithm::Bcq, true),
    ];
    let expected = [
        "Dqn in memory e404bd2d",
        "Cql in memory 07e3fb25",
        "Bcq in memory 9b9f1967",
        "Cloning in memory ee66004f",
        "Cql streamed 20d0e9fc",
        "Bcq streamed d02d0487",
    ];
    assert_eq!(cases.map(trace), expected);
}

#[test]
fn a_run_that_cannot_be_is_refused_by_its_key() {
    type Change = fn(&mut OfflineConfig);
    let cases: [(&str, Change); 13] = [
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
        ("samples_per_insert", |c| c.samples_per_insert = 0.0),
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
    let small = OfflineConfig { memory_bytes: 2400, ..config.clone() };
    let refused = streamed_walks(&small, 500, false).unwrap_err().to_string();
    assert!(refused.contains("`memory_bytes` is 2400"), "{refused}");
    let steps = streamed_walks(&OfflineConfig { memory_bytes: 5000, ..config.clone() }, 500, true).unwrap();
    let untried = OfflineTrainer::new(config, steps, FusedOptions::default()).err().unwrap().to_string();
    assert!(untried.contains("action 2"), "{untried}");
}
