//! Files that come in, wait, are played and go, by workers that are played too.

use super::*;
use bellwether_artifact::durable;
use std::path::Path;
use std::sync::atomic::AtomicUsize;

fn drop_in(root: &Path, count: usize) {
    for number in 0..count {
        durable::write_bytes(root.join("inbox").join(format!("f{number:02}")), b"x").unwrap();
    }
}

fn count(root: &Path, place: &str) -> usize {
    std::fs::read_dir(root.join(place)).unwrap().count()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
    panic!("{what} never came about");
}

const CREW: Crew = Crew { episodes: 3, queue: 2, look: Duration::from_millis(2), room_bytes: 1 };

/// Names that are never given twice.
fn named(next: &AtomicUsize) -> EpisodeId {
    EpisodeId(format!("e{}", next.fetch_add(1, Ordering::Relaxed)))
}

#[test]
fn a_full_queue_leaves_files_in_the_inbox_and_says_so() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::open(root.path()).unwrap();
    drop_in(root.path(), 12);
    let (signals, counts, next) = (Signals::default(), Counts::default(), AtomicUsize::new(0));
    let (go, full, most) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let play = |_: &Taken| {
                most.fetch_max(counts.running.load(Ordering::Relaxed) as usize, Ordering::Relaxed);
                while !go.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                }
                Played::Ended(Place::Released)
            };
            let tell = |told: Told<'_>| {
                if let Told::Full { waiting } = told {
                    full.store(waiting, Ordering::Relaxed);
                }
            };
            CREW.work(&folder, &signals, &counts, &|| named(&next), &play, &tell).unwrap();
        });
        until("a full queue", || full.load(Ordering::Relaxed) > 0);
        assert_eq!((count(root.path(), "inbox"), count(root.path(), "work")), (7, 5));
        go.store(true, Ordering::Relaxed);
        until("the end of the work", || counts.released.load(Ordering::Relaxed) == 12);
        signals.drain.store(true, Ordering::Relaxed);
    });
    assert_eq!((count(root.path(), "released"), count(root.path(), "work")), (12, 0));
    assert_eq!((full.load(Ordering::Relaxed), most.load(Ordering::Relaxed)), (7, 3));
}

#[test]
fn what_finds_no_room_goes_back_to_the_inbox_and_is_taken_again() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::open(root.path()).unwrap();
    drop_in(root.path(), 4);
    let (signals, counts, next) = (Signals::default(), Counts::default(), AtomicUsize::new(0));
    let (plays, told) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        scope.spawn(|| {
            let play = |_: &Taken| match plays.fetch_add(1, Ordering::Relaxed) {
                0..3 => Played::NoRoom,
                _ => Played::Ended(Place::Released),
            };
            let tell = |said: Told<'_>| match said {
                Told::NoRoom { .. } => told.lock().unwrap().push("none"),
                Told::Room => told.lock().unwrap().push("room"),
                _ => {}
            };
            CREW.work(&folder, &signals, &counts, &|| named(&next), &play, &tell).unwrap();
        });
        until("the end of the work", || counts.released.load(Ordering::Relaxed) == 4);
        until("room again", || counts.no_room.load(Ordering::Relaxed) == 0);
        signals.drain.store(true, Ordering::Relaxed);
    });
    assert_eq!((count(root.path(), "released"), count(root.path(), "undecided")), (4, 0));
    let told = told.into_inner().unwrap();
    assert!(!told.is_empty() && told.chunks(2).all(|pair| pair[0] == "none"), "{told:?}");
}

#[test]
fn files_stay_in_the_inbox_until_the_disk_has_room() {
    let root = tempfile::tempdir().unwrap();
    let Some(_disk) = Disk::mount("files_stay_in_the_inbox_until_the_disk_has_room", root.path()) else { return };
    let folder = Folder::open(root.path()).unwrap();
    drop_in(root.path(), 3);
    let filler = root.path().join("filler");
    durable::write_bytes(&filler, &vec![0; 12 << 20]).unwrap();
    let (signals, counts, next) = (Signals::default(), Counts::default(), AtomicUsize::new(0));
    let told = Mutex::new(Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            let tell = |said: Told<'_>| match said {
                Told::NoRoom { waiting } => told.lock().unwrap().push(format!("no room for {waiting}")),
                Told::Room => told.lock().unwrap().push("room".to_owned()),
                Told::Full { waiting } => told.lock().unwrap().push(format!("full, {waiting} wait")),
                Told::Taken(_) => told.lock().unwrap().push("taken".to_owned()),
                _ => {}
            };
            let play = |_: &Taken| Played::Ended(Place::Released);
            let crew = Crew { room_bytes: 4 << 20, ..CREW };
            crew.work(&folder, &signals, &counts, &|| named(&next), &play, &tell).unwrap();
        });
        until("no room", || counts.no_room.load(Ordering::Relaxed) == 1);
        thread::sleep(CREW.look * 20);
        assert_eq!((count(root.path(), "inbox"), count(root.path(), "work")), (3, 0));
        std::fs::remove_file(&filler).unwrap();
        until("the end of the work", || counts.released.load(Ordering::Relaxed) == 3);
        until("room", || counts.no_room.load(Ordering::Relaxed) == 0);
        signals.drain.store(true, Ordering::Relaxed);
    });
    let told = told.into_inner().unwrap();
    assert_eq!(told.iter().filter(|said| *said == "taken").count(), 3);
    let others: Vec<_> = told.iter().filter(|said| *said != "taken").collect();
    assert_eq!(others, ["no room for 3", "room"]);
}

/// A disk of 16 MiB, as long as this lives.
struct Disk<'a>(&'a Path);

impl Disk<'_> {
    fn mount<'a>(test: &str, folder: &'a Path) -> Option<Disk<'a>> {
        let mut mount = std::process::Command::new("mount");
        match mount.args(["-t", "tmpfs", "-o", "size=16m", "small"]).arg(folder).output() {
            Ok(done) if done.status.success() => Some(Disk(folder)),
            failed => {
                eprintln!("skipped {test}: no disk can be mounted: {failed:?}");
                None
            }
        }
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        _ = std::process::Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_drain_ends_what_runs_and_gives_back_what_waits() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::open(root.path()).unwrap();
    drop_in(root.path(), 5);
    let (signals, counts, next) = (Signals::default(), Counts::default(), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let play = |_: &Taken| {
                until("the drain", || signals.drain.load(Ordering::Relaxed));
                Played::Ended(Place::Terminated)
            };
            CREW.work(&folder, &signals, &counts, &|| named(&next), &play, &|_| {}).unwrap();
        });
        until("three that run", || counts.running.load(Ordering::Relaxed) == 3);
        until("two that wait", || counts.queued.load(Ordering::Relaxed) == 2);
        signals.drain.store(true, Ordering::Relaxed);
    });
    assert_eq!((count(root.path(), "terminated"), count(root.path(), "inbox")), (3, 2));
}

#[test]
fn what_was_cut_off_is_taken_up_again_by_the_next_loop() {
    let root = tempfile::tempdir().unwrap();
    drop(Folder::open(root.path()).unwrap());
    drop_in(root.path(), 4);
    let next = AtomicUsize::new(0);
    for (round, played) in [Played::CutOff, Played::Ended(Place::Undecided)].into_iter().enumerate() {
        let folder = Folder::open(root.path()).unwrap();
        let (signals, counts) = (Signals::default(), Counts::default());
        thread::scope(|scope| {
            scope.spawn(|| {
                CREW.work(&folder, &signals, &counts, &|| named(&next), &|_| played, &|_| {}).unwrap();
            });
            let done = || counts.cut_off.load(Ordering::Relaxed) + counts.undecided.load(Ordering::Relaxed) == 4;
            until("the end of the work", done);
            signals.drain.store(true, Ordering::Relaxed);
        });
        assert_eq!(counts.resumed.into_inner(), [0, 4][round]);
    }
    assert_eq!((count(root.path(), "undecided"), count(root.path(), "work")), (4, 0));
}

#[test]
fn a_file_that_cannot_be_moved_is_told_of_once_and_moved_when_it_can_be() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::open(root.path()).unwrap();
    // Its place is gone for a while.
    let (there, away) = (root.path().join("released"), root.path().join("away"));
    std::fs::rename(&there, &away).unwrap();
    drop_in(root.path(), 2);
    let (signals, counts, next) = (Signals::default(), Counts::default(), AtomicUsize::new(0));
    let (troubles, settled) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let tell = |told: Told<'_>| match told {
                Told::Trouble(_) => drop(troubles.fetch_add(1, Ordering::Relaxed)),
                Told::Settled { .. } => drop(settled.fetch_add(1, Ordering::Relaxed)),
                _ => {}
            };
            let play = |_: &Taken| Played::Ended(Place::Released);
            CREW.work(&folder, &signals, &counts, &|| named(&next), &play, &tell).unwrap();
        });
        until("two files that cannot be moved", || troubles.load(Ordering::Relaxed) == 2);
        assert_eq!(count(root.path(), "work"), 2);
        std::fs::rename(&away, &there).unwrap();
        until("two files that were moved", || settled.load(Ordering::Relaxed) == 2);
        signals.drain.store(true, Ordering::Relaxed);
    });
    assert_eq!((count(root.path(), "released"), count(root.path(), "work")), (2, 0));
    assert_eq!(troubles.load(Ordering::Relaxed), 2);
}

#[test]
fn a_file_that_cannot_be_taken_is_told_of_once_and_keeps_nobody_waiting() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::open(root.path()).unwrap();
    drop_in(root.path(), 2);
    let (signals, counts, next) = (Signals::default(), Counts::default(), AtomicUsize::new(0));
    let (troubles, mended) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let tell = |told: Told<'_>| {
                if let Told::Trouble(_) = told {
                    troubles.fetch_add(1, Ordering::Relaxed);
                }
            };
            // The first file is asked for at each look until it is taken, the second once.
            let name = || {
                let episode = named(&next);
                let fits = episode.0 == "e1" || mended.load(Ordering::Relaxed);
                if fits { episode } else { EpisodeId("x".repeat(300)) }
            };
            let play = |_: &Taken| Played::Ended(Place::Released);
            CREW.work(&folder, &signals, &counts, &name, &play, &tell).unwrap();
        });
        until("the second file", || counts.released.load(Ordering::Relaxed) == 1);
        until("some looks", || next.load(Ordering::Relaxed) > 6);
        assert_eq!((count(root.path(), "inbox"), troubles.load(Ordering::Relaxed)), (1, 1));
        mended.store(true, Ordering::Relaxed);
        until("the first file", || counts.released.load(Ordering::Relaxed) == 2);
        signals.drain.store(true, Ordering::Relaxed);
    });
}
