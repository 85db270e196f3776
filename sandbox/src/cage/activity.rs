//! A user who seems to be at work: files of a session that grow while a sample runs, by a hand that it cannot see.

use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Enclosure, Identity, Placed};
use crate::draw::Draw;

/// The files of a user who was here today, and what becomes of them.
#[derive(Debug)]
pub struct Activity {
    draw: Draw,
    home: String,
    files: Vec<(Habit, Placed)>,
}

/// What a user does to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Commands of a shell, one more at a time.
    Shell,
    /// Documents that were opened, one more at a time, between a head and an end.
    Recent,
    /// What was copied last.
    Clipboard,
    /// What programs of the desktop complain of.
    Complaints,
    /// The pages that were visited, in a browser's own form.
    Pages,
    /// The windows that are open, written anew.
    Session,
}

const HABITS: [(Habit, &str, u32); 6] = [
    (Habit::Shell, ".zsh_history", 0o600),
    (Habit::Recent, ".local/share/recently-used.xbel", 0o600),
    (Habit::Clipboard, ".cache/clipman/textsrc", 0o600),
    (Habit::Complaints, ".xsession-errors", 0o600),
    (Habit::Pages, ".config/google-chrome/Default/History-wal", 0o600),
    (Habit::Session, ".local/state/desk/session.json", 0o644),
];

/// Most that any of the files grows to, in bytes.
const MOST_BYTES: usize = 256 << 10;

const RECENT_END: &str = "</xbel>\n";

impl Activity {
    /// The files as they are before the sample starts, drawn from a seed.
    pub fn draw(seed: u64, identity: &Identity) -> Activity {
        let mut activity = Activity { draw: Draw::new(seed, "user at work"), home: identity.home(), files: Vec::new() };
        for (habit, name, mode) in HABITS {
            let path = format!("{}/{name}", activity.home);
            // The user is here now, whatever the age of all else.
            let mut file = Placed { path, bytes: Vec::new(), mode, modified_s: None };
            for _ in 0..activity.draw.number(6, 30) {
                file.bytes = activity.after(habit, &file.bytes);
            }
            activity.files.push((habit, file));
        }
        activity
    }

    /// The files, to be placed in the home, and later as they should be where nobody but the user has changed them.
    pub fn files(&self) -> impl Iterator<Item = &Placed> {
        self.files.iter().map(|(_, file)| file)
    }

    /// How long the user thinks before the next act.
    pub fn pause(&mut self) -> Duration {
        Duration::from_millis(self.draw.number(300, 2_500))
    }

    /// Does one thing in the home. What the sample has removed or put something else in the place of is left alone.
    pub fn act(&mut self, enclosure: &Enclosure) {
        let at = self.draw.number(0, self.files.len() as u64) as usize;
        let (habit, old) = (self.files[at].0, std::mem::take(&mut self.files[at].1.bytes));
        let new = self.after(habit, &old);
        let done = write(enclosure, &self.files[at].1.path, &old, &new).is_ok();
        self.files[at].1.bytes = if done { new } else { old };
    }

    /// What a file holds after one more act.
    fn after(&mut self, habit: Habit, old: &[u8]) -> Vec<u8> {
        let Activity { draw, home, .. } = self;
        let document =
            |draw: &mut Draw| format!("{home}/Documents/{}.{}", draw.name(), draw.pick(&["odt", "pdf", "csv"]));
        let added: Vec<u8> = match habit {
            Habit::Shell => {
                let command = draw.pick(&["ls", "less", "git log", "grep -n", "cd", "vim", "cat", "make"]);
                format!("{command} {}\n", draw.word()).into_bytes()
            }
            Habit::Complaints => {
                let (program, line) = (draw.pick(&["panel", "files", "mail", "browser"]), draw.prose(60));
                format!("({program}:{}): Gtk-WARNING **: {line}", draw.number(900, 4_000)).into_bytes()
            }
            Habit::Pages => draw.bytes(400, 4_000),
            Habit::Clipboard => return format!("[texts]\ntexts={};\n", draw.prose(80).trim()).into_bytes(),
            Habit::Session => {
                let windows: Vec<String> =
                    (0..draw.number(2, 6)).map(|_| format!("{{\"file\": \"{}\"}}", document(draw))).collect();
                return format!("{{\"windows\": [{}]}}\n", windows.join(", ")).into_bytes();
            }
            Habit::Recent => {
                let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<xbel version=\"1.0\">\n";
                let body = old.strip_suffix(RECENT_END.as_bytes()).unwrap_or(head.as_bytes());
                if body.len() > MOST_BYTES {
                    return old.to_vec();
                }
                let entry = format!("  <bookmark href=\"file://{}\"/>\n{RECENT_END}", document(draw));
                return [body, entry.as_bytes()].concat();
            }
        };
        if old.len() > MOST_BYTES { old.to_vec() } else { [old, &added].concat() }
    }
}

/// Writes what is new of a file of the home, if it is a plain file still.
fn write(enclosure: &Enclosure, path: &str, old: &[u8], new: &[u8]) -> Result<(), Errno> {
    let below = |(mount, folder)| Some((folder, path.strip_prefix(mount)?.strip_prefix('/')?));
    let kept = enclosure.kept().iter().map(|(mount, folder)| (*mount, folder));
    let (folder, name) = kept.filter_map(below).next().ok_or(Errno::NOENT)?;
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // Nothing that the sample can put in the way leads out of its own home.
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let file = rustix::fs::openat2(folder, name, flags, Mode::empty(), resolve)?;
    let facts = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile || facts.st_size != old.len() as i64 {
        return Err(Errno::STALE);
    }
    let same = old.iter().zip(new).take_while(|(one, other)| one == other).count();
    let mut at = same;
    while at < new.len() {
        at += rustix::io::pwrite(&file, &new[at..], at as u64)?;
    }
    if new.len() < old.len() { rustix::fs::ftruncate(&file, new.len() as u64) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_a_function_of_its_seed_and_stays_within_bounds() {
        let identity = Identity::default();
        let mut days = [3, 3, 4].map(|seed| Activity::draw(seed, &identity));
        let texts = |day: &Activity| day.files().map(|file| file.bytes.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&days[0]), texts(&days[1]));
        assert_ne!(texts(&days[0]), texts(&days[2]));
        for (habit, ..) in HABITS {
            let mut bytes = Vec::new();
            for _ in 0..2_000 {
                let next = days[0].after(habit, &bytes);
                assert!(next.len() < MOST_BYTES + 8_192, "{habit:?}");
                bytes = next;
            }
        }
        let recent = days[0].after(Habit::Recent, b"");
        let text = String::from_utf8(days[0].after(Habit::Recent, &recent)).unwrap();
        assert!(
            text.starts_with("<?xml") && text.ends_with(RECENT_END) && text.matches("<bookmark").count() == 2,
            "{text}"
        );
    }
}
