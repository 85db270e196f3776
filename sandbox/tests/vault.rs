//! Quarantine from outside: what is sealed, what comes back, and that nothing is lost whatever fails or interferes.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests, which may panic and say what they skip"
)]
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

use std::ffi::OsString;
use std::fs::{self, File, FileTimes};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bellwether_artifact::secret::{Purpose, Secrets};
use bellwether_sandbox::vault::{Case, QuarantineId, Removal, Sample, Vault, VaultError};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

const LIMIT: u64 = 64 << 20;

struct Bench {
    root: tempfile::TempDir,
    vault: Vault,
}

impl Bench {
    fn new() -> Bench {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("home")).unwrap();
        let vault = open_vault(root.path());
        Bench { root, vault }
    }

    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.path().join("home").join(name)
    }

    fn write(&self, name: impl AsRef<Path>, content: &[u8]) -> PathBuf {
        let path = self.at(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn sample(&self, name: impl AsRef<Path>) -> Sample {
        Sample::open(&self.at(name), LIMIT).unwrap()
    }

    fn names(&self) -> Vec<OsString> {
        let mut names: Vec<_> = fs::read_dir(self.at("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    /// The content of what the decision put into quarantine.
    fn sealed(&self, decision: &str) -> Vec<u8> {
        let path = self.root.path().join("out");
        self.vault.restore(QuarantineId::of_decision(decision), Some(&path)).unwrap();
        let content = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        content
    }
}

fn open_vault(root: &Path) -> Vault {
    let key = root.join("vault.key");
    let secrets = Secrets::read(&key, Purpose::Vault).or_else(|_| Secrets::generate(&key, Purpose::Vault));
    Vault::open(&root.join("vault"), secrets.unwrap()).unwrap()
}

fn case(decision: &str) -> Case {
    Case { decision_id: decision.to_owned(), episode_id: "episode".to_owned(), time_ms: 1_795_300_000_000 }
}

#[test]
fn a_sample_is_copied_into_memory_that_nobody_can_change() {
    let bench = Bench::new();
    let program = fs::read("/bin/false").unwrap();
    bench.write("sample", &program);
    let sample = bench.sample("sample");
    bench.write("sample", b"something else");
    let at = format!("/proc/self/fd/{}", sample.memory().as_raw_fd());
    let mut copied = Vec::new();
    sample.reader().unwrap().read_to_end(&mut copied).unwrap();
    assert!(copied == program);
    let written = File::options().write(true).open(&at).and_then(|mut file| file.write_all(b"x"));
    assert!(written.is_err());
    assert!(File::options().write(true).open(&at).and_then(|file| file.set_len(0)).is_err());
    assert_eq!(Command::new(&at).status().unwrap().code(), Some(1), "it can be executed");
    let identity = sample.identity();
    let data = fs::metadata(bench.at("sample")).unwrap();
    assert_eq!((identity.device, identity.inode, identity.links), (data.dev(), data.ino(), 1));
    assert!(identity.kind.starts_with("ELF 64-bit"), "{}", identity.kind);
    assert_eq!(identity.path(), bench.at("sample").canonicalize().unwrap());
}

#[test]
fn hashes_are_the_published_ones() {
    let bench = Bench::new();
    bench.write("abc", b"abc");
    // RFC 1321, appendix A.5, and FIPS 180-4.
    let identity = bench.sample("abc").identity().clone();
    assert_eq!(identity.md5, "900150983cd24fb0d6963f7d28e17f72");
    assert_eq!(identity.sha1, "a9993e364706816aba3e25717850c26c9cd0d89d");
    assert!(identity.sha256.to_string().starts_with("ba7816bf8f01cfea"));
    let kinds: [(&[u8], &str); 5] = [
        (b"", "data"),
        (b"#! /bin/sh -e\nx", "script, /bin/sh -e"),
        (b"#!\x1b[2J", r"script, \u{1b}[2J"),
        (b"\x7fELF", "data"),
        (b"\x7fELF\x02", "data"),
    ];
    for (content, kind) in kinds {
        bench.write("kind", content);
        assert_eq!(bench.sample("kind").identity().kind, kind);
    }
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let bench = Bench::new();
    bench.write("real", b"1234");
    symlink("real", bench.at("link")).unwrap();
    let made = Command::new("mkfifo").arg(bench.at("fifo")).status();
    assert!(made.is_ok_and(|status| status.success()));
    let open = |name: &str, limit| Sample::open(&bench.at(name), limit).map(drop).unwrap_err();
    assert!(matches!(open("link", LIMIT), VaultError::Symlink { .. }));
    // Without a writer at the other end, a careless open would wait for ever.
    assert!(matches!(open("fifo", LIMIT), VaultError::NotRegular { .. }));
    assert!(matches!(open(".", LIMIT), VaultError::NotRegular { .. }));
    assert!(matches!(open("real", 3), VaultError::TooLarge { .. }));
    assert!(Sample::open(&bench.at("real"), 4).is_ok());
    assert!(matches!(Sample::open(Path::new("/dev/zero"), 10), Err(VaultError::NotRegular { .. })));
    let error = open("no\u{1b}[2Jne", LIMIT).to_string();
    assert!(error.contains("\\u{1b}") && !error.contains('\u{1b}'), "{error}");
}

#[test]
fn quarantine_takes_the_file_away_and_gives_it_back_as_it_was() {
    let bench = Bench::new();
    let name = OsString::from_vec(b"invoice\n\xff\x1b[31m.pdf".to_vec());
    let content: Vec<u8> = (0..300_000_u32).map(|at| ((at * 31) >> 3) as u8).collect();
    let path = bench.write(&name, &content);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o754)).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000, 123_456_789);
    File::open(&path).unwrap().set_times(FileTimes::new().set_modified(then).set_accessed(then)).unwrap();
    let receipt = bench.vault.quarantine(&bench.sample(&name), &case("d1")).unwrap();
    assert_eq!((receipt.removal, receipt.repeated), (Removal::Removed { other_names: 0 }, false));
    assert!(bench.names().is_empty());
    assert!(receipt.held.sample.name().is_ascii() && !receipt.held.sample.name().contains('\n'));

    let sealed = bench.root.path().join(format!("vault/objects/{}.sealed", receipt.id));
    assert_eq!(fs::metadata(&sealed).unwrap().permissions().mode() & 0o7777, 0o600);
    let bytes = fs::read(&sealed).unwrap();
    for clear in [&content[1000..1016], b"invoice", receipt.held.sample.sha256.as_bytes()] {
        assert!(!bytes.windows(clear.len()).any(|window| window == clear), "nothing of it lies open");
    }

    let listed = bench.vault.list().unwrap();
    assert_eq!(listed[0].held.as_ref().unwrap(), &receipt.held);
    let found = bench.vault.find(&receipt.id.to_string()[..8]).unwrap();
    let restored = bench.vault.restore(found, None).unwrap();
    assert_eq!((restored.path.as_path(), restored.owner), (path.canonicalize().unwrap().as_path(), true));
    let data = fs::metadata(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), content);
    assert_eq!((data.mode() & 0o7777, data.modified().unwrap()), (0o754, then));
    let again = bench.vault.restore(found, None).unwrap_err().to_string();
    assert!(again.contains("never overwritten"), "{again}");

    assert!(bench.vault.purge(found).unwrap());
    assert!(!bench.vault.purge(found).unwrap());
    assert!(matches!(bench.vault.restore(found, None), Err(VaultError::NotThere { .. })));
    assert!(matches!(bench.vault.find("0123"), Err(VaultError::NotThere { .. })));
}

#[test]
fn a_decision_counts_once() {
    let bench = Bench::new();
    bench.write("sample", b"one");
    let sample = bench.sample("sample");
    let first = bench.vault.quarantine(&sample, &case("d")).unwrap();
    let again = bench.vault.quarantine(&sample, &case("d")).unwrap();
    assert_eq!((again.id, again.repeated, again.removal), (first.id, true, Removal::Gone));
    assert_eq!(bench.vault.settle(first.id).unwrap(), Removal::Gone);
    // The same file at the same place, but another decision's: a late repetition does not touch it.
    bench.write("sample", b"one");
    let repeated = bench.vault.quarantine(&sample, &case("d")).unwrap();
    // The file system may give the same number again, and not know when the file was made.
    let known = sample.identity().times.born.is_some();
    assert!(!known || matches!(repeated.removal, Removal::Kept { .. }), "{:?}", repeated.removal);
    bench.write("other", b"two");
    let conflict = bench.vault.quarantine(&bench.sample("other"), &case("d"));
    assert!(matches!(conflict, Err(VaultError::Conflict { .. })));
    assert_eq!((fs::read(bench.at("other")).unwrap(), bench.sealed("d")), (b"two".to_vec(), b"one".to_vec()));
}

#[test]
fn hard_links_are_told_of() {
    let bench = Bench::new();
    bench.write("sample", b"content");
    fs::hard_link(bench.at("sample"), bench.at("second")).unwrap();
    fs::hard_link(bench.at("sample"), bench.at("third")).unwrap();
    let sample = bench.sample("sample");
    assert_eq!(sample.identity().links, 3);
    let receipt = bench.vault.quarantine(&sample, &case("d")).unwrap();
    assert_eq!(receipt.removal, Removal::Removed { other_names: 2 });
    assert_eq!(bench.names(), ["second", "third"]);
}

#[test]
fn another_file_under_the_name_is_left_alone() {
    type Swap = fn(&Bench);
    let swaps: [(&str, Swap); 5] = [
        ("replaced", |bench| {
            bench.write("new", b"precious");
            fs::rename(bench.at("new"), bench.at("sample")).unwrap();
        }),
        ("a link", |bench| {
            bench.write("precious", b"precious");
            fs::remove_file(bench.at("sample")).unwrap();
            symlink("precious", bench.at("sample")).unwrap();
        }),
        ("a link to itself, moved", |bench| {
            fs::rename(bench.at("sample"), bench.at("moved")).unwrap();
            symlink("moved", bench.at("sample")).unwrap();
        }),
        ("a folder", |bench| {
            fs::remove_file(bench.at("sample")).unwrap();
            fs::create_dir(bench.at("sample")).unwrap();
        }),
        ("written to", |bench| {
            bench.write("sample", b"changed after the decision");
        }),
    ];
    for (what, swap) in swaps {
        let bench = Bench::new();
        bench.write("sample", b"judged");
        let sample = bench.sample("sample");
        swap(&bench);
        let before = (bench.names(), fs::symlink_metadata(bench.at("sample")).unwrap().ino());
        let receipt = bench.vault.quarantine(&sample, &case("d")).unwrap();
        assert!(matches!(receipt.removal, Removal::Kept { .. }), "{what}: {:?}", receipt.removal);
        assert_eq!((bench.names(), fs::symlink_metadata(bench.at("sample")).unwrap().ino()), before, "{what}");
        assert_eq!(bench.sealed("d"), b"judged", "{what}");
    }
}

#[test]
fn a_folder_swapped_above_the_sample_changes_nothing() {
    let bench = Bench::new();
    fs::create_dir(bench.at("downloads")).unwrap();
    fs::create_dir(bench.at("etc")).unwrap();
    bench.write("downloads/passwd", b"sample");
    bench.write("etc/passwd", b"precious");
    let sample = bench.sample("downloads/passwd");
    fs::rename(bench.at("downloads"), bench.at("away")).unwrap();
    symlink("etc", bench.at("downloads")).unwrap();
    let receipt = bench.vault.quarantine(&sample, &case("d")).unwrap();
    assert_eq!(receipt.removal, Removal::Removed { other_names: 0 });
    assert_eq!(fs::read(bench.at("etc/passwd")).unwrap(), b"precious");
    assert!(!bench.at("away/passwd").exists());
}

#[test]
fn somebody_who_swaps_all_the_time_never_loses_a_file_of_his() {
    let bench = Bench::new();
    let (bystander, sample) = (bench.at("bystander"), bench.at("sample"));
    fs::write(&bystander, b"precious").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let _ = rustix::fs::renameat_with(rustix::fs::CWD, &bystander, rustix::fs::CWD, &sample, flags);
            }
        });
        for round in 0..100 {
            let fresh = bench.at(format!("fresh{round}"));
            fs::write(&fresh, format!("judged {round}")).unwrap();
            let opened = Sample::open(&fresh, LIMIT).unwrap();
            // From here on the file may be at either name, and the bystander's at the other.
            let _ = rustix::fs::renameat_with(
                rustix::fs::CWD,
                &fresh,
                rustix::fs::CWD,
                &sample,
                rustix::fs::RenameFlags::NOREPLACE,
            );
            let seen = Sample::open(&sample, LIMIT);
            drop(opened);
            let Ok(seen) = seen else { continue };
            if seen.identity().bytes == 8 {
                continue;
            }
            let decision = format!("d{round}");
            bench.vault.quarantine(&seen, &case(&decision)).unwrap();
            assert!(bench.sealed(&decision).starts_with(b"judged"));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let kept = [bystander, sample].iter().filter(|path| fs::read(path).is_ok_and(|text| text == b"precious")).count();
    assert_eq!(kept, 1, "{:?}", bench.names());
}

#[test]
fn a_call_that_died_on_the_way_is_taken_up_again() {
    let bench = Bench::new();
    bench.write("sample", b"content");
    let sample = bench.sample("sample");
    let id = QuarantineId::of_decision("d");
    // As it is left between moving and removing.
    let aside = bench.at(format!(".tmp-quarantine-{}", &id.to_string()[..16]));
    fs::create_dir(&aside).unwrap();
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(bench.at("sample"), aside.join("sample")).unwrap();
    let receipt = bench.vault.quarantine(&sample, &case("d")).unwrap();
    assert_eq!(receipt.removal, Removal::Removed { other_names: 0 });
    assert!(bench.names().is_empty());
    // A later process knows but what was sealed.
    bench.vault.restore(id, None).unwrap();
    let later = open_vault(bench.root.path());
    let settled = later.settle(id).unwrap();
    let known = sample.identity().times.born.is_some();
    assert!(!known || matches!(settled, Removal::Kept { .. }), "the restored file is another one: {settled:?}");
}

#[test]
fn a_folder_of_somebody_else_in_the_way_is_not_trusted() {
    let bench = Bench::new();
    bench.write("sample", b"content");
    let aside = bench.at(format!(".tmp-quarantine-{}", &QuarantineId::of_decision("d").to_string()[..16]));
    fs::create_dir(&aside).unwrap();
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o777)).unwrap();
    let receipt = bench.vault.quarantine(&bench.sample("sample"), &case("d")).unwrap();
    assert!(matches!(receipt.removal, Removal::Kept { .. }));
    fs::remove_dir(&aside).unwrap();
    symlink("/", &aside).unwrap();
    let receipt = bench.vault.quarantine(&bench.sample("sample"), &case("d")).unwrap();
    assert!(matches!(receipt.removal, Removal::Kept { .. }));
    assert_eq!(fs::read(bench.at("sample")).unwrap(), b"content");
}

#[test]
fn sealed_files_that_were_changed_moved_or_sealed_by_others_are_refused() {
    let bench = Bench::new();
    for name in ["a", "b"] {
        bench.write(name, name.as_bytes());
        bench.vault.quarantine(&bench.sample(name), &case(name)).unwrap();
    }
    let sealed = |name: &str| {
        let id = QuarantineId::of_decision(name);
        bench.root.path().join(format!("vault/objects/{id}.sealed"))
    };
    fs::copy(sealed("a"), sealed("b")).unwrap();
    let swapped = bench.vault.get(QuarantineId::of_decision("b"));
    assert!(matches!(swapped, Err(VaultError::Damaged { .. })));
    let mut bytes = fs::read(sealed("a")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(sealed("a"), bytes).unwrap();
    let out = bench.root.path().join("out");
    let changed = bench.vault.restore(QuarantineId::of_decision("a"), Some(&out));
    assert!(matches!(changed, Err(VaultError::Damaged { .. })));
    assert!(!out.exists(), "nothing of it appears");
    let other = Secrets::generate(&bench.root.path().join("other.key"), Purpose::Vault).unwrap();
    let other = Vault::open(&bench.root.path().join("vault"), other).unwrap();
    assert!(matches!(other.list().unwrap()[0].held, Err(VaultError::UnknownKey { .. })));
}

#[test]
fn a_new_secret_opens_what_the_old_one_sealed() {
    let bench = Bench::new();
    bench.write("sample", b"content");
    bench.vault.quarantine(&bench.sample("sample"), &case("d")).unwrap();
    Secrets::rotate(&bench.root.path().join("vault.key"), Purpose::Vault).unwrap();
    let later = Bench { vault: open_vault(bench.root.path()), root: bench.root };
    assert_eq!(later.sealed("d"), b"content");
}

/// Runs this very test again as a child, with `setup` before it in a mount namespace of its own; `false` where that cannot be had.
fn in_namespace(test: &str, setup: &str, root: &Path) -> bool {
    let run = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture"]).env(CHILD, root).env_remove("NEXTEST_EXECUTION_MODE");
        command
    };
    if !run(setup).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped {test}: mounting needs root and unshare(1)");
        return false;
    }
    assert!(run(&format!("{setup} && exec \"$@\"")).status().unwrap().success());
    true
}

const CHILD: &str = "BELLWETHER_TEST_CHILD_FOLDER";

#[test]
fn a_full_vault_leaves_the_original() {
    const TEST: &str = "a_full_vault_leaves_the_original";
    if let Some(root) = std::env::var_os(CHILD).map(PathBuf::from) {
        let vault = open_vault(&root);
        let path = root.join("home/sample");
        let sample = Sample::open(&path, LIMIT).unwrap();
        let error = vault.quarantine(&sample, &case("d")).unwrap_err();
        assert!(error.to_string().contains("free some space"), "{error}");
        assert!(vault.list().unwrap().is_empty());
        assert_eq!(fs::read(path).unwrap().len(), 1 << 20);
        return;
    }
    let bench = Bench::new();
    bench.write("sample", &vec![1; 1 << 20]);
    let mount = format!("mount -t tmpfs -o size=256k none \"${CHILD}/vault\"");
    in_namespace(TEST, &mount, bench.root.path());
}

#[test]
fn a_read_only_folder_keeps_the_original_until_it_can_be_removed() {
    const TEST: &str = "a_read_only_folder_keeps_the_original_until_it_can_be_removed";
    if let Some(root) = std::env::var_os(CHILD).map(PathBuf::from) {
        let vault = open_vault(&root);
        let sample = Sample::open(&root.join("home/sample"), LIMIT).unwrap();
        let receipt = vault.quarantine(&sample, &case("d")).unwrap();
        assert!(matches!(receipt.removal, Removal::Kept { .. }), "{:?}", receipt.removal);
        return;
    }
    let bench = Bench::new();
    bench.write("sample", b"content");
    let mount =
        format!("mount --bind \"${CHILD}/home\" \"${CHILD}/home\" && mount -o remount,ro,bind \"${CHILD}/home\"");
    if in_namespace(TEST, &mount, bench.root.path()) {
        assert_eq!(fs::read(bench.at("sample")).unwrap(), b"content");
        assert_eq!(bench.sealed("d"), b"content");
        let id = QuarantineId::of_decision("d");
        assert_eq!(bench.vault.settle(id).unwrap(), Removal::Removed { other_names: 0 });
        assert!(bench.names().is_empty());
    }
}

#[test]
fn any_content_and_name_come_back() {
    // One vault for all cases: what takes time is to force files to disk.
    let bench = Bench::new();
    let names = prop::collection::vec(1_u8.., 1..40).prop_map(|name| {
        let name = name.into_iter().map(|byte| if byte == b'/' { b'_' } else { byte }).collect();
        OsString::from_vec(name)
    });
    let names = names.prop_filter("it names a file", |name| name != "." && name != "..");
    let cases = (prop::collection::vec(any::<u8>(), 0..4_000), names, 0_u32..0o1000, any::<u64>());
    let tried = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }).run(
        &cases,
        |(content, name, mode, decision)| {
            let path = bench.write(name, &content);
            let mode = mode | 0o400;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let sample = Sample::open(&path, LIMIT).unwrap();
            let receipt = bench.vault.quarantine(&sample, &case(&decision.to_string())).unwrap();
            prop_assert_eq!(fs::read(&path).unwrap_err().kind(), ErrorKind::NotFound);
            bench.vault.restore(receipt.id, None).unwrap();
            prop_assert_eq!(fs::read(&path).unwrap(), content);
            prop_assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
            fs::remove_file(path).unwrap();
            prop_assert!(bench.vault.purge(receipt.id).unwrap());
            Ok(())
        },
    );
    tried.unwrap();
}
