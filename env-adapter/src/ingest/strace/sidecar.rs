//! The description beside a log: what a log cannot say of itself.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::ingest::{IngestError, QualityReport};
use crate::sensor::Decoys;
use crate::{EpisodeAttributes, EpisodeId, Label};

/// The longest description, in bytes.
const MAX_BYTES: u64 = 16 << 20;
/// Name in the column `source`.
const SOURCE: &str = "strace";

/// What is known of a recording besides its log.
#[derive(Clone, Debug)]
pub struct Description {
    /// Who and what it is; `complete` counts only where `whole` says so.
    pub attributes: EpisodeAttributes,
    /// Whether the log holds the whole run, where that is known; otherwise the log's own end tells.
    pub whole: Option<bool>,
    /// Folder in which the first process starts.
    pub cwd: Option<String>,
    /// Paths that were planted. `None` where nothing is known of any.
    pub decoys: Option<Decoys>,
}

#[derive(Deserialize)]
struct Sidecar {
    episode_id: Option<String>,
    label: Option<Label>,
    family: Option<String>,
    cwd: Option<String>,
    decoys: Option<Vec<String>>,
    sample_sha256: Option<String>,
    complete: Option<bool>,
    // Known to the recorder, and of no use to a reader.
    #[serde(rename = "technique")]
    _technique: Option<IgnoredAny>,
    #[serde(rename = "home")]
    _home: Option<IgnoredAny>,
    #[serde(rename = "scratch")]
    _scratch: Option<IgnoredAny>,
    #[serde(rename = "seed")]
    _seed: Option<IgnoredAny>,
    #[serde(rename = "language")]
    _language: Option<IgnoredAny>,
    #[serde(rename = "job")]
    _job: Option<IgnoredAny>,
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

impl Description {
    /// A recording of which nothing is known but its name.
    pub fn unknown(episode_id: &str) -> Self {
        let attributes = EpisodeAttributes {
            episode_id: EpisodeId(episode_id.to_owned()),
            label: None,
            family: None,
            source: Some(SOURCE.to_owned()),
            sample_sha256: None,
            complete: true,
        };
        Description { attributes, whole: None, cwd: None, decoys: None }
    }

    /// Reads the JSON file at `path`; `episode_id` counts where it names none.
    ///
    /// # Errors
    /// [`IngestError::Io`], and [`IngestError::Sidecar`] for what is no description.
    pub fn read(path: &Path, episode_id: &str, report: &mut QualityReport) -> Result<Self, IngestError> {
        let failed = |source| IngestError::io(path, source);
        let mut text = Vec::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
        let invalid = |reason: String| IngestError::Sidecar { path: path.to_owned(), reason };
        if text.len() as u64 > MAX_BYTES {
            return Err(invalid(format!("longer than {MAX_BYTES} bytes")));
        }
        let sidecar: Sidecar = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        for key in sidecar.others.keys() {
            report.unknown_keys.add(key, 1);
        }
        let mut description = Description::unknown(sidecar.episode_id.as_deref().unwrap_or(episode_id));
        if description.attributes.episode_id.0.is_empty() {
            return Err(invalid("`episode_id` is empty".to_owned()));
        }
        description.attributes.label = sidecar.label;
        description.attributes.family = sidecar.family;
        description.attributes.sample_sha256 = sidecar.sample_sha256;
        description.attributes.complete = sidecar.complete.unwrap_or(true);
        description.whole = sidecar.complete;
        description.cwd = sidecar.cwd;
        description.decoys = sidecar.decoys.map(Decoys::new);
        Ok(description)
    }
}
