//! The registry of released models: numbers never change, names move through gates, and no death leaves half a move.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use bellwether_artifact::keys::{PrivateKey, TrustedKeys};
use bellwether_artifact::release::{self, Companions};
use bellwether_artifact::signature::ReleaseSignature;
use bellwether_artifact::{
    ActionBinding, FORMAT_VERSION, FeatureBinding, ModelManifest, ModelVersion, OnnxFile, Sha256, SourceRevision,
    WindowLimits, durable,
};
use bellwether_registry::{Check, GateReport, ModelRegistry, MoveKind, RegistryError};
use proptest::prelude::*;
use serde_json::json;

const CHILD: &str = "BELLWETHER_TEST_CHILD_REGISTRY";

fn model(seed: u8) -> (ModelManifest, Vec<u8>) {
    let onnx = vec![seed; 100];
    let manifest = ModelManifest {
        format_version: FORMAT_VERSION,
        name: "demo".into(),
        version: ModelVersion::UNSEALED,
        onnx: OnnxFile { sha256: Sha256::of(&onnx), bytes: 100 },
        widths: vec![4, 2],
        graph: None,
        features: FeatureBinding {
            spec_version: 1,
            spec_sha256: Sha256::of(b"spec"),
            width: 4,
            window: WindowLimits { max_events: 64, max_ns: 1, max_windows: 0 },
        },
        actions: ActionBinding { set_version: 1, names: vec!["continue".into(), "release".into()] },
        operating_points: Vec::new(),
        training: json!({}),
        metrics: BTreeMap::new(),
        data: Vec::new(),
        golden: Vec::new(),
        source: SourceRevision { package: "0.1.0".into(), revision: None, modified: None },
    };
    (manifest.sealed().unwrap(), onnx)
}

fn release_of(folder: &Path, seed: u8) -> PathBuf {
    let path = folder.join(format!("release-{seed}"));
    let (manifest, onnx) = model(seed);
    release::publish(&path, &manifest, &onnx, Companions { card: Some("card"), ..Companions::default() }).unwrap();
    path
}

fn check(name: &str, passed: bool) -> Check {
    Check { name: name.into(), passed, value: Some(0.9), limit: Some(0.8), detail: "held-out families".into() }
}

fn passing(seed: u8) -> GateReport {
    GateReport::of(&model(seed).0, vec![check("parity", true), check("tpr", true)])
}

/// A registry with the models 1 to `count` under these numbers.
fn registry_with(root: &Path, count: u8) -> ModelRegistry {
    let registry = ModelRegistry::open(root.join("registry")).unwrap();
    for seed in 1..=count {
        assert_eq!(registry.publish(&release_of(root, seed)).unwrap().number, u32::from(seed));
    }
    registry
}

fn champion(registry: &ModelRegistry) -> Option<u32> {
    registry.names().unwrap().into_iter().find(|(name, _)| name == "champion").map(|(_, number)| number)
}

#[test]
fn publishing_is_idempotent_and_never_changes_a_number() {
    let root = tempfile::tempdir().unwrap();
    let registry = registry_with(root.path(), 2);
    let again = registry.publish(&root.path().join("release-1")).unwrap();
    assert_eq!(again.number, 1);
    let (manifest, onnx) = model(1);
    let other = root.path().join("other-card");
    release::publish(&other, &manifest, &onnx, Companions { card: Some("other"), ..Companions::default() }).unwrap();
    assert!(matches!(registry.publish(&other), Err(RegistryError::Conflict { number: 1, file: "card.md", .. })));
    let read = release::read(&registry.folder(2)).unwrap();
    assert_eq!((read.manifest, read.onnx), model(2));
    assert_eq!(registry.verify().unwrap(), []);
}

#[test]
fn looking_makes_no_folders() {
    let root = tempfile::tempdir().unwrap();
    let registry = ModelRegistry::open(root.path().join("nowhere")).unwrap();
    assert_eq!(
        (registry.list().unwrap(), registry.names().unwrap(), registry.verify().unwrap()),
        (vec![], vec![], vec![])
    );
    assert!(matches!(registry.resolve("champion"), Err(RegistryError::UnknownModel { .. })));
    assert!(registry.promote(1, "champion", &passing(1), &[]).is_err());
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    let file = root.path().join("file");
    durable::write_bytes(&file, b"").unwrap();
    assert!(ModelRegistry::open(file).is_err());
}

#[test]
fn only_a_passing_report_about_this_model_moves_a_name() {
    let root = tempfile::tempdir().unwrap();
    let registry = registry_with(root.path(), 2);
    let required = ["parity", "tpr"];
    let promote = |number, report: &GateReport| registry.promote(number, "champion", report, &required);
    assert!(matches!(promote(1, &passing(2)), Err(RegistryError::GateForAnother { .. })));
    let partial = GateReport::of(&model(1).0, vec![check("parity", true)]);
    assert!(matches!(promote(1, &partial), Err(RegistryError::GateMissing { missing }) if missing == ["tpr"]));
    let failed = GateReport::of(&model(1).0, vec![check("parity", true), check("tpr", false)]);
    let refused = promote(1, &failed);
    assert!(matches!(&refused, Err(RegistryError::GateFailed { failed, .. }) if failed[0].starts_with("tpr (0.9")));
    let empty = GateReport::of(&model(1).0, Vec::new());
    assert!(matches!(registry.promote(1, "champion", &empty, &[]), Err(RegistryError::GateMissing { .. })));
    assert!(matches!(promote(9, &passing(1)), Err(RegistryError::UnknownModel { .. })));
    assert!(matches!(registry.promote(1, "../x", &passing(1), &[]), Err(RegistryError::Name { .. })));
    assert_eq!(champion(&registry), None);

    let moved = promote(1, &passing(1)).unwrap();
    assert_eq!((moved.kind, moved.from, moved.to), (MoveKind::Promote, None, 1));
    assert_eq!(registry.gate_report(&moved.gate_sha256.unwrap()).unwrap(), passing(1));
    assert_eq!(registry.list().unwrap()[0].names, ["champion"]);
}

#[test]
fn rolling_back_goes_further_back_each_time() {
    let root = tempfile::tempdir().unwrap();
    let registry = registry_with(root.path(), 3);
    assert!(matches!(registry.rollback("champion"), Err(RegistryError::NothingToRollBack { .. })));
    for number in [1, 2, 2, 3] {
        registry.promote(number, "champion", &passing(number as u8), &[]).unwrap();
    }
    let back = || registry.rollback("champion").map(|moved| (moved.from, moved.to));
    assert_eq!(back().unwrap(), (Some(3), 2));
    assert_eq!(back().unwrap(), (Some(2), 1));
    assert!(matches!(back(), Err(RegistryError::NothingToRollBack { .. })));
    assert_eq!(champion(&registry), Some(1));
    registry.promote(3, "champion", &passing(3), &[]).unwrap();
    assert_eq!(back().unwrap(), (Some(3), 1));
    assert_eq!(registry.history().unwrap().len(), 8);
}

#[test]
fn a_damaged_model_is_neither_promoted_nor_rolled_back_to() {
    let root = tempfile::tempdir().unwrap();
    let registry = registry_with(root.path(), 2);
    registry.promote(1, "champion", &passing(1), &[]).unwrap();
    registry.promote(2, "champion", &passing(2), &[]).unwrap();
    durable::write_bytes(release::card_path(&registry.folder(1)), b"changed").unwrap();
    assert!(matches!(
        registry.promote(1, "candidate", &passing(1), &[]),
        Err(RegistryError::Damaged { number: 1, .. })
    ));
    assert!(matches!(registry.rollback("champion"), Err(RegistryError::Damaged { number: 1, .. })));
    assert_eq!(champion(&registry), Some(2));
    let problems = registry.verify().unwrap();
    assert_eq!((problems.len(), problems[0].number), (1, Some(1)));
    assert!(problems[0].problem.contains("card.md"), "{problems:?}");
}

#[test]
fn models_are_found_by_name_number_or_version() {
    let root = tempfile::tempdir().unwrap();
    let registry = registry_with(root.path(), 2);
    registry.promote(2, "champion", &passing(2), &[]).unwrap();
    let version = model(1).0.version.to_string();
    let number = |text: &str| registry.resolve(text).map(|record| record.number).ok();
    assert_eq!(
        ["champion", "1", "2", &version, &version[..6], "candidate", "3", "", "0"].map(number),
        [Some(2), Some(1), Some(2), Some(1), Some(1), None, None, None, None]
    );
}

#[test]
fn concurrent_promoters_leave_one_whole_history() {
    let root = tempfile::tempdir().unwrap();
    let registry = registry_with(root.path(), 4);
    std::thread::scope(|scope| {
        for number in 1..=4_u32 {
            let registry = &registry;
            scope.spawn(move || {
                for _ in 0..5 {
                    registry.promote(number, "champion", &passing(number as u8), &["tpr"]).unwrap();
                }
            });
        }
    });
    let history = registry.history().unwrap();
    assert_eq!(history.len(), 20);
    assert!(history.windows(2).all(|pair| pair[1].from == Some(pair[0].to)), "each move starts where the last ended");
    assert_eq!(champion(&registry), history.last().map(|last| last.to));
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_state_or_the_new() {
    if let Some(root) = std::env::var_os(CHILD).map(PathBuf::from) {
        let registry = ModelRegistry::open(root.join("registry")).unwrap();
        for round in 0_u32.. {
            let seed = (round % 200) as u8;
            let folder = root.join(format!("release-{seed}"));
            if !folder.exists() {
                release_of(&root, seed);
            }
            let record = registry.publish(&folder).unwrap();
            registry.promote(record.number, "champion", &passing(seed), &["tpr"]).unwrap();
        }
    }
    let root = tempfile::tempdir().unwrap();
    let registry = ModelRegistry::open(root.path().join("registry")).unwrap();
    let mut moves = 0;
    for round in 0_u64..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["a_kill_at_any_moment_leaves_the_old_state_or_the_new", "--exact"])
            .env(CHILD, root.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while registry.history().unwrap().len() <= moves {
            assert!(child.try_wait().unwrap().is_none(), "the child must not end by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(5 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(registry.verify().unwrap(), []);
        let history = registry.history().unwrap();
        assert!(history.len() > moves);
        moves = history.len();
        assert_eq!(champion(&registry), history.last().map(|last| last.to));
        let numbers: BTreeSet<u32> = registry.list().unwrap().into_iter().map(|one| one.record.number).collect();
        assert_eq!(numbers, (1..=numbers.len() as u32).collect(), "numbers have no gaps");
    }
    registry.publish(&root.path().join("release-0")).unwrap();
    let kept = fs::read_dir(root.path().join("registry/versions")).unwrap().count();
    assert_eq!(kept, registry.list().unwrap().len(), "the next writer sweeps what the dead left behind");
}

proptest! {
    /// Every byte of the history is a point at which its writer may have died.
    #[test]
    fn a_history_cut_anywhere_is_a_history(
        steps in prop::collection::vec((1_u32..=3, any::<bool>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        // Publishing three models takes longer than all the rest, so the cases share them and differ in the history.
        static SHARED: OnceLock<(tempfile::TempDir, ModelRegistry)> = OnceLock::new();
        let (root, registry) = SHARED.get_or_init(|| {
            // In memory where the system has a folder there, or every move would wait for the disk.
            let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
            let registry = registry_with(root.path(), 3);
            (root, registry)
        });
        durable::remove_file(&root.path().join("registry/history.jsonl")).unwrap();
        let mut after = vec![None];
        for (number, back) in steps {
            let moved = if back {
                registry.rollback("champion")
            } else {
                registry.promote(number, "champion", &passing(number as u8), &[])
            };
            if moved.is_ok() {
                after.push(champion(registry));
            }
        }
        let path = root.path().join("registry/history.jsonl");
        if path.exists() {
            let whole = fs::read(&path).unwrap();
            let cut = cut.index(whole.len() + 1);
            durable::write_bytes(&path, &whole[..cut]).unwrap();
            let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
            prop_assert_eq!(champion(registry), after[lines]);
            prop_assert_eq!(registry.verify().unwrap(), []);
            registry.promote(3, "champion", &passing(3), &[]).unwrap();
            prop_assert_eq!(champion(registry), Some(3));
            prop_assert_eq!(registry.history().unwrap().len(), lines + 1);
        }
    }
}

/// The key of this seed.
fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed(&[seed; 32])
}

fn trust(seeds: &[u8]) -> TrustedKeys {
    TrustedKeys::new(seeds.iter().map(|seed| key(*seed).public()))
}

/// The numbers that are not signed by one of these keys.
fn unsigned(registry: &ModelRegistry, seeds: &[u8]) -> Vec<u32> {
    let problems = registry.verify_signatures(&trust(seeds)).unwrap();
    problems.into_iter().map(|problem| problem.number.unwrap()).collect()
}

#[test]
fn a_version_is_signed_when_it_is_there_and_again_by_a_new_key() {
    let root = tempfile::tempdir().unwrap();
    let registry = registry_with(root.path(), 2);
    assert_eq!(unsigned(&registry, &[1]), [1, 2]);
    registry.sign(2, &key(1)).unwrap();
    assert_eq!((unsigned(&registry, &[1]), unsigned(&registry, &[3])), (vec![1], vec![1, 2]));
    // Both keys are trusted while one takes over from the other.
    registry.sign(1, &key(3)).unwrap();
    assert!(unsigned(&registry, &[1, 3]).is_empty());
    registry.sign(2, &key(3)).unwrap();
    assert_eq!((unsigned(&registry, &[3]), unsigned(&registry, &[1])), (vec![], vec![1, 2]));
    assert_eq!(registry.verify().unwrap(), []);
    assert!(matches!(registry.sign(9, &key(1)), Err(RegistryError::UnknownModel { .. })));
}

#[test]
fn a_signature_comes_along_with_a_release_also_later() {
    let root = tempfile::tempdir().unwrap();
    let registry = registry_with(root.path(), 1);
    let (manifest, onnx) = model(1);
    let json = manifest.to_json().unwrap();
    let signature = ReleaseSignature::sign(json.as_bytes(), &key(1)).to_json().unwrap();
    let signed = root.path().join("signed");
    let companions = Companions { card: Some("card"), signature: Some(signature.as_bytes()), ..Companions::default() };
    release::publish(&signed, &manifest, &onnx, companions).unwrap();
    assert_eq!(unsigned(&registry, &[1]), [1]);
    assert_eq!(registry.publish(&signed).unwrap().number, 1);
    assert!(unsigned(&registry, &[1]).is_empty());
    let other = ModelRegistry::open(root.path().join("other")).unwrap();
    other.publish(&signed).unwrap();
    assert!(unsigned(&other, &[1]).is_empty());
    // And an unsigned copy takes no signature away.
    other.publish(&root.path().join("release-1")).unwrap();
    assert!(unsigned(&other, &[1]).is_empty());
}

#[test]
fn the_bytes_that_were_signed_are_those_that_are_published() {
    let root = tempfile::tempdir().unwrap();
    let folder = release_of(root.path(), 1);
    // The same manifest in another layout, as another tool may write it.
    let path = release::manifest_path(&folder);
    let value: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let compact = serde_json::to_string(&value).unwrap();
    durable::write_bytes(&path, compact.as_bytes()).unwrap();
    let signature = ReleaseSignature::sign(compact.as_bytes(), &key(1)).to_json().unwrap();
    durable::write_bytes(release::signature_path(&folder), signature.as_bytes()).unwrap();
    let registry = ModelRegistry::open(root.path().join("registry")).unwrap();
    registry.publish(&folder).unwrap();
    assert_eq!((unsigned(&registry, &[1]), registry.verify().unwrap()), (vec![], vec![]));
}

#[test]
fn a_damaged_version_is_not_signed_and_a_changed_one_is_found() {
    let root = tempfile::tempdir().unwrap();
    let registry = registry_with(root.path(), 2);
    registry.sign(1, &key(1)).unwrap();
    registry.sign(2, &key(1)).unwrap();
    // The signature of another model.
    fs::copy(release::signature_path(&registry.folder(1)), release::signature_path(&registry.folder(2))).unwrap();
    assert_eq!(unsigned(&registry, &[1]), [2]);
    durable::write_bytes(release::onnx_path(&registry.folder(2)), &[9; 100]).unwrap();
    assert!(matches!(registry.sign(2, &key(1)), Err(RegistryError::Damaged { number: 2, .. })));
}

#[test]
fn where_names_stand_is_told_without_reading_versions() {
    let root = tempfile::tempdir().unwrap();
    let registry = registry_with(root.path(), 2);
    assert_eq!((registry.standing("champion").unwrap(), registry.latest().unwrap()), (None, Some(2)));
    registry.promote(1, "champion", &passing(1), &[]).unwrap();
    fs::remove_file(registry.folder(1).join("record.json")).unwrap();
    assert_eq!(registry.standing("champion").unwrap(), Some(1));
    assert_eq!(ModelRegistry::open(root.path().join("nowhere")).unwrap().latest().unwrap(), None);
}
