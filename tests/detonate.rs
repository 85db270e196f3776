//! `detonate` with programs of the corpus: compiled here as the recorder compiles them, decided on by the model that ships.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail loudly, and say what they skip")]
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

mod models;
mod program;
mod running;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use bellwether_artifact::audit::{self, AuditLog};
use bellwether_artifact::secret::{Purpose, Secrets};
use bellwether_env_adapter::ingest::TelemetryReader;
use bellwether_replay::episodes::{EpisodeReader, StepRow};
use models::{patient, stern};
use program::{Ran, bellwether, command, files, keeps_schema};
use running::{Running, alive, can_run, until};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn model() -> String {
    root().join("models/quickstart").to_str().unwrap().to_owned()
}

/// Harness, jobs and emulations as one source, in the order of their names.
fn joined() -> Vec<u8> {
    let folder = root().join("corpus/programs");
    let mut paths = vec![folder.join("harness/harness.c"), folder.join("harness/intruder.c")];
    for class in ["benign", "emulations"] {
        let entries = std::fs::read_dir(folder.join(class)).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "c")).collect();
        found.sort();
        paths.extend(found);
    }
    paths.push(folder.join("harness/end.c"));
    paths.iter().flat_map(|path| [std::fs::read(path).unwrap(), b"\n\n".to_vec()].concat()).collect()
}

/// The compiled programs; nothing without a compiler.
fn compiled() -> Option<&'static [u8]> {
    static PROGRAM: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let compile = || {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("joined");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-x", "c", "-", "-o"]).arg(&out).stdin(Stdio::piped());
        let mut child = compiler.spawn().ok()?;
        child.stdin.take().unwrap().write_all(&joined()).unwrap();
        assert!(child.wait().unwrap().success(), "cc refuses the programs of the corpus");
        Some(std::fs::read(&out).unwrap())
    };
    PROGRAM.get_or_init(compile).as_deref()
}

/// Puts a job of the corpus into a folder, as `sample`.
fn sample(folder: &Path, job: &str) -> Option<()> {
    let mut program = compiled()?.to_vec();
    let at = program.windows(92).position(|part| part.iter().all(|byte| *byte == b'@')).unwrap();
    program[at..at + 92].fill(b' ');
    let parameters = format!("{job} 1234 1 127.1.2.3 8080 4000 443");
    program[at..at + parameters.len()].copy_from_slice(parameters.as_bytes());
    let path = folder.join("sample");
    std::fs::write(&path, program).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    Some(())
}

/// Detonates a job under a made model; nothing, and why on standard error, where this machine lacks something.
fn detonate(test: &str, job: &str, model: fn(&Path) -> String, arguments: &[&str]) -> Option<(Ran, tempfile::TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    if sample(folder.path(), job).is_none() {
        eprintln!("skipped {test}: there is no C compiler (cc)");
        return None;
    }
    let model = model(folder.path());
    let all = ["detonate", "sample", "--model", &model, "--out", "episodes", "--marked-home", "--time", "20", "20"];
    let ran = bellwether(folder.path(), &[&all[..], arguments].concat());
    if ran.code == Some(1) && ran.stderr.contains("could not run the file") {
        eprintln!("skipped {test}: {}", ran.stderr.trim());
        return None;
    }
    Some((ran, folder))
}

/// Holds the files of an episode to its report, whose paths are those that were given.
fn check(folder: &Path, report: &Value) {
    keeps_schema("detonation-report.schema.json", report);
    // No vault is given: a quarantine leaves the file where it was, and says so.
    let partial = report["partial"].as_array().unwrap();
    assert_eq!(partial.len(), usize::from(report["verdict"] == "quarantine"), "{partial:?}");
    assert!(partial.iter().all(|part| part.as_str().unwrap().contains("see --vault")), "{partial:?}");
    assert_eq!(report["safe_rule"], 0);
    let runs = report["outcome"].as_array().unwrap();
    let events: u64 = runs.iter().map(|run| run["events"].as_u64().unwrap()).sum();
    let path = |key: &str| folder.join(report[key].as_str().unwrap());
    assert_eq!(TelemetryReader::open(&path("telemetry")).unwrap().rows(), events, "every event is on record");
    let mut reader = EpisodeReader::open(File::open(path("steps")).unwrap(), None).unwrap();
    let (mut row, mut played) = (StepRow::default(), 0);
    while reader.next(&mut row).unwrap() {
        played += 1;
    }
    assert_eq!(played, report["decisions"].as_array().unwrap().len());
    let read = |key: &str| -> Value { serde_json::from_slice(&std::fs::read(path(key)).unwrap()).unwrap() };
    assert_eq!(read("report"), *report);
    let cape = read("cape");
    let processes = cape["behavior"]["processes"].as_array().unwrap();
    let calls: usize = processes.iter().map(|process| process["calls"].as_array().unwrap().len()).sum();
    assert_eq!(calls as u64, events, "every event stands in the report");
    assert!(processes.iter().all(|process| process["module_path"] != ""), "every process is known: {processes:#?}");
    assert_eq!(cape["bellwether_windows"].as_array().unwrap().len(), played);
    assert!(std::fs::read_to_string(path("ocsf")).unwrap().lines().count() > 0);
    let page = std::fs::read_to_string(path("page")).unwrap();
    assert!(page.contains("/home/") && page.contains("Processes"), "{page}");
    assert!(runs.iter().all(|run| run["dead"].is_string()), "it is shown that nothing lives: {runs:?}");
}

#[test]
fn a_program_that_the_model_convicts_is_stopped_at_its_first_window() {
    let test = "a_program_that_the_model_convicts_is_stopped_at_its_first_window";
    let arguments = ["--json", "--label", "malicious"];
    let Some((ran, folder)) = detonate(test, "encrypt_in_place", stern, &arguments) else { return };
    let report = ran.expect(2).json();
    check(folder.path(), &report);
    assert_eq!((&report["verdict"], &report["stage"]), (&"quarantine".into(), &1.into()));
    assert_eq!(report["decisions"].as_array().unwrap().len(), 1);
}

#[test]
fn a_program_that_the_model_lets_go_on_is_released_by_both_stages() {
    let test = "a_program_that_the_model_lets_go_on_is_released_by_both_stages";
    let arguments = ["--json", "--label", "benign", "--seed", "7"];
    let Some((ran, folder)) = detonate(test, "index_files", patient, &arguments) else { return };
    let report = ran.expect(0).json();
    check(folder.path(), &report);
    assert_eq!((report["verdict"].as_str(), report["stage"].as_u64()), (Some("release"), Some(2)));
    assert_eq!(report["seed"], 7);
}

#[test]
fn a_file_that_is_to_be_quarantined_goes_into_the_vault_and_the_reports_say_so() {
    let test = "a_file_that_is_to_be_quarantined_goes_into_the_vault_and_the_reports_say_so";
    if !can_run(test) {
        return;
    }
    const TEXT: &str = "#!/bin/sh\necho hello > note\nexit 0\n";
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let model = stern(at);
    bellwether(at, &["vault", "init", "vault", "--key", "key"]).expect(0);
    let detonate = |more: &[&str]| {
        std::fs::write(at.join("sample"), TEXT).unwrap();
        let report = bellwether(at, &[&["--json", "detonate", "sample", "--model", &model], more].concat());
        let report = report.expect(2).json();
        keeps_schema("detonation-report.schema.json", &report);
        assert_eq!((&report["verdict"], &report["stage"]), (&"quarantine".into(), &1.into()));
        let ocsf = std::fs::read_to_string(at.join(report["ocsf"].as_str().unwrap())).unwrap();
        let rows: Vec<Value> = ocsf.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let files: Vec<Value> = rows.into_iter().filter(|row| row["class_uid"] == 7002).collect();
        (report, files)
    };
    let (report, files) = detonate(&["--vault", "vault", "--vault-key", "key"]);
    assert_eq!(report["partial"], Value::Array(Vec::new()));
    assert!(!at.join("sample").exists());
    let listed = bellwether(at, &["vault", "--json", "list", "vault", "--key", "key"]).expect(0).json();
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(report["quarantine"], format!("in the vault as {id}; the file is removed"));
    assert_eq!((files.len(), &files[0]["status_id"]), (1, &1.into()));
    bellwether(at, &["vault", "restore", "vault", id, "--key", "key", "--to", "back"]).expect(0);
    assert_eq!(std::fs::read_to_string(at.join("back")).unwrap(), TEXT);
    // Without a vault the file stays, and nobody says that it is away.
    let seed = report["seed"].as_u64().unwrap();
    let (report, files) = detonate(&[]);
    assert_ne!(report["seed"].as_u64().unwrap(), seed, "each episode has a home of its own");
    assert!(report["partial"][0].as_str().unwrap().contains("see --vault"), "{report:#}");
    assert_eq!((&report["quarantine"], files.len()), (&Value::Null, 0));
    assert_eq!(std::fs::read_to_string(at.join("sample")).unwrap(), TEXT);
}

#[test]
fn what_is_refused_and_counted_stands_in_every_report() {
    let test = "what_is_refused_and_counted_stands_in_every_report";
    if !can_run(test) {
        return;
    }
    if !Path::new("/usr/bin/setarch").exists() {
        return eprintln!("skipped {test}: there is no setarch, of util-linux");
    }
    let folder = tempfile::tempdir().unwrap();
    let model = patient(folder.path());
    // It asks for memory that is laid out the same each time, which no sample is given.
    std::fs::write(folder.path().join("sample"), "#!/bin/sh\n/usr/bin/setarch x86_64 -R true\nexit 0\n").unwrap();
    let report = bellwether(folder.path(), &["--json", "detonate", "sample", "--model", &model, "--one-stage"]);
    let report = report.expect(0).json();
    keeps_schema("detonation-report.schema.json", &report);
    let run = &report["outcome"][0];
    // Some releases of setarch ask before they set.
    let refused = run["refused"]["personality"].as_u64().unwrap();
    assert!(refused > 0, "{run:#}");
    assert_eq!(run["ends"]["exit 0"], 1, "{run:#}");
    assert!(run["most_tasks"].as_u64().unwrap() >= 1 && run["io"]["reads"].as_u64().unwrap() > 0, "{run:#}");
    let read = |key: &str| std::fs::read_to_string(folder.path().join(report[key].as_str().unwrap())).unwrap();
    let cape: Value = serde_json::from_str(&read("cape")).unwrap();
    assert_eq!(cape["bellwether"]["counts"][0]["counts"]["refused"]["personality"], refused);
    assert!(read("page").contains(&format!("personality: {refused}")));
    assert!(read("ocsf").lines().last().unwrap().contains(&format!(r#""personality":{refused}"#)));
}

#[test]
fn decisions_are_printed_as_they_fall_and_entered_in_the_audit_log() {
    let test = "decisions_are_printed_as_they_fall_and_entered_in_the_audit_log";
    let keys = tempfile::tempdir().unwrap();
    let (log, key) = (keys.path().join("audit.jsonl"), keys.path().join("audit.key"));
    AuditLog::create(&log, Secrets::generate(&key, Purpose::Audit).unwrap()).unwrap();
    let (log, key) = (log.to_str().unwrap(), key.to_str().unwrap());
    let arguments = ["--one-stage", "--audit", log, "--audit-key", key];
    let Some((ran, _folder)) = detonate(test, "index_files", patient, &arguments) else { return };
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], "stage 1");
    assert!(lines[2].contains(" s ") && lines.iter().any(|line| line.starts_with("verdict ")), "{}", ran.stdout);
    let verified = audit::verify(Path::new(log), &Secrets::read(Path::new(key), Purpose::Audit).unwrap(), &[]).unwrap();
    assert!(verified.intact && verified.entries >= 5, "{verified:?}");
}

#[test]
fn what_a_killed_program_leaves_is_recovered_and_what_goes_on_is_left_alone() {
    let test = "what_a_killed_program_leaves_is_recovered_and_what_goes_on_is_left_alone";
    if !can_run(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sample"), "#!/bin/sh\nsleep 7531.3391\n").unwrap();
    let model = patient(folder.path());
    let long = ["detonate", "sample", "--model", &model, "--one-stage", "--time", "600", "600"];
    let detonating = Running(command(folder.path(), &long).spawn().unwrap());
    until("a sample that runs", || alive("7531.3391") > 0);
    let journal = || files(folder.path()).into_iter().filter(|path| path.contains("/.tmp-")).count();
    let recover = || bellwether(folder.path(), &["--json", "recover"]);
    let running = recover().expect(0).json();
    assert_eq!(
        (running["recovered"].as_array().unwrap().len(), running["under_way"].as_array().unwrap().len()),
        (0, 1)
    );
    assert_eq!(journal(), 2);
    detonating.signal("-KILL");
    drop(detonating);
    until("the end of the sample", || alive("7531.3391") == 0);
    let recovered = recover().expect(0).json();
    keeps_schema("recover-report.schema.json", &recovered);
    let [report] = &recovered["recovered"].as_array().unwrap()[..] else { panic!("{recovered:#}") };
    keeps_schema("detonation-report.schema.json", report);
    assert_eq!((&report["verdict"], report["partial"].as_array().unwrap().len()), (&Value::Null, 1));
    let read = |key: &str| std::fs::read(folder.path().join(report[key].as_str().unwrap())).unwrap();
    let json = |key: &str| -> Value { serde_json::from_slice(&read(key)).unwrap() };
    assert_eq!(json("report"), *report);
    let cape = json("cape");
    let processes = cape["behavior"]["processes"].as_array().unwrap();
    assert!(
        processes.iter().any(|process| process["module_path"].as_str().unwrap().ends_with("/sleep")),
        "{processes:#?}"
    );
    assert_eq!(cape["bellwether"]["partial"], report["partial"]);
    assert!(cape["info"]["started"].as_str().unwrap() > "2026", "when it began is known");
    assert!(String::from_utf8(read("page")).unwrap().contains("was killed"));
    assert!(read("ocsf").len() > 100);
    assert_eq!(journal(), 0);
    assert!(recover().expect(0).json()["recovered"].as_array().unwrap().is_empty(), "once is enough");
    // What is damaged is said, and left as it is.
    let broken = folder.path().join("episodes/broken");
    std::fs::create_dir(&broken).unwrap();
    for (name, text) in [(".tmp-events.jsonl", ""), (".tmp-steps.jsonl", "{\"nothing\":1}\n")] {
        std::fs::write(broken.join(name), text).unwrap();
    }
    let failed = recover().expect(1).json();
    assert!(failed["failed"][0]["folder"].as_str().unwrap().ends_with("broken"), "{failed:#}");
    assert_eq!(journal(), 2);
    bellwether(folder.path(), &["recover", "nowhere"]).complains(1, &["nowhere"]);
}

#[test]
fn what_cannot_be_run_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let cases: [(&[&str], i32, &[&str]); 6] = [
        (&["none", "--model", &model], 1, &["none"]),
        (&["none"], 64, &["--model"]),
        (&["none", "--model", &model, "--vault", "v"], 64, &["--vault-key"]),
        (&["none", "--model", &model, "--audit", "a"], 64, &["--audit-key"]),
        (&["none", "--model", "nowhere"], 1, &["nowhere"]),
        (&[".", "--model", &model], 1, &["regular"]),
    ];
    for (arguments, code, parts) in cases {
        bellwether(folder.path(), &[&["detonate"], arguments].concat()).complains(code, parts);
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "#!/bin/true\n").unwrap();
    for (arguments, part) in [(["--target-fpr", "0.3333"], "0.3333"), (["--time", "0"], "--time")] {
        let ran = bellwether(folder.path(), &[&["detonate", "file", "--model", &model], &arguments[..]].concat());
        ran.complains(64, &[part]);
    }
    assert_eq!(files(folder.path()), ["file"]);
}
