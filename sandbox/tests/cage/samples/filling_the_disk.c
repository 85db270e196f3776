/* Fills whatever it can write to. */
static long fill(const char *folder) {
    static char block[4096];
    long total = 0;
    for (int at = 0; at < 10000; at++) {
        char path[64];
        snprintf(path, sizeof path, "%s/%d", folder, at);
        int file = open(path, O_CREAT | O_WRONLY, 0644);
        if (file < 0) break;
        for (long part; (part = write(file, block, sizeof block)) > 0;) total += part;
        close(file);
        if (errno != EFBIG) break;
    }
    return total;
}
int main(void) {
    signal(SIGXFSZ, SIG_IGN);
    TELL("home", fill("/home/user/work"));
    SAY("home", open("/home/user/one-more", O_CREAT | O_WRONLY, 0644) < 0 ? -1 : write(open("/home/user/one-more", O_WRONLY), "x", 1));
    TELL("scratch", fill("/tmp") + fill("/dev/shm") + fill("/var/tmp"));
    long inodes = 0;
    char path[64];
    for (; inodes < 100000; inodes++) {
        snprintf(path, sizeof path, "/tmp/link-%ld", inodes);
        if (symlink("x", path) < 0) break;
    }
    TELL("inodes", inodes);
}
