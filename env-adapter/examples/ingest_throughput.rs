//! Times the way from ADFA-LD to telemetry Parquet and back: `cargo run --release -p bellwether-env-adapter
//! --features ingest --example ingest_throughput -- ADFA-LD.zip [ROUNDS]`. A file FILE.parquet is only read, from the disk.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use bellwether_env_adapter::ingest::{
    DigestSink, Options, QualityReport, TelemetryReader, TelemetryWriter, read_adfa_ld,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("give the folder or the zip archive of ADFA-LD")?;
    let rounds: u32 = arguments.next().map_or(Ok(5), |rounds| rounds.parse())?;
    let mut out = std::io::stdout().lock();
    if path.ends_with(".parquet") {
        let start = Instant::now();
        let summary = TelemetryReader::open(Path::new(&path))?.read(&mut DigestSink::default())?;
        let pace = summary.events as f64 / 1e6 / start.elapsed().as_secs_f64();
        writeln!(out, "{} events of {} episodes: {pace:.2} million events/s", summary.events, summary.episodes)?;
        return Ok(());
    }
    for _ in 0..rounds {
        let mut report = QualityReport::default();
        let start = Instant::now();
        let mut writer = TelemetryWriter::new(Vec::new())?;
        read_adfa_ld(Path::new(&path), &Options::default(), &mut writer, &mut report)?;
        let (bytes, summary) = writer.finish()?;
        let written = start.elapsed().as_secs_f64();
        let size = bytes.len();
        let start = Instant::now();
        let mut sink = DigestSink::default();
        TelemetryReader::from_bytes(bytes)?.read(&mut sink)?;
        let read = start.elapsed().as_secs_f64();
        let events = summary.events as f64 / 1e6;
        writeln!(
            out,
            "{} calls into {size} bytes: ingest {:.2} million calls/s, read back {:.2} million calls/s",
            summary.events,
            events / written,
            events / read,
        )?;
    }
    Ok(())
}
