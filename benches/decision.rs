//! Nanoseconds from a state to an action, one at a time on one thread: by shape, filling, instruction set and precision, with
//! the model in the caches and without. `peers latency` has the same beside other runtimes.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench fails loudly, and criterion's macros document nothing")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bellwether_inference::{Engine, Isa, Precision};
use bellwether_trainer::network::NetworkShape;
use criterion::{Bencher, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// Distinct states, so that no branch predictor learns one by heart.
const STATES: usize = 256;

/// More than the last level of cache of the machines at hand.
const EVICTING_BYTES: usize = 48 << 20;

const SHAPES: [(&str, [usize; 4]); 3] =
    [("64-256-256-6", [64, 256, 256, 6]), ("512-128-64-5", [512, 128, 64, 5]), ("512-128-128-5", [512, 128, 128, 5])];

/// States of which one element in `every` is set.
fn states(width: usize, every: usize) -> Vec<f32> {
    let value =
        |i: usize| if (i * 7).is_multiple_of(every) { (i * 2_654_435_761 % 999 + 1) as f32 / 1_000.0 } else { 0.0 };
    (0..STATES * width).map(value).collect()
}

/// Every engine of a network on this machine, with its name.
fn engines(widths: &[usize]) -> Vec<(String, Engine)> {
    let shape = NetworkShape::new(widths.to_vec()).unwrap();
    let parameters = shape.initial_parameters(&mut ChaCha8Rng::seed_from_u64(1));
    let mlp = shape.to_mlp(&parameters).unwrap();
    let available = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    let precisions = [(Precision::Exact, "exact"), (Precision::Certified, "certified")];
    available
        .flat_map(|isa| precisions.map(|(precision, name)| (isa, precision, name)))
        .map(|(isa, precision, name)| {
            (format!("{isa}, {name}"), Engine::new(&mlp, isa).unwrap().with_precision(precision))
        })
        .collect()
}

fn warm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decision");
    group.throughput(Throughput::Elements(1));
    for (shape, widths) in SHAPES {
        for (name, engine) in engines(&widths) {
            let mask = vec![true; engine.actions()];
            let mut scratch = engine.scratch();
            for (filling, every) in [("every element set", 1), ("one element of five set", 5)] {
                let states = states(engine.width(), every);
                let mut next = states.chunks_exact(engine.width()).cycle();
                group.bench_function(BenchmarkId::new(format!("{shape}, {name}"), filling), |bencher| {
                    bencher.iter(|| {
                        let state = next.next().unwrap();
                        engine.decide(&mut scratch, black_box(state), &mask).unwrap().action
                    });
                });
            }
        }
    }
    group.finish();
}

/// Times single calls, each after the caches were filled with something else.
fn after_eviction(bencher: &mut Bencher<'_>, evict: &mut [u64], mut call: impl FnMut()) {
    bencher.iter_custom(|calls| {
        let mut total = Duration::ZERO;
        for _ in 0..calls {
            for line in evict.iter_mut().step_by(8) {
                *line = line.wrapping_add(1);
            }
            black_box(&*evict);
            let start = Instant::now();
            call();
            total += start.elapsed();
        }
        total
    });
}

fn cold(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decision, cold");
    // A call costs microseconds, and the eviction before it milliseconds.
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let mut evict = vec![0_u64; EVICTING_BYTES / size_of::<u64>()];
    for (shape, widths) in SHAPES {
        for (name, engine) in engines(&widths).into_iter().filter(|(_, engine)| engine.isa() == Isa::best()) {
            let mask = vec![true; engine.actions()];
            let mut scratch = engine.scratch();
            let states = states(engine.width(), 5);
            let mut next = states.chunks_exact(engine.width()).cycle();
            group.bench_function(BenchmarkId::new(shape, name), |bencher| {
                after_eviction(bencher, &mut evict, || {
                    let state = next.next().unwrap();
                    black_box(engine.decide(&mut scratch, black_box(state), &mask).unwrap().action);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, warm, cold);
criterion_main!(benches);
