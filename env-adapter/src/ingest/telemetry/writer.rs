//! Events to telemetry Parquet.

use std::io::Write;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::types::{Float32Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

use super::columns::{Bools, Numbers, Texts};
use super::group::{Group, is_keyed};
use super::{MAX_ATTRIBUTE_BYTES, RowFault, VERSION, VERSION_KEY, check_event, column, is_valid, schema};
use crate::ingest::IngestError;
use crate::{EpisodeAttributes, Event, EventSink};

/// Rows that are turned into arrays and encoded together.
const BATCH_ROWS: usize = 8192;
/// Text held in a batch before it is encoded early, in bytes.
const BATCH_TEXT_BYTES: usize = 16 << 20;
/// The longest text of one field, in bytes: what a batch may exceed its limit by.
const MAX_TEXT_BYTES: usize = 16 << 20;

/// How a telemetry file is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// Rows after which a row group ends with the current episode; an episode that goes on for four times as many is
    /// cut between row groups. At least 1.
    pub row_group_rows: usize,
    /// Bytes of encoded data after which a row group ends, whatever its rows: the bound on the memory of a writer.
    pub row_group_bytes: usize,
    /// zstd level, 1 to 22.
    pub zstd_level: i32,
    /// Further entries of the file's metadata.
    pub metadata: Vec<(String, String)>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        WriterOptions { row_group_rows: 1 << 17, row_group_bytes: 32 << 20, zstd_level: 3, metadata: Vec::new() }
    }
}

/// What a finished file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TelemetrySummary {
    /// Episodes with at least one event.
    pub episodes: u64,
    /// Episodes without events: a file of one row per event has no place for them.
    pub empty_episodes: u64,
    /// Rows.
    pub events: u64,
    /// Row groups.
    pub row_groups: u64,
}

/// Writes episodes as telemetry Parquet. Memory is bounded by one row group.
///
/// Whether an episode is complete is known at its end. Rows of a row group that had to be closed before hold null in
/// `complete`; the last row of an episode always holds the truth, and readers take it from there.
pub struct TelemetryWriter<W: Write + Send> {
    file: SerializedFileWriter<W>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    options: WriterOptions,
    /// Encoders of the open row group, one per column that is encoded batch by batch; empty before its first batch.
    encoders: Vec<ArrowColumnWriter>,
    batch: Batch,
    group: Group,
    /// Rows of the open row group that are encoded already.
    encoded_rows: usize,
    /// (rows, complete) of the open row group, over the encoded rows and the batch.
    complete: Vec<(usize, Option<bool>)>,
    episode: Option<Open>,
    summary: TelemetrySummary,
}

/// The episode that is being written.
struct Open {
    attributes: Arc<EpisodeAttributes>,
    last: Option<(u8, u64)>,
    /// Rows of the episode in the open row group.
    group_rows: usize,
}

/// Rows that are not encoded yet, in the other columns.
struct Batch {
    rows: usize,
    seq: Numbers<UInt64Type>,
    time_ns: Numbers<UInt64Type>,
    pid: Numbers<UInt32Type>,
    tid: Numbers<UInt32Type>,
    ppid: Numbers<UInt32Type>,
    name: Texts,
    path: Texts,
    path2: Texts,
    args: Texts,
    peer_addr: Texts,
    peer_port: Numbers<UInt16Type>,
    bytes: Numbers<UInt64Type>,
    entropy: Numbers<Float32Type>,
    ret: Numbers<Int64Type>,
    errno: Numbers<Int32Type>,
    flags: Numbers<UInt32Type>,
    created: Bools,
    denied: Bools,
    isolation: Numbers<UInt8Type>,
    raced: Bools,
}

impl<W: Write + Send> TelemetryWriter<W> {
    /// Starts a file with the default options.
    ///
    /// # Errors
    /// [`IngestError::Parquet`] when the header cannot be written.
    pub fn new(to: W) -> Result<Self, IngestError> {
        Self::with_options(to, WriterOptions::default())
    }

    /// Starts a file.
    ///
    /// # Errors
    /// [`IngestError::Parquet`] when the header cannot be written or the zstd level does not exist.
    pub fn with_options(to: W, options: WriterOptions) -> Result<Self, IngestError> {
        let schema = schema();
        let properties = Arc::new(properties(&options)?);
        let parquet_schema = ArrowSchemaConverter::new().schema_root("telemetry").convert(&schema).map_err(written)?;
        let file = SerializedFileWriter::new(to, parquet_schema.root_schema_ptr(), properties).map_err(written)?;
        let factory = ArrowRowGroupWriterFactory::new(&file, Arc::clone(&schema));
        Ok(TelemetryWriter {
            file,
            factory,
            schema,
            options,
            encoders: Vec::new(),
            batch: Batch::new(),
            group: Group::default(),
            encoded_rows: 0,
            complete: Vec::new(),
            episode: None,
            summary: TelemetrySummary::default(),
        })
    }

    /// Writes what is left and the footer, and hands back the destination.
    ///
    /// # Errors
    /// [`IngestError::OutOfTurn`] within an episode, [`IngestError::Parquet`] when writing fails.
    pub fn finish(mut self) -> Result<(W, TelemetrySummary), IngestError> {
        if self.episode.is_some() {
            return Err(IngestError::OutOfTurn("the file was finished within an episode"));
        }
        self.close_row_group()?;
        let summary = self.summary;
        let to = self.file.into_inner().map_err(written)?;
        Ok((to, summary))
    }

    /// Turns the rows of the batch into arrays and encodes them, all columns but `complete`.
    fn encode_batch(&mut self) -> Result<(), IngestError> {
        let rows = self.batch.rows;
        if rows == 0 {
            return Ok(());
        }
        if self.encoders.is_empty() {
            let group = self.file.flushed_row_groups().len();
            let all = self.factory.create_column_writers(group).map_err(written)?;
            let batched = all.into_iter().zip(self.schema.fields()).filter(|(_, field)| !is_keyed(field.name()));
            self.encoders = batched.map(|(encoder, _)| encoder).collect();
        }
        let arrays = self.batch.finish()?;
        let fields = self.schema.fields().iter().filter(|field| !is_keyed(field.name()));
        for ((array, field), encoder) in arrays.iter().zip(fields).zip(&mut self.encoders) {
            for leaf in compute_leaves(field, array).map_err(written)? {
                encoder.write(&leaf).map_err(written)?;
            }
        }
        self.encoded_rows += rows;
        Ok(())
    }

    fn close_row_group(&mut self) -> Result<(), IngestError> {
        self.encode_batch()?;
        if let Some(open) = &mut self.episode
            && open.group_rows > 0
        {
            self.complete.push((open.group_rows, None));
            open.group_rows = 0;
        }
        if self.encoded_rows == 0 {
            return Ok(());
        }
        self.encode_complete()?;
        let rows = std::mem::take(&mut self.encoded_rows);
        let group = std::mem::take(&mut self.group);
        let columns = self.file.schema_descr().columns().to_vec();
        let mut out = self.file.next_row_group().map_err(written)?;
        let mut encoders = self.encoders.drain(..);
        for (column, field) in columns.iter().zip(self.schema.fields()) {
            if is_keyed(field.name()) {
                let (bytes, close) =
                    group.chunk(field.name(), column, rows, self.options.zstd_level).map_err(written)?;
                out.append_column(&bytes, close).map_err(written)?;
            } else if let Some(encoder) = encoders.next() {
                encoder.close().and_then(|chunk| chunk.append_to_row_group(&mut out)).map_err(written)?;
            }
        }
        drop(encoders);
        out.close().map_err(written)?;
        self.summary.row_groups += 1;
        Ok(())
    }

    fn encode_complete(&mut self) -> Result<(), IngestError> {
        let mut column = Bools::new();
        let mut row = 0;
        for (count, complete) in self.complete.drain(..) {
            for _ in 0..count {
                column.push(row, complete);
                row += 1;
            }
        }
        let (Some(field), Some(encoder)) = (self.schema.fields().last(), self.encoders.last_mut()) else {
            return Ok(());
        };
        for leaf in compute_leaves(field, &column.finish(row)).map_err(written)? {
            encoder.write(&leaf).map_err(written)?;
        }
        Ok(())
    }

    /// Encodes a full batch and, within an episode, closes a row group that has grown far past its size.
    fn make_room(&mut self, within_episode: bool) -> Result<(), IngestError> {
        if self.batch.rows >= BATCH_ROWS || self.batch.text_bytes() >= BATCH_TEXT_BYTES {
            self.encode_batch()?;
            if self.encoded_bytes() >= self.options.row_group_bytes {
                return self.close_row_group();
            }
        }
        if within_episode && self.group_rows() >= self.options.row_group_rows.max(1).saturating_mul(4) {
            self.close_row_group()?;
        }
        Ok(())
    }

    fn group_rows(&self) -> usize {
        self.encoded_rows + self.batch.rows
    }

    fn encoded_bytes(&self) -> usize {
        self.encoders.iter().map(ArrowColumnWriter::memory_size).sum()
    }
}

impl<W: Write + Send> EventSink for TelemetryWriter<W> {
    type Error = IngestError;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), IngestError> {
        if self.episode.is_some() {
            return Err(IngestError::OutOfTurn("an episode began within another"));
        }
        for (column, text) in [
            (column::EPISODE_ID, Some(&attributes.episode_id.0)),
            (column::FAMILY, attributes.family.as_ref()),
            (column::SOURCE, attributes.source.as_ref()),
            (column::SAMPLE_SHA256, attributes.sample_sha256.as_ref()),
        ] {
            let length = text.map_or(0, String::len);
            if length > MAX_ATTRIBUTE_BYTES {
                let fault = RowFault::OutOfRange { column, value: format!("{length} bytes long"), allowed: "64 KiB" };
                let episode = attributes.episode_id.0.chars().take(64).collect();
                return Err(IngestError::Event { episode, seq: 0, fault });
            }
        }
        self.episode = Some(Open { attributes: Arc::new(attributes.clone()), last: None, group_rows: 0 });
        Ok(())
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), IngestError> {
        let Some(open) = &mut self.episode else {
            return Err(IngestError::OutOfTurn("an event came outside an episode"));
        };
        let here = (event.stage, event.seq);
        if !is_valid(event) || open.last.is_some_and(|last| here <= last) || is_over_long(event) {
            return Err(refused(event, open));
        }
        // A full group is closed before the next row and not after the last, so that the last row of every episode
        // is still open when the episode ends and its `complete` becomes known.
        let begun = open.last.is_some();
        self.make_room(begun)?;
        let Some(open) = &mut self.episode else {
            return Err(IngestError::OutOfTurn("an event came outside an episode"));
        };
        if !begun || self.group.runs.is_empty() {
            self.group.begin(Arc::clone(&open.attributes));
        }
        open.last = Some(here);
        open.group_rows += 1;
        self.group.push(event);
        self.batch.push(event);
        self.summary.events += 1;
        Ok(())
    }

    fn end(&mut self, complete: bool) -> Result<(), IngestError> {
        let Some(open) = self.episode.take() else {
            return Err(IngestError::OutOfTurn("an episode ended that had not begun"));
        };
        if open.last.is_none() {
            self.summary.empty_episodes += 1;
            return Ok(());
        }
        self.summary.episodes += 1;
        if open.group_rows == 0 {
            return Ok(());
        }
        self.complete.push((open.group_rows, Some(complete)));
        let full = self.group_rows() >= self.options.row_group_rows;
        if full || self.group.attribute_bytes >= self.options.row_group_bytes {
            self.close_row_group()?;
        }
        Ok(())
    }
}

impl Batch {
    fn new() -> Self {
        Batch {
            rows: 0,
            seq: Numbers::new(),
            time_ns: Numbers::new(),
            pid: Numbers::new(),
            tid: Numbers::new(),
            ppid: Numbers::new(),
            name: Texts::new(),
            path: Texts::new(),
            path2: Texts::new(),
            args: Texts::new(),
            peer_addr: Texts::new(),
            peer_port: Numbers::new(),
            bytes: Numbers::new(),
            entropy: Numbers::new(),
            ret: Numbers::new(),
            errno: Numbers::new(),
            flags: Numbers::new(),
            created: Bools::new(),
            denied: Bools::new(),
            isolation: Numbers::new(),
            raced: Bools::new(),
        }
    }

    #[inline]
    fn push(&mut self, event: &Event<'_>) {
        let row = self.rows;
        self.seq.push(row, Some(event.seq));
        self.name.push(row, Some(event.name));
        self.time_ns.push(row, event.time_ns);
        self.pid.push(row, event.pid);
        self.tid.push(row, event.tid);
        self.ppid.push(row, event.ppid);
        self.path.push(row, event.path);
        self.path2.push(row, event.path2);
        self.args.push(row, event.args);
        self.peer_addr.push(row, event.peer_addr);
        self.peer_port.push(row, event.peer_port);
        self.bytes.push(row, event.bytes);
        self.entropy.push(row, event.entropy);
        self.ret.push(row, event.ret);
        self.errno.push(row, event.errno);
        self.flags.push(row, event.flags);
        self.created.push(row, event.created);
        self.denied.push(row, event.denied);
        self.isolation.push(row, event.isolation);
        self.raced.push(row, event.raced);
        self.rows += 1;
    }

    fn text_bytes(&self) -> usize {
        [&self.name, &self.path, &self.path2, &self.args, &self.peer_addr].iter().map(|texts| texts.len_bytes()).sum()
    }

    /// The arrays of all columns that are encoded by batch, but `complete`, in the order of the schema.
    fn finish(&mut self) -> Result<Vec<ArrayRef>, IngestError> {
        let rows = std::mem::take(&mut self.rows);
        Ok(vec![
            self.seq.finish(rows),
            self.time_ns.finish(rows),
            self.pid.finish(rows),
            self.tid.finish(rows),
            self.ppid.finish(rows),
            self.name.finish(rows).map_err(arrow)?,
            self.path.finish(rows).map_err(arrow)?,
            self.path2.finish(rows).map_err(arrow)?,
            self.args.finish(rows).map_err(arrow)?,
            self.peer_addr.finish(rows).map_err(arrow)?,
            self.peer_port.finish(rows),
            self.bytes.finish(rows),
            self.entropy.finish(rows),
            self.ret.finish(rows),
            self.errno.finish(rows),
            self.flags.finish(rows),
            self.created.finish(rows),
            self.denied.finish(rows),
            self.isolation.finish(rows),
            self.raced.finish(rows),
        ])
    }
}

fn texts<'a>(event: &Event<'a>) -> [(&'static str, Option<&'a str>); 5] {
    [
        (column::NAME, Some(event.name)),
        (column::PATH, event.path),
        (column::PATH2, event.path2),
        (column::ARGS, event.args),
        (column::PEER_ADDR, event.peer_addr),
    ]
}

#[inline]
fn is_over_long(event: &Event<'_>) -> bool {
    texts(event).iter().any(|(_, text)| text.map_or(0, str::len) > MAX_TEXT_BYTES)
}

/// What an event breaks that cannot be written.
#[cold]
fn refused(event: &Event<'_>, open: &Open) -> IngestError {
    let over_long = || {
        let (column, text) = texts(event).into_iter().find(|(_, text)| text.map_or(0, str::len) > MAX_TEXT_BYTES)?;
        let value = format!("{} bytes long", text.map_or(0, str::len));
        Some(RowFault::OutOfRange { column, value, allowed: "16 MiB" })
    };
    let fault = check_event(event).err().or_else(over_long).unwrap_or(RowFault::OutOfOrder);
    IngestError::Event { episode: open.attributes.episode_id.0.clone(), seq: event.seq, fault }
}

fn properties(options: &WriterOptions) -> Result<WriterProperties, IngestError> {
    let level = ZstdLevel::try_new(options.zstd_level).map_err(written)?;
    let mut metadata = vec![KeyValue::new(VERSION_KEY.to_owned(), VERSION.to_owned())];
    metadata.extend(options.metadata.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())));
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("bellwether ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_dictionary_enabled(true)
        // Nothing here prunes by value, and comparing every text costs a tenth of the time.
        .set_statistics_enabled(EnabledStatistics::None)
        .set_key_value_metadata(Some(metadata));
    // These two rise from row to row: their differences compress, a dictionary of them does not.
    for name in [column::SEQ, column::TIME_NS] {
        builder = builder
            .set_column_dictionary_enabled(ColumnPath::from(name), false)
            .set_column_encoding(ColumnPath::from(name), Encoding::DELTA_BINARY_PACKED);
    }
    Ok(builder.build())
}

fn written(error: ParquetError) -> IngestError {
    match error {
        ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(cause) => IngestError::Stream { doing: "write telemetry", cause: *cause },
            Err(source) => IngestError::Parquet(source.to_string()),
        },
        other => IngestError::Parquet(other.to_string()),
    }
}

fn arrow(error: arrow_schema::ArrowError) -> IngestError {
    IngestError::Parquet(error.to_string())
}
