//! Where a sample runs: namespaces, a read-only root, a home of decoys, scratch, control groups and no privileges.
//!
//! [`Cage::start`] builds all of it and starts the first process of the sample, which waits at a gate until a tracer has hold
//! of it. Nothing of a cage lies on a disk: when its processes are gone and its descriptors closed, it is gone.

mod activity;
mod cgroup;
mod changes;
mod enclosure;
mod first;
mod home;
mod init;
mod root;
mod start;
mod steps;

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use activity::Activity;
pub(crate) use cgroup::Hierarchies;
#[cfg(test)]
pub(crate) use cgroup::Place;
pub use cgroup::{CgroupHandle, Holds, Pressure};
pub use changes::{Bounds, Changes, Found, Kind, LeftOut, MOST_DEPTH};
pub use enclosure::{Enclosure, Ending, Gate};
pub use home::Home;
pub use rustix::process::Pid;

use crate::network::Network;
use crate::{Limits, LimitsError};

/// What is to run, and as whom, where and within which limits.
#[derive(Debug)]
pub struct Plan {
    /// What the first process becomes.
    pub program: Program,
    /// Its arguments, the name of the program first.
    pub arguments: Vec<CString>,
    /// Its environment, each `NAME=value`; [`Identity::environment`] is an ordinary one.
    pub environment: Vec<CString>,
    /// Its working folder, as it sees it; [`Identity::work`] is an ordinary one.
    pub folder: String,
    /// Who and where it believes to be.
    pub identity: Identity,
    /// Files that lie in its home, scratch, crontabs or logs before it starts.
    pub files: Vec<Placed>,
    /// What it can reach.
    pub network: Network,
    /// TCP ports that are answered on its own addresses, at most [`MOST_PORTS`](crate::network::MOST_PORTS).
    pub ports: Vec<u16>,
    /// Seed of what the network answers.
    pub seed: u64,
    /// What it may use up. The time is the caller's to hold.
    pub limits: Limits,
    /// The seccomp program that is loaded when the gate has opened, such as [`crate::filter::Program::instructions`]; none if
    /// empty.
    pub filter: Vec<libc::sock_filter>,
    /// Where standard output and error go, `/dev/null` if nowhere. A pipe that nobody reads holds the sample up.
    pub output: Option<OwnedFd>,
}

/// What the first process of a sample becomes.
#[derive(Debug)]
pub enum Program {
    /// The file behind a descriptor, such as a sealed `memfd`.
    File(OwnedFd),
    /// What lies at a path, as the sample sees it.
    Path(String),
}

/// Who a sample believes to be, and on which host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the host: at most 64 letters, digits and hyphens.
    pub host_name: String,
    /// Name of the user: at most 32 lower-case letters, digits, hyphens and underscores.
    pub user: String,
    /// Number of the user and of its group: 1 to 65,533.
    pub uid: u32,
}

/// A file that lies there before the sample starts. It belongs to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Absolute path below the home, scratch, the crontabs or the logs; folders above it are made.
    pub path: String,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Permissions; only the last nine bits count.
    pub mode: u32,
    /// Time of its last change, in seconds since 1970; now if none.
    pub modified_s: Option<i64>,
}

/// A place for one sample; see [`Cage::start`].
#[derive(Debug)]
pub struct Cage;

/// A sample whose first process is born and waits at the gate. Dropping it kills the sample and removes all there was.
#[derive(Debug)]
pub struct Held {
    /// The first process, by its number on the host.
    pub pid: Pid,
    /// The first process, by a descriptor that never means another.
    pub pidfd: OwnedFd,
    /// What the first process waits at; dropping it unopened ends the first process.
    pub gate: Gate,
    /// What surrounds the sample: its mounts, its network namespace, its init.
    pub enclosure: Enclosure,
    /// The groups that bound and kill the sample.
    pub cgroup: CgroupHandle,
}

/// Why a sample could not be caged.
#[derive(Debug, thiserror::Error)]
pub enum CageError {
    /// A limit is out of its range.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// A text for the kernel holds a zero byte.
    #[error("{text:?} holds a zero byte; leave it out")]
    Zero {
        /// The text.
        text: String,
    },
    /// The identity is none that a host or user can have.
    #[error("identity.{field} is {value:?}; give {wanted}")]
    Identity {
        /// Which part of it.
        field: &'static str,
        /// What was given.
        value: String,
        /// What may be given.
        wanted: &'static str,
    },
    /// A file is to lie where the sample has no writable folder.
    #[error(
        "{path:?} lies outside the home, scratch, crontabs and logs, or is no plain absolute path; place the file within"
    )]
    Place {
        /// Its path.
        path: String,
    },
    /// More ports than can be handed over at once.
    #[error("{given} ports are to be answered; give at most {}", crate::network::MOST_PORTS)]
    Ports {
        /// How many were given.
        given: usize,
    },
    /// A file of the host that is part of the view cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Host {
        /// Its path.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The kernel gives no new namespaces.
    #[error(
        "the kernel refuses new namespaces ({cause}); as an ordinary user, allow user namespaces (sysctl user.max_user_namespaces)"
    )]
    Namespaces {
        /// Why.
        cause: io::Error,
    },
    /// The identities of the user namespace cannot be mapped.
    #[error("cannot map identities through {}: {cause}", path.display())]
    Identities {
        /// The file that was written.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A control group does not take the sample.
    #[error("the control group {} does not take the sample: {cause}", path.display())]
    Cgroup {
        /// The group.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A step of furnishing the cage failed.
    #[error("cannot {step}: {cause}; `bellwether doctor` says what this host offers")]
    Step {
        /// What was to be done.
        step: String,
        /// Why.
        cause: io::Error,
    },
    /// A socket, pipe or descriptor between the supervisor and the cage failed.
    #[error("cannot talk to the cage: {cause}")]
    Link {
        /// Why.
        cause: io::Error,
    },
    /// The cage ended before the sample was held.
    #[error(
        "the cage ended before the sample could start; was it killed, or is the limit on tasks or memory too small?"
    )]
    Died,
    /// The sample was not held in time.
    #[error("the cage was not ready after {seconds} s; the host is overloaded")]
    Slow {
        /// How long was waited.
        seconds: u64,
    },
}

impl Plan {
    /// An ordinary plan: the usual user in the usual folder, no files, no seccomp program, nothing to reach but itself, output
    /// to nowhere.
    pub fn new(program: Program, arguments: Vec<CString>) -> Plan {
        let identity = Identity::default();
        Plan {
            program,
            arguments,
            environment: identity.environment(),
            folder: identity.work(),
            identity,
            files: Vec::new(),
            network: Network::default(),
            ports: Vec::new(),
            seed: 0,
            limits: Limits::default(),
            filter: Vec::new(),
            output: None,
        }
    }
}

impl Default for Identity {
    /// The user `user` on the host `desk`, as in the recordings that ship.
    fn default() -> Self {
        Identity { host_name: "desk".to_owned(), user: "user".to_owned(), uid: 1000 }
    }
}

impl Identity {
    /// The user's home folder.
    pub fn home(&self) -> String {
        format!("/home/{}", self.user)
    }

    /// An ordinary working folder.
    pub fn work(&self) -> String {
        format!("/home/{}/work", self.user)
    }

    /// The environment of an ordinary session.
    pub fn environment(&self) -> Vec<CString> {
        let (home, user) = (self.home(), &self.user);
        [
            format!("HOME={home}"),
            format!("USER={user}"),
            format!("LOGNAME={user}"),
            "PATH=/usr/bin:/bin".to_owned(),
            "LANG=C.UTF-8".to_owned(),
            "SHELL=/bin/sh".to_owned(),
            "TERM=dumb".to_owned(),
            "TZ=UTC".to_owned(),
        ]
        .into_iter()
        // A user name with a zero byte is refused when the sample starts.
        .filter_map(|text| CString::new(text).ok())
        .collect()
    }

    fn validate(&self) -> Result<(), CageError> {
        let refuse = |field, value: &str, wanted| Err(CageError::Identity { field, value: value.to_owned(), wanted });
        let host = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if self.host_name.is_empty() || self.host_name.len() > 64 || !self.host_name.bytes().all(host) {
            return refuse("host_name", &self.host_name, "1 to 64 letters, digits and hyphens");
        }
        let user = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        if self.user.is_empty() || self.user.len() > 32 || !self.user.bytes().all(user) {
            return refuse("user", &self.user, "1 to 32 lower-case letters, digits, hyphens and underscores");
        }
        if !(1..=65_533).contains(&self.uid) {
            return refuse("uid", &self.uid.to_string(), "1 to 65533");
        }
        Ok(())
    }
}
