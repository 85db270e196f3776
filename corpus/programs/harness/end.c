/* Checks the marker, then prologue, unless the run is bare, and job. */
int main(int argc, char **argv)
{
    char name[48], seed[24], given[sizeof parameters];
    int rounds;
    if (argc < 1 || !getenv("HOME") || !realpath(getenv("HOME"), home_folder))
        die("HOME", NULL);
    const char *all[] = {home_folder, SPOOL, LOGS};
    for (int i = 0; i < 3; i++)
        if (marked(all[i]))
            roots[root_count++] = all[i];
    if (root_count == 0 || roots[0] != home_folder) {
        dprintf(2, "refused: %s holds no %s; programs of the corpus run in a made-up home only\n", home_folder, MARKER);
        return 3;
    }
    for (size_t i = 0; i < sizeof parameters; i++)
        given[i] = parameters[i];
    if (sscanf(given, "%47s %23s %d %31s %d %d %d", name, seed, &rounds, peer, &ports[0], &ports[1], &ports[2]) != 7)
        die("parameters", given);
    if (!(program = realpath(argv[0], NULL)))
        die("program", argv[0]);
    seed_with("chunk", seed);
    chunk = (size_t[]){4096, 8192, 16384, 65536}[within(0, 3)];
    /* Two runs in five are of the bare job, as most programs are. */
    seed_with("bare", seed);
    int bare = chance(40);
    if (!bare) {
        seed_with("prologue", seed);
        read_file(home(".config/desk/settings.ini"));
        append(home(".local/state/desk/run.log"), "start\n");
        for (int steps = within(0, 8); steps > 0; steps--)
            glance();
        /* From here on the job runs; whoever cuts a recording in two cuts at this file. */
        write_file(home(".local/state/desk/progress"), bytes("main\n"));
    }
    seed_with(name, seed);
    for (int i = 0; i < job_count; i++)
        if (!strcmp(jobs[i].name, name)) {
            while (rounds-- > 0)
                jobs[i].run();
            if (!bare)
                append(home(".local/state/desk/run.log"), "done\n");
            return 0;
        }
    die("no such job", name);
}
