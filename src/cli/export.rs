//! `bellwether export`: the model of a run, verified, in a folder of its own.

use std::path::PathBuf;

use anyhow::anyhow;
use bellwether_artifact::keys::KeyId;
use bellwether_artifact::release::{self, Companions};
use bellwether_artifact::signature::ReleaseSignature;
use bellwether_registry::{RunPaths, RunStatus, find_run, show_run};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Failure, Output, keys, model};

/// Copies the model of a complete run, after loading it anew: hash, graph, contract and golden vectors are checked.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Id of the run, or the beginning of it.
    run: String,
    /// Folder of run directories.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
    /// Folder to write; it must not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Sign the release with this private key; see `keys generate`.
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
}

/// What `export` reports as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "ExportReport")]
pub(crate) struct Report {
    /// The folder that was written.
    out: PathBuf,
    /// Version of the model, from its content.
    model_version: String,
    /// SHA-256 of `model.onnx`.
    onnx_sha256: String,
    /// Golden vectors that the loaded model reproduced to the last bit.
    golden_vectors: usize,
    /// The key that signed; null for an unsigned release.
    key_id: Option<KeyId>,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let key = keys::private(self.sign.as_deref())?;
        let folder = find_run(&self.runs, &self.run).map_err(Failure::usage)?;
        let status = show_run(&folder)?.status;
        if status != RunStatus::Complete {
            return Err(Failure::Failed(anyhow!("the run {} is {status}; only a complete run is exported", self.run)));
        }
        let made = RunPaths::new(&folder).model();
        let loaded = model::load(&made)?;
        let held = release::read(&made)?;
        // The run's own copy, byte for byte: with another one the registry would take it for another release.
        let evaluation = release::evaluation_path(&made);
        let evaluation = match evaluation.exists() {
            true => Some(bellwether_artifact::durable::read(&evaluation, 1 << 26)?),
            false => None,
        };
        let json = held.manifest.to_json()?;
        let signature = key.as_ref().map(|key| ReleaseSignature::sign(json.as_bytes(), key).to_json()).transpose()?;
        let signature = signature.as_deref().map(str::as_bytes);
        let companions = Companions { evaluation: evaluation.as_deref(), signature, ..Companions::default() };
        release::publish(&self.out, &held.manifest, &held.onnx, companions)?;
        let report = Report {
            out: self.out,
            model_version: held.manifest.version.to_string(),
            onnx_sha256: held.manifest.onnx.sha256.to_string(),
            golden_vectors: loaded.manifest.golden.len(),
            key_id: key.map(|key| key.public().id()),
        };
        output.report(&report, || {
            let (out, vectors) = (report.out.display(), report.golden_vectors);
            let signed = report.key_id.map(|key| format!(", signed with the key {key}")).unwrap_or_default();
            format!("{out}: version {}, {vectors} golden vectors reproduced bit for bit{signed}", report.model_version)
        })?;
        Ok(())
    }
}
