//! `bellwether vault`: what lies in quarantine, and its way back or out of the world.

use std::path::PathBuf;

use bellwether_artifact::Visible;
use bellwether_artifact::audit::AuditLog;
use bellwether_artifact::secret::{Purpose, Secrets};
use bellwether_registry::clock::unix_ms;
use bellwether_sandbox::vault::{QuarantineId, Removal, Vault, VaultError};
use clap::Subcommand;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::audit::Witness;
use super::{Failure, Output};

/// Lists, restores and destroys the samples in quarantine.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make an empty vault and the file of its secret; it must not exist. Without the secret nothing in the vault can be opened.
    Init(Place),
    /// Show what is in quarantine.
    List(Place),
    /// Bring a sample back as it was, and leave the sealed copy where it is. Nothing is overwritten.
    Restore {
        #[command(flatten)]
        thing: Thing,
        /// Another path than the one where the sample was.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Try again to remove the original of a sample that is in quarantine. Exit code 2 where it is still there.
    Settle(Thing),
    /// Destroy a sample in quarantine for good.
    Purge(Thing),
}

#[derive(clap::Args)]
struct Place {
    /// Folder of the vault.
    vault: PathBuf,
    /// The file of its secrets, which nobody else may read.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

#[derive(clap::Args)]
struct Thing {
    #[command(flatten)]
    place: Place,
    /// Name of the thing in quarantine, or its first digits (at least 4).
    id: String,
    #[command(flatten)]
    witness: Witness,
}

/// A line of `vault list`. Names are spelled so that they can be looked at.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Row {
    /// Name of the thing.
    id: String,
    /// Path that the sample had.
    path: Option<String>,
    /// Hash of its content.
    sha256: Option<String>,
    /// Its length.
    bytes: Option<u64>,
    /// The decision that put it there.
    decision_id: Option<String>,
    /// The episode that the decision ended.
    episode_id: Option<String>,
    /// When, in milliseconds since 1970.
    time_ms: Option<u64>,
    /// Why nothing is known of it.
    problem: Option<String>,
}

/// What `vault restore` reports as JSON.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Restoration {
    /// Name of the thing.
    id: String,
    /// Where the sample is.
    path: String,
    /// Whether it has its owner and group again.
    owner: bool,
}

/// What `vault settle` reports as JSON.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Settled {
    /// Name of the thing.
    id: String,
    /// `removed`, `gone` (it was gone already) or `kept`.
    original: &'static str,
    /// Hard links to the sample under other names, where it was removed.
    other_names: Option<u64>,
    /// Why it was kept.
    why: Option<String>,
}

/// What `vault purge` reports as JSON.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Purged {
    /// Name of the thing.
    id: String,
    /// Whether it was there.
    purged: bool,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        match self.verb {
            Verb::Init(place) => {
                let secrets = Secrets::generate(&place.key, Purpose::Vault)?;
                Vault::open(&place.vault, secrets)?;
                output.say(format_args!("{} is ready, its secret is {}", place.vault.display(), place.key.display()));
                Ok(())
            }
            Verb::List(place) => {
                let rows: Vec<Row> =
                    place.open()?.list()?.into_iter().map(|listed| row(listed.id, listed.held)).collect();
                output.report(&rows, || rows.iter().map(line).collect::<Vec<_>>().join("\n"))?;
                Ok(())
            }
            Verb::Restore { thing, to } => {
                let (vault, id, log) = thing.open()?;
                let done = vault.restore(id, to.as_deref());
                let told = done.as_ref().map(|restored| shown(&restored.path)).map_err(ToString::to_string);
                note(log, "vault.restored", id, told)?;
                let restored = done?;
                let report = Restoration { id: id.to_string(), path: shown(&restored.path), owner: restored.owner };
                output.report(&report, || {
                    let owner = if report.owner { "" } else { " (of another owner than before, without set-id bits)" };
                    format!("{}{owner}", report.path)
                })?;
                Ok(())
            }
            Verb::Settle(thing) => {
                let (vault, id, log) = thing.open()?;
                let done = vault.settle(id);
                note(
                    log,
                    "vault.settled",
                    id,
                    done.as_ref().map(|done| format!("{done:?}")).map_err(ToString::to_string),
                )?;
                let report = Settled::of(id, done?);
                output.report(&report, || format!("{} {}", report.original, report.why.as_deref().unwrap_or("")))?;
                match report.why {
                    Some(_) => Err(Failure::NotMet("the original is still there".to_owned())),
                    None => Ok(()),
                }
            }
            Verb::Purge(thing) => {
                let (vault, id, log) = thing.open()?;
                let done = vault.purge(id);
                note(log, "vault.purged", id, done.as_ref().map(bool::to_string).map_err(ToString::to_string))?;
                let report = Purged { id: id.to_string(), purged: done? };
                output.report(&report, || format!("{id} is destroyed"))?;
                Ok(())
            }
        }
    }
}

impl Place {
    /// Secrets that cannot be used are wrong usage.
    fn open(&self) -> Result<Vault, Failure> {
        let secrets = Secrets::read(&self.key, Purpose::Vault).map_err(Failure::usage)?;
        Ok(Vault::open(&self.vault, secrets)?)
    }
}

impl Thing {
    fn open(&self) -> Result<(Vault, QuarantineId, Option<AuditLog>), Failure> {
        let log = self.witness.open()?;
        let vault = self.place.open()?;
        let id = vault.find(&self.id)?;
        Ok((vault, id, log))
    }
}

impl Settled {
    fn of(id: QuarantineId, removal: Removal) -> Settled {
        let id = id.to_string();
        match removal {
            Removal::Removed { other_names } => {
                Settled { id, original: "removed", other_names: Some(other_names), why: None }
            }
            Removal::Gone => Settled { id, original: "gone", other_names: None, why: None },
            Removal::Kept { why } => Settled { id, original: "kept", other_names: None, why: Some(why) },
        }
    }
}

/// What was done is in the log before it is told to anybody.
fn note(log: Option<AuditLog>, kind: &str, id: QuarantineId, outcome: Result<String, String>) -> Result<(), Failure> {
    let Some(mut log) = log else { return Ok(()) };
    let (outcome, error) = match outcome {
        Ok(outcome) => (Some(outcome), None),
        Err(error) => (None, Some(error)),
    };
    log.record(unix_ms(), kind, &json!({ "id": id, "outcome": outcome, "error": error }))?;
    Ok(())
}

fn shown(path: &std::path::Path) -> String {
    Visible::new(path.as_os_str().as_encoded_bytes()).to_string()
}

fn row(id: QuarantineId, held: Result<bellwether_sandbox::vault::Held, VaultError>) -> Row {
    let empty = Row {
        id: id.to_string(),
        path: None,
        sha256: None,
        bytes: None,
        decision_id: None,
        episode_id: None,
        time_ms: None,
        problem: None,
    };
    match held {
        Ok(held) => Row {
            path: Some(held.sample.path),
            sha256: Some(held.sample.sha256.to_string()),
            bytes: Some(held.sample.bytes),
            decision_id: Some(Visible::new(&held.case.decision_id).to_string()),
            episode_id: Some(Visible::new(&held.case.episode_id).to_string()),
            time_ms: Some(held.case.time_ms),
            ..empty
        },
        Err(error) => Row { problem: Some(error.to_string()), ..empty },
    }
}

fn line(row: &Row) -> String {
    match (&row.problem, &row.path, row.bytes) {
        (None, Some(path), Some(bytes)) => format!("{:.16}  {bytes} bytes  {path}", row.id),
        (problem, ..) => format!("{:.16}  {}", row.id, problem.as_deref().unwrap_or_default()),
    }
}
