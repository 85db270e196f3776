//! What surrounds a running sample, held from outside.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvFlags, SendFlags};

use super::init::{Word, receive};
use crate::edge::branch::Child;
use crate::edge::interface;
use crate::network::{Decoy, INTERFACE, Traffic};

/// Where the first process waits.
#[derive(Debug)]
pub struct Gate(pub(super) OwnedFd);

/// The surroundings of a sample. Dropping them ends every process in them.
#[derive(Debug)]
pub struct Enclosure {
    pub(super) link: Mutex<Link>,
    pub(super) init: Child,
    /// The mount at the root of the sample's view.
    pub(super) root: OwnedFd,
    /// The folders that keep what the sample wrote, in the order of [`super::root::KEPT`], then those of scratch.
    pub(super) kept: Vec<(&'static str, OwnedFd)>,
    pub(super) scratch: Vec<(&'static str, OwnedFd)>,
    /// A socket that lives in the sample's network namespace.
    pub(super) network_socket: OwnedFd,
    /// The network namespace itself.
    pub(super) network: OwnedFd,
    /// What answers the sample, if anything does.
    pub(super) decoy: Option<Decoy>,
    /// Takes in what the first process says of its start; closed by the program that it becomes.
    pub(super) status: OwnedFd,
}

/// How the first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) control: OwnedFd,
    pub(super) ended: Option<Ending>,
    pub(super) empty: bool,
    /// Number of the last request.
    pub(super) asked: u32,
}

impl Gate {
    /// Lets the first process go on: it loads the seccomp program and becomes the sample.
    ///
    /// # Errors
    /// `EPIPE` when it is gone.
    pub fn open(self) -> io::Result<()> {
        loop {
            match rustix::io::write(&self.0, &[1]) {
                Err(rustix::io::Errno::INTR) => {}
                result => return result.map(|_| ()).map_err(Into::into),
            }
        }
    }
}

impl Enclosure {
    /// The root of the sample's view, to open things beneath it from outside.
    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// The sample's network namespace.
    pub fn network(&self) -> &OwnedFd {
        &self.network
    }

    /// The folders that the sample can write to outside scratch: the path as it sees it, and the folder.
    pub fn kept(&self) -> &[(&'static str, OwnedFd)] {
        &self.kept
    }

    /// The folders of scratch: the path as the sample sees it, and the folder.
    pub fn scratch(&self) -> &[(&'static str, OwnedFd)] {
        &self.scratch
    }

    /// Number of the init on the host.
    pub fn init(&self) -> i32 {
        self.init.pid
    }

    /// What went over the decoy network so far; none where there is none.
    pub fn traffic(&self) -> Option<Traffic> {
        self.decoy.as_ref().map(Decoy::traffic)
    }

    /// Takes every interface of the sample down, then has what answers it closed.
    ///
    /// # Errors
    /// What the kernel reports.
    pub(crate) fn cut_network(&self) -> io::Result<()> {
        let socket = self.network_socket.as_fd();
        interface::switch(socket, c"lo", false)?;
        // With its address the loopback interface keeps its route: who connects would wait for minutes instead of failing at once.
        interface::forget_address(socket, c"lo")?;
        // It is gone where there was none, and after the first cut.
        match interface::switch(socket, INTERFACE, false) {
            Err(error) if error.raw_os_error() != Some(libc::ENODEV) => return Err(error),
            _ => {}
        }
        if let Some(decoy) = &self.decoy {
            decoy.stop();
        }
        Ok(())
    }

    /// Whether no interface of the sample is up.
    ///
    /// # Errors
    /// What the kernel reports.
    pub(crate) fn network_is_cut(&self) -> io::Result<bool> {
        let socket = self.network_socket.as_fd();
        let device = match interface::is_up(socket, INTERFACE) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => false,
            up => up?,
        };
        Ok(!device && !interface::is_up(socket, c"lo")?)
    }

    /// Asks the init to set every writable mount outside scratch read-only.
    ///
    /// # Errors
    /// `EBUSY` while anything holds a file there open for writing; `TimedOut` when the init does not answer.
    pub(crate) fn set_read_only(&self, patience: Duration) -> io::Result<()> {
        self.lock().set_read_only(patience)
    }

    /// Waits for the end of the first process, which a tracer sees sooner. `None` when time ran out.
    ///
    /// # Errors
    /// `UnexpectedEof` when the init is gone, and the first process with it.
    pub fn wait(&self, patience: Duration) -> io::Result<Option<Ending>> {
        let mut link = self.lock();
        let started = Instant::now();
        while link.ended.is_none() {
            let left = patience.saturating_sub(started.elapsed());
            if link.next(left)?.is_none() {
                break;
            }
        }
        Ok(link.ended)
    }

    /// Waits until no process of the sample is left. Returns whether that is so.
    ///
    /// # Errors
    /// `UnexpectedEof` when the init is gone, and everything with it.
    pub fn wait_empty(&self, patience: Duration) -> io::Result<bool> {
        let mut link = self.lock();
        let started = Instant::now();
        while !link.empty {
            let left = patience.saturating_sub(started.elapsed());
            if link.next(left)?.is_none() {
                break;
            }
        }
        Ok(link.empty)
    }

    /// What kept the first process from becoming the sample, once its gate was opened; `None` when it did, or is about to.
    pub fn failed_start(&self) -> Option<super::CageError> {
        let mut bytes = [0; 5];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let count = match rustix::event::poll(&mut [PollFd::new(&self.status, PollFlags::IN)], Some(&at_once)) {
            Ok(1..) => rustix::io::read(&self.status, &mut bytes).ok()?,
            _ => return None,
        };
        super::start::failure(bytes.get(..count)?)
    }

    /// Kills the init, and with it everything, whatever groups there are.
    pub(crate) fn kill(&self) {
        // It fails when the init is gone, which is what is wanted.
        rustix::process::pidfd_send_signal(&self.init.pidfd, rustix::process::Signal::KILL).ok();
    }

    /// Waits for the end of the init, the last of all.
    pub(crate) fn has_ended(&self, patience: Duration) -> bool {
        let timeout = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        rustix::event::poll(&mut [PollFd::new(&self.init.pidfd, PollFlags::IN)], Some(&timeout))
            .is_ok_and(|count| count > 0)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Link> {
        // What is behind the lock is whole after every statement.
        self.link.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Enclosure {
    fn drop(&mut self) {
        self.kill();
        // While a tracer has not taken in what it traced, the init cannot end; nor must this wait for it.
        if self.has_ended(Duration::from_secs(2)) {
            let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOHANG;
            rustix::process::waitid(rustix::process::WaitId::PidFd(self.init.pidfd.as_fd()), options).ok();
        }
    }
}

impl Link {
    /// Asks for read-only mounts, and waits for the answer to this very question: that to an earlier one may have come too late.
    fn set_read_only(&mut self, patience: Duration) -> io::Result<()> {
        self.asked = self.asked.wrapping_add(1);
        let request = Word { kind: Word::READ_ONLY, request: self.asked, value: 0 };
        rustix::net::send(&self.control, &request.bytes(), SendFlags::NOSIGNAL)?;
        let started = Instant::now();
        loop {
            let left = patience.saturating_sub(started.elapsed());
            match self.next(left)? {
                Some(Word { kind: Word::READ_ONLY, request, value }) if request == self.asked => {
                    return if value == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(value)) };
                }
                Some(_) => {}
                None => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// The next word from the init within `patience`, after noting what it says.
    pub(super) fn next(&mut self, patience: Duration) -> io::Result<Option<Word>> {
        Ok(self.next_with_descriptors(patience)?.map(|(word, _)| word))
    }

    pub(super) fn next_with_descriptors(&mut self, patience: Duration) -> io::Result<Option<(Word, Vec<OwnedFd>)>> {
        let started = Instant::now();
        loop {
            let left = patience.saturating_sub(started.elapsed());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match rustix::event::poll(&mut [PollFd::new(&self.control, PollFlags::IN)], Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(0) => return Ok(None),
                result => result?,
            };
            let Some((word, descriptors)) = receive(self.control.as_fd(), RecvFlags::DONTWAIT)? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            match word.kind {
                Word::ENDED => self.ended = Some(Ending::of(word.value)),
                Word::EMPTY => self.empty = true,
                _ => {}
            }
            return Ok(Some((word, descriptors)));
        }
    }
}

impl Ending {
    /// Reads a status of `wait`.
    fn of(status: i32) -> Ending {
        if status & 0x7f == 0 { Ending::Code(status >> 8 & 0xff) } else { Ending::Signal(status & 0x7f) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_is_not_taken_for_that_to_the_next_request() {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let (control, init) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let mut link = Link { control, ended: None, empty: false, asked: 0 };
        let answer = |request: u32, value: i32| {
            let word = Word { kind: Word::READ_ONLY, request, value };
            rustix::net::send(&init, &word.bytes(), SendFlags::empty()).unwrap();
        };
        let failed = |link: &mut Link| link.set_read_only(Duration::from_millis(20)).unwrap_err();
        assert_eq!(failed(&mut link).kind(), io::ErrorKind::TimedOut);
        // The first request is granted when nobody waits any more; then somebody wrote again.
        answer(1, 0);
        answer(2, libc::EBUSY);
        assert_eq!(failed(&mut link).raw_os_error(), Some(libc::EBUSY));
        answer(3, 0);
        link.set_read_only(Duration::from_secs(60)).unwrap();
    }
}
