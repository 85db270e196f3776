//! ONNX Runtime under the same contract as the native engine, for graphs that the native one does not evaluate.
//!
//! Without the library, which `ORT_DYLIB_PATH` names, what needs it says that it was skipped.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed set-up is a failed test; what is skipped is named"
)]

mod graphs;
mod manifests;
mod nets;
#[path = "../src/model/onnx.rs"]
#[allow(dead_code, reason = "the loader uses more of it")]
mod onnx;
mod over;

use std::collections::BTreeMap;
use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bellwether_artifact::{FORMAT_VERSION_WITH_GRAPH, Graph, ModelManifest, ModelVersion, OnnxFile, Sha256, durable};
use bellwether_inference::model::{
    Contract, Expectation, Mlp, ModelError, check_general, encode, is_general, load, read,
};
use bellwether_inference::policy::Options;
use bellwether_inference::release::{TOLERANCE, check_release, golden_vector};
use bellwether_inference::{
    Backend, DecideError, Engine, EngineError, Engines, GoldenError, Isa, LoadedRelease, OnnxRuntime, Policy,
    Precision, ReleaseError,
};
use manifests::{release, sealed};
use nets::{Draw, arbitrary_mlp, single, state_for};
use onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use over::Over;
use proptest::prelude::*;
use prost::Message;

fn contract_of(mlp: &Mlp) -> Contract {
    let actions = (0..mlp.outputs()).map(|action| format!("action_{action}")).collect();
    Contract { width: mlp.inputs(), feature_spec: Sha256::of(b"spec"), action_set: 3, actions }
}

/// The file of a network as a general graph, after a change.
fn general(mlp: &Mlp, contract: &Contract, change: impl FnOnce(&mut GraphProto)) -> Vec<u8> {
    let mut model = ModelProto::decode(encode(mlp, contract).unwrap().as_slice()).unwrap();
    model.metadata_props[0].value = Some("3".to_owned());
    change(model.graph.as_mut().unwrap());
    model.encode_to_vec()
}

/// Every `Relu` becomes another operator.
fn activated(operator: &str) -> impl Fn(&mut GraphProto) {
    move |graph| {
        for node in graph.node.iter_mut().filter(|node| node.op_type.as_deref() == Some("Relu")) {
            node.op_type = Some(operator.to_owned());
        }
    }
}

fn is_here() -> bool {
    let here = env::var_os("ORT_DYLIB_PATH").is_some();
    if !here {
        println!("skipped: ONNX Runtime: ORT_DYLIB_PATH does not name its library");
    }
    here
}

fn options(sessions: usize) -> OnnxRuntime {
    OnnxRuntime { library: None, sessions }
}

fn engine(onnx: &[u8], contract: &Contract, sessions: usize) -> Engine {
    Engine::on_onnx_runtime(onnx, &Expectation::new(contract.clone()), Isa::best(), &options(sessions)).unwrap()
}

proptest! {
    #[test]
    fn a_network_decides_as_in_the_native_engine(mlp in arbitrary_mlp(), seed: u64, allowed: u64) {
        if !is_here() {
            return Ok(());
        }
        let contract = contract_of(&mlp);
        let runtime = engine(&general(&mlp, &contract, |_| {}), &contract, 1);
        let native = Engine::new(&mlp, Isa::best()).unwrap();
        prop_assert_eq!((runtime.width(), runtime.actions()), (native.width(), native.actions()));
        let (mut ours, mut theirs) = (runtime.scratch(), native.scratch());
        let actions = mlp.outputs();
        let mut mask: Vec<bool> = (0..actions).map(|action| allowed >> (action % 64) & 1 == 1).collect();
        mask[(seed % actions as u64) as usize] = true;
        for seed in seed..seed.saturating_add(3) {
            let state = state_for(&mlp, seed);
            let expected = native.decide(&mut theirs, &state, &mask).unwrap();
            let found = runtime.decide(&mut ours, &state, &mask).unwrap();
            for (found, expected) in found.q_values.iter().zip(expected.q_values) {
                let (found, expected) = (f64::from(*found), f64::from(*expected));
                prop_assert!((found - expected).abs() <= TOLERANCE * expected.abs().max(1.0), "{found} {expected}");
            }
            prop_assert_eq!((found.certified, found.bound), (false, 0.0));
            let close = expected.margin.is_some_and(|margin| f64::from(margin) <= 3.0 * TOLERANCE * expected.q_values.iter().fold(1.0_f64, |most, q| most.max(f64::from(q.abs()))));
            prop_assert!(found.action == expected.action || close);
            prop_assert_eq!(found.margin.is_some(), expected.margin.is_some());
        }
    }
}

#[test]
fn refusals_are_those_of_the_native_engine() {
    if !is_here() {
        return;
    }
    let mlp = Draw(3).mlp(&[4, 8, 2]);
    let contract = contract_of(&mlp);
    let (runtime, native) =
        (engine(&general(&mlp, &contract, |_| {}), &contract, 1), Engine::new(&mlp, Isa::best()).unwrap());
    let (mut ours, mut theirs) = (runtime.scratch(), native.scratch());
    for state in [&[0.5; 4][..], &[f32::NAN; 4], &[f32::INFINITY; 4], &[2.0; 4], &[0.5; 3], &[]] {
        for mask in [&[true; 2][..], &[false; 2], &[true; 3], &[]] {
            let found = runtime.decide(&mut ours, state, mask).map(|decision| decision.action);
            let expected = native.decide(&mut theirs, state, mask).map(|decision| decision.action);
            assert_eq!(found.map_err(|error| error.to_string()), expected.map_err(|error| error.to_string()));
        }
    }
    let small = Engine::new(&Draw(3).mlp(&[4, 1]), Isa::best()).unwrap();
    let refused = runtime.decide(&mut small.scratch(), &[0.5; 4], &[true; 2]).map(|decision| decision.action);
    assert_eq!(refused, Err(DecideError::ScratchTooSmall));
}

#[test]
fn ties_go_to_the_lowest_number_and_what_is_not_finite_is_refused_by_name() {
    if !is_here() {
        return;
    }
    let tied = single(1, &[0.0; 3], &[1.0; 3]);
    let contract = contract_of(&tied);
    let runtime = engine(&general(&tied, &contract, |_| {}), &contract, 1);
    let mut scratch = runtime.scratch();
    let decision = runtime.decide(&mut scratch, &[0.5], &[false, true, true]).unwrap();
    assert_eq!((decision.action, decision.margin), (1, Some(0.0)));
    // The logarithm of a negative number, which reaches the second action alone.
    let mut deep = single(1, &[-1.0], &[0.0]);
    deep.layers.extend(single(1, &[1.0, 1.0], &[0.0; 2]).layers);
    let contract = contract_of(&deep);
    let runtime = engine(&general(&deep, &contract, activated("Log")), &contract, 1);
    let refused = runtime.q_values(&mut scratch, &[0.5]).map(<[f32]>::to_vec);
    assert_eq!(refused, Err(DecideError::NonFiniteValue { action: 0 }));
}

/// A product with as many weights as we count values fails in ONNX Runtime unless it counts as many.
#[test]
fn every_operator_gives_as_many_values_as_are_counted_before_it_is_loaded() {
    if !is_here() {
        return;
    }
    let mlp = Draw(3).mlp(&[3, 4, 2]);
    let contract = contract_of(&mlp);
    for case in graphs::cases() {
        let onnx = general(&mlp, &contract, |graph| graphs::through(graph, &case, case.elements()));
        let runtime = engine(&onnx, &contract, 1);
        let found = runtime.q_values(&mut runtime.scratch(), &[0.5, 0.25, 0.75]).map(<[f32]>::len);
        assert_eq!(found, Ok(2), "{case:?}");
    }
}

/// `LayerNormalization` in front of every activation, which is `Tanh`.
fn normalised(graph: &mut GraphProto) {
    activated("Tanh")(graph);
    let sums: Vec<usize> =
        (0..graph.node.len()).filter(|&at| graph.node[at].op_type.as_deref() == Some("Tanh")).collect();
    for (number, &at) in sums.iter().enumerate().rev() {
        let sum = graph.node[at].input[0].clone();
        let width =
            graph.initializer.iter().find(|tensor| tensor.name == Some(format!("b{number}"))).unwrap().dims.clone();
        let scale = vec![2.0_f32; width[0] as usize].into_iter().flat_map(f32::to_le_bytes).collect();
        let scale =
            TensorProto { dims: width, data_type: Some(1), name: Some(format!("s{number}")), raw_data: Some(scale) };
        let epsilon = AttributeProto {
            name: Some("epsilon".to_owned()),
            f: Some(1e-3),
            r#type: Some(1),
            ..AttributeProto::default()
        };
        let normal = format!("n{number}");
        let node = NodeProto {
            input: vec![sum, format!("s{number}")],
            output: vec![normal.clone()],
            op_type: Some("LayerNormalization".to_owned()),
            attribute: vec![epsilon],
            ..NodeProto::default()
        };
        graph.node[at].input[0] = normal;
        graph.node.insert(at, node);
        graph.initializer.push(scale);
    }
}

/// What [`normalised`] makes of a network, in f64.
fn reference(mlp: &Mlp, state: &[f32]) -> Vec<f64> {
    let mut flow: Vec<f64> = state.iter().map(|&x| f64::from(x)).collect();
    for (index, layer) in mlp.layers.iter().enumerate() {
        let term = |k: usize, j: usize| flow[k] * f64::from(layer.weights[k * layer.outputs + j]);
        let sum = |j: usize| f64::from(layer.bias[j]) + (0..flow.len()).map(|k| term(k, j)).sum::<f64>();
        let sums: Vec<f64> = (0..layer.outputs).map(sum).collect();
        flow = if index + 1 < mlp.layers.len() {
            let mean = sums.iter().sum::<f64>() / sums.len() as f64;
            let variance = sums.iter().map(|sum| (sum - mean) * (sum - mean)).sum::<f64>() / sums.len() as f64;
            sums.iter().map(|sum| (2.0 * (sum - mean) / (variance + 1e-3).sqrt()).tanh()).collect()
        } else {
            sums
        };
    }
    flow
}

#[test]
fn a_graph_that_the_native_engine_does_not_know_gives_what_its_mathematics_say() {
    if !is_here() {
        return;
    }
    let mlp = Draw(9).mlp(&[12, 24, 16, 5]);
    let contract = Contract::sandbox(12, Sha256::of(b"spec"));
    let onnx = general(&mlp, &contract, normalised);
    let runtime = engine(&onnx, &contract, 1);
    assert_eq!(runtime.backend(), Backend::OnnxRuntime);
    let mut scratch = runtime.scratch();
    for seed in 0..300 {
        let state = state_for(&mlp, seed);
        let found = runtime.q_values(&mut scratch, &state).unwrap();
        for (&found, expected) in found.iter().zip(reference(&mlp, &state)) {
            assert!((f64::from(found) - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{found} {expected}");
        }
    }
}

#[test]
fn a_batch_gives_what_its_rows_give_and_precision_changes_nothing() {
    if !is_here() {
        return;
    }
    let mlp = Draw(9).mlp(&[6, 8, 5]);
    let contract = contract_of(&mlp);
    let runtime =
        engine(&general(&mlp, &contract, activated("Tanh")), &contract, 1).with_precision(Precision::Certified);
    let states: Vec<f32> = (0..4).flat_map(|row| state_for(&mlp, row)).collect();
    let (mut scratch, mut single, mut rows) = (runtime.scratch(), runtime.scratch(), 0);
    let batch = runtime.decide_batch(&mut scratch, &states, &[true; 20], |row, found| {
        assert_eq!(found, runtime.decide(&mut single, &states[row * 6..][..6], &[true; 5]));
        rows += 1;
    });
    assert_eq!((batch, rows), (Ok(()), 4));
}

/// The release of a general graph, with the golden vectors of an engine for it.
fn general_release(
    mlp: &Mlp,
    onnx: &[u8],
    contract: &Contract,
    change: impl FnOnce(&mut ModelManifest),
) -> ModelManifest {
    let runtime = engine(onnx, contract, 1);
    let mut scratch = runtime.scratch();
    let golden = (0..4).map(|seed| {
        let state = state_for(mlp, seed);
        golden_vector(&runtime, &mut scratch, &state, &vec![true; runtime.actions()]).unwrap()
    });
    let golden = golden.collect();
    sealed(mlp, contract, |manifest| {
        manifest.onnx = OnnxFile { sha256: Sha256::of(onnx), bytes: onnx.len() as u64 };
        manifest.widths = vec![mlp.inputs() as u32, mlp.outputs() as u32];
        (manifest.format_version, manifest.graph) = (FORMAT_VERSION_WITH_GRAPH, Some(Graph::General));
        manifest.golden = golden;
        change(manifest);
    })
    .0
}

fn both(sessions: usize) -> Engines {
    Engines { isa: Isa::best(), onnx_runtime: Some(options(sessions)) }
}

fn tanh_release(seed: u64, sessions: usize) -> LoadedRelease {
    let mlp = Draw(seed).mlp(&[12, 16, 5]);
    let contract = Contract::sandbox(12, Sha256::of(b"spec"));
    let onnx = general(&mlp, &contract, activated("Tanh"));
    let manifest = general_release(&mlp, &onnx, &contract, |_| {});
    check_release(manifest, &onnx, &Expectation::new(contract), both(sessions)).unwrap()
}

#[test]
fn a_release_is_loaded_by_those_who_ask_for_it_alone() {
    if !is_here() {
        return;
    }
    let mlp = Draw(5).mlp(&[12, 16, 5]);
    let contract = Contract::sandbox(12, Sha256::of(b"spec"));
    let onnx = general(&mlp, &contract, activated("Tanh"));
    let expectation = Expectation::new(contract.clone());
    let manifest = general_release(&mlp, &onnx, &contract, |_| {});
    let refused = check_release(manifest.clone(), &onnx, &expectation, Isa::best()).unwrap_err();
    assert!(matches!(refused, ReleaseError::Model(ModelError::General)), "{refused}");
    let loaded = check_release(manifest, &onnx, &expectation, both(1)).unwrap();
    assert_eq!((loaded.engine.backend(), loaded.mlp), (Backend::OnnxRuntime, None));
    // Those that the native engine evaluates stay its own.
    let (manifest, plain) = sealed(&mlp, &contract, |_| {});
    let loaded = check_release(manifest, &plain, &expectation, both(1)).unwrap();
    assert_eq!((loaded.engine.backend(), loaded.mlp), (Backend::Native, Some(mlp.clone())));
    // Golden vectors hold within the tolerance, and not beyond it.
    for (change, passes) in [(1e-6, true), (1e-3, false)] {
        let manifest = general_release(&mlp, &onnx, &contract, |manifest| {
            manifest.golden[1].q_values.iter_mut().for_each(|q| *q += change)
        });
        let found = check_release(manifest, &onnx, &expectation, both(1)).map(drop);
        assert_eq!(found.is_ok(), passes, "{found:?}");
        assert!(passes || matches!(found, Err(ReleaseError::Golden(GoldenError::Values { index: 1, .. }))));
    }
    let manifest = sealed(&mlp, &contract, |manifest| {
        manifest.onnx = OnnxFile { sha256: Sha256::of(&onnx), bytes: onnx.len() as u64 };
    });
    let found = check_release(manifest.0, &onnx, &expectation, both(1)).unwrap_err();
    assert!(matches!(found, ReleaseError::Binding { field: "widths", .. }), "{found}");
}

#[cfg(feature = "watch")]
#[test]
fn a_watcher_brings_general_graphs_where_it_is_told_to_and_puts_them_on_trial() {
    use bellwether_artifact::release::{Companions, publish};
    use bellwether_inference::watch::{FolderSource, Reason, VersionPolicy, WatchError, WatchOptions, Watcher};
    if !is_here() {
        return;
    }
    let mlp = Draw(5).mlp(&[12, 16, 5]);
    let contract = Contract::sandbox(12, Sha256::of(b"spec"));
    let root = tempfile::tempdir().unwrap();
    let put = |number: u32, (manifest, onnx): (ModelManifest, Vec<u8>)| {
        publish(&root.path().join(format!("{number:06}")), &manifest, &onnx, Companions::default()).unwrap();
        manifest.version
    };
    let onnx = general(&mlp, &contract, activated("Tanh"));
    put(1, sealed(&mlp, &contract, |_| {}));
    let version = put(2, (general_release(&mlp, &onnx, &contract, |_| {}), onnx));
    for (engines, is_taken) in [(Engines::from(Isa::best()), false), (both(1), true)] {
        let policy = Policy::new(release(&mlp), Some(1), Options::default()).unwrap();
        let options = WatchOptions { engines, window: None, ..WatchOptions::default() };
        let start = |wanted: u32| {
            let source = FolderSource::releases(root.path(), VersionPolicy::Pinned(wanted));
            Watcher::start(policy.clone(), source, options.clone()).unwrap()
        };
        let watcher = start(1);
        match (is_taken, watcher.try_out(VersionPolicy::Pinned(2), 1.0)) {
            (true, Ok(tried)) => assert_eq!(tried.version, version),
            (false, Err(WatchError::Refused(refusal))) => {
                assert_eq!(refusal.reason, Reason::Network);
                assert!(refusal.text.contains("ONNX Runtime"), "{refusal}");
            }
            other => panic!("{other:?}"),
        }
        let mut decider = policy.decider();
        let by = decider.decide_in(7, &[0.5; 12], &[true; 5]).unwrap().model;
        assert_eq!(by.version == version, is_taken);
        drop(watcher);
        let status = start(2).check_now();
        assert_eq!(status.serving.version == version, is_taken);
        assert_eq!(decider.decide(&[0.5; 12], &[true; 5]).unwrap().model.version == version, is_taken);
    }
}

#[test]
fn hostile_files_are_refused_before_any_library_is_looked_for() {
    let mlp = Draw(5).mlp(&[12, 16, 5]);
    let contract = Contract::sandbox(12, Sha256::of(b"spec"));
    let nowhere = OnnxRuntime { library: Some("/nowhere/libonnxruntime.so".into()), sessions: 1 };
    let refused = |onnx: &[u8], contract: &Contract| {
        let expectation = Expectation::new(contract.clone());
        match Engine::on_onnx_runtime(onnx, &expectation, Isa::best(), &nowhere) {
            Err(EngineError::Model(error)) => {
                assert_eq!(check_general(onnx, &expectation), Err(error.clone()));
                error
            }
            other => panic!("{other:?}"),
        }
    };
    let poisoned = |graph: &mut GraphProto| {
        graph.initializer[0].raw_data.as_mut().unwrap()[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    };
    assert!(matches!(refused(&general(&mlp, &contract, poisoned), &contract), ModelError::NonFinite { .. }));
    let random = refused(&general(&mlp, &contract, activated("RandomNormalLike")), &contract);
    assert!(matches!(random, ModelError::OperatorNotListed { .. }));
    let foreign = |graph: &mut GraphProto| graph.node[1].domain = Some("com.microsoft".to_owned());
    assert!(matches!(refused(&general(&mlp, &contract, foreign), &contract), ModelError::OperatorNotListed { .. }));
    let other = Contract { feature_spec: Sha256::of(b"other"), ..contract.clone() };
    assert!(matches!(refused(&general(&mlp, &contract, |_| {}), &other), ModelError::FeatureSpec { .. }));
    let wide = Contract { width: 13, ..contract.clone() };
    assert!(matches!(refused(&general(&mlp, &contract, |_| {}), &wide), ModelError::Interface { .. }));
    assert!(matches!(refused(&encode(&mlp, &contract).unwrap(), &contract), ModelError::FormatVersion { .. }));
    assert!(matches!(refused(&[0xff; 40], &contract), ModelError::Malformed { .. } | ModelError::UnknownField { .. }));
    let small = Expectation { max_bytes: 100, ..Expectation::new(contract.clone()) };
    assert!(matches!(check_general(&general(&mlp, &contract, |_| {}), &small), Err(ModelError::TooLarge { .. })));
    // The native loader names such a file for what it is.
    let onnx = general(&mlp, &contract, normalised);
    assert!(is_general(&onnx, usize::MAX));
    assert_eq!(load(&onnx, &Expectation::new(contract)), Err(ModelError::General));
    assert_eq!(read(&onnx, usize::MAX), Err(ModelError::General));
}

#[test]
fn a_library_that_is_missing_is_told_with_the_command_that_installs_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("libonnxruntime.so");
    durable::write_bytes(&text, b"no library").unwrap();
    let mlp = Draw(5).mlp(&[12, 16, 5]);
    let contract = contract_of(&mlp);
    let onnx = general(&mlp, &contract, |_| {});
    for library in [folder.path().join("none.so"), text] {
        let options = OnnxRuntime { library: Some(library.clone()), sessions: 1 };
        let found = Engine::on_onnx_runtime(&onnx, &Expectation::new(contract.clone()), Isa::best(), &options);
        let error = found.unwrap_err().to_string();
        assert!(error.contains("pip install onnxruntime") || error.contains("loaded already"), "{error}");
        assert!(error.contains(library.to_str().unwrap()), "{error}");
    }
}

const SWAPS: u32 = 60;
const THREADS: u64 = 4;

#[test]
fn models_of_both_engines_are_swapped_under_load() {
    if !is_here() {
        return;
    }
    // Fewer sessions than threads, so that some wait for each other.
    let models = [
        || tanh_release(1, 2),
        || release(&Draw(2).mlp(&[12, 20, 5])),
        || tanh_release(3, 1),
        || release(&Draw(4).dueling(&[12, 9, 5])),
    ];
    let states: Vec<Vec<f32>> = (0..8).map(|seed| state_for(&Draw(1).mlp(&[12, 5]), seed)).collect();
    let mask = [true, false, true, true, true];
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let mut expected: BTreeMap<ModelVersion, Vec<(usize, Vec<u32>)>> = BTreeMap::new();
    for model in models {
        let LoadedRelease { manifest, engine, .. } = model();
        let engine = engine.with_precision(Precision::Certified);
        let mut scratch = engine.scratch();
        let mut answer = |state: &Vec<f32>| {
            let decision = engine.decide(&mut scratch, state, &mask).unwrap();
            (decision.action, bits(decision.q_values))
        };
        expected.insert(manifest.version, states.iter().map(&mut answer).collect());
    }
    assert_eq!(expected.len(), models.len());
    let policy = Policy::new(models[0](), Some(0), Options::default()).unwrap();
    let done = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let over = Over(&done);
        let work = || {
            let mut decider = policy.decider();
            let (mut decisions, mut seen) = (0_usize, BTreeMap::new());
            while !done.load(Ordering::Relaxed) {
                let index = decisions % states.len();
                let answer = decider.decide(&states[index], &mask).unwrap();
                let (action, q_values) = &expected[&answer.model.version][index];
                assert_eq!((answer.decision.action, &bits(answer.decision.q_values)), (*action, q_values));
                *seen.entry(answer.model.version).or_insert(0_usize) += 1;
                decisions += 1;
            }
            seen.len()
        };
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for number in 1..=SWAPS {
            policy.swap(models[number as usize % models.len()](), Some(number)).unwrap();
        }
        drop(over);
        workers.into_iter().map(|worker| worker.join().unwrap()).max()
    });
    assert!(seen > Some(1), "no thread saw a swap");
    policy.reap();
    assert_eq!(policy.status().models_resident, 2);
    assert!(policy.metrics().refusals.iter().all(|(_, count)| *count == 0));
}
