//! The sample: opened once, and from then on a copy in memory that nobody can change.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bellwether_artifact::{Sha256, Visible};
use rustix::fs::{AtFlags, MemfdFlags, Mode, OFlags, SealFlags, Stat, StatxFlags};
use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::VaultError;

/// A sample, ready to be judged, detonated and sealed away.
#[derive(Debug)]
pub struct Sample {
    memory: OwnedFd,
    identity: SampleIdentity,
    /// The folder in which the file lay, and its name there.
    pub(super) folder: OwnedFd,
    pub(super) name: OsString,
}

/// What a sample is, and which file it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleIdentity {
    /// Absolute path, spelled as [`Visible`] does.
    pub path: String,
    /// Hash of the content.
    pub sha256: Sha256,
    /// MD5 of the content, for those who look samples up by it; 32 lowercase hexadecimal digits.
    pub md5: String,
    /// SHA-1 of the content, for the same; 40 lowercase hexadecimal digits.
    pub sha1: String,
    /// Length in bytes.
    pub bytes: u64,
    /// What kind of file it is, by how it begins: `ELF 64-bit executable, x86-64`, `script, /bin/sh`, `data`.
    pub kind: String,
    /// Device of the file.
    pub device: u64,
    /// Number of the file on its device.
    pub inode: u64,
    /// Names that the file has; more than 1 where there are hard links.
    pub links: u64,
    /// Permissions, set-id bits included.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was used and changed.
    pub times: Times,
}

/// Times of a file, each in seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Times {
    /// Last use.
    pub accessed: (i64, u32),
    /// Last change of the content.
    pub modified: (i64, u32),
    /// When the file was made, where its file system knows. Numbers of files are given again; this tells them apart.
    pub born: Option<(i64, u32)>,
}

impl Sample {
    /// Opens a regular file of at most `limit` bytes, follows no symbolic link in its last place, and copies it.
    ///
    /// # Errors
    /// [`VaultError::Symlink`], [`VaultError::NotRegular`], [`VaultError::TooLarge`], or [`VaultError::System`].
    pub fn open(path: &Path, limit: u64) -> Result<Sample, VaultError> {
        let refused = |action| move |cause: rustix::io::Errno| VaultError::system(action, path, cause);
        let name = path.file_name().ok_or_else(|| VaultError::NotRegular { path: path.to_path_buf() })?.to_owned();
        let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Whatever happens to the path from here on, it is this folder's entry that is read, and later removed.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(above, flags, Mode::empty()).map_err(refused("open the folder of"))?;
        let file = open_entry(folder.as_fd(), &name).map_err(|cause| match cause {
            rustix::io::Errno::LOOP => VaultError::Symlink { path: path.to_path_buf() },
            cause => VaultError::system("read", path, cause),
        })?;
        let stat = rustix::fs::fstat(&file).map_err(refused("look at"))?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(VaultError::NotRegular { path: path.to_path_buf() });
        }
        let born = birth(file.as_fd());
        let (memory, hashes) = copy(File::from(file), path, limit)?;
        let folder_path = fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        let whole = match folder_path.or_else(|_| std::path::absolute(above)) {
            Ok(folder) => folder.join(&name),
            Err(_) => path.to_path_buf(),
        };
        let identity = SampleIdentity {
            path: Visible::new(whole.as_os_str().as_bytes()).to_string(),
            sha256: hashes.sha256,
            md5: hashes.md5,
            sha1: hashes.sha1,
            bytes: hashes.bytes,
            kind: hashes.kind,
            device: stat.st_dev,
            inode: stat.st_ino,
            links: stat.st_nlink,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            times: Times {
                accessed: (stat.st_atime, nanoseconds(stat.st_atime_nsec)),
                modified: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
                born,
            },
        };
        Ok(Sample { memory, identity, folder, name })
    }

    /// What it is.
    pub fn identity(&self) -> &SampleIdentity {
        &self.identity
    }

    /// The copy: a memory file that is sealed against writing, growing, shrinking and unsealing, and can be executed. Its
    /// offset is shared with whoever else holds it.
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// The copy, for reading from its beginning with an offset of its own.
    ///
    /// # Errors
    /// Where the system has no descriptors left, or no `/proc`.
    pub fn reader(&self) -> Result<File, VaultError> {
        let path = format!("/proc/self/fd/{}", self.memory.as_raw_fd());
        File::open(&path).map_err(|cause| VaultError::system("read", path, cause))
    }

    /// Its path as it was found.
    pub fn path(&self) -> PathBuf {
        SampleIdentity::path(&self.identity)
    }
}

impl SampleIdentity {
    /// The path itself.
    pub fn path(&self) -> PathBuf {
        use std::os::unix::ffi::OsStringExt;
        // What is no spelling was not written by us; its own letters are as good a path as any.
        let bytes = Visible::read(&self.path).unwrap_or_else(|| self.path.clone().into_bytes());
        PathBuf::from(OsString::from_vec(bytes))
    }

    /// The name of the file, spelled as [`Visible`] does.
    pub fn name(&self) -> String {
        let path = self.path();
        Visible::new(path.file_name().unwrap_or_default().as_bytes()).to_string()
    }
}

/// Opens an entry of a folder for reading: no symbolic link, no waiting for the other end of a FIFO, no terminal taken over.
pub(super) fn open_entry(folder: BorrowedFd<'_>, name: &OsString) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    rustix::fs::openat(folder, name.as_os_str(), flags, Mode::empty())
}

/// What stands in a folder under a name, not followed.
pub(super) fn entry(folder: BorrowedFd<'_>, name: &OsString) -> rustix::io::Result<Stat> {
    rustix::fs::statat(folder, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW)
}

/// When an open file was made, where its file system knows.
pub(super) fn birth(file: BorrowedFd<'_>) -> Option<(i64, u32)> {
    let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok()?;
    let known = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    known.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
}

struct Hashes {
    sha256: Sha256,
    md5: String,
    sha1: String,
    bytes: u64,
    kind: String,
}

fn copy(mut file: File, path: &Path, limit: u64) -> Result<(OwnedFd, Hashes), VaultError> {
    let refused = |action| move |cause: rustix::io::Errno| VaultError::system(action, path, cause);
    let mut memory = File::from(memory_file().map_err(refused("make memory for"))?);
    let (mut sha256, mut sha1, mut md5) = (sha2::Sha256::new(), sha1::Sha1::new(), md5::Md5::new());
    let mut buffer = vec![0; 128 * 1024];
    let mut bytes = 0_u64;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(VaultError::system("read", path, error)),
        };
        bytes += count as u64;
        if bytes > limit {
            return Err(VaultError::TooLarge { path: path.to_path_buf(), limit });
        }
        let piece = &buffer[..count];
        sha256.update(piece);
        sha1.update(piece);
        md5.update(piece);
        memory.write_all(piece).map_err(|cause| VaultError::system("copy", path, cause))?;
    }
    let mut beginning = [0; 256];
    let known = read_beginning(&mut memory, &mut beginning).map_err(|cause| VaultError::system("copy", path, cause))?;
    memory.rewind().map_err(|cause| VaultError::system("copy", path, cause))?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals).map_err(refused("seal the copy of"))?;
    let hashes = Hashes {
        sha256: Sha256::from_bytes(sha256.finalize().into()),
        md5: hexadecimal(&md5.finalize()),
        sha1: hexadecimal(&sha1.finalize()),
        bytes,
        kind: kind(&beginning[..known]),
    };
    Ok((memory.into(), hashes))
}

/// Fills `beginning` from the start of a file; how far it could.
fn read_beginning(file: &mut File, beginning: &mut [u8]) -> io::Result<usize> {
    file.rewind()?;
    let mut known = 0;
    loop {
        match file.read(&mut beginning[known..]) {
            Ok(0) => return Ok(known),
            Ok(count) => known += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What kind of file begins so. Of ELF: the class, the type and the machine of its header (System V ABI, chapter 4).
fn kind(beginning: &[u8]) -> String {
    if let Some(line) = beginning.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
        return format!("script, {}", Visible::new(line));
    }
    let Some((header, [little, ..])) =
        beginning.split_at_checked(5).filter(|(header, _)| header.starts_with(b"\x7fELF"))
    else {
        return "data".to_owned();
    };
    let class = if header[4] == 2 { "64-bit" } else { "32-bit" };
    let half = |at: usize| match beginning.get(at..at + 2) {
        Some(&[one, two]) if *little == 2 => u16::from_be_bytes([one, two]),
        Some(&[one, two]) => u16::from_le_bytes([one, two]),
        _ => 0,
    };
    let form = match half(16) {
        1 => "object",
        2 => "executable",
        3 => "shared object",
        4 => "core",
        _ => "file",
    };
    match half(18) {
        3 => format!("ELF {class} {form}, x86"),
        62 => format!("ELF {class} {form}, x86-64"),
        183 => format!("ELF {class} {form}, AArch64"),
        machine => format!("ELF {class} {form}, machine {machine}"),
    }
}

/// An empty file in memory. Kernels before 6.3 do not know that it should be executable, and make it so.
pub(crate) fn memory_file() -> rustix::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create("sample", flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("sample", flags),
        made => made,
    }
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The kernel keeps them below a thousand million.
fn nanoseconds(value: impl TryInto<u32>) -> u32 {
    value.try_into().unwrap_or(0)
}
