//! Tables of comma-separated fields as a stream of bytes.

use std::io::{self, BufRead};

use super::IngestError;

/// What ended a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    /// A comma.
    Field,
    /// The end of the line.
    Line,
    /// The end of the table.
    File,
}

/// A table as a stream of bytes.
pub(crate) struct Fields<R> {
    from: R,
    line: u64,
}

impl<R: BufRead> Fields<R> {
    /// Begins at the first line.
    pub(crate) fn new(from: R) -> Self {
        Fields { from, line: 1 }
    }

    /// Number of the current line, from 1.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> Result<Option<u8>, IngestError> {
        loop {
            match self.from.fill_buf() {
                Ok(chunk) => {
                    let byte = chunk.first().copied();
                    self.from.consume(usize::from(byte.is_some()));
                    self.line += u64::from(byte == Some(b'\n'));
                    return Ok(byte);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(IngestError::Stream { doing: "read a table of calls", cause }),
            }
        }
    }

    /// Reads a field; of one longer than `limit` the first `limit` + 1 bytes.
    pub(crate) fn field(&mut self, text: &mut Vec<u8>, limit: usize) -> Result<End, IngestError> {
        text.clear();
        let mut quoted = false;
        loop {
            match self.byte()? {
                None => return Ok(End::File),
                Some(b'"') if text.is_empty() || quoted => quoted = !quoted,
                Some(b',') if !quoted => return Ok(End::Field),
                Some(b'\n') => {
                    if text.last() == Some(&b'\r') {
                        text.pop();
                    }
                    return Ok(End::Line);
                }
                Some(byte) if text.len() <= limit => text.push(byte),
                Some(_) => {}
            }
        }
    }

    /// Skips the rest of the line.
    pub(crate) fn skip_line(&mut self) -> Result<End, IngestError> {
        loop {
            match self.byte()? {
                None => return Ok(End::File),
                Some(b'\n') => return Ok(End::Line),
                Some(_) => {}
            }
        }
    }
}
