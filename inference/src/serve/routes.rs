//! The services behind their paths.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::server::{StreamingService, UnaryService};
use tonic::{Status, Streaming};
use tonic_health::pb::health_server::HealthServer;

use super::admin::Administration;
use super::bounded::{Bounded, Bounds};
use super::decide::Decisions;
use super::dispatch::Plane;
use super::health::Health;
use super::method::{Method, Service};
use super::oip::Inferences;
use super::proto::inference::grpc_inference_service_server::{GrpcInferenceService as _, GrpcInferenceServiceServer};
use super::proto::inference::{ModelInferRequest, ModelInferResponse};
use super::proto::policy::admin_server::AdminServer;
use super::proto::policy::policy_service_server::{PolicyService as _, PolicyServiceServer};
use super::proto::policy::{DecideBatchRequest, DecideBatchResponse, SessionRequest, SessionResponse};
use super::reflection::Reflection;
use super::session::Session;
use super::shared::Shared;

/// Every service, to be cloned for a request, which is cheap.
#[derive(Debug)]
pub(super) struct Routes {
    models: Models,
    health: HealthServer<Health>,
    reflection: Option<Reflection>,
}

/// The services that answer with models and for them.
#[derive(Debug)]
pub(super) struct Models {
    decisions: Arc<Decisions>,
    inferences: Arc<Inferences>,
    policy: PolicyServiceServer<Decisions>,
    inference: GrpcInferenceServiceServer<Inferences>,
    admin: AdminServer<Administration>,
    bounds: Bounds,
    message_bytes: usize,
}

/// Bytes of a question after the health of a service.
const HEALTH_BYTES: usize = 1 << 10;

impl Routes {
    pub(super) fn new(shared: &Arc<Shared>, plane: Plane) -> Self {
        Routes {
            models: Models::new(shared),
            health: HealthServer::new(Health::new(shared)).max_decoding_message_size(HEALTH_BYTES),
            reflection: Reflection::new(plane),
        }
    }

    /// The answer of the service that knows this call.
    pub(super) async fn call(&self, method: Method, request: Request<Incoming>) -> Response<Body> {
        let answered = match (method.service(), &self.reflection) {
            (Service::Policy | Service::Inference | Service::Admin, _) => {
                return self.models.call(method, request).await;
            }
            (Service::Health, _) => self.health.clone().call(request).await,
            (Service::Reflection, Some(reflection)) => reflection.v1.call(request).await,
            (Service::ReflectionAlpha, Some(reflection)) => reflection.v1alpha.call(request).await,
            _ => Ok(unknown()),
        };
        answered.unwrap_or_else(|never| match never {})
    }
}

impl Models {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let bytes = shared.config.limits.message_bytes;
        let decisions = Arc::new(Decisions { shared: Arc::clone(shared) });
        let inferences = Arc::new(Inferences { shared: Arc::clone(shared) });
        let administration = Administration { shared: Arc::clone(shared) };
        let inference = GrpcInferenceServiceServer::from_arc(Arc::clone(&inferences));
        Models {
            policy: PolicyServiceServer::from_arc(Arc::clone(&decisions)).max_decoding_message_size(bytes),
            inference: inference.max_decoding_message_size(bytes),
            admin: AdminServer::new(administration).max_decoding_message_size(bytes),
            decisions,
            inferences,
            bounds: Bounds::of(&shared.config.limits),
            message_bytes: bytes,
        }
    }

    /// The answer to a call that one of these services knows.
    pub(super) async fn call<B>(&self, method: Method, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
    {
        let (bounds, bytes) = (self.bounds, self.message_bytes);
        let answered = match (method, method.service()) {
            (Method::DECIDE_BATCH, _) => {
                let service = Batches(Arc::clone(&self.decisions));
                return Bounded::<DecideBatchResponse, _>::grpc(bounds, bytes).unary(service, request).await;
            }
            (Method::SESSION, _) => {
                let service = Sessions(Arc::clone(&self.decisions));
                return Bounded::<SessionResponse, _>::grpc(bounds, bytes).streaming(service, request).await;
            }
            (Method::MODEL_INFER, _) => {
                let service = Tensors(Arc::clone(&self.inferences));
                return Bounded::<ModelInferResponse, _>::grpc(bounds, bytes).unary(service, request).await;
            }
            (_, Service::Policy) => self.policy.clone().call(request).await,
            (_, Service::Inference) => self.inference.clone().call(request).await,
            (_, Service::Admin) => self.admin.clone().call(request).await,
            _ => Ok(unknown()),
        };
        answered.unwrap_or_else(|never| match never {})
    }
}

/// `DecideBatch`.
struct Batches(Arc<Decisions>);
/// `Session`.
struct Sessions(Arc<Decisions>);
/// `ModelInfer`.
struct Tensors(Arc<Inferences>);

/// What a service will answer.
type Answering<T> = Pin<Box<dyn Future<Output = Result<tonic::Response<T>, Status>> + Send>>;

impl UnaryService<DecideBatchRequest> for Batches {
    type Response = DecideBatchResponse;
    type Future = Answering<DecideBatchResponse>;

    fn call(&mut self, request: tonic::Request<DecideBatchRequest>) -> Self::Future {
        let decisions = Arc::clone(&self.0);
        Box::pin(async move { decisions.decide_batch(request).await })
    }
}

impl StreamingService<SessionRequest> for Sessions {
    type Response = SessionResponse;
    type ResponseStream = Session;
    type Future = Answering<Session>;

    fn call(&mut self, request: tonic::Request<Streaming<SessionRequest>>) -> Self::Future {
        let decisions = Arc::clone(&self.0);
        Box::pin(async move { decisions.session(request).await })
    }
}

impl UnaryService<ModelInferRequest> for Tensors {
    type Response = ModelInferResponse;
    type Future = Answering<ModelInferResponse>;

    fn call(&mut self, request: tonic::Request<ModelInferRequest>) -> Self::Future {
        let inferences = Arc::clone(&self.0);
        Box::pin(async move { inferences.model_infer(request).await })
    }
}

fn unknown() -> Response<Body> {
    Status::unimplemented("there is no such call").into_http()
}
