//! Rates and means of a list of outcomes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::outcome::Outcome;

/// One value per metric of an operating point, in one fixed order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metrics<T> {
    /// False-positive rate: the share of benign episodes that were convicted.
    pub fpr: T,
    /// True-positive rate: the share of malicious episodes that were convicted.
    pub tpr: T,
    /// Mean events to the verdict.
    pub mean_events: T,
    /// The same over benign episodes.
    pub mean_events_benign: T,
    /// The same over malicious episodes.
    pub mean_events_malicious: T,
    /// Median events to the verdict; the mean of the middle two where their number is even.
    pub median_events: T,
    /// The same over benign episodes.
    pub median_events_benign: T,
    /// The same over malicious episodes.
    pub median_events_malicious: T,
    /// Mean windows to the verdict.
    pub mean_windows: T,
    /// The same over benign episodes.
    pub mean_windows_benign: T,
    /// The same over malicious episodes.
    pub mean_windows_malicious: T,
    /// Share of the harm of malicious episodes that was prevented: `1 - sum(harm_let) / sum(harm_total)`.
    pub harm_prevented: T,
    /// Mean return.
    pub mean_return: T,
}

/// Number of metrics.
pub(crate) const METRICS: usize = 13;

impl<T> Metrics<T> {
    /// From one value per metric, in the order of the fields.
    pub(crate) fn from_array(values: [T; METRICS]) -> Self {
        let [
            fpr,
            tpr,
            mean_events,
            mean_events_benign,
            mean_events_malicious,
            median_events,
            median_events_benign,
            median_events_malicious,
            mean_windows,
            mean_windows_benign,
            mean_windows_malicious,
            harm_prevented,
            mean_return,
        ] = values;
        Metrics {
            fpr,
            tpr,
            mean_events,
            mean_events_benign,
            mean_events_malicious,
            median_events,
            median_events_benign,
            median_events_malicious,
            mean_windows,
            mean_windows_benign,
            mean_windows_malicious,
            harm_prevented,
            mean_return,
        }
    }

    /// One value per metric, in the order of the fields.
    pub(crate) fn into_array(self) -> [T; METRICS] {
        [
            self.fpr,
            self.tpr,
            self.mean_events,
            self.mean_events_benign,
            self.mean_events_malicious,
            self.median_events,
            self.median_events_benign,
            self.median_events_malicious,
            self.mean_windows,
            self.mean_windows_benign,
            self.mean_windows_malicious,
            self.harm_prevented,
            self.mean_return,
        ]
    }
}

/// A list of outcomes in figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Episodes.
    pub episodes: u64,
    /// Benign episodes.
    pub benign: u64,
    /// Malicious episodes.
    pub malicious: u64,
    /// Rates and means; `None` where there is nothing to divide by.
    pub metrics: Metrics<Option<f64>>,
}

/// Sums of outcomes, from which every metric but the median follows. Sums of groups can be added with multiplicities.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) benign: u64,
    pub(crate) malicious: u64,
    false_positives: u64,
    true_positives: u64,
    events_benign: u64,
    events_malicious: u64,
    windows_benign: u64,
    windows_malicious: u64,
    harm_let: f64,
    harm_total: f64,
    ret: f64,
}

impl Tally {
    /// Adds one outcome.
    pub(crate) fn add(&mut self, outcome: &Outcome) {
        let convicted = u64::from(outcome.is_convicted());
        if outcome.is_malicious() {
            self.malicious += 1;
            self.true_positives += convicted;
            self.events_malicious += outcome.events;
            self.windows_malicious += u64::from(outcome.windows);
            self.harm_let += f64::from(outcome.harm_let);
            self.harm_total += f64::from(outcome.harm_total);
        } else {
            self.benign += 1;
            self.false_positives += convicted;
            self.events_benign += outcome.events;
            self.windows_benign += u64::from(outcome.windows);
        }
        self.ret += outcome.ret;
    }

    /// Adds `times` copies of another tally.
    pub(crate) fn add_times(&mut self, other: &Tally, times: u32) {
        let n = u64::from(times);
        self.benign += n * other.benign;
        self.malicious += n * other.malicious;
        self.false_positives += n * other.false_positives;
        self.true_positives += n * other.true_positives;
        self.events_benign += n * other.events_benign;
        self.events_malicious += n * other.events_malicious;
        self.windows_benign += n * other.windows_benign;
        self.windows_malicious += n * other.windows_malicious;
        let weight = f64::from(times);
        self.harm_let += weight * other.harm_let;
        self.harm_total += weight * other.harm_total;
        self.ret += weight * other.ret;
    }

    /// The metrics, with the medians of all, benign and malicious episodes given from outside.
    pub(crate) fn metrics(&self, medians: [Option<f64>; 3]) -> Metrics<Option<f64>> {
        let episodes = self.benign + self.malicious;
        let ratio = |numerator: f64, denominator: u64| (denominator > 0).then(|| numerator / denominator as f64);
        Metrics {
            fpr: ratio(self.false_positives as f64, self.benign),
            tpr: ratio(self.true_positives as f64, self.malicious),
            mean_events: ratio((self.events_benign + self.events_malicious) as f64, episodes),
            mean_events_benign: ratio(self.events_benign as f64, self.benign),
            mean_events_malicious: ratio(self.events_malicious as f64, self.malicious),
            median_events: medians[0],
            median_events_benign: medians[1],
            median_events_malicious: medians[2],
            mean_windows: ratio((self.windows_benign + self.windows_malicious) as f64, episodes),
            mean_windows_benign: ratio(self.windows_benign as f64, self.benign),
            mean_windows_malicious: ratio(self.windows_malicious as f64, self.malicious),
            harm_prevented: (self.harm_total > 0.0).then(|| 1.0 - self.harm_let / self.harm_total),
            mean_return: ratio(self.ret, episodes),
        }
    }
}

/// Outcomes' events in ascending order, with their class and the number of what is drawn as one.
#[derive(Clone, Debug)]
pub(crate) struct AscendingEvents(Vec<(u64, bool, u32)>);

impl AscendingEvents {
    /// Sorts the events of `outcomes`; `cluster_of` numbers their clusters.
    pub(crate) fn new(outcomes: &[Outcome], cluster_of: impl Fn(usize) -> u32) -> Self {
        let mut list: Vec<_> =
            outcomes.iter().enumerate().map(|(i, o)| (o.events, o.is_malicious(), cluster_of(i))).collect();
        list.sort_unstable();
        AscendingEvents(list)
    }

    /// The medians of all, benign and malicious episodes, each counted as often as its cluster weighs.
    pub(crate) fn medians(&self, weight: impl Fn(u32) -> u32 + Copy) -> [Option<f64>; 3] {
        [None, Some(false), Some(true)].map(|class| {
            let of_class = self.0.iter().filter(move |entry| class.is_none_or(|class| entry.1 == class));
            weighted_median(of_class.map(move |entry| (entry.0, weight(entry.2))))
        })
    }
}

/// The median of ascending `(value, weight)` pairs, each value counted `weight` times; `None` where all weights are 0.
pub(crate) fn weighted_median(ascending: impl Iterator<Item = (u64, u32)> + Clone) -> Option<f64> {
    let total: u64 = ascending.clone().map(|(_, weight)| u64::from(weight)).sum();
    let (low, high) = (total.checked_sub(1)? / 2, total / 2);
    let mut seen = 0;
    let mut lower = None;
    for (value, weight) in ascending {
        seen += u64::from(weight);
        if lower.is_none() && seen > low {
            lower = Some(value);
        }
        if seen > high {
            return lower.map(|lower| (lower as f64 + value as f64) / 2.0);
        }
    }
    None
}

/// Rates and means of `outcomes`.
pub fn summarise(outcomes: &[Outcome]) -> Summary {
    let mut tally = Tally::default();
    for outcome in outcomes {
        tally.add(outcome);
    }
    let medians = AscendingEvents::new(outcomes, |_| 0).medians(|_| 1);
    Summary {
        episodes: outcomes.len() as u64,
        benign: tally.benign,
        malicious: tally.malicious,
        metrics: tally.metrics(medians),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bellwether_env_adapter::{Action, Label};
    use proptest::prelude::*;

    use super::*;

    /// An outcome with plain figures for tests.
    pub(crate) fn outcome(episode: u32, malicious: bool, group: u32, convicted: bool, events: u64) -> Outcome {
        Outcome {
            episode,
            label: if malicious { Label::Malicious } else { Label::Benign },
            group,
            action: if convicted { Action::Terminate } else { Action::Release },
            isolated_at: None,
            events,
            windows: 1 + (events / 10) as u32,
            total_events: events + 100,
            harm_let: if malicious { events as f32 / 4.0 } else { 0.0 },
            harm_total: if malicious { 100.0 } else { 0.0 },
            ret: if malicious == convicted { 1.0 } else { -1.0 },
        }
    }

    /// Any list of outcomes over a few groups.
    pub(crate) fn outcomes() -> impl Strategy<Value = Vec<Outcome>> {
        prop::collection::vec((any::<bool>(), 0u32..7, any::<bool>(), 1u64..300), 1..60).prop_map(|rows| {
            rows.into_iter()
                .enumerate()
                .map(|(i, (malicious, group, convicted, events))| {
                    outcome(i as u32, malicious, group, convicted, events)
                })
                .collect()
        })
    }

    #[test]
    fn figures_by_hand() {
        let list = [
            outcome(0, false, 0, false, 10),
            outcome(1, false, 1, true, 20),
            outcome(2, false, 2, false, 30),
            outcome(3, true, 3, true, 40),
            outcome(4, true, 3, false, 80),
        ];
        let summary = summarise(&list);
        assert_eq!((summary.episodes, summary.benign, summary.malicious), (5, 3, 2));
        let m = summary.metrics;
        assert_eq!(m.fpr, Some(1.0 / 3.0));
        assert_eq!(m.tpr, Some(0.5));
        assert_eq!(
            (m.mean_events, m.mean_events_benign, m.mean_events_malicious),
            (Some(36.0), Some(20.0), Some(60.0))
        );
        let medians = (m.median_events, m.median_events_benign, m.median_events_malicious);
        assert_eq!(medians, (Some(30.0), Some(20.0), Some(60.0)));
        let windows = (m.mean_windows, m.mean_windows_benign, m.mean_windows_malicious);
        assert_eq!(windows, (Some((2.0 + 3.0 + 4.0 + 5.0 + 9.0) / 5.0), Some(3.0), Some(7.0)));
        // 10 and 20 of 100 each were let through.
        assert_eq!(m.harm_prevented, Some(1.0 - 30.0 / 200.0));
        assert_eq!(m.mean_return, Some(0.2));
    }

    #[test]
    fn nothing_to_divide_by_is_none() {
        assert_eq!(summarise(&[]).metrics, Metrics::default());
        let benign_only = summarise(&[outcome(0, false, 0, false, 5)]).metrics;
        assert_eq!(
            (benign_only.tpr, benign_only.harm_prevented, benign_only.mean_events_malicious),
            (None, None, None)
        );
        assert_eq!(benign_only.fpr, Some(0.0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn weighted_median_is_the_median_of_the_repeated_list(
            mut pairs in prop::collection::vec((0u64..50, 0u32..4), 0..20),
        ) {
            pairs.sort_unstable();
            let repeated: Vec<u64> =
                pairs.iter().flat_map(|&(value, weight)| std::iter::repeat_n(value, weight as usize)).collect();
            let expected = match repeated.len() {
                0 => None,
                n if n % 2 == 1 => Some(repeated[n / 2] as f64),
                n => Some((repeated[n / 2 - 1] + repeated[n / 2]) as f64 / 2.0),
            };
            prop_assert_eq!(weighted_median(pairs.iter().copied()), expected);
        }

        #[test]
        fn tallies_add_up(list in outcomes(), cut in 0usize..60) {
            let cut = cut.min(list.len());
            let mut parts = [Tally::default(); 2];
            for (i, outcome) in list.iter().enumerate() {
                parts[usize::from(i >= cut)].add(outcome);
            }
            let mut sum = Tally::default();
            sum.add_times(&parts[0], 1);
            sum.add_times(&parts[1], 1);
            prop_assert_eq!(sum.metrics(AscendingEvents::new(&list, |_| 0).medians(|_| 1)), summarise(&list).metrics);
        }
    }
}
