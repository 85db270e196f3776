//! The version of a model.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Sha256;

/// The version of a model: the first 8 bytes of the SHA-256 of its canonical `model.json` with zeros in the version's own
/// place, as 16 lowercase hexadecimal digits.
///
/// It is derived from the content, so the same data, configuration and seed give the same version on every machine, two
/// models never share one, and a manifest that was changed no longer fits its version. The order of releases is a number
/// that a registry hands out and is not part of the model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transparent))]
pub struct ModelVersion(
    #[cfg_attr(feature = "schema", schemars(with = "String", regex(pattern = "^[0-9a-f]{16}$")))] [u8; 8],
);

/// A text that is no model version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no model version: give 16 lowercase hexadecimal digits")]
pub struct InvalidVersion {
    /// The text, cut after 80 characters.
    pub text: String,
}

impl ModelVersion {
    /// The version of a manifest that was not sealed yet; no sealed manifest carries it.
    pub const UNSEALED: ModelVersion = ModelVersion([0; 8]);

    /// The version that belongs to this digest of an unsealed manifest.
    pub fn of_digest(digest: &Sha256) -> ModelVersion {
        let mut bytes = [0_u8; 8];
        bytes.copy_from_slice(&digest.as_bytes()[..8]);
        ModelVersion(bytes)
    }

    /// The 8 bytes, of which the text gives the digits in this order.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for ModelVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ModelVersion({self})")
    }
}

impl FromStr for ModelVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<ModelVersion, InvalidVersion> {
        let lowercase = text.len() == 16 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        match u64::from_str_radix(text, 16) {
            Ok(number) if lowercase => Ok(ModelVersion(number.to_be_bytes())),
            _ => Err(InvalidVersion { text: text.chars().take(80).collect() }),
        }
    }
}

impl Serialize for ModelVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ModelVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ModelVersion, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "1", "0123456789ABCDEF", "+123456789abcdef", "0123456789abcdef0", "0123456789abcdeg"] {
            assert!(text.parse::<ModelVersion>().is_err(), "{text:?} must be refused");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(bytes in any::<[u8; 32]>()) {
            let digest = Sha256::from_bytes(bytes);
            let version = ModelVersion::of_digest(&digest);
            prop_assert_eq!(version.to_string().parse::<ModelVersion>().unwrap(), version);
            prop_assert!(digest.to_string().starts_with(&version.to_string()));
            prop_assert_eq!(version.as_bytes(), &bytes[..8]);
        }
    }
}
