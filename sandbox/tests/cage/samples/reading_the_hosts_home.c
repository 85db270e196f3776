/* Looks for files of the host: its homes, its secrets, its disks. */
static int entries(const char *path) {
    DIR *folder = opendir(path);
    int count = 0;
    while (folder && readdir(folder)) count++;
    return folder ? count - 2 : -1;
}
int main(int count, char **arguments) {
    SAY("file", open(arguments[1], O_RDONLY));
    SAY("sources", open(arguments[2], O_RDONLY));
    SAY("shadow", open("/etc/shadow", O_RDONLY));
    TELL("root", entries("/root"));
    TELL("homes", entries("/home"));
    TELL("run", entries("/run"));
    TELL("sys", entries("/sys"));
    TELL("mnt", entries("/mnt"));
    SAY("parents", chdir("/../../../../..") || access("/proc/1/root/etc/shadow", F_OK));
    SAY("disk", open("/dev/vda", O_RDONLY) & open("/dev/sda", O_RDONLY) & open("/dev/mem", O_RDONLY));
    SAY("node", mknod("/tmp/disk", S_IFBLK | 0666, makedev(8, 0)));
}
