//! A child process that is a copy of this one, possibly in namespaces of its own.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// New namespaces of every kind that a sample is shut into at birth, as flags of `clone`.
pub(crate) const ALL_NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC;

/// A child, named by its number and held by a descriptor that never means another process.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its number in the namespace of the caller.
    pub(crate) pid: i32,
    /// The pidfd, closed on exec.
    pub(crate) pidfd: OwnedFd,
}

/// Starts a child in the given new namespaces; it runs `body` and ends with its result as the exit code.
///
/// The child is a copy of the calling thread alone. Other threads may have held locks, the allocator's among them, so `body`
/// must not allocate, lock or panic: it makes system calls on what the parent prepared. All signals are blocked in the child.
///
/// # Errors
/// What `clone` reports: `EPERM` where namespaces are forbidden, `ENOSPC` or `EUSERS` at their limit, `EAGAIN` at the limit of
/// processes.
pub(crate) fn branch(namespaces: i32, body: impl FnOnce() -> i32) -> io::Result<Child> {
    let mut pidfd: i32 = -1;
    let flags = namespaces | libc::CLONE_PIDFD | libc::SIGCHLD;
    let before = block_signals();
    // SAFETY: without CLONE_VM and with a null stack this is a fork: the child goes on in a copy of this memory and of this
    // stack frame. CLONE_PIDFD stores one i32 at the third argument, which outlives the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone, i64::from(flags), 0_usize, &raw mut pidfd, 0_usize, 0_usize) };
    if pid == 0 {
        // A panic must not unwind into the frames of the caller, which belong to the parent.
        let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(101);
        leave(code);
    }
    let failed = io::Error::last_os_error();
    restore_signals(&before);
    if pid < 0 {
        return Err(failed);
    }
    // SAFETY: clone succeeded with CLONE_PIDFD, so the number is a descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid: pid as i32, pidfd })
}

/// Ends the calling process at once: no destructors, no exit handlers, which belong to the process that was copied.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: _exit does not return and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Moves the calling thread into a new cgroup namespace, so that the group it is in looks like the root.
///
/// # Errors
/// What `unshare` reports.
pub(crate) fn hide_cgroup() -> io::Result<()> {
    // SAFETY: a cgroup namespace changes how groups are named, and neither memory nor descriptors.
    check(i64::from(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }))
}

pub(super) fn check(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn block_signals() -> libc::sigset_t {
    // SAFETY: both sets are plain memory that the calls fill; blocking signals of the calling thread breaks no invariant.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    }
}

fn restore_signals(before: &libc::sigset_t) {
    // SAFETY: the set was filled by `block_signals`.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reap(pid: i32) -> i32 {
        let pid = rustix::process::Pid::from_raw(pid);
        let (_, status) = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
        status.exit_status().unwrap()
    }

    #[test]
    fn the_child_ends_with_the_result_of_its_body_and_the_parent_goes_on() {
        let mut here = 1;
        let child = branch(0, || {
            here = 7;
            here
        })
        .unwrap();
        assert_eq!(reap(child.pid), 7);
        assert_eq!(here, 1, "the child wrote into its own copy");
    }

    #[test]
    fn the_mask_of_signals_is_the_callers_again() {
        let mask = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            status.lines().find(|line| line.starts_with("SigBlk")).unwrap().to_owned()
        };
        let before = mask();
        let child = branch(0, || 0).unwrap();
        assert_eq!(mask(), before);
        assert_eq!(reap(child.pid), 0);
    }
}
