//! What calls on processes, identity and time say.

use bellwether_env_adapter::event::flags;
use bellwether_env_adapter::sensor::{MAX_ARGS_BYTES, lossy};

use super::fields::Reading;
use super::words;

/// Strings of an argument list that are looked at.
const MAX_STRINGS: u64 = 128;
/// Bytes of one of them.
const MAX_STRING: usize = 512;

impl Reading<'_, '_> {
    /// Reads a call on processes that has not run. What it returns adds nothing.
    pub(super) fn begin_process_call(&mut self) {
        match self.number {
            libc::SYS_clone => {
                self.flag(flags::THREAD, self.args[0] & libc::CLONE_THREAD as u64 != 0);
                self.words(words::clone_flags(self.args[0] & 0xffff_ffff));
            }
            libc::SYS_execve => self.program(libc::AT_FDCWD, 0),
            libc::SYS_execveat => {
                self.program(self.int(0), 1);
                if self.fields.path.is_none() {
                    self.path_of_descriptor(0);
                }
            }
            libc::SYS_exit_group => self.ints(1),
            libc::SYS_kill | libc::SYS_tkill => {
                let signal = words::signal(i64::from(self.int(1)));
                self.words(format!("{}, {signal}", self.int(0)));
            }
            libc::SYS_tgkill => {
                let signal = words::signal(i64::from(self.int(2)));
                self.words(format!("{}, {}, {signal}", self.int(0), self.int(1)));
            }
            libc::SYS_process_vm_readv | libc::SYS_process_vm_writev => self.ints(1),
            libc::SYS_setuid | libc::SYS_setgid => self.ids(0, 1),
            libc::SYS_setreuid | libc::SYS_setregid => self.ids(0, 2),
            libc::SYS_setresuid | libc::SYS_setresgid => self.ids(0, 3),
            libc::SYS_setgroups | libc::SYS_delete_module | libc::SYS_keyctl | libc::SYS_setns => self.ints(2),
            libc::SYS_unshare => self.words(words::bits(self.args[0] & 0xffff_ffff, &words::CLONE)),
            libc::SYS_seccomp => {
                let operation = words::seccomp(i64::from(self.int(0)));
                self.words(format!("{operation}, {:#x}", self.args[1] & 0xffff_ffff));
            }
            libc::SYS_sethostname => self.text_argument(0),
            libc::SYS_reboot => self.words(format!("{:#x}, {:#x}, {:#x}", self.int(0), self.int(1), self.int(2))),
            libc::SYS_ptrace => {
                let request = words::ptrace(self.args[0] as i64);
                self.words(format!("{request}, {}", self.int(1)));
            }
            libc::SYS_prctl => self.prctl(),
            libc::SYS_bpf | libc::SYS_add_key | libc::SYS_request_key | libc::SYS_io_uring_setup => self.ints(1),
            libc::SYS_nanosleep => self.sleep(0),
            libc::SYS_clock_nanosleep => self.sleep(2),
            _ => {}
        }
    }

    fn program(&mut self, folder: i32, path: usize) {
        self.path_at(folder, path);
        if self.args[path + 1] != 0 {
            let list = self.strings(self.args[path + 1]);
            self.words(list);
        }
    }

    /// A list of strings, as far as arguments are kept.
    fn strings(&mut self, from: u64) -> String {
        let mut list = String::from("[");
        for at in 0..MAX_STRINGS {
            let Some(pointer) = self.sight.structure::<8>(from.wrapping_add(at * 8)).map(u64::from_le_bytes) else {
                break;
            };
            if pointer == 0 || list.len() > 2 * MAX_ARGS_BYTES {
                break;
            }
            let Some(text) = self.sight.string(pointer, MAX_STRING) else { break };
            if list.len() > 1 {
                list.push_str(", ");
            }
            list.push('"');
            list.push_str(&lossy(text));
            list.push('"');
        }
        list.push(']');
        list
    }

    fn prctl(&mut self) {
        let option = words::prctl(i64::from(self.int(0)));
        let value = match self.int(0) {
            libc::PR_SET_NAME => self.sight.string(self.args[1], 16).map(lossy).unwrap_or_default(),
            libc::PR_SET_PDEATHSIG => words::signal(self.args[1] as i64),
            _ => (self.args[1] as i64).to_string(),
        };
        self.words(format!("{option}, {value}"));
    }

    /// The requested time in seconds.
    fn sleep(&mut self, index: usize) {
        if let Some(time) = self.sight.structure::<16>(self.args[index]) {
            let word = |at: usize| i64::from_le_bytes(std::array::from_fn(|byte| time[at + byte]));
            self.words(format!("{}.{:09}", word(0), word(8)));
        }
    }

    fn ints(&mut self, count: usize) {
        let ints: Vec<_> = (0..count).map(|index| self.int(index).to_string()).collect();
        self.words(ints.join(", "));
    }
}
