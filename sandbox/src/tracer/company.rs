//! Which processor a task and its tracer run on.
//!
//! A task stops twice for each recorded call, and waits for its tracer both times. On two processors every one of these
//! hand-overs wakes a processor that had just gone to sleep, which costs more than all that the tracer does, several times so in
//! a virtual machine. While one task alone makes calls there is nothing to be done side by side, so both are kept on the
//! tracer's processor, where a hand-over is a switch between two tasks. It ends when another task calls, when the task starts
//! one, and after a while, so that the scheduler can place both anew. The sample cannot ask for it: what asks for the processors
//! of a task ends it before the kernel answers.

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Calls in a row by which a task is taken to be alone.
const IN_A_ROW: u32 = 8;
/// How long two are kept together at most.
const LONGEST_NS: u64 = 100_000_000;

/// Keeps the tracer's thread and a task that calls alone on one processor.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Who called last, and how often in a row.
    last: (u32, u32),
    kept: Option<Kept>,
}

/// Two that are kept together, and where each may run otherwise.
#[derive(Debug)]
struct Kept {
    tid: u32,
    its: CpuSet,
    ours: CpuSet,
    since_ns: u64,
}

impl Company {
    /// The stopped task `tid` makes a call.
    pub(super) fn called(&mut self, tid: u32, now_ns: u64) {
        if self.last.0 != tid {
            self.part();
            self.last.0 = tid;
        }
        self.last.1 = self.last.1.saturating_add(1);
        if self.last.1 >= IN_A_ROW && self.kept.is_none() {
            self.kept = keep(tid, now_ns);
            // Where it cannot be had, it is not tried at each call.
            self.last.1 = 0;
        }
    }

    /// Some time has passed.
    pub(super) fn tick(&mut self, now_ns: u64) {
        if self.kept.as_ref().is_some_and(|kept| now_ns.saturating_sub(kept.since_ns) > LONGEST_NS) {
            self.part();
        }
    }

    /// The task `tid` made the task `child`, which may run where its maker may.
    pub(super) fn bore(&mut self, tid: u32, child: u32) {
        if let Some(kept) = self.kept.as_ref().filter(|kept| kept.tid == tid) {
            allow(Some(child), &kept.its);
            self.part();
        }
    }

    /// The thread `from` goes on under the number `tid`.
    pub(super) fn renamed(&mut self, from: u32, tid: u32) {
        if let Some(kept) = self.kept.as_mut().filter(|kept| kept.tid == from) {
            kept.tid = tid;
            self.part();
        }
    }

    /// Lets each run where it may.
    pub(super) fn part(&mut self) {
        self.last = (0, 0);
        if let Some(kept) = self.kept.take() {
            allow(Some(kept.tid), &kept.its);
            allow(None, &kept.ours);
        }
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        self.part();
    }
}

/// Moves the stopped task to this thread's processor, unless it may not run there.
fn keep(tid: u32, now_ns: u64) -> Option<Kept> {
    let pid = i32::try_from(tid).ok().and_then(Pid::from_raw)?;
    let (its, ours) = (sched_getaffinity(Some(pid)).ok()?, sched_getaffinity(None).ok()?);
    let here = sched_getcpu();
    if !its.is_set(here) || !ours.is_set(here) {
        return None;
    }
    let mut one = CpuSet::new();
    one.set(here);
    sched_setaffinity(None, &one).ok()?;
    if sched_setaffinity(Some(pid), &one).is_err() {
        allow(None, &ours);
        return None;
    }
    Some(Kept { tid, its, ours, since_ns: now_ns })
}

/// The task, or this thread, may run on these processors. A task that is gone needs none.
fn allow(tid: Option<u32>, where_to: &CpuSet) {
    let pid = tid.and_then(|tid| i32::try_from(tid).ok()).and_then(Pid::from_raw);
    if tid.is_none() || pid.is_some() {
        _ = sched_setaffinity(pid, where_to);
    }
}
