/* Everyday jobs with processes, memory and the network (loopback); see system.py. */

JOB(download_files)
{
    everyday();
    for (int n = within(4, 15); n > 0; n--) {
        blob data = fetch(text("file?size=%d", within(2000, 60000)));
        char *path = home(text("Downloads/%s-%d.zip", noise(6), n));
        write_file(text("%s.part", path), data);
        rename_file(text("%s.part", path), path);
    }
}

JOB(upload_report)
{
    everyday();
    list paths = pick(files("Documents Projects", NULL), 15, 40);
    char *report = "";
    for (int i = 0; i < paths.n; i++)
        report = text("%s%s %zu\n", report, paths.at[i], read_some(paths.at[i], 16384).n);
    write_file(home("work/report.txt"), bytes(report));
    upload(read_file(home("work/report.txt")), "report");
}

JOB(chat_client)
{
    everyday();
    char *path = text("%s/history", folder(home(".local/share/chat")));
    int fd = dial(ports[0]);
    send_all(fd, bytes("hello\n"));
    for (int n = within(15, 59); n > 0; n--) {
        send_all(fd, bytes(text("%s\n", noise(within(5, 60)))));
        append(path, receive(fd));
        if (chance(50))
            pause_ms(1000, 10000);
    }
    close(fd);
}

JOB(check_update)
{
    everyday();
    fetch("version");
    for (int n = within(1, 3); n > 0; n--) {
        blob data = fetch(text("package?size=%d", within(5000, 50000)));
        char *place = folder(home(text(".local/lib/desk-%d", within(0, 99)))), *fresh = text("%s/package.new", place);
        write_file(fresh, data);
        if (hash(read_file(fresh)) == hash(data))
            rename_file(fresh, text("%s/package", place));
        for (int parts = within(4, 11); parts > 0; parts--)
            write_file(text("%s/%s.so", place, noise(6)), (blob){data.p, (size_t)within(500, 4000)});
    }
    char *run = home(".local/bin/desk");
    save(run, bytes("#!/bin/sh\necho 4\n"), 0755);
    spawn((char *[]){run, NULL});
}

JOB(check_services)
{
    everyday();
    for (int n = within(5, 14); n > 0; n--) {
        for (int i = 0; i < 3; i++) {
            int fd = dial(ports[i]);
            if (fd >= 0) {
                send_all(fd, bytes("hello\n"));
                receive(fd);
                close(fd);
            }
        }
        append(home(".local/state/desk/health.log"), "up\n");
        pause_ms(1000, 10000);
    }
}

JOB(sync_folder)
{
    everyday();
    char *place = folder(home("Sync"));
    for (int n = within(6, 13); n > 0; n--)
        write_file(text("%s/%s.md", place, noise(6)), bytes(noise(within(200, 3000))));
    exchange("list");
    list paths = files("Sync", NULL);
    for (int i = 0; i < paths.n; i++)
        if (chance(50))
            upload(read_file(paths.at[i]), base(paths.at[i]));
        else
            save(paths.at[i], fetch(text("file?size=%d", within(200, 4000))), 0644);
    save(home(".local/state/desk/sync.json"), bytes(noise(200)), 0644);
}

JOB(serve_pages)
{
    everyday();
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    socklen_t size = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), visits = within(6, 19);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 8) < 0)
        die("bind", NULL);
    getsockname(listener, (struct sockaddr *)&at, &size);
    pid_t server = begin();
    if (server == 0) {
        list pages = files("Documents", "txt md csv");
        for (int n = 0; n < visits; n++) {
            int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            receive(fd);
            send_all(fd, bytes("HTTP/1.0 200 OK\r\n\r\n"));
            send_all(fd, read_file(pages.at[n % pages.n]));
            close(fd);
        }
        _exit(0);
    }
    for (int n = 0; n < visits; n++) {
        int fd = dial(ntohs(at.sin_port));
        send_all(fd, bytes("GET / HTTP/1.0\r\n\r\n"));
        while (*receive(fd))
            continue;
        close(fd);
        append(home("work/access.log"), text("GET / %d\n", n));
    }
    finish(server);
}

JOB(worker_pool)
{
    everyday();
    list paths = pick(files(some_folders(), NULL), 20, 60);
    int workers = within(2, 4);
    pid_t children[4];
    for (int k = 0; k < workers; k++)
        if ((children[k] = begin()) == 0) {
            char *lines = "";
            for (int i = k; i < paths.n; i += workers)
                lines = text("%s%016llx %s\n", lines, (unsigned long long)hash(read_file(paths.at[i])), paths.at[i]);
            write_file(home(text("work/part-%d", k)), bytes(lines));
            _exit(0);
        }
    char *sums = "";
    for (int k = 0; k < workers; k++) {
        finish(children[k]);
        sums = text("%s%s", sums, (char *)read_file(home(text("work/part-%d", k))).p);
    }
    save(home("work/sums"), bytes(sums), 0644);
    for (int k = 0; k < workers; k++)
        remove_file(home(text("work/part-%d", k)));
}

JOB(watch_system)
{
    struct utsname system;
    everyday();
    uname(&system);
    for (int n = within(4, 11); n > 0; n--) {
        list names = entries("/proc");
        for (int i = 0; i < names.n; i++)
            if (names.at[i][0] >= '0' && names.at[i][0] <= '9') {
                read_some(text("/proc/%s/stat", names.at[i]), 512);
                read_some(text("/proc/%s/cmdline", names.at[i]), 512);
            }
        read_some("/proc/meminfo", 4096);
        append(home(".local/state/desk/load.log"), (char *)read_some("/proc/loadavg", 64).p);
        pause_ms(1000, 12000);
    }
}

JOB(watch_folder)
{
    everyday();
    list seen = {0};
    for (int n = within(20, 49); n > 0; n--) {
        if (chance(30))
            write_file(home(text("Downloads/%s.txt", noise(6))), bytes(noise(50)));
        list names = entries(home("Downloads"));
        for (int i = 0; i < names.n; i++) {
            int known = 0;
            for (int k = 0; k < seen.n; k++)
                known |= !strcmp(seen.at[k], names.at[i]);
            if (!known) {
                push(&seen, names.at[i]);
                append(home("work/seen.txt"), text("%s\n", names.at[i]));
            }
        }
        pause_ms(2000, 12000);
    }
}

JOB(call_helpers)
{
    static const char *const commands[] = {"date", "uname -a", "ls -l $HOME/Documents", "wc -c $HOME/Desktop/*", "sort $HOME/.bashrc",
        "id", "head -n 3 $HOME/.profile", "expr 3 + 4", "df /tmp", "printf x | od -c"};
    everyday();
    for (int n = within(4, 9); n > 0; n--)
        shell(commands[within(0, 9)]);
    write_file(home("work/helpers.txt"), bytes("done\n"));
}

JOB(memory_buffer)
{
    everyday();
    list paths = pick(files("Music Pictures", NULL), 4, 12);
    for (int i = 0; i < paths.n; i++) {
        int fd = memfd_create("frames", 0);
        write_fd(fd, read_file(paths.at[i]));
        pid_t player = begin();
        if (player == 0) {
            lseek(fd, 0, SEEK_SET);
            read_fd(fd, 1 << 20);
            _exit(0);
        }
        finish(player);
        close(fd);
    }
    append(home(".local/share/recent"), "played\n");
}

JOB(inspect_child)
{
    everyday();
    for (int n = within(2, 4); n > 0; n--) {
        int ends[2];
        char byte, into[512];
        blob target = random_bytes(2048);
        if (pipe(ends) < 0)
            die("pipe", NULL);
        pid_t child = begin();
        if (child == 0) {
            close(ends[1]);
            _exit(read(ends[0], &byte, 1) < 0);
        }
        close(ends[0]);
        for (int samples = within(5, 19); samples > 0; samples--) {
            struct iovec local = {into, sizeof into}, remote = {target.p, sizeof into};
            process_vm_readv(child, &local, 1, &remote, 1, 0);
            append(home("work/samples.txt"), text("%08x\n", (unsigned)hash((blob){(unsigned char *)into, sizeof into})));
            pause_ms(500, 4000);
        }
        if (write(ends[1], "x", 1) < 0)
            die("write", "pipe");
        close(ends[1]);
        finish(child);
    }
}

/* A shell script does the job; the recorder puts it beside the program. */
JOB(run_steps)
{
    int status = spawn((char *[]){"/bin/sh", home("work/steps.sh"), text("%d", within(0, 1 << 20)), text("%d", ports[0]), peer, NULL});
    if (status != 0) {
        dprintf(2, "steps.sh ended with status %d\n", status >> 8);
        _exit(1);
    }
}
