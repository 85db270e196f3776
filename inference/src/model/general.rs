//! Graphs that the native engine does not evaluate: what is checked before ONNX Runtime sees them.
//!
//! Everything that [`super::load`] refuses is refused here too, by the same checks, save for the pattern of the graph: operators
//! come from a longer list and may be wired freely. The list has what maps tensors to tensors, always in the same way and with
//! results as large as its operands make them; nothing that draws numbers, branches, loops, or takes a size from a value.

use std::collections::BTreeSet;

use super::encode::formats;
use super::load::{Metadata, decode, dimension, interface, matches, metadata, names};
use super::onnx::{BOOL, FLOAT, GraphProto, INT32, INT64, NodeProto, TensorProto};
use super::wire::Kinds;
use super::{Contract, Expectation, ModelError, limits, sizes};

/// The operators of ai.onnx that a general graph may use, sorted.
pub const GENERAL_OPERATORS: [&str; 58] = [
    "Abs",
    "Add",
    "And",
    "ArgMax",
    "BatchNormalization",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Concat",
    "Constant",
    "Div",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Flatten",
    "Floor",
    "Gather",
    "Gemm",
    "Greater",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LayerNormalization",
    "LeakyRelu",
    "Less",
    "Log",
    "LogSoftmax",
    "MatMul",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pow",
    "Reciprocal",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "Relu",
    "Selu",
    "Sigmoid",
    "Sign",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tanh",
    "Transpose",
    "Where",
];

/// Checks a file of a general graph against the caller's expectation: size, fields, spelling, container, contract, operators,
/// names, tensors, inputs and outputs, the sizes of all values. What the graph computes is not checked.
///
/// # Errors
/// The first violation. No input panics.
pub fn check_general(bytes: &[u8], expectation: &Expectation) -> Result<(), ModelError> {
    let model = decode(bytes, expectation.max_bytes, Kinds::General)?;
    let Metadata { format, feature_spec, action_set, actions } = metadata(&model)?;
    if format != formats::GENERAL {
        return Err(ModelError::FormatVersion { found: format, expected: formats::GENERAL.to_owned() });
    }
    let graph = model.graph.ok_or_else(|| ModelError::Missing { what: "the graph".to_owned() })?;
    check_nodes(&graph)?;
    check_tensors(&graph)?;
    // The width that a file states is that of its input, which must be the expected one.
    let width = expectation.contract.width;
    let found = Contract { width, feature_spec, action_set, actions };
    found.check()?;
    matches(&found, &expectation.contract)?;
    interface(&graph, width, found.actions.len())?;
    sizes::check(&graph, width, found.actions.len())
}

fn check_nodes(graph: &GraphProto) -> Result<(), ModelError> {
    for (index, node) in graph.node.iter().enumerate() {
        let operator = node.op_type.as_deref().unwrap_or("");
        match node.domain.as_deref() {
            None | Some("" | "ai.onnx") if GENERAL_OPERATORS.binary_search(&operator).is_ok() => {}
            None | Some("" | "ai.onnx") => {
                return Err(ModelError::OperatorNotListed { node: index, operator: operator.to_owned() });
            }
            Some(domain) => {
                return Err(ModelError::OperatorNotListed { node: index, operator: format!("{domain}.{operator}") });
            }
        }
        check_attributes(index, node)?;
    }
    Ok(())
}

fn check_attributes(index: usize, node: &NodeProto) -> Result<(), ModelError> {
    for attribute in &node.attribute {
        let name = attribute.name.as_deref().unwrap_or("");
        if attribute.f.iter().chain(&attribute.floats).any(|number| !number.is_finite()) {
            let reason = format!("{name:?} is not finite");
            return Err(ModelError::Attribute { node: index, reason });
        }
        if let Some(tensor) = &attribute.t {
            check_tensor(tensor, &format!("{name} of node {index}"))?;
        }
    }
    Ok(())
}

fn check_tensors(graph: &GraphProto) -> Result<(), ModelError> {
    let tensors = names(graph, true)?;
    for (name, tensor) in &tensors.0 {
        check_tensor(tensor, name)?;
    }
    let read: BTreeSet<&str> = graph.node.iter().flat_map(|node| &node.input).map(String::as_str).collect();
    match tensors.0.keys().find(|name| !read.contains(**name)) {
        Some(&name) => Err(ModelError::UnusedTensor { tensor: name.to_owned() }),
        None => Ok(()),
    }
}

/// Data as long as the shape says, and finite. A single number may be minus infinity, as the mask's is.
fn check_tensor(proto: &TensorProto, name: &str) -> Result<(), ModelError> {
    let found = proto.data_type.unwrap_or(0);
    let bytes = match found {
        FLOAT | INT32 => 4,
        INT64 => 8,
        BOOL => 1,
        _ => return Err(ModelError::DataType { tensor: name.to_owned(), found }),
    };
    if proto.dims.len() > limits::MAX_RANK {
        let (found, expected) = (proto.dims.clone(), vec![-1; limits::MAX_RANK]);
        return Err(ModelError::Shape { tensor: name.to_owned(), found, expected });
    }
    let mut expected: usize = bytes;
    for &dim in &proto.dims {
        let overflow = || ModelError::SizeOverflow { tensor: name.to_owned() };
        expected = expected.checked_mul(dimension(name, dim)?).ok_or_else(overflow)?;
    }
    let raw = proto.raw_data.as_deref().unwrap_or(&[]);
    if raw.len() != expected {
        return Err(ModelError::DataLength { tensor: name.to_owned(), found: raw.len(), expected });
    }
    if found != FLOAT {
        return Ok(());
    }
    let numbers = raw.as_chunks::<4>().0.iter().map(|&word| f32::from_le_bytes(word));
    let permitted = |number: f32| number.is_finite() || (proto.dims.is_empty() && number == f32::NEG_INFINITY);
    match numbers.enumerate().find(|&(_, number)| !permitted(number)) {
        Some((index, _)) => Err(ModelError::NonFinite { tensor: name.to_owned(), index }),
        None => Ok(()),
    }
}
