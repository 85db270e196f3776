//! Models of other graphs than a plain network: those that only ONNX Runtime evaluates, which `decide`, `serve` and `evaluate` take
//! where the program was built with it and refuse with what is missing elsewhere, and those with a dueling head.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic; what is skipped is named")]
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

mod program;
#[allow(dead_code, reason = "nothing is trained here")]
mod reduced;

use std::io::{BufRead as _, BufReader, Write};
use std::path::Path;
use std::process::{Child, Stdio};

use bellwether_artifact::release::{self, Companions, Release};
use bellwether_artifact::{FORMAT_VERSION_WITH_GRAPH, Graph, OnnxFile, Sha256};
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_env_adapter::window::WindowConfig;
use bellwether_inference::model::{Contract, Expectation, Linear, Mlp, encode, load};
use bellwether_inference::release::golden_vector;
use bellwether_inference::{Engine, Isa};
use program::{bellwether_with, command, keeps_schema, post};
use reduced::reduced;
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

#[test]
fn a_general_model_is_served_where_the_server_has_onnx_runtime() {
    if !cfg!(all(feature = "ort", feature = "serve")) {
        println!("skipped: a_general_model_is_served_where_the_server_has_onnx_runtime: not built with serve and ort");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let at = root.path();
    let Release { manifest, .. } = publish(&at.join("model"));
    let serve = ["--json", "serve", "--models", "model", "--no-grpc", "--http", "127.0.0.1:0"];
    let native = [&serve[..], &["--engine", "native"]].concat();
    bellwether_with(at, &native, "").complains(1, &["ONNX Runtime"]);
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        println!("skipped: ONNX Runtime: ORT_DYLIB_PATH does not name its library");
        return;
    }
    let mut served = Killed(command(at, &[&serve[..], &["--engine", "ort"]].concat()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(served.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    let address = told["endpoints"]["http"].as_str().unwrap();
    let width = manifest.features.width as usize;
    for golden in &manifest.golden {
        let tensor = |name: &str, datatype: &str, data: Value| {
            let shape = [1, data.as_array().unwrap().len()];
            serde_json::json!({ "name": name, "datatype": datatype, "shape": shape, "data": data })
        };
        let state = tensor("state", "FP32", golden.dense_state(width).into());
        let inputs = [state, tensor("action_mask", "BOOL", golden.mask.clone().into())];
        let path = format!("/v2/models/{}/infer", manifest.name);
        let (status, answer) = post(address, &path, &serde_json::json!({ "inputs": inputs }));
        assert_eq!((status, &answer["model_version"]), (200, &Value::from(manifest.version.to_string())), "{answer}");
        let outputs = answer["outputs"].as_array().unwrap();
        let output = |name: &str| &outputs.iter().find(|output| output["name"] == name).unwrap()["data"];
        assert_eq!(output("action")[0], golden.action);
        for (found, &expected) in output("q_values").as_array().unwrap().iter().zip(&golden.q_values) {
            assert!((found.as_f64().unwrap() - f64::from(expected)).abs() <= 1e-5 * f64::from(expected).abs().max(1.0));
        }
    }
}

#[test]
fn a_general_model_is_promoted_by_the_engine_that_is_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let at = root.path();
    publish(&at.join("model"));
    let release = |arguments: &[&str]| bellwether_with(at, &[&["release"], arguments].concat(), "");
    let promote =
        |engine: &[&str]| release(&[&["promote", "model", "--max-fpr", "1", "--min-tpr", "0"], engine].concat());
    promote(&["--engine", "native"]).complains(2, &["a gate was not met"]);
    if !cfg!(feature = "ort") {
        promote(&["--engine", "ort"]).complains(64, &["feature `ort`"]);
        return;
    }
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        println!("skipped: ONNX Runtime: ORT_DYLIB_PATH does not name its library");
        return;
    }
    promote(&["--engine", "ort"]).expect(0);
    release(&["verify"]).expect(0);
    release(&["verify", "--engine", "native"]).complains(2, &["problems"]);
}

/// The released model with a dueling head whose value is the same everywhere, so that the same actions are the best ones.
fn publish_dueling(folder: &Path) {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/quickstart");
    let Release { mut manifest, onnx } = release::read(&model).unwrap();
    let window = &manifest.features.window;
    let window = WindowConfig { max_events: window.max_events, max_ns: window.max_ns, max_windows: window.max_windows };
    let spec = FeatureSpec::v1(window);
    let contract = Contract::sandbox(spec.width(), Sha256::from_bytes(spec.hash()));
    let plain = load(&onnx, &Expectation::new(contract.clone())).unwrap();
    let inputs = plain.layers.last().unwrap().inputs;
    let value = Linear { inputs, outputs: 1, weights: vec![0.0; inputs], bias: vec![0.25] };
    let dueling = Mlp::dueling(plain.layers, value);
    let onnx = encode(&dueling, &contract).unwrap();
    let engine = Engine::new(&dueling, Isa::best()).unwrap();
    for vector in &mut manifest.golden {
        let state = vector.dense_state(engine.width());
        *vector = golden_vector(&engine, &mut engine.scratch(), &state, &vector.mask).unwrap();
    }
    manifest.onnx = OnnxFile { sha256: Sha256::of(&onnx), bytes: onnx.len() as u64 };
    (manifest.format_version, manifest.graph) = (FORMAT_VERSION_WITH_GRAPH, dueling.graph());
    release::publish(folder, &manifest.sealed().unwrap(), &onnx, Companions::default()).unwrap();
}

#[test]
fn models_of_every_graph_are_played_on_recordings() {
    let root = tempfile::tempdir().unwrap();
    let at = root.path();
    reduced(at);
    publish(&at.join("general"));
    publish_dueling(&at.join("dueling"));
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/quickstart");
    let evaluate = |model: &str| {
        let arguments = ["evaluate", "--json", "--model", model, "--data", "reduced.parquet", "--episodes"];
        let file = format!("{}.parquet", Path::new(model).file_name().unwrap().to_str().unwrap());
        bellwether_with(at, &[&arguments[..], &[&file]].concat(), "")
    };
    let plain = evaluate(shipped.to_str().unwrap()).expect(0).json();
    let check = |other: &Value| {
        keeps_schema("evaluation.schema.json", other);
        for key in ["episodes", "benign", "malicious"] {
            assert_eq!(other[key], plain[key], "{key}");
        }
        let points = |report: &Value| report["operating_points"].as_array().unwrap().clone();
        assert_eq!(points(other).len(), points(&plain).len());
        for (other, plain) in points(other).iter().zip(points(&plain)) {
            // Where two actions are all but equal, the last digits of the q-values may choose the other one.
            for key in ["mean_events", "mean_windows"] {
                let (other, plain) = (other[key].as_f64().unwrap(), plain[key].as_f64().unwrap());
                assert!((other - plain).abs() <= 0.02 * plain, "{key}: {other} and {plain}");
            }
            assert_eq!(other["tpr"].is_null(), plain["tpr"].is_null());
        }
    };
    check(&evaluate("dueling").expect(0).json());
    if !cfg!(feature = "ort") {
        evaluate("general").complains(1, &["feature `ort`"]);
    } else if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        println!("skipped: ONNX Runtime: ORT_DYLIB_PATH does not name its library");
    } else {
        check(&evaluate("general").expect(0).json());
    }
    let both = ["evaluate", "--cv", "2", "--data", "reduced.parquet", "--engine", "native"];
    bellwether_with(at, &both, "").complains(64, &["leave out --engine"]);
}

/// A program that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
