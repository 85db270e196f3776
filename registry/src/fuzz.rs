//! Bodies for fuzzing: each takes any bytes and must return. Property tests drive them; a fuzzer can too.

use std::path::Path;

use bellwether_artifact::JsonLinesReader;
use serde_json::Value;

use crate::{HostFacts, Lease, RunManifest, Terminal};

/// The records of a run directory: any of its JSON files, as whoever can write there may leave it.
///
/// # Panics
/// When a manifest is accepted that does not survive being written again.
pub fn fuzz_run_records(data: &[u8]) {
    let path = Path::new("fuzz");
    if let Ok(manifest) = RunManifest::parse(data, path) {
        assert!(manifest.fingerprint().is_ok(), "an accepted manifest has no fingerprint");
        // A name that is no plain one is refused when it is written; a run was never called so.
        if let Ok(json) = manifest.to_json() {
            let again = RunManifest::parse(json.as_bytes(), path);
            assert!(matches!(&again, Ok(again) if *again == manifest), "{again:?} is read back from {manifest:?}");
        }
    }
    if let Ok(lease) = serde_json::from_slice::<Lease>(data) {
        for now in [0, u64::MAX] {
            lease.is_live(now);
        }
    }
    let _ = serde_json::from_slice::<Terminal>(data);
    let _ = serde_json::from_slice::<HostFacts>(data);
}

/// The log of metrics, of which a reader takes every whole line.
///
/// # Panics
/// When the records, the lines that are none and the torn tail are not all that there is.
pub fn fuzz_metrics(data: &[u8]) {
    let mut reader = JsonLinesReader::new(data, Path::new("fuzz"));
    let (mut whole, mut over) = (0, false);
    while !over {
        match reader.next_record::<Value>() {
            Ok(Some(_)) | Err(_) => whole += 1,
            Ok(None) => over = true,
        }
    }
    let lines = data.iter().filter(|byte| **byte == b'\n').count();
    let tail = data.rsplit(|byte| *byte == b'\n').next().map_or(0, <[u8]>::len);
    assert_eq!((whole, reader.torn().map_or(0, |torn| torn.bytes)), (lines, tail as u64));
}
