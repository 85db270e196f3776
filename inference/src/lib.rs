//! The policy runtime: the model file format and the engines that decide.
//!
//! [`model`] turns an [`model::Mlp`] into ONNX bytes and back, strictly. [`engine`] evaluates it, allocating nothing per
//! decision. With default features this is the native engine alone: the crate never sees Parquet, Arrow or the trainer.
#![deny(unsafe_code)]

pub mod engine;
pub mod model;

pub use engine::{DecideError, Decision, Engine, EngineError, Isa, Scratch};
