//! Room that is kept free on a disk, so that a file that fills it can still be ended in good order.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Room on the disk of a folder. When a writer finds the disk full it takes the room, and says so.
#[derive(Clone, Debug)]
pub(super) struct Reserve(Arc<Mutex<Option<File>>>);

/// Writes to a file, into the reserve when the disk is full.
#[derive(Debug)]
pub(super) struct Reserved<W> {
    inner: W,
    reserve: Reserve,
}

impl Reserve {
    /// Takes `bytes` of the disk on which `folder` lies. Where the file system cannot promise room there is none.
    ///
    /// # Errors
    /// The disk has less, or no file can be made there.
    pub(super) fn new(folder: &Path, bytes: u64) -> io::Result<Reserve> {
        let file = tempfile::tempfile_in(folder)?;
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(Reserve(Arc::default())),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(Reserve(Arc::new(Mutex::new(Some(file))))),
        }
    }

    /// Frees the room. Says whether there was some.
    pub(super) fn free(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }

    /// Whether the room is still free for whoever needs it.
    pub(super) fn is_whole(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl<W> Reserved<W> {
    pub(super) fn new(inner: W, reserve: Reserve) -> Reserved<W> {
        Reserved { inner, reserve }
    }

    pub(super) fn into_inner(self) -> W {
        self.inner
    }

    fn again<R>(&mut self, mut write: impl FnMut(&mut W) -> io::Result<R>) -> io::Result<R> {
        match write(&mut self.inner) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && self.reserve.free() => write(&mut self.inner),
            result => result,
        }
    }
}

impl<W: Write> Write for Reserved<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.again(|inner| inner.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.again(Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that is full while the reserve is there.
    struct Disk(Reserve, Vec<u8>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.1.len() >= 4 && self.0.is_whole() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_writer_goes_on_in_the_reserve() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(folder.path(), 1 << 16).unwrap();
        if !reserve.is_whole() {
            eprintln!("skipped a_writer_goes_on_in_the_reserve: the file system promises no room");
            return;
        }
        let mut out = Reserved::new(Disk(reserve.clone(), Vec::new()), reserve.clone());
        for piece in [b"one.", b"two.", b"six."] {
            out.write_all(piece).unwrap();
        }
        assert!(!reserve.is_whole() && !reserve.free(), "it is used once");
        assert_eq!(out.into_inner().1, b"one.two.six.");
    }
}
