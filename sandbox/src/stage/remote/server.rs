//! The server of a stage.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_inference::serve::{ServeError, TlsFiles, UnixEndpoint, read_private};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::server::Router;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic_health::server::HealthReporter;

use super::lines::{KEEPALIVE, REQUEST_BYTES, RESPONSE_BYTES};
use super::proto::sandbox_service_server::SandboxServiceServer;
use super::proto::{self};
use super::run::Bounds;
use super::service::Service;
use super::table::Table;
use crate::stage::Stage;

/// What a server of a stage is told.
#[derive(Clone, Debug, PartialEq)]
pub struct StageConfig {
    /// Stage, 1 or 2.
    pub stage: u8,
    /// Where it listens.
    pub listen: Listen,
    /// Samples that run at once, 1 to 1,024.
    pub runs: usize,
    /// How long a sample runs on while nothing is heard of whoever decides: 10 ms to an hour.
    pub lease: Duration,
    /// Longest file that is taken, in bytes.
    pub specimen_bytes: u64,
    /// Records of a run that may wait to be acknowledged, at least 1; then the sample waits.
    pub backlog_records: usize,
    /// Their bytes.
    pub backlog_bytes: usize,
    /// How long the file of an order may take.
    pub upload: Duration,
    /// How long an outcome waits to be fetched.
    pub keep: Duration,
}

/// Where a stage listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On a Unix socket, which is made for its owner alone.
    Unix(PathBuf),
    /// On TCP, for clients with a certificate of an authority that the files name.
    Tcp {
        /// Address; port 0 takes a free one.
        address: SocketAddr,
        /// Certificates; the authority of clients is needed.
        tls: TlsFiles,
    },
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// On a Unix socket.
    Unix(PathBuf),
    /// On TCP.
    Tcp(SocketAddr),
}

/// Why a stage is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeStageError {
    /// The configuration says something that no server can or should do.
    #[error("{key}: {reason}")]
    Config {
        /// The key.
        key: &'static str,
        /// What is wrong with it, and what to give.
        reason: String,
    },
    /// A socket or a file cannot be used.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The certificates cannot be used.
    #[error("the certificates cannot be used: {0}")]
    Tls(String),
    /// The system gives no listener or no threads.
    #[error("cannot {what}: {cause}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        cause: io::Error,
    },
}

/// A server that runs. Dropped without [`StageServer::drain`] it has all samples killed.
#[derive(Debug)]
pub struct StageServer {
    endpoint: Endpoint,
    table: Arc<Table>,
    health: HealthReporter,
    end: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<Result<(), tonic::transport::Error>>>,
    runtime: Runtime,
    _socket: Option<UnixEndpoint>,
}

/// Threads that answer; samples have threads of their own.
const THREADS: usize = 2;
/// Streams of one connection: each run has one that lasts.
const STREAMS: u32 = 2_048;
/// Bytes of the headers of a request.
const HEADER_BYTES: u32 = 16 << 10;
/// How long handshakes may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long what was killed may take to end.
const ENDING: Duration = Duration::from_secs(20);
/// How often it is looked whether all is over.
const LOOK: Duration = Duration::from_millis(10);

impl StageConfig {
    /// The ordinary configuration of a stage that listens there.
    pub fn new(stage: u8, listen: Listen) -> StageConfig {
        StageConfig {
            stage,
            listen,
            runs: 4,
            lease: Duration::from_secs(30),
            specimen_bytes: 256 << 20,
            backlog_records: 16_384,
            backlog_bytes: 8 << 20,
            upload: Duration::from_secs(120),
            keep: Duration::from_secs(600),
        }
    }

    /// Refuses what no stage can or should be, before anything is touched.
    ///
    /// # Errors
    /// [`ServeStageError::Config`] with the key.
    pub fn validate(&self) -> Result<(), ServeStageError> {
        let refuse = |key, reason: &str| Err(ServeStageError::Config { key, reason: reason.to_owned() });
        if !(1..=2).contains(&self.stage) {
            return refuse("stage", "give 1 or 2");
        }
        if !(1..=1_024).contains(&self.runs) {
            return refuse("runs", "give 1 to 1024");
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(3_600)).contains(&self.lease) {
            return refuse("lease", "give 10 ms to an hour");
        }
        if self.backlog_records == 0 || self.backlog_bytes == 0 {
            return refuse("backlog", "give at least one record and one byte");
        }
        match &self.listen {
            Listen::Tcp { tls, .. } if tls.client_ca.is_none() => {
                refuse("tls", "whoever may have samples run shows a certificate: give the authority of clients")
            }
            _ => Ok(()),
        }
    }
}

impl StageServer {
    /// Serves a stage until it is drained or dropped.
    ///
    /// # Errors
    /// A configuration that [`StageConfig::validate`] refuses, a name that is taken, certificates that cannot be used.
    pub fn start(config: StageConfig, stage: Arc<dyn Stage + Send + Sync>) -> Result<StageServer, ServeStageError> {
        config.validate()?;
        let failed = |what| move |cause| ServeStageError::System { what, cause };
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(THREADS).thread_name(format!("stage-{}", config.stage)).enable_io().enable_time();
        let runtime = runtime.build().map_err(failed("start the threads of the server"))?;
        let table = Arc::new(Table::new(config.runs, config.keep));
        let bounds = Bounds { records: config.backlog_records, bytes: config.backlog_bytes, lease: config.lease };
        let service = Service {
            number: config.stage,
            stage,
            table: Arc::clone(&table),
            bounds,
            specimen_bytes: config.specimen_bytes,
            upload: config.upload,
        };
        let (health, answers) = tonic_health::server::health_reporter();
        runtime.block_on(health.set_serving::<SandboxServiceServer<Service>>());
        let mut server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .max_concurrent_streams(STREAMS)
            .http2_max_header_list_size(HEADER_BYTES);
        if let Listen::Tcp { tls, .. } = &config.listen {
            server = server.tls_config(certificates(tls)?).map_err(|error| ServeStageError::Tls(chain(&error)))?;
        }
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|error| ServeStageError::Tls(error.to_string()))?;
        let service = SandboxServiceServer::new(service)
            .max_decoding_message_size(REQUEST_BYTES)
            .max_encoding_message_size(RESPONSE_BYTES);
        let router = server.add_service(answers).add_service(reflection).add_service(service);
        let (end, ends) = oneshot::channel();
        let (serving, endpoint, socket) = {
            let _inside = runtime.enter();
            listen(&config.listen, router, ends)?
        };
        Ok(StageServer { endpoint, table, health, end: Some(end), serving: Some(serving), runtime, _socket: socket })
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Samples that run, and runs that are known: those whose outcome was not fetched yet too.
    pub fn runs(&self) -> (usize, usize) {
        self.table.count()
    }

    /// Takes no more samples, waits until those that run have ended and their outcomes are fetched, then ends. `wait` hears many
    /// times a second how many run, and says whether to go on waiting; those that are left then are killed. How many were.
    pub fn drain(mut self, mut wait: impl FnMut(usize) -> bool) -> usize {
        self.table.leave();
        self.runtime.block_on(self.health.set_not_serving::<SandboxServiceServer<Service>>());
        loop {
            let (running, known) = self.table.count();
            if known == 0 || !wait(running) {
                return self.finish();
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Has all samples killed and ends the server; how many there were.
    fn finish(&mut self) -> usize {
        let Some(end) = self.end.take() else { return 0 };
        self.table.leave();
        let (killed, _) = self.table.count();
        self.table.stop("the stage was told to end");
        let began = Instant::now();
        while self.table.count().0 > 0 && began.elapsed() < ENDING {
            std::thread::sleep(LOOK);
        }
        // Whoever follows learns how it ended, if they are there to learn it.
        while killed > 0 && self.table.count().1 > 0 && began.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(LOOK);
        }
        _ = end.send(());
        if let Some(serving) = self.serving.take() {
            _ = self.runtime.block_on(async { tokio::time::timeout(Duration::from_millis(200), serving).await });
        }
        killed
    }
}

impl Drop for StageServer {
    fn drop(&mut self) {
        self.finish();
    }
}

type Serving = JoinHandle<Result<(), tonic::transport::Error>>;

fn listen(
    listen: &Listen,
    router: Router,
    ends: oneshot::Receiver<()>,
) -> Result<(Serving, Endpoint, Option<UnixEndpoint>), ServeStageError> {
    let failed = |cause| ServeStageError::System { what: "listen", cause };
    let ends = async move { drop(ends.await) };
    Ok(match listen {
        Listen::Unix(path) => {
            let socket = UnixEndpoint::bind(path)?;
            let listener = tokio::net::UnixListener::from_std(socket.share().map_err(failed)?).map_err(failed)?;
            let serving = router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), ends);
            (tokio::spawn(serving), Endpoint::Unix(path.clone()), Some(socket))
        }
        Listen::Tcp { address, .. } => {
            let listener = std::net::TcpListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
            let serving = router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), ends);
            (tokio::spawn(serving), Endpoint::Tcp(bound), None)
        }
    })
}

fn certificates(files: &TlsFiles) -> Result<ServerTlsConfig, ServeStageError> {
    let read = |path: &PathBuf| {
        let refused = |error: io::Error| ServeError::File { path: path.clone(), reason: error.to_string() };
        std::fs::read(path).map_err(refused)
    };
    let identity = Identity::from_pem(read(&files.certificate)?, read_private(&files.key)?);
    let config = ServerTlsConfig::new().identity(identity).timeout(HANDSHAKE);
    Ok(match &files.client_ca {
        Some(path) => config.client_ca_root(Certificate::from_pem(read(path)?)),
        None => config,
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
