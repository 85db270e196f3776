//! The calls of the protocol.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bellwether_artifact::Sha256;
use bellwether_env_adapter::EpisodeId;
use prost::Message;
use rustix::fs::SealFlags;
use sha2::Digest;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::proto;
use super::proto::sandbox_service_server::SandboxService;
use super::proto::{
    ActRequest, ActResponse, Applied, DetonateRequest, DetonateResponse, FollowRequest, FollowResponse, Repeated,
    StopRequest, StopResponse, Unstarted, act_response, detonate_request, record::What,
};
use super::run::{Answered, Batch, Bounds, OutOfRange, Run, Served};
use super::table::{Found, Name, Table};
use super::wire::{self, Announced, WireError};
use crate::stage::{Admission, Order, Stage};
use crate::vault;

/// Answers the calls.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) number: u8,
    pub(super) stage: Arc<dyn Stage + Send + Sync>,
    pub(super) table: Arc<Table>,
    pub(super) bounds: Bounds,
    pub(super) specimen_bytes: u64,
    /// How long the file of an order may take.
    pub(super) upload: Duration,
}

#[tonic::async_trait]
impl SandboxService for Service {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<FollowResponse, Status>> + Send>>;

    async fn detonate(
        &self,
        request: Request<Streaming<DetonateRequest>>,
    ) -> Result<Response<DetonateResponse>, Status> {
        let received = tokio::time::timeout(self.upload, self.receive(request.into_inner())).await;
        let late = |_| Status::deadline_exceeded("the order took too long; nothing was run");
        let known = received.map_err(late)??;
        let lease_ms = u64::try_from(self.bounds.lease.as_millis()).unwrap_or(u64::MAX);
        Ok(Response::new(DetonateResponse { lease_ms, known }))
    }

    async fn follow(&self, request: Request<Streaming<FollowRequest>>) -> Result<Response<Self::FollowStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.ok_or_else(|| Status::invalid_argument("say what is to be followed"))?;
        let name = self.name(&first.episode_id, first.stage)?;
        let run = self.find(&name)?;
        let follower = run.follow(first.from).map_err(out_of_range)?;
        let (records, waiting) = mpsc::channel(1);
        tokio::spawn(send(Arc::clone(&run), follower, first.from, records.clone()));
        let table = Arc::clone(&self.table);
        tokio::spawn(async move {
            // Ends with the connection, or with whoever followed.
            while let Ok(Some(request)) = requests.message().await {
                match run.acknowledge(follower, request.acknowledged) {
                    Ok(false) => {}
                    // With it goes the other hold on the stream, which ends.
                    Ok(true) => return table.forget(&name, &run),
                    Err(range) => {
                        _ = records.send(Err(out_of_range(range))).await;
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(waiting))))
    }

    async fn act(&self, request: Request<ActRequest>) -> Result<Response<ActResponse>, Status> {
        let request = request.into_inner();
        let command = wire::command(&request).map_err(invalid)?;
        let about = <[u8; 32]>::try_from(&request.state_sha256[..]).map(Sha256::from_bytes);
        let about = about.map_err(|_| Status::invalid_argument("state_sha256: give the 32 bytes of a SHA-256"))?;
        let run = self.find(&self.name(&request.episode_id, request.stage)?)?;
        let answered = run.act(&command, about);
        tracing::debug!(
            decision = %command.decision,
            window = command.context.window,
            level = command.context.level,
            level_after = command.context.level_after,
            action = command.action.name(),
            q_values = ?request.q_values,
            margin = request.margin,
            model_version = request.model_version,
            safe_rule = request.safe_rule,
            ?answered,
            "an action arrived"
        );
        let result = match answered {
            Answered::Late(overdue) => act_response::Result::Overdue(wire::overdue_message(&overdue)),
            Answered::Judged(Admission::Apply) => act_response::Result::Applied(Applied {}),
            Answered::Judged(Admission::Repeated(feedback)) => {
                act_response::Result::Repeated(Repeated { feedback: feedback.as_ref().map(wire::feedback_message) })
            }
            Answered::Judged(Admission::Refuse(why)) => act_response::Result::Refused(proto::Refusal::from(why).into()),
        };
        Ok(Response::new(ActResponse { result: Some(result) }))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        let StopRequest { episode_id, stage, why } = request.into_inner();
        let why: String = why.chars().take(256).collect();
        self.find(&self.name(&episode_id, stage)?)?.stop(&why);
        Ok(Response::new(StopResponse {}))
    }
}

impl Service {
    fn name(&self, episode: &str, stage: u32) -> Result<Name, Status> {
        if stage != u32::from(self.number) {
            let (asked, served) = (stage, self.number);
            return Err(Status::failed_precondition(format!("stage {asked} is asked for, and this is stage {served}")));
        }
        Ok((EpisodeId(episode.to_owned()), self.number))
    }

    fn find(&self, name: &Name) -> Result<Arc<Run>, Status> {
        let unknown = || Status::not_found(format!("no run of the episode {:?} is known here", name.0.0));
        self.table.find(name).ok_or_else(unknown)
    }

    /// What holds for the run of an order.
    fn bounds(&self, announced: &Announced) -> Result<Bounds, Status> {
        let (wanted, most) = (announced.answer_within_ms, self.bounds.answer);
        match Duration::from_millis(wanted) {
            Duration::ZERO => Ok(self.bounds),
            answer if answer <= most => Ok(Bounds { answer, ..self.bounds }),
            _ => Err(Status::invalid_argument(format!(
                "answer_within_ms: questions are to stand open for {wanted} ms, and do so for {} at most here: lower \
                 --decide-within or --stage-round-trip, or raise --answer-within of the stage",
                most.as_millis()
            ))),
        }
    }

    /// Takes an order and its file, and starts the run. Whether it was known.
    async fn receive(&self, mut parts: Streaming<DetonateRequest>) -> Result<bool, Status> {
        let first = parts.message().await?.and_then(|message| message.part);
        let Some(detonate_request::Part::Order(message)) = first else {
            return Err(Status::invalid_argument("the order comes first"));
        };
        let hash = Sha256::of(&message.encode_to_vec());
        let announced = wire::order(message).map_err(invalid)?;
        let name = self.name(&announced.episode.0, u32::from(announced.stage))?;
        match self.table.look(&name, hash) {
            Found::Same => return Ok(true),
            Found::Other => return Err(other(&name)),
            Found::Leaving => return Err(leaving()),
            Found::Nothing => {}
        }
        if announced.bytes > self.specimen_bytes {
            let (bytes, most) = (announced.bytes, self.specimen_bytes);
            return Err(Status::invalid_argument(format!("the file has {bytes} bytes; at most {most} are taken")));
        }
        let bounds = self.bounds(&announced)?;
        let Some(slot) = self.table.slot() else {
            return Err(Status::resource_exhausted("as many samples run as may; try again later"));
        };
        let memory = file(&announced, &mut parts).await?;
        let run = Arc::new(Run::new(hash, bounds));
        match self.table.enter(name.clone(), &run) {
            Found::Same => return Ok(true),
            Found::Other => return Err(other(&name)),
            // While the file arrived.
            Found::Leaving => return Err(leaving()),
            Found::Nothing => {}
        }
        let order = announced.with(memory);
        tracing::info!(episode = order.episode.0, stage = order.stage, sample = order.sample.name, "a run begins");
        let (stage, running) = (Arc::clone(&self.stage), Served { run: Arc::clone(&run), stage: self.number });
        let thread = thread::Builder::new().name(format!("run-{}", self.number));
        let started = thread.spawn(move || follow_through(&*stage, &order, running, slot));
        if let Err(error) = started {
            self.table.forget(&name, &run);
            return Err(Status::resource_exhausted(format!("the system gives no thread: {error}")));
        }
        Ok(false)
    }
}

/// Runs a sample to its end.
fn follow_through(stage: &dyn Stage, order: &Order, mut course: Served, slot: OwnedSemaphorePermit) {
    let run = Arc::clone(&course.run);
    let last = match stage.run(order, &mut course) {
        Ok(outcome) => {
            let verdict = outcome.verdict.map(|verdict| verdict.name());
            tracing::info!(
                episode = order.episode.0,
                stage = order.stage,
                verdict,
                events = outcome.events,
                faults = ?outcome.faults,
                dead = ?outcome.dead,
                "a run is over"
            );
            What::Outcome(wire::outcome_message(&outcome))
        }
        Err(error) => {
            tracing::warn!(episode = order.episode.0, stage = order.stage, %error, "a sample did not start");
            What::Unstarted(Unstarted { why: error.to_string(), passing: error.is_passing() })
        }
    };
    // Whoever learns of the end may come back at once, and finds room.
    drop(slot);
    run.end(last);
}

/// Receives a file into memory that nobody can change afterwards.
async fn file(announced: &Announced, parts: &mut Streaming<DetonateRequest>) -> Result<OwnedFd, Status> {
    let system = |error: std::io::Error| Status::resource_exhausted(format!("no memory for the file: {error}"));
    let mut memory = File::from(vault::memory_file().map_err(|error| system(error.into()))?);
    let (mut bytes, mut hash) = (0_u64, sha2::Sha256::new());
    while let Some(message) = parts.message().await? {
        let Some(detonate_request::Part::Data(data)) = message.part else {
            return Err(Status::invalid_argument("one order at a time"));
        };
        bytes += data.len() as u64;
        if bytes > announced.bytes {
            return Err(Status::invalid_argument("the file is longer than announced; nothing was run"));
        }
        hash.update(&data);
        memory.write_all(&data).map_err(system)?;
    }
    if bytes != announced.bytes || Sha256::from_bytes(hash.finalize().into()) != announced.sha256 {
        return Err(Status::invalid_argument("the file is not the one that was announced; nothing was run"));
    }
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    std::io::Seek::rewind(&mut memory).map_err(system)?;
    rustix::fs::fcntl_add_seals(&memory, seals).map_err(|error| system(error.into()))?;
    Ok(memory.into())
}

/// Sends what happens to a follower.
async fn send(run: Arc<Run>, follower: u64, mut from: u64, records: mpsc::Sender<Result<FollowResponse, Status>>) {
    let mut news = run.news();
    loop {
        news.mark_unchanged();
        match run.batch(follower, from) {
            Batch::Records(batch) if batch.is_empty() => tokio::select! {
                _ = news.changed() => {}
                () = records.closed() => return,
            },
            Batch::Records(batch) => {
                from += batch.len() as u64;
                if records.send(Ok(FollowResponse { records: batch })).await.is_err() {
                    return;
                }
            }
            Batch::End => return,
            Batch::Superseded => {
                _ = records.send(Err(Status::aborted("somebody else follows this run now"))).await;
                return;
            }
        }
    }
}

fn invalid(error: WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn other(name: &Name) -> Status {
    Status::already_exists(format!("another order has the name of the episode {:?}", name.0.0))
}

fn leaving() -> Status {
    Status::unavailable("this stage is leaving; nothing was run: ask another")
}

fn out_of_range(range: OutOfRange) -> Status {
    let OutOfRange { first, next } = range;
    Status::out_of_range(format!("records from {first} to {next} are here; those before were acknowledged"))
}
