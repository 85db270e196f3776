//! The registry of released models from outside: a name is moved, moved back, and looked at.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod program;

use std::path::Path;

use bellwether_artifact::release::{self, Companions, Release};
use program::{bellwether, keeps_schema};
use serde_json::{Value, json};

/// The released model that ships with the source.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/quickstart");

/// The same network under another name, which is another version.
fn publish_renamed(folder: &Path) {
    let Release { mut manifest, onnx } = release::read(Path::new(MODEL)).unwrap();
    manifest.name = "renamed".to_owned();
    release::publish(folder, &manifest.sealed().unwrap(), &onnx, Companions::default()).unwrap();
}

#[test]
fn a_name_goes_to_a_new_model_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    publish_renamed(&at.join("renamed"));
    for model in [MODEL, "renamed"] {
        let promoted = bellwether(at, &["release", "--json", "promote", model, "--max-fpr", "1", "--min-tpr", "0"]);
        keeps_schema("release-promote.schema.json", &promoted.expect(0).json());
    }
    let names = || {
        let listed = bellwether(at, &["release", "--json", "list"]).expect(0).json();
        keeps_schema("release-list.schema.json", &listed);
        listed.as_array().unwrap().iter().map(|model| model["names"].clone()).collect::<Vec<Value>>()
    };
    assert_eq!(names(), [json!([]), json!(["champion"])]);
    let moved = bellwether(at, &["release", "--json", "rollback"]).expect(0).json();
    keeps_schema("release-rollback.schema.json", &moved);
    assert_eq!((&moved["kind"], &moved["from"], &moved["to"]), (&json!("rollback"), &json!(2), &json!(1)));
    assert_eq!(moved["gate_sha256"], Value::Null);
    assert_eq!(names(), [json!(["champion"]), json!([])]);
    let problems = bellwether(at, &["release", "--json", "verify"]).expect(0).json();
    keeps_schema("release-verify.schema.json", &problems);
    assert_eq!(problems, json!([]));
}
