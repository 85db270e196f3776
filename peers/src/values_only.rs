//! The model without its masked argmax: what a runtime is timed on.
//!
//! A caller of another runtime would take the q-values and find the largest allowed one itself, which costs nanoseconds;
//! two more operators cost such a runtime most of a microsecond. The comparison grants it the cheaper way.
#![cfg_attr(not(any(feature = "ort", feature = "tract", test)), allow(dead_code, reason = "no runtime to time"))]

use prost::Message;

use crate::PeerError;

/// A model whose parts stay bytes, except for the graph.
#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, optional, tag = "1")]
    ir_version: Option<i64>,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    opset_import: Vec<Vec<u8>>,
}

/// A graph whose parts stay bytes.
#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(bytes = "vec", repeated, tag = "1")]
    node: Vec<Vec<u8>>,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
    #[prost(bytes = "vec", repeated, tag = "5")]
    initializer: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "11")]
    input: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "12")]
    output: Vec<Vec<u8>>,
}

/// Drops the last two nodes, the mask and the action from a model file that the loader accepted; only `state` and
/// `q_values` are left. The constant of the mask stays, read by nothing.
///
/// # Errors
/// Bytes that are no model.
pub(crate) fn values_only(onnx: &[u8]) -> Result<Vec<u8>, PeerError> {
    let broken = |reason: String| PeerError::Runtime { runtime: "values_only", reason };
    let mut model = Model::decode(onnx).map_err(|error| broken(error.to_string()))?;
    let graph = model.graph.as_mut().ok_or_else(|| broken("the model has no graph".to_owned()))?;
    graph.node.truncate(graph.node.len().saturating_sub(2));
    graph.input.truncate(1);
    graph.output.truncate(1);
    Ok(model.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawn::model;

    #[test]
    fn what_is_left_ends_in_the_q_values() {
        let whole = Model::decode(model(&[3, 4, 2], false, 1).unwrap().as_slice()).unwrap().graph.unwrap();
        let left = Model::decode(values_only(&model(&[3, 4, 2], false, 1).unwrap()).unwrap().as_slice()).unwrap();
        let graph = left.graph.unwrap();
        assert_eq!((whole.node.len(), graph.node.len()), (5, 3));
        assert_eq!(graph.initializer, whole.initializer);
        let holds = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(holds(&graph.node[2], "q_values") && holds(&graph.output[0], "q_values"));
        assert!(holds(&graph.input[0], "state") && graph.input.len() == 1 && graph.output.len() == 1);
        assert!(values_only(&[0xff]).is_err());
    }
}
