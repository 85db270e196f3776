//! Learners, the training loop, evaluation and export.
#![deny(unsafe_code)]

pub mod evaluate;
pub mod learner;
pub mod network;
pub mod streams;
