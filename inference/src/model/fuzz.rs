//! Bodies for fuzzers, as plain functions: whatever drives them only supplies bytes.

use super::{encode, read};

/// Reads arbitrary bytes as a model file. It must not panic, and what it accepts must survive being written again.
///
/// # Panics
/// When the loader accepts a file whose content the encoder cannot reproduce: a bug in either.
pub fn loader(bytes: &[u8]) {
    let Ok((mlp, contract)) = read(bytes, 1 << 20) else { return };
    let again = encode(&mlp, &contract).and_then(|bytes| read(&bytes, usize::MAX));
    assert_eq!(again, Ok((mlp, contract)), "an accepted model must survive being written again");
}
