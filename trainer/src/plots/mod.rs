//! Pictures as SVG: how a run learned, what it reaches, when its verdicts fall and how right its q-values are; and how the trials of a
//! sweep compare.

mod sweep;
mod values;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::{
    Cartesian2d, ChartBuilder, Circle, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, Polygon, Ranged,
    SVGBackend, ShapeStyle,
};
use plotters::style::{BLACK, Color, RGBColor, WHITE};

use crate::evaluate::{Evaluation, Timeline, TimelinePoint};
use crate::metrics::UpdateMetrics;

pub use sweep::sweep;

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plot {
    /// Name of the file, without an ending.
    pub name: Cow<'static, str>,
    /// What it shows, in a sentence.
    pub caption: Cow<'static, str>,
    /// The SVG document.
    pub svg: String,
}

/// Why a picture cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the plot `{name}` cannot be drawn: {reason}")]
pub struct PlotError {
    /// Name of the picture.
    pub name: String,
    /// What the drawing library says.
    pub reason: String,
}

/// One line of a picture.
#[derive(Default)]
struct Line {
    label: String,
    points: Vec<(f64, f64)>,
    /// Upright strokes: where, from, to.
    spans: Vec<(f64, f64, f64)>,
    style: LineStyle,
    /// Which colour; lines of what belongs together share one.
    colour: usize,
    /// Drawn thin, behind the others.
    is_minor: bool,
}

/// How the points of a line are shown.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum LineStyle {
    /// As a line.
    #[default]
    Line,
    /// As dots.
    Dots,
    /// As dots on a line.
    DottedLine,
    /// As all that lies below the line.
    Area,
}

/// What a picture shows beside its lines.
#[derive(Default)]
struct Frame {
    name: Cow<'static, str>,
    caption: Cow<'static, str>,
    x: Cow<'static, str>,
    y: Cow<'static, str>,
    has_logarithmic_x: bool,
    /// What stands at 0, 1, 2 and so on of the horizontal axis; numbers where there is nothing.
    categories: Vec<String>,
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

/// A picture of these lines, or none where there is nothing to see.
fn draw(frame: &Frame, lines: &[Line]) -> Result<Option<Plot>, PlotError> {
    let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
    let points = || lines.iter().flat_map(|line| line.points.iter().copied()).filter(finite);
    if points().nth(1).is_none() {
        return Ok(None);
    }
    let ends = |&(x, low, high): &(f64, f64, f64)| [(x, low), (x, high)];
    let all = || points().chain(lines.iter().flat_map(|line| line.spans.iter().flat_map(ends)).filter(finite));
    let bounds = |of: fn((f64, f64)) -> f64| {
        let (low, high) = all().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        // A line along one value still has a height.
        if low < high { low..high } else { low - 0.5..high + 0.5 }
    };
    let (x, y) = (bounds(|point| point.0), frame.y_limits.clone().unwrap_or_else(|| bounds(|point| point.1)));
    let mut svg = String::new();
    let drawn = if frame.has_logarithmic_x {
        let start = if x.start > 0.0 { x.start } else { 1.0 };
        on(frame, lines, start..x.end.max(2.0 * start), y, &mut svg, |range| range.log_scale())
    } else if !frame.categories.is_empty() {
        // Half a category beside the first and the last.
        on(frame, lines, -0.5..frame.categories.len() as f64 - 0.5, y, &mut svg, |range| range)
    } else {
        on(frame, lines, x, y, &mut svg, |range| range)
    };
    drawn.map_err(|reason| PlotError { name: frame.name.to_string(), reason })?;
    Ok(Some(Plot { name: frame.name.clone(), caption: frame.caption.clone(), svg }))
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
        .x_desc(frame.x.as_ref())
        .y_desc(frame.y.as_ref())
        .x_label_formatter(&|value| frame.tick(*value))
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
        let dot = ShapeStyle { filled: true, ..style };
        let spans = line.spans.iter().filter(|(x, low, high)| x.is_finite() && low.is_finite() && high.is_finite());
        let stroke = |&(x, low, high): &(f64, f64, f64)| PathElement::new(vec![(x, low), (x, high)], style);
        chart.draw_series(spans.map(stroke)).map_err(|error| told(&error))?;
        if line.style == LineStyle::Area {
            let mut edge: Vec<(f64, f64)> = points.clone().collect();
            if let (Some(first), Some(last)) = (edge.first().copied(), edge.last().copied()) {
                edge.extend([(last.0, 0.0), (first.0, 0.0)]);
            }
            let below = Polygon::new(edge, ShapeStyle { filled: true, ..style });
            chart.draw_series(std::iter::once(below)).map_err(|error| told(&error))?;
        }
        if matches!(line.style, LineStyle::Dots | LineStyle::DottedLine) {
            let dots = points.clone().map(|at| Circle::new(at, 3, dot));
            chart.draw_series(dots).map_err(|error| told(&error))?;
        }
        let joined = points.filter(|_| line.style != LineStyle::Dots);
        let series = chart.draw_series(LineSeries::new(joined, style)).map_err(|error| told(&error))?;
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

impl Frame {
    /// What stands at a place of the horizontal axis.
    fn tick(&self, at: f64) -> String {
        if self.categories.is_empty() {
            return number(&at);
        }
        let nearest = at.round();
        let category = (nearest >= 0.0).then(|| self.categories.get(nearest as usize)).flatten();
        category.filter(|_| (at - nearest).abs() < 1e-6).cloned().unwrap_or_default()
    }
}

/// A number at a tick, without a fraction that is none.
fn number(value: &f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    let small = *value != 0.0 && value.abs() < 1e-3;
    match small {
        true => format!("{value:.0e}"),
        false if rounded.abs() >= 1e6 => format!("{rounded:e}"),
        false => rounded.to_string(),
    }
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
