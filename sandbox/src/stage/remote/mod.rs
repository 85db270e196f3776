//! Stages elsewhere: the protocol `bellwether.sandbox.v1`, a server that runs samples for others, and a client that is a
//! [`Stage`](super::Stage).
//!
//! What happens in a run is one numbered list of records: events, questions, feedback, and the outcome last. The server keeps each
//! until it is acknowledged, so that a connection may break anywhere; while too many are not, the sample waits. Whoever decides
//! must be heard of again and again, or the sample is killed.

mod client;
mod door;
mod follow;
mod lines;
pub mod proto;
mod run;
mod server;
mod service;
mod table;
mod wire;

pub use client::{RemoteOptions, RemoteStage};
pub use server::{Endpoint, Listen, ServeStageError, StageConfig, StageServer};
pub use wire::WireError;
