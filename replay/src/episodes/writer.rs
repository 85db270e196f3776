//! Writing an episode file, a row group at a time.

use super::header::{FOOTER_TAIL_BYTES, GroupSum, index_field, seal, value_field};
use super::order::Order;
use super::{End, EpisodeFileHeader, Step};
use crate::{Encoding, ReplayError};
use arrow_array::builder::StringBuilder;
use arrow_array::{
    ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, ListArray, RecordBatch, UInt8Array, UInt16Array,
    UInt32Array, UInt64Array,
};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::io::{self, Write};
use std::sync::Arc;

/// Writes episodes as a stream: what is held back is one row group, some 8 MiB, or up to four times as much within one
/// long episode.
///
/// The file can be read only once [`finish`](Self::finish) has written its footer; see [`EpisodeParts`] for what to do
/// about a process that may be killed.
///
/// ```
/// use bellwether_replay::episodes::*;
/// use bellwether_replay::{ActionMask, Encoding};
/// let header = EpisodeFileHeader {
///     width: 2,
///     actions: 3,
///     encoding: Encoding::Dense,
///     spec_hash: "5feceb66".into(),
///     action_set: "1".into(),
///     reward: "{}".into(),
///     sources: vec![],
///     policy: None,
///     q_values: false,
///     safe_rule: false,
/// };
/// let mut writer = EpisodeWriter::new(Vec::new(), header)?;
/// writer.write(&Step {
///     episode_id: "a",
///     step: 0,
///     stage: 1,
///     state: &[0.25, 0.5],
///     action_mask: ActionMask::all(3),
///     played: Some(PlayedParts { action: 2, r0: 1.0, r1: 0.0, behaviour_probability: 0.9, safe_rule: false }),
///     end: Some(End::Terminated),
///     partial: false,
///     label: Some("benign"),
///     events_seen: 64,
///     q_values: None,
/// })?;
/// let (bytes, written) = writer.finish()?;
/// assert_eq!((written.episodes, written.steps), (1, 1));
///
/// let expect = Expect { spec_hash: "5feceb66", action_set: "1" };
/// let mut reader = EpisodeReader::from_bytes(bytes, Some(expect))?;
/// let mut row = StepRow::default();
/// assert!(reader.next(&mut row)?);
/// assert_eq!((row.state.as_slice(), row.end), (&[0.25, 0.5][..], Some(End::Terminated)));
/// assert!(!reader.next(&mut row)?);
/// # Ok::<(), bellwether_replay::ReplayError>(())
/// ```
///
/// [`EpisodeParts`]: super::EpisodeParts
pub struct EpisodeWriter<W: Write + Send> {
    header: EpisodeFileHeader,
    schema: SchemaRef,
    order: Order,
    partial_episodes: u64,
    group_bytes: usize,
    inner: ArrowWriter<Summed<W>>,
    rows: Rows,
    sums: Vec<GroupSum>,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Episodes, partial ones included.
    pub episodes: u64,
    /// Rows.
    pub steps: u64,
    /// Episodes flagged partial.
    pub partial: u64,
}

const GROUP_BYTES: usize = 8 << 20;
/// The largest size that may be set: four times as much and a row still have 32-bit offsets.
const MAX_GROUP_BYTES: usize = 256 << 20;

/// The rows of the next row group, by column.
#[derive(Default)]
struct Rows {
    bytes: usize,
    episode_id: StringBuilder,
    step: Vec<u32>,
    stage: Vec<u8>,
    state_index: Vec<u16>,
    state_value: Vec<f32>,
    /// End of each sparse row in the two columns above.
    state_end: Vec<i32>,
    action_mask: Vec<u32>,
    action: Vec<Option<u8>>,
    r0: Vec<Option<f32>>,
    r1: Vec<Option<f32>>,
    behaviour_probability: Vec<Option<f32>>,
    terminated: Vec<bool>,
    truncated: Vec<bool>,
    partial: Vec<bool>,
    label: StringBuilder,
    events_seen: Vec<u64>,
    q_values: Vec<f32>,
    safe_rule: Vec<Option<bool>>,
}

impl<W: Write + Send> EpisodeWriter<W> {
    /// Starts a file.
    ///
    /// # Errors
    /// [`ReplayError::Setting`] on a header out of range, and what the writer says.
    pub fn new(writer: W, header: EpisodeFileHeader) -> Result<Self, ReplayError> {
        header.check()?;
        let schema = header.schema();
        // Values of states hardly repeat as rows of a dictionary, and nothing here looks for rows by their statistics.
        let state = if header.encoding == Encoding::Dense { "state" } else { "state_value" };
        let items = |column: &str| ColumnPath::new(vec![column.into(), "list".into(), "item".into()]);
        let level = ZstdLevel::try_new(1).map_err(writing)?;
        let properties = WriterProperties::builder()
            .set_created_by(concat!("bellwether-replay ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::ZSTD(level))
            .set_statistics_enabled(EnabledStatistics::None)
            .set_offset_index_disabled(true)
            .set_max_row_group_row_count(None)
            .set_column_dictionary_enabled(items(state), header.encoding == Encoding::Sparse)
            .set_column_dictionary_enabled(items("q_values"), false)
            .set_key_value_metadata(Some(header.metadata()))
            .build();
        let summed = Summed { inner: writer, sum: 0, written: 0, held: None };
        let inner = ArrowWriter::try_new(summed, schema.clone(), Some(properties)).map_err(writing)?;
        Ok(EpisodeWriter {
            header,
            schema,
            order: Order::default(),
            partial_episodes: 0,
            group_bytes: GROUP_BYTES,
            inner,
            rows: Rows::default(),
            sums: Vec::new(),
        })
    }

    /// Sets the size from which on what is held back is written out, once its last episode has ended; within an episode
    /// that happens at four times the size. Larger groups compress better, smaller ones take less memory; 256 MiB at most.
    #[must_use]
    pub fn with_row_group_bytes(self, group_bytes: usize) -> Self {
        EpisodeWriter { group_bytes: group_bytes.min(MAX_GROUP_BYTES), ..self }
    }

    /// Writes the next step.
    ///
    /// # Errors
    /// [`ReplayError::Step`] if it does not follow the rules of the format; it is not taken then. [`ReplayError::Io`] if
    /// the writer fails; the file is lost then.
    pub fn write(&mut self, step: &Step<'_>) -> Result<(), ReplayError> {
        let factor = if self.order.continues(step) { 4 } else { 1 };
        self.order.take(&self.header, step)?;
        // The last row stays here until the next comes: only then is it certain that its episode was not broken off.
        if self.rows.bytes >= self.group_bytes.saturating_mul(factor) {
            self.write_group()?;
        }
        self.rows.push(self.header.encoding, step);
        self.partial_episodes += u64::from(step.partial);
        Ok(())
    }

    /// Ends the episode that is under way where it stands: its last step is flagged truncated and partial, so that it is
    /// neither lost nor taken for a whole one. Says whether there was one.
    pub fn break_off(&mut self) -> bool {
        let open = self.order.is_open();
        if let (true, Some(truncated), Some(partial)) =
            (open, self.rows.truncated.last_mut(), self.rows.partial.last_mut())
        {
            (*truncated, *partial) = (true, true);
            self.partial_episodes += 1;
        }
        self.order.close();
        open
    }

    /// Whether an episode is under way.
    pub fn is_open(&self) -> bool {
        self.order.is_open()
    }

    /// What was written so far, what is held back included.
    pub fn written(&self) -> Written {
        Written { episodes: self.order.episodes(), steps: self.order.rows(), partial: self.partial_episodes }
    }

    /// Writes what is held back and the footer, and gives the writer back. An episode that is still under way is broken
    /// off and counted as partial.
    ///
    /// # Errors
    /// [`ReplayError::Io`] if the writer fails; the file is lost then.
    pub fn finish(mut self) -> Result<(W, Written), ReplayError> {
        self.break_off();
        self.write_group()?;
        for pair in EpisodeFileHeader::closing_metadata(&self.sums) {
            self.inner.append_key_value_metadata(pair);
        }
        let written = self.written();
        // What is left to come is the footer. It is held back until it carries its own checksum.
        self.inner.sync().map_err(failing)?;
        self.inner.inner_mut().held = Some(Vec::new());
        let Summed { mut inner, held, .. } = self.inner.into_inner().map_err(writing)?;
        let mut footer = held.unwrap_or_default();
        let metadata = footer.len().saturating_sub(FOOTER_TAIL_BYTES);
        seal(&mut footer[..metadata])?;
        inner.write_all(&footer).and_then(|()| inner.flush()).map_err(failing)?;
        Ok((inner, written))
    }

    fn write_group(&mut self) -> Result<(), ReplayError> {
        if self.rows.step.is_empty() {
            return Ok(());
        }
        let columns = std::mem::take(&mut self.rows).into_columns(&self.header).map_err(writing)?;
        let batch = RecordBatch::try_new(self.schema.clone(), columns).map_err(writing)?;
        self.inner.write(&batch).map_err(writing)?;
        self.inner.flush().map_err(writing)?;
        self.inner.sync().map_err(failing)?;
        let summed = self.inner.inner();
        self.sums.push(GroupSum { end: summed.written, sum: summed.sum });
        self.inner.inner_mut().sum = 0;
        Ok(())
    }
}

impl<W: Write + Send> std::fmt::Debug for EpisodeWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EpisodeWriter")
            .field("header", &self.header)
            .field("written", &self.written())
            .finish_non_exhaustive()
    }
}

impl Rows {
    fn push(&mut self, encoding: Encoding, step: &Step<'_>) {
        self.episode_id.append_value(step.episode_id);
        self.step.push(step.step);
        self.stage.push(step.stage);
        let before = self.state_value.len();
        match encoding {
            Encoding::Dense => self.state_value.extend_from_slice(step.state),
            Encoding::Sparse => {
                for (index, value) in step.state.iter().enumerate().filter(|(_, value)| value.to_bits() != 0) {
                    self.state_index.push(index as u16);
                    self.state_value.push(*value);
                }
                self.state_end.push(self.state_value.len() as i32);
            }
        }
        self.action_mask.push(step.action_mask.bits());
        self.action.push(step.played.map(|played| played.action as u8));
        self.r0.push(step.played.map(|played| played.r0));
        self.r1.push(step.played.map(|played| played.r1));
        self.behaviour_probability.push(step.played.map(|played| played.behaviour_probability));
        self.safe_rule.push(step.played.map(|played| played.safe_rule));
        self.terminated.push(step.end == Some(End::Terminated));
        self.truncated.push(step.end == Some(End::Truncated));
        self.partial.push(step.partial);
        self.label.append_option(step.label);
        self.events_seen.push(step.events_seen);
        let q_values = step.q_values.unwrap_or_default();
        self.q_values.extend_from_slice(q_values);
        let state = (self.state_value.len() - before) * if encoding == Encoding::Dense { 4 } else { 6 };
        self.bytes += state + size_of_val(q_values) + 64 + step.episode_id.len() + step.label.map_or(0, str::len);
    }

    fn into_columns(mut self, header: &EpisodeFileHeader) -> Result<Vec<ArrayRef>, arrow_schema::ArrowError> {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.episode_id.finish()),
            Arc::new(UInt32Array::from(self.step)),
            Arc::new(UInt8Array::from(self.stage)),
        ];
        let values = Arc::new(Float32Array::from(self.state_value));
        match header.encoding {
            Encoding::Dense => {
                let width = header.width as i32;
                columns.push(Arc::new(FixedSizeListArray::try_new(value_field(), width, values, None)?));
            }
            Encoding::Sparse => {
                let ends = std::iter::once(0).chain(self.state_end).collect::<Vec<i32>>();
                let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
                let indices = Arc::new(UInt16Array::from(self.state_index));
                columns.push(Arc::new(ListArray::try_new(index_field(), offsets.clone(), indices, None)?));
                columns.push(Arc::new(ListArray::try_new(value_field(), offsets, values, None)?));
            }
        }
        columns.extend([
            Arc::new(UInt32Array::from(self.action_mask)) as ArrayRef,
            Arc::new(UInt8Array::from(self.action)),
            Arc::new(Float32Array::from(self.r0)),
            Arc::new(Float32Array::from(self.r1)),
            Arc::new(Float32Array::from(self.behaviour_probability)),
            Arc::new(BooleanArray::from(self.terminated)),
            Arc::new(BooleanArray::from(self.truncated)),
            Arc::new(BooleanArray::from(self.partial)),
            Arc::new(self.label.finish()),
            Arc::new(UInt64Array::from(self.events_seen)),
        ]);
        if header.q_values {
            let (actions, values) = (header.actions as i32, Arc::new(Float32Array::from(self.q_values)));
            columns.push(Arc::new(FixedSizeListArray::try_new(value_field(), actions, values, None)?));
        }
        if header.safe_rule {
            columns.push(Arc::new(BooleanArray::from(self.safe_rule)));
        }
        Ok(columns)
    }
}

/// A writer that counts and sums what passes through.
struct Summed<W> {
    inner: W,
    sum: u32,
    written: u64,
    /// Bytes that wait for the caller, from the moment when this is set.
    held: Option<Vec<u8>>,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(held) = &mut self.held {
            held.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        let taken = self.inner.write(bytes)?;
        self.sum = crc32c::crc32c_append(self.sum, &bytes[..taken]);
        self.written += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// What the writer of the caller said, out of what the Parquet crate makes of it.
fn writing(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ReplayError {
    failing(io::Error::other(error))
}

fn failing(cause: io::Error) -> ReplayError {
    ReplayError::Io { action: "write the episode file", cause }
}
