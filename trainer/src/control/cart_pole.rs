//! The pole on a cart.

use super::uniform;
use crate::streams::stream;
use bellwether_env_adapter::{Environment, Step};

/// A pole on a cart that is pushed left (action 0) or right (action 1), reward 1 for each step: CartPole-v1.
///
/// The dynamics are those of Gymnasium's `CartPole-v1` (after Barto, Sutton and Anderson 1983): explicit Euler steps of
/// 20 ms in `f64`, observations in `f32`. An episode is terminated when the cart leaves ±2.4 m or the pole ±12 degrees,
/// and truncated after 500 steps. First states are drawn from `±0.05` by a stream of our own.
#[derive(Clone, Debug, PartialEq)]
pub struct CartPole {
    /// Position (m), velocity (m/s), angle (rad), angular velocity (rad/s).
    state: [f64; 4],
    steps: u32,
    over: bool,
}

const GRAVITY: f64 = 9.8;
const POLE_MASS: f64 = 0.1;
const TOTAL_MASS: f64 = 1.0 + POLE_MASS;
/// Half the length of the pole (m).
const LENGTH: f64 = 0.5;
const POLE_MASS_LENGTH: f64 = POLE_MASS * LENGTH;
const FORCE: f64 = 10.0;
/// Seconds per step.
const TAU: f64 = 0.02;
const POSITION_LIMIT: f64 = 2.4;
const ANGLE_LIMIT: f64 = 12.0 * 2.0 * std::f64::consts::PI / 360.0;
/// Steps after which an episode is truncated.
const STEP_LIMIT: u32 = 500;

impl Default for CartPole {
    fn default() -> Self {
        CartPole { state: [0.0; 4], steps: 0, over: true }
    }
}

impl CartPole {
    /// Position, velocity, angle and angular velocity.
    pub fn state(&self) -> [f64; 4] {
        self.state
    }

    /// Starts an episode in a given state.
    pub fn reset_to(&mut self, state: [f64; 4]) {
        *self = CartPole { state, steps: 0, over: false };
    }
}

impl Environment for CartPole {
    fn width(&self) -> usize {
        4
    }

    fn actions(&self) -> usize {
        2
    }

    fn reset(&mut self, seed: u64) {
        let mut rng = stream(seed, "cart_pole");
        self.reset_to(std::array::from_fn(|_| uniform(&mut rng, -0.05, 0.05)));
    }

    fn step(&mut self, action: usize) -> Step {
        assert!(action < 2, "CartPole has actions 0 and 1, not {action}");
        assert!(!self.over, "the episode is over; reset the environment");
        let [position, velocity, angle, angular_velocity] = self.state;
        let force = if action == 1 { FORCE } else { -FORCE };
        let (cosine, sine) = (libm::cos(angle), libm::sin(angle));
        let push = (force + POLE_MASS_LENGTH * (angular_velocity * angular_velocity) * sine) / TOTAL_MASS;
        let angular_acceleration =
            (GRAVITY * sine - cosine * push) / (LENGTH * (4.0 / 3.0 - POLE_MASS * (cosine * cosine) / TOTAL_MASS));
        let acceleration = push - POLE_MASS_LENGTH * angular_acceleration * cosine / TOTAL_MASS;
        self.state = [
            position + TAU * velocity,
            velocity + TAU * acceleration,
            angle + TAU * angular_velocity,
            angular_velocity + TAU * angular_acceleration,
        ];
        self.steps += 1;
        let terminated = self.state[0].abs() > POSITION_LIMIT || self.state[2].abs() > ANGLE_LIMIT;
        let truncated = self.steps >= STEP_LIMIT;
        self.over = terminated || truncated;
        Step { reward: 1.0, terminated, truncated }
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

    /// Steps from a published trajectory: Gymnasium 1.4's `CartPole-v1` from this state, pushed right, right, left.
    #[test]
    fn the_dynamics_are_those_of_the_published_environment() {
        let mut env = CartPole::default();
        env.reset_to([0.01, -0.02, 0.03, 0.04]);
        let expected = [
            [0.009_600_000_000_000_001, 0.174_679_195_747_555_25, 0.030_8, -0.243_068_717_960_008_1],
            [0.013_093_583_914_951_107, 0.369_347_976_057_955_6, 0.025_938_625_640_799_837, -0.525_879_628_050_148_3],
            [0.020_480_543_436_110_22, 0.173_870_812_604_815_96, 0.015_421_033_079_796_87, -0.225_137_416_092_374_64],
        ];
        for (action, expected) in [1, 1, 0].into_iter().zip(expected) {
            env.step(action);
            for (ours, expected) in env.state().into_iter().zip(expected) {
                assert!((ours - expected).abs() < 1e-12, "{ours} and {expected}");
            }
        }
    }

    #[test]
    fn an_episode_ends_by_falling_or_by_its_length() {
        let mut env = CartPole::default();
        env.reset(3);
        let mut last = Step { reward: 0.0, terminated: false, truncated: false };
        for _ in 0..STEP_LIMIT {
            last = env.step(1);
            if last.terminated {
                break;
            }
        }
        assert!(last.terminated && !last.truncated);
        // A controller that looks at the pole alone keeps it up for the whole of the episode.
        env.reset(3);
        for step in 1..=STEP_LIMIT {
            let [_, _, angle, angular_velocity] = env.state();
            last = env.step(usize::from(angle + 0.3 * angular_velocity > 0.0));
            assert!(!last.terminated, "fell after {step} steps");
            assert_eq!(last.truncated, step == STEP_LIMIT);
        }
    }

    #[test]
    fn a_seed_is_an_episode() {
        let first = |seed| {
            let mut env = CartPole::default();
            env.reset(seed);
            env.state()
        };
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
        assert!((0..100).flat_map(first).all(|value| value.abs() <= 0.05));
    }
}
