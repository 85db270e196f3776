//! Stages behind gRPC: what the wire, a broken connection or a peer that vanishes may do to a run.

mod faults;
mod protocol;
mod stages;
mod wire;
