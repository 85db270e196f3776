//! The meaning of calls on files: who made the file, who read it, what is lost.

use super::marks::{PathMarks, mark};
use super::paths::{class, extension, split};
use super::seen::{Slot, key_of};
use super::sign::Sign;
use super::tracker::{Call, Facts, NEVER_DENIED, Tracker, salt};
use crate::calls::Operation;
use crate::event::flags;

impl Tracker {
    /// The slot and the marks of a path, classified.
    pub(super) fn path(&mut self, path: &str, decoy: bool) -> (Slot, PathMarks) {
        let slot = self.seen.slot(key_of(path));
        let marks = self.seen.marks(slot);
        if *marks & mark::CLASSIFIED == 0 {
            *marks |= mark::CLASSIFIED | self.rules.classify(path);
        }
        if decoy {
            *marks |= mark::DECOY;
        }
        (slot, PathMarks(*marks))
    }

    pub(super) fn remember(&mut self, slot: Slot, marks: u32) {
        *self.seen.marks(slot) |= marks;
    }

    /// Counts a folder once; folders of the system and devices say nothing.
    fn folder<'a>(&mut self, marks: PathMarks, folder: impl FnOnce() -> &'a str, facts: &mut Facts) {
        if !marks.any(class::DEVICE | class::SYSTEM) && self.seen.first(key_of(folder()) ^ salt::FOLDER, mark::MET) {
            facts.signs.add(Sign::NewFolder);
        }
    }

    /// Counts an extension once.
    fn extension(&mut self, path: &str, facts: &mut Facts) {
        if let Some(extension) = extension(path)
            && self.seen.first(key_of(extension) ^ salt::EXTENSION, mark::MET)
        {
            facts.signs.add(Sign::NewExtension);
        }
    }

    pub(super) fn query(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        if let Some(path) = call.event.path
            && call.failed
        {
            let (slot, marks) = self.path(path, call.decoy());
            self.probe(call, slot, marks, facts);
        }
    }

    /// A call on a path failed.
    pub(super) fn probe(&mut self, call: Call<'_, '_>, slot: Slot, marks: PathMarks, facts: &mut Facts) {
        if call.event.errno == Some(ENOENT) && !marks.any(mark::CONTENT & !mark::DECOY) {
            self.remember(slot, mark::GONE);
        }
        if marks.any(class::CREDENTIAL) && !marks.any(mark::CREDENTIAL_PROBED) {
            facts.signs.add(Sign::CredentialProbed);
            self.remember(slot, mark::CREDENTIAL_PROBED);
        }
    }

    pub(super) fn open(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        let creat = call.event.name == "creat";
        let create = creat || call.has(flags::CREATE);
        let truncate = creat || call.has(flags::TRUNCATE);
        let write = creat || call.has(flags::WRITE) || call.has(flags::TRUNCATE);
        let folder_only = call.has(flags::DIRECTORY);
        if !call.failed {
            facts.signs.add(Sign::Open);
            facts.signs.add_if(Sign::OpenWrite, write);
            facts.signs.add_if(Sign::Create, call.event.created == Some(true));
        }
        let Some(path) = call.event.path else { return };
        let (slot, marks) = self.path(path, call.decoy());
        if marks.any(class::DEVICE) {
            return;
        }
        if write || create {
            deny_write(marks, facts);
        }
        if call.failed {
            self.probe(call, slot, marks, facts);
            return;
        }
        if folder_only {
            return;
        }
        let mut set = 0;
        let known = marks.foreign_known();
        // Where the source does not tell, what is opened to be appended to is taken for a file that was there.
        let likely_made = create && !call.has(flags::APPEND) && !known && !marks.any(mark::OWN);
        let made = call.event.created.unwrap_or(likely_made);
        if made {
            set |= mark::OWN;
            *self.seen.marks(slot) &= !mark::GONE;
            facts.signs.add(Sign::Create);
            facts.signs.add_if(Sign::HiddenCreated, marks.any(class::HIDDEN));
        }
        if write {
            set |= mark::WRITABLE;
            set |= if call.has(flags::APPEND) { mark::APPENDS } else { 0 };
            self.persistence(slot, marks, facts);
            if !made && !marks.any(mark::OWN) && truncate {
                set |= overwrite(marks, facts);
                facts.signs.add_if(Sign::LogRemoved, marks.any(class::LOG));
            }
        } else {
            set |= mark::READABLE;
            self.reading(slot, marks, facts);
        }
        self.remember(slot, set);
        self.folder(marks, || split(path).0, facts);
        if made {
            self.extension(path, facts);
        }
    }

    /// What reading a path means.
    pub(super) fn reading(&mut self, slot: Slot, marks: PathMarks, facts: &mut Facts) {
        let mut set = 0;
        let known = marks.any(mark::READ | mark::READABLE | mark::OWN);
        facts.signs.add_if(Sign::NewFileRead, !marks.any(class::SYSTEM) && !known);
        if marks.any(mark::DECOY) && !marks.any(mark::OWN | mark::DECOY_READ) {
            facts.signs.add(Sign::DecoyRead);
            set |= mark::DECOY_READ;
        }
        if marks.any(class::CREDENTIAL) && !marks.any(mark::OWN | mark::CREDENTIAL_READ) {
            facts.signs.add(Sign::CredentialRead);
            set |= mark::CREDENTIAL_READ;
        }
        self.remember(slot, set);
    }

    pub(super) fn persistence(&mut self, slot: Slot, marks: PathMarks, facts: &mut Facts) {
        if marks.any(class::PERSISTENCE) && !marks.any(mark::PERSISTENCE_WRITTEN) {
            facts.signs.add(Sign::PersistenceWritten);
            self.remember(slot, mark::PERSISTENCE_WRITTEN);
        }
    }

    /// Whether bytes went over the network, and how many went; `None` where the call failed. `socket` is the operation that
    /// moves bytes of a socket alone.
    fn moved(&mut self, call: Call<'_, '_>, socket: Operation, facts: &mut Facts) -> Option<(bool, u64)> {
        let network = facts.name.operation == socket && call.event.path.is_none() || call.has_peer();
        if network {
            facts.denied_at = 1;
            self.peer(call, facts);
        }
        (!call.failed).then(|| (network, call.bytes()))
    }

    pub(super) fn read(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        let Some((network, bytes)) = self.moved(call, Operation::Receive, facts) else { return };
        if network {
            facts.signs.add(Sign::Receive);
            facts.bytes_received = bytes;
            return;
        }
        facts.signs.add(Sign::Read);
        facts.bytes_read = bytes;
        if let Some(path) = call.event.path {
            let (slot, marks) = self.path(path, call.decoy());
            if !marks.any(class::DEVICE) {
                self.reading(slot, marks, facts);
                self.remember(slot, mark::READ);
            }
        }
    }

    pub(super) fn write(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        let Some((network, bytes)) = self.moved(call, Operation::Send, facts) else { return };
        if network {
            facts.signs.add(Sign::Send);
            facts.bytes_sent = bytes;
            return;
        }
        facts.signs.add(Sign::Write);
        facts.bytes_written = bytes;
        if let Some(entropy) = call.event.entropy.filter(|entropy| entropy.is_finite()) {
            let entropy = entropy.clamp(0.0, 8.0);
            facts.entropy = Some(entropy);
            facts.signs.add(Sign::EntropyKnown);
            facts.signs.add_if(Sign::HighEntropy, is_high(entropy, call.event.bytes));
        }
        let Some(path) = call.event.path else { return };
        let (slot, marks) = self.path(path, call.decoy());
        if marks.any(class::DEVICE) {
            return;
        }
        deny_write(marks, facts);
        self.remember(slot, mark::WRITTEN);
        if marks.any(mark::WRITTEN) {
            return;
        }
        facts.signs.add(Sign::NewFileWritten);
        // A descriptor that was open before the recording began may be a log: only an opened file is overwritten.
        if marks.any(mark::WRITABLE) && !marks.any(mark::APPENDS | mark::OWN) {
            let set = overwrite(marks, facts);
            self.remember(slot, set);
        }
        self.persistence(slot, marks, facts);
        self.folder(marks, || split(path).0, facts);
    }

    pub(super) fn rename(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        let is_rename = facts.name.operation == Operation::Rename;
        facts.denied_at = 2;
        let source = call.event.path.map(|path| self.path(path, call.decoy()).1);
        let target = call.event.path2.map(|path| self.path(path, false).1);
        let outside = |marks: Option<PathMarks>| marks.is_none_or(|marks| !marks.any(class::SCRATCH | class::DEVICE));
        // A link leaves its source alone.
        if !(outside(target) || is_rename && outside(source)) {
            facts.denied_at = NEVER_DENIED;
        }
        if call.failed {
            return;
        }
        facts.signs.add(if is_rename { Sign::Rename } else { Sign::Link });
        let marks = source.unwrap_or(PathMarks(0));
        if let Some(path) = call.event.path {
            let (slot, marks) = self.path(path, call.decoy());
            if marks.any(class::CREDENTIAL) {
                self.reading(slot, marks, facts);
            }
            if is_rename {
                if !marks.any(mark::OWN | class::DEVICE) {
                    facts.signs.add(Sign::ForeignRename);
                    facts.signs.add_if(Sign::ReadThenRemoved, marks.any(mark::READ | mark::READABLE));
                    facts.signs.add_if(Sign::DecoyRemoved, marks.any(mark::DECOY));
                }
                let marks = self.seen.marks(slot);
                *marks = *marks & !mark::CONTENT | mark::GONE;
            }
            self.folder(marks, || split(path).0, facts);
        }
        let Some(path2) = call.event.path2 else { return };
        if let Some(path) = call.event.path
            && is_rename
        {
            facts.signs.add_if(Sign::ChangeExtension, extension(path) != extension(path2));
        }
        let (slot, old) = self.path(path2, false);
        self.persistence(slot, old, facts);
        if is_rename {
            if old.foreign_known() && !old.any(class::DEVICE) {
                overwrite(old, facts);
            }
            let content = marks.0 & mark::CONTENT & !(mark::DECOY | mark::GONE);
            let kept = self.seen.marks(slot);
            *kept = (*kept & !(mark::CONTENT & !mark::DECOY)) | content;
        } else {
            self.remember(slot, mark::OWN);
        }
        self.extension(path2, facts);
    }

    pub(super) fn delete(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        facts.denied_at = 2;
        let Some(path) = call.event.path else {
            facts.signs.add_if(Sign::Delete, !call.failed);
            return;
        };
        let (slot, marks) = self.path(path, call.decoy());
        if marks.any(class::SCRATCH | class::DEVICE) {
            facts.denied_at = NEVER_DENIED;
        }
        if call.failed {
            return;
        }
        facts.signs.add(Sign::Delete);
        if !marks.any(mark::OWN | class::DEVICE) {
            facts.signs.add(Sign::ForeignDelete);
            facts.signs.add_if(Sign::ReadThenRemoved, marks.any(mark::READ | mark::READABLE));
            facts.signs.add_if(Sign::DecoyRemoved, marks.any(mark::DECOY));
            facts.signs.add_if(Sign::LogRemoved, marks.any(class::LOG));
        }
        facts.signs.add_if(Sign::SelfDeleted, marks.any(mark::PROGRAM));
        let left = self.seen.marks(slot);
        *left = *left & !mark::CONTENT | mark::GONE;
        self.folder(marks, || split(path).0, facts);
    }

    /// The calls that change one path, or only list it.
    pub(super) fn change(&mut self, call: Call<'_, '_>, facts: &mut Facts) {
        let operation = facts.name.operation;
        let lists = operation == Operation::List;
        if !lists {
            facts.denied_at = 2;
        }
        let path = call.event.path.map(|path| (path, self.path(path, call.decoy())));
        if let Some((_, (_, marks))) = path
            && marks.any(class::SCRATCH | class::DEVICE)
        {
            facts.denied_at = NEVER_DENIED;
        }
        if call.failed {
            return;
        }
        facts.signs.add(match operation {
            Operation::List => Sign::List,
            Operation::MakeFolder => Sign::MakeFolder,
            Operation::MakeNode => Sign::Create,
            Operation::SetTimes => Sign::SetTimes,
            Operation::Truncate => Sign::Truncate,
            Operation::WriteRegistry => Sign::WriteRegistry,
            _ => Sign::ChangeAttributes,
        });
        let Some((path, (slot, marks))) = path else { return };
        if marks.any(class::DEVICE) {
            return;
        }
        let foreign = !marks.any(mark::OWN);
        match operation {
            Operation::MakeFolder | Operation::MakeNode => {
                let marks = self.seen.marks(slot);
                let folder = if operation == Operation::MakeFolder { mark::FOLDER } else { 0 };
                *marks = *marks & !mark::GONE | mark::OWN | folder;
            }
            Operation::ChangeMode
                if call.has(flags::EXECUTE) && !call.has(flags::DIRECTORY) && !marks.any(mark::FOLDER) =>
            {
                self.dropped(slot, marks, facts);
            }
            Operation::SetTimes if foreign && !marks.any(mark::TIMES) => {
                facts.signs.add(Sign::ForeignTimes);
                self.remember(slot, mark::TIMES);
            }
            Operation::Truncate if foreign => {
                let set = overwrite(marks, facts);
                facts.signs.add_if(Sign::LogRemoved, marks.any(class::LOG));
                self.remember(slot, set);
            }
            Operation::WriteRegistry => self.persistence(slot, marks, facts),
            _ => {}
        }
        self.folder(marks, || if lists { path } else { split(path).0 }, facts);
    }
}

/// "No such file or directory".
const ENOENT: i32 = 2;

fn deny_write(marks: PathMarks, facts: &mut Facts) {
    if !marks.any(class::SCRATCH | class::DEVICE) {
        facts.denied_at = 2;
    }
}

/// The content of a foreign file is lost; gives the marks to set.
fn overwrite(marks: PathMarks, facts: &mut Facts) -> u32 {
    if marks.any(mark::OVERWRITTEN | class::DEVICE) {
        return 0;
    }
    facts.signs.add(Sign::Overwrite);
    facts.signs.add_if(Sign::DecoyChanged, marks.any(mark::DECOY));
    facts.signs.add_if(Sign::ReadThenWritten, marks.any(mark::READ | mark::READABLE));
    mark::OVERWRITTEN
}

/// Whether written bytes look encrypted or compressed. A sensor samples 512 bytes at most, and `n` bytes can have no
/// more than `log2 n` bits of entropy: 256 random bytes show 7.2 bits, 512 show 7.6, 64 show 5.9.
fn is_high(entropy: f32, bytes: Option<u64>) -> bool {
    match bytes {
        Some(bytes) if bytes < 64 => false,
        Some(bytes) if bytes < 256 => entropy >= 0.88 * libm::log2f(bytes as f32),
        _ => entropy >= 0.88 * 8.0,
    }
}
