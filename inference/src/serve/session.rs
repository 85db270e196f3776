//! `Session`: one sandbox connection, on which episodes are opened, fed and ended, several at a time.
//!
//! The stream is pulled: a message is read when everything that the one before asked for was taken by the client. So a
//! client that does not read holds one message, and nothing has to be thrown away for it.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tonic::{Code, Status, Streaming};

use super::answer::shortened;
use super::episode::{Episode, Told};
use super::proto::policy::session_request::Message;
use super::proto::policy::session_response::Message as Reply;
use super::proto::policy::{End, Ended, Events, Refusal, SessionRequest, SessionResponse};
use super::shared::{Phase, Shared};

/// Longest name of an episode, in bytes.
const MAX_ID_BYTES: usize = 256;

/// Events that are taken without giving other connections their turn.
const TURN: usize = 512;

/// The answers of one stream.
pub(super) struct Session {
    shared: Arc<Shared>,
    requests: Streaming<SessionRequest>,
    episodes: BTreeMap<String, Episode>,
    /// Answers that are due, before any message that is not read yet.
    due: VecDeque<SessionResponse>,
    /// Events of the message at hand, checked already.
    feeding: Option<Feeding>,
    phases: WatchStream<Phase>,
    draining: bool,
    idle: Duration,
    idle_until: Pin<Box<Sleep>>,
    deadline: Option<Pin<Box<Sleep>>>,
    over: bool,
}

/// Events that are still to be taken.
struct Feeding {
    events: Events,
    next: usize,
}

/// Why a message was refused, with the code of gRPC that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declined(pub(super) Code, pub(super) String);

impl Session {
    pub(super) fn new(shared: &Arc<Shared>, requests: Streaming<SessionRequest>, deadline: Option<Duration>) -> Self {
        let idle = shared.config.times.stream_idle();
        Session {
            shared: Arc::clone(shared),
            requests,
            episodes: BTreeMap::new(),
            due: VecDeque::new(),
            feeding: None,
            phases: WatchStream::new(shared.phase.subscribe()),
            draining: false,
            idle,
            idle_until: Box::pin(sleep(idle)),
            deadline: deadline.map(|deadline| Box::pin(sleep(deadline))),
            over: false,
        }
    }

    /// Does what a message asks; what it cannot is refused and changes nothing.
    fn handle(&mut self, request: SessionRequest) {
        let (id, done) = match request.message {
            Some(Message::Open(open)) => {
                let done = self.open(&open);
                (open.episode_id, done)
            }
            Some(Message::Events(events)) => {
                let checked = self.episode(&events.episode_id).and_then(|episode| episode.check(&events.events));
                let id = events.episode_id.clone();
                if checked.is_ok() {
                    self.feeding = Some(Feeding { events, next: 0 });
                }
                (id, checked)
            }
            Some(Message::State(state)) => {
                let id = state.episode_id.clone();
                let told = self.episode(&id).and_then(|episode| episode.state(state));
                (id.clone(), told.map(|told| self.reply(&id, told)))
            }
            Some(Message::Tick(tick)) => {
                let told = self.episode(&tick.episode_id).and_then(|episode| episode.tick(tick.now_ns));
                let id = tick.episode_id;
                (id.clone(), told.map(|told| self.reply_all(&id, told)))
            }
            Some(Message::End(End { episode_id })) => {
                let done = self.end(&episode_id);
                (episode_id, done)
            }
            None => (
                String::new(),
                Err(declined(Code::InvalidArgument, "the message is empty: send open, events, state, tick or end")),
            ),
        };
        if let Err(declined) = done {
            self.refuse(&id, declined);
        }
    }

    fn open(&mut self, open: &super::proto::policy::Open) -> Result<(), Declined> {
        let id = &open.episode_id;
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            let bytes = id.len();
            let what = format!("episode_id has {bytes} bytes; give 1 to {MAX_ID_BYTES}");
            return Err(Declined(Code::InvalidArgument, what));
        }
        if let Some(episode) = self.episodes.get_mut(id) {
            return episode.next_stage(open);
        }
        if self.draining {
            return Err(declined(Code::Unavailable, "the server is leaving; open the episode on another one"));
        }
        let limit = self.shared.config.limits.episodes_per_stream;
        if self.episodes.len() >= limit {
            return Err(Declined(
                Code::ResourceExhausted,
                format!("{limit} episodes are open on this stream; end one"),
            ));
        }
        let Some(slot) = self.shared.take(|shared| &shared.episodes) else {
            let limit = self.shared.config.limits.episodes;
            return Err(Declined(
                Code::ResourceExhausted,
                format!("{limit} episodes are open on this server; open it later, or on another one"),
            ));
        };
        let episode = Episode::open(&self.shared, slot, open)?;
        self.episodes.insert(id.clone(), episode);
        Ok(())
    }

    fn end(&mut self, id: &str) -> Result<(), Declined> {
        let told = self.episode(id)?.end();
        self.reply_all(id, told);
        if let Some(episode) = self.episodes.remove(id) {
            let (windows, events, unseen) = episode.counts();
            let ended = Ended { episode_id: id.to_owned(), windows, events, unseen };
            self.due.push_back(SessionResponse { message: Some(Reply::Ended(ended)) });
        }
        Ok(())
    }

    fn episode(&mut self, id: &str) -> Result<&mut Episode, Declined> {
        self.episodes.get_mut(id).ok_or_else(|| {
            let what = format!("no episode {:?} is open on this stream; open it first", shortened(id));
            Declined(Code::NotFound, what)
        })
    }

    /// Takes events of the message at hand until an answer is due, or it is the turn of others.
    fn feed(&mut self) {
        let Some(Feeding { events, mut next }) = self.feeding.take() else { return };
        let turn = next + TURN;
        while next < events.events.len() && next < turn && self.due.is_empty() {
            let Some(episode) = self.episodes.get_mut(&events.episode_id) else { return };
            let told = episode.event(&events.events[next]);
            next += 1;
            self.reply_all(&events.episode_id, told);
        }
        if next < events.events.len() {
            self.feeding = Some(Feeding { events, next });
        }
    }

    fn reply_all(&mut self, id: &str, told: Vec<Told>) {
        for told in told {
            self.reply(id, told);
        }
    }

    fn reply(&mut self, id: &str, told: Told) {
        match told {
            Ok(mut decision) => {
                id.clone_into(&mut decision.episode_id);
                self.due.push_back(SessionResponse { message: Some(Reply::Decision(decision)) });
            }
            Err(declined) => self.refuse(id, declined),
        }
    }

    fn refuse(&mut self, id: &str, Declined(code, message): Declined) {
        let refusal = Refusal { code: code as u32, message, episode_id: shortened(id) };
        self.due.push_back(SessionResponse { message: Some(Reply::Refusal(refusal)) });
    }

    /// Why the stream ends now, if it does.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Option<Result<(), Status>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Some(Err(Status::deadline_exceeded(
                "the deadline of the stream has passed: give streams a longer one, or none",
            )));
        }
        while let Poll::Ready(Some(phase)) = Pin::new(&mut self.phases).poll_next(cx) {
            self.draining = phase >= Phase::Draining;
        }
        if self.draining && self.episodes.is_empty() {
            return Some(Ok(()));
        }
        if self.idle_until.as_mut().poll(cx).is_ready() {
            let what = format!("nothing came on this stream for {} ms: open another", self.idle.as_millis());
            return Some(Err(Status::cancelled(what)));
        }
        None
    }
}

pub(super) fn declined(code: Code, what: &str) -> Declined {
    Declined(code, what.to_owned())
}

impl Stream for Session {
    type Item = Result<SessionResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let session = &mut *self;
        let mut turn = 0;
        loop {
            if let Some(answer) = session.due.pop_front() {
                return Poll::Ready(Some(Ok(answer)));
            }
            if session.over {
                // What the episodes held is free at once, whenever the client takes the end.
                drop(mem::take(&mut session.episodes));
                return Poll::Ready(None);
            }
            if session.feeding.is_some() {
                if turn > 0 {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                turn += 1;
                session.feed();
                continue;
            }
            if let Some(end) = session.poll_end(cx) {
                session.over = true;
                match end {
                    Ok(()) => continue,
                    Err(status) => return Poll::Ready(Some(Err(status))),
                }
            }
            match Pin::new(&mut session.requests).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => session.over = true,
                Poll::Ready(Some(Err(status))) => {
                    session.over = true;
                    return Poll::Ready(Some(Err(status)));
                }
                Poll::Ready(Some(Ok(request))) => {
                    let until = Instant::now() + session.idle;
                    session.idle_until.as_mut().reset(until);
                    session.handle(request);
                }
            }
        }
    }
}
