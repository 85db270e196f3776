//! The made-up world behind the TUN device: a TCP/IP stack in user space that is every address at once.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{
    HardwareAddress, IpCidr, IpListenEndpoint, IpProtocol, Ipv4Packet, Ipv4Repr, TcpPacket, UdpPacket, UdpRepr,
};

use super::peer::Peer;
use super::{Notes, PREFIX_BITS, Protocol, ROUTER, dns};

/// Longest packet; the device's own bound.
const MOST_PACKET: usize = 1_500;

/// Connections at once; more are not answered until one ends.
const MOST_FLOWS: usize = 64;

/// Buffer of one connection in each direction, in bytes.
const BUFFER_BYTES: usize = 32 << 10;

/// Packets that are read in one turn.
const MOST_PACKETS: usize = 64;

/// Answers that may wait to be sent on one connection before it is read no further.
const MOST_WAITING: usize = 1 << 20;

const NAME_PORT: u16 = 53;

pub(super) struct Stack {
    device: OwnedFd,
    packets: Packets,
    interface: Interface,
    sockets: SocketSet<'static>,
    flows: BTreeMap<(SocketAddrV4, SocketAddrV4), Flow>,
    notes: Notes,
    seed: u64,
    started: Instant,
}

/// A connection, from the sample's end to the other.
struct Flow {
    handle: SocketHandle,
    peer: Peer,
    waiting: Vec<u8>,
    noted: Option<usize>,
    /// Whether the sample has acknowledged the answer to its first packet.
    stood: bool,
}

/// What goes in and out between two calls of the interface.
#[derive(Default)]
struct Packets {
    incoming: Option<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl Stack {
    pub(super) fn new(device: OwnedFd, notes: Notes, seed: u64) -> Stack {
        let mut packets = Packets::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut packets, StackInstant::ZERO);
        // There is room for one address and one route: they are the first.
        interface.update_ip_addrs(|own| {
            own.push(IpCidr::new(ROUTER.into(), PREFIX_BITS)).ok();
        });
        interface.routes_mut().add_default_ipv4_route(ROUTER).ok();
        // Whatever is routed over its own address is its own.
        interface.set_any_ip(true);
        Stack {
            device,
            packets,
            interface,
            sockets: SocketSet::new(Vec::new()),
            flows: BTreeMap::new(),
            notes,
            seed,
            started: Instant::now(),
        }
    }

    pub(super) const fn device(&self) -> &OwnedFd {
        &self.device
    }

    /// Time until it must turn though nothing came; none if it need not.
    pub(super) fn delay(&self) -> Option<Duration> {
        // Retransmissions are never needed over a device that loses nothing, but ends that wait out their time are.
        (!self.flows.is_empty()).then_some(Duration::from_millis(50))
    }

    /// Takes in what came, answers, and sends what is due.
    ///
    /// # Errors
    /// What the device reports when it is gone.
    pub(super) fn turn(&mut self) -> Result<(), Errno> {
        for _ in 0..MOST_PACKETS {
            let mut packet = vec![0; MOST_PACKET];
            match rustix::io::read(&self.device, &mut packet) {
                Ok(count) => packet.truncate(count),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            }
            if self.meet(&packet) {
                self.packets.incoming = Some(packet);
                self.poll();
            }
            self.converse();
        }
        self.converse();
        self.poll();
        self.send();
        Ok(())
    }

    fn poll(&mut self) {
        let now = StackInstant::from_micros(self.started.elapsed().as_micros() as i64);
        self.interface.poll(now, &mut self.packets, &mut self.sockets);
    }

    fn send(&mut self) {
        while let Some(packet) = self.packets.outgoing.pop_front() {
            // A device that is full or down loses packets, as networks do.
            rustix::io::write(&self.device, &packet).ok();
        }
    }

    /// Looks at a packet before the interface does; returns whether the interface is to see it.
    fn meet(&mut self, packet: &[u8]) -> bool {
        let Ok(ip) = Ipv4Packet::new_checked(packet) else { return false };
        let (from, to) = (ip.src_addr(), ip.dst_addr());
        match ip.next_header() {
            IpProtocol::Udp => {
                if let Ok(udp) = UdpPacket::new_checked(ip.payload()) {
                    let to = SocketAddrV4::new(to, udp.dst_port());
                    self.datagram(SocketAddrV4::new(from, udp.src_port()), to, udp.payload());
                }
                false
            }
            IpProtocol::Tcp => {
                if let Ok(segment) = TcpPacket::new_checked(ip.payload())
                    && segment.syn()
                    && !segment.ack()
                {
                    let from = SocketAddrV4::new(from, segment.src_port());
                    self.listen(from, SocketAddrV4::new(to, segment.dst_port()));
                }
                true
            }
            _ => true,
        }
    }

    fn datagram(&mut self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        if to.port() != NAME_PORT {
            self.notes.packet(to, payload);
            return;
        }
        let notes = &self.notes;
        if let Some(answer) = dns::answer(payload, |name| notes.address(name)) {
            self.packets.outgoing.push_back(datagram(to, from, &answer));
        }
    }

    /// Readies a socket for a connection that begins.
    fn listen(&mut self, from: SocketAddrV4, to: SocketAddrV4) {
        if self.flows.len() >= MOST_FLOWS || self.flows.contains_key(&(from, to)) || to.port() == 0 {
            return;
        }
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER_BYTES]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(smoltcp::time::Duration::from_secs(60)));
        if socket.listen(IpListenEndpoint { addr: Some((*to.ip()).into()), port: to.port() }).is_err() {
            return;
        }
        let handle = self.sockets.add(socket);
        let noted = self.notes.begin(Protocol::Tcp, to);
        let flow = Flow { handle, peer: Peer::new(self.seed), waiting: Vec::new(), noted, stood: false };
        self.flows.insert((from, to), flow);
    }

    /// Hands what came on every connection to its other end, and what that answers to the connection.
    fn converse(&mut self) {
        let (sockets, notes) = (&mut self.sockets, &self.notes);
        self.flows.retain(|_, flow| {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(flow.handle);
            let goes_on = flow.turn(socket, notes);
            if !goes_on {
                sockets.remove(flow.handle);
            }
            goes_on
        });
    }
}

impl Flow {
    fn turn(&mut self, socket: &mut tcp::Socket<'_>, notes: &Notes) -> bool {
        self.stood |= socket.may_send();
        while socket.can_recv() && self.waiting.len() < MOST_WAITING {
            let taken = socket.recv(|bytes| {
                notes.sent(self.noted, bytes);
                self.peer.take(bytes, &mut self.waiting);
                (bytes.len(), ())
            });
            if taken.is_err() {
                break;
            }
        }
        while socket.can_send() && !self.waiting.is_empty() {
            let Ok(count) = socket.send_slice(&self.waiting) else { break };
            notes.received(self.noted, count);
            self.waiting.drain(..count);
        }
        let heard_all = self.stood && !socket.may_recv() && !socket.can_recv();
        if self.waiting.is_empty() && (self.peer.is_done() || heard_all) {
            socket.close();
        }
        socket.is_open()
    }
}

/// A packet of UDP.
fn datagram(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let udp = UdpRepr { src_port: from.port(), dst_port: to.port() };
    let ip = Ipv4Repr {
        src_addr: *from.ip(),
        dst_addr: *to.ip(),
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + payload.len(),
        hop_limit: 64,
    };
    let mut packet = vec![0; ip.buffer_len() + ip.payload_len];
    let sums = ChecksumCapabilities::default();
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut packet[..]), &sums);
    let inner = &mut packet[ip.buffer_len()..];
    let (source, target) = ((*from.ip()).into(), (*to.ip()).into());
    udp.emit(
        &mut UdpPacket::new_unchecked(inner),
        &source,
        &target,
        payload.len(),
        |room| room.copy_from_slice(payload),
        &sums,
    );
    packet
}

impl Device for Packets {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _now: StackInstant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _now: StackInstant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MOST_PACKET;
        capabilities
    }
}

struct Incoming(Vec<u8>);

struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut packet = vec![0; length];
        let result = fill(&mut packet);
        self.0.push_back(packet);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_of_udp_is_whole() {
        let (from, to) = ("10.0.2.3:53".parse().unwrap(), "10.0.2.15:4000".parse().unwrap());
        let packet = datagram(from, to, b"answer");
        let ip = Ipv4Packet::new_checked(&packet[..]).unwrap();
        assert!(ip.verify_checksum());
        let udp = UdpPacket::new_checked(ip.payload()).unwrap();
        assert!(udp.verify_checksum(&(*from.ip()).into(), &(*to.ip()).into()));
        assert_eq!(udp.payload(), b"answer");
    }
}
