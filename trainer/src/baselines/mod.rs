//! What a policy must beat: rules that stop on the score of a supervised classifier or of an anomaly detector.
//!
//! A baseline is a [`PrefixScorer`], which scores the state at the close of each window, and a [`StoppingRule`] over the
//! scores. Thresholds are chosen by the same function as the policy's costs, on training episodes that the scorer has not
//! seen, and verdicts are judged by the same exact replay ([`Recordings::outcome`]). Where baselines are held otherwise than
//! the policy stands in `docs/algorithms/recorded.md`.

mod classifier;
mod clone;
mod percentile;
mod rule;
mod scorer;
mod suite;
mod tune;

use bellwether_env_adapter::{Action, Label};

use crate::evaluate::{EvaluationError, Outcome, Stop};

pub use classifier::{BoostedTrees, ClassifierConfig, PrefixRow, Weighting, prefix_rows};
pub use clone::{ClonedRule, ClonedScores};
pub use percentile::{CANDIDATE_PERCENTILE, PercentileDetector};
pub use rule::{Evidence, Shape, StoppingRule};
pub use scorer::ScorerKind;
pub use suite::{BaselineConfig, BaselineTarget, evaluate_baselines};
pub use tune::{ScoreSequences, Tuned, tune};

/// Complete recordings as baselines see them: the windows of all stages of an episode in order, and the state at the
/// close of each.
pub trait Recordings: Sync {
    /// Number of episodes; each has at least one window.
    fn len(&self) -> usize;
    /// Whether there is no episode.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Elements of a state.
    fn width(&self) -> usize;
    /// What the sample is.
    fn label(&self, episode: usize) -> Label;
    /// Number of windows, at least 1.
    fn windows(&self, episode: usize) -> u32;
    /// Events up to the close of window `window`.
    fn events(&self, episode: usize, window: u32) -> u64;
    /// Writes the state at the close of window `window` into `out`, `width()` finite values, with the context elements
    /// that depend on play (cost, isolation) at 0.
    fn state(&self, episode: usize, window: u32, out: &mut [f32]);
    /// What becomes of the episode if it is stopped so and convicted by the action `conviction`, with returns at this cost
    /// of a false positive. The same code must judge the policy.
    fn outcome(&self, episode: usize, stop: Stop, conviction: Action, cost: f32) -> Outcome;
}

/// Scores a state: the higher, the more malicious.
pub trait PrefixScorer {
    /// A finite score.
    fn score(&self, state: &[f32]) -> f32;
}

/// Why a baseline cannot be trained or tuned.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// There is no episode to train on.
    #[error("there is no episode to train baselines on; check the split")]
    NoEpisodes,
    /// One of the two classes is missing.
    #[error("there is no {missing} episode to train or calibrate baselines on; give recordings of both classes")]
    OneClass {
        /// The missing class.
        missing: &'static str,
    },
    /// A state has a value that is NaN or infinite.
    #[error("element {element} of the state at window {window} of episode {episode} is {value}; states must be finite")]
    NotFinite {
        /// Position of the episode.
        episode: usize,
        /// Window, from 0.
        window: u32,
        /// Element of the state.
        element: usize,
        /// The value.
        value: f32,
    },
    /// Training, calibration and test states differ in width.
    #[error(
        "states of {found} elements were given where {expected} are needed; ingest all recordings with one version"
    )]
    Width {
        /// Elements of the training states.
        expected: usize,
        /// Elements that were given.
        found: usize,
    },
    /// A setting is out of range.
    #[error("`{key}` is {value}; it must be {expected}")]
    Parameter {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The classifier's library refused.
    #[error("the boosted trees cannot be trained: {0}")]
    Classifier(String),
    /// Outcomes could not be judged.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
}

/// Refuses recordings without episodes or without one of the classes.
pub(crate) fn require_both_classes(recordings: &dyn Recordings) -> Result<(), BaselineError> {
    if recordings.is_empty() {
        return Err(BaselineError::NoEpisodes);
    }
    for (label, missing) in [(Label::Benign, "benign"), (Label::Malicious, "malicious")] {
        if !(0..recordings.len()).any(|episode| recordings.label(episode) == label) {
            return Err(BaselineError::OneClass { missing });
        }
    }
    Ok(())
}

/// Reads a state and refuses values that are not finite.
pub(crate) fn read_state(
    recordings: &dyn Recordings,
    episode: usize,
    window: u32,
    out: &mut [f32],
) -> Result<(), BaselineError> {
    recordings.state(episode, window, out);
    match out.iter().position(|value| !value.is_finite()) {
        Some(element) => Err(BaselineError::NotFinite { episode, window, element, value: out[element] }),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rand::RngExt;

    use super::*;
    use crate::evaluate::Verdict;
    use crate::streams::stream;

    /// Made-up recordings: malicious episodes show rising values in the first two elements, later in longer ones.
    pub(crate) struct Toy {
        pub(crate) episodes: Vec<(Label, Vec<[f32; 6]>)>,
        pub(crate) first_group: u32,
    }

    impl Toy {
        pub(crate) fn new(benign: usize, malicious: usize, seed: u64) -> Self {
            let mut rng = stream(seed, "toy");
            let mut episodes = Vec::new();
            for i in 0..benign + malicious {
                let bad = i >= benign;
                let windows = rng.random_range(4..20u32);
                let states = (0..windows)
                    .map(|window| {
                        let mut state = [0.0; 6];
                        for value in &mut state[..5] {
                            *value = if rng.random_bool(0.6) { 0.0 } else { rng.random_range(0.0..0.5) };
                        }
                        if bad && window >= 2 {
                            state[0] = (state[0] + 0.1 * (window - 1) as f32).min(1.0);
                            state[1] = 0.6 + 0.4 * rng.random::<f32>();
                        }
                        state[2] = window as f32 / 20.0;
                        state
                    })
                    .collect();
                episodes.push((if bad { Label::Malicious } else { Label::Benign }, states));
            }
            Toy { episodes, first_group: 0 }
        }
    }

    impl Recordings for Toy {
        fn len(&self) -> usize {
            self.episodes.len()
        }
        fn width(&self) -> usize {
            6
        }
        fn label(&self, episode: usize) -> Label {
            self.episodes[episode].0
        }
        fn windows(&self, episode: usize) -> u32 {
            self.episodes[episode].1.len() as u32
        }
        fn events(&self, _: usize, window: u32) -> u64 {
            u64::from(window + 1) * 10
        }
        fn state(&self, episode: usize, window: u32, out: &mut [f32]) {
            out.copy_from_slice(&self.episodes[episode].1[window as usize]);
        }
        fn outcome(&self, episode: usize, stop: Stop, conviction: Action, cost: f32) -> Outcome {
            // Quarantine is worth more when right and costs more when wrong.
            let extra = if conviction == Action::Quarantine { 1.2 } else { 1.0 };
            let windows = self.windows(episode);
            let label = self.label(episode);
            let malicious = label == Label::Malicious;
            let seen = if stop.verdict == Verdict::Malicious { stop.window + 1 } else { windows };
            let ret = match (malicious, stop.verdict) {
                (true, Verdict::Malicious) => extra,
                (false, Verdict::Benign) => 1.0,
                (true, Verdict::Benign) => -1.0,
                (false, Verdict::Malicious) => -extra * f64::from(cost),
            };
            Outcome {
                episode: episode as u32,
                label,
                group: self.first_group + episode as u32,
                action: if stop.verdict == Verdict::Malicious { conviction } else { Action::Release },
                isolated_at: None,
                events: self.events(episode, stop.window),
                windows: stop.window + 1,
                total_events: u64::from(windows) * 10,
                harm_let: if malicious { seen as f32 } else { 0.0 },
                harm_total: if malicious { windows as f32 } else { 0.0 },
                ret: ret - 0.01 * f64::from(stop.window),
            }
        }
    }
}
