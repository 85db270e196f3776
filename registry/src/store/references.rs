//! Who refers to which object.

use std::collections::BTreeMap;
use std::path::Path;

use bellwether_artifact::Sha256;

use crate::run::run_folders;
use crate::{RegistryError, RunManifest, RunPaths};

/// How often each object is referred to; derived from manifests, so there is no counter that could go wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    counts: BTreeMap<Sha256, u64>,
}

impl References {
    /// No references at all; a collection with these removes everything.
    pub fn none() -> References {
        References::default()
    }

    /// Adds one reference.
    pub fn add(&mut self, hash: Sha256) {
        *self.counts.entry(hash).or_default() += 1;
    }

    /// Adds the inputs and artefacts of every run below `root`, however it ended.
    ///
    /// # Errors
    /// [`RegistryError::UnreadableReferences`] where any manifest cannot be read: its objects would be lost otherwise.
    pub fn add_runs(&mut self, root: &Path) -> Result<(), RegistryError> {
        for folder in run_folders(root)? {
            let path = RunPaths::new(folder).manifest();
            let manifest = RunManifest::read(&path)
                .map_err(|error| RegistryError::UnreadableReferences { path, reason: error.to_string() })?;
            for input in &manifest.inputs {
                self.add(input.sha256);
            }
            for artifact in &manifest.artifacts {
                self.add(artifact.sha256);
            }
        }
        Ok(())
    }

    /// How often an object is referred to.
    pub fn count(&self, hash: &Sha256) -> u64 {
        self.counts.get(hash).copied().unwrap_or(0)
    }
}
