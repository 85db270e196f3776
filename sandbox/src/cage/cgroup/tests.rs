//! Control groups of hosts of every kind, and groups that come and go.

use super::*;

const V1: &str = "35 31 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                  39 31 0:35 / /sys/fs/cgroup/pids rw,relatime shared:3 - cgroup cgroup rw,pids\n";

#[test]
fn places_are_read_on_hosts_of_every_kind() {
    let unified = "30 24 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    let hybrid = format!("{V1}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    let inside = "30 24 0:26 /docker/ab /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
    let place = |mount: &str, group: &str| Some(Place { mount: mount.into(), group: group.into() });
    let cases = [
        (
            unified,
            "0::/user.slice/a b\n",
            Hierarchies { unified: place("/sys/fs/cgroup", "/sys/fs/cgroup/user.slice/a b"), pids: None, memory: None },
        ),
        (
            &hybrid,
            "8:pids:/\n4:memory:/x/y\n0::/\n",
            Hierarchies {
                unified: place("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified"),
                pids: place("/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids"),
                memory: place("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/x/y"),
            },
        ),
        (
            inside,
            "0::/docker/ab/c\n",
            Hierarchies { unified: place("/sys/fs/cgroup", "/sys/fs/cgroup/c"), pids: None, memory: None },
        ),
        ("", "0::/\n", Hierarchies { unified: None, pids: None, memory: None }),
    ];
    for (mounts, groups, expected) in cases {
        // As texts, for equal paths may differ in their slashes.
        assert_eq!(format!("{:?}", Hierarchies::read(mounts, groups)), format!("{expected:?}"), "{mounts}{groups}");
    }
}

#[test]
fn a_place_is_chosen_by_its_controllers_then_by_its_nearness() {
    let places = ["c/b/a", "c/b", "c"].map(Path::new);
    let check = |counts: [usize; 3], allowed: [bool; 3], expected: Option<usize>| {
        let of = |path: &Path| places.iter().position(|place| *place == path).unwrap();
        let made = where_most(&places, 2, |path| counts[of(path)], |path| allowed[of(path)].then(|| of(path)));
        assert_eq!(made, expected, "{counts:?} {allowed:?}");
    };
    check([2, 2, 2], [true; 3], Some(0));
    check([0, 2, 2], [true; 3], Some(1));
    // One controller is in the other version's hierarchy.
    check([0, 0, 1], [true; 3], Some(2));
    check([0, 2, 1], [true, false, true], Some(2));
    check([0, 2, 2], [true, false, false], Some(0));
    check([0; 3], [true; 3], Some(0));
    check([2; 3], [false; 3], None);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]
fn no_controller_is_asked_of_a_group_with_processes() {
    let check = |kind: Option<&str>, processes: &str, expected: &str| {
        let group = tempfile::tempdir().unwrap();
        let files =
            [("cgroup.controllers", "memory pids\n"), ("cgroup.subtree_control", ""), ("cgroup.procs", processes)];
        for (name, text) in files.into_iter().chain(kind.map(|kind| ("cgroup.type", kind))) {
            fs::write(group.path().join(name), text).unwrap();
        }
        enable(group.path(), "pids");
        let asked = fs::read_to_string(group.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(asked, expected, "{kind:?} {processes:?}");
    };
    check(Some("domain\n"), "", "+pids");
    check(Some("domain\n"), "12\n", "");
    // A process of another namespace.
    check(Some("domain\n"), "0\n", "");
    check(None, "12\n", "+pids");
}

#[test]
fn groups_hold_a_process_and_go_when_they_are_dropped() {
    let groups = CgroupHandle::new(&Limits::default());
    let folders: Vec<PathBuf> = groups.folders().map(Path::to_owned).collect();
    if folders.is_empty() {
        eprintln!("skipped groups_hold_a_process_and_go_when_they_are_dropped: no cgroup can be made here");
        return;
    }
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    groups.admit(child.id() as i32).unwrap();
    assert_eq!(groups.processes().unwrap(), [child.id() as i32]);
    assert!(!groups.is_empty().unwrap());
    drop(groups);
    assert!(child.wait().unwrap().code().is_none(), "a signal ended it");
    for folder in folders {
        assert!(!folder.exists(), "{} is left", folder.display());
    }
}

#[test]
fn groups_that_nobody_claims_go_whoever_has_their_makers_number_now() {
    let test = "groups_that_nobody_claims_go_whoever_has_their_makers_number_now";
    let groups = CgroupHandle::new(&Limits::default());
    let Some(parent) = groups.folders().next().and_then(Path::parent) else {
        eprintln!("skipped {test}: no cgroup can be made here");
        return;
    };
    // One process is always there; the other's number is none that this namespace has.
    let [left, wanted, foreign] =
        ["bellwether-1-18446744073709551615", "bellwether-4294967295-0", "bellwether-1-of-somebody"].map(|name| {
            let group = parent.join(name);
            fs::create_dir(&group).unwrap();
            group
        });
    let claimed = claim(&wanted, FlockOperation::LockShared).unwrap();
    sweep(parent);
    let there = [&left, &wanted, &foreign].map(|group| group.exists());
    drop(claimed);
    sweep(parent);
    let later = wanted.exists();
    for group in [&left, &wanted, &foreign] {
        fs::remove_dir(group).ok();
    }
    assert_eq!((there, later), ([false, true, true], false));
    assert!(groups.folders().all(Path::exists), "their maker still wants them");
}

#[test]
fn a_name_that_is_taken_is_left_to_its_owner() {
    let root = tempfile::tempdir().unwrap();
    let next = NEXT.load(Ordering::Relaxed);
    // Other tests take numbers too, so a few of those to come.
    for number in next..next + 16 {
        fs::create_dir(root.path().join(format!("{PREFIX}{}-{number}", std::process::id()))).unwrap();
    }
    let (group, claimed) = make_claimed(root.path()).unwrap();
    assert!(claim(&group, FlockOperation::NonBlockingLockExclusive).is_none(), "it is claimed");
    drop(claimed);
    assert!(claim(&group, FlockOperation::NonBlockingLockExclusive).is_some());
}

#[test]
fn a_stranger_that_has_the_number_of_a_process_that_was_listed_is_not_killed() {
    let test = "a_stranger_that_has_the_number_of_a_process_that_was_listed_is_not_killed";
    let groups = CgroupHandle::new(&Limits::default());
    if groups.folders().count() == 0 {
        eprintln!("skipped {test}: no cgroup can be made here");
        return;
    }
    let [mut own, mut stranger] = [(); 2].map(|()| std::process::Command::new("sleep").arg("600").spawn().unwrap());
    groups.admit(own.id() as i32).unwrap();
    let held = [&own, &stranger].map(|child| (child.id() as i32, hold(child.id() as i32).unwrap().unwrap()));
    groups.kill_held(&held).unwrap();
    assert!(own.wait().unwrap().code().is_none(), "a signal ended it");
    assert_eq!(stranger.try_wait().unwrap(), None);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(hold(own.id() as i32).is_none(), "it is gone");
}

/// In its second role this test is a process of an ordinary user, to whom the group above his own was given in part or in whole.
#[test]
fn a_group_is_made_where_its_owner_may_also_move_a_process_into_it() {
    use std::os::unix::fs::chown;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    const ROLE: &str = "BELLWETHER_TEST_GROUP_OWNER";
    const NAME: &str = "cage::cgroup::tests::a_group_is_made_where_its_owner_may_also_move_a_process_into_it";
    const USER: u32 = 1000;
    if std::env::var_os(ROLE).is_some() {
        // It goes on once it was moved.
        io::stdin().read_line(&mut String::new()).unwrap();
        let groups = CgroupHandle::new(&Limits::default());
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let admitted = groups.admit(child.id() as i32);
        child.kill().unwrap();
        child.wait().unwrap();
        admitted.unwrap();
        println!("\nmade {}", groups.folders().count());
        return;
    }
    let Some(place) = Hierarchies::of_this_host().unified else {
        eprintln!("skipped {NAME}: no hierarchy of version 2 is mounted");
        return;
    };
    let above = place.group.join(format!("given-{}", std::process::id()));
    let own = above.join("own");
    if !rustix::process::geteuid().is_root()
        || fs::create_dir_all(&own).and_then(|()| chown(&above, Some(USER), None)).is_err()
    {
        fs::remove_dir(&above).ok();
        eprintln!("skipped {NAME}: it takes root, and a hierarchy of version 2 that can be written to");
        return;
    }
    let ask = || {
        let mut asked = Command::new(std::env::current_exe()?)
            .args(["--exact", NAME, "--nocapture"])
            .env(ROLE, "1")
            .uid(USER)
            .gid(USER)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        set(&own, "cgroup.procs", &asked.id().to_string())?;
        asked.stdin.take().unwrap().write_all(b"\n")?;
        asked.wait_with_output()
    };
    let in_part = ask();
    let in_whole = chown(above.join("cgroup.procs"), Some(USER), None).and_then(|()| ask());
    remove(&own);
    remove(&above);
    if in_part.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
        eprintln!("skipped {NAME}: an ordinary user cannot run the program of this test");
        return;
    }
    for (output, made) in [(in_part.unwrap(), "\nmade 0\n"), (in_whole.unwrap(), "\nmade 1\n")] {
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(made), "{made:?}: {text}");
    }
}
