//! What can go wrong while telemetry is read, written or split.

use std::path::PathBuf;

use super::telemetry::RowFault;

/// An error of a sink, whatever its type.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Why recordings could not be read, written or split. Faults of single lines are no errors: they are counted in the
/// [`QualityReport`](super::QualityReport).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// A file or folder could not be opened, read or listed.
    #[error("cannot read {}: {cause}; check the path and its permissions", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A stream failed while it was read or written.
    #[error("cannot {doing}: {cause}")]
    Stream {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A path held no recording of the format that was asked for.
    #[error("{} holds no {format} recording: {expected}", path.display())]
    NothingFound {
        /// The file or folder.
        path: PathBuf,
        /// Name of the format.
        format: &'static str,
        /// What is looked for.
        expected: &'static str,
    },
    /// A file is not of the format that was asked for.
    #[error("{} is not {format}: {reason}", path.display())]
    NotThisFormat {
        /// The file.
        path: PathBuf,
        /// Name of the format.
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// No reader has this name.
    #[error("unknown format `{0}`; the formats are jsonl, adfa-ld, calls-csv and strace")]
    UnknownFormat(String),
    /// A zip archive is damaged or larger than the limits allow.
    #[error("cannot read the archive {}: {reason}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The description beside a log is not valid.
    #[error("the description {} is not valid: {reason}; correct or remove it", path.display())]
    Sidecar {
        /// The description.
        path: PathBuf,
        /// What is wrong, with line and column.
        reason: String,
    },
    /// A Parquet file is damaged, cut off or not Parquet at all.
    #[error("not a readable Parquet file ({0}); it is damaged, cut off or of another format: write it again")]
    Parquet(String),
    /// A telemetry file lacks a column that every row needs.
    #[error("the telemetry file has no column `{0}`; it needs episode_id, stage, seq, kind and name")]
    MissingColumn(&'static str),
    /// A column of a telemetry file has a type that its values cannot have.
    #[error("column `{column}` is of type {found}, but should be {expected}; convert it and write the file again")]
    ColumnType {
        /// The column.
        column: &'static str,
        /// The type in the file.
        found: String,
        /// The types that are read.
        expected: &'static str,
    },
    /// A telemetry file was written by another version of the format.
    #[error(
        "the telemetry file says format version `{0}`, and this program reads version 1; use the program that wrote it"
    )]
    Version(String),
    /// A row of a telemetry file breaks the rules of the format.
    #[error("row {row}, episode `{episode}`: {fault}; `validate` lists every such row")]
    Row {
        /// Row in the file, from 0.
        row: u64,
        /// Its episode, empty where the row names none.
        episode: String,
        /// The rule.
        fault: RowFault,
    },
    /// An event handed to a writer breaks the rules of the format.
    #[error("episode `{episode}`, event {seq}: {fault}")]
    Event {
        /// The episode.
        episode: String,
        /// Position of the event.
        seq: u64,
        /// The rule.
        fault: RowFault,
    },
    /// A sink was called out of turn: an event outside an episode, or an episode within another.
    #[error("{0}; call begin, event and end in turn")]
    OutOfTurn(&'static str),
    /// A sink refused what it was given.
    #[error("cannot hand on what was read: {0}")]
    Sink(SinkError),
    /// The list of a split cannot be used.
    #[error("line {line} of the split list: {reason}")]
    SplitList {
        /// Line, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// The parts of a split cannot be made as asked.
    #[error("cannot split: {0}")]
    Split(String),
}

impl IngestError {
    /// Wraps the error of a sink; one that is of this type already stays as it is.
    pub fn from_sink<E: std::error::Error + Send + Sync + 'static>(error: E) -> Self {
        let boxed: SinkError = Box::new(error);
        match boxed.downcast::<IngestError>() {
            Ok(own) => *own,
            Err(other) => IngestError::Sink(other),
        }
    }

    pub(crate) fn io(path: &std::path::Path, cause: std::io::Error) -> Self {
        IngestError::Io { path: path.to_owned(), cause }
    }
}
