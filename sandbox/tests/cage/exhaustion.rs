//! Attempts to use up what the host has: the disk, the memory, the table of processes.

use bellwether_sandbox::Limits;
use bellwether_sandbox::cage::Ending;

use crate::runs::{PATIENCE, compiled, run, start};

#[test]
fn filling_the_disk() {
    let Some(mut plan) = compiled(
        "filling_the_disk",
        r#"static long fill(const char *folder) {
            static char block[4096];
            long total = 0;
            for (int at = 0; at < 10000; at++) {
                char path[64];
                snprintf(path, sizeof path, "%s/%d", folder, at);
                int file = open(path, O_CREAT | O_WRONLY, 0644);
                if (file < 0) break;
                for (long part; (part = write(file, block, sizeof block)) > 0;) total += part;
                close(file);
                if (errno != EFBIG) break;
            }
            return total;
        }
        int main(void) {
            signal(SIGXFSZ, SIG_IGN);
            TELL("home", fill("/home/user/work"));
            SAY("home", open("/home/user/one-more", O_CREAT | O_WRONLY, 0644) < 0 ? -1 : write(open("/home/user/one-more", O_WRONLY), "x", 1));
            TELL("scratch", fill("/tmp") + fill("/dev/shm") + fill("/var/tmp"));
            long inodes = 0;
            char path[64];
            for (; inodes < 100000; inodes++) {
                snprintf(path, sizeof path, "/tmp/link-%ld", inodes);
                if (symlink("x", path) < 0) break;
            }
            TELL("inodes", inodes);
        }"#,
        &[],
    ) else {
        return;
    };
    plan.limits = Limits { storage_bytes: 8 << 20, ..Limits::default() };
    let (ending, text) = run(plan);
    assert_eq!(ending, Ending::Code(0), "{text}");
    let number =
        |label: &str| text.lines().find_map(|line| line.strip_prefix(label)?.trim().parse::<u64>().ok()).unwrap();
    assert!((3 << 20..=4 << 20).contains(&number("home ")), "{text}");
    assert!((3 << 20..=4 << 20).contains(&number("scratch ")), "{text}");
    assert!(number("inodes ") < 65_536, "{text}");
    assert!(text.contains("home ENOSPC"), "{text}");
}

#[test]
fn filling_the_memory() {
    let Some(mut plan) = compiled(
        "filling_the_memory",
        r#"int main(void) {
            for (long mebibytes = 1; mebibytes <= 1024; mebibytes++) {
                char *block = malloc(1 << 20);
                if (!block) return 2;
                for (int at = 0; at < 1 << 20; at += 4096) ((volatile char *)block)[at] = 1;
            }
            puts("all of it");
            return 0;
        }"#,
        &[],
    ) else {
        return;
    };
    plan.limits = Limits { memory_bytes: 64 << 20, ..Limits::default() };
    let running = start(plan);
    if !running.cgroup.holds().memory {
        eprintln!("skipped filling_the_memory: no control group for memory can be made here");
        return;
    }
    // The kernel may take the init along, and then the end of the first process is not told.
    let ending = running.enclosure.wait(PATIENCE);
    assert!(matches!(ending, Ok(Some(Ending::Signal(9))) | Err(_)), "{ending:?}");
    let pressure = running.cgroup.pressure();
    assert!(pressure.out_of_memory_kills >= 1 && pressure.peak_memory_bytes <= 65 << 20, "{pressure:?}");
}

#[test]
fn filling_the_table_of_processes() {
    let Some(mut plan) = compiled(
        "filling_the_table_of_processes",
        r#"static void *rest(void *nothing) { pause(); return 0; }
        int main(void) {
            int forks = 0, threads = 0;
            for (; forks < 5000; forks++) {
                pid_t child = fork();
                if (child == 0) { pause(); _exit(0); }
                if (child < 0) break;
            }
            SAY("error", -1);
            TELL("forks", forks);
            kill(-1, SIGCONT);
            signal(SIGTERM, SIG_IGN);
            kill(-1, SIGTERM);
            while (wait(0) > 0) {}
            for (; threads < 5000; threads++) {
                pthread_t thread;
                if (pthread_create(&thread, 0, rest, 0)) break;
            }
            TELL("threads", threads);
            fflush(stdout);
            _exit(0);
        }"#,
        &[],
    ) else {
        return;
    };
    plan.limits = Limits { tasks: 32, ..Limits::default() };
    let running = start(plan);
    let counted = running.cgroup.holds().tasks;
    assert_eq!(running.enclosure.wait(PATIENCE).unwrap(), Some(Ending::Code(0)));
    let pressure = running.cgroup.pressure();
    let (_, text) = running.finish();
    let number =
        |label: &str| text.lines().find_map(|line| line.strip_prefix(label)?.trim().parse::<u64>().ok()).unwrap();
    // The first process is one of the 32.
    assert!(number("forks ") <= 31 && number("threads ") <= 31, "{text}");
    // An ordinary user's limit of resources counts the init as well, and is reached first.
    let counted = counted && rustix::process::geteuid().is_root();
    assert!(!counted || pressure.refused_forks >= 1, "{pressure:?}");
}
