//! The gates of a release: what a model must show before a name moves to it.

use std::path::Path;

use bellwether_artifact::ModelManifest;
use bellwether_inference::release::TOLERANCE;
use bellwether_inference::{Backend, Engines};
use bellwether_registry::{Check, GateReport};

use super::{Failure, model};

/// Checks without which nothing is promoted.
pub(crate) const REQUIRED: &[&str] = &["loads", "golden_vectors", "calibrated", "realised_fpr", "tpr"];

/// Checks that say that a model is whole, whatever it reaches.
pub(crate) const WHOLE: &[&str] = &["loads", "golden_vectors"];

/// What a model must reach.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Limits {
    /// The operating point that is judged.
    #[arg(long, value_name = "RATE", default_value_t = 0.05)]
    target_fpr: f64,
    /// Largest false-positive rate on held-out data at that point.
    #[arg(long, value_name = "RATE", default_value_t = 0.07)]
    max_fpr: f64,
    /// Smallest true-positive rate on held-out data at that point.
    #[arg(long, value_name = "RATE", default_value_t = 0.60)]
    min_tpr: f64,
}

/// Checks that the model in a folder is whole.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_whole(folder: &Path, engines: Engines) -> Result<GateReport, Failure> {
    let manifest = bellwether_artifact::release::read_manifest(folder)?;
    Ok(GateReport::of(&manifest, whole(folder, &manifest, engines).into()))
}

/// Checks the model in a folder, evaluated by what may evaluate it where it is served.
///
/// # Errors
/// If its manifest cannot be read; a model that does not load fails its first check instead.
pub(crate) fn check(folder: &Path, limits: &Limits, engines: Engines) -> Result<GateReport, Failure> {
    let manifest = bellwether_artifact::release::read_manifest(folder)?;
    let mut checks = Vec::from(whole(folder, &manifest, engines));
    checks.extend([
        calibrated(&manifest, limits),
        held_out(&manifest, "fpr", "realised_fpr", limits.target_fpr, limits.max_fpr, |value, limit| value <= limit),
        held_out(&manifest, "tpr", "tpr", limits.target_fpr, limits.min_tpr, |value, limit| value >= limit),
    ]);
    Ok(GateReport::of(&manifest, checks))
}

/// A check that has no number.
fn plain(name: &str, passed: bool, detail: String) -> Check {
    Check { name: name.to_owned(), passed, value: None, limit: None, detail }
}

/// The checks of [`WHOLE`].
fn whole(folder: &Path, manifest: &ModelManifest, engines: Engines) -> [Check; 2] {
    let loaded = model::load_for(folder, engines);
    let reason = match &loaded {
        Ok(_) => "hash, graph, feature specification and action set are as stated".to_owned(),
        Err(failure) => failure.to_string(),
    };
    let vectors = manifest.golden.len();
    let exactly = match loaded.as_ref().map(|release| release.engine.backend()) {
        Ok(Backend::OnnxRuntime) => format!("within {TOLERANCE} in ONNX Runtime"),
        _ => "bit for bit".to_owned(),
    };
    [
        plain("loads", loaded.is_ok(), reason),
        plain("golden_vectors", loaded.is_ok(), format!("{vectors} states give the stated q-values {exactly}")),
    ]
}

/// The false-positive rate of the operating point where it was chosen, against that which is allowed on held-out data.
fn calibrated(manifest: &ModelManifest, limits: &Limits) -> Check {
    let target = limits.target_fpr;
    let point = manifest.operating_point(target);
    let value = point.and_then(|point| point.calibration_fpr);
    Check {
        name: "calibrated".to_owned(),
        passed: value.is_some_and(|rate| rate <= limits.max_fpr),
        value,
        limit: Some(limits.max_fpr),
        detail: match (point, value) {
            (_, Some(_)) => format!("fpr in calibration, at the cost of the operating point for {target}"),
            (Some(_), None) => format!("no cost was calibrated for a false-positive rate of {target}"),
            (None, None) => format!("the model has no operating point for {target}"),
        },
    }
}

/// A held-out result against its limit; a model that was never evaluated does not pass.
fn held_out(
    manifest: &ModelManifest,
    metric: &str,
    name: &str,
    target: f64,
    limit: f64,
    keeps: impl Fn(f64, f64) -> bool,
) -> Check {
    let evaluated = manifest.metrics.get(&format!("{metric}@fpr={target}"));
    let value = evaluated.and_then(|metric| metric.value);
    Check {
        name: name.to_owned(),
        passed: value.is_some_and(|value| keeps(value, limit)),
        value,
        limit: Some(limit),
        detail: match (evaluated, value) {
            (_, Some(_)) => format!("{metric} on held-out recordings at the operating point for {target}"),
            (Some(_), None) => format!("the held-out benign recordings are too few for a rate of {target}"),
            (None, None) => format!("nothing was held out for a rate of {target}; train with --valid"),
        },
    }
}

/// The report for people.
pub(crate) fn describe(report: &GateReport) -> String {
    let line = |check: &Check| {
        let mark = if check.passed { "passed" } else { "FAILED" };
        let figure = match (check.value, check.limit) {
            (Some(value), Some(limit)) => format!(" {value:.3} against {limit}"),
            _ => String::new(),
        };
        format!("{mark}  {:<15}{figure}  {}", check.name, check.detail)
    };
    report.checks.iter().map(line).collect::<Vec<_>>().join("\n")
}
