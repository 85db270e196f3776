/* Takes memory until there is none. */
int main(void) {
    for (long mebibytes = 1; mebibytes <= 1024; mebibytes++) {
        char *block = malloc(1 << 20);
        if (!block) return 2;
        for (int at = 0; at < 1 << 20; at += 4096) ((volatile char *)block)[at] = 1;
    }
    puts("all of it");
    return 0;
}
