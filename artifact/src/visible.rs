//! Text that somebody else wrote, made safe to look at.

use std::fmt::{self, Write};

/// Shows hostile text on a terminal or a page: what would not be seen as it is, is spelled out.
///
/// Control characters (so escape sequences and line breaks), characters that turn the direction of writing, that take no room or
/// that look like spaces and are none, private and unassigned-by-purpose ones become `\u{202e}` and the like; bytes that are no UTF-8
/// become `\xff`; the backslash is doubled, so that every spelling stands for one text alone. Pages escape their own characters beside.
///
/// ```
/// # use bellwether_artifact::Visible;
/// assert_eq!(Visible::new("\u{1b}[2J\u{202e}gpj.exe").to_string(), r"\u{1b}[2J\u{202e}gpj.exe");
/// assert_eq!(Visible::new(b"caf\xe9\\").to_string(), r"caf\xe9\\");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Visible<'a>(&'a [u8]);

impl<'a> Visible<'a> {
    /// Shows these bytes.
    pub fn new(text: &'a (impl AsRef<[u8]> + ?Sized)) -> Visible<'a> {
        Visible(text.as_ref())
    }

    /// The bytes that a spelling stands for; `None` where no text is spelled that way.
    pub fn read(spelling: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(spelling.len());
        let mut rest = spelling;
        while let Some((plain, behind)) = rest.split_once('\\') {
            bytes.extend_from_slice(plain.as_bytes());
            rest = if let Some(rest) = behind.strip_prefix('\\') {
                bytes.push(b'\\');
                rest
            } else if let Some(behind) = behind.strip_prefix('x') {
                let (digits, rest) = behind.split_at_checked(2)?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest
            } else {
                let (digits, rest) = behind.strip_prefix("u{")?.split_once('}')?;
                let character = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest
            };
        }
        bytes.extend_from_slice(rest.as_bytes());
        // There is one spelling for each text, so any other is a mistake or worse.
        (Visible(&bytes).to_string() == spelling).then_some(bytes)
    }
}

impl fmt::Display for Visible<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\\' => out.write_str("\\\\")?,
                    _ if is_treacherous(character) => write!(out, "{}", character.escape_unicode())?,
                    _ => out.write_char(character)?,
                }
            }
            for byte in chunk.invalid() {
                write!(out, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Whether a character is not seen as what it is: general categories Cc, Cf, Co, Zl, Zp and Zs but the space (Unicode 17), variation
/// selectors, fillers, and the code points that are no characters.
fn is_treacherous(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{1680}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}'
            | '\u{2800}' | '\u{3000}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fdd0}'..='\u{fdef}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e000}'..='\u{f8ff}'
            | '\u{e0000}'..='\u{10ffff}')
        || u32::from(character) & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_harmless_stays() {
        for text in ["", "notes.txt", "Übung 1 (Kopie).odt", "文書.txt", "مستند", "🙂", "a  b"] {
            assert_eq!(Visible::new(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_not_seen_is_spelled_out() {
        for (text, shown) in [
            ("a\nb\r\t", r"a\u{a}b\u{d}\u{9}"),
            ("\u{9b}31m", r"\u{9b}31m"),
            ("in\u{200b}visible\u{2066}", r"in\u{200b}visible\u{2066}"),
            ("\\u{a}", r"\\u{a}"),
            ("\u{e0041}", r"\u{e0041}"),
            ("\u{1ffff}", r"\u{1ffff}"),
        ] {
            assert_eq!(Visible::new(text).to_string(), shown);
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in ["\n", r"\x41", r"\u{41}", r"\", r"\x", r"\xé", r"\u{", r"\u{110000}", r"\u{00a}", r"\xFF", r"\q"]
        {
            assert_eq!(Visible::read(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_spelling_stands_for_one_text(one in prop::collection::vec(any::<u8>(), 0..20), two in ".{0,9}") {
            let shown = Visible::new(&one).to_string();
            prop_assert!(!shown.chars().any(is_treacherous));
            prop_assert_eq!(Visible::read(&shown), Some(one.clone()));
            prop_assert_eq!(shown == Visible::new(&two).to_string(), one == two.as_bytes());
            let sliced: String = two.chars().map(|c| Visible::new(c.to_string().as_str()).to_string()).collect();
            prop_assert_eq!(Visible::new(&two).to_string(), sliced);
        }
    }
}
