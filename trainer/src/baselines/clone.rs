//! Behaviour cloning: two classifiers that imitate when a fixed rule stops, and what it then says.

use super::classifier::{BoostedTrees, ClassifierConfig, PrefixRow, Weighting};
use super::scorer::{FoldPart, in_order};
use super::tune::ScoreSequences;
use super::{BaselineError, PrefixScorer, Recordings, read_state};
use crate::evaluate::{Stop, Verdict};

/// One imitated decision.
enum Decision {
    /// The rule decides differently in different states.
    Learned(Box<BoostedTrees>),
    /// The rule always decides the same.
    Always(bool),
}

/// An imitation of a stopping rule that sees states alone, not the scores that the rule saw.
pub struct ClonedRule {
    stop: Decision,
    convict: Decision,
}

impl ClonedRule {
    /// Learns from where the rule stopped each training episode.
    ///
    /// Whether to stop is learned from the windows that the rule saw, each counted once (a stop that the end of the
    /// recording forced is no decision and is left out); the verdict is learned from the windows where it stopped, with
    /// both verdicts weighing the same. Where there are more than `max_rows` windows, an even stride over the episodes is
    /// used.
    ///
    /// # Errors
    /// As [`BoostedTrees::fit`]; [`BaselineError::NoEpisodes`] without episodes.
    pub fn learn(
        recordings: &dyn Recordings,
        stops: &[Stop],
        config: &ClassifierConfig,
    ) -> Result<Self, BaselineError> {
        if recordings.is_empty() || stops.len() != recordings.len() {
            return Err(BaselineError::NoEpisodes);
        }
        let seen: u64 = stops.iter().map(|stop| u64::from(stop.window) + 1).sum();
        let stride = seen.div_ceil(u64::from(config.max_rows.max(1))).max(1) as usize;
        let mut rows: Vec<PrefixRow> = Vec::new();
        for (episode, stop) in stops.iter().enumerate().step_by(stride) {
            let forced = stop.window + 1 >= recordings.windows(episode);
            let decided = if forced { stop.window } else { stop.window + 1 };
            rows.extend((0..decided).map(|window| (episode as u32, window)));
        }
        let stopped = |row: PrefixRow| stops[row.0 as usize].window == row.1;
        let ends: Vec<PrefixRow> =
            stops.iter().enumerate().map(|(episode, stop)| (episode as u32, stop.window)).collect();
        let convicted = |row: PrefixRow| stops[row.0 as usize].verdict == Verdict::Malicious;
        Ok(ClonedRule {
            stop: Decision::learn(recordings, &rows, stopped, Weighting::Rows, config)?,
            convict: Decision::learn(recordings, &ends, convicted, Weighting::Balanced, config)?,
        })
    }

    /// The scores of both decisions at every window.
    ///
    /// # Errors
    /// [`BaselineError::NotFinite`] on a bad state.
    pub fn scores(&self, recordings: &dyn Recordings) -> Result<ClonedScores, BaselineError> {
        let mut out = ClonedScores::default();
        let mut state = vec![0.0; recordings.width()];
        for episode in 0..recordings.len() {
            let windows = recordings.windows(episode);
            let (mut convict, mut stop) = (Vec::new(), Vec::new());
            for window in 0..windows {
                read_state(recordings, episode, window, &mut state)?;
                convict.push(self.convict.score(&state));
                stop.push(self.stop.score(&state));
            }
            out.convict.labels.push(recordings.label(episode));
            out.convict.scores.push(convict);
            out.convict.events.push((0..windows).map(|window| recordings.events(episode, window)).collect());
            out.stop.push(stop);
        }
        Ok(out)
    }
}

/// What a clone thinks at every window.
#[derive(Clone, Debug, Default)]
pub struct ClonedScores {
    convict: ScoreSequences,
    stop: Vec<Vec<f32>>,
}

impl ClonedScores {
    /// The scores of all folds, in the order of the episodes.
    pub(super) fn of_folds(parts: Vec<FoldPart<ClonedScores>>) -> Self {
        let (convict, stop): (Vec<_>, Vec<_>) =
            parts.into_iter().map(|(episodes, part)| ((episodes.clone(), part.convict), (episodes, part.stop))).unzip();
        ClonedScores { convict: ScoreSequences::of_folds(convict), stop: in_order(stop) }
    }

    /// The scores of the verdict up to the first window whose score for stopping is at least `threshold`, or the last: a rule
    /// that runs to the end of these sequences makes the clone whole. At 0 it stops where stopping is the likelier action.
    pub fn cut(&self, threshold: f32) -> ScoreSequences {
        let mut out = self.convict.clone();
        for (episode, stop) in self.stop.iter().enumerate() {
            let windows = stop.iter().position(|&score| score >= threshold).map_or(stop.len(), |window| window + 1);
            out.scores[episode].truncate(windows);
            out.events[episode].truncate(windows);
        }
        out
    }
}

impl Decision {
    fn learn(
        recordings: &dyn Recordings,
        rows: &[PrefixRow],
        target: impl Fn(PrefixRow) -> bool,
        weighting: Weighting,
        config: &ClassifierConfig,
    ) -> Result<Self, BaselineError> {
        let positive = rows.iter().filter(|&&row| target(row)).count();
        if positive == 0 || positive == rows.len() {
            return Ok(Decision::Always(positive > 0));
        }
        BoostedTrees::fit(recordings, rows, target, weighting, config).map(|trees| Decision::Learned(Box::new(trees)))
    }

    /// Above 0 for yes.
    fn score(&self, state: &[f32]) -> f32 {
        match self {
            Decision::Learned(trees) => trees.score(state),
            Decision::Always(true) => 1.0,
            Decision::Always(false) => -1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Toy;
    use super::*;
    use crate::baselines::rule::Shape;

    fn config() -> ClassifierConfig {
        ClassifierConfig { trees: 40, max_depth: 4, column_share: 1.0, ..ClassifierConfig::default() }
    }

    #[test]
    fn it_imitates_a_fixed_prefix() {
        let toy = Toy::new(60, 60, 5);
        let verdict = |episode: usize| if episode >= 60 { Verdict::Malicious } else { Verdict::Benign };
        let stops: Vec<Stop> = (0..toy.len())
            .map(|episode| Stop { window: 6.min(toy.windows(episode) - 1), verdict: verdict(episode) })
            .collect();
        let clone = ClonedRule::learn(&toy, &stops, &config()).unwrap();
        let test = Toy::new(30, 30, 6);
        let sequences = clone.scores(&test).unwrap().cut(0.0);
        let imitated = sequences.stops(&Shape::Prefix { windows: u32::MAX }.rule(0.0));
        let same_window = (0..60).filter(|&i| imitated[i].window == 6.min(test.windows(i) - 1)).count();
        let right = (0..60).filter(|&i| (imitated[i].verdict == Verdict::Malicious) == (i >= 30)).count();
        assert!(same_window >= 58, "{same_window} of 60 stop where the rule does");
        assert!(right >= 50, "{right} of 60 verdicts");
        let total =
            |threshold: f32| -> usize { clone.scores(&test).unwrap().cut(threshold).scores.iter().map(Vec::len).sum() };
        assert!(total(-100.0) == 60 && total(-1.0) <= total(0.0), "a lower threshold stops earlier");
    }

    #[test]
    fn a_rule_that_never_varies_is_imitated_exactly() {
        let toy = Toy::new(10, 10, 5);
        let stops: Vec<Stop> =
            (0..20).map(|episode| Stop { window: toy.windows(episode) - 1, verdict: Verdict::Benign }).collect();
        let clone = ClonedRule::learn(&toy, &stops, &config()).unwrap();
        let sequences = clone.scores(&toy).unwrap().cut(0.0);
        let rule = Shape::Prefix { windows: u32::MAX }.rule(0.0);
        assert_eq!(sequences.stops(&rule), stops);
        assert!(matches!(ClonedRule::learn(&toy, &stops[1..], &config()), Err(BaselineError::NoEpisodes)));
    }
}
