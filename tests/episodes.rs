//! Episode files from outside: what `evaluate` and `quickstart` say was played is what was evaluated.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

mod program;
mod reduced;

use std::fs::File;
use std::path::Path;

use bellwether_artifact::{ModelManifest, durable, release};
use bellwether_env_adapter::spec::{element, encode_cost};
use bellwether_env_adapter::{ACTION_COUNT, Action};
use bellwether_inference::model::{limits, read};
use bellwether_inference::{Engine, Isa};
use bellwether_replay::episodes::{End, EpisodeFileHeader, EpisodeReader, StepRow};
use program::{bellwether, bellwether_in, files, keeps_schema, schema};
use reduced::{SMALL, reduced};
use serde_json::{Value, json};

/// A file as it is read back.
struct Held {
    header: EpisodeFileHeader,
    episodes: Vec<Vec<StepRow>>,
}

impl Held {
    fn open(path: &Path) -> Held {
        let mut reader = EpisodeReader::open(File::open(path).unwrap(), None).unwrap();
        let (mut episodes, mut row) = (Vec::new(), StepRow::default());
        while reader.next(&mut row).unwrap() {
            if row.step == 0 {
                episodes.push(Vec::new());
            }
            episodes.last_mut().unwrap().push(row.clone());
        }
        Held { header: reader.header().clone(), episodes }
    }

    fn steps(&self) -> usize {
        self.episodes.iter().map(Vec::len).sum()
    }

    /// What an evaluation would say of these episodes at the cost `z`.
    fn evaluated(&self, z: f32) -> Value {
        let of = |label: &str| -> Vec<&[StepRow]> {
            let episodes = self.episodes.iter().map(Vec::as_slice);
            episodes.filter(|rows| rows[0].label.as_deref() == Some(label)).collect()
        };
        let all: Vec<&[StepRow]> = self.episodes.iter().map(Vec::as_slice).collect();
        let convicted =
            |rows: &[&[StepRow]]| rows.iter().filter(|rows| Action::ALL[last(rows)].is_conviction()).count();
        let mean = |rows: &[&[StepRow]], of: &dyn Fn(&[StepRow]) -> f64| {
            rows.iter().map(|rows| of(rows)).sum::<f64>() / rows.len() as f64
        };
        let reward = |row: &StepRow| row.played.map(|played| f64::from((1.0 - z) * played.r0 + z * played.r1)).unwrap();
        let (benign, malicious) = (of("benign"), of("malicious"));
        json!({
            "fpr": convicted(&benign) as f64 / benign.len() as f64,
            "tpr": convicted(&malicious) as f64 / malicious.len() as f64,
            "mean_events": mean(&all, &|rows| rows.last().unwrap().events_seen as f64),
            "mean_events_benign": mean(&benign, &|rows| rows.last().unwrap().events_seen as f64),
            "mean_events_malicious": mean(&malicious, &|rows| rows.last().unwrap().events_seen as f64),
            "mean_windows": mean(&all, &|rows| rows.len() as f64),
            "mean_return": mean(&all, &|rows| rows.iter().map(reward).sum()),
        })
    }

    /// Fails unless the engine on the model file, which knows nothing of training, values every state as the file says.
    fn agrees_with(&self, model: &Path, z: f32) {
        let onnx = std::fs::read(release::onnx_path(model)).unwrap();
        let engine = Engine::new(&read(&onnx, limits::MAX_BYTES).unwrap().0, Isa::Scalar).unwrap();
        let mut scratch = engine.scratch();
        let mut mask = [false; ACTION_COUNT];
        for row in self.episodes.iter().flatten() {
            row.action_mask.write(&mut mask);
            let decision = engine.decide(&mut scratch, &row.state, &mask).unwrap();
            assert_eq!(row.q_values.as_deref(), Some(decision.q_values), "{} step {}", row.episode_id, row.step);
            assert_eq!(row.state[element::COST], encode_cost(z));
        }
    }
}

/// The action of the last step.
fn last(rows: &[StepRow]) -> usize {
    let row = rows.last().unwrap();
    assert_eq!(row.end, Some(End::Terminated), "{}", row.episode_id);
    row.played.unwrap().action as usize
}

/// The number under `key`.
fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("`{key}` is no number in {value}"))
}

#[test]
fn the_steps_that_were_written_give_the_evaluation_that_was_reported() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced(at);
    let quickstart = ["quickstart", "--json", "--data", "reduced.parquet", "--max-fpr", "1", "--min-tpr", "0"];
    let report = bellwether(at, &[&quickstart[..], &SMALL].concat()).expect(0).json();
    let model = format!("quickstart/runs/{}/model", report["run"].as_str().unwrap());
    let data = "quickstart/data/test.parquet";
    let manifest = ModelManifest::from_json(&std::fs::read(at.join(&model).join("model.json")).unwrap()).unwrap();
    let version = manifest.version.to_string();
    let evaluate = ["evaluate", "--json", "--model", &model, "--data", data, "--episodes"];
    let without = bellwether(at, &evaluate[..6]).expect(0).json();
    assert_eq!(without["played"], Value::Null);

    for (target, name) in [("0.05", "largest.parquet"), ("0.001", "smallest.parquet")] {
        let arguments = [&evaluate[..], &[name, "--target-fpr", target]].concat();
        let mut report = bellwether(at, &arguments).expect(0).json();
        keeps_schema("evaluation.schema.json", &report);
        let played = report.as_object_mut().unwrap().remove("played").unwrap();
        assert_eq!(report, without, "writing what is played changes nothing that is reported");
        let target: f64 = target.parse().unwrap();
        let z = manifest.operating_point(target).unwrap().cost;
        let held = Held::open(&at.join(name));
        held.agrees_with(&at.join(&model), z);

        let points = report["operating_points"].as_array().unwrap();
        let point = points.iter().find(|point| point["target_fpr"] == target).unwrap();
        let evaluated = held.evaluated(z);
        for (key, value) in evaluated.as_object().unwrap() {
            if point["supported"] == false && ["fpr", "tpr"].contains(&key.as_str()) {
                assert!(point[key].is_null(), "{target}: a rate that the data cannot support is none");
                continue;
            }
            let (written, reported) = (value.as_f64().unwrap(), number(point, key));
            assert!((written - reported).abs() <= 1e-9, "{key} at {target}: {written} written, {reported} reported");
        }
        assert_eq!(
            held.episodes.len() as u64 + number(&played, "without_window") as u64,
            number(&report, "episodes") as u64
        );
        assert_eq!(number(&played, "steps") as usize, held.steps());
        assert_eq!(number(&played, "unlabelled"), 0.0);

        // The file says where it comes from.
        assert_eq!(held.header.spec_hash, manifest.features.spec_sha256.to_string());
        assert_eq!(held.header.sources, [format!("sha256:{}", durable::hash_file(&at.join(data)).unwrap().0)]);
        let policy: Value = serde_json::from_str(held.header.policy.as_deref().unwrap()).unwrap();
        assert_eq!((policy["model_version"].as_str(), policy["course"].as_str()), (Some(&*version), Some("greedy")));
        assert_eq!((number(&policy, "target_fpr"), number(&policy, "cost") as f32), (target, z));
    }

    // The largest is what is played unless asked otherwise, here and in `quickstart`, and on every instruction set.
    bellwether_in(at, &[("BELLWETHER_ISA", "scalar")], &[&evaluate[..], &["again.parquet"]].concat()).expect(0);
    let bytes = |name: &str| std::fs::read(at.join(name)).unwrap();
    assert!(bytes("again.parquet") == bytes("largest.parquet"));
    assert!(bytes("quickstart/episodes.parquet") == bytes("largest.parquet"));
    assert!(bytes("smallest.parquet") != bytes("largest.parquet"));

    // Played on to the end, every recorded window is there, and every verdict falls where nothing else is allowed.
    let arguments = [&evaluate[..], &["whole.parquet", "--to-the-end"]].concat();
    let report = bellwether(at, &arguments).expect(0).json();
    assert_eq!(report["operating_points"], without["operating_points"], "the evaluation is that of the policy");
    let (whole, greedy) = (Held::open(&at.join("whole.parquet")), Held::open(&at.join("largest.parquet")));
    whole.agrees_with(&at.join(&model), manifest.operating_point(0.05).unwrap().cost);
    assert!(whole.steps() > greedy.steps());
    for (whole, greedy) in whole.episodes.iter().zip(&greedy.episodes) {
        let (waited, verdict) = whole.split_at(whole.len() - 1);
        assert!(waited.iter().all(|row| row.played.unwrap().action == Action::Continue.index() as u32));
        assert!(!verdict[0].action_mask.allows(Action::Continue.index() as u32));
        let states =
            |rows: &[StepRow]| rows.iter().map(|row| (row.state.clone(), row.q_values.clone())).collect::<Vec<_>>();
        assert_eq!(states(&whole[..greedy.len()]), states(greedy), "up to the verdict, both saw the same");
    }
}

#[test]
fn what_cannot_be_written_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    reduced(at);
    let train = ["train", "--json", "--data", "reduced.parquet", "--set", "calibration.target_fpr=[0.05]"];
    let report = bellwether(at, &[&train[..], &SMALL].concat()).expect(0).json();
    let model = report["model"].as_str().unwrap();
    let before = files(at);
    let data = std::fs::read(at.join("reduced.parquet")).unwrap();
    let evaluate = ["evaluate", "--model", model, "--data", "reduced.parquet"];
    let cases: [(i32, &[&str], &[&str]); 9] = [
        (64, &["--episodes", "reduced.parquet"], &["reduced.parquet", "written over"]),
        (64, &["--seed", "7"], &["--seed", "--cv"]),
        (64, &["--set", "trainer.updates=3"], &["--set", "--cv"]),
        (64, &["--config", "none.toml"], &["--config", "--cv"]),
        (64, &["--episodes", "out.parquet", "--target-fpr", "0.01"], &["0.01", "0.05"]),
        (64, &["--target-fpr", "0.05"], &["--episodes"]),
        (64, &["--to-the-end"], &["--episodes"]),
        (1, &["--episodes", "none/out.parquet"], &["none"]),
        (1, &["--episodes", "out.parquet", "--train", "none.parquet"], &["none.parquet"]),
    ];
    for (code, more, parts) in cases {
        bellwether(at, &[&evaluate[..], more].concat()).complains(code, parts);
        assert_eq!(files(at), before);
        assert!(std::fs::read(at.join("reduced.parquet")).unwrap() == data, "{more:?} wrote over what it reads");
    }
    let cv = ["evaluate", "--cv", "2", "--data", "reduced.parquet", "--episodes", "out.parquet"];
    bellwether(at, &cv).complains(64, &["--cv", "--episodes"]);
    assert_eq!(files(at), before);
}

#[test]
fn the_schema_tells_of_the_episode_file() {
    let schema = schema("evaluation.schema.json");
    let validator = jsonschema::validator_for(&schema).unwrap();
    let whole = json!({
        "version": 1, "episodes": 2, "benign": 1, "malicious": 1, "operating_points": [], "per_family": {}, "baselines": {},
        "oracle": { "tpr_at_fpr": {}, "auc": null },
        "played": {
            "file": "played.parquet", "model_version": "00", "target_fpr": 0.05, "cost": 0.5, "course": "greedy",
            "episodes": 2, "steps": 9, "partial": 0, "without_window": 0, "unlabelled": 0,
        },
    });
    let checked = |change: &dyn Fn(&mut Value)| {
        let mut report = whole.clone();
        change(&mut report);
        validator.is_valid(&report)
    };
    assert!(checked(&|_| ()));
    assert!(checked(&|report| drop(report.as_object_mut().unwrap().remove("played"))));
    assert!(!checked(&|report| report["played"]["course"] = "sideways".into()));
    assert!(!checked(&|report| report["played"]["steps"] = (-1).into()));
    assert!(!checked(&|report| drop(report["played"].as_object_mut().unwrap().remove("model_version"))));
}
