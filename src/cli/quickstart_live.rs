//! The end of `quickstart`: programs of families that the policy never saw, decided on while they run in the sandbox.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use bellwether_artifact::{Visible, durable};
use bellwether_corpus::programs::{self, Run};
use bellwether_env_adapter::{EpisodeId, Label};
use bellwether_inference::LoadedRelease;
use bellwether_inference::policy::{Options, Policy};
use bellwether_sandbox::abilities::Abilities;
use bellwether_sandbox::episode::{self, Episode, Listener, Monotonic};
use bellwether_sandbox::stage::LocalStage;
use bellwether_sandbox::vault::Sample;
use schemars::JsonSchema;
use serde::Serialize;

use super::detonate::Lines;
use super::judges::Ground;
use super::terms::{self, Terms};
use super::{Failure, Output, doctor, machine, played};

/// What came of running programs live.
#[derive(Default, Serialize, JsonSchema)]
pub(super) struct Live {
    /// The programs, a job and an emulation; empty where none could run.
    detonated: Vec<Detonated>,
    /// Why none ran, in the words of `doctor`, a line each; empty where they did.
    missing: Vec<String>,
}

/// A program that was decided on while it ran.
#[derive(Serialize, JsonSchema)]
struct Detonated {
    /// Its family, which the policy was not trained on.
    family: String,
    /// What it is: `benign` or `malicious`.
    label: &'static str,
    /// `release`, `terminate` or `quarantine`; null where none fell.
    verdict: Option<&'static str>,
    /// Stage in which it fell: 1 or 2.
    stage: u8,
    /// Decisions in both stages.
    decisions: u64,
    /// Files of its home that it changed or deleted before that, in both stages.
    files_lost: u64,
    /// Why the record is not whole; empty if it is.
    partial: Vec<String>,
    /// Folder of telemetry and steps.
    folder: PathBuf,
}

/// Seconds until a verdict must fall, in stage 1 and in stage 2.
const SECONDS: [u64; 2] = [20, 20];
/// What is drawn in both programs follows from it.
const SEED: u64 = 1;
/// Technique of the emulations that are chosen where there are any: data is encrypted.
const ENCRYPTS: &str = "T1486";

/// What a compiler is needed for, and how to get one.
const NEEDED_FOR: &str = "the programs that run live";
const INSTALL: &str = "apt-get install gcc libc6-dev";

/// A job or emulation that has a C program.
struct Family {
    name: &'static str,
    label: Label,
    encrypts: bool,
}

/// Detonates a job and an emulation of families that are not in `trained`, and shows each decision. What this machine lacks for it is
/// part of the result.
///
/// # Errors
/// What goes wrong on a machine that lacks nothing.
pub(super) fn show(
    release: LoadedRelease,
    trained: &BTreeSet<String>,
    folder: &Path,
    output: &Output,
) -> Result<Live, Failure> {
    let abilities = Abilities::of_this_host();
    if !abilities.detonates {
        return Ok(Live { missing: doctor::lacking(&abilities), ..Live::default() });
    }
    let lacks = |what: &str| Ok(Live { missing: vec![format!("  {what}")], ..Live::default() });
    let Some(compiler) = machine::program("cc") else {
        return lacks(&format!(
            "C compiler      missing: no cc in PATH; needed for {NEEDED_FOR}; get it with `{INSTALL}`"
        ));
    };
    let chosen = choose(trained);
    if chosen.is_empty() {
        return lacks("programs        missing: the policy was trained on every family that has one");
    }
    durable::create_folder(folder)?;
    let Some(compiled) = compile(&compiler, folder)? else {
        return lacks(&format!(
            "C compiler      missing: {} refuses {NEEDED_FOR}; get one with its library by `{INSTALL}`",
            compiler.display()
        ));
    };
    let ground = Ground::Here(Policy::new(release, None, Options::default()).context("the model cannot decide here")?);
    let mut live = Live::default();
    for family in chosen {
        output.say(format_args!(
            "\nlive: {} ({}), a family that the policy never saw",
            family.name,
            family.label.name()
        ));
        live.detonated.push(detonate(&ground, &family, &compiled, folder, output)?);
    }
    Ok(live)
}

/// A job, and an emulation, which encrypts files if one that does was held out.
fn choose(trained: &BTreeSet<String>) -> Vec<Family> {
    let families = bellwether_corpus::jobs().lines().skip(1).filter_map(|line| {
        let fields: Vec<&'static str> = line.split(',').collect();
        let (name, label, technique) = (*fields.first()?, *fields.get(1)?, *fields.get(2)?);
        let in_c = fields.get(3)?.split('+').any(|language| language == "c");
        let label = if label == "benign" { Label::Benign } else { Label::Malicious };
        (in_c && !trained.contains(name)).then(|| Family { name, label, encrypts: technique.contains(ENCRYPTS) })
    });
    let mut families: Vec<Family> = families.collect();
    // A stable sort: the first that fits, as the table has them.
    families.sort_by_key(|family| !family.encrypts);
    let mut chosen = Vec::new();
    for label in [Label::Benign, Label::Malicious] {
        let at = families.iter().position(|family| family.label == label);
        chosen.extend(at.map(|at| families.remove(at)));
    }
    chosen
}

/// Compiles the programs of the corpus, all of them one; none where the compiler refuses them, and has said why.
fn compile(compiler: &Path, folder: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let out = folder.join("programs");
    let mut command = Command::new(compiler);
    command.args(["-O1", "-x", "c", "-", "-o"]).arg(&out).stdin(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {}", compiler.display()))?;
    let mut input = child.stdin.take().context("the compiler has no input")?;
    // A compiler that ends early says more by its exit than by the closed pipe.
    let written = input.write_all(programs::c_source().as_bytes());
    drop(input);
    if !child.wait()?.success() {
        return Ok(None);
    }
    written?;
    Ok(Some(durable::read(&out, terms::MOST_BYTES)?))
}

fn detonate(
    ground: &Ground,
    family: &Family,
    compiled: &[u8],
    folder: &Path,
    output: &Output,
) -> Result<Detonated, Failure> {
    let run = Run { job: family.name, seed: SEED, rounds: 1 };
    let program =
        programs::with_parameters(compiled, run).context("the compiled programs have no place for parameters")?;
    let path = folder.join(family.name);
    durable::write_bytes(&path, &program)?;
    let sample = Sample::open(&path, terms::MOST_BYTES)?;
    let terms = Terms {
        ground,
        target_fpr: played::TARGET_FPR,
        stages: 2,
        limits: terms::limits(&SECONDS)?,
        seed: Some(SEED),
        label: Some(family.label),
        marked_home: true,
    };
    let episode = EpisodeId(format!("{}-{}", family.name, terms::digits()?));
    let setup = terms.setup(episode, &sample, "tool".as_ref(), Vec::new(), folder)?;
    let limit = Duration::from_millis(5);
    let mut judge = ground.judge(&setup.episode, played::TARGET_FPR, limit).map_err(Failure::usage)?;
    let listeners: Vec<Box<dyn Listener>> =
        if output.is_json() { Vec::new() } else { vec![Box::new(Lines(io::stdout()))] };
    let report = episode::run(
        &setup,
        Episode {
            stages: [&LocalStage, &LocalStage],
            judge: &mut *judge,
            seal: &mut |_| Err("no vault was given: the program stays where it is".to_owned()),
            listeners,
            clock: &Monotonic,
            stop: &AtomicBool::new(false),
        },
    )?;
    setup.folder.settle()?;
    let changes = report.outcomes.iter().filter_map(|outcome| outcome.changes.as_ref());
    Ok(Detonated {
        family: family.name.to_owned(),
        label: family.label.name(),
        verdict: report.verdict.map(|verdict| verdict.name()),
        stage: report.stage,
        decisions: report.decisions.len() as u64,
        files_lost: changes.map(|changes| (changes.changed.len() + changes.deleted.len()) as u64).sum(),
        partial: report.partial.iter().map(ToString::to_string).collect(),
        folder: setup.folder.path().to_owned(),
    })
}

impl Live {
    /// For people.
    pub(super) fn describe(&self) -> String {
        if !self.missing.is_empty() {
            return format!("no program was run live, for this machine lacks:\n{}", self.missing.join("\n"));
        }
        let line = |one: &Detonated| {
            let fell = match one.verdict {
                Some(verdict) => format!("{verdict} in stage {}", one.stage),
                None => format!("no verdict: {}", Visible::new(&one.partial.join("; "))),
            };
            format!(
                "live: {} ({}): {fell} after {} decisions; files of its home changed or deleted: {}",
                one.family, one.label, one.decisions, one.files_lost
            )
        };
        self.detonated.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(trained: &[&str]) -> Vec<&'static str> {
        choose(&trained.iter().map(|name| (*name).to_owned()).collect()).iter().map(|family| family.name).collect()
    }

    #[test]
    fn a_job_and_an_emulation_that_encrypts_are_chosen_of_what_is_not_trained_on() {
        assert_eq!(names(&[]), ["index_files", "encrypt_in_place"]);
        assert_eq!(names(&["index_files", "encrypt_in_place"]), ["find_duplicates", "encrypt_copy_delete"]);
        let all: Vec<&str> = bellwether_corpus::jobs().lines().filter_map(|line| line.split(',').next()).collect();
        assert_eq!(names(&all), [""; 0]);
        let encrypting = |name: &&&str| name.contains("encrypt");
        let without: Vec<&str> = all.iter().filter(encrypting).copied().collect();
        assert_eq!(names(&without).len(), 2);
    }
}
