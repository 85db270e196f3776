//! TensorBoard event files, written by hand: two messages in a record framing need no TensorFlow.
//!
//! The framing is `TFRecord`: length (u64, little-endian), masked CRC-32C of those 8 bytes, the data, masked CRC-32C of the
//! data; the mask is `((crc >> 15) | (crc << 17)) + 0xa282ead8` (TensorFlow, `core/lib/hash/crc32c.h`). The data is an
//! `Event` message (`core/util/event.proto`, `core/framework/{summary,tensor,tensor_shape}.proto`); the field numbers
//! stand at the constants below.

use std::io::Write;

/// `Event`: `wall_time` (double), step (int64), `file_version` (string), summary (message), `session_log` (message).
const EVENT_WALL_TIME: u32 = 1;
const EVENT_STEP: u32 = 2;
const EVENT_FILE_VERSION: u32 = 3;
const EVENT_SUMMARY: u32 = 5;
const EVENT_SESSION_LOG: u32 = 7;
/// `SessionLog`: status (enum), of which `START` is 1.
const SESSION_STATUS: u32 = 1;
const SESSION_START: u64 = 1;
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

    /// Says that a program starts at this step: TensorBoard then forgets what earlier files hold from this step on, so that
    /// a resumed run does not show what it has taken back.
    ///
    /// # Errors
    /// What the stream gives.
    pub fn session_start(&mut self, step: u64, wall_time: f64) -> std::io::Result<()> {
        let mut session = Vec::new();
        put_varint(&mut session, SESSION_STATUS, SESSION_START);
        self.event(step, EVENT_SESSION_LOG, &session, wall_time)
    }

    /// Writes one value of each of some curves, by tag; what stands before the first `/` of a tag names its group.
    ///
    /// # Errors
    /// What the stream gives.
    pub fn scalars<T: AsRef<str>>(
        &mut self,
        step: u64,
        values: impl IntoIterator<Item = (T, f32)>,
        wall_time: f64,
    ) -> std::io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut summary_value = Vec::new();
            put_bytes(&mut summary_value, VALUE_TAG, tag.as_ref().as_bytes());
            put_f32(&mut summary_value, VALUE_SIMPLE, value);
            put_bytes(&mut summary, SUMMARY_VALUE, &summary_value);
        }
        self.event(step, EVENT_SUMMARY, &summary, wall_time)
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
        let mut summary = Vec::new();
        put_bytes(&mut summary, SUMMARY_VALUE, &summary_value);
        self.event(step, EVENT_SUMMARY, &summary, wall_time)
    }

    /// The stream.
    pub fn get_ref(&self) -> &W {
        &self.writer
    }

    /// Gives the stream back.
    pub fn into_inner(self) -> W {
        self.writer
    }

    fn event(&mut self, step: u64, what: u32, message: &[u8], wall_time: f64) -> std::io::Result<()> {
        let mut event = Vec::new();
        put_f64(&mut event, EVENT_WALL_TIME, wall_time);
        put_varint(&mut event, EVENT_STEP, step);
        put_bytes(&mut event, what, message);
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
    use super::*;

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
}
