//! The calls that a server knows.

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Method(usize);

/// Which service answers a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// `bellwether.policy.v1.PolicyService`.
    Policy,
    /// `inference.GRPCInferenceService`.
    Inference,
    /// `grpc.health.v1.Health`.
    Health,
    /// `grpc.reflection.v1.ServerReflection`.
    Reflection,
    /// `grpc.reflection.v1alpha.ServerReflection`.
    ReflectionAlpha,
    /// `bellwether.policy.v1.Admin`.
    Admin,
    /// None.
    Unknown,
}

/// A row of the table.
struct Row {
    path: &'static str,
    service: Service,
    /// Whether the call is a stream, on which no deadline of ours stands.
    stream: bool,
}

const fn unary(service: Service, path: &'static str) -> Row {
    Row { path, service, stream: false }
}

const fn stream(service: Service, path: &'static str) -> Row {
    Row { path, service, stream: true }
}

/// All calls, those that are asked most first. The last one stands for all that are not known.
const ROWS: [Row; 30] = [
    unary(Service::Policy, "/bellwether.policy.v1.PolicyService/Decide"),
    unary(Service::Inference, "/inference.GRPCInferenceService/ModelInfer"),
    unary(Service::Policy, "/bellwether.policy.v1.PolicyService/DecideBatch"),
    stream(Service::Policy, "/bellwether.policy.v1.PolicyService/Session"),
    unary(Service::Policy, "/bellwether.policy.v1.PolicyService/Describe"),
    unary(Service::Inference, "/inference.GRPCInferenceService/ServerLive"),
    unary(Service::Inference, "/inference.GRPCInferenceService/ServerReady"),
    unary(Service::Inference, "/inference.GRPCInferenceService/ModelReady"),
    unary(Service::Inference, "/inference.GRPCInferenceService/ServerMetadata"),
    unary(Service::Inference, "/inference.GRPCInferenceService/ModelMetadata"),
    unary(Service::Inference, "/inference.GRPCInferenceService/ModelConfig"),
    unary(Service::Inference, "/inference.GRPCInferenceService/ModelStatistics"),
    unary(Service::Inference, "/inference.GRPCInferenceService/RepositoryIndex"),
    unary(Service::Inference, "/inference.GRPCInferenceService/RepositoryModelLoad"),
    unary(Service::Inference, "/inference.GRPCInferenceService/RepositoryModelUnload"),
    unary(Service::Health, "/grpc.health.v1.Health/Check"),
    stream(Service::Health, "/grpc.health.v1.Health/Watch"),
    stream(Service::Reflection, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    stream(Service::ReflectionAlpha, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
    unary(Service::Admin, "/bellwether.policy.v1.Admin/Status"),
    unary(Service::Admin, "/bellwether.policy.v1.Admin/Pin"),
    unary(Service::Admin, "/bellwether.policy.v1.Admin/Unpin"),
    unary(Service::Admin, "/bellwether.policy.v1.Admin/Rollback"),
    unary(Service::Admin, "/bellwether.policy.v1.Admin/TryOut"),
    unary(Service::Admin, "/bellwether.policy.v1.Admin/SetCanary"),
    unary(Service::Admin, "/bellwether.policy.v1.Admin/Withdraw"),
    unary(Service::Admin, "/bellwether.policy.v1.Admin/Promote"),
    unary(Service::Admin, "/bellwether.policy.v1.Admin/CheckNow"),
    unary(Service::Admin, "/bellwether.policy.v1.Admin/Forgive"),
    unary(Service::Unknown, "unknown"),
];

impl Method {
    /// Every call, and the one that stands for all others.
    pub(super) const ALL: [Method; ROWS.len()] = {
        let mut all = [Method(0); ROWS.len()];
        let mut index = 0;
        while index < all.len() {
            all[index] = Method(index);
            index += 1;
        }
        all
    };

    /// Tensors of a model.
    pub(super) const MODEL_INFER: Method = Method(1);
    /// Several questions.
    pub(super) const DECIDE_BATCH: Method = Method(2);
    /// One sandbox connection.
    pub(super) const SESSION: Method = Method(3);

    /// The call with this path.
    pub(super) fn of(path: &str) -> Method {
        Method(ROWS.iter().position(|row| row.path == path).unwrap_or(ROWS.len() - 1))
    }

    pub(super) fn index(self) -> usize {
        self.0
    }

    pub(super) fn path(self) -> &'static str {
        ROWS[self.0].path
    }

    pub(super) fn service(self) -> Service {
        ROWS[self.0].service
    }

    pub(super) fn is_stream(self) -> bool {
        ROWS[self.0].stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_are_named_are_those() {
        for (method, call) in
            [(Method::MODEL_INFER, "ModelInfer"), (Method::DECIDE_BATCH, "DecideBatch"), (Method::SESSION, "Session")]
        {
            assert!(method.path().ends_with(&format!("/{call}")), "{call}");
        }
    }
}
