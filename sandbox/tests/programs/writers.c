/* Holds files open in every way, asks for an action by making the folder /tmp/now, and says what it can still do. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int file, ends[2];
static volatile int over;
static sigjmp_buf back;

static void say(const char *word, long result) {
    char line[128];
    int length = snprintf(line, sizeof line, "%s %ld\n", word, result < 0 ? (long)-errno : result);
    if (write(1, line, length) < 0) _exit(99);
}

static void fault(int number) { siglongjmp(back, number); }

static void *reads(void *result) {
    char byte;
    *(long *)result = read(ends[0], &byte, 1);
    return NULL;
}

static void *sleeps(void *result) {
    struct timespec begun, ended;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    long slept = nanosleep(&(struct timespec){0, 400000000}, NULL);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    long ms = (ended.tv_sec - begun.tv_sec) * 1000 + (ended.tv_nsec - begun.tv_nsec) / 1000000;
    *(long *)result = slept == 0 && ms >= 399;
    return NULL;
}

static void *writes(void *result) {
    while (!over) {
        if (pwrite(file, "loop", 4, 0) == 4) ++*(long *)result;
    }
    return NULL;
}

static void *spins(void *result) {
    unsigned long sum = 1;
    while (!over) sum = sum * 31 + 7;
    *(long *)result = sum != 0;
    return NULL;
}

static void touch(const char *path) { say(path, open(path, O_CREAT | O_WRONLY, 0600)); }

static void writers(void) {
    int scratch = open("/tmp/scratch", O_CREAT | O_RDWR | O_APPEND, 0600);
    int mapped = open("/home/user/mapped", O_CREAT | O_RDWR, 0600);
    if (ftruncate(mapped, 4096) != 0) _exit(1);
    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0);
    close(mapped);
    file = open("/home/user/file", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    int gone = open("/home/user/gone", O_CREAT | O_RDWR, 0600);
    unlink("/home/user/gone");
    if (pipe(ends) != 0) _exit(1);
    void *(*works[])(void *) = {reads, sleeps, writes, spins};
    long results[4] = {0};
    pthread_t tasks[4];
    for (int at = 0; at < 4; at++) pthread_create(&tasks[at], NULL, works[at], &results[at]);
    pid_t stopped = fork();
    if (stopped == 0) {
        raise(SIGSTOP);
        _exit(write(file, "child", 5) == 5 ? 7 : 8);
    }
    int status;
    waitpid(stopped, &status, WUNTRACED);
    usleep(20000);
    mkdir("/tmp/now", 0700);
    say("write", write(file, "after", 5));
    say("gone", write(gone, "after", 5));
    say("append", write(scratch, "after", 5));
    touch("/home/user/new");
    touch("/tmp/new");
    say("read", open("/home/user/file", O_RDONLY));
    say("closes", fcntl(file, F_GETFD));
    struct stat now;
    say("null", fstat(file, &now) == 0 && S_ISCHR(now.st_mode));
    signal(SIGSEGV, fault);
    int number = sigsetjmp(back, 1);
    if (number == 0) shared[0] = 1;
    say("mapping", number);
    if (write(ends[1], "x", 1) != 1) _exit(1);
    usleep(10000);
    over = 1;
    for (int at = 0; at < 4; at++) pthread_join(tasks[at], NULL);
    say("reads", results[0]);
    say("sleeps", results[1]);
    say("writes", results[2] > 0);
    say("spins", results[3]);
    kill(stopped, SIGCONT);
    waitpid(stopped, &status, 0);
    say("child", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

static void queue(void) {
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    file = open("/home/user/file", O_CREAT | O_RDWR, 0600);
    char space[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec piece = {"x", 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(part), &file, sizeof file);
    sendmsg(pair[1], &message, 0);
    close(file);
    mkdir("/tmp/now", 0700);
    say("alive", 1);
}

static void behind_vfork(void) {
    file = open("/home/user/file", O_CREAT | O_RDWR, 0600);
    pid_t child = vfork();
    if (child == 0) {
        close(file);
        mkdir("/tmp/now", 0700);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    say("alive", 1);
}

static void *nothing(void *argument) { return argument; }

static void forks(char **arguments) {
    pid_t before = fork();
    if (before == 0) _exit(0);
    say("before", before > 0);
    mkdir("/tmp/now", 0700);
    pid_t child = fork();
    if (child == 0) _exit(0);
    say("fork", child);
    child = syscall(SYS_vfork);
    if (child == 0) _exit(0);
    say("vfork", child);
    child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    say("clone", child);
    pthread_t task;
    say("thread", pthread_create(&task, NULL, nothing, NULL));
    pthread_join(task, NULL);
    execl("/bin/sh", "sh", "-c", "echo program 1", NULL);
}

static void bomb(void) {
    mkdir("/tmp/now", 0700);
    for (;;) fork();
}

int main(int count, char **arguments) {
    const char *what = count > 1 ? arguments[1] : "";
    if (!strcmp(what, "writers")) writers();
    else if (!strcmp(what, "queue")) queue();
    else if (!strcmp(what, "vfork")) behind_vfork();
    else if (!strcmp(what, "forks")) forks(arguments);
    else if (!strcmp(what, "bomb")) bomb();
    else return 64;
    return 0;
}
