//! The settings of a DQN run.

use super::DqnError;
use super::update::{
    DrawConfig, LossConfig, MunchausenConfig, POSITIVE, PrioritisedConfig, SHARE, UpdateConfig, require,
};
use crate::network::{NetworkConfig, Returns};
use crate::schedule::{Linear, TargetSchedule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// All settings of a DQN run. The defaults suit small control tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DqnConfig {
    /// Master seed; each purpose derives its own stream from it.
    pub seed: u64,
    /// Environment steps of the run, all environments together.
    pub total_steps: u64,
    /// The Q-network.
    pub network: NetworkConfig,
    /// The updates.
    pub update: UpdateConfig,
    /// Steps that the replay buffer holds.
    pub buffer_capacity: usize,
    /// Environment steps before the first update; until then actions are random.
    pub learning_starts: u64,
    /// Environment steps between two rounds of updates.
    pub train_interval: u64,
    /// Updates per round.
    pub gradient_steps: u32,
    /// Environment steps between two synchronisations of the target network.
    pub target_update_interval: u64,
    /// How far the target network moves at each synchronisation: 1 copies the online network.
    pub tau: f64,
    /// Probability of a random action at the first step.
    pub exploration_initial: f64,
    /// Probability of a random action after `exploration_steps`.
    pub exploration_final: f64,
    /// Environment steps over which the probability of a random action falls in a straight line.
    pub exploration_steps: u64,
}

impl Default for DqnConfig {
    fn default() -> Self {
        DqnConfig {
            seed: 0,
            total_steps: 100_000,
            network: NetworkConfig::default(),
            update: UpdateConfig::default(),
            buffer_capacity: 100_000,
            learning_starts: 1000,
            train_interval: 4,
            gradient_steps: 1,
            target_update_interval: 1000,
            tau: 1.0,
            exploration_initial: 1.0,
            exploration_final: 0.05,
            exploration_steps: 10_000,
        }
    }
}

impl DqnConfig {
    /// The recipe of RL Baselines3 Zoo for CartPole-v1: plain DQN, 50,000 steps, bursts of updates.
    ///
    /// Its exploration falls over a share of 0.16 of the run, which is 8,000 steps.
    pub fn cart_pole() -> DqnConfig {
        DqnConfig {
            total_steps: 50_000,
            update: plain(2.3e-3, 64, 0.99),
            buffer_capacity: 100_000,
            learning_starts: 1000,
            target_update_interval: 10,
            train_interval: 256,
            gradient_steps: 128,
            exploration_final: 0.04,
            exploration_steps: 8000,
            ..DqnConfig::default()
        }
    }

    /// The recipe of RL Baselines3 Zoo for Acrobot-v1, which is its recipe for the lunar lander too: 100,000 steps, an update for each.
    ///
    /// Its exploration falls over a share of 0.12 of the run, which is 12,000 steps.
    pub fn acrobot() -> DqnConfig {
        DqnConfig {
            total_steps: 100_000,
            update: plain(6.3e-4, 128, 0.99),
            buffer_capacity: 50_000,
            learning_starts: 0,
            target_update_interval: 250,
            train_interval: 4,
            gradient_steps: 4,
            exploration_final: 0.1,
            exploration_steps: 12_000,
            ..DqnConfig::default()
        }
    }

    /// The recipe of RL Baselines3 Zoo for MountainCar-v0: 120,000 steps, bursts of updates.
    ///
    /// Its exploration falls over a share of 0.2 of the run, which is 24,000 steps.
    pub fn mountain_car() -> DqnConfig {
        DqnConfig {
            total_steps: 120_000,
            update: plain(4e-3, 128, 0.98),
            buffer_capacity: 10_000,
            learning_starts: 1000,
            target_update_interval: 600,
            train_interval: 16,
            gradient_steps: 8,
            exploration_final: 0.07,
            exploration_steps: 24_000,
            ..DqnConfig::default()
        }
    }

    /// Refuses settings that are out of range, with the key, the value and the reason.
    ///
    /// # Errors
    /// [`DqnError::Config`] for the first of them, [`DqnError::Network`] for those of the network.
    pub fn validate(&self) -> Result<(), DqnError> {
        require("total_steps", self.total_steps, self.total_steps > 0, POSITIVE)?;
        // What is refused of an update does not depend on the environment.
        self.update.validate(&self.network.shape(1, 1)?)?;
        let capacity = self.buffer_capacity;
        require("buffer_capacity", capacity, (1..=1 << 31).contains(&capacity), "choose a value from 1 to 2^31")?;
        let fits = self.update.batch_size <= capacity;
        require("update.batch_size", self.update.batch_size, fits, "choose a value that fits into buffer_capacity")?;
        let fits = self.update.n_step as usize <= capacity;
        require("update.n_step", self.update.n_step, fits, "choose a value that fits into buffer_capacity")?;
        require("train_interval", self.train_interval, self.train_interval > 0, POSITIVE)?;
        require("gradient_steps", self.gradient_steps, self.gradient_steps > 0, POSITIVE)?;
        require("target_update_interval", self.target_update_interval, self.target_update_interval > 0, POSITIVE)?;
        require("tau", self.tau, self.tau > 0.0 && self.tau <= 1.0, "choose a value above 0, at most 1")?;
        let (initial, last) = (self.exploration_initial, self.exploration_final);
        require("exploration_initial", initial, (0.0..=1.0).contains(&initial), SHARE)?;
        require("exploration_final", last, (0.0..=1.0).contains(&last), SHARE)?;
        require("exploration_final", last, last <= initial, "choose a value of at most exploration_initial")?;
        Ok(())
    }

    /// The probability of a random action, by environment step.
    pub fn epsilon(&self) -> Linear {
        Linear { initial: self.exploration_initial, final_value: self.exploration_final, steps: self.exploration_steps }
    }

    /// When the target network follows, by environment step.
    pub fn target_schedule(&self) -> TargetSchedule {
        TargetSchedule { interval: self.target_update_interval, tau: self.tau as f32 }
    }
}

/// The updates of a plain recipe.
fn plain(learning_rate: f64, batch_size: usize, gamma: f64) -> UpdateConfig {
    UpdateConfig { learning_rate, batch_size, gamma, double: false, ..UpdateConfig::default() }
}

/// Published variants of DQN, each a change of a plain recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// The plain algorithm (Mnih et al. 2015).
    Dqn,
    /// Double DQN (van Hasselt et al. 2016).
    Double,
    /// Dueling head, with Double DQN as in its paper (Wang et al. 2016).
    Dueling,
    /// Returns of three steps, with Double DQN.
    MultiStep,
    /// Prioritised replay, with Double DQN as in its paper (Schaul et al. 2016).
    Prioritised,
    /// Categorical returns (C51, Bellemare et al. 2017).
    Categorical,
    /// Quantiles of the return (QR-DQN, Dabney et al. 2018).
    Quantiles,
    /// Noisy layers in the place of random actions, with Double DQN (Fortunato et al. 2018).
    Noisy,
    /// Munchausen's reward and soft target (Vieillard et al. 2020).
    Munchausen,
    /// All of the above but the last two forms of returns and of the target: Double DQN, dueling head, three steps, prioritised
    /// replay, noisy layers and categorical returns (Rainbow, Hessel et al. 2018).
    Rainbow,
}

impl Variant {
    /// All, the plain one first.
    pub const ALL: [Variant; 10] = [
        Variant::Dqn,
        Variant::Double,
        Variant::Dueling,
        Variant::MultiStep,
        Variant::Prioritised,
        Variant::Categorical,
        Variant::Quantiles,
        Variant::Noisy,
        Variant::Munchausen,
        Variant::Rainbow,
    ];

    /// The variant of a recipe. Categorical returns span `returns`, the discounted returns that the environment can give.
    pub fn of(self, recipe: DqnConfig, returns: [f32; 2]) -> DqnConfig {
        use Variant::{Categorical, Dqn, Dueling, MultiStep, Munchausen, Noisy, Prioritised, Quantiles, Rainbow};
        let mut config = recipe;
        let (network, update) = (&mut config.network, &mut config.update);
        update.double = !matches!(self, Dqn | Categorical | Quantiles | Munchausen);
        network.dueling = matches!(self, Dueling | Rainbow);
        if matches!(self, MultiStep | Rainbow) {
            update.n_step = 3;
        }
        if matches!(self, Prioritised | Rainbow) {
            update.draw = DrawConfig::Prioritised(PrioritisedConfig::default());
        }
        if matches!(self, Categorical | Rainbow) {
            let [minimum, maximum] = returns;
            network.returns = Returns::Categorical { atoms: 51, minimum, maximum };
            update.loss = LossConfig::CrossEntropy;
        }
        if matches!(self, Noisy | Rainbow) {
            network.noisy_layers = network.hidden.len() + 1;
            (config.exploration_initial, config.exploration_final) = (0.0, 0.0);
        }
        if self == Quantiles {
            network.returns = Returns::Quantiles(51);
        }
        if self == Munchausen {
            update.munchausen = Some(MunchausenConfig::default());
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Decay;

    #[test]
    fn the_defaults_and_the_recipes_are_valid() {
        let named = Variant::ALL.into_iter().map(|variant| variant.of(DqnConfig::cart_pole(), [0.0, 100.0]));
        for config in [DqnConfig::default(), DqnConfig::cart_pole(), DqnConfig::acrobot(), DqnConfig::mountain_car()]
            .into_iter()
            .chain(named)
        {
            config.validate().unwrap();
            let shape = config.network.shape(4, 2).unwrap();
            config.update.spec(&shape).validate(&shape).unwrap();
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<DqnConfig>(&text).unwrap(), config);
        }
    }

    #[test]
    fn a_bad_value_is_refused_by_its_key() {
        type Change = fn(&mut DqnConfig);
        let cases: [(&str, Change); 28] = [
            ("total_steps", |c| c.total_steps = 0),
            ("update.learning_rate", |c| c.update.learning_rate = f64::NAN),
            ("update.weight_decay", |c| c.update.weight_decay = -1.0),
            ("update.beta1", |c| c.update.beta1 = 1.0),
            ("update.hidden_dropout", |c| c.update.hidden_dropout = 0.999_999_999_999),
            ("update.adam_epsilon", |c| c.update.adam_epsilon = 0.0),
            ("update.max_gradient_norm", |c| c.update.max_gradient_norm = -1.0),
            ("update.loss.huber", |c| c.update.loss = LossConfig::Huber(0.0)),
            ("update.batch_size", |c| c.update.batch_size = 0),
            ("buffer_capacity", |c| c.buffer_capacity = 0),
            ("update.batch_size", |c| c.buffer_capacity = 31),
            ("train_interval", |c| c.train_interval = 0),
            ("exploration_final", |c| (c.exploration_initial, c.exploration_final) = (0.1, 0.2)),
            ("gradient_steps", |c| c.gradient_steps = 0),
            ("update.gamma", |c| c.update.gamma = 1.01),
            ("update.n_step", |c| c.update.n_step = 0),
            ("tau", |c| c.tau = 0.0),
            ("exploration_final", |c| c.exploration_final = -0.1),
            ("update.learning_rate_schedule.decay_steps", |c| c.update.learning_rate_schedule.decay = Decay::Linear),
            ("update.learning_rate_schedule.final_share", |c| c.update.learning_rate_schedule.final_share = 2.0),
            ("update.draw.prioritised.exponent", |c| {
                c.update.draw = DrawConfig::Prioritised(PrioritisedConfig { exponent: -0.1, ..Default::default() });
            }),
            ("update.draw.prioritised.correction_initial", |c| {
                c.update.draw =
                    DrawConfig::Prioritised(PrioritisedConfig { correction_initial: 1.1, ..Default::default() });
            }),
            ("update.munchausen", |c| c.update.munchausen = Some(MunchausenConfig::default())),
            ("update.munchausen.temperature", |c| {
                c.update.double = false;
                c.update.munchausen = Some(MunchausenConfig { temperature: 0.0, ..Default::default() });
            }),
            ("update.loss", |c| c.update.loss = LossConfig::CrossEntropy),
            ("update.loss", |c| c.network.returns = Returns::Categorical { atoms: 51, minimum: 0.0, maximum: 1.0 }),
            ("update.loss", |c| (c.network.returns, c.update.loss) = (Returns::Quantiles(8), LossConfig::Mse)),
            ("update.draw.prioritised.floor", |c| {
                c.update.draw = DrawConfig::Prioritised(PrioritisedConfig { floor: f64::NAN, ..Default::default() });
            }),
        ];
        for (key, change) in cases {
            let mut config = DqnConfig::default();
            change(&mut config);
            match config.validate() {
                Err(DqnError::Config(refused)) => assert_eq!(refused.key, key),
                other => panic!("{key}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = serde_json::from_str::<DqnConfig>(r#"{"update":{"learning_rat":0.1}}"#).unwrap_err();
        assert!(error.to_string().contains("learning_rat"), "{error}");
    }
}
