//! Waiting that is skipped: where a whole sample does nothing but wait, the time to which the first of its tasks waits comes at
//! once, on all clocks that a call tells.
//!
//! Nothing is skipped while any task runs, reads a disk or is held, so no task misses its turn: what waits for an answer gets
//! it before the time in which it would have given up. Waits end by an interruption, and are told that their time is over.

use std::collections::BTreeMap;
use std::{fs, io};

use crate::edge::clock::now_ns;
use crate::edge::ptrace::{self, CallStop};
use crate::edge::remote;

use super::Tracer;
use super::timers::Timers;

/// The clock of a sample.
#[derive(Debug, Default)]
pub(super) struct Skips {
    /// How far it is ahead of the world's.
    pub(super) ahead_ns: u64,
    waits: BTreeMap<u32, Wait>,
    timers: Timers,
    /// Ticks at which all did nothing but wait, one after the other.
    quiet: u32,
}

/// A task that waits, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wait {
    /// The call that waits.
    number: u64,
    /// When its time is over, on the sample's clock, in nanoseconds since the tracer began.
    until_ns: u64,
    /// How far the clock was ahead when the kernel's own wait began; 0 where it waits for a time of day, which is not the sample's.
    ahead_ns: u64,
    /// What it returns when its time is over.
    result: i64,
    /// Descriptors may end it before.
    watches: bool,
    /// Memory that is all zero then.
    cleared: Vec<(u64, usize)>,
    /// It was interrupted.
    ended: bool,
}

/// Ticks for which all must do nothing but wait: for each other, and for what may come from outside, such as a reply.
const QUIET_TICKS: u32 = 2;
const QUIET_TICKS_OUTSIDE: u32 = 30;
/// Longest wait that is skipped: who waits longer waits for something else.
const LONGEST_NS: u64 = 30 * 86_400 * SECOND_NS;
/// Furthest that a clock gets ahead: dates of a remote future break programs that mean no harm.
const FURTHEST_NS: u64 = 5 * 365 * 86_400 * SECOND_NS;
/// Descriptors of a `select` whose sets are cleared.
const MOST_SELECTED: u64 = 65_536;
pub(super) const SECOND_NS: u64 = 1_000_000_000;

/// Clocks that a sample's waiting moves: all but those of processor time.
const MOVED: [i32; 9] = [
    libc::CLOCK_REALTIME,
    libc::CLOCK_MONOTONIC,
    libc::CLOCK_MONOTONIC_RAW,
    libc::CLOCK_REALTIME_COARSE,
    libc::CLOCK_MONOTONIC_COARSE,
    libc::CLOCK_BOOTTIME,
    libc::CLOCK_REALTIME_ALARM,
    libc::CLOCK_BOOTTIME_ALARM,
    libc::CLOCK_TAI,
];

/// What comes of a call about which the filter asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It is none of ours, or runs as it is.
    Other,
    /// It was answered here.
    Answered,
    /// It may wait: its return is to be seen.
    Waits,
}

impl Tracer {
    /// Looks at a call that waits or asks what time it is.
    pub(super) fn time_asked(&mut self, tid: u32, number: u64, args: &[u64; 6]) -> Asked {
        let now_ns = self.now_ns();
        let Some(skips) = &mut self.skips else { return Asked::Other };
        // Whatever it waited for, it does so no longer.
        skips.waits.remove(&tid);
        let process = self.tree.get(tid).map_or(tid, |task| task.process);
        let ahead_ns = skips.ahead_ns;
        skips.timers.note((tid, process), number, args, (now_ns, ahead_ns));
        let set = skips.timers.answer((tid, process), number, args, now_ns.saturating_add(ahead_ns));
        if let Some(answer) = set.or_else(|| skips.time(tid, number, args)) {
            return match ptrace::answer(tid, answer) {
                Ok(()) => Asked::Answered,
                Err(_) => Asked::Other,
            };
        }
        let Some(wait) = skips.wait(tid, number, args, now_ns) else { return Asked::Other };
        skips.waits.insert(tid, wait);
        Asked::Waits
    }

    /// A task that may wait is stopped: at the return of its call, or since it was interrupted.
    pub(super) fn time_stopped(&mut self, tid: u32, returned: bool) {
        let Some(skips) = &mut self.skips else { return };
        let Some(wait) = skips.waits.get(&tid) else { return };
        let (value, number) = if returned {
            let Ok(CallStop::Returned(value)) = ptrace::call_stop(tid) else { return };
            (value, wait.number)
        } else {
            let Ok(registers) = ptrace::registers(tid) else { return };
            (registers.rax as i64, registers.orig_rax)
        };
        // The kernel would begin the call again, under its own number or another one's.
        let again = (-516..=-512).contains(&value) && [wait.number, libc::SYS_restart_syscall as u64].contains(&number);
        if wait.ended && (again || (returned && value == -i64::from(libc::EINTR))) {
            for (to, bytes) in &wait.cleared {
                // Whose memory cannot be written has given it up.
                _ = remote::write(tid, *to, &vec![0; *bytes]);
            }
            _ = ptrace::set_result(tid, wait.result);
        }
        if wait.ended || !again {
            skips.waits.remove(&tid);
        }
    }

    /// Looks whether there is something to skip; called at each tick.
    pub(super) fn skip(&mut self, now_ns: u64) {
        let Some(skips) = &mut self.skips else { return };
        let tree = &mut self.tree;
        skips.waits.retain(|tid, _| tree.get(*tid).is_some());
        skips.timers.prune(now_ns, |process| tree.tasks().any(|(_, task)| task.process == process));
        skips.end_due(now_ns);
        let waits = skips.waits.values().any(|wait| !wait.ended) || skips.timers.first_ns().is_some();
        if self.killing || !waits {
            skips.quiet = 0;
            return;
        }
        let mut wanted = QUIET_TICKS;
        for (tid, task) in tree.tasks() {
            match idles(tid) {
                Some(idle) if task.parked.is_none() => {
                    let outside = match idle {
                        Idle::Over => false,
                        Idle::In(number) if SELECTING.contains(&number) => {
                            skips.waits.get(&tid).is_none_or(|wait| wait.watches)
                        }
                        Idle::In(number) => !AMONG_THEMSELVES.contains(&number),
                        Idle::Unknown => true,
                    };
                    if outside {
                        wanted = QUIET_TICKS_OUTSIDE;
                    }
                }
                _ => {
                    skips.quiet = 0;
                    return;
                }
            }
        }
        skips.quiet += 1;
        if skips.quiet < wanted {
            return;
        }
        skips.quiet = 0;
        skips.leap(now_ns);
        skips.end_due(now_ns);
    }

    /// How far the sample's clock is ahead.
    pub(super) fn skipped_ns(&self) -> u64 {
        self.skips.as_ref().map_or(0, |skips| skips.ahead_ns)
    }
}

impl Skips {
    /// The answer to a call that asks what time it is; none for any other call, and while the clock is the world's.
    fn time(&self, tid: u32, number: u64, args: &[u64; 6]) -> Option<i64> {
        if self.ahead_ns == 0 {
            return None;
        }
        let clock = match number as i64 {
            libc::SYS_clock_gettime => args[0] as i32,
            libc::SYS_gettimeofday | libc::SYS_time => libc::CLOCK_REALTIME,
            _ => return None,
        };
        let time_ns = now_ns(clock).filter(|_| MOVED.contains(&clock))?.checked_add(self.ahead_ns)?;
        let (seconds, rest) = (time_ns / SECOND_NS, time_ns % SECOND_NS);
        let write = |to: u64, words: &[u64]| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            to == 0 || remote::write(tid, to, &bytes).is_ok()
        };
        let (written, answer) = match number as i64 {
            libc::SYS_clock_gettime => (args[1] != 0 && write(args[1], &[seconds, rest]), 0),
            // The time zone is two ints; the kernel's is UTC.
            libc::SYS_gettimeofday => (write(args[0], &[seconds, rest / 1_000]) && write(args[1], &[0]), 0),
            _ => (write(args[0], &[seconds]), seconds as i64),
        };
        Some(if written { answer } else { -i64::from(libc::EFAULT) })
    }

    /// How a call waits; none where it does not, or not for a time.
    fn wait(&self, tid: u32, number: u64, args: &[u64; 6], now_ns: u64) -> Option<Wait> {
        let spec = |at: usize, unit_ns: u64| timespec(tid, args[at], unit_ns);
        let milliseconds = |at: usize| u64::try_from(args[at] as i32).ok().map(|ms| ms * 1_000_000);
        let mut clock = None;
        let (mut cleared, mut watches) = (Vec::new(), false);
        let (length_ns, result) = match number as i64 {
            libc::SYS_nanosleep => (spec(0, 1)?, 0),
            libc::SYS_clock_nanosleep => {
                let which = args[0] as i32;
                if !MOVED.contains(&which) {
                    return None;
                }
                clock = (args[1] as i32 & libc::TIMER_ABSTIME != 0).then_some(which);
                (spec(2, 1)?, 0)
            }
            libc::SYS_poll | libc::SYS_ppoll => {
                watches = args[1] != 0;
                (if number as i64 == libc::SYS_poll { milliseconds(2)? } else { spec(2, 1)? }, 0)
            }
            libc::SYS_epoll_wait | libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => {
                watches = true;
                (if number as i64 == libc::SYS_epoll_pwait2 { spec(3, 1)? } else { milliseconds(3)? }, 0)
            }
            libc::SYS_rt_sigtimedwait => (spec(2, 1)?, -i64::from(libc::EAGAIN)),
            libc::SYS_select | libc::SYS_pselect6 => {
                let count = args[0] & 0xffff_ffff;
                if count > MOST_SELECTED {
                    return None;
                }
                let bytes = count.div_ceil(64) as usize * 8;
                watches = args[1..4].iter().any(|set| *set != 0);
                cleared.extend(args[1..4].iter().filter(|set| **set != 0 && bytes != 0).map(|set| (*set, bytes)));
                (spec(4, if number as i64 == libc::SYS_select { 1_000 } else { 1 })?, 0)
            }
            libc::SYS_futex => {
                let command = args[1] as u32 & 0x7f;
                let real = args[1] as u32 & libc::FUTEX_CLOCK_REALTIME as u32 != 0;
                clock = match command {
                    0 => None,
                    6 => Some(libc::CLOCK_REALTIME),
                    9 | 11 | 13 if real => Some(libc::CLOCK_REALTIME),
                    9 | 11 | 13 => Some(libc::CLOCK_MONOTONIC),
                    _ => return None,
                };
                (spec(3, 1)?, -i64::from(libc::ETIMEDOUT))
            }
            _ => return None,
        };
        // A time of day is one of the sample's clock.
        let length_ns = match clock {
            Some(clock) => length_ns.saturating_sub(crate::edge::clock::now_ns(clock)?.saturating_add(self.ahead_ns)),
            None => length_ns,
        };
        if length_ns == 0 && clock.is_none() || length_ns > LONGEST_NS {
            return None;
        }
        Some(Wait {
            number,
            until_ns: now_ns.saturating_add(self.ahead_ns).saturating_add(length_ns),
            ahead_ns: if clock.is_some() { 0 } else { self.ahead_ns },
            result,
            watches,
            cleared,
            ended: false,
        })
    }

    /// Interrupts the waits whose time is over on the sample's clock, and not on the kernel's, and lets timers go off.
    fn end_due(&mut self, now_ns: u64) {
        let time_ns = now_ns.saturating_add(self.ahead_ns);
        self.timers.go_off(time_ns);
        for (tid, wait) in &mut self.waits {
            if !wait.ended && wait.until_ns <= time_ns && wait.ahead_ns != self.ahead_ns {
                wait.ended = ptrace::interrupt(*tid).is_ok();
            }
        }
    }

    /// Moves the clock to when the first wait is over, or a timer goes off.
    fn leap(&mut self, now_ns: u64) {
        let time_ns = now_ns.saturating_add(self.ahead_ns);
        let waits = self.waits.values().filter(|wait| !wait.ended).map(|wait| wait.until_ns);
        let first = waits.chain(self.timers.first_ns()).min();
        let length_ns = first.map_or(0, |until| until.saturating_sub(time_ns));
        let ahead_ns = self.ahead_ns.saturating_add(length_ns);
        if length_ns <= LONGEST_NS && ahead_ns <= FURTHEST_NS && !self.timers.within(now_ns, length_ns) {
            self.ahead_ns = ahead_ns;
        }
    }
}

/// A span of seconds and a unit in the memory of a task; none where it is no span.
pub(super) fn timespec(tid: u32, at: u64, unit_ns: u64) -> Option<u64> {
    let mut bytes = [0; 16];
    if at == 0 || remote::read(tid, at, &mut bytes) < bytes.len() {
        return None;
    }
    let word = |at: usize| u64::try_from(i64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))).ok();
    let (seconds, units) = (word(0)?, word(8)?);
    seconds.checked_mul(SECOND_NS)?.checked_add(units.checked_mul(unit_ns)?)
}

/// Calls that wait for descriptors, or for none.
const SELECTING: [i64; 7] = [
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_select,
    libc::SYS_pselect6,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
];

/// Calls that wait for a time or for other tasks of the sample alone.
const AMONG_THEMSELVES: [i64; 9] = [
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_futex,
    libc::SYS_pause,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
];

/// What a task does that does nothing before something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Idle {
    /// It waits in the call of this number.
    In(i64),
    /// It is stopped, or has ended.
    Over,
    /// It waits for something.
    Unknown,
}

/// What a task waits for; none where it does not.
fn idles(tid: u32) -> Option<Idle> {
    let Ok(stat) = fs::read(format!("/proc/{tid}/stat")) else { return Some(Idle::Over) };
    // The name in brackets may hold anything.
    let state = stat.iter().rposition(|byte| *byte == b')').and_then(|at| stat.get(at + 2));
    match state {
        Some(b'T' | b'Z' | b'X') => Some(Idle::Over),
        Some(b'S') => {
            let call = fs::read_to_string(format!("/proc/{tid}/syscall")).unwrap_or_default();
            let number = call.split_whitespace().next().and_then(|number| number.parse().ok());
            // Who runs again since is said to be running, and kernels may tell nothing at all.
            (!call.starts_with("running")).then(|| number.map_or(Idle::Unknown, Idle::In))
        }
        _ => None,
    }
}

/// Takes the kernel's page of clocks from a program that has just been loaded, so that its C library asks by calls.
///
/// # Errors
/// Its stack cannot be read or written.
pub(super) fn hide_clock_page(tid: u32) -> io::Result<()> {
    const IGNORED: u64 = 1;
    let missing = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut words = Words { tid, at: ptrace::registers(tid)?.rsp, held: Vec::new() };
    // How many arguments, the arguments and a null, the environment and a null, then pairs of a kind and a value.
    let count = words.next().ok_or_else(missing)?;
    for _ in 0..=count {
        words.next().ok_or_else(missing)?;
    }
    while words.next().ok_or_else(missing)? != 0 {}
    loop {
        let at = words.at;
        let (kind, _) = words.next().zip(words.next()).ok_or_else(missing)?;
        match kind {
            libc::AT_NULL => return Ok(()),
            libc::AT_SYSINFO_EHDR => {
                let pair = [IGNORED.to_le_bytes(), 0_u64.to_le_bytes()].concat();
                return remote::write(tid, at, &pair);
            }
            _ => {}
        }
    }
}

/// Words of a task's memory, one after the other. The kernel bounds what lies on a new program's stack.
struct Words {
    tid: u32,
    /// Where the next one lies.
    at: u64,
    /// Those that were read ahead, the next one last.
    held: Vec<u64>,
}

impl Words {
    fn next(&mut self) -> Option<u64> {
        if self.held.is_empty() {
            let mut bytes = [0; 4096];
            let read = remote::read(self.tid, self.at, &mut bytes);
            let words = bytes[..read - read % 8].chunks_exact(8);
            self.held = words.map(|word| u64::from_le_bytes(std::array::from_fn(|at| word[at]))).rev().collect();
        }
        let word = self.held.pop()?;
        self.at = self.at.wrapping_add(8);
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wait(until_ns: u64, ahead_ns: u64) -> Wait {
        Wait { number: 35, until_ns, ahead_ns, result: 0, watches: false, cleared: Vec::new(), ended: false }
    }

    #[test]
    fn spans_are_read_from_memory_and_others_refused() {
        let me = std::process::id();
        for (words, expected) in
            [([2, 5], Some(2_000_000_005)), ([-1, 0], None), ([0, -1], None), ([i64::MAX, 0], None)]
        {
            assert_eq!(timespec(me, words.as_ptr() as u64, 1), expected, "{words:?}");
        }
        assert_eq!(timespec(me, 0, 1), None);
        assert_eq!(timespec(me, [1_i64, 2].as_ptr() as u64, 1_000), Some(1_000_002_000));
    }

    #[test]
    fn calls_wait_as_their_arguments_say() {
        let (skips, me) = (Skips { ahead_ns: 7, ..Skips::default() }, std::process::id());
        let span = [3_i64, 0];
        let at = span.as_ptr() as u64;
        let call = |number: i64, args: [u64; 6]| skips.wait(me, number as u64, &args, 100);
        let until = |number, args| call(number, args).map(|wait| wait.until_ns);
        assert_eq!(until(libc::SYS_nanosleep, [at, 0, 0, 0, 0, 0]), Some(3_000_000_107));
        assert_eq!(until(libc::SYS_poll, [0, 0, 250, 0, 0, 0]), Some(250_000_107));
        for (number, args) in [
            (libc::SYS_poll, [0, 0, u64::from(u32::MAX), 0, 0, 0]),
            (libc::SYS_poll, [0; 6]),
            (libc::SYS_ppoll, [0; 6]),
            (libc::SYS_clock_nanosleep, [2, 0, at, 0, 0, 0]),
            (libc::SYS_futex, [0, 1, 0, at, 0, 0]),
            (libc::SYS_read, [at; 6]),
        ] {
            assert_eq!(call(number, args), None, "{number} {args:?}");
        }
        // A time of day that is long past is over at once, and not before the kernel has looked at what it waits for.
        let past = call(libc::SYS_futex, [0, 9, 0, at, 0, 0]).unwrap();
        assert_eq!((past.until_ns, past.ahead_ns, past.result), (107, 0, -110));
        let chosen = call(libc::SYS_select, [65, 8, 0, 24, at, 0]).unwrap();
        assert_eq!((chosen.cleared, chosen.until_ns), (vec![(8, 16), (24, 16)], 3_000_000_107));
    }

    #[test]
    fn nothing_is_skipped_that_a_timer_would_have_cut_short() {
        let me = std::process::id();
        let mut skips = Skips::default();
        skips.waits.insert(1, wait(1_000 * SECOND_NS, 0));
        let mut leap = |number: i64, args: [u64; 6]| {
            skips.timers.note((me, me), number as u64, &args, (0, 0));
            skips.timers.answer((me, u32::MAX), number as u64, &args, 0);
            skips.ahead_ns = 0;
            skips.leap(0);
            skips.ahead_ns / SECOND_NS
        };
        let at = |words: &[i64; 4]| words.as_ptr() as u64;
        assert_eq!(leap(libc::SYS_alarm, [2_000, 0, 0, 0, 0, 0]), 1_000);
        assert_eq!(leap(libc::SYS_alarm, [5, 0, 0, 0, 0, 0]), 5);
        assert_eq!(leap(libc::SYS_timer_settime, [3, 0, at(&[0, 0, 4, 0]), 0, 0, 0]), 0, "it is the kernel's");
        assert_eq!(leap(libc::SYS_timer_settime, [3, 0, at(&[0, 0, 6, 0]), 0, 0, 0]), 5);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// The clock never goes back, moves to the first wait's end and not beyond, and nobody is late.
        #[test]
        fn a_leap_ends_at_the_first_wait(
            lengths in prop::collection::vec(1_u64..LONGEST_NS, 1..8),
            ahead_ns in 0_u64..FURTHEST_NS,
            now_ns in 0_u64..1 << 50,
        ) {
            let mut skips = Skips { ahead_ns, ..Skips::default() };
            for (tid, length) in lengths.iter().enumerate() {
                skips.waits.insert(tid as u32, wait(now_ns + ahead_ns + length, ahead_ns));
            }
            skips.leap(now_ns);
            prop_assert!(skips.ahead_ns >= ahead_ns && skips.ahead_ns <= FURTHEST_NS);
            let first = *lengths.iter().min().unwrap();
            if ahead_ns + first <= FURTHEST_NS {
                prop_assert_eq!(skips.ahead_ns, ahead_ns + first);
            }
        }
    }
}
