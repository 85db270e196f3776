//! The first process of a sample, from its birth to the moment when it becomes the program.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use crate::edge::entry::{self, Pointers};

/// What it needs, prepared by the parent.
pub(super) struct First<'a> {
    /// The sealed file that it becomes; `path` where there is none.
    pub(super) file: Option<BorrowedFd<'a>>,
    pub(super) path: CString,
    pub(super) arguments: Pointers,
    pub(super) environment: Pointers,
    pub(super) folder: CString,
    pub(super) uid: u32,
    /// Whether identities other than `uid` exist, so that the supplementary groups can be dropped.
    pub(super) may_set_groups: bool,
    pub(super) filter: &'a [libc::sock_filter],
    pub(super) limits: [(Resource, u64); 5],
    /// Standard input and, twice, standard output; `/dev/null` of the cage where there is none.
    pub(super) output: Option<BorrowedFd<'a>>,
    /// Blocks until it can be read; its end means never to start.
    pub(super) gate: OwnedFd,
    /// Takes one byte when all is ready, and what failed otherwise; closes when the program begins.
    pub(super) status: OwnedFd,
}

/// Where a start can fail, as it is told through the status pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    Ready,
    Session,
    Limits,
    Folder,
    Identity,
    Privileges,
    Filter,
    Program,
}

impl Stage {
    pub(super) const ALL: [Stage; 8] = [
        Stage::Ready,
        Stage::Session,
        Stage::Limits,
        Stage::Folder,
        Stage::Identity,
        Stage::Privileges,
        Stage::Filter,
        Stage::Program,
    ];

    pub(super) const fn text(self) -> &'static str {
        match self {
            Stage::Ready => "ready",
            Stage::Session => "leave the session and the descriptors behind",
            Stage::Limits => "set the resource limits",
            Stage::Folder => "enter the working folder",
            Stage::Identity => "take the identity of the sample",
            Stage::Privileges => "drop all privileges",
            Stage::Filter => "load the seccomp program",
            Stage::Program => "start the program",
        }
    }
}

impl First<'_> {
    /// Runs in the child; returns the exit code of a start that failed.
    pub(super) fn run(&self) -> i32 {
        match self.start() {
            // The gate closed: nobody wants the sample to run.
            Ok(()) => 0,
            Err((stage, errno)) => {
                self.tell(stage, errno.raw_os_error());
                127
            }
        }
    }

    fn start(&self) -> Result<(), (Stage, Errno)> {
        let at = |stage: Stage| move |error: Errno| (stage, error);
        rustix::process::setsid().map_err(at(Stage::Session))?;
        self.wire().map_err(at(Stage::Session))?;
        entry::close_on_exec_from(3).map_err(errno).map_err(at(Stage::Session))?;
        entry::forget_keys().map_err(errno).map_err(at(Stage::Session))?;
        for (resource, most) in self.limits {
            let limit = Rlimit { current: Some(most), maximum: Some(most) };
            rustix::process::setrlimit(resource, limit).map_err(at(Stage::Limits))?;
        }
        rustix::process::umask(Mode::from_raw_mode(0o022));
        self.take_identity().map_err(at(Stage::Identity))?;
        rustix::process::chdir(&self.folder).map_err(at(Stage::Folder))?;
        drop_privileges().map_err(at(Stage::Privileges))?;
        entry::default_signals();
        self.tell(Stage::Ready, 0);
        if !self.gate_opened() {
            return Ok(());
        }
        if !self.filter.is_empty() {
            entry::load_filter(self.filter).map_err(errno).map_err(at(Stage::Filter))?;
        }
        let failed = entry::become_program(self.file, &self.path, &self.arguments, &self.environment);
        Err((Stage::Program, errno(failed)))
    }

    /// Standard input, output and error.
    fn wire(&self) -> Result<(), Errno> {
        use rustix::fs::OFlags;
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        let output = self.output.unwrap_or(null.as_fd());
        rustix::stdio::dup2_stdout(output)?;
        rustix::stdio::dup2_stderr(output)?;
        if null.as_raw_fd() <= 2 {
            // It is one of the three already, and closing it here would close that.
            std::mem::forget(null);
        }
        Ok(())
    }

    fn take_identity(&self) -> Result<(), Errno> {
        let (uid, gid) = (rustix::thread::Uid::from_raw(self.uid), rustix::thread::Gid::from_raw(self.uid));
        // The bits must be set while there is still a privilege to set them with, and they keep the privileges that the
        // change of identity would drop, which `drop_privileges` needs for the bounding set.
        let bits = CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
        rustix::thread::set_capabilities_secure_bits(bits)?;
        if self.may_set_groups {
            rustix::thread::set_thread_groups(&[])?;
        }
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)
    }

    fn tell(&self, stage: Stage, error: i32) {
        let [a, b, c, d] = error.to_ne_bytes();
        // Nobody to tell is as good as told: the parent is gone, and the sample ends.
        let _ = rustix::io::write(&self.status, &[stage as u8, a, b, c, d]);
    }

    fn gate_opened(&self) -> bool {
        let mut byte = [0];
        loop {
            match rustix::io::read(&self.gate, &mut byte) {
                Err(Errno::INTR) => {}
                result => return result == Ok(1),
            }
        }
    }
}

/// No capability in any set, and none to be had by becoming another program.
fn drop_privileges() -> Result<(), Errno> {
    for bit in 0..64 {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            // The first number that the kernel does not know.
            Err(Errno::INVAL) => break,
            other => other?,
        }
    }
    rustix::thread::clear_ambient_capability_set()?;
    rustix::thread::set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

pub(super) fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
