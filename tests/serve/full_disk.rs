//! A full disk under the log of decisions takes nothing from clients.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::program::command_after;
use crate::served::{Served, ask, fates_until, model};

/// Mounts of their own need root; without, the test says so.
fn mounts_allowed(test: &str) -> bool {
    let tried = Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    let allowed = tried.is_ok_and(|output| output.status.success());
    if !allowed {
        eprintln!("skipped: {test} needs root and unshare(1) to mount a small file system");
    }
    allowed
}

#[test]
fn decisions_go_on_while_the_disk_of_their_log_is_full_and_are_logged_again_when_it_has_room() {
    if !mounts_allowed("decisions_go_on_while_the_disk_of_their_log_is_full") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("small")).unwrap();
    // Beside the log lies something that takes most of the room, and can be removed.
    let script = "mount -t tmpfs -o size=64k none small && head -c 40960 /dev/zero > small/other && exec \"$@\"";
    let wrapper = ["unshare", "--mount", "sh", "-c", script, "sh"];
    let log = "decisions={ path = \"small/decisions.jsonl\", states = true }";
    let model = model();
    let arguments = ["--json", "serve", "--models", &model, "--no-grpc", "--http", "127.0.0.1:0", "--set", log];
    let (mut served, told) = Served::run(&mut command_after(folder.path(), &wrapper, &arguments));
    let address = told["endpoints"]["http"].as_str().unwrap();
    let root = format!("/proc/{}/root", served.child.id());
    let small = Path::new(&root).join(folder.path().strip_prefix("/").unwrap()).join("small");

    let mut asked = 0;
    let mut ask = |states| {
        ask(address, states);
        asked += states as u64;
        asked
    };
    // With its state a decision takes more than 2 KiB, and there is room for 24.
    for _ in 0..4 {
        ask(8);
    }
    let [written, dropped, failed] =
        fates_until(address, "the end of the room", |fates| fates[2] > 0 && fates.iter().sum::<u64>() == 32);
    assert!(written < 12 && dropped == 0, "{written} were written, {dropped} dropped and {failed} failed");

    std::fs::remove_file(small.join("other")).unwrap();
    let asked = ask(8);
    let again = fates_until(address, "a log that is written again", |fates| fates.iter().sum::<u64>() == asked);
    assert_eq!(again, [written + 8, 0, failed]);

    let text = std::fs::read_to_string(small.join("decisions.jsonl")).unwrap();
    let (whole, cut): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line["action"].is_string()));
    // Of lines that were written at once some may have found room before the others did not.
    assert!(
        whole.len() as u64 >= written + 8 && cut.len() <= 1,
        "{} lines are whole, {} are not",
        whole.len(),
        cut.len()
    );
    assert!(text.ends_with('\n'));

    served.tell("-TERM");
    assert_eq!(served.ended().code(), Some(0));
    let complaints = served.complaints();
    for said in ["decisions are not logged", "No space left on device", "decisions are logged again"] {
        assert_eq!(complaints.matches(said).count(), 1, "{said} in {complaints}");
    }
    assert!(complaints.contains(&format!("lost={failed}")), "{complaints}");
}
