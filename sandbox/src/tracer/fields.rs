//! What a call says of files, peers, memory and processes, read from its registers and the memory they point to.
//!
//! A call is read when it begins, while nothing has changed yet, and again when it has returned. The fields are those that
//! the reader of strace's logs makes of the same call.

use bellwether_env_adapter::event::flags;
use bellwether_env_adapter::sensor::{lossy, resolve};

use super::sight::{Open, Peer, Sight};
use super::words;

/// `AT_FDCWD`.
const FOLDER: i32 = libc::AT_FDCWD;

/// The fields of an event that a call fills.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fields {
    pub(super) path: Option<String>,
    pub(super) path2: Option<String>,
    pub(super) args: Option<String>,
    pub(super) peer: Option<Peer>,
    pub(super) bytes: Option<u64>,
    pub(super) entropy: Option<f32>,
    pub(super) flags: Option<u32>,
    pub(super) created: Option<bool>,
}

/// A call in the light of its task.
pub(super) struct Reading<'a, 'b> {
    pub(super) number: i64,
    pub(super) args: &'a [u64; 6],
    pub(super) sight: &'a mut Sight<'b>,
    pub(super) fields: &'a mut Fields,
}

impl Reading<'_, '_> {
    /// Reads a call that has not run.
    #[rustfmt::skip]
    pub(super) fn begin(&mut self) {
        match self.number {
            libc::SYS_open => self.open(FOLDER, 0, self.args[1]),
            libc::SYS_openat => self.open(self.int(0), 1, self.args[2]),
            libc::SYS_openat2 => {
                let how = self.sight.structure::<8>(self.args[2]).map_or(0, u64::from_le_bytes);
                self.open(self.int(0), 1, how);
            }
            libc::SYS_creat => {
                self.path_at(FOLDER, 0);
                self.fields.flags = Some(flags::WRITE | flags::CREATE | flags::TRUNCATE);
            }
            libc::SYS_read | libc::SYS_readv | libc::SYS_pread64 | libc::SYS_preadv | libc::SYS_preadv2 => self.peer_of_descriptor(0),
            libc::SYS_write | libc::SYS_pwrite64 => self.written(),
            libc::SYS_writev | libc::SYS_pwritev | libc::SYS_pwritev2 => {
                self.peer_of_descriptor(0);
                self.fields.entropy = self.vector_entropy(self.args[1], self.args[2]);
            }
            libc::SYS_sendfile => self.copy(0, 1),
            libc::SYS_copy_file_range | libc::SYS_splice => self.copy(2, 0),
            libc::SYS_rename | libc::SYS_link => self.two_paths((FOLDER, 0), (FOLDER, 1)),
            libc::SYS_renameat | libc::SYS_renameat2 => {
                self.two_paths((self.int(0), 1), (self.int(2), 3));
                if self.number == libc::SYS_renameat2 {
                    self.flag(flags::EXCLUSIVE, self.args[4] & 1 != 0);
                }
            }
            libc::SYS_linkat => {
                self.two_paths((self.int(0), 1), (self.int(2), 3));
                if self.fields.path.is_none() {
                    self.path_of_descriptor(0);
                }
            }
            libc::SYS_pivot_root => self.two_paths((FOLDER, 0), (FOLDER, 1)),
            libc::SYS_symlink => self.symlink(FOLDER, 1),
            libc::SYS_symlinkat => self.symlink(self.int(1), 2),
            libc::SYS_unlink | libc::SYS_chroot | libc::SYS_umount2 | libc::SYS_utime | libc::SYS_utimes => self.path_at(FOLDER, 0),
            libc::SYS_rmdir => {
                self.path_at(FOLDER, 0);
                self.flag(flags::DIRECTORY, true);
            }
            libc::SYS_unlinkat => {
                self.path_at(self.int(0), 1);
                self.flag(flags::DIRECTORY, self.args[2] & libc::AT_REMOVEDIR as u64 != 0);
            }
            libc::SYS_mkdir => { self.path_at(FOLDER, 0); self.flag(flags::DIRECTORY, true); }
            libc::SYS_mkdirat => { self.path_at(self.int(0), 1); self.flag(flags::DIRECTORY, true); }
            libc::SYS_mknod => { self.path_at(FOLDER, 0); self.flag(0, false); }
            libc::SYS_mknodat => { self.path_at(self.int(0), 1); self.flag(0, false); }
            libc::SYS_chmod => { self.path_at(FOLDER, 0); self.mode(1); }
            libc::SYS_fchmodat => { self.path_at(self.int(0), 1); self.mode(2); }
            libc::SYS_fchmod => { self.path_of_descriptor(0); self.mode(1); }
            libc::SYS_chown | libc::SYS_lchown => { self.path_at(FOLDER, 0); self.ids(1, 2); }
            libc::SYS_fchownat => { self.path_at(self.int(0), 1); self.ids(2, 2); }
            libc::SYS_fchown => { self.path_of_descriptor(0); self.ids(1, 2); }
            libc::SYS_futimesat | libc::SYS_utimensat => {
                self.path_at(self.int(0), 1);
                if self.fields.path.is_none() {
                    self.path_of_descriptor(0);
                }
            }
            libc::SYS_truncate => { self.path_at(FOLDER, 0); self.length(1); }
            libc::SYS_ftruncate => { self.path_of_descriptor(0); self.length(1); }
            libc::SYS_fallocate => {
                self.path_of_descriptor(0);
                self.words(words::bits(self.args[1] & 0xffff_ffff, &FALLOCATE));
            }
            libc::SYS_getdents64 => { self.path_of_descriptor(0); self.flag(flags::DIRECTORY, true); }
            libc::SYS_chdir => { self.path_at(FOLDER, 0); self.flag(flags::DIRECTORY, true); }
            libc::SYS_fchdir => { self.path_of_descriptor(0); self.flag(flags::DIRECTORY, true); }
            libc::SYS_setxattr | libc::SYS_lsetxattr => { self.path_at(FOLDER, 0); self.text_argument(1); }
            libc::SYS_fsetxattr => { self.path_of_descriptor(0); self.text_argument(1); }
            libc::SYS_mount => self.mount(),
            libc::SYS_finit_module => self.path_of_descriptor(0),
            libc::SYS_mmap => self.map(),
            libc::SYS_mprotect => self.protection(),
            libc::SYS_memfd_create => {
                self.fields.path = self.sight.path(self.args[0]).map(|name| format!("/memfd:{name}"));
            }
            _ => if !self.begin_socket_call() {
                self.begin_process_call();
            }
        }
    }

    /// Adds what the call returned: a negative number is an error. Nothing is known where it never returned.
    pub(super) fn end(&mut self, returned: Option<i64>) {
        let ok = returned.filter(|returned| *returned >= 0);
        match self.number {
            libc::SYS_open | libc::SYS_openat | libc::SYS_openat2 => {
                let set = self.fields.flags.unwrap_or(0);
                self.fields.created = match (set & flags::CREATE != 0, ok) {
                    (true, Some(_)) if set & flags::EXCLUSIVE != 0 => Some(true),
                    // Whether the file was there before, the call does not tell.
                    (true, Some(_)) => None,
                    _ => Some(false),
                };
            }
            libc::SYS_creat if ok.is_none() => self.fields.created = Some(false),
            libc::SYS_link
            | libc::SYS_linkat
            | libc::SYS_symlink
            | libc::SYS_symlinkat
            | libc::SYS_mkdir
            | libc::SYS_mkdirat
            | libc::SYS_mknod
            | libc::SYS_mknodat => self.fields.created = Some(ok.is_some()),
            libc::SYS_read
            | libc::SYS_readv
            | libc::SYS_pread64
            | libc::SYS_preadv
            | libc::SYS_preadv2
            | libc::SYS_write
            | libc::SYS_pwrite64
            | libc::SYS_writev
            | libc::SYS_pwritev
            | libc::SYS_pwritev2
            | libc::SYS_sendfile
            | libc::SYS_copy_file_range
            | libc::SYS_splice
            | libc::SYS_process_vm_readv
            | libc::SYS_process_vm_writev => self.moved(ok),
            _ => self.end_socket_call(ok),
        }
    }

    /// Bytes went through; where none did, nothing was written that has an entropy.
    pub(super) fn moved(&mut self, ok: Option<i64>) {
        self.fields.bytes = ok.and_then(|moved| u64::try_from(moved).ok());
        if ok.is_none() {
            self.fields.entropy = None;
        }
    }

    // Files.

    fn open(&mut self, folder: i32, path: usize, how: u64) {
        self.path_at(folder, path);
        let set = |bits: i32| how & bits as u64 == bits as u64;
        let access = how & libc::O_ACCMODE as u64;
        let (write_only, both) = (libc::O_WRONLY as u64, libc::O_RDWR as u64);
        self.flag(flags::READ, access != write_only);
        self.flag(flags::WRITE, access == write_only || access == both);
        self.flag(flags::CREATE, set(libc::O_CREAT));
        self.flag(flags::TRUNCATE, set(libc::O_TRUNC));
        self.flag(flags::APPEND, set(libc::O_APPEND));
        self.flag(flags::EXCLUSIVE, set(libc::O_EXCL));
        self.flag(flags::DIRECTORY, set(libc::O_DIRECTORY) && !set(libc::O_TMPFILE));
    }

    fn written(&mut self) {
        self.peer_of_descriptor(0);
        self.fields.entropy = self.entropy_of(self.args[1], self.args[2]);
    }

    fn copy(&mut self, to: usize, from: usize) {
        self.peer_of_descriptor(to);
        if let Some(path) = self.descriptor(from).path {
            self.words(path);
        }
    }

    fn two_paths(&mut self, (folder, path): (i32, usize), (folder2, path2): (i32, usize)) {
        self.path_at(folder, path);
        self.fields.path2 = self.resolved(folder2, path2);
    }

    /// What a symbolic link points to is text; it counts from the link's folder and not from the process's.
    fn symlink(&mut self, folder: i32, name: usize) {
        self.fields.path = self.sight.path(self.args[0]);
        self.fields.path2 = self.resolved(folder, name);
    }

    fn mode(&mut self, index: usize) {
        let mode = self.args[index] & 0xffff;
        self.flag(flags::EXECUTE, mode & 0o111 != 0);
        self.words(words::mode(mode));
    }

    fn length(&mut self, index: usize) {
        let length = self.args[index] as i64;
        self.flag(flags::TRUNCATE, length == 0);
        self.words(length.to_string());
    }

    fn mount(&mut self) {
        self.path_at(FOLDER, 1);
        let source = self.sight.path(self.args[0]).unwrap_or_default();
        let kind = self.sight.path(self.args[2]).unwrap_or_default();
        self.words(format!("{source} {kind} {:#x}", self.args[3]).trim().to_owned());
    }

    // Memory.

    fn map(&mut self) {
        self.protection();
        let kind = self.args[3];
        self.flag(flags::SHARED, matches!(kind & 0xf, 1 | 3));
        let anonymous = kind & libc::MAP_ANONYMOUS as u64 != 0;
        self.flag(flags::ANONYMOUS, anonymous);
        if !anonymous {
            self.path_of_descriptor(4);
        }
    }

    fn protection(&mut self) {
        let protection = self.args[2];
        self.flag(flags::READ, protection & libc::PROT_READ as u64 != 0);
        self.flag(flags::WRITE, protection & libc::PROT_WRITE as u64 != 0);
        self.flag(flags::EXECUTE, protection & libc::PROT_EXEC as u64 != 0);
    }

    // Paths and descriptors.

    /// An argument that the kernel takes for an `int`.
    pub(super) fn int(&self, index: usize) -> i32 {
        self.args[index] as i32
    }

    pub(super) fn descriptor(&self, index: usize) -> Open {
        self.sight.open(self.int(index))
    }

    /// The folder a relative path counts from.
    pub(super) fn base(&self, folder: i32) -> Option<String> {
        if folder == FOLDER { self.sight.folder() } else { self.sight.open(folder).path }
    }

    pub(super) fn resolved(&mut self, folder: i32, index: usize) -> Option<String> {
        let path = self.sight.path(self.args[index])?;
        if path.is_empty() {
            return None;
        }
        let base = if path.starts_with('/') { None } else { self.base(folder) };
        Some(resolve(base.as_deref(), &path))
    }

    pub(super) fn path_at(&mut self, folder: i32, index: usize) {
        self.fields.path = self.resolved(folder, index);
    }

    pub(super) fn path_of_descriptor(&mut self, index: usize) {
        self.fields.path = self.descriptor(index).path;
    }

    pub(super) fn peer_of_descriptor(&mut self, index: usize) {
        let open = self.descriptor(index);
        self.fields.path = open.path;
        self.fields.peer = open.peer;
    }

    // Plain fields.

    pub(super) fn flag(&mut self, flag: u32, set: bool) {
        let flags = self.fields.flags.get_or_insert(0);
        if set {
            *flags |= flag;
        }
    }

    pub(super) fn words(&mut self, text: String) {
        if !text.is_empty() {
            self.fields.args = Some(text);
        }
    }

    pub(super) fn text_argument(&mut self, index: usize) {
        if let Some(text) = self.sight.string(self.args[index], 512) {
            self.words(lossy(text));
        }
    }

    /// User and group numbers from `first` on; the highest means "leave as it is".
    pub(super) fn ids(&mut self, first: usize, count: usize) {
        let id = |value: &u64| if *value as u32 == u32::MAX { "-1".to_owned() } else { (*value as u32).to_string() };
        let ids: Vec<_> = self.args[first..first + count].iter().map(id).collect();
        self.words(ids.join(", "));
    }
}

const FALLOCATE: [(u64, &str); 6] = [
    (1, "FALLOC_FL_KEEP_SIZE"),
    (2, "FALLOC_FL_PUNCH_HOLE"),
    (8, "FALLOC_FL_COLLAPSE_RANGE"),
    (16, "FALLOC_FL_ZERO_RANGE"),
    (32, "FALLOC_FL_INSERT_RANGE"),
    (64, "FALLOC_FL_UNSHARE_RANGE"),
];

#[cfg(test)]
mod tests {
    use bellwether_env_adapter::calls::recorded_calls;
    use proptest::prelude::*;

    use super::super::sight::Peers;
    use super::*;

    fn read(number: i64, args: &[u64; 6], returned: Option<i64>) -> Fields {
        let mut peers = Peers::default();
        let mut sight = Sight { tid: std::process::id(), peers: &mut peers, looked: false };
        let mut fields = Fields::default();
        let mut reading = Reading { number, args, sight: &mut sight, fields: &mut fields };
        reading.begin();
        reading.end(returned);
        fields
    }

    #[test]
    fn a_failed_write_moved_nothing_and_has_no_entropy() {
        let bytes = *b"aabbccdd";
        let args = [1, bytes.as_ptr() as u64, 8, 0, 0, 0];
        let written = read(libc::SYS_write, &args, Some(5));
        // What was to be written counts, and not only what was.
        assert_eq!((written.bytes, written.entropy), (Some(5), Some(2.0)));
        for returned in [Some(-1), None] {
            let failed = read(libc::SYS_write, &args, returned);
            assert_eq!((failed.bytes, failed.entropy), (None, None));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        /// Whatever a sample passes to a call, reading it ends, and takes bounded memory.
        #[test]
        fn any_arguments_are_read(
            call in prop::sample::select(recorded_calls().to_vec()),
            memory in prop::collection::vec(any::<u8>(), 512),
            args in any::<[u64; 6]>(),
            points in any::<[Option<u8>; 6]>(),
            inside in any::<[u8; 4]>(),
            returned in prop_oneof![Just(None), any::<i64>().prop_map(Some), (0i64..64).prop_map(Some)],
        ) {
            let mut memory = memory;
            let base = memory.as_ptr() as u64;
            // Structures within the memory point to other parts of it.
            for (at, to) in inside.iter().enumerate() {
                let pointer = (base + u64::from(*to)).to_le_bytes();
                memory[at * 16..at * 16 + 8].copy_from_slice(&pointer);
            }
            let mut args = args;
            for (arg, point) in args.iter_mut().zip(points) {
                if let Some(point) = point {
                    *arg = base + u64::from(point);
                }
            }
            let fields = read(i64::from(call.x86_64), &args, returned);
            let texts = [&fields.path, &fields.path2, &fields.args];
            prop_assert!(texts.into_iter().flatten().all(|text| text.len() <= 64 << 10), "{:?}", fields);
            prop_assert!(fields.entropy.is_none_or(|entropy| (0.0..=8.0).contains(&entropy)));
        }
    }
}
