//! A thread that answers: an event loop with listeners and connections of its own.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::caller::Caller;
use super::chain::Chain;
use super::connection::{self, Activity};
use super::dispatch::{Dispatch, Plane};
use super::http_api::{self, Http};
use super::metrics::Metrics;
use super::routes::Routes;
use super::shared::{Gauge, Phase, Shared};
use super::stream::{Carrier, Stream};

/// A thread that answers, before it starts.
#[derive(Debug, Default)]
pub(super) struct Worker {
    pub(super) listeners: Vec<(Listener, Plane)>,
}

/// Where connections come from.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A listener of this thread's event loop.
#[derive(Debug)]
enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// What every connection of a listener needs.
#[derive(Clone, Debug)]
struct Context {
    shared: Arc<Shared>,
    routes: Arc<Routes>,
    metrics: Arc<Metrics>,
    plane: Plane,
    /// Dropped with the last connection: the thread ends when nobody holds one.
    alive: mpsc::Sender<()>,
}

impl Worker {
    /// Starts the thread.
    pub(super) fn start(
        self,
        thread: Builder,
        shared: Arc<Shared>,
        metrics: Arc<Metrics>,
    ) -> io::Result<JoinHandle<()>> {
        // One thread for each loop: work that moves between threads pays more for that than it takes.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let entered = runtime.enter();
        let listeners = self.listeners.into_iter().map(|(listener, plane)| Ok((listener.accepting()?, plane)));
        let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
        drop(entered);
        thread.spawn(move || run(runtime, listeners, shared, metrics))
    }
}

impl Listener {
    fn accepting(self) -> io::Result<Accepting> {
        Ok(match self {
            Listener::Tcp(listener) => Accepting::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Listener::Unix(listener) => Accepting::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }
}

impl Accepting {
    async fn accept(&self) -> io::Result<Carrier> {
        match self {
            Accepting::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // An answer is small and waited for.
                stream.set_nodelay(true)?;
                Ok(Carrier::Tcp(stream))
            }
            Accepting::Unix(listener) => Ok(Carrier::Unix(listener.accept().await?.0)),
        }
    }
}

fn run(runtime: Runtime, listeners: Vec<(Accepting, Plane)>, shared: Arc<Shared>, metrics: Arc<Metrics>) {
    // Made now, not by the first request.
    shared.with_decider(|_| ());
    let planes = [Plane::Data, Plane::Admin].map(|plane| Arc::new(Routes::new(&shared, plane)));
    let mut phases = shared.phase.subscribe();
    runtime.block_on(async move {
        let (alive, mut connections) = mpsc::channel(1);
        for (listener, plane) in listeners {
            let [data, admin] = &planes;
            let routes = Arc::clone(match plane {
                Plane::Data | Plane::Http => data,
                Plane::Admin => admin,
            });
            let (shared, metrics, alive) = (Arc::clone(&shared), Arc::clone(&metrics), alive.clone());
            tokio::spawn(take(listener, Context { shared, routes, metrics, plane, alive }));
        }
        drop(alive);
        tokio::select! {
            _ = connections.recv() => (),
            _ = phases.wait_for(|phase| *phase == Phase::Over) => (),
        }
    });
    // What an operator asked for may be stuck, in a folder that does not answer, say.
    runtime.shutdown_timeout(STUCK);
}

/// How long a server that is over waits for what an operator asked of it.
const STUCK: Duration = Duration::from_secs(1);

/// Takes connections until the server drains.
async fn take(listener: Accepting, context: Context) {
    /// After a failure, such as too many open files, which the next attempt would meet again.
    const PAUSE: Duration = Duration::from_millis(50);
    let mut phases = context.shared.phase.subscribe();
    loop {
        let accepted = tokio::select! {
            _ = phases.wait_for(|phase| *phase >= Phase::Draining) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(carrier) => serve(carrier, &context),
            Err(error) if is_the_peers(&error) => tracing::debug!(%error, "a connection ended before it was accepted"),
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whether a connection was not accepted because its peer went away, which says nothing about the next one: pausing for it would let
/// one client hold up all.
pub fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | NotConnected)
}

fn serve(carrier: Carrier, context: &Context) {
    let Context { shared, routes, metrics, plane, alive } = context.clone();
    // One too many is closed at once, and counted.
    let gauge: fn(&Shared) -> &Gauge = match plane {
        Plane::Data => |shared| &shared.connections,
        Plane::Http => |shared| &shared.http_connections,
        Plane::Admin => |shared| &shared.admin_connections,
    };
    let Some(slot) = shared.take(gauge) else { return };
    tokio::spawn(async move {
        let config = &shared.config;
        let carrier = match (carrier, &shared.tls) {
            (Carrier::Tcp(stream), Some(tls)) => {
                match timeout(config.times.handshake(), tls.acceptor_of(plane).accept(stream)).await {
                    Ok(Ok(stream)) => Carrier::Tls(Box::new(stream)),
                    Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => return tracing::debug!("a TLS handshake took too long"),
                }
            }
            (carrier, _) => carrier,
        };
        let times = &config.times;
        let ended = match plane {
            Plane::Http => {
                let http = Http { shared: Arc::clone(&shared), metrics };
                let stream = Stream::new(carrier, times.handshake(), times.write(), http_api::GREETING_BYTES);
                http_api::speak(stream, http, config).await
            }
            Plane::Data | Plane::Admin => {
                let activity = Arc::new(Activity::new());
                let caller = (plane == Plane::Admin).then(|| Caller::of(&carrier));
                let dispatch = Dispatch { shared: Arc::clone(&shared), routes, plane, activity, caller };
                let stream = Stream::http2(carrier, times.handshake(), times.write());
                connection::speak(stream, dispatch, config).await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = %Chain(&error), "a connection ended early");
        }
        drop((slot, alive));
    });
}
