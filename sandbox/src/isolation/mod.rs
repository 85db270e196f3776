//! What is done to a sample while it runs, from outside, each with what proves that it took hold.
//!
//! Level 1 cuts the network, level 2 denies writes outside scratch, and [`terminate`] ends everything. The tracer's halves of
//! level 2 (stopping all threads, closing what is open for writing) and all of level 3 are not here.

use std::io;
use std::time::{Duration, Instant};

use crate::cage::{CgroupHandle, Enclosure};

/// Proof that a sample is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminated {
    /// Time until `SIGKILL` was pending for all there was.
    pub killed_after: Duration,
    /// Time until nothing lived in the sample's groups.
    pub empty_after: Duration,
    /// What proves it.
    pub proof: Proof,
}

/// What proves that nothing of a sample lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Its control groups are empty.
    EmptyCgroup,
    /// The init of its pid namespace has ended, which the kernel does last; hosts that give no control group.
    EndedInit,
}

/// Why an action on a running sample did not take hold.
#[derive(Debug, thiserror::Error)]
pub enum IsolationError {
    /// The kernel refused a step.
    #[error("cannot {step}: {cause}")]
    Refused {
        /// What was to be done.
        step: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// Something still lives after the time that was given.
    #[error("{left} processes still live {after:?} after they were killed; a tracer must take in what it traced")]
    Alive {
        /// How many are listed.
        left: usize,
        /// How long was waited.
        after: Duration,
    },
}

/// What became of an attempt to deny writes outside scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteDenial {
    /// The mounts are read-only, which the kernel grants only when no file in them is open for writing.
    Done,
    /// Something is open for writing there.
    Busy,
}

/// Cuts the network: takes every interface of the sample down and has what answers it closed, and proves it by reading back.
///
/// # Errors
/// What the kernel refused.
pub fn cut_network(enclosure: &Enclosure) -> Result<(), IsolationError> {
    let refused = |step: &'static str| move |cause: io::Error| IsolationError::Refused { step, cause };
    enclosure.cut_network().map_err(refused("take the interfaces down"))?;
    match enclosure.network_is_cut().map_err(refused("read the interfaces"))? {
        true => Ok(()),
        false => Err(refused("take the interfaces down")(io::ErrorKind::Other.into())),
    }
}

/// Sets every mount that the sample can write to, but scratch, read-only. All threads should be stopped.
///
/// # Errors
/// What the kernel refused, other than that a file is open for writing.
pub fn deny_writes(enclosure: &Enclosure, patience: Duration) -> Result<WriteDenial, IsolationError> {
    match enclosure.set_read_only(patience) {
        Ok(()) => Ok(WriteDenial::Done),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(WriteDenial::Busy),
        Err(cause) => Err(IsolationError::Refused { step: "set the writable mounts read-only", cause }),
    }
}

/// Kills all of a sample and waits until nothing of it lives. It may be called again.
///
/// # Errors
/// What the kernel refused, and [`IsolationError::Alive`] after `patience`.
pub fn terminate(
    enclosure: &Enclosure,
    cgroup: &CgroupHandle,
    patience: Duration,
) -> Result<Terminated, IsolationError> {
    let started = Instant::now();
    let listed = cgroup.holds().listing;
    if listed {
        cgroup.kill().map_err(|cause| IsolationError::Refused { step: "kill the control group", cause })?;
    } else {
        enclosure.kill();
    }
    let killed_after = started.elapsed();
    let (empty, proof) = if listed {
        let empty = cgroup.wait_empty(patience);
        (empty.map_err(|cause| IsolationError::Refused { step: "read the control group", cause })?, Proof::EmptyCgroup)
    } else {
        (enclosure.has_ended(patience), Proof::EndedInit)
    };
    if !empty {
        let left = cgroup.processes().map_or(0, |processes| processes.len());
        return Err(IsolationError::Alive { left, after: started.elapsed() });
    }
    Ok(Terminated { killed_after, empty_after: started.elapsed(), proof })
}
