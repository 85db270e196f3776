//! Values in arguments: texts, lists, descriptors, addresses, samples.

use std::rc::Rc;

use super::process::Descriptor;
use super::text::{field, number, string, unescaped};
use crate::sensor::lossy;

/// An argument as text: a string without its escapes, anything else as it stands.
pub(super) fn plain(arg: &[u8]) -> String {
    match string(arg) {
        Some(bytes) => lossy(bytes),
        None => lossy(arg.to_vec()),
    }
}

/// A list of strings (`["a", "b"]`) with the strings' escapes undone.
pub(super) fn string_list(arg: &[u8]) -> Option<String> {
    let inner = arg.strip_prefix(b"[")?;
    let mut list = String::from("[");
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'"', &inner[at..]) {
        let start = at + found;
        let mut end = start + 1;
        while *inner.get(end)? != b'"' {
            end += if inner[end] == b'\\' { 2 } else { 1 };
        }
        if list.len() > 1 {
            list.push_str(", ");
        }
        list.push('"');
        list.push_str(&lossy(string(&inner[start..=end])?));
        list.push('"');
        at = end + 1;
    }
    list.push(']');
    Some(list)
}

/// The path that `-y` shows, if it shows one.
pub(super) fn path_said(said: &[u8]) -> Option<String> {
    said_open(said).path.map(|path| path.to_string())
}

/// What `-y` says a descriptor stands for.
pub(super) fn said_open(said: &[u8]) -> Descriptor {
    if let Some(inside) = memchr::memmem::find(said, b":[").map(|at| &said[at + 2..])
        && said.first().is_some_and(u8::is_ascii_uppercase)
    {
        let inside = inside.strip_suffix(b"]").unwrap_or(inside);
        let peer = memchr::memmem::find(inside, b"->").and_then(|at| endpoint(&inside[at + 2..]));
        return Descriptor { peer, ..Descriptor::default() };
    }
    // A device says its kind and number behind its path.
    let end = memchr::memchr(b'<', said).unwrap_or(said.len());
    let path = lossy(unescaped(&said[..end]).into_owned());
    let path = path.strip_suffix(" (deleted)").unwrap_or(&path);
    let path = path.starts_with('/').then(|| Rc::from(path));
    Descriptor { path, ..Descriptor::default() }
}

/// `1.2.3.4:80` or `[::1]:80`.
fn endpoint(text: &[u8]) -> Option<(String, Option<u16>)> {
    let text = std::str::from_utf8(text).ok()?;
    let (address, port) = text.rsplit_once(':')?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let known = address.parse::<std::net::IpAddr>().is_ok();
    known.then(|| (address.to_owned(), port.parse().ok()))
}

/// What a socket address names.
pub(super) enum Address {
    /// Address and port of a peer.
    Peer((String, Option<u16>)),
    /// Path of a local socket.
    Path(String),
}

/// A socket address within an argument.
pub(super) fn address(arg: &[u8]) -> Option<Address> {
    if let Some(path) = field(arg, "sun_path=").and_then(string) {
        return Some(Address::Path(lossy(path)));
    }
    let host = field(arg, "inet_addr(").or_else(|| {
        let inside = &arg[memchr::memmem::find(arg, b"inet_pton(")?..];
        field(inside, ", ")
    });
    let host = lossy(string(host?)?);
    let port = field(arg, "_port=htons(").and_then(number).and_then(|port| u16::try_from(port).ok());
    Some(Address::Peer((host, port)))
}
