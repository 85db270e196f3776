/* Many processes of many threads make calls as fast as they can and count those that returned.
 * Arguments: processes, threads of each, rounds of each thread. A round is three recorded calls. Prints the counters, and fails if calls
 * failed. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_ulong *counters;
static int rounds, null;
static pthread_barrier_t together;

static void *work(void *argument) {
    struct utsname name;
    char byte;
    pthread_barrier_wait(&together);
    for (int round = 0; round < rounds; round++) {
        if (uname(&name) == 0) atomic_fetch_add(&counters[0], 1);
        if (pwrite(null, "some bytes", 10, 0) == 10) atomic_fetch_add(&counters[1], 1);
        if (pread(null, &byte, 1, 0) == 0) atomic_fetch_add(&counters[2], 1);
    }
    return argument;
}

int main(int count, char **arguments) {
    if (count != 4) return 64;
    int processes = atoi(arguments[1]), threads = atoi(arguments[2]);
    rounds = atoi(arguments[3]);
    null = open("/dev/null", O_RDWR);
    counters = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    for (int process = 0; process < processes; process++) {
        if (fork() != 0) continue;
        pthread_t tasks[256];
        int started = 0;
        pthread_barrier_init(&together, NULL, threads);
        for (int at = 0; at < threads && at < 256; at++)
            started += pthread_create(&tasks[started], &small, work, NULL) == 0;
        for (int at = 0; at < started; at++) pthread_join(tasks[at], NULL);
        atomic_fetch_add(&counters[3], started);
        _exit(0);
    }
    int status, ended = 0;
    while (wait(&status) > 0) ended += status == 0;
    printf("%lu %lu %lu %lu %d\n", counters[0], counters[1], counters[2], counters[3], ended);
    unsigned long each = (unsigned long)processes * threads * rounds;
    return ended != processes || counters[0] != each || counters[1] != each || counters[2] != each;
}
