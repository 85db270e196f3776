//! What an episode has touched: a bounded table of hashes with marks.

/// Slots at the start; the table doubles as it fills.
const FIRST_SLOTS: usize = 256;
/// Slots at most: 12 bytes each, so 192 KiB.
const MAX_SLOTS: usize = 16_384;

/// Marks by key. Keys are hashes of paths, folders, peers, processes, each with its own salt; two that meet are one.
///
/// It remembers 12,288 keys at most. Later ones are not remembered: each of their events looks like the first.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    keys: Vec<u64>,
    marks: Vec<u32>,
    used: usize,
    overflow: u32,
}

/// The key of a text: 16 bytes at a time, each block multiplied into the key and the 128 bits of the product folded.
///
/// Nothing but whether two keys are equal ever shows, so that this hash may change. UTF-8 never has the bytes of
/// `ODD`, so that no block can be chosen to make a factor 0 and the text before it forgotten.
#[inline]
pub(super) fn key_of(text: &str) -> u64 {
    const ODD: u64 = 0xf5ff_c1fb_fdf9_c0ff;
    let mix = |key: u64, block: &[u8; 16]| {
        let block = u128::from_le_bytes(*block);
        let product = u128::from(key ^ block as u64) * u128::from(ODD ^ (block >> 64) as u64);
        product as u64 ^ (product >> 64) as u64
    };
    let bytes = text.as_bytes();
    let start = 0x9e37_79b9_7f4a_7c15 ^ bytes.len() as u64;
    let (blocks, rest) = bytes.as_chunks::<16>();
    let key = blocks.iter().fold(start, mix);
    if rest.is_empty() {
        return key;
    }
    // The last bytes are read together with some before them, or with zeros; the length tells such texts apart.
    let short = || {
        let mut block = [0; 16];
        block[..rest.len()].copy_from_slice(rest);
        block
    };
    mix(key, &bytes.last_chunk::<16>().copied().unwrap_or_else(short))
}

/// Where the marks of a key are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot(usize);

impl Seen {
    /// The slot of a key that no longer fits: forgotten with the next such key.
    const OVERFLOW: Slot = Slot(usize::MAX);

    pub(super) fn new() -> Self {
        Seen { keys: vec![0; FIRST_SLOTS], marks: vec![0; FIRST_SLOTS], used: 0, overflow: 0 }
    }

    /// Forgets everything and keeps its memory.
    pub(super) fn clear(&mut self) {
        if self.used > 0 {
            self.keys.fill(0);
            self.marks.fill(0);
            self.used = 0;
        }
    }

    /// The slot of `key`, made with no marks if it is new and still fits.
    pub(super) fn slot(&mut self, key: u64) -> Slot {
        let key = key.max(1);
        let mut at = self.find(key);
        if self.keys[at] == key {
            return Slot(at);
        }
        if (self.used + 1) * 4 > self.keys.len() * 3 {
            if self.keys.len() == MAX_SLOTS {
                self.overflow = 0;
                return Self::OVERFLOW;
            }
            self.grow();
            at = self.find(key);
        }
        self.keys[at] = key;
        self.used += 1;
        Slot(at)
    }

    /// The marks of `key`, 0 if it is not known.
    pub(super) fn peek(&self, key: u64) -> u32 {
        let key = key.max(1);
        let at = self.find(key);
        if self.keys[at] == key { self.marks[at] } else { 0 }
    }

    /// The marks of a slot. A slot is valid until the next call of [`Seen::slot`] or [`Seen::clear`].
    pub(super) fn marks(&mut self, slot: Slot) -> &mut u32 {
        self.marks.get_mut(slot.0).unwrap_or(&mut self.overflow)
    }

    /// Sets `mark` on `key` and says whether it was not set before.
    pub(super) fn first(&mut self, key: u64, mark: u32) -> bool {
        let slot = self.slot(key);
        let marks = self.marks(slot);
        let first = *marks & mark == 0;
        *marks |= mark;
        first
    }

    /// The place of `key`, or the free place where it belongs: there always is one, the table is never full.
    fn find(&self, key: u64) -> usize {
        let last = self.keys.len() - 1;
        let mut at = (key ^ (key >> 32)) as usize & last;
        while self.keys[at] != 0 && self.keys[at] != key {
            at = (at + 1) & last;
        }
        at
    }

    fn grow(&mut self) {
        let slots = self.keys.len() * 2;
        let keys = std::mem::replace(&mut self.keys, vec![0; slots]);
        let marks = std::mem::replace(&mut self.marks, vec![0; slots]);
        for (key, mark) in keys.into_iter().zip(marks) {
            if key != 0 {
                let at = self.find(key);
                self.keys[at] = key;
                self.marks[at] = mark;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]
        #[test]
        fn it_remembers_like_a_map(keys in proptest::collection::vec((0_u64..2_000, 0_u32..8), 0..1_500)) {
            let mut seen = Seen::new();
            let mut model: BTreeMap<u64, u32> = BTreeMap::new();
            for (key, bit) in keys {
                let known = model.entry(key.max(1)).or_default();
                let first = *known & (1 << bit) == 0;
                *known |= 1 << bit;
                proptest::prop_assert_eq!(seen.first(key, 1 << bit), first);
            }
            for (key, marks) in &model {
                proptest::prop_assert_eq!(seen.peek(*key), *marks);
            }
            seen.clear();
            proptest::prop_assert!(model.keys().all(|key| seen.peek(*key) == 0));
        }
    }

    #[test]
    fn it_stays_bounded_and_what_overflows_is_always_new() {
        let mut seen = Seen::new();
        let keys: BTreeSet<u64> = (1..=20_000_u64).map(|key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        for key in &keys {
            assert!(seen.first(*key, 1));
        }
        assert_eq!(seen.keys.len(), MAX_SLOTS);
        let again = keys.iter().filter(|key| !seen.first(**key, 1)).count();
        assert_eq!(again, MAX_SLOTS * 3 / 4);
    }
}
