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
use tokio::time::{Sleep, sleep, timeout};
use tonic::{Code, Status};

use super::caller::Caller;
use super::connection::Activity;
use super::method::{Method, Service};
use super::reflection;
use super::requests::GRPC_CODES;
use super::routes::Routes;
use super::shared::{Gauge, Shared, Slot};
use super::trace::{AnsweredBy, RequestSpan};
use super::unread::Seen;

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
    /// When it ends at the latest, and how then.
    until: Option<(Pin<Box<Sleep>>, Status)>,
}

/// Within which times a request is answered.
#[derive(Debug)]
struct Admitted {
    /// From its headers to the headers of the answer, which for a request that is no stream is everything.
    answer: Duration,
    /// The rest of the answer, where it is a stream whose service keeps no time itself, and how it ends then.
    rest: Option<(Duration, Status)>,
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
    slot: Option<Slot>,
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
        let admitted = self.admit(method, request.headers());
        let admitted = admitted.and_then(|admitted| {
            ending.slot = self.slot(method)?;
            Ok(admitted)
        });
        // What a conversation holds is its request, which outlives an answer that nobody takes.
        if matches!(method.service(), Service::Reflection | Service::ReflectionAlpha)
            && let Some(slot) = ending.slot.take()
        {
            request.extensions_mut().insert(Arc::new(slot));
        }
        let routes = Arc::clone(&self.routes);
        Box::pin(async move {
            let (response, rest) = match admitted {
                Err(status) => (status.into_http(), None),
                Ok(Admitted { answer, rest }) => match timeout(answer, routes.call(method, request)).await {
                    Ok(response) => (response, rest),
                    Err(_) => (Status::deadline_exceeded("the deadline has passed").into_http(), None),
                },
            };
            ending.code = code_of(response.headers());
            ending.told(response.extensions());
            let stream = method.is_stream();
            if !stream {
                // It is answered. Whether the client takes the answer is no reason to refuse others.
                ending.slot = None;
            }
            Seen::Ready { stream }.tell();
            let until = rest.map(|(rest, end)| (Box::pin(sleep(rest)), end));
            Ok(response.map(|inner| Counted { inner, request: ending, until }))
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
            slot: None,
        }
    }

    /// Whether a request may be answered, and within which times.
    fn admit(&self, method: Method, headers: &HeaderMap) -> Result<Admitted, Status> {
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
        let own = config.times.request();
        let answer = asked.map_or(own, |asked| asked.min(own));
        let within = |own: Duration, what: &str| match asked {
            Some(asked) if asked <= own => (asked, Status::deadline_exceeded("the deadline of the stream has passed")),
            _ => (own, Status::cancelled(format!("{what} lasts {} s at most; ask again", own.as_secs()))),
        };
        let rest = match method.service() {
            Service::Health if method.is_stream() => Some(within(config.times.stream_idle(), "a watch")),
            Service::Reflection | Service::ReflectionAlpha => Some(within(reflection::LONGEST, "a conversation")),
            // A session keeps its own time.
            _ => None,
        };
        Ok(Admitted { answer, rest })
    }

    /// The slot of a request that is admitted. What operators ask has none: it is bounded by their connections, and answered by a
    /// server that is full.
    fn slot(&self, method: Method) -> Result<Option<Slot>, Status> {
        let (what, gauge): (_, fn(&Shared) -> &Gauge) = match (self.plane, method.service(), method.is_stream()) {
            (Plane::Admin, _, _) | (_, Service::Admin | Service::Unknown, _) => return Ok(None),
            (_, Service::Policy | Service::Inference, false) => ("requests", |shared| &shared.in_flight),
            (_, Service::Policy | Service::Inference, true) => ("sessions", |shared| &shared.sessions),
            (_, Service::Health, false) => ("questions after health", |shared| &shared.checks),
            (_, Service::Health | Service::Reflection | Service::ReflectionAlpha, _) => {
                ("streams of health and reflection", |shared| &shared.watches)
            }
        };
        self.shared.take(gauge).map(Some).ok_or_else(|| {
            let limit = gauge(&self.shared).limit();
            Status::resource_exhausted(format!("{limit} {what} are being answered; try again"))
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
        let Counted { inner, request, until } = &mut *self;
        if let Some((sleep, _)) = until
            && sleep.as_mut().poll(cx).is_ready()
            && let Some((_, end)) = until.take()
        {
            *inner = tonic::body::Body::empty();
            request.code = Some(end.code());
            let mut trailers = HeaderMap::new();
            end.add_header(&mut trailers)?;
            Seen::Ready { stream: true }.tell();
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = Pin::new(inner).poll_frame(cx);
        match &frame {
            Poll::Pending => Seen::Waiting.tell(),
            Poll::Ready(ready) => {
                Seen::Ready { stream: request.method.is_stream() }.tell();
                if let Some(Ok(frame)) = ready
                    && let Some(trailers) = frame.trailers_ref()
                {
                    request.code = code_of(trailers);
                }
            }
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
