//! `bellwether serve` from outside: what it says when it listens, how it ends, and that wrong usage touches nothing.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail loudly; what is skipped is named")]
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

mod full_disk;
#[path = "../program/mod.rs"]
mod program;
mod served;
mod stuck_disk;

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use program::{bellwether, bellwether_in, command, post};
use served::{Served, model};

#[test]
fn it_says_where_it_listens_and_ends_well_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    for signal in ["-TERM", "-INT"] {
        let arguments =
            ["--models", &model(), "--grpc", "127.0.0.1:0", "--unix", "serve.sock", "--admin", "unix:admin.sock"];
        let (served, told) = Served::start(folder.path(), &arguments);
        assert_eq!((&told["model_name"], &told["model_number"]), (&"quickstart".into(), &serde_json::Value::Null));
        let address: SocketAddr = told["endpoints"]["grpc"].as_str().unwrap().parse().unwrap();
        assert!(TcpStream::connect(address).is_ok());
        for socket in ["serve.sock", "admin.sock"] {
            assert!(UnixStream::connect(folder.path().join(socket)).is_ok());
        }
        assert_eq!(told["endpoints"]["unix"], "serve.sock");
        assert_eq!(served.stop(signal), Some(0));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let a_day = ["--models", &model(), "--grpc", "127.0.0.1:0", "--set", "times.leave_ms=86400000"];
    let (mut served, _) = Served::start(folder.path(), &a_day);
    served.tell("-TERM");
    // Again and again, since the first one may not be seen yet.
    let begun = std::time::Instant::now();
    let status = loop {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "it does not end");
        served.tell("-INT");
        if let Some(status) = served.child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_registry_is_served_by_its_name_or_a_number() {
    let folder = tempfile::tempdir().unwrap();
    let promote = ["release", "--registry", "releases", "promote", &model(), "--max-fpr", "1", "--min-tpr", "0"];
    bellwether(folder.path(), &promote).expect(0);
    for arguments in [&[][..], &["--number", "1"], &["--latest"]] {
        let (served, told) = Served::start(folder.path(), &[&["--grpc", "127.0.0.1:0"], arguments].concat());
        assert_eq!(told["model_number"], 1);
        assert_eq!(served.stop("-TERM"), Some(0));
    }
    bellwether(folder.path(), &["serve", "--name", "nobody"]).complains(1, &["there is no model to serve"]);
    bellwether(folder.path(), &["serve", "--models", &model(), "--latest"]).complains(64, &["is one model"]);
}

#[test]
fn a_server_that_was_killed_goes_on_where_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--models", &model(), "--grpc", "127.0.0.1:0", "--set", "watch.memory=watch.json"];
    let (served, told) = Served::start(folder.path(), &arguments);
    assert_eq!(served.stop("-KILL"), None);
    let path = folder.path().join("watch.json");
    let mut memory: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(memory["served"]["version"], told["model_version"]);
    let (served, again) = Served::start(folder.path(), &arguments);
    assert_eq!(again["model_version"], told["model_version"]);
    assert_eq!(served.stop("-TERM"), Some(0));
    // What was taken back is not served, and there is no other.
    memory["rolled_back"] = serde_json::json!([told["model_version"]]);
    memory["served"]["version"] = "0123456789abcdef".into();
    std::fs::write(&path, memory.to_string()).unwrap();
    bellwether(folder.path(), &[&["serve"], &arguments[..]].concat()).complains(1, &["rolled back", "release another"]);
    std::fs::write(&path, "{").unwrap();
    bellwether(folder.path(), &[&["serve"], &arguments[..]].concat()).complains(1, &["watch.json", "take it away"]);
}

#[test]
fn wrong_usage_is_told_before_anything_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let socket = ["--unix", "serve.sock"];
    // There is no such model, which nobody gets to see before the configuration is right.
    for (arguments, part) in [
        (&["--set", "limits.in_flight=0"][..], "limits.in_flight"),
        (&["--set", "limits.in_fligth=1"], "in_fligth"),
        (&["--grpc", "0.0.0.0:0"], "plaintext_beyond_loopback"),
        (&["--admin", "127.0.0.1:0"], "admin"),
        (&["--no-grpc", "--grpc", "127.0.0.1:0"], "cannot be used with"),
        (&["--latest", "--number", "1"], "cannot be used with"),
        (&["--set", "watch.poll_ms=0"], "watch.poll_ms"),
        (&["--set", "watch.shadow={ time_ms = 60000, min_agreement = 2 }"], "watch.shadow.min_agreement"),
        (&["--set", "watch.window.states=1"], "states"),
        (&["--config", "absent.toml"], "absent.toml"),
        (&["--trusted", "absent.pub"], "absent.pub"),
    ] {
        let all = [&["serve", "--models", "absent"], &socket[..], arguments].concat();
        bellwether(folder.path(), &all).complains(64, &[part]);
    }
    bellwether(folder.path(), &["serve", "--models", "absent", "--no-grpc"]).complains(64, &["no listener"]);
    bellwether(folder.path(), &["serve", "--models", "absent"]).complains(1, &["absent is no folder"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn variables_beat_the_file_and_flags_beat_both() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("serve.toml"), "threads = 2\ngrpc = \"127.0.0.1:0\"\n[limits]\nbatch = 0\n")
        .unwrap();
    let arguments = ["serve", "--models", "absent", "--config", "serve.toml"];
    bellwether(folder.path(), &arguments).complains(64, &["limits.batch"]);
    let variables = [("BELLWETHER_SERVE__LIMITS__BATCH", "8")];
    bellwether_in(folder.path(), &variables, &arguments).complains(1, &["absent is no folder"]);
    let flags = [&arguments[..], &["--set", "limits.batch=0"]].concat();
    bellwether_in(folder.path(), &variables, &flags).complains(64, &["limits.batch"]);
    // What configures training configures no server.
    bellwether_in(folder.path(), &[("BELLWETHER__SEED", "7"), variables[0]], &arguments).complains(1, &["absent"]);
}

#[test]
fn the_service_log_goes_to_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["--models", &model(), "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--set", "log.path=\"service.jsonl\""];
    let all = [&["--json", "--log-format", "json", "serve"], &arguments[..]].concat();
    let (served, told) = Served::run(command(folder.path(), &all).env("BELLWETHER_LOG", "info"));
    assert!(told["endpoints"]["http"].is_string());
    assert_eq!(served.stop("-TERM"), Some(0));
    let path = folder.path().join("service.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["level"] == "INFO" && line["fields"]["message"] == "listening"), "{text}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn spans_go_to_a_collector_where_the_program_can_send_them() {
    let folder = tempfile::tempdir().unwrap();
    if !cfg!(feature = "otel") {
        let arguments = ["serve", "--models", "absent", "--otlp", "http://127.0.0.1:4317"];
        bellwether(folder.path(), &arguments).complains(64, &["traces", "feature otel"]);
        return;
    }
    bellwether(folder.path(), &["serve", "--models", "absent", "--otlp", "nowhere"])
        .complains(64, &["traces.endpoint"]);
    let collector = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    // What comes is looked at in the tests of the server; here it is whether it comes.
    let greeting = std::thread::spawn(move || {
        let mut bytes = [0; 14];
        collector.accept().unwrap().0.read_exact(&mut bytes).unwrap();
        bytes
    });
    let model = model();
    let arguments = ["--models", &model, "--no-grpc", "--http", "127.0.0.1:0", "--otlp", &endpoint];
    let (served, told) = Served::start(folder.path(), &[&arguments[..], &["--set", "traces.ratio=1.0"]].concat());
    let address = told["endpoints"]["http"].as_str().unwrap();
    let state = serde_json::json!({ "name": "state", "datatype": "FP32", "shape": [1, 512], "data": vec![0.5; 512] });
    let (status, answer) = post(address, "/v2/models/quickstart/infer", &serde_json::json!({ "inputs": [state] }));
    assert_eq!((status, &answer["model_version"]), (200, &told["model_version"]));
    assert_eq!(served.stop("-TERM"), Some(0));
    assert_eq!(&greeting.join().unwrap(), b"PRI * HTTP/2.0");
}

#[test]
fn the_engine_that_is_asked_for_by_name_is_there_or_it_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let serve = |arguments: &[&str]| {
        let all = [&["serve", "--models", "absent", "--grpc", "127.0.0.1:0"], arguments].concat();
        bellwether(folder.path(), &all)
    };
    serve(&["--engine", "native"]).complains(1, &["absent is no folder"]);
    serve(&["--engine", "native", "--onnx-runtime", "lib.so"]).complains(64, &["leave out one of them"]);
    let missing = if cfg!(feature = "ort") { "pip install onnxruntime" } else { "feature `ort`" };
    serve(&["--engine", "ort", "--onnx-runtime", "absent.so"]).complains(64, &[missing]);
    serve(&["--onnx-runtime", "absent.so"]).complains(64, &[missing]);
    serve(&["--engine", "gpu"]).complains(64, &["possible values: native, ort"]);
}
