//! The tasks of a sample: thread groups, parents, and who shares memory with whom.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bellwether_env_adapter::calls::RecordedCall;

use super::fields::Fields;
use crate::edge::ptrace::Go;

/// Every traced task that lives.
#[derive(Debug, Default)]
pub(super) struct Tree {
    tasks: BTreeMap<u32, Task>,
    /// Tasks that stopped before the event of the call that made them, and when.
    unborn: BTreeMap<u32, u64>,
    /// Tasks that were gone before that event, and when.
    gone_unborn: BTreeMap<u32, u64>,
}

/// A traced task.
#[derive(Debug)]
pub(super) struct Task {
    /// Its thread group.
    pub(super) process: u32,
    /// The group that made its group; unknown for the first.
    pub(super) parent: Option<u32>,
    pub(super) memory: Rc<Memory>,
    /// The call it is in, if that is recorded.
    pub(super) call: Option<Pending>,
    /// How it goes on, while it is stopped and held back.
    pub(super) parked: Option<Go>,
    /// Why it stopped last.
    pub(super) stop: Stop,
    /// It waits within `vfork` and cannot be stopped.
    pub(super) awaits: bool,
    /// Its maker, which lets it use its memory and waits.
    lender: Option<u32>,
}

/// Where a task is when it stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stop {
    /// Outside of any call, or in one that will be tried again.
    #[default]
    Outside,
    /// At a call that has not run.
    Asked,
    /// Within a call that is running, or that was refused.
    Within,
    /// At the end of a call.
    Returned,
    /// At the call that ends its process, which was recorded.
    Leaving,
}

/// An address space.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Tasks that use it and wait for a child that uses it too: they change nothing.
    waiting: Cell<usize>,
    /// Some of it is shared with other address spaces, or was once.
    pub(super) shared: Cell<bool>,
    /// Where a `syscall` instruction stands; 0 where none was seen.
    pub(super) instruction: Cell<u64>,
}

/// A recorded call that has not returned.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) call: &'static RecordedCall,
    pub(super) args: [u64; 6],
    pub(super) fields: Fields,
    pub(super) begun_ns: u64,
    /// Memory was read; whether another task could change it meanwhile.
    pub(super) raced: Option<bool>,
}

/// How a call makes a task.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Birth {
    pub(super) thread: bool,
    pub(super) sibling: bool,
    pub(super) shares_memory: bool,
    /// Its maker waits until it runs a program or ends.
    pub(super) awaited: bool,
}

impl Birth {
    /// How the call `number` makes a task.
    pub(super) fn of(number: u32, args: &[u64; 6]) -> Birth {
        let set = |flag: i32| args[0] & flag as u64 != 0;
        match i64::from(number) {
            libc::SYS_vfork => Birth { shares_memory: true, awaited: true, ..Birth::default() },
            libc::SYS_clone => Birth {
                thread: set(libc::CLONE_THREAD),
                sibling: set(libc::CLONE_PARENT),
                shares_memory: set(libc::CLONE_VM),
                awaited: set(libc::CLONE_VFORK),
            },
            _ => Birth::default(),
        }
    }
}

impl Task {
    fn new(process: u32, parent: Option<u32>) -> Task {
        Task {
            process,
            parent,
            memory: Rc::default(),
            call: None,
            parked: None,
            stop: Stop::Outside,
            awaits: false,
            lender: None,
        }
    }

    /// Whether another task could have changed what was read of this one's memory.
    pub(super) fn races(&self) -> bool {
        Rc::strong_count(&self.memory) > 1 + self.memory.waiting.get() || self.memory.shared.get()
    }
}

impl Tree {
    /// Begins with the first task of a sample.
    pub(super) fn of(first: u32) -> Tree {
        let mut tree = Tree::default();
        tree.tasks.insert(first, Task::new(first, None));
        tree
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.unborn.is_empty()
    }

    /// Whether every task is stopped and held back, save those that nothing can stop and that do nothing.
    pub(super) fn is_parked(&self) -> bool {
        self.unborn.is_empty() && self.tasks.values().all(|task| task.parked.is_some() || task.awaits)
    }

    /// Tasks that stopped and whose makers are not known yet.
    pub(super) fn unborn(&self) -> impl Iterator<Item = u32> {
        self.unborn.keys().copied()
    }

    pub(super) fn get(&mut self, tid: u32) -> Option<&mut Task> {
        self.tasks.get_mut(&tid)
    }

    /// All tasks, in the order of their numbers.
    pub(super) fn tasks(&self) -> impl Iterator<Item = (u32, &Task)> {
        self.tasks.iter().map(|(tid, task)| (*tid, task))
    }

    /// A task stopped that is not known: its maker's event comes later.
    pub(super) fn meet(&mut self, tid: u32, now_ns: u64) {
        self.unborn.insert(tid, now_ns);
    }

    /// The maker of `child` is known; true if the child waits, stopped.
    pub(super) fn born(&mut self, parent: u32, birth: Birth, child: u32) -> bool {
        // Its end, or its being adopted, may have come first.
        if self.gone_unborn.remove(&child).is_some() || self.tasks.contains_key(&child) {
            return false;
        }
        let mut task = Task::new(child, None);
        if let Some(maker) = self.tasks.get_mut(&parent) {
            maker.awaits = birth.awaited;
            task.process = if birth.thread { maker.process } else { child };
            task.parent = if birth.thread || birth.sibling { maker.parent } else { Some(maker.process) };
            if birth.shares_memory {
                task.memory = Rc::clone(&maker.memory);
                if birth.awaited {
                    task.lender = Some(parent);
                    task.memory.waiting.set(task.memory.waiting.get() + 1);
                }
            } else {
                task.memory.shared.set(maker.memory.shared.get());
                task.memory.instruction.set(maker.memory.instruction.get());
            }
        }
        self.tasks.insert(child, task);
        self.unborn.remove(&child).is_some()
    }

    /// Takes in tasks whose makers died before they could tell, from what the kernel says of them; gives their numbers.
    pub(super) fn adopt(&mut self, met_before_ns: u64, look: impl Fn(u32) -> Option<(u32, u32)>) -> Vec<u32> {
        // Numbers are used again; what nobody asked for in time belongs to a maker that is gone too.
        self.gone_unborn.retain(|_, gone| *gone > met_before_ns);
        let waiting = self.unborn.iter().filter(|(_, met)| **met <= met_before_ns).map(|(tid, _)| *tid);
        let found: Vec<u32> = waiting.collect();
        for tid in &found {
            self.unborn.remove(tid);
            let (process, parent) = look(*tid).map_or((*tid, None), |(process, parent)| (process, Some(parent)));
            let mut task = Task::new(process, parent);
            if let Some(other) = self.tasks.values().find(|task| task.process == process) {
                task.memory = Rc::clone(&other.memory);
            }
            self.tasks.insert(*tid, task);
        }
        found
    }

    /// The task `from` ran a program and goes on under the number of its group; gives the leader that it replaced.
    pub(super) fn runs_program(&mut self, leader: u32, from: u32) -> Option<Task> {
        let old = if from == leader { None } else { self.tasks.remove(&leader) };
        if let Some(mut task) = self.tasks.remove(&from) {
            self.give_back(&mut task);
            task.memory = Rc::default();
            task.process = leader;
            self.tasks.insert(leader, task);
        }
        old
    }

    /// A task is gone.
    pub(super) fn end(&mut self, tid: u32, now_ns: u64) -> Option<Task> {
        let Some(mut task) = self.tasks.remove(&tid) else {
            self.unborn.remove(&tid);
            self.gone_unborn.insert(tid, now_ns);
            return None;
        };
        self.give_back(&mut task);
        Some(task)
    }

    /// The maker of a task no longer waits for it, if it did.
    fn give_back(&mut self, task: &mut Task) {
        let Some(lender) = task.lender.take() else { return };
        task.memory.waiting.set(task.memory.waiting.get().saturating_sub(1));
        if let Some(lender) = self.tasks.get_mut(&lender) {
            lender.awaits = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORK: Birth = Birth { thread: false, sibling: false, shares_memory: false, awaited: false };

    #[test]
    fn families_are_known_whoever_speaks_first() {
        let mut tree = Tree::of(10);
        assert!(!tree.born(10, FORK, 11));
        tree.meet(12, 0);
        assert!(tree.born(11, FORK, 12));
        assert!(!tree.born(12, Birth { thread: true, shares_memory: true, ..FORK }, 13));
        assert!(!tree.born(12, Birth { sibling: true, ..FORK }, 14));
        let place = |tree: &mut Tree, tid| tree.get(tid).map(|task| (task.process, task.parent));
        assert_eq!(place(&mut tree, 11), Some((11, Some(10))));
        assert_eq!(place(&mut tree, 12), Some((12, Some(11))));
        assert_eq!(place(&mut tree, 13), Some((12, Some(11))));
        assert_eq!(place(&mut tree, 14), Some((14, Some(11))));
        // A child that was gone before its maker spoke stays gone.
        tree.end(15, 0);
        assert!(!tree.born(14, FORK, 15));
        assert_eq!(place(&mut tree, 15), None);
        // The thread 13 runs a program and is 12 from then on.
        assert!(tree.runs_program(12, 13).is_some());
        assert_eq!(place(&mut tree, 13), None);
        assert_eq!(place(&mut tree, 12), Some((12, Some(11))));
    }

    #[test]
    fn orphans_are_adopted() {
        let mut tree = Tree::of(1);
        tree.meet(5, 100);
        tree.meet(6, 900);
        assert_eq!(tree.adopt(500, |_| Some((5, 1))), [5]);
        assert_eq!(tree.get(5).map(|task| (task.process, task.parent)), Some((5, Some(1))));
        assert!(tree.get(6).is_none() && !tree.is_empty());
        // What is known of a task stays when its maker speaks after all.
        tree.get(5).unwrap().parked = Some(Go::Listen);
        assert!(!tree.born(1, FORK, 5));
        assert_eq!(tree.get(5).unwrap().parked, Some(Go::Listen));
        // A number that is used again is another task's.
        tree.end(7, 100);
        tree.adopt(500, |_| None);
        tree.born(1, FORK, 7);
        assert!(tree.get(7).is_some());
    }

    #[test]
    fn memory_races_while_somebody_else_could_write_it() {
        let mut tree = Tree::of(1);
        let races = |tree: &mut Tree, tid| tree.get(tid).map(|task| task.races());
        assert_eq!(races(&mut tree, 1), Some(false));
        // Who waits for a child that borrowed its memory changes nothing.
        tree.born(1, Birth::of(libc::SYS_vfork as u32, &[0; 6]), 2);
        assert_eq!((races(&mut tree, 2), tree.get(1).unwrap().awaits), (Some(false), true));
        tree.runs_program(2, 2);
        assert!(!tree.get(1).unwrap().awaits);
        assert_eq!((races(&mut tree, 1), races(&mut tree, 2)), (Some(false), Some(false)));
        let thread = Birth::of(libc::SYS_clone as u32, &[(libc::CLONE_THREAD | libc::CLONE_VM) as u64, 0, 0, 0, 0, 0]);
        tree.born(2, thread, 3);
        assert_eq!((races(&mut tree, 2), races(&mut tree, 3)), (Some(true), Some(true)));
        tree.end(3, 0);
        assert_eq!(races(&mut tree, 2), Some(false));
        tree.get(2).unwrap().memory.shared.set(true);
        tree.born(2, FORK, 4);
        assert_eq!(races(&mut tree, 4), Some(true));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Groups and parents are the same whether a child stops before or after its maker speaks, and every child that stopped
        /// first is let go.
        #[test]
        fn families_do_not_depend_on_who_speaks_first(
            births in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, any::<bool>()), 1..40),
        ) {
            let mut tree = Tree::of(1);
            let mut model = vec![(1u32, 1u32, None)];
            for (at, (maker, kind, first)) in births.into_iter().enumerate() {
                let (maker, process, parent) = model[maker.index(model.len())];
                let child = at as u32 + 2;
                let birth = Birth { thread: kind == 1, sibling: kind == 2, shares_memory: kind == 1, awaited: false };
                if first {
                    tree.meet(child, 0);
                }
                prop_assert_eq!(tree.born(maker, birth, child), first);
                let family = match kind {
                    1 => (process, parent),
                    2 => (child, parent),
                    _ => (child, Some(process)),
                };
                model.push((child, family.0, family.1));
            }
            for (tid, process, parent) in model {
                let task = tree.get(tid).unwrap();
                prop_assert_eq!((task.process, task.parent), (process, parent));
                prop_assert!(tree.end(tid, 0).is_some());
            }
            prop_assert!(tree.is_empty());
        }
    }
}
