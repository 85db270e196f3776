//! The engine: one network, evaluated for one state at a time.
//!
//! The native kernels evaluate without allocating. With the feature `ort`, ONNX Runtime evaluates what they do not cover, under
//! the same checks and with the same ranking of actions, though not to the same bytes.
//!
//! **Numeric contract** of the native kernels. Every output of a layer is one chain, `acc = bias; for k in order { acc = fma(x_k, w_kj, acc) }`;
//! between layers stands `max(x, 0)`; a dueling head sums its advantages in the order of the actions, divides by their number for
//! their mean `m`, and gives `q_a = V + (A_a - m)`; a q-value of zero is given as `+0`. That makes the q-values a function of the
//! network and the state alone: every instruction set gives the same bytes, and so does a learner that keeps the chain.
//!
//! An input of zero may be left out of the chain, since weights are finite: adding a zero changes nothing but the sign of
//! a sum that is itself zero, a zero of either sign goes on to add nothing to the next layer or to the head, and q-values drop
//! the sign. No larger difference can arise from it.

mod certified;
mod error;
mod head;
mod isa;
mod kernels;
mod native;
#[cfg(feature = "ort")]
mod onnx_runtime;
mod slab;

pub use error::{DecideError, EngineError};
pub use isa::{Isa, UnknownIsa};
#[cfg(feature = "ort")]
pub use onnx_runtime::OnnxRuntime;

use std::ops::RangeInclusive;

use crate::model::Mlp;
use certified::Workspace;
use kernels::{Active, Kernel, all_within};
use native::Native;
#[cfg(feature = "ort")]
use onnx_runtime::Sessions;
use slab::Lane;

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
    evaluator: Evaluator,
    /// Checks states, whatever evaluates them.
    kernel: Kernel,
    state_range: RangeInclusive<f32>,
    precision: Precision,
}

/// What evaluates a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// The kernels of this crate, under the numeric contract.
    Native,
    /// ONNX Runtime, whose sums are in an order of its own: other bytes, close by.
    OnnxRuntime,
}

/// The network itself.
#[derive(Debug)]
enum Evaluator {
    Native(Native),
    #[cfg(feature = "ort")]
    OnnxRuntime(Sessions),
}

impl Backend {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Native => "native",
            Backend::OnnxRuntime => "onnxruntime",
        }
    }
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
    /// Whether 16-bit integers decided, under a certificate that the f32 kernel, which was not run, chooses the same action: see
    /// [`Precision::Certified`]. Never of ONNX Runtime.
    pub certified: bool,
    /// No q-value is further than this from that of the f32 kernel: 0 where that kernel or ONNX Runtime gave them. The margin can
    /// be off by twice as much.
    pub bound: f32,
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
        Ok(Engine::with(Evaluator::Native(Native::new(mlp)), kernel))
    }

    fn with(evaluator: Evaluator, kernel: Kernel) -> Self {
        Engine { evaluator, kernel, state_range: Self::STATE_RANGE, precision: Precision::Exact }
    }

    /// The same engine with the 16-bit integers of certified decisions on another instruction set than its f32 kernels, for tests and
    /// measurements: by default they are on the same one, and on AVX2 where a processor has AVX-512 without VNNI and BW.
    ///
    /// # Errors
    /// A processor without what the integers need of `isa`.
    pub fn with_integers(mut self, isa: Isa) -> Result<Self, EngineError> {
        self.kernel = self.kernel.with_integers(isa).ok_or(EngineError::IntegersUnavailable(isa))?;
        let precision = self.precision;
        Ok(self.with_precision(precision))
    }

    /// The same engine, deciding with this precision; a new engine is exact. Certified decisions are prepared here, which takes
    /// some 10 ms for 64-256-256-6.
    ///
    /// Networks of one layer or more than 64 actions, weights past 2^40 and ranges of states past 2^20 always end at the f32
    /// kernel, and ONNX Runtime knows one precision.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        match &mut self.evaluator {
            Evaluator::Native(native) => native.prepare(self.kernel, precision, &self.state_range),
            #[cfg(feature = "ort")]
            Evaluator::OnnxRuntime(_) => {}
        }
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
        match &self.evaluator {
            Evaluator::Native(native) => native.width(),
            #[cfg(feature = "ort")]
            Evaluator::OnnxRuntime(sessions) => sessions.width(),
        }
    }

    /// Number of actions.
    pub fn actions(&self) -> usize {
        match &self.evaluator {
            Evaluator::Native(native) => native.actions(),
            #[cfg(feature = "ort")]
            Evaluator::OnnxRuntime(sessions) => sessions.actions(),
        }
    }

    /// What evaluates the network.
    pub fn backend(&self) -> Backend {
        match &self.evaluator {
            Evaluator::Native(_) => Backend::Native,
            #[cfg(feature = "ort")]
            Evaluator::OnnxRuntime(_) => Backend::OnnxRuntime,
        }
    }

    /// How decisions are computed.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The instruction set of the kernels in use; beside ONNX Runtime they check states.
    pub fn isa(&self) -> Isa {
        self.kernel.isa()
    }

    /// The instruction set of the integers of certified decisions.
    pub fn integer_isa(&self) -> Isa {
        self.kernel.integer_isa()
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
        self.check(scratch, state, Some(mask))?;
        let certificate = match &self.evaluator {
            Evaluator::Native(native) => native.certify(self.kernel, scratch, state, mask),
            #[cfg(feature = "ort")]
            Evaluator::OnnxRuntime(_) => None,
        };
        let Some(found) = certificate else {
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
        match &self.evaluator {
            Evaluator::Native(native) => native.q_values(self.kernel, scratch, state)?,
            #[cfg(feature = "ort")]
            Evaluator::OnnxRuntime(sessions) => {
                sessions.q_values(state, &mut scratch.q_values[..sessions.actions()])?
            }
        }
        let q_values = &scratch.q_values[..self.actions()];
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
        match &engine.evaluator {
            Evaluator::Native(native) => native.grow(self),
            #[cfg(feature = "ort")]
            Evaluator::OnnxRuntime(_) => {}
        }
        if self.q_values.len() < engine.actions() {
            self.q_values.resize(engine.actions(), 0.0);
        }
    }

    fn fits(&self, engine: &Engine) -> bool {
        let fits = match &engine.evaluator {
            Evaluator::Native(native) => native.fits(self),
            #[cfg(feature = "ort")]
            Evaluator::OnnxRuntime(_) => true,
        };
        fits && self.q_values.len() >= engine.actions()
    }
}
