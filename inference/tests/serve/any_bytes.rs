//! Whatever clients send, every call is answered: the bodies of the fuzzers, from bytes at random and from damaged messages.

use bellwether_env_adapter::spec::WIDTH;
use bellwether_inference::Policy;
use bellwether_inference::policy::Options;
use bellwether_inference::serve::fuzz::Front;
use bellwether_inference::serve::proto::inference::ModelInferRequest;
use bellwether_inference::serve::proto::inference::model_infer_request::InferInputTensor;
use bellwether_inference::serve::proto::policy::session_request::Message;
use bellwether_inference::serve::proto::policy::{DecideRequest, End, Events, Open, SessionRequest, Tick};
use bellwether_inference::serve::proto::telemetry;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message as _;

use crate::started::shipped;

/// Number of a call for the fuzzer, by the order of the calls that are asked most.
const DECIDE: u8 = 0;
const INFER: u8 = 1;
const SESSION: u8 = 3;

thread_local! {
    static FRONT: Front = Front::new(Policy::new(shipped(), None, Options::default()).unwrap()).unwrap();
}

/// Changes of a message: bytes that are replaced, and how much is cut off its end.
fn changes() -> impl Strategy<Value = (Vec<(Index, u8)>, u8)> {
    (vec((any::<Index>(), any::<u8>()), 0..3), prop_oneof![3 => Just(0), 1 => any::<u8>()])
}

fn damaged(mut bytes: Vec<u8>, (changes, cut): &(Vec<(Index, u8)>, u8)) -> Vec<u8> {
    bytes.truncate(bytes.len() - usize::from(*cut).min(bytes.len() - 1));
    for (at, byte) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *byte;
    }
    bytes
}

fn event(seq: u64, time_ns: u64) -> telemetry::Event {
    let kind = telemetry::EventKind::File.into();
    telemetry::Event { stage: 1, seq, time_ns: Some(time_ns), kind, name: "openat".to_owned(), ..Default::default() }
}

/// An episode from its opening to its end, one part after the other.
fn episode(time_ns: u64, cost: f32) -> Vec<u8> {
    let id = || "e".to_owned();
    let events = (0..40).map(|seq| event(seq, time_ns.saturating_mul(seq))).collect::<Vec<_>>();
    let parts = events.chunks(3).map(|some| Message::Events(Events { episode_id: id(), events: some.to_vec() }));
    let open = Message::Open(Open { episode_id: id(), cost: Some(cost), can_raise_isolation: true, ..Open::default() });
    let tick = Message::Tick(Tick { episode_id: id(), now_ns: u64::MAX - time_ns });
    let all = [open].into_iter().chain(parts).chain([tick, Message::End(End { episode_id: id() })]);
    let mut bytes = vec![SESSION, 0];
    for message in all {
        let part = SessionRequest { message: Some(message) }.encode_to_vec();
        bytes.push(part.len() as u8);
        bytes.extend(part);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_call_is_answered(bytes in vec(any::<u8>(), 0..200), changes in changes(), value in any::<f32>(), step in any::<u64>()) {
        let state: Vec<f32> = vec![value; WIDTH];
        let state_bytes: Vec<u8> = state.iter().flat_map(|value| value.to_le_bytes()).collect();
        let decide = DecideRequest { state_bytes: state_bytes.clone().into(), with_q_values: true, ..Default::default() };
        let input = InferInputTensor {
            name: "state".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, WIDTH as i64],
            ..Default::default()
        };
        let infer = ModelInferRequest {
            model_name: "policy".to_owned(),
            inputs: vec![input],
            raw_input_contents: vec![state_bytes.into()],
            ..Default::default()
        };
        FRONT.with(|front| {
            front.grpc(&bytes);
            front.grpc(&damaged([vec![DECIDE, 0], decide.encode_to_vec()].concat(), &changes));
            front.grpc(&damaged([vec![INFER, 0], infer.encode_to_vec()].concat(), &changes));
            front.grpc(&damaged(episode(step % 1_000_000_000, value), &changes));
        });
    }

    #[test]
    fn every_body_is_answered(bytes in vec(any::<u8>(), 0..200), changes in changes(), value in any::<f32>()) {
        let json = serde_json::json!({
            "id": "7",
            "parameters": { "episode": 3 },
            "inputs": [
                { "name": "state", "datatype": "FP32", "shape": [1, WIDTH], "data": vec![value; WIDTH] },
                { "name": "action_mask", "datatype": "BOOL", "shape": [1, 5], "parameters": { "binary_data_size": 5 } },
            ],
            "outputs": [{ "name": "q_values", "parameters": { "binary_data": true } }, { "name": "action" }],
        });
        let json = json.to_string().into_bytes();
        let body = [&[1][..], &(json.len() as u16).to_le_bytes(), &json, &[1, 0, 1, 1, 1]].concat();
        FRONT.with(|front| {
            front.http(&bytes);
            front.http(&damaged(body, &changes));
        });
    }
}
