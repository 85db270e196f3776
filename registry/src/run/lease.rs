//! The lease: how a running run shows that its process lives, without having to say so when it dies.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bellwether_artifact::{canonical_json_pretty, durable};
use serde::{Deserialize, Serialize};

use super::manifest::read_json;
use crate::{RegistryError, clock};

/// How often a running run renews its lease.
const BEAT: Duration = Duration::from_secs(10);

/// How old a lease of another machine may be before its run counts as aborted: six missed beats.
const STALE_MS: u64 = 60_000;

/// The content of `lease.json`: which process works on a run, and when it last said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Identity of the boot of the machine; null where the system has none.
    pub boot_id: Option<String>,
    /// Namespace in which `pid` counts; null where the system has none.
    pub pid_namespace: Option<String>,
    /// The process.
    pub pid: u32,
    /// When the process started, in clock ticks since boot, so that a later process of the same number is another one.
    pub process_start: Option<u64>,
    /// The last sign of life, in milliseconds since 1970.
    pub heartbeat_unix_ms: u64,
}

impl Lease {
    /// A lease of this process, as of now.
    pub fn of_this_process() -> Lease {
        let pid = std::process::id();
        Lease {
            boot_id: clock::boot_id(),
            pid_namespace: clock::pid_namespace(),
            pid,
            process_start: clock::process_start(pid),
            heartbeat_unix_ms: clock::unix_ms(),
        }
    }

    /// Whether the process of this lease still lives at `now_unix_ms`. On the machine and in the namespace of that process
    /// its own existence decides at once; anywhere else the age of the last heartbeat does, and a late heartbeat revives.
    pub fn is_live(&self, now_unix_ms: u64) -> bool {
        let same_boot = self.boot_id.is_some() && self.boot_id == clock::boot_id();
        if same_boot && self.pid_namespace == clock::pid_namespace() && self.process_start.is_some() {
            return clock::process_start(self.pid) == self.process_start;
        }
        now_unix_ms.saturating_sub(self.heartbeat_unix_ms) < STALE_MS
    }

    /// Reads a lease; `None` where there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Lease>, RegistryError> {
        if path.exists() { read_json(path).map(Some) } else { Ok(None) }
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), RegistryError> {
        durable::write_bytes(path, canonical_json_pretty(self)?.as_bytes())?;
        Ok(())
    }
}

/// Renews a lease in the background until dropped.
#[derive(Debug)]
pub(super) struct Heartbeat {
    path: PathBuf,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    pub(super) fn start(path: PathBuf) -> Heartbeat {
        let (stop, stopped) = mpsc::channel();
        let lease_path = path.clone();
        let beat = move || {
            while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                // A full disk must not end a run: the next beat may succeed, and this machine looks at the process anyway.
                let _ = Lease::of_this_process().write(&lease_path);
            }
        };
        // Without a thread the lease only ages, which other machines alone would notice.
        let thread = thread::Builder::new().name("lease".into()).spawn(beat).ok();
        Heartbeat { path, stop: Some(stop), thread }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Leaving the file behind would do no harm: this process will not exist for long.
        let _ = durable::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lives_as_long_as_its_process() {
        let lease = Lease::of_this_process();
        assert!(lease.is_live(lease.heartbeat_unix_ms));
        assert!(lease.is_live(u64::MAX), "on its own machine the process decides, not the heartbeat's age");
        let recycled = Lease { process_start: lease.process_start.map(|start| start + 1), ..lease.clone() };
        assert!(!recycled.is_live(lease.heartbeat_unix_ms), "another process of the same number");
    }

    #[test]
    fn elsewhere_the_heartbeat_decides() {
        let lease = Lease { boot_id: Some("another machine".into()), ..Lease::of_this_process() };
        let beat = lease.heartbeat_unix_ms;
        assert!(lease.is_live(beat + STALE_MS - 1));
        assert!(!lease.is_live(beat + STALE_MS));
        assert!(lease.is_live(beat - 5), "clocks of two machines differ a little");
    }
}
