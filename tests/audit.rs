//! The audit log from outside: made, read, tampered with, handed over.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

mod program;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bellwether_artifact::audit::AuditLog;
use bellwether_artifact::secret::{Purpose, Secrets};
use program::{bellwether, keeps_schema};

/// Appends entries at these times.
fn record(at: &Path, times: &[u64]) {
    let secrets = Secrets::read(&at.join("key"), Purpose::Audit).unwrap();
    let mut log = AuditLog::open(at.join("log"), secrets).unwrap();
    for time in times {
        log.record(*time, "action", &format!("at {time} \u{1b}[2J")).unwrap();
    }
}

#[test]
fn a_log_is_made_read_and_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let made = bellwether(at, &["audit", "--json", "init", "log", "--key", "key"]).expect(0).json();
    keeps_schema("audit-report.schema.json", &made);
    assert_eq!(fs::metadata(at.join("key")).unwrap().permissions().mode() & 0o777, 0o600);
    record(at, &[10, 20]);
    let first = bellwether(at, &["audit", "--json", "verify", "log", "--key", "key"]).expect(0).json();
    keeps_schema("audit-verify.schema.json", &first);
    let anchor = format!("{}:{}", first["end"]["entries"], first["end"]["last"].as_str().unwrap());
    let rotated = bellwether(at, &["audit", "--json", "rotate", "log", "--key", "key"]).expect(0).json();
    assert_ne!(rotated["key"], made["key"]);
    record(at, &[30]);
    let verified = bellwether(at, &["audit", "verify", "log", "--key", "key", "--anchor", &anchor]).expect(0);
    assert!(verified.stdout.starts_with("4 entries") && verified.stdout.ends_with("intact\n"), "{}", verified.stdout);

    let some = ["audit", "show", "log", "--key", "key", "--from", "20", "--until", "31", "--kind", "action"];
    let shown = bellwether(at, &some).expect(0).stdout;
    assert_eq!(shown.lines().count(), 2, "{shown}");
    assert!(shown.starts_with("1 20 action") && !shown.contains('\u{1b}'), "{shown}");
    let json = bellwether(at, &[&some[..], &["--json"]].concat()).expect(0).stdout;
    assert!(fs::read_to_string(at.join("log")).unwrap().contains(json.lines().next().unwrap()));
}

#[test]
fn tampering_ends_with_2_and_wrong_secrets_with_64() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    bellwether(at, &["audit", "init", "log", "--key", "key"]).expect(0);
    bellwether(at, &["audit", "init", "log", "--key", "key"]).expect(1);
    record(at, &[10, 20]);
    let text = fs::read_to_string(at.join("log")).unwrap();
    fs::write(at.join("log"), text.replace("at 20", "at 21")).unwrap();
    let verify = ["audit", "verify", "log", "--key", "key"];
    let found = bellwether(at, &[&verify[..], &["--json"]].concat()).expect(2).json();
    keeps_schema("audit-verify.schema.json", &found);
    assert_eq!(found["problems"][0]["finding"], "changed");
    let found = bellwether(at, &verify).expect(2);
    assert!(found.stdout.contains("line 2") && found.stdout.contains("NOT INTACT"), "{}", found.stdout);
    let shown = bellwether(at, &["audit", "show", "log", "--key", "key"]).expect(2);
    assert_eq!(shown.stdout.lines().count(), 1, "what was changed is not shown");
    fs::set_permissions(at.join("key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(bellwether(at, &verify).expect(64).stderr.contains("chmod 600"));
    bellwether(at, &["audit", "verify", "log", "--key", "key", "--anchor", "5"]).expect(64);
}
