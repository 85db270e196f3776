//! `bellwether recover`: what episodes left whose program was killed.

use std::path::{Path, PathBuf};

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
        let report = Report::of(&self.folder)?;
        output.report(&report, || report.describe())?;
        match report.failed.len() {
            0 => Ok(()),
            failed => Err(Failure::Failed(anyhow::anyhow!("{failed} episodes could not be recovered"))),
        }
    }
}

/// Folders of episodes that have a journal, in the order of their names: this one and those in it.
fn with_journals(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder);
    let entries = entries.with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut folders = vec![folder.to_owned()];
    for entry in entries {
        folders.push(entry?.path());
    }
    folders.retain(|path| EpisodeFolder::is_open(path));
    folders.sort();
    Ok(folders)
}

impl Report {
    /// Recovers the episode in a folder, and those in the folders in it.
    fn of(folder: &Path) -> Result<Report, Failure> {
        let mut report = Report { recovered: Vec::new(), under_way: Vec::new(), failed: Vec::new() };
        for path in with_journals(folder)? {
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
        Ok(report)
    }

    /// The same for a loop that begins, which says it in its log: episodes are cut off whose file is no longer in work, too.
    #[cfg(feature = "serve")]
    pub(crate) fn at_start(episodes: &Path) -> Result<(), Failure> {
        let Report { recovered, under_way, failed } = Report::of(episodes)?;
        for one in recovered {
            tracing::warn!(episode = one.name(), "an episode that was cut off is recovered");
        }
        for path in under_way {
            tracing::warn!(path = %path.display(), "another program recovers an episode");
        }
        for Failed { folder, why } in failed {
            // What was told stays as it is: whoever looks may make more of it.
            tracing::error!(path = %folder.display(), why, "an episode that was cut off is not recovered");
        }
        Ok(())
    }

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
