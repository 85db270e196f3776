//! The environment that every learner must solve.

use crate::streams::stream;
use bellwether_env_adapter::{Environment, Step};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Shows a number as a one-hot vector; the action with that number earns 1, any other nothing. The next number is drawn
/// anew, so that each step is a matter of its own; after `steps` steps the episode is truncated.
#[derive(Clone, Debug)]
pub struct Identity {
    numbers: usize,
    length: u32,
    rng: ChaCha8Rng,
    shown: usize,
    steps: u32,
}

impl Identity {
    /// An environment of `numbers` numbers and as many actions, with episodes of `length` steps.
    ///
    /// # Panics
    /// If there is no number or no step.
    pub fn new(numbers: usize, length: u32) -> Self {
        assert!(numbers > 0 && length > 0, "an identity environment needs at least one number and one step");
        Identity { numbers, length, rng: stream(0, "identity"), shown: 0, steps: length }
    }

    /// The number that is shown.
    pub fn shown(&self) -> usize {
        self.shown
    }

    fn draw(&mut self) {
        self.shown = ((u64::from(self.rng.next_u32()) * self.numbers as u64) >> 32) as usize;
    }
}

impl Environment for Identity {
    fn width(&self) -> usize {
        self.numbers
    }

    fn actions(&self) -> usize {
        self.numbers
    }

    fn reset(&mut self, seed: u64) {
        self.rng = stream(seed, "identity");
        self.steps = 0;
        self.draw();
    }

    fn step(&mut self, action: usize) -> Step {
        assert!(action < self.numbers, "there is no action {action} of {}", self.numbers);
        assert!(self.steps < self.length, "the episode is over; reset the environment");
        let reward = f32::from(u8::from(action == self.shown));
        self.steps += 1;
        self.draw();
        Step { reward, terminated: false, truncated: self.steps == self.length }
    }

    fn observe(&self, out: &mut [f32]) {
        out.fill(0.0);
        out[self.shown] = 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_shown_number_earns() {
        let mut env = Identity::new(4, 50);
        env.reset(1);
        let mut seen = [0; 4];
        for step in 1..=50 {
            let (shown, action) = (env.shown(), step as usize % 4);
            let mut observation = [9.0; 4];
            env.observe(&mut observation);
            assert_eq!(observation, std::array::from_fn(|i| f32::from(u8::from(i == shown))));
            seen[shown] += 1;
            let expected =
                Step { reward: f32::from(u8::from(shown == action)), terminated: false, truncated: step == 50 };
            assert_eq!(env.step(action), expected);
        }
        assert!(seen.iter().all(|count| *count > 3), "{seen:?}");
    }
}
