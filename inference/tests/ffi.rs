//! The C ABI called as C calls it: what it answers, what it refuses, and what it survives.
#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod border;
mod manifests;
mod nets;

use std::ffi::{CStr, CString};
use std::mem::offset_of;
use std::ptr;
use std::thread;

use bellwether_artifact::{OperatingPoint, durable, release};
use bellwether_env_adapter::spec::{element, encode_cost};
use bellwether_inference::ffi::{
    ApiV1, BELLWETHER_API_VERSION, BELLWETHER_ENGINE_ORT, BELLWETHER_ISA_SCALAR, BELLWETHER_PRECISION_EXACT,
    BELLWETHER_ROLE_CANARY, BELLWETHER_ROLE_CHAMPION, BELLWETHER_TIME_NEVER, Code, DeciderHandle, Metrics, Options,
    PolicyHandle, Status, bellwether_get_api,
};
use bellwether_inference::model::Expectation;
use bellwether_inference::policy::{self, Policy, Role};
use bellwether_inference::{Isa, load_release};
use border::{ACTIONS, Created, Opened, Shelf, WIDTH, api, blank, contract, message, network};
use manifests::sealed;
use nets::{Draw, state_for};
use proptest::prelude::*;

const DEFAULTS: Options = Options {
    size: size_of::<Options>(),
    isa: 0,
    precision: 0,
    hidden_width: 0,
    time_every: 0,
    trusted_keys: ptr::null(),
    engine: 0,
    onnx_runtime_sessions: 0,
    onnx_runtime_library: ptr::null(),
};

fn status(policy: &Opened) -> Status {
    // SAFETY: zeros are a value of the struct.
    let mut status: Status = unsafe { std::mem::zeroed() };
    status.size = size_of::<Status>();
    // SAFETY: the policy is open, the struct has the size that it states.
    assert_eq!(unsafe { (api().policy_status)(policy.0, &raw mut status) }, Code::Ok);
    status
}

fn metrics(policy: &Opened) -> Metrics {
    // SAFETY: zeros are a value of the struct.
    let mut metrics: Metrics = unsafe { std::mem::zeroed() };
    metrics.size = size_of::<Metrics>();
    // SAFETY: the policy is open, the struct has the size that it states.
    assert_eq!(unsafe { (api().policy_metrics)(policy.0, &raw mut metrics) }, Code::Ok);
    metrics
}

fn version(text: &[std::ffi::c_char]) -> String {
    text.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8 as char).collect()
}

/// The policy of the crate itself on the same folder.
fn rust_policy(folder: &CStr, options: policy::Options) -> Policy {
    let folder = std::path::Path::new(folder.to_str().unwrap());
    let release = load_release(folder, &Expectation::new(contract(64)), Isa::best()).unwrap();
    Policy::new(release, None, options).unwrap()
}

#[track_caller]
fn refused(code: Code, expected: Code, says: &str) {
    assert_eq!(code, expected, "{}", message());
    assert!(message().contains(says), "{says:?} is not in {:?}", message());
}

#[test]
fn one_version_is_known_and_no_function_of_it_moves() {
    assert_eq!(BELLWETHER_API_VERSION, 1);
    for version in [0, 2, u32::MAX] {
        assert!(bellwether_get_api(version).is_null());
    }
    // In words, so that this holds for pointers of any size. What is added goes to the end.
    let offsets = [
        offset_of!(ApiV1, size),
        offset_of!(ApiV1, library_version),
        offset_of!(ApiV1, error_message),
        offset_of!(ApiV1, error_name),
        offset_of!(ApiV1, policy_open),
        offset_of!(ApiV1, policy_close),
        offset_of!(ApiV1, policy_swap),
        offset_of!(ApiV1, policy_roll_back),
        offset_of!(ApiV1, policy_pin),
        offset_of!(ApiV1, policy_unpin),
        offset_of!(ApiV1, policy_try_out),
        offset_of!(ApiV1, policy_set_share),
        offset_of!(ApiV1, policy_promote),
        offset_of!(ApiV1, policy_withdraw),
        offset_of!(ApiV1, policy_reap),
        offset_of!(ApiV1, policy_status),
        offset_of!(ApiV1, policy_metrics),
        offset_of!(ApiV1, policy_action_counts),
        offset_of!(ApiV1, policy_action_name),
        offset_of!(ApiV1, policy_warm_thread),
        offset_of!(ApiV1, decider_create),
        offset_of!(ApiV1, decider_free),
        offset_of!(ApiV1, decider_set_target_fpr),
        offset_of!(ApiV1, decide),
        offset_of!(ApiV1, decide_batch),
    ];
    for (position, offset) in offsets.into_iter().enumerate() {
        assert_eq!(offset, position * size_of::<usize>());
    }
    assert_eq!(api().size, offsets.len() * size_of::<usize>());
    // SAFETY: the texts are static.
    let text = |pointer| unsafe { CStr::from_ptr(pointer) }.to_str().unwrap();
    assert_eq!(text((api().library_version)()), env!("CARGO_PKG_VERSION"));
    assert_eq!(text((api().error_name)(Code::Pinned as i32)), "pinned");
    assert!((api().error_name)(8).is_null());
    assert!((api().error_name)(-1).is_null());
}

#[test]
fn a_release_that_cannot_be_opened_is_refused_with_its_reason() {
    let shelf = Shelf::new();
    let good = shelf.put("good", &network(1));
    let open = |folder: &CStr, options: Option<Options>| {
        let mut policy = ptr::null_mut();
        let options = options.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: all pointers are of living things.
        let code = unsafe { (api().policy_open)(folder.as_ptr(), options, &raw mut policy) };
        assert!(policy.is_null() || code == Code::Ok, "nothing is written by a call that fails");
        if code == Code::Ok {
            drop(Opened(policy));
        }
        code
    };
    refused(open(&shelf.path("missing"), None), Code::ReleaseIo, "missing: No such file");
    refused(open(c"\xff", None), Code::InvalidUtf8, "folder");
    refused(open(&good, Some(Options { size: 0, ..DEFAULTS })), Code::InvalidArgument, "sizeof");
    refused(open(&good, Some(Options { isa: 9, ..DEFAULTS })), Code::InvalidArgument, "isa in options is 9");
    refused(open(&good, Some(Options { precision: 2, ..DEFAULTS })), Code::InvalidArgument, "precision");
    refused(open(&good, Some(Options { engine: 2, ..DEFAULTS })), Code::InvalidArgument, "engine in options is 2");
    let nowhere =
        Options { engine: BELLWETHER_ENGINE_ORT, onnx_runtime_library: c"/nowhere/lib.so".as_ptr(), ..DEFAULTS };
    let says = if cfg!(feature = "ort") { "pip install onnxruntime" } else { "features ffi and ort" };
    refused(open(&good, Some(nowhere)), Code::EngineUnavailable, says);
    let no_text = Options { trusted_keys: c"\xff".as_ptr(), ..DEFAULTS };
    refused(open(&good, Some(no_text)), Code::InvalidUtf8, "trusted_keys");
    refused(open(&good, Some(Options { hidden_width: 1, ..DEFAULTS })), Code::TooWide, "hidden layer 0 is 24 wide");
    refused(open(&good, Some(Options { hidden_width: u32::MAX, ..DEFAULTS })), Code::Limits, "1 to 65536");
    // What an older header does not know yet has its default.
    assert_eq!(open(&good, Some(Options { size: size_of::<usize>(), isa: 9, ..DEFAULTS })), Code::Ok);

    let spoilt = |name: &str, file: &str, bytes: &[u8]| {
        let path = shelf.put(name, &network(2));
        durable::write_bytes(shelf.folder(name).join(file), bytes).unwrap();
        path
    };
    refused(open(&spoilt("a", "model.json", b"{}"), None), Code::ReleaseManifest, "model.json");
    refused(open(&spoilt("b", "model.onnx", b"x"), None), Code::ReleaseHash, "model.onnx");
    let publish = |name: &str, (manifest, onnx): (_, Vec<u8>)| {
        let nothing = release::Companions::default();
        release::publish(&shelf.folder(name), &manifest, &onnx, nothing).unwrap();
        shelf.path(name)
    };
    let other_golden = sealed(&network(3), &contract(64), |manifest| manifest.golden[0].q_values[0] += 1.0);
    refused(open(&publish("c", other_golden), None), Code::ReleaseGolden, "golden vector 0");
    let other_window = sealed(&network(3), &contract(16), |_| {});
    refused(open(&publish("d", other_window), None), Code::ReleaseModel, "");
    let other_binding = sealed(&network(3), &contract(64), |manifest| manifest.features.window.max_events = 65);
    refused(open(&publish("e", other_binding), None), Code::ReleaseModel, "");
}

#[test]
fn every_function_refuses_pointers_that_point_nowhere() {
    let (api, shelf) = (api(), Shelf::new());
    let folder = shelf.put("good", &network(1));
    let policy = Opened::new(&folder, None);
    let decider = policy.decider();
    let (no_policy, no_decider) = (ptr::null_mut::<PolicyHandle>(), ptr::null_mut::<DeciderHandle>());
    let (odd_policy, odd_decider) = (policy.0.wrapping_byte_add(1), decider.0.wrapping_byte_add(4));
    // SAFETY: what is not refused points to living things.
    unsafe {
        for (policy, expected) in [(no_policy, Code::NullPointer), (odd_policy, Code::Misaligned)] {
            for call in [
                api.policy_roll_back,
                api.policy_pin,
                api.policy_unpin,
                api.policy_promote,
                api.policy_withdraw,
                api.policy_reap,
                api.policy_warm_thread,
            ] {
                refused(call(policy), expected, "policy");
            }
            let folder = folder.as_ptr();
            refused((api.policy_swap)(policy, folder), expected, "policy");
            refused((api.policy_try_out)(policy, folder, 0.5), expected, "policy");
            refused((api.policy_set_share)(policy, 0.5), expected, "policy");
            refused((api.policy_status)(policy, ptr::null_mut()), expected, "policy");
            refused((api.policy_metrics)(policy, ptr::null_mut()), expected, "policy");
            refused((api.policy_action_counts)(policy, ptr::null_mut(), 0), expected, "policy");
            refused((api.decider_create)(policy, ptr::null_mut()), expected, "policy");
            assert!((api.policy_action_name)(policy, 0).is_null());
        }
        refused((api.policy_close)(odd_policy), Code::Misaligned, "policy");
        refused((api.decider_free)(odd_decider), Code::Misaligned, "decider");
        assert_eq!(((api.policy_close)(no_policy), (api.decider_free)(no_decider)), (Code::Ok, Code::Ok));

        let mut opened = ptr::null_mut();
        refused((api.policy_open)(ptr::null(), ptr::null(), &raw mut opened), Code::NullPointer, "folder");
        refused((api.policy_open)(folder.as_ptr(), ptr::null(), ptr::null_mut()), Code::NullPointer, "opened");
        refused((api.policy_swap)(policy.0, ptr::null()), Code::NullPointer, "folder");
        refused((api.policy_status)(policy.0, ptr::null_mut()), Code::NullPointer, "status");
        refused((api.policy_metrics)(policy.0, ptr::null_mut()), Code::NullPointer, "metrics");
        refused((api.decider_create)(policy.0, ptr::null_mut()), Code::NullPointer, "created");
        let mut counts = [0; ACTIONS];
        refused((api.policy_action_counts)(policy.0, counts.as_mut_ptr(), 4), Code::BufferTooSmall, "4 actions");
    }
}

/// What can be wrong with the arguments of a decision, and what is then said.
#[test]
fn a_decision_with_a_wrong_argument_is_refused_and_writes_nothing() {
    let (api, shelf) = (api(), Shelf::new());
    let policy = Opened::new(&shelf.put("good", &network(1)), None);
    let decider = policy.decider();
    let (state, mask, episode) = ([0.5_f32; WIDTH + 1], [1_u8; ACTIONS], [7_u64; 2]);
    let mut q_values = [7.0_f32; ACTIONS];
    let values = q_values.as_mut_ptr();
    let mut decision = blank();
    let place = &raw mut decision;
    let (state, odd_state) = (state.as_ptr(), state.as_ptr().wrapping_byte_add(1));
    let odd_episode = episode.as_ptr().wrapping_byte_add(4);
    let mut wrong = mask;
    wrong[3] = 2;
    let (mask, wrong, no) = (mask.as_ptr(), wrong.as_ptr(), ptr::null::<u64>());
    let (a, d, w) = (ACTIONS, decider.0, WIDTH);
    // SAFETY: what is not refused points to living things of the lengths that are given.
    unsafe {
        let decide = api.decide;
        refused(decide(ptr::null_mut(), state, w, mask, a, no, place, values, a), Code::NullPointer, "decider");
        refused(decide(d, ptr::null(), w, mask, a, no, place, values, a), Code::NullPointer, "state");
        refused(decide(d, odd_state, w, mask, a, no, place, values, a), Code::Misaligned, "state");
        refused(decide(d, state, usize::MAX, mask, a, no, place, values, a), Code::InvalidArgument, "state");
        refused(decide(d, state, 0, mask, a, no, place, values, a), Code::StateWidth, "0 values");
        refused(decide(d, ptr::null(), 0, mask, a, no, place, values, a), Code::StateWidth, "0 values");
        refused(decide(d, state, w + 1, mask, a, no, place, values, a), Code::StateWidth, "513 values");
        refused(decide(d, state, w, mask, a - 1, no, place, values, a), Code::MaskWidth, "4 entries");
        refused(decide(d, state, w, wrong, a, no, place, values, a), Code::InvalidArgument, "entry 3");
        refused(decide(d, state, w, mask, a, odd_episode, place, values, a), Code::Misaligned, "episode");
        refused(decide(d, state, w, mask, a, no, ptr::null_mut(), values, a), Code::NullPointer, "decision");
        refused(decide(d, state, w, mask, a, no, place, values, a - 1), Code::BufferTooSmall, "q_values");
        let odd_values = values.wrapping_byte_add(1);
        refused(decide(d, state, w, mask, a, no, place, odd_values, a), Code::Misaligned, "q_values");
    }
    assert_eq!((decision, q_values), (blank(), [7.0; ACTIONS]));
    let check = |state: &[f32], mask: Option<&[u8]>, expected: Code, says: &str| {
        assert_eq!(decider.decide(None, state, mask), Err(expected));
        assert!(message().contains(says), "{}", message());
    };
    let with = |index: usize, value: f32| {
        let mut state = vec![0.5; WIDTH];
        state[index] = value;
        state
    };
    check(&with(3, f32::NAN), None, Code::NonFiniteState, "value 3 of the state is NaN");
    check(&with(511, f32::NEG_INFINITY), None, Code::NonFiniteState, "value 511");
    check(&with(0, 1.5), None, Code::StateOutOfRange, "outside 0 to 1");
    check(&with(0, 0.0), Some(&[0; ACTIONS]), Code::EmptyMask, "allows no action");
    // Seven states of the wrong width or with a wrong value, two masks; the rest was never a state.
    let counted = metrics(&policy).refusals;
    assert_eq!(counted[..8], [3, 1, 1, 2, 1, 0, 0, 0]);
    assert_eq!(metrics(&policy).decisions, 0);
}

#[test]
fn a_batch_decides_what_it_can_and_says_which_row_it_could_not() {
    let shelf = Shelf::new();
    let policy = Opened::new(&shelf.put("good", &network(1)), None);
    let decider = policy.decider();
    let mut states: Vec<f32> = (0..4).flat_map(|seed| state_for(&network(1), seed)).collect();
    states[2 * WIDTH + 9] = f32::INFINITY;
    let mut masks = [1_u8; 4 * ACTIONS];
    masks[3 * ACTIONS..].fill(0);
    let (code, decisions, q_values) = decider.decide_batch(&states, Some(&masks), 4);
    refused(code, Code::NonFiniteState, "row 2: value 9 of the state");
    let codes: Vec<Code> = decisions.iter().map(|decision| decision.code).collect();
    assert_eq!(codes, [Code::Ok, Code::Ok, Code::NonFiniteState, Code::EmptyMask]);
    assert_eq!(decisions[2].action, u32::MAX);
    assert!(q_values[2 * ACTIONS..].iter().all(|value| value.is_nan()));
    for (row, (decision, values)) in decisions.iter().zip(q_values.chunks(ACTIONS)).enumerate().take(2) {
        let alone = decider.decide(None, &states[row * WIDTH..][..WIDTH], None).unwrap();
        assert_eq!((*decision, values), (alone.0, &alone.1[..]));
    }
    let unwritten = |code: Code, decisions: &[_], expected: Code, says: &str| {
        refused(code, expected, says);
        assert!(decisions.iter().all(|decision| *decision == blank()));
    };
    let (code, decisions, _) = decider.decide_batch(&states, Some(&masks), 3);
    unwritten(code, &decisions, Code::BatchShape, "2048 values, 3 decisions want 512");
    let (code, decisions, _) = decider.decide_batch(&states, Some(&masks[1..]), 4);
    unwritten(code, &decisions, Code::BatchShape, "");
    let (code, decisions, _) = decider.decide_batch(&states[1..], None, 4);
    unwritten(code, &decisions, Code::BatchShape, "2047");
    assert_eq!(decider.decide_batch(&[], None, 0).0, Code::Ok);
    assert_eq!(decider.decide_batch(&[], Some(&[]), 0).0, Code::Ok);
}

#[test]
fn models_are_swapped_tried_out_pinned_and_rolled_back() {
    let (api, shelf) = (api(), Shelf::new());
    let folders: Vec<CString> = (1..4).map(|seed| shelf.put(&seed.to_string(), &network(seed))).collect();
    let policy = Opened::new(&folders[0], None);
    let decider = policy.decider();
    let state = state_for(&network(1), 7);
    let decided = |episode| {
        let (decision, _) = decider.decide(episode, &state, None).unwrap();
        let digits = decision.model_version.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        (digits, decision.role)
    };
    let first = version(&status(&policy).champion);
    assert_eq!(first.len(), 16);
    assert_eq!(decided(None), (first.clone(), BELLWETHER_ROLE_CHAMPION));
    let p = policy.0;
    // SAFETY: the policy is open, the folders end with NUL.
    unsafe {
        refused((api.policy_roll_back)(p), Code::NoPrevious, "previous");
        refused((api.policy_withdraw)(p), Code::NoCanary, "canary");
        refused((api.policy_promote)(p), Code::NoCanary, "canary");
        refused((api.policy_set_share)(p, 0.5), Code::NoCanary, "canary");
        assert_eq!((api.policy_swap)(p, folders[1].as_ptr()), Code::Ok);
        let second = version(&status(&policy).champion);
        assert_eq!(version(&status(&policy).previous), first);
        assert_eq!(decided(None), (second.clone(), BELLWETHER_ROLE_CHAMPION));

        refused((api.policy_try_out)(p, folders[2].as_ptr(), 0.0), Code::Share, "share");
        assert_eq!((api.policy_try_out)(p, folders[2].as_ptr(), 1.0), Code::Ok);
        let third = version(&status(&policy).canary);
        assert_eq!(decided(Some(3)), (third.clone(), BELLWETHER_ROLE_CANARY));
        assert_eq!(decided(None), (second.clone(), BELLWETHER_ROLE_CHAMPION));
        assert_eq!((api.policy_set_share)(p, 0.25), Code::Ok);
        assert_eq!(status(&policy).canary_share, 0.25);

        assert_eq!((api.policy_pin)(p), Code::Ok);
        assert_eq!(status(&policy).pinned, 1);
        refused((api.policy_swap)(p, folders[0].as_ptr()), Code::Pinned, "unpin");
        refused((api.policy_roll_back)(p), Code::Pinned, "unpin");
        refused((api.policy_promote)(p), Code::Pinned, "unpin");
        assert_eq!((api.policy_unpin)(p), Code::Ok);

        assert_eq!((api.policy_promote)(p), Code::Ok);
        assert_eq!(decided(None), (third, BELLWETHER_ROLE_CHAMPION));
        assert_eq!((api.policy_roll_back)(p), Code::Ok);
        assert_eq!(decided(Some(3)), (second, BELLWETHER_ROLE_CHAMPION));
        assert_eq!((api.policy_try_out)(p, folders[2].as_ptr(), 1.0), Code::Ok);
        assert_eq!((api.policy_withdraw)(p), Code::Ok);
        assert_eq!((api.policy_reap)(p), Code::Ok);
    }
    let now = status(&policy);
    assert_eq!((now.swaps, now.rollbacks, now.deciders, now.models_resident), (2, 1, 1, 1));
    assert_eq!((version(&now.previous), version(&now.canary), now.canary_share), (String::new(), String::new(), 0.0));
    assert_eq!((now.width, now.actions, now.size), (WIDTH, ACTIONS, size_of::<Status>()));

    let mut counts = [9_u64; ACTIONS + 2];
    // SAFETY: the policy is open; the names stay while it is.
    let names: Vec<&str> = unsafe {
        assert_eq!((api.policy_action_counts)(p, counts.as_mut_ptr(), counts.len()), Code::Ok);
        let name = |action| CStr::from_ptr((api.policy_action_name)(p, action)).to_str().unwrap();
        assert!((api.policy_action_name)(p, ACTIONS as u32).is_null());
        (0..ACTIONS as u32).map(name).collect()
    };
    assert_eq!(names, ["continue", "raise_isolation", "release", "terminate", "quarantine"]);
    assert_eq!((counts.iter().sum::<u64>(), &counts[ACTIONS..]), (6, &[0, 0][..]));
    assert_eq!(metrics(&policy).decisions, 6);
}

#[test]
fn a_rate_to_serve_is_turned_into_the_cost_that_the_deciding_model_was_calibrated_with() {
    let shelf = Shelf::new();
    let publish = |name: &str, seed: u64, rates: &[(f64, f32)]| {
        let (manifest, onnx) = sealed(&network(seed), &contract(64), |manifest| {
            let point =
                |&(target_fpr, cost)| OperatingPoint { target_fpr, cost, calibration_fpr: None, calibration_tpr: None };
            manifest.operating_points = rates.iter().map(point).collect();
        });
        release::publish(&shelf.folder(name), &manifest, &onnx, release::Companions::default()).unwrap();
        shelf.path(name)
    };
    let one = publish("one", 1, &[(0.01, 0.9), (0.05, 0.6)]);
    let other = publish("other", 2, &[(0.05, 0.3)]);
    let policy = Opened::new(&one, None);
    let decider = policy.decider();
    let set = |fpr: f64| {
        // SAFETY: the decider is not freed yet.
        unsafe { (api().decider_set_target_fpr)(decider.0, fpr) }
    };
    let state = state_for(&network(1), 5);
    let with = |cost: f32| {
        let mut state = state.clone();
        state[element::COST] = encode_cost(cost);
        state
    };
    let by_hand = |cost: f32| {
        assert_eq!(set(0.0), Code::Ok);
        decider.decide(None, &with(cost), None).unwrap()
    };
    for (fpr, cost) in [(0.01, 0.9), (0.05, 0.6), (0.01, 0.9)] {
        let expected = by_hand(cost);
        assert_eq!(set(fpr), Code::Ok);
        assert_eq!(decider.decide(None, &state, None).unwrap(), expected);
        let (code, batch, q_values) = decider.decide_batch(&state.repeat(2), None, 2);
        assert_eq!((code, batch[1], &q_values[ACTIONS..]), (Code::Ok, expected.0, &expected.1[..]));
    }
    assert_eq!(set(0.01), Code::Ok);
    // SAFETY: the policy is open, the folder ends with NUL.
    assert_eq!(unsafe { (api().policy_swap)(policy.0, other.as_ptr()) }, Code::Ok);
    assert_eq!(decider.decide(None, &state, None), Err(Code::Target));
    assert!(message().contains("rate of 0.01; it knows 0.05"), "{}", message());
    let (code, batch, _) = decider.decide_batch(&state, None, 1);
    assert_eq!((code, batch[0]), (Code::Target, blank()));
    assert_eq!(decider.decide(None, &state[1..], None), Err(Code::StateWidth));
    let expected = by_hand(0.3);
    assert_eq!(set(0.05), Code::Ok);
    assert_eq!(decider.decide(Some(9), &state, None).unwrap(), expected);
    for wrong in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
        refused(set(wrong), Code::InvalidArgument, "false-positive rate");
    }
    assert_eq!(decider.decide(None, &state, None).unwrap(), expected, "a rate that is refused changes nothing");
}

#[test]
fn a_model_of_other_windows_cannot_follow() {
    let shelf = Shelf::new();
    let policy = Opened::new(&shelf.put("good", &network(1)), None);
    let (manifest, onnx) = sealed(&network(2), &contract(16), |manifest| manifest.features.window.max_events = 16);
    release::publish(&shelf.folder("other"), &manifest, &onnx, release::Companions::default()).unwrap();
    // SAFETY: the policy is open, the folder ends with NUL.
    let code = unsafe { (api().policy_swap)(policy.0, shelf.path("other").as_ptr()) };
    refused(code, Code::Contract, "start another policy");
}

#[test]
fn deciders_outlive_the_handle_that_made_them_and_go_to_other_threads() {
    let shelf = Shelf::new();
    let policy = Opened::new(&shelf.put("good", &network(1)), None);
    let deciders: Vec<Created> = (0..4).map(|_| policy.decider()).collect();
    let state = state_for(&network(1), 3);
    let expected = deciders[0].decide(None, &state, None).unwrap();
    drop(policy);
    let threads: Vec<_> = deciders
        .into_iter()
        .map(|decider| {
            let state = state.clone();
            thread::spawn(move || decider.decide(None, &state, None).unwrap())
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), expected);
    }
}

#[test]
fn a_decider_that_two_threads_use_at_once_refuses_one_of_them() {
    struct Shared(*mut DeciderHandle);
    // SAFETY: a decider sees to it that one call at a time looks into it, which is what is tried here.
    unsafe impl Sync for Shared {}
    let shelf = Shelf::new();
    let policy = Opened::new(&shelf.put("good", &network(1)), None);
    let decider = policy.decider();
    let shared = Shared(decider.0);
    let state = state_for(&network(1), 3);
    let expected = decider.decide(None, &state, None).unwrap();
    let run = || {
        // Borrowed, so that only its owner frees it.
        let decider = std::mem::ManuallyDrop::new(Created({ &shared }.0));
        let outcomes = (0..2_000).map(|_| decider.decide(None, &state, None));
        outcomes
            .filter(|outcome| match outcome {
                Ok(decided) => {
                    assert_eq!(*decided, expected);
                    true
                }
                Err(code) => {
                    assert_eq!(*code, Code::Busy);
                    false
                }
            })
            .count() as u64
    };
    let decided: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(metrics(&policy).decisions, decided + 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Every field of a decision is that of the crate's own decider, in either precision, alone and in a batch.
    #[test]
    fn c_and_rust_decide_the_same(seed in any::<u64>(), exact in any::<bool>(), allowed in 1_u8..32) {
        thread_local! {
            static SHELF: (Shelf, CString) = {
                let shelf = Shelf::new();
                let folder = shelf.put("model", &network(1));
                (shelf, folder)
            };
        }
        let precision = if exact { BELLWETHER_PRECISION_EXACT } else { 0 };
        let options = Options { precision, isa: BELLWETHER_ISA_SCALAR, time_every: BELLWETHER_TIME_NEVER, ..DEFAULTS };
        let (policy, rust) = SHELF.with(|(_, folder)| {
            let precision = if exact { bellwether_inference::Precision::Exact } else { bellwether_inference::Precision::Certified };
            let chosen = policy::Options { precision, ..policy::Options::default() };
            (Opened::new(folder, Some(options)), rust_policy(folder, chosen))
        });
        let (decider, mut rust) = (policy.decider(), rust.decider());
        let mut draw = Draw(seed);
        let rows = 3;
        let states: Vec<f32> = (0..rows).flat_map(|_| state_for(&network(1), draw.bits())).collect();
        let mask: [bool; ACTIONS] = std::array::from_fn(|action| allowed >> action & 1 == 1);
        let (code, batch, _) = decider.decide_batch(&states, Some(&mask.map(u8::from).repeat(rows)), rows);
        prop_assert_eq!(code, Code::Ok);
        for (state, row) in states.chunks(WIDTH).zip(batch) {
            let (decision, q_values) = decider.decide(Some(seed), state, Some(&mask.map(u8::from))).unwrap();
            prop_assert_eq!(row, decision);
            let answer = rust.decide(state, &mask).unwrap();
            let told = answer.decision;
            prop_assert_eq!(decision.action as usize, told.action);
            prop_assert_eq!(decision.margin, told.margin.unwrap_or(f32::INFINITY));
            prop_assert_eq!(decision.bound, told.bound);
            prop_assert_eq!(decision.certified == 1, told.certified);
            prop_assert_eq!(&decision.model_version, answer.model.version.as_bytes());
            prop_assert_eq!(decision.role == BELLWETHER_ROLE_CHAMPION, answer.role == Role::Champion);
            prop_assert_eq!(&q_values[..], told.q_values);
        }
        prop_assert_eq!(metrics(&policy).latency_total_ns, 0);
    }
}
