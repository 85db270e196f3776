//! The home that a sample finds.

use bellwether_sandbox::cage::{Bounds, Changes, Ending, Found, Home, Identity, Kind, LeftOut, MOST_DEPTH, Placed};
use bellwether_sandbox::isolation::terminate;
use rustix::thread::CapabilitySet;

use crate::runs::{PATIENCE, Running, can_cage, run, shell, start};

#[test]
fn every_file_of_the_home_lies_there_as_it_was_drawn_and_is_the_users() {
    if !can_cage() {
        return;
    }
    let home = Home::draw(11, &Identity::default()).marked(&Identity::default());
    let mut plan = shell(
        "find /home/user /var/log /var/spool/cron/crontabs -type f -printf '%p %s %m %u %T@\\n' | LC_ALL=C sort; \
         stat -c '%a %U' /home/user/.ssh /home/user/.gnupg /var/spool/cron/crontabs; cat /home/user/.netrc",
    );
    plan.files.clone_from(&home.files);
    let (ending, text) = run(plan);
    assert_eq!(ending, Ending::Code(0), "{text}");
    let mut expected: Vec<String> = home
        .files
        .iter()
        .map(|file| {
            let modified = file.modified_s.unwrap();
            format!("{} {} {:o} user {modified}.0000000000", file.path, file.bytes.len(), file.mode)
        })
        .collect();
    expected.sort();
    let netrc = home.files.iter().find(|file| file.path.ends_with("/.netrc")).unwrap();
    let netrc = String::from_utf8(netrc.bytes.clone()).unwrap();
    expected.extend(["700 user".to_owned(), "700 user".to_owned(), "700 user".to_owned(), netrc.trim_end().to_owned()]);
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_project_in_the_home_can_be_built() {
    if !can_cage() {
        return;
    }
    let mut plan = shell(
        "cd ~/Projects/* 2>/dev/null || cd $(ls -d ~/Projects/* | head -1); command -v make cc >/dev/null || exit 77; make -s && ./program",
    );
    plan.files = Home::draw(12, &Identity::default()).files;
    let (ending, text) = run(plan);
    if ending == Ending::Code(77) {
        eprintln!("skipped a_project_in_the_home_can_be_built: no make or no C compiler");
        return;
    }
    assert_eq!(ending, Ending::Code(0), "{text}");
    assert!(text.trim().parse::<i64>().is_ok(), "{text}");
}

#[test]
fn what_a_sample_left_behind_is_listed_and_links_lead_nowhere() {
    if !can_cage() {
        return;
    }
    let secret = tempfile::NamedTempFile::new().unwrap();
    let placed = |path: &str, text: &str| Placed {
        path: path.to_owned(),
        bytes: text.as_bytes().to_vec(),
        mode: 0o644,
        modified_s: None,
    };
    let mut plan = shell(&format!(
        "cd ~; echo other > changed; rm deleted; echo text > work/new; chmod 600 mode; mv moved.txt moved.locked; \
         ln -s {} link; mkfifo fifo; mkdir -p a/b; echo deep > a/b/c; ln -s /etc work/etc; rm replaced; ln -s kept replaced; \
         truncate -s 100M sparse; echo x > /tmp/scratch; printf 'odd' > \"$(printf 'n\\351\\nme')\"; ln kept second",
        secret.path().display()
    ));
    plan.files = ["changed", "deleted", "mode", "moved.txt", "replaced", "kept"]
        .iter()
        .map(|name| placed(&format!("/home/user/{name}"), name))
        .collect();
    let files = plan.files.clone();
    let running = start(plan);
    assert_eq!(running.enclosure.wait(PATIENCE).unwrap(), Some(Ending::Code(0)));
    terminate(&running.enclosure, &running.cgroup, PATIENCE).unwrap();
    let bounds = Bounds { hashed_bytes: 1 << 20, ..Bounds::default() };
    let changes = running.enclosure.changes(&files, &bounds);
    let listed = |found: &[Found]| -> Vec<(String, Kind, Option<String>)> {
        found
            .iter()
            .map(|one| {
                let content = one.content.as_ref().map(|content| String::from_utf8_lossy(content).into_owned());
                (one.path.clone(), one.kind, content)
            })
            .collect()
    };
    let file = |path: &str, text: &str| (path.to_owned(), Kind::File, Some(text.to_owned()));
    let other = |path: &str, kind: Kind| (path.to_owned(), kind, None);
    assert_eq!(
        listed(&changes.created),
        [
            file("/home/user/a/b/c", "deep\n"),
            other("/home/user/fifo", Kind::Special),
            other("/home/user/link", Kind::Link),
            file("/home/user/moved.locked", "moved.txt"),
            file("/home/user/n\u{fffd}\nme", "odd"),
            file("/home/user/second", "kept"),
            other("/home/user/sparse", Kind::File),
            other("/home/user/work/etc", Kind::Link),
            file("/home/user/work/new", "text\n"),
            file("/tmp/scratch", "x\n"),
        ]
    );
    assert_eq!(
        listed(&changes.changed),
        [
            file("/home/user/changed", "other\n"),
            file("/home/user/mode", "mode"),
            other("/home/user/replaced", Kind::Link),
        ]
    );
    assert_eq!(changes.deleted, ["/home/user/deleted", "/home/user/moved.txt"]);
    assert_eq!(changes.left_out, LeftOut::default());
    assert!(changes.created[6].sha256.is_none() && changes.created[6].bytes == 100 << 20);
}

/// What a sample left, in the eyes of a supervisor that is an ordinary user: as it is, or with the capability to give what is not its
/// own other permissions. A range of identities is mapped for root, so that the sample's files are not its own.
fn as_a_user(running: &Running, files: &[Placed], may_own: bool) -> Changes {
    let look = || {
        if rustix::process::geteuid().is_root() {
            let mut sets = rustix::thread::capabilities(None).unwrap();
            sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
            if !may_own {
                sets.effective -= CapabilitySet::FOWNER;
            }
            rustix::thread::set_capabilities(None, sets).unwrap();
        }
        running.enclosure.changes(files, &Bounds::default())
    };
    std::thread::scope(|scope| scope.spawn(look).join().unwrap())
}

#[test]
fn what_a_sample_closes_is_not_taken_for_deleted() {
    if !can_cage() {
        return;
    }
    let placed = |name: &str| Placed {
        path: format!("/home/user/{name}"),
        bytes: name.as_bytes().to_vec(),
        mode: 0o644,
        modified_s: None,
    };
    let mut unreadable = Vec::new();
    for may_own in [false, true] {
        let mut plan = shell("cd ~; echo new > work/new; rm work/gone; chmod 000 work; rm away; chmod 000 file");
        plan.files = ["work/kept", "work/gone", "away", "file"].map(placed).into();
        let files = plan.files.clone();
        let running = start(plan);
        assert_eq!(running.enclosure.wait(PATIENCE).unwrap(), Some(Ending::Code(0)));
        terminate(&running.enclosure, &running.cgroup, PATIENCE).unwrap();
        let changes = as_a_user(&running, &files, may_own);
        let paths = |found: &[Found]| found.iter().map(|one| one.path.clone()).collect::<Vec<_>>();
        assert_eq!(paths(&changes.changed), ["/home/user/file"]);
        let may_own = may_own || !rustix::process::geteuid().is_root();
        if may_own {
            assert_eq!(paths(&changes.created), ["/home/user/work/new"]);
            assert_eq!(changes.deleted, ["/home/user/away", "/home/user/work/gone"]);
        } else {
            assert_eq!(changes.deleted, ["/home/user/away"], "nobody knows what is left in work");
        }
        unreadable.push(changes.left_out.unreadable);
    }
    // A mount that is its user's alone stays closed to root without capabilities.
    let closed = if rustix::process::geteuid().is_root() { 2 } else { 0 };
    assert_eq!(unreadable[0], unreadable[1] + closed, "the folder and the file");
}

#[test]
fn bounds_hold_where_a_sample_makes_too_much() {
    if !can_cage() {
        return;
    }
    let running = start(shell(
        "cd ~; for i in $(seq 50); do echo $i > f$i; done; i=0; while mkdir d && cd d; do i=$((i+1)); [ $i -gt 200 ] && break; done",
    ));
    assert_eq!(running.enclosure.wait(PATIENCE).unwrap(), Some(Ending::Code(0)));
    let bounds = Bounds { files: 20, kept_in_all_bytes: 6, ..Bounds::default() };
    let below = format!("/home/user{}/file", "/d".repeat(MOST_DEPTH + 10));
    let file = Placed { path: below, bytes: Vec::new(), mode: 0o644, modified_s: None };
    let changes = running.enclosure.changes(&[file], &bounds);
    assert!(changes.deleted.is_empty(), "nobody looked so deep");
    assert_eq!((changes.created.len(), changes.left_out.beyond, changes.left_out.too_deep), (20, 30, 1));
    let kept: usize = changes.created.iter().filter_map(|one| one.content.as_ref()).map(Vec::len).sum();
    assert!((1..=6).contains(&kept), "{kept}");
    assert!(changes.created.iter().all(|one| one.sha256.is_some()));
}

#[test]
fn names_of_any_length_take_no_more_room_than_they_may() {
    if !can_cage() {
        return;
    }
    // Folders of 250 bytes that are no text, as deep as a shell goes, and many files at the bottom: each path has 9,000 bytes.
    let running = start(shell(
        "cd ~; rm -f .profile; n=$(printf '\\377%.0s' $(seq 250)); i=0; while [ $i -lt 12 ]; do mkdir $n; cd $n; i=$((i+1)); done; \
         for i in $(seq 500); do : > $i; done; cd ~; i=0; while [ $i -lt 60 ]; do : > \"$i$(printf '\\1%.0s' $(seq 200))\"; i=$((i+1)); done; \
         echo x > zzz",
    ));
    assert_eq!(running.enclosure.wait(PATIENCE).unwrap(), Some(Ending::Code(0)));
    let placed =
        |name: &str| Placed { path: format!("/home/user/{name}"), bytes: Vec::new(), mode: 0o644, modified_s: None };
    let bounds = Bounds { paths_in_all_bytes: 40_000, ..Bounds::default() };
    let changes = running.enclosure.changes(&[placed("zzz"), placed("gone")], &bounds);
    let taken: usize = changes.created.iter().map(|one| serde_json::to_string(&one.path).unwrap().len() - 2).sum();
    assert!((38_000..=40_000).contains(&taken), "{taken}");
    assert_eq!(changes.created.len() as u64 + changes.left_out.beyond, 560);
    assert!(changes.created.iter().all(|one| one.path.len() < 300), "the longest are left out one by one");
    // What was placed is told of whatever lies beside it.
    assert_eq!(changes.changed.iter().map(|one| one.path.as_str()).collect::<Vec<_>>(), ["/home/user/zzz"]);
    assert_eq!(changes.deleted, ["/home/user/gone"]);
}
