//! `bellwether doctor`: what this machine has.

use std::path::PathBuf;

use bellwether_artifact::SourceRevision;
use bellwether_env_adapter::Action;
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_env_adapter::window::WindowConfig;
use bellwether_inference::Isa;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
use bellwether_sandbox::abilities::{Abilities, Ability};
use bellwether_trainer::learner::{Device, LEARNERS, LearnerChoice};
use schemars::JsonSchema;
use serde::Serialize;

use super::learner::reason_for;
use super::{Failure, Output, build, machine};

/// Says what this machine has, what is used of it, and what is missing with the command that installs it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder of run directories, for the room that is left there.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
}

/// What `doctor` reports as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "DoctorReport")]
pub(crate) struct Report {
    /// Version of this program.
    version: String,
    /// What it was built from.
    source: SourceRevision,
    /// Operating system and processor family.
    platform: String,
    /// Name of the processor; null where the system does not say.
    processor: Option<String>,
    /// Features of the processor that matter to kernels.
    processor_features: Vec<&'static str>,
    /// Threads that can run at once; training takes as many unless `trainer.threads` says otherwise.
    threads: usize,
    /// Instruction sets that kernels are written for and this processor has.
    instruction_sets: Vec<&'static str>,
    /// The one that is used.
    instruction_set_used: &'static str,
    /// Why that one.
    instruction_set_reason: &'static str,
    /// Memory of the machine.
    memory: machine::Memory,
    /// Room where runs are written.
    runs: machine::Disk,
    /// Learners, and where this build of each can compute.
    learners: Vec<LearnerReport>,
    /// The learner that `train` uses unless told otherwise.
    learner_used: &'static str,
    /// Why that one.
    learner_reason: &'static str,
    /// SHA-256 of the feature specification.
    feature_spec: String,
    /// Version of the set of actions.
    action_set: u32,
    /// What optional parts of the project need, and whether it is here.
    parts: Vec<Part>,
    /// What this host offers to the sandbox, each tried.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    sandbox: Abilities,
}

/// A learner of `train --learner`.
#[derive(Serialize, JsonSchema)]
struct LearnerReport {
    /// Its name.
    name: &'static str,
    /// What it rests on.
    rests_on: &'static str,
    /// Values of `train --device` that this build and this machine take with it; none if it is not in this build.
    devices: Vec<String>,
}

/// Something that an optional part of the project needs.
#[derive(Serialize, JsonSchema)]
struct Part {
    /// What it is.
    name: &'static str,
    /// Where it was found; null where it was not.
    path: Option<PathBuf>,
    /// What needs it.
    needed_for: &'static str,
    /// The command that installs it.
    install: &'static str,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let isa = build::isa()?;
        let report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            source: build::source(),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processor: machine::processor(),
            processor_features: machine::processor_features(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            instruction_sets: Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(Isa::name).collect(),
            instruction_set_used: isa.name(),
            instruction_set_reason: reason(),
            memory: machine::memory(),
            runs: machine::disk(&self.runs),
            learners: learners(),
            learner_used: LearnerChoice::for_device(Device::Cpu, isa).map_err(Failure::usage)?.name(),
            learner_reason: reason_for(Device::Cpu),
            feature_spec: FeatureSpec::v1(WindowConfig::default()).hash_hex(),
            action_set: Action::SET_VERSION,
            parts: parts(),
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            sandbox: Abilities::of_this_host(),
        };
        output.report(&report, || describe(&report))?;
        Ok(())
    }
}

/// Why the instruction set is used that is used.
fn reason() -> &'static str {
    match (std::env::var_os("BELLWETHER_ISA"), Isa::best()) {
        (Some(_), _) => "BELLWETHER_ISA names it",
        (None, Isa::Avx512) => "the widest that kernels are written for; the processor has avx512f, avx2 and fma",
        (None, Isa::Avx2) => "the processor has avx2 and fma, but no avx512f, which the next wider one needs",
        (None, Isa::Scalar) => "the processor lacks avx2 or fma, which the next wider one needs",
    }
}

fn learners() -> Vec<LearnerReport> {
    LEARNERS
        .iter()
        .map(|facts| {
            let devices = facts.devices().iter().map(ToString::to_string).collect();
            LearnerReport { name: facts.name, rests_on: facts.rests_on, devices }
        })
        .collect()
}

fn describe_learner(learner: &LearnerReport) -> String {
    let LearnerReport { name, rests_on, devices } = learner;
    let title = format!("learner {name}");
    match devices.as_slice() {
        [] => format!("{title:<17} not in this build; get it with `cargo build --release --features {name}`"),
        devices => format!("{title:<17} {rests_on}, on {}", devices.join(", ")),
    }
}

fn parts() -> Vec<Part> {
    let onnx_runtime = machine::onnx_runtime();
    let named = std::env::var_os("ORT_DYLIB_PATH").is_some();
    vec![
        Part {
            name: "strace",
            path: machine::program("strace"),
            needed_for: "recording runs for `ingest --format strace`",
            install: "apt-get install strace",
        },
        Part {
            name: "python3",
            path: machine::program("python3"),
            needed_for: "the notebooks",
            install: "apt-get install python3 python3-venv",
        },
        Part {
            name: "ONNX Runtime",
            path: onnx_runtime,
            needed_for: "models beyond the native engine, in builds with the feature ort; comparing the two",
            install: if named { "export ORT_DYLIB_PATH=LIBRARY" } else { "pip install onnxruntime" },
        },
    ]
}

fn describe(report: &Report) -> String {
    let unknown = || "unknown".to_owned();
    let size = |bytes: Option<u64>| bytes.map_or_else(unknown, |bytes| format!("{:.1} GiB", bytes as f64 / GIB));
    let source = match (&report.source.revision, report.source.modified) {
        (Some(revision), Some(true)) => format!(" (commit {revision}, changed since)"),
        (Some(revision), _) => format!(" (commit {revision})"),
        (None, _) => String::new(),
    };
    let limit = report.memory.limit_bytes.map(|limit| format!(", limited to {}", size(Some(limit))));
    let mut lines = vec![
        format!("bellwether        {}{source}", report.version),
        format!("platform          {}", report.platform),
        format!("processor         {}", report.processor.clone().unwrap_or_else(unknown)),
        format!("features          {}", report.processor_features.join(", ")),
        format!("threads           {}", report.threads),
        format!("instruction sets  {}", report.instruction_sets.join(", ")),
        format!("used              {}: {}", report.instruction_set_used, report.instruction_set_reason),
        format!(
            "memory            {}, {} available{}",
            size(report.memory.total_bytes),
            size(report.memory.available_bytes),
            limit.unwrap_or_default()
        ),
        format!(
            "disk              {} of {} free in {}",
            size(report.runs.free_bytes),
            size(report.runs.total_bytes),
            report.runs.folder.display()
        ),
        format!("feature spec      {}", report.feature_spec),
        format!("action set        {}", report.action_set),
    ];
    lines.extend(report.learners.iter().map(describe_learner));
    lines.push(format!("learner used      {}: {}", report.learner_used, report.learner_reason));
    lines.extend(report.parts.iter().map(|part| match &part.path {
        Some(path) => format!("{:<17} {}", part.name, path.display()),
        None => {
            format!("{:<17} missing: needed for {}; get it with `{}`", part.name, part.needed_for, part.install)
        }
    }));
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    lines.extend(describe_sandbox(&report.sandbox));
    lines.join("\n")
}

/// What of a sandbox this host has not, a line each.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) fn lacking(abilities: &Abilities) -> Vec<String> {
    abilities.abilities.iter().filter(|ability| !ability.here).map(describe_ability).collect()
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn describe_ability(ability: &Ability) -> String {
    let missing = if ability.here { "" } else { "missing: " };
    let needed = if ability.here { String::new() } else { format!("; needed for {}", ability.needed_for) };
    format!("  {:<15} {missing}{}{needed}", ability.name, ability.found)
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn describe_sandbox(abilities: &Abilities) -> Vec<String> {
    let mut lines = vec!["sandbox".to_owned()];
    lines.extend(abilities.abilities.iter().map(describe_ability));
    lines.extend(
        abilities.kill_latency_us.map(|time| format!("  {:<15} {time} us to none of 16 tasks alive", "kill latency")),
    );
    lines
}

const GIB: f64 = (1_u64 << 30) as f64;
