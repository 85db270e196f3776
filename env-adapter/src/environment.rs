//! The contract between a learner and what it acts in.

/// What one step of an environment gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Reward of the step; finite.
    pub reward: f32,
    /// The episode ended by its own rules: no value is bootstrapped from what follows.
    pub terminated: bool,
    /// The episode was cut off: the value of the final observation still counts.
    pub truncated: bool,
}

/// An episodic environment with vector observations and numbered actions.
///
/// After `reset` and after every `step` that ends nothing, `observe` and `mask` describe the state to act in. After a
/// `step` that ends the episode, `observe` gives the final observation, and only `reset` may follow.
pub trait Environment {
    /// Width of an observation.
    fn width(&self) -> usize;
    /// Number of actions.
    fn actions(&self) -> usize;
    /// Starts an episode. The same seed gives the same episode for the same actions.
    fn reset(&mut self, seed: u64);
    /// Takes an allowed action.
    ///
    /// # Panics
    /// On an action that is masked or out of range, and after the end of an episode: both are errors of the caller.
    fn step(&mut self, action: usize) -> Step;
    /// Writes the current observation into `out`, `width()` values.
    fn observe(&self, out: &mut [f32]);
    /// Writes which actions are allowed into `out`, `actions()` values. At least one is.
    fn mask(&self, out: &mut [bool]) {
        out.fill(true);
    }
}
