//! `bellwether serve` in a program that was built without it.

use std::ffi::OsString;

use anyhow::anyhow;

use super::{Failure, Output};

/// Serves decisions over gRPC and HTTP until it is told to stop.
///
/// This program was built without the server.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Whatever is asked.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _asked: Vec<OsString>,
}

impl Arguments {
    pub(crate) fn run(self, _: &Output) -> Result<(), Failure> {
        Err(absent())
    }
}

/// Says how a program with it is built.
pub(crate) fn absent() -> Failure {
    let how = "cargo build --release --features serve";
    Failure::usage(anyhow!("this program was built without the server: build it with `{how}`"))
}
