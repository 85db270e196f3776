//! What a path tells by itself: its folder, its extension and the class of file that it names.

use std::sync::LazyLock;

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

/// What stands before the last separator of a path, and what follows it.
pub(super) fn split(path: &str) -> (&str, &str) {
    match path.bytes().rposition(|byte| matches!(byte, b'/' | b'\\')) {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => ("", path),
    }
}

/// The extension of a path's name without its dot: 1 to 12 bytes after the last dot, which must not open the name.
pub(super) fn extension(path: &str) -> Option<&str> {
    let (stem, extension) = split(path).1.rsplit_once('.')?;
    (!stem.is_empty() && (1..=12).contains(&extension.len())).then_some(extension)
}

/// The rules above, so that one pass over a path finds all classes.
#[derive(Debug)]
pub(super) struct PathRules {
    starts: Texts,
    parts: Texts,
}

impl PathRules {
    /// The rules of the feature specification.
    pub(super) fn get() -> &'static PathRules {
        static RULES: LazyLock<PathRules> = LazyLock::new(|| PathRules {
            starts: Texts::new(&[
                (class::DEVICE, &DEVICE_PREFIXES),
                (class::SYSTEM, &SYSTEM_PREFIXES),
                (class::SCRATCH, &SCRATCH_PREFIXES),
            ]),
            parts: Texts::new(&[
                (class::CREDENTIAL, &CREDENTIAL_PARTS),
                (class::PERSISTENCE, &PERSISTENCE_PARTS),
                (class::LOG, &LOG_PARTS),
            ]),
        });
        &RULES
    }

    /// The classes of a path, as bits of [`class`].
    pub(super) fn classify(&self, path: &str) -> u32 {
        let mut found = self.starts.at_start(path.as_bytes());
        if found & class::DEVICE != 0 {
            if found & class::SCRATCH == 0 {
                return class::DEVICE;
            }
            found &= !class::DEVICE;
        }
        found |= self.parts.anywhere(path.as_bytes());
        let (_, name) = split(path);
        if name.ends_with(".pub") {
            found &= !class::CREDENTIAL;
        }
        // Git copies samples of its hooks into every new repository; nothing runs them.
        if name.ends_with(".sample") {
            found &= !class::PERSISTENCE;
        }
        if name.ends_with(".log") || name.ends_with("_history") {
            found |= class::LOG;
        }
        if name.starts_with('.') && name.len() > 1 {
            found |= class::HIDDEN;
        }
        found
    }
}

/// Texts to look for, each with the class that it stands for, as a tree of their bytes.
#[derive(Debug)]
struct Texts {
    /// Column of each byte in `next`; bytes of no text share column 0.
    columns: [u8; 256],
    /// For each node and column the node that follows.
    next: Vec<[u16; COLUMNS]>,
    /// For each node the classes of the texts that end there.
    found: Vec<u32>,
}

/// Different bytes in the texts of a tree, at most, and one for all others.
const COLUMNS: usize = 64;
/// No text goes on like this; neither does anything that follows.
const NOWHERE: u16 = 0;
const ROOT: u16 = 1;
/// No text that is looked for anywhere is shorter.
const SHORTEST: usize = 3;

impl Texts {
    fn new(classes: &[(u32, &[&str])]) -> Texts {
        let nothing = [NOWHERE; COLUMNS];
        let mut tree = Texts { columns: [0; 256], next: vec![nothing; 2], found: vec![0; 2] };
        let mut columns = 1;
        for (class, text) in classes.iter().flat_map(|(class, texts)| texts.iter().map(move |text| (class, text))) {
            let mut node = ROOT;
            for byte in text.bytes() {
                let column = &mut tree.columns[usize::from(byte)];
                if *column == 0 {
                    *column = columns;
                    columns += 1;
                }
                let column = usize::from(*column);
                if tree.next[usize::from(node)][column] == NOWHERE {
                    tree.next[usize::from(node)][column] = tree.found.len() as u16;
                    tree.next.push(nothing);
                    tree.found.push(0);
                }
                node = tree.next[usize::from(node)][column];
            }
            tree.found[usize::from(node)] |= class;
        }
        tree
    }

    #[inline]
    fn step(&self, node: u16, byte: u8) -> u16 {
        self.next[usize::from(node)][usize::from(self.columns[usize::from(byte)]) % COLUMNS]
    }

    /// The classes of the texts that `bytes` start with.
    #[inline]
    fn at_start(&self, bytes: &[u8]) -> u32 {
        let (mut node, mut found) = (ROOT, 0);
        for byte in bytes {
            node = self.step(node, *byte);
            if node == NOWHERE {
                break;
            }
            found |= self.found[usize::from(node)];
        }
        found
    }

    /// The classes of the texts that `bytes` contain.
    fn anywhere(&self, bytes: &[u8]) -> u32 {
        let mut found = 0;
        for (at, window) in bytes.windows(SHORTEST).enumerate() {
            // Hardly any place lets a text begin with three bytes, so that this is one decision, and nearly always no.
            if window.iter().fold(ROOT, |node, byte| self.step(node, *byte)) != NOWHERE {
                found |= self.at_start(&bytes[at..]);
            }
        }
        found
    }
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_taken_apart() {
        let cases = [
            ("/home/user/a.tar.gz", "/home/user", "a.tar.gz", Some("gz")),
            ("/home/user/.bashrc", "/home/user", ".bashrc", None),
            ("/home/user/", "/home/user", "", None),
            ("plain", "", "plain", None),
            ("", "", "", None),
            ("/", "", "", None),
            ("C:\\x\\report.docx", "C:\\x", "report.docx", Some("docx")),
            ("/a/x.", "/a", "x.", None),
        ];
        for (path, folder, name, ending) in cases {
            assert_eq!((split(path), extension(path)), ((folder, name), ending), "{path}");
        }
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
            assert_eq!(PathRules::get().classify(path), expected, "{path}");
        }
    }

    /// The rules, as their text has them.
    fn by_the_rules(path: &str) -> u32 {
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
        let contains = |parts: &[&str]| parts.iter().any(|part| path.contains(part));
        let (_, name) = split(path);
        let scratch = starts(&SCRATCH_PREFIXES);
        if starts(&DEVICE_PREFIXES) && !scratch {
            return class::DEVICE;
        }
        [
            (class::SCRATCH, scratch),
            (class::SYSTEM, starts(&SYSTEM_PREFIXES)),
            (class::CREDENTIAL, contains(&CREDENTIAL_PARTS) && !name.ends_with(".pub")),
            (class::PERSISTENCE, contains(&PERSISTENCE_PARTS) && !name.ends_with(".sample")),
            (class::LOG, contains(&LOG_PARTS) || name.ends_with(".log") || name.ends_with("_history")),
            (class::HIDDEN, name.starts_with('.') && name.len() > 1),
        ]
        .into_iter()
        .map(|(class, holds)| if holds { class } else { 0 })
        .sum()
    }

    /// Texts of the rules, whole, cut short or joined to others.
    fn path() -> impl Strategy<Value = String> {
        let texts: Vec<&'static str> = [
            &DEVICE_PREFIXES[..],
            &SYSTEM_PREFIXES,
            &SCRATCH_PREFIXES,
            &CREDENTIAL_PARTS,
            &PERSISTENCE_PARTS,
            &LOG_PARTS,
            &[".pub", ".sample", ".log", "_history", "/", "\\", "/home/user/", "."],
        ]
        .concat();
        let text = (prop::sample::select(texts), 0_usize..30).prop_map(|(text, cut)| match cut {
            cut if cut > 0 && cut < text.len() => text[..cut].to_owned(),
            _ => text.to_owned(),
        });
        prop::collection::vec(prop_oneof![4 => text, 1 => "[a-z/.é_]{0,6}"], 0..5).prop_map(|texts| texts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]
        #[test]
        fn one_pass_finds_what_the_rules_say(path in path()) {
            prop_assert_eq!(PathRules::get().classify(&path), by_the_rules(&path));
        }
    }
}
