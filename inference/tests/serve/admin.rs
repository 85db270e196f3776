//! What operators do, and who may: admin calls, health, reflection, tokens.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bellwether_inference::serve::proto::policy::admin_client::AdminClient;
use bellwether_inference::serve::proto::policy::policy_service_client::PolicyServiceClient;
use bellwether_inference::serve::proto::policy::{
    CheckNowRequest, DecideRequest, PinRequest, PromoteRequest, RollbackRequest, SetCanaryRequest, StatusRequest,
    UnpinRequest, WithdrawRequest,
};
use bellwether_inference::serve::{ServeError, Server};
use tokio_stream::StreamExt as _;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::started::{WIDTH, channel, config, policy, release, start, unix_channel};

const TOKEN: &str = "a-token-of-the-data-plane";
const ADMIN_TOKEN: &str = "a-token-of-the-admin-plane";

/// A file that only its owner may read.
pub(crate) fn private(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::io::Write::write_all(&mut std::fs::File::create_new(&path).unwrap(), text.as_bytes()).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

fn bearing<T>(message: T, authorization: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(value) = authorization {
        request.metadata_mut().insert("authorization", MetadataValue::try_from(value).unwrap());
    }
    request
}

async fn admin_channel(server: &Server) -> Channel {
    unix_channel(server.endpoints().admin_unix.as_ref().unwrap()).await
}

#[tokio::test]
async fn an_operator_pins_tries_promotes_and_rolls_back() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(|config| config.admin_unix = Some(folder.path().join("admin.sock")));
    let mut admin = AdminClient::new(admin_channel(&server).await);
    let policy = &server.shared().policy;
    let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.champion.unwrap().version, policy.status().champion.version.to_string());
    assert_eq!((status.pinned, status.models_resident, status.leaving, status.watch), (false, 1, false, None));
    assert_eq!(admin.rollback(RollbackRequest {}).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(admin.promote(PromoteRequest {}).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(admin.withdraw(WithdrawRequest {}).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(admin.check_now(CheckNowRequest {}).await.unwrap_err().code(), Code::FailedPrecondition);

    policy.try_out(release(2), Some(2), 0.5).unwrap();
    let with = |share| SetCanaryRequest { share };
    assert_eq!(admin.set_canary(with(0.25)).await.unwrap().into_inner().canary_share, 0.25);
    assert_eq!(admin.set_canary(with(1.5)).await.unwrap_err().code(), Code::InvalidArgument);
    assert!(admin.pin(PinRequest {}).await.unwrap().into_inner().pinned);
    assert_eq!(admin.promote(PromoteRequest {}).await.unwrap_err().code(), Code::FailedPrecondition);
    assert!(!admin.unpin(UnpinRequest {}).await.unwrap().into_inner().pinned);
    let promoted = admin.promote(PromoteRequest {}).await.unwrap().into_inner();
    assert_eq!((promoted.champion.unwrap().number, promoted.swaps), (Some(2), 1));
    let back = admin.rollback(RollbackRequest {}).await.unwrap().into_inner();
    assert_eq!((back.champion.unwrap().number, back.rollbacks), (Some(1), 1));
    policy.try_out(release(3), Some(3), 0.5).unwrap();
    assert_eq!(admin.withdraw(WithdrawRequest {}).await.unwrap().into_inner().canary, None);
}

#[tokio::test]
async fn admin_calls_and_decisions_have_listeners_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(|config| config.admin_unix = Some(folder.path().join("admin.sock")));
    let on_data = AdminClient::new(channel(&server).await).pin(PinRequest {}).await.unwrap_err();
    assert_eq!(on_data.code(), Code::Unimplemented);
    assert!(!server.shared().policy.status().pinned);
    let mut on_admin = PolicyServiceClient::new(admin_channel(&server).await);
    let request = DecideRequest { state: vec![0.5; WIDTH], ..DecideRequest::default() };
    assert_eq!(on_admin.decide(request).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn tokens_are_asked_for_on_each_plane() {
    let folder = tempfile::tempdir().unwrap();
    let data_token = private(folder.path(), "token", &format!("{TOKEN}\n"));
    let admin_token = private(folder.path(), "admin-token", ADMIN_TOKEN);
    let server = start(|config| {
        config.auth.token_file = Some(data_token);
        config.auth.admin_token_file = Some(admin_token);
        config.admin = Some(([127, 0, 0, 1], 0).into());
    });
    let address = server.endpoints().admin.unwrap();
    let admin_channel =
        tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut data = PolicyServiceClient::new(channel(&server).await);
    let mut admin = AdminClient::new(admin_channel);
    let bearer = |token: &str| format!("Bearer {token}");
    for (value, data_passes, admin_passes) in [
        (None, false, false),
        (Some(String::new()), false, false),
        (Some(TOKEN.to_owned()), false, false),
        (Some(format!("Basic {TOKEN}")), false, false),
        (Some(bearer("")), false, false),
        (Some(bearer(&TOKEN[1..])), false, false),
        (Some(bearer(&format!("{TOKEN}x"))), false, false),
        (Some(bearer(&TOKEN.to_uppercase())), false, false),
        (Some(bearer(TOKEN)), true, false),
        (Some(format!("bearer {TOKEN}")), true, false),
        (Some(bearer(ADMIN_TOKEN)), false, true),
    ] {
        let question = DecideRequest { state: vec![0.5; WIDTH], ..DecideRequest::default() };
        let answer = data.decide(bearing(question, value.as_deref())).await;
        assert_eq!(answer.is_ok(), data_passes, "{value:?}");
        assert!(answer.is_ok_and(|_| true) || !data_passes);
        let done = admin.status(bearing(StatusRequest {}, value.as_deref())).await;
        assert_eq!(done.is_ok(), admin_passes, "{value:?}");
        if let Err(status) = done {
            assert_eq!(status.code(), Code::Unauthenticated);
            assert!(!status.message().contains(ADMIN_TOKEN));
        }
    }
    // Health is open unless the configuration says otherwise; reflection is not.
    assert!(health(&server, "").await.is_ok());
    assert_eq!(listed(channel(&server).await).await.unwrap_err().code(), Code::Unauthenticated);
    assert!(!format!("{:?}", server.shared()).contains(TOKEN));
}

#[test]
fn a_token_that_others_can_read_or_that_is_none_is_refused_before_anything_listens() {
    let folder = tempfile::tempdir().unwrap();
    let open = private(folder.path(), "open", TOKEN);
    std::fs::set_permissions(&open, Permissions::from_mode(0o640)).unwrap();
    let short = private(folder.path(), "short", "secret\n");
    let lines = private(folder.path(), "lines", &format!("{TOKEN}\n{TOKEN}\n"));
    let large = private(folder.path(), "large", &"x".repeat(70_000));
    for (path, advice) in [
        (open, "mode 640 lets others at it; chmod 600"),
        (short, "give one line of 16 to 4096"),
        (lines, "give one line of 16 to 4096"),
        (large, "more than 65536 bytes; give"),
        (folder.path().join("absent"), "cannot be read"),
        (folder.path().to_owned(), "no regular file; give one"),
    ] {
        let mut config = config();
        config.unix = Some(folder.path().join("serve.sock"));
        config.auth.token_file = Some(path.clone());
        match Server::start(config, policy(1), "policy", None) {
            Err(ServeError::File { path: named, reason }) => {
                assert!(named == path && reason.contains(advice), "{advice}: {reason}");
            }
            other => panic!("{other:?}"),
        }
        assert!(!folder.path().join("serve.sock").exists());
    }
}

pub(crate) async fn health(server: &Server, service: &str) -> Result<ServingStatus, tonic::Status> {
    let mut client = HealthClient::new(channel(server).await);
    let response = client.check(HealthCheckRequest { service: service.to_owned() }).await?;
    Ok(response.into_inner().status())
}

#[tokio::test]
async fn health_is_told_for_each_service() {
    let server = start(|_| ());
    for service in ["", "bellwether.policy.v1.PolicyService", "inference.GRPCInferenceService"] {
        assert_eq!(health(&server, service).await.unwrap(), ServingStatus::Serving);
    }
    assert_eq!(health(&server, "no.such.Service").await.unwrap_err().code(), Code::NotFound);
    let mut client = HealthClient::new(channel(&server).await);
    let unknown = HealthCheckRequest { service: "no.such.Service".to_owned() };
    let mut watched = client.watch(unknown).await.unwrap().into_inner();
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
}

/// The services that reflection lists, by both of its protocols, which must agree.
async fn listed(channel: Channel) -> Result<Vec<String>, tonic::Status> {
    use tonic_reflection::pb::{v1, v1alpha};
    let stable = {
        use v1::server_reflection_client::ServerReflectionClient;
        use v1::server_reflection_request::MessageRequest;
        use v1::server_reflection_response::MessageResponse;
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let request = v1::ServerReflectionRequest { host: String::new(), message_request };
        let mut client = ServerReflectionClient::new(channel.clone());
        let mut answers = client.server_reflection_info(tokio_stream::once(request)).await?.into_inner();
        match answers.next().await.unwrap()?.message_response {
            Some(MessageResponse::ListServicesResponse(list)) => list.service,
            other => panic!("{other:?}"),
        }
    };
    let before = {
        use v1alpha::server_reflection_client::ServerReflectionClient;
        use v1alpha::server_reflection_request::MessageRequest;
        use v1alpha::server_reflection_response::MessageResponse;
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request };
        let mut client = ServerReflectionClient::new(channel);
        let mut answers = client.server_reflection_info(tokio_stream::once(request)).await?.into_inner();
        match answers.next().await.unwrap()?.message_response {
            Some(MessageResponse::ListServicesResponse(list)) => list.service,
            other => panic!("{other:?}"),
        }
    };
    let names = |names: Vec<String>| -> Vec<String> {
        names.into_iter().filter(|name| !name.starts_with("grpc.reflection.")).collect()
    };
    let stable = names(stable.into_iter().map(|service| service.name).collect());
    assert_eq!(stable, names(before.into_iter().map(|service| service.name).collect()));
    Ok(stable)
}

#[tokio::test]
async fn reflection_lists_what_a_listener_offers() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(|config| config.admin_unix = Some(folder.path().join("admin.sock")));
    let data = listed(channel(&server).await).await.unwrap();
    let expected = ["bellwether.policy.v1.PolicyService", "inference.GRPCInferenceService", "grpc.health.v1.Health"];
    assert_eq!(data, expected);
    let admin = listed(admin_channel(&server).await).await.unwrap();
    assert_eq!(admin, ["bellwether.policy.v1.Admin", "grpc.health.v1.Health"]);
}
