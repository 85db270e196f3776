//! What the q-values of a policy predict, beside what came of it in exact replay.

use bellwether_env_adapter::reward::RewardConfig;
use bellwether_env_adapter::{Action, Label};
use rayon::prelude::*;

use super::TrainingError;
use super::answers::AnswerModel;
use super::playback::{Course, Policy, TOGETHER, play_together, readable};
use crate::config::TrainConfig;
use crate::evaluate::{Decision, Drawn, Outcome};
use crate::offline::{Algorithm, OfflineConfig};

/// What the outputs of a network say of returns, by how it was trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicts {
    /// Discount per window of the returns.
    pub discount: f32,
    /// How the states were drawn.
    pub drawn: Drawn,
    /// Whether the q-value of `terminate` is the mean of its rewards, from which the probability of malice follows.
    pub malicious: bool,
}

impl Predicts {
    /// A network that was trained on recordings. Huber's error fits no means.
    pub fn of_recordings(config: &TrainConfig) -> Predicts {
        let trainer = &config.trainer;
        Predicts { discount: trainer.gamma, drawn: Drawn::ByClass, malicious: trainer.huber <= 0.0 }
    }

    /// A network that learned from played steps; `None` where its outputs are logits, or hold more than rewards. What `terminate` earns is
    /// learned where it was played alone, so no probability follows from it.
    pub fn of_played(config: &OfflineConfig) -> Option<Predicts> {
        match config.algorithm {
            Algorithm::Dqn | Algorithm::Cql if config.update.munchausen.is_none() => {
                Some(Predicts { discount: config.update.gamma as f32, drawn: Drawn::ByStep, malicious: false })
            }
            Algorithm::Dqn | Algorithm::Cql | Algorithm::Bcq | Algorithm::Cloning => None,
        }
    }
}

/// Plays a policy on episodes at one cost `z`, and gives what it reached in each, and every decision with what it was predicted
/// to earn and what it earned, by episode.
///
/// # Errors
/// If the states cannot be read or the network does not fit them.
pub fn play_predicting(
    model: &AnswerModel<'_>,
    policy: Policy<'_>,
    episodes: &[u32],
    z: f32,
    predicts: Predicts,
) -> Result<(Vec<Outcome>, Vec<Decision>), TrainingError> {
    let recordings = model.recordings();
    let play = |chunk: &[u32]| {
        let mut decided: Vec<Vec<Decision>> = vec![Vec::new(); chunk.len()];
        let outcomes = play_together(model, policy, chunk, z, Course::Greedy, &mut |at, step| {
            let episode = recordings.store().episode(step.place.episode);
            let of_terminate = step.q_values[Action::Terminate.index()];
            let decisions = &mut decided[at];
            let before = decisions.len() as u32;
            decisions.push(Decision {
                episode: episode.number,
                group: episode.group,
                is_malicious: recordings.facts(episode.number).label == Label::Malicious,
                before,
                windows: episode.len,
                q_value: step.q_values[step.action],
                ret: f64::from(step.outcome.reward),
                malicious: predicts.malicious.then(|| probability(model.reward(), of_terminate, z)).flatten(),
            });
        })?;
        for decisions in &mut decided {
            let mut following = 0.0;
            for decision in decisions.iter_mut().rev() {
                decision.ret += f64::from(predicts.discount) * following;
                following = decision.ret;
            }
        }
        Ok((outcomes, decided.concat()))
    };
    let parts: Result<Vec<_>, TrainingError> = episodes.par_chunks(TOGETHER).map(play).collect();
    readable(model)?;
    let (outcomes, decisions): (Vec<_>, Vec<_>) = parts?.into_iter().unzip();
    Ok((outcomes.concat(), decisions.concat()))
}

/// The probability of malice at which `terminate` is worth this much at the cost `z`: it earns one reward where the sample is malicious
/// and another where it is benign, whatever came before. Beyond 0 and 1 it is held there; `None` where both earn the same.
fn probability(reward: &RewardConfig, q_terminate: f32, z: f32) -> Option<f32> {
    let (malicious, benign) = ((1.0 - z) * reward.true_positive, -z * reward.false_positive);
    (malicious > benign).then(|| ((q_terminate - benign) / (malicious - benign)).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_conviction_is_worth_says_how_sure_the_network_is() {
        let reward = RewardConfig::default();
        for z in [0.1, 0.5, 0.9] {
            for p in [0.0, 0.25, 1.0] {
                let worth = p * (1.0 - z) * reward.true_positive - (1.0 - p) * z * reward.false_positive;
                assert!((probability(&reward, worth, z).unwrap() - p).abs() < 1e-6, "{p} at {z}");
            }
            assert_eq!(probability(&reward, 9.0, z), Some(1.0));
        }
        let nothing = RewardConfig { true_positive: 0.0, false_positive: 0.0, ..reward };
        assert_eq!(probability(&nothing, 0.0, 0.5), None);
    }

    #[test]
    fn logits_predict_nothing() {
        let of = |algorithm| Predicts::of_played(&OfflineConfig { algorithm, ..OfflineConfig::default() });
        assert_eq!([of(Algorithm::Bcq), of(Algorithm::Cloning)], [None, None]);
        assert!(of(Algorithm::Dqn).is_some_and(|predicts| !predicts.malicious && predicts.drawn == Drawn::ByStep));
    }
}
