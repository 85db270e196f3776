/* Reads and writes what the kernel keeps for the host's own users. */
static int bytes(const char *path) {
    char text[64];
    int file = open(path, O_RDONLY);
    return file < 0 ? 0 : read(file, text, sizeof text) > 0;
}
int main(void) {
    char text[4096] = "";
    TELL("symbols", bytes("/proc/kallsyms"));
    TELL("memory", bytes("/proc/kcore"));
    TELL("keys", bytes("/proc/keys"));
    char *masked[] = {"kallsyms", "kcore", "key-users", "keys", "sysrq-trigger", "timer_list"};
    int bare = 0;
    for (int at = 0; at < 6; at++) {
        char path[64];
        struct stat facts;
        snprintf(path, sizeof path, "/proc/%s", masked[at]);
        bare += stat(path, &facts) == 0 && !(S_ISCHR(facts.st_mode) && facts.st_rdev == makedev(1, 3));
    }
    TELL("bare", bare);
    SAY("pattern", open("/proc/sys/kernel/core_pattern", O_WRONLY));
    SAY("groups", open("/sys/fs/cgroup", O_RDONLY));
    SAY("mount_groups", mount("cgroup2", "/tmp", "cgroup2", 0, 0));
    int file = open("/proc/self/cgroup", O_RDONLY);
    read(file, text, sizeof text - 1);
    int named = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(0, "\n")) named += !!strstr(line, "bellwether");
    TELL("named", named);
    SAY("host", sethostname("x", 1));
    struct timeval now = { 1, 0 };
    SAY("time", settimeofday(&now, 0));
    SAY("boot", syscall(SYS_reboot, 0xfee1dead, 672274793, RB_ENABLE_CAD, 0));
    SAY("module", syscall(SYS_init_module, "", 0, ""));
    SAY("log", syscall(SYS_syslog, 5, 0, 0));
    SAY("nice", setpriority(PRIO_PROCESS, 0, -20));
}
