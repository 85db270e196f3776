//! `cargo xtask tidy`: what compilers and formatters do not see.

mod c_header;
mod folders;
mod generated;
mod imports;
mod links;
mod sources;

use std::fmt;

use anyhow::bail;

use crate::workspace::Workspace;

/// Arguments of `tidy`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Write generated files anew instead of checking them.
    #[arg(long)]
    write: bool,
}

/// One thing that is out of order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The file, relative to the root.
    file: String,
    /// The line, from 1; `None` where it is about the whole file.
    line: Option<usize>,
    /// What is wrong and what to do.
    message: String,
    /// Whether it is only to be looked at.
    warning: bool,
}

impl Finding {
    fn at(file: &str, line: usize, message: impl Into<String>) -> Finding {
        Finding { file: file.to_owned(), line: Some(line), message: message.into(), warning: false }
    }

    fn of(file: &str, message: impl Into<String>) -> Finding {
        Finding { file: file.to_owned(), line: None, message: message.into(), warning: false }
    }

    fn into_warning(self) -> Finding {
        Finding { warning: true, ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.warning { "warning: " } else { "" };
        match self.line {
            Some(line) => write!(out, "{}:{line}: {kind}{}", self.file, self.message),
            None => write!(out, "{}: {kind}{}", self.file, self.message),
        }
    }
}

/// One check by its name.
type Check = (&'static str, fn(&Workspace) -> anyhow::Result<Vec<Finding>>);

const CHECKS: [Check; 5] = [
    ("folders", folders::check),
    ("imports", imports::check),
    ("generated files", generated::check),
    ("links", links::check),
    ("sources", sources::check),
];

/// Runs every check; fails where one of them found more than warnings.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    if args.write {
        generated::write(&workspace)?;
    }
    let mut errors = 0;
    for (name, check) in CHECKS {
        let findings = check(&workspace)?;
        for finding in &findings {
            println!("{finding}");
        }
        errors += findings.iter().filter(|finding| !finding.warning).count();
        println!("tidy: {name}: {} findings", findings.len());
    }
    if errors > 0 {
        bail!("tidy found {errors} things to mend");
    }
    Ok(())
}
