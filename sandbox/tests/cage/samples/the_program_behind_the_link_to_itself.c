/* Tries to change the program that it runs from. */
int main(void) {
    SAY("write", open("/proc/self/exe", O_WRONLY));
    SAY("truncate", open("/proc/self/exe", O_RDWR | O_TRUNC));
    SAY("unlink", unlink("/proc/self/exe"));
    int own = open("/proc/self/exe", O_RDONLY);
    SAY("read", own);
    TELL("seals", fcntl(own, F_GET_SEALS) & (F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL));
    SAY("map", mmap(0, 1, PROT_WRITE, MAP_SHARED, own, 0) == MAP_FAILED ? -1 : 0);
}
