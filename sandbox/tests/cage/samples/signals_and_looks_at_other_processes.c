/* Tries to reach a process of the host, whose number is the argument, and the init. */
int main(int count, char **arguments) {
    pid_t host = atoi(arguments[1]);
    char byte;
    struct iovec here = { &byte, 1 }, there = { (void *)0x400000, 1 };
    SAY("kill", kill(host, SIGKILL));
    SAY("stat", access("/proc/2/stat", F_OK));
    SAY("trace", ptrace(PTRACE_SEIZE, host, 0, 0));
    SAY("trace_init", ptrace(PTRACE_SEIZE, 1, 0, 0));
    SAY("read_init", process_vm_readv(1, &here, 1, &there, 1, 0));
    SAY("memory_of_init", open("/proc/1/mem", O_RDONLY));
    SAY("descriptors_of_init", access("/proc/1/fd/0", F_OK));
    int seen = 0;
    DIR *folder = opendir("/proc");
    for (struct dirent *entry; (entry = readdir(folder));) seen += atoi(entry->d_name) > 0;
    TELL("seen", seen);
    kill(1, SIGKILL);
    kill(1, SIGSTOP);
    kill(1, SIGTERM);
    signal(SIGTERM, SIG_IGN);
    kill(-1, SIGTERM);
    usleep(20000);
    SAY("init", kill(1, 0) < 0 && errno != EPERM ? -1 : 0);
}
