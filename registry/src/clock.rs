//! The wall clock and the identity of this boot: the only place that reads them.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 in UTC; 0 on a machine whose clock is set earlier.
#[expect(clippy::disallowed_methods, reason = "this is the one place; the value goes into files that are never hashed")]
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// The identity of this boot of this machine, where the system tells (Linux).
pub(crate) fn boot_id() -> Option<String> {
    read_short("/proc/sys/kernel/random/boot_id")
}

/// The namespace in which this process' number is meaningful, where the system tells (Linux).
pub(crate) fn pid_namespace() -> Option<String> {
    fs::read_link("/proc/self/ns/pid").ok().map(|link| link.to_string_lossy().into_owned())
}

/// When process `pid` started, in clock ticks since boot; `None` where there is no such process, or it has died and only
/// waits for its parent to notice, or the system does not tell.
pub(crate) fn process_start(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may itself hold spaces and brackets.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    let state = *fields.first()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    // Field 22 of proc_pid_stat(5); the first here is field 3.
    fields.get(19)?.parse().ok()
}

/// The host's name, where the system tells (Linux).
pub(crate) fn host_name() -> Option<String> {
    read_short("/proc/sys/kernel/hostname")
}

fn read_short(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_start_and_a_dead_one_has_none() {
        assert!(process_start(std::process::id()).is_some());
        let mut child = std::process::Command::new("sh").args(["-c", "exec sleep 60"]).spawn().unwrap();
        let pid = child.id();
        assert!(process_start(pid).is_some());
        child.kill().unwrap();
        // Killed but not waited for: it is a zombie by the time its state is seen as one.
        while process_start(pid).is_some() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(process_start(pid), None);
    }
}
