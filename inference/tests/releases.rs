//! A release is opened when all its parts agree, and refused for the part that does not.
#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod manifests;
mod nets;

use bellwether_artifact::release::{Companions, ONNX_FILE, publish};
use bellwether_artifact::{ArtifactError, ModelManifest, Sha256};
use bellwether_inference::model::{Contract, Expectation, Mlp, ModelError, encode};
use bellwether_inference::release::check_release;
use bellwether_inference::{GoldenError, Isa, LoadedRelease, ReleaseError, load_release};
use manifests::sealed;
use nets::Draw;

fn contract() -> Contract {
    Contract::sandbox(12, Sha256::of(b"spec"))
}

fn mlp() -> Mlp {
    Draw(5).mlp(&[12, 20, 5])
}

/// The manifest and the network of a sound release.
fn sound() -> (ModelManifest, Vec<u8>) {
    sealed(&mlp(), &contract(), |_| {})
}

/// Checks a release whose manifest was changed and sealed again.
fn changed(change: impl FnOnce(&mut ModelManifest)) -> Result<LoadedRelease, ReleaseError> {
    let (mut manifest, onnx) = sound();
    change(&mut manifest);
    check_release(manifest.sealed().unwrap(), &onnx, &Expectation::new(contract()), Isa::best())
}

#[test]
fn a_sound_release_opens_on_every_instruction_set() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("release");
    let (manifest, onnx) = sound();
    publish(&folder, &manifest, &onnx, Companions::default()).unwrap();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let loaded = load_release(&folder, &Expectation::new(contract()), isa).unwrap();
        assert_eq!((loaded.manifest, loaded.mlp), (manifest.clone(), Some(mlp())));
        assert_eq!(loaded.engine.isa(), isa);
    }
}

#[test]
fn another_network_in_the_folder_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("release");
    let (manifest, onnx) = sound();
    publish(&folder, &manifest, &onnx, Companions::default()).unwrap();
    let other = encode(&Draw(6).mlp(&[12, 20, 5]), &contract()).unwrap();
    bellwether_artifact::durable::write_bytes(folder.join(ONNX_FILE), &other).unwrap();
    let error = load_release(&folder, &Expectation::new(contract()), Isa::best()).unwrap_err();
    assert!(matches!(error, ReleaseError::Artifact(ArtifactError::HashMismatch { .. })), "{error}");
}

#[test]
fn a_folder_without_a_release_is_refused_with_its_path() {
    let root = tempfile::tempdir().unwrap();
    let error = load_release(root.path(), &Expectation::new(contract()), Isa::best()).unwrap_err();
    assert!(error.to_string().contains("model.json"), "{error}");
}

#[test]
fn another_expectation_is_refused() {
    let (manifest, onnx) = sound();
    let expectation = Expectation::new(Contract { feature_spec: Sha256::of(b"other"), ..contract() });
    let error = check_release(manifest, &onnx, &expectation, Isa::best()).unwrap_err();
    assert!(matches!(error, ReleaseError::Model(ModelError::FeatureSpec { .. })), "{error}");
}

#[test]
fn metadata_of_another_model_is_refused() {
    let check = |expected: &str, change: &dyn Fn(&mut ModelManifest)| match changed(change).unwrap_err() {
        ReleaseError::Binding { field, .. } => assert_eq!(field, expected),
        error => panic!("{error}"),
    };
    check("onnx.bytes", &|manifest| manifest.onnx.bytes += 1);
    check("features.spec_sha256", &|manifest| manifest.features.spec_sha256 = Sha256::of(b"other"));
    check("actions.set_version", &|manifest| manifest.actions.set_version += 1);
    check("actions.names", &|manifest| manifest.actions.names.swap(2, 3));
    check("widths", &|manifest| manifest.widths[1] = 21);
    check("features.width", &|manifest| {
        manifest.features.width = 13;
        manifest.widths[0] = 13;
    });
}

#[test]
fn golden_vectors_must_come_out_to_the_last_bit() {
    assert!(changed(|_| {}).is_ok());
    assert!(matches!(changed(|manifest| manifest.golden.clear()), Err(ReleaseError::Golden(GoldenError::Missing))));
    let error = changed(|manifest| {
        let vector = &mut manifest.golden[2];
        // Not the best action, so that the manifest stays consistent in itself.
        let other = (0..5).find(|&action| action != vector.action as usize).unwrap();
        vector.q_values[other] = vector.q_values[other].next_down();
    });
    assert!(matches!(error, Err(ReleaseError::Golden(GoldenError::Values { index: 2, .. }))), "{error:?}");
    let error = changed(|manifest| manifest.golden[1].state = vec![(3, 0.25)]);
    assert!(matches!(error, Err(ReleaseError::Golden(GoldenError::Values { index: 1, .. }))), "{error:?}");
}
