//! Takes every way to write files outside scratch from a running sample: level 2.
//!
//! All tasks are stopped; descriptors through which such files can be written are replaced by `/dev/null`, shared mappings of
//! such files are removed, both by calls that the tasks make on our behalf; then the mount is made read-only from outside,
//! which the kernel refuses as long as one writer is left. Its consent is the proof.
//!
//! Out of reach are descriptors in a socket's queue, of a task that waits in `vfork`, and of one that cannot be stopped in
//! time: then the mount stays busy, and the sample is for whoever asked to end.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use super::tree::{Memory, Stop};
use super::{Proof, Sink, Tracer};
use crate::edge::ptrace::{self, CallStop, Change, Go};
use crate::edge::remote;

/// Sweeps before the mount is said to be busy.
const SWEEPS: usize = 2;
/// How long tasks have to stop; on an overloaded host the last of them may not have run for long.
const STOP: Duration = Duration::from_secs(1);
/// How long a task has for a call that it makes for us.
const CALL: Duration = Duration::from_secs(1);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_micros(20);

/// A way to write that is to be closed.
#[derive(Debug, Default, PartialEq)]
struct Writers {
    /// Descriptors, and whether they close when a program is run.
    descriptors: Vec<(u32, bool)>,
    /// Start and length of mappings.
    mappings: Vec<(u64, u64)>,
}

impl Tracer {
    pub(super) fn no_writers(&mut self, sink: &mut impl Sink) -> Proof {
        if self.options.seal.is_none() {
            return Proof::Busy;
        }
        self.parking = true;
        let mut proof = Proof::Busy;
        for _ in 0..SWEEPS {
            // Whether or not all could be stopped: the kernel knows whether a writer is left.
            self.stop_all(sink);
            self.sweep();
            // Tasks that ended instead of making a call.
            while let Some((tid, change)) = self.missed.pop_front() {
                self.change(tid, change, sink);
            }
            let sealed = self.options.seal.as_mut().is_some_and(|seal| seal().unwrap_or(false));
            if sealed {
                proof = Proof::Done;
                break;
            }
        }
        self.parking = false;
        self.unpark_all();
        proof
    }

    /// Stops every task; what they were about to do is recorded as ever.
    fn stop_all(&mut self, sink: &mut impl Sink) {
        // One that waits in `vfork` stops when it no longer does.
        for (tid, _) in self.tree.tasks().filter(|(_, task)| task.parked.is_none()) {
            _ = ptrace::interrupt(tid);
        }
        let until = Instant::now() + STOP;
        while !self.tree.is_parked() && Instant::now() < until {
            match ptrace::poll_any() {
                Ok(Some((tid, change))) => self.change(tid, change, sink),
                _ => thread::sleep(PAUSE),
            }
        }
    }

    fn sweep(&mut self) {
        let tasks: Vec<(u32, u32, Rc<Memory>)> = self
            .tree
            .tasks()
            .filter(|(_, task)| task.parked.is_some())
            .map(|(tid, task)| (tid, task.process, Rc::clone(&task.memory)))
            .collect();
        let mut tables: Vec<(u32, u32)> = Vec::new();
        let mut spaces: Vec<*const Memory> = Vec::new();
        for (tid, process, memory) in tasks {
            let mut writers = Writers::default();
            let known =
                tables.iter().any(|(of, other)| *of == process && ptrace::share_files(*other, tid).unwrap_or(false));
            if !known {
                tables.push((process, tid));
                writers.descriptors = descriptors(tid, &self.options.scratch);
            }
            if !spaces.contains(&Rc::as_ptr(&memory)) {
                spaces.push(Rc::as_ptr(&memory));
                writers.mappings = mappings(tid, &self.options.scratch);
            }
            if writers != Writers::default() && self.close(tid, &memory, &writers).is_none() {
                // The mount will say that it is busy; a thread beside this one may fare better.
                tables.retain(|(_, other)| *other != tid);
                spaces.retain(|space| *space != Rc::as_ptr(&memory));
            }
        }
    }

    /// Makes a stopped task close what it could write through.
    fn close(&mut self, tid: u32, memory: &Memory, writers: &Writers) -> Option<()> {
        let mut caller = self.borrow(tid, memory)?;
        let result = caller.close(writers);
        self.missed.extend(caller.ended.take().map(|change| (tid, change)));
        let signals = caller.give_back()?;
        let task = self.tree.get(tid)?;
        let mut signals = signals.into_iter();
        if task.parked == Some(Go::Listen) || task.parked == Some(Go::ToReturn) {
            task.parked = Some(Go::Freely(0));
        }
        if task.parked == Some(Go::Freely(0)) {
            task.parked = Some(Go::Freely(signals.next().unwrap_or(0)));
        }
        // It is at the end of a call now, whatever it was in.
        task.stop = Stop::Returned;
        let process = task.process;
        for signal in signals {
            _ = ptrace::signal(process, tid, signal);
        }
        result
    }

    /// Brings a stopped task to where it can make calls for us.
    fn borrow(&mut self, tid: u32, memory: &Memory) -> Option<Caller> {
        let instruction = syscall_instruction(tid, memory)?;
        let task = self.tree.get(tid)?;
        if task.awaits {
            return None;
        }
        let (stop, parked) = (task.stop, task.parked?);
        if stop == Stop::Asked {
            // The call has not run. It is skipped now and made anew later, and asked about again.
            task.call = None;
        }
        let mut caller =
            Caller { tid, instruction, saved: ptrace::registers(tid).ok()?, signals: Vec::new(), ended: None };
        let ready = caller.prepare(stop, parked);
        self.missed.extend(caller.ended.take().map(|change| (tid, change)));
        ready.map(|()| caller)
    }
}

/// A stopped task that makes calls for us.
struct Caller {
    tid: u32,
    instruction: u64,
    saved: libc::user_regs_struct,
    /// Signals that arrived meanwhile, and are to be delivered afterwards.
    signals: Vec<i32>,
    /// How the task ended instead.
    ended: Option<Change>,
}

impl Caller {
    /// Brings the task to the end of the call that it is in, if it is in one.
    fn prepare(&mut self, stop: Stop, parked: Go) -> Option<()> {
        match (stop, parked) {
            (Stop::Asked, _) => {
                let again = self.saved;
                let mut skip = again;
                skip.orig_rax = u64::MAX;
                ptrace::set_registers(self.tid, &skip).ok()?;
                self.finish_call()?;
                self.saved = again;
                self.saved.rip = again.rip.wrapping_sub(2);
                self.saved.rax = again.orig_rax;
                self.saved.orig_rax = u64::MAX;
            }
            (Stop::Within, _) => {
                self.finish_call()?;
                self.saved = ptrace::registers(self.tid).ok()?;
            }
            (Stop::Outside, Go::Listen) => {
                // It goes back to being stopped by job control by the same signal.
                self.signals.push(libc::SIGSTOP);
            }
            (Stop::Outside, Go::Freely(0)) => self.restart(),
            (Stop::Outside | Stop::Returned, _) => {}
            // Held where it is, it keeps what it has.
            (Stop::Leaving, _) => return None,
        }
        Some(())
    }

    fn close(&mut self, writers: &Writers) -> Option<()> {
        for (start, length) in &writers.mappings {
            self.call(libc::SYS_munmap, [*start, *length, 0, 0])?;
        }
        if writers.descriptors.is_empty() {
            return Some(());
        }
        // Below the red zone of the stack nothing is in use.
        let path = self.saved.rsp.wrapping_sub(512) & !15;
        let null = match remote::write(self.tid, path, b"/dev/null\0") {
            Ok(()) => self.call(libc::SYS_openat, [libc::AT_FDCWD as u64, path, libc::O_RDWR as u64, 0])?,
            Err(_) => -1,
        };
        for (descriptor, close_on_exec) in &writers.descriptors {
            let descriptor = u64::from(*descriptor);
            if null >= 0 {
                let flags = if *close_on_exec { libc::O_CLOEXEC as u64 } else { 0 };
                self.call(libc::SYS_dup3, [null as u64, descriptor, flags, 0])?;
            } else {
                self.call(libc::SYS_close, [descriptor, 0, 0, 0])?;
            }
        }
        if null >= 0 {
            self.call(libc::SYS_close, [null as u64, 0, 0, 0])?;
        }
        Some(())
    }

    /// A call that was interrupted only because the task was to stop is made again, as the kernel would have done.
    fn restart(&mut self) {
        if (self.saved.orig_rax as i64) < 0 {
            return;
        }
        match -(self.saved.rax as i64) {
            512..=514 => {
                self.saved.rax = self.saved.orig_rax;
                self.saved.rip = self.saved.rip.wrapping_sub(2);
            }
            516 => {
                self.saved.rax = libc::SYS_restart_syscall as u64;
                self.saved.rip = self.saved.rip.wrapping_sub(2);
            }
            _ => return,
        }
        self.saved.orig_rax = u64::MAX;
    }

    /// Makes one call; gives what it returned.
    fn call(&mut self, number: i64, args: [u64; 4]) -> Option<i64> {
        let mut registers = self.saved;
        registers.rip = self.instruction;
        registers.rax = number as u64;
        registers.orig_rax = u64::MAX;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10] = args;
        ptrace::set_registers(self.tid, &registers).ok()?;
        self.finish_call()?;
        Some(ptrace::registers(self.tid).ok()?.rax as i64)
    }

    /// Runs to the end of the call that the task is in or about to make.
    fn finish_call(&mut self) -> Option<()> {
        let until = Instant::now() + CALL;
        ptrace::go(self.tid, Go::ToCall(0)).ok()?;
        while Instant::now() < until {
            let Ok(Some(change)) = ptrace::poll(self.tid) else {
                thread::sleep(PAUSE);
                continue;
            };
            let Change::Stopped { signal, event } = change else {
                self.ended = Some(change);
                return None;
            };
            if signal == libc::SIGTRAP | 0x80 && matches!(ptrace::call_stop(self.tid), Ok(CallStop::Returned(_))) {
                return Some(());
            }
            if event == 0 && signal != libc::SIGTRAP | 0x80 {
                self.signals.push(signal);
            }
            ptrace::go(self.tid, Go::ToCall(0)).ok()?;
        }
        None
    }

    /// Puts the task back to where it was; gives the signals that it is still to get.
    fn give_back(self) -> Option<Vec<i32>> {
        ptrace::set_registers(self.tid, &self.saved).ok()?;
        Some(self.signals)
    }
}

/// Where a `syscall` instruction stands in the memory of a task.
fn syscall_instruction(tid: u32, memory: &Memory) -> Option<u64> {
    const SYSCALL: [u8; 2] = [0x0f, 0x05];
    let mut bytes = [0; 2];
    let seen = memory.instruction.get();
    if seen != 0 && remote::read(tid, seen, &mut bytes) == 2 && bytes == SYSCALL {
        return Some(seen);
    }
    // The kernel's own page of code has one for the clocks that it cannot read without a call.
    let maps = fs::read_to_string(format!("/proc/{tid}/maps")).ok()?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]"))?;
    let start = u64::from_str_radix(line.split('-').next()?, 16).ok()?;
    let mut code = vec![0; 8192];
    let read = remote::read(tid, start, &mut code);
    let at = code[..read].windows(2).position(|pair| pair == SYSCALL)?;
    Some(start + at as u64)
}

/// Whether a path is of a file that must not be written any more: a plain file outside scratch.
fn is_sealed(path: &str, scratch: &[String]) -> bool {
    let below = |folder: &String| {
        path.strip_prefix(folder.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let elsewhere = ["/dev/", "/proc/", "/sys/", "/memfd:", "/SYSV", "/anon_hugepage"];
    path.starts_with('/') && !elsewhere.iter().any(|start| path.starts_with(start)) && !scratch.iter().any(below)
}

/// Descriptors of a task through which sealed files can be written.
fn descriptors(tid: u32, scratch: &[String]) -> Vec<(u32, bool)> {
    let Ok(folder) = fs::read_dir(format!("/proc/{tid}/fd")) else { return Vec::new() };
    let numbers = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<_> = numbers
        .filter_map(|number| {
            let link = fs::read_link(format!("/proc/{tid}/fd/{number}")).ok()?;
            if !is_sealed(link.to_str().unwrap_or("/"), scratch) {
                return None;
            }
            let info = fs::read_to_string(format!("/proc/{tid}/fdinfo/{number}")).ok()?;
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim();
            let flags = i32::from_str_radix(flags, 8).ok()?;
            let writes = matches!(flags & libc::O_ACCMODE, libc::O_WRONLY | libc::O_RDWR) && flags & libc::O_PATH == 0;
            writes.then_some((number, flags & libc::O_CLOEXEC != 0))
        })
        .collect();
    found.sort_unstable();
    found
}

/// Shared mappings of a task through which sealed files can be written, or could after a change of protection.
fn mappings(tid: u32, scratch: &[String]) -> Vec<(u64, u64)> {
    let Ok(maps) = fs::read(format!("/proc/{tid}/maps")) else { return Vec::new() };
    let maps = String::from_utf8_lossy(&maps);
    maps.lines()
        .filter_map(|line| mapping(line, scratch).filter(|(range, ..)| opened_to_write(tid, range)))
        .map(|(_, start, length)| (start, length))
        .collect()
}

/// Range, start and length of a shared mapping of a sealed file.
fn mapping<'a>(line: &'a str, scratch: &[String]) -> Option<(&'a str, u64, u64)> {
    let mut words = line.split_ascii_whitespace();
    let (range, protection) = (words.next()?, words.next()?);
    let path = &line[line.find('/')?..];
    if !protection.ends_with('s') || !is_sealed(path, scratch) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    Some((range, start, end.checked_sub(start)?))
}

/// Whether the file of a mapping was opened to be written; taken for granted where nobody says.
fn opened_to_write(tid: u32, range: &str) -> bool {
    let link = format!("/proc/{tid}/map_files/{range}");
    match fs::symlink_metadata(Path::new(&link)) {
        Ok(link) => link.permissions().mode() & 0o200 != 0 || link.mode() & 0o200 != 0,
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_and_what_is_no_file_stay_writable() {
        let scratch = ["/tmp".to_owned(), "/scratch/".to_owned()];
        for (path, sealed) in [
            ("/home/user/a", true),
            ("/home/user/a (deleted)", true),
            ("/tmp/a", false),
            ("/tmp", false),
            ("/tmpfile", true),
            ("/scratch/a", false),
            ("/dev/null", false),
            ("/memfd:x (deleted)", false),
            ("pipe:[3]", false),
            ("socket:[3]", false),
        ] {
            assert_eq!(is_sealed(path, &scratch), sealed, "{path}");
        }
    }

    #[test]
    fn shared_mappings_of_files_are_found() {
        let at = |line| mapping(line, &[]).map(|(_, start, length)| (start, length));
        for (line, found) in [
            ("7f00-8f00 rw-s 00000000 00:31 12 /home/a b", Some((0x7f00, 0x1000))),
            ("7f00-8f00 r--s 00000000 00:31 12 /home/a", Some((0x7f00, 0x1000))),
            ("7f00-8f00 rw-p 00000000 00:31 12 /home/a", None),
            ("7f00-8f00 rw-s 00000000 00:01 12 /memfd:x (deleted)", None),
            ("7f00-8f00 rw-s 00000000 00:01 12 /dev/zero (deleted)", None),
            ("7f00-8f00 rw-s 00000000 00:00 0 ", None),
            ("", None),
        ] {
            assert_eq!(at(line), found, "{line}");
        }
    }
}
