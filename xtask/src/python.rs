//! The virtual environments that some checks and comparisons need.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::workspace::{Workspace, shown};

/// What an environment is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Checks beside published packages, and the notebooks.
    Tests,
    /// Trainers that ours is timed beside: gigabytes, for PyTorch brings the libraries of its accelerators.
    Trainers,
}

impl Purpose {
    /// The packages, as pip reads them.
    fn requirements(self) -> &'static str {
        match self {
            Purpose::Tests => "xtask/requirements.txt",
            Purpose::Trainers => "peers/requirements.txt",
        }
    }

    /// The folder below the target folder.
    fn folder(self) -> &'static str {
        match self {
            Purpose::Tests => "venv",
            Purpose::Trainers => "venv-trainers",
        }
    }
}

/// A virtual environment in which everything of the requirements is installed.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    folder: PathBuf,
}

impl Environment {
    /// The environment below the target folder, where it was set up for the present requirements.
    pub(crate) fn standing(workspace: &Workspace, purpose: Purpose) -> Option<Environment> {
        let environment = Environment { folder: workspace.target.join(purpose.folder()) };
        let installed = fs::read(environment.stamp()).ok()?;
        let wanted = fs::read(workspace.root.join(purpose.requirements())).ok()?;
        (installed == wanted && environment.interpreter().exists()).then_some(environment)
    }

    /// Its Python.
    pub(crate) fn interpreter(&self) -> PathBuf {
        self.folder.join("bin/python")
    }

    /// The shared library of ONNX Runtime that came with its package.
    pub(crate) fn onnx_runtime(&self) -> Option<PathBuf> {
        let versions = fs::read_dir(self.folder.join("lib")).ok()?;
        let folders = versions.filter_map(|version| Some(version.ok()?.path().join("site-packages/onnxruntime/capi")));
        let files = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().filter_map(Result::ok);
        let is_library = |path: &PathBuf| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            name.starts_with("libonnxruntime.") && !name.contains("providers")
        };
        files.map(|file| file.path()).find(is_library)
    }

    /// Holds the requirements that were installed.
    fn stamp(&self) -> PathBuf {
        self.folder.join("requirements-installed.txt")
    }
}

/// Makes the environment stand; the inner error says why it cannot on this machine.
pub(crate) fn set_up(workspace: &Workspace, purpose: Purpose) -> anyhow::Result<Result<Environment, String>> {
    if let Some(environment) = Environment::standing(workspace, purpose) {
        eprintln!("{} stands", environment.folder.display());
        return Ok(Ok(environment));
    }
    let environment = Environment { folder: workspace.target.join(purpose.folder()) };
    let requirements = workspace.root.join(purpose.requirements());
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(&environment.folder);
    if let Err(reason) = attempt(&mut make) {
        return Ok(Err(format!("no virtual environment: {reason}; install python3 and python3-venv")));
    }
    let mut install = Command::new(environment.interpreter());
    install
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .arg(&requirements);
    if let Err(reason) = attempt(&mut install) {
        return Ok(Err(format!("the packages of {} cannot be installed: {reason}", purpose.requirements())));
    }
    record(&requirements, &environment.stamp())?;
    Ok(Ok(environment))
}

/// Runs a command; its last line on standard error tells why it failed.
fn attempt(command: &mut Command) -> Result<(), String> {
    eprintln!("$ {}", shown(command));
    let done = command.stdin(Stdio::null()).output().map_err(|error| format!("{}: {error}", shown(command)))?;
    if done.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&done.stderr);
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it said nothing").to_owned();
    Err(format!("{}: {last}", shown(command)))
}

fn record(requirements: &Path, stamp: &Path) -> anyhow::Result<()> {
    fs::copy(requirements, stamp).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(())
}
