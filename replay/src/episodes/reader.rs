//! Reading an episode file, a batch of rows at a time, with nothing taken on trust.

use super::batch::Batch;
use super::header::{FOOTER_TAIL_BYTES, GroupSum, is_sealed, refuse};
use super::order::Order;
use super::play::Player;
use super::{End, EpisodeFileHeader, Expect, PlayedParts, StepRow};
use crate::{ActionMask, Encoding, ReplayBuffer, ReplayError, StreamId};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
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
    batch: Option<Batch>,
    /// Row of the batch to read next.
    row: usize,
    policy_alone: bool,
}

/// Row groups of a file that no episode reaches into or out of, so that they can be read apart from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Numbers of its row groups.
    pub groups: Range<usize>,
    /// Its rows.
    pub rows: u64,
}

/// What [`EpisodeReader::survey`] found in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The file, in parts that can be read apart.
    pub shards: Vec<Shard>,
    /// What there is, counted as by [`EpisodeReader::load`].
    pub loaded: Loaded,
    /// Steps that can be learned from: their successor is known, or there is none.
    pub transitions: u64,
    /// Actions that one of these steps allowed.
    pub allowed: ActionMask,
    /// Actions that were played in them.
    pub played: ActionMask,
}

/// What [`EpisodeReader::load`] brought into a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Episodes.
    pub episodes: u64,
    /// Steps in which something was played.
    pub steps: u64,
    /// Those of them that the safe rule decided.
    pub safe_rule: u64,
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

impl Loaded {
    fn count(&mut self, row: &StepRow) {
        self.episodes += u64::from(row.step == 0);
        self.steps += u64::from(row.played.is_some());
        self.safe_rule += u64::from(row.played.is_some_and(|played| played.safe_rule));
        self.partial += u64::from(row.partial);
    }
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
            policy_alone: false,
        })
    }

    /// From here on, steps that the safe rule decided are nothing to learn from: [`load`](Self::load), [`survey`](Self::survey)
    /// and [`streamed`](crate::streamed) take each for the final state of an episode that was cut off there, and what follows for
    /// an episode of its own. [`next`](Self::next) gives them as they are, and they are counted as before.
    #[must_use]
    pub fn policy_alone(self) -> Self {
        EpisodeReader { policy_alone: true, ..self }
    }

    /// What a row of this reader is learned from as: what was played, and how the episode ends.
    pub(crate) fn learned(&self, row: &StepRow) -> (Option<PlayedParts>, Option<End>) {
        match row.played {
            Some(played) if self.policy_alone && played.safe_rule => (None, Some(End::Truncated)),
            played => (played, row.end),
        }
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
            if let Some(batch) = self.batch.as_ref().filter(|batch| self.row < batch.rows()) {
                batch.read(&self.header, self.row, row).map_err(|reason| ReplayError::Step {
                    row: self.order.rows(),
                    episode: row.episode_id.clone(),
                    step: row.step,
                    reason,
                })?;
                self.order.take(&self.header, &row.as_step())?;
                self.row += 1;
                return Ok(true);
            }
            let batch = match &mut self.batches {
                Some(batches) => guarded(|| Ok(batches.next().transpose()?))?,
                None => None,
            };
            self.batch = batch.map(|batch| Batch::new(&self.header, &batch)).transpose().map_err(refuse)?;
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
        let mut player = Player::new(stream);
        let mut loaded = Loaded::default();
        while self.next(&mut row)? {
            loaded.count(&row);
            let reward = reward(&row);
            let (played, end) = self.learned(&row);
            let played = played.map(|parts| parts.with_reward(reward));
            player.play(buffer, &row.state, row.action_mask, played, end)?;
        }
        Ok(loaded)
    }

    /// Reads the file from its beginning to its end and says what is in it; `each` is shown every row.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn survey(&mut self, mut each: impl FnMut(&StepRow)) -> Result<Survey, ReplayError> {
        let mut row = StepRow::default();
        let (mut survey, mut allowed, mut played) = (Survey::default(), 0, 0);
        self.go_to_group(0);
        while self.next(&mut row)? {
            each(&row);
            survey.loaded.count(&row);
            if let (Some(parts), None | Some(End::Terminated)) = self.learned(&row) {
                survey.transitions += 1;
                allowed |= row.action_mask.bits();
                played |= 1 << parts.action;
            }
            // Where no episode was under way when a group began, a shard begins with it.
            let end = self.group;
            match survey.shards.last_mut() {
                Some(shard) if shard.groups.end == end || row.step > 0 => {
                    (shard.groups.end, shard.rows) = (end, shard.rows + 1);
                }
                before => {
                    let start = before.map_or(0, |shard| shard.groups.end);
                    survey.shards.push(Shard { groups: start..end, rows: 1 });
                }
            }
        }
        (survey.allowed, survey.played) = (ActionMask::from_bits(allowed), ActionMask::from_bits(played));
        Ok(survey)
    }

    /// Goes on with this row group, which begins with an episode: one that a [`Shard`] begins with. Rows in errors are counted from
    /// the beginning of the file on. What went wrong before is forgotten.
    pub fn go_to_group(&mut self, group: usize) {
        let groups = self.metadata.metadata().row_groups();
        let before = groups.iter().take(group).map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).sum();
        self.order = Order::after(before);
        (self.failed, self.group, self.batches, self.batch, self.row) = (false, group, None, None, 0);
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
