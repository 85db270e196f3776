//! Reads TensorBoard event files independently of the writer.

/// A field of a message: varint, 64 bits, bytes or 32 bits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Field {
    Varint(u64),
    Fixed64(u64),
    Bytes(Vec<u8>),
    Fixed32(u32),
}

/// Takes `N` bytes off the front.
fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (head, rest) = bytes.split_first_chunk().unwrap();
    *bytes = rest;
    *head
}

fn take_varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let [byte] = take(bytes);
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    unreachable!("a varint ends")
}

/// Any protobuf message into its fields, independently of the writer.
pub(crate) fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Varint(take_varint(&mut bytes)),
            1 => Field::Fixed64(u64::from_le_bytes(take(&mut bytes))),
            2 => {
                let length = take_varint(&mut bytes) as usize;
                let (head, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(head.to_vec())
            }
            5 => Field::Fixed32(u32::from_le_bytes(take(&mut bytes))),
            wire => panic!("wire type {wire}"),
        };
        out.push((key >> 3, field));
    }
    out
}

/// The bytes at a path of field numbers.
pub(crate) fn at(bytes: &[u8], path: &[u64]) -> Field {
    let found = fields(bytes).into_iter().find(|(number, _)| *number == path[0]).unwrap().1;
    match (&found, path.len()) {
        (_, 1) => found,
        (Field::Bytes(inner), _) => at(inner, &path[1..]),
        _ => panic!("{path:?} leads into no message"),
    }
}

/// The records of a file, their checksums verified bit by bit.
pub(crate) fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    fn unmasked(masked: u32) -> u32 {
        masked.wrapping_sub(0xa282_ead8).rotate_left(15)
    }
    /// CRC-32C by its definition: reflected polynomial 0x82f63b78, one bit at a time.
    fn crc_by_definition(bytes: &[u8]) -> u32 {
        let mut crc = !0u32;
        for &byte in bytes {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            }
        }
        !crc
    }
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let length = take::<8>(&mut bytes);
        assert_eq!(unmasked(u32::from_le_bytes(take(&mut bytes))), crc_by_definition(&length));
        let (data, rest) = bytes.split_at(u64::from_le_bytes(length) as usize);
        bytes = rest;
        assert_eq!(unmasked(u32::from_le_bytes(take(&mut bytes))), crc_by_definition(data));
        out.push(data.to_vec());
    }
    out
}

/// Tag, step and value of every scalar of an event.
pub(crate) fn scalars(event: &[u8]) -> Vec<(String, u64, f32)> {
    let Some((_, Field::Bytes(summary))) = fields(event).into_iter().find(|(number, _)| *number == 5) else {
        return Vec::new();
    };
    let Field::Varint(step) = at(event, &[2]) else { panic!("a step is a varint") };
    let scalar = |(_, value): (u64, Field)| {
        let Field::Bytes(value) = value else { panic!("a value of a summary is a message") };
        let (_, Field::Fixed32(bits)) = fields(&value).into_iter().find(|(number, _)| *number == 2)? else {
            panic!("a simple value is a float")
        };
        let Field::Bytes(tag) = at(&value, &[1]) else { panic!("a tag is a string") };
        Some((String::from_utf8(tag).unwrap(), step, f32::from_bits(bits)))
    };
    fields(&summary).into_iter().filter_map(scalar).collect()
}
