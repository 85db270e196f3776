//! Steps of which memory holds a part: what it holds, how often each is drawn, and what is refused.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

#[path = "../../inference/tests/counting/mod.rs"]
mod counting;

use bellwether_replay::episodes::{End, EpisodeFileHeader, EpisodeReader, EpisodeWriter, PlayedParts, Step, StepRow};
use bellwether_replay::streamed::{EpisodeSource, StreamedReplay};
use bellwether_replay::{
    ActionMask, BufferConfig, Draw, Encoding, PriorityConfig, ReplayBuffer, ReplayError, SampleSpec, Sampled,
    StateRows as _,
};
use proptest::collection::vec;
use proptest::prelude::*;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};

const ACTIONS: u32 = 3;
/// A state is the number of its row in all files; the second element makes files larger.
const STATES: BufferConfig = BufferConfig { width: 2, actions: ACTIONS, capacity: 2 };

/// How an episode ends.
const TERMINATED: u8 = 0;
const CUT_OFF_BLIND: u8 = 1;

/// Writes a file of episodes of these lengths and ends, whose rows are numbered from `first` on.
fn file(episodes: &[(usize, u8)], first: usize, group_bytes: usize) -> Vec<u8> {
    let header = EpisodeFileHeader {
        width: STATES.width,
        actions: ACTIONS,
        encoding: Encoding::Dense,
        spec_hash: "a".into(),
        action_set: "1".into(),
        reward: "{}".into(),
        sources: Vec::new(),
        policy: None,
        q_values: false,
        safe_rule: false,
    };
    let mut writer = EpisodeWriter::new(Vec::new(), header).unwrap().with_row_group_bytes(group_bytes);
    let mut number = first;
    for (episode, (length, how)) in episodes.iter().enumerate() {
        for step in 0..*length {
            let last = step + 1 == *length;
            let end = last.then_some(if *how == TERMINATED { End::Terminated } else { End::Truncated });
            let parts = PlayedParts {
                action: number as u32 % ACTIONS,
                r0: number as f32,
                r1: 0.0,
                behaviour_probability: 0.5,
                safe_rule: false,
            };
            let row = Step {
                episode_id: &format!("{episode}"),
                step: step as u32,
                stage: 1,
                state: &[number as f32, 1.0 / (number + 1) as f32],
                action_mask: ActionMask::all(ACTIONS as usize),
                played: (!last || *how <= CUT_OFF_BLIND).then_some(parts),
                end,
                partial: false,
                label: None,
                events_seen: step as u64,
                q_values: None,
            };
            writer.write(&row).unwrap();
            number += 1;
        }
    }
    writer.finish().unwrap().0
}

/// Files of episodes, and the bytes of a row group.
fn files() -> impl Strategy<Value = (Vec<Vec<(usize, u8)>>, usize)> {
    let episode = (prop_oneof![4 => 1..12_usize, 1 => 60..90_usize], 0..3_u8);
    // The first step of each can be learned from.
    let some = vec(episode, 1..12).prop_map(|mut episodes| {
        episodes[0] = (episodes[0].0 + 1, TERMINATED);
        episodes
    });
    (vec(some, 1..4), 200..4000_usize)
}

fn sources(files: &[Vec<(usize, u8)>], group_bytes: usize) -> Vec<EpisodeSource> {
    let mut first = 0;
    let each = files.iter().enumerate().map(|(number, episodes)| {
        let bytes = file(episodes, first, group_bytes);
        first += episodes.iter().map(|(length, _)| length).sum::<usize>();
        let mut reader = EpisodeReader::from_bytes(bytes, None).unwrap();
        let survey = reader.survey(|_| ()).unwrap();
        EpisodeSource { name: format!("file {number}"), reader, survey }
    });
    each.collect()
}

fn streamed(
    sources: Vec<EpisodeSource>,
    seed: u64,
    priorities: Option<PriorityConfig>,
    memory_bytes: u64,
) -> Result<StreamedReplay, ReplayError> {
    let rng = move |pass| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(pass);
        Box::new(rng) as Box<dyn rand::Rng>
    };
    let reward = |row: &StepRow| row.played.map_or(0.0, |played| played.r0);
    StreamedReplay::new(sources, STATES, priorities, memory_bytes, (Box::new(rng), Box::new(reward)))
}

fn saved(buffer: &ReplayBuffer) -> Vec<u8> {
    let mut bytes = Vec::new();
    buffer.save(&mut bytes).unwrap();
    bytes
}

/// The numbers of the rows that a buffer holds, oldest first.
fn held(buffer: &ReplayBuffer) -> Vec<usize> {
    let mut state = [0.0; STATES.width];
    let number = |row: u32| {
        buffer.gather(row as usize, &mut state);
        state[0] as usize
    };
    buffer.oldest_first().map(number).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Shards hold every row once and no part of an episode, and what is said of them is what a buffer of all steps holds.
    #[test]
    fn a_file_is_its_shards((files, group_bytes) in files()) {
        for source in sources(&files, group_bytes) {
            let EpisodeSource { mut reader, survey, .. } = source;
            let mut rows = Vec::new();
            let mut row = StepRow::default();
            let mut group = 0;
            for shard in &survey.shards {
                prop_assert_eq!(shard.groups.start, group);
                group = shard.groups.end;
                reader.go_to_group(shard.groups.start);
                for place in 0..shard.rows {
                    prop_assert!(reader.next(&mut row).unwrap());
                    prop_assert!(place > 0 || row.step == 0);
                    rows.push(row.clone());
                }
            }
            prop_assert!(!reader.next(&mut row).unwrap());
            let (mut all, mut loaded) = (Vec::new(), Vec::new());
            reader.go_to_group(0);
            let mut buffer = ReplayBuffer::new(BufferConfig { capacity: rows.len().max(2), ..STATES }).unwrap();
            let stream = buffer.add_stream();
            let counted = reader.load(&mut buffer, stream, |row| { all.push(row.clone()); 0.0 }).unwrap();
            prop_assert_eq!(&rows, &all);
            prop_assert_eq!(survey.loaded, counted);
            prop_assert_eq!(survey.transitions as usize, buffer.transitions());
            for row in buffer.oldest_first() {
                loaded.extend(buffer.transition(row, &SampleSpec::default()).unwrap());
            }
            let bits = |actions: &mut dyn Iterator<Item = u32>| actions.fold(0, |bits, action| bits | 1 << action);
            prop_assert_eq!(survey.played.bits(), bits(&mut loaded.iter().map(|step| step.action)));
            prop_assert_eq!(survey.allowed, ActionMask::all(ACTIONS as usize));
        }
    }

    /// What memory holds depends on the number of states that came and on nothing else: neither on the portions they came in, nor
    /// on whether the run was stopped.
    #[test]
    fn what_is_held_follows_from_how_many_states_came(
        (files, group_bytes) in files(), seed: u64, memory in 300..4000_u64, prioritised: bool,
        portions in vec(1..80_u64, 1..8),
    ) {
        let priorities = prioritised.then(PriorityConfig::default);
        let make = || streamed(sources(&files, group_bytes), seed, priorities, memory).unwrap();
        let (mut run, mut states) = (make(), 0);
        for portion in portions {
            states += portion;
            run.fill_to(states).unwrap();
            prop_assert_eq!(run.buffer().states_written(), states);
        }
        let mut again = make();
        again.go_to(states).unwrap();
        prop_assert!(saved(again.buffer()) == saved(run.buffer()));
        // They go on alike, and one of them is stopped while it reads.
        again.fill_to(states + 3).unwrap();
        again.go_to(states + 40).unwrap();
        run.fill_to(states + 40).unwrap();
        prop_assert!(saved(again.buffer()) == saved(run.buffer()));
        // The largest pool that the memory has room for.
        let (config, all) = (*run.buffer().config(), run.states() as usize);
        prop_assert!(config.bytes(prioritised) <= memory && config.capacity >= 2, "{:?} of {}", config, all);
    }

    /// Every pass brings every row once, in an order of its own.
    #[test]
    fn a_pass_brings_every_row_once((files, group_bytes) in files(), seed: u64) {
        let all = files.iter().flatten().map(|(length, _)| *length as u64).sum::<u64>();
        let mut run = streamed(sources(&files, group_bytes), seed, None, 40 * all + 1000).unwrap();
        prop_assert_eq!(run.states(), all);
        for pass in 1..4 {
            run.fill_to(pass * all).unwrap();
            let rows = held(run.buffer());
            let mut last = rows[rows.len() - all as usize..].to_vec();
            last.sort_unstable();
            prop_assert_eq!(last, (0..all as usize).collect::<Vec<_>>());
        }
    }

    /// A step leads where it leads in its file, with the reward that it earned.
    #[test]
    fn steps_are_those_of_the_files((files, group_bytes) in files(), seed: u64, memory in 300..4000_u64, states in 1..600_u64) {
        let ends: Vec<(usize, u8)> = files.iter().flatten().copied().flat_map(|(length, end)| {
            (0..length).map(move |step| if step + 1 == length { (0, end) } else { (1, 0) })
        }).collect();
        let mut run = streamed(sources(&files, group_bytes), seed, None, memory).unwrap();
        run.fill_to(states).unwrap();
        let (buffer, mut state) = (run.buffer(), [0.0; STATES.width]);
        for row in buffer.oldest_first() {
            buffer.gather(row as usize, &mut state);
            let number = state[0] as usize;
            let Some(step) = buffer.transition(row, &SampleSpec::default()).unwrap() else { continue };
            prop_assert_eq!((step.action, step.reward), (number as u32 % ACTIONS, number as f32));
            buffer.gather(step.next_row as usize, &mut state);
            match ends[number] {
                (0, end) => prop_assert!(end == TERMINATED && step.discount == 0.0),
                _ => prop_assert_eq!(state[0] as usize, number + 1),
            }
        }
    }
}

#[test]
fn passes_differ_in_their_order() {
    let files = [vec![(5, TERMINATED); 40]];
    let mut run = streamed(sources(&files, 1), 1, None, 9000).unwrap();
    let order = |run: &mut StreamedReplay, pass: u64| {
        run.fill_to(200 * pass).unwrap();
        let rows = held(run.buffer());
        rows[rows.len() - 200..].to_vec()
    };
    let (first, second) = (order(&mut run, 1), order(&mut run, 2));
    assert_ne!(first, second);
    assert_ne!(first, (0..200).collect::<Vec<_>>());
    let mut other = streamed(sources(&files, 1), 2, None, 9000).unwrap();
    assert_ne!(order(&mut other, 1), first);
}

/// 1,000 steps of which memory holds a tenth, drawn 16 at a time and 4 times each while they are held: over many passes, every step
/// is drawn as often as any other, within what independent draws vary by.
#[test]
fn over_many_passes_every_step_is_drawn_as_often() {
    const PASSES: u64 = 200;
    const BATCH: usize = 16;
    const DRAWS: u64 = 4;
    let files = [vec![(10, TERMINATED); 50], [(1, TERMINATED), (24, TERMINATED), (25, TERMINATED)].repeat(10)];
    let mut run = streamed(sources(&files, 300), 5, None, 3000).unwrap();
    let capacity = run.buffer().config().capacity as u64;
    let all = run.states();
    assert!(all == 1000 && (90..=110).contains(&capacity), "{capacity} of {all}");
    let (mut rng, mut sampled) = (ChaCha8Rng::seed_from_u64(3), Sampled::default());
    let mut counts = vec![0_u64; all as usize];
    let updates = PASSES * all * DRAWS / BATCH as u64;
    let mut state = [0.0; STATES.width];
    for update in 0..updates {
        run.fill_to(capacity + update * BATCH as u64 / DRAWS).unwrap();
        run.buffer().sample(&mut rng, BATCH, &SampleSpec::default(), &mut sampled).unwrap();
        for row in &sampled.rows {
            run.buffer().gather(*row as usize, &mut state);
            counts[state[0] as usize] += 1;
        }
    }
    let mean = (PASSES * DRAWS) as f64;
    let deviations: Vec<f64> = counts.iter().map(|count| (*count as f64 - mean) / mean.sqrt()).collect();
    let largest = deviations.iter().fold(0.0_f64, |largest, z| largest.max(z.abs()));
    // Independent draws give a variance of 1, and 1,000 steps tell it to within .045. The first steps of the run and the last are
    // held for a shorter time, by up to 4 draws of 800.
    let variance = deviations.iter().map(|z| z * z).sum::<f64>() / all as f64;
    assert!(largest < 4.5 && (0.82..1.18).contains(&variance), "largest {largest}, variance {variance}");
}

/// Whoever learns allocates nothing for a step: a thread that waits for the other may do so, the first few times.
#[test]
fn steps_come_in_without_an_allocation() {
    let mut run =
        streamed(sources(&[vec![(50, TERMINATED); 40]], 4000), 1, Some(PriorityConfig::default()), 9000).unwrap();
    let (mut rng, mut sampled) = (ChaCha8Rng::seed_from_u64(3), Sampled::default());
    let spec = SampleSpec { draw: Draw::Prioritised { correction: 0.4 }, ..SampleSpec::default() };
    let mut learn = |states: u64| {
        run.fill_to(states).unwrap();
        run.buffer().sample(&mut rng, 16, &spec, &mut sampled).unwrap();
    };
    learn(2000);
    let calls = counting::calls_during(|| (2..=2000).for_each(|round| learn(round * 10 + 2000)));
    assert!(calls < 20, "{calls} calls of the allocator for 20,000 steps");
}

/// Errors that were told are kept apart from the states, and come back with them.
#[test]
fn priorities_are_restored_beside_states_that_are_read_again() {
    let files = [vec![(7, TERMINATED); 30]];
    let make = || streamed(sources(&files, 200), 1, Some(PriorityConfig::default()), 3000).unwrap();
    let mut run = make();
    run.fill_to(150).unwrap();
    let rows: Vec<u32> = (0..run.buffer().states_held() as u32).collect();
    let rows: Vec<u32> = rows
        .into_iter()
        .filter(|row| run.buffer().transition(*row, &SampleSpec::default()).unwrap().is_some())
        .collect();
    let errors: Vec<f32> = rows.iter().map(|row| *row as f32 * 0.3).collect();
    run.buffer_mut().learn(&rows, &errors).unwrap();
    let mut bytes = Vec::new();
    run.buffer().save_priorities(&mut bytes).unwrap();

    let mut again = make();
    again.go_to(150).unwrap();
    assert_ne!(saved(again.buffer()), saved(run.buffer()));
    again.buffer_mut().restore_priorities(&bytes[..]).unwrap();
    assert_eq!(saved(again.buffer()), saved(run.buffer()));

    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(again.buffer_mut().restore_priorities(&damaged[..]).is_err(), "byte {at}");
        assert!(again.buffer_mut().restore_priorities(&bytes[..at]).is_err(), "cut at {at}");
    }
    assert_eq!(saved(again.buffer()), saved(run.buffer()), "what is refused changes nothing");
    again.fill_to(151).unwrap();
    let refused = again.buffer_mut().restore_priorities(&bytes[..]);
    assert!(matches!(refused, Err(ReplayError::Saved { .. })), "of other states: {refused:?}");
}

#[test]
fn a_file_that_changes_under_a_run_ends_it_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("played.parquet");
    let bytes = file(&[(20, TERMINATED); 20], 0, 500);
    std::fs::write(&path, &bytes).unwrap();
    let mut reader = EpisodeReader::open(std::fs::File::open(&path).unwrap(), None).unwrap();
    let survey = reader.survey(|_| ()).unwrap();
    let mut run =
        streamed(vec![EpisodeSource { name: "played.parquet".into(), reader, survey }], 1, None, 4000).unwrap();
    let mut damaged = bytes;
    damaged[100] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    let error = run.fill_to(10_000).unwrap_err();
    assert!(matches!(&error, ReplayError::Streamed { name, .. } if name == "played.parquet"), "{error}");
    assert!(error.to_string().contains("damaged"), "{error}");
    assert!(run.fill_to(20_000).is_err(), "it stays so");
}

#[test]
fn what_cannot_be_streamed_is_refused() {
    let (some, blind) = ([vec![(9, TERMINATED); 9]], [vec![(1, CUT_OFF_BLIND); 9]]);
    let refused = streamed(sources(&some, 100), 1, None, 40).unwrap_err();
    assert!(matches!(refused, ReplayError::Setting { key: "capacity", .. }), "{refused}");
    assert!(matches!(streamed(sources(&blind, 100), 1, None, 4000), Err(ReplayError::Empty { .. })));
    let wide = BufferConfig { width: 3, ..STATES };
    let rng = |pass| Box::new(ChaCha8Rng::seed_from_u64(pass)) as Box<dyn rand::Rng>;
    let refused =
        StreamedReplay::new(sources(&some, 100), wide, None, 4000, (Box::new(rng), Box::new(|_: &StepRow| 0.0)));
    assert!(matches!(refused, Err(ReplayError::Setting { key: "file", .. })), "{refused:?}");
}
