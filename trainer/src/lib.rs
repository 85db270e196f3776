//! Learners, the training loop, evaluation and export.
#![deny(unsafe_code)]

pub mod learner;
