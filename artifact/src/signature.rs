//! The signature of a release: whose word it is that a model may be served.
//!
//! What is signed are the bytes of `model.json`, which name the network by its hash; card and evaluation are not covered.
//! Whoever verifies holds no secret.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::durable;
use crate::keys::{KeyId, PrivateKey, TrustedKeys};
use crate::release::{SIGNATURE_FILE, signature_path};
use crate::{ArtifactError, CanonicalError, canonical_json_pretty};

/// The content of `signature.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseSignature {
    /// Who signed.
    pub key_id: KeyId,
    /// Over [`SIGNED_PREFIX`] and the bytes of `model.json`.
    pub signature: [u8; 64],
}

/// Why a release is not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// There is no signature, and one is demanded.
    #[error("the release has no {SIGNATURE_FILE}, and only signed ones are taken: sign it (`release sign`)")]
    Missing,
    /// The file is no signature.
    #[error("{SIGNATURE_FILE} is no signature: {0}; copy it again, or sign the release anew")]
    Malformed(String),
    /// The key is not among those that are trusted.
    #[error("the release is signed with the key {0}, which is not trusted here: add its .pub file if it should be")]
    Untrusted(KeyId),
    /// The signature is not that of this `model.json` by that key.
    #[error(
        "the signature with the key {0} is not one of this model.json: it was changed, or the signature is another's"
    )]
    Invalid(KeyId),
}

/// What stands before the signed bytes, so that no signature made for something else fits.
pub const SIGNED_PREFIX: &[u8] = b"bellwether release signature v1\0";

/// Largest `signature.json` that is read, in bytes.
pub const MAX_SIGNATURE_BYTES: u64 = 4 * 1024;

/// Version of `signature.json`.
const FORMAT_VERSION: u32 = 1;

/// The one algorithm.
const ALGORITHM: &str = "ed25519";

/// `signature.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format_version: u32,
    algorithm: String,
    key_id: KeyId,
    signature: String,
}

impl ReleaseSignature {
    /// Signs the bytes of a `model.json`.
    pub fn sign(manifest: &[u8], key: &PrivateKey) -> ReleaseSignature {
        ReleaseSignature { key_id: key.public().id(), signature: key.sign(&signed_bytes(manifest)) }
    }

    /// The content of `signature.json`: canonical, laid out for people.
    ///
    /// # Errors
    /// None that this content can have.
    pub fn to_json(&self) -> Result<String, CanonicalError> {
        let signature = self.signature.iter().map(|byte| format!("{byte:02x}")).collect();
        let (format_version, algorithm) = (FORMAT_VERSION, ALGORITHM.to_owned());
        canonical_json_pretty(&File { format_version, algorithm, key_id: self.key_id, signature })
    }

    /// Parses the content of `signature.json`.
    ///
    /// # Errors
    /// [`SignatureError::Malformed`].
    pub fn from_json(bytes: &[u8]) -> Result<ReleaseSignature, SignatureError> {
        let refuse = |problem: &str| SignatureError::Malformed(problem.to_owned());
        if bytes.len() as u64 > MAX_SIGNATURE_BYTES {
            return Err(refuse("it is too long"));
        }
        let file: File = serde_json::from_slice(bytes).map_err(|cause| SignatureError::Malformed(cause.to_string()))?;
        if file.format_version != FORMAT_VERSION {
            return Err(refuse("its format_version is not 1: use the release that wrote it"));
        }
        if file.algorithm != ALGORITHM {
            return Err(refuse("its algorithm is not ed25519"));
        }
        let signature =
            parse_hex(&file.signature).ok_or_else(|| refuse("signature is not 128 lowercase hex digits"))?;
        Ok(ReleaseSignature { key_id: file.key_id, signature })
    }

    /// Whether a trusted key signed these bytes of a `model.json`.
    ///
    /// # Errors
    /// [`SignatureError::Untrusted`] or [`SignatureError::Invalid`].
    pub fn verify(&self, manifest: &[u8], trusted: &TrustedKeys) -> Result<(), SignatureError> {
        let key = trusted.get(&self.key_id).ok_or(SignatureError::Untrusted(self.key_id))?;
        match key.verifies(&signed_bytes(manifest), &self.signature) {
            true => Ok(()),
            false => Err(SignatureError::Invalid(self.key_id)),
        }
    }
}

impl TrustedKeys {
    /// Demands that one of these keys signed a `model.json`, given its bytes and those of `signature.json`. Returns which.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn check(&self, manifest: &[u8], signature: Option<&[u8]>) -> Result<KeyId, SignatureError> {
        let signature = ReleaseSignature::from_json(signature.ok_or(SignatureError::Missing)?)?;
        signature.verify(manifest, self)?;
        Ok(signature.key_id)
    }
}

/// Reads the `signature.json` of a release folder, unparsed; `None` where there is none.
///
/// # Errors
/// [`ArtifactError::Io`], or [`ArtifactError::TooLarge`].
pub fn read_bytes(folder: &Path) -> Result<Option<Vec<u8>>, ArtifactError> {
    let path = signature_path(folder);
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        _ => durable::read(&path, MAX_SIGNATURE_BYTES).map(Some),
    }
}

fn signed_bytes(manifest: &[u8]) -> Vec<u8> {
    [SIGNED_PREFIX, manifest].concat()
}

/// One spelling alone, so that one signature is one file.
fn parse_hex(text: &str) -> Option<[u8; 64]> {
    let lower = text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let mut bytes = [0_u8; 64];
    if !lower || text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..text.len()).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(seed: u8) -> PrivateKey {
        PrivateKey::from_seed(&[seed; 32])
    }

    fn trust(seeds: &[u8]) -> TrustedKeys {
        TrustedKeys::new(seeds.iter().map(|seed| key(*seed).public()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn what_a_trusted_key_signed_is_believed_and_nothing_near_it(
            manifest in proptest::collection::vec(any::<u8>(), 1..300),
            at in any::<prop::sample::Index>(),
            bit in 0_u32..8,
        ) {
            let signature = ReleaseSignature::sign(&manifest, &key(1));
            let json = signature.to_json().unwrap();
            prop_assert_eq!(ReleaseSignature::from_json(json.as_bytes()).unwrap(), signature.clone());
            prop_assert_eq!(trust(&[2, 1]).check(&manifest, Some(json.as_bytes())).unwrap(), key(1).public().id());
            let untrusted = trust(&[2, 3]).check(&manifest, Some(json.as_bytes()));
            prop_assert!(matches!(untrusted, Err(SignatureError::Untrusted(_))));
            let mut other = manifest.clone();
            other[at.index(manifest.len())] ^= 1 << bit;
            prop_assert!(matches!(signature.verify(&other, &trust(&[1])), Err(SignatureError::Invalid(_))));
            let mut forged = signature.clone();
            forged.signature[at.index(64)] ^= 1 << bit;
            prop_assert!(matches!(forged.verify(&manifest, &trust(&[1])), Err(SignatureError::Invalid(_))));
            // Its owner is another than it says.
            let claimed = ReleaseSignature { key_id: key(2).public().id(), ..signature };
            prop_assert!(matches!(claimed.verify(&manifest, &trust(&[1, 2])), Err(SignatureError::Invalid(_))));
        }

        #[test]
        fn no_bytes_make_the_parser_fail_otherwise(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(matches!(ReleaseSignature::from_json(&bytes), Err(SignatureError::Malformed(_))));
        }
    }

    #[test]
    fn a_signature_of_the_bytes_without_the_prefix_does_not_count() {
        let bare = ReleaseSignature { key_id: key(1).public().id(), signature: key(1).sign(b"manifest") };
        assert!(matches!(bare.verify(b"manifest", &trust(&[1])), Err(SignatureError::Invalid(_))));
    }

    #[test]
    fn a_file_is_refused_unless_it_is_whole_and_of_this_format() {
        assert!(matches!(trust(&[1]).check(b"manifest", None), Err(SignatureError::Missing)));
        let json = ReleaseSignature::sign(b"manifest", &key(1)).to_json().unwrap();
        let changes = [
            (json[..json.len() / 2].to_owned(), "EOF"),
            (json.replace("ed25519", "rsa"), "algorithm"),
            (json.replace("\"format_version\": 1", "\"format_version\": 2"), "format_version"),
            (json.replacen('{', "{\"more\": 1,", 1), "unknown field"),
            (json.replace("\"signature\": \"", "\"signature\": \"00"), "128"),
            (json.to_uppercase().replace("\"SIGNATURE\"", "\"signature\""), "unknown field"),
            (format!("{json}{}", " ".repeat(5_000)), "too long"),
        ];
        for (text, expected) in changes {
            match trust(&[1]).check(b"manifest", Some(text.as_bytes())) {
                Err(SignatureError::Malformed(problem)) => assert!(problem.contains(expected), "{problem}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
