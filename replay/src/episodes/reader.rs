//! Reading an episode file, a batch of rows at a time, with nothing taken on trust.

use super::header::{FOOTER_TAIL_BYTES, GroupSum, is_sealed, refuse};
use super::order::Order;
use super::{End, EpisodeFileHeader, Expect, PlayedParts, StepRow};
use crate::{ActionMask, Encoding, Outcome, Played, ReplayBuffer, ReplayError, StreamId};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float32Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array as _, ArrayRef, RecordBatch};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Reads the steps of an episode file in order. It holds one batch of rows; row groups may cut through episodes.
///
/// Every row is checked against the rules of the format, and every row group against the checksum in the footer before
/// it is decoded.
pub struct EpisodeReader {
    source: Source,
    metadata: ArrowReaderMetadata,
    header: EpisodeFileHeader,
    sums: Vec<GroupSum>,
    order: Order,
    /// Whether an error was given out.
    failed: bool,
    /// Row group to read next.
    group: usize,
    batches: Option<ParquetRecordBatchReader>,
    batch: Option<RecordBatch>,
    /// Row of the batch to read next.
    row: usize,
}

/// What [`EpisodeReader::load`] brought into a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Episodes.
    pub episodes: u64,
    /// Steps in which something was played.
    pub steps: u64,
    /// Episodes flagged partial.
    pub partial: u64,
}

/// Bytes of states that a batch aims at.
const BATCH_BYTES: usize = 2 << 20;
/// A row group adds some 2 KiB to the footer, so this is room for a file of more than 100 GiB.
const LARGEST_FOOTER_BYTES: u64 = 64 << 20;

#[derive(Clone)]
enum Source {
    File(Arc<File>),
    Bytes(Bytes),
}

impl EpisodeReader {
    /// Opens a file. With `expect`, a file under another specification is refused before any row is read.
    ///
    /// # Errors
    /// [`ReplayError::EpisodeFile`] if it is damaged, cut short or no episode file; [`ReplayError::Mismatch`] if it is not
    /// what is expected.
    pub fn open(file: File, expect: Option<Expect<'_>>) -> Result<Self, ReplayError> {
        Self::new(Source::File(Arc::new(file)), expect)
    }

    /// Reads a file that is in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(bytes: Vec<u8>, expect: Option<Expect<'_>>) -> Result<Self, ReplayError> {
        Self::new(Source::Bytes(Bytes::from(bytes)), expect)
    }

    fn new(source: Source, expect: Option<Expect<'_>>) -> Result<Self, ReplayError> {
        verify_footer(&source)?;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = guarded(|| ArrowReaderMetadata::load(&source, options))?;
        let file = metadata.metadata().file_metadata();
        let (header, sums) = EpisodeFileHeader::parse(file.key_value_metadata())?;
        if let Some(expect) = expect {
            header.require(expect)?;
        }
        // The columns are read as this header says, or not at all.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true).with_schema(header.schema());
        let metadata = guarded(|| ArrowReaderMetadata::try_new(metadata.metadata().clone(), options))?;
        if metadata.metadata().num_row_groups() != sums.len() {
            return Err(refuse("its row groups and their sums do not match"));
        }
        Ok(EpisodeReader {
            source,
            metadata,
            header,
            sums,
            order: Order::default(),
            failed: false,
            group: 0,
            batches: None,
            batch: None,
            row: 0,
        })
    }

    /// Under what the episodes were played.
    pub fn header(&self) -> &EpisodeFileHeader {
        &self.header
    }

    /// Reads the next step into `row`, or says that there is none. After an error, nothing more can be read.
    ///
    /// # Errors
    /// [`ReplayError::Step`] with the row that breaks a rule of the format; [`ReplayError::EpisodeFile`] on damage.
    pub fn next(&mut self, row: &mut StepRow) -> Result<bool, ReplayError> {
        if self.failed {
            return Err(refuse("an earlier row of it could not be read, and reading stopped there"));
        }
        let next = self.advance(row);
        self.failed = next.is_err();
        next
    }

    fn advance(&mut self, row: &mut StepRow) -> Result<bool, ReplayError> {
        loop {
            if let Some(batch) = self.batch.as_ref().filter(|batch| self.row < batch.num_rows()) {
                decode(&self.header, batch, self.row, row).map_err(|reason| ReplayError::Step {
                    row: self.order.rows(),
                    episode: row.episode_id.clone(),
                    step: row.step,
                    reason,
                })?;
                self.order.take(&self.header, &row.as_step())?;
                self.row += 1;
                return Ok(true);
            }
            self.batch = match &mut self.batches {
                Some(batches) => guarded(|| Ok(batches.next().transpose()?))?,
                None => None,
            };
            self.row = 0;
            if self.batch.is_none() && !self.next_group()? {
                if self.order.is_open() {
                    return Err(refuse("it ends in the middle of an episode"));
                }
                return Ok(false);
            }
        }
    }

    /// Rows that the file claims to have; more or fewer are an error of the reading.
    pub fn rows(&self) -> u64 {
        let groups = self.metadata.metadata().row_groups();
        groups.iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).sum()
    }

    /// Plays all that is left into a buffer, one state per row, with the reward that `reward` makes of each row. It is asked about
    /// every row in turn; what it says of one in which nothing was played is left aside.
    ///
    /// Steps whose successor was not observed are taken as that: they are kept and never drawn.
    ///
    /// # Errors
    /// As [`next`](Self::next) and [`ReplayBuffer::append`].
    pub fn load(
        &mut self,
        buffer: &mut ReplayBuffer,
        stream: StreamId,
        mut reward: impl FnMut(&StepRow) -> f32,
    ) -> Result<Loaded, ReplayError> {
        let mut row = StepRow::default();
        // The step that waits for the state that it led to.
        let mut waiting: Option<Played> = None;
        let mut loaded = Loaded::default();
        while self.next(&mut row)? {
            match waiting.take() {
                Some(played) => {
                    let outcome = Outcome::Continues { state: &row.state, mask: row.action_mask };
                    buffer.append(stream, played, outcome)?;
                }
                None => {
                    buffer.begin(stream, &row.state, row.action_mask)?;
                    loaded.episodes += 1;
                }
            }
            loaded.steps += u64::from(row.played.is_some());
            loaded.partial += u64::from(row.partial);
            let played = {
                let reward = reward(&row);
                row.played.map(|parts| parts.with_reward(reward))
            };
            match (played, row.end) {
                (None, _) => buffer.abandon(stream)?,
                (Some(played), None) => waiting = Some(played),
                (Some(played), Some(end)) => {
                    let outcome = match end {
                        End::Terminated => Outcome::Terminated,
                        End::Truncated => Outcome::Truncated { observed: None },
                    };
                    buffer.append(stream, played, outcome)?;
                }
            }
        }
        Ok(loaded)
    }

    /// Goes on to the next row group, once its bytes are what was written.
    fn next_group(&mut self) -> Result<bool, ReplayError> {
        let Some(group) = self.sums.get(self.group) else { return Ok(false) };
        let start = self.group.checked_sub(1).map_or(0, |before| self.sums[before].end);
        self.verify(start, *group)?;
        let state_bytes = self.header.width * if self.header.encoding == Encoding::Dense { 4 } else { 6 };
        let rows = (BATCH_BYTES / state_bytes).clamp(1, 1024);
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.source.clone(), self.metadata.clone());
        let builder = builder.with_row_groups(vec![self.group]).with_batch_size(rows);
        self.batches = Some(guarded(|| builder.build())?);
        self.group += 1;
        Ok(true)
    }

    fn verify(&self, start: u64, group: GroupSum) -> Result<(), ReplayError> {
        let damaged = || refuse(format!("row group {} is damaged: its checksum does not match", self.group));
        let bytes = group.end.checked_sub(start).filter(|_| group.end <= self.source.len()).ok_or_else(damaged)?;
        // What is decoded lies within what is summed.
        let row_group = self.metadata.metadata().row_group(self.group);
        for column in row_group.columns() {
            let at = column.dictionary_page_offset().unwrap_or(i64::MAX).min(column.data_page_offset());
            let end = at.checked_add(column.compressed_size());
            let within = |position: i64| u64::try_from(position).is_ok_and(|at| at >= start && at <= group.end);
            if !within(at) || !end.is_some_and(within) || column.compressed_size() < 0 {
                return Err(damaged());
            }
        }
        let mut from = self.source.get_read(start).map_err(reading)?.take(bytes);
        let (mut sum, mut chunk) = (0, vec![0; 1 << 16]);
        loop {
            let read =
                from.read(&mut chunk).map_err(|cause| ReplayError::Io { action: "read the episode file", cause })?;
            if read == 0 {
                break;
            }
            sum = crc32c::crc32c_append(sum, &chunk[..read]);
        }
        if sum == group.sum && from.limit() == 0 { Ok(()) } else { Err(damaged()) }
    }
}

impl std::fmt::Debug for EpisodeReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EpisodeReader")
            .field("header", &self.header)
            .field("row", &self.order.rows())
            .finish_non_exhaustive()
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        match self {
            Source::File(file) => Length::len(file.as_ref()),
            Source::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

impl ChunkReader for Source {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(match self {
            Source::File(file) => Box::new(file.get_read(start)?),
            Source::Bytes(bytes) => Box::new(bytes.get_read(start)?),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        // A footer may claim any length; nothing is allocated for bytes that are not there.
        if start.checked_add(length as u64).is_none_or(|end| end > Length::len(self)) {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} lie beyond the end of the file")));
        }
        match self {
            Source::File(file) => file.get_bytes(start, length),
            Source::Bytes(bytes) => bytes.get_bytes(start, length),
        }
    }
}

/// Refuses a footer that is not what was written, before anything in it is believed.
fn verify_footer(source: &Source) -> Result<(), ReplayError> {
    let (length, tail_bytes) = (Length::len(source), FOOTER_TAIL_BYTES as u64);
    let Some(tail_at) = length.checked_sub(tail_bytes) else {
        return Err(refuse(format!("it has {length} bytes, too few for a Parquet file")));
    };
    let tail = source.get_bytes(tail_at, FOOTER_TAIL_BYTES).map_err(reading)?;
    let Some((bytes, b"PAR1")) = tail.split_first_chunk::<4>() else {
        return Err(refuse("it does not end as a Parquet file does; it was cut short, or its writer was killed"));
    };
    let bytes = u64::from(u32::from_le_bytes(*bytes));
    let Some(at) = tail_at.checked_sub(bytes).filter(|_| bytes <= LARGEST_FOOTER_BYTES) else {
        return Err(refuse(format!("its footer claims {bytes} bytes, more than there are or may be")));
    };
    let footer = source.get_bytes(at, bytes as usize).map_err(reading)?;
    if !is_sealed(footer.to_vec()) {
        return Err(refuse(
            "its footer is damaged, or it is no episode file: the checksum is not there or does not match",
        ));
    }
    Ok(())
}

/// Copies one row of a batch.
fn decode(header: &EpisodeFileHeader, batch: &RecordBatch, at: usize, row: &mut StepRow) -> Result<(), String> {
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("column `{name}` is missing"));
    let u32_at = |name: &str| Ok::<_, String>(column(name)?.as_primitive::<UInt32Type>().value(at));
    let flag = |name: &str| Ok::<_, String>(column(name)?.as_boolean().value(at));
    row.episode_id.clear();
    row.episode_id.push_str(column("episode_id")?.as_string::<i32>().value(at));
    row.step = u32_at("step")?;
    row.stage = column("stage")?.as_primitive::<UInt8Type>().value(at);
    row.action_mask = ActionMask::from_bits(u32_at("action_mask")?);
    row.events_seen = column("events_seen")?.as_primitive::<UInt64Type>().value(at);
    row.partial = flag("partial")?;
    row.end = match (flag("terminated")?, flag("truncated")?) {
        (false, false) => None,
        (true, false) => Some(End::Terminated),
        (false, true) => Some(End::Truncated),
        (true, true) => return Err("it is both terminated and truncated".into()),
    };
    let label = column("label")?.as_string::<i32>();
    row.label = (!label.is_null(at)).then(|| label.value(at).to_owned());

    let action = column("action")?.as_primitive::<UInt8Type>();
    let floats = |name: &str| Ok::<_, String>(column(name)?.as_primitive::<Float32Type>());
    let parts = [floats("r0")?, floats("r1")?, floats("behaviour_probability")?];
    let nulls = parts.iter().filter(|part| part.is_null(at)).count() + usize::from(action.is_null(at));
    row.played = match nulls {
        0 => Some(PlayedParts {
            action: u32::from(action.value(at)),
            r0: parts[0].value(at),
            r1: parts[1].value(at),
            behaviour_probability: parts[2].value(at),
        }),
        4 => None,
        _ => return Err("action, rewards and behaviour probability are present together or not at all".into()),
    };

    let float_list = |list: ArrayRef| list.as_primitive::<Float32Type>().values().clone();
    if header.q_values {
        let q_values = row.q_values.get_or_insert_default();
        q_values.clear();
        q_values.extend_from_slice(&float_list(column("q_values")?.as_fixed_size_list().value(at)));
    } else {
        row.q_values = None;
    }
    row.state.clear();
    match header.encoding {
        Encoding::Dense => row.state.extend_from_slice(&float_list(column("state")?.as_fixed_size_list().value(at))),
        Encoding::Sparse => {
            row.state.resize(header.width, 0.0);
            let indices = column("state_index")?.as_list::<i32>().value(at);
            let indices = indices.as_primitive::<UInt16Type>().values();
            let values = float_list(column("state_value")?.as_list::<i32>().value(at));
            if indices.len() != values.len() || !indices.is_sorted_by(|a, b| a < b) {
                return Err("its state has positions out of order or without a value".into());
            }
            for (index, value) in indices.iter().zip(values.iter()) {
                let element = row.state.get_mut(usize::from(*index));
                *element.ok_or_else(|| format!("element {index} of its state lies beyond the width"))? = *value;
            }
        }
    }
    Ok(())
}

/// Runs the Parquet crate, which panics on some files whose parts contradict one another. Checksums keep accidents away
/// from it; against a forged file, its panic is an error like any other. What it was working on is not used again.
fn guarded<T>(run: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ReplayError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(reading),
        Err(_) => Err(refuse("its parts contradict one another; it was not written by this program")),
    }
}

fn reading(error: ParquetError) -> ReplayError {
    refuse(format!("{error}; it is damaged, cut short, or no Parquet file"))
}
