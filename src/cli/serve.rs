//! `bellwether serve`: decisions for sandboxes, until somebody says stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use bellwether_inference::serve::{Endpoints, ServeConfig, Server};
use bellwether_inference::watch::Watcher;
use schemars::JsonSchema;
use serde::Serialize;

use super::served::Served;
use super::stop::Stop;
use super::{Failure, Output, build, log, output};
use crate::settings;

/// Prefix of environment variables that configure the server: `BELLWETHER_SERVE__LIMITS__IN_FLIGHT=64`.
const PREFIX: &str = "BELLWETHER_SERVE__";

/// Serves decisions over gRPC and HTTP until it is told to stop.
///
/// What the registry names meanwhile is checked and swapped in; no request waits for it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    models: Served,
    /// Address for gRPC over TCP; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    grpc: Option<SocketAddr>,
    /// Do not listen for gRPC over TCP.
    #[arg(long, conflicts_with = "grpc")]
    no_grpc: bool,
    /// Path of a Unix socket for gRPC.
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Address for HTTP: the Open Inference Protocol, health and metrics.
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// Address for admin calls, or `unix:PATH`.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// Address of a collector of OpenTelemetry, `http://HOST:PORT`, that spans of requests are sent to: the key `traces.endpoint`.
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Configuration file (TOML); flags and variables beat it, and it beats the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key: `--set limits.in_flight=64`. Also as a variable: `BELLWETHER_SERVE__LIMITS__IN_FLIGHT=64`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// What `serve` reports when it listens.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "ServeListening")]
pub(crate) struct Listening<'a> {
    /// Where, with the ports that were found.
    endpoints: Addresses<'a>,
    /// What clients call the model.
    model_name: &'a str,
    /// Version of the model that is served.
    model_version: String,
    /// Its number in the registry.
    model_number: Option<u32>,
}

/// Where a server listens; null where it does not.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Addresses<'a> {
    /// gRPC over TCP: an address and a port.
    grpc: Option<SocketAddr>,
    /// gRPC over a Unix socket: its path.
    unix: Option<&'a Path>,
    /// HTTP: an address and a port.
    http: Option<SocketAddr>,
    /// Admin calls over TCP: an address and a port.
    admin: Option<SocketAddr>,
    /// Admin calls over a Unix socket: its path.
    admin_unix: Option<&'a Path>,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        tracing::info!(version = env!("CARGO_PKG_VERSION"), revision = build::source().revision, "bellwether serve");
        let config = self.configuration().map_err(Failure::usage)?;
        config.validate().map_err(Failure::usage)?;
        let log = config.log.as_ref().map(log::to_file).transpose()?;
        let options = self.models.watch_options(config.threads, config.watch.options())?;
        let (policy, name, source) = self.models.first(&options)?;
        let champion = policy.status().champion;
        // Signals are waited for before anybody can know that the server is there.
        let stop = Stop::prepare()?;
        let watcher = Watcher::start(policy.clone(), source, options)?;
        let server = Server::start(config, policy, &name, Some(watcher))?;
        if let Some(log) = &log {
            server.tell_of(Arc::clone(&log.0));
        }
        let listening = Listening {
            endpoints: Addresses::of(server.endpoints()),
            model_name: &name,
            model_version: champion.version.to_string(),
            model_number: champion.number,
        };
        tracing::info!(endpoints = ?server.endpoints(), model_version = listening.model_version, "listening");
        output.line(&listening, || listening.describe())?;
        stop.wait().or_at_once()?;
        let left = server.drain(|left| {
            output.say(format_args!("draining: {} requests, {} connections", left.in_flight, left.connections));
        });
        if left.in_flight > 0 {
            output::complain(&format!("{} requests were cut off by the end of the drain", left.in_flight));
        }
        Ok(())
    }

    /// Flags beat variables, variables the file, the file the defaults.
    fn configuration(&self) -> anyhow::Result<ServeConfig> {
        let mut set = self.set.clone();
        let mut flag = |key: &str, value: Option<String>| set.extend(value.map(|value| format!("{key}={value:?}")));
        flag("grpc", self.grpc.map(|address| address.to_string()));
        flag("http", self.http.map(|address| address.to_string()));
        flag("unix", self.unix.as_deref().map(text).transpose()?);
        flag("traces.endpoint", self.otlp.clone());
        match self.admin.as_deref().map(|admin| (admin, admin.strip_prefix("unix:"))) {
            None => (),
            Some((_, Some(path))) => flag("admin_unix", Some(path.to_owned())),
            Some((address, None)) => flag("admin", Some(address.to_owned())),
        }
        let mut config: ServeConfig = settings::resolve_from(PREFIX, self.config.as_deref(), &set)?;
        if self.no_grpc {
            config.grpc = None;
        }
        Ok(config)
    }
}

impl Addresses<'_> {
    fn of(endpoints: &Endpoints) -> Addresses<'_> {
        let Endpoints { grpc, unix, http, admin, admin_unix } = endpoints;
        let [grpc, http, admin] = [*grpc, *http, *admin];
        Addresses { grpc, unix: unix.as_deref(), http, admin, admin_unix: admin_unix.as_deref() }
    }
}

impl Listening<'_> {
    fn describe(&self) -> String {
        let Listening { endpoints, model_name, model_version, .. } = self;
        let Addresses { grpc, unix, http, admin, admin_unix } = endpoints;
        let address = |what: &str, address: &Option<SocketAddr>| address.map(|address| format!("{what} on {address}"));
        let socket = |what: &str, path: &Option<&Path>| path.map(|path| format!("{what} on {}", path.display()));
        let all = [
            address("gRPC", grpc),
            socket("gRPC", unix),
            address("HTTP", http),
            address("admin calls", admin),
            socket("admin calls", admin_unix),
        ];
        let all: Vec<String> = all.into_iter().flatten().collect();
        format!("serving {model_name} ({model_version}): {}", all.join(", "))
    }
}

fn text(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))?;
    Ok(text.to_owned())
}
