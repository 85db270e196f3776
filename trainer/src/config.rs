//! The configuration of a training run on recordings: what is validated is what runs.

use bellwether_env_adapter::reward::{RewardConfig, RewardError};
use bellwether_env_adapter::spec::{MAX_COST, MIN_COST, z_of_cost};
use bellwether_env_adapter::window::{WindowConfig, WindowConfigError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::network::{NetworkConfig, Returns};

/// A value that cannot be run with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` is {value}: {reason}")]
pub struct ConfigError {
    /// Dotted key.
    pub key: String,
    /// The value as given.
    pub value: String,
    /// Why it is refused and what would do.
    pub reason: String,
}

impl ConfigError {
    pub(crate) fn new(key: impl Into<String>, value: impl std::fmt::Debug, reason: impl Into<String>) -> Self {
        ConfigError { key: key.into(), value: format!("{value:?}"), reason: reason.into() }
    }
}

/// Everything that a training run on recordings is a function of, besides the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Master seed; every random stream is derived from it by name.
    pub seed: u64,
    /// Where windows close.
    pub window: WindowConfig,
    /// What a policy is rewarded for.
    pub reward: RewardConfig,
    /// The Q-network.
    pub network: NetworkConfig,
    /// The updates.
    pub trainer: TrainerConfig,
    /// The range of false-positive costs that one network is trained for.
    pub cost: CostConfig,
    /// How operating points are chosen.
    pub calibration: CalibrationConfig,
}

/// The updates of a run on recordings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainerConfig {
    /// Gradient steps.
    pub updates: u64,
    /// States per gradient step; each brings the answers to all its actions.
    pub batch_size: usize,
    /// Step size at the start; it falls to a tenth along a cosine.
    pub learning_rate: f32,
    /// Decoupled weight decay (AdamW).
    pub weight_decay: f32,
    /// Weight of the penalty `l2 / 2 * |weights|^2` (Adam).
    pub l2: f32,
    /// Share of a layer's inputs that is dropped, the rest scaled by `1 / (1 - share)`: the network's input, then each hidden layer.
    /// The last rate holds for all further layers; an empty list drops nothing.
    pub dropout: Vec<f32>,
    /// Share of states whose hashed calls are dropped all at once, beside `dropout`, where a recording tells more than the
    /// names of calls.
    pub call_dropout: f32,
    /// Share of the network's input that is dropped, in place of the first of `dropout`, where a recording tells the names of calls
    /// alone: nothing repeats what they say.
    pub bare_dropout: f32,
    /// Whether `raise_isolation` is allowed. On recordings its effect is a model; the live sandbox gives the real thing.
    pub isolation: bool,
    /// Threshold of Huber's error; 0 is the plain squared error.
    pub huber: f32,
    /// Discount per window. Recordings end, so 1 is sound.
    pub gamma: f32,
    /// Share of the way to the online parameters that the target network goes after every gradient step (Polyak
    /// averaging); the target network is what judges and what is released. 1 copies.
    pub tau: f32,
    /// Gradient steps after which the fold networks judge anew.
    pub target_update_interval: u64,
    /// Euclidean norm that a gradient is scaled down to.
    pub max_gradient_norm: f32,
    /// Gradient steps between two records in `metrics.jsonl`; the last step is always recorded.
    pub metrics_interval: u64,
    /// Gradient steps after which each fold network is played on the episodes that it has not seen, for a record of its return and
    /// over-estimation; the last step is one of them. 0 plays none.
    pub validation_interval: u64,
    /// Gradient steps between two checkpoints.
    pub checkpoint_interval: u64,
    /// Threads of the run; 0 takes what the machine has. The result does not depend on it.
    pub threads: usize,
    /// Bytes of states that are kept in memory; the rest lies in a file that is deleted at the end.
    pub memory_bytes: u64,
}

impl TrainerConfig {
    /// Whether fold networks are played after the round of updates that began when so many were done and ended when so many are.
    pub(crate) fn validates(&self, before: u64, done: u64) -> bool {
        let interval = self.validation_interval;
        interval > 0 && (done / interval > before / interval || done >= self.updates)
    }

    /// The drop-out rate of each of `layers` layers.
    pub fn dropout_rates(&self, layers: usize) -> Vec<f32> {
        let mut rates = self.dropout.clone();
        rates.resize(layers, rates.last().copied().unwrap_or(0.0));
        rates
    }
}

impl Default for TrainerConfig {
    fn default() -> Self {
        TrainerConfig {
            updates: 12_000,
            batch_size: 128,
            learning_rate: 1e-3,
            weight_decay: 0.0,
            l2: 5e-4,
            // Drop-out on hidden layers makes waiting look better than it is: what drops out now will be back by then.
            dropout: vec![0.5, 0.0],
            call_dropout: 0.5,
            bare_dropout: 0.05,
            isolation: false,
            huber: 0.0,
            gamma: 1.0,
            tau: 0.002,
            target_update_interval: 50,
            max_gradient_norm: 10.0,
            metrics_interval: 100,
            validation_interval: 1_000,
            checkpoint_interval: 1_000,
            threads: 0,
            memory_bytes: 1 << 30,
        }
    }
}

/// Costs of a false positive, relative to the rest of the reward; drawn log-uniformly for every state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CostConfig {
    /// Smallest cost `c`, 0.1 or more.
    pub minimum: f32,
    /// Largest cost `c`, at most 1000.
    pub maximum: f32,
    /// Costs between them at which a policy is played for calibration and for the oracle curve.
    #[serde(rename = "grid")]
    pub grid_points: usize,
}

impl CostConfig {
    /// The cost at a share of the way from the smallest to the largest, on a logarithmic scale, as `z = c / (1 + c)`.
    pub fn z_at(&self, share: f32) -> f32 {
        let (low, high) = (libm::log(f64::from(self.minimum)), libm::log(f64::from(self.maximum)));
        z_of_cost(libm::exp(low + (high - low) * f64::from(share)) as f32)
    }

    /// The costs at which a policy is played, ascending, as `z`.
    pub fn grid(&self) -> impl Iterator<Item = f32> + '_ {
        (0..self.grid_points).map(|i| self.z_at(i as f32 / (self.grid_points - 1) as f32))
    }
}

impl Default for CostConfig {
    fn default() -> Self {
        CostConfig { minimum: 0.1, maximum: 30.0, grid_points: 25 }
    }
}

/// How operating points are chosen: on episodes that the network did not see, by cross-fitting inside the training data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CalibrationConfig {
    /// Grouped folds; each is played by a network trained on the others.
    pub folds: usize,
    /// False-positive rates to choose a cost for.
    pub target_fpr: Vec<f64>,
}

impl Default for CalibrationConfig {
    fn default() -> Self {
        CalibrationConfig { folds: 8, target_fpr: vec![0.001, 0.01, 0.05] }
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            seed: 0,
            window: WindowConfig::default(),
            reward: RewardConfig::default(),
            // Recordings are few: a wider network learns their families by heart.
            network: NetworkConfig { hidden: vec![128, 64], ..NetworkConfig::default() },
            trainer: TrainerConfig::default(),
            cost: CostConfig::default(),
            calibration: CalibrationConfig::default(),
        }
    }
}

impl TrainConfig {
    /// Refuses what cannot run or contradicts itself, before anything starts.
    ///
    /// # Errors
    /// The first key that is wrong, with its value and the reason.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let (t, c, k) = (&self.trainer, &self.cost, &self.calibration);
        if let Some(width) = self.network.hidden.iter().find(|w| **w == 0 || **w > 8192) {
            return Err(ConfigError::new("network.hidden", width, "a layer has 1 to 8192 units"));
        }
        if self.network.hidden.is_empty() || self.network.hidden.len() > 8 {
            return Err(ConfigError::new("network.hidden", &self.network.hidden, "give 1 to 8 layers"));
        }
        match self.network.returns {
            Returns::Mean => {}
            Returns::Quantiles(_) if t.huber > 0.0 => {}
            Returns::Quantiles(_) => {
                let reason = "quantiles are fitted by Huber's error: give its threshold, such as 0.1";
                return Err(ConfigError::new("trainer.huber", t.huber, reason));
            }
            Returns::Categorical { .. } => {
                let reason = "categories cannot be exported: choose `mean` or `quantiles`";
                return Err(ConfigError::new("network.returns", self.network.returns, reason));
            }
        }
        if self.network.noisy_layers > 0 {
            let reason = "recordings leave nothing to explore: choose 0";
            return Err(ConfigError::new("network.noisy_layers", self.network.noisy_layers, reason));
        }
        if t.updates == 0 {
            return Err(ConfigError::new("trainer.updates", t.updates, "at least 1 gradient step is needed"));
        }
        if t.batch_size == 0 || t.batch_size > 65_536 {
            return Err(ConfigError::new("trainer.batch_size", t.batch_size, "give 1 to 65536 states"));
        }
        positive("trainer.learning_rate", t.learning_rate, 10.0)?;
        positive("trainer.max_gradient_norm", t.max_gradient_norm, f32::MAX)?;
        // More would turn weights round (AdamW: `weight *= 1 - learning_rate * weight_decay`).
        not_negative("trainer.weight_decay", t.weight_decay, (1.0 / t.learning_rate).min(1.0))?;
        not_negative("trainer.l2", t.l2, 1.0)?;
        not_negative("trainer.huber", t.huber, f32::MAX)?;
        if !(t.gamma > 0.0 && t.gamma <= 1.0) {
            return Err(ConfigError::new("trainer.gamma", t.gamma, "a discount lies above 0 and at most at 1"));
        }
        if t.dropout.len() > self.network.hidden.len() + 1 {
            return Err(ConfigError::new(
                "trainer.dropout",
                &t.dropout,
                format!("the network has {} layers with inputs to drop", self.network.hidden.len() + 1),
            ));
        }
        if let Some(rate) = t.dropout.iter().find(|r| !(0.0..1.0).contains(*r)) {
            return Err(ConfigError::new("trainer.dropout", rate, "a rate lies in 0 to below 1"));
        }
        not_negative("trainer.call_dropout", t.call_dropout, 1.0)?;
        if !(0.0..1.0).contains(&t.bare_dropout) {
            return Err(ConfigError::new("trainer.bare_dropout", t.bare_dropout, "a rate lies in 0 to below 1"));
        }
        if !(t.tau > 0.0 && t.tau <= 1.0) {
            let value = t.tau;
            return Err(ConfigError::new("trainer.tau", value, "a rate lies above 0 and at most at 1"));
        }
        if t.target_update_interval == 0 {
            return Err(ConfigError::new("trainer.target_update_interval", 0, "the target must follow: 1 or more"));
        }
        for (key, interval) in
            [("trainer.metrics_interval", t.metrics_interval), ("trainer.checkpoint_interval", t.checkpoint_interval)]
        {
            if interval == 0 {
                return Err(ConfigError::new(key, interval, "give 1 or more"));
            }
        }
        for (key, cost) in [("cost.minimum", c.minimum), ("cost.maximum", c.maximum)] {
            if !(MIN_COST..=MAX_COST).contains(&cost) {
                let reason = format!("a state tells costs from {MIN_COST} to {MAX_COST} apart, and no others");
                return Err(ConfigError::new(key, cost, reason));
            }
        }
        if c.minimum >= c.maximum {
            return Err(ConfigError::new(
                "cost.minimum",
                c.minimum,
                format!("it must lie below `cost.maximum`, {}", c.maximum),
            ));
        }
        if !(2..=1025).contains(&c.grid_points) {
            return Err(ConfigError::new("cost.grid", c.grid_points, "give 2 to 1025 points"));
        }
        if !c.grid().is_sorted_by(|low, high| low < high) {
            let reason = format!("{} to {} has no room for so many that differ: give fewer", c.minimum, c.maximum);
            return Err(ConfigError::new("cost.grid", c.grid_points, reason));
        }
        if !(2..=50).contains(&k.folds) {
            return Err(ConfigError::new("calibration.folds", k.folds, "give 2 to 50 folds"));
        }
        if k.target_fpr.is_empty() {
            return Err(ConfigError::new("calibration.target_fpr", &k.target_fpr, "give at least one rate"));
        }
        if let Some(rate) = k.target_fpr.iter().find(|r| !(**r > 0.0 && **r < 1.0)) {
            return Err(ConfigError::new("calibration.target_fpr", rate, "a rate lies between 0 and 1"));
        }
        if let Some((_, rate)) = k.target_fpr.iter().enumerate().find(|(i, r)| k.target_fpr[..*i].contains(r)) {
            return Err(ConfigError::new("calibration.target_fpr", rate, "give each rate once"));
        }
        self.window.validate().map_err(|WindowConfigError::Zero { key }| {
            ConfigError::new(format!("window.{key}"), 0, "a window needs room for at least one event: give 1 or more")
        })?;
        self.reward.validate().map_err(|RewardError::Weight { key, value, reason }| {
            ConfigError::new(format!("reward.{key}"), value, reason)
        })
    }
}

fn positive(key: &'static str, value: f32, most: f32) -> Result<(), ConfigError> {
    if value > 0.0 && value <= most {
        return Ok(());
    }
    Err(ConfigError::new(key, value, format!("it must be above 0 and at most {most}")))
}

fn not_negative(key: &'static str, value: f32, most: f32) -> Result<(), ConfigError> {
    if (0.0..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::new(key, value, format!("it must lie in 0 to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        TrainConfig::default().validate().unwrap();
    }

    #[test]
    fn drop_out_follows_the_depth_of_the_network() {
        for layers in 1..8 {
            let mut config = TrainConfig::default();
            config.network.hidden = vec![16; layers];
            config.trainer.dropout = vec![0.5, 0.3];
            config.validate().unwrap();
            let rates = config.trainer.dropout_rates(layers + 1);
            assert_eq!((rates.len(), rates[0]), (layers + 1, 0.5));
            assert!(rates[1..].iter().all(|rate| *rate == 0.3), "{rates:?}");
        }
        let of = |dropout: &[f32]| TrainerConfig { dropout: dropout.to_vec(), ..Default::default() }.dropout_rates(3);
        assert_eq!(of(&[]), [0.0; 3]);
        assert_eq!(of(&[0.2]), [0.2; 3]);
        assert_eq!(of(&[0.2, 0.0]), [0.2, 0.0, 0.0]);
        assert_eq!(of(&[0.2, 0.1, 0.0]), [0.2, 0.1, 0.0]);
    }

    #[test]
    fn what_contradicts_itself_is_refused_by_key() {
        type Change = fn(&mut TrainConfig);
        let cases: [(&str, Change); 21] = [
            ("trainer.huber", |c| c.network.returns = Returns::Quantiles(8)),
            ("network.noisy_layers", |c| c.network.noisy_layers = 1),
            ("trainer.call_dropout", |c| c.trainer.call_dropout = 1.5),
            ("trainer.bare_dropout", |c| c.trainer.bare_dropout = 1.0),
            ("network.hidden", |c| c.network.hidden = vec![64, 0]),
            ("trainer.updates", |c| c.trainer.updates = 0),
            ("trainer.learning_rate", |c| c.trainer.learning_rate = f32::NAN),
            ("trainer.gamma", |c| c.trainer.gamma = 1.5),
            ("trainer.dropout", |c| c.trainer.dropout = vec![1.0]),
            ("trainer.tau", |c| c.trainer.tau = 0.0),
            ("trainer.tau", |c| c.trainer.tau = f32::NAN),
            ("trainer.target_update_interval", |c| c.trainer.target_update_interval = 0),
            ("trainer.weight_decay", |c| (c.trainer.learning_rate, c.trainer.weight_decay) = (2.0, 0.9)),
            ("trainer.checkpoint_interval", |c| c.trainer.checkpoint_interval = 0),
            ("cost.minimum", |c| c.cost.minimum = 0.09),
            ("cost.minimum", |c| c.cost.minimum = 500.0),
            ("cost.maximum", |c| c.cost.maximum = 1001.0),
            ("cost.maximum", |c| c.cost.maximum = f32::NAN),
            ("cost.grid", |c| (c.cost.minimum, c.cost.maximum, c.cost.grid_points) = (1.0, 1.0001, 1025)),
            ("calibration.folds", |c| c.calibration.folds = 1),
            ("calibration.target_fpr", |c| c.calibration.target_fpr = vec![0.0]),
        ];
        for (key, change) in cases {
            let mut config = TrainConfig::default();
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().key, key);
        }
    }

    #[test]
    fn what_the_data_path_would_refuse_later_is_refused_at_the_start() {
        type Change = fn(&mut TrainConfig);
        let cases: [(&str, Change); 4] = [
            ("window.max_events", |c| c.window.max_events = 0),
            ("window.max_ns", |c| c.window.max_ns = 0),
            ("reward.window_cost", |c| c.reward.window_cost = f32::NAN),
            ("calibration.target_fpr", |c| c.calibration.target_fpr = vec![0.05, 0.01, 0.05]),
        ];
        for (key, change) in cases {
            let mut config = TrainConfig::default();
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().key, key);
        }
    }
}
