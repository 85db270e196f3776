//! Clients that do not take what they asked for, and clients that ask for streams without end: they hold nothing for long, and
//! nothing that others want.

use std::net::SocketAddr;
use std::time::Duration;

use bellwether_inference::serve::Server;
use bellwether_inference::serve::proto::policy::admin_client::AdminClient;
use bellwether_inference::serve::proto::policy::session_request::Message;
use bellwether_inference::serve::proto::policy::{
    DecideBatchRequest, DecideRequest, End, SessionRequest, StatusRequest,
};
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::hostile::{at_rest, serves};
use crate::limits::{question, request_to};
use crate::started::{channel, start, unix_channel, until};

const DECIDE: &str = "/bellwether.policy.v1.PolicyService/Decide";
const BATCH: &str = "/bellwether.policy.v1.PolicyService/DecideBatch";
const SESSION: &str = "/bellwether.policy.v1.PolicyService/Session";
/// Longer than anything takes on a healthy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Preface, settings with this window for each stream, and as many calls of `path` with this message.
fn calls(window: u32, path: &str, count: u32, message: &[u8], ends: bool) -> Vec<u8> {
    let request = request_to(path, &[]);
    let mut bytes = request[..24].to_vec();
    bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4]);
    bytes.extend(window.to_be_bytes());
    // All streams together may have more than the protocol gives at first.
    bytes.extend([0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0]);
    for number in 0..count {
        let id = (2 * number + 1).to_be_bytes();
        let mut headers = request[33..].to_vec();
        headers[5..9].copy_from_slice(&id);
        bytes.extend(headers);
        let length = 5 + message.len() as u32;
        bytes.extend(&length.to_be_bytes()[1..]);
        bytes.extend([0, u8::from(ends)]);
        bytes.extend(id);
        bytes.push(0);
        bytes.extend((message.len() as u32).to_be_bytes());
        bytes.extend(message);
    }
    bytes
}

async fn says(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.endpoints().grpc.unwrap()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

fn ended(server: &Server, method: &str, code: &str) -> u64 {
    let counts = server.shared().requests.counts();
    counts.filter(|(found, with, _)| *found == method && *with == code).map(|(_, _, count)| count).sum()
}

#[tokio::test]
async fn answers_that_nobody_takes_hold_no_slot_and_are_given_up() {
    let server = start(|config| {
        config.limits.in_flight = 2;
        config.times.write_ms = 5_000;
    });
    let message = question().encode_to_vec();
    // Two answers wait for their client, and the third has no room to wait.
    let first = says(&server, &calls(0, DECIDE, 2, &message, true)).await;
    until("both to be answered", || server.shared().unread.now() == 2).await;
    let second = says(&server, &calls(0, DECIDE, 1, &message, true)).await;
    until("the third to be given up", || ended(&server, DECIDE, "CANCELLED") == 1).await;
    assert_eq!(server.shared().unread.refused(), 1);
    // Others are answered meanwhile.
    serves(&server).await;
    until("the others to be given up", || ended(&server, DECIDE, "CANCELLED") == 3).await;
    assert_eq!(server.shared().unread.now(), 0);
    drop((first, second));
    at_rest(&server).await;
}

#[tokio::test]
async fn a_session_whose_answers_nobody_takes_ends() {
    let server = start(|config| config.times.write_ms = 100);
    // The answer is a refusal, since no such episode is open.
    let end = SessionRequest { message: Some(Message::End(End { episode_id: "absent".to_owned() })) };
    let _stream = says(&server, &calls(0, SESSION, 3, &end.encode_to_vec(), false)).await;
    until("their end", || ended(&server, SESSION, "CANCELLED") == 3).await;
    assert_eq!(server.shared().sessions.now(), 0);
}

#[tokio::test]
async fn an_idle_connection_ends_though_its_answers_were_never_taken() {
    let server = start(|config| (config.times.write_ms, config.times.idle_ms) = (50, 200));
    let message = question().encode_to_vec();
    let mut stream = says(&server, &calls(0, DECIDE, 3, &message, true)).await;
    let ended = tokio::time::timeout(PATIENCE, answer_pings(&mut stream)).await;
    assert!(ended.expect("an idle connection is ended").is_err());
    at_rest(&server).await;
}

/// Reads what comes, and says that it is there when it is asked, until the connection ends.
async fn answer_pings(stream: &mut TcpStream) -> std::io::Result<()> {
    use tokio::io::AsyncReadExt as _;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await?;
        if head[3] == 6 && head[4] == 0 {
            head[4] = 1;
            stream.write_all(&head).await?;
            stream.write_all(&payload).await?;
        }
    }
}

/// A connection whose end here keeps little of what comes.
async fn narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test]
async fn a_client_that_reads_nothing_of_its_connection_is_let_go() {
    let server = start(|config| config.times.write_ms = 200);
    // Small questions of large answers: 256 refusals.
    let batch = DecideBatchRequest { requests: vec![DecideRequest::default(); 256] };
    let mut stream = narrow(server.endpoints().grpc.unwrap()).await;
    stream.write_all(&calls(0x7fff_0000, BATCH, 100, &batch.encode_to_vec(), true)).await.unwrap();
    let one = calls(0, BATCH, 1, &batch.encode_to_vec(), true);
    let request = &one[24 + 15 + 13..];
    // It asks and asks. The server's answers fill what the system keeps for it, and then the server lets it go.
    let asking = async {
        for number in 100_u32..1_000_000 {
            let mut next = request.to_vec();
            let id = (2 * number + 1).to_be_bytes();
            next[5..9].copy_from_slice(&id);
            let body = 9 + u32::from_be_bytes([0, next[0], next[1], next[2]]) as usize;
            next[body + 5..body + 9].copy_from_slice(&id);
            if stream.write_all(&next).await.is_err() {
                return;
            }
        }
        panic!("a reader that does not read is answered for ever");
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("a reader that does not read is let go");
    serves(&server).await;
    at_rest(&server).await;
}

#[tokio::test]
async fn a_client_of_http_that_reads_nothing_is_let_go() {
    let server = start(|config| {
        config.http = Some(([127, 0, 0, 1], 0).into());
        config.times.write_ms = 200;
    });
    let mut stream = narrow(server.endpoints().http.unwrap()).await;
    let requests = "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n".repeat(100);
    let asking = async { while stream.write_all(requests.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, asking).await.expect("a reader that does not read is let go");
    until("its end", || server.shared().http_connections.now() == 0).await;
}

async fn watcher(server: &Server) -> HealthClient<Channel> {
    HealthClient::new(channel(server).await)
}

#[tokio::test]
async fn streams_of_health_have_slots_of_their_own() {
    let server = start(|config| config.limits.probes = 2);
    let mut health = watcher(&server).await;
    let mut watches = Vec::new();
    for _ in 0..2 {
        watches.push(health.watch(HealthCheckRequest::default()).await.unwrap());
    }
    let refused = health.watch(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!((server.shared().watches.now(), server.shared().watches.refused()), (2, 1));
    // Whoever asks once is still answered.
    assert!(health.check(HealthCheckRequest::default()).await.is_ok());
    serves(&server).await;
    drop(watches);
    until("room", || server.shared().watches.now() == 0).await;
    assert!(health.watch(HealthCheckRequest::default()).await.is_ok());
}

#[tokio::test]
async fn streams_of_health_end_in_time_and_large_questions_are_refused() {
    let server = start(|config| (config.times.stream_idle_ms, config.times.request_ms) = (300, 100));
    let mut health = watcher(&server).await;
    let mut watched = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(watched.message().await.unwrap().is_some());
    assert_eq!(watched.message().await.unwrap_err().code(), Code::Cancelled);
    // A deadline of the client's, by hand, since the client would keep it itself.
    let mut request = Request::new(HealthCheckRequest::default());
    request.metadata_mut().insert("grpc-timeout", "50m".parse().unwrap());
    let _ = health.watch(request).await.map(tonic::Response::into_inner);
    until("the deadline", || ended(&server, WATCH, "DEADLINE_EXCEEDED") + ended(&server, WATCH, "CANCELLED") == 2)
        .await;
    let large = HealthCheckRequest { service: "a".repeat(2_000) };
    assert_eq!(health.check(large).await.unwrap_err().code(), Code::OutOfRange);
    // One whose question never comes.
    let before = ended(&server, WATCH, "DEADLINE_EXCEEDED");
    let _half = says(&server, &request_to(WATCH, &[])).await;
    until("its deadline", || ended(&server, WATCH, "DEADLINE_EXCEEDED") == before + 1).await;
    until("room", || server.shared().watches.now() == 0).await;
}

#[tokio::test]
async fn conversations_about_what_is_offered_keep_deadlines() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    let server = start(|config| (config.auth.open_reflection, config.limits.probes) = (true, 1));
    let mut client = ServerReflectionClient::new(channel(&server).await);
    let mut request = Request::new(tokio_stream::pending());
    request.metadata_mut().insert("grpc-timeout", "50m".parse().unwrap());
    match client.server_reflection_info(request).await {
        Ok(answers) => {
            let end = answers.into_inner().message().await.unwrap_err();
            assert_eq!(end.code(), Code::DeadlineExceeded, "{end}");
        }
        Err(status) => assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&status.code()), "{status}"),
    }
    drop(client);
    until("room", || server.shared().watches.now() == 0).await;
}

#[tokio::test]
async fn clients_do_not_shut_operators_out() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(|config| {
        config.limits.connections = 1;
        config.http = Some(([127, 0, 0, 1], 0).into());
        config.admin_unix = Some(folder.path().join("admin.sock"));
    });
    let _all = TcpStream::connect(server.endpoints().grpc.unwrap()).await.unwrap();
    until("the last connection", || server.shared().connections.now() == 1).await;
    let mut admin = AdminClient::new(unix_channel(server.endpoints().admin_unix.as_ref().unwrap()).await);
    let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.connections, 2);
    let _scraper = TcpStream::connect(server.endpoints().http.unwrap()).await.unwrap();
    until("the scraper", || server.shared().http_connections.now() == 1).await;
    assert_eq!((server.shared().admin_connections.now(), server.shared().connections.refused()), (1, 0));
}
