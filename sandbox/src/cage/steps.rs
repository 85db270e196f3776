//! What furnishes a cage: a list that the parent prepares and the child carries out without allocating.

use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::CageError;

/// One thing done to the new root; all paths are absolute.
pub(super) enum Step {
    /// Makes a folder.
    Folder { path: CString, mode: u32, owner: u32 },
    /// Makes a file and fills it; `modified_s` is its time of change in seconds since 1970, none for now.
    File { path: CString, mode: u32, owner: u32, bytes: Vec<u8>, modified_s: Option<i64> },
    /// Makes a symbolic link.
    Link { path: CString, target: CString },
    /// Writes into a file that exists.
    Write { path: CString, bytes: &'static [u8] },
    /// Cuts mounts below `path` off from those of the host.
    Private { path: CString },
    /// Mounts a file system.
    Mount { source: &'static std::ffi::CStr, path: CString, flags: MountFlags, options: CString },
    /// Shows a file or folder in a second place; `below` brings along what is mounted below it.
    Bind { source: CString, path: CString, below: bool },
    /// Changes the flags of a mount.
    Restrict { path: CString, flags: MountFlags },
    /// Takes a mount away from a place.
    Unmount { path: CString },
    /// Removes an empty folder.
    Remove { path: CString },
    /// Makes a folder the root and lets go of the old one.
    Enter { path: CString },
}

/// The list, checked as it grows.
#[derive(Default)]
pub(super) struct Steps(Vec<Step>);

/// The owner that steps leave as it is.
pub(super) const UNCHANGED: u32 = u32::MAX;

impl Steps {
    pub(super) fn add(&mut self, step: Step) {
        self.0.push(step);
    }

    pub(super) fn folder(&mut self, path: &str, mode: u32, owner: u32) -> Result<(), CageError> {
        self.add(Step::Folder { path: c_string(path)?, mode, owner });
        Ok(())
    }

    pub(super) fn link(&mut self, path: &str, target: impl AsRef<OsStr>) -> Result<(), CageError> {
        self.add(Step::Link { path: c_string(path)?, target: c_string(target)? });
        Ok(())
    }

    pub(super) fn file(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Result<(), CageError> {
        self.add(Step::File { path: c_string(path)?, mode, owner: UNCHANGED, bytes: bytes.into(), modified_s: None });
        Ok(())
    }

    pub(super) fn mount(
        &mut self,
        source: &'static std::ffi::CStr,
        path: &str,
        flags: MountFlags,
        options: &str,
    ) -> Result<(), CageError> {
        self.add(Step::Mount { source, path: c_string(path)?, flags, options: c_string(options)? });
        Ok(())
    }

    pub(super) fn bind(&mut self, source: &str, path: &str, below: bool) -> Result<(), CageError> {
        self.add(Step::Bind { source: c_string(source)?, path: c_string(path)?, below });
        Ok(())
    }

    pub(super) fn restrict(&mut self, path: &str, flags: MountFlags) -> Result<(), CageError> {
        self.add(Step::Restrict { path: c_string(path)?, flags });
        Ok(())
    }

    /// Carries out every step in order; in a child process.
    ///
    /// # Errors
    /// The number of the step that failed, and why.
    pub(super) fn run(&self) -> Result<(), (usize, Errno)> {
        self.0.iter().enumerate().try_for_each(|(at, step)| step.run().map_err(|error| (at, error)))
    }

    /// What step `at` does, for an error text.
    pub(super) fn describe(&self, at: usize) -> String {
        self.0.get(at).map_or_else(|| format!("step {at}"), Step::to_string)
    }
}

impl Step {
    fn run(&self) -> Result<(), Errno> {
        match self {
            Step::Folder { path, mode, owner } => {
                rustix::fs::mkdir(path, Mode::from_raw_mode(*mode))?;
                // The mode that counts is the one asked for, whatever the caller's umask is.
                rustix::fs::chmod(path, Mode::from_raw_mode(*mode))?;
                give(path, *owner)
            }
            Step::File { path, mode, owner, bytes, modified_s } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?;
                write_all(&file, bytes)?;
                if *owner != UNCHANGED {
                    let (uid, gid) = (rustix::fs::Uid::from_raw(*owner), rustix::fs::Gid::from_raw(*owner));
                    rustix::fs::fchown(&file, Some(uid), Some(gid))?;
                }
                rustix::fs::fchmod(&file, Mode::from_raw_mode(*mode))?;
                if let Some(seconds) = *modified_s {
                    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
                    rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
                }
                Ok(())
            }
            Step::Link { path, target } => rustix::fs::symlink(target, path),
            Step::Write { path, bytes } => {
                let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
                write_all(&file, bytes)
            }
            Step::Private { path } => {
                rustix::mount::mount_change(path, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            }
            Step::Mount { source, path, flags, options } => {
                let options = (!options.is_empty()).then_some(options.as_c_str());
                rustix::mount::mount(*source, path, *source, *flags, options)
            }
            Step::Bind { source, path, below: false } => rustix::mount::mount_bind(source, path),
            Step::Bind { source, path, below: true } => rustix::mount::mount_bind_recursive(source, path),
            Step::Restrict { path, flags } => rustix::mount::mount_remount(path, *flags | MountFlags::BIND, c""),
            Step::Unmount { path } => rustix::mount::unmount(path, UnmountFlags::DETACH),
            Step::Remove { path } => rustix::fs::rmdir(path),
            Step::Enter { path } => {
                rustix::process::chdir(path)?;
                // The old root comes to lie over the new one, and is taken off.
                rustix::process::pivot_root(c".", c".")?;
                rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
                rustix::process::chdir(c"/")
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Folder { path, .. } => write!(out, "make the folder {}", path.to_string_lossy()),
            Step::File { path, .. } => write!(out, "write the file {}", path.to_string_lossy()),
            Step::Link { path, .. } => write!(out, "make the link {}", path.to_string_lossy()),
            Step::Write { path, .. } => write!(out, "write to {}", path.to_string_lossy()),
            Step::Private { path } => write!(out, "cut the mounts below {} off", path.to_string_lossy()),
            Step::Mount { source, path, options, .. } => {
                write!(
                    out,
                    "mount {} on {} ({})",
                    source.to_string_lossy(),
                    path.to_string_lossy(),
                    options.to_string_lossy()
                )
            }
            Step::Bind { source, path, .. } => {
                write!(out, "show {} as {}", source.to_string_lossy(), path.to_string_lossy())
            }
            Step::Restrict { path, .. } => write!(out, "restrict the mount {}", path.to_string_lossy()),
            Step::Unmount { path } => write!(out, "unmount {}", path.to_string_lossy()),
            Step::Remove { path } => write!(out, "remove the folder {}", path.to_string_lossy()),
            Step::Enter { path } => write!(out, "make {} the root", path.to_string_lossy()),
        }
    }
}

/// A path or text for the kernel.
pub(super) fn c_string(text: impl AsRef<OsStr>) -> Result<CString, CageError> {
    let text = text.as_ref();
    CString::new(text.as_bytes()).map_err(|_| CageError::Zero { text: text.to_string_lossy().into_owned() })
}

fn give(path: &CString, owner: u32) -> Result<(), Errno> {
    if owner == UNCHANGED {
        return Ok(());
    }
    rustix::fs::chown(path, Some(rustix::fs::Uid::from_raw(owner)), Some(rustix::fs::Gid::from_raw(owner)))
}

fn write_all(file: &rustix::fd::OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
