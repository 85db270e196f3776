//! All baselines, trained, tuned and replayed.

use std::collections::BTreeMap;

use bellwether_env_adapter::Action;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::classifier::ClassifierConfig;
use super::clone::{ClonedRule, ClonedScores};
use super::rule::{Evidence, Shape};
use super::scorer::{ScorerKind, by_fold};
use super::tune::{ScoreSequences, Tuned, tune};
use super::{BaselineError, Recordings, require_both_classes};
use crate::evaluate::report::{BaselineOutcomes, PolicyOutcomes};
use crate::evaluate::{Outcome, Stop};

/// Prefix lengths in windows that are tried.
const PREFIXES: [u32; 20] = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 256, 512, u32::MAX];

/// Shares of the scores of all windows at which lower bounds are tried.
const LOWER_BOUNDS: [f64; 9] = [0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7];

/// Positions of the threshold at the end between the bounds.
const ENDS: [f32; 3] = [0.0, 0.25, 0.5];

/// Scores for stopping from which on a clone stops: 0 where stopping is the likelier action, below it to save events.
const CLONE_STOPS: [f32; 8] = [0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// One operating point of the policy, which baselines must match.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BaselineTarget {
    /// The target false-positive rate.
    pub target_fpr: f64,
    /// The cost of a false positive at which returns are counted: the policy's at this target.
    pub cost: f32,
    /// Mean events of the policy where it is evaluated: what a baseline may spend on the calibration episodes.
    pub mean_events: f64,
}

/// How baselines are trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BaselineConfig {
    /// The classifier.
    pub classifier: ClassifierConfig,
}

/// Trains every baseline on `train`, tunes it for each target, and replays it on `test`.
///
/// As for the policy, every training episode calibrates: its scores come from a classifier that was trained without its
/// fold (`folds`, one number per training episode), and what is replayed was trained on all of them.
///
/// - `run_to_end`: the classifier on all windows, without regard to events.
/// - `fixed_prefix`: the classifier on the first N windows; N and the choice between a classifier of all prefixes and one of
///   that prefix alone are made on calibration, at no more mean events than the policy.
/// - `sprt`: two bounds on the classifier's log-odds (or their sum), at no more mean events than the policy.
/// - `percentile`: the percentile detector at a fixed prefix or at its first crossing, at no more mean events.
/// - `clone`: classifiers that imitate whichever of the last three did best on calibration at the first target, made to stop
///   early enough to keep the mean events.
///
/// # Errors
/// [`BaselineError::NoEpisodes`] and [`BaselineError::OneClass`] where `train` lacks a class, all folds or all but one;
/// [`BaselineError::Width`] where states differ, [`BaselineError::Parameter`] without a target; and as training and tuning.
pub fn evaluate_baselines(
    train: &dyn Recordings,
    folds: &[u32],
    test: &dyn Recordings,
    targets: &[BaselineTarget],
    config: &BaselineConfig,
) -> Result<Vec<BaselineOutcomes>, BaselineError> {
    config.classifier.validate()?;
    require_both_classes(train)?;
    if folds.len() != train.len() {
        return Err(BaselineError::Parameter {
            key: "folds",
            value: format!("{} numbers", folds.len()),
            expected: "one number per training episode",
        });
    }
    if test.width() != train.width() {
        return Err(BaselineError::Width { expected: train.width(), found: test.width() });
    }
    let &[first, ..] = targets else {
        return Err(BaselineError::Parameter {
            key: "targets",
            value: "empty".to_owned(),
            expected: "at least one target false-positive rate",
        });
    };
    let mut suite = Suite { train, folds, test, config, scorers: Vec::new() };
    let run_to_end = suite.run_to_end(targets)?;
    let fixed_prefix = suite.fixed_prefix(targets)?;
    let sprt = suite.sprt(targets)?;
    let percentile = suite.percentile(targets)?;
    let teacher = [&fixed_prefix[0], &sprt[0], &percentile[0]]
        .into_iter()
        // The first of the best: `max_by` would take the last.
        .reduce(|best, other| if teaches_better(other, best) { other } else { best })
        .copied();

    let mut out = Vec::new();
    for (name, tuned) in
        [("run_to_end", run_to_end), ("fixed_prefix", fixed_prefix), ("sprt", sprt), ("percentile", percentile)]
    {
        out.push(suite.replay(name, &tuned, targets));
    }
    if let Some(teacher) = teacher {
        out.push(suite.clone_of(&teacher, first, targets)?);
    }
    Ok(out)
}

fn teaches_better(a: &Tuned, b: &Tuned) -> bool {
    let key = |tuned: &Tuned| (tuned.point.met && tuned.within_budget, tuned.tpr);
    let ((fits_a, tpr_a), (fits_b, tpr_b)) = (key(a), key(b));
    (fits_a && !fits_b) || (fits_a == fits_b && tpr_a > tpr_b)
}

/// A trained scorer's scores.
struct Scored {
    kind: ScorerKind,
    /// Of the training episodes, each by what was trained without its fold.
    calibration: ScoreSequences,
    test: ScoreSequences,
}

struct Suite<'a> {
    train: &'a dyn Recordings,
    folds: &'a [u32],
    test: &'a dyn Recordings,
    config: &'a BaselineConfig,
    scorers: Vec<Scored>,
}

impl Suite<'_> {
    /// The position of a scorer, which is trained when first asked for.
    fn scorer(&mut self, kind: ScorerKind) -> Result<usize, BaselineError> {
        if let Some(position) = self.scorers.iter().position(|scored| scored.kind == kind) {
            return Ok(position);
        }
        let scorer = kind.fit(self.train, &self.config.classifier)?;
        self.scorers.push(Scored {
            kind,
            calibration: kind.cross_fitted(self.train, self.folds, &self.config.classifier)?,
            test: ScoreSequences::of(self.test, scorer.as_ref())?,
        });
        Ok(self.scorers.len() - 1)
    }

    fn tune(&self, candidates: &[(usize, Shape)], target: f64, budget: Option<f64>) -> Result<Tuned, BaselineError> {
        let sequences: Vec<&ScoreSequences> = self.scorers.iter().map(|scored| &scored.calibration).collect();
        tune(&sequences, candidates, target, budget)
    }

    fn run_to_end(&mut self, targets: &[BaselineTarget]) -> Result<Vec<Tuned>, BaselineError> {
        let shape = Shape::Prefix { windows: u32::MAX };
        let candidates = [
            (self.scorer(ScorerKind::Prefixes)?, shape),
            (self.scorer(ScorerKind::Prefix { windows: u32::MAX })?, shape),
        ];
        targets.iter().map(|target| self.tune(&candidates, target.target_fpr, None)).collect()
    }

    /// Mean events of the calibration episodes at each prefix length.
    fn prefix_events(&self) -> BTreeMap<u32, f64> {
        let mean = |windows: u32| {
            let sum: u64 = (0..self.train.len())
                .map(|episode| self.train.events(episode, windows.min(self.train.windows(episode)).max(1) - 1))
                .sum();
            sum as f64 / self.train.len() as f64
        };
        PREFIXES.into_iter().map(|windows| (windows, mean(windows))).collect()
    }

    fn fixed_prefix(&mut self, targets: &[BaselineTarget]) -> Result<Vec<Tuned>, BaselineError> {
        let all = self.scorer(ScorerKind::Prefixes)?;
        let events = self.prefix_events();
        let mut out = Vec::new();
        for target in targets {
            let mut candidates: Vec<(usize, Shape)> =
                PREFIXES.into_iter().map(|windows| (all, Shape::Prefix { windows })).collect();
            // A classifier of one prefix alone is worth its training for the two longest that fit the budget.
            let affordable = events.iter().filter(|(_, mean)| **mean <= target.mean_events * (1.0 + 1e-9));
            for (&windows, _) in affordable.rev().take(2) {
                candidates.push((self.scorer(ScorerKind::Prefix { windows })?, Shape::Prefix { windows }));
            }
            out.push(self.tune(&candidates, target.target_fpr, Some(target.mean_events))?);
        }
        Ok(out)
    }

    fn sprt(&mut self, targets: &[BaselineTarget]) -> Result<Vec<Tuned>, BaselineError> {
        let all = self.scorer(ScorerKind::Prefixes)?;
        let scores = &self.scorers[all].calibration.scores;
        let mut candidates = vec![(all, Shape::FirstCrossing { windows: u32::MAX })];
        for evidence in [Evidence::Newest, Evidence::Sum] {
            let mut values: Vec<f32> = Vec::new();
            for episode in scores {
                let mut sum = 0.0;
                values.extend(episode.iter().map(|score| {
                    sum += score;
                    if evidence == Evidence::Sum { sum } else { *score }
                }));
            }
            values.sort_unstable_by(f32::total_cmp);
            for share in LOWER_BOUNDS {
                let Some(&lower) = values.get((share * values.len() as f64) as usize) else { continue };
                candidates.extend(ENDS.map(|end| (all, Shape::Sequential { evidence, lower, end })));
            }
        }
        targets.iter().map(|target| self.tune(&candidates, target.target_fpr, Some(target.mean_events))).collect()
    }

    fn percentile(&mut self, targets: &[BaselineTarget]) -> Result<Vec<Tuned>, BaselineError> {
        let detector = self.scorer(ScorerKind::Percentile)?;
        let candidates: Vec<(usize, Shape)> = PREFIXES
            .into_iter()
            .flat_map(|windows| [Shape::Prefix { windows }, Shape::FirstCrossing { windows }])
            .map(|shape| (detector, shape))
            .collect();
        targets.iter().map(|target| self.tune(&candidates, target.target_fpr, Some(target.mean_events))).collect()
    }

    /// Replays the tuned rules on the test episodes.
    fn replay(&self, name: &str, tuned: &[Tuned], targets: &[BaselineTarget]) -> BaselineOutcomes {
        let describe = |tuned: &Tuned| describe(self.scorers[tuned.scorer].kind, &tuned.shape);
        let by_target: Vec<String> = targets
            .iter()
            .zip(tuned)
            .map(|(target, tuned)| format!("at {} % FPR: {}", 100.0 * target.target_fpr, describe(tuned)))
            .collect();
        let scores = tuned.iter().map(|tuned| {
            let Scored { calibration, test, .. } = &self.scorers[tuned.scorer];
            (calibration, test)
        });
        self.outcomes(name, by_target.join("; "), &scores.collect::<Vec<_>>(), tuned, targets)
    }

    fn clone_of(
        &self,
        teacher: &Tuned,
        first: BaselineTarget,
        targets: &[BaselineTarget],
    ) -> Result<BaselineOutcomes, BaselineError> {
        let kind = self.scorers[teacher.scorer].kind;
        let stops = self.scorers[teacher.scorer].calibration.stops(&teacher.rule);
        let config = &self.config.classifier;
        let cut = |scores: ClonedScores| CLONE_STOPS.map(|threshold| scores.cut(threshold));
        let test = cut(ClonedRule::learn(self.train, &stops, config)?.scores(self.test)?);
        let parts = by_fold(self.train, self.folds, |known, blind| {
            ClonedRule::learn(known, &known.pick(&stops), config)?.scores(blind)
        })?;
        let calibration = cut(ClonedScores::of_folds(parts));
        let calibration: Vec<&ScoreSequences> = calibration.iter().collect();
        let candidates: Vec<(usize, Shape)> =
            (0..CLONE_STOPS.len()).map(|position| (position, Shape::Prefix { windows: u32::MAX })).collect();
        let tuned: Vec<Tuned> = targets
            .iter()
            .map(|target| tune(&calibration, &candidates, target.target_fpr, Some(target.mean_events)))
            .collect::<Result<_, _>>()?;
        let scores = tuned.iter().map(|tuned| (calibration[tuned.scorer], &test[tuned.scorer]));
        let description = format!(
            "imitates the best fixed rule at {} % FPR ({})",
            100.0 * first.target_fpr,
            describe(kind, &teacher.shape)
        );
        Ok(self.outcomes("clone", description, &scores.collect::<Vec<_>>(), &tuned, targets))
    }

    /// Replays each tuned rule on the test episodes; `scores` holds those of the training and of the test episodes by target.
    fn outcomes(
        &self,
        name: &str,
        description: String,
        scores: &[(&ScoreSequences, &ScoreSequences)],
        tuned: &[Tuned],
        targets: &[BaselineTarget],
    ) -> BaselineOutcomes {
        let convictions: Vec<Action> = targets
            .iter()
            .zip(tuned)
            .zip(scores)
            .map(|((target, tuned), (calibration, _))| self.conviction(&calibration.stops(&tuned.rule), target.cost))
            .collect();
        let operating = (0..targets.len())
            .map(|i| {
                let stops = scores[i].1.stops(&tuned[i].rule);
                (tuned[i].point, replay(self.test, &stops, convictions[i], targets[i].cost))
            })
            .collect();
        // In hindsight: thresholds between the test episodes' own scores, for the rule of the first target.
        let (shape, (_, test)) = (&tuned[0].shape, scores[0]);
        let curve = test
            .thresholds(shape)
            .into_iter()
            .map(|threshold| {
                let stops = test.stops(&shape.rule(threshold));
                (threshold, replay(self.test, &stops, convictions[0], targets[0].cost))
            })
            .collect();
        let actions: Vec<&str> = convictions.iter().map(|action| action.name()).collect();
        let description = format!("{description}; convicts by {}", actions.join(", "));
        BaselineOutcomes { name: name.to_owned(), description, outcomes: PolicyOutcomes { operating, curve } }
    }

    /// The conviction that earns more where the training episodes are stopped so.
    fn conviction(&self, stops: &[Stop], cost: f32) -> Action {
        let earned =
            |action: Action| -> f64 { replay(self.train, stops, action, cost).iter().map(|outcome| outcome.ret).sum() };
        match earned(Action::Quarantine) >= earned(Action::Terminate) {
            true => Action::Quarantine,
            false => Action::Terminate,
        }
    }
}

/// What becomes of each episode where it is stopped.
fn replay(recordings: &dyn Recordings, stops: &[Stop], conviction: Action, cost: f32) -> Vec<Outcome> {
    stops.iter().enumerate().map(|(episode, stop)| recordings.outcome(episode, *stop, conviction, cost)).collect()
}

/// What a tuned rule does, in words.
fn describe(kind: ScorerKind, shape: &Shape) -> String {
    let length = |windows: u32| match windows {
        u32::MAX => "all windows".to_owned(),
        1 => "the first window".to_owned(),
        windows => format!("the first {windows} windows"),
    };
    let scorer = match kind {
        ScorerKind::Prefixes => "boosted trees of all prefixes".to_owned(),
        ScorerKind::Prefix { windows } => format!("boosted trees of {}", length(windows)),
        ScorerKind::Percentile => "percentile of the distance from benign states".to_owned(),
    };
    match shape {
        Shape::Prefix { windows } => format!("{scorer}, decided after {}", length(*windows)),
        Shape::FirstCrossing { windows } => format!("{scorer}, at the first crossing within {}", length(*windows)),
        Shape::Sequential { evidence, lower, end } => {
            let evidence = if *evidence == Evidence::Sum { "their sum" } else { "the newest" };
            format!("{scorer}, two bounds on {evidence}, the lower at {lower}, at the end {end} of the way down to it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Toy;
    use super::*;
    use crate::evaluate::{Bootstrap, Evaluation, Groups, summarise};

    fn config() -> BaselineConfig {
        BaselineConfig {
            classifier: ClassifierConfig { trees: 30, max_depth: 4, max_rows: 2000, ..ClassifierConfig::default() },
        }
    }

    fn target(target_fpr: f64, mean_events: f64) -> BaselineTarget {
        BaselineTarget { target_fpr, cost: 0.5, mean_events }
    }

    fn folds(episodes: u32) -> Vec<u32> {
        (0..episodes).map(|episode| episode % 4).collect()
    }

    #[test]
    fn every_baseline_is_tuned_and_replayed() {
        let (train, folds, test) = (Toy::new(300, 100, 1), folds(400), Toy::new(300, 40, 3));
        let targets = [target(0.1, 60.0), target(0.05, 70.0)];
        let baselines = evaluate_baselines(&train, &folds, &test, &targets, &config()).unwrap();
        let names: Vec<&str> = baselines.iter().map(|baseline| baseline.name.as_str()).collect();
        assert_eq!(names, ["run_to_end", "fixed_prefix", "sprt", "percentile", "clone"]);
        for baseline in &baselines {
            assert_eq!(baseline.outcomes.operating.len(), 2);
            for ((point, outcomes), target) in baseline.outcomes.operating.iter().zip(&targets) {
                assert_eq!((point.target_fpr, outcomes.len()), (target.target_fpr, 340));
                let metrics = summarise(outcomes).metrics;
                if baseline.name != "run_to_end" {
                    let events = metrics.mean_events.unwrap();
                    assert!(events <= 1.3 * target.mean_events, "{}: {events}", baseline.name);
                }
                assert!(metrics.fpr.unwrap() <= target.target_fpr + 0.08, "{}: {metrics:?}", baseline.name);
                if matches!(baseline.name.as_str(), "run_to_end" | "fixed_prefix" | "sprt") {
                    assert!(metrics.tpr.unwrap() >= 0.75, "{}: {metrics:?}", baseline.name);
                }
            }
            assert!(baseline.outcomes.curve.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
        // The suite's outcomes fit the report; the first baseline stands in for a policy.
        let mut groups = Groups::new();
        for _ in 0..test.len() {
            groups.intern(None);
        }
        let bootstrap = Bootstrap { replicates: 100, seed: 0 };
        let report = Evaluation::build(&baselines[0].outcomes, &baselines[1..], &groups, &bootstrap).unwrap();
        assert!(report.oracle.auc.unwrap() > 0.95, "{:?}", report.oracle);
        assert_eq!(report.baselines.len(), 4);
        // The same data and seed give the same outcomes.
        assert_eq!(evaluate_baselines(&train, &folds, &test, &targets, &config()).unwrap(), baselines);
    }

    #[test]
    fn refusals() {
        let toy = Toy::new(10, 10, 1);
        let run = |train: &Toy, folds: &[u32], targets: &[BaselineTarget]| {
            evaluate_baselines(train, folds, &toy, targets, &config()).unwrap_err()
        };
        let targets = [target(0.05, 50.0)];
        assert!(matches!(run(&toy, &folds(20), &[]), BaselineError::Parameter { key: "targets", .. }));
        assert!(matches!(run(&toy, &folds(19), &targets), BaselineError::Parameter { key: "folds", .. }));
        assert!(matches!(run(&Toy::new(0, 0, 1), &[], &targets), BaselineError::NoEpisodes));
        let no_malicious = run(&Toy::new(5, 0, 1), &folds(5), &targets);
        assert!(matches!(no_malicious, BaselineError::OneClass { missing: "malicious" }));
        // The classifier of the first fold would see no malicious episode.
        let apart: Vec<u32> = (0..20).map(|episode| u32::from(episode < 10)).collect();
        assert!(matches!(run(&toy, &apart, &targets), BaselineError::OneClass { .. }));
    }
}
