//! Answers to questions for names (RFC 1035): every name has an address of version 4 and nothing else.

use std::net::Ipv4Addr;

/// Longest question that is looked at.
const MOST_BYTES: usize = 512;

const HEADER_BYTES: usize = 12;
const ADDRESS: u16 = 1;
const INTERNET: u16 = 1;
const SECONDS_TO_KEEP: u32 = 60;

/// The first question of a message.
struct Question {
    name: String,
    kind: u16,
    class: u16,
    /// Where it ends in the message.
    end: usize,
}

/// The answer to a message, if it is a question; `address` is asked for the address of the name.
pub(super) fn answer(message: &[u8], address: impl FnOnce(&str) -> Ipv4Addr) -> Option<Vec<u8>> {
    let question = read(message)?;
    let found = question.kind == ADDRESS && question.class == INTERNET;
    // Recursion was had; what the question desired is said again.
    let recursion = message[2] & 1;
    let mut out = vec![message[0], message[1], 0x80 | recursion, 0x80, 0, 1, 0, u8::from(found), 0, 0, 0, 0];
    out.extend_from_slice(&message[HEADER_BYTES..question.end]);
    let address = address(&question.name);
    if found {
        // The name is a pointer to the question's.
        out.extend_from_slice(&[0xc0, HEADER_BYTES as u8]);
        out.extend_from_slice(&ADDRESS.to_be_bytes());
        out.extend_from_slice(&INTERNET.to_be_bytes());
        out.extend_from_slice(&SECONDS_TO_KEEP.to_be_bytes());
        out.extend_from_slice(&4_u16.to_be_bytes());
        out.extend_from_slice(&address.octets());
    }
    Some(out)
}

fn read(message: &[u8]) -> Option<Question> {
    let is_question = message.len() <= MOST_BYTES && *message.get(2)? & 0xf8 == 0;
    if !is_question || message.get(4..6)? == [0, 0] {
        return None;
    }
    let (mut at, mut labels) = (HEADER_BYTES, Vec::new());
    loop {
        match usize::from(*message.get(at)?) {
            0 => break,
            // Longer ones are pointers, which a question has no use for.
            length @ 1..=63 => {
                labels.push(String::from_utf8_lossy(message.get(at + 1..at + 1 + length)?).to_lowercase());
                at += 1 + length;
            }
            _ => return None,
        }
    }
    let number = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    Some(Question { name: labels.join("."), kind: number(at + 1)?, class: number(at + 3)?, end: at + 5 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLACE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

    fn question(kind: u16) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(b"\x03wWw\x07example\0");
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        bytes
    }

    #[test]
    fn a_name_has_an_address_and_nothing_else() {
        let mut asked = String::new();
        let found = answer(&question(1), |name| {
            asked = name.to_owned();
            PLACE
        })
        .unwrap();
        assert_eq!(asked, "www.example");
        assert_eq!(found[..12], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(found[found.len() - 16..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 18, 0, 1]);
        let none = answer(&question(28), |_| PLACE).unwrap();
        assert_eq!((none[7], none.len()), (0, question(28).len()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn no_message_does_harm(bytes in prop::collection::vec(any::<u8>(), 0..600), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            answer(&bytes, |_| PLACE);
            let mut near = question(1);
            let at = at.index(near.len());
            near[at] = to;
            if let Some(found) = answer(&near, |_| PLACE) {
                prop_assert!(found.len() <= near.len() + 16 && found[2] & 0x80 != 0);
            }
            answer(&near[..at], |_| PLACE);
        }
    }
}
