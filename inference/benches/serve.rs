//! A decision over gRPC beside an echo of the same messages, over a Unix socket and over TCP.
//!
//! ```text
//! cargo bench -p bellwether-inference --features serve --bench serve -- [ROUNDS [ROUND_MS]]
//! ```
//! `cargo xtask bench-peers --only service` makes a table of what it reports.
//!
//! Both servers answer on one thread of the first processor, the clients ask from one thread of the second. Ours decides with the
//! model that ships, the echo is `tonic` with its defaults and an answer that was made before. The two are asked in turn, round
//! after round, so that whatever else the machine does falls on both. Reported, as JSON, are the medians over the rounds of a
//! round's p50, p99 and requests per second, and the ratios of ours to the echo: of those medians, and the least and the largest of
//! a round.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program of measurements ends where something is wrong")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bellwether_inference::model::{Contract, Expectation};
use bellwether_inference::policy::Options;
use bellwether_inference::serve::proto::policy::policy_service_client::PolicyServiceClient;
use bellwether_inference::serve::proto::policy::policy_service_server::{PolicyService, PolicyServiceServer};
use bellwether_inference::serve::proto::policy::{
    DecideBatchRequest, DecideBatchResponse, DecideRequest, DecideResponse, DescribeRequest, DescribeResponse,
    SessionRequest, SessionResponse,
};
use bellwether_inference::serve::{ServeConfig, Server};
use bellwether_inference::{Isa, Policy, load_release};
use rustix::thread::{CpuSet, Pid, sched_setaffinity};
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Builder;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

const CONCURRENCY: [usize; 3] = [1, 8, 64];
/// Requests that share a connection.
const PER_CONNECTION: usize = 16;

/// Answers everything with the same message.
struct Echo(Arc<DecideResponse>);

#[tonic::async_trait]
impl PolicyService for Echo {
    async fn decide(&self, _: Request<DecideRequest>) -> Result<Response<DecideResponse>, Status> {
        Ok(Response::new(DecideResponse::clone(&self.0)))
    }

    async fn decide_batch(&self, _: Request<DecideBatchRequest>) -> Result<Response<DecideBatchResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    type SessionStream = tokio_stream::Once<Result<SessionResponse, Status>>;

    async fn session(&self, _: Request<Streaming<SessionRequest>>) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<DescribeResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }
}

/// What a round found.
#[derive(Clone, Copy)]
struct Round {
    p50_us: f64,
    p99_us: f64,
    per_second: f64,
}

/// A value of a round.
type ValueOf = fn(&Round) -> f64;

/// What is told of rounds.
const VALUES: [(&str, ValueOf); 3] =
    [("p50_us", |round| round.p50_us), ("p99_us", |round| round.p99_us), ("per_second", |round| round.per_second)];

fn main() {
    // Cargo adds `--bench`.
    let mut numbers =
        std::env::args().skip(1).filter(|argument| argument != "--bench").map(|text| text.parse().unwrap());
    let (rounds, round_ms) = (numbers.next().unwrap_or(11), numbers.next().unwrap_or(250));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serve.sock");
    let on_first = on_processor(0);
    let release_folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/quickstart");
    let manifest = bellwether_artifact::release::read_manifest(&release_folder).unwrap();
    let contract = Contract::sandbox(manifest.features.width as usize, manifest.features.spec_sha256);
    let state = manifest.golden[0].dense_state(contract.width);
    let release = load_release(&release_folder, &Expectation::new(contract), Isa::best()).unwrap();
    let policy = Policy::new(release, Some(1), Options::default()).unwrap();
    let config =
        ServeConfig { grpc: Some(([127, 0, 0, 1], 0).into()), unix: Some(path.clone()), ..ServeConfig::default() };
    let server = Server::start(config, policy, "quickstart", None).unwrap();
    let request = DecideRequest {
        state_bytes: state.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into(),
        ..DecideRequest::default()
    };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let ours = [unix(&path), Endpoint::from_shared(format!("http://{}", server.endpoints().grpc.unwrap())).unwrap()];
    let answer = runtime.block_on(async {
        let mut client = PolicyServiceClient::new(ours[0].connect().await.unwrap());
        client.decide(request.clone()).await.unwrap().into_inner()
    });
    let echo_path = folder.path().join("echo.sock");
    let echo_address = start_echo(&echo_path, answer);
    let echo = [unix(&echo_path), Endpoint::from_shared(format!("http://{echo_address}")).unwrap()];
    let apart = on_first && on_processor(1);
    let mut rows = Vec::new();
    for (carrier, (ours, echo)) in ["unix", "tcp"].into_iter().zip(ours.into_iter().zip(echo)) {
        for concurrency in CONCURRENCY {
            let clients = |endpoint: &Endpoint| runtime.block_on(connect(endpoint, concurrency));
            let (ours, echo) = (clients(&ours), clients(&echo));
            let mut found: [Vec<Round>; 2] = [Vec::new(), Vec::new()];
            // The first round of each warms up.
            for round in 0..=rounds {
                for (clients, rounds) in [&ours, &echo].into_iter().zip(&mut found) {
                    let found = runtime.block_on(ask(clients, &request, Duration::from_millis(round_ms)));
                    if round > 0 {
                        rounds.push(found);
                    }
                }
            }
            rows.push(row(carrier, concurrency, &found));
        }
    }
    let report = json!({ "rounds": rounds, "round_ms": round_ms, "processors_apart": apart, "rows": rows });
    println!("{report:#}");
}

/// What the rounds of ours and of the echo say.
fn row(carrier: &str, at_once: usize, [ours, echo]: &[Vec<Round>; 2]) -> Value {
    let middle = |rounds: &[Round], value: fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let middles = |rounds: &[Round]| VALUES.map(|(name, of)| (name, middle(rounds, of))).into_iter().collect();
    let over_echo = VALUES.map(|(name, of)| {
        let ratios = ours.iter().zip(echo).map(|(ours, echo)| of(ours) / of(echo));
        let [least, most] =
            ratios.fold([f64::INFINITY, 0.0], |[low, high], ratio| [f64::min(low, ratio), f64::max(high, ratio)]);
        let whole = middle(ours, of) / middle(echo, of);
        (name.trim_end_matches("_us"), json!({ "whole": whole, "least": least, "most": most }))
    });
    let over_echo: BTreeMap<&str, Value> = over_echo.into_iter().collect();
    let (ours, echo): (BTreeMap<&str, f64>, BTreeMap<&str, f64>) = (middles(ours), middles(echo));
    json!({ "carrier": carrier, "at_once": at_once, "ours": ours, "echo": echo, "over_echo": over_echo })
}

/// This thread, and those that it starts, run on one processor; false where it is not to be had.
fn on_processor(number: usize) -> bool {
    let mut processors = CpuSet::new();
    processors.set(number);
    sched_setaffinity(None::<Pid>, &processors).is_ok()
}

fn unix(path: &Path) -> Endpoint {
    Endpoint::from_shared(format!("unix://{}", path.display())).unwrap()
}

fn start_echo(path: &Path, answer: DecideResponse) -> std::net::SocketAddr {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = std::os::unix::net::UnixListener::bind(path).unwrap();
    let address = tcp.local_addr().unwrap();
    tcp.set_nonblocking(true).unwrap();
    unix.set_nonblocking(true).unwrap();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let tcp = TcpListenerStream::new(TcpListener::from_std(tcp).unwrap());
            let tcp =
                tokio_stream::StreamExt::map(tcp, |stream| stream.inspect(|stream| stream.set_nodelay(true).unwrap()));
            let unix = UnixListenerStream::new(UnixListener::from_std(unix).unwrap());
            let service = || PolicyServiceServer::new(Echo(Arc::clone(&answer)));
            let over_tcp = tonic::transport::Server::builder().add_service(service()).serve_with_incoming(tcp);
            let over_unix = tonic::transport::Server::builder().add_service(service()).serve_with_incoming(unix);
            let (over_tcp, over_unix) = tokio::join!(over_tcp, over_unix);
            over_tcp.and(over_unix).unwrap();
        });
    });
    address
}

async fn connect(endpoint: &Endpoint, concurrency: usize) -> Vec<PolicyServiceClient<Channel>> {
    let mut clients = Vec::new();
    while clients.len() < concurrency {
        let channel = endpoint.connect().await.unwrap();
        let sharing = (concurrency - clients.len()).min(PER_CONNECTION);
        clients.extend((0..sharing).map(|_| PolicyServiceClient::new(channel.clone())));
    }
    clients
}

/// Every client asks again as soon as it is answered, for one round.
async fn ask(clients: &[PolicyServiceClient<Channel>], request: &DecideRequest, within: Duration) -> Round {
    let began = Instant::now();
    let tasks = clients.iter().cloned().map(|mut client| {
        let request = request.clone();
        tokio::spawn(async move {
            let mut times_ns = Vec::with_capacity(1 << 14);
            while began.elapsed() < within {
                let asked = Instant::now();
                client.decide(request.clone()).await.unwrap();
                times_ns.push(asked.elapsed().as_nanos() as u64);
            }
            times_ns
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut times_ns = Vec::new();
    for task in tasks {
        times_ns.extend(task.await.unwrap());
    }
    let took = began.elapsed();
    times_ns.sort_unstable();
    let at = |share: f64| times_ns[((times_ns.len() - 1) as f64 * share) as usize] as f64 / 1e3;
    Round { p50_us: at(0.5), p99_us: at(0.99), per_second: times_ns.len() as f64 / took.as_secs_f64() }
}
