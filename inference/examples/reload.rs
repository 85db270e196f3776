//! What ten thousand reloads do to memory and to the latency of decisions.
//!
//! ```text
//! cargo run --release -p bellwether-inference --features watch --example reload -- [RELOADS [HIDDEN [PAUSE_MS]]]
//! ```
//! `HIDDEN` is the width of both hidden layers, 256 if it is not given, and `PAUSE_MS` lies between two reloads, 0 if it is not
//! given. The report is JSON; `cargo xtask bench-peers --only reload` makes a table of it.
//!
//! One thread decides without pause and times each decision; a watcher brings one of two signed releases after the other. Each round
//! has a part without reloads, one with them, and one in which the other thread only hashes the bytes of a model, for as long as
//! the reloads worked and with the same pauses: whatever else the machine does meets all three alike, and the third tells what any
//! work on the other processor costs, which may be the other half of the same core. Ratios are of all rounds together, with the
//! least and the largest of a round.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement fails loudly and prints what it found")]

#[path = "../tests/manifests/mod.rs"]
mod manifests;
#[path = "../tests/nets/mod.rs"]
mod nets;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bellwether_artifact::Sha256;
use bellwether_artifact::keys::{PrivateKey, TrustedKeys};
use bellwether_artifact::release::{Companions, publish};
use bellwether_artifact::signature::ReleaseSignature;
use bellwether_inference::Policy;
use bellwether_inference::model::Contract;
use bellwether_inference::policy::{Limits, Options};
use bellwether_inference::watch::{FolderSource, VersionPolicy, WatchOptions, Watcher, WindowOptions, open};
use nets::{Draw, state_for};
use serde_json::{Value, json};

const ROUNDS: usize = 10;

/// Times of decisions: 64 buckets for each power of two of nanoseconds, so a quantile is off by less than 2 %.
#[derive(Clone)]
struct Times(Vec<u64>);

impl Times {
    fn new() -> Self {
        Times(vec![0; 64 * 64])
    }

    fn add(&mut self, time: Duration) {
        let ns = (time.as_nanos() as u64).max(64);
        let power = ns.ilog2();
        self.0[(power * 64 + (ns >> (power - 6)) as u32 % 64) as usize] += 1;
    }

    fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// In microseconds.
    fn quantile(&self, share: f64) -> f64 {
        let rank = (self.count() as f64 * share).ceil();
        let mut below = 0;
        let bucket = self.0.iter().position(|count| {
            below += count;
            below as f64 >= rank
        });
        let (power, part) = bucket.map_or((0, 0), |bucket| (bucket / 64, bucket % 64));
        2_f64.powi(power as i32) * (1.0 + part as f64 / 64.0) / 1_000.0
    }

    /// All of these together.
    fn sum<'a>(all: impl Iterator<Item = &'a Times>) -> Times {
        let mut sum = Times::new();
        for times in all {
            sum.0.iter_mut().zip(&times.0).for_each(|(sum, count)| *sum += count);
        }
        sum
    }

    fn report(&self) -> Value {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| self.quantile(share));
        json!({ "decisions": self.count(), "p50_us": p50, "p99_us": p99, "p999_us": p999 })
    }
}

/// The parts of a round.
const STEADY: usize = 0;
const RELOADING: usize = 1;
const BUSY: usize = 2;

type Round = [Times; 3];

/// How many times as long decisions take while reloading as in another part of the rounds.
fn over(rounds: &[Round], part: usize, share: f64) -> Value {
    let ratio = |one: &Times, other: &Times| one.quantile(share) / other.quantile(share);
    let ratios = rounds.iter().map(|round| ratio(&round[RELOADING], &round[part]));
    let [least, most] =
        ratios.fold([f64::INFINITY, 0.0], |[low, high], ratio| [f64::min(low, ratio), f64::max(high, ratio)]);
    json!({ "whole": ratio(&sum(rounds, RELOADING), &sum(rounds, part)), "least": least, "most": most })
}

fn sum(rounds: &[Round], part: usize) -> Times {
    Times::sum(rounds.iter().map(|round| &round[part]))
}

/// Memory of this process that is resident, in bytes.
fn resident() -> f64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
}

/// The slope of the line with the least squares through these points.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let above: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    above / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>()
}

fn point_to(root: &Path, number: u32) {
    let (new, name) = (root.join("new"), root.join("champion"));
    symlink(number.to_string(), &new).unwrap();
    fs::rename(new, name).unwrap();
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>().unwrap());
    let reloads = numbers.next().unwrap_or(10_000).max(ROUNDS);
    let hidden = numbers.next().unwrap_or(256);
    let pause = Duration::from_millis(numbers.next().unwrap_or(0) as u64);
    let widths = [64, hidden, hidden, 5];
    let root = tempfile::tempdir().unwrap();
    let (key, contract) = (PrivateKey::from_seed(&[1; 32]), Contract::sandbox(widths[0], Sha256::of(b"spec")));
    let mut model = Vec::new();
    for number in [1, 2] {
        let (manifest, onnx) = manifests::sealed(&Draw(number).mlp(&widths), &contract, |_| {});
        let json = manifest.to_json().unwrap();
        let signature = ReleaseSignature::sign(json.as_bytes(), &key).to_json().unwrap();
        let companions = Companions { signature: Some(signature.as_bytes()), ..Companions::default() };
        publish(&root.path().join(number.to_string()), &manifest, &onnx, companions).unwrap();
        model = onnx;
    }
    point_to(root.path(), 1);
    let mut source = FolderSource::releases(root.path(), VersionPolicy::Name("champion".to_owned()));
    // Every model is watched after its swap; drawn networks agree in little, so any disagreement is fine.
    let window = WindowOptions { max_disagreement: 1.0, ..WindowOptions::default() };
    let options = WatchOptions {
        poll: Duration::from_secs(3_600),
        trusted: Some(TrustedKeys::new([key.public()])),
        window: Some(window),
        ..WatchOptions::default()
    };
    let (release, number) = open(&mut source, |_| contract.clone(), &options).unwrap();
    let limits = Limits { hidden_width: hidden };
    let policy = Policy::new(release, number, Options { limits, ..Options::default() }).unwrap();
    let watcher = Watcher::start(policy.clone(), source, options).unwrap();
    let states: Vec<Vec<f32>> = (0..256).map(|seed| state_for(&Draw(1).mlp(&widths), seed)).collect();

    let (phase, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let sampled = (reloads as u64 / 200).max(1);
    let mut memory = Vec::new();
    let mut working = Duration::ZERO;
    let rounds = thread::scope(|scope| {
        let mut decider = policy.decider();
        let (phase, done, states) = (&phase, &done, &states);
        let worker = scope.spawn(move || {
            let mut times: Vec<Round> = (0..ROUNDS).map(|_| [STEADY, RELOADING, BUSY].map(|_| Times::new())).collect();
            for state in states.iter().cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let start = Instant::now();
                decider.decide(state, &[true; 5]).unwrap();
                let phase = phase.load(Ordering::Relaxed);
                times[phase / 3][phase % 3].add(start.elapsed());
            }
            times
        });
        let mut number = 1;
        for round in 0..ROUNDS {
            let enter = |part: usize| phase.store(3 * round + part, Ordering::Relaxed);
            enter(RELOADING);
            let (start, worked) = (Instant::now(), working);
            for _ in 0..reloads / ROUNDS {
                number = 3 - number;
                point_to(root.path(), number);
                let start = Instant::now();
                assert_eq!(watcher.check_now().serving.number, Some(number));
                working += start.elapsed();
                let swapped = watcher.counts().swapped;
                if swapped.is_multiple_of(sampled) {
                    memory.push((swapped as f64, resident()));
                }
                thread::sleep(pause);
            }
            let took = start.elapsed();
            enter(STEADY);
            thread::sleep(took);
            enter(BUSY);
            let each = (working - worked) / (reloads / ROUNDS) as u32;
            for _ in 0..reloads / ROUNDS {
                let start = Instant::now();
                while start.elapsed() < each {
                    std::hint::black_box(Sha256::of(&model));
                }
                thread::sleep(pause);
            }
        }
        done.store(true, Ordering::Relaxed);
        worker.join().unwrap()
    });

    let counts = watcher.counts();
    drop(watcher);
    policy.reap();
    // What the first reloads allocate stays and is used again.
    let settled = &memory[memory.len() / 10..];
    let part = |part: usize| sum(&rounds, part).report();
    let over = |part: usize| json!({ "p50": over(&rounds, part, 0.5), "p99": over(&rounds, part, 0.99) });
    let refusals: u64 = policy.metrics().refusals.iter().map(|(_, count)| count).sum();
    let report = json!({
        "widths": widths,
        "reloads": counts.swapped,
        "not_served": counts.reloads()[2..].iter().map(|(_, _, count)| count).sum::<u64>(),
        "ms_per_reload": working.as_secs_f64() * 1e3 / counts.swapped.max(1) as f64,
        "pause_ms": pause.as_millis() as u64,
        "steady": part(STEADY),
        "reloading": part(RELOADING),
        "busy": part(BUSY),
        "over_steady": over(STEADY),
        "over_busy": over(BUSY),
        "failed_decisions": refusals,
        "models_resident": policy.status().models_resident,
        "resident": {
            "first_mb": settled[0].1 / 1e6,
            "last_mb": settled[settled.len() - 1].1 / 1e6,
            // Null where there are too few reloads for a line.
            "bytes_per_reload": slope(settled),
        },
    });
    println!("{report:#}");
}
