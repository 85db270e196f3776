//! The two-stage sandbox: an unknown file runs on Linux, watched and held, and is decided on window by window while it runs.

#![deny(unsafe_code)]

pub mod filter;
mod limits;

pub use limits::{Limits, LimitsError};
