//! The settings of a DQN run.

use super::DqnError;
use crate::learner::{LearnerError, Loss, Munchausen, TargetSync, UpdateSpec};
use crate::network::{NetworkConfig, NetworkShape, Returns};
use crate::schedule::{Linear, StepSizeSchedule, TargetSchedule};
use bellwether_replay::{Draw, PriorityConfig};
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
    /// The form of the temporal-difference error.
    pub loss: LossConfig,
    /// Share of the observation's elements that is dropped in an update.
    pub input_dropout: f64,
    /// Share of each hidden layer that is dropped in an update.
    pub hidden_dropout: f64,
    /// Transitions per update.
    pub batch_size: usize,
    /// How transitions are drawn from the replay buffer.
    pub draw: DrawConfig,
    /// Steps that the replay buffer holds.
    pub buffer_capacity: usize,
    /// Environment steps before the first update; until then actions are random.
    pub learning_starts: u64,
    /// Environment steps between two rounds of updates.
    pub train_interval: u64,
    /// Updates per round.
    pub gradient_steps: u32,
    /// Discount per environment step, 0 to 1.
    pub gamma: f64,
    /// Rewards that a target sums before it bootstraps.
    pub n_step: u32,
    /// Double DQN: the online network chooses the successor's action, the target network values it.
    pub double: bool,
    /// Munchausen's reward and soft target; excludes `double`.
    pub munchausen: Option<MunchausenConfig>,
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

impl Default for DqnConfig {
    fn default() -> Self {
        DqnConfig {
            seed: 0,
            total_steps: 100_000,
            network: NetworkConfig::default(),
            learning_rate: 1e-4,
            learning_rate_schedule: StepSizeSchedule::default(),
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            adam_epsilon: 1e-8,
            max_gradient_norm: 10.0,
            loss: LossConfig::Huber(1.0),
            input_dropout: 0.0,
            hidden_dropout: 0.0,
            batch_size: 32,
            draw: DrawConfig::Uniform,
            buffer_capacity: 100_000,
            learning_starts: 1000,
            train_interval: 4,
            gradient_steps: 1,
            gamma: 0.99,
            n_step: 1,
            double: true,
            munchausen: None,
            target_update_interval: 1000,
            tau: 1.0,
            exploration_initial: 1.0,
            exploration_final: 0.05,
            exploration_steps: 10_000,
        }
    }
}

/// Largest batch.
pub const MAX_BATCH: usize = 1 << 16;

impl DqnConfig {
    /// The recipe of RL Baselines3 Zoo for CartPole-v1: plain DQN, 50,000 steps, bursts of updates.
    ///
    /// Its exploration falls over a share of 0.16 of the run, which is 8,000 steps.
    pub fn cart_pole() -> DqnConfig {
        DqnConfig {
            total_steps: 50_000,
            learning_rate: 2.3e-3,
            batch_size: 64,
            buffer_capacity: 100_000,
            learning_starts: 1000,
            gamma: 0.99,
            double: false,
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
            learning_rate: 6.3e-4,
            batch_size: 128,
            buffer_capacity: 50_000,
            learning_starts: 0,
            gamma: 0.99,
            double: false,
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
            learning_rate: 4e-3,
            batch_size: 128,
            buffer_capacity: 10_000,
            learning_starts: 1000,
            gamma: 0.98,
            double: false,
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
    /// [`DqnError::Config`] for the first of them.
    pub fn validate(&self) -> Result<(), DqnError> {
        fn check(key: &'static str, value: impl ToString, right: bool, reason: &'static str) -> Result<(), DqnError> {
            if right { Ok(()) } else { Err(DqnError::Config { key, value: value.to_string(), reason }) }
        }
        let positive = "choose a value of at least 1";
        let share = "choose a value from 0 to 1";
        let below_one = "choose a value from 0 to below 1";
        check("total_steps", self.total_steps, self.total_steps > 0, positive)?;
        let rate = self.learning_rate;
        check("learning_rate", rate, rate > 0.0 && rate <= 1.0, "choose a value above 0, at most 1")?;
        let decay = self.weight_decay;
        check(
            "weight_decay",
            decay,
            decay >= 0.0 && decay * rate <= 1.0,
            "choose a value from 0 to 1 / learning_rate",
        )?;
        for (key, value) in [
            ("beta1", self.beta1),
            ("beta2", self.beta2),
            ("input_dropout", self.input_dropout),
            ("hidden_dropout", self.hidden_dropout),
        ] {
            check(key, value, (0.0..1.0).contains(&value) && (value as f32) < 1.0, below_one)?;
        }
        let epsilon = self.adam_epsilon;
        check("adam_epsilon", epsilon, (1e-15..=1.0).contains(&epsilon), "choose a value from 1e-15 to 1")?;
        let norm = self.max_gradient_norm;
        let norm_fits = norm == 0.0 || (1e-30..1e30).contains(&norm);
        check("max_gradient_norm", norm, norm_fits, "choose 0 for no limit, or a positive norm")?;
        if let LossConfig::Huber(threshold) = self.loss {
            let fits = (1e-30..1e30).contains(&threshold);
            check("loss.huber", threshold, fits, "choose a positive, finite threshold")?;
        }
        let batch = self.batch_size;
        check("batch_size", batch, (1..=MAX_BATCH).contains(&batch), "choose a value from 1 to 65536")?;
        let capacity = self.buffer_capacity;
        check("buffer_capacity", capacity, (1..=1 << 31).contains(&capacity), "choose a value from 1 to 2^31")?;
        check("train_interval", self.train_interval, self.train_interval > 0, positive)?;
        check("gradient_steps", self.gradient_steps, self.gradient_steps > 0, positive)?;
        check("gamma", self.gamma, (0.0..=1.0).contains(&self.gamma), share)?;
        let n_step = self.n_step;
        check("n_step", n_step, (1..=1000).contains(&n_step), "choose a value from 1 to 1000")?;
        let n_step_fits = n_step as usize <= capacity;
        check("n_step", n_step, n_step_fits, "choose a value that fits into buffer_capacity")?;
        check("target_update_interval", self.target_update_interval, self.target_update_interval > 0, positive)?;
        check("tau", self.tau, self.tau > 0.0 && self.tau <= 1.0, "choose a value above 0, at most 1")?;
        check("exploration_initial", self.exploration_initial, (0.0..=1.0).contains(&self.exploration_initial), share)?;
        check("exploration_final", self.exploration_final, (0.0..=1.0).contains(&self.exploration_final), share)?;
        if let DrawConfig::Prioritised(draw) = self.draw {
            check("draw.prioritised.exponent", draw.exponent, (0.0..=1.0).contains(&draw.exponent), share)?;
            let bounds = draw.floor > 0.0 && draw.floor <= 1e6;
            check("draw.prioritised.floor", draw.floor, bounds, "choose a value above 0, at most a million")?;
            let correction = draw.correction_initial;
            let bounds = (0.0..=1.0).contains(&correction);
            check("draw.prioritised.correction_initial", correction, bounds, share)?;
        }
        if let Err((key, value, reason)) = self.learning_rate_schedule.check() {
            let key = match key {
                "final_share" => "learning_rate_schedule.final_share",
                _ => "learning_rate_schedule.decay_steps",
            };
            return Err(DqnError::Config { key, value, reason });
        }
        // What the network and the update refuse does not depend on the environment.
        let shape = self.network.shape(1, 1)?;
        self.update_spec(&shape).validate(&shape).map_err(|error| match error {
            LearnerError::Contradiction { what, reason } => {
                DqnError::Config { key: what, value: self.value_of(what), reason }
            }
            LearnerError::Setting { key, value, reason } => DqnError::Config { key, value: value.to_string(), reason },
            error => error.into(),
        })
    }

    /// The value of a setting as a configuration gives it.
    fn value_of(&self, key: &str) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        value.get(key).map_or_else(String::new, ToString::to_string)
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

    /// How transitions are drawn for an update, counted from 0.
    pub fn draw_at(&self, update: u64) -> Draw {
        match self.draw {
            DrawConfig::Uniform => Draw::Uniform,
            DrawConfig::Prioritised(PrioritisedConfig { correction_initial, correction_steps, .. }) => {
                let line = Linear { initial: correction_initial, final_value: 1.0, steps: correction_steps };
                Draw::Prioritised { correction: line.at(update) }
            }
        }
    }

    /// The probability of a random action, by environment step.
    pub fn epsilon(&self) -> Linear {
        Linear { initial: self.exploration_initial, final_value: self.exploration_final, steps: self.exploration_steps }
    }

    /// When the target network follows, by environment step.
    pub fn target_schedule(&self) -> TargetSchedule {
        TargetSchedule { interval: self.target_update_interval, tau: self.tau as f32 }
    }

    /// What one update does. The target network follows between updates, by environment step.
    pub fn update_spec(&self, shape: &NetworkShape) -> UpdateSpec {
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
        let plain = DqnConfig { double: false, ..recipe };
        let double = DqnConfig { double: true, ..plain.clone() };
        let network = plain.network.clone();
        let [minimum, maximum] = returns;
        let categorical = Returns::Categorical { atoms: 51, minimum, maximum };
        let prioritised = DrawConfig::Prioritised(PrioritisedConfig::default());
        let quiet = DqnConfig { exploration_initial: 0.0, exploration_final: 0.0, ..double.clone() };
        let with = |network, config: DqnConfig| DqnConfig { network, ..config };
        match self {
            Variant::Dqn => plain,
            Variant::Double => double,
            Variant::Dueling => with(NetworkConfig { dueling: true, ..network }, double),
            Variant::MultiStep => DqnConfig { n_step: 3, ..double },
            Variant::Prioritised => DqnConfig { draw: prioritised, ..double },
            Variant::Categorical => {
                let network = NetworkConfig { returns: categorical, ..network };
                with(network, DqnConfig { loss: LossConfig::CrossEntropy, ..plain })
            }
            Variant::Quantiles => with(NetworkConfig { returns: Returns::Quantiles(51), ..network }, plain),
            Variant::Noisy => {
                let noisy_layers = network.hidden.len() + 1;
                with(NetworkConfig { noisy_layers, ..network }, quiet)
            }
            Variant::Munchausen => DqnConfig { munchausen: Some(MunchausenConfig::default()), ..plain },
            Variant::Rainbow => {
                let noisy_layers = network.hidden.len() + 1;
                let network = NetworkConfig { dueling: true, noisy_layers, returns: categorical, ..network };
                let config = DqnConfig { n_step: 3, draw: prioritised, loss: LossConfig::CrossEntropy, ..quiet };
                with(network, config)
            }
        }
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
            config.update_spec(&shape).validate(&shape).unwrap();
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<DqnConfig>(&text).unwrap(), config);
        }
    }

    #[test]
    fn a_bad_value_is_refused_by_its_key() {
        type Change = fn(&mut DqnConfig);
        let cases: [(&str, Change); 26] = [
            ("total_steps", |c| c.total_steps = 0),
            ("learning_rate", |c| c.learning_rate = f64::NAN),
            ("weight_decay", |c| c.weight_decay = -1.0),
            ("beta1", |c| c.beta1 = 1.0),
            ("hidden_dropout", |c| c.hidden_dropout = 0.999_999_999_999),
            ("adam_epsilon", |c| c.adam_epsilon = 0.0),
            ("max_gradient_norm", |c| c.max_gradient_norm = -1.0),
            ("loss.huber", |c| c.loss = LossConfig::Huber(0.0)),
            ("batch_size", |c| c.batch_size = 0),
            ("buffer_capacity", |c| c.buffer_capacity = 0),
            ("train_interval", |c| c.train_interval = 0),
            ("gradient_steps", |c| c.gradient_steps = 0),
            ("gamma", |c| c.gamma = 1.01),
            ("n_step", |c| c.n_step = 0),
            ("tau", |c| c.tau = 0.0),
            ("exploration_final", |c| c.exploration_final = -0.1),
            ("learning_rate_schedule.decay_steps", |c| c.learning_rate_schedule.decay = Decay::Linear),
            ("learning_rate_schedule.final_share", |c| c.learning_rate_schedule.final_share = 2.0),
            ("draw.prioritised.exponent", |c| {
                c.draw = DrawConfig::Prioritised(PrioritisedConfig { exponent: -0.1, ..Default::default() });
            }),
            ("draw.prioritised.correction_initial", |c| {
                c.draw = DrawConfig::Prioritised(PrioritisedConfig { correction_initial: 1.1, ..Default::default() });
            }),
            ("munchausen", |c| c.munchausen = Some(MunchausenConfig::default())),
            ("munchausen.temperature", |c| {
                c.double = false;
                c.munchausen = Some(MunchausenConfig { temperature: 0.0, ..Default::default() });
            }),
            ("loss", |c| c.loss = LossConfig::CrossEntropy),
            ("loss", |c| c.network.returns = Returns::Categorical { atoms: 51, minimum: 0.0, maximum: 1.0 }),
            ("loss", |c| (c.network.returns, c.loss) = (Returns::Quantiles(8), LossConfig::Mse)),
            ("draw.prioritised.floor", |c| {
                c.draw = DrawConfig::Prioritised(PrioritisedConfig { floor: f64::NAN, ..Default::default() });
            }),
        ];
        for (key, change) in cases {
            let mut config = DqnConfig::default();
            change(&mut config);
            match config.validate() {
                Err(DqnError::Config { key: refused, .. }) => assert_eq!(refused, key),
                other => panic!("{key}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = serde_json::from_str::<DqnConfig>(r#"{"learning_rat":0.1}"#).unwrap_err();
        assert!(error.to_string().contains("learning_rat"), "{error}");
    }
}
