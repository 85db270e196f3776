//! A model that only ONNX Runtime evaluates: `decide` takes it where the program was built with it, and says what is missing
//! elsewhere.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic; what is skipped is named")]

mod program;

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use bellwether_artifact::release::{self, Companions, Release};
use bellwether_artifact::{FORMAT_VERSION_WITH_GRAPH, Graph, OnnxFile, Sha256};
use program::{bellwether_with, command, keeps_schema};
use serde_json::Value;

/// The released model as a general graph: the same network, which says that it is for ONNX Runtime.
fn publish(folder: &Path) -> Release {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/quickstart");
    let Release { mut manifest, mut onnx } = release::read(&model).unwrap();
    // The entry of the format: its key, then its value of one byte.
    let entry = b"bellwether.format\x12\x011";
    let at = onnx.windows(entry.len()).position(|window| window == entry).unwrap();
    onnx[at + entry.len() - 1] = b'3';
    manifest.onnx = OnnxFile { sha256: Sha256::of(&onnx), bytes: onnx.len() as u64 };
    manifest.widths = vec![manifest.features.width, manifest.actions.names.len() as u32];
    (manifest.format_version, manifest.graph) = (FORMAT_VERSION_WITH_GRAPH, Some(Graph::General));
    let manifest = manifest.sealed().unwrap();
    release::publish(folder, &manifest, &onnx, Companions::default()).unwrap();
    Release { manifest, onnx }
}

#[test]
fn a_general_model_decides_where_the_program_has_onnx_runtime() {
    let root = tempfile::tempdir().unwrap();
    let at = root.path();
    let Release { manifest, .. } = publish(&at.join("model"));
    let lines = manifest.golden.iter().map(|g| serde_json::json!({ "state": g.state, "mask": g.mask }).to_string());
    let lines = lines.collect::<Vec<_>>().join("\n");
    let decide = ["decide", "--model", "model"];
    if !cfg!(feature = "ort") {
        bellwether_with(at, &decide, &lines).complains(1, &["feature `ort`"]);
        return;
    }
    let mut without = command(at, &decide);
    let without = without.env_remove("ORT_DYLIB_PATH").output().unwrap();
    let said = String::from_utf8(without.stderr).unwrap();
    assert!(without.status.code() == Some(1) && said.contains("pip install onnxruntime"), "{said}");
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        println!("skipped: ONNX Runtime: ORT_DYLIB_PATH does not name its library");
        return;
    }
    let mut child = command(at, &decide).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), manifest.golden.len());
    for (answer, golden) in answers.iter().zip(&manifest.golden) {
        keeps_schema("decision.schema.json", answer);
        assert_eq!(answer["action"], manifest.actions.names[golden.action as usize]);
        assert_eq!((&answer["certified"], &answer["bound"]), (&Value::from(false), &Value::from(0.0)));
        for (found, &expected) in answer["q_values"].as_array().unwrap().iter().zip(&golden.q_values) {
            assert!((found.as_f64().unwrap() - f64::from(expected)).abs() <= 1e-5 * f64::from(expected).abs().max(1.0));
        }
    }
}
