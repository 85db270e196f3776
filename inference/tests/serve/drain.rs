//! The end of a server: what has begun is ended, nothing new begins, and whoever stays is let go in time.

use std::time::Duration;

use bellwether_inference::serve::proto::policy::session_request::Message;
use bellwether_inference::serve::proto::policy::session_response::Message as Reply;
use bellwether_inference::serve::proto::policy::{End, ReadyState};
use bellwether_inference::serve::{Left, Phase, Server};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::limits::question;
use crate::session::{Stream, opened};
use crate::started::{WIDTH, channel, client, start, unix_channel, until};

fn drain(server: Server) -> JoinHandle<(Left, Vec<Left>)> {
    spawn_blocking(move || {
        let mut told = Vec::new();
        let left = server.drain(|left| told.push(left));
        (left, told)
    })
}

#[tokio::test]
async fn a_server_without_work_ends_at_once_and_gives_up_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serve.sock");
    let server = start(|config| config.unix = Some(path.clone()));
    let address = server.endpoints().grpc.unwrap();
    // Connections without requests are no work.
    let _idle = (channel(&server).await, unix_channel(&path).await);
    let (left, told) = drain(server).await.unwrap();
    assert_eq!(left, Left { in_flight: 0, connections: 0 });
    assert_eq!(told[0].in_flight, 0);
    assert!(!path.exists());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn what_has_begun_is_ended_and_nothing_new_begins() {
    let server = start(|config| config.times.drain_ms = 60_000);
    let shared = server.shared().clone();
    let address = server.endpoints().grpc.unwrap();
    let mut health = HealthClient::new(channel(&server).await);
    let watched = HealthCheckRequest { service: "bellwether.policy.v1.PolicyService".to_owned() };
    let mut watched = health.watch(watched).await.unwrap().into_inner();
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let mut stream = Stream::open(&server).await;
    stream.send(Message::Open(opened("a"))).await;
    until("the episode", || shared.episodes.now() == 1).await;

    let drained = drain(server);
    until("the drain", || shared.phase() == Phase::Draining).await;
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watched.next().await.is_none());
    until("the listener's end", || std::net::TcpStream::connect(address).is_err()).await;

    // The episode goes on to its end, and no other begins.
    stream.send(Message::Open(opened("b"))).await;
    let Some(Reply::Refusal(refusal)) = stream.next().await.unwrap() else { panic!("it was opened") };
    assert_eq!(refusal.code, Code::Unavailable as u32);
    let state = ReadyState { episode_id: "a".to_owned(), state: vec![0.5; WIDTH], ..ReadyState::default() };
    stream.send(Message::State(state)).await;
    assert!(matches!(stream.next().await.unwrap(), Some(Reply::Decision(_))));
    assert!(!drained.is_finished());
    stream.send(Message::End(End { episode_id: "a".to_owned() })).await;
    assert!(matches!(stream.next().await.unwrap(), Some(Reply::Ended(_))));
    assert!(stream.next().await.unwrap().is_none());
    let (left, told) = drained.await.unwrap();
    assert_eq!(left, Left { in_flight: 0, connections: 0 });
    assert_eq!(told[0].in_flight, 1);
}

#[tokio::test]
async fn whoever_does_not_end_is_let_go_when_the_time_is_over() {
    let server = start(|config| config.times.drain_ms = 50);
    let shared = server.shared().clone();
    let mut stream = Stream::open(&server).await;
    stream.send(Message::Open(opened("a"))).await;
    until("the episode", || shared.episodes.now() == 1).await;
    let (left, _) = drain(server).await.unwrap();
    assert_eq!(left.in_flight, 1);
    assert!(stream.next().await.is_err());
    until("its end", || shared.episodes.now() == 0 && shared.sessions.now() == 0).await;
}

#[tokio::test]
async fn a_server_says_that_it_leaves_before_it_does() {
    let server = start(|config| config.times.leave_ms = 400);
    let shared = server.shared().clone();
    let (mut client, mut health) = (client(&server).await, HealthClient::new(channel(&server).await));
    let drained = drain(server);
    until("the announcement", || shared.phase() == Phase::Leaving).await;
    let status = health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::NotServing);
    assert!(client.decide(question()).await.is_ok());
    tokio::time::timeout(Duration::from_secs(30), drained).await.unwrap().unwrap();
}

#[tokio::test]
async fn models_are_swapped_under_load_without_a_failed_request() {
    let server = start(|config| config.threads = 2);
    let policy = server.shared().policy.clone();
    let mut known: Vec<String> = vec![policy.status().champion.version.to_string()];
    let mut clients = Vec::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for _ in 0..4 {
        let mut client = client(&server).await;
        let stopped = stopped.clone();
        clients.push(tokio::spawn(async move {
            let mut versions = Vec::new();
            while !*stopped.borrow() {
                versions.push(client.decide(question()).await.unwrap().into_inner().model_version);
            }
            versions
        }));
    }
    for seed in 2..40 {
        let release = crate::started::release(seed);
        known.push(release.manifest.version.to_string());
        policy.swap(release, Some(seed as u32)).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.send(true).unwrap();
    let mut answers = 0;
    for client in clients {
        let versions = client.await.unwrap();
        answers += versions.len();
        // Versions only go forward.
        let order: Vec<usize> =
            versions.iter().map(|version| known.iter().position(|one| one == version).unwrap()).collect();
        assert!(order.is_sorted());
    }
    assert!(answers >= 38);
    policy.reap();
    assert_eq!(policy.status().models_resident, 2);
}
