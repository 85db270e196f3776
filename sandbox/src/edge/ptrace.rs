//! ptrace and the wait for traced tasks.

use std::io;

use libc::{c_long, c_uint, c_void, pid_t};

/// What a stopped call is: `PTRACE_GET_SYSCALL_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallStop {
    /// The filter asks about a call that has not run.
    Asked {
        /// Number of the call.
        number: u64,
        /// Its arguments.
        args: [u64; 6],
        /// Where the caller is, just behind its `syscall` instruction.
        instruction: u64,
    },
    /// A call has returned this; a failure is the negative error number.
    Returned(i64),
    /// Anything else.
    Other,
}

/// What `waitpid` tells of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It ended with this exit code.
    Exited(i32),
    /// It was ended by this signal.
    Killed(i32),
    /// It is stopped by this signal for this event: 0 where there is none.
    Stopped {
        /// Number of the signal, with 0x80 added for a stop at a call.
        signal: i32,
        /// `PTRACE_EVENT_*`.
        event: i32,
    },
}

/// How a task goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Go {
    /// Until the filter asks or something happens; the signal is delivered, 0 for none.
    Freely(i32),
    /// Until its call returns.
    ToReturn,
    /// Until the next beginning or end of any call.
    ToCall(i32),
    /// Not at all, until job control lets it.
    Listen,
}

const OPTIONS: c_uint = (libc::PTRACE_O_EXITKILL
    | libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC) as c_uint;

fn request(request: c_uint, pid: u32, address: usize, data: usize) -> io::Result<c_long> {
    // SAFETY: the requests of this function take numbers; the kernel checks the task, and touches no memory of ours.
    let result = unsafe { libc::ptrace(request, pid as pid_t, address as *mut c_void, data as *mut c_void) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Begins to trace a task, which runs on; it and all that it starts are killed when this thread ends.
pub(crate) fn seize(pid: u32) -> io::Result<()> {
    request(libc::PTRACE_SEIZE, pid, 0, OPTIONS as usize).map(drop)
}

/// Asks a running task to stop.
pub(crate) fn interrupt(pid: u32) -> io::Result<()> {
    request(libc::PTRACE_INTERRUPT, pid, 0, 0).map(drop)
}

/// Lets a stopped task go on.
pub(crate) fn go(pid: u32, how: Go) -> io::Result<()> {
    let (how, signal) = match how {
        Go::Freely(signal) => (libc::PTRACE_CONT, signal),
        Go::ToReturn => (libc::PTRACE_SYSCALL, 0),
        Go::ToCall(signal) => (libc::PTRACE_SYSCALL, signal),
        Go::Listen => (libc::PTRACE_LISTEN, 0),
    };
    request(how, pid, 0, signal as usize).map(drop)
}

/// The message of the event that a task is stopped for.
pub(crate) fn event_message(pid: u32) -> io::Result<u64> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: the kernel writes one unsigned long to `message`, which lives through the call.
    let result = unsafe {
        libc::ptrace(libc::PTRACE_GETEVENTMSG, pid as pid_t, std::ptr::null_mut::<c_void>(), &raw mut message)
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(message) }
}

/// The call that a task is stopped in.
pub(crate) fn call_stop(pid: u32) -> io::Result<CallStop> {
    let mut info = std::mem::MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: the kernel writes at most `size` bytes to `info`, which is so large and lives through the call.
    let result = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid as pid_t, size, info.as_mut_ptr()) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all bit patterns are values of the structure, and all of its bytes were set to zero or by the kernel.
    let info = unsafe { info.assume_init() };
    Ok(match info.op {
        libc::PTRACE_SYSCALL_INFO_SECCOMP => {
            // SAFETY: `op` says that the kernel filled this member; any bits are a value of it.
            let call = unsafe { info.u.seccomp };
            CallStop::Asked { number: call.nr, args: call.args, instruction: info.instruction_pointer }
        }
        libc::PTRACE_SYSCALL_INFO_EXIT => {
            // SAFETY: `op` says that the kernel filled this member; any bits are a value of it.
            CallStop::Returned(unsafe { info.u.exit }.sval)
        }
        _ => CallStop::Other,
    })
}

/// The general registers of a stopped task.
pub(crate) fn registers(pid: u32) -> io::Result<libc::user_regs_struct> {
    let mut registers = std::mem::MaybeUninit::<libc::user_regs_struct>::zeroed();
    let none = std::ptr::null_mut::<c_void>();
    // SAFETY: the kernel writes one `user_regs_struct`, for which there is room.
    let result = unsafe { libc::ptrace(libc::PTRACE_GETREGS, pid as pid_t, none, registers.as_mut_ptr()) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it consists of integers, and all of them were written.
    Ok(unsafe { registers.assume_init() })
}

/// Sets the general registers of a stopped task.
pub(crate) fn set_registers(pid: u32, registers: &libc::user_regs_struct) -> io::Result<()> {
    let none = std::ptr::null_mut::<c_void>();
    // SAFETY: the kernel reads one `user_regs_struct` from a reference to one, and sets registers of another task.
    let result = unsafe { libc::ptrace(libc::PTRACE_SETREGS, pid as pid_t, none, std::ptr::from_ref(registers)) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Offsets in the user area.
const ORIG_RAX: usize = std::mem::offset_of!(libc::user_regs_struct, orig_rax);
const RAX: usize = std::mem::offset_of!(libc::user_regs_struct, rax);

/// Makes the call about which the filter asks fail with `errno`, without running it.
pub(crate) fn refuse(pid: u32, errno: i32) -> io::Result<()> {
    answer(pid, -i64::from(errno))
}

/// Makes the call about which the filter asks return `value`, without running it.
pub(crate) fn answer(pid: u32, value: i64) -> io::Result<()> {
    request(libc::PTRACE_POKEUSER, pid, ORIG_RAX, usize::MAX)?;
    set_result(pid, value)
}

/// Sets what a call that has returned is seen to return. A call that was to be begun again is not.
pub(crate) fn set_result(pid: u32, value: i64) -> io::Result<()> {
    request(libc::PTRACE_POKEUSER, pid, RAX, value as usize).map(drop)
}

/// Waits for a task that this thread traces, or one of its children, to change; `None` when there is none left.
///
/// # Errors
/// `Interrupted` when a signal arrived.
pub(crate) fn wait() -> io::Result<Option<(u32, Change)>> {
    wait_for(-1, libc::__WALL | libc::__WNOTHREAD)
}

/// A change of the task, if there is one already.
pub(crate) fn poll(pid: u32) -> io::Result<Option<Change>> {
    let found = wait_for(pid as pid_t, libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG)?;
    Ok(found.map(|(_, change)| change))
}

/// A change of any task, if there is one already.
pub(crate) fn poll_any() -> io::Result<Option<(u32, Change)>> {
    wait_for(-1, libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG)
}

fn wait_for(pid: pid_t, options: i32) -> io::Result<Option<(u32, Change)>> {
    let mut status = 0;
    // SAFETY: the kernel writes one int to `status`, which lives through the call.
    let found = unsafe { libc::waitpid(pid, &raw mut status, options) };
    if found == -1 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) };
    }
    if found == 0 {
        return Ok(None);
    }
    let change = if libc::WIFEXITED(status) {
        Change::Exited(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Change::Killed(libc::WTERMSIG(status))
    } else {
        Change::Stopped { signal: (status >> 8) & 0xff, event: (status >> 16) & 0xff }
    };
    Ok(Some((found as u32, change)))
}

/// Sends a signal to one task of a process.
pub(crate) fn signal(process: u32, task: u32, signal: i32) -> io::Result<()> {
    // SAFETY: the call takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, process as pid_t, task as pid_t, signal) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether two tasks share their table of descriptors (`kcmp`).
pub(crate) fn share_files(one: u32, other: u32) -> io::Result<bool> {
    const KCMP_FILES: i32 = 2;
    // SAFETY: the call takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_kcmp, one as pid_t, other as pid_t, KCMP_FILES, 0, 0) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result == 0) }
}
