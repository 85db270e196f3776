//! From a plan to a held sample.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Resource;

use super::enclosure::{Enclosure, Gate, Link};
use super::first::{First, Stage};
use super::init::{EARLY, Init, STEPS_FROM, Word};
use super::root;
use super::steps::c_string;
use super::{Cage, CageError, CgroupHandle, Held, Pid, Plan, Program};
use crate::edge::branch::{ALL_NAMESPACES, Child, branch};
use crate::edge::entry::Pointers;
use crate::network::{Decoy, MOST_PORTS, Network};

/// How long a cage may take to be furnished.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the identities of cages begin on a host whose root starts them: far from those of users and of the usual containers.
const FIRST_HOST_ID: u32 = 1_878_982_656;

/// How many identities a cage has when root starts it.
const IDENTITIES: u32 = 65_536;

impl Cage {
    /// Builds a cage and starts the first process of the sample in it, which waits at the gate with no privileges, in its
    /// groups and within its limits, before any seccomp program.
    ///
    /// # Errors
    /// Whatever keeps the plan from being carried out; nothing is left behind then.
    pub fn start(plan: &Plan) -> Result<Held, CageError> {
        plan.limits.validate()?;
        plan.identity.validate()?;
        if plan.ports.len() > MOST_PORTS {
            return Err(CageError::Ports { given: plan.ports.len() });
        }
        let as_root = rustix::process::geteuid().is_root();
        let furnished = root::furnish(plan, &plan.files)?;
        let (control, inner) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(link)?;
        let (gate_inner, gate) = pipe_with(PipeFlags::CLOEXEC).map_err(link)?;
        let (status, status_inner) = pipe_with(PipeFlags::CLOEXEC).map_err(link)?;
        let file = match &plan.program {
            Program::File(file) => Some(file.as_fd()),
            Program::Path(_) => None,
        };
        let output = plan.output.as_ref().map(OwnedFd::as_fd);
        let mut kept: Vec<u32> =
            [Some(inner.as_fd()), Some(gate_inner.as_fd()), Some(status_inner.as_fd()), file, output]
                .into_iter()
                .flatten()
                .map(|fd| fd.as_raw_fd() as u32)
                .collect();
        kept.sort_unstable();
        kept.dedup();
        let init = Init {
            control: inner.as_fd(),
            kept,
            host_name: plan.identity.host_name.clone().into_bytes(),
            uid: if as_root { 0 } else { plan.identity.uid },
            may_set_groups: as_root,
            steps: furnished.steps,
            decoy: plan.network == Network::Decoy,
            ports: plan.ports.clone(),
            writable: furnished.writable.iter().map(c_string).collect::<Result<_, _>>()?,
            first: First {
                file,
                path: c_string(if let Program::Path(path) = &plan.program { path } else { "" })?,
                arguments: Pointers::new(plan.arguments.clone()),
                environment: Pointers::new(plan.environment.clone()),
                folder: c_string(&plan.folder)?,
                uid: plan.identity.uid,
                may_set_groups: as_root,
                filter: &plan.filter,
                limits: limits(plan),
                output,
                gate: gate_inner,
                status: status_inner,
            },
        };
        let cgroup = CgroupHandle::new(&plan.limits);
        let child = branch(ALL_NAMESPACES, || init.run()).map_err(|cause| CageError::Namespaces { cause })?;
        // From here on whatever fails kills the child: it sees its end of the socket close, and the guard waits for it.
        let mut starting = Starting { child: Some(child), link: Link { control, ended: None, empty: false, asked: 0 } };
        let steps = &init.steps;
        starting.admit(plan, as_root, &cgroup)?;
        let handed = starting.held(|at| steps.describe(at))?;
        let decoy = decoy(plan, handed.answering)?;
        drop(init);
        drop(inner);
        wait_ready(&status)?;
        starting.take(handed.first, handed.socket, decoy, gate, status, cgroup)
    }
}

/// A cage that is not held yet.
struct Starting {
    child: Option<Child>,
    link: Link,
}

/// What the init hands over with the first process.
struct Handed {
    first: OwnedFd,
    socket: OwnedFd,
    /// Listening sockets in the order of the plan's ports, then the TUN device, if there is one.
    answering: Vec<OwnedFd>,
}

/// Starts what answers the sample, if anything is to.
fn decoy(plan: &Plan, mut answering: Vec<OwnedFd>) -> Result<Option<Decoy>, CageError> {
    let device = if plan.network == Network::Decoy { answering.pop() } else { None };
    if device.is_none() && answering.is_empty() {
        return Ok(None);
    }
    Decoy::start(device, answering, plan.seed).map(Some).map_err(|cause| CageError::Link { cause })
}

impl Starting {
    fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |child| child.pid)
    }

    /// Maps identities, joins the groups, and lets the init begin.
    fn admit(&self, plan: &Plan, as_root: bool, cgroup: &CgroupHandle) -> Result<(), CageError> {
        let pid = self.pid();
        let map = |name: &str, text: &str| {
            let path = PathBuf::from(format!("/proc/{pid}/{name}"));
            let written =
                fs::OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
            written.map_err(|cause| CageError::Identities { path, cause })
        };
        if as_root {
            let range = format!("0 {FIRST_HOST_ID} {IDENTITIES}");
            map("uid_map", &range)?;
            map("gid_map", &range)?;
        } else {
            let uid = plan.identity.uid;
            map("setgroups", "deny")?;
            map("uid_map", &format!("{uid} {} 1", rustix::process::geteuid().as_raw()))?;
            map("gid_map", &format!("{uid} {} 1", rustix::process::getegid().as_raw()))?;
        }
        cgroup.admit(pid).map_err(|(path, cause)| CageError::Cgroup { path, cause })?;
        self.send(Word::GO)
    }

    fn send(&self, kind: u8) -> Result<(), CageError> {
        let word = Word::plain(kind, 0);
        rustix::net::send(&self.link.control, &word.bytes(), SendFlags::NOSIGNAL).map(|_| ()).map_err(link)
    }

    /// Waits until the first process is held; returns what the init hands over.
    fn held(&mut self, describe: impl Fn(usize) -> String) -> Result<Handed, CageError> {
        let word = self.link.next_with_descriptors(PATIENCE);
        match word {
            Ok(Some((Word { kind: Word::HELD, .. }, descriptors))) => {
                let mut descriptors = descriptors.into_iter();
                let (Some(first), Some(socket)) = (descriptors.next(), descriptors.next()) else {
                    return Err(CageError::Died);
                };
                Ok(Handed { first, socket, answering: descriptors.collect() })
            }
            Ok(Some((Word { kind: Word::FAILED, value, .. }, _))) => {
                let (stage, cause) = (value >> 16, io::Error::from_raw_os_error(value & 0xffff));
                let early = usize::try_from(stage).ok().and_then(|stage| EARLY.get(stage));
                let step =
                    early.map_or_else(|| describe((stage - STEPS_FROM).max(0) as usize), |text| (*text).to_owned());
                Err(CageError::Step { step, cause })
            }
            Ok(Some(_)) => Err(CageError::Died),
            Ok(None) => Err(CageError::Slow { seconds: PATIENCE.as_secs() }),
            Err(_) => Err(CageError::Died),
        }
    }

    /// Takes hold of everything from outside, and tells the init to hide.
    fn take(
        mut self,
        pidfd: OwnedFd,
        network_socket: OwnedFd,
        decoy: Option<Decoy>,
        gate: OwnedFd,
        status: OwnedFd,
        cgroup: CgroupHandle,
    ) -> Result<Held, CageError> {
        let pid = self.pid();
        let open = |path: String, flags: OFlags| {
            rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty())
                .map_err(|cause| CageError::Host { path: path.into(), cause: cause.into() })
        };
        let root = open(format!("/proc/{pid}/root"), OFlags::PATH | OFlags::DIRECTORY)?;
        let network = open(format!("/proc/{pid}/ns/net"), OFlags::RDONLY)?;
        let below = |places: [&'static str; 3]| {
            places
                .map(|place| Ok((place, open(format!("/proc/{pid}/root{place}"), OFlags::RDONLY | OFlags::DIRECTORY)?)))
        };
        let kept = below(root::KEPT).into_iter().collect::<Result<_, CageError>>()?;
        let scratch = below(root::SCRATCH).into_iter().collect::<Result<_, CageError>>()?;
        let first = number_of(&pidfd)?;
        // When memory runs out the sample is to go, and not its init, which looks as large as this process. Where it cannot be
        // said, the init may go and take the sample along.
        let preference = format!("/proc/{first}/oom_score_adj");
        fs::OpenOptions::new().write(true).open(preference).and_then(|mut file| file.write_all(b"1000")).ok();
        self.send(Word::SERVE)?;
        let Some(init) = self.child.take() else { return Err(CageError::Died) };
        let control = rustix::io::dup(&self.link.control).map_err(link)?;
        let link = Mutex::new(Link { control, ended: None, empty: false, asked: 0 });
        let enclosure = Enclosure { link, init, root, kept, scratch, network_socket, network, decoy, status };
        Ok(Held { pid: first, pidfd, gate: Gate(gate), enclosure, cgroup })
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let Some(child) = &self.child else { return };
        rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL).ok();
        let options = rustix::process::WaitIdOptions::EXITED;
        rustix::process::waitid(rustix::process::WaitId::PidFd(child.pidfd.as_fd()), options).ok();
    }
}

/// The number on this host of the process behind a pidfd.
fn number_of(pidfd: &OwnedFd) -> Result<Pid, CageError> {
    let path = PathBuf::from(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()));
    let text = fs::read_to_string(&path).map_err(|cause| CageError::Host { path, cause })?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i32>().ok());
    number.and_then(Pid::from_raw).ok_or(CageError::Died)
}

/// Waits for the first process to say that it stands at the gate.
fn wait_ready(status: &OwnedFd) -> Result<(), CageError> {
    let started = Instant::now();
    loop {
        let left = PATIENCE.saturating_sub(started.elapsed());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::new(status, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) => return Err(CageError::Slow { seconds: PATIENCE.as_secs() }),
            result => result.map_err(link)?,
        };
        let mut bytes = [0; 5];
        let count = rustix::io::read(status, &mut bytes).map_err(link)?;
        if count == 0 {
            return Err(CageError::Died);
        }
        return failure(&bytes[..count]).map_or(Ok(()), Err);
    }
}

/// What a message of the first process says of a failure, if it does.
pub(super) fn failure(bytes: &[u8]) -> Option<CageError> {
    let &[stage, a, b, c, d] = bytes else { return None };
    let stage = *Stage::ALL.get(usize::from(stage))?;
    let cause = io::Error::from_raw_os_error(i32::from_ne_bytes([a, b, c, d]));
    (stage != Stage::Ready).then(|| CageError::Step { step: stage.text().to_owned(), cause })
}

fn limits(plan: &Plan) -> [(Resource, u64); 5] {
    let limits = &plan.limits;
    [
        // One byte is the size that also keeps the kernel from piping a core to a program of the host's.
        (Resource::Core, 1),
        (Resource::Nofile, limits.descriptors.into()),
        // Of the sample's identity in its namespace; where only one identity is mapped, the init has it too.
        (Resource::Nproc, u64::from(limits.tasks) + 1),
        (Resource::Fsize, limits.storage_bytes),
        (Resource::Memlock, 1 << 20),
    ]
    // Raising what this process was bounded by takes a privilege that even root may lack.
    .map(|(resource, most)| (resource, rustix::process::getrlimit(resource).maximum.map_or(most, |own| own.min(most))))
}

fn link(error: rustix::io::Errno) -> CageError {
    CageError::Link { cause: error.into() }
}
