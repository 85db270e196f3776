//! The protocol itself: orders, acknowledgements, actions that come twice, too late or forged, and who may call.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bellwether_artifact::Sha256;
use bellwether_env_adapter::Action;
use bellwether_sandbox::stage::remote::proto::sandbox_service_client::SandboxServiceClient;
use bellwether_sandbox::stage::remote::proto::{
    ActRequest, DetonateRequest, FollowRequest, FollowResponse, Limits, Order, Outcome, Question, Record, Refusal,
    Specimen, StopRequest, Window, act_response, detonate_request::Part, record::What,
};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::stages::{Busy, serve, until};

/// A client that says what it likes.
pub(super) struct Raw {
    pub(super) runtime: Runtime,
    channel: Channel,
}

/// A stream of records, and the way to acknowledge them.
pub(super) struct Followed {
    pub(super) requests: mpsc::Sender<FollowRequest>,
    records: Streaming<FollowResponse>,
}

impl Raw {
    pub(super) fn connect(path: &Path) -> Raw {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let endpoint = tonic::transport::Endpoint::from_shared(format!("unix:{}", path.display())).unwrap();
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        Raw { runtime, channel }
    }

    fn client(&self) -> SandboxServiceClient<Channel> {
        SandboxServiceClient::new(self.channel.clone())
    }

    /// Whether the order was known.
    pub(super) fn detonate(&self, order: Order, pieces: &[&[u8]]) -> Result<bool, Status> {
        let order = std::iter::once(Part::Order(order));
        let pieces = pieces.iter().map(|piece| Part::Data(piece.to_vec().into()));
        let parts: Vec<_> = order.chain(pieces).map(|part| DetonateRequest { part: Some(part) }).collect();
        let answer = self.runtime.block_on(self.client().detonate(tokio_stream::iter(parts)));
        answer.map(|answer| answer.into_inner().known)
    }

    pub(super) fn follow(&self, from: u64) -> Result<Followed, Status> {
        let (requests, outgoing) = mpsc::channel(8);
        let first = FollowRequest { episode_id: "e1".to_owned(), stage: 1, from, acknowledged: 0 };
        requests.try_send(first).unwrap();
        let records = self.runtime.block_on(self.client().follow(ReceiverStream::new(outgoing)))?;
        Ok(Followed { requests, records: records.into_inner() })
    }

    pub(super) fn next(&self, followed: &mut Followed) -> Result<Vec<Record>, Status> {
        let message = self.runtime.block_on(followed.records.message())?;
        Ok(message.map(|message| message.records).unwrap_or_default())
    }

    /// Follows until a record of some kind.
    pub(super) fn find<T>(&self, followed: &mut Followed, kind: impl Fn(What) -> Option<T>) -> T {
        loop {
            let found = self.next(followed).unwrap().into_iter().find_map(|record| kind(record.what?));
            if let Some(found) = found {
                return found;
            }
        }
    }

    pub(super) fn question(&self, followed: &mut Followed) -> Question {
        self.find(followed, |what| if let What::Question(question) = what { Some(question) } else { None })
    }

    pub(super) fn act(&self, request: ActRequest) -> Result<act_response::Result, Status> {
        let answer = self.runtime.block_on(self.client().act(request));
        answer.map(|answer| answer.into_inner().result.unwrap())
    }

    /// The last record of a run: its outcome, or why it did not start.
    pub(super) fn last(&self) -> Result<Outcome, String> {
        let mut followed = self.follow(0).unwrap();
        self.find(&mut followed, |what| match what {
            What::Outcome(outcome) => Some(Ok(outcome)),
            What::Unstarted(unstarted) => Some(Err(unstarted.why)),
            _ => None,
        })
    }
}

/// An order for a file.
pub(super) fn announce(file: &[u8]) -> Order {
    Order {
        episode_id: "e1".to_owned(),
        stage: 1,
        specimen: Some(Specimen {
            bytes: file.len() as u64,
            sha256: Sha256::of(file).as_bytes().to_vec(),
            name: "sample".to_owned(),
            arguments: vec![b"--one".to_vec()],
            marked_home: false,
        }),
        window: Some(Window { max_events: 16, max_ns: 100_000_000, max_windows: 0 }),
        reward_json: "{}".to_owned(),
        limits: Some(Limits {
            tasks: 64,
            memory_bytes: 512 << 20,
            storage_bytes: 256 << 20,
            descriptors: 1_024,
            time_ms: 60_000,
        }),
        seed: 7,
        answer_within_ms: 0,
    }
}

pub(super) fn action(question: &Question, action: Action) -> ActRequest {
    ActRequest {
        decision_id: format!("e1:1:{}", question.step),
        episode_id: "e1".to_owned(),
        stage: 1,
        step: question.step,
        window: question.window,
        level: question.level,
        level_after: question.level + u32::from(action == Action::RaiseIsolation),
        action: action as u32,
        state_sha256: Sha256::of(&question.state).as_bytes().to_vec(),
        q_values: vec![0.0; 5],
        ..ActRequest::default()
    }
}

#[test]
fn nothing_runs_before_the_whole_file_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Arc::new(Busy { windows: vec![1], ..Busy::default() });
    let (server, path) = serve(folder.path(), stage.clone(), |config| config.specimen_bytes = 1_000);
    let raw = Raw::connect(&path);
    let file = [7; 600];
    let changed = |change: fn(&mut Order)| {
        let mut order = announce(&[7; 600]);
        change(&mut order);
        order
    };
    let refused: [(Order, &[&[u8]], Code, &str); 13] = [
        (announce(&file), &[&file[..599]], Code::InvalidArgument, "announced"),
        (announce(&file), &[&file, b"x"], Code::InvalidArgument, "longer"),
        (announce(&file), &[&[8; 600]], Code::InvalidArgument, "announced"),
        (announce(&[7; 1_001]), &[&[7; 1_001]], Code::InvalidArgument, "at most 1000"),
        (changed(|order| order.stage = 2), &[&file], Code::FailedPrecondition, "stage 2"),
        (changed(|order| order.stage = 3), &[&file], Code::InvalidArgument, "stage"),
        (changed(|order| order.episode_id.clear()), &[&file], Code::InvalidArgument, "episode_id"),
        (changed(|order| order.reward_json = "{".to_owned()), &[&file], Code::InvalidArgument, "reward_json"),
        (changed(|order| order.answer_within_ms = 60_001), &[&file], Code::InvalidArgument, "answer_within_ms"),
        (changed(|order| order.limits = None), &[&file], Code::InvalidArgument, "limits"),
        (changed(|order| order.specimen = None), &[&file], Code::InvalidArgument, "specimen"),
        (
            changed(|order| order.specimen.as_mut().unwrap().name = "../up".to_owned()),
            &[&file],
            Code::InvalidArgument,
            "specimen.name",
        ),
        (
            changed(|order| order.specimen.as_mut().unwrap().arguments = vec![b"a\0b".to_vec()]),
            &[&file],
            Code::InvalidArgument,
            "specimen.arguments",
        ),
    ];
    for (order, pieces, code, part) in refused {
        let status = raw.detonate(order, pieces).unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(part), "{status}");
    }
    assert_eq!((server.runs(), stage.files.lock().unwrap().len()), ((0, 0), 0));
    raw.detonate(announce(&file), &[&file[..10], &[], &file[10..]]).unwrap();
    until("the run", || stage.files.lock().unwrap().first() == Some(&file.to_vec()));
}

#[test]
fn the_same_order_again_is_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Arc::new(Busy { windows: vec![1; 2], ..Busy::default() });
    let (server, path) = serve(folder.path(), stage.clone(), |config| config.runs = 1);
    let raw = Raw::connect(&path);
    assert!(!raw.detonate(announce(b"x"), &[b"x"]).unwrap());
    assert!(raw.detonate(announce(b"x"), &[b"x"]).unwrap());
    let other = raw.detonate(announce(b"y"), &[b"y"]).unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    let beyond = Order { episode_id: "e2".to_owned(), ..announce(b"x") };
    assert_eq!(raw.detonate(beyond, &[b"x"]).unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(server.runs(), (1, 1));
    until("the run", || stage.files.lock().unwrap().len() == 1);
}

#[test]
fn the_sample_waits_while_too_much_is_not_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Arc::new(Busy { windows: vec![1_000], ..Busy::default() });
    let (_server, path) = serve(folder.path(), stage.clone(), |config| config.backlog_records = 50);
    let raw = Raw::connect(&path);
    raw.detonate(announce(b"x"), &[b"x"]).unwrap();
    let mut followed = raw.follow(0).unwrap();
    let mut numbers = Vec::new();
    while numbers.len() < 50 {
        numbers.extend(raw.next(&mut followed).unwrap().iter().map(|record| record.number));
    }
    until("the 51st event", || stage.told.load(Ordering::Relaxed) == 51);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(stage.told.load(Ordering::Relaxed), 51, "one more than is kept waits for room");
    // From anywhere that is still kept, by whoever comes last.
    let mut again = raw.follow(30).unwrap();
    assert_eq!(raw.next(&mut again).unwrap()[0].number, 30);
    assert_eq!(raw.next(&mut followed).unwrap_err().code(), Code::Aborted);
    let below = FollowRequest { acknowledged: 40, ..FollowRequest::default() };
    raw.runtime.block_on(again.requests.send(below)).unwrap();
    until("room for 40 more", || stage.told.load(Ordering::Relaxed) == 91);
    assert_eq!(raw.follow(39).err().unwrap().code(), Code::OutOfRange);
    assert_eq!(raw.follow(92).err().unwrap().code(), Code::OutOfRange);
    let beyond = FollowRequest { acknowledged: 1_000_000, ..FollowRequest::default() };
    raw.runtime.block_on(again.requests.send(beyond)).unwrap();
    let status = loop {
        if let Err(status) = raw.next(&mut again) {
            break status;
        }
    };
    assert_eq!(status.code(), Code::OutOfRange);
}

#[test]
fn an_action_takes_hold_once_whatever_else_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Arc::new(Busy { windows: vec![1; 4], ..Busy::default() });
    let (_server, path) = serve(folder.path(), stage.clone(), |_| {});
    let raw = Raw::connect(&path);
    raw.detonate(announce(b"x"), &[b"x"]).unwrap();
    use act_response::Result::{Applied, Refused, Repeated};
    let why = |result: Result<act_response::Result, Status>| match result.unwrap() {
        Refused(why) => Refusal::try_from(why).unwrap(),
        other => panic!("{other:?}"),
    };
    let mut followed = raw.follow(0).unwrap();
    let first = raw.question(&mut followed);
    // Each part of the context counts.
    let good = action(&first, Action::RaiseIsolation);
    for forged in [
        ActRequest { decision_id: "e1:1:1".to_owned(), ..good.clone() },
        ActRequest { step: 1, ..good.clone() },
        ActRequest { window: 1, ..good.clone() },
        ActRequest { level: 1, ..good.clone() },
        ActRequest { level_after: 2, ..good.clone() },
        ActRequest { action: 0, ..good.clone() },
        ActRequest { state_sha256: vec![0; 32], ..good.clone() },
    ] {
        assert_eq!(why(raw.act(forged)), Refusal::Context);
    }
    let elsewhere = ActRequest { episode_id: "e2".to_owned(), ..good.clone() };
    assert_eq!(raw.act(elsewhere).unwrap_err().code(), Code::NotFound);
    for wrong in [ActRequest { action: 5, ..good.clone() }, ActRequest { q_values: vec![0.0; 4], ..good.clone() }] {
        assert_eq!(raw.act(wrong).unwrap_err().code(), Code::InvalidArgument);
    }
    assert!(matches!(raw.act(good.clone()).unwrap(), Applied(_)));
    let second = raw.question(&mut followed);
    match raw.act(good.clone()).unwrap() {
        Repeated(repeated) => assert_eq!(repeated.feedback.unwrap().decision_id, "e1:1:0"),
        other => panic!("{other:?}"),
    }
    let forged = ActRequest { action: 3, level_after: 0, ..good };
    assert_eq!(why(raw.act(forged)), Refusal::Name);
    // Going on is idempotent too.
    let on = action(&second, Action::Continue);
    assert!(matches!(raw.act(on.clone()).unwrap(), Applied(_)));
    assert!(matches!(raw.act(on.clone()).unwrap(), Repeated(_)));
    let third = raw.question(&mut followed);
    assert!(matches!(raw.act(action(&third, Action::Terminate)).unwrap(), Applied(_)));
    assert_eq!(why(raw.act(action(&third, Action::Release))), Refusal::Name);
    until("the end", || stage.ended.load(Ordering::Relaxed) == 1);
    let actions: Vec<_> = stage.done.lock().unwrap().iter().map(|command| command.action).collect();
    assert_eq!(actions, [Action::RaiseIsolation, Action::Continue, Action::Terminate]);
    // Late: the run is over, and what had been said is known still.
    assert!(matches!(raw.act(action(&third, Action::Terminate)).unwrap(), Repeated(_)));
    assert_eq!(why(raw.act(on)), Refusal::Over);
}

#[test]
fn a_run_is_stopped_by_whoever_ordered_it() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Arc::new(Busy { windows: vec![3], lingers: true, ..Busy::default() });
    let (server, path) = serve(folder.path(), stage.clone(), |_| {});
    let raw = Raw::connect(&path);
    raw.detonate(announce(b"x"), &[b"x"]).unwrap();
    let stop = StopRequest { episode_id: "e1".to_owned(), stage: 1, why: "enough".to_owned() };
    raw.runtime.block_on(raw.client().stop(stop)).unwrap();
    until("the end", || stage.ended.load(Ordering::Relaxed) == 1);
    until("the outcome", || server.runs() == (0, 1));
    assert_eq!(raw.last().unwrap().faults.len(), 1);
}

#[test]
fn a_stage_that_leaves_takes_nothing_new_and_waits_for_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Arc::new(Busy { windows: vec![2; 2], ..Busy::default() });
    let (server, path) = serve(folder.path(), stage.clone(), |_| {});
    let raw = Raw::connect(&path);
    raw.detonate(announce(b"x"), &[b"x"]).unwrap();
    let health = |raw: &Raw| {
        let request = HealthCheckRequest { service: "bellwether.sandbox.v1.SandboxService".to_owned() };
        let answer = raw.runtime.block_on(HealthClient::new(raw.channel.clone()).check(request));
        answer.map(|answer| answer.into_inner().status).unwrap()
    };
    assert_eq!(health(&raw), 1);
    let draining = std::thread::spawn(move || server.drain(|_| true));
    until("leaving", || health(&raw) == 2);
    let next = Order { episode_id: "e2".to_owned(), ..announce(b"x") };
    assert_eq!(raw.detonate(next, &[b"x"]).unwrap_err().code(), Code::Unavailable);
    let mut followed = raw.follow(0).unwrap();
    for _ in 0..2 {
        let question = raw.question(&mut followed);
        let answer = if question.close == 4 { Action::Release } else { Action::Continue };
        raw.act(action(&question, answer)).unwrap();
    }
    raw.find(&mut followed, |what| matches!(what, What::Outcome(_)).then_some(()));
    // Four events, two questions, one feedback, one outcome.
    let all = FollowRequest { acknowledged: 8, ..FollowRequest::default() };
    raw.runtime.block_on(followed.requests.send(all)).unwrap();
    assert_eq!(draining.join().unwrap(), 0, "nothing had to be killed");
}
