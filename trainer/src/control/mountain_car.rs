//! A car too weak for its hill.

use super::uniform;
use crate::streams::stream;
use bellwether_env_adapter::{Environment, Step};

/// A car in a valley that is pushed left, not at all or right (actions 0 to 2) until it is on the hill to the right; reward -1
/// for each step: MountainCar-v0.
///
/// The dynamics are those of Gymnasium's `MountainCar-v0` (Moore 1990), in `f64`, observations in `f32`. An episode is
/// truncated after 200 steps. First positions are drawn from -0.6 to -0.4 by a stream of our own.
#[derive(Clone, Debug, PartialEq)]
pub struct MountainCar {
    /// Position and velocity.
    state: [f64; 2],
    steps: u32,
    over: bool,
}

const POSITIONS: [f64; 2] = [-1.2, 0.6];
const SPEED_LIMIT: f64 = 0.07;
const GOAL: f64 = 0.5;
const FORCE: f64 = 0.001;
const GRAVITY: f64 = 0.0025;
/// Steps after which an episode is truncated.
const STEP_LIMIT: u32 = 200;

impl Default for MountainCar {
    fn default() -> Self {
        MountainCar { state: [0.0; 2], steps: 0, over: true }
    }
}

impl MountainCar {
    /// Position and velocity.
    pub fn state(&self) -> [f64; 2] {
        self.state
    }

    /// Starts an episode in a given state.
    pub fn reset_to(&mut self, state: [f64; 2]) {
        *self = MountainCar { state, steps: 0, over: false };
    }
}

impl Environment for MountainCar {
    fn width(&self) -> usize {
        2
    }

    fn actions(&self) -> usize {
        3
    }

    fn reset(&mut self, seed: u64) {
        let mut rng = stream(seed, "mountain_car");
        self.reset_to([uniform(&mut rng, -0.6, -0.4), 0.0]);
    }

    fn step(&mut self, action: usize) -> Step {
        assert!(action < 3, "MountainCar has actions 0 to 2, not {action}");
        assert!(!self.over, "the episode is over; reset the environment");
        let [position, velocity] = self.state;
        let pushed = velocity + ((action as f64 - 1.0) * FORCE + libm::cos(3.0 * position) * -GRAVITY);
        let velocity = pushed.clamp(-SPEED_LIMIT, SPEED_LIMIT);
        let position = (position + velocity).clamp(POSITIONS[0], POSITIONS[1]);
        // The wall on the left takes all speed.
        let velocity = if position == POSITIONS[0] && velocity < 0.0 { 0.0 } else { velocity };
        self.state = [position, velocity];
        self.steps += 1;
        let terminated = position >= GOAL && velocity >= 0.0;
        let truncated = self.steps >= STEP_LIMIT;
        self.over = terminated || truncated;
        Step { reward: -1.0, terminated, truncated }
    }

    fn observe(&self, out: &mut [f32]) {
        for (out, value) in out.iter_mut().zip(self.state) {
            *out = value as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who pushes along the way reaches the hill; who only pushes to the right does not.
    #[test]
    fn swinging_reaches_the_hill_and_pushing_does_not() {
        for seed in 0..20 {
            for swings in [true, false] {
                let mut env = MountainCar::default();
                env.reset(seed);
                let last = loop {
                    let left = swings && env.state()[1] < 0.0;
                    let step = env.step(if left { 0 } else { 2 });
                    if step.terminated || step.truncated {
                        break step;
                    }
                };
                assert_eq!((last.terminated, last.truncated), (swings, !swings), "seed {seed}");
            }
        }
    }

    #[test]
    fn the_wall_stops_the_car() {
        let mut env = MountainCar::default();
        env.reset_to([-1.19, -0.05]);
        env.step(0);
        assert_eq!(env.state(), [-1.2, 0.0]);
    }
}
