//! Columns of few values, encoded by hand.
//!
//! The encoder of the Parquet crate hashes every text of every row to find its place in the dictionary, which for columns
//! that are constant over an episode was a third of the time of writing a trace of bare calls. Here the caller knows the
//! keys, so that a run of rows costs a few bytes and no look at them.
//!
//! A chunk is one dictionary page and one data page of format version 1: definition levels (for a nullable column) and
//! keys, both in the hybrid of runs and bit-packed groups of eight that the Parquet specification calls RLE.

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

/// The values of a column as a plain-encoded dictionary page.
#[derive(Default)]
pub(super) struct Dictionary {
    page: Vec<u8>,
    count: u32,
}

/// Numbers in the hybrid encoding.
pub(super) struct Hybrid {
    width: u8,
    out: Vec<u8>,
}

impl Dictionary {
    /// Adds a text and gives its key.
    pub(super) fn add_text(&mut self, text: &str) -> u32 {
        // The writer bounds texts far below 4 GiB.
        self.page.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.page.extend_from_slice(text.as_bytes());
        self.next()
    }

    /// Adds a 32-bit number and gives its key.
    pub(super) fn add_number(&mut self, number: i32) -> u32 {
        self.page.extend_from_slice(&number.to_le_bytes());
        self.next()
    }

    fn next(&mut self) -> u32 {
        self.count += 1;
        self.count - 1
    }

    /// Bits of a key.
    pub(super) fn width(&self) -> u8 {
        (32 - self.count.saturating_sub(1).leading_zeros()).max(1) as u8
    }
}

impl Hybrid {
    pub(super) fn new(width: u8) -> Self {
        Hybrid { width, out: Vec::new() }
    }

    /// `count` times the same number.
    pub(super) fn run(&mut self, number: u32, count: usize) {
        if count > 0 {
            self.varint((count as u64) << 1);
            self.out.extend_from_slice(&number.to_le_bytes()[..usize::from(self.width.div_ceil(8))]);
        }
    }

    /// Any small numbers: long runs as runs, what lies between them packed in eights.
    pub(super) fn numbers(&mut self, numbers: &[u8]) {
        let (mut packed, mut at) = (0, 0);
        while at < numbers.len() {
            let number = numbers[at];
            let length = numbers[at..].iter().take_while(|next| **next == number).count();
            // Packed groups are whole, so that a run fills up the one before it.
            let fill = (at - packed).next_multiple_of(8) - (at - packed);
            if length >= fill + 8 {
                self.packed(&numbers[packed..at + fill]);
                self.run(u32::from(number), length - fill);
                packed = at + length;
            }
            at += length;
        }
        self.packed(&numbers[packed..]);
    }

    fn packed(&mut self, numbers: &[u8]) {
        if numbers.is_empty() {
            return;
        }
        self.varint((numbers.len().div_ceil(8) as u64) << 1 | 1);
        for group in numbers.chunks(8) {
            let (mut bits, mut held) = (0u64, 0);
            for index in 0..8 {
                bits |= u64::from(group.get(index).copied().unwrap_or(0)) << held;
                held += u32::from(self.width);
            }
            self.out.extend_from_slice(&bits.to_le_bytes()[..usize::from(self.width)]);
        }
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}

/// Encodes a column chunk of `rows` rows: its bytes, and what the row group has to know of them. `present` says for a
/// nullable column which rows have a value; `keys` are the keys of those.
pub(super) fn chunk(
    column: &ColumnDescPtr,
    rows: usize,
    dictionary: Dictionary,
    present: Option<Hybrid>,
    keys: Hybrid,
    level: i32,
) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
    let mut data = Vec::with_capacity(keys.out.len() + 16);
    if let Some(present) = present {
        data.extend_from_slice(&(present.out.len() as u32).to_le_bytes());
        data.extend_from_slice(&present.out);
    }
    // Without a single value there is no dictionary to point into.
    let empty = dictionary.count == 0;
    if !empty {
        data.push(keys.width);
        data.extend_from_slice(&keys.out);
    }
    let num_values = u32::try_from(rows).map_err(|_| ParquetError::General("too many rows in a group".to_owned()))?;
    let compressed = |bytes: &[u8]| -> Result<Bytes, ParquetError> {
        let compressed = zstd::bulk::compress(bytes, level)?;
        Ok(Bytes::from(compressed))
    };
    let mut out = TrackedWrite::new(Vec::new());
    let mut pages = SerializedPageWriter::new(&mut out);
    let mut total = 0;
    let mut dictionary_offset = None;
    if !empty {
        let page = Page::DictionaryPage {
            buf: compressed(&dictionary.page)?,
            num_values: dictionary.count,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        let written = pages.write_page(CompressedPage::new(page, dictionary.page.len()))?;
        dictionary_offset = Some(written.offset as i64);
        total += written.uncompressed_size;
    }
    let encoding = if empty { Encoding::PLAIN } else { Encoding::RLE_DICTIONARY };
    let page = Page::DataPage {
        buf: compressed(&data)?,
        num_values,
        encoding,
        def_level_encoding: Encoding::RLE,
        rep_level_encoding: Encoding::RLE,
        statistics: None,
    };
    let written = pages.write_page(CompressedPage::new(page, data.len()))?;
    total += written.uncompressed_size;
    pages.close()?;
    let bytes = out.into_inner()?;
    let metadata = ColumnChunkMetaData::builder(column.clone())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(level)?))
        .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, encoding])
        .set_num_values(rows as i64)
        .set_total_compressed_size(bytes.len() as i64)
        .set_total_uncompressed_size(total as i64)
        .set_dictionary_page_offset(dictionary_offset)
        .set_data_page_offset(written.offset as i64)
        .build()?;
    let close = ColumnCloseResult {
        bytes_written: bytes.len() as u64,
        rows_written: rows as u64,
        metadata,
        bloom_filter: None,
        column_index: None,
        offset_index: None,
    };
    Ok((Bytes::from(bytes), close))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads the hybrid encoding back, as the Parquet specification tells.
    fn decoded(hybrid: &Hybrid, count: usize) -> Vec<u8> {
        let (mut numbers, mut at) = (Vec::new(), 0);
        while at < hybrid.out.len() {
            let (mut header, mut shift) = (0u64, 0);
            loop {
                let byte = hybrid.out[at];
                at += 1;
                header |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            if header & 1 == 0 {
                numbers.extend(std::iter::repeat_n(hybrid.out[at], (header >> 1) as usize));
                at += 1;
            } else {
                for _ in 0..header >> 1 {
                    let group = &hybrid.out[at..at + usize::from(hybrid.width)];
                    let bits = group.iter().rev().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
                    numbers
                        .extend((0..8).map(|index| (bits >> (index * hybrid.width)) as u8 & ((1 << hybrid.width) - 1)));
                    at += usize::from(hybrid.width);
                }
            }
        }
        assert!(numbers[count..].iter().all(|padding| *padding == 0));
        numbers.truncate(count);
        numbers
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn numbers_read_back(runs in prop::collection::vec((0u8..6, prop_oneof![1usize..4, 5usize..30]), 0..40)) {
            let numbers: Vec<u8> = runs.iter().flat_map(|(number, count)| std::iter::repeat_n(*number, *count)).collect();
            let mut hybrid = Hybrid::new(3);
            hybrid.numbers(&numbers);
            prop_assert_eq!(decoded(&hybrid, numbers.len()), numbers);
        }
    }

    #[test]
    fn a_key_has_the_bits_it_needs() {
        for (count, width) in [(0, 1), (1, 1), (2, 1), (3, 2), (6, 3), (256, 8), (257, 9), (70_000, 17)] {
            assert_eq!(Dictionary { page: Vec::new(), count }.width(), width);
        }
    }
}
