//! `bellwether split`: telemetry into train, valid and test without leaks.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use bellwether_artifact::durable::{DurableFile, create_folder, remove_file};
use bellwether_env_adapter::ingest::{
    Assignment, DigestSink, LabelCounts, Leaks, Shares, Side, SplitBy, SplitList, SplitSink, TelemetryReader,
    TelemetryWriter, assign,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Failure, Output, keep_inputs};

/// Splits a telemetry file into train.parquet, valid.parquet and test.parquet; exact duplicates stay together.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The telemetry file.
    file: PathBuf,
    /// What else stays together.
    #[arg(long, value_enum)]
    by: By,
    /// A CSV with the columns `id` (or `trace`) and `split`, for `--by list`.
    #[arg(long, value_name = "CSV", required_if_eq("by", "list"))]
    list: Option<PathBuf>,
    /// Folder of the parts. Those of an earlier split go; a part without an episode is not written.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Shares of train, valid and test, which a list says itself.
    #[arg(long, value_name = "SHARE", num_args = 3, default_values_t = [0.7, 0.15, 0.15], allow_negative_numbers = true)]
    shares: Vec<f64>,
    /// Seed of the split; a list needs none.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// What keeps episodes together.
#[derive(Clone, Copy, clap::ValueEnum)]
enum By {
    /// Families: no family on two sides.
    Family,
    /// Exact duplicates alone.
    Content,
    /// A list says where each episode goes.
    List,
}

/// What `split` reports as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "SplitReport")]
pub(crate) struct Report {
    parts: Vec<Part>,
    /// Episodes that the list does not name; they went nowhere.
    unlisted: u64,
    /// Names of the list that no episode has.
    absent: u64,
    leaks: Leaks,
}

/// One part of a split.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Part {
    pub(crate) side: Side,
    pub(crate) file: PathBuf,
    labels: LabelCounts,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        keep_from_parts(&self.file, &self.out)?;
        let assignment = self.assign()?;
        create_folder(&self.out)?;
        let parts = write_parts(&self.file, &assignment, &self.out)?;
        let report = Report {
            parts,
            unlisted: assignment.unlisted.count,
            absent: assignment.absent.count,
            leaks: assignment.leaks.clone(),
        };
        output.report(&report, || describe(&report))?;
        Ok(())
    }

    fn assign(&self) -> Result<Assignment, Failure> {
        if self.list.is_some() && !matches!(self.by, By::List) {
            return Err(Failure::usage(anyhow!(
                "a list is followed with `--by list` alone: leave out --list, or ask for that"
            )));
        }
        let list = match &self.list {
            Some(path) => {
                let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
                let list = SplitList::read(BufReader::new(file));
                Some(list.with_context(|| format!("cannot read {}", path.display()))?)
            }
            None => None,
        };
        let by = match (self.by, &list) {
            (By::Family, _) => SplitBy::Family,
            (By::Content, _) => SplitBy::Content,
            (By::List, Some(list)) => SplitBy::List(list),
            (By::List, None) => return Err(Failure::usage(anyhow!("give the list with --list"))),
        };
        let mut digests = DigestSink::default();
        let unreadable = || format!("cannot read {}", self.file.display());
        TelemetryReader::open(&self.file).and_then(|reader| reader.read(&mut digests)).with_context(unreadable)?;
        let &[train, valid, test] = self.shares.as_slice() else {
            return Err(Failure::usage(anyhow!("give three shares")));
        };
        assign(&digests.episodes, by, Shares { train, valid, test }, self.seed).map_err(Failure::usage)
    }
}

/// The file of a part.
fn part_path(out: &Path, side: Side) -> PathBuf {
    out.join(format!("{}.parquet", side.name()))
}

/// Refuses to write the parts over a file that is read.
pub(crate) fn keep_from_parts(input: &Path, out: &Path) -> Result<(), Failure> {
    Side::ALL.into_iter().try_for_each(|side| keep_inputs([input], &part_path(out, side)))
}

/// Writes the parts that have an episode, in place of those of an earlier split.
pub(crate) fn write_parts(file: &Path, assignment: &Assignment, out: &Path) -> Result<Vec<Part>, Failure> {
    let path = |side: Side| part_path(out, side);
    keep_from_parts(file, out)?;
    let mut writers = Vec::new();
    for side in Side::ALL {
        writers.push(TelemetryWriter::new(DurableFile::create(path(side))?)?);
    }
    let Ok(writers) = <[_; 3]>::try_from(writers) else { return Ok(Vec::new()) };
    let mut sink = SplitSink::new(assignment, writers);
    let unreadable = || format!("cannot read {}", file.display());
    TelemetryReader::open(file).and_then(|reader| reader.read(&mut sink)).with_context(unreadable)?;
    let mut finished = Vec::new();
    for (side, writer) in Side::ALL.into_iter().zip(sink.into_sinks()) {
        let (part, summary) = writer.finish()?;
        finished.push((side, part, summary.episodes));
    }
    // Beside the new parts an old one would hold episodes of theirs, whatever moment this process dies at.
    for side in Side::ALL {
        remove_file(&path(side))?;
    }
    let mut parts = Vec::new();
    for (side, part, episodes) in finished {
        if episodes > 0 {
            part.commit()?;
            parts.push(Part { side, file: path(side), labels: assignment.counts[side as usize] });
        }
    }
    Ok(parts)
}

fn describe(report: &Report) -> String {
    let mut lines = Vec::new();
    for part in &report.parts {
        let LabelCounts { benign, malicious, missing } = part.labels;
        let file = part.file.display();
        lines.push(format!(
            "{:<6} benign {benign}, malicious {malicious}, without a label {missing}: {file}",
            part.side.name()
        ));
    }
    for (what, count) in [
        ("episodes that the list does not name", report.unlisted),
        ("names of the list that no episode has", report.absent),
        ("contents on more than one side", report.leaks.contents.count),
    ] {
        if count > 0 {
            lines.push(format!("{what}: {count}"));
        }
    }
    lines.join("\n")
}
