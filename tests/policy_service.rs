//! Decisions by a policy service from outside: a real one that is killed, stalls and comes back while files run.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail loudly, and say what they skip")]
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

mod models;
mod program;
mod running;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use models::patient;
use program::{bellwether, command, files, keeps_schema};
use running::{Running, can_run, drop_in, processes, scrape, there, until};
use serde_json::Value;

fn serve(folder: &Path, model: &str) -> Running {
    let arguments = ["serve", "--no-grpc", "--unix", "policy.sock", "--models", model];
    Running::start(folder, "serve-listening.schema.json", &arguments).0
}

/// Lines of a program as they come.
fn lines(running: &mut Running) -> Receiver<String> {
    let (told, lines) = mpsc::channel();
    let out = BufReader::new(running.0.stdout.take().unwrap());
    thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| told.send(line)));
    lines
}

/// Waits for a line that says something.
#[track_caller]
fn said(lines: &Receiver<String>, what: &str, says: impl Fn(&str) -> bool) {
    loop {
        match lines.recv_timeout(Duration::from_secs(60)) {
            Ok(line) if says(&line) => return,
            Ok(_) => {}
            Err(error) => panic!("{what} was never said: {error}"),
        }
    }
}

#[test]
fn a_service_that_is_killed_or_stalls_is_replaced_by_the_safe_rule_until_it_is_back() {
    let test = "a_service_that_is_killed_or_stalls_is_replaced_by_the_safe_rule_until_it_is_back";
    if !can_run(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = patient(folder.path());
    let service = serve(folder.path(), &model);
    // It looks for what is not there again and again, and starts no process for that.
    let script = "#!/bin/sh\nexec tail -F -s 0.02 ---disable-inotify nothing-7531.2204\n";
    std::fs::write(folder.path().join("sample"), script).unwrap();
    let address = format!("unix:{}", folder.path().join("policy.sock").display());
    let arguments = ["detonate", "sample", "--policy-service", &address, "--one-stage", "--time", "600", "600"];
    let arguments = [&arguments[..], &["--decide-within", "1000"]].concat();
    let mut detonating = Running(command(folder.path(), &arguments).spawn().unwrap());
    let lines = lines(&mut detonating);
    let by_the_policy = |line: &str| line.contains("  continue  ") && !line.contains("by the safe rule");
    for _ in 0..3 {
        said(&lines, "a decision by the policy", by_the_policy);
    }
    service.signal("-KILL");
    drop(service);
    said(&lines, "a decision by the safe rule", |line| line.ends_with("by the safe rule: nobody answers"));
    let service = serve(folder.path(), &model);
    said(&lines, "a decision by the policy that is back", by_the_policy);
    service.signal("-STOP");
    said(&lines, "a decision that came too late", |line| line.ends_with("by the safe rule: no answer within 1000 ms"));
    service.signal("-CONT");
    said(&lines, "a decision by the policy that goes on", by_the_policy);
    // The sample ends, and a verdict falls.
    let [sample] = &processes("nothing-7531.2204")[..] else { panic!("there is one sample") };
    assert!(Command::new("kill").args(["-KILL", sample]).status().unwrap().success());
    said(&lines, "a verdict", |line| line.starts_with("verdict   release in stage 1"));
    assert_eq!(detonating.end(), Some(0));
    let report = files(&folder.path().join("episodes")).into_iter().find(|path| path.ends_with("episode.json"));
    let report = std::fs::read(folder.path().join("episodes").join(report.unwrap())).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    keeps_schema("detonation-report.schema.json", &report);
    let decisions = report["decisions"].as_array().unwrap();
    let safe = decisions.iter().filter(|decision| decision["safe_rule"].is_string()).count();
    assert!(safe >= 2 && report["safe_rule"] == safe, "{safe}");
    assert!(decisions.iter().all(|decision| decision["q_values"].is_null() == decision["safe_rule"].is_string()));
    assert_eq!((&report["partial"], &report["verdict"]), (&Value::Array(Vec::new()), &Value::from("release")));
    service.signal("-TERM");
    assert_eq!(service.end(), Some(0));
}

#[test]
fn a_loop_begins_nothing_while_its_service_is_away() {
    let test = "a_loop_begins_nothing_while_its_service_is_away";
    if !can_run(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = patient(folder.path());
    let service = serve(folder.path(), &model);
    let (root, home) = (folder.path().join("site"), folder.path().join("loop"));
    std::fs::create_dir(&home).unwrap();
    let address = format!("unix:{}", folder.path().join("policy.sock").display());
    let arguments = ["loop", root.to_str().unwrap(), "--policy-service", &address, "--one-stage"];
    // Within a second on a busy machine, so that no window is late.
    let arguments = [&arguments[..], &["--decide-within", "5000", "--metrics", "127.0.0.1:0"]].concat();
    let (running, told) = Running::start(&home, "loop-working.schema.json", &arguments);
    assert!(told["model_version"].is_string());
    let quiet = "#!/bin/sh\necho hello > note\nexit 0\n";
    drop_in(&root, "first", quiet);
    until("a verdict", || there(&root, "released") == ["first"]);
    service.signal("-KILL");
    drop(service);
    let log = || std::fs::read_to_string(home.join("log.jsonl")).unwrap();
    until("word that the service is away", || log().contains("the policy service does not answer"));
    until("a number that says so", || scrape(&told).contains("bellwether_loop_policy_answers 0\n"));
    drop_in(&root, "second", quiet);
    until("a file that was taken", || there(&root, "work").iter().any(|path| path.ends_with("second")));
    let service = serve(folder.path(), &model);
    until("a verdict when it is back", || there(&root, "released") == ["first", "second"]);
    assert!(log().contains("the policy service answers again"));
    let numbers = scrape(&told);
    assert!(numbers.contains("bellwether_loop_policy_answers 1\n"), "{numbers}");
    assert!(numbers.contains("bellwether_loop_safe_rule_total 0\n"), "{numbers}");
    running.signal("-TERM");
    assert_eq!(running.end(), Some(0));
    for path in files(&root.join("episodes")).iter().filter(|path| path.ends_with("episode.json")) {
        let report = std::fs::read(root.join("episodes").join(path)).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        assert_eq!(report["safe_rule"], 0, "nothing was decided without the policy");
    }
    drop(service);
}

#[test]
fn wrong_usage_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sample"), "#!/bin/sh\n").unwrap();
    let cases: [(&[&str], &[&str]); 7] = [
        (&["detonate", "sample"], &["--policy-service", "--model"]),
        (&["detonate", "sample", "--model", "m", "--policy-service", "unix:s"], &["cannot be used with"]),
        (&["detonate", "sample", "--policy-service", "http://10.0.0.7:50051"], &["http://127.0.0.1:PORT"]),
        (&["detonate", "sample", "--policy-service", "https://x:1"], &["over TLS"]),
        (&["detonate", "sample", "--policy-service", "unix:s", "--engine", "native"], &["--engine"]),
        (&["loop", "site", "--models", "m", "--policy-service", "unix:s"], &["the service chooses the model"]),
        (&["loop", "site", "--policy-service", "unix:s", "--policy-token", "absent"], &["absent"]),
    ];
    for (arguments, parts) in cases {
        bellwether(folder.path(), arguments).complains(64, parts);
    }
    assert_eq!(files(folder.path()), ["sample"]);
}
