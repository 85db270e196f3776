//! The server: decisions over gRPC, from TCP and Unix sockets.
//!
//! [`Server::start`] checks the configuration, opens the listeners and starts the threads that answer. Each thread has an event
//! loop, connections and a [`Decider`](crate::Decider) of its own: a decision is far shorter than a hand-over, so it is made where
//! the request arrives. What clients may use up is bounded by [`ServeLimits`]; what is beyond is refused at once.
//! [`Server::drain`] ends it.

mod admin;
mod answer;
mod bounded;
mod caller;
mod chain;
mod config;
mod connection;
mod decide;
mod decision_log;
mod dispatch;
mod episode;
mod error;
pub mod fuzz;
mod health;
mod http_api;
mod infer;
mod listen;
mod log_file;
mod method;
pub mod metrics;
mod oip;
mod process;
pub mod proto;
mod reflection;
mod repository;
mod requests;
mod routes;
mod secrets;
mod service_log;
mod session;
mod shared;
mod statistics;
mod stream;
mod tls;
mod trace;
mod unread;
mod watch_config;
mod worker;

pub use chain::Chain;
pub use config::{AuthConfig, ServeConfig, ServeLimits, ServeTimes, TlsFiles};
pub use decision_log::{DecisionLog, DecisionLogConfig, DecisionLogCounts, DecisionLogError, DecisionLogWriter, Place};
pub use error::ServeError;
pub use listen::UnixEndpoint;
pub use log_file::{LogFile, LogFileError, Rotation, ServiceLogConfig, put_aside};
pub use requests::RequestCounts;
pub use secrets::{read_private, read_token};
pub use service_log::{ServiceLog, ServiceLogCounts};
pub use shared::{Gauge, Phase, Shared};
pub use stream::{Carrier, Stream};
pub use tls::Tls;
pub use trace::TraceConfig;
pub use watch_config::{ShadowConfig, WatchConfig, WindowConfig};
pub use worker::is_the_peers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dispatch::Plane;
use metrics::Metrics;
use secrets::Secrets;
use serde::Serialize;
use shared::Means;
use trace::Traces;
use worker::{Listener, Worker};

use crate::policy::Policy;
use crate::watch::Watcher;

/// A server that runs. Dropped without [`Server::drain`] it lets go of everything at once.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    endpoints: Endpoints,
    metrics: Arc<Metrics>,
    threads: Vec<JoinHandle<()>>,
    sockets: Vec<UnixEndpoint>,
    log_writer: Option<DecisionLogWriter>,
}

/// How long the log of decisions may take to write what waits for it, where the time to drain is shorter.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Where a server listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    /// gRPC over TCP.
    pub grpc: Option<SocketAddr>,
    /// gRPC over a Unix socket.
    pub unix: Option<PathBuf>,
    /// HTTP.
    pub http: Option<SocketAddr>,
    /// Admin calls over TCP.
    pub admin: Option<SocketAddr>,
    /// Admin calls over a Unix socket.
    pub admin_unix: Option<PathBuf>,
}

/// What is left of a server that is leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Requests that are being answered, streams too.
    pub in_flight: usize,
    /// Connections that are open.
    pub connections: usize,
}

impl Server {
    /// Starts a server for `policy`, whose model clients call `model_name`, and which `watcher` keeps up to date.
    ///
    /// # Errors
    /// A configuration that [`ServeConfig::validate`] refuses, and then nothing was touched; a file that cannot be used, an
    /// address that is taken.
    pub fn start(
        config: ServeConfig,
        policy: Policy,
        model_name: &str,
        watcher: Option<Watcher>,
    ) -> Result<Server, ServeError> {
        config.validate()?;
        let secrets = Secrets::read(&config.auth)?;
        let tls = config.tls.as_ref().map(Tls::read).transpose()?;
        let log = config.decisions.as_ref().map(|log| DecisionLog::start(log, policy.actions())).transpose()?;
        let (decision_log, log_writer) = log.unzip();
        let traces = config.traces.as_ref().map(Traces::start).transpose()?;
        process::make_room_for(
            config.limits.connections + config.limits.http_connections + config.limits.admin_connections,
        );
        let mut workers: Vec<Worker> = Vec::new();
        workers.resize_with(config.threads, Worker::default);
        let mut endpoints = Endpoints::default();
        let mut sockets = Vec::new();
        for (address, plane, bound) in [
            (config.grpc, Plane::Data, &mut endpoints.grpc),
            (config.admin, Plane::Admin, &mut endpoints.admin),
            (config.http, Plane::Http, &mut endpoints.http),
        ] {
            let Some(address) = address else { continue };
            for (worker, listener) in workers.iter_mut().zip(listen::tcp(address, config.threads)?) {
                *bound = listener.local_addr().ok();
                worker.listeners.push((Listener::Tcp(listener), plane));
            }
        }
        for (path, plane, bound) in [
            (&config.unix, Plane::Data, &mut endpoints.unix),
            (&config.admin_unix, Plane::Admin, &mut endpoints.admin_unix),
        ] {
            let Some(path) = path else { continue };
            let socket = UnixEndpoint::bind(path)?;
            for worker in &mut workers {
                let shared = socket.share();
                let listener =
                    shared.map_err(|cause| ServeError::Listen { endpoint: path.display().to_string(), cause })?;
                worker.listeners.push((Listener::Unix(listener), plane));
            }
            *bound = Some(socket.path().to_owned());
            sockets.push(socket);
        }
        let means = Means { secrets, tls, decision_log, traces };
        let shared = Arc::new(Shared::new(policy, model_name.to_owned(), config, means, watcher));
        let metrics = Arc::new(Metrics::new(&shared));
        let mut server = Server { shared, metrics, endpoints, threads: Vec::new(), sockets, log_writer };
        for (number, worker) in workers.into_iter().enumerate() {
            let thread = thread::Builder::new().name(format!("bellwether-serve-{number}"));
            let running = worker
                .start(thread, Arc::clone(&server.shared), Arc::clone(&server.metrics))
                .map_err(ServeError::Thread)?;
            server.threads.push(running);
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// What its threads share: counters, the policy, the configuration.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What it counts, for a scrape.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Tells of this log in the metrics from now on; of the first one where it is called again.
    pub fn tell_of(&self, log: Arc<ServiceLog>) {
        let _ = self.shared.service_log.set(log);
    }

    /// Says that it leaves, takes no more connections, tells clients to go, and waits for what they have begun, as long as
    /// the configuration says. `progress` hears what is left, at the start, once a second and whenever less is left. Returns what
    /// was still left at the end and was let go.
    pub fn drain(mut self, mut progress: impl FnMut(Left)) -> Left {
        const LOOK: Duration = Duration::from_millis(5);
        const TELL: Duration = Duration::from_secs(1);
        self.shared.advance(Phase::Leaving);
        thread::sleep(self.shared.config.times.leave());
        self.shared.advance(Phase::Draining);
        // Whoever connects from here on finds nobody, and may start another server under the same name.
        self.sockets.clear();
        let began = Instant::now();
        let mut told: Option<(Instant, Left)> = None;
        loop {
            let left = self.left();
            if told.is_none_or(|(when, before)| left.in_flight < before.in_flight || when.elapsed() >= TELL) {
                progress(left);
                told = Some((Instant::now(), left));
            }
            let done = self.threads.iter().all(JoinHandle::is_finished);
            if done || began.elapsed() >= self.shared.config.times.drain() {
                self.end();
                return if done { Left { in_flight: 0, connections: 0 } } else { left };
            }
            thread::sleep(LOOK);
        }
    }

    fn left(&self) -> Left {
        let Shared { in_flight, sessions, connections, http_connections, admin_connections, .. } = &*self.shared;
        Left {
            in_flight: in_flight.now() + sessions.now(),
            connections: connections.now() + http_connections.now() + admin_connections.now(),
        }
    }

    fn end(&mut self) {
        self.shared.advance(Phase::Over);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
        // Nobody decides any more, so what waits now is all there is.
        if let Some(writer) = self.log_writer.take() {
            writer.finish(self.shared.config.times.drain().max(LAST_LINES));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}
