//! `runs compare` on runs that are made for it.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod program;

use std::collections::BTreeMap;
use std::path::Path;

use bellwether_artifact::{Sha256, SourceRevision, durable};
use bellwether_registry::{InputFile, MANIFEST_FORMAT, RunDirectory, RunManifest};
use program::{bellwether, keeps_schema};
use serde_json::{Value, json};

/// What a run is made of here.
struct Made {
    seed: u64,
    data: &'static str,
    batch_size: Value,
    tpr: Option<Value>,
    complete: bool,
}

const PLAIN: Made = Made { seed: 1, data: "data", batch_size: Value::Null, tpr: None, complete: true };

/// An evaluation whose only operating point has this true-positive rate.
fn evaluation(tpr: &Value) -> Value {
    let names = [
        "fpr",
        "tpr",
        "mean_events",
        "mean_events_benign",
        "mean_events_malicious",
        "median_events",
        "median_events_benign",
        "median_events_malicious",
        "mean_windows",
        "mean_windows_benign",
        "mean_windows_malicious",
        "harm_prevented",
        "mean_return",
    ];
    let ci95: BTreeMap<&str, Value> = names.iter().map(|name| (*name, Value::Null)).collect();
    let mut point = json!({ "target_fpr": 0.05, "supported": true, "setting": 0.5, "calibrated_fpr": 0.04, "met": true, "ci95": ci95 });
    for name in names {
        point[name] = json!(0.25);
    }
    point["tpr"] = tpr.clone();
    json!({
        "version": 1, "episodes": 2, "benign": 1, "malicious": 1, "operating_points": [point],
        "oracle": { "tpr_at_fpr": {}, "auc": null }, "per_family": {}, "baselines": {},
    })
}

/// Makes a run below `root` and gives its id.
fn run(root: &Path, made: &Made) -> String {
    let input = InputFile {
        role: "train".into(),
        name: "train.parquet".into(),
        sha256: Sha256::of(made.data.as_bytes()),
        bytes: made.data.len() as u64,
    };
    let manifest = RunManifest {
        format_version: MANIFEST_FORMAT,
        name: "demo".into(),
        command: "train".into(),
        flags: BTreeMap::new(),
        config: json!({ "seed": made.seed, "trainer": { "batch_size": made.batch_size, "dropout": [0.1] } }),
        seeds: BTreeMap::from([("master".into(), made.seed)]),
        inputs: vec![input],
        versions: BTreeMap::from([("feature_spec".into(), "1".into())]),
        source: SourceRevision { package: "0.1.0".into(), revision: None, modified: None },
        artifacts: Vec::new(),
    };
    let run = RunDirectory::create(root, manifest).unwrap();
    if let Some(tpr) = &made.tpr {
        let text = evaluation(tpr).to_string();
        run.write("evaluation.json", |out| out.write_all(text.as_bytes())).unwrap();
    }
    let id = run.id();
    if made.complete {
        run.complete().unwrap();
    }
    id
}

#[test]
fn runs_stand_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let runs = at.join("runs");
    let first = run(&runs, &Made { batch_size: json!(64), tpr: Some(json!(0.9)), ..PLAIN });
    let other = run(&runs, &Made { seed: 2, batch_size: json!(128), tpr: Some(Value::Null), ..PLAIN });
    let aborted = run(&runs, &Made { data: "other data", complete: false, ..PLAIN });
    let compared = bellwether(at, &["runs", "compare", &first, &other, &aborted]).expect(0);
    insta::assert_snapshot!("runs_compare", compared.stdout);
    let compared = bellwether(at, &["runs", "compare", &first, &other, &aborted, "--json"]).expect(0).json();
    keeps_schema("runs-compare.schema.json", &compared);
    let statuses: Vec<&Value> = compared["runs"].as_array().unwrap().iter().map(|run| &run["status"]).collect();
    assert_eq!(statuses, ["complete", "complete", "aborted"]);
    assert_eq!(compared["same_data"], false);
    assert_eq!(compared["reproduced"], Value::Null, "no two of them are re-runs of each other");
    let row = |list: &str, key: &str, name: &str| -> Value {
        let rows = compared[list].as_array().unwrap();
        rows.iter().find(|row| row[key] == name).map_or(Value::Null, |row| row["values"].clone())
    };
    assert_eq!(row("settings", "key", "trainer.batch_size"), json!([64, 128, null]));
    assert_eq!(row("settings", "key", "trainer.dropout"), Value::Null, "what is the same is left out");
    assert_eq!(row("results", "metric", "tpr"), json!([0.9, null, null]));
    assert_eq!(row("results", "metric", "harm_prevented"), json!([0.25, 0.25, null]));
}

#[test]
fn re_runs_show_whether_results_are_reproduced() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let runs = at.join("runs");
    let first = run(&runs, &Made { tpr: Some(json!(0.9)), ..PLAIN });
    let twin = run(&runs, &Made { tpr: Some(json!(0.9)), ..PLAIN });
    let liar = run(&runs, &Made { tpr: Some(json!(0.8)), ..PLAIN });
    for (others, reproduced) in
        [(vec![&twin], json!(true)), (vec![&first], Value::Null), (vec![&twin, &liar], json!(false))]
    {
        let others: Vec<&str> = others.into_iter().map(String::as_str).collect();
        let arguments = [&["runs", "compare", "--json", &first], &others[..]].concat();
        assert_eq!(bellwether(at, &arguments).expect(0).json()["reproduced"], reproduced, "{arguments:?}");
    }
    let text = bellwether(at, &["runs", "compare", &first, &liar]).expect(0).stdout;
    assert!(text.contains("no setting differs") && text.contains("MADE OTHER BYTES"), "{text}");
}

#[test]
fn a_damaged_evaluation_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let runs = at.join("runs");
    let (first, other) = (run(&runs, &PLAIN), run(&runs, &Made { tpr: Some(json!(0.9)), ..PLAIN }));
    durable::write_bytes(runs.join(&other).join("evaluation.json"), b"{\"version\": 1").unwrap();
    bellwether(at, &["runs", "compare", &first, &other]).complains(1, &[&other, "evaluation.json"]);
}
