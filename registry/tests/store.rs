//! The store of artefacts by content.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bellwether_artifact::{ArtifactError, Sha256, SourceRevision, durable};
use bellwether_registry::{
    ArtifactStore, InputFile, MANIFEST_FORMAT, References, RegistryError, RunDirectory, RunManifest,
};
use proptest::prelude::*;
use serde_json::json;

fn object_path(root: &Path, hash: &Sha256) -> PathBuf {
    let digits = hash.to_string();
    root.join("objects").join(&digits[..2]).join(&digits[2..])
}

fn quarantined(root: &Path) -> usize {
    fs::read_dir(root.join("quarantine")).unwrap().count()
}

#[test]
fn what_goes_in_comes_out_once_and_read_only() {
    let root = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(root.path()).unwrap();
    let session = store.session().unwrap();
    let hash = session.put(&b"content"[..]).unwrap();
    assert_eq!(session.put(&b"content"[..]).unwrap(), hash);
    assert_eq!(store.list().unwrap(), [(hash, 7)]);
    assert_eq!(session.get(&hash, 100).unwrap(), b"content");
    assert!(matches!(session.get(&hash, 6), Err(RegistryError::Artifact(ArtifactError::TooLarge { .. }))));
    let mut text = String::new();
    session.open(&hash).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    assert!(fs::metadata(object_path(root.path(), &hash)).unwrap().permissions().readonly());
    assert_eq!(quarantined(root.path()), 0);
    assert!(matches!(session.get(&Sha256::of(b"other"), 100), Err(RegistryError::UnknownObject { .. })));
}

#[test]
fn a_wrong_or_broken_source_leaves_nothing() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let root = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(root.path()).unwrap();
    let session = store.session().unwrap();
    let wrong = session.put_expected(&b"content"[..], Sha256::of(b"other"));
    assert!(matches!(wrong, Err(RegistryError::Artifact(ArtifactError::HashMismatch { .. }))));
    assert!(session.put((&b"half"[..]).chain(Broken)).is_err());
    session.put_expected(&b"content"[..], Sha256::of(b"content")).unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(quarantined(root.path()), 0);
}

#[test]
fn damage_is_found_reported_and_mended() {
    let root = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(root.path()).unwrap();
    let session = store.session().unwrap();
    let hash = session.put(&b"content"[..]).unwrap();
    durable::write_bytes(object_path(root.path(), &hash), b"contents").unwrap();
    assert!(matches!(session.get(&hash, 100), Err(RegistryError::Artifact(ArtifactError::HashMismatch { .. }))));
    assert!(session.open(&hash).is_err());
    assert_eq!(session.damaged().unwrap(), [hash]);
    session.set_aside(&hash).unwrap();
    assert_eq!((session.damaged().unwrap().len(), quarantined(root.path())), (0, 1));
    session.put(&b"content"[..]).unwrap();
    assert_eq!(session.get(&hash, 100).unwrap(), b"content");
}

#[test]
fn nothing_is_collected_while_a_session_is_open() {
    let root = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(root.path()).unwrap();
    let session = store.session().unwrap();
    let hash = session.put(&b"content"[..]).unwrap();
    assert!(matches!(store.collect(&References::none(), false), Err(RegistryError::Busy { .. })));
    assert!(session.contains(&hash));
    drop(session);
    let would = store.collect(&References::none(), true).unwrap();
    assert_eq!((would.removed.as_slice(), would.bytes(), would.dry_run), (&[(hash, 7)][..], 7, true));
    assert!(store.session().unwrap().contains(&hash), "a dry run removes nothing");
    store.collect(&References::none(), false).unwrap();
    assert!(!store.session().unwrap().contains(&hash));
}

#[test]
fn what_runs_refer_to_stays_and_an_unreadable_manifest_stops_all() {
    let root = tempfile::tempdir().unwrap();
    let (runs, store) = (root.path().join("runs"), ArtifactStore::open(root.path().join("store")).unwrap());
    let session = store.session().unwrap();
    let input = session.put(&b"input"[..]).unwrap();
    let made = session.put(&b"model"[..]).unwrap();
    let stray = session.put(&b"stray"[..]).unwrap();
    let manifest = RunManifest {
        format_version: MANIFEST_FORMAT,
        name: "demo".into(),
        command: "train".into(),
        flags: BTreeMap::new(),
        config: json!({}),
        seeds: BTreeMap::new(),
        inputs: vec![InputFile { role: "train".into(), name: "data".into(), sha256: input, bytes: 5 }],
        versions: BTreeMap::new(),
        source: SourceRevision { package: "0.1.0".into(), revision: None, modified: None },
        artifacts: Vec::new(),
    };
    let run = RunDirectory::create(&runs, manifest.clone()).unwrap();
    run.write("model/model.onnx", |out| out.write_all(b"model")).unwrap();
    run.complete().unwrap();
    drop(RunDirectory::create(&runs, manifest).unwrap());
    drop(session);

    let mut references = References::none();
    references.add_runs(&runs).unwrap();
    assert_eq!([input, made, stray].map(|hash| references.count(&hash)), [2, 1, 0], "an aborted run refers too");
    let collected = store.collect(&references, false).unwrap();
    assert_eq!((collected.kept, collected.removed), (2, vec![(stray, 5)]));

    fs::create_dir(runs.join("broken")).unwrap();
    assert!(matches!(References::none().add_runs(&runs), Err(RegistryError::UnreadableReferences { .. })));
}

/// A folder in memory where the system has one: hundreds of cases would wait for the disk otherwise.
fn quick_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

proptest! {
    #[test]
    fn a_collection_keeps_exactly_what_is_referred_to(
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 1..10),
        chosen in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let root = quick_folder();
        let store = ArtifactStore::open(root.path()).unwrap();
        let session = store.session().unwrap();
        let hashes: Vec<Sha256> = contents.iter().map(|content| session.put(content.as_slice()).unwrap()).collect();
        drop(session);
        let mut references = References::none();
        let kept: BTreeSet<Sha256> = chosen.iter().map(|index| hashes[index.index(hashes.len())]).collect();
        kept.iter().for_each(|hash| references.add(*hash));
        let all: BTreeSet<Sha256> = hashes.iter().copied().collect();
        let collected = store.collect(&references, false).unwrap();
        let left: BTreeSet<Sha256> = store.list().unwrap().into_iter().map(|(hash, _)| hash).collect();
        prop_assert_eq!(&left, &kept);
        let removed: BTreeSet<Sha256> = collected.removed.iter().map(|(hash, _)| *hash).collect();
        prop_assert_eq!(removed, &all - &kept);
        let session = store.session().unwrap();
        for (hash, content) in hashes.iter().zip(&contents).filter(|(hash, _)| kept.contains(hash)) {
            prop_assert_eq!(&session.get(hash, 100).unwrap(), content);
        }
    }
}
