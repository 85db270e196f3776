//! The audit log: JSON Lines in which no entry can be changed, moved, added or left out unseen.
//!
//! Each entry is sealed with HMAC-SHA256 over its own bytes, which name the seal of the entry before. A second file, the head,
//! holds a sealed count of the entries, so that a missing end is found as well. `docs/formats/audit-log.md` has the rules.
//!
//! [`AuditLog`] writes, in any number of processes at once, and [`examine`] reads. Times are the caller's: nothing here looks at a
//! clock.

mod chain;
mod error;
mod examine;
mod fuzz;
mod head;
mod lines;
mod log;
mod seal;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Sha256;
use crate::secret::SecretId;

pub use error::AuditError;
pub use examine::{Finding, Problem, Verification, examine, verify};
pub use fuzz::fuzz_audit_log;
pub use log::{AuditLog, Recovered};

/// Longest entry that is written or read, in bytes, its line break included.
pub const MAX_ENTRY_BYTES: u64 = 1024 * 1024;

/// How the kinds of entries begin that the log writes by itself.
pub const OWN_KINDS: &str = "audit.";

/// The kind of the entry that hands over to another secret.
const ROTATED: &str = "audit.rotated";

/// The kind of the entry that stands behind bytes which a writer left unfinished.
const TORN: &str = "audit.torn";

/// One entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What happened, in the fields of its kind.
    pub body: Value,
    /// The secret that sealed it.
    pub key: SecretId,
    /// What kind of thing happened: 1 to 64 of `a-z 0-9 . _ -`, a letter or digit first.
    pub kind: String,
    /// The seal of the entry before; that of the first is all zeros.
    pub previous: Seal,
    /// Its number, from 0, without gaps.
    pub seq: u64,
    /// When it happened, in milliseconds since 1970 in UTC, as the writer's clock said. Clocks jump, so it may fall.
    pub time_ms: u64,
}

/// The HMAC-SHA256 of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transparent))]
pub struct Seal(Sha256);

/// A place in a log: so many entries, the last of them with this seal. Kept elsewhere, it proves later that the log of today still
/// begins as it did. Written as `ENTRIES:SEAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Anchor {
    /// Entries up to here.
    pub entries: u64,
    /// Seal of the last of them; all zeros where there is none.
    pub last: Seal,
}

/// A text that is no anchor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no anchor: give ENTRIES:SEAL, as `audit verify` prints it")]
pub struct InvalidAnchor {
    /// The text, cut after 80 characters.
    pub text: String,
}

/// What a writer left unfinished: bytes behind the last whole entry that are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Unfinished {
    /// How many bytes.
    pub bytes: u64,
    /// Where they begin, in bytes from the start of the log.
    pub from_byte: u64,
    /// Their hash.
    pub sha256: Sha256,
}

impl Seal {
    /// What stands where there is no entry before.
    pub const NONE: Seal = Seal(Sha256::from_bytes([0; 32]));

    const fn of(tag: [u8; 32]) -> Seal {
        Seal(Sha256::from_bytes(tag))
    }

    const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl fmt::Display for Seal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl Anchor {
    /// The place before all entries.
    pub const START: Anchor = Anchor { entries: 0, last: Seal::NONE };
}

impl fmt::Display for Anchor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.entries, self.last)
    }
}

impl FromStr for Anchor {
    type Err = InvalidAnchor;

    fn from_str(text: &str) -> Result<Anchor, InvalidAnchor> {
        let parse = || {
            let (entries, last) = text.split_once(':')?;
            Some(Anchor { entries: entries.parse().ok()?, last: Seal(last.parse().ok()?) })
        };
        parse().ok_or_else(|| InvalidAnchor { text: text.chars().take(80).collect() })
    }
}
