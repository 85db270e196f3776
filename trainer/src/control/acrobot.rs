//! Two links that hang from a hinge and are swung up.

use super::{uniform, wrapped};
use crate::streams::stream;
use bellwether_env_adapter::{Environment, Step};
use std::f64::consts::PI;

/// Two links of which the joint between them is driven, by -1, 0 or 1 Nm (actions 0 to 2), until the lower end swings one
/// length above the hinge; reward -1 for each step but the last: Acrobot-v1.
///
/// The dynamics are those of Gymnasium's `Acrobot-v1` (Sutton and Barto 2018, section 11.3): one Runge-Kutta step of 0.2 s
/// in `f64`, observations in `f32`: cosine and sine of both angles, and both angular velocities. An episode is truncated
/// after 500 steps. First states are drawn from `±0.1` by a stream of our own.
#[derive(Clone, Debug, PartialEq)]
pub struct Acrobot {
    /// Angle of the upper link from hanging (rad), of the lower link from the upper, and their velocities (rad/s).
    state: [f64; 4],
    steps: u32,
    over: bool,
}

const GRAVITY: f64 = 9.8;
/// Mass of a link (kg), its length (m), the place of its centre, and its moment of inertia.
const MASS: f64 = 1.0;
const LENGTH: f64 = 1.0;
const CENTRE: f64 = 0.5;
const INERTIA: f64 = 1.0;
/// Seconds per step.
const TAU: f64 = 0.2;
const VELOCITY_LIMITS: [f64; 2] = [4.0 * PI, 9.0 * PI];
/// Steps after which an episode is truncated.
const STEP_LIMIT: u32 = 500;

impl Default for Acrobot {
    fn default() -> Self {
        Acrobot { state: [0.0; 4], steps: 0, over: true }
    }
}

impl Acrobot {
    /// Both angles and both velocities.
    pub fn state(&self) -> [f64; 4] {
        self.state
    }

    /// Starts an episode in a given state.
    pub fn reset_to(&mut self, state: [f64; 4]) {
        *self = Acrobot { state, steps: 0, over: false };
    }
}

/// The change of the state per second under a torque (equations of Sutton and Barto's book).
fn derivative([upper, lower, upper_velocity, lower_velocity]: [f64; 4], torque: f64) -> [f64; 4] {
    let (cosine, sine) = (libm::cos(lower), libm::sin(lower));
    let d1 = MASS * CENTRE * CENTRE
        + MASS * (LENGTH * LENGTH + CENTRE * CENTRE + 2.0 * LENGTH * CENTRE * cosine)
        + INERTIA
        + INERTIA;
    let d2 = MASS * (CENTRE * CENTRE + LENGTH * CENTRE * cosine) + INERTIA;
    let phi2 = MASS * CENTRE * GRAVITY * libm::cos(upper + lower - PI / 2.0);
    let phi1 = -MASS * LENGTH * CENTRE * (lower_velocity * lower_velocity) * sine
        - 2.0 * MASS * LENGTH * CENTRE * lower_velocity * upper_velocity * sine
        + (MASS * CENTRE + MASS * LENGTH) * GRAVITY * libm::cos(upper - PI / 2.0)
        + phi2;
    let lower_acceleration =
        (torque + d2 / d1 * phi1 - MASS * LENGTH * CENTRE * (upper_velocity * upper_velocity) * sine - phi2)
            / (MASS * CENTRE * CENTRE + INERTIA - d2 * d2 / d1);
    let upper_acceleration = -(d2 * lower_acceleration + phi1) / d1;
    [upper_velocity, lower_velocity, upper_acceleration, lower_acceleration]
}

impl Environment for Acrobot {
    fn width(&self) -> usize {
        6
    }

    fn actions(&self) -> usize {
        3
    }

    fn reset(&mut self, seed: u64) {
        let mut rng = stream(seed, "acrobot");
        // As in the original, the first state has the precision of an observation.
        self.reset_to(std::array::from_fn(|_| f64::from(uniform(&mut rng, -0.1, 0.1) as f32)));
    }

    fn step(&mut self, action: usize) -> Step {
        assert!(action < 3, "Acrobot has actions 0 to 2, not {action}");
        assert!(!self.over, "the episode is over; reset the environment");
        let torque = action as f64 - 1.0;
        let moved = |by: f64, k: [f64; 4]| std::array::from_fn(|i| self.state[i] + by * k[i]);
        let k1 = derivative(self.state, torque);
        let k2 = derivative(moved(TAU / 2.0, k1), torque);
        let k3 = derivative(moved(TAU / 2.0, k2), torque);
        let k4 = derivative(moved(TAU, k3), torque);
        let [upper, lower, upper_velocity, lower_velocity]: [f64; 4] =
            std::array::from_fn(|i| self.state[i] + TAU / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]));
        self.state = [
            wrapped(upper),
            wrapped(lower),
            upper_velocity.clamp(-VELOCITY_LIMITS[0], VELOCITY_LIMITS[0]),
            lower_velocity.clamp(-VELOCITY_LIMITS[1], VELOCITY_LIMITS[1]),
        ];
        self.steps += 1;
        let terminated = -libm::cos(self.state[0]) - libm::cos(self.state[1] + self.state[0]) > 1.0;
        let truncated = self.steps >= STEP_LIMIT;
        self.over = terminated || truncated;
        Step { reward: if terminated { 0.0 } else { -1.0 }, terminated, truncated }
    }

    fn observe(&self, out: &mut [f32]) {
        let [upper, lower, upper_velocity, lower_velocity] = self.state;
        let values =
            [libm::cos(upper), libm::sin(upper), libm::cos(lower), libm::sin(lower), upper_velocity, lower_velocity];
        for (out, value) in out.iter_mut().zip(values) {
            *out = value as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A torque along the velocity of the lower link pumps energy into the swing.
    #[test]
    fn pumping_swings_it_up_and_waiting_does_not() {
        let mut env = Acrobot::default();
        for (pump, terminates) in [(true, true), (false, false)] {
            env.reset(1);
            let mut total = 0.0;
            let last = loop {
                let action = if pump { if env.state()[3] > 0.0 { 2 } else { 0 } } else { 1 };
                let step = env.step(action);
                total += step.reward;
                if step.terminated || step.truncated {
                    break step;
                }
            };
            assert_eq!((last.terminated, last.truncated), (terminates, !terminates));
            assert!(if pump { total > -300.0 } else { total == -500.0 }, "{total}");
        }
    }

    /// Without a torque nothing is won or lost: the energy stays what it was, as far as steps of 0.2 s can tell.
    #[test]
    fn energy_is_kept() {
        let energy = |[a, b, va, vb]: [f64; 4]| {
            let speed = va * va + 0.25 * (va + vb) * (va + vb) + va * (va + vb) * libm::cos(b);
            let kinetic = 0.5 * (0.25 * va * va + speed + va * va + (va + vb) * (va + vb));
            kinetic - GRAVITY * (0.5 * libm::cos(a) + libm::cos(a) + 0.5 * libm::cos(a + b))
        };
        let mut env = Acrobot::default();
        env.reset_to([0.3, -0.2, 0.1, 0.2]);
        let first = energy(env.state());
        for _ in 0..100 {
            env.step(1);
            assert!((energy(env.state()) - first).abs() < 0.02, "{} of {first}", energy(env.state()));
        }
    }
}
