//! The training loop on recordings: fold networks that judge each other's episodes, and the network that is released.

use bellwether_env_adapter::ACTION_COUNT;
use bellwether_replay::EpisodeSampler;
use rayon::prelude::*;

use super::answers::AnswerModel;
use super::member::{Judges, Member, MemberState, Rates};
use super::playback::{Learnt, Policy};
use super::predictions::{Predicts, play_predicting};
use super::recordings::Recordings;
use super::{TrainingError, folds_of};
use crate::config::TrainConfig;
use crate::evaluate::summarise;
use crate::evaluate::values::first_overestimation;
use crate::learner::LearnerChoice;
use crate::learner::fused::Isa;
use crate::metrics::{UpdateMetrics, Validation};
use crate::network::NetworkShape;
use crate::streams::stream;

/// Name of the network that learns from all folds.
pub const RELEASED: &str = "released";

/// A training run between two rounds. A round is `trainer.target_update_interval` updates of every network, after which the
/// averages of the fold networks become the judges of the next round.
pub struct Training<'a> {
    config: &'a TrainConfig,
    model: AnswerModel<'a>,
    folds: Vec<u32>,
    episodes: Vec<u32>,
    /// One per fold, then the released one.
    members: Vec<Member>,
    judges: Vec<Vec<f32>>,
    updates: u64,
    isa: Isa,
    pool: rayon::ThreadPool,
}

impl<'a> Training<'a> {
    /// A fresh run on these episodes of the recordings. The instruction set is that of all that is computed beside the learners.
    ///
    /// # Errors
    /// If a class is missing, if there are fewer groups than folds, or if the learner cannot run here.
    pub fn new(
        recordings: &'a Recordings,
        episodes: &[u32],
        config: &'a TrainConfig,
        isa: Isa,
        learner: LearnerChoice,
    ) -> Result<Self, TrainingError> {
        let episodes: Vec<u32> =
            episodes.iter().copied().filter(|episode| recordings.store().episode(*episode).len > 0).collect();
        let folds = folds_of(recordings, &episodes, config.calibration.folds, config.seed)?;
        let shape = config.network.shape(recordings.width(), ACTION_COUNT)?;
        let members = (0..=config.calibration.folds as u32)
            .map(|k| {
                let seen = episodes.iter().copied().filter(|episode| folds[*episode as usize] != k);
                member(recordings, config, (isa, learner), &shape, k, seen)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let threads = match config.trainer.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.min(members.len()))
            .build()
            .map_err(|error| TrainingError::Threads(error.to_string()))?;
        let model = AnswerModel::new(recordings, &config.reward, config.trainer.isolation);
        let judges = judges_of(&members);
        Ok(Training { config, model, folds, episodes, members, judges, updates: 0, isa, pool })
    }

    /// Gradient steps that each network has taken.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Whether all steps are done.
    pub fn is_finished(&self) -> bool {
        self.updates >= self.config.trainer.updates
    }

    /// Runs one round, and gives what is to be logged, by update and then by network.
    ///
    /// # Errors
    /// On divergence, with the network and the update; the run is then at an end.
    pub fn round(&mut self) -> Result<Vec<UpdateMetrics>, TrainingError> {
        let trainer = &self.config.trainer;
        let steps = trainer.target_update_interval.min(trainer.updates.saturating_sub(self.updates));
        let range = self.updates + 1..self.updates + 1 + steps;
        let validates = trainer.validates(self.updates, self.updates + steps);
        let judges = Judges { parameters: &self.judges, folds: &self.folds };
        let (model, config) = (&self.model, self.config);
        let members = &mut self.members;
        let run =
            |member: &mut Member| {
                let mut lines = Vec::new();
                for update in range.clone() {
                    let rates = Rates::of(config, update);
                    let report = member.update(model, &judges, config, rates).map_err(|error| {
                        TrainingError::Update { network: member.name.clone(), update, source: Box::new(error) }
                    })?;
                    // The last update is always told, so that a short run says something too.
                    let is_told = update % trainer.metrics_interval == 0 || update == trainer.updates;
                    if is_told || validates && update + 1 == range.end {
                        lines.push(UpdateMetrics {
                            network: member.name.clone(),
                            update,
                            loss: report.loss,
                            mean_q: report.mean_q,
                            mean_target: report.mean_target,
                            max_error: report.max_error,
                            gradient_norm: report.gradient_norm,
                            learning_rate: rates.learning,
                            validation: None,
                        });
                    }
                }
                Ok(lines)
            };
        let lines: Result<Vec<Vec<UpdateMetrics>>, TrainingError> =
            self.pool.install(|| members.par_iter_mut().map(run).collect());
        let mut lines: Vec<UpdateMetrics> = lines?.into_iter().flatten().collect();
        lines.sort_by_key(|line| line.update);
        self.updates += steps;
        self.judges = judges_of(&self.members);
        Ok(lines)
    }

    /// Plays the average of each fold network on the episodes that it has not seen, at the cost in the middle of the range, by
    /// the network's name.
    ///
    /// # Errors
    /// If the states cannot be read.
    pub fn validate(&self) -> Result<Vec<(&str, Validation)>, TrainingError> {
        let config = self.config;
        let shape = config.network.shape(self.model.recordings().width(), ACTION_COUNT)?;
        let (z, predicts) = (config.cost.z_at(0.5), Predicts::of_recordings(config));
        let mut all = Vec::new();
        for (member, (episodes, parameters)) in self.members.iter().zip(self.blind()) {
            let policy = Policy::from(Learnt { shape: &shape, parameters, isa: self.isa });
            let model = &self.model;
            let played = self.pool.install(|| play_predicting(model, policy, &episodes, z, predicts));
            let (outcomes, decisions) = played?;
            let mean_return = summarise(&outcomes).metrics.mean_return;
            let overestimation = first_overestimation(&decisions, predicts.drawn);
            if let (Some(mean_return), Some(overestimation)) = (mean_return, overestimation) {
                let (mean_return, overestimation) = (mean_return as f32, overestimation as f32);
                let validation = Validation { episodes: outcomes.len() as u64, mean_return, overestimation };
                all.push((member.name.as_str(), validation));
            }
        }
        Ok(all)
    }

    /// The configuration of the run.
    pub fn config(&self) -> &'a TrainConfig {
        self.config
    }

    /// The decision process that is learnt from.
    pub fn model(&self) -> &AnswerModel<'a> {
        &self.model
    }

    /// The threads of the run.
    pub fn pool(&self) -> &rayon::ThreadPool {
        &self.pool
    }

    /// Each fold's episodes with the parameters of the network that has not seen them.
    pub fn blind(&self) -> impl Iterator<Item = (Vec<u32>, &[f32])> {
        (0_u32..).zip(&self.judges).map(|(k, parameters)| {
            let blind = self.episodes.iter().copied().filter(|episode| self.folds[*episode as usize] == k);
            (blind.collect(), parameters.as_slice())
        })
    }

    /// Parameters of the network that is released: the average of the one that learns from all folds.
    pub fn released(&self) -> &[f32] {
        self.members.last().map_or(&[], Member::target)
    }

    /// The state of every network, for a checkpoint.
    pub fn states(&self) -> Vec<MemberState> {
        self.members.iter().map(Member::state).collect()
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// If it belongs to another run.
    pub fn restore(&mut self, updates: u64, states: &[MemberState]) -> Result<(), TrainingError> {
        if states.len() != self.members.len() {
            return Err(TrainingError::Checkpoint(format!(
                "it holds {} networks where the configuration makes {}",
                states.len(),
                self.members.len()
            )));
        }
        for (member, state) in self.members.iter_mut().zip(states) {
            member.restore(state)?;
        }
        self.updates = updates;
        self.judges = judges_of(&self.members);
        Ok(())
    }
}

/// The network of fold `k`, or the released one after the last fold.
fn member(
    recordings: &Recordings,
    config: &TrainConfig,
    (isa, learner): (Isa, LearnerChoice),
    shape: &NetworkShape,
    k: u32,
    seen: impl Iterator<Item = u32>,
) -> Result<Member, TrainingError> {
    let name = if k as usize == config.calibration.folds { RELEASED.to_owned() } else { format!("fold-{}", k + 1) };
    let parameters = shape.initial_parameters(&mut stream(config.seed, &format!("init {name}")));
    let learner = learner.make(shape.clone(), &parameters)?;
    let sampler = EpisodeSampler::new(recordings.store(), seen, None)?;
    Member::new(name, config.seed, learner, sampler, isa)
}

/// The averages of the fold networks.
fn judges_of(members: &[Member]) -> Vec<Vec<f32>> {
    members[..members.len() - 1].iter().map(|member| member.target().to_vec()).collect()
}

impl Rates {
    /// The rates of an update, from 1. The step size is a cosine from the configured value to a tenth of it; the average of
    /// the target network reaches over a fifth of the updates so far until it is as long as configured.
    fn of(config: &TrainConfig, update: u64) -> Rates {
        let progress = update as f64 / config.trainer.updates as f64;
        let share = 0.1 + 0.9 * 0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress));
        let early = 1.0 / (1.0 + update as f32 / 5.0);
        Rates {
            learning: (f64::from(config.trainer.learning_rate) * share) as f32,
            target: config.trainer.tau.max(early),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_go_from_the_first_update_to_what_is_configured() {
        let config = TrainConfig::default();
        let (first, last) = (Rates::of(&config, 1), Rates::of(&config, config.trainer.updates));
        assert!((first.learning - config.trainer.learning_rate).abs() < 1e-3 * config.trainer.learning_rate);
        assert!((last.learning - 0.1 * config.trainer.learning_rate).abs() < 1e-3 * config.trainer.learning_rate);
        assert!(first.target > 0.8, "an early average would be one of first values: {first:?}");
        assert_eq!(last.target, config.trainer.tau);
        let targets: Vec<f32> = (1..=config.trainer.updates).map(|update| Rates::of(&config, update).target).collect();
        assert!(targets.is_sorted_by(|a, b| a >= b));
    }
}
