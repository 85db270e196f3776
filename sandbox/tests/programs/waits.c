/* Waits in every way that is skipped, and tells what the clocks say. The first argument names what is done. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void say(const char *word, long result) {
    printf("%s %ld\n", word, result);
    fflush(stdout);
}

static long seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec;
}

static long of_day(void) {
    struct timeval now;
    gettimeofday(&now, NULL);
    return now.tv_sec;
}

/* Whether all clocks have moved by so many seconds since these. */
static int all_moved(const long *before, long least, long most) {
    long now[] = {seconds(CLOCK_MONOTONIC), seconds(CLOCK_REALTIME), seconds(CLOCK_BOOTTIME), seconds(CLOCK_MONOTONIC_COARSE),
                  of_day(), time(NULL)};
    int moved = 1;
    for (int at = 0; at < 6; at++) moved &= now[at] - before[at] >= least && now[at] - before[at] <= most;
    return moved;
}

#define MOVED(word, wait, wanted) do { \
    long before[] = {seconds(CLOCK_MONOTONIC), seconds(CLOCK_REALTIME), seconds(CLOCK_BOOTTIME), \
                     seconds(CLOCK_MONOTONIC_COARSE), of_day(), time(NULL)}; \
    long result = (wait); \
    say(word " returned", result < 0 ? -errno : result); \
    say(word " moved", all_moved(before, (wanted) - 1, (wanted) + 60)); \
} while (0)

static void every(void) {
    say("page", getauxval(AT_SYSINFO_EHDR) != 0);
    struct timespec hour = {3600, 0};
    struct timeval day = {86400, 0};
    int ends[2];
    if (pipe(ends) != 0) _exit(1);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    struct pollfd polled = {ends[0], POLLIN, 7};
    struct epoll_event event;
    int epoll = epoll_create1(0);
    MOVED("nanosleep", nanosleep(&hour, NULL), 3600);
    MOVED("clock_nanosleep", clock_nanosleep(CLOCK_MONOTONIC, 0, &hour, NULL), 3600);
    struct timespec later = {seconds(CLOCK_REALTIME) + 500, 0};
    MOVED("until", clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &later, NULL), 500);
    MOVED("poll", poll(&polled, 1, 1000000), 1000);
    say("polled", polled.revents);
    MOVED("ppoll", ppoll(&polled, 1, &hour, NULL), 3600);
    MOVED("select", select(ends[0] + 1, &set, NULL, NULL, &day), 86400);
    say("selected", FD_ISSET(ends[0], &set));
    MOVED("pselect", pselect(0, NULL, NULL, NULL, &hour, NULL), 3600);
    MOVED("epoll", epoll_wait(epoll, &event, 1, 2000000), 2000);
    sigset_t none;
    sigemptyset(&none);
    sigaddset(&none, SIGUSR1);
    sigprocmask(SIG_BLOCK, &none, NULL);
    MOVED("signal", sigtimedwait(&none, NULL, &hour), 3600);
    sem_t semaphore;
    sem_init(&semaphore, 0, 0);
    struct timespec until = {seconds(CLOCK_REALTIME) + 700, 0};
    MOVED("semaphore", sem_timedwait(&semaphore, &until), 700);
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    until.tv_sec = seconds(CLOCK_REALTIME) + 800;
    pthread_mutex_lock(&lock);
    MOVED("condition", -(errno = pthread_cond_timedwait(&condition, &lock, &until)), 800);
    say("processor", seconds(CLOCK_PROCESS_CPUTIME_ID) < 600);
    say("bad", syscall(SYS_clock_gettime, CLOCK_REALTIME, 8) < 0 ? -errno : 0);
}

/* Somebody works while another waits for it, and would give up after a minute: nobody is late. */
static void worker(void) {
    int ends[2];
    if (pipe(ends) != 0) _exit(1);
    if (fork() == 0) {
        while (clock() < CLOCKS_PER_SEC / 4) {}
        if (write(ends[1], "x", 1) != 1) _exit(1);
        _exit(0);
    }
    struct pollfd polled = {ends[0], POLLIN, 0};
    say("answered", poll(&polled, 1, 60000));
    int status;
    wait(&status);
}

/* Two sleep at a time: the first is awake first, and both see one clock. */
static void *short_sleep(void *order) {
    sleep(1000);
    *(long *)order = seconds(CLOCK_MONOTONIC);
    return NULL;
}

static void two(void) {
    pthread_t task;
    static long first;
    long begun = seconds(CLOCK_MONOTONIC);
    pthread_create(&task, NULL, short_sleep, &first);
    sleep(3000);
    long second = seconds(CLOCK_MONOTONIC);
    pthread_join(task, NULL);
    say("first", first - begun >= 1000 && first - begun < 1100);
    say("second", second - begun >= 3000 && second - begun < 3100);
}

static volatile sig_atomic_t caught;
static void handler(int number) { caught = number; }

/* A signal wakes a sleeper before its time. */
static void woken(void) {
    struct sigaction action = {.sa_handler = handler};
    sigaction(SIGUSR1, &action, NULL);
    pid_t parent = getpid();
    if (fork() == 0) {
        sleep(100);
        kill(parent, SIGUSR1);
        _exit(0);
    }
    long begun = seconds(CLOCK_MONOTONIC);
    say("left", sleep(100000) > 99000);
    say("caught", caught == SIGUSR1);
    say("early", seconds(CLOCK_MONOTONIC) - begun < 1000);
    wait(NULL);
}

/* Timers end waits that would go on for ever, on the same clock, and are gone once they have. */
static void timers(void) {
    struct sigaction action = {.sa_handler = handler};
    sigaction(SIGALRM, &action, NULL);
    alarm(600);
    say("set", alarm(600));
    MOVED("alarm", pause(), 600);
    say("caught", caught == SIGALRM);
    say("nothing left", alarm(0));
    struct itimerval repeating = {{300, 0}, {100, 0}}, now;
    setitimer(ITIMER_REAL, &repeating, NULL);
    MOVED("first", pause(), 100);
    MOVED("second", pause(), 300);
    getitimer(ITIMER_REAL, &now);
    say("next", now.it_interval.tv_sec == 300 && now.it_value.tv_sec >= 298 && now.it_value.tv_sec <= 300);
    setitimer(ITIMER_REAL, &(struct itimerval){0}, &now);
    say("stopped", now.it_value.tv_sec >= 298);
    alarm(50);
    MOVED("cut short", sleep(4000) > 0, 50);
    int timer = timerfd_create(CLOCK_MONOTONIC, 0), epoll = epoll_create1(0);
    struct itimerspec once = {{0, 0}, {700, 0}};
    uint64_t times = 0;
    timerfd_settime(timer, 0, &once, NULL);
    MOVED("read", read(timer, &times, sizeof times), 700);
    say("times", times);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
    timerfd_settime(timer, 0, &once, NULL);
    MOVED("epoll", epoll_wait(epoll, &event, 1, -1), 700);
    timerfd_settime(timer, 0, &once, NULL);
    timerfd_settime(timer, 0, &(struct itimerspec){0}, NULL);
    MOVED("silent", epoll_wait(epoll, &event, 1, 900000), 900);
    /* A child has none of its parent's. */
    alarm(40);
    if (fork() == 0) _exit(alarm(0) != 0);
    int status = 1;
    while (wait(&status) < 0) {}
    say("inherited", status);
}

int main(int count, char **arguments) {
    const char *what = count > 1 ? arguments[1] : "";
    if (!strcmp(what, "every")) every();
    else if (!strcmp(what, "worker")) worker();
    else if (!strcmp(what, "two")) two();
    else if (!strcmp(what, "woken")) woken();
    else if (!strcmp(what, "timers")) timers();
    else return 64;
    return 0;
}
