//! Attempts to get out, one program each: what the sample was told, and that the host is as it was.

use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::process::Command;

use bellwether_sandbox::cage::{Cage, Ending, Held};

use crate::runs::{PATIENCE, can_cage, compiled, lives, run, shell};

/// Compiles and runs a program and compares each line of `label answer` with one of the answers that are expected for it,
/// parted by `|`.
fn check(test: &str, source: &str, arguments: &[&str], expected: &[(&str, &str)]) {
    let Some(plan) = compiled(test, source, arguments) else { return };
    let (ending, text) = run(plan);
    let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(label, _)| (*label).to_owned()).collect::<Vec<_>>();
    assert_eq!(labels(&lines), labels(expected), "{text}");
    for ((label, got), (_, wanted)) in lines.iter().zip(expected) {
        assert!(wanted.split('|').any(|one| one == *got), "{label}: {got}, not {wanted}\n{text}");
    }
    assert_eq!(ending, Ending::Code(0), "{text}");
}

#[test]
fn writing_outside() {
    check(
        "writing_outside",
        include_str!("samples/writing_outside.c"),
        &[],
        &[
            ("root", "EROFS|EACCES"),
            ("usr", "EROFS|EACCES"),
            ("bin", "EROFS|EACCES"),
            ("etc", "EROFS|EACCES"),
            ("passwd", "EROFS|EACCES"),
            ("certificates", "EROFS|EACCES"),
            // Where only one identity is mapped, the folder of homes is the sample's too, in a file system of its own.
            ("homes", if as_root() { "EACCES" } else { "ok" }),
            ("sysctl", "EROFS|EACCES"),
            ("null", "EROFS|EPERM"),
            ("home", "ok"),
            ("tmp", "ok"),
            ("shm", "ok"),
        ],
    );
    assert!(!std::path::Path::new("/usr/x").exists() && !std::path::Path::new("/etc/x").exists());
}

fn as_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn reading_the_hosts_home() {
    let kept = tempfile::NamedTempFile::new().unwrap();
    check(
        "reading_the_hosts_home",
        include_str!("samples/reading_the_hosts_home.c"),
        &[kept.path().to_str().unwrap(), env!("CARGO_MANIFEST_DIR")],
        &[
            ("file", "ENOENT"),
            ("sources", "ENOENT|EACCES"),
            ("shadow", "ENOENT"),
            ("root", "0|-1"),
            ("homes", "1"),
            ("run", "0"),
            ("sys", "0"),
            ("mnt", "0"),
            ("parents", "ok"),
            ("disk", "ENOENT"),
            ("node", "EPERM"),
        ],
    );
}

#[test]
fn mounting() {
    check(
        "mounting",
        r#"int main(void) {
            SAY("tmpfs", mount("tmpfs", "/tmp", "tmpfs", 0, 0));
            SAY("bind", mount("/usr", "/tmp", 0, MS_BIND, 0));
            SAY("remount", mount(0, "/", 0, MS_REMOUNT | MS_BIND, 0));
            SAY("unmount", umount2("/proc", MNT_DETACH));
            SAY("pivot", syscall(SYS_pivot_root, "/tmp", "/tmp"));
            SAY("chroot", chroot("/tmp"));
            SAY("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
            SAY("tree", syscall(428, AT_FDCWD, "/usr", 1));
            SAY("handle", syscall(SYS_open_by_handle_at, 0, "\x08\0\0\0\1\0\0\0........", 0));
        }"#,
        &[],
        &[
            ("tmpfs", "EPERM"),
            ("bind", "EPERM"),
            ("remount", "EPERM"),
            ("unmount", "EPERM"),
            ("pivot", "EPERM"),
            ("chroot", "EPERM"),
            ("fsopen", "EPERM"),
            ("tree", "EPERM"),
            ("handle", "EPERM"),
        ],
    );
}

#[test]
fn further_namespaces() {
    check(
        "further_namespaces",
        r#"int main(void) {
            SAY("user", unshare(CLONE_NEWUSER));
            SAY("mounts", unshare(CLONE_NEWUSER | CLONE_NEWNS));
            SAY("network", unshare(CLONE_NEWNET));
            SAY("clone", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
            SAY("init", open("/proc/1/ns/user", O_RDONLY));
            SAY("own", setns(open("/proc/self/ns/mnt", O_RDONLY), CLONE_NEWNS));
            SAY("limit", open("/proc/sys/user/max_user_namespaces", O_WRONLY));
        }"#,
        &[],
        &[
            ("user", "ENOSPC|EPERM"),
            ("mounts", "ENOSPC|EPERM"),
            ("network", "EPERM"),
            ("clone", "ENOSPC|EPERM"),
            ("init", "ENOENT|EACCES"),
            ("own", "EPERM"),
            ("limit", "EROFS|EACCES"),
        ],
    );
}

#[test]
fn signals_and_looks_at_other_processes() {
    let mut bystander = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let number = bystander.id().to_string();
    check(
        "signals_and_looks_at_other_processes",
        include_str!("samples/signals_and_looks_at_other_processes.c"),
        &[&number],
        &[
            ("kill", "ESRCH"),
            ("stat", "ok"),
            ("trace", "ESRCH"),
            ("trace_init", "EPERM"),
            ("read_init", "EPERM"),
            ("memory_of_init", "ENOENT|EACCES"),
            ("descriptors_of_init", "ENOENT|EACCES"),
            ("seen", "1|2"),
            ("init", "ok"),
        ],
    );
    assert!(lives(bystander.id() as i32));
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn the_kernels_own_files() {
    check(
        "the_kernels_own_files",
        include_str!("samples/the_kernels_own_files.c"),
        &[],
        &[
            ("symbols", "0"),
            ("memory", "0"),
            ("keys", "0"),
            // What a kernel has of them is the null device.
            ("bare", "0"),
            ("pattern", "EROFS|EACCES"),
            ("groups", "ENOENT"),
            ("mount_groups", "EPERM"),
            ("named", "0"),
            ("host", "EPERM"),
            ("time", "EPERM"),
            ("boot", "EPERM"),
            ("module", "EPERM|ENOSYS"),
            ("log", "EPERM"),
            ("nice", "EACCES|EPERM"),
        ],
    );
}

#[test]
fn raw_sockets_and_the_hosts_network() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    check(
        "raw_sockets_and_the_hosts_network",
        include_str!("samples/raw_sockets_and_the_hosts_network.c"),
        &[&port],
        &[
            ("raw", "EPERM"),
            ("packet", "EPERM"),
            ("host", "ECONNREFUSED"),
            ("outside", "ENETUNREACH"),
            ("private", "ENETUNREACH"),
            ("down", "EPERM"),
            ("tun", "ENOENT"),
        ],
    );
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody came");
}

#[test]
fn sockets_and_fifos_of_the_host() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    const TEST: &str = "sockets_and_fifos_of_the_host";
    let name = format!("bellwether-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let abstract_one = UnixListener::bind_addr(&address).unwrap();
    abstract_one.set_nonblocking(true).unwrap();
    // Only below /usr would a sample see them at all.
    let Ok(folder) = tempfile::tempdir_in("/usr/local/share") else {
        eprintln!("skipped {TEST}: /usr/local/share cannot be written to, which takes root");
        return;
    };
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (socket, fifo) = (folder.path().join("socket"), folder.path().join("fifo"));
    let listener = UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o666), 0)
        .unwrap();
    for path in [&socket, &fifo] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).unwrap();
    }
    let reader = std::fs::File::options().read(true).custom_flags(0o4000).open(&fifo).unwrap();
    check(
        TEST,
        include_str!("samples/sockets_and_fifos_of_the_host.c"),
        &[&name, socket.to_str().unwrap(), fifo.to_str().unwrap()],
        &[("seen", "ok"), ("abstract", "ECONNREFUSED"), ("path", "ECONNREFUSED"), ("fifo", "ENXIO|EROFS|EACCES")],
    );
    assert!(listener.accept().is_err() && abstract_one.accept().is_err(), "nobody came");
    drop(reader);
}

#[test]
fn inherited_descriptors() {
    let kept = tempfile::tempfile().unwrap();
    // Descriptors that are not closed on exec are the ones that leak.
    let leaking = rustix::io::fcntl_dupfd_cloexec(&kept, 700).unwrap();
    rustix::io::fcntl_setfd(&leaking, rustix::io::FdFlags::empty()).unwrap();
    check(
        "inherited_descriptors",
        include_str!("samples/inherited_descriptors.c"),
        &[],
        &[("open", "3"), ("input", "ok"), ("after", "ok")],
    );
}

/// In its second role this test has a terminal of its own, and gives it to a sample to write to.
#[test]
fn typing_into_the_terminal_of_the_supervisor() {
    const TEST: &str = "typing_into_the_terminal_of_the_supervisor";
    const ROLE: &str = "BELLWETHER_TEST_TERMINAL";
    if std::env::var_os(ROLE).is_some() {
        let mut terminal = File::options().read(true).write(true).open("/dev/tty").expect("it has a terminal");
        let Some(mut plan) = compiled(
            TEST,
            r#"int main(void) {
                TELL("terminal", isatty(1));
                SAY("own", open("/dev/tty", O_RDWR));
                SAY("take", ioctl(1, TIOCSCTTY, 0));
                SAY("steal", ioctl(1, TIOCSCTTY, 1));
                SAY("type", ioctl(1, TIOCSTI, "x") & ioctl(1, TIOCSTI, "\n"));
                SAY("hang up", ioctl(1, TIOCNOTTY));
                TELL("leader", getsid(0) == getpid());
            }"#,
            &[],
        ) else {
            return;
        };
        plan.output = Some(terminal.try_clone().unwrap().into());
        let Held { gate, enclosure, cgroup: _cgroup, .. } = Cage::start(&plan).unwrap();
        gate.open().unwrap();
        assert_eq!(enclosure.wait(PATIENCE).unwrap(), Some(Ending::Code(0)));
        rustix::fs::fcntl_setfl(&terminal, rustix::fs::OFlags::NONBLOCK).unwrap();
        // The first of these may be the end of what the test itself had to say.
        let typed: usize = (0..4).map(|_| terminal.read(&mut [0; 8]).unwrap_or(0)).sum();
        eprintln!("typed {typed}");
        return;
    }
    if !can_cage() {
        return;
    }
    let program = std::env::current_exe().unwrap();
    let again = format!("{} --exact escapes::{TEST} --nocapture", program.display());
    let Ok(output) = Command::new("script").args(["-qec", &again, "/dev/null"]).env(ROLE, "1").output() else {
        eprintln!("skipped {TEST}: no program makes a terminal, install bsdutils");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    for said in
        ["terminal 1", "own ENXIO", "take EPERM", "steal EPERM", "type E", "hang up ENOTTY", "leader 1", "typed 0"]
    {
        assert!(text.lines().any(|line| line.starts_with(said)), "{said}: {text}");
    }
}

#[test]
fn the_program_behind_the_link_to_itself() {
    check(
        "the_program_behind_the_link_to_itself",
        include_str!("samples/the_program_behind_the_link_to_itself.c"),
        &[],
        &[
            ("write", "ETXTBSY|EACCES|EPERM"),
            ("truncate", "ETXTBSY|EACCES|EPERM"),
            ("unlink", "EPERM|EACCES|ENOENT"),
            ("read", "ok"),
            ("seals", "15"),
            ("map", "EACCES|EPERM"),
        ],
    );
}

#[test]
fn becoming_another_user() {
    check(
        "becoming_another_user",
        r#"int main(void) {
            SAY("uid", setuid(0));
            SAY("uids", setresuid(0, 0, 0));
            SAY("gid", setgid(0));
            gid_t root = 0;
            SAY("groups", setgroups(1, &root));
            SAY("capability", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21, 0, 0));
            SAY("bits", prctl(PR_SET_SECUREBITS, 0, 0, 0, 0));
            TELL("privileges", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
            SAY("chown", chown("/home/user/work", 0, 0));
            int copy = open("/tmp/own", O_CREAT | O_WRONLY, 0755);
            fchmod(copy, 04755);
            pid_t child = fork();
            if (child == 0) {
                close(2);
                execl("/usr/bin/su", "su", "-c", "true", NULL);
                _exit(1);
            }
            int status;
            waitpid(child, &status, 0);
            TELL("su", WIFEXITED(status) && WEXITSTATUS(status) == 0);
            struct rlimit limit;
            getrlimit(RLIMIT_CORE, &limit);
            TELL("core", limit.rlim_max <= 1);
            limit.rlim_max = limit.rlim_cur = RLIM_INFINITY;
            SAY("raise", setrlimit(RLIMIT_FSIZE, &limit));
        }"#,
        &[],
        &[
            ("uid", "EPERM|EINVAL"),
            ("uids", "EPERM|EINVAL"),
            ("gid", "EPERM|EINVAL"),
            ("groups", "EPERM|EINVAL"),
            ("capability", "EPERM"),
            ("bits", "EPERM"),
            ("privileges", "1"),
            ("chown", "EPERM|EINVAL"),
            ("su", "0"),
            ("core", "1"),
            ("raise", "EPERM"),
        ],
    );
}

#[test]
fn no_privilege_is_left_in_any_set() {
    if !can_cage() {
        return;
    }
    let (ending, text) = run(shell("grep -E '^(Cap|NoNewPrivs|Groups|Uid)' /proc/self/status"));
    assert_eq!(ending, Ending::Code(0));
    let zero = "0".repeat(16);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(text.contains(&format!("{set}:\t{zero}\n")), "{text}");
    }
    assert!(text.contains("NoNewPrivs:\t1\n") && text.contains("Uid:\t1000\t1000\t1000\t1000\n"), "{text}");
    if as_root() {
        assert!(text.lines().any(|line| line.trim_end() == "Groups:"), "{text}");
    }
}

#[test]
fn a_core_is_written_nowhere() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let Some(plan) = compiled("a_core_is_written_nowhere", "int main(void) { abort(); }", &[]) else { return };
    let (ending, _) = run(plan);
    assert_eq!(ending, Ending::Signal(6));
    let mut after_another = shell("");
    after_another.arguments[2] = c"sh -c 'kill -ABRT $$'; ls -A /home/user/work".to_owned();
    let (_, text) = run(after_another);
    assert!(!text.contains("core\n") && !text.contains("dumped"), "{text}");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern);
}
