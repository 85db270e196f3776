//! Models on trial by admin call: which are taken, who decides an episode, and how a trial ends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc;

use bellwether_artifact::release::{ONNX_FILE, SIGNATURE_FILE};
use bellwether_artifact::{ModelVersion, Sha256, durable};
use bellwether_inference::model::Contract;
use bellwether_inference::serve::proto::policy::admin_client::AdminClient;
use bellwether_inference::serve::proto::policy::decide_result::Result::Decision;
use bellwether_inference::serve::proto::policy::try_out_request::Release;
use bellwether_inference::serve::proto::policy::{
    CheckNowRequest, DecideBatchRequest, DecideRequest, DecideResponse, PromoteRequest, Role, RollbackRequest,
    SetCanaryRequest, StatusRequest, StatusResponse, TryOutRequest, WithdrawRequest,
};
use bellwether_inference::serve::{ServeConfig, Server};
use bellwether_inference::watch::{FolderSource, Source, SourceError, VersionPolicy, Wanted, WatchOptions, Watcher};
use tokio::task::spawn_blocking;
use tonic::Code;
use tonic::transport::Channel;

use crate::nets::state_for;
use crate::released::{Releases, WIDTH, contract, contrary, network, patient, trust};
use crate::started::{client, config, unix_channel};

/// A server whose watcher looks when it is told to, over releases that key 1 must have signed.
async fn start(releases: &Releases, change: impl FnOnce(&mut ServeConfig) + Send + 'static) -> Server {
    let policy = releases.policy();
    // What is wanted stays number 1, whatever is added.
    let source = FolderSource::releases(releases.root(), VersionPolicy::Pinned(1));
    let options = WatchOptions { trusted: Some(trust(&[1])), memory: Some(memory(releases)), ..patient() };
    spawn_blocking(move || {
        let watcher = Watcher::start(policy.clone(), source, options).unwrap();
        watcher.check_now();
        let mut config = config();
        change(&mut config);
        Server::start(config, policy, "policy", Some(watcher)).unwrap()
    })
    .await
    .unwrap()
}

fn memory(releases: &Releases) -> PathBuf {
    releases.root().join("memory.json")
}

/// The number that a restart would serve.
fn written(releases: &Releases) -> Option<u64> {
    let memory: serde_json::Value = serde_json::from_slice(&std::fs::read(memory(releases)).unwrap()).unwrap();
    memory["served"]["number"].as_u64()
}

async fn admin(server: &Server) -> AdminClient<Channel> {
    AdminClient::new(unix_channel(server.endpoints().admin_unix.as_ref().unwrap()).await)
}

fn number(number: u32, share: f64) -> TryOutRequest {
    TryOutRequest { release: Some(Release::Number(number)), share }
}

fn name(name: &str, share: f64) -> TryOutRequest {
    TryOutRequest { release: Some(Release::Name(name.to_owned())), share }
}

fn canary_of(status: &StatusResponse) -> (Option<u32>, f64) {
    (status.canary.as_ref().and_then(|model| model.number), status.canary_share)
}

fn question(episode: Option<u64>) -> DecideRequest {
    DecideRequest { state: state_for(&network(1), 7), episode, ..DecideRequest::default() }
}

/// Which model decides each of the first episodes, asked twice: once alone and once in a batch.
async fn deciders(server: &Server, episodes: u64) -> BTreeMap<u64, String> {
    let mut client = client(server).await;
    let mut by = BTreeMap::new();
    for first in (0..episodes).step_by(200) {
        let numbers: Vec<u64> = (first..episodes.min(first + 200)).collect();
        let requests = numbers.iter().map(|episode| question(Some(*episode))).collect();
        let batch = DecideBatchRequest { requests };
        let results = client.decide_batch(batch).await.unwrap().into_inner().results;
        for (episode, result) in numbers.into_iter().zip(results) {
            let Some(Decision(decision)) = result.result else { panic!("episode {episode} was refused") };
            by.insert(episode, decision.model_version);
        }
    }
    for (episode, version) in by.iter().step_by(17) {
        let DecideResponse { model_version, .. } = client.decide(question(Some(*episode))).await.unwrap().into_inner();
        assert_eq!(model_version, *version, "episode {episode}");
    }
    by
}

/// A folder that does not answer whoever asks for another release, until it is let go.
struct Stuck(FolderSource, mpsc::Receiver<()>, mpsc::Sender<()>);

impl Source for Stuck {
    fn describe(&self) -> String {
        self.0.describe()
    }

    fn wanted(&mut self) -> Result<Option<Wanted>, SourceError> {
        self.0.wanted()
    }

    fn find(&mut self, which: &VersionPolicy) -> Result<Option<Wanted>, SourceError> {
        self.2.send(()).unwrap();
        let _ = self.1.recv();
        self.0.find(which)
    }
}

#[test]
fn a_server_ends_though_a_call_of_an_operator_is_stuck() {
    let folder = tempfile::tempdir().unwrap();
    let releases = Releases::new();
    let (let_go, waits) = mpsc::channel();
    let (asks, asked) = mpsc::channel();
    let policy = releases.policy();
    let source = FolderSource::releases(releases.root(), VersionPolicy::Pinned(1));
    let watcher = Watcher::start(policy.clone(), Stuck(source, waits, asks), patient()).unwrap();
    let mut config = config();
    config.admin_unix = Some(folder.path().join("admin.sock"));
    let server = Server::start(config, policy, "policy", Some(watcher)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut admin = runtime.block_on(admin(&server));
    let call = runtime.spawn(async move { admin.try_out(number(2, 0.5)).await });
    asked.recv().unwrap();
    // It would wait for ever: nobody lets the call go before.
    drop(server);
    assert!(runtime.block_on(call).unwrap().is_err());
    drop(let_go);
}

#[tokio::test]
async fn a_model_is_tried_on_its_share_of_the_episodes_and_promoted_or_withdrawn() {
    const EPISODES: u64 = 4_000;
    let folder = tempfile::tempdir().unwrap();
    let releases = Releases::new();
    let socket = folder.path().join("admin.sock");
    let server = start(&releases, move |config| config.admin_unix = Some(socket)).await;
    let first = server.shared().policy.status().champion.version.to_string();
    let second = releases.add(2, &network(2)).to_string();
    let third = releases.add(3, &contrary(&network(1))).to_string();
    std::os::unix::fs::symlink("000003", releases.root().join("challenger")).unwrap();
    let mut admin = admin(&server).await;

    let status = admin.try_out(number(2, 0.25)).await.unwrap().into_inner();
    assert_eq!(canary_of(&status), (Some(2), 0.25));
    assert_eq!(status.canary.as_ref().unwrap().version, second);
    let before = deciders(&server, EPISODES).await;
    let share = |by: &BTreeMap<u64, String>, version: &str| {
        by.values().filter(|known| *known == version).count() as f64 / EPISODES as f64
    };
    // Five standard deviations of a draw of so many.
    let close =
        |found: f64, wanted: f64| (found - wanted).abs() <= 5.0 * (wanted * (1.0 - wanted) / EPISODES as f64).sqrt();
    assert!(close(share(&before, &second), 0.25) && close(share(&before, &first), 0.75), "{}", share(&before, &second));
    // Without an episode the champion decides.
    let decision = client(&server).await.decide(question(None)).await.unwrap().into_inner();
    assert_eq!((decision.model_version.as_str(), decision.role()), (first.as_str(), Role::Champion));

    // A larger share keeps its episodes.
    let status = admin.set_canary(SetCanaryRequest { share: 0.5 }).await.unwrap().into_inner();
    assert_eq!(canary_of(&status), (Some(2), 0.5));
    let after = deciders(&server, EPISODES).await;
    assert!(close(share(&after, &second), 0.5));
    assert!(before.iter().all(|(episode, version)| *version == first || after[episode] == second));

    // Metrics say the same.
    let page = server.metrics().render();
    assert!(page.contains("bellwether_canary_share 0.5"), "{page}");
    assert!(page.contains(&format!("model_version=\"{second}\",model_number=\"2\",role=\"canary\"")), "{page}");
    assert!(page.contains("bellwether_model_reloads_total{result=\"on_trial\",reason=\"none\"} 1"), "{page}");

    // Another takes its place, and is withdrawn.
    let status = admin.try_out(name("challenger", 1.0)).await.unwrap().into_inner();
    assert_eq!((canary_of(&status), status.canary.unwrap().version), ((Some(3), 1.0), third.clone()));
    assert!(deciders(&server, 100).await.values().all(|version| *version == third));
    assert_eq!(canary_of(&admin.withdraw(WithdrawRequest {}).await.unwrap().into_inner()), (None, 0.0));
    assert!(deciders(&server, 100).await.values().all(|version| *version == first));

    // Promoted, it decides everything, stays against what the source wants, and can be rolled back.
    admin.try_out(number(2, 0.1)).await.unwrap();
    let status = admin.promote(PromoteRequest {}).await.unwrap().into_inner();
    assert_eq!((status.champion.unwrap().number, status.previous.unwrap().number), (Some(2), Some(1)));
    // Who has the answer may pull the plug.
    assert_eq!(written(&releases), Some(2));
    let status = admin.check_now(CheckNowRequest {}).await.unwrap().into_inner();
    assert_eq!(status.champion.unwrap().number, Some(2));
    assert!(deciders(&server, 100).await.values().all(|version| *version == second));
    let status = admin.rollback(RollbackRequest {}).await.unwrap().into_inner();
    assert_eq!((status.champion.unwrap().number, status.rollbacks), (Some(1), 1));
    assert_eq!((written(&releases), status.watch.unwrap().unwritten.as_str()), (Some(1), ""));
    // By hand it may be tried again.
    assert_eq!(canary_of(&admin.try_out(number(2, 0.125)).await.unwrap().into_inner()), (Some(2), 0.125));
}

#[tokio::test]
async fn a_trial_is_refused_for_every_reason_for_which_a_champion_is() {
    let folder = tempfile::tempdir().unwrap();
    let releases = Releases::new();
    let socket = folder.path().join("admin.sock");
    let server = start(&releases, move |config| config.admin_unix = Some(socket)).await;
    let mut admin = admin(&server).await;
    releases.add(2, &network(2));
    std::fs::remove_file(releases.folder(2).join(SIGNATURE_FILE)).unwrap();
    let foreign = Contract { feature_spec: Sha256::of(b"another"), ..contract() };
    releases.add_changed(3, &network(3), &foreign, |_| {});
    releases.add_changed(4, &network(4), &contract(), |manifest| {
        // The network is another one than the golden vectors come from.
        manifest.golden[0].q_values[0] += 1.0;
    });
    releases.add(5, &network(5));
    let onnx = releases.folder(5).join(ONNX_FILE);
    let mut bytes = std::fs::read(&onnx).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    durable::write_bytes(&onnx, &bytes).unwrap();
    releases.add(6, &network(6));
    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(releases.folder(6), elsewhere.path().join("six")).unwrap();

    for (request, code, part) in [
        (number(2, 0.5), Code::FailedPrecondition, "signature_missing"),
        (number(3, 0.5), Code::FailedPrecondition, "features"),
        (number(4, 0.5), Code::FailedPrecondition, "golden_vectors"),
        (number(5, 0.5), Code::FailedPrecondition, "network_hash"),
        (number(1, 0.5), Code::FailedPrecondition, "is the champion already"),
        (number(7, 0.5), Code::NotFound, "number 7"),
        (name("nobody", 0.5), Code::NotFound, "\"nobody\""),
        (name("../six", 0.5), Code::NotFound, "six"),
        (name(elsewhere.path().join("six").to_str().unwrap(), 0.5), Code::NotFound, "six"),
        (name(&"x".repeat(100_000), 0.5), Code::InvalidArgument, "at most 255 bytes"),
        (number(6, 0.0), Code::InvalidArgument, "share"),
        (number(6, f64::NAN), Code::InvalidArgument, "share"),
        (TryOutRequest { release: None, share: 0.5 }, Code::InvalidArgument, "number or the name"),
    ] {
        let refused = admin.try_out(request.clone()).await.unwrap_err();
        assert!(refused.code() == code && refused.message().contains(part), "{request:?}: {refused}");
        let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
        assert_eq!((canary_of(&status), status.champion.unwrap().number), ((None, 0.0), Some(1)));
    }
    let watch = admin.status(StatusRequest {}).await.unwrap().into_inner().watch.unwrap();
    assert_eq!(watch.refusal_reason, "network_hash");
    let refused: u64 = watch.reloads.iter().filter(|row| row.result == "refused").map(|row| row.count).sum();
    assert_eq!(refused, 4);
    // One that was refused is tried as soon as it is right.
    releases.add(8, &network(8));
    assert_eq!(canary_of(&admin.try_out(number(8, 0.5)).await.unwrap().into_inner()), (Some(8), 0.5));
}

#[tokio::test]
async fn a_canary_that_computes_what_is_no_number_is_withdrawn() {
    let folder = tempfile::tempdir().unwrap();
    let releases = Releases::new();
    let socket = folder.path().join("admin.sock");
    let server = start(&releases, move |config| config.admin_unix = Some(socket)).await;
    let mut admin = admin(&server).await;
    let bad: ModelVersion = releases.add(2, &crate::released::overflowing());
    admin.try_out(number(2, 1.0)).await.unwrap();
    let status = admin.check_now(CheckNowRequest {}).await.unwrap().into_inner();
    assert_eq!(canary_of(&status), (Some(2), 1.0), "nothing has spoken against it yet");
    let all_ones = DecideRequest { state: vec![1.0; WIDTH], episode: Some(3), ..DecideRequest::default() };
    let mut client = client(&server).await;
    assert_eq!(client.decide(all_ones.clone()).await.unwrap_err().code(), Code::Internal);
    let status = admin.check_now(CheckNowRequest {}).await.unwrap().into_inner();
    assert_eq!((canary_of(&status), status.watch.unwrap().refusal_reason), ((None, 0.0), "non_finite".to_owned()));
    assert_ne!(client.decide(all_ones).await.unwrap().into_inner().model_version, bad.to_string());
    let page = server.metrics().render();
    assert!(page.contains("result=\"rolled_back\",reason=\"non_finite\"} 1"), "{page}");
}
