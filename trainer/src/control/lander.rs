//! A lander above its pad.

use super::uniform;
use crate::streams::stream;
use bellwether_env_adapter::{Environment, Step};

/// A lander that falls towards a pad and is to come to rest on it: no engine (action 0), the one that turns it left (1), the main
/// one (2), the one that turns it right (3).
///
/// Observations and rewards are of the form of Gymnasium's `LunarLander-v3`: position, velocity, angle, angular velocity and
/// the contact of both legs; the gain in nearness, slowness, uprightness and contact, less the fuel, and 100 for a landing or
/// -100 for a crash. The body is a simpler one, so returns are not comparable with that environment's: the ground is flat, engines
/// do not scatter, legs are springs with dampers, and time goes in steps of 5 ms, four to an action. An episode is terminated by
/// a crash, by leaving the sides, or by rest, and truncated after 1,000 steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Lander {
    /// Place of the centre from the pad (m), velocity (m/s), angle from upright, left positive (rad), angular velocity (rad/s).
    state: [f64; 6],
    contacts: [bool; 2],
    shaping: f64,
    /// Steps at rest without a break.
    at_rest: u32,
    steps: u32,
    over: bool,
}

const GRAVITY: f64 = 10.0;
const MASS: f64 = 5.0;
const INERTIA: f64 = 0.9;
/// Accelerations by the engines: along the body, across it, and about it (m/s^2, rad/s^2).
const MAIN: f64 = 17.5;
const SIDE: f64 = 2.4;
const TURN: f64 = 6.5;
/// Tips of the legs and lower corners of the body, from its centre (m).
const LEGS: [[f64; 2]; 2] = [[-0.67, -0.6], [0.67, -0.6]];
const CORNERS: [[f64; 2]; 2] = [[-0.57, -0.33], [0.57, -0.33]];
/// Of a leg: spring (N/m), damper (N s/m), and friction of its tip.
const SPRING: f64 = 400.0;
const DAMPER: f64 = 60.0;
const FRICTION: f64 = 0.6;
/// Half the width of the world and the height that count as 1 in an observation (m).
const WIDE: f64 = 10.0;
const HIGH: f64 = 20.0 / 3.0;
/// Seconds per step, and the parts into which it is cut.
const TAU: f64 = 0.02;
const PARTS: u32 = 4;
/// Steps of rest that make a landing.
const REST: u32 = 25;
/// Steps after which an episode is truncated.
const STEP_LIMIT: u32 = 1000;

impl Default for Lander {
    fn default() -> Self {
        Lander { state: [0.0; 6], contacts: [false; 2], shaping: 0.0, at_rest: 0, steps: 0, over: true }
    }
}

/// A point of the body and its velocity, in the world.
fn point([x, y, vx, vy, angle, turning]: [f64; 6], [across, along]: [f64; 2]) -> [f64; 4] {
    let (cosine, sine) = (libm::cos(angle), libm::sin(angle));
    let (right, up) = (across * cosine - along * sine, across * sine + along * cosine);
    [x + right, y + up, vx - turning * up, vy + turning * right]
}

impl Lander {
    /// Place, velocity, angle and angular velocity.
    pub fn state(&self) -> [f64; 6] {
        self.state
    }

    /// Starts an episode in a given state.
    pub fn reset_to(&mut self, state: [f64; 6]) {
        *self = Lander { state, over: false, ..Lander::default() };
        self.shaping = self.potential();
    }

    /// What the gain of a step is measured by.
    fn potential(&self) -> f64 {
        let [x, y, vx, vy, angle, _, left, right] = self.observation();
        -100.0 * ((x * x + y * y).sqrt() + (vx * vx + vy * vy).sqrt() + angle.abs()) + 10.0 * (left + right)
    }

    fn observation(&self) -> [f64; 8] {
        let [x, y, vx, vy, angle, turning] = self.state;
        let contact = |leg: usize| f64::from(u8::from(self.contacts[leg]));
        let height = y + LEGS[0][1];
        [
            x / WIDE,
            height / HIGH,
            vx * WIDE / 50.0,
            vy * HIGH / 50.0,
            angle,
            turning * 20.0 / 50.0,
            contact(0),
            contact(1),
        ]
    }

    /// A part of a step, semi-implicit Euler: forces, then velocities, then places.
    fn move_on(&mut self, action: usize) {
        let time = TAU / f64::from(PARTS);
        let [.., angle, _] = self.state;
        let (cosine, sine) = (libm::cos(angle), libm::sin(angle));
        let (mut right, mut up, mut turn) = (0.0, -GRAVITY, 0.0);
        match action {
            1 => (right, up, turn) = (-SIDE * cosine, up - SIDE * sine, TURN),
            2 => (right, up) = (-MAIN * sine, up + MAIN * cosine),
            3 => (right, up, turn) = (SIDE * cosine, up + SIDE * sine, -TURN),
            _ => {}
        }
        for (leg, contact) in LEGS.into_iter().zip(&mut self.contacts) {
            let [x, y, vx, vy] = point(self.state, leg);
            *contact = y <= 0.0;
            if *contact {
                let lift = (-SPRING * y - DAMPER * vy).max(0.0);
                let drag = (-DAMPER * vx).clamp(-FRICTION * lift, FRICTION * lift);
                right += drag / MASS;
                up += lift / MASS;
                let (across, along) = (x - self.state[0], y - self.state[1]);
                turn += (across * lift - along * drag) / INERTIA;
            }
        }
        let [x, y, vx, vy, angle, turning] = &mut self.state;
        (*vx, *vy, *turning) = (*vx + time * right, *vy + time * up, *turning + time * turn);
        (*x, *y, *angle) = (*x + time * *vx, *y + time * *vy, *angle + time * *turning);
    }
}

impl Environment for Lander {
    fn width(&self) -> usize {
        8
    }

    fn actions(&self) -> usize {
        4
    }

    fn reset(&mut self, seed: u64) {
        let mut rng = stream(seed, "lander");
        let mut draw = |most: f64| uniform(&mut rng, -most, most);
        self.reset_to([0.0, 10.0, draw(4.0), draw(3.0), 0.0, draw(0.5)]);
    }

    fn step(&mut self, action: usize) -> Step {
        assert!(action < 4, "Lander has actions 0 to 3, not {action}");
        assert!(!self.over, "the episode is over; reset the environment");
        let mut crashed = false;
        for _ in 0..PARTS {
            self.move_on(action);
            crashed |= CORNERS.into_iter().any(|corner| point(self.state, corner)[1] <= 0.0);
        }
        crashed |= self.state[0].abs() >= WIDE;
        let [_, _, vx, vy, _, turning] = self.state;
        let rests = self.contacts == [true; 2] && vx.abs().max(vy.abs()).max(turning.abs()) < 0.05;
        self.at_rest = if rests { self.at_rest + 1 } else { 0 };
        let landed = self.at_rest >= REST && !crashed;
        let shaping = self.potential();
        let fuel = [0.0, 0.03, 0.3, 0.03][action];
        let end = if crashed {
            -100.0
        } else if landed {
            100.0
        } else {
            shaping - self.shaping - fuel
        };
        self.shaping = shaping;
        self.steps += 1;
        let (terminated, truncated) = (crashed || landed, self.steps >= STEP_LIMIT);
        self.over = terminated || truncated;
        Step { reward: end as f32, terminated, truncated }
    }

    fn observe(&self, out: &mut [f32]) {
        for (out, value) in out.iter_mut().zip(self.observation()) {
            *out = value as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The return of an episode, and whether it ended in a landing.
    fn play(env: &mut Lander, policy: impl Fn([f64; 8]) -> usize) -> (f64, bool) {
        let mut total = 0.0;
        loop {
            let step = env.step(policy(env.observation()));
            total += f64::from(step.reward);
            if step.terminated || step.truncated {
                return (total, step.terminated && step.reward == 100.0);
            }
        }
    }

    /// Leans against drift, holds its fall to its height, and lets go when both legs stand.
    fn pilot([x, y, vx, vy, angle, turning, left, right]: [f64; 8]) -> usize {
        if left + right == 2.0 {
            return 0;
        }
        let lean = (0.5 * x + vx).clamp(-0.4, 0.4);
        let turn = 0.5 * (lean - angle) - turning;
        let lift = 0.5 * (0.4 * x.abs() - y) - 0.6 * vy;
        match () {
            () if lift > turn.abs() && lift > 0.03 => 2,
            () if turn > 0.05 => 1,
            () if turn < -0.05 => 3,
            () => 0,
        }
    }

    #[test]
    fn a_pilot_lands_and_a_stone_does_not() {
        let mut env = Lander::default();
        let mut landings = 0;
        for seed in 0..20 {
            env.reset(seed);
            let (total, landed) = play(&mut env, pilot);
            landings += u32::from(landed && total > 100.0);
            env.reset(seed);
            let (total, landed) = play(&mut env, |_| 0);
            assert!(!landed && total < 0.0, "seed {seed}: {total}");
        }
        assert!(landings >= 16, "{landings} of 20 landed");
    }

    #[test]
    fn it_stands_where_it_is_put_down() {
        let mut env = Lander::default();
        env.reset_to([0.0, 0.65, 0.0, 0.0, 0.0, 0.0]);
        let (_, landed) = play(&mut env, |_| 0);
        assert!(landed, "{:?}", env.state());
        assert!(env.state()[4].abs() < 0.01 && env.contacts == [true; 2]);
    }

    #[test]
    fn engines_push_where_they_say() {
        let after = |action| {
            let mut env = Lander::default();
            env.reset_to([0.0, 5.0, 0.0, 0.0, 0.0, 0.0]);
            env.step(action);
            env.state()
        };
        let free = after(0);
        assert!(after(2)[3] > 0.0 && free[3] < 0.0);
        assert!(after(1)[5] > 0.0 && after(3)[5] < 0.0 && free[5] == 0.0);
        assert!(after(1)[2] < 0.0 && after(3)[2] > 0.0);
    }
}
