//! What a run writes while it trains: a record per update in `metrics.jsonl`, and the same as curves for TensorBoard.
//!
//! `metrics.jsonl` is a function of data, configuration and seed, so it holds no time; TensorBoard files carry times and are
//! never hashed. Nothing here reads a clock or opens a file: writers take any `Write`, and times are handed in.

mod tensorboard;

use serde::{Deserialize, Serialize};

pub use tensorboard::EventWriter;

/// One line of `metrics.jsonl`: what one update of one network did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateMetrics {
    /// Name of the network.
    pub network: String,
    /// Gradient steps so far.
    pub update: u64,
    /// Loss before the step.
    pub loss: f32,
    /// Mean of the fitted q-values.
    pub mean_q: f32,
    /// Mean of the targets.
    pub mean_target: f32,
    /// Largest absolute error.
    pub max_error: f32,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f32,
    /// Step size.
    pub learning_rate: f32,
    /// What its running average reaches on episodes that it has not seen, where it was played after this update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
}

/// A network on the episodes of its fold, which it has not seen, at the cost of a false positive in the middle of the range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validation {
    /// Episodes.
    pub episodes: u64,
    /// Mean return.
    pub mean_return: f32,
    /// Mean q-value of the first decisions minus the mean of the discounted returns that follow them.
    pub overestimation: f32,
}

impl UpdateMetrics {
    /// The measures as curves: `loss/released`, `mean_q/fold-1`, ... TensorBoard puts the networks of a measure together.
    pub fn curves(&self) -> impl Iterator<Item = (String, f32)> + '_ {
        let measures = [
            ("loss", self.loss),
            ("mean_q", self.mean_q),
            ("mean_target", self.mean_target),
            ("max_error", self.max_error),
            ("gradient_norm", self.gradient_norm),
            ("learning_rate", self.learning_rate),
        ];
        let validation = self.validation.map(|validation| {
            [("validation_return", validation.mean_return), ("overestimation", validation.overestimation)]
        });
        let measures = measures.into_iter().chain(validation.into_iter().flatten());
        measures.map(|(measure, value)| (format!("{measure}/{}", self.network), value))
    }
}
