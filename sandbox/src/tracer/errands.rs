//! What is done besides following calls: holding tasks, acting on them, keeping the time.

use std::fs;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Act, Errand, Flow, Proof, Sink, Tracer};
use crate::edge::ptrace::{self, Go};

/// How often the clock rings while tasks are held.
const HOLDING_TICK: Duration = Duration::from_millis(1);
/// How long a task may wait for its maker's event before the kernel is asked about it.
const ORPHAN_NS: u64 = 500_000_000;

impl Tracer {
    /// Does what other threads want and what the time has come for.
    pub(super) fn errands(&mut self, sink: &mut impl Sink) {
        if self.errands.waiting.swap(false, Ordering::Acquire) {
            let queue = std::mem::take(&mut *self.errands.queue.lock().unwrap_or_else(PoisonError::into_inner));
            for errand in queue {
                match errand {
                    // Who asked may have gone away since.
                    Errand::Act(act, done) => _ = done.send(self.act(act, sink)),
                    Errand::Release(tid) => self.release(tid),
                }
            }
        }
        while let Some(act) = self.later.pop_front() {
            let proof = self.act(act, sink);
            sink.acted(act, proof);
        }
        let now = self.now_ns();
        while let Some((tid, until)) = self.held.front().copied()
            && until <= now
        {
            self.release(tid);
            let flow = sink.overdue(tid);
            self.follow(flow, sink);
        }
        if u128::from(now - self.ticked_ns) >= self.options.tick.as_nanos() {
            self.ticked_ns = now;
            self.company.tick(now);
            for tid in self.tree.adopt(now.saturating_sub(ORPHAN_NS), family) {
                self.go(tid, Go::Freely(0));
            }
            if self.killing {
                self.kill();
            }
            self.skip(now);
            let flow = sink.tick(now);
            self.follow(flow, sink);
        }
    }

    /// Does what the sink wants where no task waits for it.
    fn follow(&mut self, flow: Flow, sink: &mut impl Sink) {
        if let Flow::Act(act) = flow {
            let proof = self.act(act, sink);
            sink.acted(act, proof);
        }
    }

    pub(super) fn act(&mut self, act: Act, sink: &mut impl Sink) -> Proof {
        match act {
            Act::Level(level) => {
                if level >= 2 && self.level < 2 && self.no_writers(sink) == Proof::Busy {
                    return Proof::Busy;
                }
                self.level = self.level.max(level);
            }
            Act::Kill => {
                self.killing = true;
                self.kill();
            }
        }
        Proof::Done
    }

    /// Kills every task, stopped or not. What is born meanwhile is killed when it is seen.
    pub(super) fn kill(&mut self) {
        for (tid, task) in self.tree.tasks() {
            _ = ptrace::signal(task.process, tid, libc::SIGKILL);
        }
        for tid in self.tree.unborn() {
            _ = ptrace::signal(tid, tid, libc::SIGKILL);
        }
    }

    // Holding.

    /// The task stays stopped until it is released, or for as long as tasks may be held.
    pub(super) fn hold(&mut self, tid: u32, how: Go) {
        if let Some(task) = self.tree.get(tid) {
            task.parked = Some(how);
        }
        let longest = u64::try_from(self.options.hold.as_nanos()).unwrap_or(u64::MAX);
        self.held.push_back((tid, self.now_ns().saturating_add(longest)));
        if self.holding.is_none() {
            self.holding = self.bell.every(HOLDING_TICK).ok();
        }
    }

    fn release(&mut self, tid: u32) {
        let before = self.held.len();
        self.held.retain(|(held, _)| *held != tid);
        if self.held.len() < before {
            self.unpark(tid);
        }
        if self.held.is_empty() {
            self.holding = None;
        }
    }

    /// Lets a task go on that was kept where it stopped.
    pub(super) fn unpark(&mut self, tid: u32) {
        if let Some(how) = self.tree.get(tid).and_then(|task| task.parked.take()) {
            self.go(tid, how);
        }
    }

    /// Lets all tasks go on but those that are held.
    pub(super) fn unpark_all(&mut self) {
        let parked: Vec<u32> =
            self.tree.tasks().filter(|(_, task)| task.parked.is_some()).map(|(tid, _)| tid).collect();
        for tid in parked {
            if !self.held.iter().any(|(held, _)| *held == tid) {
                self.unpark(tid);
            }
        }
    }

    /// Adds up what a process that exits has read and written.
    pub(super) fn count_traffic(&mut self, tid: u32) {
        // A process whose counters cannot be read is not counted: the kernel may be built without them.
        let Ok(text) = fs::read_to_string(format!("/proc/{tid}/io")) else { return };
        let traffic = &mut self.summary.traffic;
        for line in text.lines() {
            let Some((name, value)) = line.split_once(": ") else { continue };
            let value = value.parse::<u64>().unwrap_or(0);
            match name {
                "rchar" => traffic.read_bytes += value,
                "wchar" => traffic.written_bytes += value,
                "syscr" => traffic.reads += value,
                "syscw" => traffic.writes += value,
                _ => {}
            }
        }
    }
}

/// Thread group and parent of a task, as the kernel tells.
fn family(tid: u32) -> Option<(u32, u32)> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u32>().ok());
    Some((field("Tgid:")?, field("PPid:")?))
}
