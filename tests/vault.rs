//! Quarantine from the command line: listed, restored, destroyed, and each of it noted.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

mod program;

use std::fs;
use std::path::Path;

use bellwether_artifact::secret::{Purpose, Secrets};
use bellwether_sandbox::vault::{Case, Sample, Vault};
use program::{bellwether, keeps_schema};

const NAME: &str = "a\u{1b}[2J\u{202e}b";

/// Puts a sample with a hostile name into quarantine. Returns what it is called there.
fn quarantine(at: &Path) -> String {
    fs::write(at.join(NAME), "content").unwrap();
    let secrets = Secrets::read(&at.join("key"), Purpose::Vault).unwrap();
    let case = Case { decision_id: "d\u{7}".into(), episode_id: "e".into(), time_ms: 7 };
    let sample = Sample::open(&at.join(NAME), 100).unwrap();
    Vault::open(&at.join("vault"), secrets).unwrap().quarantine(&sample, &case).unwrap().id.to_string()
}

#[test]
fn samples_are_listed_brought_back_and_destroyed() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    bellwether(at, &["vault", "init", "vault", "--key", "key"]).expect(0);
    bellwether(at, &["vault", "init", "vault", "--key", "key"]).expect(1);
    bellwether(at, &["audit", "init", "log", "--key", "log.key"]).expect(0);
    let id = quarantine(at);
    let listed = bellwether(at, &["vault", "list", "vault", "--key", "key"]).expect(0).stdout;
    assert!(listed.contains("7 bytes") && listed.contains(r"a\u{1b}[2J\u{202e}b"), "{listed}");
    assert!(!listed.contains(['\u{1b}', '\u{202e}']), "{listed}");
    let rows = bellwether(at, &["vault", "--json", "list", "vault", "--key", "key"]).expect(0).json();
    keeps_schema("vault-list.schema.json", &rows);
    assert_eq!((&rows[0]["id"], &rows[0]["problem"]), (&id.as_str().into(), &serde_json::Value::Null));

    let noted = ["--key", "key", "--audit", "log", "--audit-key", "log.key"];
    let run = |verb: &str, more: &[&str], code| {
        let thing = ["vault", "--json", verb, "vault", &id[..6]];
        bellwether(at, &[&thing[..], &noted[..], more].concat()).expect(code)
    };
    let restored = run("restore", &["--to", "back"], 0).json();
    keeps_schema("vault-restore.schema.json", &restored);
    assert_eq!(fs::read_to_string(at.join("back")).unwrap(), "content");
    run("restore", &["--to", "back"], 1);
    let settled = run("settle", &[], 0).json();
    keeps_schema("vault-settle.schema.json", &settled);
    assert_eq!(settled["original"], "gone");
    run("restore", &[], 0);
    assert_eq!(fs::read_to_string(at.join(NAME)).unwrap(), "content");
    keeps_schema("vault-purge.schema.json", &run("purge", &[], 0).json());
    run("purge", &[], 1);

    let shown = bellwether(at, &["audit", "show", "log", "--key", "log.key"]).expect(0).stdout;
    let kinds: Vec<&str> = shown.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
    let restored = "vault.restored";
    assert_eq!(kinds, [restored, restored, "vault.settled", restored, "vault.purged"]);
}

#[test]
fn what_cannot_be_opened_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    bellwether(at, &["vault", "init", "vault", "--key", "key"]).expect(0);
    bellwether(at, &["audit", "init", "log", "--key", "log.key"]).expect(0);
    let id = quarantine(at);
    bellwether(at, &["vault", "list", "vault", "--key", "log.key"]).expect(64);
    bellwether(at, &["vault", "purge", "vault", &id, "--key", "key", "--audit", "log"]).expect(64);
    bellwether(at, &["vault", "purge", "vault", &id, "--key", "key", "--audit", "no", "--audit-key", "log.key"])
        .expect(64);
    fs::remove_file(at.join("key")).unwrap();
    bellwether(at, &["vault", "init", "another", "--key", "key"]).expect(0);
    let listed = bellwether(at, &["vault", "list", "vault", "--key", "key"]).expect(0).stdout;
    assert!(listed.contains("which is not in this file"), "{listed}");
    bellwether(at, &["vault", "restore", "vault", &id, "--key", "key"]).expect(1);
}
