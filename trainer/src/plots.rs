//! Pictures of a run as SVG: how it learned, what it reaches, and when its verdicts fall.

use std::collections::BTreeMap;
use std::ops::Range;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::{
    Cartesian2d, ChartBuilder, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, Ranged, SVGBackend, ShapeStyle,
};
use plotters::style::{BLACK, Color, RGBColor, WHITE};

use crate::evaluate::{Evaluation, TimelinePoint};
use crate::metrics::UpdateMetrics;

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plot {
    /// Name of the file, without an ending.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub caption: &'static str,
    /// The SVG document.
    pub svg: String,
}

/// Why a picture cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the plot `{name}` cannot be drawn: {reason}")]
pub struct PlotError {
    /// Name of the picture.
    pub name: &'static str,
    /// What the drawing library says.
    pub reason: String,
}

/// One line of a picture.
struct Line {
    label: String,
    points: Vec<(f64, f64)>,
    /// Which colour; lines of what belongs together share one.
    colour: usize,
    /// Drawn thin, behind the others.
    is_minor: bool,
}

/// What a picture shows beside its lines.
struct Frame {
    name: &'static str,
    caption: &'static str,
    x: &'static str,
    y: &'static str,
    has_logarithmic_x: bool,
    /// Limits of the vertical axis; the lines' own where there are none.
    y_limits: Option<Range<f64>>,
}

const SIZE: (u32, u32) = (720, 420);

/// Colours that people with any colour vision tell apart (Okabe and Ito 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// Learning curves: loss, q-values and gradients of every network over the updates. None without a line.
///
/// # Errors
/// [`PlotError`] where the library refuses.
pub fn learning(lines: &[UpdateMetrics]) -> Result<Vec<Plot>, PlotError> {
    type Measure = fn(&UpdateMetrics) -> f32;
    let measures: [(&'static str, &'static str, &'static str, Measure); 3] = [
        ("loss", "Loss before each update; the released network in front.", "loss", |line| line.loss),
        (
            "q-values",
            "Mean of the fitted q-values: a climb beyond any return shows over-estimation.",
            "mean q-value",
            |line| line.mean_q,
        ),
        ("gradients", "Norm of the gradient before clipping.", "norm", |line| line.gradient_norm),
    ];
    let mut plots = Vec::new();
    for (name, caption, y, measure) in measures {
        let mut by_network: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for line in lines {
            let points = by_network.entry(&line.network).or_default();
            points.push((line.update as f64, f64::from(measure(line))));
        }
        let lines: Vec<Line> = by_network
            .into_iter()
            .map(|(network, points)| {
                let is_minor = network.starts_with("fold-");
                let label = if is_minor { "folds".to_owned() } else { network.to_owned() };
                Line { label, points, colour: if is_minor { 6 } else { usize::from(network == "imitator") }, is_minor }
            })
            .collect();
        let frame = Frame { name, caption, x: "updates", y, has_logarithmic_x: false, y_limits: None };
        plots.extend(draw(&frame, &lines)?);
    }
    Ok(plots)
}

/// What an evaluation says: the curve of rates, what is prevented at which price, and when verdicts fall. None of what it does not
/// hold.
///
/// # Errors
/// [`PlotError`] where the library refuses.
pub fn evaluation(evaluation: &Evaluation) -> Result<Vec<Plot>, PlotError> {
    let mut plots = Vec::new();
    let curve = |y: fn(&crate::evaluate::CurvePoint) -> Option<f64>| {
        let mut points: Vec<(f64, f64)> =
            evaluation.curve.iter().filter_map(|point| Some((point.fpr?, y(point)?))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        points
    };
    let line = |label: &str, points, colour| Line { label: label.to_owned(), points, colour, is_minor: false };
    let frame = Frame {
        name: "roc",
        caption: "True and false positives at every cost of a false positive, in hindsight.",
        x: "false-positive rate",
        y: "true-positive rate",
        has_logarithmic_x: false,
        y_limits: Some(0.0..1.0),
    };
    plots.extend(draw(&frame, &[line("policy", curve(|point| point.tpr), 0)])?);
    let frame = Frame {
        name: "harm",
        caption: "Share of the harm that is prevented by stopping, at every false-positive rate, in hindsight.",
        x: "false-positive rate",
        y: "harm prevented",
        has_logarithmic_x: false,
        y_limits: Some(0.0..1.0),
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
            name: "earliness",
            caption: "Share of the episodes of each class whose verdict has fallen, by windows seen, at the largest target rate.",
            x: "windows",
            y: "share of the class",
            has_logarithmic_x: true,
            y_limits: Some(0.0..1.0),
        };
        let lines: Vec<Line> =
            shares.into_iter().map(|(label, share, colour)| line(label, of(share), colour)).collect();
        plots.extend(draw(&frame, &lines)?);
    }
    Ok(plots)
}

/// A picture of these lines, or none where there is nothing to see.
fn draw(frame: &Frame, lines: &[Line]) -> Result<Option<Plot>, PlotError> {
    let all = || lines.iter().flat_map(|line| &line.points).filter(|(x, y)| x.is_finite() && y.is_finite());
    if all().nth(1).is_none() {
        return Ok(None);
    }
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        let (low, high) = all().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        // A line along one value still has a height.
        if low < high { low..high } else { low - 0.5..high + 0.5 }
    };
    let (x, y) = (bounds(|point| point.0), frame.y_limits.clone().unwrap_or_else(|| bounds(|point| point.1)));
    let mut svg = String::new();
    let drawn = if frame.has_logarithmic_x {
        on(frame, lines, x.start.max(1.0)..x.end.max(2.0), y, &mut svg, |range| range.log_scale())
    } else {
        on(frame, lines, x, y, &mut svg, |range| range)
    };
    drawn.map_err(|reason| PlotError { name: frame.name, reason })?;
    Ok(Some(Plot { name: frame.name, caption: frame.caption, svg }))
}

/// Draws on a horizontal axis of a kind.
fn on<X>(
    frame: &Frame,
    lines: &[Line],
    x: Range<f64>,
    y: Range<f64>,
    svg: &mut String,
    axis: impl FnOnce(Range<f64>) -> X,
) -> Result<(), String>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Cartesian2d<X::CoordDescType, <Range<f64> as AsRangedCoord>::CoordDescType>: Sized,
{
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|error| told(&error))?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d(axis(x), y)
        .map_err(|error| told(&error))?;
    chart
        .configure_mesh()
        .x_desc(frame.x)
        .y_desc(frame.y)
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .draw()
        .map_err(|error| told(&error))?;
    // Minor lines first, so that the others lie on top; each label stands once.
    let mut ordered: Vec<&Line> = lines.iter().collect();
    ordered.sort_by_key(|line| !line.is_minor);
    let mut named: Vec<&str> = Vec::new();
    for line in ordered {
        let colour = COLOURS[line.colour % COLOURS.len()];
        let style = ShapeStyle {
            color: colour.mix(if line.is_minor { 0.35 } else { 1.0 }),
            filled: false,
            stroke_width: if line.is_minor { 1 } else { 2 },
        };
        let points = line.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite());
        let series = chart.draw_series(LineSeries::new(points, style)).map_err(|error| told(&error))?;
        if lines.len() > 1 && !named.contains(&line.label.as_str()) {
            named.push(&line.label);
            series.label(&line.label).legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
        }
    }
    if lines.len() > 1 {
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .label_font(("sans-serif", 13))
            .draw()
            .map_err(|error| told(&error))?;
    }
    area.present().map_err(|error| told(&error))
}

/// A number at a tick, without a fraction that is none.
fn number(value: &f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    if rounded.abs() >= 1e6 { format!("{rounded:e}") } else { rounded.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(plots.iter().map(|plot| plot.name).collect::<Vec<_>>(), ["loss", "q-values", "gradients"]);
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
        let names: Vec<&str> = learning(&infinite).unwrap().iter().map(|plot| plot.name).collect();
        assert_eq!(names, ["q-values"]);
    }
}
