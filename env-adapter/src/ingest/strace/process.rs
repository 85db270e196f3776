//! Processes as the log shows them: thread groups, parents, working folders and descriptors.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

/// Threads followed at a time; a log that shows more live ones loses track of the others.
const MAX_THREADS: usize = 1 << 16;
/// Descriptors followed per table.
const MAX_DESCRIPTORS: usize = 1 << 12;
/// Bytes of calls that have not returned, over all threads.
const MAX_PENDING_BYTES: usize = 64 << 20;

/// Everything known of live threads.
#[derive(Default)]
pub(super) struct Processes {
    threads: BTreeMap<u32, Thread>,
    /// Those of them in a call that creates a thread which has not spoken.
    creating: BTreeSet<u32>,
    /// Bytes of the calls that they are in.
    pending_bytes: usize,
    /// Threads that a call returned and that have not spoken yet.
    silent: BTreeMap<u32, ()>,
    /// The first thread of the log, and whether it has ended.
    root: Option<u32>,
    root_ended: bool,
    /// Folder in which the first process starts.
    cwd: Option<Rc<str>>,
}

/// A live thread.
pub(super) struct Thread {
    /// Its thread group; unknown for a thread whose creation the log does not show.
    pub(super) tgid: Option<u32>,
    pub(super) ppid: Option<u32>,
    pub(super) folder: Rc<RefCell<Option<Rc<str>>>>,
    pub(super) files: Rc<RefCell<Files>>,
    /// The call it is in.
    pending: Option<Pending>,
}

/// A call that has not returned.
pub(super) struct Pending {
    pub(super) line: u64,
    pub(super) text: Vec<u8>,
    /// How it creates a thread or process, if it does.
    pub(super) birth: Option<Birth>,
    /// The child that already spoke.
    pub(super) child: Option<u32>,
}

/// How a call creates a thread or process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Birth {
    pub(super) thread: bool,
    pub(super) shares_folder: bool,
    pub(super) shares_files: bool,
    /// The child gets the caller's parent.
    pub(super) sibling: bool,
}

/// A table of descriptors.
pub(super) type Files = HashMap<i32, Descriptor>;

/// What a descriptor stands for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Descriptor {
    pub(super) path: Option<Rc<str>>,
    pub(super) peer: Option<(String, Option<u16>)>,
    pub(super) close_on_exec: bool,
}

/// Where a thread that speaks for the first time comes from.
pub(super) enum Origin {
    /// It is known now.
    Known,
    /// Several calls that have not returned may have created it.
    Ambiguous,
}

impl Processes {
    pub(super) fn new(cwd: Option<&str>) -> Self {
        Processes { cwd: cwd.map(Rc::from), ..Processes::default() }
    }

    pub(super) fn root_ended(&self) -> bool {
        self.root_ended
    }

    pub(super) fn thread(&mut self, tid: u32) -> Option<&mut Thread> {
        self.threads.get_mut(&tid)
    }

    /// Makes a thread known that a line names, as far as the log tells where it comes from.
    pub(super) fn meet(&mut self, tid: u32) -> Origin {
        if self.threads.contains_key(&tid) {
            self.silent.remove(&tid);
            return Origin::Known;
        }
        if self.root.is_none() {
            self.root = Some(tid);
            // What strace starts is a process, so the first thread leads its group.
            let thread = Thread { tgid: Some(tid), ..Thread::stranger(self.cwd.clone()) };
            self.insert(tid, thread);
            return Origin::Known;
        }
        let mut creating = self.creating.iter().copied();
        match (creating.next(), creating.next()) {
            (Some(parent), None) => {
                self.adopt(parent, tid);
                Origin::Known
            }
            (Some(_), Some(_)) => Origin::Ambiguous,
            (None, _) => {
                // Seen from inside a process namespace a child has another number than the call returned.
                let only = (self.silent.len() == 1).then(|| self.silent.pop_first()).flatten();
                match only.and_then(|(other, ())| self.remove(other).map(|thread| (other, thread))) {
                    Some((other, thread)) => {
                        let tgid = if thread.tgid == Some(other) { Some(tid) } else { thread.tgid };
                        self.insert(tid, Thread { tgid, ..thread });
                    }
                    None => self.meet_stranger(tid),
                }
                Origin::Known
            }
        }
    }

    /// Makes a thread known of which nothing is known.
    pub(super) fn meet_stranger(&mut self, tid: u32) {
        self.insert(tid, Thread::stranger(None));
    }

    /// The unreturned call of `parent` created `child`.
    pub(super) fn adopt(&mut self, parent: u32, child: u32) {
        let Some(thread) = self.threads.get_mut(&parent) else { return };
        let Some(pending) = &mut thread.pending else { return };
        let Some(birth) = pending.birth else { return };
        pending.child = Some(child);
        let parent_thread = thread.without_call();
        self.note(parent);
        self.bear(&parent_thread, birth, child);
    }

    /// A call of `parent` returned the number of a child.
    pub(super) fn born(&mut self, parent: u32, birth: Birth, child: u32, already: Option<u32>) {
        if already.is_some() {
            // It spoke before the call returned: under its number, or under another one of another namespace.
            return;
        }
        let Some(thread) = self.threads.get(&parent).map(Thread::without_call) else { return };
        self.bear(&thread, birth, child);
        if self.silent.len() < MAX_THREADS {
            self.silent.insert(child, ());
        }
    }

    fn bear(&mut self, parent: &Thread, birth: Birth, child: u32) {
        let share = |shares, own: &Rc<RefCell<Files>>| match shares {
            true => Rc::clone(own),
            false => Rc::new(RefCell::new(own.borrow().clone())),
        };
        let thread = Thread {
            tgid: if birth.thread { parent.tgid } else { Some(child) },
            ppid: if birth.thread || birth.sibling { parent.ppid } else { parent.tgid },
            folder: match birth.shares_folder {
                true => Rc::clone(&parent.folder),
                false => Rc::new(RefCell::new(parent.folder.borrow().clone())),
            },
            files: share(birth.shares_files, &parent.files),
            pending: None,
        };
        self.insert(child, thread);
    }

    fn insert(&mut self, tid: u32, thread: Thread) {
        if self.threads.len() < MAX_THREADS || self.threads.contains_key(&tid) {
            self.pending_bytes += thread.pending_bytes();
            let replaced = self.threads.insert(tid, thread);
            self.pending_bytes -= replaced.map_or(0, |thread| thread.pending_bytes());
        }
        self.note(tid);
    }

    fn remove(&mut self, tid: u32) -> Option<Thread> {
        let thread = self.threads.remove(&tid)?;
        self.pending_bytes -= thread.pending_bytes();
        self.note(tid);
        Some(thread)
    }

    /// Keeps in mind whether the call of a thread creates a thread that has not spoken.
    fn note(&mut self, tid: u32) {
        if self.threads.get(&tid).is_some_and(Thread::creates_unseen) {
            self.creating.insert(tid);
        } else {
            self.creating.remove(&tid);
        }
    }

    /// A thread is in a call from now on; gives the one that it was in, which never returned.
    ///
    /// # Errors
    /// What there is too much of to remember the call, in words.
    pub(super) fn pause(&mut self, tid: u32, pending: Pending) -> Result<Option<Pending>, &'static str> {
        let thread = self.threads.get_mut(&tid).ok_or("too many threads at a time")?;
        let bytes = self.pending_bytes - thread.pending_bytes() + pending.text.len();
        if bytes > MAX_PENDING_BYTES {
            return Err("too much text in calls that have not returned");
        }
        self.pending_bytes = bytes;
        let lost = thread.pending.replace(pending);
        self.note(tid);
        Ok(lost)
    }

    /// The call that a thread is in goes on.
    pub(super) fn resume(&mut self, tid: u32) -> Option<Pending> {
        let pending = self.threads.get_mut(&tid)?.pending.take()?;
        self.pending_bytes -= pending.text.len();
        self.note(tid);
        Some(pending)
    }

    /// A thread is gone; gives the call it was in.
    pub(super) fn end(&mut self, tid: u32) -> Option<(Thread, Pending)> {
        if self.root == Some(tid) {
            self.root_ended = true;
        }
        self.silent.remove(&tid);
        let mut thread = self.remove(tid)?;
        let pending = thread.pending.take()?;
        Some((thread, pending))
    }

    /// The thread `by` ran a program and goes on under the number of its group's leader; gives the call that the leader
    /// was in.
    pub(super) fn supersede(&mut self, leader: u32, by: u32) -> Option<(Thread, Pending)> {
        let mut thread = self.remove(by)?;
        thread.tgid = Some(leader);
        let old = self.remove(leader);
        if let Some(old) = &old {
            thread.ppid = old.ppid;
        }
        self.insert(leader, thread);
        let mut old = old?;
        let pending = old.pending.take()?;
        Some((old, pending))
    }

    /// The calls that have not returned at the end of the log, in the order of their lines.
    pub(super) fn unreturned(&mut self) -> Vec<(u32, Thread, Pending)> {
        self.creating.clear();
        self.pending_bytes = 0;
        let mut all: Vec<_> = std::mem::take(&mut self.threads)
            .into_iter()
            .filter_map(|(tid, mut thread)| thread.pending.take().map(|pending| (tid, thread, pending)))
            .collect();
        all.sort_by_key(|(_, _, pending)| pending.line);
        all
    }
}

impl Thread {
    pub(super) fn stranger(cwd: Option<Rc<str>>) -> Self {
        let folder = Rc::new(RefCell::new(cwd));
        Thread { tgid: None, ppid: None, folder, files: Rc::default(), pending: None }
    }

    /// The same thread in no call.
    fn without_call(&self) -> Thread {
        let (folder, files) = (Rc::clone(&self.folder), Rc::clone(&self.files));
        Thread { tgid: self.tgid, ppid: self.ppid, folder, files, pending: None }
    }

    fn pending_bytes(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.text.len())
    }

    fn creates_unseen(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.birth.is_some() && pending.child.is_none())
    }

    /// What a descriptor stands for, as far as it was followed.
    pub(super) fn descriptor(&self, number: i32) -> Option<Descriptor> {
        self.files.borrow().get(&number).cloned()
    }

    /// A descriptor stands for something from now on.
    pub(super) fn opened(&self, number: i32, descriptor: Descriptor) {
        let mut files = self.files.borrow_mut();
        if files.len() < MAX_DESCRIPTORS || files.contains_key(&number) {
            files.insert(number, descriptor);
        }
    }

    /// The thread runs another program: its table is its own, without what closes then.
    pub(super) fn ran_program(&mut self) {
        let mut files = self.files.borrow().clone();
        files.retain(|_, open| !open.close_on_exec);
        self.files = Rc::new(RefCell::new(files));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(bytes: usize) -> Pending {
        Pending { line: 1, text: vec![b'x'; bytes], birth: None, child: None }
    }

    #[test]
    fn calls_that_do_not_return_take_bounded_memory() {
        let mut processes = Processes::new(None);
        for tid in [1, 2, 3] {
            processes.meet(tid);
        }
        assert!(matches!(processes.pause(1, call(MAX_PENDING_BYTES - 10)), Ok(None)));
        assert!(processes.pause(2, call(11)).is_err());
        assert!(matches!(processes.pause(2, call(10)), Ok(None)));
        assert!(processes.pause(3, call(1)).is_err());
        // What a thread was in makes room for what it is in; so do a return, an end and a program that takes over.
        assert!(matches!(processes.pause(1, call(MAX_PENDING_BYTES - 20)), Ok(Some(_))));
        assert!(processes.resume(2).is_some() && processes.resume(2).is_none());
        assert!(processes.pause(3, call(20)).is_ok());
        assert!(matches!(processes.supersede(1, 3), Some((_, lost)) if lost.text.len() == MAX_PENDING_BYTES - 20));
        assert_eq!(processes.pending_bytes, 20);
        assert!(processes.end(1).is_some());
        assert_eq!(processes.pending_bytes, 0);
    }
}
