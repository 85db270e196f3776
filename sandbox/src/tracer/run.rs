//! The loop: every change of a task, in the order in which the kernel tells.

use std::io;

use bellwether_env_adapter::Event;
use bellwether_env_adapter::sensor::{MAX_ARGS_BYTES, clipped};

use super::fields::{Fields, Reading};
use super::sight::Sight;
use super::skip::{self, Asked};
use super::tree::{Birth, Pending, Stop};
use super::{End, Flow, Sink, Summary, Tracer, TracerError};
use crate::edge::ptrace::{self, CallStop, Change, Go};
use crate::filter::{PIDFD_SEND_SIGNAL, Rule, asks_for_processors, attaches_memory, refusal, rule, starts_process};

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// It returned this, negative for an error.
    Returned(i64),
    /// It was kept from running, with this error.
    Denied(i32),
    /// It never returned, or has not yet.
    Never,
}

impl Tracer {
    /// Traces until the last task has ended.
    ///
    /// # Errors
    /// The wait for tasks fails; they are killed when this thread ends.
    pub fn run(mut self, sink: &mut impl Sink) -> Result<Summary, TracerError> {
        let _clock = self.bell.every(self.options.tick).map_err(TracerError::Bell)?;
        while !self.tree.is_empty() {
            self.errands(sink);
            match ptrace::wait() {
                Ok(Some((tid, change))) => self.change(tid, change, sink),
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TracerError::Wait(error)),
            }
        }
        self.summary.skipped_ns = self.skipped_ns();
        Ok(self.summary)
    }

    /// Takes one change of a task.
    pub(super) fn change(&mut self, tid: u32, change: Change, sink: &mut impl Sink) {
        if let (Change::Stopped { signal, event }, Some(task)) = (change, self.tree.get(tid)) {
            task.stop = match event {
                libc::PTRACE_EVENT_SECCOMP => Stop::Asked,
                0 if signal == libc::SIGTRAP | 0x80 => Stop::Returned,
                0 | libc::PTRACE_EVENT_STOP => Stop::Outside,
                _ => Stop::Within,
            };
        }
        match change {
            Change::Exited(code) => self.ended(tid, End::Exited(code), sink),
            Change::Killed(signal) => self.ended(tid, End::Killed(signal), sink),
            Change::Stopped { event: libc::PTRACE_EVENT_STOP, signal } if self.tree.get(tid).is_some() => {
                self.time_stopped(tid, false);
                let stays = matches!(signal, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU);
                self.go(tid, if stays { Go::Listen } else { Go::Freely(0) });
            }
            Change::Stopped { event, .. } if self.tree.get(tid).is_none() => {
                let now = self.now_ns();
                self.tree.meet(tid, now);
                debug_assert_eq!(event, libc::PTRACE_EVENT_STOP, "a task that nobody made begins with a stop");
            }
            Change::Stopped { event: libc::PTRACE_EVENT_SECCOMP, .. } => self.asked(tid, sink),
            Change::Stopped {
                event: libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE,
                ..
            } => self.bore(tid, sink),
            Change::Stopped { event: libc::PTRACE_EVENT_EXEC, .. } => self.ran_program(tid, sink),
            Change::Stopped { signal, event: 0 } if signal == libc::SIGTRAP | 0x80 => self.returned(tid, sink),
            Change::Stopped { signal, event: 0 } => self.go(tid, Go::Freely(signal)),
            Change::Stopped { .. } => self.go(tid, Go::Freely(0)),
        }
    }

    /// Lets a stopped task go on, or keeps in mind how it will.
    pub(super) fn go(&mut self, tid: u32, how: Go) {
        if self.parking {
            if let Some(task) = self.tree.get(tid) {
                task.parked = Some(how);
            }
            return;
        }
        // A task that was killed meanwhile is not there any more; its end is told by the next wait.
        _ = ptrace::go(tid, how);
    }

    /// The task goes on as the sink wants after its event.
    fn go_after(&mut self, tid: u32, how: Go, flow: Flow, sink: &mut impl Sink) {
        match flow {
            Flow::Go => self.go(tid, how),
            // What is being done to all tasks comes first.
            Flow::Act(act) if self.parking => {
                self.go(tid, how);
                self.later.push_back(act);
            }
            Flow::Act(act) => {
                // It counts as stopped while things are done to all tasks.
                if let Some(task) = self.tree.get(tid) {
                    task.parked = Some(how);
                }
                let proof = self.act(act, sink);
                sink.acted(act, proof);
                self.unpark(tid);
            }
        }
    }

    /// The filter asks about a call.
    fn asked(&mut self, tid: u32, sink: &mut impl Sink) {
        let Ok(CallStop::Asked { number, args, instruction }) = ptrace::call_stop(tid) else {
            return self.go(tid, Go::Freely(0));
        };
        if let Some(task) = self.tree.get(tid) {
            task.memory.instruction.set(instruction.wrapping_sub(2));
        }
        let time = self.time_asked(tid, number, &args);
        if time == Asked::Answered {
            if let Some(task) = self.tree.get(tid) {
                task.stop = Stop::Within;
            }
            return self.go(tid, Go::Freely(0));
        }
        let (call, errno) = match rule(number) {
            Rule::Record(call) => {
                let level = (self.level >= 3 && starts_process(number, &args)).then_some(libc::EPERM);
                (Some(call), refusal(number, &args).or(level))
            }
            Rule::Refuse { name, errno, recorded } => {
                if recorded.is_none() {
                    *self.summary.refused.entry(name).or_default() += 1;
                }
                (recorded, Some(errno))
            }
            Rule::Judge(name) => {
                let errno = refusal(number, &args);
                if errno.is_some() {
                    *self.summary.refused.entry(name).or_default() += 1;
                }
                if asks_for_processors(number) {
                    self.company.part();
                }
                if let (true, Some(task)) = (attaches_memory(number), self.tree.get(tid)) {
                    task.memory.shared.set(true);
                }
                (None, errno)
            }
            // A filter of the sample's own asked.
            Rule::Allow | Rule::Absent => (None, None),
        };
        let refused = errno.filter(|errno| ptrace::refuse(tid, *errno).is_ok());
        if let (Some(_), Some(task)) = (refused, self.tree.get(tid)) {
            task.stop = Stop::Within;
        }
        let Some(call) = call else {
            return self.go(tid, if time == Asked::Waits { Go::ToReturn } else { Go::Freely(0) });
        };
        let begun_ns = self.now_ns();
        self.company.called(tid, begun_ns);
        let mut args = args;
        if number == u64::from(PIDFD_SEND_SIGNAL) {
            args[0] = process_of(tid, args[0] as i32);
        }
        let mut pending = Pending { call, args, fields: Fields::default(), begun_ns, raced: None };
        self.read(tid, &mut pending, None);
        self.note(tid, &pending);
        match (refused, i64::from(call.x86_64)) {
            (Some(errno), _) => {
                let flow = self.emit(tid, pending, Outcome::Denied(errno), sink);
                self.go_after(tid, Go::Freely(0), flow, sink);
            }
            (None, libc::SYS_exit_group) => {
                self.count_traffic(tid);
                let flow = self.emit(tid, pending, Outcome::Never, sink);
                // It has nothing more to do, and its descriptors go with it: whatever is done to all tasks is done after.
                if let Some(task) = self.tree.get(tid) {
                    task.stop = Stop::Leaving;
                }
                _ = ptrace::go(tid, Go::Freely(0));
                if let Flow::Act(act) = flow {
                    self.later.push_back(act);
                }
            }
            (None, _) => {
                if let Some(task) = self.tree.get(tid) {
                    task.call = Some(pending);
                }
                self.go(tid, Go::ToReturn);
            }
        }
    }

    /// A call has returned.
    fn returned(&mut self, tid: u32, sink: &mut impl Sink) {
        self.time_stopped(tid, true);
        let Some(pending) = self.tree.get(tid).and_then(|task| task.call.take()) else {
            return self.go(tid, Go::Freely(0));
        };
        match ptrace::call_stop(tid) {
            Ok(CallStop::Returned(value)) => {
                self.note_opened(tid, &pending, value);
                let flow = self.emit(tid, pending, Outcome::Returned(value), sink);
                self.go_after(tid, Go::Freely(0), flow, sink);
            }
            _ => {
                // It is being killed: its end tells the rest.
                if let Some(task) = self.tree.get(tid) {
                    task.call = Some(pending);
                }
                self.go(tid, Go::Freely(0));
            }
        }
    }

    /// A call made a task.
    fn bore(&mut self, tid: u32, sink: &mut impl Sink) {
        let child = ptrace::event_message(tid).ok().and_then(|child| u32::try_from(child).ok());
        let pending = self.tree.get(tid).and_then(|task| task.call.take());
        let (Some(child), Some(pending)) = (child, pending) else {
            return self.go(tid, Go::Freely(0));
        };
        self.company.bore(tid, child);
        let birth = Birth::of(pending.call.x86_64, &pending.args);
        let waits = self.tree.born(tid, birth, child);
        self.summary.most_tasks = self.summary.most_tasks.max(self.tree.tasks().count());
        if self.killing {
            self.kill();
        }
        // The maker's event comes before any of the child's.
        let flow = self.emit(tid, pending, Outcome::Returned(i64::from(child)), sink);
        if waits {
            self.go(child, Go::Freely(0));
        }
        self.go_after(tid, Go::Freely(0), flow, sink);
    }

    /// A task runs another program.
    fn ran_program(&mut self, tid: u32, sink: &mut impl Sink) {
        if self.skips.is_some() {
            // Whose stack cannot be changed any more is being killed.
            _ = skip::hide_clock_page(tid);
        }
        let from = ptrace::event_message(tid).ok().and_then(|from| u32::try_from(from).ok()).unwrap_or(tid);
        let place = self.tree.get(tid).map(|task| (task.process, task.parent));
        let old = self.tree.runs_program(tid, from);
        self.company.renamed(from, tid);
        if let (Some(pending), Some(place)) = (old.and_then(|old| old.call), place) {
            // The leader's call will not return: its thread is gone.
            _ = self.emit_of(tid, place, pending, Outcome::Never, sink);
        }
        let flow = match self.tree.get(tid).and_then(|task| task.call.take()) {
            Some(pending) => self.emit(tid, pending, Outcome::Returned(0), sink),
            None => Flow::Go,
        };
        self.go_after(tid, Go::Freely(0), flow, sink);
    }

    /// A task has ended.
    fn ended(&mut self, tid: u32, end: End, sink: &mut impl Sink) {
        let now = self.now_ns();
        let Some(task) = self.tree.end(tid, now) else { return };
        if let Some(pending) = task.call {
            _ = self.emit_of(tid, (task.process, task.parent), pending, Outcome::Never, sink);
        }
        if task.process == tid {
            let name = match end {
                End::Exited(code) => format!("exit {code}"),
                End::Killed(signal) => super::words::signal(i64::from(signal)),
            };
            *self.summary.ends.entry(name).or_default() += 1;
            if tid == self.first {
                self.summary.first = Some(end);
            }
        }
    }

    /// Reads the fields of a call that begins, or adds what it returned.
    fn read(&mut self, tid: u32, pending: &mut Pending, returned: Option<Option<i64>>) {
        let mut sight = Sight { tid, peers: &mut self.peers, looked: false };
        let mut reading = Reading {
            number: i64::from(pending.call.x86_64),
            args: &pending.args,
            sight: &mut sight,
            fields: &mut pending.fields,
        };
        match returned {
            None => reading.begin(),
            Some(returned) => reading.end(returned),
        }
        if sight.looked {
            let races = self.foreign_writes || self.tree.get(tid).is_some_and(|task| task.races());
            pending.raced = Some(races || pending.raced == Some(true));
        }
    }

    /// Keeps in mind what a call does to memory that others can read.
    fn note(&mut self, tid: u32, pending: &Pending) {
        match i64::from(pending.call.x86_64) {
            libc::SYS_mmap => {
                // Whatever it may do with the pages itself, and whatever it may do later: others have them too.
                if let (true, Some(task)) = (matches!(pending.args[3] & 0xf, 1 | 3), self.tree.get(tid)) {
                    task.memory.shared.set(true);
                }
            }
            libc::SYS_process_vm_writev => self.foreign_writes = true,
            // A path that is only named leads anywhere; what is open is told by its descriptor.
            libc::SYS_write
            | libc::SYS_pwrite64
            | libc::SYS_writev
            | libc::SYS_pwritev
            | libc::SYS_pwritev2
            | libc::SYS_sendfile
            | libc::SYS_copy_file_range
            | libc::SYS_splice => {
                self.foreign_writes |= pending.fields.path.as_deref().is_some_and(is_memory);
            }
            _ => {}
        }
    }

    /// Keeps in mind that a call opened memory for writing.
    fn note_opened(&mut self, tid: u32, pending: &Pending, descriptor: i64) {
        let access = |flags: u64| flags & libc::O_ACCMODE as u64 != libc::O_RDONLY as u64;
        let writable = match i64::from(pending.call.x86_64) {
            libc::SYS_open => access(pending.args[1]),
            libc::SYS_openat => access(pending.args[2]),
            // How the second of these opens stands in memory, which may have changed since it was read.
            libc::SYS_creat | libc::SYS_openat2 => true,
            _ => false,
        };
        if let (true, false, Ok(descriptor)) = (writable, self.foreign_writes, i32::try_from(descriptor)) {
            let opened = Sight { tid, peers: &mut self.peers, looked: false }.open(descriptor);
            self.foreign_writes = opened.path.as_deref().is_some_and(is_memory);
        }
    }

    fn emit(&mut self, tid: u32, pending: Pending, outcome: Outcome, sink: &mut impl Sink) -> Flow {
        let place = self.tree.get(tid).map_or((tid, None), |task| (task.process, task.parent));
        self.emit_of(tid, place, pending, outcome, sink)
    }

    /// Hands a call to the sink as an event.
    fn emit_of(
        &mut self,
        tid: u32,
        (process, parent): (u32, Option<u32>),
        mut pending: Pending,
        outcome: Outcome,
        sink: &mut impl Sink,
    ) -> Flow {
        let (ret, errno) = match outcome {
            Outcome::Returned(value @ -4095..=-1) => {
                let errno = (-value) as i32;
                // The kernel's own restarts are no result yet.
                ((!(512..=516).contains(&errno)).then_some(-1), Some(errno))
            }
            Outcome::Returned(value) => (Some(value), None),
            Outcome::Denied(errno) => (Some(-1), Some(errno)),
            Outcome::Never => (None, None),
        };
        let value = match outcome {
            Outcome::Returned(value) if errno.is_none() => Some(value),
            Outcome::Returned(_) | Outcome::Denied(_) => Some(-1),
            Outcome::Never => None,
        };
        self.read(tid, &mut pending, Some(value));
        let call = pending.call;
        let mut name = call.name;
        let mut fields = pending.fields;
        if !self.program_seen && errno.is_none() && matches!(name, "execve" | "execveat") {
            self.program_seen = true;
            if let Some(program) = &self.options.program {
                name = "execve";
                fields.path = Some(program.clone());
            }
        }
        if let (Some(decoys), Some(path)) = (&self.options.decoys, &fields.path)
            && decoys.contains(path)
        {
            *fields.flags.get_or_insert(0) |= bellwether_env_adapter::event::flags::DECOY;
        }
        let denied = match (outcome, errno) {
            (Outcome::Denied(_), _) => true,
            // What the levels close, the kernel refuses by itself.
            (_, Some(libc::EROFS)) => self.level >= 2,
            (_, Some(libc::ENETUNREACH | libc::ENETDOWN)) => self.level >= 1,
            _ => false,
        };
        // The time at which the call began, unless another call's result came to be known in between.
        self.last_ns = self.last_ns.max(pending.begun_ns);
        let address = call.name == "mmap";
        let [path, path2, args, peer] = &mut self.texts;
        let redact = |text: Option<&str>, into: &mut String| {
            let text = text?;
            let same = match &self.options.redactor {
                Some(redactor) => redactor.redact(text, into) == text,
                None => true,
            };
            if same {
                into.clear();
                into.push_str(text);
            }
            Some(())
        };
        let has_path = redact(fields.path.as_deref(), path);
        let has_path2 = redact(fields.path2.as_deref(), path2);
        let has_args = redact(fields.args.as_deref(), args);
        let has_peer = redact(fields.peer.as_ref().map(|(host, _)| host.as_str()), peer);
        let event = Event {
            stage: self.options.stage,
            time_ns: Some(self.last_ns),
            pid: Some(process),
            tid: Some(tid),
            ppid: parent,
            path: has_path.map(|()| path.as_str()),
            path2: has_path2.map(|()| path2.as_str()),
            args: has_args.map(|()| clipped(args, MAX_ARGS_BYTES)),
            peer_addr: has_peer.map(|()| peer.as_str()),
            peer_port: fields.peer.as_ref().and_then(|(_, port)| *port),
            bytes: fields.bytes,
            entropy: fields.entropy,
            ret: ret.filter(|ret| *ret < 0 || !address),
            errno,
            flags: fields.flags,
            created: fields.created,
            denied: denied.then_some(true),
            isolation: Some(self.level),
            raced: pending.raced,
            ..Event::named(self.seq, call.kind, name)
        };
        self.seq += 1;
        self.summary.events += 1;
        self.summary.denied += u64::from(denied);
        let flow = sink.event(&event);
        // Nothing more is done to who is being killed.
        if self.killing { Flow::Go } else { flow }
    }
}

/// Whether a descriptor with this path stands for the memory of a process.
fn is_memory(path: &str) -> bool {
    path.starts_with("/proc/") && path.ends_with("/mem")
}

/// The number of the process that a descriptor stands for, as the sample sees it; -1 for one that stands for none.
fn process_of(tid: u32, descriptor: i32) -> u64 {
    let told = std::fs::read_to_string(format!("/proc/{tid}/fdinfo/{descriptor}")).unwrap_or_default();
    let numbers = told.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let number = numbers.and_then(|numbers| numbers.split_whitespace().next_back()?.parse::<i64>().ok());
    number.unwrap_or(-1) as u64
}
