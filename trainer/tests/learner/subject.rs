//! The learners that are tested alike.

use crate::case::Case;
#[cfg(feature = "burn")]
use bellwether_trainer::learner::burn::{BurnDevice, BurnLearner};
use bellwether_trainer::learner::fused::{FusedLearner, FusedOptions};
#[cfg(feature = "tch")]
use bellwether_trainer::learner::tch::{TchDevice, TchLearner};
use bellwether_trainer::learner::{Learner, LearnerError, LearnerState};
use bellwether_trainer::network::NetworkShape;

/// A learner that tells its gradient.
pub(crate) trait Subject: Learner + Sized {
    /// The learner on the processor.
    fn make(shape: NetworkShape, parameters: &[f32]) -> Result<Self, LearnerError>;
    /// The gradient of the last update before clipping.
    fn last_gradient(&self) -> Vec<f32>;
    /// A learner whose target network is the case's.
    fn of(case: &Case) -> Self {
        Self::make(case.shape.clone(), &case.parameters).unwrap().with_target(case)
    }
    /// The same learner with the target network of the case.
    fn with_target(mut self, case: &Case) -> Self {
        let state = LearnerState { target: case.target.clone(), ..self.state() };
        self.restore(&state).unwrap();
        self
    }
}

impl Subject for FusedLearner {
    fn make(shape: NetworkShape, parameters: &[f32]) -> Result<Self, LearnerError> {
        FusedLearner::new(shape, parameters, FusedOptions::default())
    }

    fn last_gradient(&self) -> Vec<f32> {
        self.gradient().to_vec()
    }
}

#[cfg(feature = "burn")]
impl Subject for BurnLearner {
    fn make(shape: NetworkShape, parameters: &[f32]) -> Result<Self, LearnerError> {
        BurnLearner::new(shape, parameters, BurnDevice::Cpu)
    }

    fn last_gradient(&self) -> Vec<f32> {
        self.gradient()
    }
}

#[cfg(feature = "tch")]
impl Subject for TchLearner {
    fn make(shape: NetworkShape, parameters: &[f32]) -> Result<Self, LearnerError> {
        TchLearner::new(shape, parameters, TchDevice::Cpu)
    }

    fn last_gradient(&self) -> Vec<f32> {
        self.gradient()
    }
}
