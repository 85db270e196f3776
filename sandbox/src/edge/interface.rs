//! Network interfaces of the namespace that a socket belongs to.

use std::ffi::CStr;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::branch::check;

/// Brings an interface up or down in the namespace of a socket, whoever holds it.
///
/// # Errors
/// `EPERM` without the right to administer that namespace, `ENODEV` where the interface is gone.
pub(crate) fn switch(socket: BorrowedFd<'_>, name: &CStr, up: bool) -> io::Result<()> {
    let mut request = named(name.to_bytes());
    // SAFETY: both requests take an `ifreq`, which lives through the calls; the union member is the one they fill and read.
    unsafe {
        check(i64::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request)))?;
        let mask = libc::IFF_UP as i16;
        request.ifr_ifru.ifru_flags =
            if up { request.ifr_ifru.ifru_flags | mask } else { request.ifr_ifru.ifru_flags & !mask };
        check(i64::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)))
    }
}

/// Takes the addresses of an interface away, and with them the routes to them.
///
/// # Errors
/// `EPERM` without the right to administer that namespace, `ENODEV` where the interface is gone.
pub(crate) fn forget_address(socket: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let mut request = named(name.to_bytes());
    // SAFETY: the request reads an `ifreq` with an address, which a `sockaddr` has room for.
    unsafe {
        request.ifr_ifru.ifru_addr = socket_address(Ipv4Addr::UNSPECIFIED);
        check(i64::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR, &raw const request)))
    }
}

/// Whether an interface is up in the namespace of a socket.
///
/// # Errors
/// `ENODEV` where the interface is gone.
pub(crate) fn is_up(socket: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    let mut request = named(name.to_bytes());
    // SAFETY: as above.
    unsafe {
        check(i64::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request)))?;
        Ok(request.ifr_ifru.ifru_flags & libc::IFF_UP as i16 != 0)
    }
}

/// Gives an interface its address and prefix, brings it up, and routes everything over it.
///
/// # Errors
/// `EPERM` without the right to administer the namespace of the socket.
pub(crate) fn configure(socket: BorrowedFd<'_>, name: &CStr, address: Ipv4Addr, prefix_bits: u8) -> io::Result<()> {
    let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix_bits)).unwrap_or(0));
    for (request_number, value) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, mask)] {
        let mut request = named(name.to_bytes());
        // SAFETY: both requests read an `ifreq` with an address, which a `sockaddr` has room for.
        unsafe {
            request.ifr_ifru.ifru_addr = socket_address(value);
            check(i64::from(libc::ioctl(socket.as_raw_fd(), request_number, &raw const request)))?;
        }
    }
    switch(socket, name, true)?;
    // SAFETY: a route of zeroes is everything by no gateway; the name is only read.
    unsafe {
        let mut route: libc::rtentry = std::mem::zeroed();
        route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_flags = libc::RTF_UP;
        route.rt_dev = name.as_ptr().cast_mut();
        check(i64::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &raw const route)))
    }
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(address).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: both are 16 bytes of plain numbers that begin with the family.
    unsafe { std::mem::transmute(address) }
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
        is_up(socket.as_fd(), c"lo").unwrap();
        assert_eq!(is_up(socket.as_fd(), c"none").unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
