//! What every other crate may use to put bytes on disk and to know them again: hashes, durable files, JSON with one
//! spelling, and the layout of a released model.
//!
//! - [`durable`] is the only way a file gets its final name: whoever looks finds the old content or the new, never half.
//! - [`canonical_json`] gives a value one spelling, so that equal values have equal hashes on every machine.
//! - [`Visible`] shows text that somebody else wrote.
//! - [`ModelManifest`] is `model.json`, [`release`] the folder around it.
//! - With the feature `signatures`, `keys` and `signature` say whose word it is that a release may be served.
//! - With the feature `audit`, `audit` keeps a log in which no entry can be changed, moved or left out unseen; `secrets` alone
//!   gives the files of secrets behind it.
//!
//! The crate knows no telemetry, no network and no clock, and imports none of the workspace's crates.
#![forbid(unsafe_code)]

#[cfg(feature = "audit")]
pub mod audit;
mod canonical;
pub mod confined;
pub mod durable;
mod error;
mod folder;
pub mod fuzz;
mod json_lines;
#[cfg(feature = "signatures")]
pub mod keys;
mod manifest;
mod name;
pub mod release;
#[cfg(feature = "secrets")]
pub mod secret;
mod sha256;
#[cfg(feature = "signatures")]
pub mod signature;
mod version;
mod visible;

pub use canonical::{CanonicalError, canonical_json, canonical_json_pretty};
pub use error::ArtifactError;
pub use json_lines::{JsonLines, JsonLinesReader, MAX_LINE_BYTES, TornTail};
pub use manifest::{
    ActionBinding, DataFingerprint, FORMAT_VERSION, FORMAT_VERSION_WITH_GRAPH, FeatureBinding, GoldenVector, Graph,
    MAX_MANIFEST_BYTES, ManifestError, Metric, ModelManifest, OnnxFile, OperatingPoint, SourceRevision, WindowLimits,
};
pub use name::is_plain_name;
pub use sha256::{InvalidHash, Sha256};
pub use version::{InvalidVersion, ModelVersion};
pub use visible::Visible;
