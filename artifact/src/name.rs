//! Names that people give.

/// Whether a name is safe as a file name and in a URL on every system: 1 to 64 of `a-z`, `0-9`, `.`, `_` and `-`,
/// beginning with a letter or a digit.
pub fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    let first = name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    first && name.len() <= 64 && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["champion", "adfa-ld.v2", "0", "a_b"] {
            assert!(is_plain_name(name), "{name:?}");
        }
        for name in ["", ".", "..", ".hidden", "-rf", "a/b", "Upper", "é", "a b", &"a".repeat(65)] {
            assert!(!is_plain_name(name), "{name:?}");
        }
    }
}
