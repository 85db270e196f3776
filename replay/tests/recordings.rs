//! Recordings come back as they went in, and are drawn class first, then episode, then state.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use bellwether_replay::{
    DrawnStates, Encoding, EpisodeSampler, EpisodeStore, EpisodeStoreConfig, ReplayError, SampledRows, StateRows,
    StoreConfig,
};
use proptest::collection::vec;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Class, group, annotation, states with their annotation.
type Recording = (u32, u32, f32, Vec<([f32; 3], f32)>);

fn recordings() -> impl Strategy<Value = Vec<Recording>> {
    let value = || prop_oneof![Just(0.0_f32), -10.0_f32..10.0];
    let states = vec(([value(), value(), value()], value()), 0..12);
    vec((0_u32..4, 0_u32..5, value(), states), 1..20)
}

fn config() -> EpisodeStoreConfig {
    EpisodeStoreConfig {
        states: StoreConfig { width: 3, encoding: Encoding::Sparse, memory_bytes: 0, spill_folder: None },
        state_columns: vec!["harm".into()],
        episode_columns: vec!["complete".into()],
    }
}

fn store(recordings: &[Recording]) -> EpisodeStore {
    let mut store = EpisodeStore::new(config()).unwrap();
    for (class, group, annotation, states) in recordings {
        store.begin(*class, *group).unwrap();
        for (state, annotation) in states {
            store.push(state, &[*annotation]).unwrap();
        }
        store.finish(&[*annotation]).unwrap();
    }
    store
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_added_is_what_is_there(recordings in recordings()) {
        let store = store(&recordings);
        prop_assert_eq!(store.len(), recordings.len());
        let mut out = [0.0; 3];
        let mut rows = 0;
        for (episode, (class, group, annotation, states)) in store.episodes().zip(&recordings) {
            prop_assert_eq!((episode.class, episode.group, episode.annotations), (*class, *group, &[*annotation][..]));
            prop_assert_eq!(episode.rows(), rows..rows + states.len() as u32);
            rows = episode.rows().end;
            for (row, (state, annotation)) in episode.rows().zip(states) {
                store.states().gather(row as usize, &mut out);
                prop_assert_eq!(&out, state);
                prop_assert_eq!(store.state_annotations(row), &[*annotation]);
            }
        }
        prop_assert_eq!(store.states().len(), rows as usize);
    }

    #[test]
    fn draws_name_states_of_the_chosen_episodes_and_repeat_with_the_seed(
        recordings in recordings(), chosen in any::<u32>(), seed in any::<u64>(),
    ) {
        let store = store(&recordings);
        let chosen: Vec<u32> = (0..recordings.len() as u32).filter(|i| chosen >> i & 1 == 1).collect();
        let drawable: usize = chosen.iter().map(|i| recordings[*i as usize].3.len()).sum();
        let sampler = EpisodeSampler::new(&store, chosen.iter().copied(), None);
        if drawable == 0 {
            prop_assert!(matches!(sampler, Err(ReplayError::Empty { .. })), "nothing to draw");
            return Ok(());
        }
        let sampler = sampler.unwrap();
        prop_assert_eq!(sampler.states(), drawable as u64);
        let (mut drawn, mut again) = (DrawnStates::default(), DrawnStates::default());
        sampler.sample(&mut ChaCha8Rng::seed_from_u64(seed), 40, &mut drawn);
        sampler.sample(&mut ChaCha8Rng::seed_from_u64(seed), 40, &mut again);
        prop_assert_eq!(&drawn, &again);
        prop_assert_eq!(drawn.len(), 40);
        let rows = SampledRows::new(store.states(), &drawn.rows);
        let mut out = [0.0; 3];
        for i in 0..drawn.len() {
            prop_assert!(chosen.contains(&drawn.episodes[i]));
            let states = &recordings[drawn.episodes[i] as usize].3;
            prop_assert_eq!(drawn.rows[i], store.episode(drawn.episodes[i]).first_row + drawn.steps[i]);
            prop_assert_eq!(drawn.last[i], drawn.steps[i] as usize + 1 == states.len());
            rows.gather(i, &mut out);
            prop_assert_eq!(&out, &states[drawn.steps[i] as usize].0);
        }
    }
}

/// One class has one episode of one state, the other many long ones; equal classes must still be drawn equally often.
#[test]
fn neither_the_larger_class_nor_the_longer_episode_drowns_the_other() {
    let long = |class, len| (class, 0, 0.0, vec![([1.0, 0.0, 0.0], 0.0); len]);
    let store = store(&[long(0, 1), long(1, 500), long(1, 1), long(1, 99), long(2, 3)]);
    let mut drawn = DrawnStates::default();
    let mut count = |weights: Option<&[(u32, f64)]>| {
        let sampler = EpisodeSampler::new(&store, 0..5, weights).unwrap();
        sampler.sample(&mut ChaCha8Rng::seed_from_u64(1), 36_000, &mut drawn);
        let mut counts = [0_i32; 5];
        drawn.episodes.iter().for_each(|e| counts[*e as usize] += 1);
        counts
    };
    // Expected counts within some five standard deviations.
    let near = |counts: [i32; 5], expected: [i32; 5]| {
        assert!(counts.iter().zip(expected).all(|(c, e)| (c - e).abs() <= 450 * e.signum()), "{counts:?} {expected:?}");
    };
    near(count(None), [12_000, 4_000, 4_000, 4_000, 12_000]);
    near(count(Some(&[(1, 3.0), (0, 1.0), (2, 0.0)])), [9_000, 9_000, 9_000, 9_000, 0]);
}

#[test]
fn misuse_is_refused_by_name() {
    let mut store = EpisodeStore::new(config()).unwrap();
    assert!(matches!(store.push(&[0.0; 3], &[0.0]), Err(ReplayError::Stream { .. })));
    assert!(matches!(store.finish(&[0.0]), Err(ReplayError::Stream { .. })));
    store.begin(0, 0).unwrap();
    assert!(matches!(store.begin(0, 0), Err(ReplayError::Stream { .. })));
    assert!(matches!(store.push(&[0.0; 2], &[0.0]), Err(ReplayError::Width { expected: 3, found: 2, .. })));
    assert!(matches!(store.push(&[0.0; 3], &[]), Err(ReplayError::Width { expected: 1, found: 0, .. })));
    assert!(matches!(store.push(&[0.0; 3], &[f32::NAN]), Err(ReplayError::NotFinite { .. })));
    assert!(matches!(store.finish(&[]), Err(ReplayError::Width { .. })));
    store.push(&[1.0; 3], &[2.0]).unwrap();
    assert_eq!(store.finish(&[0.0]).unwrap(), 0);
    assert_eq!((store.episode(0).len, store.states().len()), (1, 1));

    for weights in [&[(0, -1.0)][..], &[(0, f64::NAN)], &[(0, 1.0), (0, 1.0)]] {
        assert!(matches!(EpisodeSampler::new(&store, [0], Some(weights)), Err(ReplayError::Setting { .. })));
    }
    for weights in [&[(0, 0.0)][..], &[], &[(0, 1.0), (3, 1.0)], &[(0, f64::MAX), (3, f64::MAX)]] {
        assert!(matches!(EpisodeSampler::new(&store, [0], Some(weights)), Err(ReplayError::Empty { .. })));
    }
    let twice = EpisodeStoreConfig { state_columns: vec!["a".into(), "a".into()], ..config() };
    assert!(matches!(EpisodeStore::new(twice), Err(ReplayError::Setting { key: "state_columns", .. })));
}
