//! What lies in quarantine, and why.

use std::fmt;

use bellwether_artifact::Sha256;
use serde::{Deserialize, Serialize};

use super::{Removal, SampleIdentity};

/// By what a thing in quarantine is known: the SHA-256 of the id of the decision that put it there, so that a decision that is
/// carried out twice puts it there once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QuarantineId(Sha256);

/// Why a sample was put into quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The decision; equal ids mean the same decision.
    pub decision_id: String,
    /// The episode that it ended.
    pub episode_id: String,
    /// When, in milliseconds since 1970 in UTC.
    pub time_ms: u64,
}

/// A thing in quarantine: what is sealed in front of its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// 1.
    pub format_version: u32,
    /// Why it is there.
    pub case: Case,
    /// What it is, and which file it was.
    pub sample: SampleIdentity,
}

/// What came of a quarantine, as an episode keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantined {
    /// The name under which the sample lies in the vault.
    pub id: QuarantineId,
    /// What became of the original.
    pub removal: Removal,
}

impl fmt::Display for Quarantined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in the vault as {}; {}", self.id, self.removal)
    }
}

impl QuarantineId {
    /// What the decision of this id puts into quarantine.
    pub fn of_decision(decision_id: &str) -> QuarantineId {
        QuarantineId(Sha256::of(decision_id.as_bytes()))
    }

    pub(super) fn parse(text: &str) -> Option<QuarantineId> {
        text.parse().ok().map(QuarantineId)
    }
}

impl fmt::Display for QuarantineId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl Held {
    pub(super) const FORMAT_VERSION: u32 = 1;

    /// Its name.
    pub fn id(&self) -> QuarantineId {
        QuarantineId::of_decision(&self.case.decision_id)
    }
}
