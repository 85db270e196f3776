//! What was run, what came of it, and which model is the champion: run directories, a store of artefacts by content, and
//! the local registry of released models.
//!
//! - A [`RunDirectory`] is one run's folder. Its [`RunStatus`] is derived by whoever looks and never written, so a killed
//!   run cannot claim to be running or complete.
//! - An [`ArtifactStore`] keeps files by their SHA-256 and forgets only what no manifest refers to.
//! - A [`ModelRegistry`] holds immutable models under numbers and moves names between them, through gates.
//!
//! The crate runs no gate, trains nothing and knows no telemetry; it stores reports, bound to the model they speak of.
//! Wall-clock times are read here alone ([`clock`]) and live in files that are never hashed.
#![forbid(unsafe_code)]

pub mod clock;
mod error;
pub mod fuzz;
mod lock;
mod models;
mod run;
mod store;

pub use error::{RegistryError, check_name};
pub use models::{Check, GateReport, ModelRegistry, Move, MoveKind, Published, RegistryProblem, VersionRecord};
pub use run::{
    ArtifactEntry, EventFile, HostFacts, InputFile, Lease, MANIFEST_FORMAT, Outcome, Problem, RunDirectory,
    RunManifest, RunPaths, RunReport, RunStatus, RunSummary, Terminal, Verification, find_run, list_runs, show_run,
    verify_run,
};
pub use store::{ArtifactStore, Collected, References, StoreSession};
