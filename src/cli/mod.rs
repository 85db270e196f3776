//! One verb, one file: each translates arguments into calls of the library crates.

mod audit;
mod build;
mod compare;
mod decide;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod detonate;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod detonation;
mod doctor;
mod estimate;
mod evaluate;
mod export;
mod gates;
mod ingest;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod judges;
mod keys;
mod layers;
mod learn;
mod learner;
pub(crate) mod log;
#[cfg(all(target_os = "linux", target_arch = "x86_64", feature = "serve"))]
mod loop_metrics;
#[cfg(all(target_os = "linux", target_arch = "x86_64", feature = "serve"))]
#[path = "loop_verb.rs"]
mod looping;
#[cfg(all(target_os = "linux", target_arch = "x86_64", not(feature = "serve")))]
#[path = "loop_absent.rs"]
mod looping;
mod machine;
mod model;
mod output;
mod played;
mod progress;
mod quickstart;
mod quickstart_live;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod record;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod recover;
mod release;
mod run_metrics;
mod runs;
#[cfg(all(target_os = "linux", target_arch = "x86_64", feature = "serve"))]
mod sandbox;
#[cfg(all(target_os = "linux", target_arch = "x86_64", not(feature = "serve")))]
#[path = "sandbox_absent.rs"]
mod sandbox;
#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod schemas;
mod scrape;
#[cfg(feature = "serve")]
mod serve;
#[cfg(not(feature = "serve"))]
#[path = "serve_absent.rs"]
mod serve;
#[cfg(feature = "serve")]
mod served;
mod split;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod stages;
#[cfg(feature = "serve")]
mod stop;
mod sweep;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod terms;
mod train;
mod validate;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod vault;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::anyhow;
use bellwether_registry::{RegistryError, check_name};
use bellwether_trainer::dqn::DqnError;
use bellwether_trainer::evaluate::EvaluationError;
use bellwether_trainer::recorded::TrainingError;
use bellwether_trainer::run::RunError;
use clap::{Parser, Subcommand};

pub(crate) use output::Output;

/// Trains, releases and serves the Q-networks that steer a malware sandbox while a file runs.
#[derive(Parser)]
#[command(name = "bellwether", version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Arguments {
    /// Report as JSON on standard output.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Form of the log on standard error; `BELLWETHER_LOG` sets its level (`info`, `debug`, ...).
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) log_format: log::Format,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Verb {
    Quickstart(quickstart::Arguments),
    Ingest(ingest::Arguments),
    Validate(validate::Arguments),
    Split(split::Arguments),
    Train(train::Arguments),
    Learn(learn::Arguments),
    Sweep(sweep::Arguments),
    Evaluate(evaluate::Arguments),
    Estimate(estimate::Arguments),
    Export(export::Arguments),
    Decide(decide::Arguments),
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    Detonate(Box<detonate::Arguments>),
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    Loop(Box<looping::Arguments>),
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    Recover(recover::Arguments),
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    Sandbox(sandbox::Arguments),
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    Record(record::Arguments),
    Runs(runs::Arguments),
    Release(release::Arguments),
    Keys(keys::Arguments),
    Audit(audit::Arguments),
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    Vault(vault::Arguments),
    Serve(serve::Arguments),
    Doctor(doctor::Arguments),
}

impl Verb {
    /// Does it.
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        match self {
            Verb::Quickstart(arguments) => arguments.run(output),
            Verb::Ingest(arguments) => arguments.run(output),
            Verb::Validate(arguments) => arguments.run(output),
            Verb::Split(arguments) => arguments.run(output),
            Verb::Train(arguments) => arguments.run(output),
            Verb::Learn(arguments) => arguments.run(output),
            Verb::Sweep(arguments) => arguments.run(output),
            Verb::Evaluate(arguments) => arguments.run(output),
            Verb::Estimate(arguments) => arguments.run(output),
            Verb::Export(arguments) => arguments.run(output),
            Verb::Decide(arguments) => arguments.run(output),
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Verb::Detonate(arguments) => arguments.run(output),
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Verb::Loop(arguments) => arguments.run(output),
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Verb::Recover(arguments) => arguments.run(output),
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Verb::Sandbox(arguments) => arguments.run(output),
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Verb::Record(arguments) => arguments.run(output),
            Verb::Runs(arguments) => arguments.run(output),
            Verb::Release(arguments) => arguments.run(output),
            Verb::Keys(arguments) => arguments.run(output),
            Verb::Audit(arguments) => arguments.run(output),
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Verb::Vault(arguments) => arguments.run(output),
            Verb::Serve(arguments) => arguments.run(output),
            Verb::Doctor(arguments) => arguments.run(output),
        }
    }
}

/// Why a verb ended without success; decides the exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The work failed: exit code 1.
    Failed(anyhow::Error),
    /// A gate or a check was not met: exit code 2. What was found has been reported already.
    NotMet(String),
    /// The arguments or the configuration are wrong: exit code 64 (`EX_USAGE`), and nothing was touched.
    Usage(anyhow::Error),
}

impl Failure {
    /// Exit code of wrong arguments.
    pub(crate) const USAGE: u8 = 64;

    /// Marks an error as one of usage.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Failure {
        Failure::Usage(error.into())
    }

    /// What a run refused before it began is wrong usage: its configuration, its name, or data that cannot teach.
    pub(crate) fn of_run(error: RunError) -> Failure {
        use EvaluationError::{Folds, OneClass, TooFewGroups};
        match error {
            RunError::Config(_)
            | RunError::Learning(DqnError::Config(_))
            | RunError::NoOperatingPoint
            | RunError::OneClass { .. }
            | RunError::OtherRun { .. }
            | RunError::Registry(RegistryError::Name { .. }) => Failure::usage(error),
            RunError::Training(TrainingError::Evaluation(TooFewGroups { .. } | OneClass { .. } | Folds { .. })) => {
                Failure::usage(error)
            }
            error => Failure::Failed(error.into()),
        }
    }

    /// Tells the user, with the chain of causes.
    pub(crate) fn report(&self) -> ExitCode {
        let code = match self {
            Failure::Failed(_) => 1,
            Failure::NotMet(_) => 2,
            Failure::Usage(_) => Self::USAGE,
        };
        output::complain(&self.to_string());
        ExitCode::from(code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Failed(error) | Failure::Usage(error) => write!(f, "{error:#}"),
            Failure::NotMet(what) => f.write_str(what),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Failed(error.into())
    }
}

/// Refuses to write over a file that the same command reads: it would be gone.
pub(crate) fn keep_inputs<'a>(inputs: impl IntoIterator<Item = &'a Path>, out: &Path) -> Result<(), Failure> {
    // What is not there yet is nobody's input.
    let Ok(out) = out.canonicalize() else { return Ok(()) };
    match inputs.into_iter().find(|input| input.canonicalize().is_ok_and(|input| input == out)) {
        Some(input) => Err(Failure::usage(anyhow!(
            "{} would be written over while it is read: choose another place for what is written",
            input.display()
        ))),
        None => Ok(()),
    }
}

/// Parses an argument that names something in a run directory or a registry.
fn plain_name(text: &str) -> Result<String, String> {
    check_name("name", text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}
