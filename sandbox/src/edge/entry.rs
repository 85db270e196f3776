//! What the first process of a sample does to itself before it becomes the sample.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::branch::check;

/// A vector of C strings as `execve` takes it: pointers that end with a null one, kept with what they point at.
pub(crate) struct Pointers {
    /// What the pointers point at.
    _held: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Pointers {
    pub(crate) fn new(held: Vec<CString>) -> Pointers {
        let pointers = held.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Pointers { _held: held, pointers }
    }
}

/// Becomes the program behind a descriptor; returns only if that failed. A relative or absolute `path` instead of a descriptor
/// is looked up from the working folder.
pub(crate) fn become_program(
    file: Option<BorrowedFd<'_>>,
    path: &CString,
    arguments: &Pointers,
    environment: &Pointers,
) -> io::Error {
    let (folder, flags) = match file {
        Some(file) => (file.as_raw_fd(), libc::AT_EMPTY_PATH),
        None => (libc::AT_FDCWD, 0),
    };
    let path = if file.is_some() { c"".as_ptr() } else { path.as_ptr() };
    // SAFETY: both vectors end with a null pointer and point at C strings that they keep alive; the path is a C string.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            i64::from(folder),
            path,
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
            i64::from(flags),
        )
    };
    io::Error::last_os_error()
}

/// Puts a seccomp program on the calling thread, for good; it must have `no_new_privs`.
///
/// # Errors
/// `EINVAL` for a program that the kernel does not take, `EACCES` without `no_new_privs`.
pub(crate) fn load_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let Ok(len) = u16::try_from(program.len()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let header = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions and writes none.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0_u32, &raw const header) })
}

/// Closes every descriptor from `first` to `last`, both included.
///
/// # Errors
/// `EINVAL` where `first` lies behind `last`; `ENOSYS` before Linux 5.9.
pub(crate) fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: called in a child that is a copy of its parent and owns no descriptor but those that are kept.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) })
}

/// Makes every descriptor from `first` on close when the process becomes another program.
///
/// # Errors
/// `ENOSYS` before Linux 5.9, `EINVAL` before 5.11.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: marks descriptors, closes none.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
}

/// Gives the process a new, empty session keyring in place of the one it inherited. A kernel without keyrings is fine.
pub(crate) fn forget_keys() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: i64 = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    match check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0_usize) }) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other,
    }
}

/// Sets every signal to its default and unblocks all: a Rust program ignores `SIGPIPE`, which would be inherited.
pub(crate) fn default_signals() {
    const BYTES_OF_SET: usize = 8;
    // The kernel's own form of an action (handler, flags, restorer, mask); all zero is the default without flags. The C
    // library's form would refuse the two signals that it keeps for itself.
    let action = [0_u64; 4];
    // SAFETY: the kernel reads one action and writes none. SIGKILL and SIGSTOP report an error, and are at their default.
    unsafe {
        for signal in 1..=64_i64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), 0_usize, BYTES_OF_SET);
        }
        libc::syscall(libc::SYS_rt_sigprocmask, i64::from(libc::SIG_SETMASK), action.as_ptr(), 0_usize, BYTES_OF_SET);
    }
}

/// A descriptor that becomes readable when a child ends; `SIGCHLD` must be blocked.
///
/// # Errors
/// What `signalfd` reports.
pub(crate) fn ended_children() -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: the set is plain memory that the calls fill; a non-negative result is a descriptor that nobody else owns.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(std::os::fd::OwnedFd::from_raw_fd(fd)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_of_strings_ends_with_a_null_pointer() {
        let pointers = Pointers::new(vec![c"a".to_owned(), c"b".to_owned()]);
        assert_eq!(pointers.pointers.len(), 3);
        assert!(pointers.pointers[2].is_null());
    }
}
