/* Everyday jobs that rewrite what a user has: documents, pictures, mail, databases; see rewrite.py. */

/* What an encoder makes of a compressed file: the head stays, the rest is other bytes, up to a quarter fewer of them. */
static blob encoded(blob data)
{
    size_t head = data.n < 12 ? data.n : 12;
    blob out = stream(next(), data);
    memcpy(out.p, data.p, head);
    out.n = head + (data.n - head) * (size_t)within(75, 100) / 100;
    return out;
}

/* The one after the other. */
static blob both(blob a, blob b)
{
    blob out = zeros(a.n + b.n);
    memcpy(out.p, a.p, a.n);
    memcpy(out.p + a.n, b.p, b.n);
    return out;
}

JOB(office_session)
{
    everyday();
    char *backups = folder(home(".config/office/user/backup"));
    list paths = pick(files("Documents", "docx xlsx odt"), 3, 8);
    for (int i = 0; i < paths.n; i++) {
        blob content = read_file(paths.at[i]);
        char *place = parent(paths.at[i]), *lock = text("%s/.~lock.%s#", place, base(paths.at[i]));
        write_file(lock, bytes(text(",desk,%s;\n", noise(12))));
        append(home(".local/share/recent"), text("%s\n", paths.at[i]));
        for (int saves = within(1, 4); saves > 0; saves--) {
            char *backup = text("%s/%s.bak", backups, base(paths.at[i])), *fresh = text("%s/lu%s.tmp", place, noise(8));
            pause_ms(1000, 12000);
            write_file(backup, read_file(paths.at[i]));
            content = encoded(content);
            write_file(fresh, content);
            rename_file(fresh, paths.at[i]);
            remove_file(backup);
        }
        remove_file(lock);
    }
    save(home(".config/office/user/settings.xml"), bytes(noise(within(800, 4000))), 0644);
}

JOB(shrink_pictures)
{
    everyday();
    list paths = files("Pictures Downloads", "jpg png");
    char *report = "";
    for (int i = 0; i < paths.n; i++) {
        blob old = read_file(paths.at[i]), small = encoded(old);
        report = text("%s%s %zu %zu\n", report, paths.at[i], old.n, small.n);
        if (small.n + old.n / 20 > old.n)
            continue;
        char *fresh = text("%s/shrink-%s", parent(paths.at[i]), noise(6));
        put(fresh, small, O_EXCL, 0600);
        chmod(guard(fresh), 0644);
        copy_times(paths.at[i], fresh);
        rename_file(fresh, paths.at[i]);
    }
    write_file(home("work/shrunk.txt"), bytes(report));
}

JOB(strip_metadata)
{
    everyday();
    int keep = chance(60);
    list paths = pick(files("Pictures Downloads", "jpg png"), 10, 30), kept = {0};
    for (int i = 0; i < paths.n; i++) {
        char *fresh = text("%s_tmp", paths.at[i]), *old = text("%s_original", paths.at[i]);
        blob data = read_file(paths.at[i]);
        size_t cut = data.n < 400 ? 0 : (size_t)within(60, 300);
        memmove(data.p + 12, data.p + 12 + cut, data.n - 12 - cut);
        write_file(fresh, (blob){data.p, data.n - cut});
        rename_file(paths.at[i], old);
        rename_file(fresh, paths.at[i]);
        push(&kept, old);
    }
    for (int i = 0; i < kept.n && !keep; i++)
        remove_file(kept.at[i]);
}

JOB(replace_text)
{
    everyday();
    list paths = files(chance(50) ? "Projects Documents" : "Documents Desktop", "txt md tex csv c py");
    /* What is looked for stands in one of the files at least. */
    char *rest = (char *)read_file(paths.at[within(0, paths.n - 1)]).p, *word = strsep(&rest, " ,.;(\n");
    for (int skip = within(1, 20); rest && (skip > 0 || strlen(word) < 3); skip--)
        word = strsep(&rest, " ,.;(\n");
    int in_place = chance(40), changed = 0;
    for (int i = 0; i < paths.n && *word; i++) {
        blob data = read_file(paths.at[i]);
        char *at = (char *)data.p;
        if (!strstr(at, word))
            continue;
        while ((at = strstr(at, word)))
            *at++ ^= 0x20;
        changed++;
        if (in_place) {
            write_file(paths.at[i], data);
            continue;
        }
        char *fresh = text("%s/sed%s", parent(paths.at[i]), noise(6));
        put(fresh, data, O_EXCL, 0600);
        chmod(guard(fresh), 0644);
        rename_file(fresh, paths.at[i]);
    }
    append(home(".local/share/recent"), text("replaced %s in %d files\n", word, changed));
}

JOB(refresh_documents)
{
    everyday();
    char *state = text("%s/state.db", folder(home(".local/share/cloud"))), *known = "";
    list paths = pick(files("Documents Desktop", NULL), 12, 35);
    exchange("list");
    for (int i = 0; i < paths.n; i++) {
        uint64_t etag = hash(read_file(paths.at[i]));
        char *place = parent(paths.at[i]);
        int lot = within(0, 99);
        if (lot < 40) {
            blob data = fetch(text("file?size=%d", within(400, 9000)));
            char *fresh = text("%s/.%s.~%04x", place, base(paths.at[i]), within(0, 65535));
            write_file(fresh, data);
            if (lot < 8)
                rename_file(paths.at[i], text("%s/%s (conflicted copy)", place, base(paths.at[i])));
            copy_times(home(".profile"), fresh);
            rename_file(fresh, paths.at[i]);
            etag = hash(data);
        } else if (lot < 60) {
            upload(read_file(paths.at[i]), base(paths.at[i]));
        }
        known = text("%s%s %016llx\n", known, paths.at[i], (unsigned long long)etag);
        if (i % 8 == 7) {
            append(text("%s-wal", state), known);
            append(home(".local/state/desk/cloud.log"), text("%d\n", i));
        }
    }
    save(state, bytes(known), 0600);
    if (paths.n > 7)
        remove_file(text("%s-wal", state));
}

/* A file in the repository: written under another name, synchronised, renamed, never changed again. */
static void store_object(const char *repository, const char *kind, blob data)
{
    char *name = text("%016llx%016llx", (unsigned long long)hash(data), (unsigned long long)next());
    char *place = text("%s/%s", repository, kind);
    if (!strcmp(kind, "data"))
        place = text("%s/%.2s", place, name);
    char *path = text("%s/%s", folder(place), name), *fresh = text("%s-tmp-%s", path, noise(6));
    int fd = open(guard(fresh), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        die("open", fresh);
    write_fd(fd, data);
    fsync(fd);
    close(fd);
    rename_file(fresh, path);
    chmod(guard(path), 0400);
}

JOB(backup_chunks)
{
    everyday();
    char *repository = folder(home("Backups/repository")), *listed = "";
    uint64_t key = next();
    store_object(repository, "keys", stream(key, bytes(noise(300))));
    char *lock = text("%s/%s", folder(text("%s/locks", repository)), noise(20));
    write_file(lock, stream(key, bytes(noise(120))));
    list paths = pick(files(some_folders(), NULL), 15, 50);
    blob pack = zeros(0);
    int in_pack = within(2, 6);
    for (int i = 0; i < paths.n; i++) {
        pack = both(pack, compress(read_file(paths.at[i])));
        listed = text("%s%s\n", listed, paths.at[i]);
        if (i % in_pack == in_pack - 1 || i == paths.n - 1) {
            store_object(repository, "data", stream(key, pack));
            pack = zeros(0);
        }
    }
    store_object(repository, "index", stream(key, compress(bytes(listed))));
    store_object(repository, "snapshots", stream(key, bytes(noise(250))));
    remove_file(lock);
}

static const size_t PAGE = 1024;

/* One transaction: old pages into the journal, new ones into the database, the journal removed. */
static void change_pages(int fd, const char *path, size_t pages)
{
    char *journal = text("%s-journal", path);
    int log = open(guard(journal), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (log < 0)
        die("open", journal);
    for (int n = within(2, 5); n > 0; n--) {
        off_t at = (off_t)(PAGE * (size_t)within(0, (int)pages - 1));
        blob page = zeros(PAGE);
        ssize_t got = pread(fd, page.p, PAGE, at);
        write_fd(log, page);
        for (int cell = within(1, 4); cell > 0 && got > 80; cell--)
            memcpy(page.p + within(0, (int)got - 64), noise(40), 40);
        if (got > 0 && pwrite(fd, page.p, (size_t)got, at) < 0)
            die("pwrite", path);
    }
    fsync(log);
    close(log);
    fsync(fd);
    remove_file(journal);
}

JOB(compact_database)
{
    everyday();
    list paths = {0}, all = files_of(".mozilla", "sqlite", 1);
    for (int i = 0; i < all.n; i++)
        if (!strcmp(base(all.at[i]), "places.sqlite"))
            push(&paths, all.at[i]);
    char *calendar = text("%s/local.sqlite", folder(home(".local/share/calendar")));
    write_file(calendar, bytes(noise((int)PAGE * within(6, 16))));
    push(&paths, calendar);
    for (int i = 0; i < paths.n; i++) {
        int fd = open(guard(paths.at[i]), O_RDWR | O_CLOEXEC);
        if (fd < 0)
            die("open", paths.at[i]);
        size_t pages = (read_fd(fd, 1 << 20).n + PAGE - 1) / PAGE;
        for (int n = within(3, 8); n > 0 && pages; n--)
            change_pages(fd, paths.at[i], pages);
        /* The compact copy, and from it back over the database. */
        char *copy = text("%s-vacuum", paths.at[i]);
        blob page = zeros(PAGE), compacted = zeros(0);
        for (size_t n = 0; n < pages; n++) {
            ssize_t got = pread(fd, page.p, PAGE, (off_t)(n * PAGE));
            if (got > 0 && !chance(20))
                compacted = both(compacted, (blob){page.p, (size_t)got});
        }
        write_file(copy, compacted);
        for (size_t at = 0; at < compacted.n; at += PAGE)
            if (pwrite(fd, compacted.p + at, compacted.n - at < PAGE ? compacted.n - at : PAGE, (off_t)at) < 0)
                die("pwrite", paths.at[i]);
        if (ftruncate(fd, (off_t)compacted.n) < 0)
            die("ftruncate", paths.at[i]);
        fsync(fd);
        close(fd);
        remove_file(copy);
    }
}

JOB(compact_mail)
{
    everyday();
    char *inbox = home("mail/inbox");
    exchange("hello");
    for (int n = within(3, 12); n > 0; n--) {
        blob text_of = fetch(text("mail?size=%d", within(300, 2500)));
        append(inbox, text("From %s@mail.invalid\nSubject: %s\n\n", noise(6), noise(12)));
        put(inbox, text_of, O_APPEND, 0644);
        append(inbox, "\n");
    }
    static const char *const boxes[] = {"mail/inbox", "mail/sent", "mail/archive"};
    for (int n = within(4, 14); n > 0; n--)
        append(home(boxes[within(1, 2)]), text("From me@mail.invalid\nSubject: %s\n\n%s\n", noise(9), noise(within(100, 900))));
    for (int i = 0; i < 3; i++) {
        char *path = home(boxes[i]), *fresh = home("mail/nstmp"), *index = "";
        char *mail = (char *)read_file(path).p, *after;
        if (!*mail)
            continue;
        int fd = open(guard(fresh), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0)
            die("open", fresh);
        for (mail = strstr(mail, "From "); mail; mail = after) {
            after = strstr(mail + 5, "\nFrom ");
            after = after ? after + 1 : NULL;
            if (chance(15))
                continue;
            blob one = {(unsigned char *)mail, after ? (size_t)(after - mail) : strlen(mail)};
            write_fd(fd, one);
            index = text("%s%016llx\n", index, (unsigned long long)hash(one));
        }
        fsync(fd);
        close(fd);
        rename_file(fresh, path);
        write_file(text("%s.msf", path), bytes(index));
    }
}

JOB(seal_folder)
{
    everyday();
    list all = pick(files("Documents", NULL), 1, 1), paths;
    char *place = parent(all.at[0]), *archive = home(text("Documents/%s.7z", noise(7)));
    uint64_t key = next();
    paths = pick(files_of(place, NULL, 0), 4, 12);
    char *fresh = text("%s.tmp", archive);
    blob packed = zeros(0);
    int fd = open(guard(fresh), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        die("open", fresh);
    for (int i = 0; i < paths.n; i++) {
        blob part = stream(key, compress(read_file(paths.at[i])));
        write_fd(fd, part);
        packed = both(packed, part);
    }
    fsync(fd);
    close(fd);
    rename_file(fresh, archive);
    if (hash(read_file(archive)) != hash(packed))
        die("the archive is not what was written", archive);
    for (int i = 0; i < paths.n; i++)
        remove_file(paths.at[i]);
    list others = pick(files("Documents Desktop", NULL), 10, 30);
    for (int i = 0; i < others.n; i++)
        read_some(others.at[i], 4096);
}
