//! Numbers of the kernel by the names that programmers know.

/// Names of the bits of `value`, joined by `|`, and the rest as a number.
pub(super) fn bits(value: u64, names: &[(u64, &str)]) -> String {
    let (mut text, mut rest) = (String::new(), value);
    for (bit, name) in names {
        if rest & bit == *bit {
            rest &= !bit;
            push(&mut text, name);
        }
    }
    if rest != 0 || text.is_empty() {
        push(&mut text, &if rest == 0 { "0".to_owned() } else { format!("{rest:#x}") });
    }
    text
}

fn push(text: &mut String, word: &str) {
    if !text.is_empty() {
        text.push('|');
    }
    text.push_str(word);
}

/// The name of `value`, or its number.
fn name(value: i64, names: &[(i64, &'static str)]) -> String {
    names.iter().find(|(known, _)| *known == value).map_or_else(|| value.to_string(), |(_, name)| (*name).to_owned())
}

/// A signal: `SIGTERM`.
pub(super) fn signal(number: i64) -> String {
    #[rustfmt::skip]
    const NAMES: [&str; 32] = [
        "0", "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1",
        "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP",
        "SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR",
        "SIGSYS",
    ];
    match usize::try_from(number) {
        Ok(number) if number < NAMES.len() => NAMES[number].to_owned(),
        Ok(32) => "SIGRTMIN".to_owned(),
        Ok(number @ 33..=64) => format!("SIGRT_{}", number - 32),
        _ => number.to_string(),
    }
}

/// Flags of `clone` and the signal that tells the parent of the child's end.
pub(super) fn clone_flags(flags: u64) -> String {
    let mut text = match flags & !0xff {
        0 => String::new(),
        named => bits(named, &CLONE),
    };
    if flags & 0xff != 0 || text.is_empty() {
        push(&mut text, &signal((flags & 0xff) as i64));
    }
    text
}

#[rustfmt::skip]
pub(super) const CLONE: [(u64, &str); 24] = [
    (0x100, "CLONE_VM"), (0x200, "CLONE_FS"), (0x400, "CLONE_FILES"), (0x800, "CLONE_SIGHAND"), (0x1000, "CLONE_PIDFD"),
    (0x2000, "CLONE_PTRACE"), (0x4000, "CLONE_VFORK"), (0x8000, "CLONE_PARENT"), (0x1_0000, "CLONE_THREAD"),
    (0x2_0000, "CLONE_NEWNS"), (0x4_0000, "CLONE_SYSVSEM"), (0x8_0000, "CLONE_SETTLS"), (0x10_0000, "CLONE_PARENT_SETTID"),
    (0x20_0000, "CLONE_CHILD_CLEARTID"), (0x40_0000, "CLONE_DETACHED"), (0x80_0000, "CLONE_UNTRACED"),
    (0x100_0000, "CLONE_CHILD_SETTID"), (0x200_0000, "CLONE_NEWCGROUP"), (0x400_0000, "CLONE_NEWUTS"),
    (0x800_0000, "CLONE_NEWIPC"), (0x1000_0000, "CLONE_NEWUSER"), (0x2000_0000, "CLONE_NEWPID"),
    (0x4000_0000, "CLONE_NEWNET"), (0x8000_0000, "CLONE_IO"),
];

/// Family of addresses: `AF_INET`.
pub(super) fn family(number: i64) -> String {
    #[rustfmt::skip]
    const NAMES: [(i64, &str); 12] = [
        (0, "AF_UNSPEC"), (1, "AF_UNIX"), (2, "AF_INET"), (4, "AF_IPX"), (9, "AF_X25"), (10, "AF_INET6"), (15, "AF_KEY"),
        (16, "AF_NETLINK"), (17, "AF_PACKET"), (31, "AF_BLUETOOTH"), (38, "AF_ALG"), (40, "AF_VSOCK"),
    ];
    name(number, &NAMES)
}

/// Type of a socket: `SOCK_STREAM|SOCK_CLOEXEC`.
pub(super) fn socket_type(value: i64) -> String {
    #[rustfmt::skip]
    const NAMES: [(i64, &str); 6] = [
        (1, "SOCK_STREAM"), (2, "SOCK_DGRAM"), (3, "SOCK_RAW"), (4, "SOCK_RDM"), (5, "SOCK_SEQPACKET"), (10, "SOCK_PACKET"),
    ];
    let mut text = name(value & 0xf, &NAMES);
    let flags = (value & !0xf) as u64;
    if flags != 0 {
        push(&mut text, &bits(flags, &[(0o2_000_000, "SOCK_CLOEXEC"), (0o4000, "SOCK_NONBLOCK")]));
    }
    text
}

/// Protocol of a socket of a family: `IPPROTO_TCP`.
pub(super) fn protocol(family: i64, number: i64) -> String {
    #[rustfmt::skip]
    const INTERNET: [(i64, &str); 9] = [
        (0, "IPPROTO_IP"), (1, "IPPROTO_ICMP"), (2, "IPPROTO_IGMP"), (6, "IPPROTO_TCP"), (17, "IPPROTO_UDP"),
        (41, "IPPROTO_IPV6"), (58, "IPPROTO_ICMPV6"), (132, "IPPROTO_SCTP"), (255, "IPPROTO_RAW"),
    ];
    #[rustfmt::skip]
    const NETLINK: [(i64, &str); 6] = [
        (0, "NETLINK_ROUTE"), (4, "NETLINK_SOCK_DIAG"), (9, "NETLINK_AUDIT"), (12, "NETLINK_NETFILTER"),
        (15, "NETLINK_KOBJECT_UEVENT"), (16, "NETLINK_GENERIC"),
    ];
    match family {
        2 | 10 => name(number, &INTERNET),
        16 => name(number, &NETLINK),
        _ => number.to_string(),
    }
}

/// Option of `prctl`: `PR_SET_NAME`.
pub(super) fn prctl(option: i64) -> String {
    #[rustfmt::skip]
    const NAMES: [(i64, &str); 22] = [
        (1, "PR_SET_PDEATHSIG"), (2, "PR_GET_PDEATHSIG"), (3, "PR_GET_DUMPABLE"), (4, "PR_SET_DUMPABLE"),
        (8, "PR_SET_KEEPCAPS"), (15, "PR_SET_NAME"), (16, "PR_GET_NAME"), (21, "PR_GET_SECCOMP"), (22, "PR_SET_SECCOMP"),
        (23, "PR_CAPBSET_READ"), (24, "PR_CAPBSET_DROP"), (28, "PR_SET_SECUREBITS"), (29, "PR_SET_TIMERSLACK"),
        (35, "PR_SET_MM"), (36, "PR_SET_CHILD_SUBREAPER"), (38, "PR_SET_NO_NEW_PRIVS"), (39, "PR_GET_NO_NEW_PRIVS"),
        (41, "PR_SET_THP_DISABLE"), (47, "PR_CAP_AMBIENT"), (0x5961_6d61, "PR_SET_PTRACER"), (0x5356_4d41, "PR_SET_VMA"),
        (59, "PR_SET_SYSCALL_USER_DISPATCH"),
    ];
    name(option, &NAMES)
}

/// Request of `ptrace`: `PTRACE_TRACEME`.
pub(super) fn ptrace(request: i64) -> String {
    #[rustfmt::skip]
    const NAMES: [(i64, &str); 19] = [
        (0, "PTRACE_TRACEME"), (1, "PTRACE_PEEKTEXT"), (2, "PTRACE_PEEKDATA"), (3, "PTRACE_PEEKUSER"),
        (4, "PTRACE_POKETEXT"), (5, "PTRACE_POKEDATA"), (6, "PTRACE_POKEUSER"), (7, "PTRACE_CONT"), (8, "PTRACE_KILL"),
        (9, "PTRACE_SINGLESTEP"), (12, "PTRACE_GETREGS"), (13, "PTRACE_SETREGS"), (16, "PTRACE_ATTACH"),
        (17, "PTRACE_DETACH"), (24, "PTRACE_SYSCALL"), (0x4200, "PTRACE_SETOPTIONS"), (0x4204, "PTRACE_GETREGSET"),
        (0x4206, "PTRACE_SEIZE"), (0x4207, "PTRACE_INTERRUPT"),
    ];
    name(request, &NAMES)
}

/// Operation of `seccomp`: `SECCOMP_SET_MODE_FILTER`.
pub(super) fn seccomp(operation: i64) -> String {
    #[rustfmt::skip]
    const NAMES: [(i64, &str); 4] = [
        (0, "SECCOMP_SET_MODE_STRICT"), (1, "SECCOMP_SET_MODE_FILTER"), (2, "SECCOMP_GET_ACTION_AVAIL"),
        (3, "SECCOMP_GET_NOTIF_SIZES"),
    ];
    name(operation, &NAMES)
}

/// A file mode in octal digits, with the leading 0 of C.
pub(super) fn mode(mode: u64) -> String {
    if mode == 0 { "000".to_owned() } else { format!("0{mode:o}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_names_of_their_headers() {
        for (text, expected) in [
            (clone_flags(0x0120_0011), "CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD"),
            (clone_flags(0x4111), "CLONE_VM|CLONE_VFORK|SIGCHLD"),
            (clone_flags(0), "0"),
            (signal(34), "SIGRT_2"),
            (signal(-1), "-1"),
            (socket_type(0o2_004_001), "SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK"),
            (protocol(2, 0), "IPPROTO_IP"),
            (protocol(1, 0), "0"),
            (bits(0x400 | 0x8, &CLONE), "CLONE_FILES|0x8"),
            (mode(0o644), "0644"),
            (mode(0), "000"),
            (prctl(15), "PR_SET_NAME"),
        ] {
            assert_eq!(text, expected);
        }
    }
}
