/* Everyday jobs that change files: editors, formatters, installers, log rotation, a vault; see edit.py. */

static blob joined(blob a, const char *line) { return bytes(text("%s%s", (char *)a.p, line)); }
static blob noise_bytes(blob data) { return random_bytes((int)data.n); }

JOB(save_documents)
{
    everyday();
    list paths = pick(files("Documents Desktop", "txt md tex csv"), 2, 6);
    for (int i = 0; i < paths.n; i++) {
        blob content = read_file(paths.at[i]);
        char *swap = text("%s/.%s.swp", parent(paths.at[i]), base(paths.at[i]));
        write_file(swap, (blob){content.p, content.n < 1024 ? content.n : 1024});
        for (int n = within(2, 5); n > 0; n--) {
            content = joined(content, text("%s\n", noise(within(20, 200))));
            save(paths.at[i], content, 0644);
            pause_ms(1000, 12000);
        }
        remove_file(swap);
    }
}

static blob without_trailing_blanks(blob data)
{
    blob out = {malloc(data.n + 1), 0};
    for (size_t i = 0; i < data.n; i++) {
        if (data.p[i] == '\n')
            while (out.n && (out.p[out.n - 1] == ' ' || out.p[out.n - 1] == '\t'))
                out.n--;
        out.p[out.n++] = data.p[i];
    }
    return out;
}

JOB(format_sources)
{
    everyday();
    list paths = files("Projects", "c py md");
    for (int i = 0; i < paths.n; i++)
        update(paths.at[i], without_trailing_blanks);
}

JOB(keep_vault)
{
    everyday();
    char *path = text("%s/safe.db", folder(home(".local/share/vault")));
    uint64_t key = next();
    blob content = bytes(noise(1600));
    for (int n = within(8, 24); n > 0; n--) {
        content = joined(content, text("%s\n", noise(40)));
        save(path, stream(key, content), 0600);
        content = stream(key, read_file(path));
        content.p[content.n] = 0;
        pause_ms(1000, 8000);
    }
}

JOB(encrypt_one)
{
    everyday();
    list paths = pick(files("Documents Desktop", NULL), 1, 3), others;
    for (int i = 0; i < paths.n; i++) {
        uint64_t key = next();
        char *target = text("%s.enc", paths.at[i]);
        put(target, stream(key, read_file(paths.at[i])), O_TRUNC, 0600);
        if (hash(stream(key, read_file(target))) != hash(read_file(paths.at[i])))
            die("the copy does not decrypt", target);
    }
    others = pick(files("Documents", NULL), 10, 25);
    for (int i = 0; i < others.n; i++)
        read_some(others.at[i], 4096);
}

JOB(shred_one)
{
    everyday();
    for (int n = within(1, 3); n > 0; n--) {
        char *path = home(text("Desktop/%s.txt", noise(6)));
        write_file(path, random_bytes(6000));
        for (int pass = 0; pass < 3; pass++)
            update(path, noise_bytes);
        remove_file(path);
    }
    list paths = pick(files("Desktop Documents", NULL), 10, 30);
    for (int i = 0; i < paths.n; i++)
        read_some(paths.at[i], 4096);
}

JOB(filter_mail)
{
    everyday();
    char *inbox = (char *)read_file(home("mail/inbox")).p;
    list mails = {0};
    for (char *mail = strstr(inbox, "From "), *after; mail; mail = after) {
        after = strstr(mail + 5, "From ");
        push(&mails, after ? strndup(mail, (size_t)(after - mail)) : strdup(mail));
    }
    for (int n = within(2, 5); n > 0; n--)
        for (int i = 0; i < mails.n; i++)
            append(home(text("mail/box-%d", mails.at[i][6] % 4)), mails.at[i]);
    save(home("mail/inbox"), bytes(text("%s%s%s", mails.at[0], mails.at[1], mails.at[2])), 0644);
}

JOB(store_values)
{
    everyday();
    char *path = text("%s/values.db", folder(home(".local/share/store"))), *journal = text("%s-journal", path);
    write_file(path, zeros(32768));
    int fd = open(guard(path), O_RDWR | O_CLOEXEC), changes = within(30, 89);
    for (int n = 0; n < changes; n++) {
        off_t page = within(0, 15) * 2048L;
        blob old = zeros(2048);
        if (pread(fd, old.p, 2048, page) != 2048)
            die("pread", path);
        write_file(journal, old);
        memcpy(old.p, noise(60), 60);
        if (pwrite(fd, old.p, 2048, page) != 2048)
            die("pwrite", path);
        if (n % 5 == 0)
            fsync(fd);
        remove_file(journal);
    }
    close(fd);
}

JOB(rotate_logs)
{
    static const char *const names[] = {"syslog", "auth.log", "user.log"};
    everyday();
    for (int i = 0; i < 3; i++) {
        char *log = text("%s/%s", LOGS, names[i]);
        for (int age = 3; age > 0; age--) {
            write_file(text("%s.%d.gz", log, age), compress(bytes(noise(400))));
            rename_file(text("%s.%d.gz", log, age), text("%s.%d.gz", log, age + 1));
        }
        rename_file(log, text("%s.1", log));
        put(log, bytes(""), O_TRUNC, 0640);
        put(text("%s.1.gz", log), compress(read_file(text("%s.1", log))), O_TRUNC, 0640);
        remove_file(text("%s.1", log));
        remove_file(text("%s.4.gz", log));
    }
}

JOB(install_package)
{
    static const char *const parts[] = {"core", "data", "doc"};
    everyday();
    char *name = noise(7), *listed = "";
    for (int n = within(15, 49); n > 0; n--) {
        char *path = text("%s/%s.py", folder(home(text(".local/lib/%s/%s", name, parts[within(0, 2)]))), noise(8));
        save(path, bytes(noise(within(100, 2000))), 0644);
        listed = text("%s%s\n", listed, path);
    }
    char *run = text("%s/%s", folder(home(".local/bin")), name);
    write_file(run, bytes(text("#!/bin/sh\necho %s\n", name)));
    make_executable(run);
    write_file(home(text(".local/share/applications/%s.desktop", name)),
               bytes(text("[Desktop Entry]\nType=Application\nExec=%s\n", run)));
    save(home(text(".local/lib/%s/RECORD", name)), bytes(listed), 0644);
    spawn((char *[]){run, NULL});
}

JOB(edit_crontab)
{
    everyday();
    char *draft = home("work/crontab.txt");
    for (int n = within(1, 3); n > 0; n--) {
        blob table = read_file(crontab());
        write_file(draft, joined(table, text("%d 4 * * * /usr/bin/find /tmp -mtime +7\n", within(0, 59))));
        shell("test $(grep -c . $HOME/work/crontab.txt) -gt 0");
        save(crontab(), read_file(draft), 0600);
    }
    list paths = pick(files("Projects", NULL), 10, 25);
    for (int i = 0; i < paths.n; i++)
        read_some(paths.at[i], 4096);
}

JOB(set_path)
{
    everyday();
    char *name = noise(6), *place = folder(home(text(".%s/bin", name)));
    for (int n = within(10, 29); n > 0; n--) {
        char *path = text("%s/%s", place, noise(6));
        write_file(path, bytes("#!/bin/sh\nexit 0\n"));
        make_executable(path);
    }
    char *line = text("\nexport PATH=\"$HOME/.%s/bin:$PATH\"\n", name);
    if (!strstr((char *)read_file(home(".profile")).p, line))
        append(home(".profile"), line);
    write_file(home(text(".%s/env", name)), bytes(line));
}

JOB(keep_dotfiles)
{
    static const char *const names[] = {".bashrc", ".profile", ".gitconfig", ".ssh/config", ".config/desk/settings.ini"};
    everyday();
    char *place = folder(home("Projects/dotfiles"));
    for (int i = 0; i < 5; i++)
        save(text("%s/%d%s", place, i, base(names[i])), read_file(home(names[i])), 0644);
    list paths = files_of(".config", NULL, 1);
    for (int i = 0, most = within(8, 29); i < paths.n && i < most; i++)
        if (!strstr(paths.at[i], "chrome") && !strstr(paths.at[i], "gcloud"))
            write_file(text("%s/%s", place, base(paths.at[i])), read_file(paths.at[i]));
    write_file(text("%s/README", place), bytes("settings of this account\n"));
}
