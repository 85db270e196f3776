//! The loop: draw what was played, let the imitator learn and rule out, update, let the target follow.

use super::config::{Algorithm, OfflineConfig};
use super::imitator::Imitator;
use super::steps::Steps;
use crate::config::ConfigError;
use crate::dqn::{DqnError, DrawConfig, UpdateConfig, Updater};
use crate::greedy::greedy;
use crate::learner::{Learner, LearnerChoice, TargetSync, UpdateReport};
use crate::metrics::UpdateMetrics;
use crate::network::NetworkShape;
use crate::streams::stream;
use bellwether_replay::StateRows;

/// Name of the network that learns in metrics.
pub const POLICY: &str = "policy";

/// A run on played steps: what was played, and the learner.
pub struct OfflineTrainer {
    pub(super) config: OfflineConfig,
    pub(super) learner: Box<dyn Learner>,
    pub(super) imitator: Option<Imitator>,
    pub(super) steps: Steps,
    pub(super) updater: Updater,
}

/// What a policy that was learned makes of some states; kept by the caller and filled again and again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// Q-values, or logits of a cloned policy, row-major.
    pub q_values: Vec<f32>,
    /// Actions that the policy chooses from, row-major: the allowed ones, without those that BCQ rules out.
    pub masks: Vec<bool>,
}

impl OfflineTrainer {
    /// A run with the learner that was chosen on what a buffer of [`OfflineConfig::buffer`] holds, or on the steps of
    /// [`OfflineConfig::streamed`].
    ///
    /// # Errors
    /// On a bad configuration, and on a buffer of other priorities or without a step that can be drawn.
    pub fn new(
        config: OfflineConfig,
        steps: impl Into<Steps>,
        learner: impl Into<LearnerChoice>,
    ) -> Result<Self, DqnError> {
        config.validate()?;
        let steps = steps.into();
        if steps.buffer().priority_config() != config.update.priorities().as_ref() {
            return Err(bellwether_replay::ReplayError::Setting {
                key: "draw",
                value: format!("{:?}", config.update.draw),
                reason: "the buffer has other priorities; make it with `OfflineConfig::buffer`",
            }
            .into());
        }
        if steps.transitions() == 0 {
            let reason = "no step of the episodes has a known successor; play some further";
            return Err(bellwether_replay::ReplayError::Empty { reason: reason.into() }.into());
        }
        if config.algorithm == Algorithm::Dqn {
            require_played(&steps)?;
        }
        let (width, actions) = (steps.buffer().config().width, steps.buffer().config().actions as usize);
        let shape = config.network.shape(width, actions)?;
        let parameters = shape.initial_parameters(&mut stream(config.seed, "init"));
        let spec = config.spec(&shape);
        let choice = learner.into();
        let learner = choice.make(shape, &parameters)?;
        learner.supports(&spec)?;
        let imitator = match config.algorithm {
            Algorithm::Bcq => Some(Imitator::new(&config, (width, actions), choice)?),
            Algorithm::Dqn | Algorithm::Cql | Algorithm::Cloning => None,
        };
        let updater = Updater::new(config.update.clone(), spec, config.seed);
        Ok(OfflineTrainer { config, learner, imitator, steps, updater })
    }

    /// Gradient steps so far.
    pub fn updates(&self) -> u64 {
        self.updater.updates()
    }

    /// Whether all steps are done.
    pub fn is_finished(&self) -> bool {
        self.updates() >= self.config.updates
    }

    /// The learner, for export.
    pub fn learner(&mut self) -> &mut dyn Learner {
        self.learner.as_mut()
    }

    /// What is learned from.
    pub fn steps(&self) -> &Steps {
        &self.steps
    }

    /// The configuration of the run.
    pub fn config(&self) -> &OfflineConfig {
        &self.config
    }

    /// Updates until the next record is due, and gives it: one line for the network, and one for the cloned policy of BCQ.
    ///
    /// # Errors
    /// On divergence, and on streamed steps that cannot be read any more; the run is then at an end.
    pub fn round(&mut self) -> Result<Vec<UpdateMetrics>, DqnError> {
        let target = self.config.target_schedule();
        let actions = self.learner.shape().actions();
        let mut lines = Vec::new();
        while lines.is_empty() && !self.is_finished() {
            let learning_rate = self.config.update.learning_rate_at(self.updates());
            self.steps.advance(&self.config, self.updater.updates())?;
            let drawn = self.updater.draw(self.steps.buffer(), actions)?;
            let cloned = match &mut self.imitator {
                Some(imitator) => Some(imitator.update(self.steps.buffer(), drawn, learning_rate)?),
                None => None,
            };
            let report = self.updater.update(self.learner.as_mut(), self.steps.buffer_mut())?;
            let update = self.updates();
            let sync = target.after(update);
            if sync != TargetSync::Keep {
                self.learner.sync_target(sync)?;
            }
            if update.is_multiple_of(self.config.metrics_interval) || self.is_finished() {
                lines.push(line(POLICY, update, &report, learning_rate));
                lines.extend(cloned.map(|report| line("imitator", update, &report, learning_rate)));
            }
        }
        Ok(lines)
    }

    /// What the policy makes of these states, of which `masks` says what is allowed.
    ///
    /// # Errors
    /// On wrong shapes.
    pub fn judge(&mut self, states: &dyn StateRows, masks: &[bool], out: &mut Judged) -> Result<(), DqnError> {
        self.learner.q_values(states, &[], &mut out.q_values)?;
        out.masks.clear();
        out.masks.extend_from_slice(masks);
        match &mut self.imitator {
            Some(imitator) => imitator.rule_out(states, &mut out.masks),
            None => Ok(()),
        }
    }
}

impl OfflineTrainer {
    /// The network that is released, and its parameters: that of the q-values or logits. The two networks of BCQ make one
    /// policy, and this is a third one that clones it, trained by as many updates on the same states.
    ///
    /// # Errors
    /// On divergence.
    pub fn release(&mut self) -> Result<(NetworkShape, Vec<f32>), DqnError> {
        let OfflineTrainer { config, learner, imitator, steps, .. } = self;
        let Some(imitator) = imitator else {
            return Ok((learner.shape().clone(), learner.parameters().to_vec()));
        };
        let update = UpdateConfig { draw: DrawConfig::Uniform, ..config.update.clone() };
        let (mut clone, spec) = imitator.copy()?;
        let actions = learner.shape().actions();
        let mut updater = Updater::new(update, spec, config.seed);
        let (mut q, mut masks) = (Vec::new(), Vec::new());
        for update in 0..config.updates {
            steps.advance(config, config.updates + update)?;
            let drawn = updater.draw(steps.buffer(), actions)?;
            let states = drawn.states(steps.buffer());
            learner.q_values(&states, &[], &mut q)?;
            masks.clear();
            masks.extend_from_slice(drawn.masks());
            imitator.rule_out(&states, &mut masks)?;
            let rows = q.chunks_exact(actions).zip(masks.chunks_exact(actions));
            drawn.relabel(rows.map(|(q, mask)| greedy(q, mask).unwrap_or(0) as u32));
            updater.update(clone.as_mut(), steps.buffer_mut())?;
        }
        Ok((clone.shape().clone(), clone.parameters().to_vec()))
    }
}

/// Refuses steps in which an action was allowed and never played: DQN would make its value up, and targets take the largest.
fn require_played(steps: &Steps) -> Result<(), DqnError> {
    let (allowed, played) = steps.actions()?;
    match (0..steps.buffer().config().actions).find(|action| allowed.allows(*action) && !played.allows(*action)) {
        None => Ok(()),
        Some(action) => {
            let reason = format!(
                "action {action} was allowed and never played, so its value would be made up: choose `cql`, `bcq` or `cloning`, or give \
                 steps in which it was played"
            );
            Err(ConfigError { key: "algorithm".to_owned(), value: "dqn".to_owned(), reason }.into())
        }
    }
}

fn line(network: &str, update: u64, report: &UpdateReport, learning_rate: f32) -> UpdateMetrics {
    UpdateMetrics {
        network: network.to_owned(),
        update,
        loss: report.loss,
        mean_q: report.mean_q,
        mean_target: report.mean_target,
        max_error: report.max_error,
        gradient_norm: report.gradient_norm,
        learning_rate,
        validation: None,
    }
}
