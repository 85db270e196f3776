//! The text of a call: name, arguments, result, and the values in them.

use std::borrow::Cow;

use super::errno;
use super::line::decimal;

/// A call as it stands in the log.
#[derive(Debug)]
pub(super) struct CallText<'a> {
    pub(super) name: &'a str,
    pub(super) args: Vec<&'a [u8]>,
    pub(super) result: Outcome<'a>,
}

/// What a call returned.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Outcome<'a> {
    /// The number, if the log shows one.
    pub(super) ret: Option<i64>,
    pub(super) errno: Option<i32>,
    /// What `-y` says of a descriptor that was returned.
    pub(super) descriptor: Option<&'a [u8]>,
}

impl Outcome<'_> {
    /// The call is known to have succeeded.
    pub(super) fn ok(&self) -> bool {
        self.errno.is_none() && self.ret.is_some_and(|ret| ret >= 0)
    }

    /// Bytes moved, for a call that returns them.
    pub(super) fn bytes(&self) -> Option<u64> {
        if self.ok() { self.ret.and_then(|ret| u64::try_from(ret).ok()) } else { None }
    }
}

/// Arguments of one call that are looked at.
const MAX_ARGS: usize = 64;

/// The name of a call that has not returned, and its arguments so far.
pub(super) fn split_open(text: &[u8]) -> Option<CallText<'_>> {
    let (name, rest) = name_of(text)?;
    let (args, _) = arguments(rest).ok()?;
    Some(CallText { name, args, result: Outcome::default() })
}

/// Splits a whole call.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn split(text: &[u8]) -> Result<CallText<'_>, &'static str> {
    let (name, rest) = name_of(text).ok_or("no name of a call before `(`")?;
    let (args, end) = arguments(rest)?;
    let end = end.ok_or("the arguments have no end")?;
    let result = rest[end..].trim_ascii_start().strip_prefix(b"=").ok_or("no ` = ` behind the arguments")?;
    Ok(CallText { name, args, result: outcome(result.trim_ascii())? })
}

fn name_of(text: &[u8]) -> Option<(&str, &[u8])> {
    let end = text.iter().position(|byte| *byte == b'(')?;
    let name = std::str::from_utf8(&text[..end]).ok()?;
    let plain =
        !name.is_empty() && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    plain.then_some((name, &text[end + 1..]))
}

/// The arguments up to the closing parenthesis, and the position behind it, if it is there.
fn arguments(text: &[u8]) -> Result<(Vec<&[u8]>, Option<usize>), &'static str> {
    let (mut args, mut start, mut at, mut depth) = (Vec::new(), 0, 0, 0u32);
    while at < text.len() {
        match text[at] {
            b'"' => {
                at = string_end(text, at).ok_or("a string without its end")?;
                continue;
            }
            b'<' if at > 0 && text[at - 1].is_ascii_alphanumeric() && text.get(at + 1) != Some(&b'<') => {
                at = descriptor_end(text, at).ok_or("a descriptor without its end")?;
                continue;
            }
            b'/' if text[at..].starts_with(b"/*") => {
                let end = memchr::memmem::find(&text[at..], b"*/").ok_or("a remark without its end")?;
                at += end + 2;
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' if depth == 0 => {
                let last = text[start..at].trim_ascii();
                if !(args.is_empty() && last.is_empty()) {
                    push(&mut args, last);
                }
                return Ok((args, Some(at + 1)));
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                push(&mut args, text[start..at].trim_ascii());
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    let last = text[start..].trim_ascii();
    if !last.is_empty() {
        push(&mut args, last);
    }
    Ok((args, None))
}

fn push<'a>(args: &mut Vec<&'a [u8]>, arg: &'a [u8]) {
    if args.len() < MAX_ARGS {
        args.push(arg);
    }
}

/// The position behind the string that begins at `at`.
fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match text.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// The position behind the `<...>` that begins at `at`.
fn descriptor_end(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    // Sockets of `-yy` hold arrows and quoted paths within brackets; paths have their angle brackets escaped.
    let socket = text[at..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
    let bracketed = socket > 0 && text[at + socket..].starts_with(b":[");
    let (mut brackets, mut depth) = (0u32, 0u32);
    loop {
        match text.get(at)? {
            b'"' if bracketed => {
                at = string_end(text, at)?;
                continue;
            }
            b'[' if bracketed => brackets += 1,
            b']' if bracketed => brackets = brackets.saturating_sub(1),
            b'<' => depth += 1,
            b'>' if brackets > 0 => {}
            b'>' if depth > 0 => depth -= 1,
            b'>' => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
}

fn outcome(text: &[u8]) -> Result<Outcome<'_>, &'static str> {
    let end = text.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'<').unwrap_or(text.len());
    let (first, rest) = text.split_at(end);
    let ret = match first {
        b"?" => None,
        _ => Some(number(first).ok_or("the result is no number")?),
    };
    let mut descriptor = None;
    if rest.first() == Some(&b'<') {
        let end = descriptor_end(rest, 0).ok_or("a descriptor without its end")?;
        descriptor = Some(&rest[1..end - 1]);
    }
    let mut errno = None;
    if ret.is_none_or(|ret| ret == -1) {
        let word = rest.trim_ascii().split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
        errno = std::str::from_utf8(word).ok().and_then(errno::number);
        if let Some(number) = rest.trim_ascii().strip_prefix(b"(errno ") {
            let digits = number.iter().take_while(|byte| byte.is_ascii_digit()).count();
            errno = decimal(&number[..digits]).and_then(|number| i32::try_from(number).ok());
        }
    }
    Ok(Outcome { ret, errno, descriptor })
}

/// A number as strace prints them: decimal, `0x` hexadecimal, `0` octal.
pub(super) fn number(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let magnitude = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None if digits.len() > 1 && digits.starts_with('0') => u64::from_str_radix(digits, 8).ok()?,
        None if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        None => return None,
    };
    // Addresses above half of the space are negative as results are.
    Some(if negative { (magnitude as i64).wrapping_neg() } else { magnitude as i64 })
}

/// A descriptor argument: its number (none for `AT_FDCWD`) and what `-y` says of it.
pub(super) struct Descriptor<'a> {
    pub(super) number: Option<i32>,
    pub(super) cwd: bool,
    pub(super) says: Option<&'a [u8]>,
}

/// Reads a descriptor argument.
pub(super) fn descriptor(arg: &[u8]) -> Option<Descriptor<'_>> {
    let end = arg.iter().position(|byte| *byte == b'<').unwrap_or(arg.len());
    let says = (end < arg.len()).then(|| descriptor_end(arg, end)).flatten().map(|close| &arg[end + 1..close - 1]);
    let cwd = &arg[..end] == b"AT_FDCWD";
    let number = number(&arg[..end]).and_then(|number| i32::try_from(number).ok());
    (cwd || number.is_some()).then_some(Descriptor { number, cwd, says })
}

/// The bytes of a string argument; none if it is no string (`NULL`, an address).
pub(super) fn string(arg: &[u8]) -> Option<Vec<u8>> {
    let start = arg.iter().position(|byte| *byte == b'"')?;
    // `@"..."` is an abstract socket; anything else before the quote is no plain string.
    if start > 1 || (start == 1 && arg[0] != b'@') {
        return None;
    }
    let end = string_end(arg, start)?;
    Some(unescaped(&arg[start + 1..end - 1]).into_owned())
}

/// Undoes the escapes of strace.
pub(super) fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        at += 1;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let Some(&escape) = text.get(at) else { break };
        at += 1;
        match escape {
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'r' => out.push(b'\r'),
            b'v' => out.push(0x0b),
            b'f' => out.push(0x0c),
            b'x' => {
                let digits = text[at..].iter().take(2).take_while(|byte| byte.is_ascii_hexdigit()).count();
                out.push(text[at..at + digits].iter().fold(0, |sum, byte| sum << 4 | hex(*byte)));
                at += digits;
            }
            b'0'..=b'7' => {
                let digits = 1 + text[at..].iter().take(2).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
                let octal =
                    text[at - 1..at - 1 + digits].iter().fold(0u16, |sum, byte| sum << 3 | u16::from(byte - b'0'));
                out.push(octal as u8);
                at += digits - 1;
            }
            other => out.push(other),
        }
    }
    Cow::Owned(out)
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.to_ascii_lowercase().wrapping_sub(b'a').wrapping_add(10),
    }
}

/// The bytes behind `key` in an argument, up to the next comma or closing bracket.
pub(super) fn field<'a>(arg: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let at = memchr::memmem::find(arg, key.as_bytes())? + key.len();
    let value = &arg[at..];
    let end = match value.first()? {
        b'"' => string_end(value, 0)?,
        b'@' => string_end(value, 1)?,
        _ => value.iter().position(|byte| b",})]".contains(byte)).unwrap_or(value.len()),
    };
    Some(&value[..end])
}

/// The strings behind every `iov_base=` (or whole, for a plain buffer), joined up to `limit` bytes.
pub(super) fn sample(arg: &[u8], limit: usize) -> Option<Vec<u8>> {
    if arg.first() == Some(&b'"') {
        let mut bytes = string(arg)?;
        bytes.truncate(limit);
        return Some(bytes);
    }
    let (mut bytes, mut at) = (Vec::new(), 0);
    while let Some(found) = memchr::memmem::find(&arg[at..], b"iov_base=\"") {
        let start = at + found + b"iov_base=".len();
        let end = string_end(arg, start)?;
        bytes.extend_from_slice(&unescaped(&arg[start + 1..end - 1]));
        at = end;
        if bytes.len() >= limit {
            bytes.truncate(limit);
            break;
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}

/// Whether a flags argument names a flag.
pub(super) fn has(arg: &[u8], flag: &str) -> bool {
    arg.split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_')).any(|word| word == flag.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<String> {
        let call = split(text.as_bytes()).unwrap();
        call.args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
    }

    #[test]
    fn arguments_are_split_at_their_own_commas_only() {
        assert_eq!(
            args(r#"f("a, b)\", c", [1, 2], {x=1, y=g(2, 3)}, 4) = 0"#),
            [r#""a, b)\", c""#, "[1, 2]", "{x=1, y=g(2, 3)}", "4"]
        );
        assert_eq!(args("uname() = 0"), Vec::<String>::new());
        assert_eq!(args("f(3</a, b>, 4<TCP:[1.2.3.4:5->6.7.8.9:10]>, 1<<2) = 0").len(), 3);
        assert_eq!(args(r#"f(3<UNIX-STREAM:[1->2, "/a]>b"]>, 0x1 /* x, y) */) = 0"#).len(), 2);
        assert_eq!(args("f(1</dev/null<char 1:3>>, 2) = 0"), ["1</dev/null<char 1:3>>", "2"]);
        assert_eq!(args("close(3)                = 0"), ["3"]);
    }

    #[test]
    fn results() {
        let result = |text: &'static str| split(text.as_bytes()).unwrap().result;
        assert_eq!(result("f() = 3"), Outcome { ret: Some(3), ..Outcome::default() });
        assert_eq!(result("f() = 0x7f0000000000").ret, Some(0x7f00_0000_0000));
        assert_eq!(
            result("f() = -1 ENOENT (No such file or directory)"),
            Outcome { ret: Some(-1), errno: Some(2), descriptor: None }
        );
        assert_eq!(result("f() = -1 (errno 95)").errno, Some(95));
        assert_eq!(
            result("f() = ? ERESTARTSYS (To be restarted)"),
            Outcome { ret: None, errno: Some(512), descriptor: None }
        );
        assert_eq!(result("f() = ?"), Outcome::default());
        assert_eq!(result("f() = 3</etc/x> <0.000012>").descriptor, Some(b"/etc/x".as_slice()));
        assert_eq!(result("f() = 1 ([{fd=3, revents=POLLIN}])").ret, Some(1));
        assert_eq!(result("f() = 0 (Timeout) <1.0>").ret, Some(0));
        for broken in ["f(", "f(1", "f()", "f() = x", "(1) = 0", "f(\"a) = 0", "f(3</a) = 0", "a b(1) = 0", "f() 0"] {
            assert!(split(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn strings_are_unescaped() {
        assert_eq!(string(br#""a\x2fb\n\0\1\101\"\\""#).unwrap(), b"a/b\n\0\x01A\"\\");
        assert_eq!(string(br#""abc"..."#).unwrap(), b"abc");
        assert_eq!(string(br#"@"abc""#).unwrap(), b"abc");
        assert_eq!(string(b"NULL"), None);
        assert_eq!(string(b"0x55"), None);
    }

    #[test]
    fn samples_join_vectors() {
        assert_eq!(sample(br#"[{iov_base="ab", iov_len=2}, {iov_base="cd"..., iov_len=9}]"#, 3).unwrap(), b"abc");
        assert_eq!(sample(br#""ab""#, 512).unwrap(), b"ab");
        assert_eq!(sample(b"0x7ff", 512), None);
    }

    #[test]
    fn numbers() {
        assert_eq!(number(b"0755"), Some(0o755));
        assert_eq!(number(b"0x1f"), Some(31));
        assert_eq!(number(b"-1"), Some(-1));
        assert_eq!(number(b"0"), Some(0));
        assert_eq!(number(b"12a"), None);
        assert_eq!(number(b""), None);
    }
}
