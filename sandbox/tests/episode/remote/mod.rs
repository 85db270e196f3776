//! Stages behind gRPC: what the wire, a broken connection or a peer that vanishes may do to a run.

mod door;
mod faults;
mod overdue;
mod policy;
mod protocol;
mod stages;
mod wire;
