//! The policy runtime: the model file format and the engines that decide.
//!
//! With default features this is the native engine alone. It never sees Parquet, Arrow or the trainer.
#![deny(unsafe_code)]

pub mod model;
