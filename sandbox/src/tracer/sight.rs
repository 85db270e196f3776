//! What can be seen of a stopped task from outside: its memory, its descriptors, its folder.

use std::collections::HashMap;
use std::io::Write;

use bellwether_env_adapter::sensor::lossy;

use crate::edge::remote;

/// The longest path that the kernel takes, in bytes.
const MAX_PATH: usize = 4096;
/// Sockets whose peers are remembered.
const MAX_PEERS: usize = 1 << 16;

/// Address and port of a peer.
pub(super) type Peer = (String, Option<u16>);

/// Peers by the inode of the socket, which is the same in whatever process and under whatever number it is open.
#[derive(Debug, Default)]
pub(super) struct Peers(HashMap<u64, Peer>);

/// What a descriptor stands for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Open {
    pub(super) path: Option<String>,
    pub(super) peer: Option<Peer>,
    /// Inode, of a socket.
    pub(super) socket: Option<u64>,
}

/// Looks at one task.
pub(super) struct Sight<'a> {
    pub(super) tid: u32,
    pub(super) peers: &'a mut Peers,
    /// Memory of the task was read.
    pub(super) looked: bool,
}

impl Peers {
    /// The socket has this peer from now on; without one it is a new socket.
    pub(super) fn set(&mut self, socket: u64, peer: Option<Peer>) {
        match peer {
            None => _ = self.0.remove(&socket),
            Some(peer) if self.0.len() < MAX_PEERS || self.0.contains_key(&socket) => _ = self.0.insert(socket, peer),
            Some(_) => {}
        }
    }
}

impl Sight<'_> {
    /// Fills `into` from the task's memory as far as it is there; gives how many bytes it holds.
    pub(super) fn bytes(&mut self, from: u64, into: &mut [u8]) -> usize {
        self.looked = true;
        if from == 0 { 0 } else { remote::read(self.tid, from, into) }
    }

    /// A structure of `N` bytes.
    pub(super) fn structure<const N: usize>(&mut self, from: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        (self.bytes(from, &mut bytes) == N).then_some(bytes)
    }

    /// Text up to its zero byte, of at most `limit` bytes; none where there is no memory.
    pub(super) fn string(&mut self, from: u64, limit: usize) -> Option<Vec<u8>> {
        let (mut text, mut chunk) = (Vec::new(), [0u8; 256]);
        while text.len() < limit {
            let room = chunk.len().min(limit - text.len());
            let read = self.bytes(from.checked_add(text.len() as u64)?, &mut chunk[..room]);
            if read == 0 {
                return None;
            }
            if let Some(end) = chunk[..read].iter().position(|byte| *byte == 0) {
                text.extend_from_slice(&chunk[..end]);
                return Some(text);
            }
            text.extend_from_slice(&chunk[..read]);
        }
        Some(text)
    }

    /// A path argument.
    pub(super) fn path(&mut self, from: u64) -> Option<String> {
        self.string(from, MAX_PATH).map(lossy)
    }

    /// The folder that relative paths count from.
    pub(super) fn folder(&self) -> Option<String> {
        plain_path(&self.link(format_args!("cwd"))?)
    }

    /// What a descriptor stands for; nothing is known of one that is not open.
    pub(super) fn open(&self, descriptor: i32) -> Open {
        if descriptor < 0 {
            return Open::default();
        }
        // Folders of a task that made itself undumpable are root's: an ordinary user looks at a copy.
        let link = self.link(format_args!("fd/{descriptor}")).or_else(|| remote::copied_link(self.tid, descriptor));
        link.map_or_else(Open::default, |link| said(&link, self.peers))
    }

    fn link(&self, name: std::fmt::Arguments<'_>) -> Option<Vec<u8>> {
        let mut path = [0u8; 64];
        // The last byte stays zero: it ends the path.
        write!(&mut path[..63], "/proc/{}/{name}", self.tid).ok()?;
        let path = std::ffi::CStr::from_bytes_until_nul(&path).ok()?;
        remote::link(path)
    }
}

/// What a link below `/proc/PID/fd` says.
fn said(link: &[u8], peers: &Peers) -> Open {
    if let Some(inode) = link.strip_prefix(b"socket:[") {
        let socket = std::str::from_utf8(inode).ok().and_then(|inode| inode.trim_end_matches(']').parse().ok());
        let peer = socket.and_then(|socket| peers.0.get(&socket).cloned());
        return Open { path: None, peer, socket };
    }
    Open { path: plain_path(link), ..Open::default() }
}

fn plain_path(link: &[u8]) -> Option<String> {
    let link = link.strip_suffix(b" (deleted)").unwrap_or(link);
    link.starts_with(b"/").then(|| lossy(link.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_descriptors_are_read() {
        let mut peers = Peers::default();
        peers.set(7, Some(("10.0.0.1".to_owned(), Some(80))));
        for (link, path, peer) in [
            ("/a b/c", Some("/a b/c"), false),
            ("/gone (deleted)", Some("/gone"), false),
            ("/memfd:x (deleted)", Some("/memfd:x"), false),
            ("pipe:[12]", None, false),
            ("anon_inode:[eventfd]", None, false),
            ("socket:[7]", None, true),
            ("socket:[8]", None, false),
        ] {
            let open = said(link.as_bytes(), &peers);
            assert_eq!((open.path.as_deref(), open.peer.is_some()), (path, peer), "{link}");
        }
        peers.set(7, None);
        assert_eq!(said(b"socket:[7]", &peers).peer, None);
    }

    #[test]
    fn a_process_is_seen() {
        let mut peers = Peers::default();
        let mut sight = Sight { tid: std::process::id(), peers: &mut peers, looked: false };
        assert_eq!(sight.folder(), std::env::current_dir().ok().map(|path| path.display().to_string()));
        let file = tempfile::NamedTempFile::new().unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(file.as_file());
        assert_eq!(sight.open(number).path, Some(file.path().display().to_string()));
        assert_eq!(sight.open(-1), Open::default());
        assert_eq!(sight.open(99_999), Open::default());
        assert!(!sight.looked);
        let long = vec![b'x'; 700];
        let text = [long.as_slice(), b"\0rest"].concat();
        assert_eq!(sight.string(text.as_ptr() as u64, 4096), Some(long));
        assert_eq!(sight.string(text.as_ptr() as u64, 10), Some(vec![b'x'; 10]));
        assert_eq!(sight.string(0, 10), None);
        assert_eq!(sight.string(u64::MAX - 2, 10), None);
        assert!(sight.looked);
    }
}
