//! What operators do is in the service log, with who did it.
//!
//! A file of its own, because the log belongs to the process.
#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod manifests;
mod nets;
#[path = "serve/started.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod started;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use bellwether_inference::serve::proto::policy::admin_client::AdminClient;
use bellwether_inference::serve::proto::policy::{
    PinRequest, PromoteRequest, SetCanaryRequest, StatusRequest, UnpinRequest,
};
use serde_json::Value;
use started::{release, start, unix_channel};

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn calls_that_change_something_are_logged_with_who_asked_and_those_that_are_refused_too() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().json().with_writer(move || writer.clone()).init();
    let folder = tempfile::tempdir().unwrap();
    let server = start(|config| config.admin_unix = Some(folder.path().join("admin.sock")));
    let mut admin = AdminClient::new(unix_channel(server.endpoints().admin_unix.as_ref().unwrap()).await);
    admin.status(StatusRequest {}).await.unwrap();
    admin.pin(PinRequest {}).await.unwrap();
    let policy = &server.shared().policy;
    policy.try_out(release(2), Some(2), 0.5).unwrap();
    let canary = policy.status().canary.unwrap().0.version.to_string();
    admin.set_canary(SetCanaryRequest { share: 0.25 }).await.unwrap();
    admin.promote(PromoteRequest {}).await.unwrap_err();
    admin.unpin(UnpinRequest {}).await.unwrap();
    admin.promote(PromoteRequest {}).await.unwrap();

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lines: Vec<&Value> = lines.iter().filter(|line| line["fields"]["call"].is_string()).collect();
    let told: Vec<(&str, &Value, &Value)> = lines
        .iter()
        .map(|line| {
            let fields = &line["fields"];
            (fields["call"].as_str().unwrap(), &fields["model"], &fields["code"])
        })
        .collect();
    let (none, model, code) = (Value::Null, Value::from(canary), Value::from("FailedPrecondition"));
    let expected = [
        ("pin", &none, &none),
        ("set_canary", &model, &none),
        ("promote", &none, &code),
        ("unpin", &none, &none),
        ("promote", &model, &none),
    ];
    assert_eq!(told, expected, "{text}");
    // This process asked, as whoever runs the test.
    let process = format!("process {}", std::process::id());
    for line in lines {
        let by = line["fields"]["by"].as_str().unwrap();
        assert!(by.starts_with("user ") && by.ends_with(&process), "{by}");
        assert!(line["timestamp"].is_string());
    }
}
