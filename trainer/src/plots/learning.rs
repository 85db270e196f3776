//! How networks learned.

use std::collections::BTreeMap;

use super::{Frame, Line, Plot, PlotError, draw};
use crate::metrics::UpdateMetrics;

/// Learning curves: loss, q-values, gradients and returns of every network over the updates. None without a line.
///
/// # Errors
/// [`PlotError`] where the library refuses.
pub fn learning(lines: &[UpdateMetrics]) -> Result<Vec<Plot>, PlotError> {
    type Measure = fn(&UpdateMetrics) -> Option<f32>;
    let measures: [(&'static str, &'static str, &'static str, Measure); 4] = [
        ("loss", "Loss before each update; the released network in front.", "loss", |line| Some(line.loss)),
        (
            "q-values",
            "Mean of the fitted q-values: a climb beyond any return shows over-estimation.",
            "mean q-value",
            |line| Some(line.mean_q),
        ),
        ("gradients", "Norm of the gradient before clipping.", "norm", |line| Some(line.gradient_norm)),
        (
            "returns",
            "Mean return on episodes that a network has not seen, by its average, at the cost in the middle of the range.",
            "mean return",
            |line| line.validation.as_ref().map(|validation| validation.mean_return),
        ),
    ];
    let mut plots = Vec::new();
    for (name, caption, y, measure) in measures {
        let mut by_network: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for line in lines {
            let Some(value) = measure(line) else { continue };
            by_network.entry(&line.network).or_default().push((line.update as f64, f64::from(value)));
        }
        let lines: Vec<Line> = by_network
            .into_iter()
            .map(|(network, points)| {
                let is_minor = network.starts_with("fold-");
                let label = if is_minor { "folds".to_owned() } else { network.to_owned() };
                let colour = if is_minor { 6 } else { usize::from(network == "imitator") };
                Line { label, points, colour, is_minor, ..Line::default() }
            })
            .collect();
        let frame =
            Frame { name: name.into(), caption: caption.into(), x: "updates".into(), y: y.into(), ..Frame::default() };
        plots.extend(draw(&frame, &lines)?);
    }
    Ok(plots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Validation;

    fn metrics(network: &str, update: u64, loss: f32) -> UpdateMetrics {
        UpdateMetrics {
            network: network.to_owned(),
            update,
            loss,
            mean_q: 0.5,
            mean_target: 0.5,
            max_error: 1.0,
            gradient_norm: loss * 2.0,
            learning_rate: 1e-3,
            validation: None,
        }
    }

    #[test]
    fn every_measure_has_a_line_for_every_network() {
        let lines: Vec<UpdateMetrics> = (1..20)
            .flat_map(|update| {
                ["fold-1", "fold-2", "released"].map(|network| metrics(network, update, 1.0 / update as f32))
            })
            .collect();
        let plots = learning(&lines).unwrap();
        assert_eq!(plots.iter().map(|plot| plot.name.as_ref()).collect::<Vec<_>>(), ["loss", "q-values", "gradients"]);
        let validated = |mut line: UpdateMetrics| {
            line.validation = Some(Validation { episodes: 7, mean_return: line.loss, overestimation: 0.0 });
            line
        };
        let folds = lines.iter().filter(|line| line.network != "released" && line.update % 4 == 0);
        let returns = learning(&folds.cloned().map(validated).collect::<Vec<_>>()).unwrap().pop().unwrap();
        let drawn = returns.svg.matches("<polyline").count() - axes(&returns.svg);
        // Two lines and the mark of their label.
        assert_eq!((returns.name.as_ref(), drawn), ("returns", 3), "{}", returns.svg);
        for plot in &plots {
            assert!(plot.svg.starts_with("<svg") && plot.svg.trim_end().ends_with("</svg>"), "{}", plot.svg);
            // Three lines and two labels, the folds sharing one, each with a mark in its colour.
            assert_eq!(plot.svg.matches("<polyline").count() - axes(&plot.svg), 5, "{}", plot.svg);
            assert_eq!(plot.svg.matches("\nfolds\n").count(), 1);
            assert_eq!(plot.svg, learning(&lines).unwrap().iter().find(|other| other.name == plot.name).unwrap().svg);
        }
    }

    /// Lines of the axes and their ticks, which are black.
    fn axes(svg: &str) -> usize {
        svg.lines().filter(|line| line.contains("<polyline") && line.contains("stroke=\"#000000\"")).count()
    }

    #[test]
    fn what_is_not_there_is_not_drawn() {
        assert!(learning(&[]).unwrap().is_empty());
        assert!(learning(&[metrics("released", 1, 0.5)]).unwrap().is_empty(), "one point is no curve");
        let infinite: Vec<UpdateMetrics> = (1..9).map(|update| metrics("released", update, f32::INFINITY)).collect();
        let plots = learning(&infinite).unwrap();
        let names: Vec<&str> = plots.iter().map(|plot| plot.name.as_ref()).collect();
        assert_eq!(names, ["q-values"]);
    }
}
