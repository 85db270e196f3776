//! What happens to each system call of a sample: let through, recorded, or refused.

use std::sync::LazyLock;

use bellwether_env_adapter::calls::{RecordedCall, recorded_calls};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It runs and is not recorded.
    Allow,
    /// It is recorded; [`refusal`] says whether its arguments let it run.
    Record(&'static RecordedCall),
    /// It never runs, and fails with `errno` after the tracer has seen it. Those on the recorded list are recorded.
    Refuse {
        /// Its name.
        name: &'static str,
        /// The error number it fails with.
        errno: i32,
        /// The call on the recorded list, if it is there.
        recorded: Option<&'static RecordedCall>,
    },
    /// It runs or not as [`refusal`] says of its arguments, and is not recorded.
    Judge(&'static str),
    /// It fails with ENOSYS as on a kernel that lacks it; nobody sees it.
    Absent,
}

/// Calls that never run. None is open to a sample without capabilities that a program needs, and each widens what a sample can
/// do to the kernel, to its cage or behind the tracer's back.
#[rustfmt::skip]
static REFUSED: [(&str, u32, i32); 51] = [
    // Work that the kernel does for the sample without a call that a tracer sees.
    ("io_uring_setup", 425, libc::ENOSYS), ("io_uring_enter", 426, libc::ENOSYS), ("io_uring_register", 427, libc::ENOSYS),
    ("io_setup", 206, libc::ENOSYS), ("io_destroy", 207, libc::ENOSYS), ("io_getevents", 208, libc::ENOSYS),
    ("io_submit", 209, libc::ENOSYS), ("io_cancel", 210, libc::ENOSYS), ("io_pgetevents", 333, libc::ENOSYS),
    // Memory that stalls a reader, or that nobody but its owner can read.
    ("userfaultfd", 323, libc::EPERM), ("memfd_secret", 447, libc::ENOSYS),
    // Interfaces of the kernel with a long record of holes.
    ("bpf", 321, libc::EPERM), ("perf_event_open", 298, libc::EPERM), ("keyctl", 250, libc::EPERM),
    ("add_key", 248, libc::EPERM), ("request_key", 249, libc::EPERM), ("modify_ldt", 154, libc::ENOSYS),
    ("fanotify_init", 300, libc::EPERM), ("fanotify_mark", 301, libc::EPERM), ("syslog", 103, libc::EPERM),
    ("kexec_load", 246, libc::EPERM), ("kexec_file_load", 320, libc::EPERM), ("init_module", 175, libc::EPERM),
    ("finit_module", 313, libc::EPERM), ("delete_module", 176, libc::EPERM), ("iopl", 172, libc::EPERM),
    ("ioperm", 173, libc::EPERM), ("acct", 163, libc::EPERM), ("swapon", 167, libc::EPERM), ("swapoff", 168, libc::EPERM),
    ("quotactl", 179, libc::EPERM), ("quotactl_fd", 443, libc::EPERM), ("lookup_dcookie", 212, libc::EPERM),
    ("open_by_handle_at", 304, libc::EPERM),
    // Other namespaces and other mounts.
    ("setns", 308, libc::EPERM), ("mount", 165, libc::EPERM), ("umount2", 166, libc::EPERM),
    ("pivot_root", 155, libc::EPERM), ("chroot", 161, libc::EPERM), ("open_tree", 428, libc::EPERM),
    ("move_mount", 429, libc::EPERM), ("fsopen", 430, libc::EPERM), ("fsconfig", 431, libc::EPERM),
    ("fsmount", 432, libc::EPERM), ("fspick", 433, libc::EPERM), ("mount_setattr", 442, libc::EPERM),
    ("statmount", 457, libc::EPERM), ("listmount", 458, libc::EPERM), ("open_tree_attr", 467, libc::EPERM),
    // Nobody traces a traced process; the tracer least of all.
    ("ptrace", 101, libc::EPERM), ("vhangup", 153, libc::EPERM),
];

/// Calls that are judged by their arguments and are not on the recorded list.
static JUDGED: [(&str, u32); 5] =
    [("personality", 135), ("ioctl", IOCTL), ("sched_setaffinity", 203), ("sched_getaffinity", 204), ("shmat", 30)];

/// Calls that fail with ENOSYS without a word, as on a kernel that lacks them, and for which programs have another: `clone3`, for a C
/// library falls back on `clone`, whose flags stand in a register, where no other thread can change them after they were looked
/// at; `fchmodat2`; `setxattrat` and `removexattrat`; `pkey_mprotect` and `pkey_alloc`, without which nobody needs it.
static ABSENT: [u32; 6] = [435, 452, 463, 466, 329, 330];

/// Calls that are recorded as another one, which they are: those with the same arguments under another name. `rt_sigqueueinfo` as
/// `kill`, `rt_tgsigqueueinfo` as `tgkill`, `pidfd_send_signal` as `kill`, `getdents` as `getdents64`.
static SAME: [(u32, u32); 4] = [(129, 62), (297, 234), (PIDFD_SEND_SIGNAL, 62), (78, 217)];

/// The number of `pidfd_send_signal`, whose first argument is a descriptor in the place of a number of a process.
pub(crate) const PIDFD_SEND_SIGNAL: u32 = 424;

/// Requests of `ioctl` that never run, by their low 32 bits: typing into a terminal (TIOCSTI, TIOCLINUX), and the other way to a
/// descriptor that stalls readers of memory (`USERFAULTFD_IOC_NEW`).
pub(super) static REFUSED_REQUESTS: [u32; 3] = [0x5412, 0x541c, 0xaa00];

/// The number of `ioctl`.
pub(super) const IOCTL: u32 = 16;

/// Calls that set limits. That on core files stays as it is: at one byte, and only there, the kernel starts no program of the host
/// to take the core in, whatever its `core_pattern` says.
pub(super) const SETRLIMIT: u32 = 160;
pub(super) const PRLIMIT64: u32 = 302;

/// The number of `futex`, the bits of its second argument that say what it does, and what of that can wait until a time.
pub(super) const FUTEX: u32 = 202;
pub(super) const FUTEX_COMMAND: u32 = 0x7f;
pub(super) const FUTEX_WAITS: [u32; 5] = [0, 6, 9, 11, 13];

/// Calls that wait for a time, set a timer or ask what time it is, besides `futex`: `poll`, `select`, `nanosleep`, `getitimer`, `alarm`,
/// `setitimer`, `gettimeofday`, `rt_sigtimedwait`, `time`, `timer_settime`, `clock_gettime`, `clock_nanosleep`, `epoll_wait`, `pselect6`,
/// `ppoll`, `epoll_pwait`, `timerfd_settime`, `epoll_pwait2`.
pub(super) const TIMES: [u32; 18] = [7, 23, 35, 36, 37, 38, 96, 128, 201, 223, 228, 230, 232, 270, 271, 281, 286, 441];

/// Call numbers from here on are those of x32, which shares its architecture with x86-64.
pub(super) const X32: u64 = 0x4000_0000;

/// One more than the highest number below those of x32 that a rule names.
const NUMBERS: usize = 512;

/// The rule for the call `number` of x86-64.
pub fn rule(number: u64) -> Rule {
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
        let mut rules = vec![Rule::Allow; NUMBERS];
        let recorded = recorded_calls();
        let listed = |number| recorded.iter().find(|call| call.x86_64 == number);
        for call in recorded {
            rules[call.x86_64 as usize] = Rule::Record(call);
        }
        for (number, same) in SAME {
            if let Some(call) = listed(same) {
                rules[number as usize] = Rule::Record(call);
            }
        }
        for (name, number) in JUDGED {
            rules[number as usize] = Rule::Judge(name);
        }
        for (name, number, errno) in REFUSED {
            rules[number as usize] = Rule::Refuse { name, errno, recorded: listed(number) };
        }
        for number in ABSENT {
            rules[number as usize] = Rule::Absent;
        }
        rules
    });
    if number >= X32 {
        return Rule::Refuse { name: "x32", errno: libc::ENOSYS, recorded: None };
    }
    match usize::try_from(number) {
        Ok(number) if number < NUMBERS => RULES[number],
        _ => Rule::Allow,
    }
}

/// Flags of `clone` and `unshare` that ask for namespaces (`CLONE_NEW*`).
const NAMESPACES: u64 = 0x0000_0080 | 0x0002_0000 | 0x0200_0000 | 0x7c00_0000;
/// `CLONE_UNTRACED`.
const UNTRACED: u64 = 0x0080_0000;
/// `CLONE_THREAD`.
const THREAD: u64 = 0x0001_0000;

/// The error number with which a call fails because of its arguments, all of which stand in registers.
pub fn refusal(number: u64, args: &[u64; 6]) -> Option<i32> {
    let refused = match number {
        // clone
        56 => args[0] & (NAMESPACES | UNTRACED) != 0,
        // unshare; the bit of CLONE_NEWTIME is part of no signal there.
        272 => args[0] & NAMESPACES != 0,
        // seccomp: a listener could let calls run before the tracer hears of them.
        317 => args[0] == 1 && args[1] & (1 << 3) != 0,
        // personality: asking is free, changing how memory is laid out or what uname says is not.
        135 => !matches!(args[0] as u32, 0 | u32::MAX),
        16 => REFUSED_REQUESTS.contains(&(args[1] as u32)),
        _ => false,
    };
    refused.then_some(libc::EPERM)
}

/// Whether a call starts a process, which the highest isolation level refuses; threads and programs stay.
pub fn starts_process(number: u64, args: &[u64; 6]) -> bool {
    match number {
        57 | 58 => true,
        56 => args[0] & THREAD == 0,
        _ => false,
    }
}

/// Whether a call asks, or says, where a task may run.
pub(crate) fn asks_for_processors(number: u64) -> bool {
    matches!(number, 203 | 204)
}

/// Whether a call takes memory in that other processes have too.
pub(crate) fn attaches_memory(number: u64) -> bool {
    number == 30
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recorded_call_reaches_the_tracer_but_the_one_that_is_absent() {
        for call in recorded_calls() {
            match rule(u64::from(call.x86_64)) {
                Rule::Record(found) => assert_eq!(found, call),
                Rule::Refuse { name, recorded, .. } => assert_eq!((name, recorded), (call.name, Some(call))),
                Rule::Absent => assert_eq!(call.name, "clone3"),
                other => panic!("{}: {other:?}", call.name),
            }
        }
    }

    #[test]
    fn calls_by_another_name_are_recorded_as_what_they_are() {
        for (number, name) in [(129, "kill"), (297, "tgkill"), (424, "kill"), (78, "getdents64")] {
            assert!(matches!(rule(number), Rule::Record(call) if call.name == name), "{number}");
        }
        for number in [452, 329, 330] {
            assert_eq!(rule(number), Rule::Absent);
        }
    }

    #[test]
    fn refused_numbers_stand_once_and_below_the_ceiling() {
        let mut numbers: Vec<_> =
            REFUSED.iter().map(|call| call.1).chain(JUDGED.map(|call| call.1)).chain(ABSENT).collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
        assert!(numbers.iter().all(|number| (*number as usize) < NUMBERS));
        assert_eq!(rule(NUMBERS as u64), Rule::Allow);
        assert!(matches!(rule(X32 | 2), Rule::Refuse { name: "x32", .. }));
    }

    #[test]
    fn arguments_are_judged() {
        let with = |first, second| [first, second, 0, 0, 0, 0];
        for (number, args, refused) in [
            (56, with(0x0120_0011, 0), false),
            (56, with(0x0000_4111, 0), false),
            (56, with(0x003d_0f00, 0), false),
            (56, with(0x1000_0011, 0), true),
            (56, with(0x0002_0011, 0), true),
            (56, with(0x0080_0011, 0), true),
            (272, with(0x400, 0), false),
            (272, with(0x1000_0000, 0), true),
            (272, with(0x80, 0), true),
            (317, with(1, 0), false),
            (317, with(1, 8 | 16), true),
            (317, with(2, 8), false),
            (135, with(0xffff_ffff, 0), false),
            (135, with(0x0040_0000, 0), true),
            (16, with(0, 0x5401), false),
            (16, with(0, 0x5412), true),
            (16, with(0, 0xffff_ffff_0000_5412), true),
            (0, with(u64::MAX, u64::MAX), false),
        ] {
            assert_eq!(refusal(number, &args).is_some(), refused, "{number} {args:x?}");
        }
        assert!(starts_process(57, &with(0, 0)) && starts_process(56, &with(17, 0)));
        assert!(!starts_process(56, &with(THREAD | 0x900, 0)) && !starts_process(59, &with(0, 0)));
    }
}
