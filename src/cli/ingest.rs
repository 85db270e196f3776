//! `bellwether ingest`: recordings to telemetry Parquet.

use std::path::{Path, PathBuf};

use anyhow::Context;
use bellwether_artifact::durable::DurableFile;
use bellwether_env_adapter::ingest::{Format, Options, QualityReport, TelemetryWriter};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Failure, Output, keep_inputs};

/// Turns recordings into telemetry Parquet, and says what is wrong with them.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What the recordings are: `jsonl`, `adfa-ld` (folder or zip), `calls-csv` (`id,label,calls`), or `strace` (text of `strace -f`).
    #[arg(long, value_parser = format)]
    format: Format,
    /// Files; a folder too where the format is `adfa-ld` or `strace`.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The telemetry file to write; it appears when it is whole.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Keep e-mail addresses, phone, card and social-security numbers and IP addresses as they are.
    #[arg(long)]
    no_redaction: bool,
    /// Keep calls of a strace log that are not on the list of recorded calls.
    #[arg(long)]
    keep_all_calls: bool,
}

/// What `ingest` reports as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "IngestReport")]
pub(crate) struct Report<'a> {
    /// The telemetry file; null where no episode was found, so that nothing was written.
    out: Option<&'a Path>,
    events: u64,
    quality: &'a QualityReport,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let defaults = Options::default();
        let options =
            Options { redactor: defaults.redactor.filter(|_| !self.no_redaction), keep_all_calls: self.keep_all_calls };
        keep_inputs(self.paths.iter().map(PathBuf::as_path), &self.out)?;
        let mut quality = QualityReport::default();
        let mut file = DurableFile::create(&self.out)?;
        let mut writer = TelemetryWriter::new(&mut file)?;
        for path in &self.paths {
            self.format
                .read(path, &options, &mut writer, &mut quality)
                .with_context(|| format!("cannot ingest {}", path.display()))?;
        }
        let (_, summary) = writer.finish()?;
        if summary.episodes == 0 {
            output.report(&Report { out: None, events: 0, quality: &quality }, || quality.to_string())?;
            return Err(Failure::NotMet(format!("no episode was found, so {} was not written", self.out.display())));
        }
        file.commit()?;
        let report = Report { out: Some(&self.out), events: summary.events, quality: &quality };
        output.report(&report, || format!("{quality}\nwrote {}", self.out.display()))?;
        Ok(())
    }
}

fn format(name: &str) -> Result<Format, String> {
    let known = || Format::ALL.map(Format::name).join(", ");
    name.parse().map_err(|_| format!("there is no such format; known are {}", known()))
}
