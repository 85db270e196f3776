//! `bellwether`: the command line of the workbench.
#![forbid(unsafe_code)]

mod cli;
mod registry_source;
mod settings;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = match cli::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let usage = error.use_stderr();
            let _ = error.print();
            return if usage { ExitCode::from(cli::Failure::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    cli::log::start(arguments.log_format);
    match arguments.verb.run(&cli::Output::new(arguments.json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
