//! DQN on environments of known solution.
#![allow(clippy::unwrap_used, reason = "the functions beside the tests fail like tests")]

mod learning;
mod loops;
mod resume;
