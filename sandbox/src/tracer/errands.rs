//! What is done besides following calls: acting on tasks, keeping the time.

use std::fs;

use super::{Act, Flow, Proof, Sink, Summary, Tracer};
use crate::edge::ptrace::{self, Go};

/// How long a task may wait for its maker's event before the kernel is asked about it.
const ORPHAN_NS: u64 = 500_000_000;

impl Tracer {
    /// Does what had to wait and what the time has come for.
    pub(super) fn errands(&mut self, sink: &mut impl Sink) {
        while let Some(act) = self.later.pop_front() {
            let proof = self.act(act, sink);
            sink.acted(act, proof);
        }
        let now = self.now_ns();
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

    /// Lets a task go on that was kept where it stopped.
    pub(super) fn unpark(&mut self, tid: u32) {
        if let Some(how) = self.tree.get(tid).and_then(|task| task.parked.take()) {
            self.go(tid, how);
        }
    }

    /// Lets all tasks go on.
    pub(super) fn unpark_all(&mut self) {
        let parked: Vec<u32> =
            self.tree.tasks().filter(|(_, task)| task.parked.is_some()).map(|(tid, _)| tid).collect();
        for tid in parked {
            self.unpark(tid);
        }
    }

    /// Adds up what a process that exits has read and written.
    pub(super) fn count_traffic(&mut self, tid: u32) {
        self.summary.add_traffic(fs::read_to_string(format!("/proc/{tid}/io")).ok().as_deref());
    }
}

impl Summary {
    /// Adds the counters of a process, as the kernel writes them. A kernel may be built without them, and those of a process that made
    /// itself undumpable are root's alone.
    fn add_traffic(&mut self, text: Option<&str>) {
        let Some(text) = text else {
            self.uncounted += 1;
            return;
        };
        let traffic = &mut self.traffic;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracer::Traffic;

    #[test]
    fn counters_that_cannot_be_read_are_told_of() {
        let mut summary = Summary::default();
        summary.add_traffic(Some("rchar: 5\nwchar: 6\nsyscr: 7\nsyscw: 8\nread_bytes: 4096\n"));
        summary.add_traffic(None);
        summary.add_traffic(Some("rchar: 1\n"));
        let traffic = Traffic { read_bytes: 6, written_bytes: 6, reads: 7, writes: 8 };
        assert_eq!((summary.traffic, summary.uncounted), (traffic, 1));
    }
}
