//! Q-values beside returns.

use super::{Frame, Line, LineStyle, Plot, PlotError, draw};
use crate::evaluate::ValueReport;

/// Calibration, over-estimation by window, and the reliability of "malicious", at each operating point.
pub(super) fn values(reports: &[ValueReport]) -> Result<Vec<Plot>, PlotError> {
    let label = |report: &ValueReport| format!("{} % false positives", 100.0 * report.target_fpr);
    let line = |(colour, report): (usize, &ValueReport)| Line {
        label: label(report),
        colour,
        style: LineStyle::DottedLine,
        ..Line::default()
    };
    let mut plots = Vec::new();

    let mut lines: Vec<Line> = Vec::new();
    for at in reports.iter().enumerate() {
        let points = at.1.calibration.iter().map(|bin| (bin.mean_q, bin.mean_return)).collect();
        lines.push(Line { points, ..line(at) });
    }
    let q_values = || reports.iter().flat_map(|report| &report.calibration).map(|bin| bin.mean_q);
    lines.extend(diagonal(q_values().fold(f64::INFINITY, f64::min), q_values().fold(f64::NEG_INFINITY, f64::max)));
    let frame = Frame {
        name: "calibration".into(),
        caption: "Mean return by mean q-value of decisions, in bins of equal counts: below the thin line the network expects too much.".into(),
        x: "mean q-value".into(),
        y: "mean return from there on".into(),
        ..Frame::default()
    };
    plots.extend(draw(&frame, &lines)?);

    let mut lines: Vec<Line> = Vec::new();
    for at in reports.iter().enumerate() {
        // Beside each other where points of several rates share a window.
        let x = |from: u32| f64::from(from) * (1.0 + 0.04 * at.0 as f64);
        let points = at.1.by_window.iter().map(|it| (x(it.from), it.overestimation.overestimation)).collect();
        let span = |it: &crate::evaluate::values::WindowOverestimation| {
            it.overestimation.ci95.map(|[low, high]| (x(it.from), low, high))
        };
        lines.push(Line { points, spans: at.1.by_window.iter().filter_map(span).collect(), ..line(at) });
    }
    let frame = Frame {
        name: "overestimation".into(),
        caption: "Mean q-value minus mean return of decisions, by windows seen, with 95 % intervals over families."
            .into(),
        x: "windows".into(),
        y: "over-estimation".into(),
        has_logarithmic_x: true,
        ..Frame::default()
    };
    plots.extend(draw(&frame, &lines)?);

    let mut lines: Vec<Line> = Vec::new();
    for at in reports.iter().enumerate() {
        let Some(reliability) = &at.1.malicious else { continue };
        let points = reliability.bins.iter().map(|bin| (bin.mean_probability, bin.malicious)).collect();
        lines.push(Line { points, ..line(at) });
    }
    if !lines.is_empty() {
        lines.extend(diagonal(0.0, 1.0));
    }
    let frame = Frame {
        name: "reliability".into(),
        caption: "Share of malicious samples by the probability that the q-value of `terminate` gives, in bins of equal counts.".into(),
        x: "probability of malice".into(),
        y: "share that is malicious".into(),
        y_limits: Some(0.0..1.0),
        ..Frame::default()
    };
    plots.extend(draw(&frame, &lines)?);
    Ok(plots)
}

/// Where what is predicted is what is.
fn diagonal(low: f64, high: f64) -> Option<Line> {
    let points = vec![(low, low), (high, high)];
    (low < high).then(|| Line {
        label: "as predicted".to_owned(),
        points,
        colour: 6,
        is_minor: true,
        ..Line::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::Drawn;
    use crate::evaluate::values::{Overestimation, Reliability, ReliabilityBin, ValueBin, WindowOverestimation};

    fn report(target_fpr: f64, malicious: bool) -> ValueReport {
        let told = Overestimation {
            decisions: 9,
            mean_q: 0.5,
            mean_return: 0.25,
            overestimation: 0.25,
            ci95: Some([0.0, 0.5]),
        };
        let bin = |mean_q: f64| ValueBin {
            decisions: 3,
            lowest_q: mean_q,
            highest_q: mean_q,
            mean_q,
            mean_return: mean_q / 2.0,
        };
        let bins = [0.1, 0.9].map(|p| ReliabilityBin { decisions: 4, mean_probability: p, malicious: p });
        ValueReport {
            target_fpr,
            discount: 1.0,
            drawn: Drawn::ByClass,
            first: told,
            all: told,
            by_window: [(1, 1), (2, 2), (3, 4)]
                .map(|(from, to)| WindowOverestimation { from, to, overestimation: told })
                .into(),
            calibration: [-1.0, 0.0, 1.0].map(bin).into(),
            malicious: malicious.then(|| Reliability {
                brier_score: 0.1,
                expected_calibration_error: 0.0,
                bins: bins.into(),
            }),
        }
    }

    #[test]
    fn every_rate_has_its_dots_and_what_is_not_known_is_not_drawn() {
        let names = |reports: &[ValueReport]| -> Vec<String> {
            values(reports).unwrap().iter().map(|plot| plot.name.to_string()).collect()
        };
        assert!(names(&[]).is_empty());
        assert_eq!(names(&[report(0.05, false)]), ["calibration", "overestimation"]);
        let plots = values(&[report(0.01, true), report(0.05, true)]).unwrap();
        assert_eq!(plots.iter().map(|plot| plot.svg.matches("<circle").count()).collect::<Vec<_>>(), [6, 6, 4]);
        assert!(plots[0].svg.contains("\nas predicted\n") && plots[1].svg.contains("\n5 % false positives\n"));
    }
}
