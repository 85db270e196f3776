//! Timers of a sample whose waiting is skipped.
//!
//! The one of `alarm` and `setitimer` is kept here and not by the kernel, so that it goes off when the sample's clock says so. One behind a
//! descriptor (`timerfd`) is the kernel's, and is set anew from here when it is due before its time. The others are the kernel's alone: nothing
//! is skipped that they would cut short.

use std::collections::BTreeMap;

use rustix::process::{Pid, Signal, kill_process};

use super::skip::{SECOND_NS, timespec};
use crate::edge::{remote, timer};

/// What is set. Times are in nanoseconds since the tracer began.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// Those of `alarm` and `setitimer`, by process.
    alarms: BTreeMap<u32, Alarm>,
    /// Those behind descriptors that go off once, after a length of time; by process and number there.
    descriptors: BTreeMap<(u32, u64), Armed>,
    /// Others, by process, call and number, and when they go off on the kernel's clock; at any time where that is not known, and for
    /// those that go off again and again.
    others: BTreeMap<(u32, u64, u64), Option<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Alarm {
    /// When it goes off, on the sample's clock.
    until_ns: u64,
    /// And then again after this, if not 0.
    interval_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Armed {
    /// When it is due, on the sample's clock.
    until_ns: u64,
    /// When the kernel lets it go off.
    kernel_ns: u64,
}

impl Timers {
    /// The answer to a call that sets the timer of its process or asks for it, at a time of the sample's clock; none for any other call,
    /// and for one that the kernel refuses.
    pub(super) fn answer(
        &mut self,
        (tid, process): (u32, u32),
        number: u64,
        args: &[u64; 6],
        time_ns: u64,
    ) -> Option<i64> {
        let real = args[0] as i32 == libc::ITIMER_REAL;
        let was = self.alarms.get(&process).copied();
        // One that runs has something left.
        let left_ns = was.map_or(0, |alarm| alarm.until_ns.saturating_sub(time_ns).max(1_000));
        let tell = |to: u64| {
            let words =
                [was.map_or(0, |alarm| alarm.interval_ns), left_ns].map(|ns| [ns / SECOND_NS, ns % SECOND_NS / 1_000]);
            let bytes: Vec<u8> = words.as_flattened().iter().flat_map(|word| word.to_le_bytes()).collect();
            if remote::write(tid, to, &bytes).is_ok() { 0 } else { -i64::from(libc::EFAULT) }
        };
        match number as i64 {
            libc::SYS_alarm => {
                self.set(process, (args[0] & 0xffff_ffff) * SECOND_NS, 0, time_ns);
                // As the kernel rounds: to the next second, and never to none.
                let rounded = (left_ns + SECOND_NS / 2) / SECOND_NS;
                Some(if left_ns == 0 { 0 } else { rounded.max(1) as i64 })
            }
            libc::SYS_getitimer if real => Some(tell(args[1])),
            libc::SYS_setitimer if real => {
                let (interval_ns, length_ns) = match args[1] {
                    0 => (0, 0),
                    at => (timeval(tid, at)?, timeval(tid, at.wrapping_add(16))?),
                };
                self.set(process, length_ns, interval_ns, time_ns);
                Some(if args[2] == 0 { 0 } else { tell(args[2]) })
            }
            _ => None,
        }
    }

    fn set(&mut self, process: u32, length_ns: u64, interval_ns: u64, time_ns: u64) {
        match length_ns {
            0 => _ = self.alarms.remove(&process),
            _ => _ = self.alarms.insert(process, Alarm { until_ns: time_ns.saturating_add(length_ns), interval_ns }),
        }
    }

    /// Notes a timer of the kernel's that a call sets or stops, while the sample's clock is so far ahead.
    pub(super) fn note(
        &mut self,
        (tid, process): (u32, u32),
        number: u64,
        args: &[u64; 6],
        (now_ns, ahead_ns): (u64, u64),
    ) {
        if ![libc::SYS_timer_settime, libc::SYS_timerfd_settime].contains(&(number as i64)) {
            return;
        }
        let Some(length_ns) = timespec(tid, args[2].wrapping_add(16), 1) else {
            // The call will fail.
            return;
        };
        let (id, key) = ((process, args[0]), (process, number, args[0]));
        let by_descriptor = number as i64 == libc::SYS_timerfd_settime;
        if by_descriptor {
            self.descriptors.remove(&id);
        }
        self.others.remove(&key);
        if length_ns == 0 {
            return;
        }
        let (again, of_day) = (timespec(tid, args[2], 1) != Some(0), args[1] & 1 != 0);
        let kernel_ns = now_ns.saturating_add(length_ns);
        if again || of_day {
            self.others.insert(key, None);
        } else if by_descriptor {
            self.descriptors.insert(id, Armed { until_ns: kernel_ns.saturating_add(ahead_ns), kernel_ns });
        } else {
            self.others.insert(key, Some(kernel_ns));
        }
    }

    /// Forgets those that have gone off by themselves, and those of processes that do not live.
    pub(super) fn prune(&mut self, now_ns: u64, lives: impl Fn(u32) -> bool) {
        self.alarms.retain(|process, _| lives(*process));
        self.descriptors.retain(|(process, _), armed| armed.kernel_ns > now_ns && lives(*process));
        self.others.retain(|(process, ..), until| until.is_none_or(|until| until > now_ns) && lives(*process));
    }

    /// When the first goes off that can be made to, on the sample's clock.
    pub(super) fn first_ns(&self) -> Option<u64> {
        let alarms = self.alarms.values().map(|alarm| alarm.until_ns);
        alarms.chain(self.descriptors.values().map(|armed| armed.until_ns)).min()
    }

    /// Whether a timer of the kernel's goes off within so long, or may.
    pub(super) fn within(&self, now_ns: u64, length_ns: u64) -> bool {
        self.others.values().any(|until| until.is_none_or(|until| until.saturating_sub(now_ns) < length_ns))
    }

    /// Lets those go off that are due on the sample's clock.
    pub(super) fn go_off(&mut self, time_ns: u64) {
        self.alarms.retain(|process, alarm| {
            if alarm.until_ns > time_ns {
                return true;
            }
            if let Some(pid) = i32::try_from(*process).ok().and_then(Pid::from_raw) {
                // It fails where the process has ended.
                _ = kill_process(pid, Signal::ALARM);
            }
            let Some(late) = (time_ns - alarm.until_ns).checked_div(alarm.interval_ns) else { return false };
            alarm.until_ns = alarm.until_ns.saturating_add(alarm.interval_ns.saturating_mul(late + 1));
            true
        });
        let due: Vec<_> = self.descriptors.extract_if(.., |_, armed| armed.until_ns <= time_ns).collect();
        for ((process, descriptor), Armed { kernel_ns, .. }) in due {
            if timer::go_off(process, descriptor).is_err() {
                // It was closed, or goes by another number: the kernel lets it go off.
                self.others.insert((process, libc::SYS_timerfd_settime as u64, descriptor), Some(kernel_ns));
            }
        }
    }
}

/// A span of seconds and microseconds in the memory of a task; none where it is no span.
fn timeval(tid: u32, at: u64) -> Option<u64> {
    let mut bytes = [0; 16];
    if remote::read(tid, at, &mut bytes) < bytes.len()
        || i64::from_le_bytes(std::array::from_fn(|at| bytes[8 + at])) >= 1_000_000
    {
        return None;
    }
    timespec(tid, at, 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: u32 = u32::MAX;

    fn answer(timers: &mut Timers, number: i64, args: [u64; 6], time_ns: u64) -> Option<i64> {
        timers.answer((std::process::id(), NOBODY), number as u64, &args, time_ns)
    }

    #[test]
    fn an_alarm_is_told_of_and_goes_off_by_the_clock_of_the_sample() {
        let mut timers = Timers::default();
        let alarm =
            |timers: &mut Timers, seconds, time_ns| answer(timers, libc::SYS_alarm, [seconds, 0, 0, 0, 0, 0], time_ns);
        assert_eq!(alarm(&mut timers, 600, 7), Some(0));
        assert_eq!(timers.first_ns(), Some(600 * SECOND_NS + 7));
        timers.go_off(600 * SECOND_NS);
        let mut told = [0_u64; 4];
        let to = told.as_mut_ptr() as u64;
        assert_eq!(answer(&mut timers, libc::SYS_getitimer, [0, to, 0, 0, 0, 0], 500 * SECOND_NS + 7), Some(0));
        // The kernel wrote to it.
        assert_eq!(std::hint::black_box(told), [0, 0, 100, 0]);
        assert_eq!(alarm(&mut timers, 0, 599 * SECOND_NS + SECOND_NS * 9 / 10), Some(1), "never none while it runs");
        assert_eq!((alarm(&mut timers, 0, 0), timers.first_ns()), (Some(0), None));
        alarm(&mut timers, 1, 0);
        timers.go_off(SECOND_NS);
        assert_eq!(timers.first_ns(), None);
    }

    #[test]
    fn one_that_goes_off_again_and_again_is_never_late_for_itself() {
        let mut timers = Timers::default();
        let set = [2_i64, 0, 5, 0];
        let at = set.as_ptr() as u64;
        assert_eq!(answer(&mut timers, libc::SYS_setitimer, [0, at, 0, 0, 0, 0], 0), Some(0));
        for (time_s, next_s) in [(4, 5), (5, 7), (6, 7), (12, 13)] {
            timers.go_off(time_s * SECOND_NS);
            assert_eq!(timers.first_ns(), Some(next_s * SECOND_NS));
        }
        // What the kernel refuses it is let refuse.
        for wrong in [[0_i64, -1, 5, 0], [0, 0, 5, 1_000_000], [-1, 0, 0, 0]] {
            let at = wrong.as_ptr() as u64;
            assert_eq!(answer(&mut timers, libc::SYS_setitimer, [0, at, 0, 0, 0, 0], 0), None, "{wrong:?}");
        }
        assert_eq!(answer(&mut timers, libc::SYS_setitimer, [0, 8, 0, 0, 0, 0], 0), None);
        assert_eq!(answer(&mut timers, libc::SYS_setitimer, [1, at, 0, 0, 0, 0], 0), None, "processor time");
        assert_eq!(answer(&mut timers, libc::SYS_setitimer, [0; 6], 0), Some(0));
        timers.prune(0, |_| true);
        assert_eq!(timers.first_ns(), None);
    }

    #[test]
    fn timers_of_the_kernel_bound_what_is_skipped() {
        let (me, mut timers) = (std::process::id(), Timers::default());
        let at = |words: &[i64; 4]| words.as_ptr() as u64;
        let mut note = |number: i64, args: [u64; 6]| {
            timers.note((me, me), number as u64, &args, (0, 9));
            (timers.within(0, 1_000 * SECOND_NS), timers.first_ns())
        };
        assert_eq!(note(libc::SYS_timer_settime, [3, 0, at(&[0, 0, 2_000, 0]), 0, 0, 0]), (false, None));
        assert_eq!(note(libc::SYS_timer_settime, [3, 0, at(&[0, 0, 5, 0]), 0, 0, 0]), (true, None));
        assert_eq!(note(libc::SYS_timer_settime, [3, 0, at(&[0; 4]), 0, 0, 0]), (false, None));
        let once = note(libc::SYS_timerfd_settime, [4, 0, at(&[0, 0, 5, 0]), 0, 0, 0]);
        assert_eq!(once, (false, Some(5 * SECOND_NS + 9)), "it can be made to go off");
        assert_eq!(
            note(libc::SYS_timerfd_settime, [4, 0, at(&[1, 0, 5_000, 0]), 0, 0, 0]),
            (true, None),
            "again and again"
        );
        assert_eq!(note(libc::SYS_timerfd_settime, [4, 1, at(&[0, 0, 5, 0]), 0, 0, 0]), (true, None), "a time of day");
        assert_eq!(note(libc::SYS_timerfd_settime, [4, 0, at(&[0, 0, 5, 0]), 0, 0, 0]), once);
        // Nobody has that descriptor: the kernel is left to it.
        timers.go_off(5 * SECOND_NS + 9);
        assert_eq!(
            (timers.within(0, 6 * SECOND_NS), timers.within(0, 4 * SECOND_NS), timers.first_ns()),
            (true, false, None)
        );
        timers.prune(5 * SECOND_NS, |_| true);
        assert!(!timers.within(0, u64::MAX));
    }
}
