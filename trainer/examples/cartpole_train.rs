//! Runs the recipe of RL Baselines3 Zoo for CartPole-v1, all 50,000 steps, and prints one JSON line per seed.
//!
//! `cargo run --release -p bellwether-trainer --example cartpole_train -- [SEED]...`
//!
//! Like the evaluation callback of that project, it plays some greedy episodes now and then and keeps the best network of
//! the run beside the last one. What is printed about both comes from episodes that chose nothing.

use bellwether_trainer::control::CartPole;
use bellwether_trainer::dqn::{DqnConfig, DqnEvent, DqnTrainer, GreedyEvaluation, evaluate_greedy};
use bellwether_trainer::learner::LearnerState;
use bellwether_trainer::learner::fused::FusedOptions;
use serde_json::json;
use std::io::Write;
use std::ops::ControlFlow;
use std::time::Instant;

/// Environment steps between two evaluations.
const EVALUATION_INTERVAL: u64 = 2500;
/// Episodes that choose the best network.
const CHOOSING_EPISODES: usize = 20;
/// Episodes that say how good a network is.
const JUDGING_EPISODES: usize = 50;
/// Seed of the episodes that choose; the judging ones are drawn from the seed of the run.
const CHOOSING_SEED: u64 = u64::MAX;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut seeds = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<Vec<u64>, _>>()?;
    if seeds.is_empty() {
        seeds.push(1);
    }
    for seed in seeds {
        let start = Instant::now();
        let config = DqnConfig { seed, ..DqnConfig::cart_pole() };
        let mut run = DqnTrainer::new(config, vec![CartPole::default()], FusedOptions::default())?;
        let mut curve = Vec::new();
        let mut best: Option<(f64, LearnerState)> = None;
        let mut due = EVALUATION_INTERVAL;
        let report = loop {
            let report = run.run(&mut |event: &DqnEvent| match event {
                DqnEvent::Updates { environment_steps, .. } if *environment_steps >= due => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            })?;
            due += EVALUATION_INTERVAL;
            let mean = play(&mut run, CHOOSING_EPISODES, CHOOSING_SEED)?.mean_return();
            curve.push(mean);
            if best.as_ref().is_none_or(|(most, _)| mean > *most) {
                best = Some((mean, run.learner().state()));
            }
            if report.finished {
                break report;
            }
        };
        let seconds = start.elapsed().as_secs_f64();
        let last = play(&mut run, JUDGING_EPISODES, seed)?;
        if let Some((_, state)) = &best {
            run.learner().restore(state)?;
        }
        let best = play(&mut run, JUDGING_EPISODES, seed)?;
        let line = json!({
            "seed": seed,
            "environment_steps": report.environment_steps,
            "updates": report.updates,
            "wall_seconds": seconds,
            "last": { "mean_return": last.mean_return(), "min_return": last.min_return() },
            "best": { "mean_return": best.mean_return(), "min_return": best.min_return() },
            "curve": curve,
        });
        writeln!(std::io::stdout(), "{line}")?;
    }
    Ok(())
}

/// Plays greedy episodes with the network as it is.
fn play(
    run: &mut DqnTrainer<CartPole>,
    episodes: usize,
    seed: u64,
) -> Result<GreedyEvaluation, bellwether_trainer::dqn::DqnError> {
    evaluate_greedy(run.learner(), &mut CartPole::default(), episodes, 1000, seed)
}
