//! Reflection: what a listener offers, in the stable protocol and in the one before it.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use prost::bytes::Bytes;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic_reflection::server::Builder;

use super::dispatch::{Plane, client_deadline};
use super::proto::DESCRIPTORS;
use super::shared::Slot;

/// Answers in both protocols.
pub(super) struct Reflection {
    pub(super) v1: Reflected,
    pub(super) v1alpha: Reflected,
}

/// A service whose type has no name.
pub(super) struct Reflected(Box<dyn Fn(Request<Conversation>) -> Answering + Send + Sync>);

/// The questions of one client. They end in time: whoever reads them would wait for the next one as long as the client wants, even
/// where nobody waits for its answers any more.
struct Conversation {
    questions: Incoming,
    until: Pin<Box<Sleep>>,
    _slot: Option<Arc<Slot>>,
}

/// Longest conversation.
pub(super) const LONGEST: Duration = Duration::from_secs(60);
/// How much later than its answers a conversation ends where nobody takes them. Questions that end first end the answers as well, and
/// without the reason.
const GRACE: Duration = Duration::from_secs(1);
/// Bytes of a question.
const QUESTION_BYTES: usize = 16 << 10;

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// What each listener offers.
const DATA: [&str; 3] =
    ["bellwether.policy.v1.PolicyService", "inference.GRPCInferenceService", "grpc.health.v1.Health"];
const ADMIN: [&str; 2] = ["bellwether.policy.v1.Admin", "grpc.health.v1.Health"];

impl Reflection {
    /// `None` where the descriptors that were built in cannot be read, which a test excludes.
    pub(super) fn new(plane: Plane) -> Option<Self> {
        let offered = match plane {
            Plane::Data | Plane::Http => &DATA[..],
            Plane::Admin => &ADMIN[..],
        };
        let builder = |own: &str| {
            let builder = Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
            offered.iter().copied().chain([own]).fold(builder, Builder::with_service_name)
        };
        let v1 =
            builder("grpc.reflection.v1.ServerReflection").build_v1().ok()?.max_decoding_message_size(QUESTION_BYTES);
        let v1alpha = builder("grpc.reflection.v1alpha.ServerReflection")
            .build_v1alpha()
            .ok()?
            .max_decoding_message_size(QUESTION_BYTES);
        Some(Reflection { v1: Reflected::new(v1), v1alpha: Reflected::new(v1alpha) })
    }
}

impl Reflected {
    fn new<S>(service: S) -> Self
    where
        S: Service<Request<Conversation>, Response = Response<Body>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        Reflected(Box::new(move |request| Box::pin(service.clone().call(request))))
    }

    pub(super) async fn call(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let slot = request.extensions_mut().remove();
        // It was read before, so that what is no deadline is refused already.
        let asked = request.headers().get("grpc-timeout").and_then(|value| client_deadline(value.as_bytes()));
        let longest = asked.map_or(LONGEST, |asked| asked.min(LONGEST));
        let conversation = |questions| Conversation { questions, until: Box::pin(sleep(longest + GRACE)), _slot: slot };
        (self.0)(request.map(conversation)).await
    }
}

impl http_body::Body for Conversation {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Status::cancelled("the conversation has lasted too long; begin another"))));
        }
        let frame = Pin::new(&mut self.questions).poll_frame(cx);
        frame.map_err(|error| Status::from_error(Box::new(error)))
    }
}

impl fmt::Debug for Reflection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Reflection")
    }
}
