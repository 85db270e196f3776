//! The x86-64 numbers of the recorded calls, for filters that work on numbers.

/// Numbers in the order of `docs/formats/calls-v1.txt`.
#[rustfmt::skip]
pub(super) static NUMBERS: [(&str, u32); 113] = [
    ("open", 2), ("openat", 257), ("openat2", 437), ("creat", 85), ("read", 0), ("readv", 19), ("pread64", 17),
    ("preadv", 295), ("preadv2", 327), ("write", 1), ("writev", 20), ("pwrite64", 18), ("pwritev", 296),
    ("pwritev2", 328), ("sendfile", 40), ("copy_file_range", 326), ("splice", 275), ("rename", 82), ("renameat", 264),
    ("renameat2", 316), ("unlink", 87), ("unlinkat", 263), ("rmdir", 84), ("mkdir", 83), ("mkdirat", 258),
    ("mknod", 133), ("mknodat", 259), ("link", 86), ("linkat", 265), ("symlink", 88), ("symlinkat", 266),
    ("chmod", 90), ("fchmod", 91), ("fchmodat", 268), ("chown", 92), ("fchown", 93), ("lchown", 94),
    ("fchownat", 260), ("utime", 132), ("utimes", 235), ("futimesat", 261), ("utimensat", 280), ("truncate", 76),
    ("ftruncate", 77), ("fallocate", 285), ("getdents64", 217), ("chdir", 80), ("fchdir", 81), ("setxattr", 188),
    ("fsetxattr", 190), ("lsetxattr", 189), ("chroot", 161), ("mount", 165), ("umount2", 166), ("pivot_root", 155),
    ("socket", 41), ("connect", 42), ("bind", 49), ("listen", 50), ("accept", 43), ("accept4", 288), ("sendto", 44),
    ("sendmsg", 46), ("sendmmsg", 307), ("recvfrom", 45), ("recvmsg", 47), ("recvmmsg", 299), ("fork", 57),
    ("vfork", 58), ("clone", 56), ("clone3", 435), ("execve", 59), ("execveat", 322), ("exit_group", 231),
    ("kill", 62), ("tkill", 200), ("tgkill", 234), ("ptrace", 101), ("process_vm_readv", 310),
    ("process_vm_writev", 311), ("setuid", 105), ("setgid", 106), ("setreuid", 113), ("setregid", 114),
    ("setresuid", 117), ("setresgid", 119), ("setgroups", 116), ("capset", 126), ("prctl", 157), ("setsid", 112),
    ("unshare", 272), ("setns", 308), ("seccomp", 317), ("nanosleep", 35), ("clock_nanosleep", 230), ("uname", 63),
    ("mmap", 9), ("mprotect", 10), ("memfd_create", 319), ("userfaultfd", 323), ("bpf", 321),
    ("perf_event_open", 298), ("init_module", 175), ("finit_module", 313), ("delete_module", 176),
    ("io_uring_setup", 425), ("keyctl", 250), ("add_key", 248), ("request_key", 249), ("settimeofday", 164),
    ("clock_settime", 227), ("sethostname", 170), ("reboot", 169),
];
