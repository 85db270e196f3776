//! Telemetry Parquet to events.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::file::reader::ChunkReader;

use super::rows::{BLANK, BLOCK, Rows, Wanted};
use super::{RowFault, VERSION, VERSION_KEY, check_event, schema};
use crate::ingest::digest::short_hash;
use crate::ingest::{IngestError, QualityReport};
use crate::{EpisodeAttributes, EpisodeId, Event, EventSink};

/// Rows decoded at a time: with their text, what a reader holds.
const BATCH_ROWS: usize = 4096;

/// What was read from a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadSummary {
    /// Episodes handed on.
    pub episodes: u64,
    /// Events handed on.
    pub events: u64,
    /// Rows that broke a rule and were left out; 0 where the first one is an error.
    pub faulty_rows: u64,
}

/// Reads a telemetry file as a stream of episodes. Memory is bounded by one batch of rows, whatever the size of the
/// file, its row groups and its episodes.
pub struct TelemetryReader {
    batches: ParquetRecordBatchReader,
    wanted: Wanted,
    rows: u64,
    unknown_columns: Vec<String>,
}

impl TelemetryReader {
    /// Opens a file.
    ///
    /// # Errors
    /// [`IngestError::Stream`] when it cannot be opened, otherwise as [`TelemetryReader::new`].
    pub fn open(path: &Path) -> Result<Self, IngestError> {
        let file = std::fs::File::open(path).map_err(|cause| IngestError::Stream { doing: "open it", cause })?;
        Self::new(file)
    }

    /// Reads a file that lies in memory.
    ///
    /// # Errors
    /// As [`TelemetryReader::new`].
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self, IngestError> {
        Self::new(bytes.into())
    }

    /// Reads the footer and checks version and columns. A missing optional column reads as null, an unknown column is
    /// left alone.
    ///
    /// # Errors
    /// [`IngestError::Parquet`] for what is no Parquet file, [`IngestError::Version`] for another version,
    /// [`IngestError::MissingColumn`] and [`IngestError::ColumnType`] for columns that do not fit.
    pub fn new<R: ChunkReader + 'static>(from: R) -> Result<Self, IngestError> {
        caught(move || Self::new_unguarded(from))?
    }

    fn new_unguarded<R: ChunkReader + 'static>(from: R) -> Result<Self, IngestError> {
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let natural = ArrowReaderMetadata::load(&from, options.clone()).map_err(damaged)?;
        let metadata = natural.metadata();
        let entries = metadata.file_metadata().key_value_metadata();
        if let Some(version) = entries.into_iter().flatten().find(|entry| entry.key == VERSION_KEY) {
            let version = version.value.clone().unwrap_or_default();
            if version != VERSION {
                return Err(IngestError::Version(version));
            }
        }
        let known = schema();
        let unknown_columns = natural.schema().fields().iter().map(|field| field.name().clone());
        let unknown_columns = unknown_columns.filter(|name| known.field_with_name(name).is_err()).collect();
        // Views share the page's text: nothing is copied, and an equal view is an equal text.
        let fields: Vec<Field> = natural.schema().fields().iter().map(|field| as_view(field)).collect();
        let options = options.with_schema(Arc::new(Schema::new(fields)));
        let fitted = ArrowReaderMetadata::try_new(Arc::clone(metadata), options).map_err(damaged)?;
        let wanted = Wanted::from_schema(fitted.schema())?;
        let roots: Vec<usize> = (0..fitted.schema().fields().len())
            .filter(|&index| known.field_with_name(fitted.schema().field(index).name()).is_ok())
            .collect();
        let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        let mask = ProjectionMask::roots(fitted.parquet_schema(), roots);
        let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(from, fitted)
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(damaged)?;
        Ok(TelemetryReader { batches, wanted, rows, unknown_columns })
    }

    /// Rows of the file, as its footer says.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Columns of the file that the format does not know and that are not read.
    pub fn unknown_columns(&self) -> &[String] {
        &self.unknown_columns
    }

    /// Hands all episodes to `sink`. The first row that breaks a rule is an error.
    ///
    /// # Errors
    /// [`IngestError::Row`] for such a row, [`IngestError::Parquet`] where the file is damaged, and the errors of the
    /// sink. Episodes handed on before stay handed on.
    pub fn read<S: EventSink + ?Sized>(self, sink: &mut S) -> Result<ReadSummary, IngestError> {
        self.stream(sink, &mut |row, episode, fault| Err(IngestError::Row { row, episode: episode.to_owned(), fault }))
    }

    /// Hands all episodes to `sink`, leaving out the rows that break a rule and counting them in `report`.
    ///
    /// # Errors
    /// [`IngestError::Parquet`] where the file is damaged, and the errors of the sink.
    pub fn read_counting<S: EventSink + ?Sized>(
        self,
        file: &str,
        sink: &mut S,
        report: &mut QualityReport,
    ) -> Result<ReadSummary, IngestError> {
        for column in &self.unknown_columns {
            report.unknown_keys.add(column, self.rows);
        }
        self.stream(sink, &mut |row, episode, fault| {
            if fault == RowFault::NotContiguous {
                report.duplicate_ids.add_once(episode);
            }
            report.bad_rows.add(file, row, &format!("episode `{episode}`: {fault}"));
            Ok(())
        })
    }

    fn stream<S: EventSink + ?Sized>(
        mut self,
        sink: &mut S,
        on_fault: &mut OnFault<'_>,
    ) -> Result<ReadSummary, IngestError> {
        let mut stream =
            Stream { sink, on_fault, seen: HashSet::new(), open: None, row: 0, summary: ReadSummary::default() };
        loop {
            let batches = &mut self.batches;
            match caught(move || batches.next())? {
                None => break,
                Some(Err(error)) => return Err(IngestError::Parquet(error.to_string())),
                Some(Ok(batch)) => {
                    let rows = self.wanted.rows(&batch)?;
                    stream.batch(&batch, &rows)?;
                }
            }
        }
        stream.close()?;
        Ok(stream.summary)
    }
}

/// Decides what becomes of a row that breaks a rule: (row, episode, fault).
type OnFault<'a> = dyn FnMut(u64, &str, RowFault) -> Result<(), IngestError> + 'a;

/// Turns rows into calls of a sink.
struct Stream<'a, 'b, S: EventSink + ?Sized> {
    sink: &'a mut S,
    on_fault: &'a mut OnFault<'b>,
    /// Short hashes of the episodes met so far.
    seen: HashSet<[u8; 16]>,
    open: Option<Open>,
    row: u64,
    summary: ReadSummary,
}

/// The episode that is being read.
struct Open {
    attributes: EpisodeAttributes,
    last: Option<(u8, u64)>,
    /// `complete` of its last row.
    complete: bool,
    /// It was over before: its rows are left out.
    repeated: bool,
}

impl<S: EventSink + ?Sized> Stream<'_, '_, S> {
    fn batch(&mut self, batch: &RecordBatch, rows: &Rows) -> Result<(), IngestError> {
        let mut new_id = vec![false; batch.num_rows()];
        rows.episode_id.mark_changes(&mut new_id);
        let changes = rows.attribute_changes();
        let (mut has_id, mut compare) = (false, false);
        let mut events = [BLANK; BLOCK];
        for row in 0..batch.num_rows() {
            let at = row % BLOCK;
            if at == 0 {
                events = [BLANK; BLOCK];
                rows.fill(row, &mut events[..BLOCK.min(batch.num_rows() - row)]);
            }
            if new_id[row] {
                let id = rows.episode_id.get(row);
                has_id = id.is_some();
                if let Some(id) = id {
                    self.enter(id, rows, row)?;
                }
            }
            // Text of attributes is compared only where it may have changed since a row that was compared.
            compare |= changes[row];
            if has_id {
                self.one(rows, row, &events[at], compare)?;
                compare = false;
            } else {
                self.fault(RowFault::Missing("episode_id"))?;
            }
            self.row += 1;
        }
        Ok(())
    }

    /// Goes on with the episode `id`, which may be the open one.
    fn enter(&mut self, id: &str, rows: &Rows, row: usize) -> Result<(), IngestError> {
        if self.open.as_ref().is_some_and(|open| open.attributes.episode_id.0 == id) {
            return Ok(());
        }
        self.close()?;
        let (attributes, fault) = rows.attributes(row, EpisodeId(id.to_owned()));
        let complete = attributes.complete;
        let repeated = !self.seen.insert(short_hash(id.as_bytes()));
        if !repeated {
            self.sink.begin(&attributes).map_err(IngestError::from_sink)?;
        }
        self.open = Some(Open { attributes, last: None, complete, repeated });
        match fault {
            Some(fault) => self.fault(fault),
            None => Ok(()),
        }
    }

    fn one(&mut self, rows: &Rows, row: usize, event: &Event<'_>, compare: bool) -> Result<(), IngestError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.repeated {
            return self.fault(RowFault::NotContiguous);
        }
        if let Some(fault) = rows.fault(row) {
            return self.fault(fault.clone());
        }
        if let Err(fault) = check_event(event) {
            return self.fault(fault);
        }
        let here = (event.stage, event.seq);
        if open.last.is_some_and(|last| here <= last) {
            return self.fault(RowFault::OutOfOrder);
        }
        open.last = Some(here);
        // An early row group may not know yet whether the episode is complete; the last row does.
        open.complete = rows.complete.get(row).unwrap_or(true);
        let changed = if compare { rows.changed_attribute(row, &open.attributes) } else { None };
        self.sink.event(event).map_err(IngestError::from_sink)?;
        self.summary.events += 1;
        match changed {
            Some(column) => {
                (self.on_fault)(self.row, &open.attributes.episode_id.0, RowFault::AttributeChanged(column))
            }
            None => Ok(()),
        }
    }

    fn close(&mut self) -> Result<(), IngestError> {
        if let Some(open) = self.open.take()
            && !open.repeated
        {
            self.sink.end(open.complete).map_err(IngestError::from_sink)?;
            self.summary.episodes += 1;
        }
        Ok(())
    }

    fn fault(&mut self, fault: RowFault) -> Result<(), IngestError> {
        self.summary.faulty_rows += 1;
        let episode = self.open.as_ref().map_or("", |open| open.attributes.episode_id.0.as_str());
        (self.on_fault)(self.row, episode, fault)
    }
}

fn as_view(field: &Field) -> Field {
    let text = matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    if text && schema().field_with_name(field.name()).is_ok() {
        Field::new(field.name(), DataType::Utf8View, field.is_nullable())
    } else {
        field.clone()
    }
}

/// Runs a step of the Parquet decoder. It is not written for hostile bytes throughout: what it panics on is a damaged
/// file to us.
fn caught<T>(step: impl FnOnce() -> T) -> Result<T, IngestError> {
    catch_unwind(AssertUnwindSafe(step)).map_err(|_| IngestError::Parquet("its pages contradict its footer".to_owned()))
}

fn damaged(error: parquet::errors::ParquetError) -> IngestError {
    IngestError::Parquet(error.to_string())
}
