//! Grouped cross-validation of a configuration: every episode is played by a policy whose training, calibration included,
//! has seen neither its family nor an exact duplicate of it.

use bellwether_env_adapter::ACTION_COUNT;

use super::answers::AnswerModel;
use super::calibration::{calibrate, play_grid};
use super::evaluation::{self, Background};
use super::playback::{Learnt, Policy};
use super::predictions::{Predicts, play_predicting};
use super::recordings::Recordings;
use super::training::Training;
use super::{TrainingError, folds_of};
use crate::config::TrainConfig;
use crate::evaluate::{BaselineOutcomes, Bootstrap, Decision, Evaluation, PolicyOutcomes, ValueReport};
use crate::learner::fused::{FusedOptions, Isa};
use crate::run::{RunEvent, RunObserver};

/// What is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// The policy and its baselines.
    Baselines,
    /// The policy alone.
    Nothing,
}

/// Trains and calibrates once per fold on the other folds, and evaluates all held-out outcomes together.
///
/// Baselines are fitted, tuned and replayed fold by fold as in an evaluation. The setting of an operating point differs from fold to fold; the report shows the first fold's.
///
/// # Errors
/// If training fails, or a class has fewer groups than folds.
pub fn cross_validate(
    recordings: &Recordings,
    config: &TrainConfig,
    folds: usize,
    beside: Beside,
    isa: Isa,
    observer: &mut dyn RunObserver,
) -> Result<Evaluation, TrainingError> {
    let all: Vec<u32> = recordings.episodes().filter(|episode| recordings.store().episode(*episode).len > 0).collect();
    let fold_of = folds_of(recordings, &all, folds, config.seed)?;
    let model = AnswerModel::new(recordings, &config.reward, config.trainer.isolation);
    let mut policy = PolicyOutcomes::default();
    let mut decisions: Vec<Vec<Decision>> = Vec::new();
    let mut baselines: Vec<BaselineOutcomes> = Vec::new();
    for fold in 0..folds as u32 {
        observer.event(RunEvent::Phase(&format!("fold {} of {folds}", fold + 1)));
        let (held_out, known): (Vec<u32>, Vec<u32>) =
            all.iter().partition(|episode| fold_of[**episode as usize] == fold);
        let mut training = Training::new(recordings, &known, config, isa, FusedOptions { isa, threads: 1 }.into())?;
        while !training.is_finished() {
            let lines = training.round()?;
            observer.event(RunEvent::Updated { done: training.updates(), of: config.trainer.updates, lines: &lines });
        }
        let shape = config.network.shape(recordings.width(), ACTION_COUNT)?;
        let calibrated = calibrate(&training, &shape, config, isa)?;
        let trained = Policy::from(Learnt { shape: &shape, parameters: training.released(), isa });
        observer.event(RunEvent::Phase(&format!("evaluating fold {} of {folds}", fold + 1)));
        let played = training.pool().install(|| -> Result<_, TrainingError> {
            let predicts = Predicts::of_recordings(config);
            let (mut operating, mut decided) = (Vec::new(), Vec::new());
            for point in &calibrated.operating_points {
                let (outcomes, decisions) = play_predicting(&model, trained, &held_out, point.setting, predicts)?;
                operating.push((*point, outcomes));
                decided.push(decisions);
            }
            let curve = play_grid(&model, trained, &held_out, config)?;
            let outcomes = PolicyOutcomes { operating, curve };
            let background = Background { recordings, episodes: &known };
            let beside = match beside {
                Beside::Baselines => evaluation::baselines(background, model, &held_out, &outcomes, config)?,
                Beside::Nothing => Vec::new(),
            };
            Ok((outcomes, decided, beside))
        });
        let (outcomes, decided, beside) = played?;
        policy.join(outcomes);
        decisions.resize_with(decided.len(), Vec::new);
        decisions.iter_mut().zip(decided).for_each(|(all, more)| all.extend(more));
        join_baselines(&mut baselines, beside);
    }
    policy.sort();
    baselines.iter_mut().for_each(|baseline| baseline.outcomes.sort());
    let bootstrap = Bootstrap { seed: config.seed, ..Bootstrap::default() };
    let Predicts { discount, drawn, .. } = Predicts::of_recordings(config);
    let mut values = Vec::new();
    for ((point, outcomes), decisions) in policy.operating.iter().zip(&decisions) {
        values.extend(ValueReport::build(point, (discount, drawn), outcomes, decisions, &bootstrap)?);
    }
    Ok(Evaluation { values, ..Evaluation::build(&policy, &baselines, recordings.groups(), &bootstrap)? })
}

/// Adds the outcomes of one fold. Thresholds of different folds are on different scales, so there is no curve in hindsight
/// over all of them.
fn join_baselines(all: &mut Vec<BaselineOutcomes>, fold: Vec<BaselineOutcomes>) {
    for mut baseline in fold {
        baseline.outcomes.curve.clear();
        match all.iter_mut().find(|known| known.name == baseline.name) {
            Some(known) => known.outcomes.join(baseline.outcomes),
            None => {
                baseline.description = format!("in the first fold: {}", baseline.description);
                all.push(baseline);
            }
        }
    }
}
