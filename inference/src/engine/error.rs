//! What can go wrong with an engine.

use thiserror::Error;

#[cfg(doc)]
use super::Engine;
use super::Isa;
#[cfg(doc)]
use crate::model::Mlp;
use crate::model::ModelError;

/// Why an engine was not built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The network breaks the rules of [`Mlp::check`].
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The processor lacks the instruction set that was asked for.
    #[error("this processor lacks {0}; leave the choice to Isa::best")]
    IsaUnavailable(Isa),
    /// The processor lacks what integers need of the instruction set that was asked for: of AVX-512, VNNI and BW.
    #[error("this processor has no integers on {0}; leave out with_integers")]
    IntegersUnavailable(Isa),
    /// ONNX Runtime cannot be loaded, or refuses the graph.
    #[error("ONNX Runtime: {reason}")]
    OnnxRuntime {
        /// What it or the system says, and what to do.
        reason: String,
    },
}

/// Why a state was not decided. Nothing of it was scored.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum DecideError {
    /// The state has another width than the model.
    #[error("the state has {found} values, the model wants {expected}; make states by its feature specification")]
    StateWidth {
        /// Values in the state.
        found: usize,
        /// Width of the model.
        expected: usize,
    },
    /// The mask has another width than the model has actions.
    #[error("the mask has {found} entries, the model has {expected} actions; give an entry for each")]
    MaskWidth {
        /// Entries of the mask.
        found: usize,
        /// Actions of the model.
        expected: usize,
    },
    /// The mask allows no action.
    #[error("the mask allows no action; one must be allowed")]
    EmptyMask,
    /// A value of the state is infinite or not a number.
    #[error("value {index} of the state is {value}, which is not finite; mend what made the state")]
    NonFiniteState {
        /// Position in the state.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A value of the state is outside the range that the model was built for.
    #[error(
        "value {index} of the state is {value}, outside {low} to {high}; scale it as the feature specification says"
    )]
    StateOutOfRange {
        /// Position in the state.
        index: usize,
        /// The value.
        value: f32,
        /// Lowest permitted value.
        low: f32,
        /// Highest permitted value.
        high: f32,
    },
    /// An output of a hidden layer came out infinite or not a number: the weights are too large for such a state.
    #[error("an output of layer {layer} is not finite: the weights overflow on this state; do not use the model")]
    Overflow {
        /// Number of the layer, from 0.
        layer: usize,
    },
    /// A q-value came out infinite or not a number: the weights are too large for such a state.
    #[error("the q-value of action {action} is not finite: the weights overflow on this state; do not use the model")]
    NonFiniteValue {
        /// Number of the action.
        action: usize,
    },
    /// ONNX Runtime failed on this state.
    #[error("ONNX Runtime failed: {reason}")]
    OnnxRuntime {
        /// What it says.
        reason: String,
    },
    /// The scratch was made for a smaller network.
    #[error("the scratch is too small for this model; make one with Engine::scratch")]
    ScratchTooSmall,
    /// The columns of a batch do not divide into the same number of rows.
    #[error(
        "{states} state values and {masks} mask entries are no batch of states of {width} and masks of {actions}; give whole rows"
    )]
    BatchShape {
        /// Values in all states.
        states: usize,
        /// Entries in all masks.
        masks: usize,
        /// Width of the model.
        width: usize,
        /// Actions of the model.
        actions: usize,
    },
}
