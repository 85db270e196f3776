//! One random stream per purpose, all derived from the master seed of a run.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Longest name of a purpose, in bytes.
pub const MAX_PURPOSE_BYTES: usize = 24;

/// The stream of random numbers for one purpose (`init`, `exploration`, `sampling`, `environment`, `dropout`...).
///
/// The ChaCha key is the seed in little-endian order followed by the name, padded with zeros: streams of different
/// purposes or seeds have different keys, on every platform and in every version.
///
/// # Panics
/// If the name is empty or longer than [`MAX_PURPOSE_BYTES`].
pub fn stream(seed: u64, purpose: &str) -> ChaCha8Rng {
    let name = purpose.as_bytes();
    assert!(
        (1..=MAX_PURPOSE_BYTES).contains(&name.len()),
        "the purpose `{purpose}` of a stream needs 1 to {MAX_PURPOSE_BYTES} bytes"
    );
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..8 + name.len()].copy_from_slice(name);
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn streams_differ_by_seed_and_by_purpose_and_by_nothing_else() {
        let first = |seed, purpose: &str| stream(seed, purpose).next_u64();
        assert_eq!(first(1, "init"), first(1, "init"));
        assert_ne!(first(1, "init"), first(2, "init"));
        assert_ne!(first(1, "init"), first(1, "sampling"));
    }

    #[test]
    fn a_stream_is_the_same_on_every_platform() {
        // The first word of ChaCha with 8 rounds under the key 7, "init", computed by another implementation.
        assert_eq!(stream(7, "init").next_u32(), 357_109_293);
    }
}
