//! The settings of an update from a replay buffer, the same online and on played steps.

use crate::config::ConfigError;
use crate::learner::{LearnerError, Loss, Munchausen, TargetSync, UpdateSpec};
use crate::network::NetworkShape;
use crate::schedule::{Linear, StepSizeSchedule};
use bellwether_replay::{Draw, PriorityConfig, SampleSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What one update learns from, and how. The defaults suit small control tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateConfig {
    /// Transitions per update.
    pub batch_size: usize,
    /// How transitions are drawn from the replay buffer.
    pub draw: DrawConfig,
    /// Discount per environment step, 0 to 1.
    pub gamma: f64,
    /// Rewards that a target sums before it bootstraps.
    pub n_step: u32,
    /// Double DQN: the online network chooses the successor's action, the target network values it.
    pub double: bool,
    /// Munchausen's reward and soft target; excludes `double`.
    pub munchausen: Option<MunchausenConfig>,
    /// The form of the temporal-difference error.
    pub loss: LossConfig,
    /// Share of the observation's elements that is dropped in an update.
    pub input_dropout: f64,
    /// Share of each hidden layer that is dropped in an update.
    pub hidden_dropout: f64,
    /// Step size of Adam, above 0.
    pub learning_rate: f64,
    /// How the step size moves, by update.
    pub learning_rate_schedule: StepSizeSchedule,
    /// Decoupled weight decay (AdamW) of the weights; 0 is Adam.
    pub weight_decay: f64,
    /// Decay of Adam's first moment.
    pub beta1: f64,
    /// Decay of Adam's second moment.
    pub beta2: f64,
    /// What Adam adds to the root of the second moment.
    pub adam_epsilon: f64,
    /// The gradient is scaled down to this Euclidean norm; 0 means never.
    pub max_gradient_norm: f64,
}

/// The form of the temporal-difference error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossConfig {
    /// Half the squared error.
    Mse,
    /// Huber's error: squared up to this threshold, linear beyond. SB3 uses 1. Quantiles are fitted with it too.
    Huber(f64),
    /// The cross-entropy of categorical returns, for a network that has them.
    CrossEntropy,
}

/// How transitions are drawn from the replay buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DrawConfig {
    /// Each is as likely as any other.
    #[default]
    Uniform,
    /// By their errors (Schaul et al. 2016).
    Prioritised(PrioritisedConfig),
}

/// Prioritised replay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PrioritisedConfig {
    /// Power to which errors are raised, 0 to 1.
    pub exponent: f64,
    /// Added to the size of an error, above 0.
    pub floor: f64,
    /// How far weights make up for the uneven draw in the first update, 0 to 1.
    pub correction_initial: f64,
    /// Updates over which that rises to 1 in a straight line.
    pub correction_steps: u64,
}

impl Default for PrioritisedConfig {
    fn default() -> Self {
        let PriorityConfig { exponent, floor } = PriorityConfig::default();
        PrioritisedConfig { exponent, floor, correction_initial: 0.4, correction_steps: 25_000 }
    }
}

/// Munchausen's reward and soft target (Vieillard et al. 2020).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MunchausenConfig {
    /// Share of the policy's scaled log-probability in the reward, 0 to 1.
    pub alpha: f64,
    /// Temperature of the policy, above 0.
    pub temperature: f64,
    /// The smallest scaled log-probability in the reward, at most 0.
    pub floor: f64,
}

impl Default for MunchausenConfig {
    /// The settings of the paper.
    fn default() -> Self {
        MunchausenConfig { alpha: 0.9, temperature: 0.03, floor: -1.0 }
    }
}

impl Default for UpdateConfig {
    fn default() -> Self {
        UpdateConfig {
            batch_size: 32,
            draw: DrawConfig::Uniform,
            gamma: 0.99,
            n_step: 1,
            double: true,
            munchausen: None,
            loss: LossConfig::Huber(1.0),
            input_dropout: 0.0,
            hidden_dropout: 0.0,
            learning_rate: 1e-4,
            learning_rate_schedule: StepSizeSchedule::default(),
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            adam_epsilon: 1e-8,
            max_gradient_norm: 10.0,
        }
    }
}

/// Largest batch.
pub const MAX_BATCH: usize = 1 << 16;

/// Refuses a value unless it is `right`.
pub(crate) fn require(
    key: &'static str,
    value: impl std::fmt::Debug,
    right: bool,
    reason: &'static str,
) -> Result<(), ConfigError> {
    if right { Ok(()) } else { Err(ConfigError::new(key, value, reason)) }
}

pub(crate) const POSITIVE: &str = "choose a value of at least 1";
pub(crate) const SHARE: &str = "choose a value from 0 to 1";

impl UpdateConfig {
    /// Refuses settings that are out of range or do not go with the network, by keys that begin with `update.`.
    ///
    /// # Errors
    /// The first of them.
    pub fn validate(&self, shape: &NetworkShape) -> Result<(), ConfigError> {
        let batch = self.batch_size;
        require("update.batch_size", batch, (1..=MAX_BATCH).contains(&batch), "choose a value from 1 to 65536")?;
        if let DrawConfig::Prioritised(draw) = self.draw {
            let exponent = draw.exponent;
            require("update.draw.prioritised.exponent", exponent, (0.0..=1.0).contains(&exponent), SHARE)?;
            let bounds = draw.floor > 0.0 && draw.floor <= 1e6;
            let reason = "choose a value above 0, at most a million";
            require("update.draw.prioritised.floor", draw.floor, bounds, reason)?;
            let initial = draw.correction_initial;
            require("update.draw.prioritised.correction_initial", initial, (0.0..=1.0).contains(&initial), SHARE)?;
        }
        require("update.gamma", self.gamma, (0.0..=1.0).contains(&self.gamma), SHARE)?;
        require("update.n_step", self.n_step, (1..=1000).contains(&self.n_step), "choose a value from 1 to 1000")?;
        if let LossConfig::Huber(threshold) = self.loss {
            let fits = (1e-30..1e30).contains(&threshold);
            require("update.loss.huber", threshold, fits, "choose a positive, finite threshold")?;
        }
        for (key, value) in [
            ("update.input_dropout", self.input_dropout),
            ("update.hidden_dropout", self.hidden_dropout),
            ("update.beta1", self.beta1),
            ("update.beta2", self.beta2),
        ] {
            let fits = (0.0..1.0).contains(&value) && (value as f32) < 1.0;
            require(key, value, fits, "choose a value from 0 to below 1")?;
        }
        let rate = self.learning_rate;
        require("update.learning_rate", rate, rate > 0.0 && rate <= 1.0, "choose a value above 0, at most 1")?;
        if let Err((key, value, reason)) = self.learning_rate_schedule.check() {
            return Err(ConfigError {
                key: format!("update.learning_rate_schedule.{key}"),
                value,
                reason: reason.into(),
            });
        }
        let decay = self.weight_decay;
        let fits = decay >= 0.0 && decay * rate <= 1.0;
        require("update.weight_decay", decay, fits, "choose a value from 0 to 1 / learning_rate")?;
        let epsilon = self.adam_epsilon;
        require("update.adam_epsilon", epsilon, (1e-15..=1.0).contains(&epsilon), "choose a value from 1e-15 to 1")?;
        let norm = self.max_gradient_norm;
        let fits = norm == 0.0 || (1e-30..1e30).contains(&norm);
        require("update.max_gradient_norm", norm, fits, "choose 0 for no limit, or a positive norm")?;
        self.spec(shape).validate(shape).map_err(|error| match error {
            LearnerError::Contradiction { what, reason } => {
                let settings = serde_json::to_value(self).unwrap_or_default();
                let value = settings.get(what).map_or_else(String::new, ToString::to_string);
                ConfigError { key: format!("update.{what}"), value, reason: reason.to_owned() }
            }
            LearnerError::Setting { key, value, reason } => ConfigError::new(format!("update.{key}"), value, reason),
            error => ConfigError { key: "update".to_owned(), value: String::new(), reason: error.to_string() },
        })
    }

    /// How the replay buffer makes priorities of errors, where it does.
    pub fn priorities(&self) -> Option<PriorityConfig> {
        match self.draw {
            DrawConfig::Uniform => None,
            DrawConfig::Prioritised(PrioritisedConfig { exponent, floor, .. }) => {
                Some(PriorityConfig { exponent, floor })
            }
        }
    }

    /// What is drawn for an update, counted from 0.
    pub fn sample_at(&self, update: u64) -> SampleSpec {
        let draw = match self.draw {
            DrawConfig::Uniform => Draw::Uniform,
            DrawConfig::Prioritised(PrioritisedConfig { correction_initial, correction_steps, .. }) => {
                let line = Linear { initial: correction_initial, final_value: 1.0, steps: correction_steps };
                Draw::Prioritised { correction: line.at(update) }
            }
        };
        SampleSpec { n_step: self.n_step, gamma: self.gamma, draw }
    }

    /// The step size of an update, counted from 0.
    pub fn learning_rate_at(&self, update: u64) -> f32 {
        (self.learning_rate * self.learning_rate_schedule.at(update)) as f32
    }

    /// What an update does at the first step size. The target network follows between updates.
    pub fn spec(&self, shape: &NetworkShape) -> UpdateSpec {
        let mut dropout = vec![self.hidden_dropout as f32; shape.layer_count()];
        dropout[0] = self.input_dropout as f32;
        if dropout.iter().all(|rate| *rate == 0.0) {
            dropout.clear();
        }
        UpdateSpec {
            double: self.double,
            loss: match self.loss {
                LossConfig::Mse => Loss::Mse,
                LossConfig::Huber(threshold) => Loss::Huber(threshold as f32),
                LossConfig::CrossEntropy => Loss::CrossEntropy,
            },
            conservative: 0.0,
            munchausen: self.munchausen.map(|config| Munchausen {
                alpha: config.alpha as f32,
                temperature: config.temperature as f32,
                floor: config.floor as f32,
            }),
            learning_rate: self.learning_rate as f32,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            epsilon: self.adam_epsilon as f32,
            weight_decay: self.weight_decay as f32,
            l2: 0.0,
            max_gradient_norm: if self.max_gradient_norm == 0.0 {
                f32::INFINITY
            } else {
                self.max_gradient_norm as f32
            },
            dropout,
            normaliser: self.batch_size as f32,
            target_sync: TargetSync::Keep,
        }
    }
}
