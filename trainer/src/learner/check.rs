//! What every learner refuses before it touches a parameter.

use super::{Batch, LearnerError, Loss, Noise, TargetSync, UpdateSpec};
use crate::learner::keep;
use crate::network::NetworkShape;

impl UpdateSpec {
    /// Refuses settings that are out of range for a network of this shape.
    ///
    /// # Errors
    /// [`LearnerError::Setting`] with the field, and [`LearnerError::Shape`] on a wrong number of drop-out rates.
    pub fn validate(&self, shape: &NetworkShape) -> Result<(), LearnerError> {
        let check = |key, value: f32, right: bool, reason| {
            if right { Ok(()) } else { Err(LearnerError::Setting { key, value, reason }) }
        };
        check(
            "learning_rate",
            self.learning_rate,
            (0.0..=10.0).contains(&self.learning_rate),
            "choose a value from 0 to 10",
        )?;
        for (key, value) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            check(key, value, (0.0..1.0).contains(&value), "choose a value from 0 to below 1")?;
        }
        // A smaller constant could overflow the step where the second moment is 0.
        check("epsilon", self.epsilon, (1e-16..=1.0).contains(&self.epsilon), "choose a value from 1e-16 to 1")?;
        let decays = self.weight_decay >= 0.0 && self.weight_decay * self.learning_rate <= 1.0;
        check("weight_decay", self.weight_decay, decays, "choose a value from 0 to the inverse of the learning rate")?;
        check("l2", self.l2, (0.0..=1.0).contains(&self.l2), "choose a value from 0 to 1")?;
        check("max_gradient_norm", self.max_gradient_norm, self.max_gradient_norm > 0.0, "choose a positive value")?;
        let divides = self.normaliser > 0.0 && self.normaliser.is_finite();
        check("normaliser", self.normaliser, divides, "choose a positive, finite value")?;
        if let Loss::Huber(threshold) = self.loss {
            let bounds = threshold > 0.0 && threshold.is_finite();
            check("loss.huber", threshold, bounds, "choose a positive, finite threshold")?;
        }
        self.target_sync.validate()?;
        if !self.dropout.is_empty() && self.dropout.len() != shape.layer_count() {
            let (expected, found) = (shape.layer_count(), self.dropout.len());
            return Err(LearnerError::Shape { what: "the list of drop-out rates", expected, found });
        }
        for &rate in &self.dropout {
            check("dropout", rate, (0.0..1.0).contains(&rate), "choose rates from 0 to below 1")?;
        }
        Ok(())
    }

    /// The drop-out rate of the input of layer `layer`.
    pub fn dropout_rate(&self, layer: usize) -> f32 {
        self.dropout.get(layer).copied().unwrap_or(0.0)
    }
}

impl TargetSync {
    /// Refuses a `tau` that is out of range.
    ///
    /// # Errors
    /// [`LearnerError::Setting`].
    pub fn validate(self) -> Result<(), LearnerError> {
        match self {
            TargetSync::Soft(tau) if !(0.0..=1.0).contains(&tau) => {
                Err(LearnerError::Setting { key: "tau", value: tau, reason: "choose a value from 0 to 1" })
            }
            _ => Ok(()),
        }
    }
}

impl Batch<'_> {
    /// Refuses a batch that does not fit the network or itself.
    ///
    /// # Errors
    /// [`LearnerError::Shape`] on wrong sizes, [`LearnerError::Answer`] with the position of the first bad answer.
    pub fn validate(&self, shape: &NetworkShape) -> Result<(), LearnerError> {
        let actions = shape.outputs();
        let fits = |what, expected, found| {
            if expected == found { Ok(()) } else { Err(LearnerError::Shape { what, expected, found }) }
        };
        if !self.states.is_empty() {
            fits("a state", shape.inputs(), self.states.width())?;
        }
        if !self.next_states.is_empty() {
            fits("a next state", shape.inputs(), self.next_states.width())?;
        }
        fits("the mask of the next states", self.next_states.len() * actions, self.next_masks.len())?;
        let mut row = 0;
        for (index, answer) in self.answers.iter().enumerate() {
            let refuse = |reason| Err(LearnerError::Answer { index, reason });
            if answer.row < row {
                return refuse("its row is smaller than the one before; sort the answers by row");
            }
            row = answer.row;
            if answer.row as usize >= self.states.len() {
                return refuse("its row is beyond the states");
            }
            if answer.action as usize >= actions {
                return refuse("its action is beyond the network's outputs");
            }
            if !answer.reward.is_finite() {
                return refuse("its reward is not finite");
            }
            if !(answer.weight.is_finite() && answer.weight >= 0.0) {
                return refuse("its weight is negative or not finite");
            }
            if !answer.discount.is_finite() {
                return refuse("its discount is not finite");
            }
            if answer.discount != 0.0 {
                let next = answer.next as usize;
                if next >= self.next_states.len() {
                    return refuse("its next row is beyond the next states");
                }
                if !self.next_masks[next * actions..(next + 1) * actions].contains(&true) {
                    return refuse("no action is allowed in its next state");
                }
            }
        }
        Ok(())
    }
}

impl Noise<'_> {
    /// Refuses noise that does not fit the batch and the drop-out rates.
    ///
    /// # Errors
    /// [`LearnerError::Shape`].
    pub fn validate(&self, spec: &UpdateSpec, shape: &NetworkShape, rows: usize) -> Result<(), LearnerError> {
        for (layer, width) in shape.widths().iter().take(shape.layer_count()).enumerate() {
            let found = self.keep.get(layer).map_or(0, Vec::len);
            if spec.dropout_rate(layer) > 0.0 && found != rows * width {
                return Err(LearnerError::Shape { what: "the noise of a layer", expected: rows * width, found });
            }
            // The way back through a hidden layer knows one scale per layer.
            if layer > 0 && self.keep.get(layer).is_some_and(|bytes| bytes.contains(&keep::EXEMPT)) {
                return Err(LearnerError::Noise { layer });
            }
        }
        Ok(())
    }
}
