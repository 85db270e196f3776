//! A sweep from outside: trials over a space, kept as they are done, and a winner that is trained.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

mod program;
mod reduced;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bellwether_trainer::learner::fused::Isa;
use bellwether_trainer::sweep::{Outcome, SweepConfig, SweepError, Watch, sweep};
use program::{bellwether, bellwether_in, files, keeps_schema, start, until_checkpoint};
use reduced::reduced;
use serde_json::Value;

/// Two settings by two seeds, of trainings that take a moment.
const SPACE: &str = r#"
search = "grid"
seeds = 2
folds = 2
measure = "auc"
target_fpr = 0.05

[space]
"network.hidden" = { choice = [[8], [32]] }

[base]
network.hidden = [16]
trainer.updates = 60
calibration.folds = 2
calibration.target_fpr = [0.05]
cost.grid = 5
"#;

fn trials(at: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = std::fs::read_dir(at.join("sweep/trials")).unwrap().map(|entry| entry.unwrap().path());
    all.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn trials_are_kept_and_the_winner_is_trained_and_published() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced(at);
    std::fs::write(at.join("space.toml"), SPACE).unwrap();
    let sweep = ["sweep", "--json", "--config", "space.toml", "--data", "reduced.parquet", "--registry", "releases"];
    let report = bellwether(at, &sweep).expect(0).json();
    keeps_schema("sweep-report.schema.json", &report);
    let standings = report["standings"].as_array().unwrap();
    assert_eq!(standings.len(), 2);
    let value = |place: usize| standings[place]["value"].as_f64().unwrap();
    assert!(value(0) >= value(1), "{report}");
    let all = trials(at);
    assert_eq!(all.len(), 4);

    // A page with a picture of all settings, and one for each key.
    let page = std::fs::read_to_string(at.join(report["page"].as_str().unwrap())).unwrap();
    assert_eq!(page.matches("<svg").count(), 2, "{page}");
    assert!(page.contains("<td>network.hidden = [8]</td>"), "{page}");
    let pictures: Vec<String> =
        files(&at.join("sweep/report")).into_iter().filter(|name| name.ends_with("svg")).collect();
    assert_eq!(pictures, ["by-network-hidden.svg", "trials.svg"]);

    // What stands first is the mean of what its seeds reached, and it is what was trained.
    let number = &standings[0]["number"];
    let outcomes: Vec<Value> = all.values().map(|bytes| serde_json::from_slice(bytes).unwrap()).collect();
    let reached: Vec<f64> =
        outcomes.iter().filter(|it| it["job"]["number"] == *number).map(|it| it["value"].as_f64().unwrap()).collect();
    assert_eq!(reached.len(), 2);
    assert!((value(0) - reached.iter().sum::<f64>() / 2.0).abs() < 1e-12);
    let model = at.join(report["model"].as_str().unwrap());
    let manifest: Value = serde_json::from_slice(&std::fs::read(model.join("model.json")).unwrap()).unwrap();
    assert_eq!(manifest["training"]["network"]["hidden"], standings[0]["settings"]["network.hidden"]);
    assert_eq!(
        (report["candidate"]["name"].as_str(), report["candidate"]["to"].as_u64()),
        (Some("candidate"), Some(1))
    );

    // A trial that was lost is done again, the same on any processor; the others are not touched.
    let lost = all.keys().next().unwrap();
    std::fs::remove_file(lost).unwrap();
    let kept = all.keys().nth(1).unwrap();
    let before = std::fs::metadata(kept).unwrap().modified().unwrap();
    let again =
        bellwether_in(at, &[("BELLWETHER_ISA", "scalar")], &[&sweep[..], &["--jobs", "1"]].concat()).expect(0).json();
    assert_eq!((&again["standings"], &again["model_version"]), (&report["standings"], &report["model_version"]));
    assert_eq!(trials(at), all);
    assert_eq!(std::fs::metadata(kept).unwrap().modified().unwrap(), before);

    // Another sweep does not mix with this one.
    bellwether(at, &[&sweep[..], &["--set", "seeds=1"]].concat()).complains(64, &["another configuration", "sweep"]);
    assert_eq!(trials(at), all);
}

#[test]
fn halving_goes_on_with_the_best_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced(at);
    let space = SPACE.replace("\"grid\"", "\"halving\"\ntrials = 4\nkeep = 2\nrounds = 2").replace(
        r#""network.hidden" = { choice = [[8], [32]] }"#,
        r#""trainer.learning_rate" = { log = [1e-5, 1e-2] }"#,
    );
    std::fs::write(at.join("space.toml"), space.replace("seeds = 2", "seeds = 1")).unwrap();
    let sweep = ["sweep", "--json", "--config", "space.toml", "--data", "reduced.parquet"];
    let report = bellwether(at, &sweep).expect(0).json();
    let standings = report["standings"].as_array().unwrap();
    let rounds: Vec<(u64, u64)> =
        standings.iter().map(|it| (it["round"].as_u64().unwrap(), it["updates"].as_u64().unwrap())).collect();
    assert_eq!(rounds, [(1, 60), (1, 60), (0, 30), (0, 30)]);
    assert_eq!(report["candidate"], Value::Null);
    assert_eq!(trials(at).len(), 6);
    // Whoever stayed behind was no better in the first round than whoever went on.
    let first = |number: &Value| -> f64 {
        let all = trials(at);
        let outcomes = all.values().map(|bytes| serde_json::from_slice::<Value>(bytes).unwrap());
        let mut of = outcomes.filter(|it| it["job"]["round"] == 0 && it["job"]["number"] == *number);
        of.next().unwrap()["value"].as_f64().unwrap()
    };
    let value = |place: usize| first(&standings[place]["number"]);
    assert!(value(0).min(value(1)) >= value(2).max(value(3)), "{report}");
}

#[test]
fn a_sweep_that_cannot_be_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced(at);
    std::fs::write(at.join("space.toml"), SPACE).unwrap();
    let before = files(at);
    let sweep = ["sweep", "--config", "space.toml", "--data", "reduced.parquet"];
    let cases: [(&[&str], &[&str]); 5] = [
        (&["--set", "folds=1"], &["folds", "1"]),
        (&["--set", "target_fpr=0.3"], &["target_fpr", "0.3", "base.calibration"]),
        (&["--set", "base.trainer.tau=0"], &["trainer.tau"]),
        (&["--set", "search=bayes"], &["bayes"]),
        (&["--set", "trails=3"], &["trails"]),
    ];
    for (more, parts) in cases {
        bellwether(at, &[&sweep[..], more].concat()).complains(64, parts);
        assert_eq!(files(at), before, "{more:?}");
    }
    bellwether(at, &["sweep", "--data", "reduced.parquet"]).complains(64, &["space"]);
    bellwether(at, &["sweep", "--config", "space.toml", "--data", "none.parquet"]).complains(1, &["none.parquet"]);
    assert_eq!(files(at), before);
}

/// Takes down the numbers of the settings whose trials end; before the first, may cut the file that states are spilled to.
#[derive(Default)]
struct Ended {
    numbers: Mutex<Vec<usize>>,
    cuts_states: bool,
}

impl Watch for Ended {
    fn done(&self, _: u32, done: usize, _: usize, latest: Option<&Outcome>) {
        if self.cuts_states && done == 0 {
            cut_open_file_without_name();
        }
        self.numbers.lock().unwrap().extend(latest.map(|outcome| outcome.job.number));
    }
}

/// Empties the largest file without a name that this process holds open.
fn cut_open_file_without_name() {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let nameless = |path: &PathBuf| {
        std::fs::read_link(path).is_ok_and(|target| target.as_os_str().to_string_lossy().ends_with(" (deleted)"))
    };
    let bytes = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let largest = open.filter(nameless).max_by_key(bytes).unwrap();
    assert!(bytes(&largest) >= 1 << 20, "states are spilled by the megabyte");
    std::fs::OpenOptions::new().write(true).open(largest).unwrap().set_len(0).unwrap();
}

fn sweep_config(space: &str) -> SweepConfig {
    space.parse::<toml::Table>().unwrap().try_into().unwrap()
}

#[test]
fn one_job_at_a_time_ends_one_trial_before_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced(at);
    let config =
        sweep_config(&SPACE.replace("[[8], [32]]", "[[4], [8], [12], [16]]").replace("seeds = 2", "seeds = 1"));
    let ended = Ended::default();
    sweep(&config, &at.join("reduced.parquet"), &at.join("sweep"), 1, Isa::best(), &ended).unwrap();
    assert_eq!(ended.numbers.into_inner().unwrap(), [0, 1, 2, 3]);
}

#[test]
fn a_disk_that_fails_ends_the_sweep_and_is_no_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("recordings.parquet"), bellwether_corpus::recordings()).unwrap();
    let space =
        SPACE.replace("seeds = 2", "seeds = 1").replace("updates = 60", "updates = 5\ntrainer.memory_bytes = 0");
    let config = sweep_config(&space);
    let run = |ended: &Ended| sweep(&config, &at.join("recordings.parquet"), &at.join("sweep"), 2, Isa::best(), ended);
    match run(&Ended { cuts_states: true, ..Ended::default() }) {
        Err(SweepError::Trial { source, .. }) => {
            let cause = source.source().map(ToString::to_string).unwrap_or_default();
            assert!(cause.contains("spill"), "{source}: {cause}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(trials(at), BTreeMap::new());
    let standings = run(&Ended::default()).unwrap();
    assert!(standings.iter().all(|standing| standing.value.is_some()), "{standings:?}");
    assert_eq!(trials(at).len(), 2);
}

#[test]
fn a_setting_that_diverges_is_kept_as_one_that_failed() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced(at);
    let choice = r#""network.hidden" = { choice = [[8], [32]] }"#;
    let rates = r#""trainer.learning_rate" = { choice = [10.0, 0.001] }"#;
    std::fs::write(at.join("space.toml"), SPACE.replace(choice, rates).replace("[16]", "[64, 64, 64]")).unwrap();
    let sweep = ["sweep", "--json", "--config", "space.toml", "--data", "reduced.parquet"];
    let report = bellwether(at, &sweep).expect(0).json();
    let values: Vec<(&Value, bool)> =
        report["standings"].as_array().unwrap().iter().map(|it| (&it["number"], it["value"].is_null())).collect();
    assert_eq!(values, [(&1.into(), false), (&0.into(), true)], "{report}");
    let outcomes = trials(at).into_values().map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
    for outcome in outcomes.filter(|outcome| outcome["job"]["number"] == 0) {
        assert!(outcome["failure"].as_str().unwrap().contains("the update diverged"), "{outcome}");
    }
}

#[test]
fn where_the_last_round_judges_nobody_the_best_of_the_one_before_wins() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced(at);
    let space = SPACE.replace("\"grid\"", "\"halving\"\ntrials = 4\nkeep = 4\nrounds = 2").replace(
        r#""network.hidden" = { choice = [[8], [32]] }"#,
        r#""trainer.learning_rate" = { log = [1e-4, 1e-2] }"#,
    );
    std::fs::write(at.join("space.toml"), space.replace("seeds = 2", "seeds = 1")).unwrap();
    let sweep = ["sweep", "--json", "--config", "space.toml", "--data", "reduced.parquet"];
    let report = bellwether(at, &sweep).expect(0).json();
    let survivor = report["standings"][0]["number"].clone();
    let page = |report: &Value| std::fs::read_to_string(at.join(report["page"].as_str().unwrap())).unwrap();
    assert!(report["standings"][0]["round"] == 1 && !page(&report).contains("No setting was judged"), "{report}");

    // As if the one that came to the last round had diverged there.
    let last = trials(at).into_iter().find(|(path, _)| path.file_name().unwrap().to_string_lossy().starts_with("1-"));
    let (path, outcome) = last.unwrap();
    let mut outcome: Value = serde_json::from_slice(&outcome).unwrap();
    outcome["value"] = Value::Null;
    outcome["failure"] = "the update diverged".into();
    std::fs::write(path, outcome.to_string()).unwrap();
    let report = bellwether(at, &sweep).expect(0).json();
    let standings = report["standings"].as_array().unwrap();
    let told: Vec<(u64, bool)> =
        standings.iter().map(|it| (it["round"].as_u64().unwrap(), it["value"].is_null())).collect();
    assert_eq!(told, [(0, false), (0, false), (0, false), (1, true)]);
    assert_eq!(standings[3]["number"], survivor);
    let value = |place: usize| standings[place]["value"].as_f64().unwrap();
    assert!(value(0) >= value(1) && value(1) >= value(2), "{report}");
    assert!(page(&report).contains("No setting was judged in round 2: the best of round 1 wins"));
    let model = at.join(report["model"].as_str().unwrap());
    let manifest: Value = serde_json::from_slice(&std::fs::read(model.join("model.json")).unwrap()).unwrap();
    let rate = |value: &Value| value.as_f64().unwrap() as f32;
    let chosen = &standings[0]["settings"]["trainer.learning_rate"];
    assert_eq!(rate(&manifest["training"]["trainer"]["learning_rate"]), rate(chosen));
    assert_eq!(manifest["training"]["trainer"]["updates"], 60, "the winner has all updates");
}

#[test]
fn a_winner_that_was_cut_off_is_gone_on_with_and_one_that_is_trained_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced(at);
    let space = SPACE.replace("seeds = 2", "seeds = 1").replace("[[8], [32]]", "[[8]]").replace(
        "trainer.updates = 60",
        "trainer.updates = 1500\ntrainer.batch_size = 16\ntrainer.checkpoint_interval = 100",
    );
    std::fs::write(at.join("space.toml"), space).unwrap();
    let sweep = ["sweep", "--json", "--config", "space.toml", "--data", "reduced.parquet"];
    let runs = at.join("sweep/runs");
    let list = || -> Vec<(String, String)> {
        let listed = bellwether(at, &["runs", "--runs", "sweep/runs", "list", "--json"]).expect(0).json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        listed.as_array().unwrap().iter().map(|run| (text(&run["id"]), text(&run["status"]))).collect()
    };

    // One that is complete is not trained again.
    let whole = bellwether(at, &sweep).expect(0).json();
    let run = runs.join(whole["run"].as_str().unwrap());
    let content = || -> BTreeMap<String, Vec<u8>> {
        files(&run).into_iter().map(|name| (name.clone(), std::fs::read(run.join(name)).unwrap())).collect()
    };
    let before = content();
    let again = bellwether(at, &sweep).expect(0).json();
    assert_eq!((&again["run"], &again["model_version"]), (&whole["run"], &whole["model_version"]));
    assert!(content() == before && list().len() == 1, "{again}");

    // One that was cut off is gone on with, to the same bytes.
    std::fs::remove_dir_all(&runs).unwrap();
    let mut child = start(at, &sweep);
    until_checkpoint(&mut child, &runs);
    child.kill().unwrap();
    child.wait().unwrap();
    let [(begun, status)] = &list()[..] else { panic!("{:?}", list()) };
    assert_eq!(status, "aborted", "the kill came too late");
    let resumed = bellwether(at, &sweep).expect(0).json();
    assert_eq!(list(), [(begun.clone(), "complete".to_owned())]);
    assert_eq!(resumed["run"], begun.as_str());
    assert_eq!(resumed["model_version"], whole["model_version"]);
    assert_eq!(std::fs::read_dir(run.join("tensorboard")).unwrap().count(), 2, "one file for each start");

    // One that is no longer what its manifest says is not taken: the same is trained anew.
    std::fs::write(run.join("model/model.onnx"), "damaged").unwrap();
    let anew = bellwether(at, &sweep).expect(0).json();
    assert_ne!(anew["run"], resumed["run"]);
    assert_eq!(anew["model_version"], resumed["model_version"]);
}
