//! Whole updates per second of the learner: forward passes, targets, gradients, clipping, optimiser.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench fails loudly, and criterion's macros document nothing")]

use bellwether_replay::DenseRows;
use bellwether_trainer::learner::fused::{FusedLearner, FusedOptions};
use bellwether_trainer::learner::{Answer, Batch, Learner, Noise, UpdateSpec};
use bellwether_trainer::network::NetworkShape;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

const WIDTHS: [usize; 4] = [64, 256, 256, 6];

/// Rows of values in `[0, 1)`.
fn rows(count: usize, shift: usize) -> Vec<f32> {
    (0..count * WIDTHS[0]).map(|i| ((i + shift) * 2_654_435_761 % 1_000) as f32 / 1_000.0).collect()
}

fn gradient_step(criterion: &mut Criterion) {
    let shape = NetworkShape::new(WIDTHS.to_vec()).unwrap();
    let parameters = shape.initial_parameters(&mut ChaCha8Rng::seed_from_u64(1));
    let mut group = criterion.benchmark_group("gradient step, 64-256-256-6, one thread");
    for (name, double) in [("plain", false), ("double", true)] {
        for batch in [32_usize, 256] {
            let spec = UpdateSpec { double, normaliser: batch as f32, ..UpdateSpec::default() };
            let (states, next) = (rows(batch, 0), rows(batch, 1));
            let answers: Vec<Answer> = (0..batch as u32)
                .map(|row| Answer { row, action: row % 6, reward: 0.5, discount: 0.99, next: row, weight: 1.0 })
                .collect();
            let (states, next) = (DenseRows::new(WIDTHS[0], &states), DenseRows::new(WIDTHS[0], &next));
            let masks = vec![true; batch * WIDTHS[3]];
            let batched =
                Batch { states: &states, masks: &[], answers: &answers, next_states: &next, next_masks: &masks };
            let mut learner = FusedLearner::new(shape.clone(), &parameters, FusedOptions::default()).unwrap();
            let mut errors = Vec::new();
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(name, batch), |bencher| {
                bencher.iter(|| learner.update(&spec, batched, Noise::default(), &mut errors).unwrap());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, gradient_step);
criterion_main!(benches);
