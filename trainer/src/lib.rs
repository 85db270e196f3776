//! Learners, the training loop, evaluation and export.
#![deny(unsafe_code)]

pub mod baselines;
pub mod config;
pub mod control;
pub mod dqn;
pub mod evaluate;
pub mod export;
pub mod fuzz;
pub mod greedy;
pub mod learner;
pub mod logged;
pub mod metrics;
pub mod network;
pub mod off_policy;
pub mod offline;
pub mod plots;
pub mod recorded;
pub mod run;
pub mod schedule;
pub mod streams;
pub mod sweep;
