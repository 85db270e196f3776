//! The model of a run: golden vectors, metrics, the folder.

use std::collections::BTreeMap;
use std::path::Path;

use bellwether_artifact::{ArtifactError, DataFingerprint, Metric, ModelVersion, Sha256, durable, release};
use bellwether_env_adapter::ACTION_COUNT;
use bellwether_registry::RunDirectory;
use bellwether_replay::StateRows;

use super::RunError;
use super::learn::Learned;
use crate::config::TrainConfig;
use crate::evaluate::Evaluation;
use crate::export::Export;
use crate::recorded::predictions::Predicts;
use crate::recorded::recordings::Recordings;

/// Golden vectors of a model: states spread over what it learned from.
const GOLDEN_VECTORS: usize = 32;

/// How a model is judged on recordings.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The configuration under which it is played.
    pub config: TrainConfig,
    /// What its outputs say of returns.
    pub predicts: Option<Predicts>,
}

/// How a model is judged on recordings, by what its manifest says of its training.
///
/// # Errors
/// [`RunError::Foreign`] where this version does not know what it says.
pub fn judged(training: &serde_json::Value) -> Result<Judged, RunError> {
    if let Ok(learned) = serde_json::from_value::<Learned>(training.clone()) {
        return Ok(learned.judged());
    }
    let config: TrainConfig = serde_json::from_value(training.clone()).map_err(RunError::Foreign)?;
    Ok(Judged { predicts: Some(Predicts::of_recordings(&config)), config })
}

/// Writes an evaluation into a run.
pub(super) fn write_evaluation(directory: &RunDirectory, evaluation: &Evaluation) -> Result<(), RunError> {
    directory.write("evaluation.json", |to| {
        serde_json::to_writer_pretty(&mut *to, evaluation)?;
        to.write_all(b"\n")
    })?;
    Ok(())
}

/// Puts a model into the run's folder.
pub(super) fn publish(
    directory: &RunDirectory,
    export: Export<'_>,
    evaluation: Option<&Evaluation>,
) -> Result<ModelVersion, RunError> {
    let (manifest, onnx) = export.build()?;
    let folder = directory.paths().model();
    if folder.exists() {
        // Left by an attempt that was cut off after it had published the model; the bytes are the same.
        std::fs::remove_dir_all(&folder).map_err(|source| ArtifactError::io("remove", &folder, source))?;
    }
    let evaluation_json = evaluation.and_then(|evaluation| serde_json::to_vec_pretty(evaluation).ok());
    let companions = release::Companions { evaluation: evaluation_json.as_deref(), ..release::Companions::default() };
    release::publish(&folder, &manifest, &onnx, companions)?;
    Ok(manifest.version)
}

/// The results that a model carries: each rate at each operating point, with its interval.
pub(super) fn metrics(evaluation: &Evaluation) -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::new();
    for point in &evaluation.operating_points {
        let (values, intervals) = (&point.metrics, &point.ci95);
        for (name, value, interval) in [
            ("fpr", values.fpr, intervals.fpr),
            ("tpr", values.tpr, intervals.tpr),
            ("mean_events", values.mean_events, intervals.mean_events),
            ("harm_prevented", values.harm_prevented, intervals.harm_prevented),
            ("mean_return", values.mean_return, intervals.mean_return),
        ] {
            metrics.insert(format!("{name}@fpr={}", point.target_fpr), Metric { value, ci95: interval });
        }
    }
    metrics
}

/// What a model says of the telemetry that it has to do with.
pub(super) fn telemetry_fingerprint(
    role: &str,
    path: &Path,
    recordings: &Recordings,
) -> Result<DataFingerprint, RunError> {
    let events = recordings.episodes().map(|episode| recordings.facts(episode).events).sum();
    fingerprint(role, path, recordings.episodes().len() as u64, events)
}

/// What a model says of a file that it has to do with.
pub(super) fn fingerprint(role: &str, path: &Path, episodes: u64, events: u64) -> Result<DataFingerprint, RunError> {
    let (sha256, _): (Sha256, u64) = durable::hash_file(path)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(DataFingerprint { role: role.to_owned(), name, sha256, episodes, events })
}

/// States spread evenly, with the mask of a window in mid-run.
pub(super) fn golden(states: &dyn StateRows) -> Vec<(Vec<f32>, [bool; ACTION_COUNT])> {
    let count = GOLDEN_VECTORS.min(states.len());
    (0..count)
        .map(|i| {
            let mut state = vec![0.0; states.width()];
            states.gather(i * states.len() / count, &mut state);
            (state, bellwether_env_adapter::action::mask(i % 4 == 3, false))
        })
        .collect()
}
