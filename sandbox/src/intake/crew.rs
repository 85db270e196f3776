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
mod tests;
