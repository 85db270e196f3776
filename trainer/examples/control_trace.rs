//! Prints a deterministic trajectory of a control task as JSON lines, so that another implementation can be compared with it: state
//! and action of each step, then what the step gave.
//!
//! `cargo run -p bellwether-trainer --example control_trace -- cart_pole|acrobot|mountain_car [EPISODES] [SEED]`
//!
//! Numbers are printed so that reading them back gives the same `f64`.

use bellwether_env_adapter::Environment;
use bellwether_trainer::control::{Acrobot, CartPole, MountainCar};
use bellwether_trainer::streams::stream;
use rand::Rng;
use serde_json::json;
use std::io::Write;

/// A task whose state can be shown, and a policy that plays it well, so that long episodes are seen as well as short ones.
trait Traced: Environment + Default {
    fn state(&self) -> Vec<f64>;
    fn play_well(&self) -> usize;
}

impl Traced for CartPole {
    fn state(&self) -> Vec<f64> {
        self.state().to_vec()
    }
    fn play_well(&self) -> usize {
        let [_, _, angle, angular_velocity] = self.state();
        usize::from(angle + 0.3 * angular_velocity > 0.0)
    }
}

impl Traced for Acrobot {
    fn state(&self) -> Vec<f64> {
        self.state().to_vec()
    }
    fn play_well(&self) -> usize {
        if self.state()[3] > 0.0 { 2 } else { 0 }
    }
}

impl Traced for MountainCar {
    fn state(&self) -> Vec<f64> {
        self.state().to_vec()
    }
    fn play_well(&self) -> usize {
        if self.state()[1] < 0.0 { 0 } else { 2 }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "cart_pole".to_owned());
    let episodes = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let seed = arguments.next().map_or(Ok(0), |text| text.parse())?;
    match name.as_str() {
        "cart_pole" => trace(CartPole::default(), episodes, seed),
        "acrobot" => trace(Acrobot::default(), episodes, seed),
        "mountain_car" => trace(MountainCar::default(), episodes, seed),
        other => Err(format!("`{other}` is no task: give cart_pole, acrobot or mountain_car").into()),
    }
}

fn trace(mut env: impl Traced, episodes: u64, seed: u64) -> Result<(), Box<dyn std::error::Error>> {
    let mut rng = stream(seed, "trace");
    let mut out = std::io::stdout().lock();
    let mut observation = vec![0.0_f32; env.width()];
    for episode in 0..episodes {
        env.reset(rng.next_u64());
        let mut over = false;
        while !over {
            let before = env.state();
            let action = if episode % 2 == 0 { env.play_well() } else { rng.next_u32() as usize % env.actions() };
            let step = env.step(action);
            over = step.terminated || step.truncated;
            env.observe(&mut observation);
            let line = json!({
                "episode": episode,
                "state": before,
                "action": action,
                "reward": step.reward,
                "next_state": env.state(),
                // An f32 is an f64 without loss, and so comparable with another's.
                "observation": observation.iter().copied().map(f64::from).collect::<Vec<f64>>(),
                "terminated": step.terminated,
                "truncated": step.truncated,
            });
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}
