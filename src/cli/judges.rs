//! Who decides: a model in this process, or a policy service elsewhere.

use std::path::PathBuf;
#[cfg(feature = "serve")]
use std::sync::Arc;
use std::time::Duration;

use bellwether_env_adapter::{EpisodeId, WindowConfig};
use bellwether_inference::Policy;
use bellwether_sandbox::episode::{self, Judge, JudgeError};
#[cfg(feature = "serve")]
use bellwether_sandbox::episode::{Described, PolicyService};

use super::Failure;

/// A policy service in the place of a model.
#[derive(clap::Args)]
pub(crate) struct ServiceFlags {
    /// Ask a policy service in the place of a model, at `unix:PATH`, `https://HOST:PORT`, or `http://127.0.0.1:PORT` on this host; see
    /// `bellwether serve`.
    #[arg(long, value_name = "ADDRESS")]
    policy_service: Option<String>,
    /// Authority of the certificate of the policy service, PEM.
    #[arg(long, value_name = "FILE", requires = "policy_service")]
    policy_ca: Option<PathBuf>,
    /// Certificate that is shown to the policy service where it wants one, PEM.
    #[arg(long, value_name = "FILE", requires = "policy_ca", requires = "policy_key")]
    policy_cert: Option<PathBuf>,
    /// Its key, PEM; readable by its owner alone.
    #[arg(long, value_name = "FILE", requires = "policy_cert")]
    policy_key: Option<PathBuf>,
    /// File of the token that the policy service wants; readable by its owner alone.
    #[arg(long, value_name = "FILE", requires = "policy_service")]
    policy_token: Option<PathBuf>,
}

/// What decides about the episodes of a program.
#[derive(Clone)]
pub(crate) enum Judges {
    /// A model in this process.
    Here(Policy),
    /// A service elsewhere.
    #[cfg(feature = "serve")]
    There(Arc<PolicyService>),
}

/// What decides about one episode: the windows of an episode are those of whoever decides about it.
pub(crate) enum Ground {
    /// A model in this process.
    Here(Policy),
    /// A service elsewhere, by what it said of itself when the episode began.
    #[cfg(feature = "serve")]
    There(Arc<PolicyService>, Arc<Described>),
}

impl ServiceFlags {
    /// Whether a service is asked.
    pub(crate) fn is_given(&self) -> bool {
        self.policy_service.is_some()
    }

    /// The service, where one is given.
    #[cfg(feature = "serve")]
    pub(crate) fn find(&self) -> Result<Option<Judges>, Failure> {
        use bellwether_sandbox::episode::{Monotonic, PolicyAccess, Schedule, ServiceError};
        use bellwether_sandbox::peer::{ClientIdentity, ClientTls};

        let Some(address) = &self.policy_service else { return Ok(None) };
        let identity = self.policy_cert.clone().zip(self.policy_key.clone());
        let identity = identity.map(|(certificate, key)| ClientIdentity { certificate, key });
        let access = PolicyAccess {
            address: address.parse().map_err(Failure::usage)?,
            tls: self.policy_ca.clone().map(|authority| ClientTls { authority, identity }),
            token: self.policy_token.clone(),
        };
        match PolicyService::find(&access, Schedule::default(), &Monotonic) {
            Ok(service) => Ok(Some(Judges::There(Arc::new(service)))),
            Err(error @ ServiceError::Away { .. }) => Err(error.into()),
            Err(error) => Err(Failure::usage(error)),
        }
    }

    /// The service, where one is given.
    #[cfg(not(feature = "serve"))]
    pub(crate) fn find(&self) -> Result<Option<Judges>, Failure> {
        let how = "cargo build --release --features serve";
        match self.is_given() {
            false => Ok(None),
            true => Err(Failure::usage(anyhow::anyhow!(
                "--policy-service: this program was built without policy services: build it with `{how}`"
            ))),
        }
    }
}

impl Judges {
    /// What decides about an episode that begins now.
    pub(crate) fn now(&self) -> Ground {
        match self {
            Judges::Here(policy) => Ground::Here(policy.clone()),
            #[cfg(feature = "serve")]
            Judges::There(service) => Ground::There(Arc::clone(service), service.described()),
        }
    }

    /// Whether there is anybody to decide.
    #[cfg(feature = "serve")]
    pub(crate) fn answer(&self) -> bool {
        match self {
            Judges::Here(_) => true,
            Judges::There(service) => service.answers(),
        }
    }
}

impl Ground {
    /// How events are cut into windows.
    pub(crate) fn window(&self) -> WindowConfig {
        match self {
            Ground::Here(policy) => episode::window_of(policy),
            #[cfg(feature = "serve")]
            Ground::There(_, described) => described.window.clone(),
        }
    }

    /// Version of the champion.
    pub(crate) fn model_version(&self) -> String {
        match self {
            Ground::Here(policy) => policy.status().champion.version.to_string(),
            #[cfg(feature = "serve")]
            Ground::There(_, described) => described.model_version.clone(),
        }
    }

    /// The judge of an episode, at a false-positive rate.
    pub(crate) fn judge(
        &self,
        episode: &EpisodeId,
        target_fpr: f64,
        limit: Duration,
    ) -> Result<Box<dyn Judge>, JudgeError> {
        match self {
            Ground::Here(policy) => episode::in_process(policy, episode, target_fpr, limit),
            #[cfg(feature = "serve")]
            Ground::There(service, described) => Ok(Box::new(service.judge(described, episode, target_fpr, limit)?)),
        }
    }
}
