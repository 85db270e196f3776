//! What every learner refuses before it touches a parameter.

use super::{Batch, LearnerError, LearnerState, Loss, Munchausen, Noise, TargetSync, UpdateSpec};
use crate::network::{NetworkShape, Returns};
use bellwether_replay::StateRows;

impl UpdateSpec {
    /// Refuses settings that are out of range for a network of this shape.
    ///
    /// # Errors
    /// [`LearnerError::Setting`] with the field, [`LearnerError::Shape`] on a wrong number of drop-out rates, and
    /// [`LearnerError::Contradiction`] where two settings, or one and the network, exclude each other.
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
        let bounds = (0.0..=1e6).contains(&self.conservative);
        check("conservative", self.conservative, bounds, "choose a value from 0 to a million")?;
        if let Some(Munchausen { alpha, temperature, floor }) = self.munchausen {
            check("munchausen.alpha", alpha, (0.0..=1.0).contains(&alpha), "choose a value from 0 to 1")?;
            let bounds = (1e-6..=1e6).contains(&temperature);
            check("munchausen.temperature", temperature, bounds, "choose a value from 1e-6 to a million")?;
            check("munchausen.floor", floor, floor <= 0.0 && floor.is_finite(), "choose a finite value of at most 0")?;
        }
        self.agrees_with(shape.returns())?;
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

    /// Refuses what excludes each other, or does not go with what the network tells about returns.
    fn agrees_with(&self, returns: Returns) -> Result<(), LearnerError> {
        let refuse = |what, reason| Err(LearnerError::Contradiction { what, reason });
        match (self.loss, returns) {
            (Loss::Mse | Loss::Huber(_) | Loss::Cloning, Returns::Mean) => {}
            (Loss::Huber(_), Returns::Quantiles(_)) | (Loss::CrossEntropy, Returns::Categorical { .. }) => {}
            (Loss::CrossEntropy, _) => return refuse("loss", "cross-entropy is that of categorical returns"),
            (Loss::Cloning, _) => {
                return refuse("loss", "cloning takes the outputs for logits: choose returns of `mean`");
            }
            (_, Returns::Quantiles(_)) => {
                return refuse("loss", "quantiles are fitted by `huber`, whose threshold they use");
            }
            (_, Returns::Categorical { .. }) => {
                return refuse("loss", "categorical returns are fitted by `cross_entropy`");
            }
        }
        if self.loss == Loss::Cloning && (self.double || self.conservative > 0.0 || self.munchausen.is_some()) {
            return refuse("loss", "cloning has no targets: leave out `double`, `conservative` and `munchausen`");
        }
        if self.munchausen.is_some() {
            if self.double {
                return refuse("munchausen", "its target takes all actions, `double` one: choose one of them");
            }
            if matches!(returns, Returns::Categorical { .. }) {
                return refuse(
                    "munchausen",
                    "it moves the values of a return: choose returns of `mean` or `quantiles`",
                );
            }
        }
        Ok(())
    }

    /// Whether an update depends on the allowed actions of the states themselves, [`Batch::masks`].
    pub fn needs_masks(&self) -> bool {
        self.loss == Loss::Cloning || self.conservative > 0.0 || self.munchausen.is_some()
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
    /// Refuses a batch that does not fit the network, the update or itself.
    ///
    /// # Errors
    /// [`LearnerError::Shape`] on wrong sizes, [`LearnerError::Answer`] with the position of the first bad answer.
    pub fn validate(&self, spec: &UpdateSpec, shape: &NetworkShape) -> Result<(), LearnerError> {
        let actions = shape.actions();
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
        if spec.needs_masks() || !self.masks.is_empty() {
            fits("the mask of the states", self.states.len() * actions, self.masks.len())?;
        }
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
                return refuse("its action is beyond those of the network");
            }
            if !self.masks.is_empty() && !self.masks[answer.row as usize * actions + answer.action as usize] {
                return refuse("its action is not allowed in its state");
            }
            if !(answer.weight.is_finite() && answer.weight >= 0.0) {
                return refuse("its weight is negative or not finite");
            }
            if spec.loss == Loss::Cloning {
                continue;
            }
            if !answer.reward.is_finite() {
                return refuse("its reward is not finite");
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
    /// Refuses noise that does not fit the batch, the drop-out rates and the noisy layers.
    ///
    /// # Errors
    /// [`LearnerError::Shape`].
    pub fn validate(&self, spec: &UpdateSpec, shape: &NetworkShape, rows: usize) -> Result<(), LearnerError> {
        for (layer, width) in shape.widths().iter().take(shape.layer_count()).enumerate() {
            let found = self.keep.get(layer).map_or(0, Vec::len);
            if spec.dropout_rate(layer) > 0.0 && found != rows * width {
                return Err(LearnerError::Shape { what: "the noise of a layer", expected: rows * width, found });
            }
        }
        check_factors("the factors of the online network's noise", shape, self.online)?;
        check_factors("the factors of the target network's noise", shape, self.target)
    }
}

/// Refuses factors of noise that do not fit the noisy layers.
fn check_factors(what: &'static str, shape: &NetworkShape, factors: &[f32]) -> Result<(), LearnerError> {
    let (expected, found) = (shape.factor_count(), factors.len());
    if expected != found {
        return Err(LearnerError::Shape { what, expected, found });
    }
    match factors.iter().position(|factor| !factor.is_finite()) {
        Some(row) => Err(LearnerError::NotFinite { what, row }),
        None => Ok(()),
    }
}

/// Refuses an update that does not fit the network or itself.
pub(super) fn check_update(
    spec: &UpdateSpec,
    shape: &NetworkShape,
    batch: &Batch<'_>,
    noise: &Noise<'_>,
) -> Result<(), LearnerError> {
    spec.validate(shape)?;
    batch.validate(spec, shape)?;
    noise.validate(spec, shape, batch.states.len())?;
    if batch.answers.is_empty() {
        return Err(LearnerError::Shape { what: "the list of answers", expected: 1, found: 0 });
    }
    Ok(())
}

/// Refuses states or factors of noise whose q-values the network cannot give.
pub(super) fn check_states(shape: &NetworkShape, states: &dyn StateRows, factors: &[f32]) -> Result<(), LearnerError> {
    if !states.is_empty() && states.width() != shape.inputs() {
        let (expected, found) = (shape.inputs(), states.width());
        return Err(LearnerError::Shape { what: "a state", expected, found });
    }
    if factors.is_empty() { Ok(()) } else { check_factors("the factors of the noise", shape, factors) }
}

/// Refuses a state of another network.
pub(super) fn check_state(shape: &NetworkShape, state: &LearnerState) -> Result<(), LearnerError> {
    check_parameters(shape, "the online parameters", &state.online)?;
    check_parameters(shape, "the target parameters", &state.target)?;
    check_parameters(shape, "the first moments", &state.first_moment)?;
    check_parameters(shape, "the second moments", &state.second_moment)
}

/// Refuses parameters of another network, and what is not finite.
pub(super) fn check_parameters(
    shape: &NetworkShape,
    what: &'static str,
    parameters: &[f32],
) -> Result<(), LearnerError> {
    let (expected, found) = (shape.parameter_count(), parameters.len());
    if expected != found {
        return Err(LearnerError::Shape { what, expected, found });
    }
    match parameters.iter().position(|value| !value.is_finite()) {
        Some(row) => Err(LearnerError::NotFinite { what, row }),
        None => Ok(()),
    }
}
