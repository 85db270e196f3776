//! The costs at which a released network keeps to a false-positive rate.

use super::TrainingError;
use super::answers::AnswerModel;
use super::playback::{Learnt, Policy, play};
use super::training::Training;
use crate::config::TrainConfig;
use crate::evaluate::{Calibration, OperatingPoint, Outcome};
use crate::learner::fused::Isa;
use crate::network::NetworkShape;

/// What calibration found.
#[derive(Clone, Debug)]
pub struct Calibrated {
    /// One point per target rate: the cost to ask for.
    pub operating_points: Vec<OperatingPoint>,
    /// Outcomes of the calibration episodes by cost, each played by the network that has not seen it.
    pub curve: Vec<(f32, Vec<Outcome>)>,
}

/// Plays each fold's episodes by the network that has not seen them, at every cost of the grid, and chooses the smallest
/// cost for each target rate.
///
/// # Errors
/// If the states cannot be read, or there is no benign episode.
pub fn calibrate(
    training: &Training<'_>,
    shape: &NetworkShape,
    config: &TrainConfig,
    isa: Isa,
) -> Result<Calibrated, TrainingError> {
    let mut curve: Vec<(f32, Vec<Outcome>)> = config.cost.grid().map(|z| (z, Vec::new())).collect();
    let model = training.model();
    for (episodes, parameters) in training.blind() {
        let policy = Policy::from(Learnt { shape, parameters, isa });
        for (z, outcomes) in &mut curve {
            outcomes.extend(training.pool().install(|| play(model, policy, &episodes, *z))?);
        }
    }
    for (_, outcomes) in &mut curve {
        outcomes.sort_by_key(|outcome| outcome.episode);
    }
    let operating_points = Calibration::from_outcomes(&curve)?.table(&config.calibration.target_fpr);
    Ok(Calibrated { operating_points, curve })
}

/// The outcomes of a policy on episodes at every cost of the grid.
///
/// # Errors
/// If the states cannot be read or the network does not fit them.
pub fn play_grid(
    model: &AnswerModel<'_>,
    policy: Policy<'_>,
    episodes: &[u32],
    config: &TrainConfig,
) -> Result<Vec<(f32, Vec<Outcome>)>, TrainingError> {
    config.cost.grid().map(|z| Ok((z, play(model, policy, episodes, z)?))).collect()
}
