//! Where a log stands, and what may come next.

use std::fmt;

use serde_json::{Value, json};

use super::seal::Sealed;
use super::{Anchor, AuditError, Entry, MAX_ENTRY_BYTES, ROTATED, Seal};
use crate::canonical_json;
use crate::secret::{SecretId, Secrets};

/// A place in a log, and whose turn it is to seal.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chain {
    /// The place.
    pub(super) at: Anchor,
    /// Bytes up to here.
    pub(super) bytes: u64,
    /// The secret that seals the next entry.
    pub(super) key: SecretId,
}

/// Why a line is not the next entry.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fault {
    /// It is no entry at all.
    NoEntry,
    /// It is sealed with a secret that is not at hand.
    UnknownKey(SecretId),
    /// Its seal is not that of its bytes.
    Changed(u64),
    /// It is sealed, but its place is another one.
    Place(Box<Entry>, Seal),
    /// It is in its place, but a secret sealed it whose turn it is not.
    Key(Box<Entry>, Seal),
}

impl Chain {
    /// Before the first entry.
    pub(super) fn start(key: SecretId) -> Chain {
        Chain { at: Anchor::START, bytes: 0, key }
    }

    /// The line of the next entry, and where the log will stand behind it.
    pub(super) fn seal(
        &self,
        time_ms: u64,
        kind: &str,
        body: Value,
        secrets: &Secrets,
    ) -> Result<(String, Chain), AuditError> {
        let secret = secrets.get(&self.key).ok_or(AuditError::UnknownKey { key: self.key })?;
        let entry =
            Entry { body, key: self.key, kind: kind.to_owned(), previous: self.at.last, seq: self.at.entries, time_ms };
        let (line, seal) = Sealed::Entry.write(&canonical_json(&entry)?, secret);
        let bytes = line.len() as u64;
        if bytes > MAX_ENTRY_BYTES {
            return Err(AuditError::TooLong { kind: entry.kind, bytes });
        }
        Ok((line, self.behind(&entry, seal, bytes)))
    }

    /// The entry that would hand over to another secret.
    pub(super) fn handover(
        &self,
        time_ms: u64,
        to: SecretId,
        secrets: &Secrets,
    ) -> Result<(String, Chain), AuditError> {
        self.seal(time_ms, ROTATED, json!({ "to": to }), secrets)
    }

    /// Takes a line, without its line break, as the next entry.
    pub(super) fn take(&mut self, line: &[u8], secrets: &Secrets) -> Result<(Entry, Seal), Fault> {
        let (entry, seal) = open(line, secrets)?;
        if (entry.seq, entry.previous) != (self.at.entries, self.at.last) {
            return Err(Fault::Place(Box::new(entry), seal));
        }
        if entry.key != self.key {
            return Err(Fault::Key(Box::new(entry), seal));
        }
        *self = self.behind(&entry, seal, line.len() as u64 + 1);
        Ok((entry, seal))
    }

    /// Goes on behind an entry that was not the next one.
    pub(super) fn go_on_behind(&mut self, entry: &Entry, seal: Seal, line_bytes: u64) {
        self.key = entry.key;
        self.at.entries = entry.seq;
        *self = self.behind(entry, seal, line_bytes);
    }

    fn behind(&self, entry: &Entry, seal: Seal, bytes: u64) -> Chain {
        let at = Anchor { entries: entry.seq.saturating_add(1), last: seal };
        let handed = (entry.kind == ROTATED).then(|| entry.body.get("to")).flatten();
        // Only whoever holds the secret could seal a handover to what is no secret; the next entry then has no key that fits.
        let key = handed.and_then(|to| serde_json::from_value(to.clone()).ok()).unwrap_or(self.key);
        Chain { at, bytes: self.bytes + bytes, key }
    }
}

/// The entry on a line, if its own seal holds.
fn open(line: &[u8], secrets: &Secrets) -> Result<(Entry, Seal), Fault> {
    let (content, seal) = Sealed::Entry.split(line).ok_or(Fault::NoEntry)?;
    let entry: Entry = serde_json::from_slice(content).map_err(|_| Fault::NoEntry)?;
    let secret = secrets.get(&entry.key).ok_or(Fault::UnknownKey(entry.key))?;
    if !Sealed::Entry.holds(content, &seal, secret) {
        return Err(Fault::Changed(entry.seq));
    }
    Ok((entry, seal))
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoEntry => out.write_str("these bytes are no entry"),
            Fault::UnknownKey(key) => write!(out, "an entry is sealed with {key}, which is not among the secrets"),
            Fault::Changed(seq) => write!(out, "the entry that calls itself {seq} does not have the seal of its bytes"),
            Fault::Place(entry, _) => write!(out, "entry {} does not follow what stands before it", entry.seq),
            Fault::Key(entry, _) => write!(out, "entry {} is sealed with a secret whose turn it is not", entry.seq),
        }
    }
}
