//! What stands on disk when the disk is full, the file-size limit is reached, or the process is killed.
//!
//! Each test runs itself again as a child process with `CHILD` set, because limits and deaths belong to processes.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bellwether_artifact::{ArtifactError, JsonLines, JsonLinesReader, durable};

const CHILD: &str = "BELLWETHER_TEST_CHILD_FOLDER";

/// The folder to work in where this process is the child.
fn child_folder() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// This test binary with one test, under `sh -c SETUP`.
fn child(test: &str, setup: &str, folder: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{setup} exec \"$@\""), "sh"]);
    command.arg(std::env::current_exe().unwrap()).args([test, "--exact", "--nocapture"]);
    command.env(CHILD, folder).env_remove("NEXTEST_EXECUTION_MODE");
    command
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Fails to write a large file and a long log in `folder` and checks what is left.
fn write_until_refused(folder: &Path, kinds: &[io::ErrorKind]) {
    let path = folder.join("artefact");
    durable::write_bytes(&path, b"old").unwrap();
    let failed = durable::write(&path, |out| out.write_all(&vec![7; 1 << 20]));
    match failed {
        Err(ArtifactError::Io { cause, .. }) => assert!(kinds.contains(&cause.kind()), "{cause:?}"),
        other => panic!("a megabyte must not fit, but: {other:?}"),
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(names(folder), ["artefact"]);

    let mut log = JsonLines::create(folder.join("log")).unwrap();
    let record = "x".repeat(1000);
    let written = (0..2000).take_while(|_| log.append(&record).is_ok()).count() as u64;
    assert!((1..2000).contains(&written), "{written} records were written");
    assert_eq!(log.offset(), written * 1003);
    let mut reader = JsonLinesReader::open(log.path()).unwrap();
    assert_eq!(reader.read_all::<String>().unwrap().len() as u64, written);
    assert_eq!(reader.torn(), None, "the part of a line that was written is taken back");
}

#[test]
fn a_reached_file_size_limit_leaves_the_old_content() {
    if let Some(folder) = child_folder() {
        return write_until_refused(&folder, &[io::ErrorKind::FileTooLarge]);
    }
    let folder = tempfile::tempdir().unwrap();
    // An ignored signal turns death at the limit into an error of the write.
    let setup = "trap '' XFSZ; ulimit -f 64;";
    let status = child("a_reached_file_size_limit_leaves_the_old_content", setup, folder.path()).status().unwrap();
    assert!(status.success());
    assert_eq!(names(folder.path()), ["artefact", "log"], "the child must have done its work");
}

#[test]
fn a_full_disk_leaves_the_old_content() {
    if let Some(folder) = child_folder() {
        return write_until_refused(&folder, &[io::ErrorKind::StorageFull]);
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=256k none \"$BELLWETHER_TEST_CHILD_FOLDER\"";
    let private = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", command, "sh"]).env(CHILD, folder.path());
        unshare
    };
    if !private(mount).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        println!("skipped: a_full_disk_leaves_the_old_content needs root and unshare(1) to mount a small file system");
        return;
    }
    let mut command = private(&format!("{mount} && \"$@\""));
    command.arg(std::env::current_exe().unwrap()).args(["a_full_disk_leaves_the_old_content", "--exact"]);
    assert!(command.status().unwrap().success());
}

#[test]
fn a_kill_at_any_moment_leaves_one_whole_content() {
    const CONTENTS: [&[u8]; 2] = [&[b'a'; 300_000], &[b'b'; 500_000]];
    if let Some(folder) = child_folder() {
        let mut log = JsonLines::append_to(folder.join("log")).unwrap().0;
        for round in 0_usize.. {
            durable::write_bytes(folder.join("artefact"), CONTENTS[round % 2]).unwrap();
            log.append(&"record".repeat(1 + round % 50)).unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("artefact");
    let mut records = 0;
    for round in 0..12 {
        let mut child = child("a_kill_at_any_moment_leaves_one_whole_content", "", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while round == 0 && !path.exists() {
            assert!(child.try_wait().unwrap().is_none(), "the child must not end by itself");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(7 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let content = std::fs::read(&path).unwrap();
        assert!(CONTENTS.contains(&content.as_slice()), "neither old nor new: {} bytes", content.len());
        let mut reader = JsonLinesReader::open(&folder.path().join("log")).unwrap();
        let now = reader.read_all::<String>().unwrap().len();
        assert!(now >= records, "records that were there must stay");
        records = now;
    }
    assert!(names(folder.path()).iter().all(|name| name == "artefact" || name == "log" || name.starts_with(".tmp-")));
}
