//! The native engine: one network, evaluated in f32 without allocating.
//!
//! **Numeric contract.** Every output of a layer is one chain, `acc = bias; for k in order { acc = fma(x_k, w_kj, acc) }`;
//! between layers stands `max(x, 0)`; a dueling head sums its advantages in the order of the actions, divides by their number for
//! their mean `m`, and gives `q_a = V + (A_a - m)`; a q-value of zero is given as `+0`. That makes the q-values a function of the
//! network and the state alone: every instruction set gives the same bytes, and so does a learner that keeps the chain.
//!
//! An input of zero may be left out of the chain, since weights are finite: adding a zero changes nothing but the sign of
//! a sum that is itself zero, a zero of either sign goes on to add nothing to the next layer or to the head, and q-values drop
//! the sign. No larger difference can arise from it.

mod certified;
mod head;
mod isa;
mod kernels;
mod slab;

pub use isa::{Isa, UnknownIsa};

use std::ops::RangeInclusive;

use thiserror::Error;

use crate::model::{Mlp, ModelError};
use certified::{Certified, Workspace};
use kernels::{Active, Kernel, all_within};
use slab::{Lane, Slab};

/// How decisions are computed. The action is the same either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// In f32, under the numeric contract.
    #[default]
    Exact,
    /// In 16-bit integers where a bound proves that the contract's action comes out, otherwise in f32.
    Certified,
}

/// A network ready to decide. Cheap to share between threads; each brings its own [`Scratch`].
#[derive(Debug)]
pub struct Engine {
    slab: Slab,
    kernel: Kernel,
    state_range: RangeInclusive<f32>,
    precision: Precision,
    /// Only where precision asks for it and the network permits it.
    certified: Option<Certified>,
}

/// The working memory of one thread, reused from call to call.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// Output of the layer at hand.
    lanes: Vec<Lane>,
    /// Inputs of the layer at hand that are not zero.
    active: Active,
    /// What the integers need.
    workspace: Workspace,
    /// The last q-values.
    q_values: Vec<f32>,
}

/// What the policy does in one state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision<'a> {
    /// Number of the allowed action with the largest q-value; the lowest among equals.
    pub action: usize,
    /// The q-values of all actions, masked ones too.
    pub q_values: &'a [f32],
    /// Its q-value less that of the next best allowed action, at least 0; `None` where only one action is allowed.
    pub margin: Option<f32>,
    /// Whether a certificate stands for the f32 kernel, which then was not run: see [`Precision::Certified`].
    pub certified: bool,
    /// No q-value is further than this from that of the f32 kernel: 0 where that kernel gave them. The margin can be off by
    /// twice as much.
    pub bound: f32,
}

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
}

/// Why a state was not decided. Nothing of it was scored.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum DecideError {
    /// The state has another width than the model.
    #[error("the state has {found} values, the model wants {expected}")]
    StateWidth {
        /// Values in the state.
        found: usize,
        /// Width of the model.
        expected: usize,
    },
    /// The mask has another width than the model has actions.
    #[error("the mask has {found} entries, the model has {expected} actions")]
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
    #[error("value {index} of the state is {value}, which is not finite")]
    NonFiniteState {
        /// Position in the state.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A value of the state is outside the range that the model was built for.
    #[error("value {index} of the state is {value}, outside {low} to {high}")]
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
    /// The scratch was made for a smaller network.
    #[error("the scratch is too small for this model; make one with Engine::scratch")]
    ScratchTooSmall,
    /// The columns of a batch do not divide into the same number of rows.
    #[error("{states} state values and {masks} mask entries are no batch of states of {width} and masks of {actions}")]
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

impl Engine {
    /// The range of the values of a state under the feature specification.
    pub const STATE_RANGE: RangeInclusive<f32> = 0.0..=1.0;

    /// Lays the network out for `isa`. States hold values in [`Engine::STATE_RANGE`].
    ///
    /// # Errors
    /// A network that [`Mlp::check`] refuses, or an instruction set that this processor lacks.
    pub fn new(mlp: &Mlp, isa: Isa) -> Result<Self, EngineError> {
        mlp.check()?;
        let kernel = Kernel::new(isa).ok_or(EngineError::IsaUnavailable(isa))?;
        let (precision, state_range) = (Precision::Exact, Self::STATE_RANGE);
        Ok(Engine { slab: Slab::new(mlp), kernel, state_range, precision, certified: None })
    }

    /// The same engine, deciding with this precision; a new engine is exact. Certified decisions are prepared here, which takes
    /// some 10 ms for 64-256-256-6.
    ///
    /// Networks of one layer or more than 64 actions, weights past 2^40 and ranges of states past 2^20 always end at the f32
    /// kernel.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self.certified = match precision {
            Precision::Exact => None,
            Precision::Certified => Certified::new(&self.slab, &self.state_range),
        };
        self
    }

    /// The same engine for states whose values lie in `range`; with [`f32::MIN`] to [`f32::MAX`] any finite value passes.
    #[must_use]
    pub fn with_state_range(mut self, range: RangeInclusive<f32>) -> Self {
        self.state_range = range;
        let precision = self.precision;
        self.with_precision(precision)
    }

    /// Width of a state.
    pub fn width(&self) -> usize {
        self.slab.inputs()
    }

    /// Number of actions.
    pub fn actions(&self) -> usize {
        self.slab.actions()
    }

    /// How decisions are computed.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.kernel.isa()
    }

    /// Working memory for this engine, and for every one that is not wider.
    pub fn scratch(&self) -> Scratch {
        let mut scratch = Scratch::default();
        scratch.grow(self);
        scratch
    }

    /// The action for `state`, of `width()` values, among those that `mask`, of `actions()` entries, allows.
    ///
    /// # Errors
    /// A state or mask of the wrong width, an empty mask, a value that is not finite or out of range, a q-value that is
    /// not finite. Then nothing is decided.
    pub fn decide<'s>(
        &self,
        scratch: &'s mut Scratch,
        state: &[f32],
        mask: &[bool],
    ) -> Result<Decision<'s>, DecideError> {
        let Some(certified) = &self.certified else {
            return self.decide_exactly(scratch, state, mask);
        };
        self.check(scratch, state, Some(mask))?;
        let Scratch { lanes, active, workspace, q_values } = &mut *scratch;
        let memory = (workspace, active, lanes.as_mut_slice(), &mut q_values[..mask.len()]);
        let Some(found) = certified.decide(self.kernel, &self.slab, memory, state, mask) else {
            return self.decide_in_f32(scratch, state, mask);
        };
        let q_values = &scratch.q_values[..mask.len()];
        let (_, margin) = best(q_values, mask).ok_or(DecideError::EmptyMask)?;
        Ok(Decision { action: found.action, q_values, margin, certified: true, bound: found.bound })
    }

    /// What [`Engine::decide`] gives with [`Precision::Exact`]: the q-values of the numeric contract.
    ///
    /// # Errors
    /// As [`Engine::decide`].
    pub fn decide_exactly<'s>(
        &self,
        scratch: &'s mut Scratch,
        state: &[f32],
        mask: &[bool],
    ) -> Result<Decision<'s>, DecideError> {
        self.check(scratch, state, Some(mask))?;
        self.decide_in_f32(scratch, state, mask)
    }

    fn decide_in_f32<'s>(
        &self,
        scratch: &'s mut Scratch,
        state: &[f32],
        mask: &[bool],
    ) -> Result<Decision<'s>, DecideError> {
        let q_values = self.q_values_in_f32(scratch, state)?;
        // An empty mask was refused, so there is a best action.
        let (action, margin) = best(q_values, mask).ok_or(DecideError::EmptyMask)?;
        Ok(Decision { action, q_values, margin, certified: false, bound: 0.0 })
    }

    /// The q-values of all actions in `state`, under the numeric contract whatever the precision of decisions.
    ///
    /// # Errors
    /// As [`Engine::decide`], save for the mask.
    pub fn q_values<'s>(&self, scratch: &'s mut Scratch, state: &[f32]) -> Result<&'s [f32], DecideError> {
        self.check(scratch, state, None)?;
        self.q_values_in_f32(scratch, state)
    }

    fn q_values_in_f32<'s>(&self, scratch: &'s mut Scratch, state: &[f32]) -> Result<&'s [f32], DecideError> {
        scratch.active.gather(self.kernel, state);
        let last = self.slab.layers() - 1;
        for index in 0..=last {
            let layer = self.slab.layer(index);
            let lanes = &mut scratch.lanes[..layer.bias.len()];
            self.kernel.affine(&layer, &scratch.active, lanes);
            if index < last && !scratch.active.gather_rectified(self.kernel, lanes, layer.outputs) {
                return Err(DecideError::Overflow { layer: index });
            }
        }
        let q_values = &mut scratch.q_values[..self.actions()];
        head::join(&self.slab, &scratch.lanes, q_values);
        match q_values.iter().position(|value| !value.is_finite()) {
            Some(action) => Err(DecideError::NonFiniteValue { action }),
            None => Ok(q_values),
        }
    }

    /// Decides row after row: `states` row-major of `width()`, `masks` row-major of `actions()`. `each` gets the row's
    /// number and its decision, or why there is none; a bad row spoils no other.
    ///
    /// # Errors
    /// [`DecideError::BatchShape`] when the two do not hold the same number of whole rows; then `each` is not called.
    pub fn decide_batch(
        &self,
        scratch: &mut Scratch,
        states: &[f32],
        masks: &[bool],
        mut each: impl FnMut(usize, Result<Decision<'_>, DecideError>),
    ) -> Result<(), DecideError> {
        let (width, actions) = (self.width(), self.actions());
        let rows = states.len() / width;
        if states.len() != rows * width || !masks.len().is_multiple_of(actions) || masks.len() / actions != rows {
            return Err(DecideError::BatchShape { states: states.len(), masks: masks.len(), width, actions });
        }
        for (row, (state, mask)) in states.chunks_exact(width).zip(masks.chunks_exact(actions)).enumerate() {
            each(row, self.decide(scratch, state, mask));
        }
        Ok(())
    }

    /// Checks everything that can be said before computing.
    fn check(&self, scratch: &Scratch, state: &[f32], mask: Option<&[bool]>) -> Result<(), DecideError> {
        if let Some(mask) = mask {
            let (found, expected) = (mask.len(), self.actions());
            if found != expected {
                return Err(DecideError::MaskWidth { found, expected });
            }
            if !mask.contains(&true) {
                return Err(DecideError::EmptyMask);
            }
        }
        self.check_state(state)?;
        if scratch.fits(self) { Ok(()) } else { Err(DecideError::ScratchTooSmall) }
    }

    fn widest_lanes(&self) -> usize {
        let certified = self.certified.as_ref().map_or(0, Certified::lanes);
        self.slab.widest_lanes().max(certified)
    }

    fn check_state(&self, state: &[f32]) -> Result<(), DecideError> {
        let (found, expected) = (state.len(), self.width());
        if found != expected {
            return Err(DecideError::StateWidth { found, expected });
        }
        let (low, high) = (*self.state_range.start(), *self.state_range.end());
        if all_within(self.kernel, state, low, high) {
            return Ok(());
        }
        let inside = |value: f32| value.is_finite() && value >= low && value <= high;
        match state.iter().copied().enumerate().find(|&(_, value)| !inside(value)) {
            Some((index, value)) if value.is_finite() => Err(DecideError::StateOutOfRange { index, value, low, high }),
            Some((index, value)) => Err(DecideError::NonFiniteState { index, value }),
            None => Ok(()),
        }
    }
}

/// The best allowed action and its margin; `None` when nothing is allowed.
fn best(q_values: &[f32], mask: &[bool]) -> Option<(usize, Option<f32>)> {
    let (mut first, mut second): (Option<(usize, f32)>, Option<f32>) = (None, None);
    for (action, (&value, _)) in q_values.iter().zip(mask).enumerate().filter(|(_, (_, allowed))| **allowed) {
        match first {
            // Only a strictly larger value displaces an earlier action.
            Some((_, best)) if value <= best => second = Some(second.map_or(value, |next| next.max(value))),
            _ => {
                second = first.map(|(_, best)| best).or(second);
                first = Some((action, value));
            }
        }
    }
    first.map(|(action, value)| (action, second.map(|next| value - next)))
}

impl Scratch {
    /// Makes room for `engine`, which allocates only where the scratch was smaller.
    pub fn grow(&mut self, engine: &Engine) {
        let (lanes, width) = (engine.widest_lanes(), engine.slab.widest_input());
        if self.lanes.len() < lanes {
            self.lanes.resize(lanes, Lane::ZERO);
        }
        self.active.grow(width);
        if engine.certified.is_some() {
            self.workspace.grow(engine.width(), width);
        }
        if self.q_values.len() < engine.actions() {
            self.q_values.resize(engine.actions(), 0.0);
        }
    }

    fn fits(&self, engine: &Engine) -> bool {
        self.lanes.len() >= engine.widest_lanes()
            && self.active.room() >= engine.slab.widest_input()
            && self.q_values.len() >= engine.actions()
            && (engine.certified.is_none() || self.workspace.fits(engine.width(), engine.slab.widest_input()))
    }
}
