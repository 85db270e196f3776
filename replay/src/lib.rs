//! Experience in memory and episodes in Parquet. The crate knows nothing of malware: states are `f32` rows, actions are
//! small integers, and what else a caller wants to keep beside a state is a column of annotations.
#![forbid(unsafe_code)]

mod rows;

pub use rows::{DenseRows, StateRows};
