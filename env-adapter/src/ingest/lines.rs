//! Lines of bounded length out of a stream.

use std::io::{self, BufRead};

use memchr::memchr;

/// The longest line that is read whole, in bytes.
pub(crate) const MAX_LINE_BYTES: usize = 4 << 20;

/// Reads lines. A line that is too long is skipped to its end, so that one broken line costs no memory.
pub(crate) struct Lines<R> {
    from: R,
    line: Vec<u8>,
    number: u64,
    ended: bool,
}

/// One line without its end.
pub(crate) struct Line<'a> {
    /// Its number, from 1.
    pub(crate) number: u64,
    /// Its bytes; the first [`MAX_LINE_BYTES`] of one that is too long.
    pub(crate) bytes: &'a [u8],
    /// It was longer than [`MAX_LINE_BYTES`].
    pub(crate) too_long: bool,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(from: R) -> Self {
        Lines { from, line: Vec::new(), number: 0, ended: true }
    }

    /// Whether the last line read had its line end: false at the end of a file that was cut off.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// The next line.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let (mut any, mut too_long, mut ended) = (false, false, false);
        while !ended {
            let chunk = match self.from.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                break;
            }
            any = true;
            let (text, used) = match memchr(b'\n', chunk) {
                Some(end) => {
                    ended = true;
                    (&chunk[..end], end + 1)
                }
                None => (chunk, chunk.len()),
            };
            let room = MAX_LINE_BYTES - self.line.len();
            too_long |= text.len() > room;
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            self.from.consume(used);
        }
        if !any {
            return Ok(None);
        }
        self.number += 1;
        self.ended = ended;
        let bytes = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        Ok(Some(Line { number: self.number, bytes, too_long }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], buffer: usize) -> (Vec<(u64, Vec<u8>, bool)>, bool) {
        let mut lines = Lines::new(io::BufReader::with_capacity(buffer, text));
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push((line.number, line.bytes.to_vec(), line.too_long));
        }
        (all, lines.ended())
    }

    #[test]
    fn lines_are_the_same_whatever_the_buffer() {
        let text = b"one\r\n\ntwo\nthree";
        let expected = ["one", "", "two", "three"].iter().zip(1..);
        let expected: Vec<_> = expected.map(|(line, number)| (number, line.as_bytes().to_vec(), false)).collect();
        for buffer in [1, 2, 3, 100] {
            assert_eq!(all(text, buffer), (expected.clone(), false));
            assert!(all(b"x\n", buffer).1);
        }
        assert_eq!(all(b"", 4), (vec![], true));
    }

    #[test]
    fn a_long_line_is_cut_and_skipped() {
        let mut text = vec![b'x'; MAX_LINE_BYTES + 5];
        text.extend_from_slice(b"\nnext\n");
        let (lines, _) = all(&text, 8192);
        assert_eq!((lines[0].1.len(), lines[0].2), (MAX_LINE_BYTES, true));
        assert_eq!(lines[1], (2, b"next".to_vec(), false));
    }
}
