//! Validation of telemetry files: schema, order, ranges, labels, duplicates, and leaks between files.

use std::convert::Infallible;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::digest::{DigestSink, EpisodeDigest};
use super::split::{Leaks, leaks};
use super::{IngestError, QualityReport, TelemetryReader};
use crate::{EpisodeAttributes, Event, EventSink};

/// What validation found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ValidationReport {
    /// The files, in the order given.
    pub files: Vec<FileReport>,
    /// What more than one of the files holds.
    pub leaks: Leaks,
}

/// What validation found in a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileReport {
    /// The file.
    pub file: String,
    /// Why it could not be read to its end, if so.
    pub error: Option<String>,
    /// What was read of it.
    pub report: QualityReport,
}

/// Reads telemetry files to their ends and reports all that is wrong with them. Memory grows with episodes, not with
/// events.
pub fn validate<P: AsRef<Path>>(files: &[P]) -> ValidationReport {
    let mut validation = ValidationReport::default();
    let mut parts = Vec::with_capacity(files.len());
    for file in files {
        let name = file.as_ref().display().to_string();
        let mut report = QualityReport::default();
        let result = read(file.as_ref(), &name, &mut report);
        let (episodes, error) = match result {
            Ok(episodes) => (episodes, None),
            Err((episodes, error)) => (episodes, Some(error.to_string())),
        };
        parts.push(episodes);
        validation.files.push(FileReport { file: name, error, report });
    }
    validation.leaks = leaks(&parts);
    validation
}

type Episodes = Vec<EpisodeDigest>;

fn read(path: &Path, name: &str, report: &mut QualityReport) -> Result<Episodes, (Episodes, IngestError)> {
    let reader = TelemetryReader::open(path).map_err(|error| (Vec::new(), error))?;
    let mut sink = Checked::default();
    let result = reader.read_counting(name, &mut sink, report);
    report.files += 1;
    report.notes.add("events whose time goes back", sink.back);
    for episode in &sink.digests.episodes {
        report.observe(episode);
    }
    match result {
        Ok(_) => Ok(sink.digests.episodes),
        Err(error) => Err((sink.digests.episodes, error)),
    }
}

/// Digests, and what no single row can have wrong.
#[derive(Default)]
struct Checked {
    digests: DigestSink,
    last: Option<(u8, u64)>,
    back: u64,
}

impl EventSink for Checked {
    type Error = Infallible;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), Infallible> {
        self.last = None;
        self.digests.begin(attributes)
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Infallible> {
        if let Some(time_ns) = event.time_ns {
            let here = (event.stage, time_ns);
            self.back += u64::from(self.last.is_some_and(|last| last.0 == here.0 && here.1 < last.1));
            self.last = Some(here);
        }
        self.digests.event(event)
    }

    fn end(&mut self, complete: bool) -> Result<(), Infallible> {
        self.digests.end(complete)
    }
}

impl ValidationReport {
    /// Whether every file was read to its end, is clean, and shares no episode and no content with another. A family in
    /// several files is reported and leaves the result clean: a split by content wants it so.
    pub fn is_clean(&self) -> bool {
        self.files.iter().all(|file| file.error.is_none() && file.report.is_clean())
            && self.leaks.ids.count == 0
            && self.leaks.contents.count == 0
    }
}

impl fmt::Display for ValidationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for FileReport { file, error, report } in &self.files {
            write!(f, "{file}: {report}")?;
            if let Some(error) = error {
                writeln!(f, "  not read to its end: {error}")?;
            }
        }
        for (what, examples) in
            [("ids", &self.leaks.ids), ("contents", &self.leaks.contents), ("families", &self.leaks.families)]
        {
            if let Some(first) = examples.examples.first() {
                writeln!(f, "{what} in more than one file: {}, the first is {first}", examples.count)?;
            }
        }
        Ok(())
    }
}
