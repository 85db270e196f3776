//! Why a release is not served, as a label and in words.

use std::fmt;
use std::path::PathBuf;

use bellwether_artifact::signature::SignatureError;
use bellwether_artifact::{ArtifactError, ModelVersion};

use super::Wanted;
use crate::model::ModelError;
use crate::policy::PolicyError;
use crate::release::ReleaseError;

/// Why a release was refused or taken back: a label that stays the same from version to version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The source could not say what is wanted.
    Source,
    /// A file or folder could not be read.
    Unreadable,
    /// A manifest or a network is missing.
    Missing,
    /// A file or the folder is a link to the outside, or no plain file.
    Link,
    /// A file is larger than it may be.
    TooLarge,
    /// The manifest breaks a rule, is cut short or was changed.
    Manifest,
    /// The network is shorter or longer than the manifest says.
    NetworkBytes,
    /// The network has another hash than the manifest says.
    NetworkHash,
    /// There is no signature, and one is demanded.
    SignatureMissing,
    /// The signature cannot be read.
    SignatureMalformed,
    /// The signature is by a key that is not trusted.
    SignatureUntrusted,
    /// The signature is not one of this manifest.
    SignatureInvalid,
    /// The network breaks the model format.
    Network,
    /// A weight is infinite or not a number.
    Weights,
    /// The manifest describes another network.
    MetadataMismatch,
    /// The model reads states of another feature specification, width or window.
    Features,
    /// The model chooses among other actions.
    Actions,
    /// The network is larger than deciders have memory for.
    Limits,
    /// No engine can be built for it here.
    Engine,
    /// The golden vectors do not come out.
    GoldenVectors,
    /// Too many retired models are still in use.
    Crowded,
    /// The version was rolled back before.
    RolledBack,
    /// It decided too differently from the champion, or from the one before it.
    Disagreement,
    /// There were too few states to compare it on.
    TooFewStates,
    /// It computed what is no number.
    NonFinite,
    /// It decided too slowly.
    Latency,
}

/// A release that is not served, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The release; empty where the source did not say.
    pub folder: PathBuf,
    /// Its number, where it has one.
    pub number: Option<u32>,
    /// Its version, where it was read.
    pub version: Option<ModelVersion>,
    /// Why, as a label.
    pub reason: Reason,
    /// Why, for people.
    pub text: String,
}

/// What is wrong with a release.
#[derive(Debug)]
pub(super) struct Problem {
    pub reason: Reason,
    pub text: String,
    pub version: Option<ModelVersion>,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 26] = [
        Reason::Source,
        Reason::Unreadable,
        Reason::Missing,
        Reason::Link,
        Reason::TooLarge,
        Reason::Manifest,
        Reason::NetworkBytes,
        Reason::NetworkHash,
        Reason::SignatureMissing,
        Reason::SignatureMalformed,
        Reason::SignatureUntrusted,
        Reason::SignatureInvalid,
        Reason::Network,
        Reason::Weights,
        Reason::MetadataMismatch,
        Reason::Features,
        Reason::Actions,
        Reason::Limits,
        Reason::Engine,
        Reason::GoldenVectors,
        Reason::Crowded,
        Reason::RolledBack,
        Reason::Disagreement,
        Reason::TooFewStates,
        Reason::NonFinite,
        Reason::Latency,
    ];

    /// Its name as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Source => "source",
            Reason::Unreadable => "unreadable",
            Reason::Missing => "missing",
            Reason::Link => "link",
            Reason::TooLarge => "too_large",
            Reason::Manifest => "manifest",
            Reason::NetworkBytes => "network_bytes",
            Reason::NetworkHash => "network_hash",
            Reason::SignatureMissing => "signature_missing",
            Reason::SignatureMalformed => "signature_malformed",
            Reason::SignatureUntrusted => "signature_untrusted",
            Reason::SignatureInvalid => "signature_invalid",
            Reason::Network => "network",
            Reason::Weights => "weights",
            Reason::MetadataMismatch => "metadata_mismatch",
            Reason::Features => "features",
            Reason::Actions => "actions",
            Reason::Limits => "limits",
            Reason::Engine => "engine",
            Reason::GoldenVectors => "golden_vectors",
            Reason::Crowded => "crowded",
            Reason::RolledBack => "rolled_back",
            Reason::Disagreement => "disagreement",
            Reason::TooFewStates => "too_few_states",
            Reason::NonFinite => "non_finite",
            Reason::Latency => "latency",
        }
    }

    /// Whether files that look like this may be on their way.
    pub(super) fn may_be_unfinished(self) -> bool {
        matches!(
            self,
            Reason::Manifest
                | Reason::NetworkBytes
                | Reason::NetworkHash
                | Reason::SignatureMissing
                | Reason::SignatureMalformed
                | Reason::SignatureInvalid
        )
    }

    /// Whether it may pass although no file changes, so that it is tried again at every look.
    pub(super) fn may_pass(self) -> bool {
        matches!(self, Reason::Source | Reason::Unreadable | Reason::Crowded)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the release {}", self.folder.display())?;
        if let Some(version) = self.version {
            write!(out, " (version {version})")?;
        }
        write!(out, " is refused ({}): {}", self.reason, self.text)
    }
}

impl Problem {
    pub(super) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Problem { reason, text: text.into(), version: None }
    }

    pub(super) fn rolled_back() -> Self {
        let text = "this version was rolled back here: release another, or have the watcher forgive it";
        Problem::new(Reason::RolledBack, text)
    }

    /// The problem of a release whose manifest was read.
    pub(super) fn of(self, version: ModelVersion) -> Self {
        Problem { version: Some(version), ..self }
    }

    pub(super) fn refusal(self, wanted: &Wanted) -> Refusal {
        let Problem { reason, text, version } = self;
        Refusal { folder: wanted.folder.clone(), number: wanted.number, version, reason, text }
    }
}

impl From<SignatureError> for Problem {
    fn from(error: SignatureError) -> Self {
        let reason = match &error {
            SignatureError::Missing => Reason::SignatureMissing,
            SignatureError::Untrusted(_) => Reason::SignatureUntrusted,
            SignatureError::Invalid(_) => Reason::SignatureInvalid,
            _ => Reason::SignatureMalformed,
        };
        Problem::new(reason, error.to_string())
    }
}

impl From<ReleaseError> for Problem {
    fn from(error: ReleaseError) -> Self {
        let reason = match &error {
            ReleaseError::Artifact(ArtifactError::HashMismatch { .. }) => Reason::NetworkHash,
            ReleaseError::Artifact(ArtifactError::TooLarge { .. }) => Reason::TooLarge,
            ReleaseError::Artifact(ArtifactError::Manifest { .. }) => Reason::Manifest,
            ReleaseError::Artifact(_) => Reason::Unreadable,
            ReleaseError::Model(ModelError::TooLarge { .. }) => Reason::TooLarge,
            ReleaseError::Model(ModelError::FeatureSpec { .. } | ModelError::Width { .. }) => Reason::Features,
            ReleaseError::Model(ModelError::ActionSet { .. } | ModelError::Outputs { .. }) => Reason::Actions,
            ReleaseError::Model(ModelError::NonFinite { .. }) => Reason::Weights,
            ReleaseError::Model(_) => Reason::Network,
            ReleaseError::Binding { .. } => Reason::MetadataMismatch,
            ReleaseError::Golden(_) => Reason::GoldenVectors,
            ReleaseError::Engine(_) => Reason::Engine,
        };
        Problem::new(reason, error.to_string())
    }
}

impl From<PolicyError> for Problem {
    fn from(error: PolicyError) -> Self {
        let reason = match &error {
            PolicyError::Contract { field, .. } if field.starts_with("actions") => Reason::Actions,
            PolicyError::Contract { .. } => Reason::Features,
            PolicyError::Binding { .. } => Reason::MetadataMismatch,
            PolicyError::TooWide { .. } | PolicyError::Limits { .. } => Reason::Limits,
            PolicyError::Golden(_) => Reason::GoldenVectors,
            // What stands in the way passes without a change of the files: a pinned champion, another one meanwhile, no room.
            PolicyError::Pinned
            | PolicyError::NoPrevious
            | PolicyError::Changed { .. }
            | PolicyError::NoCanary
            | PolicyError::Share(_)
            | PolicyError::Crowded { .. } => Reason::Crowded,
        };
        Problem::new(reason, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_is_listed_once_and_has_a_label_of_its_own() {
        let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason}");
            assert!(reason.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        }
    }
}
