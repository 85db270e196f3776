//! Flags of verbs that take a configuration of their own.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use super::{Failure, Output};
use crate::settings;

/// Where a configuration comes from, over its defaults.
#[derive(clap::Args)]
pub(crate) struct Layers {
    /// Configuration file (TOML); flags and variables beat it, and it beats the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key: `--set seed=7`. Also as a variable; --print-config has all keys, and says how variables are named.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Master seed, like `--set seed=N`.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print the resolved configuration as a file for --config that explains every key, and end.
    #[arg(long)]
    pub(crate) print_config: bool,
}

impl Layers {
    /// The resolved configuration; `prefix` begins the variables that belong to it.
    pub(crate) fn resolve<T>(&self, prefix: &str) -> Result<T, Failure>
    where
        T: Default + Serialize + DeserializeOwned,
    {
        let mut flags = self.set.clone();
        flags.extend(self.seed.map(|seed| format!("seed={seed}")));
        settings::resolve_from(prefix, self.config.as_deref(), &flags).map_err(Failure::usage)
    }

    /// Prints a configuration as a file for `--config`.
    pub(crate) fn print<T: Serialize + JsonSchema>(output: &Output, prefix: &str, config: &T) -> Result<(), Failure> {
        let page = settings::page(config)?;
        let page = format!(
            "# Each key is a variable too: {prefix}SEED is seed, and a dot in a key is two underscores.\n\n{page}"
        );
        Ok(output.report(config, || page)?)
    }
}
