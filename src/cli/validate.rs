//! `bellwether validate`: what is wrong with telemetry files.

use std::path::PathBuf;

use bellwether_env_adapter::ingest;

use super::{Failure, Output};

/// Checks telemetry files: schema, order, ranges, labels, duplicates, and leaks between them.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Telemetry files; several are the sides of one split.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let report = ingest::validate(&self.files);
        output.report(&report, || report.to_string())?;
        if report.is_clean() {
            return Ok(());
        }
        Err(Failure::NotMet("the telemetry is not clean; see the report".to_owned()))
    }
}
