//! What the process uses up, under the names that scrapers know from everywhere.

use std::time::Duration;
use std::{fmt, fs};

use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};
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

fn resident_bytes() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages as f64 * page_size() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        let bytes = resident_bytes().unwrap();
        assert!((1e5..1e12).contains(&bytes), "{bytes}");
    }
}
