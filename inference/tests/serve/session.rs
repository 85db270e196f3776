//! Sessions: the windows of a running sample, answered as the same recording would be, several episodes at a time.

use std::convert::Infallible;

use bellwether_env_adapter::action::mask;
use bellwether_env_adapter::spec::{WIDTH, element, encode_cost};
use bellwether_env_adapter::{
    EpisodeAttributes, EpisodeId, Event, EventKind, EventSink, RewardConfig, Window, WindowConfig, WindowSink, Windower,
};
use bellwether_inference::serve::proto::policy::policy_service_client::PolicyServiceClient;
use bellwether_inference::serve::proto::policy::session_request::Message;
use bellwether_inference::serve::proto::policy::session_response::Message as Reply;
use bellwether_inference::serve::proto::policy::{
    End, Events, Open, ReadyState, SessionRequest, SessionResponse, Tick, WindowDecision,
};
use bellwether_inference::serve::proto::telemetry;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::nets::Draw;
use crate::started::{channel, shipped, start, start_shipped, until};

/// A stream with both its ends in hand.
pub(crate) struct Stream {
    requests: mpsc::Sender<SessionRequest>,
    replies: Streaming<SessionResponse>,
}

impl Stream {
    pub(crate) async fn open(server: &bellwether_inference::serve::Server) -> Stream {
        let mut client = PolicyServiceClient::new(channel(server).await);
        let (requests, waiting) = mpsc::channel(64);
        let replies = client.session(ReceiverStream::new(waiting)).await.unwrap().into_inner();
        Stream { requests, replies }
    }

    pub(crate) async fn send(&self, message: Message) {
        self.requests.send(SessionRequest { message: Some(message) }).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Reply>, Status> {
        Ok(self.replies.message().await?.map(|response| response.message.unwrap()))
    }

    async fn decision(&mut self) -> WindowDecision {
        match self.next().await.unwrap() {
            Some(Reply::Decision(decision)) => decision,
            other => panic!("{other:?}"),
        }
    }

    /// The code and the text of a refusal.
    async fn refusal(&mut self) -> (Code, String) {
        match self.next().await.unwrap() {
            Some(Reply::Refusal(refusal)) => (Code::from_i32(refusal.code as i32), refusal.message),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn opened(id: &str) -> Open {
    Open { episode_id: id.to_owned(), cost: Some(0.5), with_q_values: true, ..Open::default() }
}

/// Events that differ from seed to seed, 3 ms apart.
fn events(seed: u64, count: u64) -> Vec<telemetry::Event> {
    let mut draw = Draw(seed);
    let names = ["openat", "read", "write", "rename", "connect", "mmap", "unlink", "clone"];
    let event = |seq: u64| {
        let name = names[(draw.bits() % 8) as usize];
        let path = format!("/home/user/{}.txt", draw.bits() % 9);
        let time_ns = Some(seq * 3_000_000);
        let event = Event { time_ns, path: Some(&path), pid: Some(7), ..Event::named(seq, EventKind::File, name) };
        telemetry::Event::from(&event)
    };
    (0..count).map(event).collect()
}

struct Answered {
    cost: f32,
    answers: Vec<(u32, u32, u32, Vec<f32>)>,
    decider: bellwether_inference::Decider,
}

impl WindowSink for Answered {
    type Error = Infallible;

    fn begin(&mut self, _: &EpisodeAttributes) -> Result<(), Infallible> {
        Ok(())
    }

    fn window(&mut self, window: &Window<'_>) -> Result<(), Infallible> {
        let mut state = window.state.as_slice().to_vec();
        state[element::COST] = encode_cost(self.cost);
        // A window that is full is not known to be the last.
        let last = window.last && window.events < 16;
        let answer = self.decider.decide(&state, &mask(last, false)).unwrap();
        let action = answer.decision.action as u32;
        self.answers.push((window.index, window.events, action, answer.decision.q_values.to_vec()));
        Ok(())
    }

    fn end(&mut self, _: bool) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Position, events, action and values of each window of the recording.
fn of_recording(events: &[telemetry::Event], cost: f32) -> Vec<(u32, u32, u32, Vec<f32>)> {
    let release = shipped();
    let window = release.manifest.features.window;
    let config = WindowConfig { max_events: window.max_events, max_ns: window.max_ns, max_windows: 0 };
    assert_eq!(config.max_events, 16);
    let policy = bellwether_inference::Policy::new(release, None, Default::default()).unwrap();
    let sink = Answered { cost, answers: Vec::new(), decider: policy.decider() };
    let mut windower = Windower::new(&config, &RewardConfig::default(), sink);
    let attributes = EpisodeAttributes {
        episode_id: EpisodeId("e".to_owned()),
        label: None,
        family: None,
        source: None,
        sample_sha256: None,
        complete: true,
    };
    let Ok(()) = windower.begin(&attributes);
    for event in events {
        let Ok(()) = windower.event(&event.record().unwrap());
    }
    let Ok(()) = windower.end(true);
    windower.into_sink().answers
}

#[tokio::test]
async fn interleaved_episodes_are_answered_as_their_recordings_would_be() {
    let server = start_shipped(|_| ());
    let mut stream = Stream::open(&server).await;
    let episodes: Vec<(String, Vec<telemetry::Event>)> =
        (0..5).map(|seed| (format!("episode {seed}"), events(seed, 100 + 7 * seed))).collect();
    for (id, _) in &episodes {
        stream.send(Message::Open(opened(id))).await;
    }
    let mut found: std::collections::BTreeMap<String, Vec<WindowDecision>> = Default::default();
    let requests = stream.requests.clone();
    let sent = episodes.clone();
    // Whoever writes all before reading anything waits for the server, and the server for them.
    tokio::spawn(async move {
        for part in 0..20_usize {
            for (id, events) in &sent {
                let events: Vec<_> = events.iter().skip(part * 8).take(8).cloned().collect();
                let message = Some(Message::Events(Events { episode_id: id.clone(), events }));
                requests.send(SessionRequest { message }).await.unwrap();
            }
        }
        for (id, _) in &sent {
            let message = Some(Message::End(End { episode_id: id.clone() }));
            requests.send(SessionRequest { message }).await.unwrap();
        }
    });
    let mut ended = 0;
    while ended < episodes.len() {
        match stream.next().await.unwrap().unwrap() {
            Reply::Decision(decision) => found.entry(decision.episode_id.clone()).or_default().push(decision),
            Reply::Ended(end) => {
                let (_, events) = episodes.iter().find(|(id, _)| *id == end.episode_id).unwrap();
                assert_eq!((end.events, end.unseen), (events.len() as u64, 0));
                assert_eq!(end.windows, found[&end.episode_id].len() as u64);
                ended += 1;
            }
            Reply::Refusal(refusal) => panic!("{refusal:?}"),
        }
    }
    for (id, events) in &episodes {
        let expected = of_recording(events, 0.5);
        let found: Vec<_> = found[id]
            .iter()
            .map(|window| {
                let decision = window.decision.as_ref().unwrap();
                (window.window, window.events, decision.action, decision.q_values.clone())
            })
            .collect();
        assert_eq!(found, expected);
        assert!(expected.len() >= 6);
    }
    assert_eq!(server.shared().episodes.now(), 0);
}

#[tokio::test]
async fn a_cap_asks_for_a_verdict_and_a_second_stage_starts_fresh() {
    let server = start_shipped(|_| ());
    let mut stream = Stream::open(&server).await;
    stream.send(Message::Open(Open { max_windows: Some(2), ..opened("a") })).await;
    stream.send(Message::Events(Events { episode_id: "a".to_owned(), events: events(1, 40) })).await;
    let (first, second) = (stream.decision().await, stream.decision().await);
    assert_eq!((first.window, first.last, second.window, second.last), (0, false, 1, true));
    assert!(second.decision.unwrap().action >= 2, "a verdict must fall");
    stream.send(Message::Open(Open { stage: 2, ..opened("a") })).await;
    let in_stage_2 = events(2, 20).into_iter().map(|event| telemetry::Event { stage: 2, ..event }).collect();
    stream.send(Message::Events(Events { episode_id: "a".to_owned(), events: in_stage_2 })).await;
    let third = stream.decision().await;
    assert_eq!((third.stage, third.window, third.events, third.last), (2, 0, 16, false));
    stream.send(Message::End(End { episode_id: "a".to_owned() })).await;
    let last = stream.decision().await;
    assert_eq!((last.stage, last.window, last.events, last.last), (2, 1, 4, true));
    let Some(Reply::Ended(ended)) = stream.next().await.unwrap() else { panic!("the episode did not end") };
    assert_eq!((ended.windows, ended.events, ended.unseen), (4, 32 + 20, 8));
}

#[tokio::test]
async fn time_closes_a_window_of_a_sample_that_sleeps() {
    let server = start_shipped(|_| ());
    let mut stream = Stream::open(&server).await;
    stream.send(Message::Open(opened("a"))).await;
    stream.send(Message::Events(Events { episode_id: "a".to_owned(), events: events(1, 3) })).await;
    let tick = |now_ns| Message::Tick(Tick { episode_id: "a".to_owned(), now_ns });
    stream.send(tick(99_999_999)).await;
    stream.send(tick(100_000_000)).await;
    stream.send(tick(900_000_000)).await;
    let decision = stream.decision().await;
    assert_eq!((decision.window, decision.events, decision.last), (0, 3, false));
    stream.send(Message::End(End { episode_id: "a".to_owned() })).await;
    assert!(matches!(stream.next().await.unwrap(), Some(Reply::Ended(ended)) if ended.windows == 1));
}

#[tokio::test]
async fn ready_states_are_answered_with_the_mask_that_follows_from_the_stage() {
    let server = start_shipped(|_| ());
    let mut stream = Stream::open(&server).await;
    let open = Open { max_windows: Some(2), can_raise_isolation: true, cost: None, ..opened("a") };
    stream.send(Message::Open(open)).await;
    let policy = bellwether_inference::Policy::new(shipped(), None, Default::default()).unwrap();
    let mut decider = policy.decider();
    let state = |level: f32| {
        let mut state = vec![0.25; WIDTH];
        state[element::LEVEL] = level;
        state
    };
    let ready =
        |level| Message::State(ReadyState { episode_id: "a".to_owned(), state: state(level), ..ReadyState::default() });
    for (window, level, last, can_raise) in [(0, 1.0, false, false), (1, 0.0, true, false)] {
        stream.send(ready(level)).await;
        let found = stream.decision().await;
        assert_eq!((found.window, found.events, found.last), (window, 0, last));
        let expected = decider.decide(&state(level), &mask(last, can_raise)).unwrap();
        assert_eq!(found.decision.unwrap().action, expected.decision.action as u32);
    }
    stream.send(ready(0.0)).await;
    assert_eq!(stream.refusal().await.0, Code::FailedPrecondition);
}

#[tokio::test]
async fn a_message_that_is_refused_changes_nothing_and_the_stream_goes_on() {
    let server = start_shipped(|config| config.limits.episodes_per_stream = 2);
    let mut stream = Stream::open(&server).await;
    let feed = |events| Message::Events(Events { episode_id: "a".to_owned(), events });
    let ready = |id: &str, state: Vec<f32>| {
        Message::State(ReadyState { episode_id: id.to_owned(), state, ..ReadyState::default() })
    };
    stream.send(Message::Open(opened("a"))).await;
    stream.send(Message::Open(opened("b"))).await;
    let mut wrong_field = events(1, 20);
    wrong_field[17].peer_port = Some(70_000);
    let mut not_in_order = events(1, 20);
    not_in_order[9].seq = 8;
    let mut other_stage = events(1, 20);
    other_stage[3].stage = 2;
    let both = Open { target_fpr: Some(0.01), ..opened("c") };
    let mut not_a_number = vec![0.5; WIDTH];
    not_a_number[100] = f32::NAN;
    for (message, code, part) in [
        (feed(wrong_field), Code::InvalidArgument, "event 17: peer_port is 70000"),
        (feed(not_in_order), Code::InvalidArgument, "event 9: seq is 8 after 8: give each event a higher one"),
        (feed(other_stage), Code::InvalidArgument, "event 3: stage is 2, and stage 1 is open: send events of that one"),
        (
            Message::Open(opened("a")),
            Code::AlreadyExists,
            "is open in stage 1: open the stage after it, or end it first",
        ),
        (Message::Open(opened("")), Code::InvalidArgument, "0 bytes"),
        (Message::Open(opened(&"x".repeat(300))), Code::InvalidArgument, "300 bytes"),
        (Message::Open(opened("c")), Code::ResourceExhausted, "2 episodes are open"),
        (Message::Open(Open { stage: 3, ..opened("a") }), Code::InvalidArgument, "stage is 3: give 1 or 2"),
        (
            Message::Open(Open { stage: 2, ..Open { cost: Some(1.0), ..opened("a") } }),
            Code::InvalidArgument,
            "cost is 1: give a number from 0, and below 1",
        ),
        (
            Message::Open(Open { cost: None, stage: 2, target_fpr: Some(0.5), ..opened("a") }),
            Code::InvalidArgument,
            "was not calibrated for a false-positive rate of 0.5",
        ),
        (Message::Open(Open { episode_id: "a".to_owned(), stage: 2, ..both }), Code::InvalidArgument, "both target"),
        (Message::End(End { episode_id: "z".to_owned() }), Code::NotFound, "no episode \"z\""),
        (Message::Tick(Tick { episode_id: "z".to_owned(), now_ns: 0 }), Code::NotFound, "no episode \"z\""),
        (ready("b", vec![0.5; 3]), Code::InvalidArgument, "the state has 3 values"),
        (ready("b", not_a_number), Code::InvalidArgument, "value 100 of the state is NaN"),
    ] {
        stream.send(message).await;
        let (found, text) = stream.refusal().await;
        assert_eq!(found, code, "{text}");
        assert!(text.contains(part), "{part}: {text}");
    }
    // The windows are those of events that were never refused.
    stream.send(feed(events(1, 20))).await;
    let decision = stream.decision().await;
    assert_eq!((decision.window, decision.events), (0, 16));
    assert_eq!(decision.decision.unwrap().q_values, of_recording(&events(1, 20), 0.5)[0].3);
    stream.send(ready("a", vec![0.5; WIDTH])).await;
    let (code, text) = stream.refusal().await;
    assert!(code == Code::FailedPrecondition && text.contains("fed by events: send events"), "{code:?} {text}");
    // Nor does it say how a stage is fed.
    let mut early = events(1, 2);
    early[0].stage = 2;
    stream.send(Message::Events(Events { episode_id: "b".to_owned(), events: early })).await;
    assert_eq!(stream.refusal().await.0, Code::InvalidArgument);
    stream.send(ready("b", vec![0.5; WIDTH])).await;
    assert_eq!(stream.decision().await.episode_id, "b");
    // An empty message is told, too.
    stream.requests.send(SessionRequest { message: None }).await.unwrap();
    assert_eq!(stream.refusal().await.0, Code::InvalidArgument);
}

#[tokio::test]
async fn events_want_a_cost_and_a_model_that_reads_their_states() {
    let server = start_shipped(|_| ());
    let mut stream = Stream::open(&server).await;
    stream.send(Message::Open(Open { cost: None, ..opened("a") })).await;
    stream.send(Message::Events(Events { episode_id: "a".to_owned(), events: events(1, 1) })).await;
    let (code, text) = stream.refusal().await;
    assert_eq!(code, Code::FailedPrecondition);
    assert!(text.contains("target_fpr or cost"), "{text}");
    let other = start(|_| ());
    let mut stream = Stream::open(&other).await;
    stream.send(Message::Open(opened("a"))).await;
    stream.send(Message::Events(Events { episode_id: "a".to_owned(), events: events(1, 1) })).await;
    assert!(stream.refusal().await.1.contains("reads other states"));
}

#[tokio::test]
async fn episodes_are_bounded_over_all_streams_and_freed_with_theirs() {
    let server = start_shipped(|config| config.limits.episodes = 3);
    let mut first = Stream::open(&server).await;
    for id in ["a", "b", "c"] {
        first.send(Message::Open(opened(id))).await;
    }
    first.send(Message::Open(opened("d"))).await;
    assert_eq!(first.refusal().await.0, Code::ResourceExhausted);
    assert_eq!(server.shared().episodes.now(), 3);
    drop(first);
    until("the end of the stream", || server.shared().episodes.now() == 0).await;
}

#[tokio::test]
async fn a_rate_that_the_model_does_not_know_is_refused_when_it_is_asked_for() {
    let server = start(|_| ());
    let mut stream = Stream::open(&server).await;
    for target in [0.02, f64::NAN, -1.0] {
        stream.send(Message::Open(Open { cost: None, target_fpr: Some(target), ..opened("a") })).await;
        let (code, text) = stream.refusal().await;
        assert!(code == Code::InvalidArgument && text.contains("it knows 0.01, 0.05"), "{code:?} {text}");
        assert_eq!(server.shared().episodes.now(), 0);
    }
    stream.send(Message::Open(Open { cost: None, target_fpr: Some(0.05), ..opened("a") })).await;
    until("the episode", || server.shared().episodes.now() == 1).await;
}

#[tokio::test]
async fn a_silent_stream_ends_and_so_does_one_whose_deadline_passes() {
    let server = start_shipped(|config| config.times.stream_idle_ms = 50);
    let mut stream = Stream::open(&server).await;
    stream.send(Message::Open(opened("a"))).await;
    let status = stream.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Cancelled);
    assert!(status.message().contains("nothing came on this stream for 50 ms"), "{status}");
    let patient = start_shipped(|_| ());
    let mut client = PolicyServiceClient::new(channel(&patient).await);
    let (requests, waiting) = mpsc::channel::<SessionRequest>(1);
    let mut request = tonic::Request::new(ReceiverStream::new(waiting));
    // Sent as it is: a client of this crate would end the call itself.
    request.metadata_mut().insert("grpc-timeout", "60m".parse().unwrap());
    let mut replies = client.session(request).await.unwrap().into_inner();
    assert_eq!(replies.message().await.unwrap_err().code(), Code::DeadlineExceeded);
    drop(requests);
    until("the end of both", || patient.shared().sessions.now() == 0).await;
}
