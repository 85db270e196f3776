//! The settings of a run on played steps.

use crate::config::ConfigError;
use crate::dqn::{DqnError, POSITIVE, UpdateConfig, require};
use crate::learner::{Loss, UpdateSpec};
use crate::network::{NetworkConfig, NetworkShape, Returns};
use crate::schedule::TargetSchedule;
use bellwether_env_adapter::window::{WindowConfig, WindowConfigError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// All settings of a run on played steps, which nothing is added to while it lasts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OfflineConfig {
    /// Master seed; each purpose derives its own stream from it.
    pub seed: u64,
    /// Where windows closed when the steps were played; files of other windows are refused.
    pub window: WindowConfig,
    /// Gradient steps.
    pub updates: u64,
    /// What is learned.
    pub algorithm: Algorithm,
    /// For `cql`: the weight of the term that pushes values down, above 0.
    pub cql_weight: f64,
    /// For `bcq`: the smallest share of the most probable action's probability that an action must have to be chosen, above 0 and
    /// at most 1. A share of 1 clones, and one close to 0 is DQN.
    pub bcq_share: f64,
    /// The network.
    pub network: NetworkConfig,
    /// The updates. Cloning has no targets, so `loss`, `gamma`, `n_step`, `double` and the two settings of the target network say
    /// nothing to it.
    pub update: UpdateConfig,
    /// Gradient steps between two synchronisations of the target network.
    pub target_update_interval: u64,
    /// How far the target network moves at each synchronisation: 1 copies the online network.
    pub tau: f64,
    /// Gradient steps between two records in `metrics.jsonl`; the last step is always recorded.
    pub metrics_interval: u64,
    /// Gradient steps between two checkpoints.
    pub checkpoint_interval: u64,
    /// Bytes that the steps may take in memory. More of them are streamed from their files: memory holds a part, which changes as the
    /// run goes on, and what is learned then depends on this size.
    pub memory_bytes: u64,
    /// Where steps are streamed: how often each is drawn on average before it makes room for another, 0.001 to 1,000,000.
    pub samples_per_insert: f64,
}

/// What is learned from steps that others played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// DQN on what there is. Actions that nobody played keep whatever value the network makes up for them.
    Dqn,
    /// Conservative Q-learning (Kumar et al. 2020, CQL(H)): values of actions that were not played are pushed down.
    Cql,
    /// Batch-constrained Q-learning for discrete actions (Fujimoto et al. 2019): only actions that are likely enough under a
    /// cloned policy are ever chosen.
    Bcq,
    /// Behaviour cloning: the most probable action of whoever played.
    Cloning,
}

impl Algorithm {
    /// Whether a network of it clones whoever played; steps of the safe rule are then not learned from.
    pub fn clones(self) -> bool {
        matches!(self, Algorithm::Bcq | Algorithm::Cloning)
    }
}

impl Default for OfflineConfig {
    fn default() -> Self {
        OfflineConfig {
            seed: 0,
            window: WindowConfig::default(),
            updates: 8_000,
            algorithm: Algorithm::Cql,
            cql_weight: 1.0,
            bcq_share: 0.3,
            network: NetworkConfig { hidden: vec![128, 64], ..NetworkConfig::default() },
            update: UpdateConfig { batch_size: 128, gamma: 1.0, learning_rate: 1e-3, ..UpdateConfig::default() },
            target_update_interval: 1,
            tau: 0.005,
            metrics_interval: 100,
            checkpoint_interval: 1_000,
            memory_bytes: 4 << 30,
            samples_per_insert: 4.0,
        }
    }
}

impl OfflineConfig {
    /// Refuses settings that are out of range, with the key, the value and the reason.
    ///
    /// # Errors
    /// [`DqnError::Config`] for the first of them, [`DqnError::Network`] for those of the network.
    pub fn validate(&self) -> Result<(), DqnError> {
        require("updates", self.updates, self.updates > 0, POSITIVE)?;
        self.window.validate().map_err(|WindowConfigError::Zero { key }| {
            ConfigError::new(format!("window.{key}"), 0, "a window needs room for at least one event: give 1 or more")
        })?;
        let weight = self.cql_weight;
        require("cql_weight", weight, weight > 0.0 && weight <= 1e6, "choose a value above 0, at most a million")?;
        let share = self.bcq_share;
        require("bcq_share", share, share > 0.0 && share <= 1.0, "choose a value above 0, at most 1")?;
        if self.algorithm == Algorithm::Cloning {
            let munchausen = self.update.munchausen;
            let reason = "cloning has no targets: leave it out";
            require("update.munchausen", munchausen, munchausen.is_none(), reason)?;
            let returns = self.network.returns;
            let reason = "cloning takes the outputs for logits: choose `mean`";
            require("network.returns", returns, returns == Returns::Mean, reason)?;
        }
        let noisy = self.network.noisy_layers;
        require("network.noisy_layers", noisy, noisy == 0, "played steps leave nothing to explore: choose 0")?;
        let shape = self.network.shape(1, 1)?;
        self.update.validate(&shape)?;
        if let Err(error) = self.spec(&shape).validate(&shape) {
            let (key, value) = ("algorithm", serde_json::to_string(&self.algorithm).unwrap_or_default());
            return Err(ConfigError { key: key.to_owned(), value, reason: error.to_string() }.into());
        }
        let interval = self.target_update_interval;
        require("target_update_interval", interval, interval > 0, "the target must follow: 1 or more")?;
        require("tau", self.tau, self.tau > 0.0 && self.tau <= 1.0, "choose a value above 0, at most 1")?;
        require("metrics_interval", self.metrics_interval, self.metrics_interval > 0, POSITIVE)?;
        let samples = self.samples_per_insert;
        let reason = "choose a value from 0.001 to a million";
        require("samples_per_insert", samples, (1e-3..=1e6).contains(&samples), reason)?;
        require("checkpoint_interval", self.checkpoint_interval, self.checkpoint_interval > 0, POSITIVE)?;
        Ok(())
    }

    /// What an update of the network does.
    pub fn spec(&self, shape: &NetworkShape) -> UpdateSpec {
        let spec = self.update.spec(shape);
        match self.algorithm {
            Algorithm::Dqn | Algorithm::Bcq => spec,
            Algorithm::Cql => UpdateSpec { conservative: self.cql_weight as f32, ..spec },
            Algorithm::Cloning => cloning(spec),
        }
    }

    /// When the target network follows, by gradient step.
    pub fn target_schedule(&self) -> TargetSchedule {
        TargetSchedule { interval: self.target_update_interval, tau: self.tau as f32 }
    }
}

/// An update that clones, with the optimiser and the drop-out of another.
pub(super) fn cloning(spec: UpdateSpec) -> UpdateSpec {
    UpdateSpec { loss: Loss::Cloning, double: false, munchausen: None, ..spec }
}
