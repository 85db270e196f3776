//! Prints a deterministic trajectory of the pole on the cart as JSON lines, so that another implementation can be
//! compared with it: state and action of each step, then what the step gave.
//!
//! `cargo run -p bellwether-trainer --example cartpole_trace -- [EPISODES] [SEED]`
//!
//! Numbers are printed so that reading them back gives the same `f64`.

use bellwether_env_adapter::Environment;
use bellwether_trainer::control::CartPole;
use bellwether_trainer::streams::stream;
use rand::Rng;
use serde_json::json;
use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let episodes: u64 = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let seed: u64 = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let mut rng = stream(seed, "trace");
    let mut out = std::io::stdout().lock();
    let mut env = CartPole::default();
    for episode in 0..episodes {
        env.reset(rng.next_u64());
        let mut over = false;
        while !over {
            let before = env.state();
            // Every other episode is balanced, so that long ones are seen as well as falls.
            let [_, _, angle, angular_velocity] = before;
            let balanced = usize::from(angle + 0.3 * angular_velocity > 0.0);
            let action = if episode % 2 == 0 { balanced } else { rng.next_u32() as usize % 2 };
            let step = env.step(action);
            over = step.terminated || step.truncated;
            let mut observation = [0.0_f32; 4];
            env.observe(&mut observation);
            let line = json!({
                "episode": episode,
                "state": before,
                "action": action,
                "reward": step.reward,
                "next_state": env.state(),
                // An f32 is an f64 without loss, and so comparable with another's.
                "observation": observation.map(f64::from),
                "terminated": step.terminated,
                "truncated": step.truncated,
            });
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}
