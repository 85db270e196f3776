//! Reflection: what a listener offers, in the stable protocol and in the one before it.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic_reflection::server::Builder;

use super::dispatch::Plane;
use super::proto::DESCRIPTORS;

/// Answers in both protocols.
pub(super) struct Reflection {
    pub(super) v1: Reflected,
    pub(super) v1alpha: Reflected,
}

/// A service whose type has no name.
pub(super) struct Reflected(Box<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>);

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// What each listener offers.
const DATA: [&str; 3] =
    ["bellwether.policy.v1.PolicyService", "inference.GRPCInferenceService", "grpc.health.v1.Health"];
const ADMIN: [&str; 2] = ["bellwether.policy.v1.Admin", "grpc.health.v1.Health"];

impl Reflection {
    /// `None` where the descriptors that were built in cannot be read, which a test excludes.
    pub(super) fn new(plane: Plane) -> Option<Self> {
        let offered = match plane {
            Plane::Data | Plane::Http => &DATA[..],
            Plane::Admin => &ADMIN[..],
        };
        let builder = |own: &str| {
            let builder = Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
            offered.iter().copied().chain([own]).fold(builder, Builder::with_service_name)
        };
        let v1 = builder("grpc.reflection.v1.ServerReflection").build_v1().ok()?;
        let v1alpha = builder("grpc.reflection.v1alpha.ServerReflection").build_v1alpha().ok()?;
        Some(Reflection { v1: Reflected::new(v1), v1alpha: Reflected::new(v1alpha) })
    }
}

impl Reflected {
    fn new<S>(service: S) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        Reflected(Box::new(move |request| Box::pin(service.clone().call(request))))
    }

    pub(super) async fn call(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        (self.0)(request).await
    }
}

impl fmt::Debug for Reflection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Reflection")
    }
}
