//! Recordings in, telemetry out: readers of several formats, telemetry Parquet, data quality and splits.
//!
//! Every reader streams into an [`EventSink`], redacts personal values at the source, counts what it
//! leaves out in a [`QualityReport`] and never holds a recording whole. Nothing here opens a file for writing.

mod adfa_ld;
mod calls_csv;
mod csv;
mod digest;
mod error;
mod files;
#[doc(hidden)]
pub mod fuzz;
mod intake;
mod jsonl;
mod lines;
mod quality;
pub mod split;
pub mod strace;
pub mod telemetry;
mod validate;

pub use adfa_ld::read_adfa_ld;
pub use calls_csv::{read_calls_csv, read_calls_csv_from};
pub use digest::{ContentHash, DigestSink, EpisodeDigest};
pub use error::{IngestError, SinkError};
pub use jsonl::{JsonlWriter, read_jsonl};
pub use quality::{Examples, LabelCounts, MAX_EXAMPLES, MAX_NAMES, Problem, Problems, QualityReport, Tally};
pub use split::{Assignment, Leaks, Shares, Side, SplitBy, SplitList, SplitSink, assign, leaks};
pub use strace::{Description, read_strace, read_strace_log};
pub use telemetry::{ReadSummary, RowFault, TelemetryReader, TelemetrySummary, TelemetryWriter, WriterOptions};
pub use validate::{FileReport, ValidationReport, validate};

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::EventSink;
use crate::redact::Redactor;

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// JSON Lines, plain or gzip.
    Jsonl,
    /// The folder or zip archive of ADFA-LD.
    AdfaLd,
    /// A table `id,label,calls`, plain or gzip.
    CallsCsv,
    /// A log of strace, or a folder of logs.
    Strace,
}

/// What all readers have in common.
#[derive(Clone, Debug)]
pub struct Options {
    /// Replaces personal values in paths, arguments and peer addresses; `None` leaves them.
    pub redactor: Option<Redactor>,
    /// Keeps calls that are not on the list of recorded calls, instead of counting them. For `strace` logs only: the
    /// other formats hold what they hold.
    pub keep_all_calls: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { redactor: Some(Redactor::default()), keep_all_calls: false }
    }
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 4] = [Format::Jsonl, Format::AdfaLd, Format::CallsCsv, Format::Strace];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Jsonl => "jsonl",
            Format::AdfaLd => "adfa-ld",
            Format::CallsCsv => "calls-csv",
            Format::Strace => "strace",
        }
    }

    /// Reads what lies at `path` into `sink`.
    ///
    /// # Errors
    /// Those of the format's reader.
    pub fn read<S: EventSink + ?Sized>(
        self,
        path: &Path,
        options: &Options,
        sink: &mut S,
        report: &mut QualityReport,
    ) -> Result<(), IngestError> {
        match self {
            Format::Jsonl => read_jsonl(files::open(path)?, &path.display().to_string(), options, sink, report),
            Format::AdfaLd => read_adfa_ld(path, options, sink, report),
            Format::CallsCsv => read_calls_csv(path, options, sink, report),
            Format::Strace => read_strace(path, options, sink, report),
        }
    }
}

impl FromStr for Format {
    type Err = IngestError;

    fn from_str(name: &str) -> Result<Self, IngestError> {
        let found = Format::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| IngestError::UnknownFormat(name.to_owned()))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
