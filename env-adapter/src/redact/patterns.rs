//! What values look like.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Sensitive;

/// A value in a text: its kind and the end of its bytes.
pub(super) struct Found {
    pub(super) kind: Sensitive,
    pub(super) end: usize,
}

/// Whether a text can hold a value at all: the shortest IPv4 address has four digits, the shortest IPv6 address two colons.
pub(super) fn worth_a_look(bytes: &[u8]) -> bool {
    let (mut digits, mut colons) = (0, 0);
    for byte in bytes {
        digits += usize::from(byte.is_ascii_digit());
        colons += usize::from(*byte == b':');
        if *byte == b'@' || digits >= 4 || colons >= 2 {
            return true;
        }
    }
    false
}

/// The end of the token that begins at `at`, if one does.
pub(super) fn token_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at + 1..];
    Sensitive::ALL.into_iter().find_map(|kind| {
        let hash = rest.strip_prefix(kind.name().as_bytes())?.strip_prefix(b":")?;
        let whole = hash.len() >= 5 && hash[..4].iter().all(u8::is_ascii_hexdigit) && hash[4] == b'>';
        whole.then(|| at + 1 + kind.name().len() + 6)
    })
}

/// The value that begins at `at`, if one does. No e-mail address begins before `no_email_before`, as earlier calls found
/// out: a word is looked through once, from wherever in it values are looked for.
pub(super) fn find_at(bytes: &[u8], at: usize, no_email_before: &mut usize) -> Option<Found> {
    let byte = bytes[at];
    let before = at.checked_sub(1).map(|index| bytes[index]);
    let found = |kind, end: Option<usize>| end.map(|end| Found { kind, end });
    if is_local(byte) && at >= *no_email_before && !before.is_some_and(is_local) {
        let sign = at + bytes[at..].iter().take_while(|byte| is_local(**byte)).count();
        match email(bytes, sign) {
            Some(end) => return found(Sensitive::Email, Some(end)),
            None => *no_email_before = sign,
        }
    }
    if (byte.is_ascii_hexdigit() || byte == b':')
        && let Some(ip) = found(Sensitive::Ip, ipv6(bytes, at))
    {
        return Some(ip);
    }
    if byte.is_ascii_digit() && !before.is_some_and(|before| before.is_ascii_digit()) {
        return found(Sensitive::Ip, ipv4(bytes, at))
            .or_else(|| found(Sensitive::Card, card(bytes, at)))
            .or_else(|| found(Sensitive::Ssn, pattern(bytes, at, &[3, 2, 4], b"- ")))
            .or_else(|| found(Sensitive::Phone, national_phone(bytes, at)));
    }
    match byte {
        b'(' => found(Sensitive::Phone, national_phone(bytes, at)),
        b'+' => found(Sensitive::Phone, international_phone(bytes, at)),
        _ => None,
    }
}

fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte)
}

/// Last labels that are file or unit suffixes and no top-level domains: `icon@2x.png`, `getty@tty1.service`.
const FILE_SUFFIXES: [&str; 61] = [
    "automount",
    "bak",
    "bz2",
    "cfg",
    "class",
    "conf",
    "crt",
    "css",
    "csv",
    "dat",
    "db",
    "device",
    "dll",
    "doc",
    "docx",
    "egg",
    "eml",
    "exe",
    "gif",
    "gz",
    "htm",
    "html",
    "ini",
    "jar",
    "jpeg",
    "jpg",
    "js",
    "json",
    "key",
    "lock",
    "log",
    "lzma",
    "mount",
    "msg",
    "mbox",
    "pdf",
    "pem",
    "png",
    "pyc",
    "requires",
    "scope",
    "service",
    "slice",
    "socket",
    "sqlite",
    "svg",
    "swap",
    "swp",
    "tar",
    "tgz",
    "timer",
    "tmp",
    "toml",
    "txt",
    "vcf",
    "wants",
    "webp",
    "whl",
    "xml",
    "yaml",
    "yml",
];

/// The end of the address whose local part ends where `sign` should be `@`.
fn email(bytes: &[u8], sign: usize) -> Option<usize> {
    if bytes.get(sign) != Some(&b'@') {
        return None;
    }
    let domain = sign + 1;
    let (mut labels, mut start, mut best) = (0, domain, None);
    loop {
        let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
        if length == 0 {
            return best;
        }
        labels += 1;
        let label = &bytes[start..start + length];
        let letters = label.len() >= 2 && label.iter().all(u8::is_ascii_alphabetic);
        let suffix = FILE_SUFFIXES.iter().any(|suffix| label.eq_ignore_ascii_case(suffix.as_bytes()));
        let punycode = label.len() > 4 && label[..4].eq_ignore_ascii_case(b"xn--");
        if labels >= 2 && (letters || punycode) && !suffix {
            best = Some(start + length);
        }
        if bytes.get(start + length) != Some(&b'.') {
            return best;
        }
        start += length + 1;
    }
}

fn ipv4(bytes: &[u8], at: usize) -> Option<usize> {
    let head = &bytes[..at];
    let part_of_word = head.last().is_some_and(u8::is_ascii_alphabetic);
    let part_of_number = head.last() == Some(&b'.') && head.len() >= 2 && head[head.len() - 2].is_ascii_digit();
    if part_of_word || part_of_number || head.ends_with(b".so.") {
        return None;
    }
    let mut octets = [0u8; 4];
    let mut end = at;
    for (index, octet) in octets.iter_mut().enumerate() {
        if index > 0 {
            if bytes.get(end) != Some(&b'.') {
                return None;
            }
            end += 1;
        }
        let digits = bytes[end..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=3).contains(&digits) {
            return None;
        }
        let value = bytes[end..end + digits].iter().fold(0u32, |sum, byte| sum * 10 + u32::from(byte - b'0'));
        *octet = u8::try_from(value).ok()?;
        end += digits;
    }
    let tail = &bytes[end..];
    let goes_on = tail.first().is_some_and(u8::is_ascii_alphanumeric)
        || (tail.first() == Some(&b'.') && tail.get(1).is_some_and(u8::is_ascii_digit));
    let package = tail.starts_with(b".dist-info") || tail.starts_with(b".egg-info");
    let address = Ipv4Addr::from(octets);
    // No host has an address that begins with 0: such a number is a version.
    (!goes_on && !package && !address.is_loopback() && octets[0] != 0).then_some(end)
}

/// Groups of a run of hexadecimal digits and colons that are tried as an address.
const MAX_GROUPS: usize = 24;

fn ipv6(bytes: &[u8], at: usize) -> Option<usize> {
    let in_run = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
    let before = at.checked_sub(1).map(|index| bytes[index]);
    // A candidate begins a run or a group of it; a run that is glued to a word by `::` is a name of a programming
    // language.
    match before {
        Some(b':') if bytes[at] == b':' || glued(bytes, at - 1) => return None,
        Some(b':') => {}
        Some(byte) if byte.is_ascii_alphanumeric() || byte == b'.' => return None,
        _ => {}
    }
    let length = bytes[at..].iter().take(MAX_GROUPS * 5).take_while(|byte| in_run(**byte)).count();
    let run = &bytes[at..at + length];
    if run.iter().filter(|byte| **byte == b':').count() < 2 {
        return None;
    }
    let mut end = at + length;
    loop {
        let candidate = &bytes[at..end];
        let free = !bytes.get(end).is_some_and(u8::is_ascii_alphanumeric);
        let address = std::str::from_utf8(candidate).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
        if free && let Some(address) = address {
            let groups = candidate.split(|byte| *byte == b':').filter(|group| !group.is_empty()).count();
            let telling = groups >= 4 || candidate.iter().any(u8::is_ascii_digit);
            let local = address.to_ipv4_mapped().map_or(address.is_loopback(), |mapped| mapped.is_loopback());
            return (telling && !local && !address.is_unspecified()).then_some(end);
        }
        // A trailing point or a further group (a port) may follow the address.
        let shorter = candidate.iter().rposition(|byte| *byte == b':' || *byte == b'.')?;
        if shorter == 0 {
            return None;
        }
        end = at + shorter;
    }
}

/// Whether the run of colons that ends at `colon` is `::` with a word right before it.
fn glued(bytes: &[u8], colon: usize) -> bool {
    let colons = bytes[..=colon].iter().rev().take_while(|byte| **byte == b':').count();
    colons >= 2
}

/// Up to 19 digits in groups: the end and the running count of digits of each.
fn digit_groups(bytes: &[u8], at: usize, separators: &[u8]) -> Vec<(usize, usize)> {
    let (mut groups, mut digits, mut end, mut separator) = (Vec::new(), 0, at, None);
    loop {
        let length = bytes[end..].iter().take(20).take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 || digits + length > 19 {
            return groups;
        }
        digits += length;
        end += length;
        groups.push((end, digits));
        match bytes.get(end) {
            Some(byte) if separators.contains(byte) && separator.is_none_or(|first| first == *byte) => {
                separator = Some(*byte);
                end += 1;
            }
            _ => return groups,
        }
    }
}

fn card(bytes: &[u8], at: usize) -> Option<usize> {
    if !(b'2'..=b'6').contains(&bytes[at]) {
        return None;
    }
    let groups = digit_groups(bytes, at, b" -");
    // All groups but the last have at least four digits, or any list of numbers could pass.
    let mut start = 0;
    let short = groups.iter().position(|(_, digits)| {
        let length = digits - start;
        start = *digits;
        length < 4
    });
    let usable = short.map_or(groups.len(), |short| short + 1);
    groups[..usable].iter().rev().find_map(|&(end, digits)| {
        let free = !bytes.get(end).is_some_and(u8::is_ascii_digit);
        let fits = (13..=19).contains(&digits) && free && luhn(&bytes[at..end]) && !within_hash(bytes, at, end);
        fits.then_some(end)
    })
}

/// Whether the digits pass the check of payment cards.
pub(super) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .filter(|byte| byte.is_ascii_digit())
        .enumerate()
        .map(|(index, byte)| {
            let digit = u32::from(byte - b'0');
            match index % 2 {
                0 => digit,
                _ => digit * 2 / 10 + digit * 2 % 10,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Letters and digits that are looked at on each side of a number: with as many it is part of no hash, and every number
/// of a long text costs the same.
const LONGEST_HASH: usize = 256;

/// Whether the digits lie within at least 24 hexadecimal digits, letters among them, and no more than a hash has.
fn within_hash(bytes: &[u8], start: usize, end: usize) -> bool {
    let is_part = |byte: &&u8| byte.is_ascii_alphanumeric();
    let head = bytes[..start].iter().rev().take(LONGEST_HASH).take_while(is_part).count();
    let tail = bytes[end..].iter().take(LONGEST_HASH).take_while(is_part).count();
    if head.max(tail) == LONGEST_HASH {
        return false;
    }
    let token = &bytes[start - head..end + tail];
    token.len() >= 24 && token.iter().all(u8::is_ascii_hexdigit) && token.iter().any(u8::is_ascii_alphabetic)
}

/// The end of groups of these lengths, with one and the same separator, when no further digit follows.
fn pattern(bytes: &[u8], at: usize, lengths: &[usize], separators: &[u8]) -> Option<usize> {
    let groups = digit_groups(bytes, at, separators);
    if groups.len() < lengths.len() {
        return None;
    }
    let mut start = 0;
    for ((_, digits), length) in groups.iter().zip(lengths) {
        if digits - start != *length {
            return None;
        }
        start = *digits;
    }
    let (end, _) = groups[lengths.len() - 1];
    (!bytes.get(end).is_some_and(u8::is_ascii_digit)).then_some(end)
}

fn national_phone(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes[at] == b'(' {
        let area = bytes.get(at + 1..at + 5)?;
        if !area[..3].iter().all(u8::is_ascii_digit) || area[3] != b')' {
            return None;
        }
        let rest = at + 5 + usize::from(matches!(bytes.get(at + 5), Some(b' ' | b'-' | b'.')));
        return pattern(bytes, rest, &[3, 4], b"-. ");
    }
    for lengths in [&[3, 3, 4][..], &[1, 3, 3, 4]] {
        if let Some(end) = pattern(bytes, at, lengths, b"-. ")
            && (lengths.len() == 3 || bytes[at] == b'1')
        {
            // Three groups out of a longer dotted number are a version.
            let dotted = bytes[at..end].contains(&b'.');
            let before = at >= 2 && bytes[at - 1] == b'.' && bytes[at - 2].is_ascii_digit();
            let after = bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
            if !(dotted && (before || after)) {
                return Some(end);
            }
        }
    }
    None
}

fn international_phone(bytes: &[u8], at: usize) -> Option<usize> {
    // `1.0+20230101` is the version of a package.
    if at > 0 && bytes[at - 1].is_ascii_alphanumeric() {
        return None;
    }
    if !matches!(bytes.get(at + 1), Some(b'1'..=b'9')) {
        return None;
    }
    let (mut end, mut digits, mut best) = (at + 1, 0, None);
    loop {
        let length = bytes[end..].iter().take(20).take_while(|byte| byte.is_ascii_digit()).count();
        digits += length;
        end += length;
        if length == 0 || digits > 15 {
            return best;
        }
        if digits >= 7 {
            best = Some(end);
        }
        let separators = bytes[end..].iter().take(2).take_while(|byte| b" -.()".contains(byte)).count();
        if separators == 0 {
            return best;
        }
        end += separators;
    }
}
