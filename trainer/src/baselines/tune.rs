//! The choice of a rule and its threshold on calibration episodes.

use bellwether_env_adapter::Label;

use super::rule::{Shape, StoppingRule};
use super::scorer::{FoldPart, in_order};
use super::{BaselineError, PrefixScorer, Recordings, read_state};
use crate::evaluate::{Calibration, OperatingPoint, Stop, Verdict};

/// Candidates for a threshold: at most this many per shape.
const MAX_THRESHOLDS: usize = 400;

/// The scores of all prefixes of all episodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoreSequences {
    /// What each sample is.
    pub labels: Vec<Label>,
    /// By episode, one score per window.
    pub scores: Vec<Vec<f32>>,
    /// By episode, the events up to the close of each window.
    pub events: Vec<Vec<u64>>,
}

impl ScoreSequences {
    /// Scores every window of every episode.
    ///
    /// # Errors
    /// [`BaselineError::NotFinite`] on a bad state.
    pub fn of(recordings: &dyn Recordings, scorer: &dyn PrefixScorer) -> Result<Self, BaselineError> {
        let mut out = ScoreSequences::default();
        let mut state = vec![0.0; recordings.width()];
        for episode in 0..recordings.len() {
            let windows = recordings.windows(episode);
            let mut scores = Vec::with_capacity(windows as usize);
            for window in 0..windows {
                read_state(recordings, episode, window, &mut state)?;
                scores.push(scorer.score(&state));
            }
            out.labels.push(recordings.label(episode));
            out.scores.push(scores);
            out.events.push((0..windows).map(|window| recordings.events(episode, window)).collect());
        }
        Ok(out)
    }

    /// The sequences of all folds, in the order of the episodes.
    pub(super) fn of_folds(parts: Vec<FoldPart<ScoreSequences>>) -> Self {
        let mut out = ScoreSequences::default();
        let sequences = parts.into_iter().map(|(episodes, part)| {
            let of_episode = part.labels.into_iter().zip(part.scores).zip(part.events);
            (episodes, of_episode.collect())
        });
        for ((label, scores), events) in in_order(sequences) {
            out.labels.push(label);
            out.scores.push(scores);
            out.events.push(events);
        }
        out
    }

    /// Where a rule stops each episode.
    pub fn stops(&self, rule: &StoppingRule) -> Vec<Stop> {
        self.scores.iter().map(|scores| rule.stop(scores)).collect()
    }

    /// Benign episodes.
    pub(crate) fn benign(&self) -> u64 {
        self.labels.iter().filter(|&&label| label == Label::Benign).count() as u64
    }

    /// Thresholds worth trying, ascending: just above what each benign episode could at most be convicted at, so that each
    /// convicts one benign episode less than the one before, and the lowest of all. Where there are too many, the upper
    /// half of them, which decides low false-positive rates, is kept whole and the rest is thinned out evenly.
    pub(crate) fn thresholds(&self, shape: &Shape) -> Vec<f32> {
        let mut critical: Vec<f32> = self
            .labels
            .iter()
            .zip(&self.scores)
            .filter(|(label, _)| **label == Label::Benign)
            .filter_map(|(_, scores)| shape.critical(scores))
            .collect();
        critical.sort_unstable_by(f32::total_cmp);
        critical.dedup();
        let mut thresholds: Vec<f32> = critical.first().copied().into_iter().collect();
        thresholds.extend(critical.iter().map(|value| value.next_up()));
        // `next_up` of a value may be the next value itself.
        thresholds.dedup();
        let excess = thresholds.len().saturating_sub(MAX_THRESHOLDS);
        if excess > 0 {
            let kept_whole = thresholds.split_off(thresholds.len() - MAX_THRESHOLDS / 2);
            let (from, to) = (thresholds.len(), MAX_THRESHOLDS - MAX_THRESHOLDS / 2);
            thresholds = (0..to).map(|i| thresholds[i * from / to]).chain(kept_whole).collect();
        }
        thresholds
    }

    /// Benign episodes convicted at each of the ascending thresholds.
    fn false_positives(&self, shape: &Shape, thresholds: &[f32]) -> Vec<u64> {
        // A larger threshold never convicts more, so each episode is convicted below one position and not from it on.
        let mut ends_at = vec![0u64; thresholds.len() + 1];
        for (_, scores) in self.labels.iter().zip(&self.scores).filter(|(label, _)| **label == Label::Benign) {
            let convicted = |threshold: &f32| shape.rule(*threshold).stop(scores).verdict == Verdict::Malicious;
            ends_at[thresholds.partition_point(convicted)] += 1;
        }
        let mut remaining: u64 = ends_at.iter().sum();
        ends_at[..thresholds.len()]
            .iter()
            .map(|ended| {
                remaining -= ended;
                remaining
            })
            .collect()
    }

    /// True-positive rate and mean events where a rule stops.
    fn judge(&self, rule: &StoppingRule) -> (f64, f64) {
        let (mut found, mut malicious, mut events) = (0u64, 0u64, 0u64);
        for (episode, stop) in self.stops(rule).into_iter().enumerate() {
            if self.labels[episode] == Label::Malicious {
                malicious += 1;
                found += u64::from(stop.verdict == Verdict::Malicious);
            }
            events += self.events[episode].get(stop.window as usize).copied().unwrap_or(0);
        }
        (found as f64 / malicious.max(1) as f64, events as f64 / self.labels.len().max(1) as f64)
    }
}

/// A rule with its threshold, and how it did on the calibration episodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuned {
    /// Position of the scores among those given to [`tune`].
    pub scorer: usize,
    /// The rule but for its threshold.
    pub shape: Shape,
    /// The rule.
    pub rule: StoppingRule,
    /// The operating point; its setting is the threshold.
    pub point: OperatingPoint,
    /// True-positive rate on the calibration episodes.
    pub tpr: f64,
    /// Mean events on the calibration episodes.
    pub mean_events: f64,
    /// Whether those are within the budget.
    pub within_budget: bool,
}

/// The best of `candidates` (position of the scores, shape) on calibration episodes at a target false-positive rate.
///
/// Each candidate's threshold comes from [`Calibration::choose`], as a policy's cost does. Among the candidates that keep
/// the target and whose mean events are at most `budget`, the one with the highest true-positive rate wins, then the one
/// with the fewest events, then the first. Where none does both, one that keeps the target goes before one that keeps the
/// budget, and then the one with the fewest events wins.
///
/// # Errors
/// [`BaselineError::OneClass`] where calibration lacks a class, [`BaselineError::Parameter`] without a candidate,
/// [`BaselineError::Evaluation`] where scores are not finite.
pub fn tune(
    sequences: &[&ScoreSequences],
    candidates: &[(usize, Shape)],
    target_fpr: f64,
    budget: Option<f64>,
) -> Result<Tuned, BaselineError> {
    let mut best: Option<Tuned> = None;
    for &(scorer, shape) in candidates {
        let list = sequences[scorer];
        let benign = list.benign();
        if benign == 0 || benign == list.labels.len() as u64 {
            return Err(BaselineError::OneClass { missing: if benign == 0 { "benign" } else { "malicious" } });
        }
        let thresholds = list.thresholds(&shape);
        let counts = list.false_positives(&shape, &thresholds);
        let point = Calibration::new(&thresholds, &counts, benign)?.choose(target_fpr);
        let rule = shape.rule(point.setting);
        let (tpr, mean_events) = list.judge(&rule);
        let within_budget = budget.is_none_or(|budget| mean_events <= budget * (1.0 + 1e-9));
        let tuned = Tuned { scorer, shape, rule, point, tpr, mean_events, within_budget };
        if best.is_none_or(|best| better(&tuned, &best)) {
            best = Some(tuned);
        }
    }
    best.ok_or(BaselineError::Parameter { key: "candidates", value: "empty".to_owned(), expected: "at least one rule" })
}

fn better(a: &Tuned, b: &Tuned) -> bool {
    let keeps = |tuned: &Tuned| (tuned.point.met && tuned.within_budget, tuned.point.met, tuned.within_budget);
    if keeps(a) != keeps(b) {
        return keeps(a) > keeps(b);
    }
    if keeps(a).0 && a.tpr != b.tpr {
        return a.tpr > b.tpr;
    }
    a.mean_events < b.mean_events
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::baselines::rule::Evidence;

    /// Episodes of 4 windows of 10 events; the class shows from the second window on.
    fn sequences(benign: usize, malicious: usize) -> ScoreSequences {
        let mut out = ScoreSequences::default();
        for i in 0..benign + malicious {
            let bad = i >= benign;
            let noise = (i * 7 % 10) as f32 / 10.0;
            let shown = if bad { 1.0 } else { -1.0 };
            out.labels.push(if bad { Label::Malicious } else { Label::Benign });
            out.scores.push(vec![noise, shown + noise, 2.0 * shown + noise, 3.0 * shown + noise]);
            out.events.push(vec![10, 20, 30, 40]);
        }
        out
    }

    #[test]
    fn the_best_rule_within_the_budget_wins() {
        let list = sequences(100, 50);
        let prefixes: Vec<(usize, Shape)> = [1, 2, 4].map(|windows| (0, Shape::Prefix { windows })).into();
        let tuned = tune(&[&list], &prefixes, 0.05, Some(25.0)).unwrap();
        assert_eq!(tuned.shape, Shape::Prefix { windows: 2 });
        assert_eq!((tuned.tpr, tuned.mean_events, tuned.point.met, tuned.within_budget), (1.0, 20.0, true, true));
        let cheap = tune(&[&list], &prefixes, 0.05, Some(5.0)).unwrap();
        assert_eq!((cheap.shape, cheap.within_budget), (Shape::Prefix { windows: 1 }, false));
        let free = tune(&[&list], &prefixes[2..], 0.05, None).unwrap();
        assert_eq!((free.mean_events, free.within_budget), (40.0, true));
    }

    #[test]
    fn two_bounds_save_events_over_the_fixed_prefix() {
        let list = sequences(100, 50);
        let shape = Shape::Sequential { evidence: Evidence::Newest, lower: -0.05, end: 0.0 };
        let tuned = tune(&[&list], &[(0, shape)], 0.05, None).unwrap();
        assert_eq!((tuned.tpr, tuned.point.met), (1.0, true));
        assert!(tuned.mean_events <= 21.0, "{}", tuned.mean_events);
    }

    #[test]
    fn refusals() {
        let list = sequences(10, 0);
        let shape = Shape::Prefix { windows: 1 };
        assert!(matches!(
            tune(&[&list], &[(0, shape)], 0.05, None),
            Err(BaselineError::OneClass { missing: "malicious" })
        ));
        assert!(matches!(tune(&[&list], &[], 0.05, None), Err(BaselineError::Parameter { key: "candidates", .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn the_target_is_kept_on_calibration_and_no_lower_candidate_keeps_it(
            benign in prop::collection::vec(prop::collection::vec(-3i8..4, 1..5), 5..60),
            malicious in prop::collection::vec(prop::collection::vec(-3i8..4, 1..5), 1..20),
            windows in 1u32..5,
            first_crossing: bool,
            target in 0.02f64..0.5,
        ) {
            let mut list = ScoreSequences::default();
            for (label, episodes) in [(Label::Benign, &benign), (Label::Malicious, &malicious)] {
                for scores in episodes {
                    list.labels.push(label);
                    list.scores.push(scores.iter().map(|&score| f32::from(score)).collect());
                    list.events.push((1..=scores.len() as u64).collect());
                }
            }
            let shape = if first_crossing { Shape::FirstCrossing { windows } } else { Shape::Prefix { windows } };
            let tuned = tune(&[&list], &[(0, shape)], target, None).unwrap();
            let false_positives = |rule: &StoppingRule| {
                let stops = list.stops(rule);
                stops.iter().zip(&list.labels)
                    .filter(|(stop, label)| stop.verdict == Verdict::Malicious && **label == Label::Benign)
                    .count() as f64
            };
            let n = benign.len() as f64;
            let rate = |rule: &StoppingRule| (false_positives(rule) + 1.0) / (n + 1.0);
            if tuned.point.met {
                prop_assert!(rate(&tuned.rule) <= target + 1e-9);
                // Scores are whole numbers, so half a step lower is the next real alternative.
                let lower = shape.rule(tuned.point.setting - 0.5);
                let lowest = list.thresholds(&shape)[0];
                prop_assert!(tuned.point.setting <= lowest || rate(&lower) > target);
            } else {
                prop_assert_eq!(false_positives(&tuned.rule), 0.0);
            }
        }
    }
}
