//! How far the q-values of a policy are from the returns that it has: over-estimation (van Hasselt, Guez and Silver 2016, *Deep
//! Reinforcement Learning with Double Q-learning*, section "Overoptimism due to estimation errors") and calibration.
//!
//! Like is compared with like. A q-value is held against the return from the same decision on, under the same cost of a false positive and
//! the discount that it was learnt with. It is a mean over the states that a network learnt from, so decisions weigh here what
//! their states weighed there: a network that is right about what it was drawn has an over-estimation of 0.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bootstrap::{Bootstrap, Interval};
use super::error::EvaluationError;
use super::operating_point::OperatingPoint;
use super::outcome::Outcome;

/// Bins of a calibration table.
const BINS: usize = 10;

/// How the states were drawn that a network learnt from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Drawn {
    /// A class, then one of its episodes, then a window of that.
    ByClass,
    /// Every step alike.
    ByStep,
}

/// A decision of a policy that follows its largest q-value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// Position of the episode in the evaluated data.
    pub episode: u32,
    /// Its family, as in [`Outcome`].
    pub group: u32,
    /// Whether the sample is malicious.
    pub is_malicious: bool,
    /// Decisions of the episode before this one.
    pub before: u32,
    /// Windows of the whole recording, at least 1.
    pub windows: u32,
    /// The q-value of what was chosen.
    pub q_value: f32,
    /// The discounted sum of the rewards from here on.
    pub ret: f64,
    /// Probability of malice by the q-value of `terminate`, in 0 to 1.
    pub malicious: Option<f32>,
}

/// Q-values beside returns at one operating point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ValueReport {
    /// The target false-positive rate.
    pub target_fpr: f64,
    /// Discount per window of the returns.
    pub discount: f32,
    /// How decisions are weighed: as their states were drawn in training.
    pub drawn: Drawn,
    /// The first decision of every episode.
    pub first: Overestimation,
    /// Every decision.
    pub all: Overestimation,
    /// Every decision by the windows seen until then, in ranges that double.
    pub by_window: Vec<WindowOverestimation>,
    /// Every decision by its q-value, ascending, in bins of equal counts.
    pub calibration: Vec<ValueBin>,
    /// Whether "malicious" is as probable as the network says; null where it does not say.
    pub malicious: Option<Reliability>,
}

/// Mean q-value and mean return.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Overestimation {
    /// Decisions.
    pub decisions: u64,
    /// Mean q-value of what was chosen.
    pub mean_q: f64,
    /// Mean discounted return from there on.
    pub mean_return: f64,
    /// The first minus the second: above 0 where the network expects too much.
    pub overestimation: f64,
    /// 95 % interval of the difference, families resampled; null where there are too few.
    pub ci95: Option<Interval>,
}

/// Over-estimation in a range of windows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WindowOverestimation {
    /// Fewest windows seen, the one that is decided on included.
    pub from: u32,
    /// Most.
    pub to: u32,
    /// The means.
    #[serde(flatten)]
    pub overestimation: Overestimation,
}

/// Decisions of similar q-values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ValueBin {
    /// Decisions.
    pub decisions: u64,
    /// Smallest q-value.
    pub lowest_q: f64,
    /// Largest.
    pub highest_q: f64,
    /// Mean q-value.
    pub mean_q: f64,
    /// Mean discounted return.
    pub mean_return: f64,
}

/// Probabilities of malice beside what samples are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reliability {
    /// Mean squared difference of probability and class (Brier 1950).
    pub brier_score: f64,
    /// Mean over the bins of the distance of mean probability and share, by weight.
    pub expected_calibration_error: f64,
    /// Decisions by their probability, ascending, in bins of equal counts.
    pub bins: Vec<ReliabilityBin>,
}

/// Decisions of similar probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReliabilityBin {
    /// Decisions.
    pub decisions: u64,
    /// Mean probability.
    pub mean_probability: f64,
    /// Share of malicious samples.
    pub malicious: f64,
}

impl ValueReport {
    /// Compares decisions with what came of them.
    ///
    /// `outcomes` and `decisions` are of the same episodes at the same operating point. `None` without a decision.
    ///
    /// # Errors
    /// [`EvaluationError::Parameter`] for a wrong number of replicates.
    pub fn build(
        point: &OperatingPoint,
        (discount, drawn): (f32, Drawn),
        outcomes: &[Outcome],
        decisions: &[Decision],
        bootstrap: &Bootstrap,
    ) -> Result<Option<Self>, EvaluationError> {
        let weights = Weights::new(decisions, drawn);
        let of = |some: &[Decision]| weights.overestimation(some, outcomes, bootstrap);
        let some = |keep: &dyn Fn(&Decision) -> bool| decisions.iter().copied().filter(keep).collect::<Vec<_>>();
        let (Some(first), Some(all)) = (of(&some(&|decision| decision.before == 0))?, of(decisions)?) else {
            return Ok(None);
        };
        let mut by_window = Vec::new();
        let most = decisions.iter().map(|decision| decision.before + 1).max().unwrap_or(0);
        let (mut from, mut to) = (1_u32, 1_u32);
        while from <= most {
            let range = some(&|decision| (from..=to).contains(&(decision.before + 1)));
            if let Some(overestimation) = of(&range)? {
                by_window.push(WindowOverestimation { from, to: to.min(most), overestimation });
            }
            (from, to) = (to + 1, to.saturating_mul(2));
        }
        Ok(Some(ValueReport {
            target_fpr: point.target_fpr,
            discount,
            drawn,
            first,
            all,
            by_window,
            calibration: weights.calibration(decisions),
            malicious: weights.reliability(decisions),
        }))
    }
}

/// Mean q-value minus mean return over the first decisions; `None` without a decision.
pub fn first_overestimation(decisions: &[Decision], drawn: Drawn) -> Option<f64> {
    let weights = Weights::new(decisions, drawn);
    let first = decisions.iter().filter(|decision| decision.before == 0);
    let [mean_q, mean_return] = weights.means(first.map(|d| (d, [f64::from(d.q_value), d.ret])))?;
    Some(mean_q - mean_return)
}

/// What a decision weighs.
struct Weights {
    drawn: Drawn,
    /// Episodes of each class.
    episodes: [u64; 2],
}

/// What a group adds to both classes: weighed q-values minus returns, weights, episodes.
type Sums = [[f64; 3]; 2];

impl Weights {
    fn new(decisions: &[Decision], drawn: Drawn) -> Self {
        let mut episodes = [0; 2];
        for decision in decisions.iter().filter(|decision| decision.before == 0) {
            episodes[usize::from(decision.is_malicious)] += 1;
        }
        Weights { drawn, episodes }
    }

    /// The weight among decisions of its class.
    fn within_class(&self, decision: &Decision) -> f64 {
        match self.drawn {
            Drawn::ByClass => 1.0 / f64::from(decision.windows.max(1)),
            Drawn::ByStep => 1.0,
        }
    }

    /// The weight of a class with so many episodes, by which what its decisions weigh is multiplied.
    fn of_class(&self, episodes: f64) -> f64 {
        match self.drawn {
            Drawn::ByClass if episodes > 0.0 => 1.0 / episodes,
            Drawn::ByClass => 0.0,
            Drawn::ByStep => 1.0,
        }
    }

    fn weight(&self, decision: &Decision) -> f64 {
        let episodes = self.episodes[usize::from(decision.is_malicious)];
        self.within_class(decision) * self.of_class(episodes as f64)
    }

    /// Weighed means of two numbers of each decision; `None` without weight.
    fn means<'a>(&self, values: impl Iterator<Item = (&'a Decision, [f64; 2])>) -> Option<[f64; 2]> {
        let (mut sums, mut total) = ([0.0; 2], 0.0);
        for (decision, values) in values {
            let weight = self.weight(decision);
            total += weight;
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += weight * value;
            }
        }
        (total > 0.0).then(|| sums.map(|sum| sum / total))
    }

    fn overestimation(
        &self,
        decisions: &[Decision],
        outcomes: &[Outcome],
        bootstrap: &Bootstrap,
    ) -> Result<Option<Overestimation>, EvaluationError> {
        let values = decisions.iter().map(|decision| (decision, [f64::from(decision.q_value), decision.ret]));
        let Some([mean_q, mean_return]) = self.means(values) else { return Ok(None) };
        let mut groups: BTreeMap<u32, Sums> = BTreeMap::new();
        for outcome in outcomes {
            groups.entry(outcome.group).or_default()[usize::from(outcome.is_malicious())][2] += 1.0;
        }
        for decision in decisions {
            let [difference, weight, _] =
                &mut groups.entry(decision.group).or_default()[usize::from(decision.is_malicious)];
            let own = self.within_class(decision);
            *difference += own * (f64::from(decision.q_value) - decision.ret);
            *weight += own;
        }
        let ci95 = bootstrap.of_groups(outcomes, &groups, |drawn| {
            let mut sums = Sums::default();
            for (times, of_group) in drawn {
                let times = f64::from(times);
                for (sum, own) in sums.iter_mut().flatten().zip(of_group.iter().flatten()) {
                    *sum += times * own;
                }
            }
            let [mut difference, mut weight] = [0.0; 2];
            for [of_class, own, episodes] in sums {
                difference += of_class * self.of_class(episodes);
                weight += own * self.of_class(episodes);
            }
            (weight > 0.0).then(|| difference / weight)
        })?;
        let decisions = decisions.len() as u64;
        Ok(Some(Overestimation { decisions, mean_q, mean_return, overestimation: mean_q - mean_return, ci95 }))
    }

    fn calibration(&self, decisions: &[Decision]) -> Vec<ValueBin> {
        let mut sorted = decisions.to_vec();
        sorted.sort_by(|a, b| a.q_value.total_cmp(&b.q_value).then((a.episode, a.before).cmp(&(b.episode, b.before))));
        let bin = |bin: &[Decision]| {
            let values = bin.iter().map(|decision| (decision, [f64::from(decision.q_value), decision.ret]));
            let [mean_q, mean_return] = self.means(values)?;
            Some(ValueBin {
                decisions: bin.len() as u64,
                lowest_q: bin.first()?.q_value.into(),
                highest_q: bin.last()?.q_value.into(),
                mean_q,
                mean_return,
            })
        };
        bins(&sorted).filter_map(bin).collect()
    }

    fn reliability(&self, decisions: &[Decision]) -> Option<Reliability> {
        let mut sorted: Vec<(Decision, f64)> =
            decisions.iter().map(|decision| Some((*decision, decision.malicious?.into()))).collect::<Option<_>>()?;
        sorted.sort_by(|(a, p), (b, r)| p.total_cmp(r).then((a.episode, a.before).cmp(&(b.episode, b.before))));
        let class = |decision: &Decision| f64::from(u8::from(decision.is_malicious));
        let squared = sorted.iter().map(|(decision, p)| (decision, [(p - class(decision)).powi(2), 0.0]));
        let [brier_score, _] = self.means(squared)?;
        let (mut error, mut total) = (0.0, 0.0);
        let mut out = Vec::new();
        for bin in bins(&sorted) {
            let values = bin.iter().map(|(decision, p)| (decision, [*p, class(decision)]));
            let [mean_probability, malicious] = self.means(values)?;
            let weight: f64 = bin.iter().map(|(decision, _)| self.weight(decision)).sum();
            error += weight * (mean_probability - malicious).abs();
            total += weight;
            out.push(ReliabilityBin { decisions: bin.len() as u64, mean_probability, malicious });
        }
        Some(Reliability { brier_score, expected_calibration_error: error / total, bins: out })
    }
}

/// Slices whose lengths differ by one at most; no empty one.
fn bins<T>(sorted: &[T]) -> impl Iterator<Item = &[T]> {
    let count = sorted.len();
    (0..BINS).map(move |i| &sorted[i * count / BINS..(i + 1) * count / BINS]).filter(|bin| !bin.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::summary::tests::outcome;
    use super::*;

    /// `episodes` of each class, in families of two, each with `windows` decisions of which `q` says how they go.
    fn decisions(episodes: u32, windows: u32, q: impl Fn(bool, u32) -> (f32, f64)) -> (Vec<Outcome>, Vec<Decision>) {
        let (mut outcomes, mut all) = (Vec::new(), Vec::new());
        for episode in 0..2 * episodes {
            let is_malicious = episode >= episodes;
            outcomes.push(outcome(episode, is_malicious, episode / 2, is_malicious, 10));
            for before in 0..windows {
                let (q_value, ret) = q(is_malicious, before);
                let malicious = Some(if is_malicious { 0.8 } else { 0.3 });
                all.push(Decision {
                    episode,
                    group: episode / 2,
                    is_malicious,
                    before,
                    windows,
                    q_value,
                    ret,
                    malicious,
                });
            }
        }
        (outcomes, all)
    }

    fn point() -> OperatingPoint {
        OperatingPoint { target_fpr: 0.05, setting: 0.5, calibrated_fpr: 0.05, met: true, supported: true }
    }

    fn report(drawn: Drawn, (outcomes, decisions): &(Vec<Outcome>, Vec<Decision>)) -> ValueReport {
        let bootstrap = Bootstrap { replicates: 200, seed: 1 };
        ValueReport::build(&point(), (1.0, drawn), outcomes, decisions, &bootstrap).unwrap().unwrap()
    }

    #[test]
    fn a_network_that_expects_half_a_unit_too_much_is_told_so() {
        let report =
            report(Drawn::ByClass, &decisions(20, 5, |_, before| (1.0 - before as f32, 0.5 - f64::from(before))));
        for told in [report.first, report.all] {
            assert!((told.overestimation - 0.5).abs() < 1e-9, "{told:?}");
            let [low, high] = told.ci95.unwrap();
            assert!((low - 0.5).abs() < 1e-9 && (high - 0.5).abs() < 1e-9, "it is the same in every family: {told:?}");
        }
        assert_eq!((report.first.decisions, report.all.decisions), (40, 200));
        assert!((report.first.mean_q - 1.0).abs() < 1e-9 && (report.all.mean_q + 1.0).abs() < 1e-9);
        let ranges: Vec<(u32, u32, u64)> =
            report.by_window.iter().map(|at| (at.from, at.to, at.overestimation.decisions)).collect();
        assert_eq!(ranges, [(1, 1, 40), (2, 2, 40), (3, 4, 80), (5, 5, 40)]);
        assert_eq!(report.calibration.iter().map(|bin| bin.decisions).sum::<u64>(), 200);
        assert!(report.calibration.is_sorted_by(|a, b| a.highest_q <= b.lowest_q));
        assert!(report.calibration.iter().all(|bin| (bin.mean_q - bin.mean_return - 0.5).abs() < 1e-9));
    }

    #[test]
    fn families_that_differ_widen_the_interval() {
        let (outcomes, mut all) = decisions(20, 1, |_, _| (0.0, 0.0));
        for decision in &mut all {
            decision.q_value = if decision.group % 2 == 0 { 1.0 } else { -1.0 };
        }
        let [low, high] = report(Drawn::ByClass, &(outcomes.clone(), all.clone())).first.ci95.unwrap();
        assert!(low < -0.2 && high > 0.2, "20 families of +1 and -1: [{low}, {high}]");
        all.retain(|decision| decision.group < 3 || decision.group > 16);
        let few: Vec<Outcome> =
            outcomes.into_iter().filter(|outcome| outcome.group < 3 || outcome.group > 16).collect();
        assert_eq!(report(Drawn::ByClass, &(few, all)).first.ci95, None, "three families of a class say little");
    }

    /// Twice as many benign episodes: in training each class was half of what was drawn.
    #[test]
    fn classes_weigh_what_they_weighed_in_training() {
        let mut all = Vec::new();
        for episode in 0..30 {
            let is_malicious = episode >= 20;
            let windows = 2;
            for before in 0..windows {
                let ret = if is_malicious { 1.0 } else { 0.0 };
                let malicious = Some(0.5);
                all.push(Decision {
                    episode,
                    group: episode,
                    is_malicious,
                    before,
                    windows,
                    q_value: 0.5,
                    ret,
                    malicious,
                });
            }
        }
        assert!(first_overestimation(&all, Drawn::ByClass).unwrap().abs() < 1e-9, "half of what is drawn is malicious");
        assert!((first_overestimation(&all, Drawn::ByStep).unwrap() - (0.5 - 1.0 / 3.0)).abs() < 1e-9);
        // Windows of a recording of twice the length are drawn half as often.
        for decision in all.iter_mut().filter(|decision| !decision.is_malicious) {
            decision.windows = 4;
        }
        assert!((first_overestimation(&all, Drawn::ByClass).unwrap() - (0.5 - 2.0 / 3.0)).abs() < 1e-9);
        let outcomes: Vec<Outcome> = (0..30).map(|i| outcome(i, i >= 20, i, i >= 20, 10)).collect();
        let told = report(Drawn::ByClass, &(outcomes, all)).malicious.unwrap();
        assert!((told.brier_score - 0.25).abs() < 1e-9, "{told:?}");
    }

    #[test]
    fn probabilities_are_held_against_shares() {
        let told = report(Drawn::ByClass, &decisions(20, 1, |_, _| (0.0, 0.0))).malicious.unwrap();
        // .3 where none is malicious, .8 where all are.
        assert!((told.brier_score - (0.09 + 0.04) / 2.0).abs() < 1e-6, "{told:?}");
        assert!((told.expected_calibration_error - 0.25).abs() < 1e-6, "{told:?}");
        assert_eq!(told.bins.len(), BINS);
        assert_eq!((told.bins[0].malicious, told.bins[BINS - 1].malicious), (0.0, 1.0));
        let (outcomes, mut all) = decisions(20, 1, |_, _| (0.0, 0.0));
        all[7].malicious = None;
        assert_eq!(report(Drawn::ByClass, &(outcomes, all)).malicious, None);
    }

    #[test]
    fn nothing_decided_is_nothing_told() {
        let bootstrap = Bootstrap::default();
        assert_eq!(ValueReport::build(&point(), (1.0, Drawn::ByClass), &[], &[], &bootstrap), Ok(None));
        assert_eq!(first_overestimation(&[], Drawn::ByStep), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever the weights, ranges and bins are a partition of all decisions.
        #[test]
        fn ranges_and_bins_hold_every_decision_once(
            lengths in prop::collection::vec(1_u32..40, 1..12), drawn in prop_oneof![Just(Drawn::ByClass), Just(Drawn::ByStep)],
        ) {
            let mut all = Vec::new();
            for (episode, &windows) in (0..).zip(&lengths) {
                for before in 0..windows {
                    let (is_malicious, q_value) = (episode % 2 == 1, (before * 7 % 5) as f32);
                    let ret = f64::from(before % 3);
                    all.push(Decision { episode, group: episode, is_malicious, before, windows, q_value, ret, malicious: None });
                }
            }
            let outcomes: Vec<Outcome> =
                (0..lengths.len() as u32).map(|i| outcome(i, i % 2 == 1, i, false, 1)).collect();
            let bootstrap = Bootstrap { replicates: 100, seed: 0 };
            let told = ValueReport::build(&point(), (0.9, drawn), &outcomes, &all, &bootstrap).unwrap().unwrap();
            let count = all.len() as u64;
            prop_assert_eq!(told.by_window.iter().map(|at| at.overestimation.decisions).sum::<u64>(), count);
            prop_assert_eq!(told.calibration.iter().map(|bin| bin.decisions).sum::<u64>(), count);
            prop_assert_eq!(told.first.decisions, lengths.len() as u64);
            for bin in &told.calibration {
                prop_assert!(bin.lowest_q <= bin.mean_q + 1e-9 && bin.mean_q <= bin.highest_q + 1e-9);
            }
        }
    }
}
