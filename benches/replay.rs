//! States per second out of the stores of experience, gathered into the rows that a learner reads.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench fails loudly, and criterion's macros document nothing")]

use std::hint::black_box;

use bellwether_replay::{
    ActionMask, BufferConfig, Draw, DrawnStates, Encoding, EpisodeSampler, EpisodeStore, EpisodeStoreConfig, Outcome,
    Played, PriorityConfig, ReplayBuffer, SampleSpec, Sampled, StateRows, StoreConfig,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

const BATCHES: [usize; 2] = [32, 256];
const ACTIONS: u32 = 6;

/// State number `number`: one element of five is set.
fn state(number: usize, width: usize) -> Vec<f32> {
    (0..width).map(|i| if (number * 31 + i * 17).is_multiple_of(5) { (i % 7) as f32 / 7.0 } else { 0.0 }).collect()
}

/// A full buffer of 100,000 states, in episodes of 50 steps, with priorities.
fn filled(width: usize) -> ReplayBuffer {
    const EPISODES: usize = 2_000;
    const STEPS: usize = 50;
    let config = BufferConfig { width, actions: ACTIONS, capacity: EPISODES * STEPS };
    let mut buffer = ReplayBuffer::with_priorities(config, PriorityConfig::default()).unwrap();
    let (stream, mask) = (buffer.add_stream(), ActionMask::all(ACTIONS as usize));
    for episode in 0..EPISODES {
        buffer.begin(stream, &state(episode * STEPS, width), mask).unwrap();
        for step in 1..=STEPS {
            let played = Played { action: step as u32 % ACTIONS, reward: 1.0, behaviour_probability: 0.5 };
            let next = state(episode * STEPS + step, width);
            let outcome = if step < STEPS { Outcome::Continues { state: &next, mask } } else { Outcome::Terminated };
            buffer.append(stream, played, outcome).unwrap();
        }
    }
    let rows: Vec<u32> = (0..config.capacity as u32).collect();
    let errors: Vec<f32> = rows.iter().map(|row| (row * 7 % 101) as f32 / 50.0).collect();
    buffer.learn(&rows, &errors).unwrap();
    buffer
}

/// A batch, drawn and gathered; with priorities its errors are told too.
fn played(criterion: &mut Criterion) {
    for width in [4, 64] {
        let mut buffer = filled(width);
        let mut group = criterion.benchmark_group(format!("replay sampling, played, width {width}"));
        let by_errors = Draw::Prioritised { correction: 0.4 };
        let specs = [(1, Draw::Uniform, "1 step"), (3, Draw::Uniform, "3 steps"), (1, by_errors, "by errors")];
        for ((n_step, draw, name), batch) in specs.into_iter().flat_map(|spec| BATCHES.map(|batch| (spec, batch))) {
            let spec = SampleSpec { n_step, draw, ..SampleSpec::default() };
            let (mut rng, mut sampled) = (ChaCha8Rng::seed_from_u64(1), Sampled::default());
            let mut rows = vec![0.0; 2 * batch * width];
            let errors: Vec<f32> = (0..batch).map(|i| i as f32 / batch as f32).collect();
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(BenchmarkId::new(name, batch), |bencher| {
                bencher.iter(|| {
                    buffer.sample(&mut rng, batch, &spec, &mut sampled).unwrap();
                    let drawn = sampled.rows.iter().chain(&sampled.next_rows);
                    for (row, out) in drawn.zip(rows.chunks_exact_mut(width)) {
                        buffer.gather(*row as usize, out);
                    }
                    black_box(&rows);
                });
            });
            if draw == by_errors {
                group.bench_function(BenchmarkId::new("telling errors", batch), |bencher| {
                    bencher.iter(|| buffer.learn(black_box(&sampled.rows), &errors).unwrap());
                });
            }
        }
        group.finish();
    }
}

/// Steps written to a full buffer.
fn appended(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replay appends");
    group.throughput(Throughput::Elements(1000));
    for (width, priorities) in [(4, false), (64, false), (4, true)] {
        let config = BufferConfig { width, actions: ACTIONS, capacity: 100_000 };
        let mut buffer = match priorities {
            true => ReplayBuffer::with_priorities(config, PriorityConfig::default()).unwrap(),
            false => ReplayBuffer::new(config).unwrap(),
        };
        let (stream, mask, next) = (buffer.add_stream(), ActionMask::all(ACTIONS as usize), state(1, width));
        let played = Played { action: 1, reward: 1.0, behaviour_probability: 0.5 };
        let mut thousand = || {
            buffer.begin(stream, &next, mask).unwrap();
            for _ in 0..999 {
                buffer.append(stream, played, Outcome::Continues { state: black_box(&next), mask }).unwrap();
            }
            buffer.append(stream, played, Outcome::Terminated).unwrap();
        };
        (0..101).for_each(|_| thousand());
        let name = if priorities { "with priorities" } else { "without" };
        group.bench_function(BenchmarkId::new(name, width), |bencher| bencher.iter(&mut thousand));
    }
    group.finish();
}

fn recorded(criterion: &mut Criterion) {
    const WIDTH: usize = 512;
    const EPISODES: usize = 500;
    const STEPS: usize = 40;
    let states = StoreConfig { width: WIDTH, encoding: Encoding::Sparse, memory_bytes: 1 << 28, spill_folder: None };
    let (state_columns, episode_columns) = (Vec::new(), Vec::new());
    let mut store = EpisodeStore::new(EpisodeStoreConfig { states, state_columns, episode_columns }).unwrap();
    for episode in 0..EPISODES {
        store.begin(episode as u32 % 2, episode as u32).unwrap();
        for step in 0..STEPS {
            store.push(&state(episode * STEPS + step, WIDTH), &[]).unwrap();
        }
        store.finish(&[]).unwrap();
    }
    let sampler = EpisodeSampler::new(&store, 0..EPISODES as u32, None).unwrap();
    let mut group = criterion.benchmark_group("replay sampling, recorded, width 512, sparse");
    for batch in BATCHES {
        let (mut rng, mut drawn) = (ChaCha8Rng::seed_from_u64(1), DrawnStates::default());
        let mut rows = vec![0.0; batch * WIDTH];
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter(|| {
                sampler.sample(&mut rng, batch, &mut drawn);
                for (row, out) in drawn.rows.iter().zip(rows.chunks_exact_mut(WIDTH)) {
                    store.states().gather(*row as usize, out);
                }
                black_box(&rows);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, played, appended, recorded);
criterion_main!(benches);
