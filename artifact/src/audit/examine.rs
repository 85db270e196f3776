//! Reads a log from its first byte to its last and says whether it is as it was written.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::Serialize;
use sha2::Digest;

use super::chain::{Chain, Fault};
use super::head::{self, HeadFault};
use super::lines::Lines;
use super::{Anchor, AuditError, Entry, Seal, TORN, Unfinished};
use crate::secret::{Purpose, SecretId, Secrets};
use crate::{ArtifactError, Sha256};

/// What a log was found to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Verification {
    /// Nothing was changed, moved, added or left out.
    pub intact: bool,
    /// Entries whose own seal holds.
    pub entries: u64,
    /// Time of the first of them, in milliseconds since 1970.
    pub first_time_ms: Option<u64>,
    /// Time of the last of them.
    pub last_time_ms: Option<u64>,
    /// Where the log ends: to be kept elsewhere, as a proof of what it was.
    pub end: Anchor,
    /// Where the head says that it ends; the log may be ahead by what was not committed yet. `None` without a head.
    pub head: Option<Anchor>,
    /// Bytes that dying writers left, each piece covered by a sealed entry behind it.
    pub torn_bytes: u64,
    /// Bytes at the end that no entry covers yet, because their writer died, or is at work.
    pub unfinished: Option<Unfinished>,
    /// What is not as it should be, in the order of the file; the first 100.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub further_problems: u64,
}

/// Something that no writer of the log would have left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    /// The line it begins at, from 1.
    pub line: u64,
    /// The byte it begins at, from 0.
    pub byte: u64,
    /// What it is.
    #[serde(flatten)]
    pub finding: Finding,
}

/// Kinds of [`Problem`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum Finding {
    /// Bytes that are no entry, and that no entry behind them speaks of.
    Foreign {
        /// How many.
        bytes: u64,
    },
    /// An entry without the seal of its bytes: it was changed.
    Changed {
        /// The number that it gives itself.
        seq: u64,
    },
    /// An entry that is sealed with a secret that is not at hand.
    UnknownKey {
        /// Name of the secret.
        key: SecretId,
    },
    /// An entry in another place than its own: entries are missing, doubled or in another order.
    OutOfPlace {
        /// Its number.
        seq: u64,
        /// The number that was next.
        expected: u64,
    },
    /// An entry that is sealed with a secret whose turn it is not.
    OtherKey {
        /// Its number.
        seq: u64,
    },
    /// An entry speaks of torn bytes that are not there, or are others.
    OtherTornBytes {
        /// Its number.
        seq: u64,
    },
    /// The end is missing.
    Truncated {
        /// Entries that there were, as the head says, or an anchor that was kept.
        entries: u64,
    },
    /// At this many entries, the log is not the one that the head, or an anchor that was kept, speaks of.
    OtherLog {
        /// How many.
        entries: u64,
    },
    /// There is no head, so the end may be missing.
    NoHead,
    /// These secrets did not seal the head.
    ForgedHead,
    /// The head is sealed with a secret that was replaced: the rotation was not finished, or who knows the old secret forged it.
    OldHead,
}

/// Problems that are listed one by one.
const LISTED: usize = 100;

/// Reads a log and its head; see [`examine`].
///
/// # Errors
/// As that one.
pub fn verify(path: &Path, secrets: &Secrets, kept: &[Anchor]) -> Result<Verification, AuditError> {
    examine(path, secrets, kept, |_, _| Ok(()))
}

/// Reads a log and its head, and hands on every entry whose own seal holds, with its line. `kept` are anchors from
/// elsewhere that the log must pass through; without one, nobody can tell that log and head were both taken back to an earlier
/// state. The log's writers may be at work.
///
/// # Errors
/// [`AuditError::Artifact`] where a file cannot be read, and what `each` fails with. What is wrong with the log is no error.
pub fn examine(
    path: &Path,
    secrets: &Secrets,
    kept: &[Anchor],
    each: impl FnMut(&Entry, &str) -> Result<(), AuditError>,
) -> Result<Verification, AuditError> {
    // First the head: the log can only grow while it is read.
    let head = match head::read(&head::path_of(path), secrets) {
        Err(HeadFault::Unreadable(error)) => return Err(error.into()),
        head => head,
    };
    let failed = |cause| AuditError::from(ArtifactError::io("read", path, cause));
    let log: Box<dyn BufRead> = match File::open(path) {
        Ok(file) => Box::new(BufReader::with_capacity(64 * 1024, file)),
        // A writer makes the head first.
        Err(error) if error.kind() == io::ErrorKind::NotFound && head.is_ok() => Box::new(io::empty()),
        Err(error) => return Err(failed(error)),
    };
    Examiner::new(secrets, head, kept, each).run(log, failed)
}

/// Bytes in a row that are no entries.
struct Foreign {
    line: u64,
    from_byte: u64,
    bytes: u64,
    digest: sha2::Sha256,
}

pub(super) struct Examiner<'a, F> {
    secrets: &'a Secrets,
    each: F,
    head: Option<Chain>,
    /// Places that the log must pass through, and whether it did.
    due: Vec<Anchor>,
    chain: Chain,
    /// What the chain expects is unknown, since a problem was reported: the next sealed entry is as good as any.
    lost: bool,
    foreign: Option<Foreign>,
    line: u64,
    byte: u64,
    found: Verification,
}

impl<'a, F: FnMut(&Entry, &str) -> Result<(), AuditError>> Examiner<'a, F> {
    pub(super) fn new(secrets: &'a Secrets, head: Result<Chain, HeadFault>, kept: &[Anchor], each: F) -> Self {
        let missing = matches!(head, Err(HeadFault::Missing));
        let head = head.ok();
        let mut due: Vec<Anchor> = kept.iter().copied().chain(head.as_ref().map(|head| head.at)).collect();
        due.sort_by_key(|anchor| std::cmp::Reverse(anchor.entries));
        let mut examiner = Examiner {
            secrets,
            each,
            // The first entry says whose turn it is; the seal of the head, or of a handover, says that it was right.
            chain: Chain::start(secrets.ids().next().unwrap_or(secrets.newest().id())),
            found: Verification {
                intact: false,
                entries: 0,
                first_time_ms: None,
                last_time_ms: None,
                end: Anchor::START,
                head: head.as_ref().map(|head| head.at),
                torn_bytes: 0,
                unfinished: None,
                problems: Vec::new(),
                further_problems: 0,
            },
            due,
            lost: false,
            foreign: None,
            line: 1,
            byte: 0,
            head,
        };
        match &examiner.head {
            None => examiner.problem(1, 0, if missing { Finding::NoHead } else { Finding::ForgedHead }),
            Some(head) if head.key != secrets.newest().id() => examiner.problem(1, 0, Finding::OldHead),
            Some(_) => {}
        }
        examiner
    }

    pub(super) fn run(
        mut self,
        log: impl BufRead,
        failed: impl Fn(io::Error) -> AuditError,
    ) -> Result<Verification, AuditError> {
        self.pass_anchors();
        let mut lines = Lines::new(log);
        while let Some(line) = lines.next().map_err(&failed)? {
            let length = line.bytes.len() as u64 + u64::from(line.whole);
            if line.whole && !line.piece {
                self.whole_line(line.bytes)?;
            } else {
                self.add_foreign(line.bytes, line.whole);
            }
            self.line += u64::from(line.whole);
            self.byte += length;
        }
        Ok(self.end())
    }

    fn whole_line(&mut self, bytes: &[u8]) -> Result<(), AuditError> {
        let expected = self.chain.at.entries;
        let (line, byte) = (self.line, self.byte);
        if self.found.entries == 0 && !self.lost {
            self.begin_with(bytes);
        }
        let known = match self.chain.take(bytes, self.secrets) {
            Ok(known) => known,
            Err(Fault::NoEntry) => {
                self.add_foreign(bytes, true);
                return Ok(());
            }
            Err(Fault::UnknownKey(key)) => {
                self.lost = true;
                self.close_foreign(None);
                self.problem(line, byte, Finding::UnknownKey { key });
                return Ok(());
            }
            Err(Fault::Changed(seq)) => {
                self.lost = true;
                self.close_foreign(None);
                self.problem(line, byte, Finding::Changed { seq });
                return Ok(());
            }
            Err(Fault::Place(entry, seal)) => {
                if !self.lost {
                    self.problem(line, byte, Finding::OutOfPlace { seq: entry.seq, expected });
                }
                self.jump(*entry, seal, bytes)
            }
            Err(Fault::Key(entry, seal)) => {
                if !self.lost {
                    self.problem(line, byte, Finding::OtherKey { seq: entry.seq });
                }
                self.jump(*entry, seal, bytes)
            }
        };
        self.lost = false;
        let (entry, _) = known;
        self.close_foreign(Some(&entry));
        self.found.entries += 1;
        self.found.first_time_ms = self.found.first_time_ms.or(Some(entry.time_ms));
        self.found.last_time_ms = Some(entry.time_ms);
        self.found.end = self.chain.at;
        self.pass_anchors();
        // A line whose seal holds was text when it was written.
        (self.each)(&entry, &String::from_utf8_lossy(bytes))
    }

    /// The first entry may be sealed with any secret.
    fn begin_with(&mut self, bytes: &[u8]) {
        let mut any = self.chain.clone();
        if let Err(Fault::Key(entry, _)) = any.take(bytes, self.secrets) {
            self.chain.key = entry.key;
        }
    }

    fn jump(&mut self, entry: Entry, seal: Seal, bytes: &[u8]) -> (Entry, Seal) {
        self.chain.go_on_behind(&entry, seal, bytes.len() as u64 + 1);
        (entry, seal)
    }

    fn add_foreign(&mut self, bytes: &[u8], whole: bool) {
        let (line, from_byte) = (self.line, self.byte);
        let foreign =
            self.foreign.get_or_insert_with(|| Foreign { line, from_byte, bytes: 0, digest: sha2::Sha256::new() });
        foreign.bytes += bytes.len() as u64 + u64::from(whole);
        foreign.digest.update(bytes);
        if whole {
            foreign.digest.update(b"\n");
        }
    }

    /// What stands before a sealed entry, or before one whose seal is broken, must be what the entry speaks of.
    fn close_foreign(&mut self, entry: Option<&Entry>) {
        let told: Option<Unfinished> =
            entry.filter(|entry| entry.kind == TORN).and_then(|entry| serde_json::from_value(entry.body.clone()).ok());
        let is_note = entry.is_some_and(|entry| entry.kind == TORN);
        let foreign = self.foreign.take().map(|foreign| (foreign.line, foreign.as_unfinished()));
        match foreign {
            Some((_, found)) if told == Some(found) => self.found.torn_bytes += found.bytes,
            Some((line, found)) => self.problem(line, found.from_byte, Finding::Foreign { bytes: found.bytes }),
            None if is_note => {
                let seq = entry.map_or(0, |entry| entry.seq);
                self.problem(self.line, self.byte, Finding::OtherTornBytes { seq });
            }
            None => {}
        }
        // The next entry counts from here.
        self.chain.bytes = self.byte;
    }

    fn pass_anchors(&mut self) {
        while let Some(anchor) = self.due.pop_if(|anchor| anchor.entries <= self.chain.at.entries) {
            if anchor != self.chain.at {
                self.problem(self.line, self.byte, Finding::OtherLog { entries: anchor.entries });
            }
        }
    }

    fn end(mut self) -> Verification {
        let anchored = self.head.as_ref().map_or(0, |head| head.bytes);
        if let Some(foreign) = self.foreign.take() {
            let line = foreign.line;
            let found = foreign.as_unfinished();
            if found.from_byte >= anchored {
                self.found.unfinished = Some(found);
            } else {
                self.problem(line, found.from_byte, Finding::Foreign { bytes: found.bytes });
            }
        }
        if let Some(entries) = self.due.iter().map(|anchor| anchor.entries).max() {
            self.problem(self.line, self.byte, Finding::Truncated { entries });
        }
        self.found.intact = self.found.problems.is_empty();
        self.found
    }

    fn problem(&mut self, line: u64, byte: u64, finding: Finding) {
        if self.found.problems.len() < LISTED {
            self.found.problems.push(Problem { line, byte, finding });
        } else {
            self.found.further_problems += 1;
        }
    }
}

impl Foreign {
    fn as_unfinished(&self) -> Unfinished {
        let sha256 = Sha256::from_bytes(self.digest.clone().finalize().into());
        Unfinished { bytes: self.bytes, from_byte: self.from_byte, sha256 }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}, byte {}: {}", self.line, self.byte, self.finding)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Foreign { bytes } => write!(out, "{bytes} bytes are no entry"),
            Finding::Changed { seq } => write!(out, "the entry that calls itself {seq} was changed"),
            Finding::UnknownKey { key } => {
                write!(
                    out,
                    "an entry is sealed with {key}, which is not among these secrets of {}",
                    Purpose::Audit.name()
                )
            }
            Finding::OutOfPlace { seq, expected } => write!(out, "entry {seq} stands where entry {expected} belongs"),
            Finding::OtherKey { seq } => write!(out, "entry {seq} is sealed with a secret whose turn it is not"),
            Finding::OtherTornBytes { seq } => write!(out, "entry {seq} speaks of torn bytes that are not before it"),
            Finding::Truncated { entries } => write!(out, "the log ends here, and had {entries} entries"),
            Finding::OtherLog { entries } => write!(out, "the first {entries} entries are not those that there were"),
            Finding::NoHead => out.write_str("the head is missing, so the end may be missing too"),
            Finding::ForgedHead => out.write_str("the head was not sealed with these secrets"),
            Finding::OldHead => out
                .write_str("the head is sealed with a secret that was replaced: end the rotation with `audit rotate`"),
        }
    }
}
