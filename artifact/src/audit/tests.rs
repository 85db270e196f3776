#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::*;
use crate::secret::{Purpose, Secret, Secrets};

fn secrets(seed: u8) -> Secrets {
    Secrets::new(Purpose::Audit, Secret::from_bytes(Zeroizing::new([seed; 32])))
}

/// A log of entries with these bodies, committed; its path.
fn written(folder: &Path, name: &str, bodies: &[Value]) -> PathBuf {
    let path = folder.join(name);
    let mut log = AuditLog::create(&path, secrets(1)).unwrap();
    for (time, body) in bodies.iter().enumerate() {
        log.append(1_000 + time as u64, "act", body).unwrap();
    }
    log.commit().unwrap();
    path
}

fn head_of(path: &Path) -> PathBuf {
    head::path_of(path)
}

fn check(path: &Path) -> Verification {
    verify(path, &secrets(1), &[]).unwrap()
}

fn findings(path: &Path) -> Vec<Finding> {
    check(path).problems.into_iter().map(|problem| problem.finding).collect()
}

fn bodies() -> impl Strategy<Value = Vec<Value>> {
    let body = prop_oneof![
        any::<String>().prop_map(|text| json!({ "text": text })),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(|value| json!({ "value": value })),
        any::<i64>().prop_map(|value| json!([value, null, { "b": true, "a": [] }])),
    ];
    prop::collection::vec(body, 1..8)
}

#[test]
fn entries_are_read_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let mut log = AuditLog::create(&path, secrets(1)).unwrap();
    assert!(check(&path).intact);
    let hostile = "<script>\u{202e}\n";
    log.record(5, "action", &(0.1_f32, 1e20_f32, hostile)).unwrap();
    let end = log.record(3, "feedback", &"done").unwrap();
    let mut seen = Vec::new();
    let found = examine(&path, &secrets(1), &[end], |entry, line| {
        let value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::from_value::<Entry>(value["entry"].clone()).unwrap(), *entry);
        seen.push((entry.seq, entry.time_ms, entry.kind.clone(), entry.body.clone()));
        Ok(())
    });
    let found = found.unwrap();
    assert!(found.intact, "{found:?}");
    assert_eq!((found.entries, found.first_time_ms, found.last_time_ms), (2, Some(5), Some(3)));
    assert_eq!((found.end, found.head), (end, Some(end)));
    assert_eq!(seen[0], (0, 5, "action".into(), json!([0.1, 1e20, hostile])));
    assert_eq!(seen[1], (1, 3, "feedback".into(), json!("done")));
    assert_eq!(end.to_string().parse::<Anchor>().unwrap(), end);
    assert!("2:zz".parse::<Anchor>().is_err());
}

#[test]
fn files_are_private_and_never_made_over() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "log", &[json!(1)]);
    for file in [&path, &head_of(&path)] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(AuditLog::create(&path, secrets(1)).is_err());
    fs::remove_file(&path).unwrap();
    assert!(AuditLog::create(&path, secrets(1)).is_err(), "a head stands there");
    assert!(matches!(AuditLog::open(&path, secrets(1)), Err(AuditError::Tampered { .. })));
}

#[test]
fn what_cannot_be_logged_is_refused_and_leaves_the_log_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "log", &[]);
    let mut log = AuditLog::open(&path, secrets(1)).unwrap();
    for kind in ["", "A", "a b", "audit.rotated", "audit.anything"] {
        assert!(matches!(log.append(0, kind, &1), Err(AuditError::Kind { .. })), "{kind:?}");
    }
    assert!(matches!(log.append(0, "a", &f64::NAN), Err(AuditError::Canonical(_))));
    let long = "x".repeat(MAX_ENTRY_BYTES as usize);
    assert!(matches!(log.append(0, "a", &long), Err(AuditError::TooLong { .. })));
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    assert!(matches!(AuditLog::open(&path, secrets(2)), Err(AuditError::Head { .. })));
    assert!(matches!(AuditLog::open(folder.path().join("none"), secrets(1)), Err(AuditError::NoHead { .. })));
}

#[test]
fn a_new_secret_takes_over_and_the_old_one_proves_nothing_new() {
    let folder = tempfile::tempdir().unwrap();
    let (path, key) = (folder.path().join("log"), folder.path().join("key"));
    let old = Secrets::generate(&key, Purpose::Audit).unwrap();
    let mut log = AuditLog::create(&path, old.clone()).unwrap();
    log.record(1, "act", &1).unwrap();
    let new = Secrets::rotate(&key, Purpose::Audit).unwrap();
    let unfinished = verify(&path, &new, &[]).unwrap();
    assert_eq!(unfinished.problems[0].finding, Finding::OldHead);
    log.rotate(2, new.clone()).unwrap();
    log.rotate(3, new.clone()).unwrap();
    log.record(4, "act", &2).unwrap();
    let found = verify(&path, &new, &[]).unwrap();
    assert!(found.intact && found.entries == 3, "{found:?}");
    let mut keys = Vec::new();
    examine(&path, &new, &[], |entry, _| {
        keys.push((entry.kind.clone(), entry.key));
        Ok(())
    })
    .unwrap();
    let (first, second) = (old.newest().id(), new.newest().id());
    assert_eq!(keys, [("act".into(), first), ("audit.rotated".into(), first), ("act".into(), second)]);

    // Whoever has the old secret alone cannot go on, and an entry sealed with it has no place any more.
    assert!(matches!(AuditLog::open(&path, old.clone()), Err(AuditError::Head { .. })));
    let mut chain = chain::Chain::start(first);
    chain.at = log.end();
    let (line, _) = chain.seal(5, "act", json!(3), &old).unwrap();
    OpenOptions::new().append(true).open(&path).unwrap().write_all(line.as_bytes()).unwrap();
    assert_eq!(verify(&path, &new, &[]).unwrap().problems[0].finding, Finding::OtherKey { seq: 3 });
    assert!(matches!(log.append(6, "act", &4), Err(AuditError::Tampered { .. })));

    // A whole log and head of the old secret's making do not pass either.
    let forged = folder.path().join("forged");
    AuditLog::create(&forged, old).unwrap().record(1, "act", &9).unwrap();
    assert_eq!(verify(&forged, &new, &[]).unwrap().problems[0].finding, Finding::OldHead);
}

#[test]
fn an_earlier_state_is_found_by_who_kept_an_anchor() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "log", &[json!(1)]);
    let (log, head) = (fs::read(&path).unwrap(), fs::read(head_of(&path)).unwrap());
    let kept = AuditLog::open(&path, secrets(1)).unwrap().record(9, "act", &2).unwrap();
    fs::write(&path, log).unwrap();
    fs::write(head_of(&path), head).unwrap();
    assert!(check(&path).intact, "nobody can tell");
    let found = verify(&path, &secrets(1), &[kept]).unwrap();
    assert_eq!(found.problems[0].finding, Finding::Truncated { entries: 2 });
}

#[test]
fn a_missing_or_foreign_head_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "log", &[json!(1), json!(2)]);
    let other = written(folder.path(), "other", &[json!(1), json!(3)]);
    fs::copy(head_of(&other), head_of(&path)).unwrap();
    assert_eq!(findings(&path), [Finding::OtherLog { entries: 2 }]);
    fs::remove_file(head_of(&path)).unwrap();
    assert_eq!(findings(&path), [Finding::NoHead]);
    fs::write(head_of(&path), "{}\n").unwrap();
    assert_eq!(findings(&path), [Finding::ForgedHead]);
}

#[test]
fn several_writers_share_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "log", &[]);
    let write = |name: &'static str| {
        let path = path.clone();
        move || {
            let mut log = AuditLog::open(path, secrets(1)).unwrap();
            for number in 0..40 {
                log.append(number, name, &number).unwrap();
                if number % 7 == 0 {
                    log.commit().unwrap();
                }
            }
            log.commit().unwrap();
        }
    };
    std::thread::scope(|scope| {
        ["a", "b", "c"].map(|name| scope.spawn(write(name))).map(|thread| thread.join().unwrap())
    });
    let found = check(&path);
    assert!(found.intact && found.entries == 120 && found.head == Some(found.end), "{found:?}");
}

#[test]
fn a_replaced_file_is_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "log", &[json!(1)]);
    let mut log = AuditLog::open(&path, secrets(1)).unwrap();
    fs::rename(&path, folder.path().join("moved")).unwrap();
    assert!(matches!(log.append(0, "act", &2), Err(AuditError::Replaced { .. })));
    fs::copy(folder.path().join("moved"), &path).unwrap();
    assert!(matches!(log.append(0, "act", &2), Err(AuditError::Replaced { .. })));
}

#[test]
fn bytes_at_the_end_that_are_no_entry_are_told_of_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    for (tail, torn) in [("{\"entry\":{\"bo", 1), ("\n", 1), ("nonsense\n\n{more", 1), ("x\n", 1)] {
        let path = written(folder.path(), &format!("log{}", tail.len()), &[json!(1)]);
        let before = fs::read(&path).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(tail.as_bytes()).unwrap();
        let found = check(&path);
        let unfinished = found.unfinished.unwrap();
        assert!(found.intact);
        assert_eq!((unfinished.from_byte, unfinished.bytes), (before.len() as u64, tail.len() as u64));
        let mut log = AuditLog::open(&path, secrets(1)).unwrap();
        log.record(7, "act", &2).unwrap();
        assert_eq!(log.recovered(), Recovered { torn, torn_bytes: tail.len() as u64, finished: 0 });
        let after = fs::read(&path).unwrap();
        assert!(after.starts_with(&[&before, tail.as_bytes()].concat()), "nothing is lost");
        let found = check(&path);
        assert!(found.intact && found.entries == 3 && found.torn_bytes > 0 && found.unfinished.is_none(), "{found:?}");

        // The note covers those very bytes: others in their place, or none, are tampering.
        let mut other = after.clone();
        other[before.len()] ^= 1;
        fs::write(&path, &other).unwrap();
        assert!(!check(&path).intact);
        fs::write(&path, [&after[..before.len()], &after[before.len() + tail.len()..]].concat()).unwrap();
        assert!(!check(&path).intact);
    }
}

#[test]
fn a_note_of_torn_bytes_may_be_torn_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "log", &[json!(1)]);
    let whole = fs::metadata(&path).unwrap().len();
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"en").unwrap();
    AuditLog::open(&path, secrets(1)).unwrap().append(7, "act", &2).unwrap();
    let bytes = fs::read(&path).unwrap();
    for cut in whole as usize..=bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        let before = check(&path);
        AuditLog::open(&path, secrets(1)).unwrap().append(8, "act", &3).unwrap();
        let found = check(&path);
        assert!(before.intact && found.intact && found.entries > before.entries, "cut at {cut}: {found:?}");
        assert!(fs::read(&path).unwrap().starts_with(&bytes[..cut]), "nothing is lost");
    }
}

proptest! {
    #[test]
    fn a_writer_that_died_at_any_byte_loses_no_committed_entry(
        bodies in bodies(),
        committed in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        again in any::<prop::sample::Index>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = AuditLog::create(&path, secrets(1)).unwrap();
        let committed = committed.index(bodies.len());
        let mut ends = vec![0];
        for (index, body) in bodies.iter().enumerate() {
            if index == committed {
                log.commit().unwrap();
            }
            log.append(0, "act", body).unwrap();
            ends.push(fs::metadata(&path).unwrap().len());
        }
        drop(log);
        let tear = |from: u64, at: prop::sample::Index| {
            let length = fs::metadata(&path).unwrap().len();
            let cut = from + at.index((length - from) as usize + 1) as u64;
            OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();
            cut
        };
        let cut = tear(ends[committed], cut);
        let whole = ends.iter().filter(|end| **end <= cut).count() as u64 - 1;
        let found = check(&path);
        prop_assert!(found.intact, "{:?}", found);
        prop_assert_eq!(found.entries, whole);
        prop_assert_eq!(found.unfinished.map(|torn| torn.bytes), (cut > ends[whole as usize]).then(|| cut - ends[whole as usize]));

        // The next writer dies as well, at any byte of what it added.
        let mut log = AuditLog::open(&path, secrets(1)).unwrap();
        log.append(1, "act", &"next").unwrap();
        drop(log);
        tear(cut, again);
        prop_assert!(check(&path).intact);
        let mut log = AuditLog::open(&path, secrets(1)).unwrap();
        log.record(2, "act", &"last").unwrap();
        let found = check(&path);
        prop_assert!(found.intact && found.unfinished.is_none() && found.entries > whole, "{:?}", found);
        prop_assert_eq!(found.end, log.end());
    }

    #[test]
    fn any_change_of_a_committed_log_is_found(
        bodies in bodies(),
        kind in 0..7,
        one in any::<prop::sample::Index>(),
        two in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), "log", &bodies);
        let bytes = fs::read(&path).unwrap();
        let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        let (first, second) = (one.index(lines.len()), two.index(lines.len()));
        let mut changed = bytes.clone();
        let mut moved = lines.clone();
        match kind {
            0 => changed[one.index(bytes.len())] ^= flip,
            1 => drop(changed.remove(one.index(bytes.len()))),
            2 => changed.truncate(one.index(bytes.len())),
            3 => changed.insert(one.index(bytes.len() + 1), flip),
            4 => drop(moved.remove(first)),
            5 => moved.swap(first, second),
            _ => moved.insert(second, lines[first]),
        }
        if kind > 3 {
            changed = moved.concat();
        }
        prop_assume!(changed != bytes);
        fs::write(&path, &changed).unwrap();
        let found = check(&path);
        // Bytes behind the end are no entry and no harm, and are told of; all else is tampering.
        let appended = changed.starts_with(&bytes) && kind == 3;
        prop_assert_eq!(found.intact, appended, "{:?}", found);
        prop_assert_eq!(found.unfinished.is_some(), appended);
        if !appended {
            // A writer refuses at once, or the head stands as a witness until somebody verifies.
            let mut log = AuditLog::open(&path, secrets(1));
            if let Ok(log) = &mut log {
                let _ = log.record(0, "act", &1);
            }
            drop(log);
            prop_assert!(!check(&path).intact, "going on hides nothing");
        }
    }

    #[test]
    fn any_change_of_the_head_is_found(bodies in bodies(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), "log", &bodies);
        let mut head = fs::read(head_of(&path)).unwrap();
        let at = at.index(head.len());
        head[at] ^= flip;
        fs::write(head_of(&path), head).unwrap();
        prop_assert_eq!(findings(&path), [Finding::ForgedHead]);
    }

    #[test]
    fn any_bytes_are_read(data in prop::collection::vec(any::<u8>(), 0..500), line in bodies()) {
        fuzz_audit_log(&data);
        // Sealed with another secret, and so nearly right.
        let folder = tempfile::tempdir().unwrap();
        fuzz_audit_log(&fs::read(written(folder.path(), "log", &line)).unwrap());
        fuzz_audit_log(&fs::read(head_of(&folder.path().join("log"))).unwrap());
    }
}
