//! What calls on sockets say.

use super::calls::Reading;
use super::process::Descriptor;
use super::text::{descriptor, field, has, number};
use super::values::{Address, address, said_open};
use crate::sensor::resolve;

impl Reading<'_, '_> {
    pub(super) fn socket(&mut self) {
        self.args_from(0, 3);
        let close_on_exec = has(self.arg(1), "SOCK_CLOEXEC");
        self.returned(Descriptor { close_on_exec, ..Descriptor::default() });
    }

    /// An address argument: the peer, or the path of a local socket.
    pub(super) fn socket_address(&mut self, index: usize) {
        match address(self.arg(index)) {
            Some(Address::Peer(peer)) => self.fields.peer = Some(peer),
            Some(Address::Path(path)) => self.local_socket(&path),
            None => {}
        }
    }

    pub(super) fn local_socket(&mut self, path: &str) {
        let folder = self.base(None);
        self.fields.path = Some(resolve(folder.as_deref(), path));
    }

    pub(super) fn address(&mut self, index: usize, connects: bool) {
        self.socket_address(index);
        if !connects || self.fields.peer.is_none() && self.fields.path.is_none() {
            return;
        }
        if let Some(number) = descriptor(self.arg(0)).and_then(|fd| fd.number) {
            let old = self.thread.descriptor(number).unwrap_or_default();
            let peer = self.fields.peer.clone();
            self.thread.opened(number, Descriptor { peer, ..old });
        }
    }

    pub(super) fn accept(&mut self) {
        self.socket_address(1);
        if self.fields.peer.is_none()
            && let Some(said) = self.result().descriptor
        {
            self.fields.peer = said_open(said).peer;
        }
        let peer = self.fields.peer.clone();
        self.returned(Descriptor { peer, ..Descriptor::default() });
    }

    /// `sendmmsg` and `recvmmsg` return messages and not bytes; their lengths stand in the argument.
    pub(super) fn messages(&mut self) {
        if !self.call.name.ends_with("mmsg") {
            return;
        }
        let (arg, mut at, mut bytes) = (self.arg(1), 0, None::<u64>);
        while let Some(found) = memchr::memmem::find(&arg[at..], b"msg_len=") {
            at += found + 1;
            let length =
                field(&arg[at - 1..], "msg_len=").and_then(number).and_then(|length| u64::try_from(length).ok());
            bytes = length.map(|length| bytes.unwrap_or(0).saturating_add(length)).or(bytes);
        }
        self.fields.bytes = bytes;
    }
}
