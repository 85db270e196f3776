//! The decoy network of a sample: any address answers, every name has an address, and nothing leaves.
//!
//! A TUN device in the sample's network namespace is answered by a stack in this process, which has no socket of the host. Ports
//! that a plan names are answered on the sample's own addresses too, as in the recordings that ship.

mod dns;
mod peer;
mod serve;
mod stack;

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bellwether_env_adapter::calls::name_hash;
use rustix::pipe::{PipeFlags, pipe_with};

/// The name server that a sample is told of; there is none behind it but the decoy network's.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// The sample's own address in the decoy network.
pub(crate) const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// The router that a sample would see.
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// Bits of the network's prefix.
pub(crate) const PREFIX_BITS: u8 = 24;

/// Name of the sample's interface.
pub(crate) const INTERFACE: &std::ffi::CStr = c"eth0";

/// What a sample can reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Its own loopback interface.
    #[default]
    Loopback,
    /// That, and a made-up world behind a TUN device.
    Decoy,
}

/// Most ports that a plan can have answered.
pub const MOST_PORTS: usize = 16;

/// Conversations and names that are noted; more are counted.
const MOST_NOTED: usize = 4_096;

/// Conversations over UDP and names that are told apart beyond that.
const MOST_COUNTED: usize = 1 << 16;

/// Bytes of the beginning of a conversation that are noted.
const NOTED_BYTES: usize = 1_024;

/// What went over the decoy network so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// Conversations, in the order in which they began.
    pub contacts: Vec<Contact>,
    /// Names that were asked for, in that order, each once.
    pub names: Vec<Lookup>,
    /// Conversations and names beyond what is noted; of those over UDP and of names 65,536 at most.
    pub left_out: u64,
}

/// One TCP connection, or all UDP packets to one address and port.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Contact {
    /// How they talked.
    pub protocol: Protocol,
    /// The address and port that the sample turned to.
    pub to: SocketAddrV4,
    /// Bytes from the sample.
    pub sent_bytes: u64,
    /// Bytes to the sample.
    pub received_bytes: u64,
    /// The first kibibyte from the sample; base64 where it is stored.
    #[serde(with = "base64_text")]
    pub first: Vec<u8>,
}

/// Bytes as text, a third of what lists of numbers take.
mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        STANDARD.encode(bytes).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// A name and the address that was made up for it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lookup {
    /// The name; bytes that are no UTF-8 stand as U+FFFD.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
}

/// Protocols that are noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// A connection.
    Tcp,
    /// Packets.
    Udp,
}

/// The thread that answers a sample, until it is closed or dropped.
#[derive(Debug)]
pub struct Decoy {
    traffic: Notes,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

/// What went over the network, shared with the thread that notes it.
#[derive(Clone, Debug, Default)]
struct Notes(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    traffic: Traffic,
    /// What was counted beyond what is noted, so that it is counted once: [`MOST_COUNTED`] at most.
    beyond: HashSet<Beyond>,
}

/// What comes again and again.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Beyond {
    Udp(SocketAddrV4),
    /// The hash of a name.
    Name(u64),
}

impl Decoy {
    /// Starts to answer: on a TUN device, and on sockets that listen.
    ///
    /// # Errors
    /// What the host reports when it has no pipe or thread left.
    pub(crate) fn start(device: Option<OwnedFd>, listeners: Vec<OwnedFd>, seed: u64) -> io::Result<Decoy> {
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let traffic = Notes::default();
        let server = serve::Server::new(device, listeners, stopped, traffic.clone(), seed);
        let thread = std::thread::Builder::new().name("decoy network".to_owned()).spawn(move || server.run())?;
        Ok(Decoy { traffic, stop, thread: Some(thread) })
    }

    /// What went over the network so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic.lock().traffic.clone()
    }

    /// Tells the thread to close the device and all connections. It does so soon: removing a device takes the kernel
    /// milliseconds, which whoever cuts a network need not wait for once its interfaces are down.
    pub(crate) fn stop(&self) {
        // It fails when the thread has ended, which is what is wanted.
        rustix::io::write(&self.stop, &[1]).ok();
    }
}

impl Drop for Decoy {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Noted {
    /// Counts what is not noted; what comes again once.
    fn leave_out(&mut self, what: Beyond) {
        if self.beyond.len() < MOST_COUNTED && self.beyond.insert(what) {
            self.traffic.left_out += 1;
        }
    }
}

impl Notes {
    fn lock(&self) -> MutexGuard<'_, Noted> {
        // Every statement behind the lock leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a conversation; returns its place, if it is noted.
    fn begin(&self, protocol: Protocol, to: SocketAddrV4) -> Option<usize> {
        let noted = &mut *self.lock();
        if noted.traffic.contacts.len() == MOST_NOTED {
            match protocol {
                Protocol::Tcp => noted.traffic.left_out += 1,
                Protocol::Udp => noted.leave_out(Beyond::Udp(to)),
            }
            return None;
        }
        let traffic = &mut noted.traffic;
        traffic.contacts.push(Contact { protocol, to, sent_bytes: 0, received_bytes: 0, first: Vec::new() });
        Some(traffic.contacts.len() - 1)
    }

    /// Notes packets of UDP, all to one place as one conversation.
    fn packet(&self, to: SocketAddrV4, bytes: &[u8]) {
        let known = self.lock().traffic.contacts.iter().position(|one| one.protocol == Protocol::Udp && one.to == to);
        let at = known.or_else(|| self.begin(Protocol::Udp, to));
        self.sent(at, bytes);
    }

    fn sent(&self, at: Option<usize>, bytes: &[u8]) {
        let traffic = &mut self.lock().traffic;
        if let Some(contact) = at.and_then(|at| traffic.contacts.get_mut(at)) {
            contact.sent_bytes += bytes.len() as u64;
            let room = NOTED_BYTES - contact.first.len();
            contact.first.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    fn received(&self, at: Option<usize>, count: usize) {
        let traffic = &mut self.lock().traffic;
        if let Some(contact) = at.and_then(|at| traffic.contacts.get_mut(at)) {
            contact.received_bytes += count as u64;
        }
    }

    /// The address of a name: the one it was given, or a new one.
    fn address(&self, name: &str) -> Ipv4Addr {
        let noted = &mut *self.lock();
        let traffic = &mut noted.traffic;
        if let Some(known) = traffic.names.iter().find(|known| known.name == name) {
            return known.address;
        }
        // 198.18.0.0/15 is nobody's on the internet: RFC 2544 sets it aside for measurements.
        let number = traffic.names.len() as u32 + 1;
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number);
        if traffic.names.len() == MOST_NOTED {
            noted.leave_out(Beyond::Name(name_hash(name)));
        } else {
            traffic.names.push(Lookup { name: name.to_owned(), address });
        }
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_list_conversations_are_counted_and_not_packets() {
        let notes = Notes::default();
        let to = |number: u32| SocketAddrV4::new(Ipv4Addr::from(0xcb00_7100 + number), 53);
        for number in 0..MOST_NOTED as u32 {
            notes.packet(to(number), b"first");
        }
        for _ in 0..3 {
            notes.packet(to(0), b"again");
            notes.packet(to(1 << 16), b"a new place");
        }
        assert_eq!(notes.lock().traffic.left_out, 1);
        notes.begin(Protocol::Tcp, to(0));
        notes.begin(Protocol::Tcp, to(0));
        assert_eq!(notes.lock().traffic.left_out, 3, "each connection is one");
        for number in 0..MOST_NOTED {
            notes.address(&format!("host{number}.example"));
        }
        for _ in 0..3 {
            notes.address("one.more.example");
        }
        assert_eq!(notes.lock().traffic.left_out, 4);
        let contacts = &notes.lock().traffic.contacts;
        assert_eq!((contacts.len(), contacts[0].sent_bytes), (MOST_NOTED, 20));
    }
}
