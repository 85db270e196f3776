//! JSON that can be looked at: ASCII alone, so that no name of the sample acts on whoever prints the file.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// Writes a value on one line, without a break.
pub(super) fn write(out: &mut (impl Write + ?Sized), value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, Ascii(CompactFormatter))).map_err(io::Error::from)
}

/// Writes a key with its colon, with a comma before it where it is not the first.
pub(super) fn key(out: &mut impl Write, key: &str, first: bool) -> io::Result<()> {
    if !first {
        out.write_all(b",")?;
    }
    write(out, key)?;
    out.write_all(b":")
}

/// Writes a field of an object.
pub(super) fn field(
    out: &mut impl Write,
    name: &str,
    value: &(impl Serialize + ?Sized),
    first: bool,
) -> io::Result<()> {
    key(out, name, first)?;
    write(out, value)
}

/// Spells what is not printable ASCII as `\uXXXX`, in pairs of surrogates where one is not enough (RFC 8259, section 7).
struct Ascii(CompactFormatter);

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut units = [0; 2];
        for character in fragment.chars() {
            if matches!(character, ' '..='~') {
                out.write_all(&[character as u8])?;
                continue;
            }
            for unit in character.encode_utf16(&mut units) {
                write!(out, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    proptest! {
        #[test]
        fn text_is_ascii_and_reads_back(texts in prop::collection::vec(any::<String>(), 1..5)) {
            let mut out = Vec::new();
            write(&mut out, &texts).unwrap();
            prop_assert!(out.iter().all(|byte| matches!(byte, b' '..=b'~')));
            let read: Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(read, serde_json::json!(texts));
        }
    }
}
