//! Small environments of known solution, on which a learner shows that it learns.

mod acrobot;
mod cart_pole;
mod identity;
mod lander;
mod mountain_car;

pub use acrobot::Acrobot;
pub use cart_pole::CartPole;
pub use identity::Identity;
pub use lander::Lander;
pub use mountain_car::MountainCar;

use rand::Rng;
use std::f64::consts::PI;

/// A number drawn evenly from `low` to below `high`.
fn uniform(rng: &mut impl Rng, low: f64, high: f64) -> f64 {
    let unit = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    low + (high - low) * unit
}

/// An angle by whole turns within half a turn of 0.
fn wrapped(mut angle: f64) -> f64 {
    while angle > PI {
        angle -= 2.0 * PI;
    }
    while angle < -PI {
        angle += 2.0 * PI;
    }
    angle
}
