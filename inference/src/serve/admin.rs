//! `Admin`: what an operator does, on a listener of its own.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};

use super::proto::policy::admin_server::Admin;
use super::proto::policy::{
    CheckNowRequest, Comparison, ForgiveRequest, Model, PinRequest, PromoteRequest, Reloads, RollbackRequest,
    SetCanaryRequest, StatusRequest, StatusResponse, UnpinRequest, Watch, WithdrawRequest,
};
use super::shared::{Phase, Shared};
use crate::policy::{self, ModelId, PolicyError};
use crate::watch::{TrialStatus, Watcher};

/// Answers the calls of `Admin`.
#[derive(Clone, Debug)]
pub(super) struct Administration {
    pub(super) shared: Arc<Shared>,
}

type Answer = Result<Response<StatusResponse>, Status>;

impl Administration {
    /// Does `work` and tells how things stand then. Not on the thread that answers: a change waits for locks and drops models.
    async fn after(&self, work: impl FnOnce(&Shared) -> Result<(), Status> + Send + 'static) -> Answer {
        let shared = Arc::clone(&self.shared);
        let done = spawn_blocking(move || work(&shared).map(|()| status(&shared))).await;
        done.unwrap_or_else(|error| Err(Status::internal(error.to_string()))).map(Response::new)
    }
}

#[tonic::async_trait]
impl Admin for Administration {
    async fn status(&self, _: Request<StatusRequest>) -> Answer {
        self.after(|_| Ok(())).await
    }

    async fn pin(&self, _: Request<PinRequest>) -> Answer {
        self.after(|shared| {
            shared.policy.pin();
            tracing::info!("an operator pinned the champion");
            Ok(())
        })
        .await
    }

    async fn unpin(&self, _: Request<UnpinRequest>) -> Answer {
        self.after(|shared| {
            shared.policy.unpin();
            tracing::info!("an operator unpinned the champion");
            Ok(())
        })
        .await
    }

    async fn rollback(&self, _: Request<RollbackRequest>) -> Answer {
        self.after(|shared| told("rolled back to", shared.policy.roll_back())).await
    }

    async fn set_canary(&self, request: Request<SetCanaryRequest>) -> Answer {
        let share = request.into_inner().share;
        self.after(move |shared| {
            shared.policy.set_share(share).map_err(refused)?;
            tracing::info!(share, "an operator set the share of the canary");
            Ok(())
        })
        .await
    }

    async fn withdraw(&self, _: Request<WithdrawRequest>) -> Answer {
        self.after(|shared| told("withdrew the canary", shared.policy.withdraw())).await
    }

    async fn promote(&self, _: Request<PromoteRequest>) -> Answer {
        self.after(|shared| told("promoted the canary", shared.policy.promote())).await
    }

    async fn check_now(&self, _: Request<CheckNowRequest>) -> Answer {
        self.after(|shared| watched(shared).map(|watcher| drop(watcher.check_now()))).await
    }

    async fn forgive(&self, _: Request<ForgiveRequest>) -> Answer {
        self.after(|shared| watched(shared).map(|watcher| drop(watcher.forgive()))).await
    }
}

fn watched(shared: &Shared) -> Result<&Watcher, Status> {
    shared.watcher.as_ref().ok_or_else(|| Status::failed_precondition("nothing is watched for new models"))
}

fn told(what: &str, changed: Result<ModelId, PolicyError>) -> Result<(), Status> {
    let model = changed.map_err(refused)?;
    tracing::info!(model = %model.version, "an operator {what}");
    Ok(())
}

fn refused(error: PolicyError) -> Status {
    let text = error.to_string();
    match error {
        PolicyError::Share(_) => Status::invalid_argument(text),
        PolicyError::Pinned | PolicyError::NoPrevious | PolicyError::NoCanary => Status::failed_precondition(text),
        _ => Status::internal(text),
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
        in_flight: shared.in_flight.now() as u64,
        connections: shared.connections.now() as u64,
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
