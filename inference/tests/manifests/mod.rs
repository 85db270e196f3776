//! Releases for the tests, from networks.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;

use bellwether_artifact::{
    ActionBinding, FORMAT_VERSION, FORMAT_VERSION_WITH_GRAPH, FeatureBinding, ModelManifest, ModelVersion, OnnxFile,
    Sha256, SourceRevision, WindowLimits,
};
use bellwether_inference::model::{Contract, Expectation, Mlp, encode};
use bellwether_inference::release::{check_release, golden_vector};
use bellwether_inference::{Engine, Isa, LoadedRelease};

use super::nets::state_for;

/// The sealed manifest of a network, after a change, and its file.
pub(crate) fn sealed(
    mlp: &Mlp,
    contract: &Contract,
    change: impl FnOnce(&mut ModelManifest),
) -> (ModelManifest, Vec<u8>) {
    let onnx = encode(mlp, contract).unwrap();
    let engine = Engine::new(mlp, Isa::Scalar).unwrap();
    let mut scratch = engine.scratch();
    let actions = mlp.outputs();
    let mut golden = |seed: u64| {
        let mask: Vec<bool> = (0..actions).map(|action| action as u64 != seed % actions as u64).collect();
        golden_vector(&engine, &mut scratch, &state_for(mlp, seed), &mask).unwrap()
    };
    let mut manifest = ModelManifest {
        format_version: if mlp.graph().is_some() { FORMAT_VERSION_WITH_GRAPH } else { FORMAT_VERSION },
        name: "policy".to_owned(),
        version: ModelVersion::UNSEALED,
        onnx: OnnxFile { sha256: Sha256::of(&onnx), bytes: onnx.len() as u64 },
        widths: mlp.widths().map(|width| width as u32).collect(),
        graph: mlp.graph(),
        features: FeatureBinding {
            spec_version: 1,
            spec_sha256: contract.feature_spec,
            width: mlp.inputs() as u32,
            window: WindowLimits { max_events: 64, max_ns: 100_000_000, max_windows: 0 },
        },
        actions: ActionBinding { set_version: contract.action_set, names: contract.actions.clone() },
        operating_points: Vec::new(),
        training: serde_json::json!({}),
        metrics: BTreeMap::new(),
        data: Vec::new(),
        golden: (0..4).map(&mut golden).collect(),
        source: SourceRevision { package: "0.1.0".to_owned(), revision: None, modified: None },
    };
    change(&mut manifest);
    (manifest.sealed().unwrap(), onnx)
}

/// A checked release of a network over the sandbox's five actions.
pub(crate) fn release(mlp: &Mlp) -> LoadedRelease {
    let contract = Contract::sandbox(mlp.inputs(), Sha256::of(b"spec"));
    let (manifest, onnx) = sealed(mlp, &contract, |_| {});
    check_release(manifest, &onnx, &Expectation::new(contract), Isa::best()).unwrap()
}
