//! Recordings in, telemetry out: readers of several formats, telemetry Parquet, data quality and splits.
//!
//! Every reader streams into an [`EventSink`](crate::EventSink), redacts personal values at the source, counts what it
//! leaves out in a [`QualityReport`] and never holds a recording whole. Nothing here opens a file for writing.

mod adfa_ld;
mod digest;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod intake;
mod jsonl;
mod lines;
mod names;
mod quality;
pub mod telemetry;

pub use adfa_ld::read_adfa_ld;
pub use digest::{ContentHash, DigestSink, EpisodeDigest};
pub use error::{IngestError, SinkError};
pub use jsonl::{JsonlWriter, read_jsonl};
pub use quality::{Examples, LabelCounts, MAX_EXAMPLES, MAX_NAMES, Problem, Problems, QualityReport, Tally};
pub use telemetry::{ReadSummary, RowFault, TelemetryReader, TelemetrySummary, TelemetryWriter, WriterOptions};

use crate::redact::Redactor;

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
