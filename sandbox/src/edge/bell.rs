//! Wakes a thread that waits for traced tasks.
//!
//! `waitpid` heeds no descriptor. A signal of its own, sent to the one thread by a clock, makes it return. A ring that comes just
//! before the wait is lost; the clock rings again and again, so nothing waits longer than its period.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use libc::pid_t;

/// Rings for one thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bell {
    thread: pid_t,
}

/// Rings for the thread that made it, until it is dropped.
#[derive(Debug)]
pub(crate) struct Clock(libc::timer_t);

/// A real-time signal that nothing else uses.
fn number() -> i32 {
    libc::SIGRTMIN() + 9
}

extern "C" fn ring(_: i32) {}

impl Bell {
    /// A bell for the calling thread.
    pub(crate) fn here() -> io::Result<Bell> {
        static READY: OnceLock<Option<i32>> = OnceLock::new();
        let failed = READY.get_or_init(|| {
            // SAFETY: all zeroes are a `sigaction`; the handler does nothing, so it may run at any time. Without SA_RESTART
            // a wait returns.
            let result = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = ring as *const () as usize;
                libc::sigaction(number(), &raw const action, std::ptr::null_mut())
            };
            (result == -1).then(|| io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL))
        });
        match failed {
            Some(errno) => Err(io::Error::from_raw_os_error(*errno)),
            // SAFETY: the call takes nothing and cannot fail.
            None => Ok(unsafe { Bell { thread: libc::gettid() } }),
        }
    }

    /// Rings by itself from now on.
    pub(crate) fn every(self, period: Duration) -> io::Result<Clock> {
        // SAFETY: all zeroes are values of these plain structures; the kernel reads the event and writes the timer.
        unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = number();
            event.sigev_notify_thread_id = self.thread;
            let mut timer: libc::timer_t = std::mem::zeroed();
            if libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) == -1 {
                return Err(io::Error::last_os_error());
            }
            let clock = Clock(timer);
            let period = libc::timespec {
                tv_sec: period.as_secs() as libc::time_t,
                tv_nsec: libc::c_long::from(period.subsec_nanos().max(1)),
            };
            let times = libc::itimerspec { it_interval: period, it_value: period };
            if libc::timer_settime(clock.0, 0, &raw const times, std::ptr::null_mut()) == -1 {
                return Err(io::Error::last_os_error());
            }
            Ok(clock)
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        // SAFETY: the timer was made by `timer_create` and is deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}
