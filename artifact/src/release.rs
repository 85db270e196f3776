//! The layout of a released model: one folder that holds everything needed to serve and to check it.

use std::path::{Path, PathBuf};

use crate::confined::ConfinedFolder;
use crate::durable::DurableFolder;
use crate::{ArtifactError, MAX_MANIFEST_BYTES, ModelManifest, Sha256};

/// The network.
pub const ONNX_FILE: &str = "model.onnx";
/// The [`ModelManifest`].
pub const MANIFEST_FILE: &str = "model.json";
/// What people should know about the model; optional.
pub const CARD_FILE: &str = "card.md";
/// The evaluation on held-out data.
pub const EVALUATION_FILE: &str = "evaluation.json";
/// Whose word it is that the model may be served; optional, and the one file that may come later.
pub const SIGNATURE_FILE: &str = "signature.json";

/// Largest ONNX file that is read, in bytes.
pub const MAX_ONNX_BYTES: u64 = 256 * 1024 * 1024;

/// A release in memory; its ONNX bytes are those that its manifest speaks of.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// `model.json`.
    pub manifest: ModelManifest,
    /// `model.onnx`.
    pub onnx: Vec<u8>,
}

/// What goes into a release beside the network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Companions<'a> {
    /// Text of `card.md`.
    pub card: Option<&'a str>,
    /// Bytes of `evaluation.json`.
    pub evaluation: Option<&'a [u8]>,
    /// Bytes of `signature.json`, made over the manifest as [`ModelManifest::to_json`] writes it.
    pub signature: Option<&'a [u8]>,
}

/// Path of the network in a release folder.
pub fn onnx_path(folder: &Path) -> PathBuf {
    folder.join(ONNX_FILE)
}

/// Path of the manifest in a release folder.
pub fn manifest_path(folder: &Path) -> PathBuf {
    folder.join(MANIFEST_FILE)
}

/// Path of the card in a release folder.
pub fn card_path(folder: &Path) -> PathBuf {
    folder.join(CARD_FILE)
}

/// Path of the evaluation in a release folder.
pub fn evaluation_path(folder: &Path) -> PathBuf {
    folder.join(EVALUATION_FILE)
}

/// Path of the signature in a release folder.
pub fn signature_path(folder: &Path) -> PathBuf {
    folder.join(SIGNATURE_FILE)
}

/// Reads a manifest alone.
///
/// # Errors
/// [`ArtifactError::Io`] where the file cannot be read, [`ArtifactError::Manifest`] where it breaks a rule.
pub fn read_manifest(folder: &Path) -> Result<ModelManifest, ArtifactError> {
    let bytes = ConfinedFolder::open(folder)?.read_present(MANIFEST_FILE, MAX_MANIFEST_BYTES)?;
    ModelManifest::from_json(&bytes).map_err(|cause| ArtifactError::Manifest { path: manifest_path(folder), cause })
}

/// Reads manifest and network, each once, and checks that they belong together.
///
/// # Errors
/// As [`read_manifest`], and [`ArtifactError::HashMismatch`] where the network is another one.
pub fn read(folder: &Path) -> Result<Release, ArtifactError> {
    read_with_bytes(folder).map(|(release, _)| release)
}

/// As [`read`], with the bytes of `model.json` as they are: what a signature speaks of.
///
/// # Errors
/// As [`read`].
pub fn read_with_bytes(folder: &Path) -> Result<(Release, Vec<u8>), ArtifactError> {
    let files = ConfinedFolder::open(folder)?;
    let bytes = files.read_present(MANIFEST_FILE, MAX_MANIFEST_BYTES)?;
    let manifest = ModelManifest::from_json(&bytes)
        .map_err(|cause| ArtifactError::Manifest { path: manifest_path(folder), cause })?;
    let onnx = files.read_present(ONNX_FILE, MAX_ONNX_BYTES)?;
    check_onnx(&onnx_path(folder), &manifest, &onnx)?;
    Ok((Release { manifest, onnx }, bytes))
}

/// Publishes a release as a new folder, whole or not at all.
///
/// # Errors
/// [`ArtifactError::Exists`] where the folder is there already, [`ArtifactError::HashMismatch`] where the network is not
/// the manifest's, [`ArtifactError::Manifest`] where the manifest breaks a rule, else [`ArtifactError::Io`].
pub fn publish(
    folder: &Path,
    manifest: &ModelManifest,
    onnx: &[u8],
    companions: Companions<'_>,
) -> Result<(), ArtifactError> {
    check_onnx(&onnx_path(folder), manifest, onnx)?;
    let json = manifest.to_json().map_err(|cause| ArtifactError::Manifest { path: manifest_path(folder), cause })?;
    let new = DurableFolder::create(folder)?;
    new.write_bytes(ONNX_FILE, onnx)?;
    new.write_bytes(MANIFEST_FILE, json.as_bytes())?;
    if let Some(card) = companions.card {
        new.write_bytes(CARD_FILE, card.as_bytes())?;
    }
    if let Some(evaluation) = companions.evaluation {
        new.write_bytes(EVALUATION_FILE, evaluation)?;
    }
    if let Some(signature) = companions.signature {
        new.write_bytes(SIGNATURE_FILE, signature)?;
    }
    new.commit()
}

fn check_onnx(path: &Path, manifest: &ModelManifest, onnx: &[u8]) -> Result<(), ArtifactError> {
    let (expected, found) = (manifest.onnx.sha256, Sha256::of(onnx));
    if found != expected {
        return Err(ArtifactError::HashMismatch { path: path.to_path_buf(), expected, found });
    }
    Ok(())
}
