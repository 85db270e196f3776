//! `bellwether runs compare`: what differs between runs, and what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use bellwether_artifact::{durable, release};
use bellwether_registry::{RunPaths, RunReport, RunStatus, show_run};
use bellwether_trainer::evaluate::{Evaluation, OperatingPointReport};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::Failure;

/// Largest evaluation that is read, in bytes.
const MAX_EVALUATION_BYTES: u64 = 1 << 26;

/// What `runs compare` reports as JSON. Every list `values` has one entry per run, in the order of `runs`.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "RunsCompare")]
pub(crate) struct Comparison {
    /// The runs, in the order in which they were named.
    runs: Vec<Compared>,
    /// Whether all runs read the same files under the same roles: only then do results differ by the settings alone.
    same_data: bool,
    /// SHA-256 of what was read under each role (`train`, `valid`); null where a run read nothing under it.
    data: Vec<Row>,
    /// What differs of the configuration, seeds, flags, versions of formats and source, by dotted key; null where a run has no
    /// such key.
    settings: Vec<Row>,
    /// Results on held-out recordings, as `evaluation.json` has them; null where a run has none, or its data cannot support one.
    results: Vec<Outcome>,
    /// Whether complete runs of one fingerprint made the same files; null where no two runs can show it. False is a bug of
    /// this program or a run that was changed: `runs verify` tells which.
    reproduced: Option<bool>,
}

/// One of the runs.
#[derive(Serialize, JsonSchema)]
struct Compared {
    /// Id of the run.
    id: String,
    /// `running`, `complete`, `failed` or `aborted`.
    status: String,
    /// SHA-256 over everything that decides the results; equal for re-runs of each other.
    fingerprint: String,
    /// Version of the model that it made; null where it made none.
    model_version: Option<String>,
}

/// One key over all runs.
#[derive(Serialize, JsonSchema)]
struct Row {
    /// The key.
    key: String,
    /// Its values.
    values: Vec<Value>,
}

/// One result over all runs.
#[derive(Serialize, JsonSchema)]
struct Outcome {
    /// Name of the metric.
    metric: String,
    /// The target false-positive rate that it was fixed for.
    target_fpr: f64,
    /// Its values.
    values: Vec<Option<f64>>,
}

/// A metric of an operating point by its name.
type Metric = (&'static str, fn(&OperatingPointReport) -> Option<f64>);

/// The results that are set side by side; `evaluation.json` has more.
const METRICS: [Metric; 6] = [
    ("fpr", |point| point.metrics.fpr),
    ("tpr", |point| point.metrics.tpr),
    ("mean_events", |point| point.metrics.mean_events),
    ("mean_windows", |point| point.metrics.mean_windows),
    ("harm_prevented", |point| point.metrics.harm_prevented),
    ("mean_return", |point| point.metrics.mean_return),
];

/// Sets the runs in these folders side by side.
pub(crate) fn compare(folders: &[impl AsRef<Path>]) -> Result<Comparison, Failure> {
    let (mut reports, mut runs, mut evaluations) = (Vec::new(), Vec::new(), Vec::new());
    for folder in folders {
        let paths = RunPaths::new(folder.as_ref());
        let report = show_run(paths.folder())?;
        runs.push(Compared {
            id: report.id.clone(),
            status: report.status.to_string(),
            fingerprint: report.manifest.fingerprint()?.to_string(),
            model_version: match release::manifest_path(&paths.model()).exists() {
                true => Some(release::read_manifest(&paths.model())?.version.to_string()),
                false => None,
            },
        });
        evaluations.push(evaluation_of(&paths)?);
        reports.push(report);
    }
    let data = rows(reports.iter().map(|report| report.manifest.data()));
    Ok(Comparison {
        same_data: data.iter().all(Row::is_constant),
        data,
        settings: differing(reports.iter().map(|report| report.manifest.settings()).collect()),
        results: results(&evaluations),
        reproduced: reproduced(&reports, &runs),
        runs,
    })
}

/// The evaluation of a run, if it has one.
fn evaluation_of(paths: &RunPaths) -> Result<Option<Evaluation>, Failure> {
    let path = paths.evaluation();
    if !path.exists() {
        return Ok(None);
    }
    let bytes = durable::read(&path, MAX_EVALUATION_BYTES)?;
    let evaluation = serde_json::from_slice(&bytes);
    Ok(Some(evaluation.with_context(|| format!("{} is no evaluation of this version", path.display()))?))
}

/// All keys of all runs.
fn rows(runs: impl Iterator<Item = BTreeMap<String, Value>>) -> Vec<Row> {
    let runs: Vec<BTreeMap<String, Value>> = runs.collect();
    let keys: BTreeSet<&String> = runs.iter().flat_map(BTreeMap::keys).collect();
    let row = |key: &String| Row {
        key: key.clone(),
        values: runs.iter().map(|run| run.get(key).cloned().unwrap_or_default()).collect(),
    };
    keys.into_iter().map(row).collect()
}

/// The keys in which runs differ.
fn differing(runs: Vec<BTreeMap<String, Value>>) -> Vec<Row> {
    let mut rows = rows(runs.into_iter());
    rows.retain(|row| !row.is_constant());
    rows
}

fn results(evaluations: &[Option<Evaluation>]) -> Vec<Outcome> {
    let points = |evaluation: &Evaluation| evaluation.operating_points.clone();
    let points: Vec<Vec<OperatingPointReport>> =
        evaluations.iter().map(|held| held.as_ref().map(points).unwrap_or_default()).collect();
    let mut targets: Vec<f64> = points.iter().flatten().map(|point| point.target_fpr).collect();
    targets.sort_by(f64::total_cmp);
    targets.dedup();
    let outcome = |target_fpr: f64, (metric, of): Metric| Outcome {
        metric: metric.to_owned(),
        target_fpr,
        values: points.iter().map(|run| run.iter().find(|point| point.target_fpr == target_fpr).and_then(of)).collect(),
    };
    targets.into_iter().flat_map(|target| METRICS.map(|metric| outcome(target, metric))).collect()
}

/// Whether complete runs of one fingerprint made the same.
fn reproduced(reports: &[RunReport], runs: &[Compared]) -> Option<bool> {
    let complete: Vec<_> = reports.iter().zip(runs).filter(|(one, _)| one.status == RunStatus::Complete).collect();
    let pairs =
        complete.iter().enumerate().flat_map(|(at, one)| complete[at + 1..].iter().map(move |other| (one, other)));
    let reruns = pairs.filter(|(one, other)| one.0.id != other.0.id && one.1.fingerprint == other.1.fingerprint);
    reruns.map(|(one, other)| one.0.manifest.artifacts == other.0.manifest.artifacts).reduce(|all, same| all && same)
}

impl Row {
    /// Whether all runs agree.
    fn is_constant(&self) -> bool {
        self.values.iter().all(|value| Some(value) == self.values.first())
    }
}

impl Comparison {
    /// For people: one column per run.
    pub(crate) fn describe(&self) -> String {
        let of_runs = |of: &dyn Fn(&Compared) -> String| self.runs.iter().map(of).collect::<Vec<_>>();
        let plain = |value: &Value| match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut table = vec![
            ("run".to_owned(), of_runs(&|run| run.id.clone())),
            ("status".to_owned(), of_runs(&|run| run.status.clone())),
            ("model".to_owned(), of_runs(&|run| run.model_version.clone().unwrap_or_else(|| "-".to_owned()))),
        ];
        // The beginning of a hash tells files apart; --json has all of it.
        let short = |value: &Value| value.as_str().map_or("-", |hash| hash.get(..12).unwrap_or(hash)).to_owned();
        table.extend(self.data.iter().map(|row| (row.key.clone(), row.values.iter().map(short).collect())));
        table.extend(self.settings.iter().map(|row| (row.key.clone(), row.values.iter().map(plain).collect())));
        let figure = |value: &Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        let name = |row: &Outcome| format!("{} at {}", row.metric, row.target_fpr);
        table.extend(self.results.iter().map(|row| (name(row), row.values.iter().map(figure).collect())));
        let mut lines = columns(&table);
        if !self.same_data {
            lines.push("the runs read other data: their results cannot be held against each other".to_owned());
        }
        if self.settings.is_empty() {
            lines.push("no setting differs".to_owned());
        }
        match self.reproduced {
            Some(true) => lines.push("runs of the same fingerprint made the same bytes".to_owned()),
            Some(false) => lines.push("RUNS OF THE SAME FINGERPRINT MADE OTHER BYTES: verify them".to_owned()),
            None => {}
        }
        lines.join("\n")
    }
}

/// Lines in which each column is as wide as its widest cell.
fn columns(table: &[(String, Vec<String>)]) -> Vec<String> {
    let keys = widest(table.iter().map(|(key, _)| key));
    let runs = table.first().map_or(0, |(_, cells)| cells.len());
    let widths: Vec<usize> =
        (0..runs).map(|run| widest(table.iter().filter_map(|(_, cells)| cells.get(run)))).collect();
    let line = |(key, cells): &(String, Vec<String>)| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("  {cell:<width$}"));
        format!("{key:<keys$}{}", cells.collect::<String>()).trim_end().to_owned()
    };
    table.iter().map(line).collect()
}

/// Characters of the longest cell.
fn widest<'a>(cells: impl Iterator<Item = &'a String>) -> usize {
    cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
}
