//! The main job from outside: recordings in, a released model that decides out, the same bytes every time.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly")]
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

mod program;
mod reduced;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bellwether_env_adapter::ingest::TelemetryWriter;
use bellwether_env_adapter::{EpisodeAttributes, EpisodeId, Event, EventKind, EventSink, Label};
use program::{
    bellwether, bellwether_in, bellwether_with, files, keeps_schema, schema, shell, start, unread, until_checkpoint,
};
use reduced::{SMALL, reduced, reduced_parts};
use serde_json::Value;

/// What a run made that is a function of data, configuration and seed.
const RESULTS: [&str; 5] =
    ["metrics.jsonl", "evaluation.json", "model/model.onnx", "model/model.json", "checkpoints/latest.checkpoint"];

/// `train` on the parts of [`reduced_parts`] with these further arguments.
fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let data = ["train", "--json", "--data", "parts/train.parquet", "--valid", "parts/test.parquet"];
    [&data[..], &SMALL, more].concat()
}

fn results(run: &Path) -> BTreeMap<&'static str, Vec<u8>> {
    RESULTS.into_iter().map(|name| (name, std::fs::read(run.join(name)).unwrap())).collect()
}

/// Names of the results in which two runs differ.
fn differing(one: &Path, other: &Path) -> Vec<&'static str> {
    let (one, other) = (results(one), results(other));
    assert!(one.values().all(|bytes| !bytes.is_empty()), "an empty result proves nothing");
    RESULTS.into_iter().filter(|name| one[name] != other[name]).collect()
}

fn json_file(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn schemas_refuse_what_is_no_report() {
    let validator = jsonschema::validator_for(&schema("evaluation.schema.json")).unwrap();
    for wrong in [serde_json::json!({}), serde_json::json!({ "version": "one" }), serde_json::json!([])] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
}

#[test]
fn quickstart_leaves_a_verified_released_model_that_decides_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced(at);
    let quickstart = ["quickstart", "--json", "--data", "reduced.parquet", "--max-fpr", "1", "--min-tpr", "0"];
    let report = bellwether(at, &[&quickstart[..], &SMALL].concat()).expect(0).json();
    keeps_schema("quickstart-report.schema.json", &report);
    let run = report["run"].as_str().unwrap();
    let version = report["model_version"].as_str().unwrap();
    let evaluation = &report["evaluation"];
    assert_eq!(report["folder"], "quickstart");
    assert_eq!((&report["release"]["name"], &report["release"]["number"]), (&"champion".into(), &1.into()));
    assert!(report["decisions_per_second"].as_f64().unwrap() > 0.0);
    let count = |key: &str| evaluation[key].as_u64().unwrap();
    assert!(count("benign") > 0 && count("malicious") > 0);
    assert_eq!(count("benign") + count("malicious"), count("episodes"));
    let targets: Vec<f64> =
        evaluation["operating_points"].as_array().unwrap().iter().map(|p| p["target_fpr"].as_f64().unwrap()).collect();
    assert_eq!(targets, [0.001, 0.01, 0.05]);
    let baselines = evaluation["baselines"].as_object().unwrap();
    assert!(baselines.len() >= 5, "{:?}", baselines.keys());

    // Two programs ran live, of families that training never saw, or it is said what is missing.
    let missing = report["live"]["missing"].as_array().unwrap();
    let detonated = report["live"]["detonated"].as_array().unwrap();
    if missing.is_empty() {
        let labels: Vec<&Value> = detonated.iter().map(|one| &one["label"]).collect();
        assert_eq!(labels, ["benign", "malicious"]);
        for one in detonated {
            assert!(!evaluation["per_family"][one["family"].as_str().unwrap()].is_null(), "{one}");
            assert!(one["decisions"].as_u64().unwrap() > 0 && one["partial"] == serde_json::json!([]), "{one}");
            assert!(at.join(one["folder"].as_str().unwrap()).join("telemetry.parquet").is_file());
        }
    } else {
        assert!(detonated.is_empty() && missing.iter().all(|line| line.as_str().unwrap().contains("missing: ")));
        eprintln!("skipped the live end of quickstart: {missing:?}");
    }

    // The families of the test are those that training never saw.
    let validated = bellwether(at, &["validate", "quickstart/data/train.parquet", "quickstart/data/test.parquet"]);
    validated.expect(0);
    let runs = ["runs", "--json", "--runs", "quickstart/runs"];
    let listed = bellwether(at, &[&runs[..], &["list"]].concat()).expect(0).json();
    assert_eq!((listed[0]["id"].as_str(), listed[0]["status"].as_str()), (Some(run), Some("complete")));
    let shown = bellwether(at, &[&runs[..], &["show", run]].concat()).expect(0).json();
    assert!(shown["metrics_records"].as_u64().unwrap() > 0);
    keeps_schema("runs-list.schema.json", &listed);
    keeps_schema("runs-show.schema.json", &shown);
    keeps_schema("runs-verify.schema.json", &bellwether(at, &[&runs[..], &["verify", run]].concat()).expect(0).json());
    let metrics = at.join("quickstart/runs").join(run).join("metrics.jsonl");
    let whole = std::fs::read(&metrics).unwrap();
    std::fs::write(&metrics, &whole[1..]).unwrap();
    let changed = bellwether(at, &[&runs[..], &["verify", run]].concat());
    keeps_schema("runs-verify.schema.json", &changed.complains(2, &["not what its manifest says"]).json());
    std::fs::write(&metrics, whole).unwrap();
    let release = ["release", "--json", "--registry", "quickstart/releases"];
    let models = bellwether(at, &[&release[..], &["list"]].concat()).expect(0).json();
    keeps_schema("release-list.schema.json", &models);
    assert_eq!((models[0]["version"].as_str(), models[0]["names"][0].as_str()), (Some(version), Some("champion")));
    assert_eq!(bellwether(at, &[&release[..], &["verify"]].concat()).expect(0).json(), Value::Array(Vec::new()));

    // The exported model is byte for byte the run's, and is not written twice.
    let export = ["export", run, "--runs", "quickstart/runs", "--out", "model", "--json"];
    let exported = bellwether(at, &export).expect(0).json();
    keeps_schema("export-report.schema.json", &exported);
    assert_eq!(exported["model_version"], version);
    bellwether(at, &export).complains(1, &["model"]);
    for file in ["model.onnx", "model.json"] {
        let made = at.join("quickstart/runs").join(run).join("model").join(file);
        assert_eq!(std::fs::read(made).unwrap(), std::fs::read(at.join("model").join(file)).unwrap());
    }

    decides_its_golden_vectors(at);

    // What was exported is the release that the registry has already.
    let promote = ["promote", "model", "--name", "exported", "--max-fpr", "1", "--min-tpr", "0"];
    let promoted = bellwether(at, &[&release[..], &promote].concat()).expect(0).json();
    keeps_schema("release-promote.schema.json", &promoted);
    assert_eq!((&promoted["moved"]["to"], &promoted["gates"]["version"]), (&1.into(), &version.into()));

    // Playing the loaded model gives what its training reported.
    let evaluate = ["evaluate", "--json", "--model", "model", "--data", "quickstart/data/test.parquet"];
    let again = bellwether(at, &[&evaluate[..], &["--train", "quickstart/data/train.parquet"]].concat());
    let again = again.expect(0).json();
    keeps_schema("evaluation.schema.json", &again);
    for key in ["episodes", "benign", "malicious", "oracle", "baselines"] {
        assert_eq!(again[key], evaluation[key], "{key}");
    }
    for (now, then) in
        again["operating_points"].as_array().unwrap().iter().zip(evaluation["operating_points"].as_array().unwrap())
    {
        for key in ["setting", "fpr", "tpr", "mean_events", "harm_prevented", "mean_return", "ci95"] {
            assert_eq!(now[key], then[key], "{key} at {}", now["target_fpr"]);
        }
    }

    // What a model was trained on is not held out.
    let evaluate = ["evaluate", "--json", "--model", "model", "--data", "quickstart/data/train.parquet"];
    let known = bellwether(at, &evaluate).expect(0);
    assert!(known.stderr.contains("train.parquet is what the model was trained on"), "{}", known.stderr);

    // A released file that is no longer what it was is found.
    let released = at.join("quickstart/releases/versions/000001/model.onnx");
    let mut bytes = std::fs::read(&released).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&released, bytes).unwrap();
    let problems = bellwether(at, &[&release[..], &["verify"]].concat()).expect(2).json();
    keeps_schema("release-verify.schema.json", &problems);
    assert!(!problems.as_array().unwrap().is_empty());
    bellwether(at, &["decide", "--model", "quickstart/releases/versions/000001"]).complains(1, &["refused"]);
}

/// Feeds the golden states of `model/` to `decide` and expects the golden answers, to the bit.
fn decides_its_golden_vectors(at: &Path) {
    let manifest = json_file(at.join("model/model.json"));
    let golden = manifest["golden"].as_array().unwrap();
    assert!(golden.len() >= 16);
    let lines: Vec<String> =
        golden.iter().map(|g| format!("{{\"state\":{},\"mask\":{}}}", g["state"], g["mask"])).collect();
    let decided = bellwether_with(at, &["decide", "--model", "model"], &lines.join("\n")).expect(0);
    let answers: Vec<Value> = decided.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), golden.len());
    for (answer, golden) in answers.iter().zip(golden) {
        let action = golden["action"].as_u64().unwrap() as usize;
        assert_eq!(answer["action"], manifest["actions"]["names"][action]);
        let bits = |values: &Value| -> Vec<u32> {
            values.as_array().unwrap().iter().map(|v| (v.as_f64().unwrap() as f32).to_bits()).collect()
        };
        assert_eq!(bits(&answer["q_values"]), bits(&golden["q_values"]));
    }
    answers.iter().for_each(|answer| keeps_schema("decision.schema.json", answer));
    assert!(answers.iter().all(|answer| answer["certified"] == false && answer["bound"] == 0.0));
    let certified = ["decide", "--model", "model", "--precision", "certified"];
    let certified = bellwether_with(at, &certified, &lines.join("\n")).expect(0);
    let certified: Vec<Value> = certified.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    certified.iter().for_each(|answer| keeps_schema("decision.schema.json", answer));
    let actions = |answers: &[Value]| answers.iter().map(|answer| answer["action"].clone()).collect::<Vec<_>>();
    assert_eq!(actions(&certified), actions(&answers));
    for (near, exact) in certified.iter().zip(&answers) {
        let of = |answer: &Value, i: usize| answer["q_values"][i].as_f64().unwrap();
        let bound = near["bound"].as_f64().unwrap();
        assert!((0..5).all(|i| (of(near, i) - of(exact, i)).abs() <= bound), "{near} {exact}");
    }
    answers_before_it_is_asked_again(at, &lines);
    unread(at, &["decide", "--model", "model"]).expect(0);
    let served = bellwether_with(at, &["decide", "--model", "model", "--target-fpr", "0.05"], &lines[0]).expect(0);
    assert_eq!(served.stdout.lines().count(), 1);
    bellwether(at, &["decide", "--model", "model", "--target-fpr", "0.5"]).complains(64, &["0.5", "0.05"]);
    let twice = r#"{"state":[[3,0.5],[1,1],[3,0.5]]}"#;
    for wrong in ["{}", r#"{"state":[[9999,1]]}"#, twice, r#"{"state":[0.5]}"#, r#"{"state":[],"mask":[false]}"#, "[["]
    {
        bellwether_with(at, &["decide", "--model", "model"], &format!("{}\n{wrong}\n", lines[0]))
            .complains(1, &["line 2"]);
    }
}

/// Asks for one decision after another, each when the last has come.
fn answers_before_it_is_asked_again(at: &Path, lines: &[String]) {
    let mut child = program::command(at, &["decide", "--model", "model"]).stdin(Stdio::piped()).spawn().unwrap();
    let (mut questions, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let (heard, hears) = std::sync::mpsc::channel();
    let listener = std::thread::spawn(move || answers.lines().for_each(|line| heard.send(line.unwrap()).unwrap()));
    for line in lines {
        writeln!(questions, "{line}").unwrap();
        let answer = hears.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(answer.contains("\"action\""), "{answer}");
    }
    drop(questions);
    assert!(child.wait().unwrap().success());
    listener.join().unwrap();
}

#[test]
fn a_gate_that_is_not_met_ends_with_2_and_moves_no_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced(at);
    let quickstart = ["quickstart", "--data", "reduced.parquet", "--max-fpr", "0", "--min-tpr", "1.1"];
    let ran = bellwether(at, &[&quickstart[..], &SMALL].concat()).complains(2, &["gate"]);
    assert!(ran.stdout.contains("FAILED") && ran.stdout.contains("not released"), "{}", ran.stdout);
    let release = ["release", "--registry", "quickstart/releases"];
    let models = bellwether(at, &[&release[..], &["list", "--json"]].concat()).expect(0).json();
    assert_eq!(models[0]["names"], Value::Array(Vec::new()));
    // Why it was refused is kept, and told to programs too.
    let gates = at.join("quickstart/releases/gates");
    assert_eq!(files(&gates).len(), 1);
    let refused = bellwether(at, &[&release[..], &["promote", "1", "--min-tpr", "1.1", "--json"]].concat());
    let refused = refused.complains(2, &["champion stays"]).json();
    keeps_schema("release-promote.schema.json", &refused);
    assert_eq!((&refused["moved"], &refused["gates"]["checks"][4]["passed"]), (&Value::Null, &false.into()));
    assert_eq!(files(&gates).len(), 2);
    // Without a model under the name there is nothing to go back to.
    bellwether(at, &[&release[..], &["rollback"]].concat()).complains(1, &["champion"]);
    bellwether(at, &[&release[..], &["promote", "1", "--max-fpr", "1", "--min-tpr", "0"]].concat()).expect(0);
    let models = bellwether(at, &[&release[..], &["list", "--json"]].concat()).expect(0).json();
    assert_eq!(models[0]["names"][0], "champion");
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced_parts(at);
    let run = |environment: &[(&str, &str)], more: &[&str]| -> PathBuf {
        let report = bellwether_in(at, environment, &train(more)).expect(0).json();
        keeps_schema("train-report.schema.json", &report);
        let run = at.join("runs").join(report["run"].as_str().unwrap());
        keeps_schema("train-config.schema.json", &json_file(run.join("config.json")));
        run
    };
    let first = run(&[], &[]);
    let threads = ["--set", "trainer.threads=1", "--set", "trainer.memory_bytes=1000000"];
    let second = run(&[("BELLWETHER_ISA", "scalar")], &threads);
    assert_ne!(first, second);
    assert_eq!(differing(&first, &second), [""; 0]);
    let other = run(&[], &["--seed", "5"]);
    assert_eq!(differing(&first, &other), RESULTS);

    // Side by side, the seed is all that differs, and the twins are known as such.
    let id = |run: &Path| run.file_name().unwrap().to_str().unwrap().to_owned();
    let (first, second, other) = (id(&first), id(&second), id(&other));
    let compared = bellwether(at, &["runs", "compare", &first, &second, &other, "--json"]).expect(0).json();
    keeps_schema("runs-compare.schema.json", &compared);
    let keys: Vec<_> =
        compared["settings"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["seed", "seeds.master"]);
    assert_eq!(compared["settings"][0]["values"], serde_json::json!([0, 0, 5]));
    assert_eq!((&compared["same_data"], &compared["reproduced"]), (&true.into(), &true.into()));
    let result = &compared["results"][0];
    assert_eq!((&result["metric"], &result["values"][0]), (&"fpr".into(), &result["values"][1]));
}

#[test]
fn a_killed_run_is_aborted_readable_and_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced_parts(at);
    let long = ["--set", "trainer.updates=3000", "--set", "trainer.checkpoint_interval=250"];
    let whole = bellwether(at, &train(&[&long[..], &["--runs", "whole"]].concat())).expect(0).json();
    let whole = at.join("whole").join(whole["run"].as_str().unwrap());

    let mut child = start(at, &train(&long));
    until_checkpoint(&mut child, &at.join("runs"));
    let listed = bellwether(at, &["runs", "list", "--json"]).expect(0).json();
    assert_eq!(listed[0]["status"], "running");
    child.kill().unwrap();
    child.wait().unwrap();

    let listed = bellwether(at, &["runs", "list", "--json"]).expect(0).json();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["status"]), (1, &"aborted".into()));
    let id = listed[0]["id"].as_str().unwrap();
    let shown = bellwether(at, &["runs", "show", id, "--json"]).expect(0).json();
    keeps_schema("runs-show.schema.json", &shown);
    assert!(shown["metrics_records"].as_u64().unwrap() > 0 && shown["last_metrics"].is_object(), "{shown}");
    let run = at.join("runs").join(id);
    assert!(!run.join("model").exists() && !run.join("evaluation.json").exists(), "the kill came too late");
    bellwether(at, &["export", id, "--out", "model"]).complains(1, &["aborted"]);
    bellwether(at, &["runs", "verify", id]).complains(2, &["aborted", "complete"]);

    // Taken up by mistake, it stays what it is.
    let mistaken = train(&[&long[..], &["--seed", "9", "--resume", id]].concat());
    bellwether(at, &mistaken).complains(64, &["seeds.master was", "now 9"]);
    let listed = bellwether(at, &["runs", "list", "--json"]).expect(0).json();
    assert_eq!(listed[0]["status"], "aborted");

    let resumed = bellwether(at, &train(&[&long[..], &["--resume", id]].concat())).expect(0).json();
    assert_eq!(resumed["run"], id);
    assert_eq!(differing(&whole, &run), [""; 0]);
    bellwether(at, &["runs", "verify", id]).expect(0);
    let listed = bellwether(at, &["runs", "list", "--json"]).expect(0).json();
    assert_eq!(listed[0]["status"], "complete");
}

#[test]
fn cross_validation_plays_every_episode_once_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced(at);
    let evaluate = ["evaluate", "--json", "--cv", "2", "--data", "reduced.parquet"];
    let evaluation = bellwether(at, &[&evaluate[..], &SMALL].concat()).expect(0).json();
    keeps_schema("evaluation.schema.json", &evaluation);
    let recordings = bellwether(at, &["validate", "--json", "reduced.parquet"]).expect(0).json();
    keeps_schema("validation-report.schema.json", &recordings);
    assert_eq!(evaluation["episodes"], recordings["files"][0]["report"]["episodes"]);
    let families = evaluation["per_family"].as_object().unwrap();
    assert_eq!(families.len(), bellwether_corpus::jobs().lines().count() - 1);
    let baselines = evaluation["baselines"].as_object().unwrap();
    let names: Vec<&String> = baselines.keys().collect();
    assert_eq!(names, ["clone", "fixed_prefix", "percentile", "run_to_end", "sprt"]);
    for baseline in baselines.values() {
        // Every episode is in the comparison: the policy's return less the difference is the baseline's.
        for (i, paired) in baseline["policy_minus_baseline"].as_array().unwrap().iter().enumerate() {
            let of = |report: &serde_json::Value| report["operating_points"][i]["mean_return"].as_f64().unwrap();
            let difference = paired["mean_return"]["difference"].as_f64().unwrap();
            assert!((of(&evaluation) - of(baseline) - difference).abs() < 1e-9, "{paired}");
        }
    }
    assert_eq!(files(at), ["reduced.parquet"]);
}

/// A folder of data beside the checkout; where it is absent, the test says so.
fn beside_the_checkout(name: &str, test: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if !path.exists() {
        println!("skipped: {test} needs ../shared/data/{name} beside the checkout");
        return None;
    }
    Some(path)
}

#[test]
fn adfa_ld_is_ingested_split_by_its_list_trained_on_and_evaluated() {
    let Some(data) = beside_the_checkout("adfa-ld", "adfa_ld_is_ingested_split_by_its_list_trained_on_and_evaluated")
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (archive, list) = (data.join("ADFA-LD-dev.zip"), data.join("dev-split.csv"));
    let ingest = ["ingest", "--json", "--format", "adfa-ld", archive.to_str().unwrap(), "--out", "all.parquet"];
    let report = bellwether(at, &ingest).expect(0).json();
    assert_eq!((&report["quality"]["episodes"], &report["quality"]["labels"]["benign"]), (&3435.into(), &2939.into()));
    let split = ["split", "--json", "all.parquet", "--by", "list", "--list", list.to_str().unwrap(), "--out", "parts"];
    let report = bellwether(at, &split).expect(0).json();
    assert_eq!((&report["unlisted"], &report["absent"]), (&0.into(), &0.into()));
    assert_eq!(report["leaks"]["contents"]["count"], 0);
    let sides: Vec<(&str, u64, u64)> = report["parts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| {
            let count = |label: &str| part["labels"][label].as_u64().unwrap();
            (part["side"].as_str().unwrap(), count("benign"), count("malicious"))
        })
        .collect();
    assert_eq!(sides, [("train", 2369, 349), ("valid", 570, 147)]);
    bellwether(at, &["validate", "parts/train.parquet", "parts/valid.parquet"]).expect(0);
    let train = ["train", "--json", "--data", "parts/train.parquet", "--valid", "parts/valid.parquet"];
    let report = bellwether(at, &[&train[..], &SMALL].concat()).expect(0).json();
    assert_eq!(report["evaluation"]["episodes"], 717);
    assert_eq!(report["evaluation"]["malicious"], 147);
}

#[test]
fn nt_mal_detect_is_ingested_trained_on_and_evaluated() {
    let Some(data) = beside_the_checkout("ntmaldetect", "nt_mal_detect_is_ingested_trained_on_and_evaluated") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let table = data.join("ntmaldetect-dev.csv.gz");
    let ingest = ["ingest", "--json", "--format", "calls-csv", table.to_str().unwrap(), "--out", "all.parquet"];
    let report = bellwether(at, &ingest).expect(0).json();
    let labels = &report["quality"]["labels"];
    assert_eq!((&labels["benign"], &labels["malicious"]), (&41.into(), &97.into()));
    let split = ["split", "all.parquet", "--by", "content", "--out", "parts", "--shares", "0.7", "0", "0.3"];
    bellwether(at, &split).expect(0);
    let train = ["train", "--json", "--data", "parts/train.parquet", "--set", "window.max_events=20"];
    let report = bellwether(at, &[&train[..], &SMALL].concat()).expect(0).json();
    let model = report["model"].as_str().unwrap();
    let evaluation = bellwether(at, &["evaluate", "--json", "--model", model, "--data", "parts/test.parquet"]);
    let evaluation = evaluation.expect(0).json();
    assert!(evaluation["benign"].as_u64().unwrap() > 0 && evaluation["malicious"].as_u64().unwrap() > 0);
}

/// Address space of the process in KiB.
const ADDRESS_SPACE_KIB: u64 = 200_000;

#[test]
fn a_file_larger_than_the_memory_limit_is_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let path = at.join("large.parquet");
    write_large(&path);
    assert!(std::fs::metadata(&path).unwrap().len() > ADDRESS_SPACE_KIB * 1024);
    let script = format!("ulimit -v {ADDRESS_SPACE_KIB} && exec \"$@\"");
    let mut arguments = vec!["train", "--json", "--data", "large.parquet"];
    arguments.extend(SMALL);
    // Every thread reserves address space of its own, however many processors there are.
    arguments.extend(["--set", "trainer.threads=1"]);
    arguments.extend(["--set", "trainer.memory_bytes=1000000", "--set", "trainer.updates=20"]);
    let report = shell(at, &[], &script, &arguments).expect(0).json();
    assert_eq!(report["updates"], 20);
}

/// Writes telemetry that does not compress: arguments are drawn letters.
fn write_large(path: &Path) {
    let mut writer = TelemetryWriter::new(BufWriter::new(File::create(path).unwrap())).unwrap();
    let mut drawn = 0x9e37_79b9_7f4a_7c15_u64;
    let mut arguments = String::new();
    for episode in 0..40_u32 {
        let malicious = episode % 2 == 1;
        writer
            .begin(&EpisodeAttributes {
                episode_id: EpisodeId(format!("episode-{episode}")),
                label: Some(if malicious { Label::Malicious } else { Label::Benign }),
                family: None,
                source: None,
                sample_sha256: None,
                complete: true,
            })
            .unwrap();
        for seq in 0..700_u64 {
            arguments.clear();
            for _ in 0..1_000 {
                // Ten letters of six bits from each number of Marsaglia's xorshift generator.
                drawn ^= drawn << 13;
                drawn ^= drawn >> 7;
                drawn ^= drawn << 17;
                arguments.extend((0..10).map(|letter| char::from(b'0' + (drawn >> (letter * 6) & 63) as u8)));
            }
            let name = ["read", "write", "openat", "unlink"][(drawn >> 62) as usize & if malicious { 3 } else { 1 }];
            let event = Event { args: Some(&arguments), ..Event::named(seq, EventKind::Syscall, name) };
            writer.event(&event).unwrap();
        }
        writer.end(true).unwrap();
    }
    writer.finish().unwrap().0.into_inner().unwrap();
}
