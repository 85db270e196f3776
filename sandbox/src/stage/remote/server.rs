//! The server of a stage.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_inference::serve::{ServeError, Tls, TlsFiles, UnixEndpoint};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_health::server::HealthReporter;

use super::door::Door;
use super::lines::{REQUEST_BYTES, RESPONSE_BYTES};
use super::proto::sandbox_service_server::SandboxServiceServer;
use super::proto::{self};
use super::run::Bounds;
use super::service::Service;
use super::table::Table;
use crate::peer::KEEPALIVE;
use crate::stage::Stage;

/// What a server of a stage is told.
#[derive(Clone, Debug, PartialEq)]
pub struct StageConfig {
    /// Stage, 1 or 2.
    pub stage: u8,
    /// Where it listens.
    pub listen: Listen,
    /// Connections at a time, those that still shake hands too, 1 to 65,536. One too many is closed.
    pub connections: usize,
    /// Samples that run at once, 1 to 1,024.
    pub runs: usize,
    /// How long a sample runs on while nothing is heard of whoever decides: 10 ms to an hour.
    pub lease: Duration,
    /// How long a question may stand open at most, 1 ms to 2 minutes, whatever an order asks for: then the safe rule answers it. One
    /// about a sample that has ended stands open for the time of the lease.
    pub answer_within: Duration,
    /// Longest file that is taken, in bytes, 1 to 2^30: it is held in memory.
    pub specimen_bytes: u64,
    /// Records of a run that may wait to be acknowledged, 1 to 2^20; then the sample waits.
    pub backlog_records: usize,
    /// Their bytes, 1 to 2^30.
    pub backlog_bytes: usize,
    /// How long the file of an order may take, up to an hour.
    pub upload: Duration,
    /// How long an outcome waits to be fetched, up to a day.
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
            connections: 256,
            runs: 4,
            lease: Duration::from_secs(30),
            answer_within: Duration::from_secs(1),
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
        if !(Duration::from_millis(1)..=Duration::from_secs(120)).contains(&self.answer_within) {
            return refuse("answer_within", "give 1 ms to 2 minutes");
        }
        if !(1..=1 << 16).contains(&self.connections) {
            return refuse("connections", "give 1 to 65536");
        }
        if !(1..=1 << 30).contains(&self.specimen_bytes) {
            return refuse("specimen_bytes", "give 1 byte to 2^30, a GiB");
        }
        if !(1..=1 << 20).contains(&self.backlog_records) || !(1..=1 << 30).contains(&self.backlog_bytes) {
            return refuse("backlog", "give 1 to 2^20 records, of 1 to 2^30 bytes");
        }
        if self.upload.is_zero() || self.upload > Duration::from_secs(3_600) {
            return refuse("upload", "give more than nothing, and an hour at most");
        }
        if self.keep > Duration::from_secs(86_400) {
            return refuse("keep", "give a day at most");
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
        let bounds = Bounds {
            records: config.backlog_records,
            bytes: config.backlog_bytes,
            lease: config.lease,
            answer: config.answer_within,
        };
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
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|error| failed("answer for what it speaks")(io::Error::other(error)))?;
        let service = SandboxServiceServer::new(service)
            .max_decoding_message_size(REQUEST_BYTES)
            .max_encoding_message_size(RESPONSE_BYTES);
        let router = server.add_service(answers).add_service(reflection).add_service(service);
        let (end, ends) = oneshot::channel();
        let (serving, endpoint, socket) = {
            let _inside = runtime.enter();
            listen(&config, router, ends)?
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

    /// Takes no more samples, waits until those that run have ended and whoever still follows has fetched their outcomes, then ends.
    /// `wait` hears many times a second how many run, and says whether to go on waiting; those that are left then are killed. How
    /// many were.
    pub fn drain(mut self, mut wait: impl FnMut(usize) -> bool) -> usize {
        self.table.leave();
        self.runtime.block_on(self.health.set_not_serving::<SandboxServiceServer<Service>>());
        loop {
            if !self.table.is_awaited() || !wait(self.table.count().0) {
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
    config: &StageConfig,
    router: Router,
    ends: oneshot::Receiver<()>,
) -> Result<(Serving, Endpoint, Option<UnixEndpoint>), ServeStageError> {
    let failed = |cause| ServeStageError::System { what: "listen", cause };
    let (door, endpoint, socket) = match &config.listen {
        Listen::Unix(path) => {
            let socket = UnixEndpoint::bind(path)?;
            let door = Door::unix(socket.share().map_err(failed)?).map_err(failed)?;
            (door, Endpoint::Unix(path.clone()), Some(socket))
        }
        Listen::Tcp { address, tls } => {
            let tls = Tls::read(tls)?;
            let listener = std::net::TcpListener::bind(address).map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            (Door::tcp(listener, tls).map_err(failed)?, Endpoint::Tcp(bound), None)
        }
    };
    let ends = async move { drop(ends.await) };
    let serving = router.serve_with_incoming_shutdown(door.open(config.connections), ends);
    Ok((tokio::spawn(serving), endpoint, socket))
}
