//! What the tracker remembers of a path.

/// Marks of a path beside its classes.
pub(super) mod mark {
    pub(crate) const CLASSIFIED: u32 = 1 << 8;
    pub(crate) const READ: u32 = 1 << 9;
    pub(crate) const READABLE: u32 = 1 << 10;
    pub(crate) const WRITABLE: u32 = 1 << 11;
    pub(crate) const APPENDS: u32 = 1 << 12;
    pub(crate) const WRITTEN: u32 = 1 << 13;
    pub(crate) const OWN: u32 = 1 << 14;
    pub(crate) const DECOY: u32 = 1 << 15;
    pub(crate) const OVERWRITTEN: u32 = 1 << 16;
    pub(crate) const DECOY_READ: u32 = 1 << 17;
    pub(crate) const CREDENTIAL_READ: u32 = 1 << 18;
    pub(crate) const CREDENTIAL_PROBED: u32 = 1 << 19;
    pub(crate) const PERSISTENCE_WRITTEN: u32 = 1 << 20;
    pub(crate) const PROGRAM: u32 = 1 << 21;
    pub(crate) const DROPPED: u32 = 1 << 22;
    pub(crate) const TIMES: u32 = 1 << 23;
    /// Nothing is there: it was removed, renamed away, or a call said so.
    pub(crate) const GONE: u32 = 1 << 24;
    /// A folder: its execute bit lets nobody run it.
    pub(crate) const FOLDER: u32 = 1 << 25;
    /// Marks that belong to the content and go along with a rename.
    pub(crate) const CONTENT: u32 = READ
        | READABLE
        | WRITABLE
        | APPENDS
        | WRITTEN
        | OWN
        | DECOY
        | OVERWRITTEN
        | DECOY_READ
        | PROGRAM
        | GONE
        | FOLDER;
    /// Mark of a folder, peer, port or extension that was met.
    pub(crate) const MET: u32 = 1;
}

/// Marks of a path as they were before the event.
#[derive(Clone, Copy)]
pub(super) struct PathMarks(pub(super) u32);

impl PathMarks {
    pub(super) fn any(self, marks: u32) -> bool {
        self.0 & marks != 0
    }

    /// The file is known to have been there before the episode.
    pub(super) fn foreign_known(self) -> bool {
        !self.any(mark::OWN | mark::GONE) && self.any(mark::READ | mark::READABLE | mark::WRITABLE | mark::DECOY)
    }
}
