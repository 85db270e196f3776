//! The shipped recordings, small enough to train on in a second.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use bellwether_env_adapter::ingest::{IngestError, TelemetryReader, TelemetryWriter};
use bellwether_env_adapter::{EpisodeAttributes, Event, EventSink};

/// A configuration that trains in a second; what it learns does not matter here.
#[allow(dead_code, reason = "not every test file trains by it")]
pub(crate) const SMALL: [&str; 8] = [
    "--set",
    "network.hidden=[32]",
    "--set",
    "trainer.updates=150",
    "--set",
    "trainer.metrics_interval=50",
    "--set",
    "calibration.folds=2",
];

/// Passes on the first few episodes of every family.
struct Reduced<W: Write + Send> {
    to: TelemetryWriter<W>,
    taken: BTreeMap<Option<String>, u32>,
    passes: bool,
}

/// Episodes of each family that [`reduced`] keeps.
const EPISODES_PER_FAMILY: u32 = 4;

impl<W: Write + Send> EventSink for Reduced<W> {
    type Error = IngestError;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), IngestError> {
        let taken = self.taken.entry(attributes.family.clone()).or_default();
        *taken += 1;
        self.passes = *taken <= EPISODES_PER_FAMILY;
        if self.passes { self.to.begin(attributes) } else { Ok(()) }
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), IngestError> {
        if self.passes { self.to.event(event) } else { Ok(()) }
    }

    fn end(&mut self, complete: bool) -> Result<(), IngestError> {
        if self.passes { self.to.end(complete) } else { Ok(()) }
    }
}

/// Writes the shipped recordings, every family and few episodes of each, to `reduced.parquet` in `folder`.
pub(crate) fn reduced(folder: &Path) {
    let to = TelemetryWriter::new(BufWriter::new(File::create(folder.join("reduced.parquet")).unwrap())).unwrap();
    let mut reduced = Reduced { to, taken: BTreeMap::new(), passes: false };
    TelemetryReader::from_bytes(bellwether_corpus::recordings()).unwrap().read(&mut reduced).unwrap();
    let families = bellwether_corpus::jobs().lines().count() - 1;
    assert_eq!(reduced.taken.len(), families, "every job and emulation is a family");
    let (file, summary) = reduced.to.finish().unwrap();
    file.into_inner().unwrap();
    assert!(summary.episodes > 2 * families as u64, "{summary:?}");
}

/// The reduced recordings, split by family, as `parts/train.parquet` and `parts/test.parquet` in `folder`.
#[allow(dead_code, reason = "not every test file holds families out")]
pub(crate) fn reduced_parts(folder: &Path) {
    reduced(folder);
    let split = ["split", "reduced.parquet", "--by", "family", "--out", "parts", "--shares", "0.7", "0", "0.3"];
    crate::program::bellwether(folder, &split).expect(0);
}
