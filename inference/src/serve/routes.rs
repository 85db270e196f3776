//! The services behind their paths.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic_health::pb::health_server::HealthServer;

use super::decide::Decisions;
use super::health::Health;
use super::method::{Method, Service};
use super::proto::policy::policy_service_server::PolicyServiceServer;
use super::shared::Shared;

/// Every service, to be cloned for a request, which is cheap.
#[derive(Debug)]
pub(super) struct Routes {
    policy: PolicyServiceServer<Decisions>,
    health: HealthServer<Health>,
}

impl Routes {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let bytes = shared.config.limits.message_bytes;
        let decisions = Decisions { shared: Arc::clone(shared) };
        let health = Health::new(shared);
        Routes {
            policy: PolicyServiceServer::new(decisions).max_decoding_message_size(bytes),
            health: HealthServer::new(health).max_decoding_message_size(bytes),
        }
    }

    /// The answer of the service that knows this call.
    pub(super) async fn call(&self, method: Method, request: Request<Incoming>) -> Response<Body> {
        let answered = match method.service() {
            Service::Policy => self.policy.clone().call(request).await,
            Service::Health => self.health.clone().call(request).await,
            _ => Ok(Status::unimplemented("there is no such call").into_http()),
        };
        answered.unwrap_or_else(|never| match never {})
    }
}
