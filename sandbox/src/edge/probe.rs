//! Questions to the kernel that have no safe form.

use std::io;

/// Version of Landlock's interface; none where the kernel has none or it is off.
pub(crate) fn landlock() -> Option<u32> {
    const ASK_VERSION: u32 = 1;
    // SAFETY: a null attribute of size 0 with this flag asks for the version and changes nothing.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0_usize, 0_usize, ASK_VERSION) };
    u32::try_from(version).ok()
}

/// Makes the parent the tracer of the calling process, which ends as soon as it is asked nothing more.
///
/// # Errors
/// `EPERM` where tracing is switched off.
pub(crate) fn be_traced() -> io::Result<()> {
    // SAFETY: changes who is told of signals of this process, and no memory.
    super::branch::check(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0_usize, 0_usize) })
}
