//! From played episodes to a model, and from a model to what it would have earned in them.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

mod program;
mod reduced;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use program::{bellwether, bellwether_in, command, files, keeps_schema, start, until_checkpoint};
use reduced::{SMALL, reduced, reduced_parts};
use serde_json::Value;

/// A run that takes a second.
const QUICK: [&str; 6] = ["--set", "updates=120", "--set", "network.hidden=[32]", "--set", "checkpoint_interval=50"];

/// A model, trained on a part of the recordings, and `played.parquet`, what it plays when it takes every third action at random.
fn played(at: &Path, data: &str) -> String {
    let train = ["train", "--json", "--data", data, "--set", "calibration.target_fpr=[0.05]"];
    let report = bellwether(at, &[&train[..], &SMALL].concat()).expect(0).json();
    let model = report["model"].as_str().unwrap().to_owned();
    let evaluate = ["evaluate", "--json", "--model", &model, "--data", data, "--episodes"];
    let report = bellwether(at, &[&evaluate[..], &["played.parquet", "--epsilon", "0.33"]].concat()).expect(0).json();
    keeps_schema("evaluation.schema.json", &report);
    assert_eq!(report["played"]["course"]["soft"]["seed"], 0);
    model
}

#[test]
fn every_algorithm_makes_a_model_that_is_evaluated_and_served_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced_parts(at);
    played(at, "parts/train.parquet");
    let learn = ["learn", "--json", "--episodes", "played.parquet", "--valid", "parts/test.parquet"];
    let mut versions = Vec::new();
    for algorithm in ["algorithm=dqn", "algorithm=cql", "algorithm=bcq", "algorithm=cloning"] {
        let arguments = [&learn[..], &QUICK, &["--set", algorithm]].concat();
        let report = bellwether(at, &arguments).expect(0).json();
        keeps_schema("learn-report.schema.json", &report);
        assert_eq!(report["updates"], 120);
        assert!(report["steps"].as_u64() > report["episodes"].as_u64(), "{report}");
        let run = report["run"].as_str().unwrap();
        bellwether(at, &["runs", "verify", run]).expect(0);

        // Whoever has the model alone sees the evaluation that the run made.
        let model = report["model"].as_str().unwrap();
        let again =
            bellwether(at, &["evaluate", "--json", "--model", model, "--data", "parts/test.parquet"]).expect(0).json();
        for key in ["operating_points", "oracle", "episodes", "values"] {
            assert_eq!(again[key], report["evaluation"][key], "{algorithm}: {key}");
        }
        // Logits are no returns.
        let told = again["values"].as_array().unwrap().len();
        assert_eq!(told, usize::from(["algorithm=dqn", "algorithm=cql"].contains(&algorithm)), "{algorithm}");
        let points = again["operating_points"].as_array().unwrap();
        assert_eq!((points.len(), points[0]["target_fpr"].as_f64()), (1, Some(0.05)));
        versions.push(report["model_version"].as_str().unwrap().to_owned());

        // The same run once more, on another instruction set, makes the same model.
        if algorithm.ends_with("bcq") {
            let again = bellwether_in(at, &[("BELLWETHER_ISA", "scalar")], &arguments).expect(0).json();
            assert_eq!(again["model_version"], report["model_version"]);
        }
    }
    versions.sort();
    versions.dedup();
    assert_eq!(versions.len(), 4);

    // It has a cost that was played at, and no word on the rate that the new policy keeps to there.
    let run = bellwether(at, &[&learn[..], &QUICK].concat()).expect(0).json();
    let promote = ["release", "promote", run["model"].as_str().unwrap(), "--max-fpr", "1", "--min-tpr", "0"];
    let refused = bellwether(at, &promote).expect(2).stdout;
    assert!(refused.contains("FAILED  calibrated") && refused.contains("no cost was calibrated"), "{refused}");
    assert_eq!(refused.matches("FAILED").count(), 1, "{refused}");
}

#[test]
fn what_is_learnt_from_is_not_held_out() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced_parts(at);
    let train = ["train", "--data", "reduced.parquet", "--valid", "parts/test.parquet"];
    bellwether(at, &[&train[..], &SMALL].concat())
        .complains(1, &["parts/test.parquet", "reduced.parquet", "never seen", "bellwether split"]);
    assert!(!at.join("runs").exists(), "nothing was begun");
    played(at, "parts/train.parquet");
    let learn = ["learn", "--episodes", "played.parquet", "--valid", "parts/train.parquet"];
    bellwether(at, &[&learn[..], &QUICK].concat())
        .complains(1, &["parts/train.parquet", "played.parquet", "never seen"]);
}

#[test]
fn steps_that_do_not_fit_are_streamed_and_a_killed_run_goes_on_through_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced(at);
    played(at, "reduced.parquet");
    let learn = |runs: &'static str, more: &[&'static str]| {
        let mut all = vec!["learn", "--json", "--episodes", "played.parquet", "--runs", runs];
        all.extend(["--set", "algorithm=bcq", "--set", "update.draw={prioritised={}}", "--set", "network.hidden=[32]"]);
        all.extend(["--set", "updates=6000", "--set", "checkpoint_interval=500", "--set", "memory_bytes=1000000"]);
        all.extend(more);
        all
    };
    let whole = bellwether(at, &learn("whole", &[])).expect(0).json();
    keeps_schema("learn-report.schema.json", &whole);
    let (resident, steps) = (whole["resident"].as_u64().unwrap(), whole["steps"].as_u64().unwrap());
    assert!(256 <= resident && resident < steps && resident * 2066 < 1_000_000, "{whole}");
    // BCQ makes as many updates again for what is released.
    let expected = (resident as f64 + (11_999 * 128 / 4) as f64) / steps as f64;
    assert!((whole["passes"].as_f64().unwrap() / expected - 1.0).abs() < 0.02, "{whole}");

    let mut child = start(at, &learn("killed", &[]));
    until_checkpoint(&mut child, &at.join("killed"));
    child.kill().unwrap();
    child.wait().unwrap();
    let listed = bellwether(at, &["runs", "--runs", "killed", "list", "--json"]).expect(0).json();
    assert_eq!(listed[0]["status"], "aborted", "the kill came too late");
    let id: &'static str = listed[0]["id"].as_str().unwrap().to_owned().leak();
    bellwether(at, &learn("killed", &["--set", "memory_bytes=1100000", "--resume", id]))
        .complains(64, &["memory_bytes was", "now 1100000"]);
    let resumed = bellwether(at, &learn("killed", &["--resume", id])).expect(0).json();
    assert_eq!((&resumed["run"], &resumed["model_version"]), (&id.into(), &whole["model_version"]));
    let metrics =
        |run: &Value, runs: &str| std::fs::read(at.join(runs).join(run["run"].as_str().unwrap()).join("metrics.jsonl"));
    assert!(metrics(&resumed, "killed").unwrap() == metrics(&whole, "whole").unwrap());
}

#[test]
fn a_model_is_estimated_by_what_another_played() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced(at);
    let model = played(at, "reduced.parquet");
    let estimate = ["estimate", "--json", "--model", &model, "--episodes", "played.parquet", "--set", "updates=60"];
    let report = bellwether(at, &[&estimate[..], &["--epsilon", "0.33"]].concat()).expect(0).json();
    keeps_schema("estimates.schema.json", &report);
    let value = |name: &str| report[name]["value"].as_f64().unwrap();
    assert!((value("weighted_importance") - value("behaviour")).abs() < 1e-4, "it judges itself: {report}");
    let greedy = bellwether(at, &estimate).expect(0).json();
    assert!(greedy["trust"]["possible"].as_u64() < report["trust"]["possible"].as_u64());
    assert_ne!(greedy["doubly_robust"], report["doubly_robust"]);
    let told = bellwether(at, &[&estimate[..1], &estimate[2..]].concat()).expect(0).stdout;
    assert!(told.contains("doubly robust") && told.contains("could have played"), "{told}");
    assert!(!told.contains("drawn together"), "{told}");

    // Another seed plays the same recordings once more.
    let evaluate = ["evaluate", "--json", "--model", &model, "--data", "reduced.parquet", "--episodes"];
    bellwether(at, &[&evaluate[..], &["again.parquet", "--epsilon", "0.33", "--epsilon-seed", "1"]].concat()).expect(0);
    let both = ["--model", &model, "--set", "updates=60", "--episodes", "played.parquet", "again.parquet"];
    let twice = bellwether(at, &[&["estimate", "--json"], &both[..]].concat()).expect(0).json();
    keeps_schema("estimates.schema.json", &twice);
    let count = |report: &Value, key: &str| report["trust"][key].as_u64().unwrap();
    assert_eq!(count(&report, "clusters"), count(&report, "episodes"));
    assert_eq!(count(&twice, "clusters"), count(&report, "clusters"));
    assert_eq!(count(&twice, "episodes"), 2 * count(&report, "episodes"));
    let told = bellwether(at, &[&["estimate"], &both[..]].concat()).expect(0).stdout;
    assert!(told.contains("drawn together"), "{told}");

    // Without chance, the model that played tells of itself alone.
    bellwether(at, &[&evaluate[..], &["greedy.parquet"]].concat()).expect(0);
    let greedy = ["--model", &model, "--set", "updates=60", "--episodes", "greedy.parquet"];
    let own = bellwether(at, &[&["estimate", "--json"], &greedy[..]].concat()).expect(0).json();
    assert_eq!((&own["unweighted"], &own["trust"]["uncovered"]), (&Value::Null, &0.into()));
    assert!(
        (own["per_decision"]["value"].as_f64().unwrap() - own["behaviour"]["value"].as_f64().unwrap()).abs() < 1e-9
    );
    let softer = [&greedy[..], &["--epsilon", "0.1"]].concat();
    let other = bellwether(at, &[&["estimate", "--json"], &softer[..]].concat()).expect(0).json();
    keeps_schema("estimates.schema.json", &other);
    assert!(other["doubly_robust"]["value"].is_null() && other["fitted_q"]["value"].is_number(), "{other}");
    let told = bellwether(at, &[&["estimate"], &softer[..]].concat()).expect(0).stdout;
    assert!(told.contains(other["unweighted"].as_str().unwrap()) && told.contains("evaluate --epsilon"), "{told}");
}

#[test]
fn what_cannot_be_learned_from_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced(at);
    let model = played(at, "reduced.parquet");
    let before = files(at);
    let learn = ["learn", "--episodes", "played.parquet"];
    let cases: [(i32, &[&str], &[&str]); 8] = [
        (64, &["--set", "updates=0"], &["updates", "0"]),
        (64, &["--set", "update.learning_rate=nan"], &["update.learning_rate", "NaN"]),
        (64, &["--set", "update.learning_rat=1"], &["learning_rat"]),
        (64, &["--set", "algorithm=sarsa"], &["sarsa", "algorithm"]),
        (64, &["--set", "network.noisy_layers=1"], &["network.noisy_layers"]),
        (1, &["--set", "window.max_events=3"], &["played.parquet"]),
        (1, &["--set", "memory_bytes=1000"], &["memory_bytes"]),
        (1, &["--valid", "none.parquet"], &["none.parquet"]),
    ];
    for (code, more, parts) in cases {
        bellwether(at, &[&learn[..], more].concat()).complains(code, parts);
        assert_eq!(files(at), before, "{more:?}");
    }
    bellwether(at, &["learn", "--episodes", "reduced.parquet"]).complains(1, &["reduced.parquet"]);
    bellwether(at, &["learn", "--episodes", "none.parquet"]).complains(1, &["none.parquet"]);
    bellwether(at, &["learn"]).complains(64, &["--episodes"]);
    let estimate = ["estimate", "--model", &model, "--episodes", "played.parquet"];
    bellwether(at, &[&estimate[..], &["--set", "update.n_step=2"]].concat())
        .complains(64, &["update.n_step", "choose 1"]);
    let evaluate = ["evaluate", "--model", &model, "--data", "reduced.parquet", "--episodes", "out.parquet"];
    bellwether(at, &[&evaluate[..], &["--epsilon", "0"]].concat()).complains(64, &["--epsilon", "above 0"]);
    assert_eq!(files(at), before);
    for verb in ["learn", "estimate"] {
        let page = bellwether(at, &[verb, "--print-config"]).expect(0).stdout;
        let value: Value = serde_json::to_value(page.parse::<toml::Table>().unwrap()).unwrap();
        assert_eq!(value["update"]["gamma"], 1.0);
    }
}

#[test]
fn a_run_is_drawn_on_a_page_that_needs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced_parts(at);
    let train = ["train", "--json", "--data", "parts/train.parquet", "--valid", "parts/test.parquet"];
    let report = bellwether(at, &[&train[..], &SMALL].concat()).expect(0).json();
    let run = report["run"].as_str().unwrap();
    let before = files(&at.join("runs"));
    let drawn = bellwether(at, &["runs", "report", run, "--out", "drawn", "--json"]).expect(0).json();
    keeps_schema("runs-report.schema.json", &drawn);
    assert_eq!(files(&at.join("runs")), before, "a run is not touched");
    let page = std::fs::read_to_string(at.join(drawn["page"].as_str().unwrap())).unwrap();
    let plots: Vec<String> =
        drawn["plots"].as_array().unwrap().iter().map(|path| path.as_str().unwrap().to_owned()).collect();
    let names: Vec<&str> =
        plots.iter().map(|path| path.trim_start_matches("drawn/").trim_end_matches(".svg")).collect();
    assert_eq!(
        names,
        [
            "loss",
            "q-values",
            "gradients",
            "returns",
            "roc",
            "harm",
            "earliness",
            "actions-malicious",
            "actions-benign",
            "calibration",
            "overestimation",
            "reliability"
        ]
    );
    for plot in &plots {
        let svg = std::fs::read_to_string(at.join(plot)).unwrap();
        assert!(page.contains(svg.trim_end()), "{plot} is in the page too");
    }
    assert!(page.contains(run) && page.contains("Families") && page.contains("Beside it"), "{page}");
    let outside = page.replace("http://www.w3.org/2000/svg", "");
    assert!(
        !outside.contains("http:")
            && !outside.contains("https:")
            && !outside.contains("<script")
            && !outside.contains("src="),
        "{outside}"
    );

    // What a run has not, its page leaves out; and the second time is as the first.
    let again = bellwether(at, &["runs", "report", run, "--out", "drawn"]).expect(0);
    assert!(again.stdout.contains("report.html"));
    assert_eq!(std::fs::read_to_string(at.join("drawn/report.html")).unwrap(), page);
    bellwether(at, &["runs", "report", "none"]).complains(64, &["none"]);

    // A record that was cut off is no fault; any other line that is none is told of, with its place and the reason.
    let metrics = at.join("runs").join(run).join("metrics.jsonl");
    let whole = std::fs::read_to_string(&metrics).unwrap();
    let report = ["runs", "report", run, "--out", "torn", "--json"];
    std::fs::write(&metrics, format!("{whole}{{\"network\":")).unwrap();
    let ran = bellwether(at, &report).expect(0);
    assert_eq!((&ran.json()["unreadable"], ran.stderr.as_str()), (&serde_json::json!([]), ""));
    assert_eq!(std::fs::read_to_string(at.join("torn/report.html")).unwrap(), page);
    let (first, rest) = whole.split_once('\n').unwrap();
    std::fs::write(&metrics, format!("{first}\n{{\"network\":\"<of another version>\"}}\n{rest}")).unwrap();
    let ran = bellwether(at, &report).expect(0);
    let told = ["metrics.jsonl, line 2", "missing field `update`"];
    let unreadable = &ran.json()["unreadable"];
    assert!(told.iter().all(|part| unreadable[0].as_str().unwrap().contains(part)), "{unreadable}");
    let drawn = std::fs::read_to_string(at.join("torn/report.html")).unwrap();
    assert!(drawn.contains("Left out: ") && drawn.contains("line 2: missing field `update`"), "{drawn}");
    ran.complains(0, &told);
    std::fs::write(&metrics, format!("{first}\n{}", "{}\n".repeat(40))).unwrap();
    let ran = bellwether(at, &report).expect(0);
    assert_eq!(ran.json()["unreadable"].as_array().unwrap().len(), 40);
    ran.complains(0, &["line 11", "30 more"]);
    // What is no JSON is refused, as by every verb that reads a run.
    std::fs::write(&metrics, format!("{first}\n{{oops\n{rest}")).unwrap();
    bellwether(at, &report).complains(1, &["metrics.jsonl, line 2"]);
}

/// The bytes of a run that are hashed, by the run's own list.
fn made(at: &Path, run: &str) -> Value {
    let manifest = std::fs::read(at.join("runs").join(run).join("manifest.json")).unwrap();
    serde_json::from_slice::<Value>(&manifest).unwrap()["artifacts"].clone()
}

#[test]
fn a_run_tells_how_it_fares_and_makes_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced(at);
    played(at, "reduced.parquet");
    reduced_parts(at);
    let train = ["train", "--data", "parts/train.parquet", "--set", "calibration.target_fpr=[0.05]"];
    let train = [&train[..], &SMALL, &["--valid", "parts/test.parquet"]].concat();
    let quiet = bellwether(at, &[&train[..], &["--json"]].concat()).expect(0);
    assert_eq!(quiet.stderr, "");
    let quiet = made(at, quiet.json()["run"].as_str().unwrap());
    assert!(quiet.as_array().unwrap().len() > 4, "{quiet}");

    // A scraper that asks while the run is on, and a file that stays.
    let telling = ["--metrics", "127.0.0.1:0", "--metrics-file", "run.prom"];
    let mut child = command(at, &[&train[..], &telling].concat()).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    let address =
        line.trim().strip_prefix("metrics on http://").and_then(|rest| rest.strip_suffix("/metrics")).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.contains("# TYPE bellwether_training_updates_total counter\n"), "{page}");
    let (mut rest, mut report) = (String::new(), String::new());
    told.read_to_string(&mut rest).unwrap();
    child.stdout.take().unwrap().read_to_string(&mut report).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    assert!(rest.contains("150 of 150 updates, loss "), "{rest}");
    let run = report.lines().find_map(|line| line.strip_prefix("run      ")).unwrap();
    assert_eq!(made(at, run), quiet, "metrics change no byte");
    let file = std::fs::read_to_string(at.join("run.prom")).unwrap();
    for row in [
        "phase{run=\"RUN\",phase=\"complete\"} 1\n",
        "updates_total{run=\"RUN\"} 150\n",
        "mean_q{run=\"RUN\",network=\"fold-1\"} ",
        "last_checkpoint_timestamp_seconds{run=\"RUN\"} ",
        "overestimation{run=\"RUN\",network=\"fold-2\"} ",
        "held_out_return{run=\"RUN\",target_fpr=\"0.05\"} ",
    ] {
        assert!(file.contains(&format!("bellwether_training_{}", row.replace("RUN", run))), "{row} is not in\n{file}");
    }

    let learn = [&["learn", "--episodes", "played.parquet", "--metrics-file", "learn.prom"][..], &QUICK].concat();
    let ran = bellwether(at, &learn).expect(0);
    assert!(ran.stderr.contains("120 of 120 updates, loss "), "{}", ran.stderr);
    let file = std::fs::read_to_string(at.join("learn.prom")).unwrap();
    assert!(file.contains("network=\"policy\"") && file.contains("phase=\"complete\""), "{file}");

    let before = files(at);
    bellwether(at, &[&train[..], &["--metrics", "0.0.0.0:0"]].concat()).complains(64, &["0.0.0.0:0", "loopback"]);
    bellwether(at, &[&train[..], &["--metrics-file", "run.txt"]].concat()).complains(64, &["run.txt", ".prom"]);
    bellwether(at, &[&train[..], &["--metrics-file", "no/run.prom"]].concat()).complains(64, &["no/run.prom"]);
    assert_eq!(files(at), before);
}
