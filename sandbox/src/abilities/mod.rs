//! What this host offers to a sandbox: each ability is tried, not read from a version.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::mount::MountFlags;
use rustix::process::{WaitId, WaitIdOptions};
use serde::Serialize;

use crate::Limits;
use crate::cage::{Cage, CageError, Hierarchies, Holds, Plan, Program};
use crate::edge::branch::{Child, branch};
use crate::edge::{interface, probe};
use crate::isolation::terminate;

/// One thing that a host can or cannot do for a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ability {
    /// What it is.
    pub name: &'static str,
    /// Whether it is here.
    pub here: bool,
    /// What was found, or why not.
    pub found: String,
    /// What a sandbox does with it.
    pub needed_for: &'static str,
}

/// Everything that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Abilities {
    /// Whether a program could be caged, started and killed: what all of the rest is for.
    pub detonates: bool,
    /// Each ability.
    pub abilities: Vec<Ability>,
    /// Median time from a decision to kill until none of 16 tasks lived, in microseconds; null where none could be started.
    pub kill_latency_us: Option<u64>,
}

/// Samples that are killed for the median.
const KILLS: usize = 5;

/// Tasks of each of them, the first process included.
const TASKS: usize = 16;

impl Abilities {
    /// Tries everything; takes about a tenth of a second, and leaves nothing behind.
    pub fn of_this_host() -> Abilities {
        let trials: Vec<Result<Duration, String>> = (0..KILLS).map(|_| kill_latency()).collect();
        let mut latencies: Vec<Duration> = trials.iter().filter_map(|trial| trial.as_ref().ok().copied()).collect();
        latencies.sort_unstable();
        let failure = trials.into_iter().find_map(Result::err);
        let abilities = vec![
            detonation(failure.clone()),
            user_namespaces(),
            control_groups(),
            overlay(),
            network_device(),
            seccomp(),
            tracing(),
            landlock(),
        ];
        Abilities {
            detonates: failure.is_none(),
            abilities,
            kill_latency_us: latencies.get(latencies.len() / 2).map(|time| time.as_micros() as u64),
        }
    }
}

/// Starts a sample of [`TASKS`] tasks, kills it, and says how long that took.
fn kill_latency() -> Result<Duration, String> {
    let (mut ready, output) = std::io::pipe().map_err(|error| error.to_string())?;
    let command = format!("for i in $(seq {}); do sleep 60 & done; echo ready; sleep 60", TASKS - 2);
    let arguments = ["sh", "-c", &command].iter().filter_map(|text| std::ffi::CString::new(*text).ok()).collect();
    let plan = Plan {
        limits: Limits { tasks: 2 * TASKS as u32, ..Limits::default() },
        output: Some(output.into()),
        ..Plan::new(Program::Path("/bin/sh".to_owned()), arguments)
    };
    let text = |error: CageError| error.to_string();
    let held = Cage::start(&plan).map_err(text)?;
    drop(plan);
    held.gate.open().map_err(|error| error.to_string())?;
    let mut line = [0; 6];
    if std::io::Read::read_exact(&mut ready, &mut line).is_err() {
        return Err(held.enclosure.failed_start().map_or_else(|| "the shell wrote nothing".to_owned(), text));
    }
    let ended = terminate(&held.enclosure, &held.cgroup, Duration::from_secs(10)).map_err(|error| error.to_string())?;
    Ok(ended.empty_after)
}

fn detonation(failure: Option<String>) -> Ability {
    Ability {
        name: "detonation",
        here: failure.is_none(),
        found: failure.unwrap_or_else(|| {
            let whom = if rustix::process::geteuid().is_root() { "root" } else { "an ordinary user" };
            format!("a program was caged, started and killed, as {whom}")
        }),
        needed_for: "everything that the sandbox does",
    }
}

/// What a child says that tries something: its exit code, 0 for success, else an errno below 255.
fn code_of(child: &Child) -> i32 {
    let status = rustix::process::waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(&child.pidfd)), WaitIdOptions::EXITED);
    status.ok().flatten().and_then(|status| status.exit_status()).unwrap_or(255)
}

fn user_namespaces() -> Ability {
    let tried = branch(libc::CLONE_NEWUSER, || 0).map(|child| code_of(&child));
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    Ability {
        name: "user namespaces",
        here: tried.is_ok(),
        found: match tried {
            Ok(_) => format!("at most {}", limit.trim()),
            Err(error) => format!("{error}; see sysctl user.max_user_namespaces and kernel.unprivileged_userns_clone"),
        },
        needed_for: "identities that mean nothing on the host",
    }
}

fn control_groups() -> Ability {
    let hierarchies = Hierarchies::of_this_host();
    let kind = match (&hierarchies.unified, hierarchies.pids.is_some() || hierarchies.memory.is_some()) {
        (Some(_), true) => "hybrid",
        (Some(_), false) => "version 2",
        (None, true) => "version 1",
        (None, false) => "none mounted",
    };
    let groups = crate::cage::CgroupHandle::new(&Limits::default());
    let holds = groups.holds();
    let parts =
        [(holds.tasks, "tasks"), (holds.memory, "memory"), (holds.kill, "cgroup.kill"), (holds.listing, "listing")];
    let named = |wanted: bool| {
        let names: Vec<&str> = parts.iter().filter(|(held, _)| *held == wanted).map(|(_, name)| *name).collect();
        names.join(", ")
    };
    let lacking =
        if parts.iter().all(|(held, _)| *held) { String::new() } else { format!("; lacking: {}", named(false)) };
    let here = holds.tasks && holds.memory && holds.listing;
    let helps = if here { String::new() } else { format!("; {}", what_helps(&hierarchies, holds)) };
    Ability {
        name: "control groups",
        here,
        found: if holds.listing {
            format!("{kind}: {}{lacking}{helps}", named(true))
        } else {
            format!("{kind}: none can be made{helps}")
        },
        needed_for: "bounds on tasks and memory, and proof that nothing lives",
    }
}

/// What gives a sandbox the bounds that its groups lack.
fn what_helps(hierarchies: &Hierarchies, holds: Holds) -> String {
    match hierarchies {
        Hierarchies { unified: None, pids: None, memory: None } => {
            "`mount -t cgroup2 cgroup2 /sys/fs/cgroup` as root".to_owned()
        }
        _ if !holds.listing => {
            "this user needs a group of its own, with its `cgroup.procs`: `systemd-run --user --scope -p \
                                Delegate=yes` makes one in version 2, `chown` one in `pids` and `memory` of version 1"
                .to_owned()
        }
        Hierarchies { unified: Some(place), pids: None, memory: None } => format!(
            "move the processes of {0} into a group below it, then `echo +pids +memory > {0}/cgroup.subtree_control`",
            place.group.display()
        ),
        Hierarchies { memory: None, .. } => {
            "no memory controller is mounted; where the kernel has none of version 1, that of version 2 helps"
                .to_owned()
        }
        _ => "this process may not make groups in every hierarchy; see the owners in /proc/self/cgroup".to_owned(),
    }
}

fn overlay() -> Ability {
    let tried = branch(libc::CLONE_NEWUSER | libc::CLONE_NEWNS, || {
        let folders = Some(c"lowerdir=/usr:/etc");
        let mounted = rustix::mount::mount(c"overlay", c"/tmp", c"overlay", MountFlags::RDONLY, folders);
        mounted.err().map_or(0, rustix::io::Errno::raw_os_error)
    });
    let code = tried.map_or_else(|error| error.raw_os_error().unwrap_or(255), |child| code_of(&child));
    Ability {
        name: "overlay",
        here: code == 0,
        found: match code {
            0 => "can be mounted in a user namespace".to_owned(),
            libc::ENODEV => "not in this kernel; try `modprobe overlay`".to_owned(),
            libc::EPERM => "not allowed in a user namespace, which takes Linux 5.11 or later".to_owned(),
            code => std::io::Error::from_raw_os_error(code).to_string(),
        },
        needed_for: "a view of the host's programs without its sockets and FIFOs",
    }
}

/// Whether a sample can have a decoy network here.
///
/// # Errors
/// Why not, and what helps.
pub fn decoy_network() -> Result<(), String> {
    let tried = branch(libc::CLONE_NEWUSER | libc::CLONE_NEWNET, || match interface::tun(c"decoy0") {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(255),
    });
    match tried.map_or(255, |child| code_of(&child)) {
        0 => Ok(()),
        code if Path::new("/dev/net/tun").exists() => Err(format!(
            "{}; as an ordinary user it takes `chmod 666 /dev/net/tun`",
            std::io::Error::from_raw_os_error(code)
        )),
        _ => Err("there is no /dev/net/tun; try `modprobe tun`".to_owned()),
    }
}

fn network_device() -> Ability {
    let tried = decoy_network();
    Ability {
        name: "TUN",
        here: tried.is_ok(),
        found: tried.map_or_else(|why| why, |()| "a device can be made in a network namespace of its own".to_owned()),
        needed_for: "the decoy network; without it a sample has the loopback interface alone",
    }
}

fn seccomp() -> Ability {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let here =
        ["trace", "kill_process"].iter().all(|wanted| actions.split_whitespace().any(|action| action == *wanted));
    Ability {
        name: "seccomp",
        here,
        found: if actions.is_empty() { "not in this kernel".to_owned() } else { actions.trim().to_owned() },
        needed_for: "stopping a sample at the calls that are recorded, and refusing others",
    }
}

fn tracing() -> Ability {
    let code = branch(0, || probe::be_traced().err().map_or(0, |error| error.raw_os_error().unwrap_or(255)))
        .map_or(255, |child| code_of(&child));
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok();
    Ability {
        name: "ptrace",
        here: code == 0,
        found: match (code, scope) {
            (0, Some(scope)) => format!("yama's scope is {}", scope.trim()),
            (0, None) => "no yama".to_owned(),
            (code, _) => format!("{}; see sysctl kernel.yama.ptrace_scope", std::io::Error::from_raw_os_error(code)),
        },
        needed_for: "the tracer",
    }
}

fn landlock() -> Ability {
    let version = probe::landlock();
    Ability {
        name: "Landlock",
        here: version.is_some(),
        found: version
            .map_or_else(|| "not in this kernel, or off".to_owned(), |version| format!("interface {version}")),
        needed_for: "nothing: mounts say what a sample may write",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cage::Place;

    #[test]
    fn what_is_lacking_comes_with_what_helps() {
        let place = |path: &str| Some(Place { mount: "/sys/fs/cgroup".into(), group: path.into() });
        let hosts = |unified, pids, memory| Hierarchies { unified, pids, memory };
        let (all, none) = (Holds { listing: true, ..Holds::default() }, Holds::default());
        for (hierarchies, holds, expected) in [
            (hosts(None, None, None), none, "mount -t cgroup2"),
            (hosts(place("/g"), None, None), none, "Delegate=yes"),
            (hosts(None, place("/p"), place("/m")), none, "`chown` one"),
            (hosts(place("/g/x"), None, None), all, "/g/x/cgroup.subtree_control"),
            (hosts(None, place("/p"), None), all, "that of version 2 helps"),
            (hosts(place("/g"), place("/p"), None), all, "that of version 2 helps"),
        ] {
            let said = what_helps(&hierarchies, holds);
            assert!(said.contains(expected), "{hierarchies:?}: {said}");
        }
    }

    #[test]
    fn every_ability_says_what_was_found_and_nothing_is_left_behind() {
        let found = Abilities::of_this_host();
        assert!(found.abilities.iter().all(|ability| !ability.found.is_empty() && !ability.needed_for.is_empty()));
        assert_eq!(found.detonates, found.kill_latency_us.is_some(), "{found:?}");
        let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        assert_eq!(children.trim(), "", "no child is left unreaped");
    }
}
