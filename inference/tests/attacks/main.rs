//! Hostile and damaged model files, each refused with its own error while what is served goes on deciding.
//!
//! [`listed`] has one test for each attack that is known of model servers, under its name; the other files go through the format
//! part by part. Files are made here, by changing the messages or the bytes of a sound one. Attacks on folders and on signatures
//! stand with the watcher.
#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

#[path = "../graphs/mod.rs"]
mod graphs;
#[path = "../manifests/mod.rs"]
mod manifests;
#[path = "../nets/mod.rs"]
mod nets;
#[path = "../../src/model/onnx.rs"]
#[allow(dead_code, reason = "the loader uses more of it")]
mod onnx;

#[macro_use]
mod refusal;
mod container;
mod contract;
mod damage;
mod general;
mod graph;
mod heads;
mod listed;
mod tensors;

use bellwether_artifact::{OnnxFile, Sha256};
use bellwether_inference::model::{Contract, Expectation, Linear, Mlp, ModelError, encode, load};
use bellwether_inference::policy::{Limits, Options};
use bellwether_inference::release::check_release;
use bellwether_inference::{Isa, Policy, ReleaseError};
use manifests::sealed;
use onnx::{ModelProto, NodeProto, TensorProto};
use prost::Message;

fn contract() -> Contract {
    let actions = ["left", "right"].map(str::to_owned).to_vec();
    Contract { width: 3, feature_spec: Sha256::of(b"spec"), action_set: 7, actions }
}

fn mlp() -> Mlp {
    let linear = |inputs: usize, outputs: usize| Linear {
        inputs,
        outputs,
        weights: (0..inputs * outputs).map(|index| index as f32 / 8.0 - 1.0).collect(),
        bias: (0..outputs).map(|index| index as f32).collect(),
    };
    Mlp::plain(vec![linear(3, 4), linear(4, 5), linear(5, 2)])
}

fn bytes() -> Vec<u8> {
    encode(&mlp(), &contract()).unwrap()
}

/// Gives a file to the loader, and as a release, sealed around it, to whoever would swap it in. A policy that serves the sound model
/// decides as before.
fn offer(bytes: &[u8]) -> Result<Mlp, ModelError> {
    let expectation = Expectation::new(contract());
    let (sound, onnx) = sealed(&mlp(), &contract(), |_| {});
    let release = check_release(sound.clone(), &onnx, &expectation, Isa::best()).unwrap();
    let options = Options { limits: Limits { hidden_width: 8 }, ..Options::default() };
    let policy = Policy::new(release, Some(1), options).unwrap();
    let mut decider = policy.decider();
    let (state, mask) = ([0.25, 0.0, 1.0], [true; 2]);
    let mut decide = || {
        let answer = decider.decide(&state, &mask).unwrap();
        (answer.decision.action, answer.decision.q_values.to_vec(), answer.model)
    };
    let before = decide();
    let found = load(bytes, &expectation);
    let mut manifest = sound;
    manifest.onnx = OnnxFile { sha256: Sha256::of(bytes), bytes: bytes.len() as u64 };
    let offered = check_release(manifest.sealed().unwrap(), bytes, &expectation, Isa::best());
    if let Err(expected) = &found {
        assert!(matches!(&offered, Err(ReleaseError::Model(error)) if error == expected), "{offered:?}");
    }
    assert_eq!(decide(), before);
    assert_eq!(policy.status().models_resident, 1);
    found
}

/// Loads a good model after `change` was applied to its messages.
fn changed(change: impl FnOnce(&mut ModelProto)) -> Result<Mlp, ModelError> {
    let mut model = ModelProto::decode(bytes().as_slice()).unwrap();
    change(&mut model);
    offer(&model.encode_to_vec())
}

fn tensor(model: &mut ModelProto, index: usize) -> &mut TensorProto {
    &mut model.graph.as_mut().unwrap().initializer[index]
}

fn node(model: &mut ModelProto, index: usize) -> &mut NodeProto {
    &mut model.graph.as_mut().unwrap().node[index]
}

/// `payload` as field `number` of wire type 2.
fn field(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(number << 3 | 2, &mut out);
    prost::encoding::encode_varint(payload.len() as u64, &mut out);
    out.extend_from_slice(payload);
    out
}

/// Loads a model whose first tensor (`in_tensor`), graph or outermost message has `extra` behind it.
fn appended(to: &str, extra: &[u8]) -> Result<Mlp, ModelError> {
    let mut model = ModelProto::decode(bytes().as_slice()).unwrap();
    let mut graph = model.graph.take().unwrap();
    let mut tail = Vec::new();
    match to {
        "model" => tail.extend(field(7, &graph.encode_to_vec())),
        "graph" => tail.extend(field(7, &[&graph.encode_to_vec(), extra].concat())),
        _ => {
            let tensor = graph.initializer.remove(0);
            let tensor = field(5, &[&tensor.encode_to_vec(), extra].concat());
            tail.extend(field(7, &[graph.encode_to_vec(), tensor].concat()));
        }
    }
    let outer = if to == "model" { extra } else { &[] };
    offer(&[&model.encode_to_vec(), tail.as_slice(), outer].concat())
}
