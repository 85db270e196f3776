//! `bellwether audit`: the log of what was done to samples, and whether it is as it was written.

use std::path::{Path, PathBuf};

use bellwether_artifact::audit::{Anchor, AuditError, AuditLog, Entry, Verification, examine, verify};
use bellwether_artifact::secret::{Purpose, SecretError, SecretId, Secrets};
use bellwether_artifact::{ArtifactError, Visible};
use bellwether_registry::clock::unix_ms;
use clap::Subcommand;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Failure, Output};

/// Makes, checks and shows the audit log: every action on a sample and what came of it, sealed entry by entry.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make an empty log. The file of secrets is made too where it is missing; keep it away from whoever may write the log.
    Init(Files),
    /// Check that nothing was changed, moved, added or left out. Exit code 2 where something was.
    Verify {
        #[command(flatten)]
        files: Files,
        /// Where the log ended once (`ENTRIES:SEAL`, as this verb prints it): it must still begin that way. May be given again.
        #[arg(long, value_name = "ANCHOR")]
        anchor: Vec<Anchor>,
    },
    /// Print the entries, checked, with the newest last. Exit code 2 where the log is not intact.
    Show {
        #[command(flatten)]
        files: Files,
        /// Leave out what happened before this time, in milliseconds since 1970.
        #[arg(long, value_name = "MS", default_value_t = 0)]
        from: u64,
        /// Leave out what happened at this time or later, in milliseconds since 1970.
        #[arg(long, value_name = "MS", default_value_t = u64::MAX, hide_default_value = true)]
        until: u64,
        /// Leave out entries of other kinds.
        #[arg(long)]
        kind: Option<String>,
    },
    /// Put a new secret in the place of the one that seals. The old one stays in the file, to check what it sealed.
    Rotate(Files),
}

#[derive(clap::Args)]
struct Files {
    /// The log.
    log: PathBuf,
    /// The file of its secrets, which nobody else may read.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// What `audit init` and `audit rotate` report as JSON.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Report {
    /// The log.
    log: PathBuf,
    /// Name of the secret that seals from now on.
    key: SecretId,
    /// Where the log ends.
    end: Anchor,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        match self.verb {
            Verb::Init(files) => {
                let secrets = match Secrets::generate(&files.key, Purpose::Audit) {
                    Err(SecretError::Artifact(ArtifactError::Exists { .. })) => files.secrets()?,
                    made => made?,
                };
                let key = secrets.newest().id();
                let log = AuditLog::create(&files.log, secrets)?;
                Report { log: files.log, key, end: log.end() }.print(output)
            }
            Verb::Verify { files, anchor } => {
                let found = verify(&files.log, &files.secrets()?, &anchor)?;
                output.report(&found, || text(&found))?;
                met(&found)
            }
            Verb::Show { files, from, until, kind } => {
                let wanted = |entry: &Entry| {
                    (from..until).contains(&entry.time_ms) && kind.as_ref().is_none_or(|kind| *kind == entry.kind)
                };
                let secrets = files.secrets()?;
                let found = examine(&files.log, &secrets, &[], |entry, line| {
                    if wanted(entry) { print(output, entry, line) } else { Ok(()) }
                })?;
                met(&found)
            }
            Verb::Rotate(files) => {
                let old = files.secrets()?;
                let mut log = AuditLog::open(&files.log, old.clone())?;
                // A rotation that ended half-way left a newer secret behind, which now takes over.
                let mut secrets = old;
                if log.key() == secrets.newest().id() {
                    secrets = Secrets::rotate(&files.key, Purpose::Audit)?;
                }
                let key = secrets.newest().id();
                let end = log.rotate(unix_ms(), secrets)?;
                Report { log: files.log, key, end }.print(output)
            }
        }
    }
}

impl Files {
    /// Secrets that cannot be used are wrong usage.
    fn secrets(&self) -> Result<Secrets, Failure> {
        Secrets::read(&self.key, Purpose::Audit).map_err(Failure::usage)
    }
}

impl Report {
    fn print(&self, output: &Output) -> Result<(), Failure> {
        let text = || format!("{}\nsealed with {}\nends at {}", self.log.display(), self.key, self.end);
        Ok(output.report(self, text)?)
    }
}

/// Where a verb logs what it did to a sample.
#[derive(clap::Args)]
pub(super) struct Witness {
    /// Audit log in which this is noted, made by `audit init`.
    #[arg(long, value_name = "LOG", requires = "audit_key")]
    audit: Option<PathBuf>,
    /// The file of its secrets.
    #[arg(long, value_name = "FILE", requires = "audit")]
    audit_key: Option<PathBuf>,
}

impl Witness {
    /// The log, where one is given. One that cannot be used is wrong usage, found before anything is done.
    pub(super) fn open(&self) -> Result<Option<AuditLog>, Failure> {
        let (Some(log), Some(key)) = (&self.audit, &self.audit_key) else { return Ok(None) };
        let secrets = Secrets::read(key, Purpose::Audit).map_err(Failure::usage)?;
        AuditLog::open(log, secrets).map(Some).map_err(Failure::usage)
    }
}

/// An entry: its line as it stands in the log, or as people read it.
fn print(output: &Output, entry: &Entry, line: &str) -> Result<(), AuditError> {
    let text = || {
        let body = entry.body.to_string();
        format!("{} {} {} {}", entry.seq, entry.time_ms, entry.kind, Visible::new(&body))
    };
    let printed = output.json_line(line, text);
    printed.map(drop).map_err(|cause| ArtifactError::io("write to", Path::new("standard output"), cause).into())
}

fn met(found: &Verification) -> Result<(), Failure> {
    if found.intact { Ok(()) } else { Err(Failure::NotMet("the audit log is not as it was written".to_owned())) }
}

fn text(found: &Verification) -> String {
    let mut lines = vec![format!("{} entries, ends at {}", found.entries, found.end)];
    if let Some(torn) = found.unfinished {
        lines.push(format!(
            "{} bytes from byte {} on are unfinished: their writer died or is at work",
            torn.bytes, torn.from_byte
        ));
    }
    lines.extend(found.problems.iter().map(ToString::to_string));
    if found.further_problems > 0 {
        lines.push(format!("and {} more problems", found.further_problems));
    }
    lines.push(if found.intact { "intact" } else { "NOT INTACT" }.to_owned());
    lines.join("\n")
}
