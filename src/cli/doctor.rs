//! `bellwether doctor`: what this machine has.

use bellwether_env_adapter::Action;
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_env_adapter::window::WindowConfig;
use bellwether_inference::Isa;
use serde::Serialize;

use super::{Failure, Output, build};

/// Says what this machine has, what is used of it, and what is missing with the command that installs it.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

#[derive(Serialize)]
struct Report {
    version: String,
    processors: usize,
    instruction_sets: Vec<&'static str>,
    instruction_set_used: &'static str,
    learner: &'static str,
    feature_spec: String,
    action_set: u32,
    parts: Vec<Part>,
}

/// A program that an optional part needs.
#[derive(Serialize)]
struct Part {
    name: &'static str,
    found: bool,
    needed_for: &'static str,
    install: &'static str,
}

/// Programs that optional parts need: name, what for, how to get it.
const PROGRAMS: [(&str, &str, &str); 2] = [
    ("strace", "recording runs for `ingest --format strace`", "apt-get install strace"),
    ("python3", "the notebooks", "apt-get install python3 python3-venv"),
];

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            instruction_sets: Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(Isa::name).collect(),
            instruction_set_used: build::isa()?.name(),
            learner: "fused",
            feature_spec: FeatureSpec::v1(WindowConfig::default()).hash_hex(),
            action_set: Action::SET_VERSION,
            parts: PROGRAMS
                .iter()
                .map(|(name, needed_for, install)| Part { name, found: on_path(name), needed_for, install })
                .collect(),
        };
        output.report(&report, || describe(&report))?;
        Ok(())
    }
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

fn describe(report: &Report) -> String {
    let mut lines = vec![
        format!("bellwether        {}", report.version),
        format!("processors        {}", report.processors),
        format!("instruction sets  {} (used: {})", report.instruction_sets.join(", "), report.instruction_set_used),
        format!("learner           {}", report.learner),
        format!("feature spec      {}", report.feature_spec),
        format!("action set        {}", report.action_set),
    ];
    lines.extend(report.parts.iter().map(|part| match part.found {
        true => format!("{:<17} found", part.name),
        false => {
            format!("{:<17} missing: needed for {}; install it with `{}`", part.name, part.needed_for, part.install)
        }
    }));
    lines.join("\n")
}
