//! `record`: what programs do, as telemetry that the other verbs take.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail loudly, and say what they skip")]
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

mod program;

use std::convert::Infallible;
use std::fs::File;
use std::path::Path;

use bellwether_env_adapter::ingest::TelemetryReader;
use bellwether_env_adapter::{EpisodeAttributes, Event, EventSink, Label};
use program::{Ran, bellwether, keeps_schema};
use serde_json::json;

/// Stage, name and path of an event.
type What = (u8, String, String);

/// Episodes with their events.
#[derive(Default)]
struct Seen(Vec<(EpisodeAttributes, Vec<What>)>);

impl EventSink for Seen {
    type Error = Infallible;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), Infallible> {
        self.0.push((attributes.clone(), Vec::new()));
        Ok(())
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Infallible> {
        assert_eq!(event.isolation, Some(0));
        assert_eq!(event.time_ns.unwrap() % 1_000, 0);
        let what = (event.stage, event.name.to_owned(), event.path.unwrap_or_default().to_owned());
        self.0.last_mut().unwrap().1.push(what);
        Ok(())
    }

    fn end(&mut self, complete: bool) -> Result<(), Infallible> {
        self.0.last_mut().unwrap().0.complete = complete;
        Ok(())
    }
}

fn episodes(file: &Path) -> Seen {
    let mut seen = Seen::default();
    TelemetryReader::new(File::open(file).unwrap()).unwrap().read(&mut seen).unwrap();
    seen
}

/// Runs `record`; nothing, and why on standard error, where this machine cannot cage.
fn record(test: &str, at: &Path, arguments: &[&str]) -> Option<Ran> {
    let ran = bellwether(at, &[&["--json", "record", "--out", "recorded.parquet"], arguments].concat());
    if ran.stderr.contains("this host cannot record") {
        // What is missing is told in the words of `doctor`.
        assert!(ran.code == Some(1) && ran.stderr.contains("missing: "), "{}", ran.stderr);
        eprintln!("skipped {test}: {}", ran.stderr);
        return None;
    }
    Some(ran)
}

#[test]
fn a_list_becomes_episodes_in_its_order_with_labels_and_stages() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("reads.sh"), "#!/bin/sh\ncat \"$HOME/work/beside.txt\" $1\n").unwrap();
    std::fs::write(at.join("fails.sh"), "#!/bin/sh\nexit 3\n").unwrap();
    std::fs::write(at.join("endless.sh"), "#!/bin/sh\nwhile true; do cat /etc/passwd > /dev/null; done\n").unwrap();
    std::fs::write(at.join("text"), "a line\n").unwrap();
    let entry = |id: &str, file: &str| json!({ "episode_id": id, "file": file });
    let mut first = entry("first", "reads.sh");
    first["label"] = json!("benign");
    first["family"] = json!("readers");
    first["name"] = json!("tool.sh");
    first["beside"] = json!({ "beside.txt": "text" });
    first["arguments"] = json!(["/etc/hostname"]);
    let mut second = entry("second", "endless.sh");
    second["label"] = json!("malicious");
    second["stage"] = json!(2);
    let lines: Vec<String> = [first, second, entry("third", "fails.sh")].iter().map(ToString::to_string).collect();
    std::fs::write(at.join("list.jsonl"), lines.join("\n")).unwrap();
    let arguments = ["--list", "list.jsonl", "--time", "20", "20", "--most-events", "400"];
    let Some(ran) = record("a_list_becomes_episodes", at, &arguments) else { return };
    let report = ran.expect(0).json();
    keeps_schema("record-report.schema.json", &report);
    assert_eq!(report["left_out"], json!([]));
    assert_eq!((&report["episodes"], &report["incomplete"]), (&json!(3), &json!(1)));
    let seen = episodes(&at.join("recorded.parquet")).0;
    let names: Vec<&str> = seen.iter().map(|(attributes, _)| attributes.episode_id.0.as_str()).collect();
    assert_eq!(names, ["first", "second", "third"]);
    let (attributes, events) = &seen[0];
    assert_eq!((attributes.label, attributes.family.as_deref()), (Some(Label::Benign), Some("readers")));
    assert!(attributes.complete && attributes.sample_sha256.as_ref().unwrap().len() == 64);
    for (stage, work) in [(1, "/home/user/work"), (2, "/home/anna/work")] {
        let of_stage: Vec<_> = events.iter().filter(|event| event.0 == stage).collect();
        assert_eq!((of_stage[0].1.as_str(), of_stage[0].2.clone()), ("execve", format!("{work}/tool.sh")));
        for path in [format!("{work}/beside.txt"), "/etc/hostname".to_owned()] {
            assert!(of_stage.iter().any(|event| event.1 == "openat" && event.2 == path), "{path}: {of_stage:?}");
        }
    }
    let (attributes, events) = &seen[1];
    assert_eq!((attributes.label, attributes.complete, events.len()), (Some(Label::Malicious), false, 400));
    assert!(events.iter().all(|event| event.0 == 2));
    assert!(bellwether(at, &["validate", "recorded.parquet"]).code.is_some_and(|code| code != 64));
    let ran = record("a_list_becomes_episodes", at, &[&arguments[..], &["--only-successful"]].concat()).unwrap();
    let report = ran.expect(2).json();
    assert_eq!(report["episodes"], json!(2));
    assert_eq!(report["left_out"][0]["episode_id"], json!("third"));
    assert!(report["left_out"][0]["why"].as_str().unwrap().starts_with("stage 1: it ended with status 3"));
}

#[test]
fn one_program_is_recorded_with_its_arguments() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let arguments = ["--label", "benign", "--family", "looks", "--stage", "1", "/bin/ls", "--", "-l", "/etc"];
    let Some(ran) = record("one_program_is_recorded", at, &arguments) else { return };
    assert_eq!(ran.expect(0).json()["incomplete"], json!(0));
    let seen = episodes(&at.join("recorded.parquet")).0;
    assert_eq!(seen[0].0.family.as_deref(), Some("looks"));
    assert!(seen[0].1.iter().any(|event| event.1 == "getdents64" && event.2 == "/etc"), "{:?}", seen[0].1);
}

#[test]
fn a_list_that_cannot_be_is_refused_with_its_line_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("tool"), "").unwrap();
    for (line, why) in [
        (r#"{"episode_id": "a", "file": "tool", "colour": 1}"#, "list.jsonl line 2: unknown field `colour`"),
        (r#"{"episode_id": "a", "file": "tool", "stage": 3}"#, "list.jsonl line 2: there is no stage 3"),
        (r#"{"episode_id": "a", "file": "tool", "beside": {"../x": "tool"}}"#, "give a name without a slash"),
        (r#"{"episode_id": "first", "file": "tool"}"#, "the episode \"first\" is listed twice"),
    ] {
        std::fs::write(at.join("list.jsonl"), format!("{{\"episode_id\": \"first\", \"file\": \"tool\"}}\n{line}\n"))
            .unwrap();
        let ran = bellwether(at, &["record", "--list", "list.jsonl", "--out", "recorded.parquet"]);
        let ran = ran.expect(64);
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
        assert!(!at.join("recorded.parquet").exists());
    }
}
