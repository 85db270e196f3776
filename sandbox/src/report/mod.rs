//! What is told of an episode: to connectors and rule engines (`report.json` in CAPE's shape), to security data lakes (OCSF), and
//! to people (a page), with the techniques of ATT&CK that its behaviours are.
//!
//! Everything that a sample can choose, its names above all, is hostile text. Files of JSON are ASCII, the page
//! shows what cannot be seen spelled out.

mod attack;
mod cape;
mod clock;
mod gather;
mod html;
mod http;
mod json;
mod ocsf;
mod processes;
mod record;
mod spool;
mod tree;

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bellwether_artifact::ArtifactError;
use bellwether_artifact::durable::{self, DurableFile};
use bellwether_env_adapter::{Event, EventBuf};

pub use attack::{Seen, Tactic, Technique, behaviours};
pub use gather::write_episode;
pub use record::{
    Change, Counts, DecisionRecord, EpisodeRecord, Feedback, FileChange, Outcome, ProcessRecord, StageRecord,
    WindowRecord,
};

/// The reports of an episode.
#[derive(Clone, Debug)]
pub struct Reports {
    /// `report.json`, in CAPE's shape.
    pub cape: PathBuf,
    /// `ocsf.jsonl`, an OCSF event a line.
    pub ocsf: PathBuf,
    /// `report.html`.
    pub page: PathBuf,
    /// Behaviours that were seen.
    pub seen: Vec<Seen>,
    /// Events that were read.
    pub events: u64,
    /// OCSF events that were written.
    pub ocsf_events: u64,
}

/// Why reports cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A report could not be written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The events could not be read.
    #[error("the events of the episode cannot be read")]
    Events(#[source] Box<dyn Error + Send + Sync>),
    /// The episode could not be recorded.
    #[error("the episode left no telemetry to report on: its own report says why")]
    NoTelemetry,
}

/// Writes all reports of an episode into a folder, which is made where it is missing. The events come in the order of stage and
/// number, and are not held in memory.
///
/// # Errors
/// [`ReportError::Events`] with what the events fail with, [`ReportError::Artifact`] where a file cannot be written. A report appears
/// whole or not at all.
pub fn write<E: Into<Box<dyn Error + Send + Sync>>>(
    folder: &Path,
    record: &EpisodeRecord,
    events: impl IntoIterator<Item = Result<EventBuf, E>>,
) -> Result<Reports, ReportError> {
    write_from(folder, record, |each| {
        events
            .into_iter()
            .try_for_each(|event| each(&event.map_err(|error| ReportError::Events(error.into()))?.as_event()))
    })
}

/// Writes all reports; `feed` hands every event on.
fn write_from(
    folder: &Path,
    record: &EpisodeRecord,
    feed: impl FnOnce(&mut dyn FnMut(&Event<'_>) -> Result<(), ReportError>) -> Result<(), ReportError>,
) -> Result<Reports, ReportError> {
    durable::create_folder(folder)?;
    let path = |name: &str| folder.join(name);
    let (cape_path, ocsf_path, page_path) = (path("report.json"), path("ocsf.jsonl"), path("report.html"));
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |cause: io::Error| ArtifactError::io("write", &path, cause)
    };
    let mut ocsf_file = DurableFile::create(&ocsf_path)?;
    let mut ocsf = ocsf::Ocsf::new(record, &mut ocsf_file);
    let mut cape = cape::Cape::default();
    let mut finder = attack::Finder::default();
    let mut count = 0;
    feed(&mut |event| {
        let facts = finder.observe(event);
        cape.event(record, event, &facts).map_err(failed(&cape_path))?;
        ocsf.event(event, &facts).map_err(failed(&ocsf_path))?;
        count += 1;
        Ok(())
    })?;
    let seen = finder.seen();
    let ocsf_events = ocsf.finish(&seen).map_err(failed(&ocsf_path))?;
    let mut cape_file = DurableFile::create(&cape_path)?;
    cape.write(record, &seen, &mut cape_file).map_err(failed(&cape_path))?;
    let mut page = DurableFile::create(&page_path)?;
    html::write(record, &seen, &mut page).and_then(|()| page.flush()).map_err(failed(&page_path))?;
    ocsf_file.commit()?;
    cape_file.commit()?;
    page.commit()?;
    Ok(Reports { cape: cape_path, ocsf: ocsf_path, page: page_path, seen, events: count, ocsf_events })
}
