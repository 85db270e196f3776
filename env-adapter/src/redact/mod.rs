//! Redaction at the source: e-mail addresses, telephone, card and social security numbers and IP addresses in paths and
//! arguments become tokens such as `<email:3f2a>` before anything is stored.
//!
//! Equal values get equal tokens, so that counting distinct peers still works. A token carries 16 bits of a hash: too
//! few to find a value by trying all, at the price that two of many values may share a token; a key makes trying
//! impossible. Loopback and unspecified addresses stay.
//!
//! What counts as a value: `local@domain.tld` where the last label is letters and no file extension; four decimal octets
//! that are no part of a longer dotted number or of a library's version; IPv6 with a digit or four groups; 13 to 19
//! digits from 2 to 6 on, bare or grouped by blanks or hyphens, that pass the Luhn check; `ddd-dd-dddd`; `ddd-ddd-dddd`
//! (hyphens, points, blanks, with or without parentheses and a leading 1) and `+` with 7 to 15 digits. A bare run of
//! digits is no telephone number: in paths it is a time or an inode.

mod patterns;

use std::net::Ipv6Addr;

use sha2::{Digest, Sha256};

use patterns::{find_at, token_end, worth_a_look};

/// Replaces personal values by tokens.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    key: Option<[u8; 32]>,
}

/// A kind of value that is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sensitive {
    /// An e-mail address.
    Email,
    /// A telephone number.
    Phone,
    /// A payment card number.
    Card,
    /// A social security number.
    Ssn,
    /// An IPv4 or IPv6 address other than loopback and unspecified.
    Ip,
}

impl Sensitive {
    /// All kinds.
    pub const ALL: [Sensitive; 5] =
        [Sensitive::Email, Sensitive::Phone, Sensitive::Card, Sensitive::Ssn, Sensitive::Ip];

    /// The name in tokens and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Sensitive::Email => "email",
            Sensitive::Phone => "phone",
            Sensitive::Card => "card",
            Sensitive::Ssn => "ssn",
            Sensitive::Ip => "ip",
        }
    }
}

impl Redactor {
    /// A redactor whose tokens cannot be recomputed without the key.
    pub fn with_key(key: [u8; 32]) -> Self {
        Redactor { key: Some(key) }
    }

    /// The text with tokens. `into` is used where something is replaced, otherwise the text comes back as it is.
    /// Redacting a second time changes nothing.
    pub fn redact<'a>(&self, text: &'a str, into: &'a mut String) -> &'a str {
        self.redact_with(text, into, |_| {})
    }

    /// As [`Redactor::redact`], with a call for each value replaced.
    pub fn redact_with<'a>(&self, text: &'a str, into: &'a mut String, mut count: impl FnMut(Sensitive)) -> &'a str {
        if !worth_a_look(text.as_bytes()) {
            return text;
        }
        into.clear();
        if !self.pass(text, into, &mut count) {
            return text;
        }
        // A value may come to stand free only when what follows it is a token. Each pass shortens what is no token.
        let mut again = String::new();
        while self.pass(into, &mut again, &mut count) {
            std::mem::swap(into, &mut again);
            again.clear();
        }
        into
    }

    /// Writes `text` with tokens to `out`; false, with `out` as it was, if there is nothing to replace.
    fn pass(&self, text: &str, out: &mut String, count: &mut impl FnMut(Sensitive)) -> bool {
        let bytes = text.as_bytes();
        let (mut copied, mut at, mut no_email_before) = (0, 0, 0_usize);
        while at < bytes.len() {
            if bytes[at] == b'<'
                && let Some(end) = token_end(bytes, at)
            {
                at = end;
                continue;
            }
            // What was replaced frees what follows it, as its token will: a row of values takes one pass and not one
            // pass for each of them.
            let mut relative = no_email_before.saturating_sub(copied);
            let found = find_at(&bytes[copied..], at - copied, &mut relative);
            no_email_before = copied + relative;
            let Some(found) = found else {
                at += 1;
                continue;
            };
            let end = copied + found.end;
            count(found.kind);
            out.push_str(&text[copied..at]);
            self.push_token(found.kind, &text[at..end], out);
            (copied, at) = (end, end);
        }
        if copied == 0 {
            return false;
        }
        out.push_str(&text[copied..]);
        true
    }

    fn push_token(&self, kind: Sensitive, value: &str, out: &mut String) {
        let mut hash = Sha256::new();
        if let Some(key) = &self.key {
            hash.update(key);
        }
        hash.update(kind.name());
        hash.update([0]);
        match kind {
            Sensitive::Email => hash.update(value.to_ascii_lowercase()),
            Sensitive::Ip => match value.parse::<Ipv6Addr>() {
                Ok(address) => hash.update(address.octets()),
                Err(_) => hash.update(value),
            },
            Sensitive::Phone | Sensitive::Card | Sensitive::Ssn => {
                let digits: String = value.chars().filter(char::is_ascii_digit).collect();
                hash.update(digits);
            }
        }
        let hash = hash.finalize();
        out.push('<');
        out.push_str(kind.name());
        out.push(':');
        for byte in &hash[..2] {
            for digit in [byte >> 4, byte & 15] {
                out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
        out.push('>');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::patterns::luhn;
    use super::*;

    fn redacted(text: &str) -> String {
        Redactor::default().redact(text, &mut String::new()).to_owned()
    }

    #[test]
    fn values_become_tokens_of_their_kind() {
        for (text, kind) in [
            ("/home/user/mail/john.doe+x@example.co.uk.eml", "email"),
            ("--to=ann@example.com", "email"),
            ("git@github.com:a/b.git", "email"),
            ("/var/log/192.168.1.10.log", "ip"),
            ("ping 8.8.8.8", "ip"),
            ("ssh://10.0.0.1:22/", "ip"),
            ("backup-192.168.1.10.tar.gz", "ip"),
            ("2001:db8::8a2e:370:7334", "ip"),
            ("[2001:db8::1]:443", "ip"),
            ("host:2001:db8::1", "ip"),
            ("addr 2001:0db8:85a3:0000:0000:8a2e:0370:7334.", "ip"),
            ("::ffff:8.8.8.8", "ip"),
            ("4111 1111 1111 1111", "card"),
            ("card4111111111111111.txt", "card"),
            ("3782-822463-10005", "card"),
            ("/data/5500000000000004", "card"),
            ("ssn 123-45-6789", "ssn"),
            ("/id/123-45-6789.pdf", "ssn"),
            ("call 555-123-4567", "phone"),
            ("(555) 123-4567", "phone"),
            ("1-800-555-0199", "phone"),
            ("tel:+49 170 1234567", "phone"),
            ("+15551234567", "phone"),
            ("+44 (20) 7946-0958", "phone"),
            ("555.123.4567", "phone"),
        ] {
            let out = redacted(text);
            assert!(out.contains(&format!("<{kind}:")), "{text} became {out}");
            assert_eq!(out.matches('<').count(), 1, "{text} became {out}");
        }
    }

    #[test]
    fn ordinary_paths_stay() {
        for text in [
            "/lib/x86_64-linux-gnu/libstdc++.so.6.0.33",
            "/usr/lib/libfoo.so.1.2.3.4",
            "/usr/lib/python3.11/site-packages/numpy-1.26.4.dist-info/METADATA",
            "/usr/lib/python3/dist-packages/opencv_python-4.8.0.76.dist-info",
            "/usr/share/doc/libc6_2.36-9+deb12u7_amd64",
            "/var/cache/apt/archives/ncurses_6.4+20221231-4_amd64.deb",
            "/usr/lib/gcc/x86_64-linux-gnu/12/include/c++/12.2.0",
            "/boot/vmlinuz-6.1.0-18-amd64",
            "/proc/1234/task/5678/status",
            "/sys/devices/pci0000:00/0000:00:1f.2/ata1",
            "/sys/class/net/eth0/address 02:42:ac:11:00:02",
            "/tmp/tmp.1700000000/file_20231105_123045.log",
            "/home/user/.cache/8f14e45fceea167a5a36dedd4bea2543",
            "socket:[4026531840]",
            "pipe:[19202]",
            "/run/systemd/units/getty@tty1.service",
            "/run/user@1000.service/app.slice",
            "/icons/icon@2x.png",
            "/node_modules/@babel/core/lib/index.js",
            "/node_modules/.pnpm/react@18.2.0/node_modules",
            "550e8400-e29b-41d4-a716-446655440000",
            "00112233-4455-6677-8899-aabbccddeeff",
            "127.0.0.1:8080 127.8.9.10 0.0.0.0 ::1 :: ::ffff:127.0.0.1",
            "std::vector::begin File::Find Foo::B4::C1.pm",
            "2023-11-05T12:30:45.123456789",
            "1700000000123456789",
            "1.3.6.1.4.1.311",
            "chrome/120.0.6099.109/resources",
            "date +%s%N",
            "/usr/share/zoneinfo/Etc/GMT+5",
            "0.0.0.1-alpha",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "",
        ] {
            assert_eq!(redacted(text), text);
        }
    }

    #[test]
    fn tokens_are_stable_and_keyed() {
        assert_eq!(redacted("a 8.8.8.8"), redacted("a 8.8.8.8"));
        let tokens = redacted("Ann@Example.com ann@example.com 8.8.8.8");
        let tokens: Vec<_> = tokens.split(' ').collect();
        assert_eq!(tokens[0], tokens[1]);
        let keyed = Redactor::with_key([7; 32]);
        assert_ne!(keyed.redact("8.8.8.8", &mut String::new()), tokens[2]);
    }

    #[test]
    fn a_row_of_values_takes_one_pass() {
        for value in ["+4912345678", "(555) 123-4567"] {
            let (text, mut out, mut found) = (value.repeat(100), String::new(), 0);
            assert!(Redactor::default().pass(&text, &mut out, &mut |_| found += 1));
            assert_eq!((found, out.matches("<phone:").count()), (100, 100), "{out}");
            assert!(!Redactor::default().pass(&out, &mut String::new(), &mut |_| ()), "{out}");
        }
    }

    #[test]
    fn a_number_within_a_hash_stays_and_within_a_longer_text_goes() {
        let card = "4111111111111111";
        let hash = format!("{}{card}{}", "ab".repeat(12), "cd".repeat(12));
        assert_eq!(redacted(&hash), hash);
        let dump = format!("{}{card}{}", "ab".repeat(500), "cd".repeat(500));
        assert!(redacted(&dump).contains("<card:"));
    }

    fn planted() -> impl Strategy<Value = String> {
        let email = "[a-z][a-z0-9._+-]{0,10}[a-z0-9]@[a-z0-9]{1,8}(\\.[a-z0-9]{1,6}){0,1}\\.(com|org|net|de|io|info)";
        let luhn_completed = "[2-6][0-9]{11,17}".prop_map(|head| {
            let digit = (b'0'..=b'9').map(char::from).find(|digit| luhn(format!("{head}{digit}").as_bytes()));
            format!("{head}{}", digit.unwrap())
        });
        prop_oneof![
            email.prop_map(String::from),
            "[0-9]{3}-[0-9]{2}-[0-9]{4}".prop_map(String::from),
            "[0-9]{3}([-. ])[0-9]{3}-[0-9]{4}".prop_filter("one separator", |text| !text.contains(['.', ' '])),
            "\\([0-9]{3}\\) [0-9]{3}-[0-9]{4}".prop_map(String::from),
            "\\+[1-9][0-9]{6,14}".prop_map(String::from),
            "\\+[1-9][0-9]{0,2}[ -][0-9]{3}[ -][0-9]{6}".prop_map(String::from),
            luhn_completed,
            (1u8..=255, any::<[u8; 3]>())
                .prop_filter("loopback stays", |(first, _)| *first != 127)
                .prop_map(|(first, [b, c, d])| format!("{first}.{b}.{c}.{d}")),
            any::<[u16; 8]>().prop_map(|groups| Ipv6Addr::from(groups).to_string()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn planted_values_never_survive(
            head in "([/=:,;\"' ]|[a-z]{1,8}[/= ]){0,4}",
            value in planted(),
            gap in "[/,;\"' ]",
            second in planted(),
            tail in "([/,;\"' ]|/[a-z]{1,8}){0,3}",
        ) {
            // Free on both sides, as a value in a path or an argument is.
            let text = format!("{head}/{value}{gap}{second}{tail}");
            let out = redacted(&text);
            prop_assert!(!out.contains(&value), "{} in {} became {}", value, text, out);
            prop_assert!(!out.contains(&second), "{} in {} became {}", second, text, out);
        }

        #[test]
        fn redaction_is_idempotent(text in "([0-9]{1,4}|[-. :@+()/<>]|[a-f]|com|ip|<ip:12ab>|::|so){0,40}") {
            let once = redacted(&text);
            prop_assert_eq!(redacted(&once), once.clone());
        }

        #[test]
        fn any_text_passes(text in any::<String>()) {
            let once = redacted(&text);
            prop_assert_eq!(redacted(&once), once.clone());
        }
    }
}
