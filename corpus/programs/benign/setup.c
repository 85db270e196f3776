/* Everyday jobs that set up programs and accounts: start-up files, timers, keys, new versions, old traces; see setup.py. */

static blob desktop_entry(const char *name, const char *run)
{
    return bytes(text("[Desktop Entry]\nType=Application\nName=%s\nExec=%s --minimised\nX-GNOME-Autostart-enabled=true\n", name, run));
}

JOB(start_at_login)
{
    everyday();
    char *name = noise(7), *place = folder(home(text(".config/%s", name)));
    save(text("%s/settings.json", place), bytes(noise(within(300, 1500))), 0644);
    for (int n = within(8, 25); n > 0; n--)
        write_file(text("%s/%s.svg", folder(home(text(".local/share/icons/%s", name))), noise(6)), bytes(noise(within(200, 1500))));
    for (int n = within(3, 8); n > 0; n--) {
        /* The user goes through the settings; one of them is whether the program starts at login. */
        pause_ms(1000, 12000);
        if (n == 2)
            write_file(home(text(".config/autostart/%s.desktop", name)), desktop_entry(name, home(".local/bin/hello")));
        save(text("%s/settings.json", place), bytes(noise(within(300, 1500))), 0644);
        append(text("%s/log", place), "settings saved\n");
    }
    int fd = dial(ports[0]);
    send_all(fd, bytes(text("login %s\n", noise(10))));
    receive(fd);
    for (int n = within(5, 20); n > 0; n--) {
        send_all(fd, bytes("ping\n"));
        append(text("%s/log", place), receive(fd));
    }
    close(fd);
}

JOB(schedule_backup)
{
    static const char *const kinds[] = {"service", "timer"};
    everyday();
    char *name = text("backup-%s", noise(4)), *units = folder(home(".config/systemd/user")), *run = home(text(".local/bin/%s", name));
    write_file(run, bytes("#!/bin/sh\ncp -a Documents Backups/\n"));
    make_executable(run);
    for (int i = 0; i < 2; i++)
        save(text("%s/%s.%s", units, name, kinds[i]),
             bytes(i ? "[Timer]\nOnCalendar=daily\nPersistent=true\n[Install]\nWantedBy=timers.target\n"
                     : text("[Service]\nType=oneshot\nExecStart=%s\n", run)), 0644);
    char *wanted = folder(text("%s/timers.target.wants", units));
    if (symlink(text("%s/%s.timer", units, name), guard(text("%s/%s.timer", wanted, name))) < 0)
        die("symlink", name);
    /* The first backup is made at once. */
    char *target = folder(home("Backups/first"));
    list paths = pick(files("Documents Desktop", NULL), 15, 50);
    for (int i = 0; i < paths.n; i++) {
        char *copy = text("%s/%s", target, base(paths.at[i]));
        write_file(copy, read_file(paths.at[i]));
        copy_times(paths.at[i], copy);
    }
    write_file(home(text(".local/state/desk/%s.stamp", name)), bytes(""));
}

JOB(shell_framework)
{
    static const char *const parts[] = {"lib", "plugins", "themes", "tools"};
    everyday();
    char *name = noise(5), *place = home(text(".%s", name));
    for (int n = within(12, 40); n > 0; n--) {
        char *part = folder(text("%s/%s", place, parts[within(0, 3)])), *path = text("%s/%s.sh", part, noise(7));
        write_file(path, bytes(text("# %s\nalias %s='ls -l'\n", noise(within(50, 900)), noise(3))));
        if (!strcmp(base(part), "tools"))
            make_executable(path);
    }
    char *rc = home(chance(50) ? ".bashrc" : ".profile"), *kept = text("%s.before-%s", rc, name);
    blob old = read_file(rc);
    if (chance(50))
        rename_file(rc, kept);
    else
        write_file(kept, old);
    write_file(rc, bytes(text("export SHELL_KIT=%s\nfor f in $SHELL_KIT/lib/*.sh; do . $f; done\n%s", place, (char *)old.p)));
    list all = files_of(place, "sh", 1);
    for (int i = 0; i < all.n; i++)
        read_file(all.at[i]);
    shell(text(". %s/lib/x.sh 2>/dev/null; true", place));
}

JOB(version_manager)
{
    everyday();
    char *name = noise(4), *place = home(text(".%s", name));
    fetch("index");
    for (int versions = within(1, 2); versions > 0; versions--) {
        char *archive = text("%s/%s.tar", folder(text("%s/downloads", place)), noise(5));
        char *bin = folder(text("%s/versions/%d.%d/bin", place, within(1, 22), within(0, 19)));
        blob data = fetch(text("file?size=%d", within(20000, 60000)));
        write_file(text("%s.part", archive), data);
        rename_file(text("%s.part", archive), archive);
        if (hash(read_file(archive)) != hash(data))
            die("the archive is not what was sent", archive);
        for (int n = within(8, 20); n > 0; n--)
            write_file(text("%s/%s", folder(text("%s/lib", parent(bin))), noise(8)), (blob){data.p, (size_t)within(300, 6000)});
        for (int n = within(2, 5); n > 0; n--) {
            char *run = text("%s/%s", bin, noise(5)), *shim = text("%s/%s", folder(text("%s/shims", place)), base(run));
            write_file(run, bytes("#!/bin/sh\necho 1\n"));
            make_executable(run);
            if (symlink(run, guard(shim)) < 0 && errno != EEXIST)
                die("symlink", shim);
            if (n == 1)
                spawn((char *[]){run, "--version", NULL});
        }
        remove_file(archive);
    }
    static const char *const starts[] = {".bashrc", ".profile"};
    for (int i = 0; i < 2; i++)
        if (!strstr((char *)read_file(home(starts[i])).p, place))
            append(home(starts[i]), text("\nexport PATH=\"%s/shims:$PATH\"\n", place));
}

JOB(update_tools)
{
    everyday();
    char *place = home(".local/bin"), *cache = folder(home(".cache/packages"));
    list names = entries(place);
    for (int n = within(4, 10); n > 0; n--) {
        char *path = text("%s/%s", place, noise(6));
        put(path, bytes("#!/bin/sh\necho 1\n"), O_TRUNC, 0755);
        push(&names, strdup(base(path)));
    }
    fetch("version");
    char *listed = "";
    for (int i = 0; i < names.n; i++) {
        blob package = fetch(text("package?size=%d", within(1000, 9000)));
        char *kept = text("%s/%s.pkg", cache, names.at[i]), *path = text("%s/%s", place, names.at[i]), *fresh = text("%s.dpkg-new", path);
        write_file(kept, package);
        read_file(kept);
        write_file(fresh, bytes("#!/bin/sh\necho 2\n"));
        make_executable(fresh);
        rename_file(fresh, path);
        listed = text("%s%s 2\n", listed, names.at[i]);
        if (i == 0)
            spawn((char *[]){path, NULL});
    }
    save(home(".local/state/desk/packages"), bytes(listed), 0644);
    list old = files_of(cache, NULL, 1);
    for (int i = 0; i < old.n; i++)
        remove_file(old.at[i]);
}

JOB(pair_machines)
{
    everyday();
    char *place = folder(home(".ssh")), *known = text("%s/known_hosts", place), *config = text("%s/config", place);
    for (int hosts = within(2, 6); hosts > 0; hosts--) {
        char *host = text("%s.example", noise(6)), *key = text("ssh-ed25519 %s", noise(68));
        /* The other machine says who it is, the user agrees, the public key goes there and theirs comes here. */
        exchange(text("hello %s", host));
        if (!strstr((char *)read_file(known).p, host))
            append(known, text("%s %s\n", host, key));
        read_file(home(".ssh/id_ed25519.pub"));
        exchange(text("key %s", noise(40)));
        if (hosts == 1 || chance(30)) {
            blob old = read_file(home(".ssh/authorized_keys"));
            save(home(".ssh/authorized_keys"), bytes(text("%sssh-ed25519 %s %s\n", (char *)old.p, noise(68), host)), 0600);
        }
        save(config, bytes(text("%sHost %s\n    User desk\n", (char *)read_file(config).p, host)), 0600);
    }
    list paths = pick(files("Projects Documents", NULL), 10, 30);
    for (int i = 0; i < paths.n; i++)
        upload(read_some(paths.at[i], 8192), base(paths.at[i]));
}

JOB(clean_privacy)
{
    everyday();
    char *place = folder(home(".cache/thumbnails/large"));
    for (int n = within(10, 40); n > 0; n--)
        write_file(text("%s/%s.png", place, noise(10)), random_bytes(within(50, 700)));
    blob history = read_file(home(".bash_history"));
    /* The newer half of the history stays; commands that stood there before go. */
    char *half = (char *)history.p + history.n / 2, *line = strchr(half, '\n');
    save(home(".bash_history"), bytes(line ? line + 1 : half), 0600);
    write_file(home(".local/share/recent"), bytes(""));
    list paths = files_of(".cache", NULL, 1), logs = files_of(".local/state", NULL, 1);
    for (int i = 0; i < paths.n; i++) {
        read_some(paths.at[i], 512);
        remove_file(paths.at[i]);
    }
    for (int i = 0; i < logs.n; i++)
        if (of_kind(logs.at[i], "log") && chance(50))
            write_file(logs.at[i], bytes(""));
    write_file(home("work/cleaned.txt"), bytes(text("%d files\n", paths.n)));
}
