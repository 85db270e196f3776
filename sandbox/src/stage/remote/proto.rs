//! `bellwether.sandbox.v1`, and what reflection answers from.
#![allow(missing_docs, reason = "messages and calls are described where they are defined, in the proto file")]
#![allow(clippy::doc_markdown, unreachable_pub, reason = "generated from the proto file")]
#![allow(clippy::large_enum_variant, reason = "nearly every record is an event")]

tonic::include_proto!("bellwether.sandbox.v1");

/// Every message and service, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
