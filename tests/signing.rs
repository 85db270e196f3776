//! Keys and signatures from outside: who signs, who verifies, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

mod program;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use program::{bellwether, keeps_schema};

/// The released model that ships with the source.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/quickstart");

/// Makes the keys `old` and `new` in a folder, and trusts the first. Returns their names.
fn keys(at: &Path) -> [String; 2] {
    let made = ["old", "new"].map(|name| {
        let made = bellwether(at, &["keys", "--json", "generate", "--out", name]).expect(0).json();
        keeps_schema("keys-generate.schema.json", &made);
        made["key_id"].as_str().unwrap().to_owned()
    });
    fs::create_dir(at.join("trusted")).unwrap();
    fs::copy(at.join("old.pub"), at.join("trusted/old.pub")).unwrap();
    made
}

#[test]
fn a_release_is_signed_at_its_promotion_and_verified_by_those_who_trust_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let [old, new] = keys(at);
    bellwether(at, &["release", "promote", MODEL, "--sign", "old"]).expect(0);
    let signature = fs::read_to_string(at.join("releases/versions/000001/signature.json")).unwrap();
    assert!(signature.contains(&old), "{signature}");
    let verify = ["release", "verify", "--trusted", "trusted"];
    bellwether(at, &verify).expect(0);
    // A new key takes over: trusted first, then used, and then the old one is let go.
    let signed = bellwether(at, &["release", "--json", "sign", "champion", "--key", "new"]).expect(0).json();
    keeps_schema("release-sign.schema.json", &signed);
    assert_eq!((&signed["number"], &signed["key_id"]), (&1.into(), &new.as_str().into()));
    let refused = bellwether(at, &verify).expect(2);
    assert!(refused.stdout.contains("not trusted"), "{}", refused.stdout);
    fs::copy(at.join("new.pub"), at.join("trusted/new.pub")).unwrap();
    bellwether(at, &verify).expect(0);
    fs::remove_file(at.join("trusted/old.pub")).unwrap();
    bellwether(at, &verify).expect(0);
    // Without a signature nothing is believed, and without keys none is demanded.
    fs::remove_file(at.join("releases/versions/000001/signature.json")).unwrap();
    assert!(bellwether(at, &verify).expect(2).stdout.contains("no signature.json"));
    bellwether(at, &["release", "verify"]).expect(0);
}

#[test]
fn keys_are_shown_by_name_and_public_half_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let [old, _] = keys(at);
    let private = fs::read_to_string(at.join("old")).unwrap();
    let secret = private.lines().nth(1).unwrap();
    for path in ["old", "old.pub", "trusted"] {
        let shown = bellwether(at, &["keys", "show", path]).expect(0);
        assert!(shown.stdout.contains(&old) && !shown.stdout.contains(secret), "{}", shown.stdout);
        let json = bellwether(at, &["keys", "--json", "show", path]).expect(0).json();
        keeps_schema("keys-show.schema.json", &json);
        assert_eq!(json[0]["key_id"], old.as_str());
        assert_eq!(json[0]["public_key"], fs::read_to_string(at.join("old.pub")).unwrap());
    }
    assert_eq!(fs::metadata(at.join("old")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_key_that_cannot_be_used_is_told_before_anything_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    keys(at);
    bellwether(at, &["keys", "generate", "--out", "old"]).complains(1, &["exists already"]);
    bellwether(at, &["release", "promote", MODEL, "--sign", "absent"]).complains(64, &["absent"]);
    bellwether(at, &["release", "promote", MODEL, "--sign", "old.pub"]).complains(64, &["old.pub"]);
    fs::set_permissions(at.join("old"), fs::Permissions::from_mode(0o640)).unwrap();
    bellwether(at, &["release", "promote", MODEL, "--sign", "old"]).complains(64, &["0640", "chmod 600"]);
    bellwether(at, &["release", "verify", "--trusted", "absent"]).complains(64, &["absent"]);
    assert!(!at.join("releases").exists());
    bellwether(at, &["release", "promote", MODEL]).expect(0);
    bellwether(at, &["release", "verify", "--trusted", "new"]).complains(64, &["private key"]);
}
