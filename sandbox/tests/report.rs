//! Reports of an episode in which everything that a sample can name is hostile.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests, which may panic and say what they skip"
)]
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::path::Path;

use bellwether_artifact::{Sha256, Visible};
use bellwether_env_adapter::event::flags;
use bellwether_env_adapter::{Action, EpisodeId, Event, EventBuf, EventKind, action};
use bellwether_sandbox::cage::Pressure;
use bellwether_sandbox::network::{Contact, Lookup, Protocol, Traffic};
use bellwether_sandbox::report::{
    Change, Counts, DecisionRecord, EpisodeRecord, Feedback, FileChange, Outcome, ProcessRecord, ReportError,
    StageRecord, WindowRecord, behaviours, write,
};
use bellwether_sandbox::vault::{Removal, SampleIdentity, Times};
use proptest::prelude::*;
use serde_json::Value;

/// Names that want to be more than names.
const HOSTILE: [&str; 8] = [
    "</pre><script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "\u{1b}[2J\u{1b}]0;owned\u{7}",
    "\u{9b}31m",
    "line\nbreak\r{\"class_uid\":2004}",
    "invoice\u{202e}fdp.exe\u{2066}",
    "\u{200b}\u{feff}&lt;\\u{41}`${x}",
];

fn hostile(index: usize) -> String {
    HOSTILE[index % HOSTILE.len()].to_owned()
}

fn spelled(text: &[u8]) -> String {
    Visible::new(text).to_string()
}

fn decision(number: u32, action: Action, by_policy: bool) -> DecisionRecord {
    DecisionRecord {
        decision_id: format!("{number}{}", hostile(number as usize)),
        action,
        mask: action::mask(number == 3, true),
        q_values: by_policy.then(|| vec![0.5, -0.25, f32::from(number as u8), 1e-3, 0.0]),
        margin: by_policy.then_some(0.25),
        model_version: by_policy.then(|| "0123456789abcdef".to_owned()),
        safe_rule: (!by_policy).then(|| hostile(0)),
        latency_ns: 12_345,
        feedback: (action != Action::Continue).then(|| Feedback {
            applied: number.is_multiple_of(2),
            proof: hostile(1 + number as usize),
            attempts: 1,
            latency_ns: 1_500_000,
        }),
    }
}

fn process(number: u32, ppid: Option<u32>) -> ProcessRecord {
    ProcessRecord {
        pid: number,
        ppid,
        program: format!("/tmp/{}", hostile(number as usize)),
        arguments: vec!["sh".to_owned(), hostile(number as usize + 1)],
        threads: vec![number, number + 1000],
        began_ns: u64::from(number) * 1_000_000,
        ended_ns: number.is_multiple_of(2).then_some(9_000_000),
        exit_code: number.is_multiple_of(2).then_some(-9),
    }
}

fn request(method: &str) -> String {
    format!(
        "{method} /x?to=a@b.example HTTP/1.1\r\nHost: c2.example\r\nUser-Agent: {}\r\n\r\n{}",
        HOSTILE[0],
        hostile(3)
    )
}

fn record(verdict: Option<Action>) -> EpisodeRecord {
    let actions = [Action::Continue, Action::RaiseIsolation, Action::Continue, verdict.unwrap_or(Action::Continue)];
    let stage = |number: u8| StageRecord {
        stage: number,
        host_name: "workstation".to_owned(),
        began_ms: 1_795_300_000_000 + u64::from(number) * 60_000,
        duration_ms: 5_000,
        events: 9,
        counts: Counts {
            denied: 2,
            undecided: 1,
            refused: [("ioctl".to_owned(), 3), (hostile(2), 1)].into(),
            ends: [("exit 0".to_owned(), 148), ("SIGKILL".to_owned(), 1)].into(),
            most_tasks: 64,
            io: bellwether_sandbox::tracer::Traffic { read_bytes: 5, written_bytes: 6, reads: 7, writes: 8 },
            pressure: Some(Pressure { refused_forks: 9, out_of_memory_kills: 2, peak_memory_bytes: 1 << 20 }),
        },
        windows: (0..4)
            .map(|index| WindowRecord {
                index,
                events: 16,
                closed_ns: u64::from(index + 1) * 4_000_000,
                level: (index / 2) as u8,
                decision: decision(index, actions[index as usize], index != 2),
            })
            .collect(),
        processes: (1..150).map(|number| process(number, (number > 1).then_some(number - 1))).collect(),
        changes: (0..9)
            .map(|index| FileChange {
                change: [Change::Created, Change::Changed, Change::Deleted][index % 3],
                path: format!("/home/user/{}", hostile(index)),
                bytes: Some(7),
                sha256: Some(Sha256::of(b"content")),
            })
            .collect(),
        further_processes: 3,
        further_changes: 2,
        traffic: Some(Traffic {
            contacts: [hostile(1), request("GET"), request("BREW"), request("GET")]
                .map(|first| Contact {
                    protocol: Protocol::Tcp,
                    to: "203.0.113.9:4444".parse().unwrap(),
                    sent_bytes: 5,
                    received_bytes: 6,
                    first: first.into_bytes(),
                })
                .into(),
            names: vec![Lookup { name: hostile(6), address: "198.18.0.1".parse().unwrap() }],
            left_out: 1,
        }),
        skipped_ms: 4,
        lacking: vec![hostile(4)],
        faults: vec![hostile(5)],
    };
    EpisodeRecord {
        episode_id: EpisodeId(format!("episode{}", hostile(0))),
        sample: SampleIdentity {
            path: spelled(b"/srv/in/\xff</title><script>\x1b[2J\n.bin"),
            sha256: Sha256::of(b"sample"),
            md5: "0".repeat(32),
            sha1: "0".repeat(40),
            bytes: 6,
            kind: spelled(b"script, </td><script>\x1b"),
            device: 1,
            inode: 2,
            links: 2,
            mode: 0o755,
            uid: 0,
            gid: 0,
            times: Times { accessed: (0, 0), modified: (0, 0), born: None },
        },
        version: "0.1.0".to_owned(),
        stages: vec![stage(1), stage(2)],
        outcome: Outcome {
            verdict,
            stage: 2,
            quarantine: Some(Removal::Kept { why: hostile(1) }),
            quarantine_id: Some("ab".repeat(32)),
            text: hostile(0),
        },
        partial: vec![hostile(3)],
    }
}

/// A few of every kind of call, in both stages.
fn events() -> Vec<EventBuf> {
    let mut events: Vec<EventBuf> = Vec::new();
    for stage in [1, 2] {
        let mut seq = 0;
        let mut add = |event: Event<'_>| {
            let time_ns = Some(seq * 1_000_000);
            let (pid, tid) = (Some(1 + seq as u32 % 5), Some(1 + seq as u32 % 5));
            events.push(EventBuf::from(&Event { stage, seq, time_ns, pid, tid, ret: event.ret.or(Some(0)), ..event }));
            seq += 1;
        };
        for (index, name) in HOSTILE.iter().enumerate() {
            let path = format!("/home/user/{name}");
            let file = |call| Event { path: Some(path.as_str()), ..Event::named(0, EventKind::File, call) };
            add(Event { flags: Some(flags::READ | flags::WRITE), ret: Some(3), ..file("openat") });
            add(Event { bytes: Some(100), ret: Some(100), ..file("read") });
            add(Event { bytes: Some(4096), entropy: Some(7.99), ret: Some(4096), ..file("write") });
            add(Event { flags: Some(flags::WRITE | flags::CREATE), created: Some(true), ..file("openat") });
            add(Event { path2: Some(name), ..file("rename") });
            add(Event { errno: Some(2), ret: Some(-1), ..file("unlink") });
            add(Event { denied: Some(true), errno: Some(1), ret: None, ..file("mkdir") });
            add(Event { args: Some("04755"), ..file("chmod") });
            add(Event { args: Some(name), ..file("execve") });
            add(Event { ret: Some(7), ..Event::named(0, EventKind::Process, "fork") });
            add(Event::named(0, EventKind::Process, "exit_group"));
            add(Event::named(0, EventKind::Process, "ptrace"));
            add(Event::named(0, EventKind::Process, "setuid"));
            let peer = if index % 2 == 0 { "127.0.0.1" } else { "<ip:3f2a>" };
            let network = |call| Event {
                peer_addr: Some(peer),
                peer_port: Some(4444 + index as u16),
                ..Event::named(0, EventKind::Network, call)
            };
            add(network("connect"));
            add(Event { errno: Some(111), ret: Some(-1), ..network("connect") });
            add(Event { bytes: Some(10), ..network("sendto") });
            add(network("bind"));
            add(Event::named(0, EventKind::Syscall, name));
        }
    }
    events
}

fn reports(folder: &Path, verdict: Option<Action>) -> (Value, Vec<Value>, String) {
    let written = write(folder, &record(verdict), events().into_iter().map(Ok::<_, Infallible>)).unwrap();
    assert_eq!(written.events, events().len() as u64);
    let ocsf = fs::read_to_string(&written.ocsf).unwrap();
    let cape = fs::read_to_string(&written.cape).unwrap();
    for text in [&cape, &ocsf] {
        assert!(
            text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')),
            "what could act on a terminal is spelled"
        );
    }
    let rows: Vec<Value> = ocsf.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(written.ocsf_events, rows.len() as u64);
    (serde_json::from_str(&cape).unwrap(), rows, fs::read_to_string(&written.page).unwrap())
}

#[test]
fn every_call_stands_in_the_cape_report_with_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let (cape, ..) = reports(folder.path(), Some(Action::Quarantine));
    let processes = cape["behavior"]["processes"].as_array().unwrap();
    let calls: usize = processes.iter().map(|process| process["calls"].as_array().unwrap().len()).sum();
    assert_eq!(calls, events().len(), "no event is lost");
    assert_eq!(processes.len(), 2 * 149);
    let renamed = processes.iter().flat_map(|process| process["calls"].as_array().unwrap());
    let renamed = renamed.filter(|call| call["api"] == "rename");
    let targets: BTreeSet<&str> = renamed.map(|call| call["arguments"][1]["value"].as_str().unwrap()).collect();
    assert_eq!(targets, HOSTILE.into_iter().collect(), "names are exact");
    assert_eq!(cape["target"]["file"]["sha256"], Sha256::of(b"sample").to_string());
    assert_eq!((&cape["malscore"], &cape["malstatus"]), (&10.0.into(), &"Malicious".into()));
    assert_eq!(cape["info"]["started"], "2026-11-21 22:27:40");
    let ttps: BTreeSet<&str> =
        cape["ttps"].as_array().unwrap().iter().map(|ttp| ttp["ttps"][0].as_str().unwrap()).collect();
    assert!(ttps.contains("T1486") && ttps.contains("T1548.001") && ttps.contains("T1055.008"), "{ttps:?}");
    assert_eq!(cape["bellwether_windows"].as_array().unwrap().len(), 8);
    let counts = &cape["bellwether"]["counts"][1];
    assert_eq!((&counts["stage"], &counts["counts"]["refused"]["ioctl"]), (&2.into(), &3.into()));
    assert_eq!(counts["counts"]["pressure"]["refused_forks"], 9);
    assert_eq!(cape["bellwether"]["left_out"]["dropped"], 4);
    assert_eq!(cape["bellwether"]["left_out"]["processes"], 6);
    assert_eq!(
        (&cape["network"]["tcp"][0]["dport"], &cape["network"]["domains"][1]["ip"]),
        (&4444.into(), &"198.18.0.1".into())
    );
    assert_eq!(cape["bellwether"]["left_out"]["contacts"], 2);
    let http = cape["network"]["http"].as_array().unwrap();
    let told: Vec<_> =
        http.iter().map(|one| (one["method"].as_str().unwrap(), one["count"].as_u64().unwrap())).collect();
    assert_eq!(told, [("BREW", 2), ("GET", 4)], "the same request of both stages stands once");
    assert_eq!((&http[1]["port"], &http[1]["host"]), (&4444.into(), &"c2.example".into()));
    assert!(http[1]["uri"].as_str().unwrap().starts_with("http://c2.example:4444/x?to=<email:"), "{http:#?}");
    assert_eq!(
        (&http[1]["user-agent"], &http[1]["body"]),
        (&HOSTILE[0].into(), &spelled(hostile(3).as_bytes()).into())
    );
    let (cape, ..) = reports(&folder.path().join("released"), Some(Action::Release));
    assert_eq!((&cape["malscore"], &cape["malstatus"]), (&0.0.into(), &"Clean".into()));
    let (cape, ..) = reports(&folder.path().join("none"), None);
    assert_eq!(cape.get("malscore"), None);
}

#[test]
fn ocsf_events_keep_the_schema() {
    const CLASSES: [(u64, &str); 7] = [
        (1001, include_str!("ocsf-1.7.0/file_activity.schema.json")),
        (1007, include_str!("ocsf-1.7.0/process_activity.schema.json")),
        (2004, include_str!("ocsf-1.7.0/detection_finding.schema.json")),
        (4001, include_str!("ocsf-1.7.0/network_activity.schema.json")),
        (4002, include_str!("ocsf-1.7.0/http_activity.schema.json")),
        (7002, include_str!("ocsf-1.7.0/file_remediation_activity.schema.json")),
        (7003, include_str!("ocsf-1.7.0/process_remediation_activity.schema.json")),
    ];
    let validators = CLASSES
        .map(|(class, schema)| (class, jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap()));
    let folder = tempfile::tempdir().unwrap();
    let mut kinds = BTreeSet::new();
    for verdict in [Some(Action::Quarantine), Some(Action::Terminate), Some(Action::Release), None] {
        let (_, rows, _) = reports(folder.path(), verdict);
        for row in &rows {
            let class = row["class_uid"].as_u64().unwrap();
            let (_, validator) = validators.iter().find(|(known, _)| *known == class).unwrap();
            let errors: Vec<String> =
                validator.iter_errors(row).map(|error| format!("{}: {error}", error.instance_path())).collect();
            assert!(errors.is_empty(), "{errors:#?}\n{row:#}");
            kinds.insert(row["type_uid"].as_u64().unwrap());
        }
        let findings: Vec<&Value> = rows.iter().filter(|row| row["class_uid"] == 2004).collect();
        assert_eq!(findings.len(), 1);
        let convicted = verdict.is_some_and(Action::is_conviction);
        assert_eq!(findings[0]["is_alert"], convicted);
        assert_eq!(findings[0]["unmapped"]["refused"][0]["calls"]["ioctl"], 3);
        let attacks = findings[0]["finding_info"]["attacks"].as_array().unwrap();
        assert!(attacks.iter().any(|attack| attack["sub_technique"]["uid"] == "T1055.008"));
        let uids: BTreeSet<&str> = rows.iter().map(|row| row["metadata"]["uid"].as_str().unwrap()).collect();
        assert_eq!(uids.len(), rows.len(), "no two rows have one name");
    }
    let expected: BTreeSet<u64> = [
        100_101, 100_102, 100_103, 100_104, 100_105, 100_107, 100_114, 100_701, 100_702, 100_704, 100_705, 200_401,
        400_101, 400_104, 400_106, 400_107, 400_203, 400_299, 700_201, 700_301, 700_302,
    ]
    .into();
    assert_eq!(kinds, expected);
}

#[test]
fn ocsf_tells_of_a_quarantine_what_became_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    // Status of the remediation, the disposition of the finding.
    let cases = [
        (None, None, 2),
        (Some(Removal::Kept { why: hostile(1) }), Some(2), 2),
        (Some(Removal::Gone), Some(3), 3),
        (Some(Removal::Removed { other_names: 2 }), Some(4), 3),
        (Some(Removal::Removed { other_names: 0 }), Some(1), 3),
    ];
    for (removal, status, disposition) in cases {
        let mut record = record(Some(Action::Quarantine));
        // The kill took hold, whatever became of the file.
        for stage in &mut record.stages {
            stage.windows[3].decision.feedback.as_mut().unwrap().applied = true;
        }
        record.stages[0].windows.truncate(3);
        record.outcome.quarantine = removal.clone();
        let written = write(folder.path(), &record, Vec::<Result<EventBuf, Infallible>>::new()).unwrap();
        let text = fs::read_to_string(&written.ocsf).unwrap();
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |class: u64| rows.iter().filter(|row| row["class_uid"] == class).collect::<Vec<_>>();
        let told: Vec<_> = of(7002).iter().map(|row| row["status_id"].as_u64().unwrap()).collect();
        assert_eq!(told, status.into_iter().collect::<Vec<_>>(), "{removal:?}");
        assert_eq!(of(2004)[0]["disposition_id"], disposition, "{removal:?}");
        let title = of(2004)[0]["finding_info"]["title"].as_str().unwrap();
        assert_eq!(title.contains("put into quarantine"), disposition == 3, "{title}");
        let killed = of(7003).into_iter().find(|row| row["type_uid"] == 700_302).unwrap();
        assert_eq!((&killed["status_id"], killed.to_string().contains("quarantine")), (&1.into(), false));
    }
}

#[test]
fn the_page_is_what_was_written_and_nothing_that_was_named() {
    const KNOWN: [&str; 24] = [
        "!DOCTYPE", "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "table", "tr", "th", "td",
        "code", "pre", "span", "svg", "rect", "circle", "text", "br", "hr",
    ];
    let folder = tempfile::tempdir().unwrap();
    let (.., page) = reports(folder.path(), Some(Action::Quarantine));
    for character in page.chars() {
        let plain = character == '\n' || !character.is_control();
        assert!(plain && !('\u{2000}'..='\u{206f}').contains(&character), "{character:?} stands in the page");
    }
    for tag in page.split('<').skip(1) {
        let name: String =
            tag.trim_start_matches('/').chars().take_while(|c| c.is_alphanumeric() || *c == '!').collect();
        assert!(KNOWN.contains(&name.as_str()), "<{name} stands in the page");
        let inside = tag.split('>').next().unwrap();
        assert!(!inside.contains(" on") && !inside.contains("src=") && !inside.contains("href="), "{inside}");
    }
    assert!(page.contains("default-src 'none'; style-src 'sha256-"));
    assert_eq!(page.matches(" style=").count(), 0, "the policy forbids them");
    for name in HOSTILE {
        let shown = spelled(name.as_bytes()).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let shown = shown.replace('"', "&quot;").replace('\'', "&#39;").replace('`', "&#96;");
        assert!(page.contains(&shown), "{shown} is told of");
    }
    assert!(page.contains(r"\xff&lt;/title&gt;&lt;script&gt;\u{1b}[2J\u{a}.bin"), "a name is spelled once");
    assert!(page.contains("And 2 more files."));
    assert!(page.contains("ioctl: 3") && page.contains("forks refused at the bound on tasks</th><td>9"));
}

#[test]
fn events_that_cannot_be_read_leave_no_report() {
    let folder = tempfile::tempdir().unwrap();
    let broken = events().into_iter().map(Ok).chain([Err("the disk is gone")]);
    let failed = write(folder.path(), &record(None), broken);
    assert!(matches!(failed, Err(ReportError::Events(_))));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_episode_of_nothing_has_reports_too() {
    let folder = tempfile::tempdir().unwrap();
    let empty = EpisodeRecord { stages: Vec::new(), partial: vec!["it never began".to_owned()], ..record(None) };
    let written = write(folder.path(), &empty, Vec::<Result<EventBuf, Infallible>>::new()).unwrap();
    assert_eq!((written.events, written.ocsf_events), (0, 1));
    assert!(fs::read_to_string(written.page).unwrap().contains("it never began"));
}

#[test]
fn the_page_of_techniques_is_that_of_the_table() {
    let mut page = String::from(
        "# Behaviours and the techniques of ATT&CK that they are\n\nMITRE ATT&CK, Enterprise, version 17. The table is \
         `sandbox/src/report/attack.rs`; `UPDATE_DOCS=1 cargo test -p bellwether-sandbox --test report` writes this page \
         anew. A behaviour was seen, which says\nnothing of whether somebody had a right to it.\n\n| technique | name | \
         behaviour | why |\n|---|---|---|---|\n",
    );
    for (behaviour, technique, why) in behaviours() {
        page.push_str(&format!("| {} | {} | `{behaviour}` | {why} |\n", technique.id, technique.name));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats/attack-techniques.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap_or_default() == page, "docs/formats/attack-techniques.md is stale");
}

#[test]
fn a_published_reader_takes_the_reports() {
    const CHECK: &str = "import sys, json\n\
        from capa.features.extractors.cape.models import CapeReport\n\
        import jsonschema\n\
        from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema\n\
        report = CapeReport.from_buf(open(sys.argv[1], 'rb').read())\n\
        assert len(report.behavior.processes) == 298, len(report.behavior.processes)\n\
        schema = OcsfJsonSchemaEmbedded(get_ocsf_schema('1.7.0'))\n\
        names = {1001: 'file_activity', 1007: 'process_activity', 2004: 'detection_finding', 4001: 'network_activity',\n\
          4002: 'http_activity', 7002: 'file_remediation_activity', 7003: 'process_remediation_activity'}\n\
        checks = {c: jsonschema.Draft202012Validator(schema.get_class_schema(n, ['host', 'security_control'])) for c, n in names.items()}\n\
        for line in open(sys.argv[2]):\n    row = json.loads(line)\n    checks[row['class_uid']].validate(row)\n";
    let python = std::env::var("BELLWETHER_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let run = |code: &str, paths: &[&Path]| std::process::Command::new(&python).args(["-c", code]).args(paths).output();
    let needed = "import capa.features.extractors.cape.models, jsonschema, ocsf_json_schema";
    if !run(needed, &[]).is_ok_and(|done| done.status.success()) {
        assert!(std::env::var_os("BELLWETHER_TEST_PYTHON").is_none(), "{python} lacks a package: {needed}");
        eprintln!(
            "skipped a_published_reader_takes_the_reports: BELLWETHER_TEST_PYTHON names no Python with the packages \
             flare-capa, jsonschema and ocsf-json-schema"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    reports(folder.path(), Some(Action::Quarantine));
    let done = run(CHECK, &[&folder.path().join("report.json"), &folder.path().join("ocsf.jsonl")]).unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

proptest! {
    #[test]
    fn any_text_makes_reports_that_read_back(
        texts in prop::collection::vec(any::<String>(), 4),
        bytes in prop::collection::vec(any::<u8>(), 0..20),
        raw in any::<String>(),
    ) {
        // In memory where that can be had: each case forces three files to disk.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut record = record(Some(Action::Terminate));
        record.stages.truncate(1);
        let stage = &mut record.stages[0];
        stage.processes.truncate(2);
        stage.windows[0].decision.decision_id = texts[0].clone();
        stage.processes[0].program = texts[1].clone();
        stage.changes[0].path = texts[2].clone();
        record.outcome.text = texts[3].clone();
        record.sample.path = if bytes.is_empty() { raw } else { spelled(&bytes) };
        let call = Event { path: Some(&texts[0]), args: Some(&texts[1]), ..Event::named(0, EventKind::File, &texts[2]) };
        let opened = Event { path: Some(&texts[3]), pid: Some(1), ..Event::named(1, EventKind::File, "openat") };
        let events = [call, opened].map(|event| Ok::<_, Infallible>(EventBuf::from(&event)));
        let written = write(folder.path(), &record, events).unwrap();
        let cape: Value = serde_json::from_slice(&fs::read(&written.cape).unwrap()).unwrap();
        prop_assert_eq!(cape["bellwether"]["outcome"]["text"].as_str(), Some(texts[3].as_str()));
        for line in fs::read_to_string(&written.ocsf).unwrap().lines() {
            prop_assert!(serde_json::from_str::<Value>(line).is_ok());
        }
        let page = fs::read_to_string(&written.page).unwrap();
        prop_assert!(page.chars().all(|character| character == '\n' || !character.is_control()));
        prop_assert!(page.ends_with("</body></html>\n"));
    }
}
