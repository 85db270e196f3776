//! The native engine, as one of the runtimes.

use bellwether_inference::model::Mlp;
use bellwether_inference::{Decision, Engine, Isa, Precision, Scratch};

use crate::{PeerError, Runtime};

/// The native engine with its scratch.
#[derive(Debug)]
pub struct Native {
    engine: Engine,
    scratch: Scratch,
}

impl Native {
    /// The engine for `mlp` on `isa`.
    ///
    /// # Errors
    /// An unsound network, or an instruction set that this processor lacks.
    pub fn new(mlp: &Mlp, isa: Isa) -> Result<Self, PeerError> {
        Self::with_precision(mlp, isa, Precision::Exact)
    }

    /// The engine for `mlp` on `isa`, deciding with this precision.
    ///
    /// # Errors
    /// As [`Native::new`].
    pub fn with_precision(mlp: &Mlp, isa: Isa, precision: Precision) -> Result<Self, PeerError> {
        let engine = Engine::new(mlp, isa)?.with_precision(precision);
        let scratch = engine.scratch();
        Ok(Native { engine, scratch })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.engine.isa()
    }

    /// The decision with its margin.
    ///
    /// # Errors
    /// As [`Engine::decide`].
    pub fn decision(&mut self, state: &[f32], mask: &[bool]) -> Result<Decision<'_>, PeerError> {
        Ok(self.engine.decide(&mut self.scratch, state, mask)?)
    }
}

impl Runtime for Native {
    fn name(&self) -> &'static str {
        match self.engine.precision() {
            Precision::Exact => "native",
            Precision::Certified => "native certified",
        }
    }

    fn decide(&mut self, state: &[f32], mask: &[bool], q_values: &mut [f32]) -> Result<usize, PeerError> {
        let decision = self.decision(state, mask)?;
        q_values.copy_from_slice(decision.q_values);
        Ok(decision.action)
    }

    fn q_values(&mut self, state: &[f32], q_values: &mut [f32]) -> Result<(), PeerError> {
        q_values.copy_from_slice(self.engine.q_values(&mut self.scratch, state)?);
        Ok(())
    }
}
