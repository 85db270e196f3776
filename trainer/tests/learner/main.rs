//! The fused learner against naive references: gradients, whole updates, bytes.
#![allow(clippy::unwrap_used, reason = "the functions beside the tests fail like tests")]

mod bytes;
mod case;
mod gradient;
mod reference;
mod refusals;
mod runtime;
mod targets;
mod update;
