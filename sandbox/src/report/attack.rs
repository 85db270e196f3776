//! Which technique of MITRE ATT&CK (Enterprise, version 17) a behaviour is, and why.

use std::sync::LazyLock;

use bellwether_env_adapter::Event;
use bellwether_env_adapter::behaviour::{Facts, SIGN_COUNT, Sign, Tracker};
use serde::Serialize;

use Sign::{
    ChangeExtension, CredentialProbed, CredentialRead, DecoyChanged, DecoyRemoved, Exec, ForeignDelete, ForeignTimes,
    HiddenCreated, HighEntropy, Inject, Kernel, LogRemoved, MemoryFile, Mount, NewFolder, NewPort, ReadProcess,
    ReadThenRemoved, ReadThenWritten, SelfDeleted, Send,
};

/// A technique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Technique {
    /// Its number: `T1486`, `T1070.004`.
    pub id: &'static str,
    /// Its name; of a sub-technique, that of the technique stands before it.
    pub name: &'static str,
    /// What it is for.
    pub tactic: Tactic,
}

/// What a technique is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are those of ATT&CK")]
pub enum Tactic {
    Execution,
    Persistence,
    PrivilegeEscalation,
    DefenseEvasion,
    CredentialAccess,
    Discovery,
    Exfiltration,
    Impact,
}

/// A behaviour that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// What it is called here.
    pub behaviour: &'static str,
    /// In ATT&CK's terms.
    pub technique: Technique,
    /// Why the one is the other.
    pub why: &'static str,
    /// Stage of the event that completed it.
    pub stage: u8,
    /// Number of that event.
    pub seq: u64,
    /// Path of that event.
    pub path: Option<String>,
    /// Times that its last part was seen from then on.
    pub count: u64,
}

/// A row of the table.
struct Rule {
    behaviour: &'static str,
    technique: Technique,
    why: &'static str,
    when: When,
}

/// When a behaviour was seen.
enum When {
    /// Each sign was given at least so often within a stage.
    Signs(&'static [(Sign, u64)]),
    /// The sign was given by an event on a path that holds one of these.
    Path(Sign, &'static [&'static str]),
    /// One of these calls succeeded.
    Call(&'static [&'static str]),
    /// Mode bits that lend rights were set.
    SetId,
    /// The sample slept for so many seconds in all.
    Slept(u64),
    /// The command line or state of other processes was read so often.
    ProcessList(u64),
}

const fn technique(id: &'static str, name: &'static str, tactic: Tactic) -> Technique {
    Technique { id, name, tactic }
}

macro_rules! rules {
    ($($behaviour:literal is $id:literal $name:literal for $tactic:ident when $when:expr, because $why:literal;)+) => {
        const RULES: &[Rule] = &[$(Rule {
            behaviour: $behaviour,
            technique: technique($id, $name, Tactic::$tactic),
            why: $why,
            when: $when,
        },)+];
    };
}

rules! {
    "files_encrypted_in_place" is "T1486" "Data Encrypted for Impact" for Impact
        when When::Signs(&[(HighEntropy, 3), (ReadThenWritten, 3)]),
        because "files are read and then overwritten with what looks encrypted";
    "files_encrypted_aside" is "T1486" "Data Encrypted for Impact" for Impact
        when When::Signs(&[(HighEntropy, 3), (ReadThenRemoved, 3)]),
        because "what looks encrypted is written, and the files that were read are removed or renamed";
    "extensions_changed" is "T1486" "Data Encrypted for Impact" for Impact
        when When::Signs(&[(HighEntropy, 3), (ChangeExtension, 3)]),
        because "what looks encrypted is written, and files get another extension";
    "decoys_changed" is "T1565.001" "Data Manipulation: Stored Data Manipulation" for Impact
        when When::Signs(&[(DecoyChanged, 1)]),
        because "a planted document, with which nobody has business, is overwritten";
    "decoys_removed" is "T1485" "Data Destruction" for Impact
        when When::Signs(&[(DecoyRemoved, 1)]),
        because "a planted document, with which nobody has business, is removed";
    "many_files_removed" is "T1485" "Data Destruction" for Impact
        when When::Signs(&[(ForeignDelete, 10)]),
        because "many files are removed that the sample did not make";
    "credentials_read" is "T1552.001" "Unsecured Credentials: Credentials In Files" for CredentialAccess
        when When::Signs(&[(CredentialRead, 1)]),
        because "a file of credentials is read that the sample did not make";
    "private_keys_read" is "T1552.004" "Unsecured Credentials: Private Keys" for CredentialAccess
        when When::Path(CredentialRead, &["/.ssh/id_", "/.ssh/identity", "/etc/ssh/ssh_host_", "/.gnupg/"]),
        because "a private key is read";
    "shell_history_read" is "T1552.003" "Unsecured Credentials: Bash History" for CredentialAccess
        when When::Path(CredentialRead, &["_history"]),
        because "the history of a shell is read, which often holds passwords";
    "browser_credentials_read" is "T1555.003" "Credentials from Password Stores: Credentials from Web Browsers" for CredentialAccess
        when When::Path(CredentialRead, &["/logins.json", "/key3.db", "/key4.db", "/signons.sqlite", "/Login Data", "/Cookies", "/cookies.sqlite"]),
        because "the passwords or cookies of a browser are read";
    "password_hashes_read" is "T1003.008" "OS Credential Dumping: /etc/passwd and /etc/shadow" for CredentialAccess
        when When::Path(CredentialRead, &["/etc/shadow", "/etc/gshadow"]),
        because "the hashes of passwords are read";
    "credentials_sought" is "T1552.001" "Unsecured Credentials: Credentials In Files" for CredentialAccess
        when When::Signs(&[(CredentialProbed, 3)]),
        because "several files of credentials are asked for that are not there";
    "memory_of_processes_read" is "T1003.007" "OS Credential Dumping: Proc Filesystem" for CredentialAccess
        when When::Signs(&[(ReadProcess, 1)]),
        because "the memory of another process is read";
    "code_injected" is "T1055.008" "Process Injection: Ptrace System Calls" for PrivilegeEscalation
        when When::Signs(&[(Inject, 1)]),
        because "another process is traced, or its memory written";
    "run_from_memory" is "T1620" "Reflective Code Loading" for DefenseEvasion
        when When::Signs(&[(MemoryFile, 1), (Exec, 1)]),
        because "a file that lives in memory alone is made for execution";
    "set_id_bits" is "T1548.001" "Abuse Elevation Control Mechanism: Setuid and Setgid" for PrivilegeEscalation
        when When::SetId,
        because "a file is given bits that lend the rights of its owner";
    "cron_job_written" is "T1053.003" "Scheduled Task/Job: Cron" for Persistence
        when When::Path(Sign::PersistenceWritten, &["/cron"]),
        because "a table of cron is written";
    "systemd_unit_written" is "T1543.002" "Create or Modify System Process: Systemd Service" for Persistence
        when When::Path(Sign::PersistenceWritten, &["/systemd/"]),
        because "a unit of systemd is written";
    "shell_start_written" is "T1546.004" "Event Triggered Execution: Unix Shell Configuration Modification" for Persistence
        when When::Path(Sign::PersistenceWritten, &["/.bash", "/.profile", "/.zsh", "/etc/profile", "/etc/bash", "config.fish"]),
        because "what a shell runs when it starts is written";
    "autostart_written" is "T1547.013" "Boot or Logon Autostart Execution: XDG Autostart Entries" for Persistence
        when When::Path(Sign::PersistenceWritten, &["/autostart/"]),
        because "what a desktop starts at login is written";
    "authorized_key_written" is "T1098.004" "Account Manipulation: SSH Authorized Keys" for Persistence
        when When::Path(Sign::PersistenceWritten, &["/.ssh/authorized_keys"]),
        because "a key is written that may log in";
    "preload_written" is "T1574.006" "Hijack Execution Flow: Dynamic Linker Hijacking" for Persistence
        when When::Path(Sign::PersistenceWritten, &["ld.so.preload", "ld.so.conf"]),
        because "what the linker loads into every program is written";
    "init_script_written" is "T1037.004" "Boot or Logon Initialization Scripts: RC Scripts" for Persistence
        when When::Path(Sign::PersistenceWritten, &["/init.d/", "/rc.local", "/rc.d/"]),
        because "a script is written that runs when the host starts";
    "kernel_extended" is "T1547.006" "Boot or Logon Autostart Execution: Kernel Modules and Extensions" for Persistence
        when When::Signs(&[(Kernel, 1)]),
        because "the kernel is to be extended, or one of its privileged interfaces used";
    "removed_itself" is "T1070.004" "Indicator Removal: File Deletion" for DefenseEvasion
        when When::Signs(&[(SelfDeleted, 1)]),
        because "the sample, or a program that it ran, removes its own file";
    "logs_removed" is "T1070.002" "Indicator Removal: Clear Linux or Mac System Logs" for DefenseEvasion
        when When::Signs(&[(LogRemoved, 1)]),
        because "a log is removed or emptied that the sample did not make";
    "times_set" is "T1070.006" "Indicator Removal: Timestomp" for DefenseEvasion
        when When::Signs(&[(ForeignTimes, 1)]),
        because "the times of a file are set that the sample did not make";
    "hidden_files_made" is "T1564.001" "Hide Artifacts: Hidden Files and Directories" for DefenseEvasion
        when When::Signs(&[(HiddenCreated, 1)]),
        because "a file is made whose name begins with a dot";
    "waited_long" is "T1497.003" "Virtualization/Sandbox Evasion: Time Based Evasion" for DefenseEvasion
        when When::Slept(10),
        because "the sample sleeps for long, as if to outlast whoever watches";
    "escape_tried" is "T1611" "Escape to Host" for PrivilegeEscalation
        when When::Signs(&[(Mount, 1)]),
        because "mounts, roots or namespaces are to be changed";
    "shell_run" is "T1059.004" "Command and Scripting Interpreter: Unix Shell" for Execution
        when When::Path(Exec, &["/bin/sh", "/bin/bash", "/bin/dash", "/bin/zsh", "/bin/busybox"]),
        because "a shell is run";
    "python_run" is "T1059.006" "Command and Scripting Interpreter: Python" for Execution
        when When::Path(Exec, &["/bin/python"]),
        because "Python is run";
    "files_sought" is "T1083" "File and Directory Discovery" for Discovery
        when When::Signs(&[(NewFolder, 10)]),
        because "many folders outside the system's are visited";
    "processes_sought" is "T1057" "Process Discovery" for Discovery
        when When::ProcessList(5),
        because "the state or command line of several processes is read";
    "system_asked" is "T1082" "System Information Discovery" for Discovery
        when When::Call(&["uname"]),
        because "the sample asks which system this is";
    "ports_tried" is "T1046" "Network Service Discovery" for Discovery
        when When::Signs(&[(NewPort, 10)]),
        because "many ports of peers are connected to";
    "credentials_sent" is "T1041" "Exfiltration Over C2 Channel" for Exfiltration
        when When::Signs(&[(CredentialRead, 1), (Send, 1)]),
        because "bytes are sent to a peer after credentials were read";
}

/// Finds behaviours in the events of an episode. Memory is bounded by the table and the tracker.
pub(super) struct Finder {
    tracker: Tracker,
    stage: u8,
    signs: [u64; SIGN_COUNT],
    slept_ns: u64,
    processes_read: u64,
    found: Vec<Option<Seen>>,
}

impl Default for Finder {
    fn default() -> Finder {
        Finder {
            tracker: Tracker::default(),
            stage: 1,
            signs: [0; SIGN_COUNT],
            slept_ns: 0,
            processes_read: 0,
            found: RULES.iter().map(|_| None).collect(),
        }
    }
}

impl Finder {
    /// Takes the next event; returns what it means.
    pub(super) fn observe(&mut self, event: &Event<'_>) -> Facts {
        if event.stage != self.stage {
            self.tracker.clear();
            (self.stage, self.signs, self.slept_ns, self.processes_read) = (event.stage, [0; SIGN_COUNT], 0, 0);
        }
        let facts = self.tracker.observe(event);
        facts.signs.numbers().for_each(|number| self.signs[number] += 1);
        self.slept_ns = self.slept_ns.saturating_add(facts.slept_ns);
        let reads_process = reads_process(event, &facts);
        self.processes_read += u64::from(reads_process);
        for (rule, found) in RULES.iter().zip(&mut self.found) {
            let (part, whole) = match rule.when {
                When::Signs(signs) => (
                    signs.iter().any(|(sign, _)| facts.signs.has(*sign)),
                    signs.iter().all(|(sign, least)| self.signs[*sign as usize] >= *least),
                ),
                When::Path(sign, parts) => {
                    let on = |path: &str| parts.iter().any(|part| path.contains(part));
                    let here = event.path.is_some_and(on) || event.path2.is_some_and(on);
                    (facts.signs.has(sign) && here, true)
                }
                When::Call(names) => (!facts.failed && names.contains(&event.name), true),
                When::SetId => (!facts.failed && sets_id(event), true),
                When::Slept(seconds) => (facts.slept_ns > 0, self.slept_ns >= seconds * 1_000_000_000),
                When::ProcessList(least) => (reads_process, self.processes_read >= least),
            };
            if part && whole {
                let seen = found.get_or_insert_with(|| Seen {
                    behaviour: rule.behaviour,
                    technique: rule.technique,
                    why: rule.why,
                    stage: event.stage,
                    seq: event.seq,
                    path: event.path.map(str::to_owned),
                    count: 0,
                });
                seen.count += 1;
            }
        }
        facts
    }

    /// The behaviours that were seen, in the order of the table.
    pub(super) fn seen(self) -> Vec<Seen> {
        self.found.into_iter().flatten().collect()
    }
}

impl Technique {
    /// Number and name of the technique without the sub-technique.
    pub fn parent(&self) -> (&'static str, &'static str) {
        let id = self.id.split_once('.').map_or(self.id, |(id, _)| id);
        let name = self.name.split_once(": ").map_or(self.name, |(name, _)| name);
        (id, if id == self.id { self.name } else { name })
    }

    /// Whether it is a sub-technique.
    pub fn is_sub(&self) -> bool {
        self.id.contains('.')
    }
}

impl Tactic {
    /// Number and name.
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Tactic::Execution => ("TA0002", "Execution"),
            Tactic::Persistence => ("TA0003", "Persistence"),
            Tactic::PrivilegeEscalation => ("TA0004", "Privilege Escalation"),
            Tactic::DefenseEvasion => ("TA0005", "Defense Evasion"),
            Tactic::CredentialAccess => ("TA0006", "Credential Access"),
            Tactic::Discovery => ("TA0007", "Discovery"),
            Tactic::Exfiltration => ("TA0010", "Exfiltration"),
            Tactic::Impact => ("TA0040", "Impact"),
        }
    }
}

/// Every behaviour of the table with its technique and the reason, sorted by technique: what docs list.
pub fn behaviours() -> &'static [(&'static str, Technique, &'static str)] {
    static TABLE: LazyLock<Vec<(&'static str, Technique, &'static str)>> = LazyLock::new(|| {
        let mut table: Vec<_> = RULES.iter().map(|rule| (rule.behaviour, rule.technique, rule.why)).collect();
        table.sort_by_key(|(behaviour, technique, _)| (technique.id, *behaviour));
        table
    });
    &TABLE
}

/// Whether a mode with set-user-id or set-group-id is given to a file.
fn sets_id(event: &Event<'_>) -> bool {
    let mode = event.args.and_then(|args| u32::from_str_radix(args.trim().trim_start_matches("0o"), 8).ok());
    matches!(event.name, "chmod" | "fchmod" | "fchmodat" | "fchmodat2") && mode.is_some_and(|mode| mode & 0o6000 != 0)
}

fn reads_process(event: &Event<'_>, facts: &Facts) -> bool {
    let state = |path: &str| {
        let mut parts = path.strip_prefix("/proc/")?.splitn(2, '/');
        let number = parts.next()?.parse::<u32>().is_ok();
        let asked = matches!(parts.next()?, "cmdline" | "stat" | "status" | "comm" | "environ" | "maps" | "exe");
        Some(number && asked)
    };
    facts.signs.has(Sign::Open) && event.path.and_then(state).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use bellwether_env_adapter::EventKind;
    use bellwether_env_adapter::event::flags;

    use super::*;

    fn seen(events: &[Event<'_>]) -> Vec<&'static str> {
        let mut finder = Finder::default();
        for event in events {
            finder.observe(event);
        }
        finder.seen().into_iter().map(|seen| seen.behaviour).collect()
    }

    fn file<'a>(name: &'a str, path: &'a str) -> Event<'a> {
        Event { path: Some(path), pid: Some(1), ret: Some(3), ..Event::named(0, EventKind::File, name) }
    }

    #[test]
    fn behaviours_are_found_where_they_are_and_nowhere_else() {
        let open = |path, flags| Event { flags: Some(flags), ..file("openat", path) };
        let read = |path| Event { bytes: Some(9), ret: Some(9), ..file("read", path) };
        let write = |path| Event { bytes: Some(4096), ret: Some(4096), entropy: Some(7.9), ..file("write", path) };
        assert_eq!(seen(&[open("/home/u/a.txt", flags::READ), read("/home/u/a.txt")]), [""; 0]);
        let mut encrypting = Vec::new();
        for path in ["/home/u/a.doc", "/home/u/b.doc", "/home/u/c.doc"] {
            encrypting.extend([open(path, flags::READ | flags::WRITE), read(path), write(path)]);
        }
        assert_eq!(seen(&encrypting), ["files_encrypted_in_place"]);
        assert_eq!(seen(&encrypting[..6]), [""; 0], "two files are too few");
        let key = "/home/u/.ssh/id_rsa";
        assert_eq!(seen(&[open(key, flags::READ), read(key)]), ["credentials_read", "private_keys_read"]);
        let cron = "/etc/cron.d/job";
        assert_eq!(seen(&[open(cron, flags::WRITE | flags::CREATE), write(cron)])[0], "cron_job_written");
        let chmod = |args| Event { args: Some(args), ret: Some(0), ..file("chmod", "/tmp/x") };
        assert_eq!(seen(&[chmod("04755")]), ["set_id_bits"]);
        assert_eq!(seen(&[chmod("0755")]), [""; 0]);
    }

    #[test]
    fn counts_start_anew_in_the_second_stage() {
        let remove = |stage, path| Event { stage, ret: Some(0), ..file("unlink", path) };
        let names: Vec<String> = (0..12).map(|number| format!("/home/u/{number}")).collect();
        let split: Vec<_> =
            names.iter().enumerate().map(|(at, name)| remove(1 + at as u8 / 6, name.as_str())).collect();
        assert!(!seen(&split).contains(&"many_files_removed"));
        let whole: Vec<_> = names.iter().map(|name| remove(1, name.as_str())).collect();
        assert!(seen(&whole).contains(&"many_files_removed"));
    }

    #[test]
    fn the_table_is_well_formed() {
        let mut names = std::collections::BTreeSet::new();
        for (behaviour, technique, why) in behaviours() {
            assert!(names.insert(behaviour), "{behaviour} occurs twice");
            let (id, sub) = technique.id.split_once('.').unwrap_or((technique.id, "000"));
            let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
            assert!(id.strip_prefix('T').is_some_and(|id| digits(id, 4)) && digits(sub, 3), "{}", technique.id);
            assert_eq!(technique.is_sub(), technique.name.contains(": "), "{}", technique.name);
            assert!(!why.is_empty());
        }
    }
}
