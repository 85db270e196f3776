//! Decisions: those of the engine alone, over every carrier and in every form, and refusals by name.

use bellwether_env_adapter::spec::{element, encode_cost};
use bellwether_inference::policy::Role;
use bellwether_inference::serve::proto::policy::{
    DecideBatchRequest, DecideRequest, DecideResponse, DescribeRequest, Role as WireRole, decide_result,
};
use tonic::Code;

use crate::nets::state_for;
use crate::started::{WIDTH, client, network, policy, release, start, unix_channel};

fn states() -> impl Iterator<Item = Vec<f32>> {
    (0..40).map(|seed| state_for(&network(1), seed))
}

fn asked(state: Vec<f32>) -> DecideRequest {
    DecideRequest { state, with_q_values: true, ..DecideRequest::default() }
}

/// What the engine alone says of a state.
fn expected(state: &[f32], mask: &[bool]) -> DecideResponse {
    let policy = policy(1);
    let mut decider = policy.decider();
    let answer = decider.decide(state, mask).unwrap();
    assert_eq!(answer.role, Role::Champion);
    DecideResponse {
        action: answer.decision.action as u32,
        action_name: policy.actions()[answer.decision.action].clone(),
        q_values: answer.decision.q_values.to_vec(),
        margin: answer.decision.margin,
        certified: answer.decision.certified,
        bound: answer.decision.bound,
        model_version: answer.model.version.to_string(),
        model_number: Some(1),
        role: WireRole::Champion.into(),
        cost: None,
    }
}

#[tokio::test]
async fn decisions_over_tcp_and_unix_sockets_are_those_of_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serve.sock");
    let server = start(|config| config.unix = Some(path.clone()));
    let over_unix = bellwether_inference::serve::proto::policy::policy_service_client::PolicyServiceClient::new(
        unix_channel(&path).await,
    );
    for mut client in [client(&server).await, over_unix] {
        for (index, state) in states().enumerate() {
            let mask: Vec<bool> = (0..5).map(|action| action != index % 5).collect();
            let bits = mask.iter().enumerate().map(|(action, allowed)| u64::from(*allowed) << action).sum();
            let bytes: Vec<u8> = state.iter().flat_map(|value| value.to_le_bytes()).collect();
            let all = client.decide(asked(state.clone())).await.unwrap().into_inner();
            assert_eq!(all, expected(&state, &[true; 5]));
            let as_lists = DecideRequest { mask: mask.clone(), ..asked(state.clone()) };
            let as_bytes = DecideRequest { state_bytes: bytes.into(), mask_bits: Some(bits), ..asked(Vec::new()) };
            for request in [as_lists, as_bytes] {
                let masked = client.decide(request).await.unwrap().into_inner();
                assert_eq!(masked, expected(&state, &mask));
            }
        }
    }
    let brief = DecideRequest { state: vec![0.5; WIDTH], ..DecideRequest::default() };
    let answer = client(&server).await.decide(brief).await.unwrap().into_inner();
    assert!(answer.q_values.is_empty());
    let counts: Vec<_> = server.shared().requests.counts().collect();
    assert_eq!(counts, [("/bellwether.policy.v1.PolicyService/Decide", "OK", 241)]);
}

#[tokio::test]
async fn what_cannot_be_decided_is_refused_by_name_and_never_scored() {
    let server = start(|_| ());
    let mut client = client(&server).await;
    let with = |index: usize, value: f32| {
        let mut state = vec![0.5; WIDTH];
        state[index] = value;
        asked(state)
    };
    let good = || asked(vec![0.5; WIDTH]);
    let cases = [
        (with(3, f32::NAN), Code::InvalidArgument, "value 3 of the state is NaN"),
        (with(0, f32::INFINITY), Code::InvalidArgument, "value 0 of the state is inf"),
        (with(11, -0.25), Code::InvalidArgument, "value 11 of the state is -0.25"),
        (with(7, 1.5), Code::InvalidArgument, "value 7 of the state is 1.5"),
        (asked(vec![0.5; WIDTH - 1]), Code::InvalidArgument, "the state has 11 values"),
        (asked(Vec::new()), Code::InvalidArgument, "the state has 0 values"),
        (DecideRequest { state_bytes: vec![0; 48].into(), ..good() }, Code::InvalidArgument, "both state and"),
        (DecideRequest { state_bytes: vec![0; 47].into(), ..asked(Vec::new()) }, Code::InvalidArgument, "47 bytes"),
        (DecideRequest { mask: vec![true; 4], ..good() }, Code::InvalidArgument, "the mask has 4 entries"),
        (DecideRequest { mask: vec![false; 5], ..good() }, Code::InvalidArgument, "allows no action"),
        (DecideRequest { mask_bits: Some(0), ..good() }, Code::InvalidArgument, "allows no action"),
        (DecideRequest { mask_bits: Some(32), ..good() }, Code::InvalidArgument, "mask_bits is 0x20"),
        (
            DecideRequest { mask: vec![true; 5], mask_bits: Some(1), ..good() },
            Code::InvalidArgument,
            "both mask and mask_bits",
        ),
        (DecideRequest { target_fpr: Some(0.02), ..good() }, Code::InvalidArgument, "it knows 0.01, 0.05"),
        (DecideRequest { target_fpr: Some(f64::NAN), ..good() }, Code::InvalidArgument, "calibrated for"),
        (DecideRequest { model_version: "2".to_owned(), ..good() }, Code::NotFound, "model 2 is not the one"),
        (
            DecideRequest { feature_spec: vec![7; 32].into(), ..good() },
            Code::FailedPrecondition,
            "by the feature specification 0707",
        ),
        (DecideRequest { feature_spec: vec![7; 31].into(), ..good() }, Code::FailedPrecondition, "no SHA-256"),
        (DecideRequest { model_version: "x".repeat(900), ..good() }, Code::NotFound, "is not the one"),
    ];
    let count = cases.len() as u64;
    for (request, code, part) in cases {
        let status = client.decide(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(part), "{part}: {status}");
        assert!(status.message().len() < 400);
    }
    let scored: u64 = server.shared().policy.metrics().models.iter().map(|(_, tally)| tally.total()).sum();
    assert_eq!(scored, 0);
    let refused: u64 = server.shared().requests.counts().map(|(_, _, count)| count).sum();
    assert_eq!(refused, count);
}

#[tokio::test]
async fn the_cost_of_a_rate_is_the_deciding_models_own() {
    let server = start(|_| ());
    let mut client = client(&server).await;
    for state in states() {
        for (target, cost) in [(0.01, 0.9), (0.05, 0.5)] {
            // What stands in the place of the cost does not matter then.
            let mut sent = state.clone();
            sent[element::COST] = f32::NAN;
            let request = DecideRequest { target_fpr: Some(target), ..asked(sent) };
            let answer = client.decide(request).await.unwrap().into_inner();
            let mut meant = state.clone();
            meant[element::COST] = encode_cost(cost);
            assert_eq!(answer, DecideResponse { cost: Some(cost), ..expected(&meant, &[true; 5]) });
        }
    }
}

#[tokio::test]
async fn whoever_makes_states_is_told_of_what() {
    let server = start(|_| ());
    let mut client = client(&server).await;
    let told = client.describe(DescribeRequest::default()).await.unwrap().into_inner();
    let policy = &server.shared().policy;
    assert_eq!(told.feature_spec, policy.feature_spec().as_bytes());
    assert_eq!((told.width as usize, &told.actions[..]), (WIDTH, policy.actions()));
    assert_eq!((told.max_events, told.max_ns, told.max_windows), (64, 100_000_000, 0));
    assert_eq!(told.target_fprs, [0.01, 0.05]);
    assert_eq!(told.model_version, policy.status().champion.version.to_string());
    // States that say of what they were made are decided on.
    let request = DecideRequest { feature_spec: told.feature_spec.into(), ..asked(vec![0.5; WIDTH]) };
    assert_eq!(client.decide(request).await.unwrap().into_inner(), expected(&[0.5; WIDTH], &[true; 5]));
    server.shared().policy.try_out(release(2), Some(2), 1.0).unwrap();
    let told = client.describe(DescribeRequest { episode: Some(7) }).await.unwrap().into_inner();
    let canary = server.shared().policy.status().canary.unwrap().0;
    assert_eq!(told.model_version, canary.version.to_string());
}

#[tokio::test]
async fn a_version_or_a_number_may_be_insisted_on_and_the_canary_has_its_episodes() {
    let server = start(|_| ());
    let mut client = client(&server).await;
    let champion = server.shared().policy.status().champion.version.to_string();
    for name in [champion.as_str(), "1", ""] {
        let request = DecideRequest { model_version: name.to_owned(), ..asked(vec![0.5; WIDTH]) };
        assert_eq!(client.decide(request).await.unwrap().into_inner().model_version, champion);
    }
    server.shared().policy.try_out(release(2), Some(2), 1.0).unwrap();
    let in_episode = DecideRequest { episode: Some(7), ..asked(vec![0.5; WIDTH]) };
    let answer = client.decide(in_episode.clone()).await.unwrap().into_inner();
    assert_eq!((answer.model_number, answer.role()), (Some(2), WireRole::Canary));
    let insisting = DecideRequest { model_version: champion, ..in_episode };
    assert_eq!(client.decide(insisting).await.unwrap_err().code(), Code::NotFound);
    let without = client.decide(asked(vec![0.5; WIDTH])).await.unwrap().into_inner();
    assert_eq!((without.model_number, without.role()), (Some(1), WireRole::Champion));
}

#[tokio::test]
async fn a_batch_answers_in_order_and_a_bad_question_spoils_no_other() {
    let server = start(|config| config.limits.batch = 41);
    let mut client = client(&server).await;
    let mut requests: Vec<DecideRequest> = states().map(asked).collect();
    requests.insert(20, asked(vec![f32::NAN; WIDTH]));
    let batch = DecideBatchRequest { requests: requests.clone() };
    let results = client.decide_batch(batch).await.unwrap().into_inner().results;
    assert_eq!(results.len(), 41);
    for (index, (request, result)) in requests.iter().zip(results).enumerate() {
        match result.result.unwrap() {
            decide_result::Result::Decision(decision) => assert_eq!(decision, expected(&request.state, &[true; 5])),
            decide_result::Result::Refusal(refusal) => {
                assert_eq!((index, refusal.code), (20, Code::InvalidArgument as u32));
                assert!(refusal.message.contains("value 0 of the state is NaN"));
            }
        }
    }
    requests.push(requests[0].clone());
    let status = client.decide_batch(DecideBatchRequest { requests }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(client.decide_batch(DecideBatchRequest::default()).await.unwrap().into_inner().results.is_empty());
}
