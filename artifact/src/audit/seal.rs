//! Sealed lines: a piece of canonical JSON and the HMAC of its bytes, as one JSON object.

use super::Seal;
use crate::secret::Secret;

/// What is sealed. Each kind has a prefix of its own under the HMAC, so that none passes for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sealed {
    /// An entry of the log.
    Entry,
    /// The head beside it.
    Head,
}

impl Sealed {
    const fn prefix(self) -> &'static [u8] {
        match self {
            Sealed::Entry => b"bellwether audit entry v1\0",
            Sealed::Head => b"bellwether audit head v1\0",
        }
    }

    const fn before(self) -> &'static str {
        match self {
            Sealed::Entry => "{\"entry\":",
            Sealed::Head => "{\"head\":",
        }
    }

    /// The line of this content, its line break included, and the seal.
    pub(super) fn write(self, content: &str, secret: &Secret) -> (String, Seal) {
        let seal = Seal::of(secret.tag(&[self.prefix(), content.as_bytes()]));
        (format!("{}{content}{BETWEEN}{seal}{AFTER}\n", self.before()), seal)
    }

    /// Content and seal of a line without its line break; `None` where it is no such line. The seal is not checked yet.
    pub(super) fn split(self, line: &[u8]) -> Option<(&[u8], Seal)> {
        let rest = line.strip_prefix(self.before().as_bytes())?.strip_suffix(AFTER.as_bytes())?;
        let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(64)?)?;
        let seal = std::str::from_utf8(digits).ok()?.parse().ok()?;
        Some((rest.strip_suffix(BETWEEN.as_bytes())?, Seal(seal)))
    }

    /// Whether the seal is that of the content.
    pub(super) fn holds(self, content: &[u8], seal: &Seal, secret: &Secret) -> bool {
        secret.verifies(&[self.prefix(), content], seal.as_bytes())
    }
}

const BETWEEN: &str = ",\"hmac\":\"";
const AFTER: &str = "\"}";
