//! Bodies for fuzzing: each takes any bytes and must return. Property tests drive them; a fuzzer can too.

use crate::ModelManifest;
#[cfg(feature = "signatures")]
use crate::{
    keys::{KeyError, PrivateKey, PublicKey, TrustedKeys},
    signature::{ReleaseSignature, SignatureError},
};

/// A `model.json`, as it is and as whoever seals it anew would have it, so that rules behind the version are reached.
///
/// # Panics
/// When a manifest is accepted that does not survive being written again.
pub fn fuzz_manifest(data: &[u8]) {
    let accepted = ModelManifest::from_json(data).ok();
    let sealed = serde_json::from_slice::<ModelManifest>(data).ok().and_then(|manifest| manifest.sealed().ok());
    for manifest in accepted.into_iter().chain(sealed) {
        // Laid out for people it may be longer than what is read.
        let Ok(json) = manifest.to_json() else { continue };
        if json.len() as u64 <= crate::MAX_MANIFEST_BYTES {
            assert_eq!(ModelManifest::from_json(json.as_bytes()).as_ref(), Ok(&manifest), "it is read back otherwise");
        }
        for golden in &manifest.golden {
            golden.dense_state(manifest.features.width as usize);
        }
    }
}

/// A file of public keys, and a file with a private key.
///
/// # Panics
/// When a file is both, or a key does not survive being written again.
#[cfg(feature = "signatures")]
pub fn fuzz_keys(data: &[u8]) {
    let path = std::path::Path::new("fuzz");
    let private = std::str::from_utf8(data).ok().and_then(PrivateKey::parse);
    let public = PublicKey::parse_all(data, path);
    if let Some(key) = private {
        assert!(matches!(public, Err(KeyError::PrivateAmongPublic { .. })), "a private key passes for public ones");
        let again = key.to_pem().and_then(|text| PrivateKey::parse(&text));
        assert_eq!(again.map(|key| key.public()), Some(key.public()));
    }
    if let Ok(keys) = public {
        let text: String = keys.iter().map(PublicKey::to_pem).collect();
        let again = PublicKey::parse_all(text.as_bytes(), path);
        assert!(matches!(&again, Ok(again) if *again == keys), "{again:?} is read back from {keys:?}");
    }
}

/// A `signature.json`, of a `model.json` that nobody signed; a signature that is believed is forged.
///
/// # Panics
/// When a signature is believed, or does not survive being written again.
#[cfg(feature = "signatures")]
pub fn fuzz_signature(data: &[u8]) {
    let key = PrivateKey::from_seed(&[7; 32]);
    let trusted = TrustedKeys::new([key.public()]);
    let Ok(signature) = ReleaseSignature::from_json(data) else {
        assert!(matches!(trusted.check(data, Some(data)), Err(SignatureError::Malformed(_))));
        return;
    };
    let again = signature.to_json().ok().and_then(|json| ReleaseSignature::from_json(json.as_bytes()).ok());
    assert_eq!(again.as_ref(), Some(&signature));
    // Under its own name the mathematics is reached; the file itself stands for the manifest.
    let claimed = ReleaseSignature { key_id: key.public().id(), ..signature };
    assert!(
        matches!(claimed.verify(data, &trusted), Err(SignatureError::Invalid(_))),
        "a forged signature is believed"
    );
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    /// The manifest of the model that ships.
    const MANIFEST: &[u8] = include_bytes!("../../models/quickstart/model.json");

    /// `text` with a few bytes changed, and a part of it cut out.
    fn damaged(text: &[u8], changes: &[(Index, u8)], cut: (Index, u8)) -> Vec<u8> {
        let mut bytes = text.to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        let from = cut.0.index(bytes.len());
        bytes.drain(from..bytes.len().min(from + usize::from(cut.1 % 16)));
        bytes
    }

    fn changes() -> impl Strategy<Value = Vec<(Index, u8)>> {
        vec((any::<Index>(), prop_oneof![any::<u8>(), Just(b'0'), Just(b'"'), Just(b'\n')]), 0..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_bytes_make_a_manifest_panic(bytes in vec(any::<u8>(), 0..300), changes in changes(), cut in any::<(Index, u8)>()) {
            fuzz_manifest(&bytes);
            fuzz_manifest(&damaged(MANIFEST, &changes, cut));
        }
    }

    #[cfg(feature = "signatures")]
    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_bytes_make_a_key_or_a_signature_panic(
            bytes in vec(any::<u8>(), 0..300),
            seed in any::<[u8; 32]>(),
            changes in changes(),
            cut in any::<(Index, u8)>(),
        ) {
            let key = PrivateKey::from_seed(&seed);
            let private = key.to_pem().unwrap();
            let public = key.public().to_pem() + &PrivateKey::from_seed(&[9; 32]).public().to_pem();
            let signature = ReleaseSignature::sign(MANIFEST, &key).to_json().unwrap();
            for text in [&bytes[..], private.as_bytes(), public.as_bytes(), signature.as_bytes()] {
                fuzz_keys(text);
                fuzz_signature(text);
            }
            for text in [private.as_bytes(), public.as_bytes()] {
                fuzz_keys(&damaged(text, &changes, cut));
            }
            fuzz_signature(&damaged(signature.as_bytes(), &changes, cut));
        }
    }
}
