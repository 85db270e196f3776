//! Nanoseconds that the handle adds to a decision: an engine alone beside a decider, untimed and timed, with states
//! set aside, with a canary, and
//! while another thread swaps models without pause.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench fails loudly, and criterion's macros document nothing")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bellwether_artifact::{
    ActionBinding, FORMAT_VERSION, FeatureBinding, ModelManifest, ModelVersion, OnnxFile, Sha256, SourceRevision,
    WindowLimits,
};
use bellwether_inference::policy::{Decider, Limits, Options, Sampling};
use bellwether_inference::release::golden_vector;
use bellwether_inference::{Engine, Isa, LoadedRelease, Policy, Precision};
use bellwether_trainer::network::NetworkShape;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// Distinct states, so that no branch predictor learns one by heart.
const STATES: usize = 256;

/// The first has next to no network, so that what remains is the handle.
const SHAPES: [&[usize]; 3] = [&[4, 5], &[64, 256, 256, 6], &[512, 128, 64, 5]];

/// States of which one element of five is set.
fn states(width: usize) -> Vec<f32> {
    let value = |i: usize| if (i * 7).is_multiple_of(5) { (i * 2_654_435_761 % 999 + 1) as f32 / 1_000.0 } else { 0.0 };
    (0..STATES * width).map(value).collect()
}

/// A release of a network that was drawn from a seed.
fn release(widths: &[usize], seed: u64) -> LoadedRelease {
    let shape = NetworkShape::new(widths.to_vec()).unwrap();
    let mlp = shape.to_mlp(&shape.initial_parameters(&mut ChaCha8Rng::seed_from_u64(seed))).unwrap();
    let engine = Engine::new(&mlp, Isa::best()).unwrap();
    let (width, actions) = (engine.width(), engine.actions());
    let window = WindowLimits { max_events: 16, max_ns: 100_000_000, max_windows: 0 };
    let golden = golden_vector(&engine, &mut engine.scratch(), &states(width)[..width], &vec![true; actions]).unwrap();
    let manifest = ModelManifest {
        format_version: FORMAT_VERSION,
        name: "bench".to_owned(),
        version: ModelVersion::UNSEALED,
        onnx: OnnxFile { sha256: Sha256::of(&seed.to_le_bytes()), bytes: 1 },
        widths: widths.iter().map(|width| *width as u32).collect(),
        graph: None,
        features: FeatureBinding { spec_version: 1, spec_sha256: Sha256::of(b"bench"), width: width as u32, window },
        actions: ActionBinding {
            set_version: 1,
            names: (0..actions).map(|action| format!("action_{action}")).collect(),
        },
        operating_points: Vec::new(),
        training: serde_json::json!({}),
        metrics: BTreeMap::new(),
        data: Vec::new(),
        golden: vec![golden],
        source: SourceRevision { package: "0.1.0".to_owned(), revision: None, modified: None },
    };
    LoadedRelease { manifest: manifest.sealed().unwrap(), mlp: Some(mlp), engine }
}

fn policy(widths: &[usize], precision: Precision, time_every: u32) -> Policy {
    policy_with(widths, precision, time_every, Sampling::OFF)
}

fn policy_with(widths: &[usize], precision: Precision, time_every: u32, sampling: Sampling) -> Policy {
    let options = Options { precision, limits: Limits { hidden_width: 256 }, time_every, sampling };
    Policy::new(release(widths, 1), None, options).unwrap()
}

/// Times `decide` over the states, again and again.
fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, width: usize, mut decide: impl FnMut(u64, &[f32])) {
    let states = states(width);
    let mut next = (0_u64..).zip(states.chunks_exact(width).cycle());
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            let (number, state) = next.next().unwrap();
            decide(number, black_box(state));
        });
    });
}

fn decide_by(decider: &mut Decider, mask: &[bool], state: &[f32]) {
    black_box(decider.decide(state, mask).unwrap().decision.action);
}

fn overhead(criterion: &mut Criterion) {
    for widths in SHAPES {
        for precision in [Precision::Exact, Precision::Certified] {
            let text = widths.iter().map(ToString::to_string).collect::<Vec<_>>().join("-");
            let mut group = criterion.benchmark_group(format!("policy, {text}, {precision:?}"));
            group.throughput(Throughput::Elements(1));
            let LoadedRelease { engine, .. } = release(widths, 1);
            let engine = engine.with_precision(precision);
            let (width, mask) = (engine.width(), vec![true; engine.actions()]);
            let mut scratch = engine.scratch();
            measure(&mut group, "engine alone", width, |_, state| {
                black_box(engine.decide(&mut scratch, state, &mask).unwrap().action);
            });
            for (name, time_every) in [("untimed", 0), ("one of 16 timed", 16), ("all timed", 1)] {
                let mut decider = policy(widths, precision, time_every).decider();
                measure(&mut group, name, width, |_, state| decide_by(&mut decider, &mask, state));
            }
            for (name, listening) in [("one of 64 set aside, nobody listens", false), ("one of 64 set aside", true)] {
                let policy = policy_with(widths, precision, 0, Sampling { every: 64, capacity: 32 });
                policy.listen(listening);
                let (mut decider, mut decisions) = (policy.decider(), 0_u64);
                measure(&mut group, name, width, |_, state| {
                    decide_by(&mut decider, &mask, state);
                    decisions += 1;
                    // A ring that nobody reads is full, and then nothing is copied.
                    if decisions.is_multiple_of(1_024) {
                        policy.drain_samples(|_, _| ());
                    }
                });
            }
            let policy = policy(widths, precision, 0);
            policy.try_out(release(widths, 2), None, 0.5).unwrap();
            let mut decider = policy.decider();
            // Some sixteen decisions an episode.
            measure(&mut group, "untimed, a canary in half of the episodes", width, |number, state| {
                black_box(decider.decide_in(number / 16, state, &mask).unwrap().decision.action);
            });
            group.finish();
        }
    }
}

/// Needs a second core for the thread that swaps.
fn under_swaps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policy, 64-256-256-6, Certified, while models are swapped");
    let widths: &[usize] = &[64, 256, 256, 6];
    let policy = policy(widths, Precision::Certified, 0);
    let (mask, done) = ([true; 6], AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for seed in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                policy.swap(release(widths, seed), None).unwrap();
            }
        });
        let mut decider = policy.decider();
        measure(&mut group, "untimed", 64, |_, state| decide_by(&mut decider, &mask, state));
        done.store(true, Ordering::Relaxed);
    });
    group.finish();
}

criterion_group!(benches, overhead, under_swaps);
criterion_main!(benches);
