//! What a path tells by itself: its folder, its extension and the class of file that it names.

use crate::calls::name_hash;

/// Classes of paths, as bits of a mark in [`super::seen::Seen`].
pub(super) mod class {
    /// Devices, `/proc`, `/sys`, pipes and sockets: no file that can be lost.
    pub(crate) const DEVICE: u32 = 1;
    /// Programs and libraries of the system: read by everything, so that reading them says nothing.
    pub(crate) const SYSTEM: u32 = 1 << 1;
    /// Keys, tokens, saved logins, shell histories.
    pub(crate) const CREDENTIAL: u32 = 1 << 2;
    /// What is written here runs again later.
    pub(crate) const PERSISTENCE: u32 = 1 << 3;
    /// Logs and accounting files.
    pub(crate) const LOG: u32 = 1 << 4;
    /// Temporary folders: writable at every isolation level.
    pub(crate) const SCRATCH: u32 = 1 << 5;
    /// The name starts with a dot.
    pub(crate) const HIDDEN: u32 = 1 << 6;
}

const DEVICE_PREFIXES: [&str; 9] =
    ["/dev/", "/proc/", "/sys/", "pipe:", "socket:", "anon_inode:", "/memfd:", "\\Device\\", "\\??\\pipe\\"];

const SYSTEM_PREFIXES: [&str; 10] =
    ["/usr/", "/lib/", "/lib64/", "/lib32/", "/bin/", "/sbin/", "/opt/", "/nix/", "/snap/", "\\??\\C:\\Windows\\"];

const SCRATCH_PREFIXES: [&str; 3] = ["/tmp/", "/var/tmp/", "/dev/shm/"];

/// Parts of a path that mark credentials; each stands for the whole path that contains it.
const CREDENTIAL_PARTS: [&str; 34] = [
    "/.ssh/id_",
    "/.ssh/identity",
    "/.aws/credentials",
    "/.aws/sso/cache",
    "/.azure/",
    "/.config/gcloud/",
    "/.config/gh/hosts",
    "/.config/rclone/",
    "/.kube/config",
    "/.docker/config.json",
    "/.netrc",
    "/.git-credentials",
    "/.npmrc",
    "/.pypirc",
    "/.pgpass",
    "/.my.cnf",
    "/.gnupg/private-keys",
    "/.gnupg/secring",
    "/.password-store/",
    "/.local/share/keyrings/",
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/ssh/ssh_host_",
    "/logins.json",
    "/key3.db",
    "/key4.db",
    "/signons.sqlite",
    "/cookies.sqlite",
    "/Login Data",
    "/Cookies",
    "wallet.dat",
    ".kdbx",
    "_history",
    "\\Login Data",
];

/// Parts of a path that mark a place from which programs are started again.
const PERSISTENCE_PARTS: [&str; 32] = [
    "/.config/autostart/",
    "/.config/systemd/user/",
    "/.local/share/systemd/",
    "/.config/environment.d/",
    "/.config/fish/config.fish",
    "/.config/plasma-workspace/env/",
    "/.ssh/authorized_keys",
    "/.ssh/rc",
    "/.bashrc",
    "/.bash_profile",
    "/.bash_login",
    "/.bash_logout",
    "/.profile",
    "/.zshrc",
    "/.zshenv",
    "/.zprofile",
    "/.xinitrc",
    "/.xprofile",
    "/.xsession",
    "/.git/hooks/",
    "/etc/cron",
    "/spool/cron",
    "crontab",
    "/etc/init.d/",
    "/etc/rc.local",
    "/etc/profile",
    "/etc/ld.so.preload",
    "/etc/sudoers",
    "/etc/udev/rules.d/",
    "/etc/systemd/",
    "\\Programs\\Startup\\",
    "\\CurrentVersion\\Run",
];

const LOG_PARTS: [&str; 4] = ["/var/log/", "/wtmp", "/utmp", "/lastlog"];

/// What one pass over a path finds.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathDigest<'a> {
    /// Hash of the whole path.
    pub(super) hash: u64,
    /// Hash of what stands before the last separator.
    pub(super) folder: u64,
    /// What follows the last separator.
    pub(super) name: &'a str,
}

impl<'a> PathDigest<'a> {
    pub(super) fn of(path: &'a str) -> Self {
        let cut = path.rfind(['/', '\\']).unwrap_or(0);
        let name = path.get(cut..).unwrap_or(path).trim_start_matches(['/', '\\']);
        PathDigest { hash: name_hash(path), folder: name_hash(path.get(..cut).unwrap_or("")), name }
    }

    /// The extension of the name without its dot: 1 to 12 bytes after the last dot, which must not open the name.
    pub(super) fn extension(&self) -> Option<&'a str> {
        let (stem, extension) = self.name.rsplit_once('.')?;
        (!stem.is_empty() && (1..=12).contains(&extension.len())).then_some(extension)
    }
}

/// The classes of a path, as bits of [`class`].
pub(super) fn classify(path: &str, name: &str) -> u32 {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
    let contains = |parts: &[&str]| parts.iter().any(|part| path.contains(part));
    let scratch = starts(&SCRATCH_PREFIXES);
    if starts(&DEVICE_PREFIXES) && !scratch {
        return class::DEVICE;
    }
    let mut found = 0;
    if scratch {
        found |= class::SCRATCH;
    }
    if starts(&SYSTEM_PREFIXES) {
        found |= class::SYSTEM;
    }
    if contains(&CREDENTIAL_PARTS) && !name.ends_with(".pub") {
        found |= class::CREDENTIAL;
    }
    // Git copies samples of its hooks into every new repository; nothing runs them.
    if contains(&PERSISTENCE_PARTS) && !name.ends_with(".sample") {
        found |= class::PERSISTENCE;
    }
    if contains(&LOG_PARTS) || name.ends_with(".log") || name.ends_with("_history") {
        found |= class::LOG;
    }
    if name.starts_with('.') && name.len() > 1 {
        found |= class::HIDDEN;
    }
    found
}

/// The rules above as text: part of what a state means, and so of the identity of its specification.
pub(crate) fn rules() -> String {
    let line = |what: &str, parts: &[&str]| format!("{what} {}\n", parts.join(" | "));
    [
        line("device paths start with", &DEVICE_PREFIXES),
        line("system paths start with", &SYSTEM_PREFIXES),
        line("scratch paths start with", &SCRATCH_PREFIXES),
        line("credential paths contain, but for names that end in .pub,", &CREDENTIAL_PARTS),
        line("persistence paths contain, but for names that end in .sample,", &PERSISTENCE_PARTS),
        line("log paths end in .log or _history or contain", &LOG_PARTS),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_apart() {
        let cases = [
            ("/home/user/a.tar.gz", "a.tar.gz", Some("gz")),
            ("/home/user/.bashrc", ".bashrc", None),
            ("/home/user/", "", None),
            ("plain", "plain", None),
            ("", "", None),
            ("C:\\x\\report.docx", "report.docx", Some("docx")),
            ("/a/x.", "x.", None),
        ];
        for (path, name, extension) in cases {
            let digest = PathDigest::of(path);
            assert_eq!((digest.name, digest.extension()), (name, extension), "{path}");
        }
        assert_eq!(PathDigest::of("/a/b").folder, PathDigest::of("/a/c").folder);
        assert_ne!(PathDigest::of("/a/b").folder, PathDigest::of("/b/b").folder);
    }

    #[test]
    fn classes_of_paths() {
        let cases = [
            ("/dev/null", class::DEVICE),
            ("/dev/shm/x", class::SCRATCH),
            ("/usr/lib/python3/os.py", class::SYSTEM),
            ("/home/user/.ssh/id_ed25519", class::CREDENTIAL),
            ("/home/user/.ssh/id_ed25519.pub", 0),
            ("/home/user/.bash_history", class::CREDENTIAL | class::LOG | class::HIDDEN),
            ("/home/user/.config/autostart/x.desktop", class::PERSISTENCE),
            ("/home/user/project/.git/hooks/pre-push.sample", 0),
            ("/home/user/project/.git/hooks/pre-push", class::PERSISTENCE),
            ("/var/log/auth.log", class::LOG),
            ("/home/user/notes.txt", 0),
            ("pipe:[123]", class::DEVICE),
        ];
        for (path, expected) in cases {
            assert_eq!(classify(path, PathDigest::of(path).name), expected, "{path}");
        }
    }
}
