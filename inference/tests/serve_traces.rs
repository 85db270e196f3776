//! Spans of requests, as a collector receives them.
#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod manifests;
mod nets;
#[path = "serve/started.rs"]
#[allow(dead_code, reason = "the tests of the server use all of it")]
mod started;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use bellwether_inference::serve::proto::policy::DecideRequest;
use bellwether_inference::serve::{Server, TraceConfig};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use started::{WIDTH, client, start};
use tokio::net::TcpListener;
use tonic::codegen::tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Keeps the spans that it is sent.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        let spans = resources.into_iter().flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        self.spans.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn listen() -> (Collector, SocketAddr) {
        let collector = Collector::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(collector.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }
}

fn traced(collector: SocketAddr, ratio: f64) -> Server {
    start(|config| {
        config.http = Some(([127, 0, 0, 1], 0).into());
        config.traces = Some(TraceConfig { ratio, ..TraceConfig::new(&format!("http://{collector}")) });
    })
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.clone()?.value? {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    })
}

fn asked(value: f32, traceparent: Option<&str>) -> Request<DecideRequest> {
    let mut request = Request::new(DecideRequest { state: vec![value; WIDTH], ..DecideRequest::default() });
    if let Some(parent) = traceparent {
        request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    }
    request
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Ends a server, which sends what waits, while the collector goes on.
async fn end(server: Server) {
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_gives_one_span_within_the_trace_of_its_client() {
    let (collector, address) = Collector::listen().await;
    let server = traced(address, 1.0);
    let version = server.shared().policy.status().champion.version.to_string();
    let mut client = client(&server).await;
    client.decide(asked(0.5, Some(&format!("00-{TRACE}-{PARENT}-01")))).await.unwrap();
    assert!(client.decide(asked(f32::NAN, None)).await.is_err());
    let body = serde_json::json!({"inputs": [{"name": "state", "datatype": "FP32", "shape": [1, WIDTH], "data": vec![0.5; WIDTH]}]});
    let body = body.to_string();
    let head = format!(
        "POST /v2/models/policy/infer HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\ntraceparent: \
         00-{TRACE}-{PARENT}-01\r\n\r\n",
        body.len()
    );
    let http = server.endpoints().http.unwrap();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(http).unwrap();
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(answer.await.unwrap().starts_with("HTTP/1.1 200"));
    drop(client);
    end(server).await;
    let mut spans = collector.spans();
    spans.sort_by_key(|span| span.start_time_unix_nano);
    let [decided, refused, inferred] = spans.as_slice() else { panic!("{spans:?}") };
    let method = "/bellwether.policy.v1.PolicyService/Decide";
    assert_eq!(
        (decided.name.as_str(), hex(&decided.trace_id), hex(&decided.parent_span_id)),
        (method, TRACE.into(), PARENT.into())
    );
    assert_eq!(attribute(decided, "rpc.system").as_deref(), Some("grpc"));
    assert_eq!(attribute(decided, "rpc.response.status_code").as_deref(), Some("OK"));
    assert_eq!(attribute(decided, "bellwether.model_version"), Some(version.clone()));
    assert!(decided.end_time_unix_nano >= decided.start_time_unix_nano);
    assert_eq!((refused.name.as_str(), refused.parent_span_id.as_slice()), (method, [].as_slice()));
    assert_eq!(attribute(refused, "rpc.response.status_code").as_deref(), Some("INVALID_ARGUMENT"));
    assert_eq!(attribute(refused, "bellwether.model_version"), None);
    assert_eq!((inferred.name.as_str(), hex(&inferred.trace_id)), ("/v2/models/:model/infer", TRACE.into()));
    assert_eq!(attribute(inferred, "http.response.status_code").as_deref(), Some("200"));
    assert_eq!(attribute(inferred, "bellwether.model_version"), Some(version));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_sampled_is_not_sent() {
    let (collector, address) = Collector::listen().await;
    let server = traced(address, 0.0);
    let mut client = client(&server).await;
    for _ in 0..20 {
        client.decide(asked(0.5, None)).await.unwrap();
    }
    client.decide(asked(0.5, Some(&format!("00-{TRACE}-{PARENT}-00")))).await.unwrap();
    client.decide(asked(0.5, Some("nonsense"))).await.unwrap();
    client.decide(asked(0.5, Some(&format!("00-{TRACE}-{PARENT}-01")))).await.unwrap();
    drop(client);
    end(server).await;
    let spans = collector.spans();
    assert_eq!(spans.iter().map(|span| hex(&span.trace_id)).collect::<Vec<_>>(), [TRACE]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_not_there_holds_nothing_up() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let server = traced(address, 1.0);
    let mut client = client(&server).await;
    for _ in 0..20 {
        client.decide(asked(0.5, None)).await.unwrap();
    }
    drop(client);
    end(server).await;
}
