//! `model.json`: complete, strict, and tied to its content.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::collections::BTreeMap;

use bellwether_artifact::release::{self, Companions};
use bellwether_artifact::{
    ActionBinding, ArtifactError, DataFingerprint, FORMAT_VERSION, FORMAT_VERSION_WITH_GRAPH, FeatureBinding,
    GoldenVector, Graph, ManifestError, Metric, ModelManifest, ModelVersion, OnnxFile, OperatingPoint, Sha256,
    SourceRevision, WindowLimits,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn example() -> ModelManifest {
    ModelManifest {
        format_version: FORMAT_VERSION,
        name: "example".into(),
        version: ModelVersion::UNSEALED,
        onnx: OnnxFile { sha256: Sha256::of(b"weights"), bytes: 7 },
        widths: vec![4, 8, 2],
        graph: None,
        features: FeatureBinding {
            spec_version: 1,
            spec_sha256: Sha256::of(b"spec"),
            width: 4,
            window: WindowLimits { max_events: 64, max_ns: 100_000_000, max_windows: 0 },
        },
        actions: ActionBinding { set_version: 1, names: vec!["continue".into(), "release".into()] },
        operating_points: vec![
            OperatingPoint { target_fpr: 0.01, cost: 0.9, calibration_fpr: None, calibration_tpr: Some(0.5) },
            OperatingPoint { target_fpr: 0.05, cost: 0.5, calibration_fpr: Some(0.04), calibration_tpr: Some(0.9) },
        ],
        training: json!({"seed": 1, "learner": {"learning_rate": 0.001}}),
        metrics: BTreeMap::from([("auc".into(), Metric { value: Some(0.9), ci95: Some([0.8, 0.95]) })]),
        data: vec![DataFingerprint {
            role: "train".into(),
            name: "bundled".into(),
            sha256: Sha256::of(b"data"),
            episodes: 10,
            events: 1000,
        }],
        golden: vec![GoldenVector {
            state: vec![(0, 1.0), (3, 0.25)],
            mask: vec![true, true],
            q_values: vec![0.5, 0.5],
            action: 0,
        }],
        source: SourceRevision { package: "0.1.0".into(), revision: None, modified: None },
    }
}

/// Every place in a JSON value where an object has a key, as a JSON pointer of the object and the key.
fn keys(value: &Value, at: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                found.push((at.to_owned(), key.clone()));
                keys(inner, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                keys(inner, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

fn refuses(change: impl FnOnce(&mut ModelManifest), expected: &str) {
    let mut manifest = example();
    change(&mut manifest);
    let message = manifest.sealed().unwrap_err().to_string();
    assert!(message.contains(expected), "{message:?} should contain {expected:?}");
}

#[test]
fn every_field_is_demanded_and_no_other_is_accepted() {
    let json: Value = serde_json::from_str(&example().sealed().unwrap().to_json().unwrap()).unwrap();
    let mut places = Vec::new();
    keys(&json, "", &mut places);
    // The training configuration is the trainer's, and the names of metrics are free.
    places.retain(|(at, key)| !at.starts_with("/training") && at != "/metrics" && !key.is_empty());
    assert!(places.len() > 35, "only {} places", places.len());
    for (at, key) in places {
        let mut less = json.clone();
        less.pointer_mut(&at).unwrap().as_object_mut().unwrap().remove(&key);
        let found = ModelManifest::from_json(less.to_string().as_bytes());
        assert!(matches!(&found, Err(ManifestError::Json(text)) if text.contains(&key)), "{at}/{key}: {found:?}");
        let mut more = json.clone();
        more.pointer_mut(&at).unwrap().as_object_mut().unwrap().insert("surplus".into(), json!(1));
        let found = ModelManifest::from_json(more.to_string().as_bytes());
        assert!(matches!(&found, Err(ManifestError::Json(text)) if text.contains("surplus")), "{at}: {found:?}");
    }
}

#[test]
fn a_changed_manifest_no_longer_fits_its_version() {
    let text = example().sealed().unwrap().to_json().unwrap();
    let changed = text.replace("0.04", "0.03");
    assert_ne!(text, changed);
    assert!(matches!(ModelManifest::from_json(changed.as_bytes()), Err(ManifestError::Version { .. })));
    assert!(matches!(example().to_json(), Err(ManifestError::Version { .. })), "an unsealed one is not written");
}

#[test]
fn a_graph_is_named_in_its_own_format_version_and_absent_otherwise() {
    let named = ModelManifest { format_version: FORMAT_VERSION_WITH_GRAPH, graph: Some(Graph::Dueling), ..example() };
    let (plain, named) = (example().sealed().unwrap(), named.sealed().unwrap());
    let (plain_text, text) = (plain.to_json().unwrap(), named.to_json().unwrap());
    assert!(!plain_text.contains("graph") && text.contains("\"graph\": \"dueling\""));
    assert_eq!(ModelManifest::from_json(text.as_bytes()), Ok(named));
    for (from, to) in [("\"dueling\"", "null"), ("\"dueling\"", "\"other\""), ("\"graph\": \"dueling\",", "")] {
        let found = ModelManifest::from_json(text.replace(from, to).as_bytes());
        assert!(matches!(found, Err(ManifestError::Json(_) | ManifestError::Field { .. })), "{to}: {found:?}");
    }
}

#[test]
fn rules() {
    refuses(|m| m.format_version = 3, "format_version is 3");
    refuses(|m| m.format_version = 2, "graph is None");
    refuses(|m| m.graph = Some(Graph::Dueling), "graph is Some(Dueling)");
    let general =
        |m: &mut ModelManifest| (m.format_version, m.graph) = (FORMAT_VERSION_WITH_GRAPH, Some(Graph::General));
    refuses(general, "of a general graph only the first and the last");
    refuses(|m| m.name = "../up".into(), "name");
    refuses(|m| m.name = String::new(), "name");
    refuses(|m| m.widths = vec![5, 2], "must begin with features.width");
    refuses(|m| m.widths = vec![4, 3], "must end with the number of actions");
    refuses(|m| m.widths = vec![4, 0, 2], "no layer is empty");
    refuses(|m| m.operating_points.reverse(), "targets must ascend");
    refuses(|m| m.operating_points[1].cost = 0.95, "never costs more");
    refuses(|m| m.operating_points[0].cost = 1.0, "below 1");
    refuses(|m| m.operating_points[0].target_fpr = f64::NAN, "NaN");
    refuses(|m| m.operating_points[0].calibration_tpr = Some(1.5), "calibration_tpr");
    refuses(|m| m.training = json!(3), "training");
    refuses(|m| m.metrics.get_mut("auc").unwrap().ci95 = Some([1.0, 0.0]), "metrics.auc.ci95");
    refuses(|m| m.golden[0].state = vec![(3, 0.1), (0, 0.1)], "indices must ascend");
    refuses(|m| m.golden[0].state = vec![(4, 0.1)], "below features.width");
    refuses(|m| m.golden[0].state = vec![(0, 1.5)], "[0, 1]");
    refuses(|m| m.golden[0].mask = vec![true], "one entry per action");
    refuses(|m| m.golden[0].mask = vec![false, false], "golden[0].action");
    refuses(|m| m.golden[0].action = 1, "lowest number on a tie");
    refuses(|m| m.golden[0].q_values[0] = f32::INFINITY, "a number is inf");
    refuses(|m| m.features.window.max_events = 0, "at least one event");
    refuses(|m| m.data = vec![m.data[0].clone(); 5000], "at most 4096");
}

#[test]
fn a_release_reads_back_and_a_damaged_one_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("release");
    let manifest = example().sealed().unwrap();
    let other = release::publish(&folder, &manifest, b"other weights", Companions::default());
    assert!(matches!(other, Err(ArtifactError::HashMismatch { .. })));
    assert!(!folder.exists());

    let companions = Companions { card: Some("card"), evaluation: Some(b"{}"), ..Companions::default() };
    release::publish(&folder, &manifest, b"weights", companions).unwrap();
    let read = release::read(&folder).unwrap();
    assert_eq!((read.manifest, read.onnx.as_slice()), (manifest.clone(), b"weights".as_slice()));
    assert_eq!(std::fs::read(release::card_path(&folder)).unwrap(), b"card");
    assert_eq!(std::fs::read(release::evaluation_path(&folder)).unwrap(), b"{}");
    let again = release::publish(&folder, &manifest, b"weights", companions);
    assert!(matches!(again, Err(ArtifactError::Exists { .. })));

    bellwether_artifact::durable::write_bytes(release::onnx_path(&folder), b"weighty").unwrap();
    assert!(matches!(release::read(&folder), Err(ArtifactError::HashMismatch { .. })));
}

prop_compose! {
    fn golden(width: u32, actions: usize)(
        dense in prop::collection::vec(prop_oneof![Just(0.0_f32), 0.0_f32..=1.0], width as usize),
        mask in prop::collection::vec(any::<bool>(), actions),
        free in 0..actions,
        q_values in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO, actions),
    ) -> GoldenVector {
        let mut mask = mask;
        mask[free] = true;
        let best = q_values.iter().zip(&mask).filter(|(_, allowed)| **allowed).map(|(q, _)| *q).fold(f32::NEG_INFINITY, f32::max);
        let action = q_values.iter().zip(&mask).position(|(q, allowed)| *allowed && *q == best).unwrap() as u32;
        let state = GoldenVector::sparse_state(&dense);
        let golden = GoldenVector { state, mask, q_values, action };
        assert_eq!(golden.dense_state(dense.len()), dense);
        golden
    }
}

prop_compose! {
    fn manifests()(width in 1_u32..40, actions in 1_usize..6)(
        golden in prop::collection::vec(golden(width, actions), 0..4),
        hidden in prop::collection::vec(1_u32..1000, 0..3),
        names in prop::collection::vec(any::<String>(), actions),
        metrics in prop::collection::btree_map(any::<String>(), (prop::option::of(-1e300_f64..1e300), prop::option::of((-1e9_f64..0.0, 0.0_f64..1e9))), 0..4),
        points in prop::collection::btree_map(1_u32..1000, prop::option::of(0.0_f64..=1.0), 0..5),
        data in prop::collection::vec((any::<String>(), any::<[u8; 32]>(), any::<u64>()), 0..3),
        training in prop::collection::hash_map(any::<String>(), prop::option::of(-1e30_f64..1e30), 0..6),
        revision in prop::option::of(any::<String>()),
        modified in prop::option::of(any::<bool>()),
        bytes in any::<u64>(),
        width in Just(width),
    ) -> ModelManifest {
        let mut manifest = example();
        manifest.onnx.bytes = bytes;
        manifest.widths = [vec![width], hidden, vec![names.len() as u32]].concat();
        manifest.features.width = width;
        manifest.actions.names = names;
        manifest.golden = golden;
        manifest.metrics = metrics.into_iter()
            .map(|(name, (value, ci95))| (name, Metric { value, ci95: ci95.map(|(low, high)| [low, high]) }))
            .collect();
        manifest.operating_points = points.into_iter()
            .map(|(target, rate)| OperatingPoint {
                target_fpr: f64::from(target) / 1000.0,
                cost: 1.0 / (target as f32 + 1.0),
                calibration_fpr: rate,
                calibration_tpr: rate,
            })
            .collect();
        manifest.data = data.into_iter()
            .map(|(name, hash, count)| DataFingerprint { role: name.clone(), name, sha256: Sha256::from_bytes(hash), episodes: count, events: count })
            .collect();
        manifest.training = json!(training);
        manifest.source = SourceRevision { package: "0.1.0".into(), revision, modified };
        manifest
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back_whole(manifest in manifests()) {
        let sealed = manifest.sealed().unwrap();
        let text = sealed.to_json().unwrap();
        let read = ModelManifest::from_json(text.as_bytes()).unwrap();
        prop_assert_eq!(&read, &sealed);
        prop_assert_eq!(read.to_json().unwrap(), text);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(ModelManifest::from_json(&bytes).is_err());
    }

    #[test]
    fn a_flipped_byte_never_panics_and_never_passes_unseen(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let sealed = example().sealed().unwrap();
        let mut bytes = sealed.to_json().unwrap().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(read) = ModelManifest::from_json(&bytes) {
            prop_assert_eq!(read, sealed);
        }
    }
}
