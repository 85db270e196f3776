//! `bellwether release`: the registry of released models.

use std::path::PathBuf;

use anyhow::anyhow;
use bellwether_registry::{GateReport, ModelRegistry, Move, Published, RegistryError};
use clap::Subcommand;
use serde::Serialize;

use super::{Failure, Output, gates, model};

/// Promotes, rolls back, lists and verifies released models.
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
        #[command(flatten)]
        limits: gates::Limits,
    },
    /// Move a name back to where it stood before.
    Rollback {
        /// The name that is moved.
        #[arg(default_value = "champion", value_parser = super::plain_name)]
        name: String,
    },
    /// All released models and the names that stand on them.
    List,
    /// Hash every released file again and check that every name stands on a model.
    Verify,
}

/// What `release promote` reports as JSON.
#[derive(Serialize)]
struct Promotion {
    /// What the model was checked for; kept in the registry either way.
    gates: GateReport,
    /// The move of the name; null where a gate was not met.
    moved: Option<Move>,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let registry = ModelRegistry::open(&self.registry)?;
        match &self.verb {
            Verb::Promote { model: asked, name, limits } => {
                let folder = PathBuf::from(asked);
                let record = if folder.is_dir() {
                    model::require(&folder)?;
                    registry.publish(&folder)?
                } else {
                    registry.resolve(asked)?
                };
                let gates = gates::check(&registry.folder(record.number), limits)?;
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
            Verb::Verify => {
                // A wrong path must not pass for a sound registry.
                if !self.registry.is_dir() {
                    return Err(Failure::Failed(anyhow!("there is no registry in {}", self.registry.display())));
                }
                let problems = registry.verify()?;
                output.report(&problems, || {
                    let line = |problem: &bellwether_registry::RegistryProblem| match problem.number {
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
