//! JSON Lines and ADFA-LD: exact round trips, the original layout, and what is counted.
#![cfg(feature = "ingest")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod arbitrary;

use std::fs::{create_dir_all, read_dir};
use std::io::Write;
use std::path::{Path, PathBuf};

use arbitrary::{Episode, Kept, episodes, hand_to};
use bellwether_env_adapter::ingest::{
    Format, IngestError, JsonlWriter, Options, QualityReport, TelemetryReader, TelemetryWriter, read_jsonl,
};
use bellwether_env_adapter::redact::Redactor;
use bellwether_env_adapter::{EventKind, Label};
use proptest::prelude::*;

fn read(text: &str) -> (Vec<Episode>, QualityReport) {
    let (mut kept, mut report) = (Kept::default(), QualityReport::default());
    read_jsonl(text.as_bytes(), "f.jsonl", &Options::default(), &mut kept, &mut report).unwrap();
    (kept.0, report)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn json_lines_read_back_exactly(mut episodes in episodes(4, 0..8)) {
        // What a reader redacts is redacted beforehand: a second time changes nothing.
        let redactor = Redactor::default();
        for event in episodes.iter_mut().flat_map(|episode| &mut episode.events) {
            for text in [&mut event.path, &mut event.path2, &mut event.args, &mut event.peer_addr] {
                *text = text.as_ref().map(|text| redactor.redact(text, &mut String::new()).to_owned());
            }
        }
        let mut writer = JsonlWriter::new(Vec::new());
        hand_to(&episodes, &mut writer).unwrap();
        let text = String::from_utf8(writer.finish().unwrap()).unwrap();
        let (back, report) = read(&text);
        prop_assert_eq!(back, episodes);
        prop_assert_eq!(report.bad_lines.count, 0);
    }
}

#[test]
fn a_line_inherits_what_it_leaves_out() {
    let (episodes, report) = read(concat!(
        "{\"episode_id\":\"a\",\"label\":\"malicious\",\"family\":\"f\",\"name\":\"openat\",\"path\":\"/x\"}\n",
        "{\"name\":\"write\",\"bytes\":5}\n",
        "{\"name\":\"read\",\"stage\":2}\n",
        "{\"name\":\"connect\",\"seq\":9,\"kind\":\"behaviour\"}\n",
        "{\"name\":\"read\"}\n",
        "{\"complete\":false}\n",
        "{\"episode_id\":\"empty\"}\n",
        "{\"episode_id\":\"b\",\"name\":\"read\",\"path\":null}\n",
    ));
    assert_eq!(report.bad_lines.count, 0, "{report}");
    let places: Vec<_> = episodes[0].events.iter().map(|event| (event.stage, event.seq, event.kind)).collect();
    assert_eq!(
        places,
        [
            (1, 0, EventKind::File),
            (1, 1, EventKind::File),
            (2, 0, EventKind::File),
            (2, 9, EventKind::Behaviour),
            (2, 10, EventKind::File),
        ]
    );
    assert_eq!((episodes[0].attributes.label, episodes[0].attributes.complete), (Some(Label::Malicious), false));
    let ids: Vec<_> = episodes.iter().map(|episode| episode.attributes.episode_id.0.as_str()).collect();
    assert_eq!(ids, ["a", "empty", "b"]);
    assert_eq!((report.episodes, report.events, report.empty_episodes.count), (3, 6, 1));
    assert_eq!((report.incomplete_episodes, report.one_event_episodes.count), (1, 1));
}

#[test]
fn broken_lines_are_counted_with_number_and_reason() {
    let good = "{\"episode_id\":\"a\",\"name\":\"read\"}\n";
    for (line, reason) in [
        ("{\"name\":", "EOF"),
        ("[1,2]", "expected an event"),
        ("{\"name\":5}", "`name`"),
        ("{\"name\":\"x\",\"pid\":\"7\"}", "`pid`"),
        ("{\"name\":\"x\",\"pid\":1.5}", "`pid`"),
        ("{\"name\":\"x\",\"pid\":-1}", "`pid`"),
        ("{\"name\":\"x\",\"created\":1}", "`created`"),
        ("{\"name\":\"x\",\"kind\":\"files\"}", "unknown kind"),
        ("{\"name\":\"x\",\"label\":\"evil\"}", "`label`"),
        ("{\"name\":\"x\",\"entropy\":9}", "`entropy`"),
        ("{\"name\":\"x\",\"stage\":3}", "`stage`"),
        ("{\"name\":\"\"}", "`name`"),
        ("{\"path\":\"/x\"}", "without `name`"),
        ("{\"name\":\"x\",\"name\":\"y\"}", "twice"),
        ("{\"name\":\"x\",\"seq\":0}", "(stage, seq)"),
        ("{\"name\":\"x\",\"family\":\"g\"}", "`family` differs"),
        ("{\"name\":\"x\"} {}", "trailing"),
        ("\u{0}", "expected"),
    ] {
        let (episodes, report) = read(&format!("{good}{line}\n{{\"name\":\"write\"}}\n"));
        assert_eq!(report.bad_lines.count, 1, "{line}: {report}");
        let problem = &report.bad_lines.examples[0];
        assert_eq!((problem.line, problem.file.as_str()), (2, "f.jsonl"));
        assert!(problem.reason.contains(reason), "{line}: {}", problem.reason);
        let names: Vec<_> = episodes[0].events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names, ["read", "write"], "{line}");
    }
    let (episodes, report) = read("{\"name\":\"read\"}\n");
    assert!(episodes.is_empty() && report.bad_lines.examples[0].reason.contains("episode_id"));
}

#[test]
fn no_episode_gets_the_events_of_another_whose_first_line_is_broken() {
    let long = "x".repeat(70_000);
    for head in [
        "{\"episode_id\":\"b\",\"label\":\"malicious\",\"name\":".to_owned(),
        "{\"episode_id\":\"b\",\"label\":\"evil\",\"name\":\"open\"}".to_owned(),
        "{\"episode_id\":\"\",\"name\":\"open\"}".to_owned(),
        format!("{{\"episode_id\":\"b\",\"family\":\"{long}\",\"name\":\"open\"}}"),
        format!("{{\"episode_id\":\"{long}\",\"name\":\"open\"}}"),
    ] {
        let (episodes, report) = read(&format!(
            "{}{head}\n{}{}",
            "{\"episode_id\":\"a\",\"label\":\"benign\",\"name\":\"read\"}\n",
            "{\"name\":\"write\"}\n{\"name\":\"unlink\"}\n",
            "{\"episode_id\":\"c\",\"name\":\"close\"}\n{\"name\":\"open\"}\n",
        ));
        let told: Vec<_> =
            episodes.iter().map(|episode| (&*episode.attributes.episode_id.0, episode.events.len())).collect();
        assert_eq!(told, [("a", 1), ("c", 2)], "{head:.60}");
        let lines: Vec<u64> = report.bad_lines.examples.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [2, 3, 4], "{head:.60}: {report}");
    }
    // A bad event on a first line leaves its episode open.
    let (episodes, report) = read("{\"episode_id\":\"b\",\"name\":\"open\",\"entropy\":9}\n{\"name\":\"write\"}\n");
    assert_eq!((episodes[0].events.len(), report.bad_lines.count), (1, 1));
    // Where every line names its episode, a bad one costs itself alone.
    let named = "{\"episode_id\":\"a\",\"name\":\"read\"}\n";
    let (episodes, report) = read(&format!("{named}{{\"episode_id\":\"a\",\"name\":5}}\n{named}"));
    assert_eq!((episodes[0].events.len(), report.bad_lines.count, report.duplicate_ids.count), (2, 1, 0));
}

#[test]
fn unknown_keys_and_repeated_ids_are_counted() {
    let (episodes, report) = read(concat!(
        "{\"episode_id\":\"a\",\"name\":\"read\",\"colour\":{\"x\":[1]}}\n",
        "{\"episode_id\":\"b\",\"name\":\"read\",\"colour\":1}\n",
        "{\"episode_id\":\"a\",\"name\":\"write\"}\n",
    ));
    assert_eq!(report.unknown_keys.counts["colour"], 2);
    assert_eq!(report.duplicate_ids.examples, ["a"]);
    assert_eq!(report.bad_lines.examples[0].line, 3);
    assert_eq!((episodes.len(), report.duplicate_contents.count), (2, 1));
}

fn put(path: &Path, bytes: &[u8]) {
    create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::OpenOptions::new().create(true).truncate(true).write(true).open(path).unwrap().write_all(bytes).unwrap();
}

const TRACES: [(&str, &str); 7] = [
    ("Training_Data_Master/UTD-0001.txt", "265 168 102 3 "),
    ("Validation_Data_Master/UVD-0001.txt", "4 4\n5 x7 12345"),
    ("Validation_Data_Master/UVD-0002.txt", "  \n"),
    ("Attack_Data_Master/Adduser_1/UAD-Adduser-1-1.txt", "11"),
    ("Attack_Data_Master/Adduser_1/UAD-Adduser-1-2.txt", "265 168 102 3"),
    ("Attack_Data_Master/UAD-Adduser-1-3.txt", "11 11"),
    ("notes/readme.txt", "not a trace"),
];

fn check_adfa(path: &Path) {
    let (mut kept, mut report) = (Kept::default(), QualityReport::default());
    Format::AdfaLd.read(path, &Options::default(), &mut kept, &mut report).unwrap();
    let told: Vec<_> = kept
        .0
        .iter()
        .map(|episode| {
            let names: Vec<_> = episode.events.iter().map(|event| event.name.as_str()).collect();
            let attributes = &episode.attributes;
            (attributes.episode_id.0.as_str(), attributes.label.unwrap(), attributes.family.as_deref(), names.join(" "))
        })
        .collect();
    let same = "clock_gettime poll socketcall read".to_owned();
    assert_eq!(
        told,
        [
            ("UAD-Adduser-1-1", Label::Malicious, Some("Adduser_1"), "execve".to_owned()),
            ("UAD-Adduser-1-2", Label::Malicious, Some("Adduser_1"), same.clone()),
            ("UTD-0001", Label::Benign, None, same),
            ("UVD-0001", Label::Benign, None, "write write open syscall_12345".to_owned()),
            ("UVD-0002", Label::Benign, None, String::new()),
        ]
    );
    assert_eq!((report.episodes, report.events), (5, 13));
    assert_eq!((report.empty_episodes.count, report.one_event_episodes.count), (1, 1));
    assert_eq!((report.duplicate_contents.count, report.contradicting_labels.count), (1, 1));
    assert_eq!(report.unknown_calls.counts["syscall_12345"], 1);
    assert_eq!(report.notes.counts["files outside the layout (not read)"], 2);
    let problem = &report.bad_lines.examples[0];
    assert_eq!((report.bad_lines.count, problem.line), (1, 2));
    assert!(problem.file.ends_with("UVD-0001.txt") && problem.reason.contains("x7"), "{problem:?}");
}

#[test]
fn the_original_layout_as_folder_and_as_archive() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in TRACES {
        put(&folder.path().join("ADFA-LD").join(name), text.as_bytes());
    }
    check_adfa(folder.path());
    check_adfa(&folder.path().join("ADFA-LD"));
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    // Another order than that of the names.
    for (name, text) in TRACES.iter().rev() {
        zip.start_file(format!("ADFA-LD/{name}"), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    let bytes = zip.finish().unwrap().into_inner();
    let path = folder.path().join("adfa.zip");
    put(&path, &bytes);
    check_adfa(&path);
    // A cut or a foreign archive is an error that says so.
    put(&path, &bytes[..bytes.len() / 2]);
    let (mut kept, mut report) = (Kept::default(), QualityReport::default());
    let error = Format::AdfaLd.read(&path, &Options::default(), &mut kept, &mut report).unwrap_err();
    assert!(matches!(error, IngestError::Archive { .. }), "{error}");
    let other = tempfile::tempdir().unwrap();
    put(&other.path().join("a.txt"), b"1 2 3");
    let error = Format::AdfaLd.read(other.path(), &Options::default(), &mut kept, &mut report).unwrap_err();
    assert!(matches!(error, IngestError::NothingFound { .. }), "{error}");
}

#[test]
fn formats_go_by_their_names() {
    for format in Format::ALL {
        assert_eq!(format.name().parse::<Format>().unwrap(), format);
    }
    assert!(matches!("pcap".parse::<Format>(), Err(IngestError::UnknownFormat(_))));
}

/// A folder with data sets that cannot be shipped, from the environment.
fn data(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("BELLWETHER_DATA")?).join(name);
    let found = read_dir(&folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    found.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "zip" || extension == "gz"))
}

#[test]
fn data_sets_pass_through_telemetry_unchanged() {
    for (name, format) in [("adfa-ld", Format::AdfaLd), ("ntmaldetect", Format::CallsCsv)] {
        let Some(path) = data(name) else {
            eprintln!("skipped {name}: BELLWETHER_DATA names no folder that holds it");
            continue;
        };
        let (mut kept, mut report) = (Kept::default(), QualityReport::default());
        format.read(&path, &Options::default(), &mut kept, &mut report).unwrap();
        assert_eq!(report.bad_lines.count, 0, "{report}");
        assert!(report.labels.benign > 0 && report.labels.malicious > 0 && report.labels.missing == 0);
        let mut writer = TelemetryWriter::new(Vec::new()).unwrap();
        hand_to(&kept.0, &mut writer).unwrap();
        let (bytes, summary) = writer.finish().unwrap();
        assert_eq!((summary.episodes, summary.events), (report.episodes, report.events));
        let mut back = Kept::default();
        TelemetryReader::from_bytes(bytes).unwrap().read(&mut back).unwrap();
        assert!(back.0 == kept.0, "{name} changed on its way");
    }
}
