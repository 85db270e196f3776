//! The server over real sockets: what it answers, what it refuses, and what it does with clients that mean no good.
#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

#[path = "../manifests/mod.rs"]
mod manifests;
#[path = "../nets/mod.rs"]
mod nets;
#[path = "../released/mod.rs"]
mod released;

mod admin;
mod any_bytes;
mod decide;
mod deploy;
mod drain;
mod held_back;
mod hostile;
mod http_api;
mod limits;
mod observed;
mod oip;
mod reload;
mod session;
mod started;
mod tls;
mod trials;
