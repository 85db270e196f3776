//! The workspace as Cargo and Git see it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;

/// Where things are, and what belongs to the workspace.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The root folder.
    pub(crate) root: PathBuf,
    /// Where Cargo builds.
    pub(crate) target: PathBuf,
    /// The members, by name.
    pub(crate) packages: Vec<Package>,
    /// Every file under version control, relative to the root, sorted.
    pub(crate) files: Vec<String>,
}

/// One member of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One dependency of a member, of any kind.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Set where it is a member of the workspace.
    pub(crate) path: Option<PathBuf>,
}

impl Workspace {
    /// Asks Cargo and Git.
    pub(crate) fn load() -> anyhow::Result<Workspace> {
        #[derive(Deserialize)]
        struct Metadata {
            packages: Vec<Package>,
            workspace_root: PathBuf,
            target_directory: PathBuf,
        }
        let json = output(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
        let Metadata { mut packages, workspace_root: root, target_directory: target } =
            serde_json::from_str(&json).context("cargo metadata wrote something else than its format 1")?;
        packages.sort_by(|first, second| first.name.cmp(&second.name));
        let files = files(&root)?;
        Ok(Workspace { root, target, packages, files })
    }

    /// Files with one of these extensions.
    pub(crate) fn with_extension<'a>(&'a self, extensions: &'a [&str]) -> impl Iterator<Item = &'a str> {
        let wanted = |file: &&str| Path::new(file).extension().is_some_and(|one| extensions.iter().any(|e| one == *e));
        self.files.iter().map(String::as_str).filter(wanted)
    }

    /// The text of a file.
    pub(crate) fn read(&self, file: &str) -> anyhow::Result<String> {
        let bytes = std::fs::read(self.root.join(file)).with_context(|| format!("cannot read {file}"))?;
        String::from_utf8(bytes).with_context(|| format!("{file} is no UTF-8 text"))
    }
}

/// Tracked files and new ones that are not ignored; deleted ones are left out.
fn files(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]);
    let listed = output(&mut git).context("tidy asks Git which files are the project's: run it in a Git checkout")?;
    let mut files: Vec<String> =
        listed.split('\0').filter(|file| !file.is_empty() && root.join(file).is_file()).map(str::to_owned).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// The Cargo that runs this task.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Standard output of a command that must succeed.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let shown = shown(command);
    let done = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {shown}"))?;
    if !done.status.success() {
        bail!("{shown} failed ({})", done.status);
    }
    String::from_utf8(done.stdout).with_context(|| format!("{shown} wrote something else than UTF-8"))
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let arguments = command.get_args().map(|argument| argument.to_string_lossy());
    std::iter::once(name.to_string_lossy()).chain(arguments).collect::<Vec<_>>().join(" ")
}
