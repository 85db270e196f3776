//! What each stage runs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use super::small_run::{SmallRun, require_parity};
use super::{Findings, Outcome, Stage, junit};
use crate::workspace::{Workspace, cargo, shown};
use crate::{python, tidy};

/// One set of features for all stages, so that nothing is built twice: the defaults of every member, and what is optional and
/// builds everywhere.
const FEATURES: &str = "bellwether/burn,bellwether/ffi,bellwether/serve,bellwether/otel,bellwether-inference/watch";

/// All members with all of that.
const WHOLE: [&str; 5] = ["--workspace", "--profile", "ci", "--features", FEATURES];

/// Where the configuration of nextest puts its report: below the root, wherever Cargo builds.
const NEXTEST_REPORT: &str = "target/nextest/default/junit.xml";

/// Runs one stage.
pub(super) fn run(stage: Stage, workspace: &Workspace, findings: &mut Findings) -> anyhow::Result<Outcome> {
    match stage {
        Stage::Python => python_environment(workspace, findings),
        Stage::Format => succeed(cargo().args(["fmt", "--all", "--check"])),
        Stage::Clippy => succeed(cargo().arg("clippy").args(WHOLE).args([
            "--all-targets",
            "--locked",
            "--keep-going",
            "--",
            "-D",
            "warnings",
        ])),
        Stage::Tidy => tidy::run(&tidy::Args::default()).map(|()| Outcome::Passed),
        Stage::Dependencies => dependencies(),
        Stage::Features => features(),
        Stage::Tests => tests(workspace, findings),
        Stage::Doctests => succeed(cargo().arg("test").args(WHOLE).args(["--doc", "--locked"])),
        Stage::Docs => {
            let mut doc = cargo();
            doc.arg("doc")
                .args(WHOLE)
                .args(["--no-deps", "--locked", "--keep-going"])
                .env("RUSTDOCFLAGS", "-D warnings");
            succeed(&mut doc)
        }
        Stage::Peers => peers(workspace, findings),
        Stage::Libtorch => libtorch(),
        Stage::PythonChecks => python_checks(workspace, findings),
        Stage::Notebooks => notebooks(workspace, findings),
    }
}

/// Runs a command with its output on ours.
fn succeed(command: &mut Command) -> anyhow::Result<Outcome> {
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    Ok(if status.success() { Outcome::Passed } else { Outcome::Failed(format!("{}: {status}", shown(command))) })
}

fn python_environment(workspace: &Workspace, findings: &mut Findings) -> anyhow::Result<Outcome> {
    match python::set_up(workspace, python::Purpose::Tests)? {
        Ok(environment) => {
            findings.python = Some(environment);
            Ok(Outcome::Passed)
        }
        Err(reason) => Ok(Outcome::Skipped(reason)),
    }
}

/// Whether Cargo has this command beside its own.
fn has(command: &str) -> bool {
    let asked = cargo().args([command, "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

fn has_nextest() -> bool {
    has("nextest")
}

/// Advisories are left out: they come over a network, and change without anything here changing.
fn dependencies() -> anyhow::Result<Outcome> {
    if !has("deny") {
        return Ok(Outcome::Skipped("there is no cargo-deny: `cargo install cargo-deny --locked`".into()));
    }
    // Every member: on its own it looks at the root package alone. The fuzzers are a workspace of their own.
    for arguments in [&["--workspace"][..], &["--manifest-path", "fuzz/Cargo.toml", "--config", "deny.toml"]] {
        let mut check = cargo();
        check.arg("deny").args(arguments).args(["--offline", "--log-level", "error"]);
        match succeed(check.args(["check", "bans", "licenses", "sources"]))? {
            Outcome::Passed => {}
            other => return Ok(other),
        }
    }
    Ok(Outcome::Passed)
}

/// Each feature of the policy runtime, which other stages only have together.
const ALONE: [&str; 6] = ["", "ffi", "ort", "otel", "serve", "watch"];

/// Embedders take one feature and leave the others: each must compile on its own. So must what other stages leave out.
fn features() -> anyhow::Result<Outcome> {
    for feature in ALONE {
        let mut clippy = cargo();
        clippy.args(["clippy", "--profile", "ci", "--locked", "--package", "bellwether-inference"]);
        clippy.args(["--no-default-features", "--features", feature, "--", "-D", "warnings"]);
        match succeed(&mut clippy)? {
            Outcome::Passed => {}
            other => return Ok(other),
        }
    }
    // The bindings of libtorch can be compiled for their documentation alone, which takes no libtorch.
    let mut clippy = cargo();
    clippy.args(["clippy", "--profile", "ci", "--locked", "--package", "bellwether-trainer", "--all-targets"]);
    succeed(clippy.args(["--features", "tch,tch/doc-only", "--", "-D", "warnings"]))
}

/// The learner on libtorch and the trainer with it. Each build takes minutes more, and libtorch some gigabytes, so that both are left to
/// whoever asks for them.
fn libtorch() -> anyhow::Result<Outcome> {
    if !["LIBTORCH", "LIBTORCH_USE_PYTORCH"].iter().any(|name| std::env::var_os(name).is_some()) {
        let reason = "no libtorch is named: docs/algorithms/learners.md says how to get one, and to name it";
        return Ok(Outcome::Skipped(reason.into()));
    }
    let mut command = cargo();
    if has_nextest() {
        command.args(["nextest", "run", "--cargo-profile", "ci"]);
    } else {
        command.args(["test", "--profile", "ci"]);
    }
    command.args(["--package", "bellwether-trainer", "--features", "burn,tch", "--locked"]);
    succeed(command.args(["--test", "learner", "--test", "recorded"]))
}

fn tests(workspace: &Workspace, findings: &mut Findings) -> anyhow::Result<Outcome> {
    if !has_nextest() {
        findings.not_run.push(
            "the names of tests that skipped themselves are not collected without cargo-nextest: `cargo test` ran"
                .into(),
        );
        return succeed(cargo().arg("test").args(WHOLE).args(["--lib", "--bins", "--tests", "--examples", "--locked"]));
    }
    // The peers have a stage of their own, with all their features.
    let arguments = ["nextest", "run", "--workspace", "--exclude", "bellwether-peers", "--cargo-profile", "ci"];
    let arguments = [&arguments[..], &["--features", FEATURES]].concat();
    let report = workspace.root.join(NEXTEST_REPORT);
    // Where nothing can be built no report is written, and an old one would be taken for it.
    let _ = std::fs::remove_file(&report);
    let outcome = succeed(cargo().args(arguments).args(["--locked", "--no-fail-fast"]))?;
    match std::fs::read_to_string(&report) {
        Ok(text) => findings.not_run.extend(junit::skipped(&text)),
        Err(error) => findings.not_run.push(format!("{NEXTEST_REPORT}: {error}: skipped tests are not named")),
    }
    Ok(outcome)
}

fn peers(workspace: &Workspace, findings: &mut Findings) -> anyhow::Result<Outcome> {
    let mut command = cargo();
    let member = ["--package", "bellwether-peers", "--features", "ort,tract", "--locked"];
    if has_nextest() {
        command.args(["nextest", "run", "--cargo-profile", "ci"]).args(member);
    } else {
        command.args(["test", "--profile", "ci"]).args(member);
    }
    let given = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    let library = given.or_else(|| environment(workspace, findings).and_then(|python| python.onnx_runtime()));
    match &library {
        Some(library) => {
            command.env("ORT_DYLIB_PATH", library);
        }
        None => findings.not_run.push(
            "peers: ONNX Runtime, which is neither in target/venv nor named by ORT_DYLIB_PATH; tract alone ran".into(),
        ),
    }
    for command in [&mut lints_of_peers(), &mut command, &mut onnx_runtime(library.as_deref())] {
        match succeed(command)? {
            Outcome::Passed => {}
            other => return Ok(other),
        }
    }
    parity_of_a_trained_model(library.as_deref(), findings)
}

/// `clippy` over what only a build with the peers has.
fn lints_of_peers() -> Command {
    let mut clippy = cargo();
    clippy.args(["clippy", "--profile", "ci", "--all-targets", "--locked"]);
    clippy.args(["--package", "bellwether", "--package", "bellwether-inference", "--package", "bellwether-peers"]);
    clippy.args(["--features", "bellwether/ort,bellwether-peers/ort,bellwether-peers/tract", "--", "-D", "warnings"]);
    clippy
}

/// The tests of the policy runtime and of the program with ONNX Runtime, which is in no build by default.
fn onnx_runtime(library: Option<&Path>) -> Command {
    let mut command = cargo();
    if has_nextest() {
        command.args(["nextest", "run", "--cargo-profile", "ci"]);
    } else {
        command.args(["test", "--profile", "ci"]);
    }
    command.args(["--package", "bellwether-inference", "--package", "bellwether", "--locked"]);
    command.args(["--features", "bellwether/ort", "--test", "onnx_runtime", "--test", "general_model"]);
    command.envs(library.map(|library| ("ORT_DYLIB_PATH", library)));
    command
}

/// Recorded states on which the runtimes are compared, at least.
const RECORDED_STATES: u64 = 10_000;

/// The runtimes side by side on the model of the small run and on everything that was recorded.
fn parity_of_a_trained_model(library: Option<&Path>, findings: &mut Findings) -> anyhow::Result<Outcome> {
    let run = SmallRun::of(findings)?;
    let mut parity = cargo();
    parity.args(["run", "--quiet", "--profile", "ci", "--locked", "--package", "bellwether-peers"]);
    parity.args(["--features", "ort,tract", "--", "parity", "--model"]).arg(run.model());
    parity.arg("--states").arg(run.states()?).stderr(Stdio::inherit());
    if let Some(library) = library {
        parity.arg("--require-all").env("ORT_DYLIB_PATH", library);
    }
    println!("$ {}", shown(&parity));
    let report = parity.output().with_context(|| format!("cannot run {}", shown(&parity)))?;
    if report.stdout.is_empty() {
        return Ok(Outcome::Failed(format!("{}: {}", shown(&parity), report.status)));
    }
    require_parity(&report.stdout, RECORDED_STATES)?;
    Ok(Outcome::Passed)
}

/// Shapes of the networks whose files are given to the checker of ONNX, each with either head.
const CHECKED_SHAPES: [&str; 3] = ["64,256,256,6", "7,13,3", "5,2"];

fn python_checks(workspace: &Workspace, findings: &mut Findings) -> anyhow::Result<Outcome> {
    let Some(python) = environment(workspace, findings) else {
        let reason = "neither the checker of ONNX nor CartPole beside Gymnasium: there is no target/venv, see `python`";
        return Ok(Outcome::Skipped(reason.into()));
    };
    let folder = tempfile::tempdir().context("cannot make a folder for the files to check")?;
    let trained = SmallRun::of(findings)?.model().join("model.onnx");
    match check_models(workspace, &python, folder.path(), &trained)? {
        Outcome::Passed => match check_control(workspace, &python, folder.path())? {
            Outcome::Passed => match check_server(workspace, &python, &trained)? {
                Outcome::Passed => check_reports(&python),
                other => Ok(other),
            },
            other => Ok(other),
        },
        other => Ok(other),
    }
}

/// The reports of an episode, read by the published models of their readers.
fn check_reports(python: &python::Environment) -> anyhow::Result<Outcome> {
    let mut check = cargo();
    check.args(["test", "--profile", "ci", "--locked", "--package", "bellwether-sandbox", "--test", "report"]);
    check.args(["--", "a_published_reader_takes_the_reports"]).env("BELLWETHER_TEST_PYTHON", python.interpreter());
    succeed(&mut check)
}

/// Networks of several shapes, and a trained one, before the checker of ONNX.
fn check_models(
    workspace: &Workspace,
    python: &python::Environment,
    folder: &Path,
    trained: &Path,
) -> anyhow::Result<Outcome> {
    let mut check = Command::new(python.interpreter());
    check.arg(workspace.root.join("peers/check_onnx.py"));
    let heads = CHECKED_SHAPES.iter().flat_map(|widths| [(widths, None), (widths, Some("--dueling"))]);
    for (number, (widths, dueling)) in heads.enumerate() {
        let model = folder.join(format!("{number}.onnx"));
        let mut draw = cargo();
        draw.args(["run", "--quiet", "--profile", "ci", "--locked", "--package", "bellwether-peers", "--", "draw"]);
        draw.args(dueling).args(["--widths", widths, "--out"]).arg(&model);
        match succeed(&mut draw)? {
            Outcome::Passed => check.arg(model),
            other => return Ok(other),
        };
    }
    check.arg(trained);
    succeed(&mut check)
}

/// The server, asked by published clients.
fn check_server(workspace: &Workspace, python: &python::Environment, trained: &Path) -> anyhow::Result<Outcome> {
    let mut build = cargo();
    build.args(["build", "--profile", "ci", "--locked", "--package", "bellwether", "--features", "serve"]);
    if let failed @ Outcome::Failed(_) = succeed(&mut build)? {
        return Ok(failed);
    }
    for clients in ["peers/check_serve.py", "peers/check_http.py", "peers/check_reflection.py"] {
        let mut check = Command::new(python.interpreter());
        check.arg(workspace.root.join(clients)).arg(workspace.target.join("ci/bellwether"));
        if let failed @ Outcome::Failed(_) = succeed(check.args(trained.parent()))? {
            return Ok(failed);
        }
    }
    Ok(Outcome::Passed)
}

/// Tasks of control, what the published package calls them, and how many episodes of them are played: half of them well, half at
/// random.
const CONTROL_TASKS: [[&str; 3]; 3] =
    [["cart_pole", "CartPole-v1", "100"], ["acrobot", "Acrobot-v1", "60"], ["mountain_car", "MountainCar-v0", "60"]];

/// Trajectories of the tasks of control beside the published environments.
fn check_control(workspace: &Workspace, python: &python::Environment, folder: &Path) -> anyhow::Result<Outcome> {
    for [task, name, episodes] in CONTROL_TASKS {
        let path = folder.join(format!("{task}.jsonl"));
        let file = File::create_new(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let mut trace = cargo();
        trace.args(["run", "--quiet", "--profile", "ci", "--locked", "--package", "bellwether-trainer"]);
        trace.args(["--example", "control_trace", "--", task, episodes, "3"]).stdout(file);
        if let failed @ Outcome::Failed(_) = succeed(&mut trace)? {
            return Ok(failed);
        }
        let mut check = Command::new(python.interpreter());
        check.arg(workspace.root.join("peers/check_control.py")).arg(name).arg(path);
        if let failed @ Outcome::Failed(_) = succeed(&mut check)? {
            return Ok(failed);
        }
    }
    Ok(Outcome::Passed)
}

fn notebooks(workspace: &Workspace, findings: &Findings) -> anyhow::Result<Outcome> {
    let Some(python) = environment(workspace, findings) else {
        return Ok(Outcome::Skipped("there is no target/venv: see the stage `python`".into()));
    };
    let mut build = cargo();
    build.args(["build", "--profile", "ci", "--locked", "--package", "bellwether"]);
    if let failed @ Outcome::Failed(_) = succeed(&mut build)? {
        return Ok(failed);
    }
    let mut execute = Command::new(python.interpreter());
    execute.arg(workspace.root.join("notebooks/execute.py"));
    // They write what they read, the small run included: nothing that somebody left is looked at.
    execute.env("BELLWETHER", workspace.target.join("ci/bellwether")).env_remove("BELLWETHER_FOLDER");
    succeed(&mut execute)
}

/// The virtual environment of this run, or the one that an earlier run left.
fn environment(workspace: &Workspace, findings: &Findings) -> Option<python::Environment> {
    findings.python.clone().or_else(|| python::Environment::standing(workspace, python::Purpose::Tests))
}
