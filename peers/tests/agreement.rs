//! The native engine against whatever other runtimes this build and this machine have.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed set-up is a failed test; what is skipped is named"
)]

use bellwether_artifact::Sha256;
use bellwether_inference::Isa;
use bellwether_inference::model::Contract;
use bellwether_peers::parity::compare;
use bellwether_peers::{PeerError, Roster, StateRecord, drawn, open, recorded};
use bellwether_replay::episodes::{End, EpisodeFileHeader, EpisodeWriter, PlayedParts, Step};
use bellwether_replay::{ActionMask, Encoding};

/// Compares on 10,000 states and says what was left out.
fn check(widths: &[usize], dueling: bool) {
    let onnx = drawn::model(widths, dueling, 3).unwrap();
    let (mlp, _, mut native) = open(&onnx, Isa::best()).unwrap();
    let states: Vec<StateRecord> = drawn::states(10_000, mlp.inputs(), mlp.outputs(), 4).collect();
    let mut roster = Roster::peers(&onnx).unwrap();
    for skipped in &roster.skipped {
        println!("skipped: {}: {}", skipped.runtime, skipped.reason);
    }
    for peer in &mut roster.runtimes {
        let parity = compare(&mut native, peer.as_mut(), &states).unwrap();
        println!("{parity:?}");
        assert!(parity.agrees(), "{parity:?}");
        assert_eq!(parity.states, 10_000);
    }
    assert_eq!(roster.runtimes.len() + roster.skipped.len(), 2);
}

#[test]
fn runtimes_agree_on_the_common_shape() {
    check(&[64, 256, 256, 6], false);
    check(&[64, 256, 256, 6], true);
}

#[test]
fn runtimes_agree_on_odd_shapes() {
    for dueling in [false, true] {
        check(&[7, 13, 3], dueling);
        check(&[5, 2], dueling);
        check(&[33, 17, 65, 31, 1], dueling);
        check(&[9, 20, 16], dueling);
    }
}

fn contract(feature_spec: &[u8]) -> Contract {
    let actions = vec!["wait".to_owned(), "stop".to_owned()];
    Contract { width: 2, feature_spec: Sha256::of(feature_spec), action_set: 7, actions }
}

#[test]
fn states_come_from_an_episode_file_of_the_same_specification() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("episodes.parquet");
    let write = |rows: &[([f32; 2], u32)]| {
        let header = EpisodeFileHeader {
            width: 2,
            actions: 2,
            encoding: Encoding::Sparse,
            spec_hash: Sha256::of(b"ours").to_string(),
            action_set: "7".to_owned(),
            reward: "{}".to_owned(),
            sources: Vec::new(),
            policy: None,
            q_values: false,
            safe_rule: false,
        };
        let mut writer = EpisodeWriter::new(Vec::new(), header).unwrap();
        for (step, (state, mask)) in (0..).zip(rows) {
            let last = step as usize + 1 == rows.len();
            let action = mask.trailing_zeros();
            let step = Step {
                episode_id: "a",
                step,
                stage: 1,
                state,
                action_mask: ActionMask::from_bits(*mask),
                played: Some(PlayedParts { action, r0: 0.0, r1: 0.0, behaviour_probability: 1.0, safe_rule: false }),
                end: last.then_some(End::Terminated),
                partial: false,
                label: None,
                events_seen: 1,
                q_values: None,
            };
            writer.write(&step).unwrap();
        }
        bellwether_artifact::durable::write_bytes(&path, &writer.finish().unwrap().0).unwrap();
    };
    write(&[([0.0, 0.5], 0b11), ([1.0, 0.0], 0b10)]);
    let record = |state: [f32; 2], mask: [bool; 2]| StateRecord { state: state.to_vec(), mask: mask.to_vec() };
    let expected = [record([0.0, 0.5], [true, true]), record([1.0, 0.0], [false, true])];
    assert_eq!(recorded::states(&path, &contract(b"ours")).unwrap(), expected);
    let error = recorded::states(&path, &contract(b"theirs")).unwrap_err();
    assert!(matches!(error, PeerError::Episodes(_)) && error.to_string().contains("specification"), "{error}");
    write(&[]);
    assert!(matches!(recorded::states(&path, &contract(b"ours")), Err(PeerError::NoStates)));
}

#[test]
fn states_come_from_a_file_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states.jsonl");
    let check = |text: &str| {
        bellwether_artifact::durable::write_bytes(&path, text.as_bytes()).unwrap();
        recorded::states(&path, &contract(b"any"))
    };
    let line = "{\"state\": [0.25, 1], \"mask\": [true, false]}\n";
    let record = StateRecord { state: vec![0.25, 1.0], mask: vec![true, false] };
    assert_eq!(check(&line.repeat(2)).unwrap(), [record.clone(), record]);
    assert!(matches!(check(""), Err(PeerError::NoStates)));
    assert!(matches!(check(&format!("{line}{{\"state\"")), Err(PeerError::TornStates { line: 2 })));
    let error = check(&format!("{line}{{\"state\": [0.25]}}\n")).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("mask"), "{error}");
}
