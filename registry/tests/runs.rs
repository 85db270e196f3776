//! Run directories: what is written, what is derived, and what a kill leaves.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bellwether_artifact::{SourceRevision, durable};
use bellwether_registry::{
    InputFile, MANIFEST_FORMAT, Problem, RegistryError, RunDirectory, RunManifest, RunPaths, RunStatus, find_run, fuzz,
    list_runs, show_run, verify_run,
};
use proptest::prelude::*;
use serde_json::json;

const CHILD: &str = "BELLWETHER_TEST_CHILD_RUNS";

fn manifest(name: &str, seed: u64) -> RunManifest {
    RunManifest {
        format_version: MANIFEST_FORMAT,
        name: name.into(),
        command: "train".into(),
        flags: BTreeMap::from([("learner".into(), "fused".into())]),
        config: json!({"trainer": {"batch_size": 64, "learning_rate": 0.001}}),
        seeds: BTreeMap::from([("master".into(), seed)]),
        inputs: Vec::new(),
        versions: BTreeMap::from([("feature_spec".into(), "1".into())]),
        source: SourceRevision { package: "0.1.0".into(), revision: Some("abc".into()), modified: Some(false) },
        artifacts: Vec::new(),
    }
}

fn paths_of(manifest: &RunManifest) -> Vec<&str> {
    manifest.artifacts.iter().map(|entry| entry.path.as_str()).collect()
}

/// A small complete run: three metrics records, a model file, a checkpoint, and things that are not hashed.
fn finished(root: &Path, seed: u64) -> (PathBuf, RunManifest) {
    let mut run = RunDirectory::create(root, manifest("demo", seed)).unwrap();
    for step in 0..3 {
        run.metrics().append(&json!({"step": step, "loss": 0.5})).unwrap();
        run.timings().append(&json!({"step": step, "seconds": std::process::id()})).unwrap();
    }
    run.write("model/model.onnx", |out| out.write_all(&seed.to_le_bytes())).unwrap();
    run.write("checkpoints/step-3", |out| out.write_all(b"weights")).unwrap();
    run.write("tensorboard/events", |out| out.write_all(b"times")).unwrap();
    let folder = run.paths().folder().to_path_buf();
    (folder, run.complete().unwrap())
}

#[test]
fn a_run_lives_and_completes() {
    let root = tempfile::tempdir().unwrap();
    let mut run = RunDirectory::create(root.path(), manifest("demo", 1)).unwrap();
    let folder = run.paths().folder().to_path_buf();
    assert!(run.id().starts_with("demo-") && run.id().ends_with("-1"), "{}", run.id());
    run.metrics().append(&json!({"step": 1})).unwrap();
    let shown = show_run(&folder).unwrap();
    assert_eq!((shown.status, shown.metrics_records), (RunStatus::Running, 1));
    assert!(matches!(
        RunDirectory::resume(&folder),
        Err(RegistryError::NotResumable { status: RunStatus::Running, .. })
    ));
    let done = run.complete().unwrap();
    assert_eq!(paths_of(&done), ["config.json", "metrics.jsonl"]);
    let shown = show_run(&folder).unwrap();
    assert_eq!((shown.status, shown.manifest), (RunStatus::Complete, done));
    assert!(shown.terminal.unwrap().reason.is_none());
    assert!(!RunPaths::new(&folder).lease().exists());
    assert!(matches!(RunDirectory::resume(&folder), Err(RegistryError::NotResumable { .. })));
}

#[test]
fn a_dropped_run_is_aborted_and_a_failed_one_says_why() {
    let root = tempfile::tempdir().unwrap();
    let folder = RunDirectory::create(root.path(), manifest("demo", 1)).unwrap().paths().folder().to_path_buf();
    assert_eq!(show_run(&folder).unwrap().status, RunStatus::Aborted);
    RunDirectory::resume(&folder).unwrap().fail("the loss is not finite").unwrap();
    let shown = show_run(&folder).unwrap();
    assert_eq!(shown.status, RunStatus::Failed);
    assert_eq!(shown.terminal.unwrap().reason.unwrap(), "the loss is not finite");
    let verified = verify_run(&folder).unwrap();
    assert!(!verified.passed() && verified.problems.is_empty());
}

#[test]
fn reruns_have_the_same_fingerprint_and_the_same_manifest() {
    let root = tempfile::tempdir().unwrap();
    let (first, one) = finished(root.path(), 7);
    let (second, two) = finished(root.path(), 7);
    let (other, three) = finished(root.path(), 8);
    assert_eq!(one, two);
    assert_ne!(one, three);
    let id = |folder: &Path| RunPaths::new(folder).id();
    assert_eq!(id(&first).replace("-1", "-2"), id(&second));
    assert_ne!(id(&first)[..13], id(&other)[..13]);
    assert_eq!(
        std::fs::read(first.join("manifest.json")).unwrap(),
        std::fs::read(second.join("manifest.json")).unwrap()
    );
    assert_eq!(
        paths_of(&one),
        ["checkpoints/step-3", "config.json", "metrics.jsonl", "model/model.onnx"],
        "times and host facts are no artefacts"
    );
}

#[test]
fn verification_names_what_changed() {
    let root = tempfile::tempdir().unwrap();
    let (folder, manifest) = finished(root.path(), 1);
    let verified = verify_run(&folder).unwrap();
    assert!(verified.passed());
    assert_eq!(verified.intact, manifest.artifacts.len() as u64 + 1);

    durable::write_bytes(folder.join("model/model.onnx"), b"other").unwrap();
    durable::remove_file(&folder.join("config.json")).unwrap();
    durable::write_bytes(folder.join("model/extra"), b"").unwrap();
    let found = verify_run(&folder).unwrap();
    assert!(!found.passed());
    let kinds: Vec<_> = found
        .problems
        .iter()
        .map(|problem| match problem {
            Problem::Missing { path, .. } => ("missing", path.as_str()),
            Problem::Changed { path, .. } => ("changed", path.as_str()),
            Problem::Unlisted { path } => ("unlisted", path.as_str()),
        })
        .collect();
    assert_eq!(kinds, [("missing", "config.json"), ("unlisted", "model/extra"), ("changed", "model/model.onnx")]);

    durable::write_bytes(folder.join("manifest.json"), &std::fs::read(folder.join("manifest.json")).unwrap()[1..])
        .unwrap();
    assert!(verify_run(&folder).is_err(), "a manifest that cannot be read is an error and no finding");
}

#[test]
fn concurrent_creates_never_collide() {
    let root = tempfile::tempdir().unwrap();
    let create = || {
        let run = RunDirectory::create(root.path(), manifest("twin", 1)).unwrap();
        let id = run.id();
        run.complete().unwrap();
        id
    };
    let ids: BTreeSet<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8).map(|_| scope.spawn(|| [create(), create()])).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(ids.len(), 16);
    let listed: Vec<String> = list_runs(root.path()).unwrap().into_iter().map(|run| run.id).collect();
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), ids);
}

#[test]
fn runs_are_found_by_what_is_unique() {
    let root = tempfile::tempdir().unwrap();
    let (first, _) = finished(root.path(), 1);
    let (second, _) = finished(root.path(), 1);
    let id = RunPaths::new(&first).id();
    assert_eq!(find_run(root.path(), &id).unwrap(), first);
    assert_eq!(find_run(root.path(), second.to_str().unwrap()).unwrap(), second);
    assert!(
        matches!(find_run(root.path(), "demo"), Err(RegistryError::AmbiguousRun { candidates, .. }) if candidates.len() == 2)
    );
    assert!(matches!(find_run(root.path(), "other"), Err(RegistryError::UnknownRun { .. })));
    std::fs::create_dir(root.path().join("stray")).unwrap();
    std::fs::create_dir(root.path().join(".tmp-unfinished")).unwrap();
    let runs = list_runs(root.path()).unwrap();
    assert_eq!(runs.len(), 3);
    assert!(runs[2].problem.as_ref().unwrap().contains("manifest.json"), "a folder that is no run is listed as such");
    assert_eq!(runs[2].status, None, "nobody aborted it");
    assert!(find_run(root.path(), first.join("model/..").to_str().unwrap()).unwrap().file_name().is_some());
    assert_eq!(list_runs(&root.path().join("nowhere")).unwrap(), []);
}

#[test]
fn bad_names_and_paths_are_refused() {
    let root = tempfile::tempdir().unwrap();
    for name in ["", "../up", "a b", "A"] {
        assert!(matches!(RunDirectory::create(root.path(), manifest(name, 1)), Err(RegistryError::Name { .. })));
    }
    let run = RunDirectory::create(root.path(), manifest("demo", 1)).unwrap();
    for name in ["", "/etc/passwd", "../other", "model/../../x", "."] {
        assert!(matches!(run.write(name, |_| Ok(())), Err(RegistryError::OutsideRun { .. })), "{name:?}");
    }
}

#[test]
fn another_format_is_refused_by_its_number() {
    let root = tempfile::tempdir().unwrap();
    let (folder, _) = finished(root.path(), 1);
    let text = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    let later = text.replace("\"format_version\": 1", "\"format_version\": 2,\n  \"surplus\": true");
    durable::write_bytes(folder.join("manifest.json"), later.as_bytes()).unwrap();
    assert!(matches!(show_run(&folder), Err(RegistryError::Format { found: 2, expected: 1, .. })));
}

#[test]
fn inputs_are_hashed_and_sorted() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data.parquet");
    durable::write_bytes(&data, b"rows").unwrap();
    let mut with_inputs = manifest("demo", 1);
    with_inputs.inputs = vec![InputFile::of("valid", &data).unwrap(), InputFile::of("train", &data).unwrap()];
    let run = RunDirectory::create(&root.path().join("runs"), with_inputs).unwrap();
    let roles: Vec<&str> = run.manifest().inputs.iter().map(|input| input.role.as_str()).collect();
    assert_eq!(roles, ["train", "valid"]);
    assert_eq!(run.manifest().inputs[0].name, "data.parquet");
    assert_eq!(run.manifest().inputs[0].bytes, 4);
}

#[test]
fn resuming_goes_on_behind_the_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let mut run = RunDirectory::create(root.path(), manifest("demo", 1)).unwrap();
    run.metrics().append(&json!({"step": 1})).unwrap();
    let checkpoint = run.metrics().offset();
    run.metrics().append(&json!({"step": 2, "loss": 1.0})).unwrap();
    let folder = run.paths().folder().to_path_buf();
    drop(run);
    let mut run = RunDirectory::resume(&folder).unwrap();
    assert_eq!(show_run(&folder).unwrap().status, RunStatus::Running);
    run.rewind_metrics(checkpoint).unwrap();
    run.metrics().append(&json!({"step": 2, "loss": 0.5})).unwrap();
    run.complete().unwrap();
    let shown = show_run(&folder).unwrap();
    assert_eq!((shown.status, shown.metrics_records), (RunStatus::Complete, 2));
    assert_eq!(shown.last_metrics.unwrap(), json!({"step": 2, "loss": 0.5}));
}

/// The child creates a run and logs until it is killed; the parent looks at it before and after.
#[test]
fn a_killed_run_is_aborted_and_readable_to_its_last_record() {
    if let Some(root) = std::env::var_os(CHILD) {
        let mut run = RunDirectory::create(Path::new(&root), manifest("killed", 1)).unwrap();
        for step in 0_u64.. {
            run.metrics().append(&json!({"step": step, "padding": "x".repeat((step % 977) as usize)})).unwrap();
        }
    }
    let root = tempfile::tempdir().unwrap();
    for round in 0_u64..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["a_killed_run_is_aborted_and_readable_to_its_last_record", "--exact"])
            .env(CHILD, root.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let running = loop {
            let shown: Vec<_> = list_runs(root.path()).unwrap();
            let live = shown.into_iter().find(|run| run.status == Some(RunStatus::Running));
            match live {
                Some(run) if show_run(&root.path().join(&run.id)).unwrap().metrics_records > round => break run.id,
                _ => assert!(child.try_wait().unwrap().is_none(), "the child must not end by itself"),
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        std::thread::sleep(Duration::from_millis(3 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let folder = root.path().join(running);
        let shown = show_run(&folder).unwrap();
        assert_eq!(shown.status, RunStatus::Aborted);
        assert_eq!(shown.last_metrics.unwrap()["step"], json!(shown.metrics_records - 1), "no record is lost or twice");
        assert!(!verify_run(&folder).unwrap().passed());
        let resumed = RunDirectory::resume(&folder).unwrap();
        assert_eq!(show_run(&folder).unwrap().metrics_records, shown.metrics_records);
        resumed.complete().unwrap();
        assert!(verify_run(&folder).unwrap().passed());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz::fuzz_run_records(&bytes);
        fuzz::fuzz_metrics(&bytes);
    }

    #[test]
    fn a_changed_record_is_read_or_refused(
        which in 0..4_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"0 9\"{}[],:\n-ex\\u\xff".to_vec())), 0..4),
    ) {
        let mut bytes = records()[which].clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        fuzz::fuzz_run_records(&bytes);
        fuzz::fuzz_metrics(&bytes);
    }
}

/// The records of a complete run.
fn records() -> &'static [Vec<u8>] {
    static RECORDS: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    RECORDS.get_or_init(|| {
        let root = tempfile::tempdir().unwrap();
        let paths = RunPaths::new(finished(root.path(), 1).0);
        [paths.manifest(), paths.terminal(), paths.host(), paths.metrics()]
            .map(|path| std::fs::read(path).unwrap())
            .to_vec()
    })
}
