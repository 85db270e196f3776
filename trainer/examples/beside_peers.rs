//! The trainer's side of `cargo xtask bench-peers`: each line of standard input is a question, each line of standard output its
//! answer, so that ours and a peer can take turns. `peers/trainers.py` answers the same questions with published packages.
//!
//! `{"fma_peak": {"seconds": 0.2}}`, `{"updates": {"inputs": 64, "hidden": [256, 256], "actions": 6, "double": false, "batch": 32,
//! "seconds": 1.0}}` or `{"cart_pole": {"seed": 1, "steps": 50000}}`, all on one thread.

use bellwether_env_adapter::{Environment, Step};
use bellwether_trainer::control::CartPole;
use bellwether_trainer::dqn::{DqnConfig, DqnEvent, DqnTrainer, UpdateConfig, evaluate_greedy};
use bellwether_trainer::learner::fused::{FusedOptions, Isa, multiply_adds};
use bellwether_trainer::network::NetworkConfig;
use bellwether_trainer::streams::stream;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::Write;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Steps in the buffer before the first update that is timed.
const FILLED: u64 = 20_000;
/// Steps of an episode of [`Drawn`].
const LENGTH: u32 = 20;
/// Updates between two looks at the clock.
const ROUND: u32 = 20;
/// Environment steps between two evaluations of a run, and greedy episodes in each.
const INTERVAL: u64 = 2500;
const EPISODES: usize = 20;

/// What is asked.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Question {
    /// Floating-point operations per second of fused multiply-adds in registers.
    FmaPeak { seconds: f64 },
    /// Updates per second from a filled replay buffer, drawing included.
    Updates(Updates),
    /// Seconds of a run of the CartPole recipe, and what it reached.
    CartPole { seed: u64, steps: u64 },
}

#[derive(Clone, Deserialize, PartialEq)]
struct Updates {
    inputs: usize,
    hidden: Vec<usize>,
    actions: usize,
    double: bool,
    batch: usize,
    seconds: f64,
}

/// Shows drawn numbers; what is played changes nothing but the reward.
struct Drawn {
    actions: usize,
    rng: ChaCha8Rng,
    shown: Vec<f32>,
    steps: u32,
}

impl Drawn {
    fn draw(&mut self) {
        self.shown.iter_mut().for_each(|value| *value = (self.rng.next_u32() >> 8) as f32 / (1 << 24) as f32);
    }
}

impl Environment for Drawn {
    fn width(&self) -> usize {
        self.shown.len()
    }

    fn actions(&self) -> usize {
        self.actions
    }

    fn reset(&mut self, seed: u64) {
        self.rng = stream(seed, "drawn");
        self.steps = 0;
        self.draw();
    }

    fn step(&mut self, action: usize) -> Step {
        self.steps += 1;
        self.draw();
        Step { reward: f32::from(u8::from(action == 2)), terminated: self.steps == LENGTH, truncated: false }
    }

    fn observe(&self, out: &mut [f32]) {
        out.copy_from_slice(&self.shown);
    }
}

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut runs = Vec::new();
    for line in std::io::stdin().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Question::FmaPeak { seconds } => fma_peak(Duration::from_secs_f64(seconds))?,
            Question::Updates(asked) => updates(&mut runs, &asked)?,
            Question::CartPole { seed, steps } => cart_pole(seed, steps)?,
        };
        let mut out = std::io::stdout();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn fma_peak(time: Duration) -> Result<Value, Failure> {
    let (start, isa, mut operations) = (Instant::now(), Isa::best(), 0);
    while start.elapsed() < time {
        operations += multiply_adds(isa, 100_000)?;
    }
    Ok(json!({ "isa": isa.name(), "gflops": operations as f64 / start.elapsed().as_secs_f64() / 1e9 }))
}

/// Floating-point operations of the matrix products of an update.
fn operations(asked: &Updates) -> f64 {
    let widths: Vec<usize> = [&[asked.inputs], asked.hidden.as_slice(), &[asked.actions]].concat();
    let layers: Vec<usize> = widths.windows(2).map(|pair| pair[0] * pair[1]).collect();
    let (all, first) = (layers.iter().sum::<usize>(), layers[0]);
    // Forward through both networks, the weights' gradients, and the slopes of all layers but the first.
    let products = all * if asked.double { 4 } else { 3 } + (all - first);
    2.0 * (products * asked.batch) as f64
}

/// Runs are kept from one question to the next, so that filling the buffer is paid once.
fn updates(runs: &mut Vec<(Updates, DqnTrainer<Drawn>)>, asked: &Updates) -> Result<Value, Failure> {
    let at = match runs.iter().position(|(held, _)| held == asked) {
        Some(at) => at,
        None => {
            let Updates { inputs, ref hidden, actions, double, batch, .. } = *asked;
            let config = DqnConfig {
                // As in each peer: Stable-Baselines3 clips the gradient, d3rlpy does not.
                update: UpdateConfig {
                    batch_size: batch,
                    double,
                    max_gradient_norm: if double { 0.0 } else { 10.0 },
                    ..UpdateConfig::default()
                },
                network: NetworkConfig { hidden: hidden.clone(), ..NetworkConfig::default() },
                total_steps: u64::MAX,
                learning_starts: FILLED,
                train_interval: 1,
                gradient_steps: ROUND,
                target_update_interval: 10_000,
                ..DqnConfig::default()
            };
            let env = Drawn { actions, rng: stream(0, "drawn"), shown: vec![0.0; inputs], steps: 0 };
            let mut run = DqnTrainer::new(config, vec![env], FusedOptions::default())?;
            round(&mut run)?;
            runs.push((asked.clone(), run));
            runs.len() - 1
        }
    };
    let (_, run) = &mut runs[at];
    let (start, mut made) = (Instant::now(), 0);
    while start.elapsed().as_secs_f64() < asked.seconds {
        round(run)?;
        made += ROUND;
    }
    let rate = f64::from(made) / start.elapsed().as_secs_f64();
    Ok(json!({ "updates_per_second": rate, "gflops": rate * operations(asked) / 1e9 }))
}

/// Plays until updates are due, which is after one step once the buffer is filled, and makes them.
fn round(run: &mut DqnTrainer<Drawn>) -> Result<(), Failure> {
    run.run(&mut |event: &DqnEvent| match event {
        DqnEvent::Updates { .. } => ControlFlow::Break(()),
        DqnEvent::Episode { .. } => ControlFlow::Continue(()),
    })?;
    Ok(())
}

/// The clock stands still while the network is evaluated, as it does at the peer.
fn cart_pole(seed: u64, steps: u64) -> Result<Value, Failure> {
    let config = DqnConfig { seed, total_steps: steps, ..DqnConfig::cart_pole() };
    let mut env = CartPole::default();
    let (mut seconds, mut best, mut evaluated) = (0.0, None, 0);
    let start = Instant::now();
    let mut run = DqnTrainer::new(config, vec![CartPole::default()], FusedOptions::default())?;
    seconds += start.elapsed().as_secs_f64();
    let updates = loop {
        let start = Instant::now();
        let report = run.run(&mut |event: &DqnEvent| match event {
            DqnEvent::Updates { environment_steps, .. } if environment_steps / INTERVAL > evaluated => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })?;
        seconds += start.elapsed().as_secs_f64();
        evaluated = report.environment_steps / INTERVAL;
        let reached = evaluate_greedy(run.learner(), &mut env, EPISODES, 1000, u64::MAX)?.mean_return();
        if best.as_ref().is_none_or(|(highest, _)| reached > *highest) {
            best = Some((reached, run.learner().state()));
        }
        if report.finished {
            break report.updates;
        }
    };
    let last = evaluate_greedy(run.learner(), &mut env, 50, 1000, seed)?.mean_return();
    if let Some((_, best)) = &best {
        run.learner().restore(best)?;
    }
    let best = evaluate_greedy(run.learner(), &mut env, 50, 1000, seed)?.mean_return();
    Ok(json!({ "seconds": seconds, "updates": updates, "last_return": last, "best_return": best }))
}
