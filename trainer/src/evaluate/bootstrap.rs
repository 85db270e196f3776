//! Intervals by bootstrap over groups: families, intrusions, benign jobs.
//!
//! Episodes of one family resemble each other, so an interval over episodes would be far too narrow: whole groups are
//! drawn with replacement. Groups that hold only benign episodes, only malicious ones, and both are drawn apart, so that
//! every replicate has as many groups of each kind as the data. The interval spans the 2.5 % and 97.5 % quantiles of the
//! replicates (the percentile method: Efron and Tibshirani 1993, chapter 13). With few groups (a dozen intrusions) it is
//! somewhat too narrow, as every bootstrap is.
//!
//! A rate of exactly 0 or 1 gives replicates without spread. There the interval is the exact binomial one (Clopper and
//! Pearson 1934) with the number of groups of that class as the number of trials: none in n leaves
//! `[0, 1 - 0.025^(1/n)]`.

use std::collections::BTreeMap;

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::EvaluationError;
use super::outcome::Outcome;
use super::summary::{AscendingEvents, METRICS, Metrics, Tally};
use crate::streams::stream;

/// Lower and upper end of a 95 % interval.
pub type Interval = [f64; 2];

/// Groups of a class that an interval needs at least. Resampling two or three groups gives little more than their extremes
/// and looks far more certain than it is.
pub const MIN_GROUPS: usize = 5;

/// The share that each tail of the interval leaves out.
const TAIL: f64 = 0.025;

/// What is drawn as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clusters {
    /// Groups: the rule.
    Groups,
    /// Single episodes: only within one family, where there is but one group.
    Episodes,
}

/// How often, and with which seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bootstrap {
    /// Replicates; at least 100.
    pub replicates: u32,
    /// Seed.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Bootstrap { replicates: 2000, seed: 0 }
    }
}

/// A difference between two policies over the same episodes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// First minus second.
    pub difference: f64,
    /// 95 % interval of the difference; null where there are too few groups.
    pub ci95: Option<Interval>,
}

impl Bootstrap {
    /// Refuses a number of replicates that has no tails.
    ///
    /// # Errors
    /// [`EvaluationError::Parameter`].
    pub fn validate(&self) -> Result<(), EvaluationError> {
        if (100..=1_000_000).contains(&self.replicates) {
            return Ok(());
        }
        Err(EvaluationError::Parameter {
            key: "replicates",
            value: self.replicates.to_string(),
            expected: "between 100 and 1,000,000",
        })
    }

    /// 95 % intervals of every metric; `None` for a metric that fewer than [`MIN_GROUPS`] groups of its class carry.
    ///
    /// # Errors
    /// [`EvaluationError::Parameter`] as in [`Bootstrap::validate`].
    pub fn intervals(
        &self,
        outcomes: &[Outcome],
        clusters: Clusters,
    ) -> Result<Metrics<Option<Interval>>, EvaluationError> {
        self.validate()?;
        let plan = Plan::new(outcomes, clusters);
        let sample = Sample::new(outcomes, &plan);
        let mut columns: [Vec<f64>; METRICS] = std::array::from_fn(|_| Vec::new());
        self.replicate(&plan, |weights| push(&mut columns, &sample.metrics(weights)));
        let observed = sample.metrics(&vec![1; plan.groups]).into_array();
        let trusted = plan.trusted();
        let mut out = [None; METRICS];
        for (i, column) in columns.iter_mut().enumerate() {
            if trusted[i] && observed[i].is_some() {
                out[i] = percentile_interval(column);
            }
        }
        for (i, groups) in [(0, plan.benign_groups), (1, plan.malicious_groups)] {
            if trusted[i]
                && let Some(exact) = observed[i].and_then(|rate| exact_interval(rate, groups))
            {
                out[i] = Some(exact);
            }
        }
        Ok(Metrics::from_array(out))
    }

    /// The difference `first - second` of every metric over the same episodes, with intervals from replicates in which
    /// both see the same groups.
    ///
    /// # Errors
    /// [`EvaluationError::Unpaired`] where the lists are not about the same episodes in the same order, and
    /// [`EvaluationError::Parameter`] as in [`Bootstrap::validate`].
    pub fn paired(
        &self,
        first: &[Outcome],
        second: &[Outcome],
        clusters: Clusters,
    ) -> Result<Metrics<Option<Difference>>, EvaluationError> {
        self.validate()?;
        let same = |(a, b): (&Outcome, &Outcome)| (a.episode, a.label, a.group) == (b.episode, b.label, b.group);
        let agreeing = first.iter().zip(second).take_while(|pair| same(*pair)).count();
        if agreeing < first.len().max(second.len()) {
            return Err(EvaluationError::Unpaired { position: agreeing });
        }
        let plan = Plan::new(first, clusters);
        let samples = [Sample::new(first, &plan), Sample::new(second, &plan)];
        let difference = |weights: &[u32]| {
            let [a, b] = [&samples[0], &samples[1]].map(|sample| sample.metrics(weights).into_array());
            Metrics::from_array(std::array::from_fn(|i| Some(a[i]? - b[i]?)))
        };
        let mut columns: [Vec<f64>; METRICS] = std::array::from_fn(|_| Vec::new());
        self.replicate(&plan, |weights| push(&mut columns, &difference(weights)));
        let observed = difference(&vec![1; plan.groups]).into_array();
        let trusted = plan.trusted();
        let mut out = [None; METRICS];
        for (i, column) in columns.iter_mut().enumerate() {
            out[i] = observed[i].map(|difference| Difference {
                difference,
                ci95: if trusted[i] { percentile_interval(column) } else { None },
            });
        }
        Ok(Metrics::from_array(out))
    }

    /// The 95 % interval of a statistic of what is known of each group, which it gets with how often the replicate draws the group; `None`
    /// where a class has fewer than [`MIN_GROUPS`] groups, or no replicate has a value.
    ///
    /// # Errors
    /// [`EvaluationError::Parameter`] as in [`Bootstrap::validate`].
    pub(super) fn of_groups<T>(
        &self,
        outcomes: &[Outcome],
        known: &BTreeMap<u32, T>,
        statistic: impl Fn(&mut dyn Iterator<Item = (u32, &T)>) -> Option<f64>,
    ) -> Result<Option<Interval>, EvaluationError> {
        self.validate()?;
        let plan = Plan::new(outcomes, Clusters::Groups);
        if plan.benign_groups.min(plan.malicious_groups) < MIN_GROUPS {
            return Ok(None);
        }
        let dense: BTreeMap<u32, u32> =
            outcomes.iter().map(|outcome| outcome.group).zip(plan.of_outcome.iter().copied()).collect();
        let known: Vec<(u32, &T)> =
            known.iter().filter_map(|(group, known)| Some((*dense.get(group)?, known))).collect();
        let mut column = Vec::new();
        self.replicate(&plan, |weights| {
            let mut drawn = known.iter().map(|(at, known)| (weights[*at as usize], *known));
            column.extend(statistic(&mut drawn));
        });
        Ok(percentile_interval(&mut column))
    }

    /// Calls `visit` with the multiplicities of one replicate after the other.
    fn replicate(&self, plan: &Plan, mut visit: impl FnMut(&[u32])) {
        let mut rng = stream(self.seed, "bootstrap");
        let mut weights = vec![0; plan.groups];
        for _ in 0..self.replicates {
            weights.fill(0);
            for stratum in &plan.strata {
                for _ in 0..stratum.len() {
                    weights[stratum[rng.random_range(0..stratum.len() as u32) as usize] as usize] += 1;
                }
            }
            visit(&weights);
        }
    }
}

/// Appends what is defined to the columns.
fn push(columns: &mut [Vec<f64>; METRICS], metrics: &Metrics<Option<f64>>) {
    for (column, value) in columns.iter_mut().zip(metrics.into_array()) {
        column.extend(value);
    }
}

/// The groups of a list of outcomes, renumbered densely, and the strata they are drawn from.
struct Plan {
    groups: usize,
    of_outcome: Vec<u32>,
    /// Groups with benign episodes only, with malicious ones only, with both.
    strata: [Vec<u32>; 3],
    benign_groups: usize,
    malicious_groups: usize,
}

impl Plan {
    fn new(outcomes: &[Outcome], clusters: Clusters) -> Self {
        let mut dense = BTreeMap::new();
        let mut classes: Vec<[bool; 2]> = Vec::new();
        let mut of_outcome = Vec::with_capacity(outcomes.len());
        for (position, outcome) in outcomes.iter().enumerate() {
            let key = match clusters {
                Clusters::Groups => u64::from(outcome.group),
                Clusters::Episodes => position as u64,
            };
            let group = *dense.entry(key).or_insert_with(|| {
                classes.push([false; 2]);
                classes.len() as u32 - 1
            });
            classes[group as usize][usize::from(outcome.is_malicious())] = true;
            of_outcome.push(group);
        }
        let mut strata: [Vec<u32>; 3] = Default::default();
        for (group, &[benign, malicious]) in classes.iter().enumerate() {
            let stratum = if benign && malicious { 2 } else { usize::from(malicious) };
            strata[stratum].push(group as u32);
        }
        Plan {
            groups: classes.len(),
            of_outcome,
            benign_groups: classes.iter().filter(|class| class[0]).count(),
            malicious_groups: classes.iter().filter(|class| class[1]).count(),
            strata,
        }
    }

    /// Which metrics have enough groups of every class that they are about.
    fn trusted(&self) -> [bool; METRICS] {
        let (benign, malicious) = (self.benign_groups, self.malicious_groups);
        let enough_or_absent = |groups: usize| groups == 0 || groups >= MIN_GROUPS;
        let both = self.groups >= MIN_GROUPS && enough_or_absent(benign) && enough_or_absent(malicious);
        let (benign, malicious) = (benign >= MIN_GROUPS, malicious >= MIN_GROUPS);
        Metrics {
            fpr: benign,
            tpr: malicious,
            mean_events_benign: benign,
            mean_events_malicious: malicious,
            median_events_benign: benign,
            median_events_malicious: malicious,
            mean_windows_benign: benign,
            mean_windows_malicious: malicious,
            harm_prevented: malicious,
            ..Metrics::from_array([both; METRICS])
        }
        .into_array()
    }
}

/// The sums of each group, and the events of all outcomes in ascending order for the medians.
struct Sample {
    tallies: Vec<Tally>,
    events: AscendingEvents,
}

impl Sample {
    fn new(outcomes: &[Outcome], plan: &Plan) -> Self {
        let mut tallies = vec![Tally::default(); plan.groups];
        for (outcome, &group) in outcomes.iter().zip(&plan.of_outcome) {
            tallies[group as usize].add(outcome);
        }
        Sample { tallies, events: AscendingEvents::new(outcomes, |i| plan.of_outcome[i]) }
    }

    fn metrics(&self, weights: &[u32]) -> Metrics<Option<f64>> {
        let mut sum = Tally::default();
        for (tally, &weight) in self.tallies.iter().zip(weights) {
            if weight > 0 {
                sum.add_times(tally, weight);
            }
        }
        sum.metrics(self.events.medians(|group| weights[group as usize]))
    }
}

/// The 2.5 % and 97.5 % quantiles, linear between order statistics; sorts `values`.
pub(crate) fn percentile_interval(values: &mut [f64]) -> Option<Interval> {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let quantile = |share: f64| {
        let position = share * last as f64;
        let below = position as usize;
        let above = (below + 1).min(last);
        values[below] + (position - below as f64) * (values[above] - values[below])
    };
    Some([quantile(TAIL), quantile(1.0 - TAIL)])
}

/// The exact binomial interval of a rate of 0 or 1 in `trials`; `None` for any other rate.
fn exact_interval(rate: f64, trials: usize) -> Option<Interval> {
    let bound = libm::pow(TAIL, 1.0 / trials as f64);
    if rate == 0.0 {
        Some([0.0, 1.0 - bound])
    } else if rate == 1.0 {
        Some([bound, 1.0])
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::summary::tests::{outcome, outcomes};
    use super::*;
    use crate::evaluate::summary::summarise;

    /// `groups` malicious groups of `size` episodes, the first `caught` groups wholly convicted, and as many benign loners.
    fn clustered(groups: u32, size: u32, caught: u32) -> Vec<Outcome> {
        let mut list = Vec::new();
        for group in 0..groups {
            for _ in 0..size {
                list.push(outcome(list.len() as u32, true, group, group < caught, 10 + u64::from(group)));
            }
        }
        for loner in 0..groups * size {
            list.push(outcome(list.len() as u32, false, groups + loner, loner % 10 == 0, 5));
        }
        list
    }

    #[test]
    fn groups_widen_the_interval_as_much_as_theory_says() {
        let list = clustered(20, 10, 10);
        let bootstrap = Bootstrap { replicates: 4000, seed: 7 };
        let by_group = bootstrap.intervals(&list, Clusters::Groups).unwrap().tpr.unwrap();
        let by_episode = bootstrap.intervals(&list, Clusters::Episodes).unwrap().tpr.unwrap();
        // Binomial with 20 and with 200 trials at one half: 1.96 standard errors are .219 and .069.
        assert!((by_group[1] - by_group[0] - 0.438).abs() < 0.07, "{by_group:?}");
        assert!((by_episode[1] - by_episode[0] - 0.139).abs() < 0.025, "{by_episode:?}");
    }

    #[test]
    fn a_rate_at_the_edge_has_the_exact_interval() {
        let list = clustered(20, 3, 0);
        let intervals = Bootstrap::default().intervals(&list, Clusters::Groups).unwrap();
        let [low, high] = intervals.tpr.unwrap();
        assert_eq!(low, 0.0);
        // The rule of three's two-sided cousin: 1 - 0.025^(1/20).
        assert!((high - 0.168_433_470_983_085_36).abs() < 1e-12, "{high}");
        let all = clustered(20, 3, 20);
        let [low, high] = Bootstrap::default().intervals(&all, Clusters::Groups).unwrap().tpr.unwrap();
        assert!((low - 0.831_566_529_016_914_6).abs() < 1e-12 && high == 1.0);
    }

    #[test]
    fn few_groups_support_no_interval() {
        let list = clustered(MIN_GROUPS as u32 - 1, 10, 1);
        let intervals = Bootstrap::default().intervals(&list, Clusters::Groups).unwrap();
        assert_eq!((intervals.tpr, intervals.mean_events, intervals.harm_prevented), (None, None, None));
        assert!(intervals.fpr.is_some() && intervals.mean_events_benign.is_some());
        let enough = clustered(MIN_GROUPS as u32, 10, 1);
        assert!(Bootstrap::default().intervals(&enough, Clusters::Groups).unwrap().tpr.is_some());
    }

    #[test]
    fn a_constant_paired_difference_has_no_spread() {
        let first = clustered(10, 4, 5);
        let second: Vec<Outcome> = first.iter().map(|o| Outcome { events: o.events + 3, ..*o }).collect();
        let paired = Bootstrap::default().paired(&second, &first, Clusters::Groups).unwrap();
        let events = paired.mean_events.unwrap();
        assert!((events.difference - 3.0).abs() < 1e-9);
        let [low, high] = events.ci95.unwrap();
        assert!((low - 3.0).abs() < 1e-9 && (high - 3.0).abs() < 1e-9, "paired replicates see the same groups");
        assert_eq!(paired.tpr.unwrap(), Difference { difference: 0.0, ci95: Some([0.0, 0.0]) });
    }

    #[test]
    fn unpaired_lists_and_too_few_replicates_are_refused() {
        let list = clustered(3, 2, 1);
        let swapped: Vec<Outcome> = [&list[1..2], &list[0..1], &list[2..]].concat();
        let bootstrap = Bootstrap::default();
        assert_eq!(bootstrap.paired(&list, &swapped, Clusters::Groups), Err(EvaluationError::Unpaired { position: 0 }));
        assert_eq!(
            bootstrap.paired(&list, &list[..4], Clusters::Groups),
            Err(EvaluationError::Unpaired { position: 4 })
        );
        let few = Bootstrap { replicates: 10, seed: 0 };
        assert!(matches!(
            few.intervals(&list, Clusters::Groups),
            Err(EvaluationError::Parameter { key: "replicates", .. })
        ));
    }

    #[test]
    fn intervals_cover_as_often_as_they_promise() {
        // 200 data sets of 30 malicious groups whose true rate is 0.7: a 95 % interval must cover it about 190 times.
        let mut rng = stream(11, "test");
        let mut covered = 0;
        for seed in 0..200 {
            let mut list = Vec::new();
            for group in 0..60u32 {
                let malicious = group < 30;
                let convicted = rng.random_range(0..10u32) < if malicious { 7 } else { 2 };
                for _ in 0..3 {
                    list.push(outcome(list.len() as u32, malicious, group, convicted, 10));
                }
            }
            let bootstrap = Bootstrap { replicates: 400, seed };
            let [low, high] = bootstrap.intervals(&list, Clusters::Groups).unwrap().tpr.unwrap();
            covered += u32::from(low <= 0.7 && 0.7 <= high);
        }
        assert!((180..=199).contains(&covered), "{covered} of 200");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn intervals_are_ordered_seeded_and_within_the_range_of_rates(list in outcomes(), seed: u64) {
            let bootstrap = Bootstrap { replicates: 100, seed };
            let once = bootstrap.intervals(&list, Clusters::Groups).unwrap();
            prop_assert_eq!(once, bootstrap.intervals(&list, Clusters::Groups).unwrap());
            let observed = summarise(&list).metrics.into_array();
            for (interval, value) in once.into_array().into_iter().zip(observed) {
                if let Some([low, high]) = interval {
                    prop_assert!(low <= high && value.is_some());
                }
            }
            for [low, high] in [once.fpr, once.tpr].into_iter().flatten() {
                prop_assert!((0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
            }
        }

        #[test]
        fn a_policy_does_not_differ_from_itself(list in outcomes(), seed: u64) {
            let bootstrap = Bootstrap { replicates: 100, seed };
            for difference in bootstrap.paired(&list, &list, Clusters::Groups).unwrap().into_array().into_iter().flatten() {
                prop_assert_eq!(difference.difference, 0.0);
                prop_assert!(difference.ci95.is_none_or(|interval| interval == [0.0, 0.0]));
            }
        }
    }
}
