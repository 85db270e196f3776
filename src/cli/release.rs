//! `bellwether release`: the registry of released models.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::anyhow;
use bellwether_artifact::ModelVersion;
use bellwether_artifact::keys::{KeyId, TrustedKeys};
use bellwether_inference::Engines;
use bellwether_inference::watch::{self, VersionPolicy, WatchOptions};
use bellwether_registry::{GateReport, ModelRegistry, Move, Published, RegistryError, RegistryProblem};
use clap::Subcommand;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Failure, Output, gates, keys, model};
use crate::registry_source::RegistrySource;

/// Promotes, signs, rolls back, lists and verifies released models.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder of the registry.
    #[arg(long, value_name = "DIR", default_value = "releases", global = true)]
    registry: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Publish a model and move a name to it, if it passes its gates.
    Promote {
        /// Folder of the model, or a number, version or name that the registry knows.
        model: String,
        /// The name that is moved.
        #[arg(long, default_value = "champion", value_parser = super::plain_name)]
        name: String,
        /// Sign the model with this private key when it has passed its gates; see `keys generate`.
        #[arg(long, value_name = "KEY")]
        sign: Option<PathBuf>,
        #[command(flatten)]
        limits: gates::Limits,
        #[command(flatten)]
        engine: model::EngineFlags,
    },
    /// Sign a published model, also in the place of an older signature.
    Sign {
        /// A number, version or name that the registry knows.
        model: String,
        /// The private key.
        #[arg(long, value_name = "KEY")]
        key: PathBuf,
    },
    /// Move a name back to where it stood before.
    Rollback {
        /// The name that is moved.
        #[arg(default_value = "champion", value_parser = super::plain_name)]
        name: String,
    },
    /// All released models and the names that stand on them.
    List,
    /// Hash every released file again and check that every name stands on a model that could be served.
    Verify {
        /// Demand that every model is signed by one of these public keys: a file, or a folder of `.pub` and `.pem` files.
        #[arg(long, value_name = "KEYS")]
        trusted: Option<PathBuf>,
        #[command(flatten)]
        engine: model::EngineFlags,
    },
}

/// What `release sign` reports as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "ReleaseSign")]
pub(crate) struct Signed {
    /// The model's number in the registry.
    number: u32,
    /// Its version.
    version: ModelVersion,
    /// The key that signed it.
    key_id: KeyId,
}

/// What `release promote` reports as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "ReleasePromote")]
pub(crate) struct Promotion {
    /// What the model was checked for; kept in the registry either way.
    gates: GateReport,
    /// The move of the name; null where a gate was not met.
    moved: Option<Move>,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let registry = ModelRegistry::open(&self.registry)?;
        match &self.verb {
            Verb::Promote { model: asked, name, sign, limits, engine } => {
                // A bad key and a missing engine are told before anything is touched.
                let key = keys::private(sign.as_deref())?;
                let engines = engine.engines(1)?;
                let folder = PathBuf::from(asked);
                let record = if folder.is_dir() {
                    model::require(&folder)?;
                    registry.publish(&folder)?
                } else {
                    registry.resolve(asked)?
                };
                let gates = gates::check(&registry.folder(record.number), limits, engines)?;
                if let Some(key) = key.filter(|_| gates.passed()) {
                    // Before the name moves, so that whoever follows it finds a signed model.
                    registry.sign(record.number, &key)?;
                }
                // The registry refuses, not this: it keeps the report first.
                let moved = match registry.promote(record.number, name, &gates, gates::REQUIRED) {
                    Err(RegistryError::GateFailed { .. }) => None,
                    moved => Some(moved?),
                };
                let promotion = Promotion { gates, moved };
                output.report(&promotion, || {
                    let moved = promotion.moved.as_ref().map(describe).unwrap_or_default();
                    format!("{}\n{moved}", gates::describe(&promotion.gates))
                })?;
                if promotion.moved.is_none() {
                    return Err(Failure::NotMet(format!("{name} stays where it is: a gate was not met")));
                }
            }
            Verb::Rollback { name } => {
                let moved = registry.rollback(name)?;
                output.report(&moved, || describe(&moved))?;
            }
            Verb::List => {
                let models = registry.list()?;
                output.report(&models, || table(&models))?;
            }
            Verb::Sign { model: asked, key } => {
                let key = keys::private(Some(key))?.ok_or_else(|| anyhow!("no key was read"))?;
                let record = registry.resolve(asked)?;
                let signature = registry.sign(record.number, &key)?;
                let signed = Signed { number: record.number, version: record.version, key_id: signature.key_id };
                output.report(&signed, || {
                    format!(
                        "number {} (version {}) is signed with the key {}",
                        signed.number, signed.version, signed.key_id
                    )
                })?;
            }
            Verb::Verify { trusted, engine } => {
                let engines = engine.engines(1)?;
                let trusted = keys::trusted(trusted.as_deref())?;
                // A wrong path must not pass for a sound registry.
                if !self.registry.is_dir() {
                    return Err(Failure::Failed(anyhow!("there is no registry in {}", self.registry.display())));
                }
                let mut problems = registry.verify()?;
                if let Some(trusted) = &trusted {
                    problems.extend(registry.verify_signatures(trusted)?);
                }
                let known = problems.iter().filter_map(|problem| problem.number).collect();
                problems.extend(unservable(&registry, trusted, engines, &known)?);
                output.report(&problems, || {
                    let line = |problem: &RegistryProblem| match problem.number {
                        Some(number) => format!("{number}: {}", problem.problem),
                        None => problem.problem.clone(),
                    };
                    if problems.is_empty() {
                        "all models are as recorded".to_owned()
                    } else {
                        problems.iter().map(line).collect::<Vec<_>>().join("\n")
                    }
                })?;
                if !problems.is_empty() {
                    return Err(Failure::NotMet(format!("{} problems in the registry", problems.len())));
                }
            }
        }
        Ok(())
    }
}

/// The names whose models a server of this program would refuse, save for the numbers of which something is told already.
fn unservable(
    registry: &ModelRegistry,
    trusted: Option<TrustedKeys>,
    engines: Engines,
    told: &BTreeSet<u32>,
) -> Result<Vec<RegistryProblem>, Failure> {
    let options = WatchOptions { trusted, engines, ..WatchOptions::default() };
    let mut problems = Vec::new();
    // A history that cannot be read is told of already.
    for (name, number) in registry.names().unwrap_or_default() {
        if told.contains(&number) {
            continue;
        }
        let mut source = RegistrySource::new(registry.clone(), VersionPolicy::Name(name.clone()));
        if let Err(error) = watch::open(&mut source, model::contract_of, &options) {
            problems
                .push(RegistryProblem { number: Some(number), problem: format!("{name} cannot be served: {error}") });
        }
    }
    Ok(problems)
}

fn describe(moved: &Move) -> String {
    format!("{} now stands on number {} (version {})", moved.name, moved.to, moved.version)
}

fn table(models: &[Published]) -> String {
    if models.is_empty() {
        return "no models".to_owned();
    }
    let line = |model: &Published| {
        let record = &model.record;
        format!("{:>4}  {}  {:<20} {}", record.number, record.version, record.model, model.names.join(", "))
    };
    models.iter().map(line).collect::<Vec<_>>().join("\n")
}
