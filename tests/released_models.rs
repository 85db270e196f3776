//! The models that ship with the source are whole, decide as they promise, and fit the program they lie beside.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod program;

use std::path::{Path, PathBuf};

use bellwether_artifact::durable;
use program::bellwether;

/// The folders of the models.
fn models() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut models: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    models.retain(|path| path.is_dir());
    models.sort();
    models
}

#[test]
fn every_model_passes_the_gates_of_a_release_and_has_a_card() {
    let models = models();
    assert!(!models.is_empty());
    for model in models {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let path = model.to_str().unwrap();
        // Loading checks hashes, the feature specification of this program and the golden vectors, to the last bit.
        let promoted = bellwether(at, &["release", "--json", "promote", path]).expect(0).json();
        assert_eq!(promoted["moved"]["to"], 1, "{promoted}");
        bellwether(at, &["release", "verify"]).expect(0);
        let card = std::fs::read_to_string(model.join("card.md")).unwrap();
        let version = promoted["gates"]["version"].as_str().unwrap();
        assert!(card.contains(version), "the card of {path} speaks of another model than {version}");
    }
}

#[test]
fn a_model_that_was_changed_since_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let model = models().remove(0);
    std::fs::create_dir(at.join("model")).unwrap();
    for entry in std::fs::read_dir(&model).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, at.join("model").join(path.file_name().unwrap())).unwrap();
    }
    let mut network = std::fs::read(at.join("model/model.onnx")).unwrap();
    let middle = network.len() / 2;
    network[middle] ^= 1;
    durable::write_bytes(at.join("model/model.onnx"), &network).unwrap();
    bellwether(at, &["release", "promote", "model"]).complains(1, &["model.onnx"]);
}
