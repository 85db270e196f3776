//! `sandbox serve` and `loop` from outside: files run elsewhere, come and go through folders, and outlive whoever is killed.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail loudly, and say what they skip")]
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

mod models;
mod program;
mod running;

use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use models::{patient, stern};
use program::{bellwether, command, files, keeps_schema};
use running::{Running, alive, can_run, drop_in, model, scrape, there, until};
use serde_json::Value;

/// A script that sleeps, with a number that its processes are known by.
fn sleeper(seconds: &str) -> String {
    format!("#!/bin/sh\nsleep {seconds}\n")
}

#[test]
fn a_file_runs_at_stages_that_are_served_elsewhere() {
    let test = "a_file_runs_at_stages_that_are_served_elsewhere";
    if !can_run(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let stages = ["1", "2"].map(|stage| {
        let home = folder.path().join(stage);
        std::fs::create_dir(&home).unwrap();
        let listen = format!("unix:{}", home.join("stage.sock").display());
        let arguments = ["sandbox", "serve", "--stage", stage, "--listen", &listen, "--log-file", "stage.jsonl"];
        let (running, told) = Running::start(&home, "stage-listening.schema.json", &arguments);
        assert_eq!(told["stage"].as_u64().unwrap().to_string(), stage);
        (running, listen)
    });
    std::fs::write(folder.path().join("sample"), "#!/bin/sh\necho hello > note\nexit 0\n").unwrap();
    let (model, [(one, first), (two, second)]) = (patient(folder.path()), stages);
    let elsewhere = ["--json", "--stage-1", &first, "--stage-2", &second];
    let ran = bellwether(
        folder.path(),
        &[&["detonate", "sample", "--model", &model, "--out", "there"], &elsewhere[..]].concat(),
    );
    let there = ran.json();
    keeps_schema("detonation-report.schema.json", &there);
    assert_eq!(there["partial"], Value::Array(Vec::new()));
    assert_eq!((&there["verdict"], &there["stage"]), (&"release".into(), &2.into()), "{there:#}");
    assert!(there["outcome"].as_array().unwrap().iter().all(|run| run["dead"].is_string()));
    // One process stands for another stage than asked for: it refuses.
    let swapped = ["--json", "--stage-1", &second, "--stage-2", &first];
    let ran = bellwether(folder.path(), &[&["detonate", "sample", "--model", &model], &swapped[..]].concat());
    ran.complains(1, &["stage 1", "stage 2"]);
    // Questions may not stand open for longer than a stage allows.
    let arguments = ["detonate", "sample", "--model", &model, "--decide-within", "900", "--stage-round-trip", "101"];
    let ran = bellwether(folder.path(), &[&arguments[..], &elsewhere[..]].concat());
    ran.complains(1, &["1001 ms", "--stage-round-trip", "--answer-within"]);
    for (running, signal) in [(one, "-TERM"), (two, "-INT")] {
        running.signal(signal);
        assert_eq!(running.end(), Some(0));
    }
    assert!(!folder.path().join("1/stage.sock").exists());
    let [file, stderr] =
        ["1/stage.jsonl", "1/log.jsonl"].map(|log| std::fs::read_to_string(folder.path().join(log)).unwrap());
    assert!(file.contains("\"listening\"") && stderr.is_empty(), "{file}\n{stderr}");
}

#[test]
fn a_stage_that_is_killed_takes_its_samples_with_it_and_the_episode_says_so() {
    let test = "a_stage_that_is_killed_takes_its_samples_with_it_and_the_episode_says_so";
    if !can_run(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("unix:{}", folder.path().join("stage.sock").display());
    let arguments = ["sandbox", "serve", "--stage", "1", "--listen", &listen];
    let (stage, _) = Running::start(folder.path(), "stage-listening.schema.json", &arguments);
    std::fs::write(folder.path().join("sample"), sleeper("7531.4187")).unwrap();
    let model = patient(folder.path());
    let arguments = [
        "--json",
        "detonate",
        "sample",
        "--model",
        &model,
        "--one-stage",
        "--time",
        "600",
        "600",
        "--stage-1",
        &listen,
    ];
    let mut detonating = Running(command(folder.path(), &arguments).spawn().unwrap());
    until("a sample that runs", || alive("7531.4187") > 0);
    stage.signal("-KILL");
    until("the end of the sample", || alive("7531.4187") == 0);
    let mut text = String::new();
    detonating.0.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((detonating.end(), &report["verdict"]), (Some(1), &Value::Null));
    assert!(report["partial"].as_array().is_some_and(|partial| !partial.is_empty()));
    assert!(report["telemetry"].is_string(), "what had happened is kept");
}

#[test]
fn files_go_where_their_verdict_sends_them() {
    let test = "files_go_where_their_verdict_sends_them";
    if !can_run(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("site");
    for number in 0..5 {
        drop_in(&root, &format!("quiet{number}"), "#!/bin/sh\necho hello > note\nexit 0\n");
    }
    let model = patient(folder.path());
    let site = root.to_str().unwrap();
    let arguments = ["loop", site, "--models", &model, "--metrics", "127.0.0.1:0", "--episodes", "2", "--queue", "1"];
    let log = folder.path().join("site.jsonl");
    let more = ["--label", "benign", "--seed", "7", "--marked-home", "--log-file", log.to_str().unwrap()];
    let arguments = [&arguments[..], &more].concat();
    let (running, told) = Running::start(folder.path(), "loop-working.schema.json", &arguments);
    drop_in(&root, "data", "neither a program nor a script");
    // A second loop finds the folder taken.
    bellwether(folder.path(), &["loop", site, "--models", &model]).complains(64, &["another loop"]);
    let released = || there(&root, "released") == ["quiet0", "quiet1", "quiet2", "quiet3", "quiet4"];
    until("all verdicts", || released() && there(&root, "undecided") == ["data"]);
    assert!(there(&root, "terminated").is_empty());
    until("an idle loop", || scrape(&told).contains("bellwether_loop_running 0\n"));
    let text = scrape(&told);
    assert!(text.contains("bellwether_loop_policy_answers 1\n"));
    assert!(text.contains("bellwether_loop_taken_total 6\n") && text.contains("bellwether_loop_undecided_total 1\n"));
    assert!(text.contains("bellwether_loop_released_total 5\n"), "{text}");
    running.signal("-TERM");
    assert_eq!(running.end(), Some(0));
    let reports = files(&root.join("episodes"));
    assert_eq!(reports.iter().filter(|path| path.ends_with("episode.json")).count(), 6);
    assert!(there(&root, "inbox").is_empty() && there(&root, "work").is_empty());
    let log = std::fs::read_to_string(log).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = |what: &str| lines.iter().filter(|line| line["fields"]["message"] == what).count();
    assert_eq!((said("an episode is over"), said("settled")), (6, 6));
}

/// A disk of 64 MiB, as long as this lives.
struct Disk<'a>(&'a Path);

impl Disk<'_> {
    fn mount<'a>(test: &str, folder: &'a Path) -> Option<Disk<'a>> {
        match Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "small"]).arg(folder).output() {
            Ok(done) if done.status.success() => Some(Disk(folder)),
            failed => {
                eprintln!("skipped {test}: no disk can be mounted: {failed:?}");
                None
            }
        }
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn files_wait_in_the_inbox_while_the_disk_is_full() {
    let test = "files_wait_in_the_inbox_while_the_disk_is_full";
    if !can_run(test) {
        return;
    }
    let (folder, site) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(_disk) = Disk::mount(test, site.path()) else { return };
    let filler = site.path().join("filler");
    std::fs::write(&filler, vec![0; 48 << 20]).unwrap();
    for number in 0..3 {
        drop_in(site.path(), &format!("quiet{number}"), "#!/bin/sh\necho hello > note\nexit 0\n");
    }
    let model = patient(folder.path());
    let arguments =
        ["loop", site.path().to_str().unwrap(), "--models", &model, "--metrics", "127.0.0.1:0", "--marked-home"];
    let (running, told) = Running::start(folder.path(), "loop-working.schema.json", &arguments);
    until("no room", || scrape(&told).contains("bellwether_loop_no_room 1\n"));
    assert_eq!(there(site.path(), "inbox"), ["quiet0", "quiet1", "quiet2"]);
    std::fs::remove_file(&filler).unwrap();
    until("all verdicts", || there(site.path(), "released") == ["quiet0", "quiet1", "quiet2"]);
    assert!(there(site.path(), "undecided").is_empty());
    running.signal("-TERM");
    assert_eq!(running.end(), Some(0));
    let log = std::fs::read_to_string(folder.path().join("log.jsonl")).unwrap();
    assert!(
        log.contains("the disk is full: files stay in the inbox") && log.contains("the disk has room again"),
        "{log}"
    );
}

#[test]
fn convicted_files_go_into_the_vault_or_where_the_convicted_go() {
    let test = "convicted_files_go_into_the_vault_or_where_the_convicted_go";
    if !can_run(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (at, root) = (folder.path(), folder.path().join("site"));
    let model = stern(at);
    bellwether(at, &["vault", "init", "vault", "--key", "key"]).expect(0);
    let with = ["--vault", "vault", "--vault-key", "key"];
    for (name, vault, count) in [("first", &with[..], "quarantined"), ("second", &[], "terminated")] {
        drop_in(&root, name, "#!/bin/sh\nexit 0\n");
        let arguments = ["loop", root.to_str().unwrap(), "--models", &model, "--metrics", "127.0.0.1:0"];
        let (running, told) = Running::start(at, "loop-working.schema.json", &[&arguments[..], vault].concat());
        until("a verdict", || scrape(&told).contains(&format!("bellwether_loop_{count}_total 1\n")));
        running.signal("-TERM");
        assert_eq!(running.end(), Some(0));
    }
    assert_eq!(there(&root, "terminated"), ["second"]);
    for place in ["inbox", "work", "released", "undecided"] {
        assert!(there(&root, place).is_empty(), "{place}");
    }
    let listed = bellwether(at, &["vault", "--json", "list", "vault", "--key", "key"]).expect(0).json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let id = listed[0]["id"].as_str().unwrap();
    let reports = files(&root.join("episodes")).into_iter().filter(|path| path.ends_with("episode.json"));
    let reports = reports.map(|path| std::fs::read(root.join("episodes").join(path)).unwrap());
    let reports: Vec<Value> = reports.map(|text| serde_json::from_slice(&text).unwrap()).collect();
    let mut said: Vec<_> = reports.iter().map(|report| (report["quarantine"].as_str(), &report["partial"])).collect();
    said.sort_by_key(|(quarantine, _)| quarantine.is_some());
    let [(None, kept), (Some(put_away), whole)] = said[..] else { panic!("{reports:#?}") };
    assert_eq!(put_away, format!("in the vault as {id}; the file is removed"));
    assert_eq!(*whole, Value::Array(Vec::new()));
    assert!(kept[0].as_str().unwrap().contains("see --vault"), "{kept}");
}

/// Starts a loop and kills it while its sample sleeps for so long; the sample goes with it.
fn kill_a_loop(folder: &Path, arguments: &[&str], seconds: &str) {
    let (running, _) = Running::start(folder, "loop-working.schema.json", arguments);
    until("a sample that runs", || alive(seconds) > 0);
    running.signal("-KILL");
    drop(running);
    until("the end of the sample", || alive(seconds) == 0);
}

#[test]
fn a_loop_that_is_killed_leaves_no_sample_and_the_next_one_takes_its_files_up_again() {
    let test = "a_loop_that_is_killed_leaves_no_sample_and_the_next_one_takes_its_files_up_again";
    if !can_run(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("site");
    drop_in(&root, "sleeper", &sleeper("7531.6203"));
    let model = patient(folder.path());
    let site = root.to_str().unwrap();
    let long = ["loop", site, "--models", &model, "--one-stage", "--time", "600", "600"];
    kill_a_loop(folder.path(), &long, "7531.6203");
    let before = there(&root, "work");
    assert_eq!(before.len(), 1);
    let short = ["loop", site, "--models", &model, "--one-stage", "--time", "1", "1"];
    let (running, _) = Running::start(folder.path(), "loop-working.schema.json", &short);
    until("a verdict", || there(&root, "released") == ["sleeper"]);
    running.signal("-INT");
    assert_eq!(running.end(), Some(0));
    let episode = before[0].split('/').next().unwrap();
    let flagged = std::fs::read(root.join("episodes").join(episode).join("episode.json")).unwrap();
    let flagged: Value = serde_json::from_slice(&flagged).unwrap();
    keeps_schema("detonation-report.schema.json", &flagged);
    assert_eq!((&flagged["verdict"], flagged["partial"].as_array().unwrap().len()), (&Value::Null, 1));
    // What had happened when the loop was killed is kept.
    let kept = files(&root.join("episodes").join(episode));
    let names = ["episode.json", "ocsf.jsonl", "report.html", "report.json", "steps.parquet", "telemetry.parquet"];
    assert_eq!(kept, names);
    let telemetry = root.join("episodes").join(episode).join("telemetry.parquet");
    assert_eq!(flagged["telemetry"], telemetry.to_str().unwrap());
    let told = bellwether(folder.path(), &["--json", "validate", telemetry.to_str().unwrap()]).json();
    assert!(told["files"][0]["report"]["events"].as_u64().is_some_and(|events| events > 0), "{told:#}");
    assert!(there(&root, "work").is_empty());
}

#[test]
fn a_loop_that_is_killed_when_the_file_is_in_the_vault_already_leaves_an_episode_for_the_next_one() {
    let test = "a_loop_that_is_killed_when_the_file_is_in_the_vault_already_leaves_an_episode_for_the_next_one";
    if !can_run(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("site");
    drop_in(&root, "sleeper", &sleeper("7531.8305"));
    let model = patient(folder.path());
    let arguments = ["loop", root.to_str().unwrap(), "--models", &model, "--one-stage", "--time", "600", "600"];
    kill_a_loop(folder.path(), &arguments, "7531.8305");
    let [left] = &there(&root, "work")[..] else { panic!("one file is in work") };
    // As the vault does it, a moment before the kill.
    std::fs::remove_file(root.join("work").join(left)).unwrap();
    let (running, _) = Running::start(folder.path(), "loop-working.schema.json", &arguments);
    running.signal("-TERM");
    assert_eq!(running.end(), Some(0));
    let episode = root.join("episodes").join(left.split('/').next().unwrap());
    let flagged: Value = serde_json::from_slice(&std::fs::read(episode.join("episode.json")).unwrap()).unwrap();
    keeps_schema("detonation-report.schema.json", &flagged);
    assert!(flagged["partial"][0].as_str().unwrap().contains("was killed"), "{flagged:#}");
    assert!(files(&episode).iter().all(|name| !name.starts_with('.')), "the journal is gone");
    assert_eq!(std::fs::read_dir(root.join("work")).unwrap().count(), 0);
}

#[test]
fn a_second_signal_kills_what_runs_and_leaves_it_in_work() {
    let test = "a_second_signal_kills_what_runs_and_leaves_it_in_work";
    if !can_run(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("site");
    drop_in(&root, "sleeper", &sleeper("7531.9644"));
    let model = patient(folder.path());
    let site = root.to_str().unwrap();
    let arguments = ["loop", site, "--models", &model, "--one-stage", "--time", "600", "600"];
    let (running, _) = Running::start(folder.path(), "loop-working.schema.json", &arguments);
    until("a sample that runs", || alive("7531.9644") > 0);
    running.signal("-TERM");
    drop_in(&root, "late", "#!/bin/sh\nexit 0\n");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(alive("7531.9644"), 1, "the first signal lets it run on");
    running.signal("-TERM");
    assert_eq!(running.end(), Some(1));
    assert_eq!(alive("7531.9644"), 0);
    assert_eq!((there(&root, "work").len(), there(&root, "inbox")), (1, vec!["late".to_owned()]));
}

#[test]
fn wrong_usage_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let cases: [(&[&str], &[&str]); 11] = [
        (&["sandbox", "serve", "--stage", "3", "--listen", "unix:s"], &["--stage"]),
        (&["sandbox", "serve", "--stage", "1", "--listen", "127.0.0.1:0"], &["--client-ca"]),
        (&["sandbox", "serve", "--stage", "1", "--listen", "nowhere"], &["unix:PATH"]),
        (&["sandbox", "serve", "--stage", "1", "--listen", "unix:s", "--runs", "0"], &["runs"]),
        (&["sandbox", "serve", "--stage", "1", "--listen", "unix:s", "--lease", "0"], &["lease"]),
        (&["sandbox", "serve", "--stage", "1", "--listen", "unix:s", "--answer-within", "0"], &["answer_within"]),
        (&["sandbox", "serve", "--stage", "1", "--listen", "unix:s", "--connections", "0"], &["connections"]),
        (&["sandbox", "serve", "--stage", "1", "--listen", "unix:s", "--file-mib", "0"], &["specimen_bytes"]),
        (&["loop", "site", "--models", &model, "--stage-1", "http://x:1"], &["unix:PATH"]),
        (&["loop", "site", "--models", &model, "--stage-2", "https://x:1"], &["TLS"]),
        (&["loop", "site", "--models", &model, "--target-fpr", "0.3333"], &["0.3333"]),
    ];
    for (arguments, parts) in cases {
        bellwether(folder.path(), arguments).complains(64, parts);
    }
    assert_eq!(files(folder.path()), [""; 0]);
}
