//! Timers behind descriptors of other processes.

use std::io;
use std::os::fd::AsRawFd;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// Lets a timer that is set go off now, instead of at its time. `descriptor` is its number in the process.
///
/// # Errors
/// The process is gone, or there is no timer behind the descriptor.
pub(crate) fn go_off(pid: u32, descriptor: u64) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let descriptor = i32::try_from(descriptor).map_err(|_| io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let timer = pidfd_getfd(&process, descriptor, PidfdGetfdFlags::empty())?;
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let soon = libc::itimerspec { it_interval: never, it_value: libc::timespec { tv_nsec: 1, ..never } };
    // SAFETY: `timer` is an open descriptor, the kernel reads one `itimerspec` from `soon`, and writes nothing.
    let result = unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const soon, std::ptr::null_mut()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
