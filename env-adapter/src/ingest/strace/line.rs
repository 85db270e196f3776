//! One line of a log: who, when, and what it says.

/// A line without its head.
#[derive(Debug, PartialEq)]
pub(super) struct Line<'a> {
    /// The thread, where lines name it.
    pub(super) tid: Option<u32>,
    /// Nanoseconds, of the epoch or of the day.
    pub(super) time: Option<Stamp>,
    pub(super) says: Says<'a>,
}

/// A time stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) ns: u64,
    /// Of the day only: it starts again at midnight.
    pub(super) of_day: bool,
}

/// What a line says.
#[derive(Debug, PartialEq)]
pub(super) enum Says<'a> {
    /// A whole call: its text from the name on.
    Call(&'a [u8]),
    /// A call that has not returned yet: its text so far.
    Unfinished(&'a [u8]),
    /// The rest of a call that had not returned: its name and the rest of its text.
    Resumed(&'a [u8], &'a [u8]),
    /// A signal arrived.
    Signal,
    /// The thread is gone.
    Ended,
    /// The thread goes on as its group's leader, in which another thread ran a program.
    Superseded(u32),
    /// A word of strace itself.
    Remark,
}

/// Process ids end below this number, seconds of the epoch are beyond it.
const MAX_PID: u64 = 4_194_304;

/// Splits a line.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn parse(bytes: &[u8]) -> Result<Line<'_>, &'static str> {
    let mut rest = bytes.trim_ascii();
    let mut tid = None;
    if rest.starts_with(b"strace: ") {
        return Ok(Line { tid, time: None, says: Says::Remark });
    }
    if let Some(inner) = rest.strip_prefix(b"[pid ") {
        let end = inner.iter().position(|byte| *byte == b']').ok_or("`[pid` without `]`")?;
        tid = Some(pid(inner[..end].trim_ascii()).ok_or("`[pid ...]` holds no number")?);
        rest = inner[end + 1..].trim_ascii_start();
    } else if let Some((word, after)) = word(rest)
        && let Some(number) = pid(word)
    {
        tid = Some(number);
        rest = after;
    }
    let mut time = None;
    if let Some((first, after)) = word(rest)
        && let Some(stamp) = stamp(first)
    {
        time = Some(stamp);
        rest = after;
    }
    Ok(Line { tid, time, says: says(rest)? })
}

/// The first word and what follows it.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(u8::is_ascii_whitespace)?;
    Some((&text[..end], text[end..].trim_ascii_start()))
}

/// A process id, with or without the name of its program behind it.
fn pid(word: &[u8]) -> Option<u32> {
    let digits = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let named = word[digits..].starts_with(b"<") && word.ends_with(b">");
    if digits == 0 || digits > 7 || !(named || digits == word.len()) {
        return None;
    }
    let number = decimal(&word[..digits])?;
    u32::try_from(number).ok().filter(|number| u64::from(*number) < MAX_PID)
}

fn stamp(word: &[u8]) -> Option<Stamp> {
    let (whole, fraction) = match word.iter().position(|byte| *byte == b'.') {
        Some(point) => (&word[..point], &word[point + 1..]),
        None => (word, &word[..0]),
    };
    if fraction.len() > 9 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = decimal(fraction).unwrap_or(0) * 10u64.pow(9 - fraction.len() as u32);
    let (seconds, of_day) = match whole {
        [h1, h2, b':', m1, m2, b':', s1, s2] => {
            let two = |a: &u8, b: &u8| decimal(&[*a, *b]);
            (two(h1, h2)? * 3600 + two(m1, m2)? * 60 + two(s1, s2)?, true)
        }
        _ => (decimal(whole)?, false),
    };
    let ns = seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)?;
    Some(Stamp { ns, of_day })
}

/// A number of decimal digits and nothing else.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, byte| match byte {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

fn says(text: &[u8]) -> Result<Says<'_>, &'static str> {
    if let Some(mark) = text.strip_prefix(b"+++ ") {
        if mark.starts_with(b"exited with ") || mark.starts_with(b"killed by ") {
            return Ok(Says::Ended);
        }
        if let Some(by) = mark.strip_prefix(b"superseded by execve in pid ") {
            let digits = by.iter().take_while(|byte| byte.is_ascii_digit()).count();
            return pid(&by[..digits]).map(Says::Superseded).ok_or("`superseded by execve` names no process");
        }
        return Err("an unknown `+++` mark");
    }
    if text.starts_with(b"--- ") {
        return match text.ends_with(b" ---") {
            true => Ok(Says::Signal),
            false => Err("a `---` mark without its end"),
        };
    }
    if let Some(resumed) = text.strip_prefix(b"<... ") {
        let end = resumed.iter().position(u8::is_ascii_whitespace).ok_or("`<...` without the name of a call")?;
        let rest = resumed[end..].trim_ascii_start().strip_prefix(b"resumed>").ok_or("`<...` without `resumed>`")?;
        return Ok(Says::Resumed(&resumed[..end], rest));
    }
    if let Some(text) = text.strip_suffix(b"<unfinished ...>") {
        return Ok(Says::Unfinished(text.strip_suffix(b" ").unwrap_or(text)));
    }
    if text.is_empty() {
        return Err("nothing behind process and time");
    }
    Ok(Says::Call(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(text: &str) -> Says<'_> {
        parse(text.as_bytes()).unwrap().says
    }

    #[test]
    fn heads_of_all_styles() {
        let stamp = |ns, of_day| Some(Stamp { ns, of_day });
        for (text, tid, time) in [
            ("1234 1700000000.123456789 close(3) = 0", Some(1234), stamp(1_700_000_000_123_456_789, false)),
            ("1234  1700000000.123456 close(3) = 0", Some(1234), stamp(1_700_000_000_123_456_000, false)),
            ("[pid  1234] 1700000000.5 close(3) = 0", Some(1234), stamp(1_700_000_000_500_000_000, false)),
            ("[pid 1234] close(3) = 0", Some(1234), None),
            ("1234<sh> close(3) = 0", Some(1234), None),
            ("1234 10:00:01.5 close(3) = 0", Some(1234), stamp(36_001_500_000_000, true)),
            ("10:00:01 close(3) = 0", None, stamp(36_001_000_000_000, true)),
            ("1700000000.5 close(3) = 0", None, stamp(1_700_000_000_500_000_000, false)),
            ("1700000000 close(3) = 0", None, stamp(1_700_000_000_000_000_000, false)),
            ("12 1700000000 close(3) = 0", Some(12), stamp(1_700_000_000_000_000_000, false)),
            ("close(3) = 0", None, None),
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(Line { tid, time, says: Says::Call(b"close(3) = 0") }), "{text}");
        }
    }

    #[test]
    fn marks() {
        assert_eq!(says("1 +++ exited with 0 +++"), Says::Ended);
        assert_eq!(says("1 +++ killed by SIGKILL (core dumped) +++"), Says::Ended);
        assert_eq!(says("1 +++ superseded by execve in pid 77 +++"), Says::Superseded(77));
        assert_eq!(says("1 --- SIGCHLD {si_signo=SIGCHLD} ---"), Says::Signal);
        assert_eq!(says("strace: Process 12 attached"), Says::Remark);
        assert_eq!(says("1 read(3,  <unfinished ...>"), Says::Unfinished(b"read(3, "));
        assert_eq!(says("1 <... read resumed>\"\", 1) = 0"), Says::Resumed(b"read", b"\"\", 1) = 0"));
        assert_eq!(says("1 <... read resumed> \"\", 1) = 0"), Says::Resumed(b"read", b" \"\", 1) = 0"));
        for broken in ["1 +++ what +++", "1 --- SIG", "1 <... read", "[pid x] close(3) = 0", "[pid 1"] {
            assert!(parse(broken.as_bytes()).is_err(), "{broken}");
        }
    }
}
