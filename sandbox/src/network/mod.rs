//! The decoy network of a sample: any address answers, and nothing leaves.

use std::net::Ipv4Addr;

/// The name server that a sample is told of; there is none behind it but the decoy network's.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
