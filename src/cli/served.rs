//! The model that a long-running verb decides by, and where the next ones come from.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use bellwether_artifact::keys::TrustedKeys;
use bellwether_artifact::release;
use bellwether_inference::Policy;
use bellwether_inference::policy::Options;
use bellwether_inference::watch::{
    self, FolderSource, Source, SourceError, VersionPolicy, Wanted, WatchError, WatchOptions,
};
use bellwether_registry::ModelRegistry;

use super::{Failure, model};
use crate::registry_source::RegistrySource;

/// Which model is served.
#[derive(clap::Args)]
pub(crate) struct Served {
    /// A registry of released models, or the folder of one model; `releases` without it.
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// The name in the registry whose model is served; its moves are followed. `champion` without it.
    #[arg(long, value_name = "NAME", value_parser = super::plain_name)]
    name: Option<String>,
    /// Serve the model with this number in the place of the one that the name stands on.
    #[arg(long, value_name = "NUMBER")]
    number: Option<u32>,
    /// Serve the model with the highest number in the registry, and each later one as it is published.
    #[arg(long, conflicts_with_all = ["name", "number"])]
    latest: bool,
    /// File or folder of public keys; releases that none of them signed are refused.
    #[arg(long, value_name = "PATH")]
    trusted: Option<PathBuf>,
    #[command(flatten)]
    engine: model::EngineFlags,
}

impl Served {
    /// Whether any of them is given.
    pub(crate) fn is_given(&self) -> bool {
        let Served { models, name, number, latest, trusted, engine } = self;
        let given = models.is_some() || name.is_some() || number.is_some() || trusted.is_some();
        given || *latest || engine.is_given()
    }

    /// How models are brought: as in `options`, for so many threads, from those who are trusted.
    pub(crate) fn watch_options(&self, threads: usize, options: WatchOptions) -> Result<WatchOptions, Failure> {
        let trusted = match &self.trusted {
            None => None,
            Some(path) => Some(TrustedKeys::read(path).map_err(Failure::usage)?),
        };
        Ok(WatchOptions { trusted, engines: self.engine.engines(threads)?, ..options })
    }

    /// The first model, what clients call it, and where the next ones come from.
    pub(crate) fn first(&self, options: &WatchOptions) -> Result<(Policy, String, AnySource), Failure> {
        let mut source = self.source()?;
        let (release, number) =
            watch::open(source.0.as_mut(), model::contract_of, options).map_err(|error| match error {
                WatchError::Nothing { source_name } => {
                    anyhow!("there is no model to serve: {source_name}: see `bellwether release promote`")
                }
                error => error.into(),
            })?;
        let name = release.manifest.name.clone();
        let policy = Policy::new(release, number, Options::default()).context("the model cannot be served")?;
        Ok((policy, name, source))
    }

    fn source(&self) -> Result<AnySource, Failure> {
        let models = self.models.as_deref().unwrap_or_else(|| Path::new("releases"));
        if release::manifest_path(models).is_file() {
            if self.latest || self.number.is_some() {
                let models = models.display();
                let text = "--latest and --number choose among the models of a registry";
                return Err(Failure::usage(anyhow!("{models} is one model, and {text}: leave them out")));
            }
            return Ok(AnySource(Box::new(FolderSource::release(models))));
        }
        if !models.is_dir() {
            let models = models.display();
            return Err(Failure::Failed(anyhow!("{models} is no folder: give a registry or the folder of a model")));
        }
        let policy = match self.number {
            Some(number) => VersionPolicy::Pinned(number),
            None if self.latest => VersionPolicy::Latest,
            None => VersionPolicy::Name(self.name.clone().unwrap_or_else(|| "champion".to_owned())),
        };
        Ok(AnySource(Box::new(RegistrySource::new(ModelRegistry::open(models)?, policy))))
    }
}

/// A registry or a folder.
pub(crate) struct AnySource(Box<dyn Source>);

impl Source for AnySource {
    fn describe(&self) -> String {
        self.0.describe()
    }

    fn wanted(&mut self) -> Result<Option<Wanted>, SourceError> {
        self.0.wanted()
    }

    fn find(&mut self, which: &VersionPolicy) -> Result<Option<Wanted>, SourceError> {
        self.0.find(which)
    }
}
