//! Bodies for fuzzing: each takes any bytes and must return. Property tests drive them; a fuzzer can too.

use std::convert::Infallible;
use std::path::Path;

use super::{Options, QualityReport, SplitList, TelemetryReader, adfa_ld, calls_csv, jsonl, strace};
use crate::{EpisodeAttributes, EpisodeId, Event, EventSink};

/// Counts what it is given and checks the order of the calls.
#[derive(Default)]
struct Turnstile {
    open: bool,
    last: Option<(u8, u64)>,
    events: u64,
}

impl EventSink for Turnstile {
    type Error = Infallible;

    fn begin(&mut self, _: &EpisodeAttributes) -> Result<(), Infallible> {
        assert!(!self.open, "an episode began within another");
        self.open = true;
        self.last = None;
        Ok(())
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Infallible> {
        assert!(self.open && self.last < Some((event.stage, event.seq)), "an event came out of turn");
        self.last = Some((event.stage, event.seq));
        self.events += 1;
        Ok(())
    }

    fn end(&mut self, _: bool) -> Result<(), Infallible> {
        assert!(self.open, "an episode ended that had not begun");
        self.open = false;
        Ok(())
    }
}

/// Runs a reader; when it succeeds, what it handed on and what its report counted agree.
fn run<E>(read: impl FnOnce(&mut Turnstile, &mut QualityReport) -> Result<(), E>) {
    let (mut sink, mut report) = (Turnstile::default(), QualityReport::default());
    if read(&mut sink, &mut report).is_ok() {
        assert!(!sink.open, "an episode was left open");
        assert_eq!(sink.events, report.events, "events handed on and events counted");
    }
}

/// A file that claims to be telemetry Parquet.
pub fn fuzz_telemetry(data: &[u8]) {
    let mut sink = Turnstile::default();
    if let Ok(reader) = TelemetryReader::from_bytes(data.to_vec()) {
        let _ = reader.read(&mut sink);
    }
    let mut sink = Turnstile::default();
    if let Ok(reader) = TelemetryReader::from_bytes(data.to_vec()) {
        let _ = reader.read_counting("fuzz", &mut sink, &mut QualityReport::default());
    }
}

/// A trace of ADFA-LD.
pub fn fuzz_adfa_ld(data: &[u8]) {
    let attributes = EpisodeAttributes {
        episode_id: EpisodeId("fuzz".to_owned()),
        label: None,
        family: None,
        source: None,
        sample_sha256: None,
        complete: true,
    };
    run(|sink, report| adfa_ld::read_trace(data, "fuzz", &attributes, &Options::default(), sink, report));
}

/// A file of JSON lines.
pub fn fuzz_jsonl(data: &[u8]) {
    run(|sink, report| jsonl::read_jsonl(data, "fuzz", &Options::default(), sink, report));
}

/// A strace log.
pub fn fuzz_strace(data: &[u8]) {
    for keep_all_calls in [false, true] {
        let options = Options { keep_all_calls, ..Options::default() };
        let description = strace::Description::unknown("fuzz");
        run(|sink, report| strace::read_strace_log(data, "fuzz", &description, &options, sink, report));
    }
}

/// A table of calls.
pub fn fuzz_calls_csv(data: &[u8]) {
    let path = Path::new("fuzz");
    run(|sink, report| calls_csv::read_calls_csv_from(data, path, &Options::default(), sink, report));
}

/// The list of a split.
pub fn fuzz_split_list(data: &[u8]) {
    let _ = SplitList::read(data);
}
