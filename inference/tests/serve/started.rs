//! A server that was started for one test, and clients of it.

use std::path::Path;
use std::time::Duration;

use bellwether_artifact::{OperatingPoint, Sha256};
use bellwether_inference::model::{Contract, Expectation, Mlp};
use bellwether_inference::policy::Options;
use bellwether_inference::release::check_release;
use bellwether_inference::serve::proto::policy::policy_service_client::PolicyServiceClient;
use bellwether_inference::serve::{ServeConfig, Server};
use bellwether_inference::{Isa, LoadedRelease, Policy, load_release};
use tonic::transport::{Channel, Endpoint};

use crate::manifests::sealed;
use crate::nets::Draw;

/// Width of the states.
pub(crate) const WIDTH: usize = 12;

pub(crate) fn network(seed: u64) -> Mlp {
    Draw(seed).mlp(&[WIDTH, 16, 5])
}

/// A release that knows two operating points.
pub(crate) fn release(seed: u64) -> LoadedRelease {
    let contract = Contract::sandbox(WIDTH, Sha256::of(b"spec"));
    let point = |target_fpr, cost| OperatingPoint { target_fpr, cost, calibration_fpr: None, calibration_tpr: None };
    let (manifest, onnx) = sealed(&network(seed), &contract, |manifest| {
        manifest.operating_points = vec![point(0.01, 0.9), point(0.05, 0.5)];
    });
    check_release(manifest, &onnx, &Expectation::new(contract), Isa::best()).unwrap()
}

pub(crate) fn policy(seed: u64) -> Policy {
    Policy::new(release(seed), Some(1), Options::default()).unwrap()
}

/// A configuration for a free port on loopback.
pub(crate) fn config() -> ServeConfig {
    ServeConfig { grpc: Some(([127, 0, 0, 1], 0).into()), ..ServeConfig::default() }
}

/// A server on a free port.
pub(crate) fn start(change: impl FnOnce(&mut ServeConfig)) -> Server {
    let mut config = config();
    change(&mut config);
    Server::start(config, policy(1), "policy", None).unwrap()
}

/// The model that ships, whose states are those of the sandbox.
pub(crate) fn shipped() -> LoadedRelease {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/quickstart");
    let manifest = bellwether_artifact::release::read_manifest(&folder).unwrap();
    let contract = Contract::sandbox(manifest.features.width as usize, manifest.features.spec_sha256);
    load_release(&folder, &Expectation::new(contract), Isa::best()).unwrap()
}

/// A server of the model that ships.
pub(crate) fn start_shipped(change: impl FnOnce(&mut ServeConfig)) -> Server {
    let mut config = config();
    change(&mut config);
    let policy = Policy::new(shipped(), None, Options::default()).unwrap();
    Server::start(config, policy, "quickstart", None).unwrap()
}

/// A channel over TCP.
pub(crate) async fn channel(server: &Server) -> Channel {
    let address = server.endpoints().grpc.unwrap();
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A channel over a Unix socket.
pub(crate) async fn unix_channel(path: &Path) -> Channel {
    Endpoint::from_shared(format!("unix://{}", path.display())).unwrap().connect().await.unwrap()
}

/// A client over TCP.
pub(crate) async fn client(server: &Server) -> PolicyServiceClient<Channel> {
    PolicyServiceClient::new(channel(server).await)
}

/// Waits until something is so, for as long as no healthy machine needs.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come to be");
}
