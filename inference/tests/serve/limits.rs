//! What is bounded: requests at a time, time for each, connections, silence.

use std::time::Duration;

use bellwether_inference::serve::proto::policy::policy_service_client::PolicyServiceClient;
use bellwether_inference::serve::proto::policy::{DecideRequest, SessionRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

use crate::started::{WIDTH, channel, client, start, until};

pub(crate) fn question() -> DecideRequest {
    DecideRequest { state: vec![0.5; WIDTH], ..DecideRequest::default() }
}

#[tokio::test]
async fn one_request_too_many_is_refused_at_once_and_room_comes_back() {
    let server = start(|config| (config.limits.in_flight, config.limits.sessions) = (1, 2));
    let mut client = client(&server).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let (requests, waiting) = mpsc::channel::<SessionRequest>(1);
        let replies = client.session(ReceiverStream::new(waiting)).await.unwrap();
        held.push((requests, replies));
    }
    let (_requests, waiting) = mpsc::channel::<SessionRequest>(1);
    let status = client.session(ReceiverStream::new(waiting)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!((server.shared().sessions.now(), server.shared().sessions.refused()), (2, 1));
    // Sessions that are quiet take nothing from other requests.
    assert!(client.decide(question()).await.is_ok());
    let mut slow = TcpStream::connect(server.endpoints().grpc.unwrap()).await.unwrap();
    slow.write_all(&half_a_request()).await.unwrap();
    until("the slow request", || server.shared().in_flight.now() == 1).await;
    let status = client.decide(question()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!((server.shared().in_flight.now(), server.shared().in_flight.refused()), (1, 1));
    // Operators still see a server that is full.
    assert!(crate::admin::health(&server, "").await.is_ok());
    drop(slow);
    until("room", || server.shared().in_flight.now() == 0).await;
    assert!(client.decide(question()).await.is_ok());
    drop(held.pop());
    until("room for a session", || server.shared().sessions.now() == 1).await;
    let (_requests, waiting) = mpsc::channel::<SessionRequest>(1);
    assert!(client.session(ReceiverStream::new(waiting)).await.is_ok());
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_said_and_one_that_is_none_is_refused() {
    let server = start(|_| ());
    let address = server.endpoints().grpc.unwrap();
    // By hand, since a client that knows of its deadline would not wait for the answer.
    for (value, code) in [("0n", "DEADLINE_EXCEEDED"), ("soon", "INVALID_ARGUMENT")] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&request_with(&[("grpc-timeout", value)])).await.unwrap();
        until(code, || server.shared().requests.counts().any(|(_, found, _)| found == code)).await;
    }
    let mut client = client(&server).await;
    let mut request = Request::new(question());
    request.metadata_mut().insert("grpc-timeout", "5S".parse().unwrap());
    assert!(client.decide(request).await.is_ok());
    let decided: u64 = server.shared().policy.metrics().models.iter().map(|(_, tally)| tally.total()).sum();
    assert_eq!(decided, 1);
}

/// The start of a call of `Decide` that never ends: preface, settings, headers, and no message.
pub(crate) fn half_a_request() -> Vec<u8> {
    request_with(&[])
}

fn request_with(more: &[(&str, &str)]) -> Vec<u8> {
    request_to("/bellwether.policy.v1.PolicyService/Decide", more)
}

/// The same of another call, with more headers.
pub(crate) fn request_to(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let mut block = vec![0x83, 0x86];
    let headers =
        [(":path", path), (":authority", "localhost"), ("content-type", "application/grpc"), ("te", "trailers")];
    for (name, value) in headers.iter().chain(more) {
        block.push(0);
        block.push(name.len() as u8);
        block.extend(name.bytes());
        block.push(value.len() as u8);
        block.extend(value.bytes());
    }
    bytes.extend([0, 0, block.len() as u8, 1, 4, 0, 0, 0, 1]);
    bytes.extend(block);
    bytes
}

#[tokio::test]
async fn a_request_that_never_ends_is_ended() {
    let server = start(|config| config.times.request_ms = 50);
    let mut stream = TcpStream::connect(server.endpoints().grpc.unwrap()).await.unwrap();
    stream.write_all(&half_a_request()).await.unwrap();
    until("the deadline", || server.shared().requests.counts().any(|(_, code, _)| code == "DEADLINE_EXCEEDED")).await;
    until("its end", || server.shared().in_flight.now() == 0).await;
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_the_others_stay() {
    let server = start(|config| config.limits.connections = 3);
    let mut client = client(&server).await;
    let address = server.endpoints().grpc.unwrap();
    let mut idle = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    until("three connections", || server.shared().connections.now() == 3).await;
    let mut fourth = TcpStream::connect(address).await.unwrap();
    assert_eq!(fourth.read(&mut [0; 64]).await.unwrap_or(0), 0);
    assert_eq!(server.shared().connections.refused(), 1);
    assert!(client.decide(question()).await.is_ok());
    idle[0].shutdown().await.unwrap();
    until("room", || server.shared().connections.now() == 2).await;
    let _third = TcpStream::connect(address).await.unwrap();
    until("a connection in its place", || server.shared().connections.now() == 3).await;
}

#[tokio::test]
async fn whoever_says_nothing_is_not_waited_for() {
    let server = start(|config| config.times.handshake_ms = 50);
    let address = server.endpoints().grpc.unwrap();
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut begun = TcpStream::connect(address).await.unwrap();
    begun.write_all(b"PRI * HTTP/2.0").await.unwrap();
    for stream in [&mut silent, &mut begun] {
        // Whatever the server still says, it closes.
        let mut said = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut said)).await.unwrap();
    }
    until("their end", || server.shared().connections.now() == 0).await;
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go_and_a_busy_one_is_not() {
    let server = start(|config| config.times.idle_ms = 100);
    let mut busy = PolicyServiceClient::new(channel(&server).await);
    let (requests, waiting) = mpsc::channel::<SessionRequest>(1);
    let _replies = busy.session(ReceiverStream::new(waiting)).await.unwrap();
    let mut idle = client(&server).await;
    assert!(idle.decide(question()).await.is_ok());
    until("the idle one's end", || server.shared().connections.now() == 1).await;
    assert_eq!(server.shared().sessions.now(), 1);
    // A client finds its way back by itself.
    assert!(idle.decide(question()).await.is_ok());
    drop(requests);
}

#[tokio::test]
async fn a_peer_that_is_gone_without_a_word_is_noticed() {
    let server = start(|config| {
        config.times.keepalive_ms = 50;
        config.times.keepalive_timeout_ms = 50;
    });
    let mut stream = TcpStream::connect(server.endpoints().grpc.unwrap()).await.unwrap();
    // It greets, and then answers nothing any more, as a machine without power would.
    stream.write_all(&half_a_request()[..24 + 9]).await.unwrap();
    until("it to be noticed", || server.shared().connections.now() == 0).await;
}
