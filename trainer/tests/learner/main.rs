//! Learners against a naive reference and each other: gradients, whole updates, bytes.
#![allow(clippy::unwrap_used, reason = "the functions beside the tests fail like tests")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

#[cfg(any(feature = "burn", feature = "tch"))]
mod agreement;
mod bytes;
mod case;
mod gradient;
#[cfg(any(feature = "burn", feature = "tch"))]
mod graphics;
mod reference;
mod refusals;
mod runtime;
mod subject;
mod targets;
mod update;
