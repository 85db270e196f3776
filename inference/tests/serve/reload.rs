//! A thousand reloads while clients of every kind ask: no request fails, and each answer is that of the model that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bellwether_inference::model::Mlp;
use bellwether_inference::policy::Options;
use bellwether_inference::serve::Server;
use bellwether_inference::serve::proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use bellwether_inference::serve::proto::inference::model_infer_request::InferInputTensor;
use bellwether_inference::serve::proto::inference::{InferTensorContents, ModelInferRequest};
use bellwether_inference::serve::proto::policy::decide_result::Result::Decision;
use bellwether_inference::serve::proto::policy::policy_service_client::PolicyServiceClient;
use bellwether_inference::serve::proto::policy::{DecideBatchRequest, DecideRequest, DecideResponse, Role};
use bellwether_inference::watch::{FolderSource, VersionPolicy, WatchOptions, Watcher, WindowOptions, open};
use bellwether_inference::{Engine, Isa, Policy};
use tokio::task::{JoinHandle, spawn_blocking};
use tonic::transport::Channel;

use crate::nets::{Draw, state_for};
use crate::released::{ALL, Releases, WIDTH, contract, patient, trust};
use crate::started::{channel, config, unix_channel};

const SWAPS: u32 = 1_000;
const STATES: u64 = 16;

/// What a model answers in a state: action and q-values, as bits, of the certified and of the exact kernel.
type Answer = (usize, [Vec<u32>; 2]);

/// What each model answers in each state.
struct Expected {
    states: Vec<Vec<f32>>,
    answers: BTreeMap<String, Vec<Answer>>,
}

/// What a client has seen.
#[derive(Default)]
struct Seen {
    requests: u64,
    versions: BTreeSet<String>,
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

impl Expected {
    fn add(&mut self, version: String, mlp: &Mlp) {
        let engine = Engine::new(mlp, Isa::best()).unwrap().with_precision(Options::default().precision);
        let mut scratch = engine.scratch();
        let mut answer = |state: &Vec<f32>| {
            let exact = bits(engine.decide_exactly(&mut scratch, state, &ALL).unwrap().q_values);
            let decision = engine.decide(&mut scratch, state, &ALL).unwrap();
            (decision.action, [bits(decision.q_values), exact])
        };
        self.answers.insert(version, self.states.iter().map(&mut answer).collect());
    }

    fn check(&self, index: usize, version: &str, action: usize, q_values: &[f32]) {
        let (expected, values) = &self.answers[version][index];
        assert!(action == *expected && values.contains(&bits(q_values)), "state {index}, model {version}");
    }

    fn check_decision(&self, index: usize, decision: &DecideResponse) {
        self.check(index, &decision.model_version, decision.action as usize, &decision.q_values);
    }

    fn question(&self, index: usize, episode: Option<u64>) -> DecideRequest {
        DecideRequest { state: self.states[index].clone(), episode, with_q_values: true, ..DecideRequest::default() }
    }
}

/// Asks one question after the other.
async fn ask(channel: Channel, expected: Arc<Expected>, done: Arc<AtomicBool>) -> Seen {
    let (mut client, mut seen) = (PolicyServiceClient::new(channel), Seen::default());
    while !done.load(Ordering::Relaxed) {
        let index = (seen.requests % STATES) as usize;
        let decision = client.decide(expected.question(index, None)).await.unwrap().into_inner();
        expected.check_decision(index, &decision);
        assert_eq!(decision.role(), Role::Champion);
        seen.versions.insert(decision.model_version);
        seen.requests += 1;
    }
    seen
}

/// Asks batches, in which every row of the same role must have the same model.
async fn ask_batches(channel: Channel, expected: Arc<Expected>, done: Arc<AtomicBool>) -> Seen {
    let (mut client, mut seen) = (PolicyServiceClient::new(channel), Seen::default());
    while !done.load(Ordering::Relaxed) {
        let requests = (0..STATES).map(|index| expected.question(index as usize, Some(seen.requests * STATES + index)));
        let batch = DecideBatchRequest { requests: requests.collect() };
        let results = client.decide_batch(batch).await.unwrap().into_inner().results;
        assert_eq!(results.len() as u64, STATES);
        let mut by_role = BTreeMap::<i32, BTreeSet<String>>::new();
        for (index, result) in results.into_iter().enumerate() {
            let Some(Decision(decision)) = result.result else { panic!("row {index} was refused") };
            expected.check_decision(index, &decision);
            by_role.entry(decision.role).or_default().insert(decision.model_version);
        }
        assert!(by_role.values().all(|versions| versions.len() == 1), "{by_role:?}");
        seen.versions.extend(by_role.into_values().flatten());
        seen.requests += 1;
    }
    seen
}

/// Asks by the Open Inference Protocol, all states in one request.
async fn ask_tensors(channel: Channel, expected: Arc<Expected>, done: Arc<AtomicBool>) -> Seen {
    let (mut client, mut seen) = (GrpcInferenceServiceClient::new(channel), Seen::default());
    let input = InferInputTensor {
        name: "state".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![STATES as i64, WIDTH as i64],
        contents: Some(InferTensorContents { fp32_contents: expected.states.concat(), ..Default::default() }),
        ..Default::default()
    };
    let request = ModelInferRequest { model_name: "policy".to_owned(), inputs: vec![input], ..Default::default() };
    while !done.load(Ordering::Relaxed) {
        let response = client.model_infer(request.clone()).await.unwrap().into_inner();
        let output = |name: &str| response.outputs.iter().find(|output| output.name == name).unwrap();
        let q_values = &output("q_values").contents.as_ref().unwrap().fp32_contents;
        let actions = &output("action").contents.as_ref().unwrap().int64_contents;
        assert_eq!(actions.len() as u64, STATES);
        for (index, (action, q_values)) in actions.iter().zip(q_values.chunks(ALL.len())).enumerate() {
            expected.check(index, &response.model_version, *action as usize, q_values);
        }
        seen.versions.insert(response.model_version);
        seen.requests += 1;
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reloads_fail_no_request_and_every_answer_is_of_the_model_that_it_names() {
    let hidden: [&[usize]; 5] = [&[20], &[33], &[20, 20], &[7, 7, 7], &[11]];
    let networks: Vec<Mlp> =
        hidden.iter().zip(1..).map(|(hidden, seed)| Draw(seed).mlp(&[&[WIDTH], *hidden, &[5]].concat())).collect();
    let releases = Releases(tempfile::tempdir().unwrap());
    let states = (0..STATES).map(|seed| state_for(&networks[0], seed)).collect();
    let mut expected = Expected { states, answers: BTreeMap::new() };
    for (number, mlp) in (1..).zip(&networks) {
        expected.add(releases.add(number, mlp).to_string(), mlp);
    }
    let expected = Arc::new(expected);
    let root = releases.root().to_owned();
    // A name moves among the first four; the fifth is on trial.
    let point_to = move |number: u32| {
        symlink(format!("{number:06}"), root.join("new")).unwrap();
        fs::rename(root.join("new"), root.join("champion")).unwrap();
    };
    point_to(1);
    let mut source = FolderSource::releases(releases.root(), VersionPolicy::Name("champion".to_owned()));
    let window = WindowOptions { max_disagreement: 1.0, ..WindowOptions::default() };
    let options = WatchOptions { trusted: Some(trust(&[1])), window: Some(window), ..patient() };
    let (release, number) = open(&mut source, |_| contract(), &options).unwrap();
    let policy = Policy::new(release, number, Options::default()).unwrap();
    let watcher = Watcher::start(policy.clone(), source, options).unwrap();
    let mut config = config();
    let sockets = tempfile::tempdir().unwrap();
    config.unix = Some(sockets.path().join("serve.sock"));
    let server = Arc::new(Server::start(config, policy.clone(), "policy", Some(watcher)).unwrap());
    let unix = unix_channel(server.endpoints().unix.as_ref().unwrap()).await;
    let tcp = channel(&server).await;

    let done = Arc::new(AtomicBool::new(false));
    let with = || (Arc::clone(&expected), Arc::clone(&done));
    let spawn = |channel: &Channel| {
        let ((a, b), (c, d), (e, f)) = (with(), with(), with());
        [
            tokio::spawn(ask(channel.clone(), a, b)),
            tokio::spawn(ask_batches(channel.clone(), c, d)),
            tokio::spawn(ask_tensors(channel.clone(), e, f)),
        ]
    };
    let clients: Vec<JoinHandle<Seen>> = [spawn(&unix), spawn(&tcp)].into_iter().flatten().collect();
    let (reloading, stop) = (Arc::clone(&server), Arc::clone(&done));
    let reloaded = spawn_blocking(move || {
        let watcher = reloading.shared().watcher.as_ref().unwrap();
        for swap in 1..=SWAPS {
            let number = swap % 4 + 1;
            point_to(number);
            assert_eq!(watcher.check_now().serving.number, Some(number));
            match swap % 50 {
                10 => drop(watcher.try_out(VersionPolicy::Pinned(5), 0.5).unwrap()),
                40 => drop(reloading.shared().policy.withdraw().unwrap()),
                _ => (),
            }
        }
        stop.store(true, Ordering::Relaxed);
        watcher.counts()
    });
    // A client that fails would otherwise leave the others asking for ever.
    let counts = reloaded.await.unwrap();
    let mut versions = BTreeSet::new();
    for client in clients {
        let seen = client.await.unwrap();
        assert!(seen.requests > 0);
        versions.extend(seen.versions);
    }
    assert_eq!((counts.swapped, counts.tried), (u64::from(SWAPS), u64::from(SWAPS / 50)));
    assert!(counts.reloads().iter().all(|(result, ..)| !matches!(*result, "refused" | "rolled_back")), "{counts:?}");
    assert!(versions.len() > 1, "no client saw a swap");
    policy.reap();
    assert_eq!(policy.status().models_resident, 2, "the champion and the one before it");
    let page = server.metrics().render();
    let failed =
        page.lines().find(|line| line.starts_with("bellwether_requests_total") && !line.contains("code=\"OK\""));
    assert_eq!(failed, None);
}
