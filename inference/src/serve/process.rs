//! What the process uses up, under the names that scrapers know from everywhere, and the files that it may open.

use std::time::Duration;
use std::{fmt, fs};

use rustix::param::page_size;
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::metrics::{Page, Source};

/// The process, as the system tells of it. What it does not tell is left out.
#[derive(Debug)]
pub(super) struct Process;

impl Source for Process {
    fn tell(&self, page: &mut Page<'_>) -> fmt::Result {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let used = Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32);
        page.seconds("process_cpu", "Processor time of all threads, in the kernel too", used)?;
        if let Some(bytes) = resident_bytes() {
            page.gauge("process_resident_memory_bytes", "Memory that is resident", bytes)?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is the list itself.
            page.gauge("process_open_fds", "File descriptors that are open", open.count().saturating_sub(1) as f64)?;
        }
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            page.gauge("process_max_fds", "File descriptors that may be open", limit as f64)?;
        }
        Ok(())
    }
}

/// Files that a server has open beside its connections: listeners, logs, event loops, a release that is read.
const OTHER_FILES: u64 = 64;

/// Lets the process open as many files as this many connections want. Many systems grant 1024 until somebody asks for more, and
/// idle clients would use those up long before `limits.connections` turns anybody away.
pub(super) fn make_room_for(connections: usize) {
    let wanted = connections as u64 + OTHER_FILES;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|files| files >= wanted) {
        return;
    }
    limit.current = Some(limit.maximum.map_or(wanted, |most| most.min(wanted)));
    let refused = setrlimit(Resource::Nofile, limit).err().map(|error| error.to_string());
    let files = getrlimit(Resource::Nofile).current;
    if files.is_some_and(|files| files < wanted) {
        let refused = refused.unwrap_or_default();
        tracing::warn!(
            files,
            wanted,
            refused,
            "fewer files may be open than limits.connections wants: raise the limit (ulimit -n)"
        );
    }
}

fn resident_bytes() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages as f64 * page_size() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_files_is_raised_as_far_as_it_may_be() {
        let before = getrlimit(Resource::Nofile);
        let Some(files) = before.current else { return eprintln!("skipped: the_limit_of_files: this system has none") };
        for connections in [1, files as usize] {
            make_room_for(connections);
            let wanted = (connections as u64 + OTHER_FILES).max(files);
            let after = getrlimit(Resource::Nofile);
            assert_eq!(after.current, Some(before.maximum.map_or(wanted, |most| most.min(wanted))));
        }
    }

    #[test]
    fn this_process_has_memory() {
        let bytes = resident_bytes().unwrap();
        assert!((1e5..1e12).contains(&bytes), "{bytes}");
    }
}
