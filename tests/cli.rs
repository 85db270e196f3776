//! The command line from outside: what it prints, how it ends, and that a failure leaves nothing half-written.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly")]
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

mod program;

use std::fmt::Write as _;
use std::path::Path;

use bellwether_env_adapter::ingest::TelemetryWriter;
use program::{bellwether, bellwether_in, command, files, keeps_schema, shell, unread};

const VERBS: [&[&str]; 38] = [
    &[],
    &["quickstart"],
    &["ingest"],
    &["validate"],
    &["split"],
    &["train"],
    &["evaluate"],
    &["export"],
    &["decide"],
    &["detonate"],
    &["recover"],
    &["record"],
    &["runs"],
    &["runs", "list"],
    &["runs", "show"],
    &["runs", "compare"],
    &["runs", "verify"],
    &["release"],
    &["release", "promote"],
    &["release", "rollback"],
    &["release", "list"],
    &["release", "sign"],
    &["release", "verify"],
    &["keys"],
    &["keys", "generate"],
    &["keys", "show"],
    &["audit"],
    &["audit", "init"],
    &["audit", "verify"],
    &["audit", "show"],
    &["audit", "rotate"],
    &["vault"],
    &["vault", "init"],
    &["vault", "list"],
    &["vault", "restore"],
    &["vault", "settle"],
    &["vault", "purge"],
    &["doctor"],
];

/// Recordings as JSON lines: `episodes` of each label, each of 30 calls that tell a little of the label; the first ten
/// spell the episode's number, so that no two are duplicates.
fn recordings(labels: &[&str], episodes: usize) -> String {
    let mut text = String::new();
    for label in labels {
        for episode in 0..episodes {
            for seq in 0..30 {
                let name = match (*label, seq) {
                    (_, 0..10) => ["read", "write"][episode >> seq & 1],
                    ("malicious", _) if seq % 3 == 0 => "unlink",
                    _ => "openat",
                };
                let path = format!("/home/user/{episode}/{}", seq * 7 % 11);
                writeln!(
                    text,
                    r#"{{"episode_id":"{label}-{episode}","label":"{label}","family":"{label}-{}","name":"{name}","path":"{path}"}}"#,
                    episode % 5
                )
                .unwrap();
            }
        }
    }
    text
}

/// Ingests `text` into `folder/name`.
fn telemetry(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join("input.jsonl"), text).unwrap();
    bellwether(folder, &["ingest", "--format", "jsonl", "input.jsonl", "--out", name]).expect(0);
    std::fs::remove_file(folder.join("input.jsonl")).unwrap();
}

#[test]
fn every_verb_explains_itself() {
    let folder = tempfile::tempdir().unwrap();
    for verb in VERBS {
        let ran = bellwether(folder.path(), &[verb, &["--help"]].concat()).expect(0);
        assert_eq!(ran.stderr, "");
        let name = format!("help {}", verb.join(" "));
        insta::assert_snapshot!(name.trim().replace(' ', "_"), ran.stdout);
    }
    assert_eq!(files(folder.path()), [""; 0]);
}

#[test]
fn the_version_is_that_of_the_package() {
    let ran = bellwether(Path::new("."), &["--version"]).expect(0);
    assert_eq!(ran.stdout, format!("bellwether {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_arguments_end_with_64_and_touch_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let train = ["train", "--data", "none.parquet"];
    let cases: [(&[&str], &[&str]); 31] = [
        (&[], &["Usage"]),
        (&["fly"], &["fly"]),
        (&["ingest"], &["--format"]),
        (&["ingest", "--format", "pcap", "a", "--out", "b"], &["pcap", "known are", "jsonl", "adfa-ld", "strace"]),
        (&["split", "a", "--by", "list", "--out", "b"], &["--list"]),
        (&["split", "a", "--by", "colour", "--out", "b"], &["colour", "family"]),
        (&["split", "a", "--by", "family", "--list", "l", "--out", "b"], &["--by list", "--list"]),
        (&["evaluate", "--data", "a"], &["--model"]),
        (&["evaluate", "--data", "a", "--cv", "5", "--model", "m"], &["--cv"]),
        (&["runs", "show", "nothing"], &["nothing"]),
        (&["runs", "compare", "nothing"], &["RUN", "2"]),
        (&["runs", "compare", "nothing", "more"], &["nothing"]),
        (&["export", "nothing", "--out", "b"], &["nothing"]),
        (&[&train[..], &["--set", "trainer.bach_size=3"]].concat(), &["bach_size"]),
        (&[&train[..], &["--set", "trainer.updates=many"]].concat(), &["updates"]),
        (&[&train[..], &["--set", "seed"]].concat(), &["key=value"]),
        (&[&train[..], &["--config", "none.toml"]].concat(), &["none.toml"]),
        (
            &[&train[..], &["--set", "cost.minimum=9", "--set", "cost.maximum=3"]].concat(),
            &["cost.minimum", "cost.maximum"],
        ),
        (&[&train[..], &["--set", "trainer.gamma=1.5"]].concat(), &["trainer.gamma"]),
        (&[&train[..], &["--set", "window.max_events=0"]].concat(), &["window.max_events"]),
        (&[&train[..], &["--set", "reward.false_positive=nan"]].concat(), &["reward.false_positive"]),
        (&[&train[..], &["--set", "calibration.target_fpr=[0.1, 0.1]"]].concat(), &["target_fpr", "once"]),
        (&["quickstart", "--set", "calibration.folds=1"], &["calibration.folds"]),
        (&[&train[..], &["--name", "../up"]].concat(), &["../up", "1 to 64 of a-z"]),
        (&["train"], &["--data"]),
        (&[&train[..], &["--learner", "jax"]].concat(), &["jax", "--learner", "choose one of fused, burn, tch"]),
        (&[&train[..], &["--device", "gpu"]].concat(), &["gpu", "--device", "cuda:N"]),
        (&[&train[..], &["--device", "cuda:0"]].concat(), &["fused", "cuda:0", "choose the learner burn or tch"]),
        (&["train", "--print-config", "--set", "trainer.gamma=2"], &["trainer.gamma"]),
        (&["release", "rollback", "No Name"], &["No Name", "1 to 64 of a-z"]),
        (&["release", "promote", "1", "--name", "a/b"], &["a/b", "1 to 64 of a-z"]),
    ];
    for (arguments, parts) in cases {
        println!("bellwether {}", arguments.join(" "));
        bellwether(folder.path(), arguments).complains(64, parts);
        assert_eq!(files(folder.path()), [""; 0]);
    }
}

/// The keys of a document, with nothing of the machine that filled it.
fn shape(value: &serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
        serde_json::Value::Array(items) if items.iter().any(|item| item.is_object()) => {
            serde_json::Value::Array(items.iter().take(1).map(shape).collect())
        }
        serde_json::Value::Array(_) => "a list".into(),
        _ => "a value".into(),
    }
}

#[test]
fn doctor_says_what_the_machine_has_and_what_is_used_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let report = bellwether(at, &["doctor", "--json"]).expect(0).json();
    insta::assert_json_snapshot!("doctor", shape(&report));
    keeps_schema("doctor-report.schema.json", &report);
    assert!(report["instruction_sets"].as_array().unwrap().contains(&report["instruction_set_used"]));
    for amount in [&report["memory"]["total_bytes"], &report["runs"]["free_bytes"], &report["threads"]] {
        assert!(amount.as_u64().unwrap() > 0, "{report}");
    }
    for (name, built) in [("fused", true), ("burn", cfg!(feature = "burn")), ("tch", cfg!(feature = "tch"))] {
        let learner = report["learners"].as_array().unwrap().iter().find(|learner| learner["name"] == name).unwrap();
        assert_eq!(learner["devices"].as_array().unwrap().contains(&"cpu".into()), built, "{learner}");
        if !built {
            let train = ["train", "--data", "none", "--learner", name];
            bellwether(at, &train).complains(64, &[name, format!("--features {name}").as_str()]);
        }
    }
    // A build outside a checkout, or without git, does not know its commit; one inside with git does.
    let mut git = std::process::Command::new("git");
    let asked = git.args(["rev-parse", "--show-prefix", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let inside = asked.is_ok_and(|said| said.status.success() && said.stdout.starts_with(b"\n"));
    let revision = report["source"]["revision"].as_str();
    assert_eq!((revision.is_some(), report["source"]["modified"].is_boolean()), (inside, inside), "{report}");
    assert!(revision.is_none_or(|commit| commit.len() >= 40 && commit.bytes().all(|digit| digit.is_ascii_hexdigit())));
    std::fs::write(at.join("library.so"), "").unwrap();
    for (library, found) in [("library.so", true), ("none.so", false)] {
        let environment = [("ORT_DYLIB_PATH", library), ("BELLWETHER_ISA", "scalar"), ("PATH", "/nowhere")];
        let report = bellwether_in(at, &environment, &["doctor", "--json"]).expect(0).json();
        assert_eq!((&report["instruction_set_used"], report["parts"][0]["path"].is_null()), (&"scalar".into(), true));
        assert!(report["instruction_set_reason"].as_str().unwrap().contains("BELLWETHER_ISA"));
        assert_eq!(report["parts"][2]["path"].as_str(), found.then_some(library));
        let text = bellwether_in(at, &environment, &["doctor"]).expect(0).stdout;
        assert!(text.contains("apt-get install strace"), "{text}");
        assert_eq!(text.contains("export ORT_DYLIB_PATH"), !found, "{text}");
    }
}

#[test]
fn the_configuration_is_printed_as_it_would_run_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("some.toml"), "seed = 3\n[trainer]\nupdates = 9\nbatch_size = 8\n").unwrap();
    let environment = [("BELLWETHER__TRAINER__UPDATES", "10"), ("BELLWETHER__NETWORK__HIDDEN", "[32]")];
    let print = ["train", "--print-config", "--config", "some.toml", "--set", "network.hidden=[16]", "--seed", "4"];
    let printed = bellwether_in(at, &environment, &print).expect(0).stdout;
    for line in ["seed = 4", "updates = 10", "batch_size = 8", "hidden = [16]", "[reward.harm]"] {
        assert!(printed.lines().any(|printed| printed == line), "`{line}` is not in\n{printed}");
    }
    assert!(printed.contains("# Gradient steps.\n"), "{printed}");
    std::fs::write(at.join("printed.toml"), &printed).unwrap();
    let again = bellwether(at, &["train", "--print-config", "--config", "printed.toml"]).expect(0).stdout;
    assert_eq!(again, printed);
    let json = bellwether(at, &["train", "--print-config", "--config", "printed.toml", "--json"]).expect(0).json();
    assert_eq!((&json["seed"], &json["trainer"]["updates"]), (&4.into(), &10.into()));
    assert_eq!(files(at), ["printed.toml", "some.toml"]);
}

#[test]
fn an_unknown_key_of_a_file_is_named_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("wrong.toml"), "[network]\nhiden = [8]\n").unwrap();
    bellwether(folder.path(), &["train", "--data", "none.parquet", "--config", "wrong.toml"])
        .complains(64, &["wrong.toml", "hiden"]);
    assert_eq!(files(folder.path()), ["wrong.toml"]);
    bellwether_in(folder.path(), &[("BELLWETHER__NETWORK__HIDEN", "[8]")], &["train", "--print-config"])
        .complains(64, &["variable BELLWETHER__NETWORK__HIDEN", "hiden"]);
}

#[test]
fn missing_and_empty_inputs_are_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("empty.jsonl"), "").unwrap();
    std::fs::write(at.join("broken.jsonl"), "{\"episode_id\": 7}\nnot json\n").unwrap();
    let out = ["--out", "out.parquet"];
    bellwether(at, &[&["ingest", "--format", "jsonl", "none.jsonl"], &out[..]].concat()).complains(1, &["none.jsonl"]);
    bellwether(at, &[&["ingest", "--format", "jsonl", "empty.jsonl"], &out[..]].concat())
        .complains(2, &["no episode", "out.parquet"]);
    bellwether(at, &[&["ingest", "--format", "jsonl", "broken.jsonl"], &out[..]].concat())
        .complains(2, &["no episode", "out.parquet"]);
    bellwether(at, &["train", "--data", "none.parquet"]).complains(1, &["none.parquet"]);
    bellwether(at, &["split", "none.parquet", "--by", "family", "--out", "parts"]).complains(1, &["none.parquet"]);
    bellwether(at, &["decide", "--model", "nothing"]).complains(1, &["nothing", "model.onnx and model.json"]);
    bellwether(at, &["release", "promote", "."]).complains(1, &["no model is in .", "model.onnx and model.json"]);
    bellwether(at, &["release", "verify"]).complains(1, &["no registry in releases"]);
    let report = bellwether(at, &[&["ingest", "--json", "--format", "jsonl", "broken.jsonl"], &out[..]].concat());
    let report = report.complains(2, &["no episode"]).json();
    assert_eq!((&report["out"], &report["quality"]["bad_lines"]["count"]), (&serde_json::Value::Null, &2.into()));
    keeps_schema("ingest-report.schema.json", &report);
    assert_eq!(files(at), ["broken.jsonl", "empty.jsonl"]);
}

#[test]
fn what_is_wrong_with_recordings_is_counted_and_reported_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let text = format!("{}not json\n{{\"name\":3}}\n", recordings(&["benign"], 1));
    std::fs::write(at.join("input.jsonl"), text).unwrap();
    let arguments = ["ingest", "--format", "jsonl", "input.jsonl", "--out", "out.parquet", "--json"];
    let report = bellwether(at, &arguments).expect(0).json();
    assert_eq!(report["events"], 30);
    keeps_schema("ingest-report.schema.json", &report);
    let lines = report["quality"]["bad_lines"].to_string();
    assert!(lines.contains("\"count\":2") && lines.contains("31") && lines.contains("32"), "{lines}");
    assert_eq!(files(at), ["input.jsonl", "out.parquet"]);
}

#[test]
fn training_needs_both_classes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    telemetry(at, "benign.parquet", &recordings(&["benign"], 4));
    let (empty, _) = TelemetryWriter::new(Vec::new()).unwrap().finish().unwrap();
    std::fs::write(at.join("empty.parquet"), empty).unwrap();
    for (file, counts) in [("benign.parquet", "4 benign and 0 malicious"), ("empty.parquet", "0 benign and 0")] {
        for verb in [&["train"][..], &["evaluate", "--cv", "3"], &["quickstart"]] {
            println!("bellwether {verb:?} --data {file}");
            let advice = [file, counts, "training needs both: add recordings of the class that is missing, or labels"];
            bellwether(at, &[verb, &["--data", file]].concat()).complains(64, &advice);
        }
        assert_eq!(files(at), ["benign.parquet", "empty.parquet"]);
    }
    assert!(!at.join("quickstart").exists() && !at.join("runs").exists());
}

#[test]
fn episodes_without_a_label_are_left_out_aloud() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let nobody = "{\"episode_id\":\"nobody\",\"name\":\"read\"}\n";
    telemetry(at, "mixed.parquet", &(recordings(&["benign", "malicious"], 10) + nobody));
    let small = ["--set", "network.hidden=[8]", "--set", "trainer.updates=4", "--set", "calibration.folds=2"];
    for verb in [&["train"][..], &["evaluate", "--cv", "2"]] {
        let arguments = [verb, &["--data", "mixed.parquet"], &small].concat();
        let report = bellwether(at, &[&arguments[..], &["--json"]].concat()).expect(0).json();
        assert_eq!(report["unlabelled_episodes"], 1, "{verb:?}");
        let text = bellwether(at, &arguments).expect(0).stdout;
        assert!(text.contains("left out 1 episodes without a label"), "{text}");
    }
}

#[test]
fn too_few_families_to_calibrate_on_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    telemetry(at, "few.parquet", &recordings(&["benign", "malicious"], 3));
    telemetry(at, "one.parquet", &recordings(&["benign", "malicious"], 1));
    for (file, advice) in [("few.parquet", "fewer folds"), ("one.parquet", "record more families")] {
        for verb in [&["train"][..], &["quickstart"], &["evaluate", "--cv", "4"]] {
            println!("bellwether {verb:?} --data {file}");
            let parts = ["groups with benign episodes", advice];
            bellwether(at, &[verb, &["--data", file]].concat()).complains(64, &parts);
        }
    }
    // Enough families in all, too few of them to learn from.
    let quickstart = ["quickstart", "--data", "few.parquet", "--set", "calibration.folds=3"];
    bellwether(at, &quickstart).complains(64, &["groups with benign episodes", "fewer folds"]);
    assert!(!at.join("quickstart").exists() && !at.join("runs").exists());
}

#[test]
fn truncated_telemetry_is_refused_by_every_verb_that_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    telemetry(at, "whole.parquet", &recordings(&["benign", "malicious"], 5));
    let whole = std::fs::read(at.join("whole.parquet")).unwrap();
    for kept in [0, 3, whole.len() / 2, whole.len() - 1] {
        std::fs::write(at.join("cut.parquet"), &whole[..kept]).unwrap();
        bellwether(at, &["train", "--data", "cut.parquet"]).complains(1, &["cut.parquet"]);
        bellwether(at, &["train", "--data", "whole.parquet", "--valid", "cut.parquet"]).complains(1, &["cut.parquet"]);
        bellwether(at, &["split", "cut.parquet", "--by", "family", "--out", "parts"]).complains(1, &["cut.parquet"]);
        bellwether(at, &["evaluate", "--cv", "2", "--data", "cut.parquet"]).complains(1, &["cut.parquet"]);
        let ran = bellwether(at, &["validate", "cut.parquet"]).expect(2);
        assert!(ran.stdout.contains("cut.parquet"), "{}", ran.stdout);
        assert_eq!(files(at), ["cut.parquet", "whole.parquet"], "cut at {kept}");
    }
}

#[test]
fn validate_ends_with_2_where_sides_of_a_split_share_an_episode() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    telemetry(at, "one.parquet", &recordings(&["benign", "malicious"], 3));
    std::fs::copy(at.join("one.parquet"), at.join("two.parquet")).unwrap();
    bellwether(at, &["validate", "one.parquet", "two.parquet"]).complains(2, &["not clean"]);
}

#[test]
fn nothing_is_written_over_what_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let text = recordings(&["benign", "malicious"], 10);
    telemetry(at, "train.parquet", &text);
    std::fs::write(at.join("input.jsonl"), &text).unwrap();
    std::fs::create_dir_all(at.join("quickstart/data")).unwrap();
    std::fs::copy(at.join("train.parquet"), at.join("quickstart/data/train.parquet")).unwrap();
    std::os::unix::fs::symlink("train.parquet", at.join("link.parquet")).unwrap();
    let before: Vec<Vec<u8>> = files(at).iter().map(|file| std::fs::read(at.join(file)).unwrap()).collect();
    let cases: [&[&str]; 4] = [
        &["ingest", "--format", "jsonl", "input.jsonl", "--out", "./input.jsonl"],
        &["split", "train.parquet", "--by", "family", "--out", "."],
        &["split", "link.parquet", "--by", "family", "--out", "."],
        &["quickstart", "--data", "quickstart/data/train.parquet"],
    ];
    for arguments in cases {
        bellwether(at, arguments).complains(64, &["would be written over"]);
        let after: Vec<Vec<u8>> = files(at).iter().map(|file| std::fs::read(at.join(file)).unwrap()).collect();
        assert!(after == before, "{arguments:?}");
    }
}

#[test]
fn no_part_of_an_earlier_split_stays_beside_the_new_ones() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    telemetry(at, "all.parquet", &recordings(&["benign", "malicious"], 10));
    let split = ["split", "all.parquet", "--by", "family", "--out", "parts", "--shares"];
    bellwether(at, &[&split[..], &["0.4", "0.3", "0.3"]].concat()).expect(0);
    assert_eq!(files(&at.join("parts")), ["test.parquet", "train.parquet", "valid.parquet"]);
    let report = bellwether(at, &[&split[..], &["0.6", "0", "0.4", "--json"]].concat()).expect(0).json();
    keeps_schema("split-report.schema.json", &report);
    assert_eq!(files(&at.join("parts")), ["test.parquet", "train.parquet"]);
    bellwether(at, &["validate", "parts/train.parquet", "parts/test.parquet"]).expect(0);
    bellwether(at, &[&split[..], &["-0.2", "0", "1.2"]].concat()).complains(64, &["between 0 and 1"]);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("empty.parquet"), "").unwrap();
    let cases: [(i32, &[&str]); 7] = [
        (0, &["doctor"]),
        (0, &["doctor", "--json"]),
        (0, &["--help"]),
        (0, &["train", "--print-config"]),
        (0, &["runs", "list"]),
        (0, &["release", "list", "--json"]),
        // The work decides, not who listens.
        (2, &["validate", "empty.parquet"]),
    ];
    for (code, arguments) in cases {
        let ran = unread(at, arguments).expect(code);
        assert!(!ran.stderr.contains("pipe"), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn folders_that_are_no_runs_are_not_called_aborted() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::create_dir_all(at.join("runs/notes")).unwrap();
    let listed = bellwether(at, &["runs", "list"]).expect(0).stdout;
    assert!(
        listed.starts_with("unreadable") && listed.contains("notes") && listed.contains("check the path"),
        "{listed}"
    );
}

#[test]
fn a_full_standard_output_is_an_error() {
    let ran = shell(Path::new("."), &[], "exec \"$@\" > /dev/full", &["doctor"]);
    ran.complains(1, &["No space left"]);
}

#[test]
fn a_folder_that_is_a_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("file"), "x").unwrap();
    std::fs::write(at.join("input.jsonl"), recordings(&["benign"], 1)).unwrap();
    let ingest = ["ingest", "--format", "jsonl", "input.jsonl", "--out", "file/out.parquet"];
    bellwether(at, &ingest).complains(1, &["file"]);
    bellwether(at, &["quickstart", "--out", "file"]).complains(1, &["file"]);
    assert_eq!(files(at), ["file", "input.jsonl"]);
    assert_eq!(std::fs::read(at.join("file")).unwrap(), b"x");
}

/// Mounts of their own need root; without, the test says so.
fn mounts_allowed(test: &str) -> bool {
    let tried =
        std::process::Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    let allowed = tried.is_ok_and(|output| output.status.success());
    if !allowed {
        println!("skipped: {test} needs root and unshare(1) to mount a small file system");
    }
    allowed
}

/// Runs the program where `target` is a fresh file system mounted with `options`; standard output ends with the names
/// of what lies in it afterwards, hidden names too.
fn on_mount(at: &Path, options: &str, arguments: &[&str]) -> program::Ran {
    let script = format!(
        "mkdir -p target && mount -t tmpfs -o {options} none target || exit 99\n\
         \"$@\"; code=$?; echo --; find target -type f; exit $code"
    );
    shell(at, &["unshare", "--mount"], &script, arguments)
}

/// Verbs that write into `target/`, where `input.jsonl` and `data.parquet` lie beside it.
const INTO_TARGET: [&[&str]; 3] = [
    &["ingest", "--format", "jsonl", "input.jsonl", "--out", "target/out.parquet"],
    &["split", "data.parquet", "--by", "family", "--out", "target/parts"],
    &[
        "train",
        "--data",
        "data.parquet",
        "--runs",
        "target/runs",
        "--set",
        "trainer.updates=2",
        "--set",
        "calibration.folds=2",
    ],
];

#[test]
fn a_full_disk_leaves_nothing_under_a_final_name() {
    if !mounts_allowed("a_full_disk_leaves_nothing_under_a_final_name") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("input.jsonl"), recordings(&["benign", "malicious"], 300)).unwrap();
    bellwether(at, &["ingest", "--format", "jsonl", "input.jsonl", "--out", "data.parquet"]).expect(0);
    let quickstart: &[&str] =
        &["quickstart", "--data", "data.parquet", "--out", "target/quick", "--set", "calibration.folds=2"];
    for arguments in INTO_TARGET.into_iter().chain([quickstart]) {
        println!("bellwether {}", arguments.join(" "));
        let ran = on_mount(at, "size=8k", arguments).complains(1, &["No space left"]);
        let (_, left) = ran.stdout.rsplit_once("--").unwrap();
        let finals = [".parquet", "model.onnx", "model.json", "evaluation.json", "latest.checkpoint"];
        for path in left.split_whitespace() {
            let name = path.rsplit('/').next().unwrap();
            assert!(!finals.iter().any(|ending| name.ends_with(ending) && !name.starts_with('.')), "{left}");
        }
    }
}

#[test]
fn an_unwritable_folder_is_an_error_that_names_it() {
    if !mounts_allowed("an_unwritable_folder_is_an_error_that_names_it") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("input.jsonl"), recordings(&["benign", "malicious"], 5)).unwrap();
    bellwether(at, &["ingest", "--format", "jsonl", "input.jsonl", "--out", "data.parquet"]).expect(0);
    let quickstart: &[&str] = &["quickstart", "--out", "target/quick"];
    for arguments in INTO_TARGET.into_iter().chain([quickstart]) {
        println!("bellwether {}", arguments.join(" "));
        let ran = on_mount(at, "ro", arguments).complains(1, &["target"]);
        assert!(ran.stdout.ends_with("--\n"), "{}", ran.stdout);
    }
}

#[test]
fn a_variable_of_any_bytes_is_nobodys_business_unless_it_is_ours() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::ffi::OsStr::from_bytes(b"\xff");
    let with = |name: &str| command(folder.path(), &["train", "--print-config"]).env(name, bytes).output().unwrap();
    assert!(with("SOMETHING_ELSE").status.success());
    let refused = with("BELLWETHER__SEED");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(64), "{said}");
    assert!(said.contains("BELLWETHER__SEED") && said.contains("not UTF-8"), "{said}");
}
