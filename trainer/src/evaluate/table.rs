//! The evaluation as a table for a terminal.

use std::fmt::Write as _;

use super::bootstrap::Interval;
use super::report::{Evaluation, OperatingPointReport};

/// The evaluation as plain text, at most 112 columns wide: one block per operating point, the policy first, then the
/// baselines by name; the oracle last.
pub fn render_table(evaluation: &Evaluation) -> String {
    let mut out = String::new();
    let Evaluation { episodes, benign, malicious, .. } = evaluation;
    // Writing into a string cannot fail, so the results are dropped.
    let _ = writeln!(out, "{episodes} held-out episodes: {benign} benign, {malicious} malicious");
    for point in &evaluation.operating_points {
        let _ = writeln!(
            out,
            "\nTarget of {} % false positives, fixed before the test{}",
            percent(Some(point.target_fpr)),
            if point.supported { "" } else { " (too few benign episodes to report its rates)" }
        );
        let _ = writeln!(
            out,
            "{:<26} {:<20} {:<20} {:>8} {:>8} {:>8} {:>7} {:>8}",
            "", "FPR % [95 %]", "TPR % [95 %]", "events", "median", "windows", "harm %", "return"
        );
        row(&mut out, "policy", point);
        for (name, baseline) in &evaluation.baselines {
            if let Some(theirs) = baseline.operating_points.iter().find(|other| other.target_fpr == point.target_fpr) {
                row(&mut out, name, theirs);
            }
        }
    }
    let _ = writeln!(out, "\nIn hindsight (oracle): AUC {}", number(evaluation.oracle.auc, 4));
    for (rate, best) in &evaluation.oracle.tpr_at_fpr {
        let rate = percent(rate.parse().ok());
        let (tpr, events) = (percent(best.tpr), number(best.mean_events, 1));
        let _ = writeln!(out, "  TPR at {rate} % FPR: {tpr} % after {events} events");
    }
    out
}

fn row(out: &mut String, name: &str, point: &OperatingPointReport) {
    let m = &point.metrics;
    let _ = writeln!(
        out,
        "{:<26} {:<20} {:<20} {:>8} {:>8} {:>8} {:>7} {:>8}",
        name,
        rate(m.fpr, point.ci95.fpr),
        rate(m.tpr, point.ci95.tpr),
        number(m.mean_events, 1),
        number(m.median_events, 1),
        number(m.mean_windows, 1),
        percent(m.harm_prevented),
        number(m.mean_return, 3),
    );
}

fn rate(value: Option<f64>, interval: Option<Interval>) -> String {
    match interval {
        Some([low, high]) => format!("{} [{}, {}]", percent(value), percent(Some(low)), percent(Some(high))),
        None => percent(value),
    }
}

fn percent(value: Option<f64>) -> String {
    number(value.map(|value| 100.0 * value), 1)
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::evaluate::report::{Oracle, OraclePoint};
    use crate::evaluate::summary::Metrics;

    #[test]
    fn one_block_per_operating_point() {
        let metrics = Metrics { fpr: Some(0.05), tpr: Some(0.9), mean_events: Some(87.25), ..Metrics::default() };
        let ci95 = Metrics { fpr: Some([0.03, 0.07]), ..Metrics::default() };
        let evaluation = Evaluation {
            curve: Vec::new(),
            timelines: Vec::new(),
            values: Vec::new(),
            version: 1,
            episodes: 3,
            benign: 2,
            malicious: 1,
            operating_points: vec![OperatingPointReport {
                target_fpr: 0.05,
                supported: true,
                setting: 0.5,
                calibrated_fpr: 0.05,
                met: true,
                metrics,
                ci95,
            }],
            oracle: Oracle {
                tpr_at_fpr: [("0.05".to_owned(), OraclePoint { tpr: Some(1.0), mean_events: None })].into(),
                auc: Some(0.5),
            },
            per_family: BTreeMap::new(),
            baselines: BTreeMap::new(),
        };
        let text = render_table(&evaluation);
        let expected = "\
3 held-out episodes: 2 benign, 1 malicious

Target of 5.0 % false positives, fixed before the test
                           FPR % [95 %]         TPR % [95 %]           events   median  windows  harm %   return
policy                     5.0 [3.0, 7.0]       90.0                     87.2        -        -       -        -

In hindsight (oracle): AUC 0.5000
  TPR at 5.0 % FPR: 100.0 % after - events
";
        assert_eq!(text, expected);
    }
}
