//! Runs the recipe of RL Baselines3 Zoo for CartPole-v1, all 50,000 steps, and prints one JSON line per seed.
//!
//! `cargo run --release -p bellwether-trainer --example cartpole_train -- [SEED]...`

use bellwether_trainer::control::CartPole;
use bellwether_trainer::dqn::{DqnConfig, DqnEvent, DqnTrainer, evaluate_greedy};
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
    for seed in seeds {
        let start = Instant::now();
        let config = DqnConfig { seed, ..DqnConfig::cart_pole() };
        let mut run = DqnTrainer::new(config, vec![CartPole::default()], FusedOptions::default())?;
        let report = run.run(&mut |_: &DqnEvent| ControlFlow::Continue(()))?;
        let seconds = start.elapsed().as_secs_f64();
        let greedy = evaluate_greedy(run.learner(), &mut CartPole::default(), 50, 1000, seed)?;
        let line = json!({
            "seed": seed,
            "environment_steps": report.environment_steps,
            "updates": report.updates,
            "wall_seconds": seconds,
            "mean_return": greedy.mean_return(),
            "min_return": greedy.min_return(),
        });
        writeln!(std::io::stdout(), "{line}")?;
    }
    Ok(())
}
