//! The report of an evaluation: stable JSON, with a schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bootstrap::{Bootstrap, Clusters, Difference, Interval};
use super::curves::{self, CurvePoint, Timeline};
use super::error::EvaluationError;
use super::operating_point::{OperatingPoint, rate_supported};
use super::outcome::{Groups, Outcome};
use super::roc::{Roc, Scored};
use super::summary::{Metrics, summarise};
use super::values::ValueReport;

/// Version of the JSON that [`Evaluation`] is.
pub const REPORT_VERSION: u32 = 1;

/// The false-positive rates of the oracle.
pub const ORACLE_RATES: [f64; 3] = [0.001, 0.01, 0.05];

/// Name under which episodes without a family are reported.
pub const NO_FAMILY: &str = "(none)";

/// What exact replay of one policy or baseline on the test episodes gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyOutcomes {
    /// The operating points, fixed on calibration episodes, each with one outcome per test episode.
    pub operating: Vec<(OperatingPoint, Vec<Outcome>)>,
    /// The same episodes at every setting of the grid, ascending: the curve in hindsight.
    pub curve: Vec<(f32, Vec<Outcome>)>,
}

impl PolicyOutcomes {
    /// Adds the outcomes of other episodes at the same targets and settings. A target keeps the setting that it had first.
    pub fn join(&mut self, other: PolicyOutcomes) {
        if self.operating.is_empty() {
            *self = other;
            return;
        }
        for ((_, outcomes), (_, more)) in self.operating.iter_mut().zip(other.operating) {
            outcomes.extend(more);
        }
        for ((_, outcomes), (_, more)) in self.curve.iter_mut().zip(other.curve) {
            outcomes.extend(more);
        }
    }

    /// Puts the outcomes in the order of the episodes.
    pub fn sort(&mut self) {
        let lists = self.operating.iter_mut().map(|(_, outcomes)| outcomes);
        lists.chain(self.curve.iter_mut().map(|(_, outcomes)| outcomes)).for_each(|outcomes| {
            outcomes.sort_by_key(|outcome| outcome.episode);
        });
    }
}

/// A baseline's outcomes, with what to call it.
#[derive(Clone, Debug, PartialEq)]
pub struct BaselineOutcomes {
    /// Name in reports, `snake_case`.
    pub name: String,
    /// One sentence: what it does and how it was tuned.
    pub description: String,
    /// What replay gave.
    pub outcomes: PolicyOutcomes,
}

/// An evaluation on held-out episodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Evaluation")]
pub struct Evaluation {
    /// Version of this format.
    pub version: u32,
    /// Episodes.
    pub episodes: u64,
    /// Benign episodes.
    pub benign: u64,
    /// Malicious episodes.
    pub malicious: u64,
    /// The policy at each operating point, fixed before the test.
    pub operating_points: Vec<OperatingPointReport>,
    /// The policy's curve in hindsight: what the best setting would have been. No claim rests on it.
    pub oracle: Oracle,
    /// The policy at every setting of the grid, in hindsight too. Empty in evaluations of before there was such a list.
    #[serde(default)]
    pub curve: Vec<CurvePoint>,
    /// When its verdicts fall, at each operating point. Empty in evaluations of before there was such a list.
    #[serde(default)]
    pub timelines: Vec<Timeline>,
    /// Its q-values beside the returns that it has, at each operating point. Empty where its outputs are no q-values, and in evaluations of
    /// before there was such a list.
    #[serde(default)]
    pub values: Vec<ValueReport>,
    /// The policy by family; episodes without one are under `(none)`. Intervals take episodes as the unit here.
    pub per_family: BTreeMap<String, FamilyReport>,
    /// Baselines by name.
    pub baselines: BTreeMap<String, BaselineReport>,
}

/// One operating point. Rates and means are null where nothing supports them. In a cross-validation `setting`,
/// `calibrated_fpr` and `met` are those of the first fold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperatingPointReport {
    /// The target false-positive rate.
    pub target_fpr: f64,
    /// Whether the evaluated benign episodes support the target (`benign * target_fpr >= 1`); if not, `fpr` and `tpr` are
    /// null.
    pub supported: bool,
    /// The setting that calibration chose: the cost `z = c / (1 + c)` of a false positive, or a threshold.
    pub setting: f32,
    /// False-positive rate of the setting on the calibration episodes, `(k + 1) / (n + 1)`.
    pub calibrated_fpr: f64,
    /// Whether the calibrated rate keeps the target.
    pub met: bool,
    /// Rates and means.
    #[serde(flatten)]
    pub metrics: Metrics<Option<f64>>,
    /// Their 95 % intervals.
    pub ci95: Metrics<Option<Interval>>,
}

/// The curve in hindsight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Oracle {
    /// The best setting in hindsight for each false-positive rate, keyed `"0.001"`, `"0.01"`, `"0.05"`.
    pub tpr_at_fpr: BTreeMap<String, OraclePoint>,
    /// Area under the curve, an episode's score being the number of settings that convict it; null without a curve.
    pub auc: Option<f64>,
}

/// One rate of the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OraclePoint {
    /// True-positive rate; null where the benign episodes do not support the rate.
    pub tpr: Option<f64>,
    /// Mean events to the verdict there; null too where no setting of the grid keeps the rate.
    pub mean_events: Option<f64>,
}

/// One family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FamilyReport {
    /// Episodes.
    pub episodes: u64,
    /// Benign episodes.
    pub benign: u64,
    /// Malicious episodes.
    pub malicious: u64,
    /// The operating points over this family.
    pub operating_points: Vec<OperatingPointReport>,
}

/// One baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BaselineReport {
    /// What it does and how it was tuned.
    pub description: String,
    /// Its operating points, tuned on episodes of the training recordings that it was not fitted to.
    pub operating_points: Vec<OperatingPointReport>,
    /// Its curve in hindsight.
    pub oracle: Oracle,
    /// The policy minus the baseline over the same episodes, per target that both have.
    pub policy_minus_baseline: Vec<PairedReport>,
}

/// A paired comparison at one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PairedReport {
    /// The target false-positive rate.
    pub target_fpr: f64,
    /// The differences; `fpr` and `tpr` are null where the target is not supported.
    #[serde(flatten)]
    pub metrics: Metrics<Option<Difference>>,
}

impl Evaluation {
    /// Puts the report together.
    ///
    /// All lists of outcomes must be over the same episodes in the same order, of both classes.
    ///
    /// # Errors
    /// [`EvaluationError::NoEpisodes`] and [`EvaluationError::OneClass`] where the data cannot be evaluated,
    /// [`EvaluationError::Unpaired`] where two lists differ in their episodes, [`EvaluationError::Parameter`] for a wrong
    /// number of replicates.
    pub fn build(
        policy: &PolicyOutcomes,
        baselines: &[BaselineOutcomes],
        groups: &Groups,
        bootstrap: &Bootstrap,
    ) -> Result<Self, EvaluationError> {
        let (_, first) = policy.operating.first().ok_or(EvaluationError::NoEpisodes)?;
        let totals = summarise(first);
        if totals.episodes == 0 {
            return Err(EvaluationError::NoEpisodes);
        }
        for (count, missing) in [(totals.benign, "benign"), (totals.malicious, "malicious")] {
            if count == 0 {
                return Err(EvaluationError::OneClass { missing });
            }
        }
        let mut by_name = BTreeMap::new();
        for baseline in baselines {
            by_name.insert(
                baseline.name.clone(),
                BaselineReport {
                    description: baseline.description.clone(),
                    operating_points: operating_points(&baseline.outcomes, totals.benign, bootstrap, Clusters::Groups)?,
                    oracle: Oracle::of(&baseline.outcomes.curve)?,
                    policy_minus_baseline: paired(policy, &baseline.outcomes, totals.benign, bootstrap)?,
                },
            );
        }
        Ok(Evaluation {
            version: REPORT_VERSION,
            episodes: totals.episodes,
            benign: totals.benign,
            malicious: totals.malicious,
            operating_points: operating_points(policy, totals.benign, bootstrap, Clusters::Groups)?,
            oracle: Oracle::of(&policy.curve)?,
            curve: curves::curve(&policy.curve),
            timelines: policy.operating.iter().map(|(point, outcomes)| curves::timeline(point, outcomes)).collect(),
            values: Vec::new(),
            per_family: per_family(policy, groups, totals.benign, bootstrap)?,
            baselines: by_name,
        })
    }
}

fn operating_points(
    policy: &PolicyOutcomes,
    benign: u64,
    bootstrap: &Bootstrap,
    clusters: Clusters,
) -> Result<Vec<OperatingPointReport>, EvaluationError> {
    let report = |(point, outcomes): &(OperatingPoint, Vec<Outcome>)| {
        let supported = rate_supported(point.target_fpr, benign);
        let mut metrics = summarise(outcomes).metrics;
        let mut ci95 = bootstrap.intervals(outcomes, clusters)?;
        if !supported {
            (metrics.fpr, metrics.tpr, ci95.fpr, ci95.tpr) = (None, None, None, None);
        }
        Ok(OperatingPointReport {
            target_fpr: point.target_fpr,
            supported,
            setting: point.setting,
            calibrated_fpr: point.calibrated_fpr,
            met: point.met,
            metrics,
            ci95,
        })
    };
    policy.operating.iter().map(report).collect()
}

fn paired(
    policy: &PolicyOutcomes,
    baseline: &PolicyOutcomes,
    benign: u64,
    bootstrap: &Bootstrap,
) -> Result<Vec<PairedReport>, EvaluationError> {
    let mut out = Vec::new();
    for (point, outcomes) in &policy.operating {
        let Some((_, theirs)) = baseline.operating.iter().find(|(other, _)| other.target_fpr == point.target_fpr)
        else {
            continue;
        };
        let mut metrics = bootstrap.paired(outcomes, theirs, Clusters::Groups)?;
        if !rate_supported(point.target_fpr, benign) {
            (metrics.fpr, metrics.tpr) = (None, None);
        }
        out.push(PairedReport { target_fpr: point.target_fpr, metrics });
    }
    Ok(out)
}

fn per_family(
    policy: &PolicyOutcomes,
    groups: &Groups,
    benign: u64,
    bootstrap: &Bootstrap,
) -> Result<BTreeMap<String, FamilyReport>, EvaluationError> {
    let name = |outcome: &Outcome| groups.name(outcome.group).unwrap_or(NO_FAMILY);
    let mut families: BTreeMap<&str, PolicyOutcomes> = BTreeMap::new();
    for (at, (point, outcomes)) in policy.operating.iter().enumerate() {
        for outcome in outcomes {
            let operating = &mut families.entry(name(outcome)).or_default().operating;
            if operating.len() == at {
                operating.push((*point, Vec::new()));
            }
            match operating.get_mut(at) {
                Some((_, list)) => list.push(*outcome),
                // The family was absent from an earlier operating point.
                None => return Err(EvaluationError::Unpaired { position: outcome.episode as usize }),
            }
        }
    }
    let mut out = BTreeMap::new();
    for (name, family) in families {
        let totals = summarise(&family.operating[0].1);
        out.insert(
            name.to_owned(),
            FamilyReport {
                episodes: totals.episodes,
                benign: totals.benign,
                malicious: totals.malicious,
                operating_points: operating_points(&family, benign, bootstrap, Clusters::Episodes)?,
            },
        );
    }
    Ok(out)
}

impl Oracle {
    /// The curve in hindsight of the same episodes at every setting.
    ///
    /// # Errors
    /// [`EvaluationError::OneClass`] where a class is missing, [`EvaluationError::Unpaired`] where two settings differ in
    /// their episodes.
    pub fn of(curve: &[(f32, Vec<Outcome>)]) -> Result<Self, EvaluationError> {
        let Some((_, first)) = curve.first() else {
            let none = OraclePoint { tpr: None, mean_events: None };
            return Ok(Oracle { tpr_at_fpr: ORACLE_RATES.map(|rate| (rate.to_string(), none)).into(), auc: None });
        };
        let mut convictions = vec![0u32; first.len()];
        for (_, outcomes) in curve {
            let agreeing = first.iter().zip(outcomes).take_while(|(a, b)| (a.episode, a.label) == (b.episode, b.label));
            let agreeing = agreeing.count();
            if agreeing < first.len().max(outcomes.len()) {
                return Err(EvaluationError::Unpaired { position: agreeing });
            }
            for (count, outcome) in convictions.iter_mut().zip(outcomes) {
                *count += u32::from(outcome.is_convicted());
            }
        }
        let scores: Vec<Scored> = first
            .iter()
            .zip(&convictions)
            .map(|(outcome, &count)| Scored { score: count as f32, label: outcome.label })
            .collect();
        let auc = Roc::new(&scores)?.auc();
        let summaries: Vec<_> = curve.iter().map(|(_, outcomes)| summarise(outcomes)).collect();
        let best = |rate: f64| {
            let benign = summaries[0].benign;
            if !rate_supported(rate, benign) {
                return OraclePoint { tpr: None, mean_events: None };
            }
            let best = summaries
                .iter()
                .map(|summary| summary.metrics)
                .filter(|metrics| metrics.fpr.is_some_and(|fpr| fpr <= rate + 1e-12))
                .filter_map(|metrics| Some((metrics.tpr?, metrics.mean_events?)))
                // The most found, then the fewest events.
                .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
            match best {
                Some((tpr, mean_events)) => OraclePoint { tpr: Some(tpr), mean_events: Some(mean_events) },
                None => OraclePoint { tpr: Some(0.0), mean_events: None },
            }
        };
        Ok(Oracle { tpr_at_fpr: ORACLE_RATES.map(|rate| (rate.to_string(), best(rate))).into(), auc: Some(auc) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::outcome;
    use super::*;

    fn point(target_fpr: f64, setting: f32) -> OperatingPoint {
        OperatingPoint { target_fpr, setting, calibrated_fpr: target_fpr, met: true, supported: true }
    }

    /// 40 benign loners and 5 families of 4; the policy convicts `wrong` of the former and all but `missed` of the latter.
    fn outcomes(wrong: u32, missed: u32, events: u64) -> Vec<Outcome> {
        let benign = (0..40).map(|i| outcome(i, false, 5 + i, i < wrong, events));
        let malicious = (0..20).map(|i| outcome(40 + i, true, i / 4, i >= missed, events * 2));
        benign.chain(malicious).collect()
    }

    fn groups() -> Groups {
        let mut groups = Groups::new();
        for family in 0..5 {
            groups.intern(Some(&format!("family{family}")));
        }
        for _ in 0..40 {
            groups.intern(None);
        }
        groups
    }

    fn evaluation() -> Evaluation {
        let policy = PolicyOutcomes {
            operating: vec![(point(0.05, 0.5), outcomes(2, 1, 10)), (point(0.001, 0.9), outcomes(0, 9, 12))],
            curve: vec![(0.0, outcomes(40, 0, 8)), (0.5, outcomes(2, 1, 10)), (0.9, outcomes(0, 9, 12))],
        };
        let baseline = BaselineOutcomes {
            name: "run_to_end".to_owned(),
            description: "All windows.".to_owned(),
            outcomes: PolicyOutcomes { operating: vec![(point(0.05, 0.7), outcomes(2, 3, 30))], curve: Vec::new() },
        };
        Evaluation::build(&policy, &[baseline], &groups(), &Bootstrap { replicates: 200, seed: 1 }).unwrap()
    }

    #[test]
    fn figures_and_nulls() {
        let evaluation = evaluation();
        assert_eq!((evaluation.episodes, evaluation.benign, evaluation.malicious), (60, 40, 20));
        let [five, tenth] = &evaluation.operating_points[..] else { panic!("two operating points") };
        assert_eq!((five.metrics.fpr, five.metrics.tpr, five.supported), (Some(0.05), Some(0.95), true));
        assert_eq!((tenth.metrics.fpr, tenth.metrics.tpr, tenth.ci95.tpr, tenth.supported), (None, None, None, false));
        assert!(tenth.metrics.mean_events.is_some());
        let oracle = &evaluation.oracle.tpr_at_fpr;
        assert_eq!(oracle["0.05"], OraclePoint { tpr: Some(0.95), mean_events: Some(40.0 / 3.0) });
        assert_eq!((oracle["0.001"].tpr, oracle["0.01"].tpr), (None, None));
        assert!(evaluation.oracle.auc.unwrap() > 0.95);
        assert_eq!(evaluation.per_family.len(), 6);
        assert_eq!(evaluation.per_family[NO_FAMILY].benign, 40);
        let first = &evaluation.per_family["family0"];
        assert_eq!((first.malicious, first.operating_points[0].metrics.tpr), (4, Some(0.75)));
        let paired = &evaluation.baselines["run_to_end"].policy_minus_baseline;
        assert_eq!(paired.len(), 1);
        assert!((paired[0].metrics.tpr.unwrap().difference - 0.1).abs() < 1e-12);
        assert!(evaluation.baselines["run_to_end"].oracle.auc.is_none());
    }

    #[test]
    fn json_has_the_promised_keys_and_reads_back() {
        let evaluation = evaluation();
        let json = serde_json::to_value(&evaluation).unwrap();
        for key in ["episodes", "benign", "malicious", "operating_points", "oracle", "per_family", "baselines"] {
            assert!(json.get(key).is_some(), "{key}");
        }
        let keys = [
            "target_fpr",
            "fpr",
            "tpr",
            "mean_events",
            "mean_events_benign",
            "mean_events_malicious",
            "median_events",
            "mean_windows",
            "harm_prevented",
            "mean_return",
            "ci95",
        ];
        for key in keys {
            assert!(json["operating_points"][1].get(key).is_some(), "{key}");
            assert!(json["baselines"]["run_to_end"]["operating_points"][0].get(key).is_some(), "{key}");
        }
        assert!(json["operating_points"][1]["fpr"].is_null());
        assert!(json["oracle"]["tpr_at_fpr"]["0.05"]["tpr"].is_f64());
        let back: Evaluation = serde_json::from_value(json).unwrap();
        assert_eq!(back, evaluation);
    }

    #[test]
    fn the_schema_names_every_field() {
        let schema = schemars::schema_for!(Evaluation).to_value();
        for key in ["operating_points", "oracle", "per_family", "baselines"] {
            assert!(schema["properties"].get(key).is_some(), "{key}");
        }
        let operating_point = &schema["$defs"]["OperatingPointReport"]["properties"];
        for key in ["target_fpr", "fpr", "ci95", "median_events"] {
            assert!(operating_point.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn refusals() {
        let bootstrap = Bootstrap::default();
        let build = |operating: Vec<(OperatingPoint, Vec<Outcome>)>| {
            Evaluation::build(&PolicyOutcomes { operating, curve: Vec::new() }, &[], &groups(), &bootstrap)
        };
        assert_eq!(build(Vec::new()), Err(EvaluationError::NoEpisodes));
        assert_eq!(build(vec![(point(0.05, 0.0), Vec::new())]), Err(EvaluationError::NoEpisodes));
        let benign = outcomes(2, 1, 10)[..40].to_vec();
        assert_eq!(build(vec![(point(0.05, 0.0), benign)]), Err(EvaluationError::OneClass { missing: "malicious" }));
        let mut other = outcomes(2, 1, 10);
        other.pop();
        let curve = vec![(0.0, outcomes(2, 1, 10)), (0.5, other)];
        assert_eq!(Oracle::of(&curve), Err(EvaluationError::Unpaired { position: 59 }));
    }
}
