//! Nanoseconds from a state to an action, one at a time on one thread.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench fails loudly, and criterion's macros document nothing")]

use std::hint::black_box;

use bellwether_inference::{Engine, Isa};
use bellwether_trainer::network::NetworkShape;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// Distinct states, so that no branch predictor learns one by heart.
const STATES: usize = 256;

/// States of which one element in `every` is set.
fn states(width: usize, every: usize) -> Vec<f32> {
    let value =
        |i: usize| if (i * 7).is_multiple_of(every) { (i * 2_654_435_761 % 999 + 1) as f32 / 1_000.0 } else { 0.0 };
    (0..STATES * width).map(value).collect()
}

fn decision(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decision");
    group.throughput(Throughput::Elements(1));
    for (name, widths) in [("64-256-256-6", vec![64, 256, 256, 6]), ("512-128-128-5", vec![512, 128, 128, 5])] {
        let shape = NetworkShape::new(widths).unwrap();
        let parameters = shape.initial_parameters(&mut ChaCha8Rng::seed_from_u64(1));
        let engine = Engine::new(&shape.to_mlp(&parameters).unwrap(), Isa::best()).unwrap();
        let mask = vec![true; shape.outputs()];
        let mut scratch = engine.scratch();
        for (filling, every) in [("every element set", 1), ("one element of five set", 5)] {
            let states = states(shape.inputs(), every);
            let mut next = states.chunks_exact(shape.inputs()).cycle();
            group.bench_function(BenchmarkId::new(name, filling), |bencher| {
                bencher.iter(|| {
                    let state = next.next().unwrap();
                    engine.decide(&mut scratch, black_box(state), &mask).unwrap().action
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, decision);
criterion_main!(benches);
