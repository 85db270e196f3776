//! Network interfaces of the namespace that a socket belongs to.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::branch::check;

/// Brings `lo` up or down in the namespace of a socket, whoever holds it.
///
/// # Errors
/// `EPERM` without the right to administer that namespace.
pub(crate) fn loopback(socket: BorrowedFd<'_>, up: bool) -> io::Result<()> {
    let mut request = named(b"lo");
    // SAFETY: both requests take an `ifreq`, which lives through the calls; the union member is the one they fill and read.
    unsafe {
        check(i64::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request)))?;
        let mask = libc::IFF_UP as i16;
        request.ifr_ifru.ifru_flags =
            if up { request.ifr_ifru.ifru_flags | mask } else { request.ifr_ifru.ifru_flags & !mask };
        check(i64::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)))
    }
}

/// Whether `lo` is up in the namespace of a socket.
///
/// # Errors
/// What the kernel reports; there is always a loopback interface.
pub(crate) fn loopback_is_up(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut request = named(b"lo");
    // SAFETY: as above.
    unsafe {
        check(i64::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request)))?;
        Ok(request.ifr_ifru.ifru_flags & libc::IFF_UP as i16 != 0)
    }
}

/// Makes a TUN device in the network namespace of the calling thread; it goes when the descriptor is closed. Packets are read
/// and written whole, without a header.
///
/// # Errors
/// `ENOENT` without `/dev/net/tun`, `EACCES` and `EPERM` without the right to it.
pub(crate) fn tun(name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = rustix::fs::open(c"/dev/net/tun", flags, Mode::empty())?;
    let mut request = named(name.to_bytes());
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: the request takes an `ifreq`, which lives through the call.
    check(i64::from(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw const request) }))?;
    Ok(device)
}

fn named(name: &[u8]) -> libc::ifreq {
    // SAFETY: an `ifreq` of zeroes is an interface without a name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name) {
        *slot = *byte as libc::c_char;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn loopback_of_this_host_can_be_read() {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).unwrap();
        loopback_is_up(socket.as_fd()).unwrap();
    }
}
