//! Bodies for fuzzing: what any client may send, behind the connection that brings it. Property tests drive them; a fuzzer can
//! too.

use std::sync::Arc;

use http::Request;
use http_body_util::{BodyExt as _, Full};
use prost::bytes::{BufMut as _, Bytes, BytesMut};
use tokio::runtime::{Builder, Runtime};

use super::config::ServeConfig;
use super::error::ServeError;
use super::http_api;
use super::method::{Method, Service};
use super::routes::Models;
use super::secrets::Secrets;
use super::shared::{Means, Shared};
use crate::policy::Policy;

/// A server without listeners.
#[derive(Debug)]
pub struct Front {
    shared: Arc<Shared>,
    runtime: Runtime,
    models: Models,
}

impl Front {
    /// A front of this policy, with the limits that servers have by default.
    ///
    /// # Errors
    /// What a server with the default configuration is refused for, or no event loop.
    pub fn new(policy: Policy) -> Result<Front, ServeError> {
        let config = ServeConfig::default();
        let secrets = Secrets::read(&config.auth)?;
        let means = Means { secrets, tls: None, decision_log: None, traces: None };
        let shared = Arc::new(Shared::new(policy, "policy".to_owned(), config, means, None));
        let runtime = Builder::new_current_thread().enable_time().build();
        Ok(Front { runtime: runtime.map_err(ServeError::Thread)?, models: Models::new(&shared), shared })
    }

    /// A call of gRPC. The first byte chooses the call; the second, whether the rest is its body as it is, or the content of
    /// messages: of one, or on a stream of one after each byte that says how long it is.
    ///
    /// # Panics
    /// When the call ends without a status, or leaves something behind.
    pub fn grpc(&self, data: &[u8]) {
        let [call, form, rest @ ..] = data else { return };
        let answered = [Service::Policy, Service::Inference, Service::Admin];
        let calls: Vec<Method> = Method::ALL.into_iter().filter(|call| answered.contains(&call.service())).collect();
        let call = calls[usize::from(*call) % calls.len()];
        let body = match (form % 2 == 0, call.is_stream()) {
            (false, _) => Bytes::copy_from_slice(rest),
            (true, false) => framed([rest]),
            (true, true) => framed(messages(rest)),
        };
        let request = Request::post(call.path()).header("content-type", "application/grpc").body(Full::new(body));
        let Ok(request) = request else { return };
        self.runtime.block_on(async {
            let (head, body) = self.models.call(call, request).await.into_parts();
            let told = match body.collect().await {
                Ok(body) => body.trailers().is_some_and(|trailers| trailers.contains_key("grpc-status")),
                Err(status) => panic!("the answer breaks off: {status}"),
            };
            assert!(told || head.headers.contains_key("grpc-status"), "{} ends without a status", call.path());
        });
        assert_eq!(self.shared.episodes.now(), 0, "an episode is left open");
    }

    /// The body of an inference over HTTP. The first byte says whether its header gives the length of the JSON, which are the
    /// next two.
    ///
    /// # Panics
    /// When the server blames itself, or its answer is not JSON with bytes behind.
    pub fn http(&self, data: &[u8]) {
        let [given, low, high, body @ ..] = data else { return };
        let json_length = (given % 2 == 1).then(|| usize::from(u16::from_le_bytes([*low, *high])));
        let body = Bytes::copy_from_slice(body);
        self.runtime.block_on(async {
            let (head, answer) = http_api::answer_body(&self.shared, json_length, &body).await.into_parts();
            let Ok(answer) = answer.collect().await.map(|answer| answer.to_bytes());
            assert!(!head.status.is_server_error(), "{}: {answer:?}", head.status);
            let length = head.headers.get(&http_api::JSON_LENGTH);
            let length = length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(answer.len());
            let json: Result<serde_json::Value, _> = serde_json::from_slice(&answer[..length]);
            assert!(json.is_ok(), "{json:?}: {answer:?}");
        });
    }
}

/// The parts of `rest`: each as long as the byte before it says, the last as long as there is something.
fn messages(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let [length, after @ ..] = rest {
        let (part, behind) = after.split_at(after.len().min(usize::from(*length)));
        parts.push(part);
        rest = behind;
    }
    parts
}

/// Messages as gRPC frames them: no compression, the length, the content.
fn framed<'a>(messages: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
    let mut body = BytesMut::new();
    for message in messages {
        body.put_u8(0);
        // Nobody drives this with more than 4 GiB.
        body.put_u32(message.len() as u32);
        body.put_slice(message);
    }
    body.freeze()
}
