/* Attempts to escape a tracer. The first argument names one; what came of it is printed as words and error numbers. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *word, long result) {
    char line[128];
    int length = snprintf(line, sizeof line, "%s %ld\n", word, result < 0 ? (long)-errno : result);
    if (write(1, line, length) < 0) _exit(99);
}

static void touch(const char *name) { close(open(name, O_CREAT | O_WRONLY, 0600)); }

/* No library between us and the kernel. */
static long raw(long number, long a, long b, long c, long d, long e) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return result;
}

static void tracing(void) {
    say("traceme", ptrace(PTRACE_TRACEME, 0, 0, 0));
    say("attach", ptrace(PTRACE_ATTACH, getppid(), 0, 0));
    FILE *status = fopen("/proc/self/status", "r");
    char line[256];
    long tracer = 0;
    while (status && fgets(line, sizeof line, status)) sscanf(line, "TracerPid: %ld", &tracer);
    say("seize", tracer == 0 ? 0 : ptrace(PTRACE_SEIZE, tracer, 0, 0));
}

static void daemonize(void) {
    if (fork() != 0) return;
    setsid();
    if (fork() != 0) _exit(0);
    signal(SIGHUP, SIG_IGN);
    usleep(50000);
    touch("by the grandchild");
    say("grandchild", 0);
    _exit(0);
}

static void hide_in_vfork(void) {
    pid_t child = vfork();
    if (child == 0) {
        touch("behind vfork");
        usleep(20000);
        execl("/proc/self/exe", "attempts", "touch", NULL);
        _exit(1);
    }
    int status;
    waitpid(child, &status, 0);
    say("vfork", status);
}

static void chain(int depth) {
    for (int at = 0; at < depth; at++) {
        pid_t child = fork();
        if (child < 0) _exit(2);
        if (child == 0) continue;
        int status;
        waitpid(child, &status, 0);
        _exit(WEXITSTATUS(status));
    }
    touch("at the end of the chain");
    _exit(42);
}

static int child_of_clone(void *argument) {
    unlink(argument);
    return 0;
}

static void untraced(void) {
    touch("unseen");
    static char stack[65536] __attribute__((aligned(16)));
    say("clone", clone(child_of_clone, stack + sizeof stack, CLONE_UNTRACED | SIGCHLD, "unseen"));
    say("newuser", clone(child_of_clone, stack + sizeof stack, CLONE_NEWUSER | SIGCHLD, "unseen"));
    say("unshare", unshare(CLONE_NEWUSER | CLONE_NEWNS));
    say("clone3", syscall(SYS_clone3, NULL, 0));
    say("setns", syscall(SYS_setns, 0, 0));
    wait(NULL);
    say("there", access("unseen", F_OK));
}

/* A name in memory that another process could change. */
static void share(int attached) {
    char *page;
    touch("alone");
    if (attached) {
        int id = shmget(IPC_PRIVATE, 4096, 0600 | IPC_CREAT);
        page = shmat(id, NULL, 0);
        shmctl(id, IPC_RMID, NULL);
        strcpy(page, "in company");
    } else {
        int fd = memfd_create("page", 0);
        if (write(fd, "in company", 11) != 11 || ftruncate(fd, 4096) != 0) _exit(99);
        page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    }
    touch(page);
}

/* Memory as a file that can be written, by paths that do not say so. */
static void memory_as_a_file(const char *way) {
    touch("alone");
    int file = -1;
    if (!strcmp(way, "link")) {
        say("link", symlink("/proc/self/mem", "a name"));
        file = open("a name", O_RDWR);
    } else if (!strcmp(way, "around")) {
        file = open("/dev/fd/../mem", O_RDWR);
    } else if (!strcmp(way, "folder")) {
        say("link", symlink("/proc/thread-self", "a folder"));
        file = openat(open("a folder", O_PATH | O_DIRECTORY), "mem", O_WRONLY);
    } else if (!strcmp(way, "creat")) {
        file = creat("/proc/self/mem", 0600);
    } else if (!strcmp(way, "again")) {
        char name[64];
        snprintf(name, sizeof name, "/proc/self/fd/%d", open("/proc/self/mem", O_RDONLY));
        touch("still alone");
        file = open(name, O_WRONLY);
    }
    static char known[] = "xn company";
    say("written", file < 0 ? -1 : pwrite(file, "i", 1, (off_t)(uintptr_t)known));
    touch(known);
}

/* Calls under other names than the usual ones. */
static void aliases(void) {
    char buffer[1024];
    int folder = open(".", O_RDONLY | O_DIRECTORY);
    say("getdents", syscall(SYS_getdents, folder, buffer, sizeof buffer) > 0);
    signal(SIGUSR1, SIG_IGN);
    siginfo_t info = {.si_signo = SIGUSR1, .si_code = SI_QUEUE};
    say("queue", syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &info));
    say("queue one", syscall(SYS_rt_tgsigqueueinfo, getpid(), getpid(), SIGUSR1, &info));
    int self = syscall(SYS_pidfd_open, getpid(), 0);
    say("by descriptor", syscall(SYS_pidfd_send_signal, self, SIGUSR1, NULL, 0));
    say("pid", getpid());
    touch("touched");
    say("chmod", syscall(452, AT_FDCWD, "touched", 0700, AT_SYMLINK_NOFOLLOW));
    say("protect", syscall(SYS_pkey_mprotect, NULL, 0, 0, -1));
    say("key", syscall(SYS_pkey_alloc, 0, 0));
}

static void own_filter(void) {
    struct sock_filter notify[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unlink, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, notify};
    say("listener", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
    touch("file");
    /* Without a listener the answer for unlink is ENOSYS; uname fails; the answer of openat2 asks the tracer with a message of
     * its own, that of getppid asks it about a call that it never asked for. */
    struct sock_filter own[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_uname, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 77),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 5),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rename, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 9),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog other = {sizeof own / sizeof own[0], own};
    say("filter", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &other));
    say("uname", syscall(SYS_uname, NULL));
    say("io_setup", syscall(SYS_io_setup, 1, NULL));
    say("getppid", syscall(SYS_getppid) > 0);
    say("rename", rename("file", "other"));
    say("unlink", unlink("other"));
}

static void foreign(void) {
    pid_t child = fork();
    if (child == 0) {
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory");
        say("int80", result);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    say("killed", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    errno = 0;
    say("x32", raw(0x40000000 + 39, 0, 0, 0, 0, 0));
}

static void aside(void) {
    say("io_uring_setup", syscall(425, 1, NULL));
    say("io_uring_enter", syscall(426, 0, 0, 0, 0, NULL, 0));
    say("io_setup", syscall(SYS_io_setup, 1, NULL));
    say("io_submit", syscall(SYS_io_submit, 0, 0, NULL));
    say("userfaultfd", syscall(SYS_userfaultfd, 0));
    say("memfd_secret", syscall(447, 0));
    say("bpf", syscall(SYS_bpf, 0, NULL, 0));
    say("perf_event_open", syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
    say("keyctl", syscall(SYS_keyctl, 0));
    say("mount", syscall(SYS_mount, "a", "/tmp", "tmpfs", 0, NULL));
    say("open_tree", syscall(428, 0, "/", 0));
    say("personality", personality(ADDR_NO_RANDOMIZE));
    say("asked", personality(0xffffffff) >= 0);
    char letter = 'x';
    say("tiocsti", ioctl(0, TIOCSTI, &letter));
}

static void pass_descriptors(void) {
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    pid_t child = fork();
    if (child == 0) {
        int file = open("passed", O_CREAT | O_RDWR, 0600);
        char space[CMSG_SPACE(sizeof(int))] = {0};
        struct iovec piece = {"x", 1};
        struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
        struct cmsghdr *part = CMSG_FIRSTHDR(&message);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(part), &file, sizeof file);
        sendmsg(pair[1], &message, 0);
        int taken = open("taken", O_CREAT | O_RDWR, 0600);
        dup2(taken, 77);
        char byte;
        if (read(pair[1], &byte, 1) < 0) _exit(1);
        _exit(0);
    }
    char space[CMSG_SPACE(sizeof(int))] = {0}, byte;
    struct iovec piece = {&byte, 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    recvmsg(pair[0], &message, 0);
    int file;
    memcpy(&file, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof file);
    say("passed", write(file, "through a passed descriptor", 27));
    int pidfd = syscall(434, child, 0);
    int taken = -1;
    for (int at = 0; at < 1000 && taken < 0; at++) {
        taken = syscall(438, pidfd, 77, 0);
        if (taken < 0) usleep(1000);
    }
    say("taken", taken >= 0 ? write(taken, "through a taken descriptor", 26) : taken);
    if (write(pair[0], "x", 1) < 0) _exit(1);
    wait(NULL);
}

static void *other_program(void *arguments) {
    usleep(10000);
    execl(((char **)arguments)[0], ((char **)arguments)[0], "touch", NULL);
    return NULL;
}

static void exec_in_thread(char **arguments) {
    pthread_t task;
    pthread_create(&task, NULL, other_program, arguments);
    for (;;) pause();
}

static void stopped(void) {
    pid_t child = fork();
    if (child == 0) {
        raise(SIGSTOP);
        touch("after being stopped");
        _exit(0);
    }
    int status;
    waitpid(child, &status, WUNTRACED);
    say("stopped", WIFSTOPPED(status) ? WSTOPSIG(status) : -1);
    usleep(20000);
    kill(child, SIGCONT);
    waitpid(child, &status, 0);
    say("ended", status);
}

static volatile sig_atomic_t caught;
static void handler(int number) { caught += number; }

static void signals(void) {
    struct sigaction once = {.sa_handler = handler};
    sigaction(SIGUSR1, &once, NULL);
    struct sigaction again = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGUSR2, &again, NULL);
    pid_t parent = getpid();
    int ends[2];
    if (pipe(ends) != 0) _exit(1);
    if (fork() == 0) {
        usleep(30000);
        kill(parent, SIGUSR1);
        usleep(30000);
        kill(parent, SIGUSR2);
        kill(parent, SIGRTMIN + 3);
        usleep(30000);
        if (write(ends[1], "y", 1) < 0) _exit(1);
        _exit(0);
    }
    sigaction(SIGRTMIN + 3, &again, NULL);
    char byte;
    say("interrupted", read(ends[0], &byte, 1));
    say("restarted", read(ends[0], &byte, 1));
    say("caught", caught);
    wait(NULL);
}

/* Where this process may run: as the kernel answers, and as its own file says. */
static void say_processors(const char *asked, const char *written) {
    FILE *status = fopen("/proc/self/status", "r");
    char line[256];
    long allowed = 0;
    while (status && fgets(line, sizeof line, status)) {
        if (strncmp(line, "Cpus_allowed:", 13)) continue;
        for (char *at = line + 13; *at; at++) {
            if (*at >= '0' && *at <= '9') allowed += __builtin_popcount(*at - '0');
            if (*at >= 'a' && *at <= 'f') allowed += __builtin_popcount(*at - 'a' + 10);
        }
    }
    say(written, allowed);
    cpu_set_t set;
    say(asked, sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : -1);
}

static void processors(void) {
    for (int i = 0; i < 64; i++) touch("touched");
    if (fork() == 0) {
        say_processors("child", "child's file");
        _exit(0);
    }
    wait(NULL);
    for (int i = 0; i < 64; i++) touch("touched");
    cpu_set_t set;
    say("asked", sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : -1);
}

int main(int count, char **arguments) {
    const char *what = count > 1 ? arguments[1] : "";
    alarm(60);
    if (!strcmp(what, "tracing")) tracing();
    else if (!strcmp(what, "daemonize")) daemonize();
    else if (!strcmp(what, "vfork")) hide_in_vfork();
    else if (!strcmp(what, "chain")) chain(100);
    else if (!strcmp(what, "untraced")) untraced();
    else if (!strcmp(what, "mapped")) share(0);
    else if (!strcmp(what, "attached")) share(1);
    else if (!strncmp(what, "memory ", 7)) memory_as_a_file(what + 7);
    else if (!strcmp(what, "aliases")) aliases();
    else if (!strcmp(what, "filter")) own_filter();
    else if (!strcmp(what, "foreign")) foreign();
    else if (!strcmp(what, "aside")) aside();
    else if (!strcmp(what, "descriptors")) pass_descriptors();
    else if (!strcmp(what, "thread")) exec_in_thread(arguments);
    else if (!strcmp(what, "stopped")) stopped();
    else if (!strcmp(what, "signals")) signals();
    else if (!strcmp(what, "processors")) processors();
    else if (!strcmp(what, "touch")) touch("touched");
    else if (!strcmp(what, "sleep")) { touch("asleep"); for (;;) sleep(1000); }
    else return 64;
    return 0;
}
