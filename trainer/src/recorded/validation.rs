//! Grouped cross-validation of a configuration: every episode is played by a policy whose training, calibration included,
//! has seen neither its family nor an exact duplicate of it.

use bellwether_env_adapter::ACTION_COUNT;

use super::answers::AnswerModel;
use super::calibration::{calibrate, play_grid};
use super::playback::{Policy, play};
use super::recordings::Recordings;
use super::training::Training;
use super::{TrainingError, folds_of};
use crate::config::TrainConfig;
use crate::evaluate::{Bootstrap, Evaluation, OperatingPoint, Outcome, PolicyOutcomes};
use crate::learner::fused::Isa;
use crate::run::RunObserver;

/// Trains and calibrates once per fold on the other folds, and evaluates all held-out outcomes together.
///
/// The setting of an operating point differs from fold to fold; the report shows the first fold's.
///
/// # Errors
/// If training fails, or a class has fewer groups than folds.
pub fn cross_validate(
    recordings: &Recordings,
    config: &TrainConfig,
    folds: usize,
    isa: Isa,
    observer: &mut dyn RunObserver,
) -> Result<Evaluation, TrainingError> {
    let all: Vec<u32> = recordings.episodes().filter(|episode| recordings.store().episode(*episode).len > 0).collect();
    let fold_of = folds_of(recordings, &all, folds, config.seed)?;
    let shape = config.network.shape(recordings.width(), ACTION_COUNT)?;
    let model = AnswerModel::new(recordings, &config.reward, config.trainer.isolation);
    let mut operating: Vec<(OperatingPoint, Vec<Outcome>)> = Vec::new();
    let mut curve: Vec<(f32, Vec<Outcome>)> = config.cost.grid().map(|z| (z, Vec::new())).collect();
    for fold in 0..folds as u32 {
        observer.phase(&format!("fold {} of {folds}", fold + 1));
        let (held_out, known): (Vec<u32>, Vec<u32>) =
            all.iter().partition(|episode| fold_of[**episode as usize] == fold);
        let mut training = Training::new(recordings, &known, config, isa)?;
        while !training.is_finished() {
            let lines = training.round()?;
            observer.progress(training.updates(), config.trainer.updates, &lines);
        }
        let calibrated = calibrate(&training, &shape, config, isa)?;
        let policy = Policy { shape: &shape, parameters: training.released(), isa };
        if operating.is_empty() {
            operating = calibrated.operating_points.iter().map(|point| (*point, Vec::new())).collect();
        }
        for ((_, outcomes), point) in operating.iter_mut().zip(&calibrated.operating_points) {
            outcomes.extend(training.pool().install(|| play(&model, policy, &held_out, point.setting))?);
        }
        let played = training.pool().install(|| play_grid(&model, policy, &held_out, config))?;
        for ((_, outcomes), (_, more)) in curve.iter_mut().zip(played) {
            outcomes.extend(more);
        }
    }
    for outcomes in operating.iter_mut().map(|(_, o)| o).chain(curve.iter_mut().map(|(_, o)| o)) {
        outcomes.sort_by_key(|outcome| outcome.episode);
    }
    let bootstrap = Bootstrap { seed: config.seed, ..Bootstrap::default() };
    Ok(Evaluation::build(&PolicyOutcomes { operating, curve }, &[], recordings.groups(), &bootstrap)?)
}
