//! The native engine beside other runtimes: whether they give the same answers, and how long each takes.
//!
//! A tool of development, built only when asked for. Every runtime is optional: what this build or this machine lacks is
//! named, never passed over.
#![forbid(unsafe_code)]

pub mod drawn;
pub mod latency;
mod native;
#[cfg(feature = "ort")]
mod onnx_runtime;
pub mod parity;
pub mod recorded;
#[cfg(feature = "tract")]
mod tract;
mod values_only;

use bellwether_artifact::ArtifactError;
use bellwether_inference::model::{Contract, Mlp, ModelError, limits, read};
use bellwether_inference::{DecideError, EngineError, Isa};
use bellwether_replay::ReplayError;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use native::Native;

/// A state to decide in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateRecord {
    /// The state, as wide as the model.
    pub state: Vec<f32>,
    /// Which actions are allowed, one entry for each.
    pub mask: Vec<bool>,
}

/// Something that evaluates model files.
pub trait Runtime {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Evaluates the whole graph: writes one q-value per action, gives the action.
    ///
    /// # Errors
    /// What the runtime says.
    fn decide(&mut self, state: &[f32], mask: &[bool], q_values: &mut [f32]) -> Result<usize, PeerError>;

    /// Writes one q-value per action, in the way that is cheapest here.
    ///
    /// # Errors
    /// What the runtime says.
    fn q_values(&mut self, state: &[f32], q_values: &mut [f32]) -> Result<(), PeerError>;
}

/// A runtime that takes no part, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its name.
    pub runtime: &'static str,
    /// What is missing, and how to get it.
    pub reason: String,
}

/// The runtimes that this build and this machine have.
#[derive(Default)]
pub struct Roster {
    /// Ready to evaluate.
    pub runtimes: Vec<Box<dyn Runtime>>,
    /// Those that are missing.
    pub skipped: Vec<Skipped>,
}

/// What can go wrong in a comparison.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The model file is refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The native engine cannot be built.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The native engine refuses a state.
    #[error(transparent)]
    Decide(#[from] DecideError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// An episode file is damaged, or of another specification than the model.
    #[error(transparent)]
    Episodes(#[from] ReplayError),
    /// A runtime failed.
    #[error("{runtime}: {reason}")]
    Runtime {
        /// Its name.
        runtime: &'static str,
        /// What it said.
        reason: String,
    },
    /// A file of states ends in the middle of a line.
    #[error("line {line} is cut off: the states were not written to their end")]
    TornStates {
        /// Number of the line, from 1.
        line: u64,
    },
    /// There is nothing to compare on.
    #[error("there are no states: give a file with at least one")]
    NoStates,
}

impl Roster {
    /// The peers of the native engine, each with the model loaded.
    ///
    /// ONNX Runtime is a shared library, named by the environment variable `ORT_DYLIB_PATH`.
    ///
    /// # Errors
    /// A runtime that is present and refuses the model: that is a finding, not a reason to skip.
    pub fn peers(onnx: &[u8]) -> Result<Self, PeerError> {
        let mut roster = Roster::default();
        roster.add_onnx_runtime(onnx)?;
        roster.add_tract(onnx)?;
        Ok(roster)
    }

    #[cfg(feature = "ort")]
    fn add_onnx_runtime(&mut self, onnx: &[u8]) -> Result<(), PeerError> {
        match std::env::var_os("ORT_DYLIB_PATH") {
            Some(library) => self.runtimes.push(Box::new(onnx_runtime::OnnxRuntime::new(library.as_ref(), onnx)?)),
            None => self.skip(
                "onnxruntime",
                "ORT_DYLIB_PATH is not set; install the Python package onnxruntime and let it name \
                 capi/libonnxruntime.so.* in it",
            ),
        }
        Ok(())
    }

    #[cfg(not(feature = "ort"))]
    fn add_onnx_runtime(&mut self, _: &[u8]) -> Result<(), PeerError> {
        self.skip("onnxruntime", "this build lacks it; build with --features ort");
        Ok(())
    }

    #[cfg(feature = "tract")]
    fn add_tract(&mut self, onnx: &[u8]) -> Result<(), PeerError> {
        self.runtimes.push(Box::new(tract::Tract::new(onnx)?));
        Ok(())
    }

    #[cfg(not(feature = "tract"))]
    fn add_tract(&mut self, _: &[u8]) -> Result<(), PeerError> {
        self.skip("tract", "this build lacks it; build with --features tract");
        Ok(())
    }

    #[cfg_attr(all(feature = "ort", feature = "tract"), allow(dead_code, reason = "nothing may be missing then"))]
    fn skip(&mut self, runtime: &'static str, reason: &str) {
        self.skipped.push(Skipped { runtime, reason: reason.to_owned() });
    }
}

/// The network of a model file, what it was trained for, and the native engine for it.
///
/// # Errors
/// A file that the loader refuses, or an instruction set that this processor lacks.
pub fn open(onnx: &[u8], isa: Isa) -> Result<(Mlp, Contract, Native), PeerError> {
    let (mlp, contract) = read(onnx, limits::MAX_BYTES)?;
    let native = Native::new(&mlp, isa)?;
    Ok((mlp, contract, native))
}
