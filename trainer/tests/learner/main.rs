//! Learners against a naive reference and each other: gradients, whole updates, bytes.
#![allow(clippy::unwrap_used, reason = "the functions beside the tests fail like tests")]

#[cfg(any(feature = "burn", feature = "tch"))]
mod agreement;
mod bytes;
mod case;
mod gradient;
mod reference;
mod refusals;
mod runtime;
mod subject;
mod targets;
mod update;
