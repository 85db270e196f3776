//! `Admin`: what an operator does, on a listener of its own.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};
use tracing::field::display;

use super::caller::Caller;
use super::proto::policy::admin_server::Admin;
use super::proto::policy::try_out_request::Release;
use super::proto::policy::{
    CheckNowRequest, Comparison, ForgiveRequest, Model, PinRequest, PromoteRequest, Reloads, RollbackRequest,
    SetCanaryRequest, StatusRequest, StatusResponse, TryOutRequest, UnpinRequest, Watch, WithdrawRequest,
};
use super::shared::{Phase, Shared};
use crate::policy::{self, ModelId, PolicyError};
use crate::watch::{TrialStatus, VersionPolicy, WatchError, Watcher};

/// Answers the calls of `Admin`.
#[derive(Clone, Debug)]
pub(super) struct Administration {
    pub(super) shared: Arc<Shared>,
}

/// Longest name of a release that is looked for, in bytes.
const MAX_NAME_BYTES: usize = 255;

type Answer = Result<Response<StatusResponse>, Status>;

/// What a call changed, where that is one model.
type Changed = Result<Option<ModelId>, Status>;

impl Administration {
    /// Does what an operator asks, says so in the log, and tells how things stand then. Not on the thread that answers: a change
    /// waits for locks, reads files and drops models.
    async fn after<T: Send + 'static>(
        &self,
        call: &'static str,
        request: Request<T>,
        work: impl FnOnce(&Shared, T) -> Changed + Send + 'static,
    ) -> Answer {
        let shared = Arc::clone(&self.shared);
        let by = request.extensions().get().cloned().unwrap_or_else(Caller::nobody);
        let asked = request.into_inner();
        let done = spawn_blocking(move || {
            let changed = work(&shared, asked);
            if let (Ok(_), Some(watcher)) = (&changed, &shared.watcher) {
                // Who is answered may take it that a restart knows.
                watcher.write_down();
            }
            let status = status(&shared);
            match &changed {
                Ok(model) => {
                    let (model, share) = (model.map(|model| display(model.version)), status.canary_share);
                    tracing::info!(%by, call, model, canary_share = share, pinned = status.pinned, "an operator's call");
                }
                Err(refused) => {
                    tracing::warn!(%by, call, code = ?refused.code(), text = refused.message(), "an operator's call was refused");
                }
            }
            changed.map(|_| status)
        });
        done.await.unwrap_or_else(|error| Err(Status::internal(error.to_string()))).map(Response::new)
    }
}

#[tonic::async_trait]
impl Admin for Administration {
    async fn status(&self, _: Request<StatusRequest>) -> Answer {
        // It changes nothing, and is asked by machines: no line in the log.
        let shared = Arc::clone(&self.shared);
        let done = spawn_blocking(move || status(&shared)).await;
        done.map(Response::new).map_err(|error| Status::internal(error.to_string()))
    }

    async fn pin(&self, request: Request<PinRequest>) -> Answer {
        self.after("pin", request, |shared, _| {
            shared.policy.pin();
            Ok(None)
        })
        .await
    }

    async fn unpin(&self, request: Request<UnpinRequest>) -> Answer {
        self.after("unpin", request, |shared, _| {
            shared.policy.unpin();
            Ok(None)
        })
        .await
    }

    async fn rollback(&self, request: Request<RollbackRequest>) -> Answer {
        self.after("rollback", request, |shared, _| shared.policy.roll_back().map(Some).map_err(refused)).await
    }

    async fn try_out(&self, request: Request<TryOutRequest>) -> Answer {
        self.after("try_out", request, |shared, TryOutRequest { release, share }| {
            let which = match release {
                Some(Release::Number(number)) => VersionPolicy::Pinned(number),
                // It comes back in the answer and in the log.
                Some(Release::Name(name)) if name.len() > MAX_NAME_BYTES => {
                    return Err(Status::invalid_argument(format!("a name has at most {MAX_NAME_BYTES} bytes")));
                }
                Some(Release::Name(name)) => VersionPolicy::Name(name),
                None => return Err(Status::invalid_argument("give the number or the name of the release to try")),
            };
            watched(shared)?.try_out(which, share).map(Some).map_err(untried)
        })
        .await
    }

    async fn set_canary(&self, request: Request<SetCanaryRequest>) -> Answer {
        self.after("set_canary", request, |shared, SetCanaryRequest { share }| {
            shared.policy.set_share(share).map_err(refused)?;
            Ok(shared.policy.status().canary.map(|(canary, _)| canary))
        })
        .await
    }

    async fn withdraw(&self, request: Request<WithdrawRequest>) -> Answer {
        self.after("withdraw", request, |shared, _| shared.policy.withdraw().map(Some).map_err(refused)).await
    }

    async fn promote(&self, request: Request<PromoteRequest>) -> Answer {
        self.after("promote", request, |shared, _| shared.policy.promote().map(Some).map_err(refused)).await
    }

    async fn check_now(&self, request: Request<CheckNowRequest>) -> Answer {
        self.after("check_now", request, |shared, _| Ok(Some(watched(shared)?.check_now().serving))).await
    }

    async fn forgive(&self, request: Request<ForgiveRequest>) -> Answer {
        self.after("forgive", request, |shared, _| Ok(Some(watched(shared)?.forgive().serving))).await
    }
}

fn watched(shared: &Shared) -> Result<&Watcher, Status> {
    shared.watcher.as_ref().ok_or_else(|| Status::failed_precondition("nothing is watched for new models"))
}

fn refused(error: PolicyError) -> Status {
    let text = error.to_string();
    match error {
        PolicyError::Share(_) => Status::invalid_argument(text),
        PolicyError::Pinned | PolicyError::NoPrevious | PolicyError::NoCanary => Status::failed_precondition(text),
        _ => Status::internal(text),
    }
}

fn untried(error: WatchError) -> Status {
    match error {
        WatchError::Policy(error) => refused(error),
        WatchError::Absent { .. } => Status::not_found(error.to_string()),
        WatchError::Refused(_) | WatchError::Champion(_) | WatchError::Source(_) => {
            Status::failed_precondition(error.to_string())
        }
        error => Status::internal(error.to_string()),
    }
}

/// How things stand.
fn status(shared: &Shared) -> StatusResponse {
    let policy::Status { champion, previous, canary, pinned, swaps, rollbacks, models_resident, .. } =
        shared.policy.status();
    StatusResponse {
        champion: Some(model(champion)),
        previous: previous.map(model),
        canary: canary.map(|(id, _)| model(id)),
        canary_share: canary.map_or(0.0, |(_, share)| share),
        pinned,
        swaps,
        rollbacks,
        models_resident: models_resident as u64,
        in_flight: (shared.in_flight.now() + shared.sessions.now()) as u64,
        connections: [&shared.connections, &shared.http_connections, &shared.admin_connections]
            .map(|gauge| gauge.now() as u64)
            .iter()
            .sum(),
        episodes: shared.episodes.now() as u64,
        leaving: shared.phase() != Phase::Serving,
        watch: shared.watcher.as_ref().map(watch),
    }
}

fn model(id: ModelId) -> Model {
    Model { version: id.version.to_string(), number: id.number }
}

fn watch(watcher: &Watcher) -> Watch {
    let status = watcher.status();
    let (refusal_reason, refusal) =
        status.last_refusal.map_or_else(Default::default, |refusal| (refusal.reason.name().to_owned(), refusal.text));
    let reloads = watcher.counts().reloads().into_iter();
    Watch {
        source: status.source,
        wanted: status.wanted.map(|wanted| wanted.folder.display().to_string()).unwrap_or_default(),
        pending: status.pending.map(|pending| pending.to_string()).unwrap_or_default(),
        refusal_reason,
        refusal,
        before: status.shadow.map(comparison),
        after: status.window.map(comparison),
        unwritten: status.unwritten.unwrap_or_default(),
        reloads: reloads
            .map(|(result, reason, count)| Reloads { result: result.to_owned(), reason: reason.to_owned(), count })
            .collect(),
    }
}

fn comparison(trial: TrialStatus) -> Comparison {
    Comparison {
        model: Some(model(trial.model)),
        against: Some(model(trial.against)),
        states: trial.states,
        disagreements: trial.disagreements,
    }
}
