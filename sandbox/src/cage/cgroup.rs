//! The control groups that a sample lives in: they bound its tasks and memory, name all of it, and kill it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use crate::Limits;

/// Which hierarchies this host has, and where this process is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    /// This process's group in the second version's hierarchy, and the point where that is mounted.
    pub(crate) unified: Option<Place>,
    /// The same for the first version's `pids`.
    pub(crate) pids: Option<Place>,
    /// The same for the first version's `memory`.
    pub(crate) memory: Option<Place>,
}

/// A group in a mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where the hierarchy is mounted.
    pub(crate) mount: PathBuf,
    /// The group's folder, at or below `mount`.
    pub(crate) group: PathBuf,
}

/// The groups of one sample: tells what is in them, kills it, and removes them when dropped.
#[derive(Debug)]
pub struct CgroupHandle {
    /// The second version's group, if the host has that hierarchy and lets us.
    unified: Option<PathBuf>,
    /// Groups of the first version: `pids` first, then `memory`.
    legacy: Vec<PathBuf>,
    /// Say to everybody that somebody still wants the groups.
    claims: Vec<File>,
    holds: Holds,
}

/// What the groups of a sample do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Holds {
    /// They bound the number of tasks.
    pub tasks: bool,
    /// They bound the memory.
    pub memory: bool,
    /// One write to `cgroup.kill` kills all that is in them.
    pub kill: bool,
    /// They list all that is in them, so that an empty group can be proven.
    pub listing: bool,
}

/// What the groups counted, read while they exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Pressure {
    /// Forks that were refused because of the bound on tasks; an ordinary user's limit of resources refuses them first.
    pub refused_forks: u64,
    /// Tasks that were killed because of the bound on memory.
    pub out_of_memory_kills: u64,
    /// Most memory that was held at once, in bytes.
    pub peak_memory_bytes: u64,
}

/// Processes that are held at once, by a descriptor each.
const AT_ONCE: usize = 128;

static NEXT: AtomicU64 = AtomicU64::new(0);

const PREFIX: &str = "bellwether-";

/// Names that are tried for a group.
const MOST_NAMES: usize = 64;

impl Hierarchies {
    /// Reads what is mounted here and where this process is; nothing where a file cannot be read.
    pub(crate) fn of_this_host() -> Hierarchies {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Hierarchies::read(&mounts, &groups)
    }

    fn read(mounts: &str, groups: &str) -> Hierarchies {
        let find = |kind: &str, controller: &str| {
            let group = groups.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let names = parts.next()?;
                let hit =
                    if controller.is_empty() { names.is_empty() } else { names.split(',').any(|n| n == controller) };
                hit.then(|| parts.next()).flatten()
            })?;
            mounts.lines().find_map(|line| {
                let (head, tail) = line.split_once(" - ")?;
                let mut tail = tail.split(' ');
                let (fs_kind, options) = (tail.next()?, tail.nth(1)?);
                if fs_kind != kind || (!controller.is_empty() && !options.split(',').any(|o| o == controller)) {
                    return None;
                }
                let mut head = head.split(' ').skip(3);
                let (root, mount) = (head.next()?, PathBuf::from(head.next()?));
                let below = Path::new(group).strip_prefix(root).ok()?;
                // Without the slash that an empty rest would leave at its end.
                Some(Place { group: mount.join(below).components().collect(), mount })
            })
        };
        Hierarchies { unified: find("cgroup2", ""), pids: find("cgroup", "pids"), memory: find("cgroup", "memory") }
    }
}

impl CgroupHandle {
    /// Makes groups for one sample below those of this process, or as near to them as the host lets us, and sets their bounds.
    /// What the host does not let us do is missing from [`CgroupHandle::holds`]; that is no error.
    pub(crate) fn new(limits: &Limits) -> CgroupHandle {
        let hosts = Hierarchies::of_this_host();
        // The tiny init of the sample counts as a task.
        let tasks = (u64::from(limits.tasks) + 1).to_string();
        let memory = limits.memory_bytes.to_string();
        let mut made = CgroupHandle { unified: None, legacy: Vec::new(), claims: Vec::new(), holds: Holds::default() };
        if let Some((group, claim)) = hosts.unified.as_ref().and_then(make_unified) {
            made.holds.tasks = set(&group, "pids.max", &tasks).is_ok();
            made.holds.memory = set(&group, "memory.max", &memory).is_ok();
            if made.holds.memory {
                // Without swap accounting there is no such file, and no swap to bound.
                set(&group, "memory.swap.max", "0").ok();
            }
            made.holds.kill = group.join("cgroup.kill").exists();
            made.holds.listing = true;
            made.unified = Some(group);
            made.claims.push(claim);
        }
        if !made.holds.tasks
            && let Some((group, claim)) = hosts.pids.as_ref().and_then(|place| make_near(place, &[]))
        {
            made.holds.tasks = set(&group, "pids.max", &tasks).is_ok();
            made.holds.listing = true;
            made.legacy.push(group);
            made.claims.push(claim);
        }
        if !made.holds.memory
            && let Some((group, claim)) = hosts.memory.as_ref().and_then(|place| make_near(place, &[]))
        {
            made.holds.memory = set(&group, "memory.limit_in_bytes", &memory).is_ok();
            // Present where swap is accounted for.
            set(&group, "memory.memsw.limit_in_bytes", &memory).ok();
            made.holds.listing = true;
            made.legacy.push(group);
            made.claims.push(claim);
        }
        made
    }

    /// What the groups do on this host.
    pub const fn holds(&self) -> Holds {
        self.holds
    }

    /// The folders of the groups, the second version's first.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.unified.iter().chain(&self.legacy).map(PathBuf::as_path)
    }

    /// Puts a process into the groups, and with it all that it will start.
    ///
    /// # Errors
    /// The first group that does not take it.
    pub(crate) fn admit(&self, pid: i32) -> Result<(), (PathBuf, io::Error)> {
        self.folders().try_for_each(|group| {
            set(group, "cgroup.procs", &pid.to_string()).map_err(|error| (group.to_owned(), error))
        })
    }

    /// Sends `SIGKILL` to everything in the groups: one write where the host has `cgroup.kill`, else one sweep.
    ///
    /// # Errors
    /// What the kernel reports. A sweep may miss what is being born; [`CgroupHandle::wait_empty`] repeats it.
    pub fn kill(&self) -> io::Result<()> {
        if self.holds.kill
            && let Some(group) = &self.unified
        {
            return set(group, "cgroup.kill", "1");
        }
        for numbers in self.processes()?.chunks(AT_ONCE) {
            let held = numbers.iter().filter_map(|&number| Some(hold(number)?.map(|process| (number, process))));
            self.kill_held(&held.collect::<io::Result<Vec<_>>>()?)?;
        }
        Ok(())
    }

    /// Kills those of the processes that are in the groups now that nobody else can take their numbers: a number that was listed may have
    /// come to be a stranger's before it was held.
    fn kill_held(&self, held: &[(i32, OwnedFd)]) -> io::Result<()> {
        let there = self.processes()?;
        for (_, process) in held.iter().filter(|(number, _)| there.binary_search(number).is_ok()) {
            match rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The processes in the groups, by their numbers on the host; none where no group can be listed.
    ///
    /// # Errors
    /// What reading a group reports.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let mut found = Vec::new();
        for group in self.folders() {
            let text = read(&group.join("cgroup.procs"))?;
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Whether nothing lives in the groups.
    ///
    /// # Errors
    /// What reading a group reports.
    pub fn is_empty(&self) -> io::Result<bool> {
        if let Some(group) = &self.unified {
            let events = read(&group.join("cgroup.events"))?;
            if !events.lines().any(|line| line == "populated 0") {
                return Ok(false);
            }
        }
        // A thread group whose first thread has ended is still listed by its number.
        Ok(self.processes()?.is_empty())
    }

    /// Waits until nothing lives in the groups, killing again what a sweep missed. Returns whether they are empty.
    ///
    /// # Errors
    /// What reading a group reports.
    pub fn wait_empty(&self, patience: Duration) -> io::Result<bool> {
        let started = Instant::now();
        let mut pause = Duration::from_micros(50);
        loop {
            if self.is_empty()? {
                return Ok(true);
            }
            if started.elapsed() >= patience {
                return Ok(false);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(2));
            if !self.holds.kill {
                self.kill()?;
            }
        }
    }

    /// What the groups counted so far.
    pub fn pressure(&self) -> Pressure {
        let number = |group: &Path, name: &str| read(&group.join(name)).ok()?.trim().parse::<u64>().ok();
        let field = |group: &Path, name: &str, key: &str| {
            let text = read(&group.join(name)).ok()?;
            text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok())
        };
        let mut seen = Pressure::default();
        for group in self.folders() {
            seen.refused_forks += field(group, "pids.events", "max ").unwrap_or(0);
            seen.out_of_memory_kills += field(group, "memory.events", "oom_kill ")
                .or_else(|| field(group, "memory.oom_control", "oom_kill "))
                .unwrap_or(0);
            let peak = number(group, "memory.peak").or_else(|| number(group, "memory.max_usage_in_bytes"));
            seen.peak_memory_bytes = seen.peak_memory_bytes.max(peak.unwrap_or(0));
        }
        seen
    }
}

/// Holds a process, so that its number cannot come to mean another one; nothing where it is gone.
fn hold(number: i32) -> Option<io::Result<OwnedFd>> {
    let pid = rustix::process::Pid::from_raw(number)?;
    match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => None,
        held => Some(held.map_err(io::Error::from)),
    }
}

impl Drop for CgroupHandle {
    fn drop(&mut self) {
        if self.is_empty().is_ok_and(|empty| !empty) {
            self.kill().ok();
            self.wait_empty(Duration::from_secs(2)).ok();
        }
        for group in self.folders() {
            remove(group);
        }
    }
}

/// A group can stay busy for a moment after its last task is gone.
fn remove(group: &Path) {
    for _ in 0..200 {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(Duration::from_millis(1)),
            _ => return,
        }
    }
}

fn make_unified(place: &Place) -> Option<(PathBuf, File)> {
    make_near(place, &["pids", "memory"])
}

/// Makes a group below the given one or, where that is not allowed, below one of its ancestors: where most of the `wanted`
/// controllers can be had. The first version's hierarchies want none.
fn make_near(place: &Place, wanted: &[&str]) -> Option<(PathBuf, File)> {
    let candidates: Vec<&Path> = place.group.ancestors().take_while(|path| path.starts_with(&place.mount)).collect();
    candidates.iter().for_each(|parent| sweep(parent));
    let enabled = |parent: &Path| wanted.iter().filter(|controller| enable(parent, controller)).count();
    // A group that takes no process is of no use: one among groups of threads, or one whose list this process may not write to. In the
    // second version's hierarchy it takes one from whoever may write to the list of the nearest group above both places, too.
    let takes = |group: &Path| {
        let invalid = read(&group.join("cgroup.type")).is_ok_and(|kind| kind.trim() == "domain invalid");
        !invalid && fs::OpenOptions::new().write(true).open(group.join("cgroup.procs")).is_ok()
    };
    let make = |parent: &Path| {
        if !(wanted.is_empty() || takes(parent)) {
            return None;
        }
        let (group, claim) = make_claimed(parent)?;
        if takes(&group) {
            return Some((group, claim));
        }
        fs::remove_dir(&group).ok();
        None
    };
    where_most(&candidates, wanted.len(), enabled, make)
}

/// Makes a group with a name of its own, and claims it. Processes of other namespaces make groups here too, and may have this one's
/// number.
fn make_claimed(parent: &Path) -> Option<(PathBuf, File)> {
    for _ in 0..MOST_NAMES {
        let group = parent.join(format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        match fs::create_dir(&group) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(_) => return None,
        }
        // Before it was claimed, another process may have taken it for one that nobody wants.
        if let Some(claim) = claim(&group, FlockOperation::LockShared) {
            return Some((group, claim));
        }
    }
    None
}

/// Claims a group: a lock that the kernel lets go of when its owner is gone, whatever number that had in whatever namespace.
fn claim(group: &Path, how: FlockOperation) -> Option<File> {
    let folder = File::open(group).ok()?;
    rustix::fs::flock(&folder, how).ok()?;
    let facts = folder.metadata().ok()?;
    // Under its name there may be another one by now, or none.
    fs::metadata(group).is_ok_and(|there| (there.dev(), there.ino()) == (facts.dev(), facts.ino())).then_some(folder)
}

/// What is made at the first of the places where `count` is highest, of those where it can be made.
fn where_most<T>(
    places: &[&Path],
    most: usize,
    count: impl Fn(&Path) -> usize,
    make: impl Fn(&Path) -> Option<T>,
) -> Option<T> {
    let at_least = |least: usize| places.iter().filter(|place| count(place) >= least).find_map(|place| make(place));
    (0..=most).rev().find_map(at_least)
}

/// Whether groups below `parent` have the controller, after asking for it.
///
/// Nothing is asked of a group that has processes, unless it is the first of its hierarchy, which alone has no type: the kernel would
/// refuse `memory`, and with `pids` make it one of threads, below which no group takes a process.
fn enable(parent: &Path, controller: &str) -> bool {
    let has =
        |file: &str| read(&parent.join(file)).is_ok_and(|text| text.split_whitespace().any(|name| name == controller));
    let first = || !parent.join("cgroup.type").exists();
    has("cgroup.subtree_control")
        || (has("cgroup.controllers")
            && (first() || read(&parent.join("cgroup.procs")).is_ok_and(|processes| processes.is_empty()))
            && set(parent, "cgroup.subtree_control", &format!("+{controller}")).is_ok()
            && has("cgroup.subtree_control"))
}

/// Removes empty groups that nobody claims: those who made them are gone.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let numbers = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
        let ours = numbers.is_some_and(|(one, two)| one.parse::<u32>().is_ok() && two.parse::<u64>().is_ok());
        if ours && let Some(_claim) = claim(&entry.path(), FlockOperation::NonBlockingLockExclusive) {
            // Refused while anything lives in it.
            fs::remove_dir(entry.path()).ok();
        }
    }
}

fn set(group: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(group.join(file))?.write_all(value.as_bytes())
}

/// Reads one of the kernel's small files.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(1 << 20).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
