//! Pictures as SVG: how a run learned, what it reaches, when its verdicts fall and how right its q-values are; and how the trials of a
//! sweep compare.

mod evaluation;
mod learning;
mod sweep;
mod values;

use std::borrow::Cow;
use std::ops::Range;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::{
    Cartesian2d, ChartBuilder, Circle, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, Polygon, Ranged,
    SVGBackend, ShapeStyle,
};
use plotters::style::{BLACK, Color, RGBColor, WHITE};

pub use evaluation::evaluation;
pub use learning::learning;
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
