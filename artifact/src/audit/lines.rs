//! The lines of a log, in bounded memory.

use std::io::{self, BufRead, Read};

use super::MAX_ENTRY_BYTES;

/// A line as it lies in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Its bytes without the line break; of one that is too long for an entry, the beginning.
    pub(super) bytes: &'a [u8],
    /// It has a line break.
    pub(super) whole: bool,
    /// It is a piece of a line that is too long for an entry.
    pub(super) piece: bool,
}

/// Reads lines one by one.
pub(super) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    /// The line goes on beyond what was read of it.
    goes_on: bool,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Lines<R> {
        Lines { reader, buffer: Vec::new(), goes_on: false }
    }

    /// The next line, or a piece of one that is too long.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        (&mut self.reader).take(MAX_ENTRY_BYTES).read_until(b'\n', &mut self.buffer)?;
        let whole = self.buffer.last() == Some(&b'\n');
        let went_on = self.goes_on;
        self.goes_on = !whole && self.buffer.len() as u64 == MAX_ENTRY_BYTES;
        let bytes = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
        Ok((!self.buffer.is_empty()).then_some(Line { bytes, whole, piece: went_on || self.goes_on }))
    }
}
