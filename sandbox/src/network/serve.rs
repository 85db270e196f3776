//! The thread that answers: one loop over the TUN device, the sockets that listen and those that were accepted.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags};

use super::peer::Peer;
use super::stack::Stack;
use super::{Notes, Protocol};

/// Connections on the sample's own addresses at once; more wait.
const MOST_TALKS: usize = 64;

/// Answers that may wait to be sent on one connection before it is read no further.
const MOST_WAITING: usize = 1 << 20;

pub(super) struct Server {
    stack: Option<Stack>,
    listeners: Vec<OwnedFd>,
    talks: Vec<Talk>,
    stopped: OwnedFd,
    notes: Notes,
    seed: u64,
}

struct Talk {
    socket: OwnedFd,
    peer: Peer,
    waiting: Vec<u8>,
    noted: Option<usize>,
}

impl Server {
    pub(super) fn new(
        device: Option<OwnedFd>,
        listeners: Vec<OwnedFd>,
        stopped: OwnedFd,
        notes: Notes,
        seed: u64,
    ) -> Server {
        let stack = device.map(|device| Stack::new(device, notes.clone(), seed));
        Server { stack, listeners, talks: Vec::new(), stopped, notes, seed }
    }

    /// Answers until it is stopped, or the host has no way to wait any more.
    pub(super) fn run(mut self) {
        loop {
            let Ok(ready) = self.wait() else { return };
            if ready.first().is_some_and(|stopped| !stopped.is_empty()) {
                return;
            }
            if let Some(stack) = &mut self.stack
                && stack.turn().is_err()
            {
                // The device is gone, with the namespace or by a cut.
                self.stack = None;
            }
            self.accept();
            let notes = &self.notes;
            self.talks.retain_mut(|talk| talk.turn(notes));
        }
    }

    /// Waits until there is something to do; the first answer is whether to stop.
    fn wait(&self) -> Result<Vec<PollFlags>, Errno> {
        let mut polled = vec![PollFd::new(&self.stopped, PollFlags::IN)];
        polled.extend(self.stack.as_ref().map(|stack| PollFd::new(stack.device(), PollFlags::IN)));
        if self.talks.len() < MOST_TALKS {
            polled.extend(self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        }
        polled.extend(self.talks.iter().map(|talk| {
            let reads = if talk.reads() { PollFlags::IN } else { PollFlags::empty() };
            let writes = if talk.waiting.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            PollFd::new(&talk.socket, reads | writes)
        }));
        let timeout = self
            .stack
            .as_ref()
            .and_then(Stack::delay)
            .map(|delay| Timespec { tv_sec: delay.as_secs() as i64, tv_nsec: delay.subsec_nanos().into() });
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(_) => Ok(polled.iter().map(|one| one.revents()).collect()),
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn accept(&mut self) {
        for listener in &self.listeners {
            while self.talks.len() < MOST_TALKS {
                let Ok(socket) = rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
                else {
                    break;
                };
                let to = rustix::net::getsockname(&socket).ok().and_then(|to| SocketAddrV4::try_from(to).ok());
                let to = to.unwrap_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
                let noted = self.notes.begin(Protocol::Tcp, to);
                self.talks.push(Talk { socket, peer: Peer::new(self.seed), waiting: Vec::new(), noted });
            }
        }
    }
}

impl Talk {
    fn reads(&self) -> bool {
        self.waiting.len() < MOST_WAITING
    }

    /// Reads and writes what can be; returns whether the connection goes on.
    fn turn(&mut self, notes: &Notes) -> bool {
        let mut bytes = [0; 16 << 10];
        while self.reads() {
            match rustix::io::read(&self.socket, &mut bytes) {
                Ok(0) => return false,
                Ok(count) => {
                    notes.sent(self.noted, &bytes[..count]);
                    self.peer.take(&bytes[..count], &mut self.waiting);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return false,
            }
        }
        while !self.waiting.is_empty() {
            match rustix::net::send(&self.socket, &self.waiting, SendFlags::NOSIGNAL) {
                Ok(count) => {
                    notes.received(self.noted, count);
                    self.waiting.drain(..count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        !self.peer.is_done()
    }
}
