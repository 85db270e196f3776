//! Models, their statistics and their index as JSON.

use serde::Deserialize;
use serde_json::{Value, json};

use super::inference_json::Malformed;
use crate::serve::proto::inference::model_metadata_response::TensorMetadata;
use crate::serve::proto::inference::{
    DataType, ModelConfig, ModelMetadataResponse, ModelStatistics, ModelStatisticsResponse, RepositoryIndexResponse,
    StatisticDuration,
};

/// What is asked of the index.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Asked {
    /// Only models that answer.
    pub(super) ready: bool,
}

impl Asked {
    /// Reads a body; an empty one asks for everything.
    pub(super) fn read(body: &[u8]) -> Result<Self, Malformed> {
        if body.is_empty() {
            return Ok(Asked::default());
        }
        serde_json::from_slice(body).map_err(|error| Malformed::Json(error.to_string()))
    }
}

pub(super) fn metadata(model: &ModelMetadataResponse) -> Value {
    let ModelMetadataResponse { name, versions, platform, inputs, outputs } = model;
    let tensor =
        |tensor: &TensorMetadata| json!({"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape});
    let [inputs, outputs] = [inputs, outputs].map(|all| all.iter().map(tensor).collect::<Vec<_>>());
    json!({"name": name, "versions": versions, "platform": platform, "inputs": inputs, "outputs": outputs})
}

pub(super) fn config(config: &ModelConfig) -> Value {
    let ModelConfig { name, platform, max_batch_size, input, output, backend } = config;
    let datatype = |number| DataType::try_from(number).unwrap_or(DataType::TypeInvalid).as_str_name();
    let input = input.iter().map(|input| {
        let datatype = datatype(input.data_type);
        json!({"name": input.name, "data_type": datatype, "dims": input.dims, "optional": input.optional})
    });
    let output = output
        .iter()
        .map(|output| json!({"name": output.name, "data_type": datatype(output.data_type), "dims": output.dims}));
    let (input, output): (Vec<Value>, Vec<Value>) = (input.collect(), output.collect());
    json!({
        "name": name,
        "platform": platform,
        "backend": backend,
        "max_batch_size": max_batch_size,
        "input": input,
        "output": output,
    })
}

pub(super) fn statistics(told: &ModelStatisticsResponse) -> Value {
    let spent = |spent: Option<StatisticDuration>| {
        let StatisticDuration { count, ns } = spent.unwrap_or_default();
        json!({"count": count, "ns": ns})
    };
    let model = |model: &ModelStatistics| {
        let stats = model.inference_stats.unwrap_or_default();
        json!({
            "name": model.name,
            "version": model.version,
            "last_inference": model.last_inference,
            "inference_count": model.inference_count,
            "execution_count": model.execution_count,
            "inference_stats": {
                "success": spent(stats.success),
                "fail": spent(stats.fail),
                "queue": spent(stats.queue),
                "compute_input": spent(stats.compute_input),
                "compute_infer": spent(stats.compute_infer),
                "compute_output": spent(stats.compute_output),
            },
        })
    };
    json!({"model_stats": told.model_stats.iter().map(model).collect::<Vec<_>>()})
}

pub(super) fn index(index: &RepositoryIndexResponse) -> Value {
    let models = index.models.iter().map(
        |model| json!({"name": model.name, "version": model.version, "state": model.state, "reason": model.reason}),
    );
    models.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_asked_for_with_nothing_or_with_what_is_wanted() {
        let read = |body: &str| Asked::read(body.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(read(""), Ok(Asked { ready: false }));
        assert_eq!(read("{}"), Ok(Asked { ready: false }));
        assert_eq!(read("{\"ready\": true}"), Ok(Asked { ready: true }));
        for body in ["[", "{\"raedy\": true}", "{\"ready\": 1}"] {
            assert!(read(body).is_err_and(|text| text.contains("Open Inference Protocol")), "{body}");
        }
    }
}
