//! Damage of any kind: a refusal, or a file that survives being written again, and never a panic.

use bellwether_inference::model::fuzz;
use proptest::prelude::*;

use super::heads::dueling;
use super::*;

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        fuzz::loader(&bytes);
    }

    #[test]
    fn damage_never_panics(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = if flips.len() > 1 { bytes() } else { encode(&dueling(), &contract()).unwrap() };
        for (index, value) in &flips {
            let at = index.index(bytes.len());
            bytes[at] ^= value;
        }
        fuzz::loader(&bytes);
    }

    #[test]
    fn cuts_and_repeats_never_panic(cut: prop::sample::Index, length in 0_usize..80, to: prop::sample::Index) {
        let mut bytes = bytes();
        let from = cut.index(bytes.len());
        let piece: Vec<u8> = bytes.drain(from..(from + length).min(bytes.len())).collect();
        fuzz::loader(&bytes);
        let to = to.index(bytes.len());
        bytes.splice(to..to, piece);
        fuzz::loader(&bytes);
    }
}
