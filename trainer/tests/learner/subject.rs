//! The learners that are tested alike.

use crate::case::Case;
#[cfg(feature = "burn")]
use bellwether_trainer::learner::burn::{BurnDevice, BurnLearner};
use bellwether_trainer::learner::fused::{FusedLearner, FusedOptions};
#[cfg(feature = "tch")]
use bellwether_trainer::learner::tch::{TchDevice, TchLearner};
use bellwether_trainer::learner::{Learner, LearnerError, LearnerState};
use bellwether_trainer::network::NetworkShape;

/// A learner on the processor.
pub(crate) trait Subject: Learner + Sized {
    fn make(shape: NetworkShape, parameters: &[f32]) -> Result<Self, LearnerError>;
    /// The gradient of the last update before clipping.
    fn last_gradient(&self) -> Vec<f32>;
    /// A learner whose target network is the case's.
    fn of(case: &Case) -> Self {
        let mut learner = Self::make(case.shape.clone(), &case.parameters).unwrap();
        let state = LearnerState { target: case.target.clone(), ..learner.state() };
        learner.restore(&state).unwrap();
        learner
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
