//! The trials of a sweep.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Frame, Line, LineStyle, Plot, PlotError, draw};
use crate::sweep::{Dimension, Standing};

/// Values of all settings with their spread over the seeds, the best first, and against what each key was set to. Settings that could not be
/// judged are left out; `measure` names what decides.
///
/// # Errors
/// [`PlotError`] where the library refuses.
pub fn sweep(
    standings: &[Standing],
    space: &BTreeMap<String, Dimension>,
    measure: &str,
) -> Result<Vec<Plot>, PlotError> {
    let judged: Vec<(&Standing, f64)> =
        standings.iter().filter_map(|standing| Some((standing, standing.value?))).collect();
    let frame = Frame {
        name: "trials".into(),
        caption: "Every setting, the best first: the mean over its seeds, and their lowest and highest.".into(),
        x: "place".into(),
        y: measure.to_owned().into(),
        ..Frame::default()
    };
    let places: Vec<(&Standing, f64, f64)> =
        (1..).zip(&judged).map(|(place, (standing, value))| (*standing, f64::from(place), *value)).collect();
    let mut plots: Vec<Plot> = draw(&frame, &rounds(&places))?.into_iter().collect();
    for (key, dimension) in space {
        let at = |standing: &Standing| place(dimension, standing.settings.get(key)?);
        let places: Vec<(&Standing, f64, f64)> =
            judged.iter().filter_map(|(standing, value)| Some((*standing, at(standing)?, *value))).collect();
        let categories = match dimension {
            Dimension::Choice(values) => values.iter().map(Value::to_string).collect(),
            Dimension::Uniform(_) | Dimension::Log(_) | Dimension::Integer(_) => Vec::new(),
        };
        let frame = Frame {
            name: format!("by-{}", key.replace('.', "-")).into(),
            caption: format!("Every setting by its value of `{key}`.").into(),
            x: key.clone().into(),
            y: measure.to_owned().into(),
            has_logarithmic_x: matches!(dimension, Dimension::Log(_)),
            categories,
            ..Frame::default()
        };
        plots.extend(draw(&frame, &rounds(&places))?);
    }
    Ok(plots)
}

/// Where a value stands on its axis.
fn place(dimension: &Dimension, value: &Value) -> Option<f64> {
    match dimension {
        Dimension::Choice(values) => values.iter().position(|choice| choice == value).map(|at| at as f64),
        Dimension::Uniform(_) | Dimension::Log(_) | Dimension::Integer(_) => value.as_f64(),
    }
}

/// Dots in the colour of the round that a setting came to, the last round first.
fn rounds(places: &[(&Standing, f64, f64)]) -> Vec<Line> {
    let mut by_round: BTreeMap<u32, Line> = BTreeMap::new();
    for (standing, x, y) in places {
        let line = by_round.entry(standing.round).or_insert_with(|| Line {
            label: format!("round {}", standing.round + 1),
            style: LineStyle::Dots,
            ..Line::default()
        });
        line.points.push((*x, *y));
        line.spans.extend(standing.range.map(|[low, high]| (*x, low, high)));
    }
    let lines = by_round.into_values().rev().enumerate();
    lines.map(|(colour, line)| Line { colour, ..line }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn standing(number: usize, round: u32, value: Option<f64>, rate: f64, hidden: Value) -> Standing {
        let settings = [("trainer.learning_rate".to_owned(), json!(rate)), ("network.hidden".to_owned(), hidden)];
        Standing {
            number,
            settings: settings.into(),
            round,
            updates: 100,
            value,
            range: value.map(|value| [value - 0.125, value + 0.125]),
            rates: None,
        }
    }

    fn space() -> BTreeMap<String, Dimension> {
        BTreeMap::from([
            ("trainer.learning_rate".to_owned(), Dimension::Log([1e-5, 1e-2])),
            ("network.hidden".to_owned(), Dimension::Choice(vec![json!([8]), json!([32, 16])])),
        ])
    }

    #[test]
    fn every_judged_setting_has_a_dot_and_a_stroke_in_every_picture() {
        let standings = [
            standing(2, 1, Some(0.9), 1e-3, json!([8])),
            standing(0, 1, Some(0.8), 1e-4, json!([32, 16])),
            standing(1, 0, Some(0.5), 1e-5, json!([8])),
            standing(3, 0, None, 1e-2, json!([8])),
        ];
        let plots = sweep(&standings, &space(), "auc").unwrap();
        let names: Vec<&str> = plots.iter().map(|plot| plot.name.as_ref()).collect();
        assert_eq!(names, ["trials", "by-network-hidden", "by-trainer-learning_rate"]);
        for plot in &plots {
            assert_eq!(plot.svg.matches("<circle").count(), 3, "{}", plot.svg);
            assert!(plot.svg.contains("\nround 1\n") && plot.svg.contains("\nround 2\n"), "{}", plot.svg);
        }
        assert!(plots[1].svg.contains("\n[32,16]\n"), "{}", plots[1].svg);
        assert_eq!(plots, sweep(&standings, &space(), "auc").unwrap());
    }

    #[test]
    fn one_setting_is_no_picture() {
        assert!(sweep(&[standing(0, 0, Some(0.5), 1e-3, json!([8]))], &space(), "auc").unwrap().is_empty());
        assert!(sweep(&[], &space(), "auc").unwrap().is_empty());
    }
}
