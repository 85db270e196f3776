//! Following a run elsewhere to its end, over as many connections as that takes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bellwether_artifact::Sha256;
use bellwether_env_adapter::{Action, StateVector};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::client::{Client, RemoteStage, is_passing};
use super::proto::{self, FollowRequest, Record, StopRequest, act_response, record::What};
use super::wire::{self, Overdue, WireError};
use crate::stage::{
    Brought, Came, Command, Course, DecisionId, Fault, Feedback, Kept, Order, Outcome, Question, Refusal, StageError,
};

/// One run that is followed.
pub(super) struct Following<'a> {
    stage: &'a RemoteStage,
    order: &'a Order,
    course: &'a mut dyn Course,
    lease: Duration,
    /// Number of the next record.
    next: u64,
    events: u64,
    /// How often actions were brought to the stage of which it has not told what came yet.
    brought: BTreeMap<DecisionId, u32>,
    /// What the stage did while an answer was on its way to it, until the record of that comes.
    overdue: Option<Overdue>,
    /// Events could not be kept.
    unkept: bool,
    /// Since when the sample is to be killed.
    stopped: Option<Instant>,
}

/// A connection on which records come.
struct Link {
    records: mpsc::Receiver<Result<Vec<Record>, Status>>,
    kept: watch::Sender<u64>,
    task: JoinHandle<()>,
}

/// Why following ended.
enum End {
    /// The last record came.
    Last(Box<Result<Outcome, StageError>>),
    /// The connection broke.
    Broken(Status),
    /// There is no use in going on.
    Lost(String),
}

/// What a stage says to an action.
enum Reply {
    /// It is carried out, or has been.
    Applied,
    /// It is not.
    Refused(Refusal),
    /// It came too late.
    Late(Overdue),
    /// It could not be brought there.
    Lost(String),
}

/// How often it is looked whether anybody still follows.
const LOOK: Duration = Duration::from_millis(20);
/// Batches that wait for whoever follows.
const BATCHES: usize = 2;

impl<'a> Following<'a> {
    pub(super) fn new(
        stage: &'a RemoteStage,
        order: &'a Order,
        course: &'a mut dyn Course,
        lease: Duration,
    ) -> Following<'a> {
        Following {
            stage,
            order,
            course,
            lease,
            next: 0,
            events: 0,
            brought: BTreeMap::new(),
            overdue: None,
            unkept: false,
            stopped: None,
        }
    }

    /// Follows until the last record has come, or the stage is lost.
    pub(super) fn until_the_end(mut self) -> Result<Outcome, StageError> {
        let mut attempt = 1;
        loop {
            let before = self.next;
            let status = match self.follow() {
                End::Last(last) => return *last,
                End::Lost(why) => return Ok(self.lost(why)),
                End::Broken(status) => status,
            };
            if self.next > before {
                attempt = 1;
            }
            let pause = self.stage.options.schedule.pause_ms(attempt).filter(|_| is_passing(&status));
            let Some(pause) = pause else { return Ok(self.lost(status.message().to_owned())) };
            tracing::warn!(
                stage = self.order.stage,
                attempt,
                why = status.message(),
                "the connection to a stage broke"
            );
            self.stage.clock.sleep(Duration::from_millis(pause));
            attempt += 1;
        }
    }

    /// Follows on one connection.
    fn follow(&mut self) -> End {
        let mut link = self.connect();
        let end = loop {
            if let Some(end) = self.look() {
                break end;
            }
            let batch = self.stage.runtime.block_on(async { tokio::time::timeout(LOOK, link.records.recv()).await });
            let batch = match batch {
                Err(_) => continue,
                Ok(None) => break End::Broken(Status::unavailable("the connection ended")),
                Ok(Some(Err(status))) => break End::Broken(status),
                Ok(Some(Ok(batch))) => batch,
            };
            let mut end = None;
            for record in batch {
                if record.number < self.next {
                    continue;
                }
                if record.number > self.next {
                    end = Some(End::Broken(Status::data_loss("records are missing")));
                    break;
                }
                match self.take(record) {
                    Ok(None) => self.next += 1,
                    Ok(Some(last)) => {
                        self.next += 1;
                        end = Some(last);
                        break;
                    }
                    Err(error) => {
                        self.stop("a record made no sense");
                        end = Some(End::Lost(format!("the stage sent what makes no sense: {error}")));
                        break;
                    }
                }
            }
            link.kept.send_replace(self.next);
            if let Some(end) = end {
                break end;
            }
        };
        let Link { mut records, kept, task } = link;
        if matches!(end, End::Last(_)) {
            // The stage ends the stream once it knows that all has arrived.
            let farewell = async { while let Some(Ok(_)) = records.recv().await {} };
            _ = self.stage.runtime.block_on(async { tokio::time::timeout(self.stage.options.act, farewell).await });
        }
        drop(kept);
        task.abort();
        end
    }

    /// Has the sample killed where nobody follows any more, and waits for that only so long.
    fn look(&mut self) -> Option<End> {
        match self.stopped {
            Some(since) if since.elapsed() > self.stage.options.ending => {
                Some(End::Lost("the sample was to be killed, and the stage does not say that it was".to_owned()))
            }
            Some(_) => None,
            None => {
                let why = self.course.gone()?;
                self.stop(&why);
                None
            }
        }
    }

    fn take(&mut self, record: Record) -> Result<Option<End>, WireError> {
        let what = record.what.ok_or_else(|| WireError::new("what", "it is missing"))?;
        match what {
            What::Event(message) => {
                let event = message.record().map_err(|error| WireError::new("event", error))?;
                if event.stage != self.order.stage {
                    return Err(WireError::new("event.stage", "it is of another stage"));
                }
                self.events += 1;
                if self.course.event(&event) == Kept::No && !self.unkept {
                    self.unkept = true;
                    self.stop("events could not be kept");
                }
                Ok(None)
            }
            What::Question(message) => {
                let (question, state) = wire::question(self.order, &message)?;
                // A sample that is being killed needs no answer.
                if self.stopped.is_some() {
                    return Ok(None);
                }
                Ok(self.answer(&question, &state, Sha256::of(&message.state)))
            }
            What::Overdue(message) => {
                let told = wire::overdue(message)?;
                // A question that was not heeded was not answered either.
                if self.stopped.is_none() && self.overdue.take().as_ref() != Some(&told) {
                    return Err(WireError::new("overdue", "its question was answered otherwise"));
                }
                Ok(None)
            }
            What::Feedback(message) => {
                let mut feedback = wire::feedback(&message)?;
                let attempts = feedback.decision.as_ref().and_then(|decision| self.brought.remove(decision));
                feedback.attempts = attempts.unwrap_or(feedback.attempts);
                self.course.feedback(feedback);
                Ok(None)
            }
            What::Outcome(message) => {
                let mut outcome = wire::outcome(message)?;
                if outcome.events != self.events {
                    let why = format!("{} of {} events arrived", self.events, outcome.events);
                    outcome.faults.push(Fault::Lost { why });
                }
                if self.unkept {
                    outcome.faults.push(Fault::Recorder);
                }
                Ok(Some(End::Last(Box::new(Ok(outcome)))))
            }
            What::Unstarted(proto::Unstarted { why, passing }) => {
                let stage = self.order.stage;
                Ok(Some(End::Last(Box::new(Err(StageError::Unstarted { stage, why, passing })))))
            }
        }
    }

    /// Has a question answered, and brings the answer to the stage.
    fn answer(&mut self, question: &Question, state: &StateVector, about: Sha256) -> Option<End> {
        let mut came = None;
        let Following { stage, course, .. } = self;
        course.window_elsewhere(question, state, &mut |command, grounds| {
            let began = Instant::now();
            let (reply, attempts) = stage.bring(&wire::act(command, about, grounds), question);
            let brought = match &reply {
                Reply::Late(Overdue { action, limit_ms, .. }) => Brought::Late { action: *action, limit_ms: *limit_ms },
                _ => Brought::Taken,
            };
            came = Some((command.clone(), reply, began, attempts));
            brought
        });
        let (command, reply, began, attempts) = came?;
        match reply {
            Reply::Applied => {
                if command.action != Action::Continue {
                    self.brought.insert(command.decision, attempts);
                }
                None
            }
            Reply::Refused(why) => {
                self.refused(&command, why, (began, attempts));
                None
            }
            Reply::Late(overdue) => {
                tracing::warn!(
                    decision = %command.decision,
                    decided = command.action.name(),
                    done = overdue.action.name(),
                    open_us = overdue.open_us,
                    "an action came too late: the stage had applied the safe rule"
                );
                self.overdue = Some(overdue);
                None
            }
            Reply::Lost(why) => {
                Some(End::Lost(format!("{} could not be brought to the stage: {why}", command.action.name())))
            }
        }
    }

    fn refused(&mut self, command: &Command, why: Refusal, (began, attempts): (Instant, u32)) {
        self.course.feedback(Feedback {
            decision: Some(command.decision.clone()),
            stage: command.context.stage,
            action: command.action,
            level: command.context.level,
            came: Came::Refused { why },
            took_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            attempts,
        });
        // A sample that is over needs no answer; any other would wait for one for ever.
        if why != Refusal::Over {
            self.stop("an action was refused");
        }
    }

    fn stop(&mut self, why: &str) {
        if self.stopped.is_some() {
            return;
        }
        self.stopped = Some(Instant::now());
        let request = StopRequest {
            episode_id: self.order.episode.0.clone(),
            stage: u32::from(self.order.stage),
            why: why.to_owned(),
        };
        let mut client = self.stage.client.clone();
        // Where it does not arrive the lease ends, since nothing else is sent from then on.
        if let Err(status) = self.stage.wait(self.stage.options.act, client.stop(request)) {
            tracing::warn!(stage = self.order.stage, why = status.message(), "a stage was not told to stop");
        }
    }

    fn lost(mut self, why: String) -> Outcome {
        tracing::warn!(episode = self.order.episode.0, stage = self.order.stage, why, "a stage was lost");
        self.stop(&why);
        Outcome { events: self.events, faults: vec![Fault::Lost { why }], ..Outcome::of_nothing(self.order.stage) }
    }

    fn connect(&self) -> Link {
        let (records, waiting) = mpsc::channel(BATCHES);
        let (kept, acknowledged) = watch::channel(self.next);
        let first = FollowRequest {
            episode_id: self.order.episode.0.clone(),
            stage: u32::from(self.order.stage),
            from: self.next,
            acknowledged: self.next,
        };
        let beat = self.lease / 4;
        let client = self.stage.client.clone();
        let opening = self.stage.options.connect + self.stage.options.act;
        let task = self.stage.runtime.spawn(async move {
            let end = receive(client, first, acknowledged, beat, opening, &records).await;
            _ = records.send(Err(end)).await;
        });
        Link { records: waiting, kept, task }
    }
}

impl RemoteStage {
    /// Brings an action to the stage, however often that must be tried; how often it was.
    fn bring(&self, message: &proto::ActRequest, question: &Question) -> (Reply, u32) {
        let mut attempt = 1;
        loop {
            let mut request = Request::new(message.clone());
            request.set_timeout(self.options.act);
            let mut client = self.client.clone();
            let status = match self.wait(self.options.act, client.act(request)) {
                Ok(answer) => return (reply(answer, question), attempt),
                Err(status) => status,
            };
            let pause = self.options.schedule.pause_ms(attempt).filter(|_| is_passing(&status));
            let Some(pause) = pause else { return (Reply::Lost(status.message().to_owned()), attempt) };
            let decision = &message.decision_id;
            tracing::warn!(decision, attempt, why = status.message(), "an action did not arrive");
            self.clock.sleep(Duration::from_millis(pause));
            attempt += 1;
        }
    }
}

/// What a stage says to the answer to a question.
fn reply(answer: proto::ActResponse, question: &Question) -> Reply {
    use act_response::Result::{Applied, Overdue, Refused, Repeated};
    match answer.result {
        Some(Applied(_) | Repeated(_)) => Reply::Applied,
        Some(Refused(why)) => {
            let why = proto::Refusal::try_from(why).ok().and_then(|why| Refusal::try_from(why).ok());
            Reply::Refused(why.unwrap_or(Refusal::Context))
        }
        Some(Overdue(message)) => match wire::overdue(message) {
            Ok(overdue) if overdue.decision == question.decision() && question.mask[overdue.action.index()] => {
                Reply::Late(overdue)
            }
            _ => Reply::Lost("the stage says that it did what it was not asked about".to_owned()),
        },
        None => Reply::Lost("the stage answered an action with nothing".to_owned()),
    }
}

/// Hands batches on until the stream ends; why it did.
async fn receive(
    mut client: Client,
    first: FollowRequest,
    mut acknowledged: watch::Receiver<u64>,
    beat: Duration,
    opening: Duration,
    records: &mpsc::Sender<Result<Vec<Record>, Status>>,
) -> Status {
    let (requests, outgoing) = mpsc::channel(4);
    _ = requests.try_send(first);
    // Acknowledges what is kept, and says again and again that somebody is there.
    let beats = async move {
        loop {
            tokio::select! {
                changed = acknowledged.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(beat) => {}
            }
            let below = *acknowledged.borrow_and_update();
            if requests.send(FollowRequest { acknowledged: below, ..FollowRequest::default() }).await.is_err() {
                return;
            }
        }
    };
    let receiving = async {
        let opened = tokio::time::timeout(opening, client.follow(ReceiverStream::new(outgoing))).await;
        let mut stream = match opened {
            Err(_) => return Status::deadline_exceeded("the stream did not open in time"),
            Ok(Err(status)) => return status,
            Ok(Ok(response)) => response.into_inner(),
        };
        loop {
            match stream.message().await {
                Ok(Some(batch)) => {
                    if records.send(Ok(batch.records)).await.is_err() {
                        return Status::cancelled("nobody follows any more");
                    }
                }
                Ok(None) => return Status::unavailable("the stream ended"),
                Err(status) => return status,
            }
        }
    };
    tokio::pin!(receiving);
    tokio::select! {
        status = &mut receiving => status,
        () = beats => receiving.await,
    }
}

#[cfg(test)]
mod tests {
    use bellwether_env_adapter::{EpisodeId, action};

    use super::*;
    use crate::stage::Close;

    #[test]
    fn what_a_stage_did_is_believed_where_it_could() {
        let question = Question {
            episode: EpisodeId("e".to_owned()),
            stage: 1,
            step: 3,
            window: 3,
            events: 0,
            toll: Default::default(),
            events_seen: 0,
            time_ns: 0,
            level: 0,
            close: Close::Windows,
            mask: action::mask(true, true),
        };
        let told = |decision_id: &str, action| {
            let overdue = proto::Overdue { decision_id: decision_id.to_owned(), action, limit_ms: 5, open_us: 5_001 };
            reply(proto::ActResponse { result: Some(act_response::Result::Overdue(overdue)) }, &question)
        };
        assert!(matches!(told("e:1:3", 3), Reply::Late(Overdue { action: Action::Terminate, limit_ms: 5, .. })));
        // Another decision, an action that is not allowed, one that is none, and no answer at all.
        for lost in
            [told("e:1:2", 3), told("e:1:3", 1), told("e:1:3", 9), reply(proto::ActResponse::default(), &question)]
        {
            assert!(matches!(lost, Reply::Lost(_)));
        }
    }
}
