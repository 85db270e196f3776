/* Everyday jobs over many files; see files.py. Several do what attackers do too: read everything, rename, compress, delete. */

JOB(index_files)
{
    everyday();
    list paths = pick(files(some_folders(), NULL), 30, 90);
    char *page = "", *all = "";
    for (int i = 0; i < paths.n; i++) {
        blob data = read_some(paths.at[i], 32768);
        page = text("%s%s %zu %08x\n", page, paths.at[i], data.n, (unsigned)hash(data));
        if (i % 20 == 19) {
            append(home(".cache/desk/index"), page);
            all = text("%s%s", all, page);
            page = "";
        }
    }
    save(home(".cache/desk/index.sorted"), bytes(text("%s%s", all, page)), 0644);
}

JOB(find_duplicates)
{
    everyday();
    list paths = pick(files(DATA, NULL), 40, 100);
    char *report = "";
    for (int i = 0; i < paths.n; i++)
        report = text("%s%016llx %s\n", report, (unsigned long long)hash(read_file(paths.at[i])), paths.at[i]);
    write_file(home("work/duplicates.txt"), bytes(report));
}

JOB(make_thumbnails)
{
    everyday();
    char *place = folder(home(".cache/thumbnails/normal"));
    list paths = files("Pictures Downloads Documents", "jpg png pdf");
    for (int i = 0; i < paths.n; i++) {
        blob data = read_file(paths.at[i]), small = {malloc(data.n + 1), 0};
        for (size_t at = 0; at < data.n; at += 17)
            small.p[small.n++] = data.p[at];
        save(text("%s/%016llx.png", place, (unsigned long long)hash(bytes(paths.at[i]))), small, 0644);
    }
}

JOB(rename_photos)
{
    everyday();
    list paths = files("Pictures", "jpg png");
    for (int i = 0; i < paths.n; i++) {
        struct stat seen;
        char stamp[32];
        read_some(paths.at[i], 4096);
        stat(paths.at[i], &seen);
        strftime(stamp, sizeof stamp, "%Y-%m-%d", gmtime(&seen.st_mtime));
        rename_file(paths.at[i], text("%s/%s-%03d%s", parent(paths.at[i]), stamp, i, strrchr(paths.at[i], '.')));
    }
    append(home("Pictures/renamed.log"), "renamed\n");
}

JOB(convert_texts)
{
    everyday();
    char *out = folder(home("Documents/html"));
    list paths = pick(files("Documents Desktop Projects", "txt md tex csv"), 15, 50);
    for (int i = 0; i < paths.n; i++) {
        char *rest = (char *)read_file(paths.at[i]).p, *line, *page = "<html><body>";
        while ((line = strsep(&rest, "\n")))
            page = text("%s<p>%s</p>\n", page, line);
        write_file(text("%s/%s.html", out, base(paths.at[i])), bytes(text("%s</body></html>\n", page)));
    }
}

JOB(compress_files)
{
    everyday();
    list paths = pick(files(chance(50) ? "Documents" : "Projects", "txt csv md tex"), 8, 30);
    for (int i = 0; i < paths.n; i++) {
        char *packed = text("%s.gz", paths.at[i]);
        write_file(packed, compress(read_file(paths.at[i])));
        copy_times(paths.at[i], packed);
        remove_file(paths.at[i]);
    }
}

JOB(copy_backup)
{
    everyday();
    for (int age = 0; age < 3; age++)
        write_file(text("%s/list", folder(home(text("Backups/day-%d", age)))), bytes(noise(100)));
    char *target = folder(home("Backups/day-3"));
    list paths = pick(files("Documents Projects", NULL), 20, 60);
    for (int i = 0; i < paths.n; i++) {
        char *place = folder(text("%s%s", target, parent(paths.at[i]) + strlen(home_folder)));
        char *copy = text("%s/%s", place, base(paths.at[i]));
        write_file(copy, read_file(paths.at[i]));
        copy_times(paths.at[i], copy);
    }
    list old = entries(home("Backups/day-0"));
    for (int i = 0; i < old.n; i++)
        remove_file(home(text("Backups/day-0/%s", old.at[i])));
    rmdir(guard(home("Backups/day-0")));
}

JOB(mirror_folder)
{
    everyday();
    char *source = chance(30) ? "Music" : "Pictures", *target = folder(home("Mirror"));
    for (int n = within(5, 19); n > 0; n--)
        write_file(text("%s/%s.jpg", target, noise(8)), random_bytes(500));
    list paths = files(source, NULL), names = {0}, there;
    for (int i = 0; i < paths.n; i++) {
        char *name = strdup(paths.at[i] + strlen(home(source)) + 1);
        for (char *c = name; *c; c++)
            *c = *c == '/' ? '_' : *c;
        push(&names, name);
        save(text("%s/%s", target, name), read_file(paths.at[i]), 0644);
    }
    there = entries(target);
    for (int i = 0; i < there.n; i++) {
        int wanted = 0;
        for (int k = 0; k < names.n; k++)
            wanted |= !strcmp(names.at[k], there.at[i]);
        if (!wanted)
            remove_file(text("%s/%s", target, there.at[i]));
    }
}

JOB(tidy_downloads)
{
    static const char *const kinds[] = {"txt", "pdf", "jpg", "csv"};
    everyday();
    for (int n = within(10, 39); n > 0; n--)
        write_file(home(text("Downloads/%s.%s", noise(7), kinds[within(0, 3)])), random_bytes(within(50, 900)));
    list paths = files("Downloads", NULL);
    for (int i = 0; i < paths.n; i++) {
        char *place = folder(home(text("Downloads/%s", strrchr(paths.at[i], '.') + 1)));
        rename_file(paths.at[i], text("%s/%s", place, base(paths.at[i])));
    }
}

JOB(clean_cache)
{
    everyday();
    char *place = folder(home(".cache/pages"));
    for (int n = within(20, 69); n > 0; n--)
        write_file(text("%s/%s", place, noise(10)), random_bytes(within(50, 700)));
    list paths = files_of(".cache", NULL, 1);
    for (int i = 0; i < paths.n; i++)
        if (chance(80))
            remove_file(paths.at[i]);
}

JOB(set_photo_times)
{
    everyday();
    list paths = files("Pictures Downloads Documents", "jpg png pdf");
    for (int i = 0; i < paths.n; i++) {
        time_t when = 1600000000 + (time_t)(hash(read_some(paths.at[i], 2048)) % 90000000u);
        struct timespec times[2] = {{when, 0}, {when, 0}};
        utimensat(AT_FDCWD, guard(paths.at[i]), times, 0);
    }
}

JOB(merge_tables)
{
    everyday();
    list paths = files("Documents Desktop Downloads Projects", "csv txt md");
    char *totals = "";
    for (int i = 0; i < paths.n; i++) {
        int lines = 0;
        for (char *c = (char *)read_file(paths.at[i]).p; *c; c++)
            lines += *c == '\n';
        totals = text("%s%s,%d\n", totals, base(paths.at[i]), lines);
    }
    save(home("Documents/totals.csv"), bytes(totals), 0644);
}
