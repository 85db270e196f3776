/* Does one of everything that a recorder records, in the same order each time it runs in an empty folder. */
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>
#include <utime.h>

static void files(void) {
    char buffer[4096];
    for (unsigned at = 0; at < sizeof buffer; at++) buffer[at] = (char)(at * 31);
    int fd = open("a.txt", O_CREAT | O_EXCL | O_RDWR, 0640);
    write(fd, "hello, world", 12);
    write(fd, "", 0);
    pwrite(fd, buffer, sizeof buffer, 12);
    struct iovec pieces[3] = {{"one", 3}, {buffer, 600}, {"two", 3}};
    writev(fd, pieces, 3);
    pread(fd, buffer, 5, 0);
    lseek(fd, 0, SEEK_SET);
    read(fd, buffer, 100);
    readv(fd, pieces + 1, 1);
    int other = open("b.txt", O_CREAT | O_WRONLY | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    off_t start = 0;
    sendfile(other, fd, &start, 64);
    close(other);
    int same = dup(fd);
    write(same, "through a copy", 14);
    dup2(fd, 40);
    close(same);
    write(40, "through another", 15);
    fchmod(fd, 0755);
    fchown(fd, -1, getgid());
    ftruncate(fd, 100);
    ftruncate(fd, 0);
    fallocate(fd, 0, 0, 64);
    fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 128);
    fsetxattr(fd, "user.note", "x", 1, 0);
    unlink("a.txt");
    write(fd, "after it is gone", 16);
    close(fd);
    creat("c.txt", 0644);
    mkdir("d", 0755);
    mkdirat(AT_FDCWD, "d/e", 0700);
    int folder = open("d", O_RDONLY | O_DIRECTORY);
    close(openat(folder, "e/../f.txt", O_CREAT | O_WRONLY, 0600));
    struct open_how how = {.flags = O_CREAT | O_RDWR | O_EXCL, .mode = 0600};
    syscall(SYS_openat2, folder, "g.txt", &how, sizeof how);
    rename("c.txt", "d/h.txt");
    renameat(folder, "h.txt", AT_FDCWD, "c.txt");
    renameat2(folder, "g.txt", folder, "i.txt", RENAME_NOREPLACE);
    link("c.txt", "hard");
    linkat(folder, "i.txt", folder, "j.txt", 0);
    symlink("c.txt", "soft");
    symlinkat("../c.txt", folder, "soft2");
    unlinkat(folder, "soft2", 0);
    unlinkat(folder, "e", AT_REMOVEDIR);
    chmod("c.txt", 04755);
    fchmodat(folder, "f.txt", 0, 0);
    chown("c.txt", -1, -1);
    lchown("soft", -1, -1);
    fchownat(folder, "f.txt", -1, -1, 0);
    utimensat(folder, "f.txt", NULL, 0);
    futimens(folder, NULL);
    utime("c.txt", NULL);
    utimes("c.txt", NULL);
    truncate("c.txt", 10);
    setxattr("c.txt", "user.note", "x", 1, 0);
    mknod("pipe", S_IFIFO | 0600, 0);
    char list[1024];
    syscall(SYS_getdents64, folder, list, sizeof list);
    fchdir(folder);
    close(open("f.txt", O_RDONLY));
    chdir("..");
    rmdir("not there");
    open("/etc/no such file", O_RDONLY);
    open((const char *)8, O_RDONLY);
    open("", O_RDONLY);
    read(99, buffer, 1);
    write(99, buffer, 1);
    close(folder);
}

static void memory(void) {
    int fd = open("map", O_CREAT | O_RDWR, 0600);
    ftruncate(fd, 4096);
    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    shared[0] = 1;
    mprotect(shared, 4096, PROT_READ | PROT_EXEC);
    mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mmap(NULL, 4096, PROT_READ, MAP_SHARED, 99, 0);
    int nameless = memfd_create("nameless", MFD_CLOEXEC);
    write(nameless, "data", 4);
    close(nameless);
    close(fd);
}

static void sockets(void) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(40777)};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bind(one, (struct sockaddr *)&here, sizeof here);
    int two = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP);
    sendto(two, "question", 8, 0, (struct sockaddr *)&here, sizeof here);
    char buffer[64];
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    recvfrom(one, buffer, sizeof buffer, 0, NULL, NULL);
    connect(two, (struct sockaddr *)&here, sizeof here);
    send(two, "again", 5, 0);
    struct iovec piece = {"and again", 9};
    struct msghdr message = {.msg_name = NULL, .msg_iov = &piece, .msg_iovlen = 1};
    sendmsg(two, &message, 0);
    recv(one, buffer, sizeof buffer, 0);
    piece.iov_base = buffer;
    recvmsg(one, &message, 0);
    struct mmsghdr many[2] = {{.msg_hdr = {.msg_iov = &piece, .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = &piece, .msg_iovlen = 1}}};
    sendmmsg(two, many, 2, 0);
    recvmmsg(one, many, 2, MSG_DONTWAIT, NULL);
    write(two, "plain", 5);
    recv(one, buffer, sizeof buffer, MSG_DONTWAIT | MSG_TRUNC);
    recv(one, buffer, sizeof buffer, MSG_DONTWAIT);
    close(two);
    close(one);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    bind(listener, (struct sockaddr *)&here, sizeof here);
    listen(listener, 1);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    connect(client, (struct sockaddr *)&here, sizeof here);
    length = sizeof from;
    accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    write(client, "over a stream", 13);
    int another = dup(client);
    close(client);
    write(another, "by a copy", 9);
    close(another);
    close(listener);
    struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "socket"};
    int unix_socket = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(unix_socket, (struct sockaddr *)&local, sizeof local);
    strcpy(local.sun_path, "nobody");
    connect(unix_socket, (struct sockaddr *)&local, sizeof local);
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(9)};
    six.sin6_addr.s6_addr[15] = 1;
    int other = socket(AF_INET6, SOCK_DGRAM, 0);
    connect(other, (struct sockaddr *)&six, sizeof six);
    socket(AF_NETLINK, SOCK_RAW, 0);
    socket(AF_INET, SOCK_STREAM, IPPROTO_UDP);
}

static void *thread(void *argument) {
    close(open("by a thread", O_CREAT | O_WRONLY, 0600));
    return argument;
}

static void processes(const char *self) {
    struct utsname name;
    uname(&name);
    prctl(PR_SET_NAME, "deeds");
    kill(getpid(), 0);
    kill(999999, SIGTERM);
    setuid(getuid());
    setresgid(-1, -1, -1);
    nanosleep(&(struct timespec){0, 2000000}, NULL);
    clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){0, 1000000}, NULL);
    pthread_t task;
    pthread_create(&task, NULL, thread, NULL);
    pthread_join(task, NULL);
    pid_t child = fork();
    if (child == 0) {
        setsid();
        chdir("d");
        close(open("by a child", O_CREAT | O_WRONLY, 0600));
        execl("/no/such/program", "no", NULL);
        execl(self, "deeds again", "child", "argument with spaces", "\"quoted\", \\ and more", NULL);
        _exit(1);
    }
    waitpid(child, NULL, 0);
    child = vfork();
    if (child == 0) {
        execl(self, "deeds", "child", NULL);
        _exit(1);
    }
    waitpid(child, NULL, 0);
    child = fork();
    if (child == 0) {
        raise(SIGKILL);
    }
    waitpid(child, NULL, 0);
    syscall(SYS_exit_group, 7);
}

int main(int count, char **arguments) {
    if (count > 1) {
        write(1, "child\n", 6);
        return 3;
    }
    files();
    memory();
    sockets();
    processes(arguments[0]);
}
