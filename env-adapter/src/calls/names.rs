//! Which call does what, by name: Linux calls of every architecture, native and common Windows calls.

use super::Operation::{self, *};
use crate::event::EventKind::{self, *};

/// Names separated by blanks, with the domain and the operation that they stand for.
#[rustfmt::skip]
pub(super) static NAMES: &[(EventKind, Operation, &str)] = &[
    // Linux files.
    (File, Open, "open openat openat2 creat open_by_handle_at mq_open uselib"),
    (File, Read, "read readv pread64 preadv preadv2 readahead"),
    (File, Write, "write writev pwrite64 pwritev pwritev2"),
    (File, Copy, "sendfile sendfile64 copy_file_range splice tee vmsplice"),
    (File, MakeNode, "mknod mknodat"),
    (File, Rename, "rename renameat renameat2"),
    (File, Delete, "unlink unlinkat rmdir mq_unlink"),
    (File, MakeFolder, "mkdir mkdirat"),
    (File, Link, "link linkat symlink symlinkat"),
    (File, ChangeMode, "chmod fchmod fchmodat fchmodat2"),
    (File, ChangeOwner, "chown fchown lchown fchownat chown32 fchown32 lchown32"),
    (File, SetTimes, "utime utimes futimesat utimensat utimensat_time64"),
    (File, Truncate, "truncate ftruncate truncate64 ftruncate64"),
    (File, Allocate, "fallocate"),
    (File, List, "getdents getdents64 readdir"),
    (File, ChangeFolder, "chdir fchdir"),
    (File, SetAttribute, "setxattr fsetxattr lsetxattr removexattr fremovexattr lremovexattr"),
    (File, Mount, "chroot mount umount umount2 pivot_root fsconfig fsmount fsopen fspick move_mount mount_setattr open_tree"),
    (File, Query, "access faccessat faccessat2 fstat fstat64 fstatat64 fstatfs fstatfs64 getcwd getxattr fgetxattr \
        lgetxattr listxattr flistxattr llistxattr lstat lstat64 newfstatat oldfstat oldlstat oldstat readlink readlinkat \
        stat stat64 statfs statfs64 statx sysfs ustat name_to_handle_at lookup_dcookie"),
    (File, Close, "close close_range"),
    (File, Other, "_llseek lseek dup dup2 dup3 fadvise64 fadvise64_64 fcntl fcntl64 fdatasync flock fsync sync syncfs \
        sync_file_range pipe pipe2 inotify_add_watch inotify_init inotify_init1 inotify_rm_watch fanotify_init \
        fanotify_mark quotactl quotactl_fd swapon swapoff acct"),
    // Linux network.
    (Network, Socket, "socket socketpair socketcall getpeername getsockname getsockopt setsockopt shutdown"),
    (Network, Connect, "connect"),
    (Network, Bind, "bind listen accept accept4"),
    (Network, Send, "sendto sendmsg sendmmsg send"),
    (Network, Receive, "recvfrom recvmsg recvmmsg recvmmsg_time64 recv"),
    // Linux processes.
    (Process, Fork, "fork vfork clone clone3"),
    (Process, Exec, "execve execveat"),
    (Process, Exit, "exit exit_group"),
    (Process, Kill, "kill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal"),
    (Process, Trace, "ptrace"),
    (Process, ReadProcess, "process_vm_readv kcmp pidfd_getfd"),
    (Process, WriteProcess, "process_vm_writev"),
    (Process, ChangeUser, "setuid setgid setreuid setregid setresuid setresgid setgroups setuid32 setgid32 setreuid32 \
        setregid32 setresuid32 setresgid32 setgroups32 setfsuid setfsgid setfsuid32 setfsgid32 capset"),
    (Process, Restrict, "prctl seccomp landlock_add_rule landlock_create_ruleset landlock_restrict_self"),
    (Process, Session, "setsid setpgid"),
    (Process, Namespace, "unshare setns"),
    (Process, Sleep, "nanosleep clock_nanosleep clock_nanosleep_time64 pause alarm"),
    (Process, Identify, "uname olduname oldolduname"),
    (Process, Wait, "wait4 waitid waitpid"),
    (Process, Other, "tkill tgkill umask getpid getppid gettid getpgid getpgrp getsid getuid getuid32 geteuid geteuid32 getgid getgid32 getegid \
        getegid32 getgroups getgroups32 getresuid getresuid32 getresgid getresgid32 capget getpriority setpriority nice \
        getrlimit setrlimit ugetrlimit prlimit64 getrusage times sched_yield sched_getaffinity sched_setaffinity \
        sched_getattr sched_setattr sched_getparam sched_setparam sched_getscheduler sched_setscheduler \
        sched_get_priority_max sched_get_priority_min sched_rr_get_interval personality pidfd_open set_tid_address \
        arch_prctl rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack \
        sigaction signal sigprocmask sigreturn sigpending sigsuspend time gettimeofday clock_gettime clock_gettime64 \
        clock_getres getitimer setitimer timer_create timer_settime timer_gettime timer_delete timerfd_create \
        timerfd_settime timerfd_gettime restart_syscall"),
    // Linux memory.
    (Memory, Map, "mmap mmap2 mremap remap_file_pages shmat"),
    (Memory, Protect, "mprotect pkey_mprotect"),
    (Memory, MemoryFile, "memfd_create memfd_secret userfaultfd"),
    (Memory, Other, "brk munmap madvise process_madvise mincore mlock mlock2 mlockall munlock munlockall msync mbind \
        get_mempolicy set_mempolicy migrate_pages move_pages pkey_alloc pkey_free shmget shmctl shmdt membarrier"),
    // The Linux kernel itself.
    (Syscall, Kernel, "bpf perf_event_open init_module finit_module delete_module create_module query_module io_uring_setup \
        io_uring_enter io_uring_register keyctl add_key request_key kexec_load kexec_file_load iopl ioperm modify_ldt \
        syslog _sysctl"),
    (Syscall, SetClock, "settimeofday clock_settime clock_settime64 stime adjtimex clock_adjtime sethostname setdomainname \
        reboot"),
    (Syscall, Other, "ioctl futex poll ppoll select _newselect pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait \
        epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 getrandom getcpu sysinfo rseq set_robust_list \
        get_robust_list set_thread_area get_thread_area ipc msgget msgsnd msgrcv msgctl semget semop semctl semtimedop \
        io_setup io_submit io_getevents io_cancel io_destroy vhangup ioprio_get ioprio_set"),
    // Native Windows calls.
    (File, Open, "NtCreateFile NtOpenFile NtCreateNamedPipeFile"),
    (File, Read, "NtReadFile NtReadFileScatter"),
    (File, Write, "NtWriteFile NtWriteFileGather"),
    (File, Delete, "NtDeleteFile DeleteFileA DeleteFileW RemoveDirectoryA RemoveDirectoryW"),
    (File, Rename, "MoveFileWithProgressW MoveFileWithProgressTransactedW"),
    (File, Copy, "CopyFileA CopyFileW CopyFileExW"),
    (File, MakeFolder, "CreateDirectoryW CreateDirectoryExW"),
    (File, List, "NtQueryDirectoryFile FindFirstFileExA FindFirstFileExW"),
    (File, SetAttribute, "NtSetInformationFile NtSetEaFile SetFileAttributesW"),
    (File, Query, "NtQueryAttributesFile NtQueryFullAttributesFile NtQueryInformationFile NtQueryVolumeInformationFile \
        GetFileAttributesW GetFileAttributesExW"),
    (File, Close, "NtClose"),
    (File, Other, "NtFlushBuffersFile NtFsControlFile NtLockFile NtUnlockFile NtCancelIoFile NtDeviceIoControlFile \
        NtNotifyChangeDirectoryFile"),
    (File, ReadRegistry, "NtOpenKey NtOpenKeyEx NtQueryKey NtQueryValueKey NtQueryMultipleValueKey NtEnumerateKey \
        NtEnumerateValueKey NtNotifyChangeKey NtNotifyChangeMultipleKeys RegOpenKeyExA RegOpenKeyExW RegQueryValueExA \
        RegQueryValueExW RegEnumKeyExA RegEnumKeyExW RegEnumValueA RegEnumValueW"),
    (File, WriteRegistry, "NtCreateKey NtSetValueKey NtDeleteKey NtDeleteValueKey NtRenameKey NtSaveKey NtLoadKey \
        RegCreateKeyExA RegCreateKeyExW RegSetValueExA RegSetValueExW RegDeleteKeyA RegDeleteKeyW RegDeleteValueA \
        RegDeleteValueW"),
    (Network, Socket, "WSASocketA WSASocketW WSAStartup InternetOpenA InternetOpenW"),
    (Network, Connect, "WSAConnect ConnectEx NtAlpcConnectPort NtConnectPort InternetConnectA InternetConnectW \
        InternetOpenUrlA InternetOpenUrlW HttpOpenRequestA HttpOpenRequestW DnsQuery_A DnsQuery_W getaddrinfo \
        GetAddrInfoW gethostbyname"),
    (Network, Send, "WSASend WSASendTo WSASendMsg HttpSendRequestA HttpSendRequestW TransmitFile"),
    (Network, Receive, "WSARecv WSARecvFrom InternetReadFile URLDownloadToFileW"),
    (Process, Fork, "NtCreateProcess NtCreateProcessEx NtCreateUserProcess CreateProcessInternalW ShellExecuteExW \
        CreateProcessWithLogonW CreateProcessWithTokenW"),
    (Process, Thread, "NtCreateThread NtCreateThreadEx CreateThread"),
    (Process, Kill, "NtTerminateProcess NtTerminateThread NtSuspendProcess NtSuspendThread"),
    (Process, Trace, "NtGetContextThread NtSetContextThread NtDebugActiveProcess SetWindowsHookExA SetWindowsHookExW"),
    (Process, ReadProcess, "NtReadVirtualMemory NtOpenProcess ReadProcessMemory"),
    (Process, WriteProcess, "NtWriteVirtualMemory NtWow64WriteVirtualMemory64 NtQueueApcThread NtQueueApcThreadEx \
        CreateRemoteThread CreateRemoteThreadEx WriteProcessMemory RtlCreateUserThread"),
    (Process, ChangeUser, "NtAdjustPrivilegesToken NtSetInformationToken NtDuplicateToken LookupPrivilegeValueW"),
    (Process, Sleep, "NtDelayExecution"),
    (Process, Identify, "NtQuerySystemInformation NtQuerySystemInformationEx GetComputerNameA GetComputerNameW GetUserNameA \
        GetUserNameW"),
    (Process, Wait, "NtWaitForSingleObject NtWaitForMultipleObjects"),
    (Process, Other, "NtOpenThread NtResumeThread NtResumeProcess NtOpenProcessToken NtOpenProcessTokenEx NtOpenThreadToken \
        NtOpenThreadTokenEx NtQueryInformationProcess NtQueryInformationThread NtQueryInformationToken \
        NtSetInformationProcess NtSetInformationThread NtYieldExecution"),
    (Memory, Map, "NtAllocateVirtualMemory NtMapViewOfSection NtAllocateVirtualMemoryEx NtMapViewOfSectionEx"),
    (Memory, Protect, "NtProtectVirtualMemory VirtualProtectEx"),
    (Memory, Other, "NtFreeVirtualMemory NtUnmapViewOfSection NtCreateSection NtOpenSection NtQueryVirtualMemory \
        NtFlushVirtualMemory NtLockVirtualMemory NtUnlockVirtualMemory NtQuerySection"),
    (Syscall, Kernel, "NtLoadDriver NtUnloadDriver NtSetSystemInformation NtTraceControl"),
    (Syscall, SetClock, "NtSetSystemTime NtShutdownSystem"),
];
