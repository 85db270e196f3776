//! The kinds of scorer that baselines use, and scores of training episodes that the scorer has not seen.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_env_adapter::{Action, Label};
use rayon::prelude::*;

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

    /// Scores of all episodes, those of each fold by a scorer that was trained on the other folds. Without this a classifier
    /// is sure of what it learned by heart, and a rule stops too early. `folds` has the fold of each episode.
    ///
    /// # Errors
    /// As [`ScorerKind::fit`] on the episodes that are left without a fold.
    pub fn cross_fitted(
        self,
        recordings: &dyn Recordings,
        folds: &[u32],
        config: &ClassifierConfig,
    ) -> Result<ScoreSequences, BaselineError> {
        let parts =
            by_fold(recordings, folds, |known, blind| ScoreSequences::of(blind, self.fit(known, config)?.as_ref()))?;
        Ok(ScoreSequences::of_folds(parts))
    }
}

/// What was made of one fold, and the numbers of its episodes.
pub(super) type FoldPart<T> = (Vec<usize>, T);

/// Calls `make` once per fold, with the episodes of all other folds and with those of the fold, in parallel.
///
/// # Errors
/// The first error of `make`, by fold.
pub(super) fn by_fold<T: Send>(
    recordings: &dyn Recordings,
    folds: &[u32],
    make: impl Fn(&Subset<'_>, &Subset<'_>) -> Result<T, BaselineError> + Sync,
) -> Result<Vec<FoldPart<T>>, BaselineError> {
    let numbers: BTreeSet<u32> = folds.iter().copied().collect();
    let numbers: Vec<u32> = numbers.into_iter().collect();
    let part = |fold: &u32| {
        let (blind, known): (Vec<usize>, Vec<usize>) =
            (0..recordings.len()).partition(|episode| folds.get(*episode) == Some(fold));
        let subset = |episodes| Subset { all: recordings, episodes };
        let made = make(&subset(&known), &subset(&blind))?;
        Ok((blind, made))
    };
    numbers.par_iter().map(part).collect()
}

/// What belongs to each episode of each fold, in the order of the episodes.
pub(super) fn in_order<T>(parts: impl IntoIterator<Item = FoldPart<Vec<T>>>) -> Vec<T> {
    let pairs = parts.into_iter().flat_map(|(episodes, list)| episodes.into_iter().zip(list));
    let by_episode: BTreeMap<usize, T> = pairs.collect();
    by_episode.into_values().collect()
}

/// Some of the episodes.
pub(super) struct Subset<'a> {
    all: &'a dyn Recordings,
    episodes: &'a [usize],
}

impl Subset<'_> {
    /// Picks what belongs to these episodes out of a list over all of them.
    pub(super) fn pick<T: Copy>(&self, list: &[T]) -> Vec<T> {
        self.episodes.iter().map(|episode| list[*episode]).collect()
    }
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
    fn outcome(&self, episode: usize, stop: Stop, conviction: Action, cost: f32) -> Outcome {
        self.all.outcome(self.episodes[episode], stop, conviction, cost)
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
        let folds: Vec<u32> = (0..60).map(|episode| episode % 4).collect();
        let held_out = ScorerKind::Prefixes.cross_fitted(&toy, &folds, &config).unwrap();
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
