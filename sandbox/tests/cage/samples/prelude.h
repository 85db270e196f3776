#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <net/if.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <poll.h>
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
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *error_name(int number) {
    switch (number) {
#define NAME(error) case error: return #error;
        NAME(EPERM) NAME(ENOENT) NAME(ESRCH) NAME(ENXIO) NAME(EBADF) NAME(ECHILD) NAME(EAGAIN) NAME(ENOMEM) NAME(EACCES)
        NAME(EBUSY) NAME(EEXIST) NAME(ENOTDIR) NAME(EINVAL) NAME(EMFILE) NAME(ENOTTY) NAME(ETXTBSY) NAME(EFBIG) NAME(ENOSPC)
        NAME(EROFS) NAME(EPIPE) NAME(ENOSYS) NAME(ENETUNREACH) NAME(ENETDOWN) NAME(ECONNREFUSED) NAME(EHOSTUNREACH) NAME(EIO)
        NAME(EOPNOTSUPP) NAME(EAFNOSUPPORT) NAME(ENODEV) NAME(EDQUOT) NAME(EADDRNOTAVAIL) NAME(EUSERS) NAME(ETIMEDOUT)
    }
    static char other[16];
    snprintf(other, sizeof other, "errno%d", number);
    return other;
}

/* Prints a label and whether the call worked, or the name of its error. */
#define SAY(label, call) do { errno = 0; long said = (long)(call); \
    printf("%s %s\n", label, said < 0 ? error_name(errno) : "ok"); fflush(stdout); } while (0)

/* Prints a label and a number. */
#define TELL(label, value) do { printf("%s %ld\n", label, (long)(value)); fflush(stdout); } while (0)
