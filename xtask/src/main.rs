//! Developer tasks: `cargo xtask VERB`.
//!
//! The crate imports none of the workspace's crates; what it needs of them it asks of their binaries.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a developer's tool speaks on its outputs")]

mod bench_peers;
mod hosts;
mod python;
mod record_corpus;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

/// Developer tasks of the workspace.
#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo xtask")]
enum Task {
    /// Time ours and its peers in turn, and print the ratios as tables.
    BenchPeers(bench_peers::Args),
    /// Boot kernels with other control groups than this machine has, and check the sandbox in each.
    Hosts(hosts::Args),
    /// Record the jobs and emulations of `corpus/programs` in the sandbox.
    RecordCorpus(record_corpus::Args),
    /// Set up what the tests need, run all of them, and say what was not run.
    Test(test::Args),
    /// Check what compilers do not: documents, imports, generated files.
    Tidy(tidy::Args),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::BenchPeers(args) => bench_peers::run(&args),
        Task::Hosts(args) => hosts::run(&args),
        Task::RecordCorpus(args) => record_corpus::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Tidy(args) => tidy::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
