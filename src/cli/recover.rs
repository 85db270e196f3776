//! `bellwether recover`: what episodes left whose program was killed.

use std::path::PathBuf;

use anyhow::Context;
use bellwether_sandbox::episode::{EpisodeFolder, RecordError};
use schemars::JsonSchema;
use serde::Serialize;

use super::detonation;
use super::{Failure, Output};

/// Makes of episodes that were cut off, because their `detonate` or `loop` was killed, what can be made: telemetry, steps and reports,
/// which say that they are partial.
///
/// Episodes that go on are left alone, as are those that are whole. Exit code 1 where an episode cannot be recovered.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder in which episodes have theirs, as given to `detonate --out`, or the folder of one episode.
    #[arg(default_value = "episodes")]
    folder: PathBuf,
}

/// What `recover` reports as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "RecoverReport")]
pub(crate) struct Report {
    /// Episodes that were recovered: the report of each.
    recovered: Vec<detonation::Report>,
    /// Folders of episodes that go on in another program.
    under_way: Vec<PathBuf>,
    /// Episodes that could not be recovered. What they left is as it was.
    failed: Vec<Failed>,
}

/// An episode that could not be recovered.
#[derive(Serialize, JsonSchema)]
struct Failed {
    /// Its folder.
    folder: PathBuf,
    /// Why not.
    why: String,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let mut report = Report { recovered: Vec::new(), under_way: Vec::new(), failed: Vec::new() };
        for path in self.folders()? {
            let recovered = match EpisodeFolder::take(&path) {
                Err(RecordError::Taken { .. }) => {
                    report.under_way.push(path);
                    continue;
                }
                taken => taken.map_err(Failure::from).and_then(|folder| detonation::Report::recover(&folder, || None)),
            };
            match recovered {
                Ok(recovered) => report.recovered.extend(recovered),
                Err(failure) => report.failed.push(Failed { folder: path, why: failure.to_string() }),
            }
        }
        output.report(&report, || report.describe())?;
        match report.failed.len() {
            0 => Ok(()),
            failed => Err(Failure::Failed(anyhow::anyhow!("{failed} episodes could not be recovered"))),
        }
    }

    /// Folders of episodes that have a journal, in the order of their names.
    fn folders(&self) -> Result<Vec<PathBuf>, Failure> {
        let entries = std::fs::read_dir(&self.folder);
        let entries = entries.with_context(|| format!("cannot read the folder {}", self.folder.display()))?;
        let mut folders = vec![self.folder.clone()];
        for entry in entries {
            folders.push(entry?.path());
        }
        folders.retain(|path| EpisodeFolder::is_open(path));
        folders.sort();
        Ok(folders)
    }
}

impl Report {
    /// For people.
    fn describe(&self) -> String {
        let Report { recovered, under_way, failed } = self;
        if recovered.is_empty() && under_way.is_empty() && failed.is_empty() {
            return "no episode was cut off".to_owned();
        }
        let recovered = recovered.iter().map(|one| format!("episode   {}\n{}", one.name(), one.describe()));
        let under_way = under_way.iter().map(|path| format!("goes on   {}", path.display()));
        let failed = failed.iter().map(|one| format!("failed    {}: {}", one.folder.display(), one.why));
        recovered.chain(under_way).chain(failed).collect::<Vec<_>>().join("\n")
    }
}
