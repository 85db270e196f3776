//! What a policy reaches, and when its verdicts fall.

use super::{Frame, Line, LineStyle, Plot, PlotError, draw, values};
use crate::evaluate::{CurvePoint, Evaluation, Timeline, TimelinePoint};

/// What an evaluation says: the curve of rates, what is prevented at which price, and when verdicts fall. None of what it does not
/// hold.
///
/// # Errors
/// [`PlotError`] where the library refuses.
pub fn evaluation(evaluation: &Evaluation) -> Result<Vec<Plot>, PlotError> {
    let mut plots = Vec::new();
    let curve = |y: fn(&CurvePoint) -> Option<f64>| {
        let mut points: Vec<(f64, f64)> =
            evaluation.curve.iter().filter_map(|point| Some((point.fpr?, y(point)?))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        points
    };
    let line = |label: &str, points, colour| Line { label: label.to_owned(), points, colour, ..Line::default() };
    let frame = Frame {
        name: "roc".into(),
        caption: "True and false positives at every cost of a false positive, in hindsight.".into(),
        x: "false-positive rate".into(),
        y: "true-positive rate".into(),
        y_limits: Some(0.0..1.0),
        ..Frame::default()
    };
    plots.extend(draw(&frame, &[line("policy", curve(|point| point.tpr), 0)])?);
    let frame = Frame {
        name: "harm".into(),
        caption: "Share of the harm that is prevented by stopping, at every false-positive rate, in hindsight.".into(),
        x: "false-positive rate".into(),
        y: "harm prevented".into(),
        y_limits: Some(0.0..1.0),
        ..Frame::default()
    };
    plots.extend(draw(&frame, &[line("policy", curve(|point| point.harm_prevented), 0)])?);
    if let Some(timeline) = evaluation.timelines.iter().max_by(|a, b| a.target_fpr.total_cmp(&b.target_fpr)) {
        type Share = fn(&TimelinePoint) -> f64;
        let of = |share: Share| timeline.points.iter().map(|p| (f64::from(p.windows.max(1)), share(p))).collect();
        let shares: [(&str, Share, usize); 4] = [
            ("malicious, convicted", |point| point.malicious_convicted, 1),
            ("malicious, released", |point| point.malicious_released, 4),
            ("benign, released", |point| point.benign_released, 2),
            ("benign, convicted", |point| point.benign_convicted, 3),
        ];
        let frame = Frame {
            name: "earliness".into(),
            caption: "Share of the episodes of each class whose verdict has fallen, by windows seen, at the largest target rate.".into(),
            x: "windows".into(),
            y: "share of the class".into(),
            has_logarithmic_x: true,
            y_limits: Some(0.0..1.0),
            ..Frame::default()
        };
        let lines: Vec<Line> =
            shares.into_iter().map(|(label, share, colour)| line(label, of(share), colour)).collect();
        plots.extend(draw(&frame, &lines)?);
        plots.extend(actions(timeline)?);
    }
    plots.extend(values::values(&evaluation.values)?);
    Ok(plots)
}

/// What is done with the episodes of each class by windows seen: bands on top of each other that fill the class.
fn actions(timeline: &Timeline) -> Result<Vec<Plot>, PlotError> {
    /// Shares quarantined, terminated, released and watched at a raised level of isolation; all others are watched at none.
    type Shares = fn(&TimelinePoint) -> [f64; 4];
    const BANDS: [(&str, usize); 5] =
        [("quarantine", 3), ("terminate", 1), ("release", 2), ("isolated", 4), ("continue", 5)];
    let classes: [(&str, &str, Shares); 2] = [
        (
            "actions-malicious",
            "What has been done with the malicious episodes, by windows seen, at the largest target rate.",
            |p| {
                let convicted = p.malicious_convicted - p.malicious_quarantined;
                [p.malicious_quarantined, convicted, p.malicious_released, p.malicious_isolated]
            },
        ),
        (
            "actions-benign",
            "What has been done with the benign episodes, by windows seen, at the largest target rate.",
            |p| {
                let convicted = p.benign_convicted - p.benign_quarantined;
                [p.benign_quarantined, convicted, p.benign_released, p.benign_isolated]
            },
        ),
    ];
    let mut plots = Vec::new();
    for (name, caption, shares) in classes {
        // The highest band first: each of the others hides the lower part of those before it.
        let bands = BANDS.iter().enumerate().rev().map(|(band, (label, colour))| {
            let top = |p: &TimelinePoint| {
                let below = shares(p).iter().take(band + 1).sum::<f64>();
                if band + 1 == BANDS.len() { 1.0 } else { below }
            };
            Line {
                label: (*label).to_owned(),
                points: timeline.points.iter().map(|p| (f64::from(p.windows.max(1)), top(p))).collect(),
                style: LineStyle::Area,
                colour: *colour,
                ..Line::default()
            }
        });
        let frame = Frame {
            name: name.into(),
            caption: caption.into(),
            x: "windows".into(),
            y: "share of the class".into(),
            has_logarithmic_x: true,
            y_limits: Some(0.0..1.0),
            ..Frame::default()
        };
        plots.extend(draw(&frame, &bands.collect::<Vec<_>>())?);
    }
    Ok(plots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_fill_a_class() {
        let point = |windows: u32, benign_released: f64| TimelinePoint {
            windows,
            benign_released,
            malicious_convicted: 0.5,
            malicious_quarantined: 0.25,
            malicious_isolated: 0.125,
            ..TimelinePoint::default()
        };
        let plots = actions(&Timeline { target_fpr: 0.05, points: vec![point(1, 0.0), point(10, 0.5)] }).unwrap();
        assert_eq!(plots.len(), 2);
        // How high each band begins and ends, as shares of the highest.
        let tops = |plot: &Plot| {
            let polygons = plot.svg.lines().filter(|line| line.starts_with("<polygon"));
            let heights = polygons.map(|line| {
                let corners = line.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
                let y = |corner: &str| corner.split(',').nth(1).unwrap().parse::<f64>().unwrap();
                let corners: Vec<f64> = corners.split_whitespace().map(y).collect();
                [corners[2] - corners[0], corners[2] - corners[1]]
            });
            let heights: Vec<[f64; 2]> = heights.collect();
            heights.iter().map(|ends| ends.map(|end| (end / heights[0][0] * 100.0).round() / 100.0)).collect::<Vec<_>>()
        };
        assert_eq!(tops(&plots[0]), [[1.0, 1.0], [0.62, 0.62], [0.5, 0.5], [0.5, 0.5], [0.25, 0.25]]);
        assert_eq!(tops(&plots[1]), [[1.0, 1.0], [0.0, 0.5], [0.0, 0.5], [0.0, 0.0], [0.0, 0.0]]);
    }
}
