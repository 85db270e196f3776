//! The native engine against whatever other runtimes this build and this machine have.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed set-up is a failed test; what is skipped is named"
)]

use bellwether_inference::Isa;
use bellwether_peers::parity::compare;
use bellwether_peers::{PeerError, Roster, StateRecord, drawn, open, recorded};

/// Compares on 10,000 states and says what was left out.
fn check(widths: &[usize]) {
    let onnx = drawn::model(widths, 3).unwrap();
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
    check(&[64, 256, 256, 6]);
}

#[test]
fn runtimes_agree_on_odd_shapes() {
    check(&[7, 13, 3]);
    check(&[5, 2]);
    check(&[33, 17, 65, 31, 1]);
}

#[test]
fn states_come_from_a_file_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states.jsonl");
    let check = |text: &str| {
        bellwether_artifact::durable::write_bytes(&path, text.as_bytes()).unwrap();
        recorded::states(&path)
    };
    let line = "{\"state\": [0.25, 1], \"mask\": [true, false]}\n";
    let record = StateRecord { state: vec![0.25, 1.0], mask: vec![true, false] };
    assert_eq!(check(&line.repeat(2)).unwrap(), [record.clone(), record]);
    assert!(matches!(check(""), Err(PeerError::NoStates)));
    assert!(matches!(check(&format!("{line}{{\"state\"")), Err(PeerError::TornStates { line: 2 })));
    let error = check(&format!("{line}{{\"state\": [0.25]}}\n")).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("mask"), "{error}");
}
