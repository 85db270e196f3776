//! What happens to every request before and after a service sees it: who may call, how many at a time, for how long.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use prost::bytes::Bytes;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::caller::Caller;
use super::connection::Activity;
use super::method::{Method, Service};
use super::requests::GRPC_CODES;
use super::routes::Routes;
use super::shared::{Shared, Slot};
use super::trace::{AnsweredBy, RequestSpan};

/// Which listener a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plane {
    /// Decisions, health, reflection.
    Data,
    /// Admin calls, health, reflection.
    Admin,
    /// The Open Inference Protocol, health and metrics over HTTP/1.1.
    Http,
}

/// Sends the requests of one connection to the services.
#[derive(Clone, Debug)]
pub(super) struct Dispatch {
    pub(super) shared: Arc<Shared>,
    pub(super) routes: Arc<Routes>,
    pub(super) plane: Plane,
    pub(super) activity: Arc<Activity>,
    /// Who calls, where that is told to the service.
    pub(super) caller: Option<Caller>,
}

/// The body of a response, which counts its request when it ends.
#[derive(Debug)]
pub(super) struct Counted {
    inner: tonic::body::Body,
    request: Ending,
}

/// A request that is being answered. It ends once, with the code that was sent, or as cancelled when nobody waits any more.
#[derive(Debug)]
struct Ending {
    shared: Arc<Shared>,
    activity: Arc<Activity>,
    method: Method,
    began: Instant,
    code: Option<Code>,
    span: Option<RequestSpan>,
    _slot: Option<Slot>,
}

impl hyper::service::Service<Request<Incoming>> for Dispatch {
    type Response = Response<Counted>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(caller) = &self.caller {
            request.extensions_mut().insert(caller.clone());
        }
        let method = Method::of(request.uri().path());
        let mut ending = self.begin(method, request.headers());
        let admitted = self.admit(method, request.headers(), &mut ending);
        let routes = Arc::clone(&self.routes);
        Box::pin(async move {
            let response = match admitted {
                Err(status) => status.into_http(),
                Ok(None) => routes.call(method, request).await,
                Ok(Some(deadline)) => match timeout(deadline, routes.call(method, request)).await {
                    Ok(response) => response,
                    Err(_) => Status::deadline_exceeded("the deadline has passed").into_http(),
                },
            };
            ending.code = code_of(response.headers());
            ending.told(response.extensions());
            Ok(response.map(|inner| Counted { inner, request: ending }))
        })
    }
}

impl Dispatch {
    fn begin(&self, method: Method, headers: &HeaderMap) -> Ending {
        self.activity.begins();
        Ending {
            shared: Arc::clone(&self.shared),
            activity: Arc::clone(&self.activity),
            method,
            began: Instant::now(),
            code: None,
            span: self.shared.traces.as_ref().and_then(|traces| traces.begin("grpc", method.path(), headers)),
            _slot: None,
        }
    }

    /// Whether a request may be answered, and within which time.
    fn admit(&self, method: Method, headers: &HeaderMap, ending: &mut Ending) -> Result<Option<Duration>, Status> {
        let Shared { config, secrets, .. } = &*self.shared;
        let (here, open) = match method.service() {
            Service::Policy | Service::Inference => (self.plane == Plane::Data, false),
            Service::Admin => (self.plane == Plane::Admin, false),
            Service::Health => (true, config.auth.open_health),
            Service::Reflection | Service::ReflectionAlpha => (true, config.auth.open_reflection),
            Service::Unknown => (false, false),
        };
        let token = match self.plane {
            Plane::Data | Plane::Http => &secrets.data,
            Plane::Admin => &secrets.admin,
        };
        let borne = token.as_ref().is_none_or(|token| token.is_borne_by(headers.get(http::header::AUTHORIZATION)));
        // Whoever may not call is not told what there is.
        if !open && !borne {
            return Err(Status::unauthenticated("a bearer token is wanted: send it as `authorization: Bearer ...`"));
        }
        if !here {
            return Err(Status::unimplemented("this listener has no such call"));
        }
        let asked = match headers.get("grpc-timeout") {
            None => None,
            Some(value) => Some(client_deadline(value.as_bytes()).ok_or_else(|| {
                Status::invalid_argument("grpc-timeout is at most 8 digits and a unit of H, M, S, m, u or n")
            })?),
        };
        if asked.is_some_and(|asked| asked.is_zero()) {
            return Err(Status::deadline_exceeded("the deadline had passed already"));
        }
        // Operators must see a server that is full.
        if matches!(method.service(), Service::Policy | Service::Inference) {
            let Some(slot) = self.shared.take(|shared| &shared.in_flight) else {
                let limit = config.limits.in_flight;
                return Err(Status::resource_exhausted(format!("{limit} requests are being answered; try again")));
            };
            ending._slot = Some(slot);
        }
        let own = (!method.is_stream()).then(|| config.times.request());
        Ok(match (asked, own) {
            // The deadline of a stream counts for all of it, and is kept by whoever writes it.
            (_, None) => None,
            (Some(asked), Some(own)) => Some(asked.min(own)),
            (None, own) => own,
        })
    }
}

/// The value of `grpc-timeout`.
pub(super) fn client_deadline(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0_u64, |amount, digit| amount * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3_600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The code in headers or trailers.
fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()))
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Counted { inner, request } = &mut *self;
        let frame = Pin::new(inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            request.code = code_of(trailers);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Ending {
    /// Takes down which model answered.
    fn told(&mut self, extensions: &http::Extensions) {
        if let (Some(span), Some(AnsweredBy(version))) = (&mut self.span, extensions.get()) {
            span.answered_by(version);
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled);
        if let Some(span) = self.span.take() {
            // Other codes say that the client was wrong, and not the server.
            let failed = matches!(
                code,
                Code::Unknown
                    | Code::DeadlineExceeded
                    | Code::Unimplemented
                    | Code::Internal
                    | Code::Unavailable
                    | Code::DataLoss
            );
            span.end(GRPC_CODES[code as usize], failed);
        }
        let elapsed = (!self.method.is_stream()).then(|| self.began.elapsed());
        self.shared.requests.ended(self.method.index(), code as usize, elapsed);
        self.activity.ends();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_as_the_protocol_writes_them() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("250m", Some(Duration::from_millis(250))),
            ("0u", Some(Duration::ZERO)),
            ("7n", Some(Duration::from_nanos(7))),
            ("", None),
            ("S", None),
            ("123456789S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("1.5S", None),
        ] {
            assert_eq!(client_deadline(text.as_bytes()), expected, "{text}");
        }
    }
}
