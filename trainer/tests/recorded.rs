//! Training on recordings, end to end on small synthetic telemetry.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod events;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use bellwether_artifact::SourceRevision;
use bellwether_env_adapter::ingest::TelemetryWriter;
use bellwether_env_adapter::{EpisodeAttributes, EpisodeId, Event, EventKind, EventSink, Label};
use bellwether_registry::{RunPaths, verify_run};
use bellwether_trainer::config::TrainConfig;
use bellwether_trainer::learner::LearnerChoice;
use bellwether_trainer::learner::fused::{FusedOptions, Isa};
use bellwether_trainer::metrics::UpdateMetrics;
use bellwether_trainer::network::Returns;
use bellwether_trainer::recorded::training::Training;
use bellwether_trainer::run::{RunError, RunEvent, RunObserver, TrainReport, TrainRequest, read, train};
use proptest::prelude::*;

/// Calls that both classes make before anything tells them apart.
const PROLOGUE: [&str; 4] = ["openat", "read", "mmap", "getdents64"];

/// Telemetry in which a sample gives itself away in its third window of four events, and only there.
fn telemetry(folder: &Path, name: &str, episodes: u32) -> PathBuf {
    let path = folder.join(name);
    let mut writer = TelemetryWriter::new(Vec::new()).unwrap();
    for number in 0..episodes {
        let malicious = number % 2 == 1;
        writer
            .begin(&EpisodeAttributes {
                episode_id: EpisodeId(format!("{name}-{number}")),
                label: Some(if malicious { Label::Malicious } else { Label::Benign }),
                family: Some(format!("{}-{}", if malicious { "bad" } else { "good" }, number / 2 % 8)),
                source: None,
                sample_sha256: None,
                complete: true,
            })
            .unwrap();
        for seq in 0..24_u32 {
            let call = match seq {
                8..12 if malicious => "unlink",
                8..12 => "fchmod",
                _ => PROLOGUE[((seq * 7 + number / 2 * 3) % 4) as usize],
            };
            writer.event(&Event::named(u64::from(seq), EventKind::File, call)).unwrap();
        }
        writer.end(true).unwrap();
    }
    let (bytes, _) = writer.finish().unwrap();
    fs::File::create_new(&path).unwrap().write_all(&bytes).unwrap();
    path
}

fn config() -> TrainConfig {
    let mut config = TrainConfig { seed: 5, ..TrainConfig::default() };
    config.window.max_events = 4;
    (config.reward.window_cost, config.reward.stage2_window_cost) = (0.05, 0.05);
    config.network.hidden = vec![64, 64];
    config.trainer.updates = 400;
    config.trainer.batch_size = 32;
    config.trainer.learning_rate = 3e-3;
    config.trainer.dropout = vec![0.05, 0.0];
    config.trainer.target_update_interval = 50;
    config.trainer.checkpoint_interval = 100;
    config.trainer.metrics_interval = 25;
    config.trainer.validation_interval = 75;
    config.calibration.folds = 2;
    config.calibration.target_fpr = vec![0.05];
    config.cost.grid_points = 5;
    config
}

/// Counts what it is told; may give up in mid-run by a panic, as if the process had been killed.
#[derive(Default)]
struct Watcher {
    die_at: Option<u64>,
}

impl RunObserver for Watcher {
    fn seconds(&mut self) -> f64 {
        0.0
    }
    fn event(&mut self, event: RunEvent<'_>) {
        if let RunEvent::Updated { done, .. } = event {
            assert!(self.die_at.is_none_or(|at| done < at), "killed at {done}");
        }
    }
}

#[derive(Clone, Copy)]
struct Case<'a> {
    folder: &'a Path,
    config: &'a TrainConfig,
    learner: LearnerChoice,
    resume: Option<&'a Path>,
}

fn fused(isa: Isa) -> LearnerChoice {
    FusedOptions { isa, threads: 1 }.into()
}

fn run(case: &Case<'_>, data: &Path, valid: Option<&Path>, watcher: &mut Watcher) -> Result<TrainReport, RunError> {
    let runs = case.folder.join("runs");
    let source = SourceRevision { package: "0".to_owned(), revision: None, modified: None };
    let request = TrainRequest {
        name: "case",
        config: case.config,
        data,
        valid,
        runs: &runs,
        resume: case.resume,
        flags: Default::default(),
        learner: case.learner,
        isa: if let LearnerChoice::Fused(options) = case.learner { options.isa } else { Isa::best() },
        source,
    };
    train(&request, watcher)
}

/// The bytes of everything in a run that is a function of data, configuration and seed.
fn bytes(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let names =
        ["metrics.jsonl", "model/model.onnx", "model/model.json", "evaluation.json", "checkpoints/latest.checkpoint"];
    names.iter().map(|name| ((*name).to_owned(), fs::read(folder.join(name)).unwrap())).collect()
}

/// What TensorBoard shows of a run, by tag and step: files in the order of their names, and where a start at a step is told,
/// what came before it from that step on is forgotten.
fn curves(folder: &Path) -> BTreeMap<(String, u64), f32> {
    let tensorboard = RunPaths::new(folder).tensorboard();
    let mut files: Vec<PathBuf> = fs::read_dir(tensorboard).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut shown = BTreeMap::new();
    for file in files {
        assert!(file.to_str().unwrap().contains(".tfevents."), "{file:?} is not looked at");
        for event in events::records(&fs::read(file).unwrap()) {
            if events::fields(&event).iter().any(|(number, _)| *number == 7) {
                let events::Field::Varint(start) = events::at(&event, &[2]) else { panic!("a step is a varint") };
                shown.retain(|(_, step), _| *step < start);
            }
            shown.extend(events::scalars(&event).into_iter().map(|(tag, step, value)| ((tag, step), value)));
        }
    }
    shown
}

/// What `metrics.jsonl` says, in the same form.
fn logged(folder: &Path) -> BTreeMap<(String, u64), f32> {
    let text = fs::read_to_string(RunPaths::new(folder).metrics()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<UpdateMetrics>(line).unwrap());
    lines.flat_map(|line| line.curves().map(|(tag, value)| ((tag, line.update), value)).collect::<Vec<_>>()).collect()
}

#[test]
fn a_policy_waits_for_evidence_and_then_convicts() {
    let folder = tempfile::tempdir().unwrap();
    let (data, valid) = (telemetry(folder.path(), "train", 160), telemetry(folder.path(), "valid", 80));
    let mut config = config();
    config.trainer.updates = 3_000;
    let case = Case { folder: folder.path(), config: &config, learner: fused(Isa::best()), resume: None };
    let report = run(&case, &data, Some(&valid), &mut Watcher::default()).unwrap();
    let evaluation = report.evaluation.unwrap();
    let point = &evaluation.operating_points[0];
    assert_eq!(point.metrics.tpr, Some(1.0), "{point:?}");
    assert_eq!(point.metrics.fpr, Some(0.0), "{point:?}");
    let (malicious, benign) = (point.metrics.mean_events_malicious.unwrap(), point.metrics.mean_events_benign.unwrap());
    for events in [malicious, benign] {
        assert!((12.0..16.0).contains(&events), "what tells them apart ends at event 12: {events}");
    }
    // It gets what it promises itself, and is as sure as it should be, on families that it has not seen.
    let values = &evaluation.values[0];
    assert_eq!((values.first.decisions, values.target_fpr), (80, 0.05));
    assert!(values.first.overestimation.abs() < 0.15, "{values:?}");
    assert!(values.all.decisions > 200 && values.all.overestimation.abs() < 0.15, "{values:?}");
    let reliability = values.malicious.as_ref().unwrap();
    // What tells the classes apart comes last: by then a probability is 0 or 1, and a half before.
    assert!(reliability.bins[0].malicious < 0.01 && reliability.bins[9].malicious > 0.99, "{reliability:?}");
    assert!(reliability.expected_calibration_error < 0.1, "{reliability:?}");
    let records = fs::read_to_string(RunPaths::new(&report.folder).metrics()).unwrap();
    let last = records
        .lines()
        .map(|line| serde_json::from_str::<UpdateMetrics>(line).unwrap())
        .rfind(|l| l.validation.is_some());
    let validation = last.unwrap().validation.unwrap();
    assert!(validation.mean_return > 0.25 && validation.overestimation.abs() < 0.2, "{validation:?}");
    let verification = verify_run(&report.folder).unwrap();
    assert!(verification.problems.is_empty(), "{verification:?}");
}

#[test]
fn the_same_data_configuration_and_seed_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (data, valid) = (telemetry(folder.path(), "train", 64), telemetry(folder.path(), "valid", 32));
    let of = |threads: usize, isa: Isa, seed: u64| {
        let mut config = config();
        (config.trainer.threads, config.trainer.updates, config.seed) = (threads, 100, seed);
        let case = Case { folder: folder.path(), config: &config, learner: fused(isa), resume: None };
        bytes(&run(&case, &data, Some(&valid), &mut Watcher::default()).unwrap().folder)
    };
    let one = of(1, Isa::Scalar, 5);
    for (name, (threads, isa)) in [("threads", (2, Isa::Scalar)), ("instruction set", (2, Isa::best()))] {
        for (ours, theirs) in one.iter().zip(of(threads, isa, 5)) {
            assert!(*ours == theirs, "{} differs by {name}", ours.0);
        }
    }
    let other = of(1, Isa::Scalar, 6);
    assert_ne!(one[1].1, other[1].1, "another seed gives another network");
}

#[test]
fn a_run_that_was_cut_off_goes_on_to_the_same_bytes() {
    goes_on_to_the_same_bytes(fused(Isa::best()), &[50, 150, 250, 400]);
}

#[cfg(feature = "burn")]
#[test]
fn a_run_on_burn_goes_on_to_the_same_bytes() {
    use bellwether_trainer::learner::burn::BurnDevice;
    goes_on_to_the_same_bytes(LearnerChoice::Burn(BurnDevice::Cpu), &[150]);
}

#[cfg(feature = "tch")]
#[test]
fn a_run_on_libtorch_goes_on_to_the_same_bytes() {
    use bellwether_trainer::learner::tch::TchDevice;
    goes_on_to_the_same_bytes(LearnerChoice::Tch(TchDevice::Cpu), &[150]);
}

/// A run of another learner is another run, which its manifest says.
#[cfg(feature = "burn")]
#[test]
fn a_run_is_gone_on_with_by_the_learner_that_began_it() {
    use bellwether_trainer::learner::burn::BurnDevice;
    let folder = tempfile::tempdir().unwrap();
    let data = telemetry(folder.path(), "train", 32);
    let mut config = config();
    config.trainer.updates = 50;
    let burn = LearnerChoice::Burn(BurnDevice::Cpu);
    let case = Case { folder: folder.path(), config: &config, learner: burn, resume: None };
    let begun = run(&case, &data, None, &mut Watcher::default()).unwrap().folder;
    let case = Case { learner: fused(Isa::best()), resume: Some(&begun), ..case };
    let error = run(&case, &data, None, &mut Watcher::default()).unwrap_err();
    assert!(matches!(error, RunError::OtherRun { .. }), "{error}");
    assert!(error.to_string().contains("learner was \"burn\""), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Killed at any update, and killed again wherever it went on.
    #[test]
    fn a_run_that_is_killed_anywhere_goes_on_to_the_same_bytes(
        kills in prop::collection::vec(1..=60_u64, 1..4), checkpoint_interval in 10..=40_u64, seed in 0..100_u64,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (data, valid) = (telemetry(folder.path(), "train", 32), telemetry(folder.path(), "valid", 16));
        let mut config = config();
        config.seed = seed;
        config.network.hidden = vec![8];
        (config.trainer.updates, config.trainer.batch_size, config.trainer.target_update_interval) = (60, 8, 7);
        (config.trainer.checkpoint_interval, config.trainer.metrics_interval) = (checkpoint_interval, 4);
        let case = Case { folder: folder.path(), config: &config, learner: fused(Isa::best()), resume: None };
        let whole = run(&case, &data, Some(&valid), &mut Watcher::default()).unwrap().folder;
        let cut = tempfile::tempdir().unwrap();
        let runs = cut.path().join("runs");
        let mut left: Option<PathBuf> = None;
        let mut go_on = |die_at| {
            let case = Case { folder: cut.path(), resume: left.as_deref(), ..case };
            let ended = catch_unwind(|| run(&case, &data, Some(&valid), &mut Watcher { die_at }).unwrap().folder).ok();
            left = Some(fs::read_dir(&runs).unwrap().next().unwrap().unwrap().path());
            ended
        };
        // Who was killed after the last update ends without another.
        let ended = kills.into_iter().find_map(|kill| go_on(Some(kill)));
        let resumed = ended.or_else(|| go_on(None)).unwrap();
        for (ours, theirs) in bytes(&whole).iter().zip(bytes(&resumed)) {
            prop_assert!(*ours == theirs, "{} differs", ours.0);
        }
    }
}

/// What a run learns is the algorithm's trace, the same on every machine: what changes it says so here.
#[test]
fn recordings_teach_what_they_taught_before() {
    let folder = tempfile::tempdir().unwrap();
    let data = telemetry(folder.path(), "train", 32);
    let trace = |change: fn(&mut TrainConfig)| {
        let mut config = config();
        (config.trainer.updates, config.network.hidden) = (120, vec![16]);
        change(&mut config);
        let recordings = read(&data, &config).unwrap();
        let episodes: Vec<u32> = recordings.episodes().collect();
        let mut training = Training::new(&recordings, &episodes, &config, Isa::best(), fused(Isa::best())).unwrap();
        while !training.is_finished() {
            training.round().unwrap();
        }
        let bytes: Vec<u8> = training.released().iter().flat_map(|value| value.to_le_bytes()).collect();
        format!("{:08x}", crc32c::crc32c(&bytes))
    };
    let traces = [
        trace(|_| ()),
        trace(|config| config.trainer.isolation = true),
        trace(|config| config.network.dueling = true),
        trace(|config| (config.network.returns, config.trainer.huber) = (Returns::Quantiles(5), 0.1)),
    ];
    assert_eq!(traces, ["ed48da6e", "7c97847f", "0e4bcb21", "d8b27638"]);
}

/// Runs that were cut off at these updates, and went on.
fn goes_on_to_the_same_bytes(learner: LearnerChoice, cuts: &[u64]) {
    let folder = tempfile::tempdir().unwrap();
    let data = telemetry(folder.path(), "train", 64);
    let valid = telemetry(folder.path(), "valid", 32);
    let config = config();
    let case = Case { folder: folder.path(), config: &config, learner, resume: None };
    let whole = run(&case, &data, Some(&valid), &mut Watcher::default()).unwrap();
    // Rounds have 50 updates: two fold networks are played after 100, 150, 250, 300 and 400.
    assert_eq!(logged(&whole.folder).len(), 400 / 25 * 3 * 6 + 5 * 2 * 2);
    assert_eq!(curves(&whole.folder), logged(&whole.folder));
    for &die_at in cuts {
        let cut = tempfile::tempdir().unwrap();
        let case = Case { folder: cut.path(), ..case };
        let died = catch_unwind(|| {
            let _ = run(&case, &data, Some(&valid), &mut Watcher { die_at: Some(die_at) });
        });
        assert!(died.is_err());
        let left = fs::read_dir(cut.path().join("runs")).unwrap().next().unwrap().unwrap().path();
        assert!(!RunPaths::new(&left).terminal().exists());
        let seen = curves(&left);
        let case = Case { resume: Some(&left), ..case };
        let resumed = run(&case, &data, Some(&valid), &mut Watcher::default()).unwrap();
        for (ours, theirs) in bytes(&whole.folder).iter().zip(bytes(&resumed.folder)) {
            assert!(*ours == theirs, "{} differs after a cut at {die_at}", ours.0);
        }
        // Every record once, although the part after the last checkpoint was played twice.
        assert!(
            !seen.is_empty() && seen.len() <= die_at as usize / 25 * 3 * 6 + 5 * 2 * 2,
            "{} at {die_at}",
            seen.len()
        );
        assert_eq!(curves(&resumed.folder), logged(&whole.folder), "after a cut at {die_at}");
        assert_eq!(fs::read_dir(RunPaths::new(&resumed.folder).tensorboard()).unwrap().count(), 2);
    }
}

#[test]
fn the_last_update_of_every_network_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let data = telemetry(folder.path(), "train", 32);
    let mut config = config();
    (config.trainer.updates, config.trainer.metrics_interval, config.trainer.validation_interval) = (70, 60, 50);
    let case = Case { folder: folder.path(), config: &config, learner: fused(Isa::best()), resume: None };
    let report = run(&case, &data, None, &mut Watcher::default()).unwrap();
    let text = fs::read_to_string(RunPaths::new(&report.folder).metrics()).unwrap();
    let records: Vec<UpdateMetrics> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<(u64, &str)> = records.iter().map(|record| (record.update, record.network.as_str())).collect();
    let networks = ["fold-1", "fold-2", "released"];
    let expected: Vec<(u64, &str)> =
        [50, 60, 70].into_iter().flat_map(|update| networks.map(|n| (update, n))).collect();
    assert_eq!(told, expected);
    // Fold networks are played after each round that reaches the interval, and after the last.
    for record in &records {
        let is_played = record.network != "released" && record.update != 60;
        assert_eq!(record.validation.is_some(), is_played, "{record:?}");
    }
    let all: u64 =
        records.iter().filter(|record| record.update == 70).filter_map(|r| r.validation).map(|v| v.episodes).sum();
    assert_eq!(all, 32, "every episode is unseen by one network");
}

#[test]
fn one_class_alone_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("benign");
    let mut writer = TelemetryWriter::new(Vec::new()).unwrap();
    let attributes = EpisodeAttributes {
        episode_id: EpisodeId("one".to_owned()),
        label: Some(Label::Benign),
        family: None,
        source: None,
        sample_sha256: None,
        complete: true,
    };
    writer.begin(&attributes).unwrap();
    writer.event(&Event::named(0, EventKind::File, "openat")).unwrap();
    writer.end(true).unwrap();
    fs::File::create_new(&path).unwrap().write_all(&writer.finish().unwrap().0).unwrap();
    let config = config();
    let case = Case { folder: folder.path(), config: &config, learner: fused(Isa::best()), resume: None };
    let error = run(&case, &path, None, &mut Watcher::default()).unwrap_err();
    assert!(matches!(error, RunError::OneClass { benign: 1, malicious: 0, .. }), "{error}");
    assert!(!folder.path().join("runs").exists(), "nothing is written before the data is known to be usable");
}
