//! A stage elsewhere.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_artifact::Sha256;
use prost::bytes::Bytes;
use sha2::Digest;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::follow::Following;
use super::lines::{PIECE_BYTES, REQUEST_BYTES, RESPONSE_BYTES};
use super::proto::sandbox_service_client::SandboxServiceClient;
use super::proto::{DetonateRequest, detonate_request::Part};
use super::wire;
use crate::episode::{Clock, Schedule};
use crate::peer::{Address, AddressError, ClientTls};
use crate::stage::{Course, Order, Outcome, Stage, StageError};

/// Runs samples at a stage that is served elsewhere.
pub struct RemoteStage {
    pub(super) number: u8,
    pub(super) client: Client,
    pub(super) runtime: Runtime,
    pub(super) options: RemoteOptions,
    pub(super) clock: Arc<dyn Clock>,
}

/// How patient a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteOptions {
    /// How long a connection may take.
    pub connect: Duration,
    /// How long an order and its file may take.
    pub order: Duration,
    /// How long an action may take to be admitted.
    pub act: Duration,
    /// How long a question may stand open at the stage, in milliseconds: as long as a decision may take and the way there and back.
    /// Zero leaves it to the stage, which refuses more than it allows.
    pub answer_within_ms: u64,
    /// When what did not come about is tried again.
    pub schedule: Schedule,
    /// How long a sample that is to be killed may take to end.
    pub ending: Duration,
}

pub(super) type Client = SandboxServiceClient<Channel>;

impl Default for RemoteOptions {
    fn default() -> Self {
        RemoteOptions {
            connect: Duration::from_secs(2),
            order: Duration::from_secs(120),
            act: Duration::from_secs(2),
            answer_within_ms: 0,
            schedule: Schedule::default(),
            ending: Duration::from_secs(20),
        }
    }
}

impl RemoteStage {
    /// A client of the stage of this number at an address. It connects when it is used.
    ///
    /// # Errors
    /// Certificates that are missing or cannot be used.
    pub fn new(
        number: u8,
        address: &Address,
        tls: Option<&ClientTls>,
        options: RemoteOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<RemoteStage, AddressError> {
        let nameless = tls.is_none_or(|tls| tls.identity.is_none());
        if matches!(address, Address::Loopback(_)) || nameless && matches!(address, Address::Tls(_)) {
            return Err(AddressError::Tls { address: address.to_string() });
        }
        let (runtime, channel) = address.channel(tls, &format!("client-{number}"), options.connect)?;
        let client = SandboxServiceClient::new(channel)
            .max_encoding_message_size(REQUEST_BYTES)
            .max_decoding_message_size(RESPONSE_BYTES);
        Ok(RemoteStage { number, client, runtime, options, clock })
    }

    /// Waits for an answer, in time.
    pub(super) fn wait<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Status> {
        let late = || Status::deadline_exceeded(format!("no answer within {} s", limit.as_secs_f64()));
        let answer = self.runtime.block_on(async { tokio::time::timeout(limit, answer).await });
        answer.unwrap_or_else(|_| Err(late())).map(tonic::Response::into_inner)
    }

    /// Sends an order and its file; the lease of the run.
    fn order(&self, order: &Order) -> Result<Duration, StageError> {
        let failed = |cause| StageError::System { what: "read the sample", cause };
        // A duplicate would share its offset with every other reader.
        let mut file = File::open(format!("/proc/self/fd/{}", order.sample.memory.as_raw_fd())).map_err(failed)?;
        let (bytes, sha256) = measure(&mut file).map_err(failed)?;
        let refused = |why| StageError::Order { stage: order.stage, why };
        let first = wire::announce(order, (bytes, sha256), self.options.answer_within_ms);
        let first = first.map_err(|error| refused(error.to_string()))?;
        let (parts, sent) = mpsc::channel(2);
        self.runtime.spawn_blocking(move || {
            let mut part = Some(Part::Order(first));
            // Ends early where the other end does: the answer says why.
            while let Some(next) = part {
                if parts.blocking_send(DetonateRequest { part: Some(next) }).is_err() {
                    return;
                }
                part = piece(&mut file).map(Part::Data);
            }
        });
        let mut client = self.client.clone();
        let mut request = Request::new(ReceiverStream::new(sent));
        request.set_timeout(self.options.order);
        let answer = self.wait(self.options.order, client.detonate(request)).map_err(|status| {
            let why = status.message().to_owned();
            match is_passing(&status) {
                true => StageError::Away { stage: order.stage, why },
                false => refused(why),
            }
        })?;
        Ok(Duration::from_millis(answer.lease_ms))
    }
}

impl Stage for RemoteStage {
    fn run(&self, order: &Order, course: &mut dyn Course) -> Result<Outcome, StageError> {
        let began = Instant::now();
        let lease = self.order(order)?;
        let outcome = Following::new(self, order, course, lease).until_the_end();
        tracing::debug!(stage = self.number, took_ms = began.elapsed().as_millis(), "a run elsewhere is over");
        outcome
    }
}

/// Whether another attempt may fare better.
pub(super) fn is_passing(status: &Status) -> bool {
    !matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Aborted
            | Code::Unimplemented
    )
}

fn measure(file: &mut File) -> std::io::Result<(u64, Sha256)> {
    let (mut bytes, mut hash) = (0, sha2::Sha256::new());
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => {
                bytes += read as u64;
                hash.update(&buffer[..read]);
            }
        }
    }
    file.rewind()?;
    Ok((bytes, Sha256::from_bytes(hash.finalize().into())))
}

/// The next piece of a file. What cannot be read is missing at the other end, where nothing runs then.
fn piece(file: &mut File) -> Option<Bytes> {
    let mut piece = vec![0; PIECE_BYTES];
    let read = file.read(&mut piece).ok().filter(|read| *read > 0)?;
    piece.truncate(read);
    Some(piece.into())
}

impl std::fmt::Debug for RemoteStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteStage")
            .field("number", &self.number)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
