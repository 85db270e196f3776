//! The memory of another process.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{c_void, iovec, pid_t};

/// Bytes of a page.
const PAGE: u64 = 4096;

/// Copies memory of a process from `from` on into `into`; gives how many bytes could be read, 0 where none can.
///
/// Memory that is not there ends the copy at the page before it.
pub(crate) fn read(pid: u32, from: u64, into: &mut [u8]) -> usize {
    let first = usize::try_from(PAGE - from % PAGE).unwrap_or(usize::MAX).min(into.len());
    let local = iovec { iov_base: into.as_mut_ptr().cast::<c_void>(), iov_len: into.len() };
    // Pieces that end at a page's end: the kernel stops between pieces, not within one.
    let remote = [
        iovec { iov_base: from as *mut c_void, iov_len: first },
        iovec { iov_base: from.wrapping_add(first as u64) as *mut c_void, iov_len: into.len() - first },
    ];
    let pieces = if remote[1].iov_len == 0 { 1 } else { 2 };
    // SAFETY: `local` is the memory of `into`, which lives and is ours alone through the call; `remote` is in another process.
    let read = unsafe { libc::process_vm_readv(pid as pid_t, &raw const local, 1, remote.as_ptr(), pieces, 0) };
    usize::try_from(read).unwrap_or(0)
}

/// Copies `from` into the memory of a process.
///
/// # Errors
/// The memory cannot be written, in whole or in part.
pub(crate) fn write(pid: u32, to: u64, from: &[u8]) -> io::Result<()> {
    let local = iovec { iov_base: from.as_ptr().cast_mut().cast::<c_void>(), iov_len: from.len() };
    let remote = iovec { iov_base: to as *mut c_void, iov_len: from.len() };
    // SAFETY: the kernel reads from the memory of `from`, which lives through the call; `remote` is in another process.
    let written = unsafe { libc::process_vm_writev(pid as pid_t, &raw const local, 1, &raw const remote, 1, 0) };
    match usize::try_from(written) {
        Ok(written) if written == from.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// What a symbolic link says, at most 4,096 bytes of it; none where there is no such link.
pub(crate) fn link(path: &CStr) -> Option<Vec<u8>> {
    let mut text = [0u8; 4096];
    // SAFETY: `path` ends with a zero byte, and the kernel writes at most as many bytes as `text` has.
    let length = unsafe { libc::readlink(path.as_ptr(), text.as_mut_ptr().cast(), text.len()) };
    usize::try_from(length).ok().map(|length| text[..length].to_vec())
}

/// What the link of a descriptor of another process would say, by a copy of the descriptor; none where there is no such descriptor.
/// Whoever traces the process may have one, whatever the permissions of its folder are.
pub(crate) fn copied_link(tid: u32, descriptor: i32) -> Option<Vec<u8>> {
    /// Since Linux 6.9 threads have such descriptors too; before, their processes alone.
    const PIDFD_THREAD: libc::c_uint = libc::O_EXCL as libc::c_uint;
    // SAFETY: three calls with numbers alone; what each gives is a new descriptor, which is owned from there on.
    let open = |flags: libc::c_uint| unsafe { owned(libc::syscall(libc::SYS_pidfd_open, tid, flags)) };
    let process = open(PIDFD_THREAD).or_else(|| open(0))?;
    // SAFETY: as above.
    let copy = unsafe { owned(libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0)) }?;
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", copy.as_raw_fd())).ok()?;
    link(&path)
}

/// The descriptor that a call made.
///
/// # Safety
/// `made` is what a call that makes a descriptor has just given.
unsafe fn owned(made: libc::c_long) -> Option<OwnedFd> {
    let made = i32::try_from(made).ok().filter(|made| *made >= 0)?;
    // SAFETY: by the condition of this function it is open, and nobody else's.
    Some(unsafe { OwnedFd::from_raw_fd(made) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_up_to_its_end() {
        let text = b"some text of this process".to_vec();
        let mut read_back = vec![0; text.len()];
        let me = std::process::id();
        assert_eq!(read(me, text.as_ptr() as u64, &mut read_back), text.len());
        assert_eq!(read_back, text);
        assert_eq!(read(me, 8, &mut read_back), 0);
        assert_eq!(read(me, u64::MAX - 3, &mut read_back), 0);
        // The pages behind a mapping of one page are not readable, or another mapping's.
        // SAFETY: a fresh anonymous mapping of two pages, of which the second is unmapped again.
        let page = unsafe {
            let page = libc::mmap(
                std::ptr::null_mut(),
                2 * PAGE as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(page, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(page.byte_add(PAGE as usize), PAGE as usize, libc::PROT_NONE), 0);
            page as u64
        };
        let mut two = [1u8; 64];
        assert_eq!(read(me, page + PAGE - 16, &mut two), 16);
        assert_eq!(two[..16], [0; 16]);
        write(me, page, b"xyz").unwrap();
        assert_eq!(read(me, page, &mut two), 64);
        assert_eq!(&two[..3], b"xyz");
        assert!(write(me, 8, b"x").is_err());
    }

    #[test]
    fn a_copy_of_a_descriptor_says_what_its_link_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("a file");
        bellwether_artifact::durable::write_bytes(&path, b"x").unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let me = std::process::id();
        let link = link(&std::ffi::CString::new(format!("/proc/{me}/fd/{}", file.as_raw_fd())).unwrap()).unwrap();
        assert_eq!(link, path.as_os_str().as_encoded_bytes());
        assert_eq!(copied_link(me, file.as_raw_fd()), Some(link));
        assert_eq!(copied_link(me, 1 << 20), None);
        assert_eq!(copied_link(0, 0), None);
    }
}
