//! The head: a sealed file beside the log that says how far it goes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::chain::Chain;
use super::seal::Sealed;
use super::{Anchor, AuditError, Seal};
use crate::secret::{SecretId, Secrets};
use crate::{ArtifactError, canonical_json, durable};

/// What the file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    bytes: u64,
    entries: u64,
    format_version: u32,
    key: SecretId,
    last: Seal,
}

/// Why a head is not believed.
pub(super) enum HeadFault {
    /// There is none.
    Missing,
    /// These secrets did not seal it.
    Forged,
    /// It cannot be read.
    Unreadable(ArtifactError),
}

const FORMAT_VERSION: u32 = 1;
const MAX_BYTES: u64 = 4096;

/// The name of the head of a log.
pub(super) fn path_of(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".head");
    PathBuf::from(name)
}

/// The bytes of the head of a log that stands there.
pub(super) fn line(chain: &Chain, secrets: &Secrets) -> Result<String, AuditError> {
    let secret = secrets.get(&chain.key).ok_or(AuditError::UnknownKey { key: chain.key })?;
    let Anchor { entries, last } = chain.at;
    let content = Content { bytes: chain.bytes, entries, format_version: FORMAT_VERSION, key: chain.key, last };
    Ok(Sealed::Head.write(&canonical_json(&content)?, secret).0)
}

/// Reads the head of a log.
pub(super) fn read(path: &Path, secrets: &Secrets) -> Result<Chain, HeadFault> {
    let bytes = durable::read(path, MAX_BYTES).map_err(|error| match &error {
        ArtifactError::Io { cause, .. } if cause.kind() == std::io::ErrorKind::NotFound => HeadFault::Missing,
        ArtifactError::TooLarge { .. } => HeadFault::Forged,
        _ => HeadFault::Unreadable(error),
    })?;
    parse(&bytes, secrets).ok_or(HeadFault::Forged)
}

/// Where the log stands that this is the head of; `None` where these secrets did not seal it.
pub(super) fn parse(bytes: &[u8], secrets: &Secrets) -> Option<Chain> {
    let (content, seal) = Sealed::Head.split(bytes.strip_suffix(b"\n")?)?;
    let Content { bytes, entries, format_version, key, last } = serde_json::from_slice(content).ok()?;
    let holds = Sealed::Head.holds(content, &seal, secrets.get(&key)?);
    (holds && format_version == FORMAT_VERSION).then_some(Chain { at: Anchor { entries, last }, bytes, key })
}
