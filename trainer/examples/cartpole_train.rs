//! Runs the recipe of RL Baselines3 Zoo for CartPole-v1, all 50,000 steps, and prints one JSON line per seed.
//!
//! `cargo run --release -p bellwether-trainer --example cartpole_train -- [SEED]...`
//!
//! Like the evaluation callback of that project, it plays some greedy episodes now and then and keeps the best network of
//! the run beside the last one. What is printed about both comes from episodes that chose nothing.

use bellwether_trainer::control::CartPole;
use bellwether_trainer::dqn::{DqnConfig, DqnEvent, DqnTrainer, Selection, evaluate_greedy};
use bellwether_trainer::learner::fused::FusedOptions;
use serde_json::json;
use std::io::Write;
use std::ops::ControlFlow;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut seeds = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<Vec<u64>, _>>()?;
    if seeds.is_empty() {
        seeds.push(1);
    }
    let selection = Selection { interval: 2500, episodes: 20, max_steps: 1000, seed: u64::MAX };
    for seed in seeds {
        let start = Instant::now();
        let config = DqnConfig { seed, ..DqnConfig::cart_pole() };
        let mut run = DqnTrainer::new(config, vec![CartPole::default()], FusedOptions::default())?;
        let mut env = CartPole::default();
        let selected = run.run_selecting(&mut env, &selection, &mut |_: &DqnEvent| ControlFlow::Continue(()))?;
        let seconds = start.elapsed().as_secs_f64();
        let last = evaluate_greedy(run.learner(), &mut env, 50, 1000, seed)?;
        if let Some(best) = &selected.best {
            run.learner().restore(best)?;
        }
        let best = evaluate_greedy(run.learner(), &mut env, 50, 1000, seed)?;
        let line = json!({
            "seed": seed,
            "environment_steps": selected.report.environment_steps,
            "updates": selected.report.updates,
            "wall_seconds": seconds,
            "last": { "mean_return": last.mean_return(), "min_return": last.min_return() },
            "best": { "mean_return": best.mean_return(), "min_return": best.min_return() },
            "curve": selected.curve,
        });
        writeln!(std::io::stdout(), "{line}")?;
    }
    Ok(())
}
