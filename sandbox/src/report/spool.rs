//! Pieces of text that arrive mixed and are wanted one kind behind the other, in bounded memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// Collects pieces by key: in memory while they are few, in a file without a name beyond.
pub(super) struct Spool<K> {
    file: Option<File>,
    end: u64,
    pieces: BTreeMap<K, Pieces>,
    held_bytes: usize,
}

#[derive(Default)]
struct Pieces {
    count: u64,
    /// Offset and length of each run in the file.
    runs: Vec<(u64, u64)>,
    held: Vec<u8>,
}

/// What may lie in memory before it goes to the file.
const HELD_BYTES: usize = 8 << 20;

impl<K: Ord + Copy> Default for Spool<K> {
    fn default() -> Self {
        Spool { file: None, end: 0, pieces: BTreeMap::new(), held_bytes: 0 }
    }
}

impl<K: Ord + Copy> Spool<K> {
    /// Takes a piece; `write` adds its bytes. A comma stands between two pieces of a key.
    pub(super) fn add(&mut self, key: K, write: impl FnOnce(&mut Vec<u8>, u64) -> io::Result<()>) -> io::Result<()> {
        let pieces = self.pieces.entry(key).or_default();
        let before = pieces.held.len();
        if pieces.count > 0 {
            pieces.held.push(b',');
        }
        write(&mut pieces.held, pieces.count)?;
        pieces.count += 1;
        self.held_bytes += pieces.held.len() - before;
        if self.held_bytes > HELD_BYTES { self.spill() } else { Ok(()) }
    }

    /// The keys, ascending.
    pub(super) fn keys(&self) -> Vec<K> {
        self.pieces.keys().copied().collect()
    }

    /// Writes all pieces of a key; nothing where there are none.
    pub(super) fn write(&mut self, key: K, out: &mut impl Write) -> io::Result<()> {
        let Some(pieces) = self.pieces.get(&key) else { return Ok(()) };
        if let Some(file) = &mut self.file {
            for (offset, length) in &pieces.runs {
                file.seek(SeekFrom::Start(*offset))?;
                io::copy(&mut (&mut *file).take(*length), out)?;
            }
        }
        out.write_all(&pieces.held)
    }

    fn spill(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        for pieces in self.pieces.values_mut().filter(|pieces| !pieces.held.is_empty()) {
            file.write_all(&pieces.held)?;
            let length = pieces.held.len() as u64;
            match pieces.runs.last_mut() {
                Some((offset, run)) if *offset + *run == self.end => *run += length,
                _ => pieces.runs.push((self.end, length)),
            }
            self.end += length;
            pieces.held = Vec::new();
        }
        self.held_bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_by_key_and_in_order_however_many() {
        let mut spool = Spool::default();
        let mut expected: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for number in 0..60_000_u32 {
            let (key, text) = (number * number % 7, format!("{number}{}", "x".repeat(number as usize % 800)));
            let at = expected.entry(key).or_default();
            spool
                .add(key, |out, count| {
                    assert_eq!(count, at.len() as u64);
                    out.write_all(text.as_bytes())
                })
                .unwrap();
            at.push(text);
        }
        assert!(spool.file.is_some() && spool.held_bytes <= HELD_BYTES);
        assert_eq!(spool.keys(), expected.keys().copied().collect::<Vec<_>>());
        for (key, texts) in expected {
            let mut out = Vec::new();
            spool.write(key, &mut out).unwrap();
            assert!(out == texts.join(",").as_bytes(), "{key}");
        }
    }
}
