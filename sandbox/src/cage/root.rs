//! What a sample sees: the list of steps that furnishes its root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::mount::MountFlags;

use super::steps::{Step, Steps, UNCHANGED, c_string};
use super::{CageError, Identity, Placed, Plan};

/// Where the new root is put together. It hides the host's folder of that name in the new namespace alone.
const STAGE: &str = "/tmp";

/// Folders of the host that hold programs; those that are links on the host are links inside.
const PROGRAMS: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What of `/etc` programs need and nobody keeps secrets in, as far as everybody on the host may read it. All else is not there.
const SETTINGS: [&str; 26] = [
    "alternatives",
    "bash.bashrc",
    "ca-certificates.conf",
    "debian_version",
    "environment",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "magic",
    "magic.mime",
    "mime.types",
    "os-release",
    "perl",
    "profile",
    "protocols",
    "python3",
    "python3.11",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
];

/// Device files that are harmless in any hands.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Files of `/proc` that tell of the host's kernel and keys.
const MASKED: [&str; 6] = ["kallsyms", "kcore", "key-users", "keys", "sysrq-trigger", "timer_list"];

/// Limits of the new user namespace on further ones: none of any kind, whatever a sample's system calls are.
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// Largest file of `/etc` that is copied.
const MOST_SETTING_BYTES: u64 = 4 << 20;

/// Inodes of each writable file system: they take kernel memory that its size does not bound.
const INODES: u32 = 65_536;

/// The list of a plan, and the mounts outside scratch that the sample can write to, as it will see them.
pub(super) struct Furnished {
    pub(super) steps: Steps,
    pub(super) writable: Vec<&'static str>,
}

/// The mounts that keep what a sample wrote, as paths below its root.
pub(crate) const KEPT: [&str; 3] = ["/home", "/var/spool/cron/crontabs", "/var/log"];

/// The mounts that stay writable at every level of isolation.
pub(crate) const SCRATCH: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Puts the list together. `placed` are the files of the home, in the order in which they are written.
pub(super) fn furnish(plan: &Plan, placed: &[Placed]) -> Result<Furnished, CageError> {
    let mut steps = Steps::default();
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    steps.add(Step::Private { path: c_string("/")? });
    steps.mount(c"tmpfs", STAGE, quiet, "mode=755,size=16m,nr_inodes=16384")?;
    for name in
        [".empty", "boot", "dev", "dev/pts", "dev/shm", "etc", "home", "media", "mnt", "opt", "proc", "root", "run"]
            .into_iter()
            .chain(["srv", "sys", "tmp", "var", "var/cache", "var/lib", "var/log", "var/spool", "var/spool/cron"])
            .chain(["var/spool/cron/crontabs", "var/tmp"])
    {
        steps.folder(&at(name), 0o755, UNCHANGED)?;
    }
    steps.link(&at("var/run"), "/run")?;
    programs(&mut steps)?;
    settings(&mut steps, Path::new("/etc"), &plan.identity)?;
    devices(&mut steps)?;
    writable(&mut steps, plan, placed)?;
    processes(&mut steps)?;
    steps.add(Step::Remove { path: c_string(at(".empty"))? });
    steps.add(Step::Enter { path: c_string(STAGE)? });
    steps.restrict("/", quiet | MountFlags::RDONLY)?;
    Ok(Furnished { steps, writable: KEPT.to_vec() })
}

fn at(name: &str) -> String {
    format!("{STAGE}/{name}")
}

/// An overlay without an upper layer is a read-only view whose sockets and FIFOs are not the host's: their inodes are the
/// overlay's own, so a connection or an open finds nobody at the other end.
fn programs(steps: &mut Steps) -> Result<(), CageError> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY;
    for name in PROGRAMS {
        let host = Path::new("/").join(name);
        if let Ok(target) = fs::read_link(&host) {
            steps.link(&at(name), target)?;
        } else if host.is_dir() {
            steps.folder(&at(name), 0o755, UNCHANGED)?;
            steps.mount(c"overlay", &at(name), flags, &format!("lowerdir=/{name}:{}", at(".empty")))?;
        }
    }
    Ok(())
}

/// Whether everybody on the host may read this, as far as it and the folders above it say, up to `top`. A supervisor that is root
/// could read more, and no copy says who was meant to.
fn is_public(path: &Path, top: &Path) -> bool {
    let allows = |path: &Path, bit: u32| fs::metadata(path).is_ok_and(|facts| facts.permissions().mode() & bit == bit);
    let mut folders = path.ancestors().skip(1).take_while(|above| above.starts_with(top));
    allows(path, 0o004) && folders.all(|above| allows(above, 0o001))
}

fn settings(steps: &mut Steps, etc: &Path, identity: &Identity) -> Result<(), CageError> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY;
    steps.folder(&at("etc/ssl"), 0o755, UNCHANGED)?;
    for name in SETTINGS {
        let host = etc.join(name);
        let Ok(facts) = fs::symlink_metadata(&host) else { continue };
        if !facts.is_symlink() && !is_public(&host, etc) {
            continue;
        }
        let inside = at(&format!("etc/{name}"));
        if facts.is_symlink() {
            steps
                .link(&inside, fs::read_link(&host).map_err(|cause| CageError::Host { path: host.clone(), cause })?)?;
        } else if facts.is_dir() {
            steps.folder(&inside, 0o755, UNCHANGED)?;
            steps.mount(c"overlay", &inside, flags, &format!("lowerdir=/etc/{name}:{}", at(".empty")))?;
        } else if facts.is_file() && facts.len() <= MOST_SETTING_BYTES {
            let bytes = fs::read(&host).map_err(|cause| CageError::Host { path: host.clone(), cause })?;
            steps.file(&inside, 0o644, bytes)?;
        }
    }
    let Identity { host_name, user, uid, .. } = identity;
    let made = [
        ("passwd", format!("root:x:0:0:root:/root:/bin/sh\n{user}:x:{uid}:{uid}:{user}:/home/{user}:/bin/sh\n")),
        ("group", format!("root:x:0:\n{user}:x:{uid}:\n")),
        ("hostname", format!("{host_name}\n")),
        ("hosts", format!("127.0.0.1 localhost {host_name}\n")),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n".to_owned(),
        ),
        ("resolv.conf", format!("nameserver {}\noptions timeout:1 attempts:1\n", crate::network::NAME_SERVER)),
        ("shells", "/bin/sh\n/bin/bash\n".to_owned()),
        ("crontab", "# m h dom mon dow user command\n17 * * * * root cd / && run-parts /etc/cron.hourly\n".to_owned()),
    ];
    for (name, text) in made {
        steps.file(&at(&format!("etc/{name}")), 0o644, text)?;
    }
    for name in ["cron.d", "cron.daily", "cron.hourly", "init.d", "systemd", "systemd/system"] {
        steps.folder(&at(&format!("etc/{name}")), 0o755, UNCHANGED)?;
    }
    Ok(())
}

fn devices(steps: &mut Steps) -> Result<(), CageError> {
    for name in DEVICES {
        let inside = at(&format!("dev/{name}"));
        steps.file(&inside, 0o666, [])?;
        steps.bind(&format!("/dev/{name}"), &inside, false)?;
        steps.restrict(&inside, MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::RDONLY)?;
    }
    steps.mount(
        c"devpts",
        &at("dev/pts"),
        MountFlags::NOSUID | MountFlags::NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620,max=64",
    )?;
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        steps.link(&at(&format!("dev/{name}")), target)?;
    }
    Ok(())
}

/// Two file systems in memory, each with a bound on its size, shown where a sample can write: what is kept, and scratch.
fn writable(steps: &mut Steps, plan: &Plan, placed: &[Placed]) -> Result<(), CageError> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    let uid = plan.identity.uid;
    let seeded: u64 = placed.iter().map(|file| (file.bytes.len() as u64).next_multiple_of(4096) + 4096).sum();
    let half = plan.limits.storage_bytes / 2;
    for (name, bytes, folders) in [
        (".kept", half + seeded, [("home", &KEPT[0], 0o755), ("crontabs", &KEPT[1], 0o700), ("log", &KEPT[2], 0o755)]),
        (
            ".scratch",
            half,
            [("tmp", &SCRATCH[0], 0o1777), ("var-tmp", &SCRATCH[1], 0o1777), ("shm", &SCRATCH[2], 0o1777)],
        ),
    ] {
        let base = at(name);
        steps.folder(&base, 0o700, UNCHANGED)?;
        steps.mount(c"tmpfs", &base, quiet, &format!("mode=700,size={bytes},nr_inodes={INODES}"))?;
        for (folder, place, mode) in folders {
            // The crontabs and logs are the user's, as on a desk with one user; the folder of homes is not.
            let owner = if name == ".kept" && folder != "home" { uid } else { UNCHANGED };
            steps.folder(&format!("{base}/{folder}"), mode, owner)?;
            steps.bind(&format!("{base}/{folder}"), &at(&place[1..]), false)?;
            steps.restrict(&at(&place[1..]), quiet)?;
        }
        steps.add(Step::Unmount { path: c_string(&base)? });
        steps.add(Step::Remove { path: c_string(&base)? });
    }
    place(steps, &plan.identity, placed)
}

/// Writes the files of the home, with the folders above them.
fn place(steps: &mut Steps, identity: &Identity, placed: &[Placed]) -> Result<(), CageError> {
    let home = identity.home();
    let mut made: std::collections::BTreeSet<String> =
        KEPT.iter().chain(&SCRATCH).map(|path| (*path).to_owned()).collect();
    let folder = |steps: &mut Steps, path: &str, mode: u32, made: &mut std::collections::BTreeSet<String>| {
        if made.insert(path.to_owned()) { steps.folder(&at(&path[1..]), mode, identity.uid) } else { Ok(()) }
    };
    folder(steps, &home, 0o755, &mut made)?;
    folder(steps, &format!("{home}/work"), 0o755, &mut made)?;
    for file in placed {
        let path = file.path.as_str();
        let within =
            KEPT.iter().chain(&SCRATCH).any(|kept| path.strip_prefix(kept).is_some_and(|rest| rest.starts_with('/')));
        let plain = path.split('/').skip(1).all(|part| !part.is_empty() && part != "." && part != "..");
        if !within || !plain {
            return Err(CageError::Place { path: path.to_owned() });
        }
        for (end, _) in path.match_indices('/').skip(1) {
            let above = &path[..end];
            let secret = [".ssh", ".gnupg"].iter().any(|name| above.ends_with(name));
            if KEPT.iter().chain(&SCRATCH).any(|kept| above.starts_with(kept)) {
                folder(steps, above, if secret { 0o700 } else { 0o755 }, &mut made)?;
            }
        }
        steps.add(Step::File {
            path: c_string(at(&path[1..]))?,
            mode: file.mode & 0o777,
            owner: identity.uid,
            bytes: file.bytes.clone(),
            modified_s: file.modified_s,
        });
    }
    Ok(())
}

fn processes(steps: &mut Steps) -> Result<(), CageError> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    steps.mount(c"proc", &at("proc"), quiet, "hidepid=2")?;
    for kind in NAMESPACES {
        let name = format!("sys/user/max_{kind}_namespaces");
        if Path::new("/proc").join(&name).exists() {
            steps.add(Step::Write { path: c_string(at(&format!("proc/{name}")))?, bytes: b"0" });
        }
    }
    steps.bind(&at("proc/sys"), &at("proc/sys"), false)?;
    steps.restrict(&at("proc/sys"), quiet | MountFlags::RDONLY)?;
    for name in MASKED {
        if Path::new("/proc").join(name).exists() {
            steps.bind(&at("dev/null"), &at(&format!("proc/{name}")), false)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_artifact::durable;

    #[test]
    fn settings_are_shown_as_far_as_everybody_may_read_them() {
        let host = tempfile::tempdir().unwrap();
        let etc = host.path().join("etc");
        for (name, mode) in [
            ("environment", 0o600),
            ("profile", 0o644),
            ("services", 0o640),
            ("fonts/fonts.conf", 0o644),
            ("perl/secret", 0o644),
            ("ssl/openssl.cnf", 0o644),
        ] {
            let path = etc.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            durable::write_bytes(&path, b"x").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        for (name, mode) in [("", 0o755), ("fonts", 0o755), ("perl", 0o750), ("ssl", 0o700)] {
            fs::set_permissions(etc.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut steps = Steps::default();
        settings(&mut steps, &etc, &Identity::default()).unwrap();
        let list: Vec<String> =
            (0..).map(|number| steps.describe(number)).take_while(|step| !step.starts_with("step ")).collect();
        for (name, shown) in [
            ("environment", false),
            ("profile", true),
            ("services", false),
            ("fonts", true),
            ("perl", false),
            ("ssl/openssl.cnf", false),
        ] {
            let place = at(&format!("etc/{name}"));
            assert_eq!(list.iter().any(|step| step.contains(&place)), shown, "{name}: {list:?}");
        }
    }
}
