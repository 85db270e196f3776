//! Models that want the same of every file, so that no test of what happens around a decision rests on a trained one.
#![allow(dead_code, reason = "each test file uses a part of it")]

#[path = "../../inference/tests/manifests/mod.rs"]
mod manifests;
#[path = "../../inference/tests/nets/mod.rs"]
mod nets;

use std::path::Path;

use bellwether_artifact::{OperatingPoint, Sha256, WindowLimits, release};
use bellwether_env_adapter::WindowConfig;
use bellwether_env_adapter::spec::{FeatureSpec, WIDTH};
use bellwether_inference::model::Contract;

/// The folder of a model that goes on as long as it may, and then releases.
pub(crate) fn patient(folder: &Path) -> String {
    of(folder, "patient", [1.0, 0.0, 0.5, 0.25, 0.0])
}

/// The folder of a model that puts everything into quarantine at the first window.
pub(crate) fn stern(folder: &Path) -> String {
    of(folder, "stern", [0.0, 0.0, 0.0, 0.5, 1.0])
}

/// A model to which actions are worth the same in every state.
fn of(folder: &Path, name: &str, worth: [f32; 5]) -> String {
    let network = nets::single(WIDTH, &vec![0.0; 5 * WIDTH], &worth);
    let window = WindowConfig::default();
    let contract = Contract::sandbox(WIDTH, Sha256::from_bytes(FeatureSpec::v1(window.clone()).hash()));
    let (manifest, onnx) = manifests::sealed(&network, &contract, |manifest| {
        let WindowConfig { max_events, max_ns, max_windows } = window;
        manifest.features.window = WindowLimits { max_events, max_ns, max_windows };
        let point = OperatingPoint { target_fpr: 0.05, cost: 0.5, calibration_fpr: None, calibration_tpr: None };
        manifest.operating_points = vec![point];
    });
    let model = folder.join(name);
    std::fs::create_dir(&model).unwrap();
    std::fs::write(release::onnx_path(&model), onnx).unwrap();
    std::fs::write(release::manifest_path(&model), manifest.to_json().unwrap()).unwrap();
    model.to_str().unwrap().to_owned()
}
