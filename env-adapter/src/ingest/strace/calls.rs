//! What each call says of files, peers, memory and processes.

use std::rc::Rc;

use super::process::{Birth, Descriptor, Thread};
use super::text::{CallText, Outcome, descriptor, field, has, number, sample, string};
use super::values::{path_said, plain, said_open, string_list};
use crate::event::flags;
use crate::sensor::{Decoys, SAMPLE_BYTES, entropy, lossy, resolve};

/// The fields of an event that a call fills.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) path: Option<String>,
    pub(super) path2: Option<String>,
    pub(super) args: Option<String>,
    pub(super) peer: Option<(String, Option<u16>)>,
    pub(super) bytes: Option<u64>,
    pub(super) entropy: Option<f32>,
    pub(super) flags: Option<u32>,
    pub(super) created: Option<bool>,
}

/// How a call creates a thread or process, if it is one of those calls.
pub(super) fn birth(call: &CallText<'_>) -> Option<Birth> {
    match call.name {
        "fork" | "vfork" => Some(Birth::default()),
        "clone" | "clone3" => {
            let set = |flag| call.args.iter().any(|arg| has(arg, flag));
            Some(Birth {
                thread: set("CLONE_THREAD"),
                shares_folder: set("CLONE_FS"),
                shares_files: set("CLONE_FILES"),
                sibling: set("CLONE_PARENT"),
            })
        }
        _ => None,
    }
}

/// Whether a call returns an address: a number that differs from run to run and tells nothing.
pub(super) fn returns_address(name: &str) -> bool {
    matches!(name, "mmap" | "mmap2" | "mremap" | "brk" | "shmat")
}

/// Reads a call in the light of what is known of its thread, and updates that by what the call did.
pub(super) fn read(call: &CallText<'_>, thread: &mut Thread, decoys: Option<&Decoys>) -> Fields {
    let mut reading = Reading { call, thread, fields: Fields::default() };
    reading.call();
    let mut fields = reading.fields;
    if let (Some(decoys), Some(path)) = (decoys, &fields.path)
        && decoys.contains(path)
    {
        *fields.flags.get_or_insert(0) |= flags::DECOY;
    }
    fields
}

/// A call in the light of its thread.
pub(super) struct Reading<'a, 'b> {
    pub(super) call: &'a CallText<'b>,
    pub(super) thread: &'a mut Thread,
    pub(super) fields: Fields,
}

impl<'b> Reading<'_, 'b> {
    pub(super) fn arg(&self, index: usize) -> &'b [u8] {
        self.call.args.get(index).copied().unwrap_or_default()
    }

    pub(super) fn result(&self) -> Outcome<'b> {
        self.call.result
    }

    fn call(&mut self) {
        match self.call.name {
            "open" => self.open(None, 0, Some(1)),
            "creat" => self.creat(),
            "openat" => self.open(Some(0), 1, Some(2)),
            "openat2" => self.open(Some(0), 1, Some(2)),
            "read" | "readv" | "pread64" | "preadv" | "preadv2" => self.transfer(None),
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" => self.transfer(Some(1)),
            "sendfile" => self.copy(0, 1),
            "copy_file_range" | "splice" | "tee" => self.copy(2, 0),
            "rename" | "link" | "symlink" => self.two_paths(None, 0, None, 1),
            "renameat" | "renameat2" | "linkat" => self.two_paths(Some(0), 1, Some(2), 3),
            "symlinkat" => self.two_paths(None, 0, Some(1), 2),
            "unlink" | "chroot" | "umount2" | "umount" => self.path_at(None, 0),
            "rmdir" => {
                self.path_at(None, 0);
                self.flag(flags::DIRECTORY, true);
            }
            "unlinkat" => {
                self.path_at(Some(0), 1);
                self.flag(flags::DIRECTORY, has(self.arg(2), "AT_REMOVEDIR"));
            }
            "mkdir" => self.make(None, 0, flags::DIRECTORY),
            "mkdirat" => self.make(Some(0), 1, flags::DIRECTORY),
            "mknod" => self.make(None, 0, 0),
            "mknodat" => self.make(Some(0), 1, 0),
            "chmod" => self.mode(None, 0, 1),
            "fchmodat" | "fchmodat2" => self.mode(Some(0), 1, 2),
            "fchmod" => {
                self.path_of_fd(0);
                self.mode_flags(1);
            }
            "chown" | "lchown" => self.path_and_args(None, 0, 1),
            "fchownat" => self.path_and_args(Some(0), 1, 2),
            "fchown" => {
                self.path_of_fd(0);
                self.args_from(1, 2);
            }
            "utime" | "utimes" => self.path_at(None, 0),
            "futimesat" | "utimensat" => self.path_or_fd(0, 1),
            "truncate" => {
                self.path_at(None, 0);
                self.length(1);
            }
            "ftruncate" => {
                self.path_of_fd(0);
                self.length(1);
            }
            "fallocate" => {
                self.path_of_fd(0);
                self.args_from(1, 1);
            }
            "getdents64" | "getdents" => {
                self.path_of_fd(0);
                self.flag(flags::DIRECTORY, true);
            }
            "chdir" => self.chdir(),
            "fchdir" => self.fchdir(),
            "setxattr" | "lsetxattr" => self.path_and_args(None, 0, 1),
            "fsetxattr" => {
                self.path_of_fd(0);
                self.args_from(1, 1);
            }
            "mount" => {
                self.path_at(None, 1);
                let source = string(self.arg(0)).map(lossy).unwrap_or_default();
                let kind = string(self.arg(2)).map(lossy).unwrap_or_default();
                self.args(format!("{source} {kind} {}", plain(self.arg(3))).trim().to_owned());
            }
            "pivot_root" => self.two_paths(None, 0, None, 1),
            "socket" => self.socket(),
            "connect" => self.address(1, true),
            "bind" => self.address(1, false),
            "listen" => self.peer_of_fd(0),
            "accept" | "accept4" => self.accept(),
            "sendto" => {
                self.transfer(Some(1));
                self.socket_address(4);
            }
            "recvfrom" => {
                self.transfer(None);
                self.socket_address(4);
            }
            "sendmsg" | "sendmmsg" => {
                self.transfer(Some(1));
                self.socket_address(1);
                self.messages();
            }
            "recvmsg" | "recvmmsg" => {
                self.transfer(None);
                self.socket_address(1);
                self.messages();
            }
            "clone" | "clone3" => {
                let thread = birth(self.call).is_some_and(|birth| birth.thread);
                self.flag(flags::THREAD, thread);
                let named = self.call.args.iter().find_map(|arg| field(arg, "flags="));
                if let Some(named) = named {
                    self.args(plain(named));
                }
            }
            "execve" => self.exec(None, 0),
            "execveat" => self.exec(Some(0), 1),
            "mmap" | "mmap2" => {
                self.protection(2);
                let kind = self.arg(3);
                self.flag(flags::SHARED, has(kind, "MAP_SHARED") || has(kind, "MAP_SHARED_VALIDATE"));
                self.flag(flags::ANONYMOUS, has(kind, "MAP_ANONYMOUS"));
                if !has(kind, "MAP_ANONYMOUS") {
                    self.path_of_fd(4);
                }
            }
            "mprotect" | "pkey_mprotect" => self.protection(2),
            "memfd_create" => {
                if let Some(name) = string(self.arg(0)) {
                    self.fields.path = Some(format!("/memfd:{}", lossy(name)));
                }
                let path = self.fields.path.clone().map(Rc::from);
                let close_on_exec = has(self.arg(1), "MFD_CLOEXEC");
                self.returned(Descriptor { path, close_on_exec, peer: None });
            }
            "nanosleep" => self.sleep(0),
            "clock_nanosleep" => self.sleep(2),
            "process_vm_readv" | "process_vm_writev" => {
                self.fields.bytes = self.result().bytes();
                self.args_from(0, 1);
            }
            "finit_module" => self.path_of_fd(0),
            "exit_group" | "exit" | "kill" | "tkill" | "tgkill" | "setuid" | "setgid" | "setreuid" | "setregid"
            | "setresuid" | "setresgid" | "setgroups" | "unshare" | "setns" | "seccomp" | "delete_module"
            | "keyctl" | "reboot" | "sethostname" | "personality" => self.args_from(0, 3),
            "ptrace" | "prctl" | "bpf" | "add_key" | "request_key" | "io_uring_setup" => self.args_from(0, 2),
            "capset" | "setsid" | "uname" | "userfaultfd" | "perf_event_open" | "init_module" | "settimeofday"
            | "clock_settime" => {}
            _ => self.off_the_list(),
        }
    }

    /// Calls that no recorder records, but a plain log may hold: some move descriptors, some tell of paths.
    fn off_the_list(&mut self) {
        match self.call.name {
            "close" => {
                if let Some(fd) = descriptor(self.arg(0)).and_then(|fd| fd.number) {
                    self.path_of_fd(0);
                    if self.result().ok() {
                        self.thread.files.borrow_mut().remove(&fd);
                    }
                }
            }
            "dup" => self.duplicate(false),
            "dup2" => self.duplicate(false),
            "dup3" => self.duplicate(has(self.arg(2), "O_CLOEXEC")),
            "fcntl" | "fcntl64" => {
                let close_on_exec = has(self.arg(1), "F_DUPFD_CLOEXEC");
                if close_on_exec || has(self.arg(1), "F_DUPFD") {
                    self.duplicate(close_on_exec);
                } else {
                    self.path_of_fd(0);
                    if has(self.arg(1), "F_SETFD") && self.result().ok() {
                        let close_on_exec = has(self.arg(2), "FD_CLOEXEC");
                        if let Some(fd) = descriptor(self.arg(0)).and_then(|fd| fd.number)
                            && let Some(open) = self.thread.files.borrow_mut().get_mut(&fd)
                        {
                            open.close_on_exec = close_on_exec;
                        }
                    }
                }
                self.args_from(1, 2);
            }
            "newfstatat" | "fstatat64" | "statx" | "faccessat" | "faccessat2" | "readlinkat" | "name_to_handle_at" => {
                self.path_or_fd(0, 1);
            }
            "stat" | "lstat" | "stat64" | "lstat64" | "access" | "readlink" | "statfs" | "getxattr" | "lgetxattr"
            | "removexattr" | "lremovexattr" | "inotify_add_watch" | "acct" | "swapon" | "uselib" => {
                let index = usize::from(self.call.name == "inotify_add_watch");
                self.path_at(None, index);
            }
            "fstat" | "fstat64" | "fstatfs" | "lseek" | "fsync" | "fdatasync" | "ioctl" | "flock" => self.path_of_fd(0),
            _ => self.args_from(0, 6),
        }
    }

    // Paths.

    /// The folder a relative path counts from.
    pub(super) fn base(&mut self, dirfd: Option<usize>) -> Option<Rc<str>> {
        let own = |thread: &Thread| thread.folder.borrow().clone();
        let Some(index) = dirfd else { return own(self.thread) };
        let fd = descriptor(self.arg(index))?;
        let said = fd.says.and_then(path_said);
        if fd.cwd {
            // `-y` shows the working folder itself.
            if let Some(said) = said {
                let folder: Rc<str> = Rc::from(said);
                *self.thread.folder.borrow_mut() = Some(Rc::clone(&folder));
                return Some(folder);
            }
            return own(self.thread);
        }
        said.map(Rc::from).or_else(|| self.thread.descriptor(fd.number?)?.path)
    }

    fn resolved(&mut self, dirfd: Option<usize>, index: usize) -> Option<String> {
        let path = lossy(string(self.arg(index))?);
        if path.is_empty() {
            return None;
        }
        let base = if path.starts_with('/') { None } else { self.base(dirfd) };
        Some(resolve(base.as_deref(), &path))
    }

    fn path_at(&mut self, dirfd: Option<usize>, index: usize) {
        self.fields.path = self.resolved(dirfd, index);
    }

    fn path_or_fd(&mut self, dirfd: usize, index: usize) {
        self.path_at(Some(dirfd), index);
        if self.fields.path.is_none() {
            self.path_of_fd(dirfd);
        }
    }

    fn path_of_fd(&mut self, index: usize) {
        self.fields.path = self.open_file(index).and_then(|open| open.path).map(|path| path.to_string());
    }

    fn peer_of_fd(&mut self, index: usize) {
        let Some(open) = self.open_file(index) else { return };
        self.fields.path = open.path.map(|path| path.to_string());
        self.fields.peer = open.peer;
    }

    /// What a descriptor argument stands for, from the log or from what was followed.
    pub(super) fn open_file(&self, index: usize) -> Option<Descriptor> {
        let fd = descriptor(self.arg(index))?;
        let followed = fd.number.and_then(|number| self.thread.descriptor(number));
        let Some(said) = fd.says else { return followed };
        let open = said_open(said);
        match (open.path.is_none() && open.peer.is_none(), followed) {
            // `-y` without a second y names a socket by its number only.
            (true, Some(followed)) if followed.path.is_none() => Some(followed),
            _ => Some(open),
        }
    }

    /// The call returned a descriptor.
    pub(super) fn returned(&mut self, mut open: Descriptor) {
        let result = self.result();
        if let Some(said) = result.descriptor {
            let said = said_open(said);
            open.path = said.path.or(open.path);
            open.peer = said.peer.or(open.peer);
        }
        if let (true, Some(number)) = (result.ok(), result.ret.and_then(|ret| i32::try_from(ret).ok())) {
            self.thread.opened(number, open);
        }
    }

    // Files.

    fn open(&mut self, dirfd: Option<usize>, path: usize, how: Option<usize>) {
        self.path_at(dirfd, path);
        let how = how.map_or(&[][..], |index| self.arg(index));
        let write = has(how, "O_WRONLY") || has(how, "O_RDWR");
        let create = has(how, "O_CREAT");
        self.fields.flags = Some(0);
        self.flag(flags::READ, !has(how, "O_WRONLY"));
        self.flag(flags::WRITE, write);
        self.flag(flags::CREATE, create);
        self.flag(flags::TRUNCATE, has(how, "O_TRUNC"));
        self.flag(flags::APPEND, has(how, "O_APPEND"));
        self.flag(flags::EXCLUSIVE, has(how, "O_EXCL"));
        self.flag(flags::DIRECTORY, has(how, "O_DIRECTORY"));
        self.fields.created = match (create, self.result().ok()) {
            (true, true) if has(how, "O_EXCL") => Some(true),
            // Whether the file was there before, the call does not tell.
            (true, true) => None,
            _ => Some(false),
        };
        let path = self.fields.path.clone().map(Rc::from);
        self.returned(Descriptor { path, peer: None, close_on_exec: has(how, "O_CLOEXEC") });
    }

    fn creat(&mut self) {
        self.path_at(None, 0);
        self.fields.flags = Some(flags::WRITE | flags::CREATE | flags::TRUNCATE);
        if !self.result().ok() {
            self.fields.created = Some(false);
        }
        let path = self.fields.path.clone().map(Rc::from);
        self.returned(Descriptor { path, ..Descriptor::default() });
    }

    /// Data went through descriptor 0; what was written stands in `written`.
    pub(super) fn transfer(&mut self, written: Option<usize>) {
        self.peer_of_fd(0);
        self.fields.bytes = self.result().bytes();
        if let Some(index) = written
            && self.result().ok()
        {
            self.fields.entropy = sample(self.arg(index), SAMPLE_BYTES).and_then(|bytes| entropy(&bytes));
        }
    }

    fn copy(&mut self, to: usize, from: usize) {
        self.peer_of_fd(to);
        self.fields.bytes = self.result().bytes();
        if let Some(path) = self.open_file(from).and_then(|open| open.path) {
            self.args(path.to_string());
        }
    }

    fn two_paths(&mut self, dirfd: Option<usize>, path: usize, dirfd2: Option<usize>, path2: usize) {
        let symbolic = self.call.name.starts_with("symlink");
        // What a symbolic link points to is text; it counts from the link's folder and not from the process's.
        self.fields.path = match symbolic {
            true => string(self.arg(path)).map(lossy),
            false => self.resolved(dirfd, path),
        };
        if self.fields.path.is_none() && self.call.name == "linkat" {
            self.path_of_fd(0);
        }
        self.fields.path2 = self.resolved(dirfd2, path2);
        if !self.call.name.starts_with("rename") && self.call.name != "pivot_root" {
            self.fields.created = Some(self.result().ok());
        }
        if self.call.name == "renameat2" {
            self.flag(flags::EXCLUSIVE, has(self.arg(4), "RENAME_NOREPLACE"));
        }
    }

    fn make(&mut self, dirfd: Option<usize>, path: usize, set: u32) {
        self.path_at(dirfd, path);
        self.flag(set, set != 0);
        self.fields.created = Some(self.result().ok());
    }

    fn mode(&mut self, dirfd: Option<usize>, path: usize, mode: usize) {
        self.path_at(dirfd, path);
        self.mode_flags(mode);
    }

    fn mode_flags(&mut self, index: usize) {
        let word = self.arg(index).rsplit(|byte| *byte == b'|').next().unwrap_or_default();
        if let Some(mode) = number(word) {
            self.fields.flags = Some(0);
            self.flag(flags::EXECUTE, mode & 0o111 != 0);
        }
        self.args_from(index, 1);
    }

    fn path_and_args(&mut self, dirfd: Option<usize>, path: usize, args: usize) {
        self.path_at(dirfd, path);
        self.args_from(args, if self.call.name.contains("xattr") { 1 } else { 2 });
    }

    fn length(&mut self, index: usize) {
        if let Some(length) = number(self.arg(index)) {
            self.flag(flags::TRUNCATE, length == 0);
            self.args(length.to_string());
        }
    }

    fn chdir(&mut self) {
        self.path_at(None, 0);
        self.enter();
    }

    fn fchdir(&mut self) {
        self.path_of_fd(0);
        self.enter();
    }

    fn enter(&mut self) {
        self.flag(flags::DIRECTORY, true);
        if self.result().ok() {
            let folder = self.fields.path.as_deref().filter(|path| path.starts_with('/'));
            *self.thread.folder.borrow_mut() = folder.map(Rc::from);
        }
    }

    fn duplicate(&mut self, close_on_exec: bool) {
        self.path_of_fd(0);
        if let Some(open) = self.open_file(0) {
            self.returned(Descriptor { close_on_exec, ..open });
        }
    }

    // Processes and memory.

    fn exec(&mut self, dirfd: Option<usize>, path: usize) {
        match dirfd {
            Some(dirfd) => self.path_or_fd(dirfd, path),
            None => self.path_at(None, path),
        }
        let arguments = string_list(self.arg(path + 1));
        if let Some(arguments) = arguments {
            self.args(arguments);
        }
        if self.result().ok() {
            self.thread.ran_program();
        }
    }

    fn protection(&mut self, index: usize) {
        let protection = self.arg(index);
        self.fields.flags = Some(0);
        self.flag(flags::READ, has(protection, "PROT_READ"));
        self.flag(flags::WRITE, has(protection, "PROT_WRITE"));
        self.flag(flags::EXECUTE, has(protection, "PROT_EXEC"));
    }

    /// The requested time in seconds.
    fn sleep(&mut self, index: usize) {
        let arg = self.arg(index);
        let part = |key| field(arg, key).and_then(number);
        if let (Some(seconds), Some(nanoseconds)) = (part("tv_sec="), part("tv_nsec=")) {
            self.args(format!("{seconds}.{nanoseconds:09}"));
        }
    }

    // Plain fields.

    fn flag(&mut self, flag: u32, set: bool) {
        let flags = self.fields.flags.get_or_insert(0);
        if set {
            *flags |= flag;
        }
    }

    pub(super) fn args(&mut self, text: String) {
        if !text.is_empty() {
            self.fields.args = Some(text);
        }
    }

    /// Arguments as they stand, from `first` on, `count` of them.
    pub(super) fn args_from(&mut self, first: usize, count: usize) {
        let args: Vec<String> = self.call.args.iter().skip(first).take(count).map(|arg| plain(arg)).collect();
        self.args(args.join(", "));
    }
}
