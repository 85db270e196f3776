//! `bellwether sandbox`: stages for episodes that are decided on elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use bellwether_inference::serve::TlsFiles;
use bellwether_sandbox::stage::LocalStage;
use bellwether_sandbox::stage::remote::{Endpoint, Listen, ServeStageError, StageConfig, StageServer};
use schemars::JsonSchema;
use serde::Serialize;

use super::stop::Stop;
use super::{Failure, Output, build, log, output};

/// Runs files for episodes that are decided on elsewhere.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

/// What to do.
#[derive(clap::Subcommand)]
enum What {
    Serve(Serve),
}

/// Serves a stage over gRPC until it is told to stop.
///
/// `detonate` and `loop` use it through --stage-1 and --stage-2. A file whose controller is not heard of for the time of the lease
/// is killed. The first signal ends the stage when what runs has ended, the second kills what runs.
#[derive(clap::Args)]
struct Serve {
    /// Stage: the first, or the second, in which a file finds another user on another host.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=2))]
    stage: u8,
    /// Where to listen: `unix:PATH`, or an address and a port, where clients have to show a certificate.
    #[arg(long, value_name = "ADDRESS")]
    listen: String,
    /// Certificate chain of the server, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "client_ca")]
    tls_cert: Option<PathBuf>,
    /// Its key, PEM; readable by its owner alone.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Authority of the certificates of clients, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
    /// Files that run at once.
    #[arg(long, value_name = "N", default_value_t = 4)]
    runs: usize,
    /// Connections at a time; one too many is closed.
    #[arg(long, value_name = "N", default_value_t = 256)]
    connections: usize,
    /// Longest file that is taken, in MiB; it is held in memory.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    file_mib: u64,
    /// Seconds that a file may take to arrive.
    #[arg(long, value_name = "S", default_value_t = 120)]
    upload: u64,
    /// Records of a run that may wait to be acknowledged; then the file waits.
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    backlog: usize,
    /// Their size in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 8)]
    backlog_mib: usize,
    /// Seconds that an outcome waits to be fetched.
    #[arg(long, value_name = "S", default_value_t = 600)]
    keep: u64,
    /// Seconds for which a file runs on while nothing is heard of whoever decides.
    #[arg(long, value_name = "S", default_value_t = 30.0)]
    lease: f64,
    /// Milliseconds for which a question may stand open at most: then the safe rule answers it, and no later answer counts. Orders
    /// that ask for more are refused.
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    answer_within: u64,
    /// Seconds that what runs may take to end after the first signal.
    #[arg(long, value_name = "S", default_value_t = 600)]
    drain: u64,
    #[command(flatten)]
    log: log::FileFlags,
}

/// What `sandbox serve` reports when it listens.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "StageListening")]
pub(crate) struct Listening {
    /// Stage, 1 or 2.
    stage: u8,
    /// Path of the Unix socket; null over TCP.
    unix: Option<PathBuf>,
    /// Address and port; null on a Unix socket.
    tcp: Option<SocketAddr>,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        match self.what {
            What::Serve(serve) => serve.run(output),
        }
    }
}

impl Serve {
    fn run(self, output: &Output) -> Result<(), Failure> {
        let lease = Duration::try_from_secs_f64(self.lease).map_err(|error| anyhow!("--lease: {error}"));
        let config = StageConfig {
            runs: self.runs,
            connections: self.connections,
            specimen_bytes: self.file_mib.saturating_mul(1 << 20),
            upload: Duration::from_secs(self.upload),
            backlog_records: self.backlog,
            backlog_bytes: self.backlog_mib.saturating_mul(1 << 20),
            keep: Duration::from_secs(self.keep),
            lease: lease.map_err(Failure::usage)?,
            answer_within: Duration::from_millis(self.answer_within),
            ..StageConfig::new(self.stage, self.listen()?)
        };
        config.validate().map_err(Failure::usage)?;
        let _logging = self.log.open()?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), revision = build::source().revision, "bellwether sandbox");
        // Signals are waited for before anybody can know that the stage is there.
        let stop = Stop::prepare()?;
        let server = StageServer::start(config, Arc::new(LocalStage)).map_err(|error| match error {
            ServeStageError::Config { .. } => Failure::usage(error),
            error => error.into(),
        })?;
        let listening = Listening::of(self.stage, server.endpoint());
        tracing::info!(endpoint = ?server.endpoint(), stage = self.stage, "listening");
        output.line(&listening, || listening.describe())?;
        let at_once = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&at_once);
        stop.wait().then(move || told.store(true, Ordering::Relaxed))?;
        let (began, limit, mut before) = (Instant::now(), Duration::from_secs(self.drain), None);
        let killed = server.drain(|left| {
            if before != Some(left) {
                before = Some(left);
                output.say(format_args!("draining: {left} runs"));
            }
            began.elapsed() < limit && !at_once.load(Ordering::Relaxed)
        });
        if killed > 0 {
            output::complain(&format!("{killed} files were killed by the end of the stage"));
        }
        Ok(())
    }

    fn listen(&self) -> Result<Listen, Failure> {
        if let Some(path) = self.listen.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Listen::Unix(PathBuf::from(path)));
        }
        let address = self.listen.parse();
        let address = address.map_err(|_| anyhow!("--listen {}: give unix:PATH or ADDRESS:PORT", self.listen));
        match (&self.tls_cert, &self.tls_key, &self.client_ca) {
            (Some(certificate), Some(key), Some(authority)) => Ok(Listen::Tcp {
                address: address.map_err(Failure::usage)?,
                tls: TlsFiles {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    client_ca: Some(authority.clone()),
                },
            }),
            _ => {
                let address: SocketAddr = address.map_err(Failure::usage)?;
                let why = format!("{address} is reached by others: give --tls-cert, --tls-key and --client-ca");
                Err(Failure::usage(anyhow!(why)))
            }
        }
    }
}

impl Listening {
    fn of(stage: u8, endpoint: &Endpoint) -> Listening {
        match endpoint {
            Endpoint::Unix(path) => Listening { stage, unix: Some(path.clone()), tcp: None },
            Endpoint::Tcp(address) => Listening { stage, unix: None, tcp: Some(*address) },
        }
    }

    fn describe(&self) -> String {
        let at = match (&self.unix, &self.tcp) {
            (Some(path), _) => format!("unix:{}", path.display()),
            (None, Some(address)) => address.to_string(),
            (None, None) => String::new(),
        };
        format!("serving stage {} on {at}", self.stage)
    }
}
