//! `grpc.health.v1`: each service by its name, and the server by the empty one.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::shared::{Phase, Shared};

/// Tells how far the server is on its way out.
#[derive(Debug)]
pub(super) struct Health {
    phase: watch::Receiver<Phase>,
}

/// Services that can be asked after.
const SERVICES: [&str; 4] =
    ["", "bellwether.policy.v1.PolicyService", "inference.GRPCInferenceService", "bellwether.policy.v1.Admin"];

impl Health {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Health { phase: shared.phase.subscribe() }
    }
}

fn status(phase: Phase) -> HealthCheckResponse {
    let status = if phase == Phase::Serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            return Err(Status::not_found("no such service"));
        }
        Ok(Response::new(status(*self.phase.borrow())))
    }

    /// Ends once the server takes no more connections: it would keep its own open.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            // The protocol wants the stream to stay: a service could come. Here none does.
            let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(unknown)))));
        }
        let mut phases = self.phase.clone();
        let (answers, waiting) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut told = None;
            loop {
                let phase = *phases.borrow_and_update();
                let now = status(phase);
                // A change of phase is not always one of status, and only that is news.
                if told != Some(now) && answers.send(Ok(now)).await.is_err() || phase >= Phase::Draining {
                    return;
                }
                told = Some(now);
                tokio::select! {
                    changed = phases.changed() => if changed.is_err() { return },
                    () = answers.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(waiting))))
    }
}
