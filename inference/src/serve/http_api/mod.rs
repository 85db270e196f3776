//! HTTP/1.1: the Open Inference Protocol with JSON or bytes, health, and metrics.
//!
//! What is asked is answered by the service that answers gRPC; here it is only read and written in another form.

mod connection;
mod described;
mod elements;
mod few;
mod inference_json;
mod route;

pub(super) use connection::{GREETING_BYTES, speak};

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use http::header::{ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use prost::bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::Code;

use super::metrics::{CONTENT_TYPE as METRICS_TYPE, Metrics};
use super::oip::Inferences;
use super::proto::inference as oip;
use super::proto::inference::grpc_inference_service_server::GrpcInferenceService;
use super::repository;
use super::requests::RequestCounts;
use super::shared::{Shared, Slot};
use super::trace::{AnsweredBy, RequestSpan};
use described::Asked;
use inference_json::{Malformed, Question};
use route::{Route, Target};

/// Length of the JSON in a body that has bytes behind it.
pub(super) const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// What the service over HTTP can do beyond the protocol, by the names that clients look for.
const EXTENSIONS: [&str; 1] = ["binary_tensor_data"];

/// Status codes that are counted. 499 stands for requests whose clients went away, as elsewhere.
const CODES: [&str; 15] =
    ["200", "400", "401", "403", "404", "405", "408", "413", "415", "429", "499", "500", "501", "503", "504"];

/// Answers the requests of one connection.
#[derive(Clone, Debug)]
pub(super) struct Http {
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: Arc<Metrics>,
}

/// Why a request has no answer but this.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    text: String,
}

pub(super) type Answer = Response<Full<Bytes>>;

/// A request that is being answered; it ends once.
struct Ending {
    shared: Arc<Shared>,
    route: Route,
    began: Instant,
    /// 499 as long as there is no answer: whoever asked went away.
    status: u16,
    span: Option<RequestSpan>,
}

/// Counters for the requests of HTTP.
pub(super) fn counts() -> RequestCounts {
    RequestCounts::new("http", Route::ALL.map(Route::name), &CODES)
}

impl hyper::service::Service<Request<Incoming>> for Http {
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let http = self.clone();
        Box::pin(async move {
            let route = Target::of(request.uri().path()).route;
            let began = Instant::now();
            let traces = http.shared.traces.as_ref();
            let span = traces.and_then(|traces| traces.begin("http", route.name(), request.headers()));
            let mut ending = Ending { shared: Arc::clone(&http.shared), route, began, status: 499, span };
            let answer = http.answer(request).await.unwrap_or_else(|refused| refused.into_answer(route));
            ending.status = answer.status().as_u16();
            if let (Some(span), Some(AnsweredBy(version))) = (&mut ending.span, answer.extensions().get()) {
                span.answered_by(version);
            }
            Ok(answer)
        })
    }
}

impl Http {
    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Refused> {
        let (head, body) = request.into_parts();
        let Target { route, model, version } = Target::of(head.uri.path());
        self.admit(route, &head.headers)?;
        if route == Route::Unknown {
            return Err(Refused::new(
                StatusCode::NOT_FOUND,
                "there is nothing at this path; the manual lists those that there are",
            ));
        }
        if head.method != route.method() {
            let text = format!("{} is asked for with {}", route.name(), route.method());
            return Err(Refused { status: StatusCode::METHOD_NOT_ALLOWED, text });
        }
        let service = Inferences { shared: Arc::clone(&self.shared) };
        let (name, version) = (model.to_owned(), version.to_owned());
        match route {
            Route::Live => {
                let live = service.server_live(tonic::Request::new(oip::ServerLiveRequest {})).await?.into_inner().live;
                Ok(said(live, &json!({"live": live})))
            }
            Route::Ready => {
                let ready = service.server_ready(tonic::Request::new(oip::ServerReadyRequest {})).await?;
                let ready = ready.into_inner().ready;
                Ok(said(ready, &json!({"ready": ready})))
            }
            Route::ModelReady => {
                let asked = oip::ModelReadyRequest { name: name.clone(), version };
                let ready = service.model_ready(tonic::Request::new(asked)).await?.into_inner().ready;
                Ok(said(ready, &json!({"name": name, "ready": ready})))
            }
            Route::Server => {
                let server = service.server_metadata(tonic::Request::new(oip::ServerMetadataRequest {})).await?;
                let oip::ServerMetadataResponse { name, version, mut extensions } = server.into_inner();
                extensions.extend(EXTENSIONS.map(str::to_owned));
                Ok(said(true, &json!({"name": name, "version": version, "extensions": extensions})))
            }
            Route::Model => {
                let asked = oip::ModelMetadataRequest { name, version };
                let model = service.model_metadata(tonic::Request::new(asked)).await?.into_inner();
                Ok(said(true, &described::metadata(&model)))
            }
            Route::Infer => self.infer(&service, name, version, &head.headers, body).await,
            Route::Config => {
                let asked = oip::ModelConfigRequest { name, version };
                let config = service.model_config(tonic::Request::new(asked)).await?.into_inner().config;
                Ok(said(true, &described::config(&config.unwrap_or_default())))
            }
            Route::Stats => {
                let asked = oip::ModelStatisticsRequest { name, version };
                let told = service.model_statistics(tonic::Request::new(asked)).await?.into_inner();
                Ok(said(true, &described::statistics(&told)))
            }
            Route::Index => {
                let _slot = self.slot()?;
                let body = self.body(body).await?;
                let Asked { ready } = Asked::read(&body)?;
                let asked = oip::RepositoryIndexRequest { repository_name: String::new(), ready };
                let index = service.repository_index(tonic::Request::new(asked)).await?.into_inner();
                Ok(said(true, &described::index(&index)))
            }
            Route::Change => Err(repository::changed_elsewhere().into()),
            Route::Metrics => Ok(with_type(Full::from(self.metrics.render()), METRICS_TYPE)),
            Route::Unknown => Err(Refused::new(
                StatusCode::NOT_FOUND,
                "there is nothing at this path; the manual lists those that there are",
            )),
        }
    }

    /// Refuses whoever may not ask.
    fn admit(&self, route: Route, headers: &HeaderMap) -> Result<(), Refused> {
        let Shared { config, secrets, .. } = &*self.shared;
        let open = match route {
            Route::Live | Route::Ready | Route::ModelReady => config.auth.open_health,
            Route::Metrics => config.auth.open_metrics,
            _ => false,
        };
        let borne = secrets.data.as_ref().is_none_or(|token| token.is_borne_by(headers.get(AUTHORIZATION)));
        if open || borne {
            return Ok(());
        }
        let text = "a bearer token is wanted: send it as `Authorization: Bearer ...`";
        Err(Refused::new(StatusCode::UNAUTHORIZED, text))
    }

    async fn infer(
        &self,
        service: &Inferences,
        name: String,
        version: String,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Answer, Refused> {
        // Before the body is read: what is read takes memory.
        let _slot = self.slot()?;
        if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            let text = "compressed bodies are not read; send it as it is";
            return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
        let json_length = json_length(headers)?;
        let body = self.body(body).await?;
        ask(service, name, version, json_length, &body).await
    }

    fn slot(&self) -> Result<Slot, Refused> {
        self.shared.take(|shared| &shared.in_flight).ok_or_else(|| {
            let limit = self.shared.config.limits.in_flight;
            Refused {
                status: StatusCode::TOO_MANY_REQUESTS,
                text: format!("{limit} requests are being answered; try again"),
            }
        })
    }

    /// A body that comes in time and is not too large.
    async fn body(&self, body: Incoming) -> Result<Bytes, Refused> {
        timeout(self.shared.config.times.request(), self.read(body))
            .await
            .map_err(|_| Refused::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time; ask again"))?
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, Refused> {
        let limit = self.shared.config.limits.message_bytes;
        let too_large = || Refused {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            text: format!("a body has at most {limit} bytes here; send smaller batches"),
        };
        // What is announced need not be read to be refused.
        if body.size_hint().lower() > limit as u64 {
            return Err(too_large());
        }
        match Limited::new(body, limit).collect().await {
            Ok(read) => Ok(read.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
            Err(error) => Err(Refused {
                status: StatusCode::BAD_REQUEST,
                text: format!("the body was cut off: {error}; send it whole"),
            }),
        }
    }
}

/// Asks what a body asks, and writes the answer in the form that it wants.
async fn ask(
    service: &Inferences,
    name: String,
    version: String,
    json_length: Option<usize>,
    body: &Bytes,
) -> Result<Answer, Refused> {
    let Shared { policy, config, .. } = &*service.shared;
    let most = config.limits.batch.saturating_mul(policy.width().max(policy.actions().len()));
    let mut question = Question::read(body, json_length, most)?;
    let message = std::mem::take(&mut question.message);
    let message = oip::ModelInferRequest { model_name: name, model_version: version, ..message };
    let mut answer = service.model_infer(tonic::Request::new(message)).await?;
    let answered_by = answer.extensions_mut().remove::<AnsweredBy>();
    let answer = answer.into_inner();
    let body = question
        .write(&answer)
        .map_err(|error| Refused { status: StatusCode::INTERNAL_SERVER_ERROR, text: error.to_string() })?;
    let media = if body.json_length.is_some() { "application/octet-stream" } else { "application/json" };
    let mut answer = with_type(Full::from(body.bytes), media);
    if let Some(answered_by) = answered_by {
        answer.extensions_mut().insert(answered_by);
    }
    if let Some(length) = body.json_length {
        answer.headers_mut().insert(JSON_LENGTH, HeaderValue::from(length));
    }
    Ok(answer)
}

/// What the body of an inference is answered, without a connection.
pub(super) async fn answer_body(shared: &Arc<Shared>, json_length: Option<usize>, body: &Bytes) -> Answer {
    let service = Inferences { shared: Arc::clone(shared) };
    let answer = ask(&service, shared.model_name.clone(), String::new(), json_length, body).await;
    answer.unwrap_or_else(|refused| refused.into_answer(Route::Infer))
}

fn json_length(headers: &HeaderMap) -> Result<Option<usize>, Refused> {
    let Some(value) = headers.get(JSON_LENGTH) else { return Ok(None) };
    match value.to_str().ok().and_then(|text| text.parse().ok()) {
        Some(length) => Ok(Some(length)),
        None => {
            let text = "Inference-Header-Content-Length is no number of bytes; give the length of the JSON";
            Err(Refused::new(StatusCode::BAD_REQUEST, text))
        }
    }
}

/// JSON, and whether it is good news.
fn said(good: bool, value: &Value) -> Answer {
    let mut answer = with_type(Full::from(value.to_string()), "application/json");
    if !good {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    answer
}

fn with_type(body: Full<Bytes>, media: &'static str) -> Answer {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    answer
}

impl Refused {
    fn new(status: StatusCode, text: &str) -> Self {
        Refused { status, text: text.to_owned() }
    }

    fn into_answer(self, route: Route) -> Answer {
        let mut answer = said(true, &json!({"error": self.text}));
        *answer.status_mut() = self.status;
        if self.status == StatusCode::METHOD_NOT_ALLOWED
            && let Ok(method) = HeaderValue::from_str(route.method().as_str())
        {
            answer.headers_mut().insert(ALLOW, method);
        }
        answer
    }
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Self {
        Refused { status: StatusCode::BAD_REQUEST, text: malformed.to_string() }
    }
}

impl From<tonic::Status> for Refused {
    fn from(status: tonic::Status) -> Self {
        let code = match status.code() {
            Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => StatusCode::BAD_REQUEST,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refused { status: code, text: status.message().to_owned() }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let code = CODES.iter().position(|code| code.parse() == Ok(self.status)).unwrap_or(usize::MAX);
        if let Some(span) = self.span.take() {
            span.end(CODES.get(code).copied().unwrap_or_default(), self.status >= 500);
        }
        self.shared.http_requests.ended(self.route as usize, code, Some(self.began.elapsed()));
    }
}
