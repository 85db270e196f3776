//! Clients that mean no good, and one that means well and notices nothing of them.

use std::time::Duration;

use bellwether_inference::serve::Server;
use bellwether_inference::serve::proto::policy::policy_service_client::PolicyServiceClient;
use bellwether_inference::serve::proto::policy::session_request::Message;
use bellwether_inference::serve::proto::policy::{DecideRequest, Events, ReadyState, SessionRequest};
use bellwether_inference::serve::proto::telemetry;
use proptest::prelude::*;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::limits::question;
use crate::session::{Stream, opened};
use crate::started::{WIDTH, client, start, until};

/// A client that means well, and is answered.
pub(crate) async fn serves(server: &Server) {
    assert!(client(server).await.decide(question()).await.is_ok());
}

/// Nothing is held for anybody.
pub(crate) async fn at_rest(server: &Server) {
    let shared = server.shared();
    let gauges = [&shared.connections, &shared.in_flight, &shared.sessions, &shared.episodes, &shared.unread];
    until("rest", || gauges.iter().all(|gauge| gauge.now() == 0)).await;
}

#[tokio::test]
async fn messages_that_are_too_large_are_refused_before_they_are_read() {
    let server = start(|config| config.limits.message_bytes = 10_000);
    let mut client = client(&server).await;
    let large = DecideRequest { state: vec![0.5; 2_501], ..DecideRequest::default() };
    assert_eq!(client.decide(large).await.unwrap_err().code(), Code::OutOfRange);
    // One that only says that it is large.
    let mut stream = TcpStream::connect(server.endpoints().grpc.unwrap()).await.unwrap();
    stream.write_all(&call(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3])).await.unwrap();
    until("the refusal", || {
        server.shared().requests.counts().any(|(_, code, count)| code == "OUT_OF_RANGE" && count == 2)
    })
    .await;
    assert!(client.decide(question()).await.is_ok());
}

/// A whole call of `Decide` with this body.
fn call(body: &[u8]) -> Vec<u8> {
    let mut bytes = crate::limits::half_a_request();
    bytes.extend([0, 0, body.len() as u8, 0, 1, 0, 0, 0, 1]);
    bytes.extend(body);
    bytes
}

#[tokio::test]
async fn bodies_that_are_no_messages_are_refused() {
    let server = start(|_| ());
    // No protobuf, a frame that is cut short, a compression that was not agreed on, no frame, nothing.
    let bodies: [&[u8]; 5] =
        [&[0, 0, 0, 0, 3, 0xff, 0xff, 0xff], &[0, 0, 0, 0, 9, 1], &[1, 0, 0, 0, 1, 0], &[7, 7], &[]];
    for body in bodies {
        let before = refused(&server);
        let mut stream = TcpStream::connect(server.endpoints().grpc.unwrap()).await.unwrap();
        stream.write_all(&call(body)).await.unwrap();
        until("the refusal", || refused(&server) > before).await;
        serves(&server).await;
    }
    at_rest(&server).await;
}

/// Requests that ended otherwise than well.
fn refused(server: &Server) -> u64 {
    server.shared().requests.counts().filter(|(_, code, _)| *code != "OK").map(|(_, _, count)| count).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_leave_the_server_as_it_was(bytes in proptest::collection::vec(any::<u8>(), 0..600), greets: u8) {
        use std::io::{Read as _, Write as _};
        use std::sync::LazyLock;
        static SERVER: LazyLock<Server> = LazyLock::new(|| start(|config| config.times.handshake_ms = 100));
        let mut stream = std::net::TcpStream::connect(SERVER.endpoints().grpc.unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        if greets % 4 > 0 {
            stream.write_all(&crate::limits::half_a_request()[..if greets % 4 > 1 { 33 } else { 24 }]).unwrap();
        }
        let _ = stream.write_all(&bytes);
        let _ = stream.read(&mut [0; 1_024]);
        drop(stream);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(serves(&SERVER));
        prop_assert!(SERVER.shared().connections.now() < 200);
    }
}

#[tokio::test]
async fn thousands_of_idle_connections_take_nothing_from_the_others() {
    const IDLE: usize = 1_200;
    raise_file_limit();
    let server = start(|config| config.times.handshake_ms = 60_000);
    let address = server.endpoints().grpc.unwrap();
    let greeting = &crate::limits::half_a_request()[..33];
    let mut idle = Vec::new();
    for index in 0..IDLE {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Half of them greet, half of them do not even that.
        if index % 2 == 0 {
            stream.write_all(greeting).await.unwrap();
        }
        idle.push(stream);
    }
    until("all of them", || server.shared().connections.now() == IDLE).await;
    for _ in 0..50 {
        serves(&server).await;
    }
    drop(idle);
    at_rest(&server).await;
}

/// This process holds both ends of every connection.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    assert!(limit.current.is_none_or(|files| files >= 4_096), "this test opens 2,400 files");
}

#[tokio::test]
async fn a_slow_reader_holds_one_message_and_blocks_nobody() {
    let server = start(|config| config.limits.message_bytes = 1 << 20);
    // Its own end keeps little for it, so that the server's end soon has to.
    let address = server.endpoints().grpc.unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut slow = PolicyServiceClient::new(endpoint.initial_stream_window_size(65_535).connect().await.unwrap());
    let (requests, waiting) = mpsc::channel(1);
    let replies = slow.session(ReceiverStream::new(waiting)).await.unwrap();
    requests.send(SessionRequest { message: Some(Message::Open(opened("a"))) }).await.unwrap();
    let state = ReadyState { episode_id: "a".to_owned(), state: vec![0.5; WIDTH], ..ReadyState::default() };
    // Answers are never read, so at some point no more questions are taken.
    let mut taken = 0_usize;
    loop {
        let request = SessionRequest { message: Some(Message::State(state.clone())) };
        match tokio::time::timeout(Duration::from_millis(300), requests.send(request)).await {
            Ok(sent) => sent.unwrap(),
            Err(_) => break,
        }
        taken += 1;
        assert!(taken < 20_000, "a reader that does not read is held back");
    }
    serves(&server).await;
    // It is not forgotten either: whoever reads again gets every answer in order.
    let mut replies = replies.into_inner();
    for window in 0..taken.min(1_000) {
        match replies.message().await.unwrap().unwrap().message.unwrap() {
            bellwether_inference::serve::proto::policy::session_response::Message::Decision(decision) => {
                assert_eq!(decision.window as usize, window);
            }
            other => panic!("{other:?}"),
        }
    }
    drop((replies, requests, slow));
    at_rest(&server).await;
}

#[tokio::test]
async fn a_client_that_dies_in_mid_stream_leaves_nothing_behind() {
    let server = start(|_| ());
    for _ in 0..20 {
        let stream = Stream::open(&server).await;
        stream.send(Message::Open(opened("a"))).await;
        stream.send(Message::Open(opened("b"))).await;
        until("both episodes", || server.shared().episodes.now() == 2).await;
        drop(stream);
        until("their end", || server.shared().episodes.now() == 0).await;
        serves(&server).await;
    }
    at_rest(&server).await;
}

#[tokio::test]
async fn a_message_of_very_many_events_does_not_hold_up_the_others() {
    let server = crate::started::start_shipped(|config| {
        (config.limits.message_bytes, config.limits.events_per_message) = (1 << 24, 400_000);
    });
    let stream = Stream::open(&server).await;
    stream.send(Message::Open(opened("a"))).await;
    let event = |seq| telemetry::Event {
        stage: 1,
        seq,
        kind: telemetry::EventKind::File.into(),
        name: "openat".to_owned(),
        ..telemetry::Event::default()
    };
    let events = Events { episode_id: "a".to_owned(), events: (0..400_000).map(event).collect() };
    stream.send(Message::Events(events)).await;
    let state = vec![0.5; bellwether_env_adapter::spec::WIDTH];
    for _ in 0..20 {
        let question = DecideRequest { state: state.clone(), ..DecideRequest::default() };
        assert!(client(&server).await.decide(question).await.is_ok());
    }
    drop(stream);
    at_rest(&server).await;
}

#[tokio::test]
async fn streams_that_are_reset_at_once_and_headers_without_end_are_cut_off() {
    let server = start(|_| ());
    // Opens and resets streams as fast as it can.
    let mut stream = TcpStream::connect(server.endpoints().grpc.unwrap()).await.unwrap();
    let request = crate::limits::half_a_request();
    stream.write_all(&request[..33]).await.unwrap();
    for number in 0..5_000_u32 {
        let mut frame = request[33..].to_vec();
        frame[5..9].copy_from_slice(&(2 * number + 1).to_be_bytes());
        frame.extend([0, 0, 4, 3, 0]);
        frame.extend((2 * number + 1).to_be_bytes());
        frame.extend(8_u32.to_be_bytes());
        if stream.write_all(&frame).await.is_err() {
            break;
        }
    }
    let mut said = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut said)).await.unwrap();
    serves(&server).await;
    // Headers that never end.
    let mut stream = TcpStream::connect(server.endpoints().grpc.unwrap()).await.unwrap();
    let mut headers = request.clone();
    headers[33 + 4] = 0;
    stream.write_all(&headers).await.unwrap();
    let mut more = vec![0, 0x40, 0, 9, 0, 0, 0, 0, 1];
    more.extend([0x00, 0x01, b'a', 0x7f, 0x80, 0x7f].iter().cycle().take(0x4000));
    for _ in 0..200 {
        if stream.write_all(&more).await.is_err() {
            break;
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut said)).await.unwrap();
    serves(&server).await;
    at_rest(&server).await;
}

/// A message of a million bytes in which this key is followed by nothing, again and again.
fn of_nothing(key: u8) -> Vec<u8> {
    [key, 0].repeat(1 << 19)
}

/// Asks for what takes hundreds of times the bytes of the question to hold, without an end, and dies.
async fn attack(server: &Server) {
    let address = server.endpoints().grpc.unwrap();
    let frame = |content: &[u8]| [&[0], &(content.len() as u32).to_be_bytes()[..], content].concat();
    let state = SessionRequest {
        message: Some(Message::Events(Events {
            episode_id: "a".to_owned(),
            events: vec![telemetry::Event::default(); 80_000],
        })),
    };
    let messages = [
        ("/bellwether.policy.v1.PolicyService/DecideBatch", of_nothing(0x0a)),
        ("/inference.GRPCInferenceService/ModelInfer", of_nothing(0x2a)),
        ("/inference.GRPCInferenceService/ModelInfer", of_nothing(0x22)),
        ("/inference.GRPCInferenceService/ModelInfer", of_nothing(0x32)),
        ("/inference.GRPCInferenceService/ModelInfer", of_nothing(0x3a)),
        ("/bellwether.policy.v1.PolicyService/Session", state.encode_to_vec()),
    ];
    for (path, message) in &messages {
        let channel = crate::started::channel(server).await;
        let body = tonic::body::Body::new(http_body_util::Full::new(prost::bytes::Bytes::from(frame(message))));
        let request = http::Request::post(format!("http://{address}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .unwrap();
        let mut channel = channel;
        std::future::poll_fn(|cx| tonic::codegen::Service::poll_ready(&mut channel, cx)).await.unwrap();
        let response = tonic::codegen::Service::call(&mut channel, request).await.unwrap();
        let (head, body) = response.into_parts();
        let trailers = http_body_util::BodyExt::collect(body).await.unwrap().trailers().cloned();
        let code = head.headers.get("grpc-status").or(trailers.as_ref().and_then(|told| told.get("grpc-status")));
        assert_eq!(code.and_then(|code| code.to_str().ok()), Some("3"), "{path}");
    }
    attack_with_json(server).await;
    // One that goes on asking and takes nothing.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut call = crate::limits::half_a_request();
    call.splice(24..33, [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
    let content = frame(&question().encode_to_vec());
    call.extend([0, 0, content.len() as u8, 0, 1, 0, 0, 0, 1]);
    call.extend(content);
    stream.write_all(&call).await.unwrap();
    serves(server).await;
}

/// The same over HTTP: what JSON asks for tens of times its length to hold.
async fn attack_with_json(server: &Server) {
    let many = |before: &str, each: &str, after: &str| {
        let repeated = vec![each; 1_000_000 / (each.len() + 1)].join(",");
        format!("{before}{repeated}{after}")
    };
    let tensor = r#"{"name": "state", "datatype": "FP32", "shape": [1, 12]"#;
    for (body, refused) in [
        (many(r#"{"inputs": ["#, r#"{"name":"","datatype":"","shape":[]}"#, "]}"), "a list of more than 16"),
        (many(r#"{"inputs": [], "outputs": ["#, r#"{"name":""}"#, "]}"), "a list of more than 16"),
        (many(&format!(r#"{{"inputs": [{tensor}, "shape": ["#), "1", "]}]}"), "duplicate field `shape`"),
        (many(r#"{"inputs": [{"name": "state", "datatype": "FP32", "shape": ["#, "1", "]}]}"), "a list of more than 8"),
        (many(r#"{"inputs": [], "parameters": {"a": ["#, "[]", "]}}"), "parameter a is a list"),
        (
            many(&format!(r#"{{"inputs": [{tensor}, "data": ["#), "0", "]}]}"),
            "element 12: more than the 12 of the shape",
        ),
    ] {
        let mut stream = TcpStream::connect(server.endpoints().http.unwrap()).await.unwrap();
        let head = format!(
            "POST /v2/models/policy/infer HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}",
            body.len()
        );
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(refused), "{refused}: {answer}");
    }
}

/// A line of what the system says of this process, in MiB.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let found = status.lines().find_map(|found| found.strip_prefix(line)).unwrap();
    found.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() >> 10
}

#[tokio::test]
async fn attacks_take_no_memory_that_grows() {
    let server = start(|config| {
        config.times.write_ms = 50;
        config.http = Some(([127, 0, 0, 1], 0).into());
    });
    attack(&server).await;
    at_rest(&server).await;
    let (first, before) = (memory("VmHWM:"), memory("VmRSS:"));
    for _ in 0..15 {
        attack(&server).await;
    }
    at_rest(&server).await;
    let (most, after) = (memory("VmHWM:"), memory("VmRSS:"));
    // The client's own messages are in it, of 2 MiB each; decoding them all would take 190 MiB for one alone.
    assert!(first < 160, "one attack took {first} MiB");
    assert!(most < first + 48 && after < before + 48, "{first}, then {most} MiB at most; {before}, then {after} MiB");
}
