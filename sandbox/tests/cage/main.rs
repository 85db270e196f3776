//! Samples in cages: what they see, what they cannot do, how they end, and what the host keeps.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed set-up is a failed test")]
#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]

mod endings;
mod escapes;
mod exhaustion;
mod homes;
mod levels;
mod networks;
mod runs;
