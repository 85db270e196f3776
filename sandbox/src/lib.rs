//! The two-stage sandbox: an unknown file runs on Linux, watched and held, and is decided on window by window while it runs.

#![deny(unsafe_code)]

pub mod abilities;
pub mod cage;
mod draw;
mod edge;
pub mod episode;
pub mod filter;
pub mod intake;
pub mod isolation;
mod limits;
pub mod network;
#[cfg(feature = "serve")]
pub mod peer;
pub mod recording;
pub mod report;
pub mod stage;
pub mod tracer;
pub mod vault;

pub use limits::{Limits, LimitsError};
