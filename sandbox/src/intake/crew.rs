//! Several episodes at once, and a bounded queue before them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bellwether_env_adapter::EpisodeId;

use super::{Folder, IntakeError, Place, Taken};

/// How many episodes go on at once, and how files are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crew {
    /// Episodes at once, at least 1.
    pub episodes: usize,
    /// Files that were taken and wait for one of them to end; what comes beyond stays in the inbox.
    pub queue: usize,
    /// How often the inbox is looked at.
    pub look: Duration,
    /// Bytes that an episode needs on the disk of the folder before it begins: while they are not there, files stay in the inbox
    /// ([`Folder::has_room`]).
    pub room_bytes: u64,
}

/// What ends a loop.
#[derive(Debug, Default)]
pub struct Signals {
    /// Nothing new is begun; what runs goes on to its end.
    pub drain: AtomicBool,
    /// What runs is killed.
    pub stop: AtomicBool,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Played {
    /// Its episode ended, and it goes there.
    Ended(Place),
    /// Its episode was cut off: it stays in work, for the next loop.
    CutOff,
    /// The disk had no room for an episode, and nothing ran: it goes back to the inbox.
    NoRoom,
}

/// Something that a loop tells.
#[derive(Debug)]
pub enum Told<'a> {
    /// A file was in work when another loop ended, and is taken up again.
    Resumed {
        /// As it was.
        before: &'a Taken,
        /// As it is now.
        now: &'a Taken,
    },
    /// A file was taken.
    Taken(&'a Taken),
    /// The queue is full: so many files stay in the inbox.
    Full {
        /// How many.
        waiting: usize,
    },
    /// The disk has no room for an episode: so many files stay in the inbox.
    NoRoom {
        /// How many.
        waiting: usize,
    },
    /// The disk has room again.
    Room,
    /// What is no file stays in the inbox.
    Odd(&'a OsString),
    /// A file went where its verdict sends it.
    Settled {
        /// The file.
        taken: &'a Taken,
        /// Where it went; nothing for what was gone.
        to: Option<&'a std::path::Path>,
    },
    /// A file could not be moved, or the inbox not be read. Each look at the inbox tries again, and the end of the loop once more; what
    /// stays in work then is for the next loop. A file is told of once.
    Trouble(&'a IntakeError),
}

/// What a loop counts.
#[derive(Debug, Default)]
pub struct Counts {
    /// Files that were taken.
    pub taken: AtomicU64,
    /// Those that were in work when another loop ended.
    pub resumed: AtomicU64,
    /// Episodes that go on.
    pub running: AtomicU64,
    /// Files in the queue.
    pub queued: AtomicU64,
    /// Files that were left in the inbox at the last look because the queue or the disk was full.
    pub waiting: AtomicU64,
    /// Looks at which the queue was full.
    pub full: AtomicU64,
    /// 1 while files stay in the inbox because the disk has no room for an episode, else 0.
    pub no_room: AtomicU64,
    /// Episodes that ended, by where their files went.
    pub released: AtomicU64,
    /// Convicted, and not in the vault.
    pub terminated: AtomicU64,
    /// Convicted, and in the vault.
    pub quarantined: AtomicU64,
    /// Without a verdict.
    pub undecided: AtomicU64,
    /// Cut off.
    pub cut_off: AtomicU64,
}

/// One number of [`Counts`]: its name, what it says, whether it only grows, and its value.
pub type Count = (&'static str, &'static str, bool, u64);

impl Counts {
    /// All of them.
    pub fn all(&self) -> [Count; 12] {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("taken", "Files that were taken from the inbox.", true, of(&self.taken)),
            ("resumed", "Files that were in work when another loop ended.", true, of(&self.resumed)),
            ("running", "Episodes that go on.", false, of(&self.running)),
            ("queued", "Files that were taken and wait.", false, of(&self.queued)),
            ("waiting", "Files in the inbox for which there is no room.", false, of(&self.waiting)),
            ("full", "Looks at the inbox that found the queue full.", true, of(&self.full)),
            ("no_room", "Whether files wait because the disk has no room.", false, of(&self.no_room)),
            ("released", "Episodes that ended in a release.", true, of(&self.released)),
            ("terminated", "Episodes that ended in a conviction, with the file kept.", true, of(&self.terminated)),
            (
                "quarantined",
                "Episodes that ended in a conviction, with the file in the vault.",
                true,
                of(&self.quarantined),
            ),
            ("undecided", "Episodes that ended without a verdict.", true, of(&self.undecided)),
            ("cut_off", "Episodes that were cut off.", true, of(&self.cut_off)),
        ]
    }
}

/// What a crew works with.
struct Site<'a> {
    folder: &'a Folder,
    signals: &'a Signals,
    counts: &'a Counts,
    tell: &'a (dyn Fn(Told<'_>) + Sync),
    room_bytes: u64,
    /// An episode found no room since the last look.
    no_room: AtomicBool,
    /// Files whose episode is over and that could not be moved yet.
    unsettled: Mutex<Vec<(Taken, Place)>>,
}

/// What was told of.
#[derive(Default)]
struct Known {
    /// That the queue is full.
    full: bool,
    /// That the disk has no room.
    no_room: bool,
    /// Names in the inbox that are no files.
    odd: BTreeSet<OsString>,
    /// Files in the inbox that cannot be taken.
    stuck: BTreeSet<OsString>,
}

impl Crew {
    /// Works until it is told to drain, and then until nothing runs any more. `name` gives an episode its name, `play` plays the
    /// episode of a file to its end, `tell` hears of what happens.
    ///
    /// # Errors
    /// The folder cannot be read at the start, or there are no threads. Later trouble is told, and tried again.
    pub fn work(
        &self,
        folder: &Folder,
        signals: &Signals,
        counts: &Counts,
        name: &dyn Fn() -> EpisodeId,
        play: &(dyn Fn(&Taken) -> Played + Sync),
        tell: &(dyn Fn(Told<'_>) + Sync),
    ) -> Result<(), IntakeError> {
        let Crew { room_bytes, .. } = *self;
        let no_room = AtomicBool::new(false);
        let site = Site { folder, signals, counts, tell, room_bytes, no_room, unsettled: Mutex::default() };
        let mut resumed = folder.left()?;
        resumed.reverse();
        let (give, files) = mpsc::channel::<Taken>();
        let files = Mutex::new(files);
        let worked = thread::scope(|scope| {
            let mut workers = Vec::new();
            for number in 0..self.episodes.max(1) {
                let (site, files) = (&site, &files);
                let worker = thread::Builder::new()
                    .name(format!("episode-{number}"))
                    .spawn_scoped(scope, move || site.play_all(files, play));
                workers.push(worker);
            }
            if let Some(cause) = workers.into_iter().find_map(Result::err) {
                signals.drain.store(true, Ordering::Relaxed);
                drop(give);
                let path = folder.episodes();
                return Err(IntakeError::System { what: "start the threads that play episodes in", path, cause });
            }
            let mut known = Known::default();
            while !signals.drain.load(Ordering::Relaxed) {
                let room = (self.episodes.max(1) + self.queue) as u64;
                let free = |counts: &Counts| {
                    counts.queued.load(Ordering::Relaxed) + counts.running.load(Ordering::Relaxed) < room
                };
                let looked = site.look(&mut resumed, &mut known, name, &|| free(counts), &|taken| {
                    counts.queued.fetch_add(1, Ordering::Relaxed);
                    // The workers live as long as this end does.
                    _ = give.send(taken);
                });
                if let Err(error) = looked {
                    tell(Told::Trouble(&error));
                }
                thread::sleep(self.look);
            }
            drop(give);
            Ok(())
        });
        site.settle_again();
        worked
    }
}

impl Site<'_> {
    /// Takes what there is room for.
    fn look(
        &self,
        resumed: &mut Vec<Taken>,
        known: &mut Known,
        name: &dyn Fn() -> EpisodeId,
        free: &dyn Fn() -> bool,
        give: &dyn Fn(Taken),
    ) -> Result<(), IntakeError> {
        let Site { folder, counts, tell, .. } = self;
        self.settle_again();
        let found_none = self.no_room.swap(false, Ordering::Relaxed);
        // Nothing where nobody has asked.
        let mut roomy = found_none.then_some(false);
        let mut has_room = || {
            let room = !found_none && folder.has_room(self.room_bytes);
            roomy = Some(room);
            room
        };
        while free()
            && let Some(before) = resumed.last()
            && has_room()
        {
            match folder.again(before, name()) {
                Ok(Some(now)) => {
                    counts.resumed.fetch_add(1, Ordering::Relaxed);
                    tell(Told::Resumed { before, now: &now });
                    give(now);
                }
                Ok(None) => {}
                // It stays in work, where the next loop finds it.
                Err(error) => tell(Told::Trouble(&error)),
            }
            resumed.pop();
        }
        let (files, strange) = folder.waiting()?;
        for name in &strange {
            if known.odd.insert(name.clone()) {
                tell(Told::Odd(name));
            }
        }
        known.odd.retain(|name| strange.contains(name));
        known.stuck.retain(|name| files.contains(name));
        let mut waiting = files.len();
        for file in &files {
            if !free() || !has_room() {
                break;
            }
            waiting -= 1;
            match folder.take(file, name()) {
                Ok(Some(taken)) => {
                    counts.taken.fetch_add(1, Ordering::Relaxed);
                    tell(Told::Taken(&taken));
                    give(taken);
                }
                Ok(None) => {}
                // Those behind it have done nothing wrong.
                Err(error) => {
                    if known.stuck.insert(file.clone()) {
                        tell(Told::Trouble(&error));
                    }
                }
            }
        }
        counts.waiting.store(waiting as u64, Ordering::Relaxed);
        let full = waiting > 0 && roomy != Some(false);
        if full {
            counts.full.fetch_add(1, Ordering::Relaxed);
            if !known.full {
                tell(Told::Full { waiting });
            }
        }
        known.full = full;
        match roomy {
            Some(true) if known.no_room => tell(Told::Room),
            Some(false) if !known.no_room => tell(Told::NoRoom { waiting: waiting + resumed.len() }),
            _ => {}
        }
        known.no_room = roomy.map_or(known.no_room, |room| !room);
        counts.no_room.store(known.no_room.into(), Ordering::Relaxed);
        Ok(())
    }

    /// Puts files where they go that could not be moved before.
    fn settle_again(&self) {
        self.unsettled().retain(|(taken, place)| match self.folder.settle(taken, *place) {
            Ok(to) => {
                (self.tell)(Told::Settled { taken, to: to.as_deref() });
                false
            }
            Err(_) => true,
        });
    }

    fn unsettled(&self) -> MutexGuard<'_, Vec<(Taken, Place)>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn play_all(&self, files: &Mutex<Receiver<Taken>>, play: &(dyn Fn(&Taken) -> Played + Sync)) {
        let Site { folder, signals, counts, tell, .. } = self;
        loop {
            let next = files.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(taken) = next else { return };
            counts.running.fetch_add(1, Ordering::Relaxed);
            counts.queued.fetch_sub(1, Ordering::Relaxed);
            let played = match signals.drain.load(Ordering::Relaxed) {
                true => Played::Ended(Place::Inbox),
                false => play(&taken),
            };
            let count = match played {
                Played::Ended(Place::Inbox) | Played::NoRoom => None,
                Played::Ended(Place::Released) => Some(&counts.released),
                Played::Ended(Place::Terminated) => Some(&counts.terminated),
                Played::Ended(Place::Vault) => Some(&counts.quarantined),
                Played::Ended(Place::Undecided) => Some(&counts.undecided),
                Played::CutOff => Some(&counts.cut_off),
            };
            let place = match played {
                Played::Ended(place) => Some(place),
                Played::NoRoom => {
                    self.no_room.store(true, Ordering::Relaxed);
                    Some(Place::Inbox)
                }
                Played::CutOff => None,
            };
            if let Some(place) = place {
                match folder.settle(&taken, place) {
                    Ok(to) => tell(Told::Settled { taken: &taken, to: to.as_deref() }),
                    Err(error) => {
                        tell(Told::Trouble(&error));
                        self.unsettled().push((taken, place));
                    }
                }
            }
            if let Some(count) = count {
                count.fetch_add(1, Ordering::Relaxed);
            }
            counts.running.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
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
}
