/* Starts processes, then threads, until it may start no more. */
static void *rest(void *nothing) { pause(); return 0; }
int main(void) {
    int forks = 0, threads = 0;
    for (; forks < 5000; forks++) {
        pid_t child = fork();
        if (child == 0) { pause(); _exit(0); }
        if (child < 0) break;
    }
    SAY("error", -1);
    TELL("forks", forks);
    kill(-1, SIGCONT);
    signal(SIGTERM, SIG_IGN);
    kill(-1, SIGTERM);
    while (wait(0) > 0) {}
    for (; threads < 5000; threads++) {
        pthread_t thread;
        if (pthread_create(&thread, 0, rest, 0)) break;
    }
    TELL("threads", threads);
    fflush(stdout);
    _exit(0);
}
