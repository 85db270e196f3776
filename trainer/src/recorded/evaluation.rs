//! The evaluation of a policy on held-out recordings, beside its baselines.

use bellwether_env_adapter::{Action, Label};
use bellwether_replay::StateRows;

use super::answers::AnswerModel;
use super::calibration::play_grid;
use super::playback::{Policy, play, stop_at};
use super::predictions::{Predicts, play_predicting};
use super::recordings::Recordings;
use super::{OVERLAY, TrainingError, folds_of};
use crate::baselines::{BaselineConfig, BaselineTarget, evaluate_baselines};
use crate::config::TrainConfig;
use crate::evaluate::{
    BaselineOutcomes, Bootstrap, Evaluation, OperatingPoint, Outcome, PolicyOutcomes, Stop, ValueReport, summarise,
};

/// A policy under test.
#[derive(Clone, Copy)]
pub struct Tested<'a> {
    /// The held-out recordings.
    pub recordings: &'a Recordings,
    /// The episodes of them to play.
    pub episodes: &'a [u32],
    /// The policy.
    pub policy: Policy<'a>,
    /// Its operating points, fixed before the test.
    pub operating_points: &'a [OperatingPoint],
    /// The configuration that it was trained under.
    pub config: &'a TrainConfig,
    /// What its outputs say of returns; `None` where that is nothing.
    pub predicts: Option<Predicts>,
    /// What baselines are fitted to and tuned on; without it none stands beside the policy.
    pub background: Option<Background<'a>>,
}

/// The recordings that the policy was trained on.
#[derive(Clone, Copy)]
pub struct Background<'a> {
    /// The recordings.
    pub recordings: &'a Recordings,
    /// The episodes of them that the policy was trained on.
    pub episodes: &'a [u32],
}

/// Plays the policy on every held-out episode at every operating point and along its whole curve, and the baselines at the
/// same mean events. Episodes without a window are left out: nothing can be decided about them.
///
/// # Errors
/// If the states cannot be read, a class is missing, or a baseline cannot be fitted.
pub fn evaluate(tested: &Tested<'_>) -> Result<Evaluation, TrainingError> {
    let Tested { recordings, policy, config, .. } = *tested;
    let model = AnswerModel::new(recordings, &config.reward, config.trainer.isolation);
    let episodes = seen(recordings, tested.episodes);
    let bootstrap = Bootstrap { seed: config.seed, ..Bootstrap::default() };
    let (mut operating, mut values) = (Vec::new(), Vec::new());
    for point in tested.operating_points {
        let outcomes = match tested.predicts {
            None => play(&model, policy, &episodes, point.setting)?,
            Some(predicts) => {
                let (outcomes, decisions) = play_predicting(&model, policy, &episodes, point.setting, predicts)?;
                let about = (predicts.discount, predicts.drawn);
                values.extend(ValueReport::build(point, about, &outcomes, &decisions, &bootstrap)?);
                outcomes
            }
        };
        operating.push((*point, outcomes));
    }
    let outcomes = PolicyOutcomes { operating, curve: play_grid(&model, policy, &episodes, config)? };
    let baselines = match tested.background {
        None => Vec::new(),
        Some(background) => baselines(background, model, &episodes, &outcomes, config)?,
    };
    Ok(Evaluation { values, ..Evaluation::build(&outcomes, &baselines, recordings.groups(), &bootstrap)? })
}

/// What baselines reach on these test episodes that were fitted to the background, and tuned on it in the folds that
/// calibrated the policy.
pub(super) fn baselines(
    background: Background<'_>,
    test: AnswerModel<'_>,
    episodes: &[u32],
    policy: &PolicyOutcomes,
    config: &TrainConfig,
) -> Result<Vec<BaselineOutcomes>, TrainingError> {
    let known = seen(background.recordings, background.episodes);
    let by_number = folds_of(background.recordings, &known, config.calibration.folds, config.seed)?;
    let folds: Vec<u32> = known.iter().map(|episode| by_number[*episode as usize]).collect();
    let model = AnswerModel::new(background.recordings, &config.reward, false);
    let (train, test) = (Part { model, episodes: known }, Part { model: test, episodes: episodes.to_vec() });
    Ok(evaluate_baselines(&train, &folds, &test, &targets(policy), &BaselineConfig::default())?)
}

/// The episodes that have a window.
fn seen(recordings: &Recordings, episodes: &[u32]) -> Vec<u32> {
    episodes.iter().copied().filter(|episode| recordings.store().episode(*episode).len > 0).collect()
}

/// What the baselines are held to: the policy's rate, its cost, and the events that it took.
fn targets(outcomes: &PolicyOutcomes) -> Vec<BaselineTarget> {
    let target = |(point, outcomes): &(OperatingPoint, Vec<Outcome>)| BaselineTarget {
        target_fpr: point.target_fpr,
        cost: point.setting,
        mean_events: summarise(outcomes).metrics.mean_events.unwrap_or(0.0),
    };
    outcomes.operating.iter().map(target).collect()
}

/// Some episodes, as baselines see them.
struct Part<'a> {
    model: AnswerModel<'a>,
    episodes: Vec<u32>,
}

impl Part<'_> {
    fn row(&self, episode: usize, window: u32) -> u32 {
        self.model.recordings().store().episode(self.episodes[episode]).first_row + window
    }
}

impl crate::baselines::Recordings for Part<'_> {
    fn len(&self) -> usize {
        self.episodes.len()
    }

    fn width(&self) -> usize {
        self.model.recordings().width()
    }

    fn label(&self, episode: usize) -> Label {
        self.model.recordings().facts(self.episodes[episode]).label
    }

    fn windows(&self, episode: usize) -> u32 {
        self.model.recordings().store().episode(self.episodes[episode]).len
    }

    fn events(&self, episode: usize, window: u32) -> u64 {
        self.model.recordings().window(self.row(episode, window)).events_seen
    }

    fn state(&self, episode: usize, window: u32, out: &mut [f32]) {
        self.model.recordings().store().states().gather(self.row(episode, window) as usize, out);
        for element in OVERLAY {
            out[usize::from(element)] = 0.0;
        }
    }

    fn outcome(&self, episode: usize, stop: Stop, conviction: Action, cost: f32) -> Outcome {
        stop_at(&self.model, self.episodes[episode], stop, conviction, cost)
    }
}
