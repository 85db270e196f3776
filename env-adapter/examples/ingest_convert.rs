//! Recordings to telemetry on standard output: `cargo run --release -p bellwether-env-adapter --features ingest
//! --example ingest_convert -- FORMAT PATH [jsonl|parquet] > OUT`; the report goes to standard error.

use std::error::Error;
use std::io::{BufWriter, Write};
use std::path::Path;

use bellwether_env_adapter::ingest::{Format, JsonlWriter, Options, QualityReport, TelemetryWriter};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some(format), Some(path)) = (arguments.first(), arguments.get(1)) else {
        return Err("give a format (jsonl, adfa-ld, calls-csv, strace), a path and jsonl or parquet".into());
    };
    let format: Format = format.parse()?;
    let (path, options) = (Path::new(path), Options::default());
    let mut report = QualityReport::default();
    let out = BufWriter::new(std::io::stdout());
    if arguments.get(2).is_some_and(|to| to == "jsonl") {
        let mut writer = JsonlWriter::new(out);
        format.read(path, &options, &mut writer, &mut report)?;
        writer.finish()?;
    } else {
        let mut writer = TelemetryWriter::new(out)?;
        format.read(path, &options, &mut writer, &mut report)?;
        writer.finish()?.0.flush()?;
    }
    write!(std::io::stderr(), "{report}")?;
    Ok(())
}
