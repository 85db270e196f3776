//! The protocols as Rust: messages, clients and servers.
#![allow(missing_docs, reason = "messages and calls are described where they are defined, in the proto files")]
#![allow(clippy::doc_markdown, unreachable_pub, reason = "generated from the proto files")]

/// `bellwether.policy.v1`: decisions, sessions, admin calls.
pub mod policy {
    tonic::include_proto!("bellwether.policy.v1");
}

/// `inference`: the Open Inference Protocol, version 2.
pub mod inference {
    tonic::include_proto!("inference");
}

/// Telemetry of a running sample.
pub use bellwether_env_adapter::proto as telemetry;

/// Every message and service above, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
