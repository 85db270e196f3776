//! Bodies for fuzzers, as plain functions: whatever drives them only supplies bytes.

use bellwether_artifact::Sha256;

use super::{Contract, Expectation, check_general, encode, read};

/// Reads arbitrary bytes as a model file. It must not panic, and what it accepts must survive being written again.
///
/// # Panics
/// When the loader accepts a file whose content the encoder cannot reproduce: a bug in either.
pub fn loader(bytes: &[u8]) {
    general(bytes);
    let Ok((mlp, contract)) = read(bytes, 1 << 20) else { return };
    let again = encode(&mlp, &contract).and_then(|bytes| read(&bytes, usize::MAX));
    assert_eq!(again, Ok((mlp, contract)), "an accepted model must survive being written again");
}

/// Checks arbitrary bytes as a general graph. It must not panic, and the native loader must not take what it accepts.
///
/// # Panics
/// When a file is accepted in both ways: a bug in either.
pub fn general(bytes: &[u8]) {
    let contract =
        Contract { width: 3, feature_spec: Sha256::of(b"spec"), action_set: 7, actions: vec!["only".to_owned()] };
    let found = check_general(bytes, &Expectation { contract, max_bytes: 1 << 20 });
    assert!(found.is_err() || read(bytes, usize::MAX).is_err(), "a file is of one kind");
}
