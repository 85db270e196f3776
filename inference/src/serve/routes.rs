//! The services behind their paths.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic_health::pb::health_server::HealthServer;

use super::admin::Administration;
use super::decide::Decisions;
use super::dispatch::Plane;
use super::health::Health;
use super::method::{Method, Service};
use super::oip::Inferences;
use super::proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use super::proto::policy::admin_server::AdminServer;
use super::proto::policy::policy_service_server::PolicyServiceServer;
use super::reflection::Reflection;
use super::shared::Shared;

/// Every service, to be cloned for a request, which is cheap.
#[derive(Debug)]
pub(super) struct Routes {
    policy: PolicyServiceServer<Decisions>,
    inference: GrpcInferenceServiceServer<Inferences>,
    admin: AdminServer<Administration>,
    health: HealthServer<Health>,
    reflection: Option<Reflection>,
}

/// Bytes of what an operator says at once.
const ADMIN_BYTES: usize = 16 << 10;
/// Bytes of a question after the health of a service.
const HEALTH_BYTES: usize = 1 << 10;

impl Routes {
    pub(super) fn new(shared: &Arc<Shared>, plane: Plane) -> Self {
        let bytes = shared.config.limits.message_bytes;
        let decisions = Decisions { shared: Arc::clone(shared) };
        let inferences = Inferences { shared: Arc::clone(shared) };
        let administration = Administration { shared: Arc::clone(shared) };
        let health = Health::new(shared);
        Routes {
            policy: PolicyServiceServer::new(decisions).max_decoding_message_size(bytes),
            inference: GrpcInferenceServiceServer::new(inferences).max_decoding_message_size(bytes),
            admin: AdminServer::new(administration).max_decoding_message_size(bytes.min(ADMIN_BYTES)),
            health: HealthServer::new(health).max_decoding_message_size(HEALTH_BYTES),
            reflection: Reflection::new(plane),
        }
    }

    /// The answer of the service that knows this call.
    pub(super) async fn call(&self, method: Method, request: Request<Incoming>) -> Response<Body> {
        let answered = match (method.service(), &self.reflection) {
            (Service::Policy, _) => self.policy.clone().call(request).await,
            (Service::Inference, _) => self.inference.clone().call(request).await,
            (Service::Admin, _) => self.admin.clone().call(request).await,
            (Service::Health, _) => self.health.clone().call(request).await,
            (Service::Reflection, Some(reflection)) => reflection.v1.call(request).await,
            (Service::ReflectionAlpha, Some(reflection)) => reflection.v1alpha.call(request).await,
            _ => Ok(Status::unimplemented("there is no such call").into_http()),
        };
        answered.unwrap_or_else(|never| match never {})
    }
}
