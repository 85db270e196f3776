//! What became of the answers of an update, and the report of it.

use super::{Answer, LearnerError, UpdateReport, UpdateSpec};

/// What became of one answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fitted {
    /// Its share of the loss, before weight and normaliser.
    pub(super) loss: f64,
    /// What its priority is made of.
    pub(super) error: f32,
    /// The q-value.
    pub(super) value: f32,
    /// The mean of the target.
    pub(super) target: f32,
}

/// The figures of a report, in the order of the answers and in double precision.
pub(super) fn summarise(
    spec: &UpdateSpec,
    answers: &[Answer],
    fitted: &[Fitted],
) -> Result<UpdateReport, LearnerError> {
    let (mut loss, mut q, mut target, mut largest) = (0.0f64, 0.0f64, 0.0f64, 0.0f32);
    for (answer, fitted) in answers.iter().zip(fitted) {
        loss += f64::from(answer.weight) * fitted.loss;
        q += f64::from(fitted.value);
        target += f64::from(fitted.target);
        largest = largest.max(fitted.error.abs());
    }
    let (count, loss) = (answers.len() as f64, (loss / f64::from(spec.normaliser)) as f32);
    if !loss.is_finite() {
        return Err(LearnerError::Diverged { what: "loss" });
    }
    Ok(UpdateReport {
        loss,
        mean_q: (q / count) as f32,
        mean_target: (target / count) as f32,
        max_error: largest,
        gradient_norm: 0.0,
    })
}
