//! The rules that a `model.json` must keep beyond its shape.

use super::{
    FORMAT_VERSION, FORMAT_VERSION_WITH_GRAPH, GoldenVector, Graph, MAX_MANIFEST_BYTES, ModelManifest, OperatingPoint,
};
use crate::{CanonicalError, ModelVersion, is_plain_name};

/// Largest number of golden vectors, operating points, metrics, data sets, layers or actions in one manifest.
const MAX_ITEMS: usize = 4096;

/// Which rule a `model.json` breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The text is no JSON, or lacks a field, or has one too many, or one of another type.
    #[error("this is no complete model.json: {0}")]
    Json(String),
    /// The text is longer than any manifest.
    #[error("{bytes} bytes are more than the {MAX_MANIFEST_BYTES} that a model.json may have")]
    TooLarge {
        /// Length of the text.
        bytes: u64,
    },
    /// A value has no JSON.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// The format is another one.
    #[error(
        "format_version is {found}, this program reads {FORMAT_VERSION} and {FORMAT_VERSION_WITH_GRAPH}: use the release that \
         wrote the model"
    )]
    FormatVersion {
        /// The version found.
        found: u32,
    },
    /// The version does not belong to the content.
    #[error("version is {found} but the content gives {derived}: the manifest was changed after it was sealed")]
    Version {
        /// The version found.
        found: ModelVersion,
        /// The version that the content gives.
        derived: ModelVersion,
    },
    /// A field holds a value that it may not hold.
    #[error("{field} is {found}: {rule}")]
    Field {
        /// Where in the manifest.
        field: String,
        /// What stands there.
        found: String,
        /// What must hold.
        rule: &'static str,
    },
}

type Result = std::result::Result<(), ManifestError>;

fn ensure(holds: bool, field: impl Into<String>, found: impl ToString, rule: &'static str) -> Result {
    if holds { Ok(()) } else { Err(ManifestError::Field { field: field.into(), found: found.to_string(), rule }) }
}

impl ModelManifest {
    /// Checks every rule of the format; a manifest that passes reads back equal from its own bytes.
    pub(super) fn check(&self) -> Result {
        if ![FORMAT_VERSION, FORMAT_VERSION_WITH_GRAPH].contains(&self.format_version) {
            return Err(ManifestError::FormatVersion { found: self.format_version });
        }
        ensure(
            self.graph.is_some() == (self.format_version == FORMAT_VERSION_WITH_GRAPH),
            "graph",
            format!("{:?}", self.graph),
            "stands in format version 2, and in no other",
        )?;
        ensure(
            is_plain_name(&self.name),
            "name",
            format!("{:.80?}", self.name),
            "use 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit",
        )?;
        self.check_sizes()?;
        self.check_shape()?;
        self.check_operating_points()?;
        ensure(self.training.is_object(), "training", "no object", "give the resolved configuration as an object")?;
        for (name, metric) in &self.metrics {
            let ordered = metric.ci95.is_none_or(|[low, high]| low <= high);
            ensure(ordered, format!("metrics.{name}.ci95"), "upside down", "the lower end must not exceed the upper")?;
        }
        for (index, golden) in self.golden.iter().enumerate() {
            self.check_golden(index, golden)?;
        }
        let derived = self.derived_version()?;
        if self.version != derived {
            return Err(ManifestError::Version { found: self.version, derived });
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result {
        let sizes = [
            ("widths", self.widths.len()),
            ("actions.names", self.actions.names.len()),
            ("operating_points", self.operating_points.len()),
            ("metrics", self.metrics.len()),
            ("data", self.data.len()),
            ("golden", self.golden.len()),
        ];
        for (field, length) in sizes {
            ensure(length <= MAX_ITEMS, field, format!("{length} long"), "at most 4096 items are read")?;
        }
        Ok(())
    }

    fn check_shape(&self) -> Result {
        let widths = format!("{:?}", self.widths);
        ensure(self.widths.len() >= 2, "widths", &widths, "a network has an input and an output")?;
        ensure(!self.widths.contains(&0), "widths", &widths, "no layer is empty")?;
        ensure(self.widths.first() == Some(&self.features.width), "widths", &widths, "must begin with features.width")?;
        let actions = u32::try_from(self.actions.names.len()).ok();
        ensure(self.widths.last().copied() == actions, "widths", &widths, "must end with the number of actions")?;
        ensure(
            self.graph != Some(Graph::General) || self.widths.len() == 2,
            "widths",
            &widths,
            "of a general graph only the first and the last are known",
        )?;
        let events = self.features.window.max_events;
        ensure(events >= 1, "features.window.max_events", events, "a window holds at least one event")
    }

    fn check_operating_points(&self) -> Result {
        let within = |value: f64| (0.0..=1.0).contains(&value);
        for (index, point) in self.operating_points.iter().enumerate() {
            let OperatingPoint { target_fpr, cost, calibration_fpr, calibration_tpr } = *point;
            let field = |name: &str| format!("operating_points[{index}].{name}");
            ensure(target_fpr > 0.0 && target_fpr < 1.0, field("target_fpr"), target_fpr, "must lie between 0 and 1")?;
            ensure((0.0..1.0).contains(&cost), field("cost"), cost, "must be at least 0 and below 1")?;
            for (name, rate) in [("calibration_fpr", calibration_fpr), ("calibration_tpr", calibration_tpr)] {
                ensure(rate.is_none_or(within), field(name), format!("{rate:?}"), "must be null or a share in [0, 1]")?;
            }
        }
        for pair in self.operating_points.windows(2) {
            let [first, second] = pair else { continue };
            let target = second.target_fpr;
            ensure(first.target_fpr < target, "operating_points", target, "targets must ascend")?;
            ensure(first.cost >= second.cost, "operating_points", second.cost, "a larger target never costs more")?;
        }
        Ok(())
    }

    fn check_golden(&self, index: usize, golden: &GoldenVector) -> Result {
        let field = |name: &str| format!("golden[{index}].{name}");
        let mut next = 0_u64;
        for (element, value) in &golden.state {
            let ascending = u64::from(*element) >= next && *element < self.features.width;
            ensure(ascending, field("state"), element, "indices must ascend and stay below features.width")?;
            ensure((0.0..=1.0).contains(value), field("state"), value, "values must lie in [0, 1]")?;
            next = u64::from(*element) + 1;
        }
        let actions = self.actions.names.len();
        ensure(golden.mask.len() == actions, field("mask"), golden.mask.len(), "needs one entry per action")?;
        ensure(golden.q_values.len() == actions, field("q_values"), golden.q_values.len(), "needs one per action")?;
        ensure(golden.q_values.iter().all(|q| q.is_finite()), field("q_values"), "not finite", "must be finite")?;
        let mut best: Option<(usize, f32)> = None;
        for (action, (allowed, q)) in golden.mask.iter().zip(&golden.q_values).enumerate() {
            if *allowed && best.is_none_or(|(_, largest)| *q > largest) {
                best = Some((action, *q));
            }
        }
        let action = usize::try_from(golden.action).ok();
        ensure(
            best.is_some() && best.map(|(action, _)| action) == action,
            field("action"),
            golden.action,
            "must be the allowed action with the largest q-value, the lowest number on a tie",
        )
    }
}
