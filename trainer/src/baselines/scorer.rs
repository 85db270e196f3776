//! The kinds of scorer that baselines use, and scores of training episodes that the scorer has not seen.

use bellwether_env_adapter::Label;

use super::classifier::{BoostedTrees, ClassifierConfig};
use super::percentile::PercentileDetector;
use super::tune::ScoreSequences;
use super::{BaselineError, PrefixScorer, Recordings};
use crate::evaluate::{Outcome, Stop};

/// What a scorer was trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScorerKind {
    /// Boosted trees over all prefixes.
    Prefixes,
    /// Boosted trees over one prefix of each episode.
    Prefix {
        /// Its windows; `u32::MAX` for whole episodes.
        windows: u32,
    },
    /// The percentile detector over benign prefixes.
    Percentile,
}

impl ScorerKind {
    /// Trains the scorer.
    ///
    /// # Errors
    /// As [`BoostedTrees::fit`] and [`PercentileDetector::fit`].
    pub fn fit(
        self,
        recordings: &dyn Recordings,
        config: &ClassifierConfig,
    ) -> Result<Box<dyn PrefixScorer>, BaselineError> {
        Ok(match self {
            ScorerKind::Prefixes => Box::new(BoostedTrees::of_prefixes(recordings, config)?),
            ScorerKind::Prefix { windows } => Box::new(BoostedTrees::of_prefix(recordings, windows, config)?),
            ScorerKind::Percentile => Box::new(PercentileDetector::of_prefixes(recordings, config.max_rows)?),
        })
    }

    /// Scores of the training episodes by scorers that did not see them: each half of every class is scored by what was
    /// trained on the other. Without this a classifier is sure of what it learned by heart, and a rule stops too early.
    ///
    /// # Errors
    /// As [`ScorerKind::fit`]; a class with a single episode cannot be halved ([`BaselineError::OneClass`]).
    pub fn cross_fitted(
        self,
        recordings: &dyn Recordings,
        config: &ClassifierConfig,
    ) -> Result<ScoreSequences, BaselineError> {
        let mut halves = [Vec::new(), Vec::new()];
        let mut seen = [0usize; 2];
        for episode in 0..recordings.len() {
            let class = usize::from(recordings.label(episode) == Label::Malicious);
            halves[seen[class] % 2].push(episode);
            seen[class] += 1;
        }
        let mut by_episode: Vec<Option<(Vec<f32>, Vec<u64>)>> = vec![None; recordings.len()];
        for (trained, scored) in [(0, 1), (1, 0)] {
            let [train, held_out] = [trained, scored].map(|half| Subset { all: recordings, episodes: &halves[half] });
            let scorer = self.fit(&train, config)?;
            let sequences = ScoreSequences::of(&held_out, scorer.as_ref())?;
            for ((episode, scores), events) in halves[scored].iter().zip(sequences.scores).zip(sequences.events) {
                by_episode[*episode] = Some((scores, events));
            }
        }
        let mut out = ScoreSequences::default();
        for (episode, (scores, events)) in by_episode.into_iter().flatten().enumerate() {
            out.labels.push(recordings.label(episode));
            out.scores.push(scores);
            out.events.push(events);
        }
        Ok(out)
    }
}

/// Some of the episodes.
struct Subset<'a> {
    all: &'a dyn Recordings,
    episodes: &'a [usize],
}

impl Recordings for Subset<'_> {
    fn len(&self) -> usize {
        self.episodes.len()
    }
    fn width(&self) -> usize {
        self.all.width()
    }
    fn label(&self, episode: usize) -> Label {
        self.all.label(self.episodes[episode])
    }
    fn windows(&self, episode: usize) -> u32 {
        self.all.windows(self.episodes[episode])
    }
    fn events(&self, episode: usize, window: u32) -> u64 {
        self.all.events(self.episodes[episode], window)
    }
    fn state(&self, episode: usize, window: u32, out: &mut [f32]) {
        self.all.state(self.episodes[episode], window, out);
    }
    fn outcome(&self, episode: usize, stop: Stop, cost: f32) -> Outcome {
        self.all.outcome(self.episodes[episode], stop, cost)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Toy;
    use super::*;

    #[test]
    fn cross_fitted_scores_are_in_place_and_less_sure_of_noise() {
        let config = ClassifierConfig { trees: 40, max_depth: 4, ..ClassifierConfig::default() };
        // Labels that the states know nothing of: episodes of one class, half of them called malicious.
        let mut toy = Toy::new(60, 0, 3);
        for (episode, (label, _)) in toy.episodes.iter_mut().enumerate() {
            *label = if episode % 3 == 0 { Label::Malicious } else { Label::Benign };
        }
        let scorer = ScorerKind::Prefixes.fit(&toy, &config).unwrap();
        let by_heart = ScoreSequences::of(&toy, scorer.as_ref()).unwrap();
        let held_out = ScorerKind::Prefixes.cross_fitted(&toy, &config).unwrap();
        assert_eq!((&held_out.labels, &held_out.events), (&by_heart.labels, &by_heart.events));
        let margin = |list: &ScoreSequences| -> f32 {
            let signed = list.labels.iter().zip(&list.scores).flat_map(|(label, scores)| {
                let sign = if *label == Label::Malicious { 1.0 } else { -1.0 };
                scores.iter().map(move |score| sign * score)
            });
            signed.sum()
        };
        assert!(margin(&by_heart) > 50.0, "{}", margin(&by_heart));
        assert!(margin(&held_out) < margin(&by_heart) / 4.0, "{}", margin(&held_out));
    }
}
