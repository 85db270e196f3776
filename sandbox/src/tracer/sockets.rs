//! What calls on sockets say, and what is written.

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr};

use bellwether_env_adapter::sensor::{SAMPLE_BYTES, entropy, lossy, resolve};

use super::fields::Reading;
use super::sight::Peer;
use super::words;

/// Pieces of one vector, and messages of one call, that are looked at.
const MAX_PIECES: u64 = 64;
/// Messages of one call whose lengths are summed up.
const MAX_MESSAGES: i64 = 1024;
/// Bytes of `struct mmsghdr`.
const MESSAGE: u64 = 64;
/// The longest socket address, in bytes.
const MAX_ADDRESS: usize = 128;

/// Bytes of a table of connections that are read.
const MAX_TABLE: u64 = 1 << 20;

/// What a socket address names.
#[derive(Debug, PartialEq)]
enum Address {
    /// Address and port of a peer.
    Peer(Peer),
    /// Path or name of a local socket.
    Path(String),
}

/// A message of `sendmsg` and its kin.
struct Message {
    address: u64,
    address_length: u32,
    vector: u64,
    pieces: u64,
}

impl Reading<'_, '_> {
    /// Reads a call on sockets that has not run; false if it is none.
    pub(super) fn begin_socket_call(&mut self) -> bool {
        match self.number {
            libc::SYS_socket => {
                let (family, kind) = (i64::from(self.int(0)), i64::from(self.int(1)));
                let protocol = words::protocol(family, i64::from(self.int(2)));
                self.words(format!("{}, {}, {protocol}", words::family(family), words::socket_type(kind)));
            }
            libc::SYS_connect | libc::SYS_bind => self.address(self.args[1], self.args[2] as u32),
            libc::SYS_listen => self.peer_of_descriptor(0),
            libc::SYS_accept | libc::SYS_accept4 => {}
            libc::SYS_sendto => {
                self.peer_of_descriptor(0);
                self.fields.entropy = self.entropy_of(self.args[1], self.args[2]);
                self.address(self.args[4], self.args[5] as u32);
            }
            libc::SYS_sendmsg | libc::SYS_sendmmsg => {
                self.peer_of_descriptor(0);
                let count =
                    if self.number == libc::SYS_sendmsg { 1 } else { (self.args[2] & 0xffff_ffff).min(MAX_PIECES) };
                self.sent(count);
            }
            libc::SYS_recvfrom | libc::SYS_recvmsg | libc::SYS_recvmmsg => self.peer_of_descriptor(0),
            _ => return false,
        }
        true
    }

    /// Adds what a call on sockets returned.
    pub(super) fn end_socket_call(&mut self, ok: Option<i64>) {
        match self.number {
            libc::SYS_socket => {
                // The inode of a socket that was closed may be this one's.
                if let Some(socket) = self.returned_socket(ok) {
                    self.sight.peers.set(socket, None);
                }
            }
            libc::SYS_connect => {
                if let (true, Some(socket)) = (self.fields.peer.is_some(), self.descriptor(0).socket) {
                    self.sight.peers.set(socket, self.fields.peer.clone());
                }
            }
            libc::SYS_accept | libc::SYS_accept4 => {
                if ok.is_some() && self.args[1] != 0 {
                    let length = self.sight.structure::<4>(self.args[2]).map_or(0, u32::from_le_bytes);
                    self.address(self.args[1], length);
                }
                if let Some(socket) = self.returned_socket(ok) {
                    if self.fields.peer.is_none() {
                        self.fields.peer = connected_to(self.sight.tid, socket);
                    }
                    self.sight.peers.set(socket, self.fields.peer.clone());
                }
            }
            libc::SYS_sendto | libc::SYS_sendmsg => self.moved(ok),
            libc::SYS_recvfrom => {
                self.moved(ok);
                if ok.is_some() && self.args[4] != 0 {
                    let length = self.sight.structure::<4>(self.args[5]).map_or(0, u32::from_le_bytes);
                    self.address(self.args[4], length);
                }
            }
            libc::SYS_recvmsg => {
                self.moved(ok);
                if let (Some(_), Some(message)) = (ok, self.message(self.args[1])) {
                    self.address(message.address, message.address_length);
                }
            }
            libc::SYS_sendmmsg | libc::SYS_recvmmsg => self.messages(ok),
            _ => {}
        }
    }

    fn returned_socket(&self, ok: Option<i64>) -> Option<u64> {
        let number = i32::try_from(ok?).ok()?;
        self.sight.open(number).socket
    }

    /// `sendmmsg` and `recvmmsg` return messages and not bytes; their lengths stand in memory.
    fn messages(&mut self, ok: Option<i64>) {
        if ok.is_none() {
            self.fields.entropy = None;
        }
        let mut sum = None::<u64>;
        for at in 0..ok.unwrap_or(0).clamp(0, MAX_MESSAGES) as u64 {
            let from = self.args[1].wrapping_add(at * MESSAGE);
            if at == 0
                && self.number == libc::SYS_recvmmsg
                && let Some(message) = self.message(from)
            {
                self.address(message.address, message.address_length);
            }
            let length = self.sight.structure::<4>(from.wrapping_add(56)).map(u32::from_le_bytes);
            sum = length.map(|length| sum.unwrap_or(0) + u64::from(length)).or(sum);
        }
        self.fields.bytes = sum;
    }

    /// The address and the data of the messages that are to be sent.
    fn sent(&mut self, count: u64) {
        let mut sample = Vec::new();
        for at in 0..count {
            let Some(message) = self.message(self.args[1].wrapping_add(at * MESSAGE)) else { break };
            if at == 0 {
                self.address(message.address, message.address_length);
            }
            self.gather(message.vector, message.pieces, &mut sample);
        }
        self.fields.entropy = entropy(&sample);
    }

    fn message(&mut self, from: u64) -> Option<Message> {
        let bytes = self.sight.structure::<32>(from)?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        Some(Message { address: word(0), address_length: word(8) as u32, vector: word(16), pieces: word(24) })
    }

    /// An address argument: the peer, or the path of a local socket.
    fn address(&mut self, from: u64, length: u32) {
        let mut bytes = [0u8; MAX_ADDRESS];
        let length = (length as usize).min(MAX_ADDRESS);
        if from == 0 || self.sight.bytes(from, &mut bytes[..length]) != length {
            return;
        }
        match address(&bytes[..length]) {
            Some(Address::Peer(peer)) => self.fields.peer = Some(peer),
            Some(Address::Path(path)) => {
                let folder = if path.starts_with('/') { None } else { self.sight.folder() };
                self.fields.path = Some(resolve(folder.as_deref(), &path));
            }
            None => {}
        }
    }

    // What is written.

    /// Entropy of the beginning of a buffer.
    pub(super) fn entropy_of(&mut self, from: u64, length: u64) -> Option<f32> {
        let mut sample = [0u8; SAMPLE_BYTES];
        let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(SAMPLE_BYTES);
        let read = self.sight.bytes(from, &mut sample[..wanted]);
        entropy(&sample[..read])
    }

    /// Entropy of the beginning of a vector of buffers.
    pub(super) fn vector_entropy(&mut self, vector: u64, pieces: u64) -> Option<f32> {
        let mut sample = Vec::new();
        self.gather(vector, pieces, &mut sample);
        entropy(&sample)
    }

    fn gather(&mut self, vector: u64, pieces: u64, sample: &mut Vec<u8>) {
        for at in 0..pieces.min(MAX_PIECES) {
            let room = SAMPLE_BYTES.saturating_sub(sample.len());
            if room == 0 {
                break;
            }
            let Some(piece) = self.sight.structure::<16>(vector.wrapping_add(at * 16)) else { break };
            let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| piece[at + byte]));
            let mut bytes = [0u8; SAMPLE_BYTES];
            let wanted = usize::try_from(word(8)).unwrap_or(usize::MAX).min(room);
            let read = self.sight.bytes(word(0), &mut bytes[..wanted]);
            sample.extend_from_slice(&bytes[..read]);
        }
    }
}

/// The peer of a connected socket, from the kernel's tables: whoever accepts need not ask for it.
fn connected_to(tid: u32, socket: u64) -> Option<Peer> {
    ["tcp", "tcp6"].into_iter().find_map(|table| {
        let mut text = String::new();
        let file = File::open(format!("/proc/{tid}/net/{table}")).ok()?;
        file.take(MAX_TABLE).read_to_string(&mut text).ok()?;
        text.lines().skip(1).find_map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            (words.get(9)?.parse() == Ok(socket)).then(|| endpoint(words[2])).flatten()
        })
    })
}

/// An endpoint as the kernel's tables show it: 32-bit words of the host's order in hexadecimal, a colon, the port.
fn endpoint(text: &str) -> Option<Peer> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(host.get(8 * at..8 * at + 8)?, 16).ok()?.to_ne_bytes());
    let host = match host.len() {
        8 => Ipv4Addr::from(word(0)?).to_string(),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(bytes).to_string()
        }
        _ => return None,
    };
    Some((host, Some(port)))
}

/// The address in the bytes of a `struct sockaddr`.
fn address(bytes: &[u8]) -> Option<Address> {
    let family = u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?);
    let port = || Some(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?));
    match i32::from(family) {
        libc::AF_INET => {
            let host: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(Address::Peer((Ipv4Addr::from(host).to_string(), port())))
        }
        libc::AF_INET6 => {
            let host: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            Some(Address::Peer((Ipv6Addr::from(host).to_string(), port())))
        }
        libc::AF_UNIX => {
            let name = bytes.get(2..).filter(|name| !name.is_empty())?;
            let name = match name.split_first() {
                // An abstract name has all bytes that its length says.
                Some((0, name)) => name,
                _ => name.split(|byte| *byte == 0).next().unwrap_or_default(),
            };
            Some(Address::Path(lossy(name.to_vec())))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_the_kernels_tables_are_read() {
        for (text, host, port) in [
            ("0100007F:9F49", "127.0.0.1", 40777),
            ("00000000000000000000000001000000:0050", "::1", 80),
            ("0000000000000000FFFF00000100007F:0050", "::ffff:127.0.0.1", 80),
        ] {
            assert_eq!(endpoint(text), Some((host.to_owned(), Some(port))));
        }
        assert_eq!(endpoint("0100:9F49"), None);
        assert_eq!(endpoint("0100007F"), None);
    }

    #[test]
    fn socket_addresses_are_read() {
        let peer = |host: &str, port| Some(Address::Peer((host.to_owned(), Some(port))));
        let path = |path: &str| Some(Address::Path(path.to_owned()));
        let six = [&[10, 0, 0x1f, 0x90, 0, 0, 0, 0][..], &[0; 15], &[1], &[0; 4]].concat();
        for (bytes, expected) in [
            (&[2, 0, 0, 80, 10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0][..], peer("10.1.2.3", 80)),
            (&six, peer("::1", 8080)),
            (b"\x01\0/run/x\0junk", path("/run/x")),
            (b"\x01\0\0abs\0tract", path("abs\0tract")),
            (b"\x01\0", None),
            (&[16, 0, 1, 2, 3, 4], None),
            (&[2, 0, 0], None),
            (&[2], None),
            (&[], None),
        ] {
            assert_eq!(address(bytes), expected, "{bytes:?}");
        }
    }
}
