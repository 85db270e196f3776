//! The tiny init of a sample: it furnishes the cage, starts the first process, reaps, and does from within the few things that
//! need the cage's own mounts. It ends, and all with it, when its supervisor is gone.

use std::ffi::CString;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{DumpableBehavior, WaitOptions};

use super::first::{First, errno};
use super::steps::Steps;
use crate::edge::{branch, entry, interface};
use crate::network::{INTERFACE, MOST_PORTS, OWN_ADDRESS, PREFIX_BITS};

/// What it needs, prepared by the parent.
pub(super) struct Init<'a> {
    /// Its end of the socket to the supervisor, which carries [`Word`]s.
    pub(super) control: BorrowedFd<'a>,
    /// Descriptors to keep, in ascending order; all others are closed.
    pub(super) kept: Vec<u32>,
    pub(super) host_name: Vec<u8>,
    /// Its own identity within: 0 where a range of identities is mapped, else the sample's.
    pub(super) uid: u32,
    pub(super) may_set_groups: bool,
    pub(super) steps: Steps,
    /// The mounts outside scratch that a sample can write to.
    pub(super) writable: Vec<CString>,
    /// Whether there is a TUN device.
    pub(super) decoy: bool,
    /// Ports to listen on, at most [`MOST_PORTS`].
    pub(super) ports: Vec<u16>,
    pub(super) first: First<'a>,
}

/// One message between the supervisor and the init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) kind: u8,
    /// Number of the request, which its answer repeats; 0 for what is no answer.
    pub(super) request: u32,
    pub(super) value: i32,
}

impl Word {
    /// To the init: identities are mapped and groups joined, furnish the cage.
    pub(super) const GO: u8 = b'g';
    /// To the init: what was needed from it is taken, hide.
    pub(super) const SERVE: u8 = b's';
    /// To the init: set the writable mounts read-only. Answered in kind with an errno or 0.
    pub(super) const READ_ONLY: u8 = b'r';
    /// From the init: the first process is held; carries its pidfd, a socket of the network namespace, a listening socket for
    /// each port, and the TUN device, if there is one.
    pub(super) const HELD: u8 = b'h';
    /// From the init: a step failed; `value` is `stage << 16 | errno`, where stages from 16 up are steps of furnishing.
    pub(super) const FAILED: u8 = b'f';
    /// From the init: the first process ended with this status of `wait`.
    pub(super) const ENDED: u8 = b'e';
    /// From the init: no process of the sample is left.
    pub(super) const EMPTY: u8 = b'n';

    /// Its length on the way.
    const BYTES: usize = 9;

    pub(super) const fn plain(kind: u8, value: i32) -> Word {
        Word { kind, request: 0, value }
    }

    pub(super) const fn bytes(self) -> [u8; Word::BYTES] {
        let [a, b, c, d] = self.request.to_ne_bytes();
        let [e, f, g, h] = self.value.to_ne_bytes();
        [self.kind, a, b, c, d, e, f, g, h]
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Word> {
        let &[kind, a, b, c, d, e, f, g, h] = bytes else { return None };
        Some(Word { kind, request: u32::from_ne_bytes([a, b, c, d]), value: i32::from_ne_bytes([e, f, g, h]) })
    }
}

/// What the init does before the steps, in the numbers of [`Word::FAILED`].
pub(super) const EARLY: [&str; 8] = [
    "close what was inherited",
    "take an identity within",
    "hide the cgroup",
    "name the host",
    "bring up the loopback interface",
    "start the first process",
    "make the TUN device of the decoy network",
    "listen on a port of the plan",
];

/// Descriptors of [`Word::HELD`]: pidfd, socket, device, and the listening ones.
const MOST_HANDED: usize = 3 + MOST_PORTS;

/// Numbers of [`Word::FAILED`] from here on are steps of furnishing.
pub(super) const STEPS_FROM: i32 = 16;

impl Init<'_> {
    /// Runs in the child, and is the whole of its life.
    pub(super) fn run(&self) -> i32 {
        // Before anything else: a copy of the supervisor's end of the socket would hide that the supervisor is gone.
        let closed = Self::close_all_but(&self.kept);
        if self.word() != Some(Word::plain(Word::GO, 0)) {
            return 1;
        }
        match closed.map_err(|error| (0, error)).and_then(|()| self.furnish()) {
            Ok((pid, ended)) => self.serve(pid, &ended),
            Err((stage, error)) => {
                self.tell(Word::plain(Word::FAILED, stage << 16 | error.raw_os_error()), &[]);
                1
            }
        }
    }

    fn furnish(&self) -> Result<(i32, OwnedFd), (i32, Errno)> {
        let at = |stage: i32| move |error: Errno| (stage, error);
        // The device is opened as who the supervisor is: to the sample's identities it would be closed.
        let device = match self.decoy {
            true => Some(interface::tun(INTERFACE).map_err(errno).map_err(at(6))?),
            false => None,
        };
        self.take_identity().map_err(at(1))?;
        branch::hide_cgroup().map_err(errno).map_err(at(2))?;
        rustix::system::sethostname(&self.host_name).map_err(at(3))?;
        rustix::system::setdomainname(b"(none)").map_err(at(3))?;
        let socket = self.network().map_err(at(4))?;
        let mut listeners: [Option<OwnedFd>; MOST_PORTS] = [const { None }; MOST_PORTS];
        for (slot, port) in listeners.iter_mut().zip(&self.ports) {
            *slot = Some(listen(*port).map_err(at(7))?);
        }
        self.steps.run().map_err(|(step, error)| (STEPS_FROM + step as i32, error))?;
        let ended = entry::ended_children().map_err(errno).map_err(at(5))?;
        let child = branch::branch(0, || self.first.run()).map_err(errno).map_err(at(5))?;
        // What the first process writes to must end with it.
        let mut kept = [self.control.as_raw_fd() as u32, ended.as_raw_fd() as u32];
        kept.sort_unstable();
        let mut handed = [child.pidfd.as_fd(); MOST_HANDED];
        let mut count = 1;
        for more in
            [Some(&socket)].into_iter().chain(listeners.iter().map(Option::as_ref)).chain([device.as_ref()]).flatten()
        {
            handed[count] = more.as_fd();
            count += 1;
        }
        self.tell(Word::plain(Word::HELD, child.pid), &handed[..count]);
        Self::close_all_but(&kept).map_err(at(0))?;
        let first = child.pid;
        // They are closed, and their numbers may come to mean something else.
        std::mem::forget((child, socket, listeners, device));
        Ok((first, ended))
    }

    fn close_all_but(kept: &[u32]) -> Result<(), Errno> {
        let mut from = 0;
        for &kept in kept {
            if from < kept {
                entry::close_range(from, kept - 1).map_err(errno)?;
            }
            from = kept + 1;
        }
        entry::close_range(from, u32::MAX).map_err(errno)
    }

    fn take_identity(&self) -> Result<(), Errno> {
        let (uid, gid) = (rustix::thread::Uid::from_raw(self.uid), rustix::thread::Gid::from_raw(self.uid));
        if self.may_set_groups {
            rustix::thread::set_thread_groups(&[])?;
        }
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)
    }

    fn network(&self) -> Result<OwnedFd, Errno> {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        let (family, kind) = (rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM);
        let socket = rustix::net::socket_with(family, kind, flags, None)?;
        interface::switch(socket.as_fd(), c"lo", true).map_err(errno)?;
        if self.decoy {
            interface::configure(socket.as_fd(), INTERFACE, OWN_ADDRESS, PREFIX_BITS).map_err(errno)?;
        }
        Ok(socket)
    }

    fn serve(&self, first: i32, ended: &OwnedFd) -> i32 {
        if self.word().is_none_or(|word| word.kind != Word::SERVE) {
            return 1;
        }
        // What is in this memory is a copy of the supervisor's: nobody inside may look at it.
        if rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).is_err() {
            return 1;
        }
        let mut left = true;
        loop {
            let mut polled = [PollFd::new(&self.control, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
            match rustix::event::poll(&mut polled, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return 1,
            }
            let [control, ended_now] = polled.map(|polled| !polled.revents().is_empty());
            if ended_now {
                left = self.reap(first, ended) && left;
            }
            if control {
                match self.word() {
                    Some(Word { kind: Word::READ_ONLY, request, .. }) => {
                        let value = self.read_only().err().map_or(0, Errno::raw_os_error);
                        self.tell(Word { kind: Word::READ_ONLY, request, value }, &[]);
                    }
                    // The supervisor is gone; the kernel ends everything in the namespace with this process.
                    _ => return 0,
                }
            }
        }
    }

    /// Takes in all that ended; returns whether any process is left.
    fn reap(&self, first: i32, ended: &OwnedFd) -> bool {
        let mut spent = [0; 128];
        while rustix::io::read(ended, &mut spent).is_ok_and(|count| count > 0) {}
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if pid.as_raw_nonzero().get() == first {
                        self.tell(Word::plain(Word::ENDED, status.as_raw()), &[]);
                    }
                }
                Ok(None) => return true,
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.tell(Word::plain(Word::EMPTY, 0), &[]);
                    return false;
                }
            }
        }
    }

    fn read_only(&self) -> Result<(), Errno> {
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        self.writable.iter().try_for_each(|path| rustix::mount::mount_remount(path, flags, c""))
    }

    fn word(&self) -> Option<Word> {
        let mut bytes = [0; Word::BYTES];
        loop {
            match rustix::net::recv(self.control, &mut bytes, RecvFlags::empty()) {
                Ok((_, count)) => return Word::read(bytes.get(..count)?),
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }

    fn tell(&self, word: Word, descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_HANDED))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return;
        }
        // A supervisor that is gone is noticed at the next turn; one that does not read must not block the reaping.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = rustix::net::sendmsg(self.control, &[IoSlice::new(&word.bytes())], &mut ancillary, flags);
    }
}

/// A socket that listens on a port of every address of the namespace.
fn listen(port: u16) -> Result<OwnedFd, Errno> {
    let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
    let (family, kind) = (rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM);
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    rustix::net::bind(&socket, &std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, port))?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket)
}

/// Reads one word and the descriptors that came with it; in the supervisor.
pub(super) fn receive(control: BorrowedFd<'_>, flags: RecvFlags) -> Result<Option<(Word, Vec<OwnedFd>)>, Errno> {
    let mut bytes = [0; Word::BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_HANDED))];
    let mut ancillary = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(control, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let rustix::net::RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(bytes.get(..got.bytes).and_then(Word::read).map(|word| (word, descriptors)))
}
