//! What operators see: metrics, and the log of decisions.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_inference::serve::proto::policy::DecideRequest;
use bellwether_inference::serve::{
    DecisionLogConfig, DecisionLogError, LogFileError, Rotation, ServeConfig, ServeError, Server, ServiceLog,
    ServiceLogConfig,
};
use prometheus_parse::{Scrape, Value};
use tonic::Code;

use crate::nets::state_for;
use crate::released::{Releases, patient};
use crate::started::{WIDTH, client, config, network, policy, start};

/// Waits for what is counted only after the client has its answer.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what} never came true");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The number in the one row that has all these labels, or 0 where there is none.
pub(crate) fn number(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let page = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
    let has = |sample: &&prometheus_parse::Sample| {
        sample.metric == name && labels.iter().all(|(label, value)| sample.labels.get(label) == Some(*value))
    };
    let found: Vec<_> = page.samples.iter().filter(has).collect();
    assert!(found.len() <= 1, "{name} {labels:?}: {found:?}");
    found.first().map_or(0.0, |sample| match &sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => *value,
        Value::Histogram(buckets) => buckets.last().unwrap().count,
        other => panic!("{name}: {other:?}"),
    })
}

#[tokio::test]
async fn what_was_asked_is_counted_timed_and_logged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decisions.jsonl");
    let server = start(|config| config.decisions = Some(DecisionLogConfig::new(&path)));
    let mut client = client(&server).await;
    for episode in 0..30 {
        let state = state_for(&network(1), episode);
        let request = DecideRequest { state, episode: Some(episode), ..DecideRequest::default() };
        client.decide(request).await.unwrap();
    }
    for _ in 0..7 {
        let refused = client.decide(DecideRequest { state: vec![f32::NAN; WIDTH], ..DecideRequest::default() }).await;
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    }
    let method = [("protocol", "grpc"), ("method", "/bellwether.policy.v1.PolicyService/Decide")];
    let counted = |code| {
        let labels = [method[0], method[1], ("code", code)];
        number(&server.metrics().render(), "bellwether_requests_total", &labels)
    };
    eventually("the count of refusals", || counted("INVALID_ARGUMENT") == 7.0);
    assert_eq!(counted("OK"), 30.0);
    let text = server.metrics().render();
    assert_eq!(number(&text, "bellwether_request_duration_seconds", &method), 37.0);
    assert_eq!(number(&text, "bellwether_decision_refusals_total", &[("reason", "non_finite_state")]), 7.0);
    assert_eq!(number(&text, "bellwether_in_flight", &[("what", "connections")]), 1.0);
    assert_eq!(number(&text, "bellwether_in_flight_limit", &[("what", "requests")]), 1024.0);
    drop(client);
    drop(server);
    let lines = fs::read_to_string(&path).unwrap();
    let episodes = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let numbers: Vec<u64> = episodes.map(|line| line["episode_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..30).collect::<Vec<_>>());
}

#[test]
fn releases_that_were_swapped_in_and_refused_are_counted_with_the_reason() {
    let releases = Releases::new();
    let policy = releases.policy();
    let watcher = releases.watch(&policy, patient());
    releases.add(2, &network(2));
    assert_eq!(watcher.check_now().serving.number, Some(2));
    releases.add(3, &network(3));
    fs::copy(releases.folder(2).join("model.onnx"), releases.folder(3).join("model.onnx")).unwrap();
    assert_eq!(watcher.check_now().serving.number, Some(2));
    let server = Server::start(config(), policy, "policy", Some(watcher)).unwrap();
    let text = server.metrics().render();
    let reloads =
        |result, reason| number(&text, "bellwether_model_reloads_total", &[("result", result), ("reason", reason)]);
    assert_eq!((reloads("swapped", "none"), reloads("refused", "network_hash")), (1.0, 1.0));
    assert_eq!(number(&text, "bellwether_watcher_alive", &[]), 1.0);
    assert_eq!(number(&text, "bellwether_watch_memory_unwritten", &[]), 0.0);
    assert_eq!(number(&text, "bellwether_shadow_states_total", &[("swap", "before")]), 0.0);
    assert_eq!(number(&text, "bellwether_model_info", &[("role", "champion"), ("model_number", "2")]), 1.0);
}

#[test]
fn a_log_that_cannot_be_written_keeps_the_server_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let config = |log| ServeConfig { decisions: Some(log), ..config() };
    let missing = DecisionLogConfig::new(folder.path().join("missing/decisions.jsonl"));
    let refused = Server::start(config(missing), policy(1), "policy", None).unwrap_err();
    assert!(matches!(refused, ServeError::DecisionLog(DecisionLogError::File(LogFileError::Open { .. }))));
    let none = DecisionLogConfig { queue: 0, ..DecisionLogConfig::new(folder.path().join("decisions.jsonl")) };
    let refused = config(none).validate().unwrap_err();
    assert!(matches!(refused, ServeError::Config { key: "decisions.queue", .. }));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Names of metrics in a text, without the endings that a histogram adds.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !word(c));
    let metrics = words.filter(|word| word.starts_with("bellwether_") || word.starts_with("process_"));
    let endings = ["_bucket", "_count", "_sum"];
    let plain = |name: &str| endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name).to_owned();
    metrics.map(plain).collect()
}

#[test]
fn dashboards_alerts_and_the_manual_name_metrics_that_exist() {
    let folder = tempfile::tempdir().unwrap();
    let releases = Releases::new();
    let policy = releases.policy();
    let watcher = releases.watch(&policy, patient());
    let log = DecisionLogConfig::new(folder.path().join("decisions.jsonl"));
    let config = ServeConfig { decisions: Some(log), ..config() };
    let server = Server::start(config, policy, "policy", Some(watcher)).unwrap();
    let path = folder.path().join("service.jsonl");
    let service_log = ServiceLogConfig { path, rotation: Rotation::default() };
    let service_log = ServiceLog::start(&service_log, |complaint| panic!("{complaint}")).unwrap();
    service_log.append(b"a line\n");
    assert!(service_log.finish(Duration::from_secs(60)));
    server.tell_of(Arc::new(service_log));
    let text = server.metrics().render();
    assert!(text.contains("bellwether_service_log_total{fate=\"written\"} 1\n"), "{text}");
    let told = text.lines().filter_map(|line| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        Some(if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
    });
    let told: BTreeSet<String> = told.collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manual = named(&fs::read_to_string(root.join("docs/serving.md")).unwrap());
    assert_eq!(manual, told, "docs/serving.md has a row for every metric, and for no other");
    for file in ["deploy/grafana/bellwether.json", "deploy/prometheus/alerts.yml"] {
        let used = named(&fs::read_to_string(root.join(file)).unwrap());
        let unknown: Vec<_> = used.difference(&told).collect();
        assert!(unknown.is_empty() && !used.is_empty(), "{file}: {unknown:?}");
    }
}
