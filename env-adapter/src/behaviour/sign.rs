//! The signs: named yes-or-no findings about one event.

macro_rules! signs {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A finding about one event. "First" signs are given once per path, peer or process of an episode.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Sign { $($(#[doc = $doc])+ $name,)+ }

        impl Sign {
            /// All signs in order.
            pub const ALL: &'static [Sign] = &[$(Sign::$name,)+];

            /// What the sign means, in words.
            pub const fn meaning(self) -> &'static str {
                match self { $(Sign::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

signs! {
    /// a file is opened
    Open,
    /// a file is opened for writing
    OpenWrite,
    /// a descriptor is read
    Read,
    /// a descriptor is written
    Write,
    /// a file is created
    Create,
    /// a file or folder is removed
    Delete,
    /// a file or folder is renamed
    Rename,
    /// a link is made
    Link,
    /// a folder is made
    MakeFolder,
    /// a folder is listed
    List,
    /// mode, owner or attributes of a file are changed
    ChangeAttributes,
    /// times of a file are set
    SetTimes,
    /// the length of a file is set
    Truncate,
    /// a file that the episode did not create is removed
    ForeignDelete,
    /// a file that the episode did not create is renamed
    ForeignRename,
    /// a rename changes the extension
    ChangeExtension,
    /// the content of a file that the episode did not create is overwritten or emptied (first)
    Overwrite,
    /// a file is written that was read before (first)
    ReadThenWritten,
    /// a file is removed or renamed that was read before and that the episode did not create
    ReadThenRemoved,
    /// a write of known entropy
    EntropyKnown,
    /// a write that looks encrypted or compressed: at least 64 bytes at 0.88 of the entropy that they can have
    HighEntropy,
    /// a decoy is read (first)
    DecoyRead,
    /// a decoy is overwritten or emptied (first)
    DecoyChanged,
    /// a decoy is removed or renamed
    DecoyRemoved,
    /// a credential file that the episode did not create is read, copied or moved (first)
    CredentialRead,
    /// a credential file is asked for in vain (first)
    CredentialProbed,
    /// a place from which programs are started again is written (first)
    PersistenceWritten,
    /// the sample, or a program that it ran, is removed
    SelfDeleted,
    /// a file of the episode is made executable or executed (first)
    ExecutableDropped,
    /// a log that the episode did not create is removed or emptied
    LogRemoved,
    /// times of a file that the episode did not create are set (first)
    ForeignTimes,
    /// a folder outside the system's is used (first)
    NewFolder,
    /// a file outside the system's is read (first)
    NewFileRead,
    /// a file is written (first)
    NewFileWritten,
    /// a file with an extension is created or renamed to (first of the extension)
    NewExtension,
    /// a hidden file is created (first)
    HiddenCreated,
    /// a peer is connected to
    Connect,
    /// a connection fails
    ConnectFailed,
    /// a peer is met (first)
    NewPeer,
    /// a port of a peer is met (first)
    NewPort,
    /// a name is resolved: port 53
    Dns,
    /// a socket is bound, listens or accepts
    Listen,
    /// bytes are sent to a peer
    Send,
    /// bytes are received from a peer
    Receive,
    /// a process is started
    Fork,
    /// a thread is started
    Thread,
    /// a program is executed
    Exec,
    /// a process acts (first)
    NewProcess,
    /// a signal is sent to, or an end put to, a process
    Kill,
    /// another process is traced or its memory written
    Inject,
    /// the memory of another process is read
    ReadProcess,
    /// user, group or capabilities are changed
    ChangeUser,
    /// memory without a file becomes executable
    MapExecutable,
    /// memory is writable and executable at once
    WriteExecutable,
    /// a file that lives in memory alone is made, mapped for execution or executed
    MemoryFile,
    /// the caller sleeps
    Sleep,
    /// the call failed
    Failed,
    /// the sandbox denied the call
    Denied,
    /// the kernel is extended or one of its privileged interfaces used
    Kernel,
    /// mounts, roots or namespaces are changed
    Mount,
    /// the caller leaves its session or process group
    Session,
    /// the registry is written
    WriteRegistry,
}

/// Number of signs.
pub const SIGN_COUNT: usize = Sign::ALL.len();

const _: () = assert!(SIGN_COUNT <= 64, "signs are bits of one word");

/// A set of signs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs(u64);

impl Signs {
    /// No sign.
    pub const NONE: Signs = Signs(0);

    /// Adds a sign.
    #[inline]
    pub const fn add(&mut self, sign: Sign) {
        self.0 |= 1 << sign as u8;
    }

    /// Adds a sign where `condition` holds.
    #[inline]
    pub const fn add_if(&mut self, sign: Sign, condition: bool) {
        self.0 |= (condition as u64) << sign as u8;
    }

    /// The set with one more sign.
    pub const fn with(mut self, sign: Sign) -> Signs {
        self.add(sign);
        self
    }

    /// Whether the sign is in the set.
    #[inline]
    pub const fn has(self, sign: Sign) -> bool {
        self.0 >> sign as u8 & 1 == 1
    }

    /// Whether the sets share a sign.
    #[inline]
    pub const fn meets(self, other: Signs) -> bool {
        self.0 & other.0 != 0
    }

    /// The signs of both sets.
    #[inline]
    #[must_use]
    pub const fn union(self, other: Signs) -> Signs {
        Signs(self.0 | other.0)
    }

    /// Whether there is no sign.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The numbers of the signs, ascending.
    #[inline]
    pub fn numbers(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let number = rest.trailing_zeros() as usize;
            (rest != 0).then(|| {
                rest &= rest - 1;
                number
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_added() {
        let mut signs = Signs::NONE.with(Sign::Open).with(Sign::WriteRegistry);
        signs.add_if(Sign::Read, false);
        signs.add_if(Sign::Delete, true);
        let numbers: Vec<_> = signs.numbers().collect();
        assert_eq!(numbers, [Sign::Open as usize, Sign::Delete as usize, Sign::WriteRegistry as usize]);
        assert!(signs.has(Sign::Delete) && !signs.has(Sign::Read));
        assert_eq!(Sign::Open.meaning(), "a file is opened");
        assert!(Sign::ALL.iter().enumerate().all(|(at, sign)| at == *sign as usize));
    }
}
