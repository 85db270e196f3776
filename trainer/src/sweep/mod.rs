//! Which configuration is best: trials over a space of settings, each judged by grouped cross-validation inside the training data.

mod page;
mod space;
mod trials;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, TrainConfig};
use crate::streams::stream;

pub use page::SweepPage;
pub use space::{Dimension, Settings};
pub use trials::{Job, Outcome, Standing, SweepError, Watch, sweep};

/// A sweep, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SweepConfig {
    /// How settings are chosen.
    pub search: Search,
    /// Settings that are drawn; a grid has as many as it has.
    pub trials: usize,
    /// Seeds that each setting is trained with: the training configuration's, the next one, and so on.
    pub seeds: u64,
    /// Folds of the cross-validation that judges.
    pub folds: usize,
    /// What decides, at `target_fpr`.
    pub measure: Measure,
    /// The operating point that is judged.
    pub target_fpr: f64,
    /// For `halving`: one setting in so many goes on to a round with so many times the gradient steps, at least 2.
    pub keep: usize,
    /// For `halving`: rounds, the last of which has all gradient steps.
    pub rounds: u32,
    /// Seed of the draws.
    pub seed: u64,
    /// Keys of the training configuration with the values to try.
    pub space: BTreeMap<String, Dimension>,
    /// What all trials share.
    pub base: TrainConfig,
}

/// How settings are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Search {
    /// Every combination of the values.
    Grid,
    /// Draws.
    Random,
    /// Draws that begin with few gradient steps; the best go on with more (successive halving, Jamieson and Talwalkar 2016).
    Halving,
}

/// What decides between settings. Returns do not: each setting is calibrated to a cost of its own, and returns at different costs cannot
/// be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Share of the harm that is prevented at the operating point, whose false-positive rate is calibrated; more is better.
    HarmPrevented,
    /// Area under the curve in hindsight; more is better.
    Auc,
    /// True-positive rate in hindsight at `target_fpr`; more is better.
    Tpr,
}

impl Default for SweepConfig {
    fn default() -> Self {
        SweepConfig {
            search: Search::Random,
            trials: 16,
            seeds: 2,
            folds: 3,
            measure: Measure::HarmPrevented,
            target_fpr: 0.05,
            keep: 3,
            rounds: 3,
            seed: 0,
            space: BTreeMap::new(),
            base: TrainConfig::default(),
        }
    }
}

/// Most settings of a sweep.
const MAX_TRIALS: usize = 10_000;

impl SweepConfig {
    /// Refuses what cannot run, every trial included.
    ///
    /// # Errors
    /// The first key that is wrong, with its value and the reason.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.base.validate()?;
        space::validate(&self.space, self.search == Search::Grid)?;
        if !(1..=MAX_TRIALS).contains(&self.trials) {
            return Err(ConfigError::new("trials", self.trials, "give 1 to 10000"));
        }
        if !(1..=100).contains(&self.seeds) {
            return Err(ConfigError::new("seeds", self.seeds, "give 1 to 100"));
        }
        if !(2..=50).contains(&self.folds) {
            return Err(ConfigError::new("folds", self.folds, "give 2 to 50 folds"));
        }
        if !(2..=100).contains(&self.keep) {
            return Err(ConfigError::new("keep", self.keep, "give 2 to 100"));
        }
        if !(1..=10).contains(&self.rounds) {
            return Err(ConfigError::new("rounds", self.rounds, "give 1 to 10"));
        }
        let settings = self.settings();
        if settings.len() > MAX_TRIALS {
            let reason =
                format!("the grid has {} combinations: give fewer values, or search at `random`", settings.len());
            return Err(ConfigError::new("space", self.space.len(), reason));
        }
        for settings in &settings {
            let config = space::configured(&self.base, settings)?;
            if !config.calibration.target_fpr.contains(&self.target_fpr) {
                let reason = "the trials are not calibrated for it: add it to `base.calibration.target_fpr`";
                return Err(ConfigError::new("target_fpr", self.target_fpr, reason));
            }
        }
        Ok(())
    }

    /// The training configuration of a setting.
    ///
    /// # Errors
    /// The key that does not exist, or that the configuration refuses.
    pub fn configured(&self, settings: &Settings) -> Result<TrainConfig, ConfigError> {
        space::configured(&self.base, settings)
    }

    /// The settings of all trials, by number.
    pub fn settings(&self) -> Vec<Settings> {
        match self.search {
            Search::Grid => space::grid(&self.space),
            Search::Random | Search::Halving => space::draws(&self.space, self.trials, &mut stream(self.seed, "sweep")),
        }
    }

    /// What is to be said of a winner that the last round did not judge; `None` where it did.
    pub fn early(&self, standings: &[Standing]) -> Option<String> {
        let (best, last) = (standings.first()?, self.shares().len());
        let round = best.round as usize + 1;
        (best.value.is_some() && round < last).then(|| {
            let updates = best.updates;
            format!(
                "No setting was judged in round {last}: the best of round {round} wins, by {updates} updates a trial."
            )
        })
    }

    /// Rounds, and the share of the gradient steps that trials have in each.
    fn shares(&self) -> Vec<f64> {
        match self.search {
            Search::Grid | Search::Random => vec![1.0],
            Search::Halving => (0..self.rounds).rev().map(|left| (self.keep as f64).powi(-(left as i32))).collect(),
        }
    }
}
