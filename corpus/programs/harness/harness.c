/* The harness of every C program of the corpus: one program holds all jobs and all emulations.
 *
 * The recorder joins this file with those of benign/ and emulations/ into one translation unit and writes the parameters
 * of one run over the at-signs below in the finished program, so that programs differ in nothing but those bytes, whatever
 * their class. A run is: the marker is checked, a prologue that depends on the seed alone, one line in a progress file, the
 * job. Of a part of the seeds it is the marker and the job alone. The Python harness does the same in the same order. Memory is not freed: a run lasts a fraction of a second.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile char parameters[] = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@";

#define MARKER ".decoy-home"
#define MARKER_TEXT "made-up files for recordings; programs of the corpus act below this folder only\n"
#define SPOOL "/var/spool/cron/crontabs"
#define LOGS "/var/log"

typedef struct { char **at; int n; } list;
typedef struct { unsigned char *p; size_t n; } blob;

static char home_folder[PATH_MAX], *program;
static const char *roots[3];
static int root_count, ports[3];
static char peer[32];
static size_t chunk = 4096;
static uint64_t rng_state;

struct job { const char *name; void (*run)(void); };
static struct job jobs[128];
static int job_count;
#define JOB(name) \
    static void name(void); \
    __attribute__((constructor)) static void register_##name(void) { jobs[job_count++] = (struct job){#name, name}; } \
    static void name(void)

static void die(const char *what, const char *path)
{
    dprintf(2, "%s: %s: %s\n", what, path ? path : "", strerror(errno));
    _exit(1);
}

/* Text made as printf does. */
__attribute__((format(printf, 1, 2))) static char *text(const char *format, ...)
{
    va_list values;
    char *out;
    va_start(values, format);
    if (vasprintf(&out, format, values) < 0)
        die("memory", NULL);
    va_end(values);
    return out;
}

static blob bytes(const char *s) { return (blob){(unsigned char *)s, strlen(s)}; }

/* Random numbers: splitmix64 over the seed of the run. */
static uint64_t next(void)
{
    uint64_t z = rng_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static int within(int low, int high) { return low + (int)(next() % (uint64_t)(high - low + 1)); }
static int chance(int percent) { return within(0, 99) < percent; }
static void seed_with(const char *purpose, const char *seed)
{
    rng_state = 0xcbf29ce484222325u;
    for (const char *s = text("%s/%s", purpose, seed); *s; s++)
        rng_state = (rng_state ^ (unsigned char)*s) * 0x100000001b3u;
}
static char *noise(int length)
{
    char *out = calloc(1, (size_t)length + 1);
    for (int i = 0; i < length; i++)
        out[i] = (char)('a' + within(0, 25));
    return out;
}
static blob random_bytes(int n)
{
    blob out = {malloc((size_t)n + 1), (size_t)n};
    for (int i = 0; i < n; i++)
        out.p[i] = (unsigned char)next();
    return out;
}
static blob zeros(size_t n) { return (blob){calloc(1, n + 1), n}; }
static void pause_ms(int low_us, int high_us)
{
    struct timespec t = {0, within(low_us, high_us) * 1000L};
    nanosleep(&t, NULL);
}

static char *home(const char *path) { return text("%s/%s", home_folder, path); }
static char *parent(const char *path)
{
    char *copy = strdup(path), *slash = strrchr(copy, '/');
    if (slash)
        *slash = 0;
    return copy;
}
static const char *base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The user's crontab; a home is called by its user's name. */
static char *crontab(void) { return text("%s/%s", SPOOL, base(home_folder)); }

/* The path, if it lies below a folder that held a marker when the program began; otherwise the program ends. */
static const char *guard(const char *path)
{
    if (path[0] == '/' && !strstr(path, "/../") && strcmp(base(path), MARKER) != 0 && strcmp(base(path), "..") != 0)
        for (int i = 0; i < root_count; i++)
            if (!strncmp(path, roots[i], strlen(roots[i])) && path[strlen(roots[i])] == '/')
                return path;
    dprintf(2, "refused: %s is outside the marked folders\n", path);
    _exit(3);
}

static int marked(const char *root)
{
    char found[sizeof MARKER_TEXT] = "";
    int fd = open(text("%s/%s", root, MARKER), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, found, sizeof found);
    close(fd);
    return n == (ssize_t)strlen(MARKER_TEXT) && !memcmp(found, MARKER_TEXT, (size_t)n);
}

/* Files. */
static blob read_fd(int fd, size_t limit)
{
    blob out = {malloc(limit < 65536 ? limit + 1 : 65537), 0};
    size_t room = limit < 65536 ? limit : 65536;
    while (out.n < limit) {
        size_t want = limit - out.n < chunk ? limit - out.n : chunk;
        if (out.n + want > room)
            out.p = realloc(out.p, (room = (out.n + want) * 2) + 1);
        ssize_t got = read(fd, out.p + out.n, want);
        if (got <= 0)
            break;
        out.n += (size_t)got;
    }
    out.p[out.n] = 0;
    return out;
}
static blob read_some(const char *path, size_t limit)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return (blob){calloc(1, 1), 0};
    blob out = read_fd(fd, limit);
    close(fd);
    return out;
}
static blob read_file(const char *path) { return read_some(path, 1 << 20); }
static void write_fd(int fd, blob data)
{
    for (size_t at = 0; at < data.n; at += chunk)
        if (write(fd, data.p + at, data.n - at < chunk ? data.n - at : chunk) < 0)
            die("write", NULL);
}
static void put(const char *path, blob data, int flags, int mode)
{
    int fd = open(guard(path), O_WRONLY | O_CREAT | O_CLOEXEC | flags, mode);
    if (fd < 0)
        die("open", path);
    write_fd(fd, data);
    close(fd);
}
static void write_file(const char *path, blob data) { put(path, data, O_TRUNC, 0644); }
static void append(const char *path, const char *line) { put(path, bytes(line), O_APPEND, 0644); }
static void rename_file(const char *from, const char *to)
{
    if (rename(guard(from), guard(to)) < 0)
        die("rename", from);
}
static void remove_file(const char *path)
{
    if (unlink(guard(path)) < 0)
        die("unlink", path);
}
/* Replaces a file the careful way: a new file beside it, fsync, rename. */
static void save(const char *path, blob data, int mode)
{
    char *fresh = text("%s.new", path);
    int fd = open(guard(fresh), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (fd < 0)
        die("open", fresh);
    write_fd(fd, data);
    fsync(fd);
    close(fd);
    rename_file(fresh, path);
}
/* Rewrites a file in place with what `change` makes of it. */
static void update(const char *path, blob (*change)(blob))
{
    int fd = open(guard(path), O_RDWR | O_CLOEXEC);
    if (fd < 0)
        die("open", path);
    blob old = read_fd(fd, 1 << 20), new = change(old);
    lseek(fd, 0, SEEK_SET);
    write_fd(fd, new);
    if (new.n < old.n && ftruncate(fd, (off_t)new.n) < 0)
        die("ftruncate", path);
    close(fd);
}
static char *folder(char *path)
{
    for (char *slash = path + strlen(home_folder); slash; slash = strchr(slash + 1, '/')) {
        struct stat seen;
        char *part = strndup(path, strchr(slash + 1, '/') ? (size_t)(strchr(slash + 1, '/') - path) : strlen(path));
        if (stat(part, &seen) < 0 && mkdir(guard(part), 0755) < 0)
            die("mkdir", part);
    }
    return path;
}
static void copy_times(const char *from, const char *to)
{
    struct stat seen;
    if (stat(from, &seen) == 0) {
        struct timespec times[2] = {seen.st_atim, seen.st_mtim};
        utimensat(AT_FDCWD, guard(to), times, 0);
    }
}
static void make_executable(const char *path)
{
    if (chmod(guard(path), 0755) < 0)
        die("chmod", path);
}

static void push(list *to, char *path)
{
    to->at = realloc(to->at, sizeof *to->at * (size_t)(to->n + 1));
    to->at[to->n++] = path;
}
static list join(list a, list b)
{
    for (int i = 0; i < b.n; i++)
        push(&a, b.at[i]);
    return a;
}
/* Names in a folder, sorted; none where there is no such folder. */
static list entries(const char *top)
{
    list out = {0};
    struct dirent **found;
    int n = scandir(top, &found, NULL, alphasort);
    for (int i = 0; i < n; i++)
        if (strcmp(found[i]->d_name, ".") && strcmp(found[i]->d_name, ".."))
            push(&out, strdup(found[i]->d_name));
    return out;
}
/* Whether the extension of `path` is one of the words in `kinds` (NULL: any). */
static int of_kind(const char *path, const char *kinds)
{
    const char *dot = strrchr(base(path), '.');
    return !kinds || (dot && strstr(text(" %s ", kinds), text(" %s ", dot + 1)));
}
static void gather(list *out, const char *top, const char *kinds, int hidden)
{
    list names = entries(top);
    for (int i = 0; i < names.n; i++) {
        struct stat seen;
        char *path = text("%s/%s", top, names.at[i]);
        if (!strcmp(names.at[i], MARKER) || (names.at[i][0] == '.' && !hidden) || stat(path, &seen) < 0)
            continue;
        if (S_ISDIR(seen.st_mode))
            gather(out, path, kinds, hidden);
        else if (of_kind(path, kinds))
            push(out, path);
    }
}
/* Files below the folders named in `tops`, words parted by spaces (absolute, or below the home folder). */
static list files_of(const char *tops, const char *kinds, int hidden)
{
    list out = {0};
    char *rest = strdup(tops), *top;
    while ((top = strsep(&rest, " ")))
        gather(&out, top[0] == '/' ? top : home(top), kinds, hidden);
    return out;
}
static list files(const char *tops, const char *kinds) { return files_of(tops, kinds, 0); }
static void shuffle(list paths)
{
    for (int i = paths.n - 1; i > 0; i--) {
        int k = within(0, i);
        char *other = paths.at[i];
        paths.at[i] = paths.at[k];
        paths.at[k] = other;
    }
}
/* Between `low` and `high` of the paths, fewer if there are fewer, in a random order. */
static list pick(list paths, int low, int high)
{
    int n = within(low, high);
    shuffle(paths);
    paths.n = n < paths.n ? n : paths.n;
    return paths;
}
#define DATA "Documents Pictures Music Desktop Downloads Projects"
static const char *data_folders[] = {"Documents", "Pictures", "Music", "Desktop", "Downloads", "Projects"};
/* Some of the data folders as words, in a random order. */
static char *some_of_data(int low, int high)
{
    list all = {0};
    for (int i = 0; i < 6; i++)
        push(&all, (char *)data_folders[i]);
    all = pick(all, low, high);
    char *out = all.at[0];
    for (int i = 1; i < all.n; i++)
        out = text("%s %s", out, all.at[i]);
    return out;
}
static char *some_folders(void) { return some_of_data(1, 6); }

/* A key stream over a copy of the data; the same call undoes it. The key stays beside what was encrypted. */
static blob stream(uint64_t key, blob data)
{
    blob out = {malloc(data.n + 1), data.n};
    uint64_t kept = rng_state;
    rng_state = key;
    for (size_t i = 0; i < data.n; i++)
        out.p[i] = data.p[i] ^ (unsigned char)(next() >> 24);
    rng_state = kept;
    return out;
}
static uint64_t hash(blob data)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < data.n; i++)
        h = (h ^ data.p[i]) * 0x100000001b3u;
    return h;
}
/* Compression by an adaptive binary range coder over the bits of each byte. */
static blob compress(blob data)
{
    blob out = {malloc(data.n * 2 + 64), 0};
    uint16_t model[256];
    uint32_t low = 0, high = 0xffffffffu;
    for (int i = 0; i < 256; i++)
        model[i] = 2048;
    for (size_t i = 0; i < data.n; i++)
        for (int node = 1, bit = 7; bit >= 0; bit--) {
            int one = data.p[i] >> bit & 1;
            uint32_t middle = low + (high - low) / 4096 * model[node];
            if (one) {
                high = middle;
                model[node] = (uint16_t)(model[node] + ((4095 - model[node]) >> 4));
            } else {
                low = middle + 1;
                model[node] = (uint16_t)(model[node] - (model[node] >> 4) + 1);
            }
            node = node * 2 + one;
            while ((low ^ high) >> 24 == 0) {
                out.p[out.n++] = (unsigned char)(high >> 24);
                low <<= 8;
                high = high << 8 | 255;
            }
        }
    for (int i = 0; i < 4; i++, low <<= 8)
        out.p[out.n++] = (unsigned char)(low >> 24);
    return out;
}

/* Processes. */
static pid_t begin(void)
{
    pid_t child = fork();
    if (child < 0)
        die("fork", NULL);
    return child;
}
static int finish(pid_t child)
{
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}
static int spawn(char *const argv[])
{
    pid_t child = begin();
    if (child == 0) {
        execv(argv[0], argv);
        _exit(127);
    }
    return finish(child);
}
static int shell(const char *command) { return spawn((char *[]){"/bin/sh", "-c", (char *)command, NULL}); }

/* The network: loopback and nothing else. */
static int dial(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, strncmp(peer, "127.", 4) ? "127.0.0.1" : peer, &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}
static void send_all(int fd, blob data)
{
    for (size_t at = 0; at < data.n; at += chunk)
        send(fd, data.p + at, data.n - at < chunk ? data.n - at : chunk, MSG_NOSIGNAL);
}
static char *receive(int fd)
{
    char *reply = calloc(1, 4097);
    if (recv(fd, reply, 4096, 0) < 0)
        reply[0] = 0;
    return reply;
}
static char *exchange(const char *line)
{
    int fd = dial(ports[0]);
    if (fd < 0)
        die("connect", line);
    send_all(fd, bytes(text("%s\n", line)));
    char *reply = receive(fd);
    close(fd);
    return reply;
}
static blob fetch(const char *path)
{
    int fd = dial(ports[0]);
    if (fd < 0)
        die("connect", path);
    send_all(fd, bytes(text("GET /%s HTTP/1.0\r\nHost: desk\r\n\r\n", path)));
    blob all = {malloc(1 << 18), 0};
    ssize_t got;
    while (all.n + chunk < 1 << 18 && (got = recv(fd, all.p + all.n, chunk, 0)) > 0)
        all.n += (size_t)got;
    close(fd);
    unsigned char *body = memmem(all.p, all.n, "\r\n\r\n", 4);
    return body ? (blob){body + 4, all.n - (size_t)(body + 4 - all.p)} : (blob){all.p, 0};
}
static void upload(blob data, const char *name)
{
    int fd = dial(ports[0]);
    if (fd < 0)
        die("connect", name);
    send_all(fd, bytes(text("PUT %zu %s\n", data.n, name)));
    send_all(fd, data);
    receive(fd);
    close(fd);
}

/* What every run does before its job. */
static void glance(void)
{
    struct utsname system;
    list found;
    char *path;
    switch (within(0, 11)) {
    case 0: entries(home(data_folders[within(0, 5)])); break;
    case 1:
        found = files((const char *[]){"Documents", "Desktop", "Projects"}[within(0, 2)], NULL);
        read_some(found.at[within(0, found.n - 1)], 8192);
        break;
    case 2:
        path = home(text(".cache/desk/%x", within(0, 1 << 30)));
        write_file(path, random_bytes(within(40, 3000)));
        remove_file(path);
        break;
    case 3: uname(&system); break;
    case 4: read_some("/etc/passwd", 4096); break;
    case 5: read_some("/proc/self/status", 4096); break;
    case 6: hash(random_bytes(within(1000, 200000))); break;
    case 7: pause_ms(500, 20000); break;
    case 8: exchange("hello"); break;
    case 9: spawn((char *[]){"/bin/true", NULL}); break;
    case 10: read_file(home(".config/desk/settings.ini")); break;
    default: append(home(".local/state/desk/run.log"), text("step %d\n", within(0, 999)));
    }
}

/* What desktop programs do around their job: settings, recent files, a look for a new version. */
static void everyday(void)
{
    struct utsname system;
    if (chance(40))
        read_some("/etc/passwd", 4096);
    if (chance(35)) {
        uname(&system);
        fetch("version");
    }
    if (chance(40))
        append(home(".local/share/recent"), text("%s\n", noise(12)));
    if (chance(30))
        write_file(home(text(".cache/desk/%s", noise(8))), random_bytes(within(100, 2000)));
    if (chance(30))
        read_some("/proc/self/status", 4096);
}
