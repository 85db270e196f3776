//! TensorBoard event files, written by hand: two messages in a record framing need no TensorFlow.
//!
//! The framing is `TFRecord`: length (u64, little-endian), masked CRC-32C of those 8 bytes, the data, masked CRC-32C of the
//! data; the mask is `((crc >> 15) | (crc << 17)) + 0xa282ead8` (TensorFlow, `core/lib/hash/crc32c.h`). The data is an
//! `Event` message (`core/util/event.proto`, `core/framework/{summary,tensor,tensor_shape}.proto`); the field numbers
//! stand at the constants below.

use std::io::Write;

/// `Event`: `wall_time` (double), step (int64), `file_version` (string), summary (message).
const EVENT_WALL_TIME: u32 = 1;
const EVENT_STEP: u32 = 2;
const EVENT_FILE_VERSION: u32 = 3;
const EVENT_SUMMARY: u32 = 5;
/// `Summary`: value (repeated message).
const SUMMARY_VALUE: u32 = 1;
/// `Summary.Value`: tag (string), `simple_value` (float), tensor (message), metadata (message).
const VALUE_TAG: u32 = 1;
const VALUE_SIMPLE: u32 = 2;
const VALUE_TENSOR: u32 = 8;
const VALUE_METADATA: u32 = 9;
/// `SummaryMetadata`: `plugin_data` (message); `PluginData`: `plugin_name` (string).
const METADATA_PLUGIN_DATA: u32 = 1;
const PLUGIN_NAME: u32 = 1;
/// `TensorProto`: dtype (enum), `tensor_shape` (message), `string_val` (repeated bytes).
const TENSOR_DTYPE: u32 = 1;
const TENSOR_SHAPE: u32 = 2;
const TENSOR_STRINGS: u32 = 8;
/// `TensorShapeProto`: dim (repeated message); `Dim`: size (int64).
const SHAPE_DIM: u32 = 2;
const DIM_SIZE: u32 = 1;
/// `DataType.DT_STRING`.
const DT_STRING: u64 = 7;

/// Writes scalars and texts. Times are handed in, in seconds since 1970.
#[derive(Debug)]
pub struct EventWriter<W> {
    writer: W,
}

/// The name of an event file: TensorBoard looks for `tfevents` in it and sorts by what follows.
pub fn event_file_name(start_unix_seconds: u64) -> String {
    format!("events.out.tfevents.{start_unix_seconds:010}.bellwether")
}

impl<W: Write> EventWriter<W> {
    /// Begins a file with its version record.
    ///
    /// # Errors
    /// What the stream gives.
    pub fn new(writer: W, wall_time: f64) -> std::io::Result<Self> {
        let mut writer = EventWriter { writer };
        let mut event = Vec::new();
        put_f64(&mut event, EVENT_WALL_TIME, wall_time);
        put_bytes(&mut event, EVENT_FILE_VERSION, b"brain.Event:2");
        writer.record(&event)?;
        Ok(writer)
    }

    /// Writes one value of a curve.
    ///
    /// # Errors
    /// What the stream gives.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f32, wall_time: f64) -> std::io::Result<()> {
        let mut summary_value = Vec::new();
        put_bytes(&mut summary_value, VALUE_TAG, tag.as_bytes());
        put_f32(&mut summary_value, VALUE_SIMPLE, value);
        self.summary(step, &summary_value, wall_time)
    }

    /// Writes a text (Markdown), such as the configuration of a run.
    ///
    /// # Errors
    /// What the stream gives.
    pub fn text(&mut self, tag: &str, step: u64, text: &str, wall_time: f64) -> std::io::Result<()> {
        let mut dim = Vec::new();
        put_varint(&mut dim, DIM_SIZE, 1);
        let mut shape = Vec::new();
        put_bytes(&mut shape, SHAPE_DIM, &dim);
        let mut tensor = Vec::new();
        put_varint(&mut tensor, TENSOR_DTYPE, DT_STRING);
        put_bytes(&mut tensor, TENSOR_SHAPE, &shape);
        put_bytes(&mut tensor, TENSOR_STRINGS, text.as_bytes());

        let mut plugin = Vec::new();
        put_bytes(&mut plugin, PLUGIN_NAME, b"text");
        let mut metadata = Vec::new();
        put_bytes(&mut metadata, METADATA_PLUGIN_DATA, &plugin);

        let mut summary_value = Vec::new();
        put_bytes(&mut summary_value, VALUE_TAG, tag.as_bytes());
        put_bytes(&mut summary_value, VALUE_TENSOR, &tensor);
        put_bytes(&mut summary_value, VALUE_METADATA, &metadata);
        self.summary(step, &summary_value, wall_time)
    }

    /// Hands on what is buffered.
    ///
    /// # Errors
    /// What the stream gives.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.writer.flush()
    }

    /// Gives the stream back.
    pub fn into_inner(self) -> W {
        self.writer
    }

    fn summary(&mut self, step: u64, value: &[u8], wall_time: f64) -> std::io::Result<()> {
        let mut summary = Vec::new();
        put_bytes(&mut summary, SUMMARY_VALUE, value);
        let mut event = Vec::new();
        put_f64(&mut event, EVENT_WALL_TIME, wall_time);
        put_varint(&mut event, EVENT_STEP, step);
        put_bytes(&mut event, EVENT_SUMMARY, &summary);
        self.record(&event)
    }

    /// One framed record by a single write, so that a killed run leaves whole records but for the last.
    fn record(&mut self, data: &[u8]) -> std::io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut framed = Vec::with_capacity(data.len() + 16);
        framed.extend_from_slice(&length);
        framed.extend_from_slice(&masked_crc(&length).to_le_bytes());
        framed.extend_from_slice(data);
        framed.extend_from_slice(&masked_crc(data).to_le_bytes());
        self.writer.write_all(&framed)
    }
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A varint without its key.
fn put_raw_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_varint(out: &mut Vec<u8>, field: u32, value: u64) {
    put_raw_varint(out, u64::from(field << 3));
    put_raw_varint(out, value);
}

fn put_f64(out: &mut Vec<u8>, field: u32, value: f64) {
    put_raw_varint(out, u64::from(field << 3 | 1));
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_raw_varint(out, u64::from(field << 3 | 2));
    put_raw_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_f32(out: &mut Vec<u8>, field: u32, value: f32) {
    put_raw_varint(out, u64::from(field << 3 | 5));
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A field of a message: varint, 64 bits, bytes or 32 bits.
    #[derive(Clone, Debug, PartialEq)]
    enum Field {
        Varint(u64),
        Fixed64(u64),
        Bytes(Vec<u8>),
        Fixed32(u32),
    }

    /// Takes `N` bytes off the front.
    fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
        let (head, rest) = bytes.split_first_chunk().expect("enough bytes");
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
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
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
    fn at(bytes: &[u8], path: &[u64]) -> Field {
        let found = fields(bytes).into_iter().find(|(number, _)| *number == path[0]).expect("the field is there").1;
        match (&found, path.len()) {
            (_, 1) => found,
            (Field::Bytes(inner), _) => at(inner, &path[1..]),
            _ => panic!("{path:?} leads into no message"),
        }
    }

    /// The records of a file, their checksums verified bit by bit.
    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
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

    #[test]
    fn checksums_have_their_published_values() {
        // RFC 3720 (iSCSI), section B.4: 32 bytes of zeros, of ones, ascending.
        let ascending: Vec<u8> = (0..32).collect();
        for (bytes, crc) in [(&[0u8; 32][..], 0x8a91_36aau32), (&[0xff; 32], 0x62a8_ab43), (&ascending, 0x46dd_794e)] {
            assert_eq!(crc32c::crc32c(bytes), crc);
            // The mask as TensorFlow spells it, in wider numbers.
            let wide = u64::from(crc);
            assert_eq!(u64::from(masked_crc(bytes)), (((wide >> 15) | (wide << 17)) + 0xa282_ead8) & 0xffff_ffff);
        }
        // "123456789", the check value of every CRC catalogue.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_file_reads_back() {
        let mut writer = EventWriter::new(Vec::new(), 1000.5).unwrap();
        writer.scalar("train/loss", 300, 0.25, 1001.0).unwrap();
        writer.text("config", 0, "batch_size = 64", 1002.0).unwrap();
        let bytes = writer.into_inner();
        let records = records(&bytes);
        assert_eq!(records.len(), 3);
        assert_eq!(at(&records[0], &[1]), Field::Fixed64(1000.5f64.to_bits()));
        assert_eq!(at(&records[0], &[3]), Field::Bytes(b"brain.Event:2".to_vec()));
        assert_eq!(at(&records[1], &[2]), Field::Varint(300));
        assert_eq!(at(&records[1], &[5, 1, 1]), Field::Bytes(b"train/loss".to_vec()));
        assert_eq!(at(&records[1], &[5, 1, 2]), Field::Fixed32(0.25f32.to_bits()));
        assert_eq!(at(&records[2], &[5, 1, 8, 1]), Field::Varint(7));
        assert_eq!(at(&records[2], &[5, 1, 8, 2, 2, 1]), Field::Varint(1));
        assert_eq!(at(&records[2], &[5, 1, 8, 8]), Field::Bytes(b"batch_size = 64".to_vec()));
        assert_eq!(at(&records[2], &[5, 1, 9, 1, 1]), Field::Bytes(b"text".to_vec()));
        assert_eq!(event_file_name(7), "events.out.tfevents.0000000007.bellwether");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_scalar_reads_back(tag in ".{0,300}", step: u64, value: f32, wall_time: f64) {
            let mut writer = EventWriter::new(Vec::new(), 0.0).unwrap();
            writer.scalar(&tag, step, value, wall_time).unwrap();
            let bytes = writer.into_inner();
            let records = records(&bytes);
            prop_assert_eq!(at(&records[1], &[1]), Field::Fixed64(wall_time.to_bits()));
            prop_assert_eq!(at(&records[1], &[2]), Field::Varint(step));
            prop_assert_eq!(at(&records[1], &[5, 1, 1]), Field::Bytes(tag.into_bytes()));
            prop_assert_eq!(at(&records[1], &[5, 1, 2]), Field::Fixed32(value.to_bits()));
        }
    }
}
