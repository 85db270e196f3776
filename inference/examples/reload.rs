//! What ten thousand reloads do to memory and to the latency of decisions.
//!
//! ```text
//! cargo run --release -p bellwether-inference --features watch --example reload -- [RELOADS [HIDDEN [PAUSE_MS]]]
//! ```
//! `HIDDEN` is the width of both hidden layers, 256 if it is not given, and `PAUSE_MS` lies between two reloads, 0 if it is not
//! given. The report is JSON; `cargo xtask bench-peers --only reload` makes a table of it.
//!
//! One thread decides without pause and times each decision; a watcher brings one of two signed releases after the other. Rounds
//! without reloads and rounds with them take turns, so that whatever else the machine does meets both alike. Ratios are of all rounds
//! together, with the least and the largest of a pair of rounds.
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

/// How many times as long decisions take in the rounds with reloads as in those without.
fn over_steady(rounds: &[[Times; 2]], share: f64) -> Value {
    let ratio = |[steady, reloading]: [&Times; 2]| reloading.quantile(share) / steady.quantile(share);
    let ratios = rounds.iter().map(|[steady, reloading]| ratio([steady, reloading]));
    let [least, most] =
        ratios.fold([f64::INFINITY, 0.0], |[low, high], ratio| [f64::min(low, ratio), f64::max(high, ratio)]);
    let [steady, reloading] = sums(rounds);
    json!({ "whole": ratio([&steady, &reloading]), "least": least, "most": most })
}

fn sums(rounds: &[[Times; 2]]) -> [Times; 2] {
    [0, 1].map(|phase| Times::sum(rounds.iter().map(|round| &round[phase])))
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
    for number in [1, 2] {
        let (manifest, onnx) = manifests::sealed(&Draw(number).mlp(&widths), &contract, |_| {});
        let json = manifest.to_json().unwrap();
        let signature = ReleaseSignature::sign(json.as_bytes(), &key).to_json().unwrap();
        let companions = Companions { signature: Some(signature.as_bytes()), ..Companions::default() };
        publish(&root.path().join(number.to_string()), &manifest, &onnx, companions).unwrap();
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
    let (release, number) = open(&mut source, &contract, &options).unwrap();
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
            // A round's times are at the places of its two phases.
            let mut times = vec![Times::new(); 2 * ROUNDS];
            for state in states.iter().cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let start = Instant::now();
                decider.decide(state, &[true; 5]).unwrap();
                times[phase.load(Ordering::Relaxed)].add(start.elapsed());
            }
            times
        });
        let mut number = 1;
        for round in 0..ROUNDS {
            phase.store(2 * round + 1, Ordering::Relaxed);
            let start = Instant::now();
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
            phase.store(2 * round, Ordering::Relaxed);
            thread::sleep(took);
        }
        done.store(true, Ordering::Relaxed);
        let times = worker.join().unwrap();
        times.chunks(2).map(|pair| [pair[0].clone(), pair[1].clone()]).collect::<Vec<_>>()
    });

    let counts = watcher.counts();
    drop(watcher);
    policy.reap();
    // What the first reloads allocate stays and is used again.
    let settled = &memory[memory.len() / 10..];
    let [steady, while_reloading] = sums(&rounds);
    let refusals: u64 = policy.metrics().refusals.iter().map(|(_, count)| count).sum();
    let report = json!({
        "widths": widths,
        "reloads": counts.swapped,
        "not_served": counts.reloads()[2..].iter().map(|(_, _, count)| count).sum::<u64>(),
        "ms_per_reload": working.as_secs_f64() * 1e3 / counts.swapped.max(1) as f64,
        "pause_ms": pause.as_millis() as u64,
        "steady": steady.report(),
        "reloading": while_reloading.report(),
        "over_steady": { "p50": over_steady(&rounds, 0.5), "p99": over_steady(&rounds, 0.99) },
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
