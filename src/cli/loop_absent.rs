//! `bellwether loop` in a program that was built without it.

use std::ffi::OsString;

use super::{Failure, Output, serve};

/// Runs the files that come into a folder, several at once, and puts each where its verdict sends it.
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
        Err(serve::absent())
    }
}
