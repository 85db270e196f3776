/* Tries to write outside of what is the sample's. */
int main(void) {
    SAY("root", open("/x", O_CREAT | O_WRONLY, 0644));
    SAY("usr", open("/usr/x", O_CREAT | O_WRONLY, 0644));
    SAY("bin", open("/bin/sh", O_WRONLY));
    SAY("etc", open("/etc/x", O_CREAT | O_WRONLY, 0644));
    SAY("passwd", open("/etc/passwd", O_WRONLY | O_APPEND));
    SAY("certificates", open("/etc/ssl/certs/x", O_CREAT | O_WRONLY, 0644));
    SAY("homes", mkdir("/home/other", 0755));
    SAY("sysctl", open("/proc/sys/kernel/hostname", O_WRONLY));
    SAY("null", fchmodat(AT_FDCWD, "/dev/null", 0600, 0));
    SAY("home", open("/home/user/x", O_CREAT | O_WRONLY, 0644));
    SAY("tmp", open("/tmp/x", O_CREAT | O_WRONLY, 0644));
    SAY("shm", open("/dev/shm/x", O_CREAT | O_WRONLY, 0644));
}
