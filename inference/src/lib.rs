//! The policy runtime: the model file format and the engines that decide.
//!
//! [`model`] turns an [`model::Mlp`] into ONNX bytes and back, strictly. [`engine`] evaluates it, allocating nothing per
//! decision. [`release`] opens a released model and checks it against its own metadata. [`policy`] serves one to many threads
//! and swaps it for another while they decide; with the feature `watch`, a thread of the module of that name does so by
//! itself when a new model is released. With default features this is the native engine alone: the crate never sees
//! Parquet, Arrow or the trainer. The feature `ffi` adds a C ABI.
#![deny(unsafe_code)]

pub mod engine;
#[cfg(feature = "ffi")]
pub mod ffi;
pub mod model;
pub mod policy;
pub mod release;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(feature = "watch")]
pub mod watch;

#[cfg(feature = "ort")]
pub use engine::OnnxRuntime;
pub use engine::{Backend, DecideError, Decision, Engine, EngineError, Isa, Precision, Scratch};
pub use policy::{Answer, Decider, Policy, PolicyError};
pub use release::{Engines, GoldenError, LoadedRelease, ReleaseError, load_release};
