//! The Open Inference Protocol: both forms of tensors, outputs as asked for, and refusals by name.

use std::collections::HashMap;

use bellwether_env_adapter::spec::{element, encode_cost};
use bellwether_inference::serve::Server;
use bellwether_inference::serve::proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use bellwether_inference::serve::proto::inference::infer_parameter::ParameterChoice;
use bellwether_inference::serve::proto::inference::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use bellwether_inference::serve::proto::inference::{
    DataType, InferParameter, InferTensorContents, ModelConfigRequest, ModelInferRequest, ModelInferResponse,
    ModelMetadataRequest, ModelReadyRequest, ModelStatistics, ModelStatisticsRequest, RepositoryIndexRequest,
    RepositoryModelLoadRequest, RepositoryModelUnloadRequest, ServerLiveRequest, ServerMetadataRequest,
    ServerReadyRequest,
};
use tonic::Code;
use tonic::transport::Channel;

use crate::nets::state_for;
use crate::started::{WIDTH, channel, network, policy, release, start};

const ROWS: usize = 3;

async fn client(server: &Server) -> GrpcInferenceServiceClient<Channel> {
    GrpcInferenceServiceClient::new(channel(server).await)
}

fn tensor(name: &str, datatype: &str, shape: [i64; 2], contents: Option<InferTensorContents>) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        parameters: HashMap::new(),
        contents,
    }
}

fn states() -> Vec<f32> {
    (0..ROWS as u64).flat_map(|seed| state_for(&network(1), seed)).collect()
}

fn masks() -> Vec<bool> {
    (0..ROWS).flat_map(|row| (0..5).map(move |action| action != row)).collect()
}

fn asked(inputs: Vec<InferInputTensor>) -> ModelInferRequest {
    ModelInferRequest { model_name: "policy".to_owned(), id: "a7".to_owned(), inputs, ..ModelInferRequest::default() }
}

fn state_tensor(values: Vec<f32>) -> InferInputTensor {
    let contents = InferTensorContents { fp32_contents: values, ..InferTensorContents::default() };
    tensor("state", "FP32", [ROWS as i64, WIDTH as i64], Some(contents))
}

fn mask_tensor(values: Vec<bool>) -> InferInputTensor {
    let contents = InferTensorContents { bool_contents: values, ..InferTensorContents::default() };
    tensor("action_mask", "BOOL", [ROWS as i64, 5], Some(contents))
}

/// Values and actions of the engine alone.
fn expected(states: &[f32], masks: &[bool]) -> (Vec<f32>, Vec<i64>) {
    let policy = policy(1);
    let mut decider = policy.decider();
    let (mut values, mut actions) = (Vec::new(), Vec::new());
    for (state, mask) in states.chunks(WIDTH).zip(masks.chunks(5)) {
        let answer = decider.decide(state, mask).unwrap();
        values.extend_from_slice(answer.decision.q_values);
        actions.push(answer.decision.action as i64);
    }
    (values, actions)
}

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

fn of_contents(response: &ModelInferResponse) -> (Vec<f32>, Vec<i64>) {
    let [values, actions] = &response.outputs[..] else { panic!("{response:?}") };
    assert_eq!((values.name.as_str(), values.datatype.as_str(), &values.shape[..]), ("q_values", "FP32", &[3, 5][..]));
    assert_eq!((actions.name.as_str(), actions.datatype.as_str(), &actions.shape[..]), ("action", "INT64", &[3][..]));
    let values = values.contents.as_ref().unwrap().fp32_contents.clone();
    (values, actions.contents.as_ref().unwrap().int64_contents.clone())
}

#[tokio::test]
async fn typed_and_raw_tensors_give_the_same_answers() {
    let server = start(|_| ());
    let mut client = client(&server).await;
    for masks in [masks(), vec![true; ROWS * 5]] {
        let request = asked(vec![mask_tensor(masks.clone()), state_tensor(states())]);
        let typed = client.model_infer(request).await.unwrap().into_inner();
        assert_eq!(of_contents(&typed), expected(&states(), &masks));
        assert_eq!((typed.model_name.as_str(), typed.id.as_str()), ("policy", "a7"));
        assert_eq!(typed.model_version, server.shared().policy.status().champion.version.to_string());

        // KServe's client says the size of the bytes here as it does over HTTP.
        let size = parameter(ParameterChoice::Int64Param((ROWS * WIDTH * 4) as i64));
        let parameters = HashMap::from([("binary_data_size".to_owned(), size)]);
        let bare = vec![
            InferInputTensor { contents: None, parameters, ..state_tensor(Vec::new()) },
            InferInputTensor { contents: None, ..mask_tensor(Vec::new()) },
        ];
        let bytes: Vec<u8> = states().iter().flat_map(|value| value.to_le_bytes()).collect();
        let mask_bytes: Vec<u8> = masks.iter().map(|allowed| u8::from(*allowed)).collect();
        let request = ModelInferRequest { raw_input_contents: vec![bytes.into(), mask_bytes.into()], ..asked(bare) };
        let raw = client.model_infer(request).await.unwrap().into_inner();
        assert!(raw.outputs.iter().all(|output| output.contents.is_none()));
        let (values, actions) = expected(&states(), &masks);
        assert_eq!(raw.raw_output_contents[0], values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        assert_eq!(raw.raw_output_contents[1], actions.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    }
    // Without a mask everything is allowed.
    let response = client.model_infer(asked(vec![state_tensor(states())])).await.unwrap().into_inner();
    assert_eq!(of_contents(&response), expected(&states(), &[true; ROWS * 5]));
}

#[tokio::test]
async fn outputs_come_as_they_are_asked_for() {
    let server = start(|_| ());
    let mut client = client(&server).await;
    let output = |name: &str| InferRequestedOutputTensor { name: name.to_owned(), parameters: HashMap::new() };
    for names in [&["action"][..], &["q_values"], &["action", "q_values"]] {
        let outputs = names.iter().map(|name| output(name)).collect();
        let request = ModelInferRequest { outputs, ..asked(vec![state_tensor(states())]) };
        let response = client.model_infer(request).await.unwrap().into_inner();
        let found: Vec<&str> = response.outputs.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(found, names);
    }
    for outputs in [vec![output("logits")], vec![output("action"), output("action")]] {
        let request = ModelInferRequest { outputs, ..asked(vec![state_tensor(states())]) };
        assert_eq!(client.model_infer(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn parameters_choose_the_episode_and_the_rate() {
    let server = start(|_| ());
    let mut client = client(&server).await;
    let with = |name: &str, choice: ParameterChoice| ModelInferRequest {
        parameters: HashMap::from([(name.to_owned(), parameter(choice))]),
        ..asked(vec![state_tensor(states())])
    };
    let mut meant = states();
    meant.chunks_mut(WIDTH).for_each(|state| state[element::COST] = encode_cost(0.9));
    let response = client.model_infer(with("target_fpr", ParameterChoice::DoubleParam(0.01))).await.unwrap();
    assert_eq!(of_contents(response.get_ref()), expected(&meant, &[true; ROWS * 5]));

    server.shared().policy.try_out(release(2), Some(2), 1.0).unwrap();
    let canary = server.shared().policy.status().canary.unwrap().0.version.to_string();
    for choice in [
        with("episode", ParameterChoice::Int64Param(3)),
        with("episode", ParameterChoice::Uint64Param(3)),
        with("sequence_id", ParameterChoice::StringParam("episode-3".to_owned())),
    ] {
        let response = client.model_infer(choice).await.unwrap().into_inner();
        assert_eq!(response.model_version, canary);
        assert_eq!(response.parameters["role"], parameter(ParameterChoice::StringParam("canary".to_owned())));
    }
    for (refused, part) in [
        (with("target_fpr", ParameterChoice::DoubleParam(0.02)), "it knows 0.01, 0.05"),
        (with("target_fpr", ParameterChoice::StringParam("0.01".to_owned())), "not a double"),
        (with("target_fp", ParameterChoice::DoubleParam(0.01)), "\"target_fp\" is not known"),
        (with("episode", ParameterChoice::Int64Param(-1)), "not 0 or more"),
    ] {
        let status = client.model_infer(refused).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(part), "{status}");
    }
    assert!(client.model_infer(with("priority", ParameterChoice::Int64Param(1))).await.is_ok());
}

#[tokio::test]
async fn malformed_tensors_are_refused_by_name() {
    let server = start(|config| config.limits.batch = ROWS);
    let mut client = client(&server).await;
    let mut not_a_number = states();
    not_a_number[WIDTH + 4] = f32::NAN;
    let shaped = |shape: [i64; 2]| InferInputTensor { shape: shape.to_vec(), ..state_tensor(states()) };
    let both =
        InferTensorContents { fp32_contents: states(), int64_contents: vec![1], ..InferTensorContents::default() };
    let bare = || InferInputTensor { contents: None, ..state_tensor(Vec::new()) };
    let raw = |inputs: Vec<InferInputTensor>, contents: Vec<Vec<u8>>| ModelInferRequest {
        raw_input_contents: contents.into_iter().map(Into::into).collect(),
        ..asked(inputs)
    };
    let mask = |byte: u8| {
        let mask = InferInputTensor { contents: None, ..mask_tensor(Vec::new()) };
        raw(vec![bare(), mask], vec![vec![0; ROWS * WIDTH * 4], vec![byte; ROWS * 5]])
    };
    let region = InferInputTensor {
        parameters: HashMap::from([(
            "shared_memory_region".to_owned(),
            parameter(ParameterChoice::StringParam("x".to_owned())),
        )]),
        ..bare()
    };
    for (request, part) in [
        (asked(Vec::new()), "input state is missing"),
        (asked(vec![mask_tensor(masks())]), "input state is missing"),
        (asked(vec![state_tensor(not_a_number)]), "row 1: value 4 of the state is NaN"),
        (asked(vec![state_tensor(vec![0.5; WIDTH])]), "has 12 floats"),
        (asked(vec![shaped([3, 11])]), "not [rows, 12]"),
        (asked(vec![shaped([-1, 12])]), "not [rows, 12]"),
        (asked(vec![shaped([0, 12])]), "not [rows, 12]"),
        (asked(vec![shaped([4, 12])]), "4 is more than the 3"),
        (asked(vec![shaped([i64::MAX, 12])]), "more than the 3"),
        (asked(vec![InferInputTensor { shape: vec![36], ..state_tensor(states()) }]), "not [rows, 12]"),
        (asked(vec![InferInputTensor { datatype: "FP64".to_owned(), ..state_tensor(states()) }]), "not FP32"),
        (asked(vec![tensor("state", "FP32", [3, 12], Some(both))]), "contents of several types"),
        (asked(vec![bare()]), "has no values of its type"),
        (asked(vec![state_tensor(states()), state_tensor(states())]), "is given twice"),
        (asked(vec![tensor("obs", "FP32", [3, 12], None)]), "is not known"),
        (asked(vec![state_tensor(states()), mask_tensor(vec![true; 4])]), "has 4 booleans"),
        (asked(vec![state_tensor(states()), mask_tensor(vec![false; ROWS * 5])]), "row 0: the mask allows no action"),
        (raw(vec![state_tensor(states())], vec![vec![0; 4]]), "contents beside raw_input_contents"),
        (raw(vec![bare()], vec![vec![0; 4]; 2]), "2 entries for 1 inputs"),
        (raw(vec![bare()], vec![vec![0; 47]]), "has 47 bytes"),
        (mask(2), "byte 2 at 0"),
        (raw(vec![region], vec![vec![0; ROWS * WIDTH * 4]]), "shared_memory_region"),
    ] {
        let status = client.model_infer(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(part), "{part}: {status}");
    }
    assert!(client.model_infer(mask(1)).await.is_ok());
    for (name, version) in [("other", ""), ("policy", "99"), ("", "")] {
        let request = ModelInferRequest {
            model_name: name.to_owned(),
            model_version: version.to_owned(),
            ..asked(vec![state_tensor(states())])
        };
        assert_eq!(client.model_infer(request).await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn server_and_model_say_what_they_are() {
    let server = start(|_| ());
    let mut client = client(&server).await;
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let about = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(about.name, "bellwether");
    let champion = server.shared().policy.status().champion.version.to_string();
    for (version, ready) in [("", true), ("1", true), (champion.as_str(), true), ("2", false)] {
        let request = ModelReadyRequest { name: "policy".to_owned(), version: version.to_owned() };
        assert_eq!(client.model_ready(request).await.unwrap().into_inner().ready, ready);
    }
    let of = |name: &str, version: &str| ModelMetadataRequest { name: name.to_owned(), version: version.to_owned() };
    let metadata = client.model_metadata(of("policy", "")).await.unwrap().into_inner();
    assert_eq!(metadata.versions, [champion]);
    let inputs: Vec<_> = metadata.inputs.iter().map(|input| (input.name.as_str(), &input.shape[..])).collect();
    assert_eq!(inputs, [("state", &[-1, 12][..]), ("action_mask", &[-1, 5][..])]);
    let outputs: Vec<_> = metadata.outputs.iter().map(|output| (output.name.as_str(), &output.shape[..])).collect();
    assert_eq!(outputs, [("q_values", &[-1, 5][..]), ("action", &[-1][..])]);
    assert_eq!(client.model_metadata(of("other", "")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.model_metadata(of("policy", "7")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_model_says_how_it_is_served() {
    let server = start(|config| config.limits.batch = 99);
    let mut client = client(&server).await;
    let of = |name: &str, version: &str| ModelConfigRequest { name: name.to_owned(), version: version.to_owned() };
    for version in ["", "1"] {
        let config = client.model_config(of("policy", version)).await.unwrap().into_inner().config.unwrap();
        assert_eq!((config.name.as_str(), config.max_batch_size), ("policy", 99));
        let inputs: Vec<_> =
            config.input.iter().map(|i| (i.name.as_str(), i.data_type(), &i.dims[..], i.optional)).collect();
        let (state, mask) =
            (("state", DataType::TypeFp32, &[12][..], false), ("action_mask", DataType::TypeBool, &[5][..], true));
        assert_eq!(inputs, [state, mask]);
        let outputs: Vec<_> = config.output.iter().map(|o| (o.name.as_str(), o.data_type(), &o.dims[..])).collect();
        assert_eq!(outputs, [("q_values", DataType::TypeFp32, &[5][..]), ("action", DataType::TypeInt64, &[][..])]);
    }
    for asked in [of("other", ""), of("policy", "7")] {
        assert_eq!(client.model_config(asked).await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn statistics_count_each_models_rows_requests_and_refusals() {
    let server = start(|_| ());
    let mut client = client(&server).await;
    let policy = &server.shared().policy;
    policy.try_out(release(2), Some(2), 1.0).unwrap();
    let status = policy.status();
    let (champion, canary) = (status.champion.version.to_string(), status.canary.unwrap().0.version.to_string());
    let with_episode = || ModelInferRequest {
        parameters: HashMap::from([("episode".to_owned(), parameter(ParameterChoice::Int64Param(3)))]),
        ..asked(vec![state_tensor(states())])
    };
    for _ in 0..2 {
        client.model_infer(asked(vec![state_tensor(states())])).await.unwrap();
    }
    client.model_infer(with_episode()).await.unwrap();
    let mut not_a_number = states();
    not_a_number[4] = f32::NAN;
    client.model_infer(asked(vec![state_tensor(not_a_number)])).await.unwrap_err();
    let elsewhere = ModelInferRequest { model_version: "9".to_owned(), ..asked(vec![state_tensor(states())]) };
    client.model_infer(elsewhere).await.unwrap_err();

    let counts = |told: &ModelStatistics| {
        let stats = told.inference_stats.unwrap();
        let [success, fail, infer] = [stats.success, stats.fail, stats.compute_infer].map(Option::unwrap);
        assert!(success.ns >= infer.ns && (success.count == 0) == (infer.ns == 0));
        assert_eq!((told.last_inference > 0, told.execution_count), (success.count > 0, told.inference_count));
        (told.version.clone(), told.inference_count, success.count, fail.count)
    };
    let of = |name: &str, version: &str| ModelStatisticsRequest { name: name.to_owned(), version: version.to_owned() };
    let rows = ROWS as u64;
    let (first, second) = ((champion.clone(), 2 * rows, 2, 1), (canary.clone(), rows, 1, 0));
    for (request, expected) in [
        (of("", ""), vec![first.clone(), second.clone()]),
        (of("policy", ""), vec![first.clone(), second.clone()]),
        (of("policy", "1"), vec![first]),
        (of("policy", &canary), vec![second]),
    ] {
        let told = client.model_statistics(request).await.unwrap().into_inner().model_stats;
        assert_eq!(told.iter().map(counts).collect::<Vec<_>>(), expected);
    }
    let decided: Vec<u64> = policy.metrics().models.iter().map(|(_, tally)| tally.total()).collect();
    assert_eq!(decided, [2 * rows, rows], "the same as the metrics");
    for asked in [of("other", ""), of("policy", "7")] {
        assert_eq!(client.model_statistics(asked).await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn the_index_lists_what_is_served_and_kept_and_changes_are_refused() {
    let server = start(|_| ());
    let mut client = client(&server).await;
    let policy = &server.shared().policy;
    let ask = |ready| RepositoryIndexRequest { repository_name: String::new(), ready };
    policy.swap(release(2), Some(2)).unwrap();
    policy.try_out(release(3), Some(3), 0.25).unwrap();
    let status = policy.status();
    let [champion, canary, previous] =
        [status.champion, status.canary.unwrap().0, status.previous.unwrap()].map(|id| id.version.to_string());
    let listed = client.repository_index(ask(false)).await.unwrap().into_inner().models;
    let listed: Vec<_> =
        listed.iter().map(|m| (m.name.as_str(), m.version.as_str(), m.state.as_str(), m.reason.as_str())).collect();
    let expected = [
        ("policy", champion.as_str(), "READY", ""),
        ("policy", canary.as_str(), "READY", "on trial in a share of 0.25 of the episodes"),
        ("policy", previous.as_str(), "UNAVAILABLE", "kept to be rolled back to"),
    ];
    assert_eq!(listed, expected);
    assert_eq!(client.repository_index(ask(true)).await.unwrap().into_inner().models.len(), 2);
    let named = RepositoryIndexRequest { repository_name: "elsewhere".to_owned(), ready: false };
    assert_eq!(client.repository_index(named).await.unwrap_err().code(), Code::NotFound);

    let model_name = || "policy".to_owned();
    let load = RepositoryModelLoadRequest { repository_name: String::new(), model_name: model_name() };
    let unload = RepositoryModelUnloadRequest { repository_name: String::new(), model_name: model_name() };
    let refused = [
        client.repository_model_load(load).await.unwrap_err(),
        client.repository_model_unload(unload).await.unwrap_err(),
    ];
    for status in refused {
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains("bellwether.policy.v1.Admin"), "{status}");
    }
}
