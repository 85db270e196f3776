//! What a run writes while it trains: metrics, timings and TensorBoard events.
//!
//! `metrics.jsonl` is a function of data, configuration and seed, so it holds no time; times go to `timings.jsonl`, and
//! TensorBoard files (which carry times) are never hashed. Nothing here reads a clock or opens a file: writers take any
//! `Write`, and times are handed in.

mod records;
mod tensorboard;

pub use records::{
    JsonLines, JsonLinesWriter, MetricsError, MetricsRecord, PartialLine, Phase, TimingsRecord, read_json_lines,
};
pub use tensorboard::{EventWriter, event_file_name};
