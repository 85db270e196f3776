//! `GRPCInferenceService`: the Open Inference Protocol, version 2, over gRPC.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bellwether_artifact::Sha256;
use tonic::{Request, Response, Status};

use super::answer::{Refused, Terms, names, shortened};
use super::infer::{ACTION, ACTION_MASK, Batch, Data, Inferred, Input, Q_VALUES, STATE, Wanted, infer};
use super::proto::inference::grpc_inference_service_server::GrpcInferenceService;
use super::proto::inference::infer_parameter::ParameterChoice;
use super::proto::inference::model_infer_request::InferInputTensor;
use super::proto::inference::model_infer_response::InferOutputTensor;
use super::proto::inference::model_metadata_response::TensorMetadata;
use super::proto::inference::{
    InferParameter, InferTensorContents, ModelConfigRequest, ModelConfigResponse, ModelInferRequest,
    ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
    ModelStatisticsRequest, ModelStatisticsResponse, RepositoryIndexRequest, RepositoryIndexResponse,
    RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use super::repository::{self, Models};
use super::shared::{Phase, Shared};
use super::statistics::Spent;
use super::trace::AnsweredBy;
use crate::policy::Role;

/// Answers the calls of `GRPCInferenceService`.
#[derive(Clone, Debug)]
pub(super) struct Inferences {
    pub(super) shared: Arc<Shared>,
}

/// Parameters of clients that say how, not what: nothing here depends on them.
const IGNORED: [&str; 5] =
    ["sequence_start", "sequence_end", "priority", "timeout", "triton_enable_empty_final_response"];

/// Parameter of an input that the client of `KServe` sends over gRPC as it does over HTTP: here the bytes say their size.
const BINARY_SIZE: &str = "binary_data_size";

/// What is here beyond the protocol, by the names that clients look for.
const EXTENSIONS: [&str; 2] = ["model_configuration", "statistics"];

#[tonic::async_trait]
impl GrpcInferenceService for Inferences {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.shared.phase() == Phase::Serving }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.into_inner();
        self.check_name(&name)?;
        let served = names(&version, self.shared.policy.status().champion);
        Ok(Response::new(ModelReadyResponse { ready: served && self.shared.phase() == Phase::Serving }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: "bellwether".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        self.check_name(&name)?;
        let champion = self.shared.policy.status().champion;
        if !names(&version, champion) {
            return Err(Status::not_found(format!("model {name} has no version {}", shortened(&version))));
        }
        // Both are bounded by the model format.
        let (width, actions) = (self.shared.policy.width() as i64, self.shared.policy.actions().len() as i64);
        let tensor = |name: &str, datatype: &str, shape: &[i64]| TensorMetadata {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
        };
        Ok(Response::new(ModelMetadataResponse {
            name,
            versions: vec![champion.version.to_string()],
            platform: "bellwether".to_owned(),
            inputs: vec![tensor(STATE, "FP32", &[-1, width]), tensor(ACTION_MASK, "BOOL", &[-1, actions])],
            outputs: vec![tensor(Q_VALUES, "FP32", &[-1, actions]), tensor(ACTION, "INT64", &[-1])],
        }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let request = request.into_inner();
        self.check_name(&request.model_name)?;
        let mut terms = terms(&request.parameters)?;
        terms.model_version = &request.model_version;
        let wanted = Wanted::of(request.outputs.iter().map(|output| output.name.as_str()))?;
        for output in &request.outputs {
            if let Some(name) = output.parameters.keys().min() {
                let name = shortened(name);
                return Err(Status::invalid_argument(format!(
                    "parameter {name:?} of an output is not known; leave it out"
                )));
            }
        }
        let (statistics, began) = (&self.shared.statistics, Instant::now());
        let batch = Batch::gather(&self.shared, inputs(&request)?)?;
        let (rows, gathered) = (batch.rows, Instant::now());
        let (model, inferred) = infer(&self.shared, terms, batch);
        let inferred = inferred.inspect_err(|refused| statistics.refused(model.version, refused, began.elapsed()))?;
        let decided = Instant::now();
        let raw = !request.raw_input_contents.is_empty();
        let answered_by = self.shared.traces.is_some().then(|| AnsweredBy(inferred.model.version.to_string()));
        let mut response = Response::new(answered(request, inferred, &wanted, raw));
        let (input, infer) = (gathered - began, decided - gathered);
        statistics.answered(model.version, Spent { rows, input, infer, output: decided.elapsed() });
        if let Some(answered_by) = answered_by {
            response.extensions_mut().insert(answered_by);
        }
        Ok(response)
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let ModelConfigRequest { name, version } = request.into_inner();
        self.check_name(&name)?;
        Models::of(&self.shared).named(&name, &version)?;
        Ok(Response::new(ModelConfigResponse { config: Some(repository::config(&self.shared)) }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let ModelStatisticsRequest { name, version } = request.into_inner();
        if !name.is_empty() {
            self.check_name(&name)?;
        }
        let Shared { model_name, statistics, .. } = &*self.shared;
        let versions = Models::of(&self.shared).named(model_name, &version)?;
        let model_stats = versions.into_iter().map(|id| statistics.tell(model_name, id.version)).collect();
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let RepositoryIndexRequest { repository_name, ready } = request.into_inner();
        if !repository_name.is_empty() {
            let name = shortened(&repository_name);
            return Err(Status::not_found(format!("there is no repository {name:?}; ask without a name")));
        }
        Ok(Response::new(Models::of(&self.shared).index(&self.shared, ready)))
    }

    async fn repository_model_load(
        &self,
        _: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        Err(repository::changed_elsewhere())
    }

    async fn repository_model_unload(
        &self,
        _: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        Err(repository::changed_elsewhere())
    }
}

impl Inferences {
    fn check_name(&self, name: &str) -> Result<(), Status> {
        let served = &self.shared.model_name;
        if name == served {
            return Ok(());
        }
        Err(Status::not_found(format!("there is no model {:?}; there is {served}", shortened(name))))
    }
}

/// What the parameters of a request say.
fn terms(parameters: &HashMap<String, InferParameter>) -> Result<Terms<'static>, Refused> {
    let mut terms = Terms::default();
    // In their order by name, so that it is always the same one that is refused.
    let mut names: Vec<&String> = parameters.keys().collect();
    names.sort_unstable();
    for name in names {
        let choice = parameters[name].parameter_choice.as_ref();
        let wrong = |wanted: &str| Refused::Malformed(format!("parameter {name} is not {wanted}"));
        match (name.as_str(), choice) {
            ("episode" | "sequence_id", _) if terms.episode.is_some() => {
                return Err(Refused::Malformed("both episode and sequence_id are given; give one of them".to_owned()));
            }
            ("episode" | "sequence_id", Some(ParameterChoice::Uint64Param(episode))) => terms.episode = Some(*episode),
            ("episode" | "sequence_id", Some(ParameterChoice::Int64Param(episode))) => {
                terms.episode = Some(u64::try_from(*episode).map_err(|_| wrong("0 or more"))?);
            }
            ("episode" | "sequence_id", Some(ParameterChoice::StringParam(id))) => {
                terms.episode = Some(episode_number(id));
            }
            ("episode" | "sequence_id", _) => return Err(wrong("a whole number or a text")),
            ("target_fpr", Some(ParameterChoice::DoubleParam(target))) => terms.target_fpr = Some(*target),
            ("target_fpr", _) => return Err(wrong("a double")),
            (known, _) if IGNORED.contains(&known) => (),
            _ => {
                let name = shortened(name);
                let known = "episode, sequence_id and target_fpr";
                return Err(Refused::Malformed(format!("parameter {name:?} is not known; there are {known}")));
            }
        }
    }
    Ok(terms)
}

/// The number of an episode that is known by a text: the first 8 bytes of its SHA-256, little-endian.
pub(super) fn episode_number(id: &str) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&Sha256::of(id.as_bytes()).as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

/// The tensors of a request, with the bytes that belong to them.
fn inputs(request: &ModelInferRequest) -> Result<Vec<Input<'_>>, Refused> {
    let raw = &request.raw_input_contents;
    if !raw.is_empty() && raw.len() != request.inputs.len() {
        let (found, expected) = (raw.len(), request.inputs.len());
        return Err(Refused::Malformed(format!("raw_input_contents has {found} entries for {expected} inputs")));
    }
    let inputs = request.inputs.iter().enumerate().map(|(index, tensor)| {
        let InferInputTensor { name, datatype, shape, parameters, contents } = tensor;
        let wrong = |what: &str| Refused::Malformed(format!("input {:?} {what}", shortened(name)));
        if let Some(parameter) = parameters.keys().filter(|name| *name != BINARY_SIZE).min() {
            return Err(wrong(&format!("has parameter {:?}, which is not known; leave it out", shortened(parameter))));
        }
        let data = match (raw.get(index), contents) {
            (Some(_), Some(_)) => return Err(wrong("has contents beside raw_input_contents; give one of them")),
            (Some(bytes), None) => Data::Raw(bytes),
            (None, Some(contents)) => typed(contents).ok_or_else(|| wrong("has contents of several types"))?,
            (None, None) => Data::None,
        };
        Ok(Input { name, datatype, shape, data })
    });
    inputs.collect()
}

/// The values of a tensor; `None` where they are of more than one type.
fn typed(contents: &InferTensorContents) -> Option<Data<'_>> {
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = contents;
    let others = [
        int_contents.is_empty(),
        int64_contents.is_empty(),
        uint_contents.is_empty(),
        uint64_contents.is_empty(),
        fp64_contents.is_empty(),
        bytes_contents.is_empty(),
    ];
    let other = others.contains(&false);
    match (fp32_contents.is_empty(), bool_contents.is_empty(), other) {
        (false, true, false) => Some(Data::Fp32(Cow::Borrowed(fp32_contents))),
        (true, false, false) => Some(Data::Bool(Cow::Borrowed(bool_contents))),
        (true, true, _) => Some(Data::None),
        _ => None,
    }
}

fn answered(request: ModelInferRequest, inferred: Inferred, wanted: &Wanted, raw: bool) -> ModelInferResponse {
    let Inferred { model, role, q_values, actions } = inferred;
    let rows = actions.len() as i64;
    let mut response = ModelInferResponse {
        model_name: request.model_name,
        model_version: model.version.to_string(),
        id: request.id,
        parameters: HashMap::from([("role".to_owned(), text(role))]),
        ..ModelInferResponse::default()
    };
    for name in &wanted.0 {
        let mut contents = InferTensorContents::default();
        let (datatype, shape, bytes): (_, _, Vec<u8>) = if *name == Q_VALUES {
            let shape = vec![rows, q_values.len() as i64 / rows.max(1)];
            let bytes = if raw { q_values.iter().flat_map(|value| value.to_le_bytes()).collect() } else { Vec::new() };
            contents.fp32_contents.clone_from(&q_values);
            ("FP32", shape, bytes)
        } else {
            let bytes = if raw { actions.iter().flat_map(|value| value.to_le_bytes()).collect() } else { Vec::new() };
            contents.int64_contents.clone_from(&actions);
            ("INT64", vec![rows], bytes)
        };
        if raw {
            response.raw_output_contents.push(bytes);
        }
        response.outputs.push(InferOutputTensor {
            name: (*name).to_owned(),
            datatype: datatype.to_owned(),
            shape,
            parameters: HashMap::new(),
            contents: (!raw).then_some(contents),
        });
    }
    response
}

fn text(role: Role) -> InferParameter {
    let role = match role {
        Role::Champion => "champion",
        Role::Canary => "canary",
    };
    InferParameter { parameter_choice: Some(ParameterChoice::StringParam(role.to_owned())) }
}
