//! The contract of a learner: one whole update each, from a batch of states and what is known about their actions.

#[cfg(feature = "burn")]
pub mod burn;
mod check;
mod choice;
mod explosion;
pub mod fused;
mod noise;
mod report;
mod state;
#[cfg(feature = "tch")]
pub mod tch;
#[cfg(any(feature = "burn", feature = "tch"))]
pub mod tensor;

use crate::network::NetworkShape;
use bellwether_replay::StateRows;

pub use choice::{Device, LEARNERS, LearnerChoice, LearnerFacts};
pub(crate) use explosion::require_bounded;
pub use noise::{draw_factors, draw_keep};
pub use state::StateError;

/// What is known about one action in one state: an experience that was played, or an answer that a recording gives.
///
/// The target of the action's return is `reward + discount * Z'(next, a*)`, where `Z'` is what the target network tells about
/// the return of `a*`, the allowed action with the best q-value. Cloning looks at row, action and weight alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// Row of [`Batch::states`].
    pub row: u32,
    /// Action number.
    pub action: u32,
    /// Reward, summed and discounted over the steps that the answer spans.
    pub reward: f32,
    /// `gamma^k` over the `k` steps that the answer spans; 0 where it ends the episode.
    pub discount: f32,
    /// Row of [`Batch::next_states`]; ignored where `discount` is 0.
    pub next: u32,
    /// Weight of the error in the loss.
    pub weight: f32,
}

/// One batch: states, answers and the states that the answers lead to.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// States whose q-values are fitted.
    pub states: &'a dyn StateRows,
    /// Allowed actions of the states, row-major, `states.len() * actions`. May be empty where
    /// [`UpdateSpec::needs_masks`] says that nothing depends on them.
    pub masks: &'a [bool],
    /// What is known about them, sorted by row.
    pub answers: &'a [Answer],
    /// Successors.
    pub next_states: &'a dyn StateRows,
    /// Allowed actions of the successors, row-major, `next_states.len() * actions`.
    pub next_masks: &'a [bool],
}

/// Bytes of [`Noise::keep`].
pub mod keep {
    /// The element is 0 in this row.
    pub const DROPPED: u8 = 0;
    /// The element stays, scaled by `1 / (1 - rate)`.
    pub const KEPT: u8 = 1;
}

/// The random part of one update, drawn by the caller so that every learner sees the same.
///
/// A noisy layer computes with `weight + sigma * e_in * e_out` and `bias + sigma * e_out` (Fortunato et al. 2018, equations
/// 9 to 11), where the factors `e` are those of [`NetworkShape::noisy`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Noise<'a> {
    /// For each layer that has a drop-out rate above 0, by layer: one byte per input element and row of
    /// [`Batch::states`], row-major: [`keep::DROPPED`] or [`keep::KEPT`]. Empty for a layer without drop-out.
    pub keep: &'a [Vec<u8>],
    /// Factors of the noise of the online network, [`NetworkShape::factor_count`] of them.
    pub online: &'a [f32],
    /// Factors of the noise of the target network, as many.
    pub target: &'a [f32],
}

/// The form of the error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Half the squared error of the q-value.
    Mse,
    /// Huber's error of the q-value with this threshold (SB3 and PyTorch's `smooth_l1` are 1.0). Where the network tells
    /// quantiles: their quantile regression with this threshold (Dabney et al. 2018, equation 10).
    Huber(f32),
    /// The cross-entropy of categorical returns, the target being projected on their values (Bellemare et al. 2017,
    /// algorithm 1).
    CrossEntropy,
    /// Behaviour cloning: the negative logarithm of the probability of the action, where the q-values are taken for the
    /// logits of a policy over the allowed actions.
    Cloning,
}

/// Munchausen's reward and soft values (Vieillard et al. 2020, equation 1), by the policy
/// `pi = softmax(Q' / temperature)` of the target network over the allowed actions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Munchausen {
    /// Share of `temperature * ln pi(a | s)` that is added to the reward, 0 to 1. An answer that spans several steps gets it
    /// for the first.
    pub alpha: f32,
    /// Temperature of the policy, above 0.
    pub temperature: f32,
    /// The smallest value of `temperature * ln pi(a | s)` in the reward, at most 0.
    pub floor: f32,
}

/// How the target network follows after this update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TargetSync {
    /// It stays.
    Keep,
    /// It becomes a copy of the online network.
    Hard,
    /// Polyak averaging: `target += tau * (online - target)`.
    Soft(f32),
}

/// One update, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateSpec {
    /// Double DQN: the online network chooses the successor's action, the target network values it.
    pub double: bool,
    /// The form of the error.
    pub loss: Loss,
    /// Weight of the conservative term `ln sum_a exp Q(s, a) - Q(s, a_played)` over the allowed actions, added to each
    /// answer's error (Kumar et al. 2020, CQL(H)); 0 for none.
    pub conservative: f32,
    /// Munchausen's form of reward and target; excludes `double`.
    pub munchausen: Option<Munchausen>,
    /// Step size.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay of the weights (not the biases); 0 makes AdamW Adam.
    pub weight_decay: f32,
    /// Weight of the penalty `l2 / 2 * |weights|^2` (not the biases); its slope is added to the clipped gradient.
    pub l2: f32,
    /// The gradient is scaled down to this Euclidean norm; infinite means never.
    pub max_gradient_norm: f32,
    /// Share of each layer's inputs that is dropped, by layer; the kept are scaled by `1 / (1 - rate)`. Empty: none.
    pub dropout: Vec<f32>,
    /// The loss is the weighted sum of errors divided by this (commonly the number of answers).
    pub normaliser: f32,
    /// What happens to the target network afterwards.
    pub target_sync: TargetSync,
}

impl Default for UpdateSpec {
    /// The settings that most DQN recipes share: Adam with PyTorch's constants, Huber's error, gradients clipped to 10.
    fn default() -> Self {
        UpdateSpec {
            double: false,
            loss: Loss::Huber(1.0),
            conservative: 0.0,
            munchausen: None,
            learning_rate: 1e-4,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            l2: 0.0,
            max_gradient_norm: 10.0,
            dropout: Vec::new(),
            normaliser: 1.0,
            target_sync: TargetSync::Keep,
        }
    }
}

/// What one update did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UpdateReport {
    /// Loss before the update, without the penalty of [`UpdateSpec::l2`].
    pub loss: f32,
    /// Mean of the fitted q-values.
    pub mean_q: f32,
    /// Mean of the targets.
    pub mean_target: f32,
    /// Largest absolute error.
    pub max_error: f32,
    /// Euclidean norm of the gradient of that loss, before clipping.
    pub gradient_norm: f32,
}

/// Why a learner refuses.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum LearnerError {
    /// A learner was named that cannot be had.
    #[error("no learner `{learner}`: {reason}")]
    Unavailable {
        /// What was asked for.
        learner: String,
        /// Why it cannot be had, and what can.
        reason: String,
    },
    /// The learner cannot do what the specification asks.
    #[error("the learner `{learner}` cannot do this update: {reason}")]
    Unsupported {
        /// Name of the learner.
        learner: &'static str,
        /// What it lacks.
        reason: String,
    },
    /// A setting of the update is out of range.
    #[error("{key} = {value}: {reason}")]
    Setting {
        /// Name of the field of [`UpdateSpec`].
        key: &'static str,
        /// Its value.
        value: f32,
        /// What would be right.
        reason: &'static str,
    },
    /// Two settings exclude each other, or one does not go with the network.
    #[error("`{what}` does not go with the rest: {reason}")]
    Contradiction {
        /// The setting.
        what: &'static str,
        /// What it contradicts and what would do.
        reason: &'static str,
    },
    /// An answer cannot be learned from.
    #[error("answer {index} of the batch: {reason}")]
    Answer {
        /// Position in [`Batch::answers`].
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A state or a parameter is infinite or not a number.
    #[error("{what}: row {row} holds a value that is not finite")]
    NotFinite {
        /// What was given.
        what: &'static str,
        /// Row, or position in a parameter vector.
        row: usize,
    },
    /// A batch or a parameter vector has the wrong size.
    #[error("{what} has {found} elements where {expected} are needed")]
    Shape {
        /// What is wrong.
        what: &'static str,
        /// Needed.
        expected: usize,
        /// Given.
        found: usize,
    },
    /// Q-values are beyond what any return of the rewards could be.
    #[error(
        "the update diverged: the mean q-value is {mean_q} and the largest error {max_error}, where no return of rewards of at most \
         {largest_reward} comes near; lower the learning rate, let the target network follow more slowly, or choose `double`"
    )]
    Exploded {
        /// Mean of the fitted q-values.
        mean_q: f32,
        /// Largest absolute error.
        max_error: f32,
        /// Largest absolute reward that was seen.
        largest_reward: f32,
    },
    /// The loss or the gradient is no longer finite; the parameters are as they were before the update.
    #[error("the update diverged: the {what} is not finite; lower the learning rate or the scale of the rewards")]
    Diverged {
        /// The value that is not finite.
        what: &'static str,
    },
}

impl LearnerError {
    /// Whether the settings made the values run away; anything else that is refused says nothing about them.
    pub fn is_divergence(&self) -> bool {
        matches!(self, LearnerError::Diverged { .. } | LearnerError::Exploded { .. })
    }
}

/// A learner of q-values. Its parameters, moments and target have one canonical layout (`NetworkShape`), so that any
/// learner can go on from the state of another.
pub trait Learner: Send {
    /// Its name in configurations and reports.
    fn name(&self) -> &'static str;
    /// Refuses beforehand what it cannot do.
    ///
    /// # Errors
    /// [`LearnerError::Unsupported`] with what it lacks.
    fn supports(&self, spec: &UpdateSpec) -> Result<(), LearnerError>;
    /// One whole update: forward passes, targets, loss, gradients, clipping, optimiser, target network.
    ///
    /// `errors` receives for each answer, in order, what its priority is made of: the temporal-difference error `q - target`
    /// of a mean; for quantiles their regression's error, for categorical returns the divergence of the prediction from the
    /// target, and for cloning the negative log-likelihood, none of which is negative.
    ///
    /// # Errors
    /// On wrong shapes and on divergence; the parameters are then as they were.
    fn update(
        &mut self,
        spec: &UpdateSpec,
        batch: Batch<'_>,
        noise: Noise<'_>,
        errors: &mut Vec<f32>,
    ) -> Result<UpdateReport, LearnerError>;
    /// Lets the target network follow outside of an update, where the interval is counted in environment steps.
    ///
    /// # Errors
    /// [`LearnerError::Setting`] on a `tau` outside of 0 to 1.
    fn sync_target(&mut self, sync: TargetSync) -> Result<(), LearnerError>;
    /// The q-values of `states` by the online network, row-major, without drop-out. `factors` are those of the noise of noisy
    /// layers, or empty for none.
    ///
    /// # Errors
    /// On wrong shapes.
    fn q_values(&mut self, states: &dyn StateRows, factors: &[f32], out: &mut Vec<f32>) -> Result<(), LearnerError>;
    /// Widths of the network.
    fn shape(&self) -> &NetworkShape;
    /// Online parameters in canonical layout.
    fn parameters(&self) -> &[f32];
    /// Target parameters in canonical layout.
    fn target(&self) -> &[f32];
    /// The whole state, for a checkpoint.
    fn state(&self) -> LearnerState;
    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// [`LearnerError::Shape`] if it belongs to another network.
    fn restore(&mut self, state: &LearnerState) -> Result<(), LearnerError>;
}

/// Everything that a learner carries from one update to the next, in canonical layout.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnerState {
    /// Online parameters.
    pub online: Vec<f32>,
    /// Target parameters.
    pub target: Vec<f32>,
    /// First moments.
    pub first_moment: Vec<f32>,
    /// Second moments.
    pub second_moment: Vec<f32>,
    /// Updates done.
    pub updates: u64,
}
