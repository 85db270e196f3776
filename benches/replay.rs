//! States per second out of the stores of experience, gathered into the rows that a learner reads.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench fails loudly, and criterion's macros document nothing")]

use std::hint::black_box;

use bellwether_replay::{
    ActionMask, BufferConfig, DrawnStates, Encoding, EpisodeSampler, EpisodeStore, EpisodeStoreConfig, Outcome, Played,
    ReplayBuffer, SampleSpec, Sampled, StateRows, StoreConfig,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

const BATCHES: [usize; 2] = [32, 256];
const ACTIONS: u32 = 6;

/// State number `number`: one element of five is set.
fn state(number: usize, width: usize) -> Vec<f32> {
    (0..width).map(|i| if (number * 31 + i * 17).is_multiple_of(5) { (i % 7) as f32 / 7.0 } else { 0.0 }).collect()
}

fn played(criterion: &mut Criterion) {
    const WIDTH: usize = 64;
    const EPISODES: usize = 2_000;
    const STEPS: usize = 50;
    let capacity = EPISODES * STEPS;
    let mut buffer = ReplayBuffer::new(BufferConfig { width: WIDTH, actions: ACTIONS, capacity }).unwrap();
    let (stream, mask) = (buffer.add_stream(), ActionMask::all(ACTIONS as usize));
    for episode in 0..EPISODES {
        buffer.begin(stream, &state(episode * STEPS, WIDTH), mask).unwrap();
        for step in 1..=STEPS {
            let played = Played { action: step as u32 % ACTIONS, reward: 1.0, behaviour_probability: 0.5 };
            let next = state(episode * STEPS + step, WIDTH);
            let outcome = if step < STEPS { Outcome::Continues { state: &next, mask } } else { Outcome::Terminated };
            buffer.append(stream, played, outcome).unwrap();
        }
    }
    let mut group = criterion.benchmark_group("replay sampling, played, width 64");
    for (n_step, batch) in [1, 3].into_iter().flat_map(|n_step| BATCHES.map(|batch| (n_step, batch))) {
        let spec = SampleSpec { n_step, ..SampleSpec::default() };
        let (mut rng, mut sampled) = (ChaCha8Rng::seed_from_u64(1), Sampled::default());
        let mut rows = vec![0.0; 2 * batch * WIDTH];
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new(format!("{n_step} steps"), batch), |bencher| {
            bencher.iter(|| {
                buffer.sample(&mut rng, batch, &spec, &mut sampled).unwrap();
                let drawn = sampled.rows.iter().chain(&sampled.next_rows);
                for (row, out) in drawn.zip(rows.chunks_exact_mut(WIDTH)) {
                    buffer.gather(*row as usize, out);
                }
                black_box(&rows);
            });
        });
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

criterion_group!(benches, played, recorded);
criterion_main!(benches);
