//! Decisions by a policy service: as in this process, and what a service that is away, slow or wrong may do to an episode.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellwether_artifact::{OperatingPoint, Sha256};
use bellwether_env_adapter::spec::{FeatureSpec, WIDTH};
use bellwether_env_adapter::{Action, EpisodeId, StateVector, WindowConfig, action};
use bellwether_inference::model::{Contract, Expectation};
use bellwether_inference::policy::Options;
use bellwether_inference::release::check_release;
use bellwether_inference::serve::proto::policy::policy_service_server::{PolicyService as Served, PolicyServiceServer};
use bellwether_inference::serve::proto::policy::{
    DecideBatchRequest, DecideBatchResponse, DecideRequest, DecideResponse, DescribeRequest, DescribeResponse,
    SessionRequest, SessionResponse,
};
use bellwether_inference::serve::{AuthConfig, ServeConfig, Server, TlsFiles};
use bellwether_inference::{Isa, Policy};
use bellwether_sandbox::episode::{
    Away, Judge, JudgeError, Judgement, PolicyAccess, PolicyJudge, PolicyService, Schedule, ServiceError, ServiceJudge,
};
use bellwether_sandbox::peer::{Address, ClientIdentity, ClientTls};
use bellwether_sandbox::stage::{Close, Question};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::super::scripted::{Script, Scripted};
use super::super::{Paused, play, setup};
use super::door::certificates;
use super::stages::until;
use crate::manifests::sealed;
use crate::nets::{Draw, single};

fn window() -> WindowConfig {
    WindowConfig { max_events: 4, ..WindowConfig::default() }
}

/// A policy over the states of a sandbox: one that goes on as long as it may, or one that depends on the state.
fn policy(goes_on: bool) -> Policy {
    let network = match goes_on {
        true => single(WIDTH, &vec![0.0; 5 * WIDTH], &[1.0, 0.0, 0.5, 0.25, 0.0]),
        false => Draw(7).mlp(&[WIDTH, 16, 5]),
    };
    let contract = Contract::sandbox(WIDTH, Sha256::from_bytes(FeatureSpec::v1(window()).hash()));
    let point = |target_fpr, cost| OperatingPoint { target_fpr, cost, calibration_fpr: None, calibration_tpr: None };
    let (manifest, onnx) = sealed(&network, &contract, |manifest| {
        let WindowConfig { max_events, max_ns, max_windows } = window();
        manifest.features.window = bellwether_artifact::WindowLimits { max_events, max_ns, max_windows };
        manifest.operating_points = vec![point(0.01, 0.9), point(0.05, 0.5)];
    });
    let release = check_release(manifest, &onnx, &Expectation::new(contract), Isa::best()).unwrap();
    Policy::new(release, Some(1), Options::default()).unwrap()
}

fn serve(path: &Path, policy: &Policy, change: impl FnOnce(&mut ServeConfig)) -> Server {
    let mut config = ServeConfig { grpc: None, unix: Some(path.to_owned()), ..ServeConfig::default() };
    change(&mut config);
    Server::start(config, policy.clone(), "policy", None).unwrap()
}

fn access(path: &Path) -> PolicyAccess {
    PolicyAccess { address: Address::Unix(path.to_owned()), tls: None, token: None }
}

fn find(path: &Path) -> Arc<PolicyService> {
    Arc::new(PolicyService::find(&access(path), Schedule::default(), &Paused::default()).unwrap())
}

fn judge(service: &Arc<PolicyService>, limit: Duration) -> ServiceJudge {
    service.judge(&service.described(), &EpisodeId("e1".to_owned()), 0.05, limit).unwrap()
}

/// As long as a slow machine needs.
const LONG: Duration = Duration::from_secs(30);

fn nothing() -> std::os::fd::OwnedFd {
    std::io::pipe().unwrap().0.into()
}

#[test]
fn a_service_decides_as_its_policy_does_in_this_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.sock");
    let policy = policy(false);
    let _server = serve(&path, &policy, |_| {});
    let service = find(&path);
    assert_eq!(service.described().window, window());
    let mut there = judge(&service, LONG);
    let mut here = PolicyJudge::new(&policy, &EpisodeId("e1".to_owned()), 0.05).unwrap();
    let mut draw = Draw(3);
    for step in 0..64 {
        let values: Vec<f32> = (0..WIDTH).map(|_| draw.unit()).collect();
        let mut states = [(); 2].map(|()| StateVector::from_slice(&values).unwrap());
        let question = question(step, step % 4 == 3);
        let [mine, its] = &mut states;
        let judged: [Result<Judgement, Away>; 2] = [here.judge(&question, mine), there.judge(&question, its)];
        assert_eq!(judged[0], judged[1]);
        assert!(judged[0].is_ok());
        // The state that is recorded is the one that was decided on, with its cost.
        assert_eq!(states[0].as_slice(), states[1].as_slice());
    }
    let unknown = service.judge(&service.described(), &EpisodeId(String::new()), 0.02, LONG);
    assert!(matches!(unknown, Err(JudgeError::OperatingPoint { known, .. }) if known == "0.01, 0.05"));
}

fn question(step: u32, last: bool) -> Question {
    Question {
        episode: EpisodeId("e1".to_owned()),
        stage: 1,
        step,
        window: step,
        events: 4,
        toll: Default::default(),
        events_seen: 4,
        time_ns: 0,
        level: 0,
        close: if last { Close::End } else { Close::Window },
        mask: action::mask(last, true),
    }
}

/// Does something before each question.
struct Before<F>(ServiceJudge, F);

impl<F: FnMut(u32) + Send> Judge for Before<F> {
    fn judge(&mut self, question: &Question, state: &mut StateVector) -> Result<Judgement, Away> {
        (self.1)(question.step);
        self.0.judge(question, state)
    }
}

#[test]
fn a_service_that_goes_and_comes_back_leaves_its_windows_to_the_safe_rule() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.sock");
    let policy = policy(true);
    let mut server = Some(serve(&path, &policy, |_| {}));
    let service = find(&path);
    let asked = Arc::clone(&service);
    let mut judge = Before(judge(&service, LONG), move |step| match step {
        3 => drop(server.take()),
        5 => {
            server = Some(serve(&path, &policy, |_| {}));
            until("the service", || asked.answers());
        }
        _ => {}
    });
    let stage = Scripted::new(Script { windows: vec![4; 8], ..Script::default() });
    let (report, _, _) = play(&setup(&folder.path().join("e"), nothing(), 1), [&stage, &stage], &mut judge);
    let by: Vec<_> = report.decisions.iter().map(|decision| decision.safe_rule.as_deref()).collect();
    let gone = Some("nobody answers");
    assert_eq!(by, [None, None, None, gone, gone, None, None, None]);
    let levels: Vec<_> = report.decisions.iter().map(|decision| decision.level_after).collect();
    assert_eq!(levels, [0, 0, 0, 1, 2, 2, 2, 2]);
    assert_eq!((report.verdict, report.safe_rule, report.partial.len()), (Some(Action::Release), 2, 0));
}

#[test]
fn a_service_is_looked_for_after_one_two_and_four_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.sock");
    let clock = Paused::default();
    let found = PolicyService::find(&access(&path), Schedule::default(), &clock);
    assert!(matches!(found, Err(ServiceError::Away { .. })));
    assert_eq!(clock.0.into_inner().unwrap(), [1_000, 2_000, 4_000]);
}

#[test]
fn who_bears_no_token_is_told_so_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.sock");
    let token = folder.path().join("token");
    let mut file = bellwether_artifact::durable::DurableFile::create_private(&token).unwrap();
    std::io::Write::write_all(&mut file, b"0123456789abcdef0123456789abcdef\n").unwrap();
    file.commit().unwrap();
    let auth = AuthConfig { token_file: Some(token.clone()), ..AuthConfig::default() };
    let _server = serve(&path, &policy(true), |config| config.auth = auth);
    let clock = Paused::default();
    let found = PolicyService::find(&access(&path), Schedule::default(), &clock);
    assert!(found.unwrap_err().to_string().contains("bearer token"));
    assert!(clock.0.into_inner().unwrap().is_empty(), "asking again would not help");
    let access = PolicyAccess { token: Some(token), ..access(&path) };
    let service = PolicyService::find(&access, Schedule::default(), &Paused::default()).unwrap();
    let mut state = StateVector::from_slice(&[0.0; WIDTH]).unwrap();
    let judged = judge(&Arc::new(service), LONG).judge(&question(0, false), &mut state).unwrap();
    assert_eq!(judged.action, Action::Continue);
}

/// What a test does to an answer.
type Change<T> = fn(&mut T);
/// The same, while a service runs.
type Changing<T> = Arc<Mutex<Option<Change<T>>>>;

#[test]
fn over_tls_both_ends_know_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    certificates(folder.path());
    let tls = TlsFiles { certificate: file("server.pem"), key: file("server.key"), client_ca: Some(file("ours.pem")) };
    let (policy, mut config) = (policy(true), ServeConfig::default());
    (config.grpc, config.tls) = (Some(([127, 0, 0, 1], 0).into()), Some(tls));
    let server = Server::start(config, policy, "policy", None).unwrap();
    let port = server.endpoints().grpc.unwrap().port();
    let address: Address = format!("https://localhost:{port}").parse().unwrap();
    let find = |authority: &str, name: Option<&str>| {
        let identity = name.map(|name| ClientIdentity {
            certificate: file(&format!("{name}.pem")),
            key: file(&format!("{name}.key")),
        });
        let tls = Some(ClientTls { authority: file(authority), identity });
        let access = PolicyAccess { address: address.clone(), tls, token: None };
        PolicyService::find(&access, Schedule::default(), &Paused::default())
    };
    for (authority, name) in [("theirs.pem", Some("client")), ("ours.pem", Some("stranger")), ("ours.pem", None)] {
        assert!(matches!(find(authority, name), Err(ServiceError::Away { .. })), "{authority} {name:?}");
    }
    let mut judge = judge(&Arc::new(find("ours.pem", Some("client")).unwrap()), LONG);
    let mut state = StateVector::from_slice(&[0.0; WIDTH]).unwrap();
    assert_eq!(judge.judge(&question(0, true), &mut state).unwrap().action, Action::Release);
}

/// A service that follows a test.
#[derive(Clone, Default)]
struct Fake {
    /// It answers no question while this stands.
    stalls: Arc<AtomicBool>,
    /// What it does to its answers.
    changes: Changing<DecideResponse>,
    describes: Changing<DescribeResponse>,
}

#[tonic::async_trait]
impl Served for Fake {
    async fn decide(&self, request: Request<DecideRequest>) -> Result<Response<DecideResponse>, Status> {
        let DecideRequest { state_bytes, mask_bits, .. } = request.into_inner();
        while self.stalls.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The first value of the state tells which question this is the answer to.
        let first = f32::from_le_bytes(state_bytes[..4].try_into().unwrap());
        let mut answer = DecideResponse {
            action: mask_bits.unwrap().trailing_zeros(),
            action_name: Action::from_index(mask_bits.unwrap().trailing_zeros() as usize).unwrap().name().to_owned(),
            q_values: vec![first; 5],
            model_version: "0123456789abcdef".to_owned(),
            cost: Some(0.5),
            ..DecideResponse::default()
        };
        if let Some(change) = *self.changes.lock().unwrap() {
            change(&mut answer);
        }
        Ok(Response::new(answer))
    }

    async fn decide_batch(&self, _: Request<DecideBatchRequest>) -> Result<Response<DecideBatchResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

    async fn session(&self, _: Request<Streaming<SessionRequest>>) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<DescribeResponse>, Status> {
        let WindowConfig { max_events, max_ns, max_windows } = window();
        let mut told = DescribeResponse {
            feature_spec: FeatureSpec::v1(window()).hash().to_vec(),
            width: WIDTH as u32,
            actions: Action::ALL.iter().map(|action| action.name().to_owned()).collect(),
            max_events,
            max_ns,
            max_windows,
            target_fprs: vec![0.05],
            model_version: "0123456789abcdef".to_owned(),
        };
        if let Some(change) = *self.describes.lock().unwrap() {
            change(&mut told);
        }
        Ok(Response::new(told))
    }
}

fn fake(path: &Path) -> (Fake, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let fake = Fake::default();
    let listener = UnixListener::bind(path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let incoming = {
        let _inside = runtime.enter();
        tokio_stream::wrappers::UnixListenerStream::new(tokio::net::UnixListener::from_std(listener).unwrap())
    };
    let server = tonic::transport::Server::builder().add_service(PolicyServiceServer::new(fake.clone()));
    runtime.spawn(server.serve_with_incoming(incoming));
    (fake, runtime)
}

#[test]
fn a_service_that_stalls_is_waited_for_so_long_and_answers_the_question_that_stands() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.sock");
    let (fake, _runtime) = fake(&path);
    let service = find(&path);
    let (mut brief, mut patient) = (judge(&service, Duration::from_millis(5)), judge(&service, LONG));
    let state = |step: u32| {
        let mut values = [0.0; WIDTH];
        values[0] = step as f32 / 1_000.0;
        StateVector::from_slice(&values).unwrap()
    };
    fake.stalls.store(true, Ordering::Relaxed);
    for step in 0..200 {
        let judged = brief.judge(&question(step, false), &mut state(step));
        // A crowd of questions that were given up is no reason to lose the connection for good.
        assert!(matches!(judged, Err(Away::Late { limit_ms: 5 } | Away::Gone)), "{judged:?}");
    }
    fake.stalls.store(false, Ordering::Relaxed);
    let answered =
        (200..400).find_map(|step| patient.judge(&question(step, false), &mut state(step)).ok().zip(Some(step)));
    let (judged, step) = answered.unwrap();
    assert_eq!(judged.q_values[0], step as f32 / 1_000.0);
}

#[test]
fn a_service_that_stays_silent_holds_each_window_as_long_as_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.sock");
    let (fake, _runtime) = fake(&path);
    let service = find(&path);
    fake.stalls.store(true, Ordering::Relaxed);
    let limit = Duration::from_millis(5);
    let stage = Scripted::new(Script { windows: vec![4; 6], ..Script::default() });
    let setup = setup(&folder.path().join("e"), nothing(), 1);
    let (report, _, _) = play(&setup, [&stage, &stage], &mut judge(&service, limit));
    fake.stalls.store(false, Ordering::Relaxed);
    assert_eq!((report.verdict, report.safe_rule), (Some(Action::Terminate), 6));
    for decision in &report.decisions {
        assert_eq!(decision.safe_rule.as_deref(), Some("no answer within 5 ms"));
        // A hundredfold for a busy machine.
        assert!((5_000..500_000).contains(&decision.took_us), "{} us", decision.took_us);
    }
}

#[test]
fn what_a_service_says_is_taken_when_it_makes_sense() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.sock");
    let (fake, _runtime) = fake(&path);
    let mut judge = judge(&find(&path), LONG);
    let mut state = StateVector::from_slice(&[0.0; WIDTH]).unwrap();
    let changes: [(Change<DecideResponse>, &str); 7] = [
        (|answer| answer.action = 7, "no action"),
        (|answer| answer.action_name = "terminate".to_owned(), "no action"),
        (|answer| answer.q_values.truncate(4), "no value for each action"),
        (|answer| answer.q_values[2] = f32::NAN, "no numbers"),
        (|answer| answer.margin = Some(f32::INFINITY), "no numbers"),
        (|answer| answer.model_version = "\u{1b}[2J".to_owned(), "no version"),
        (|answer| answer.cost = None, "no cost"),
    ];
    for (change, why) in changes {
        *fake.changes.lock().unwrap() = Some(change);
        let refused = judge.judge(&question(0, false), &mut state).unwrap_err().to_string();
        assert!(refused.contains(why), "{why}: {refused}");
    }
    *fake.changes.lock().unwrap() = None;
    assert!(judge.judge(&question(0, false), &mut state).is_ok());
    let describes: [(Change<DescribeResponse>, JudgeError); 5] = [
        (|told| told.actions.swap(0, 1), JudgeError::Actions),
        (|told| told.width -= 1, JudgeError::States),
        (|told| told.max_events = 0, JudgeError::States),
        (|told| told.max_ns += 1, JudgeError::States),
        (|told| told.feature_spec.clear(), JudgeError::States),
    ];
    for (change, wanted) in describes {
        *fake.describes.lock().unwrap() = Some(change);
        let found = PolicyService::find(&access(&path), Schedule::default(), &Paused::default());
        assert!(matches!(found, Err(ServiceError::Unfit { cause, .. }) if cause == wanted), "{wanted:?}");
    }
}
