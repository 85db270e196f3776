//! From a network to the bytes of a model file.

use prost::Message;

use super::onnx::{
    ATTRIBUTE_INT, ATTRIBUTE_INTS, AttributeProto, BOOL, DimensionProto, FLOAT, GraphProto, INT64, ModelProto,
    NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto,
    ValueInfoProto,
};
use super::{Contract, Head, Linear, Mlp, ModelError, VALUE};

/// Version of the ONNX container.
pub(super) const IR_VERSION: i64 = 8;
/// Version of the operator set `ai.onnx`.
pub(super) const OPSET: i64 = 17;
/// Versions of this format, under [`keys::FORMAT`]: each names the one graph that a file of it holds.
pub(super) mod formats {
    pub(in super::super) const PLAIN: &str = "1";
    pub(in super::super) const DUELING: &str = "2";
    /// Of a graph that only ONNX Runtime evaluates; nothing here writes one.
    pub(in super::super) const GENERAL: &str = "3";
}

/// Names of the graph's inputs and outputs: part of the format.
pub(super) mod values {
    pub(in super::super) const STATE: &str = "state";
    pub(in super::super) const ACTION_MASK: &str = "action_mask";
    pub(in super::super) const Q_VALUES: &str = "q_values";
    pub(in super::super) const ACTION: &str = "action";
    pub(in super::super) const BATCH: &str = "batch";
}

/// Keys of the metadata, in the order in which they are written.
pub(super) mod keys {
    pub(in super::super) const FORMAT: &str = "bellwether.format";
    pub(in super::super) const FEATURE_SPEC: &str = "bellwether.feature_spec";
    pub(in super::super) const ACTION_SET: &str = "bellwether.action_set";
    pub(in super::super) const ACTIONS: &str = "bellwether.actions";
}

/// The model file of a network under its contract: the same bytes for the same arguments, always.
///
/// Inputs `state` (f32 `[batch, width]`) and `action_mask` (bool `[batch, actions]`); outputs `q_values` (f32
/// `[batch, actions]`, unmasked) and `action` (i64 `[batch]`, the allowed action with the largest q-value, the lowest
/// number among equals).
///
/// # Errors
/// What [`Mlp::check`] finds; a contract of another width or number of actions; action names that are empty, doubled or
/// hold a comma.
pub fn encode(mlp: &Mlp, contract: &Contract) -> Result<Vec<u8>, ModelError> {
    mlp.check()?;
    contract.check()?;
    if contract.width != mlp.inputs() {
        return Err(ModelError::Width { found: mlp.inputs(), expected: contract.width });
    }
    if contract.actions.len() != mlp.outputs() {
        return Err(ModelError::Outputs { found: mlp.outputs(), expected: contract.actions.len() });
    }
    let (node, initializer) = body(mlp);
    let actions = mlp.outputs();
    let graph = GraphProto {
        node,
        name: Some("policy".to_owned()),
        initializer,
        input: vec![value(values::STATE, FLOAT, &[mlp.inputs()]), value(values::ACTION_MASK, BOOL, &[actions])],
        output: vec![value(values::Q_VALUES, FLOAT, &[actions]), value(values::ACTION, INT64, &[])],
        value_info: Vec::new(),
    };
    let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
    let model = ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("bellwether".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(OPSET) }],
        metadata_props: vec![
            entry(keys::FORMAT, format_of(mlp).to_owned()),
            entry(keys::FEATURE_SPEC, contract.feature_spec.to_string()),
            entry(keys::ACTION_SET, contract.action_set.to_string()),
            entry(keys::ACTIONS, contract.actions.join(",")),
        ],
    };
    Ok(model.encode_to_vec())
}

impl Contract {
    /// Checks that the contract can be written and read back: names that are distinct, not empty, and free of commas.
    ///
    /// # Errors
    /// The metadata entry that would come out wrong.
    pub fn check(&self) -> Result<(), ModelError> {
        for (index, name) in self.actions.iter().enumerate() {
            if name.is_empty() || name.contains(',') || self.actions[..index].contains(name) {
                let reason = format!("action {index} is {name:?}: empty, doubled or with a comma");
                return Err(ModelError::Metadata { key: keys::ACTIONS.to_owned(), reason });
            }
        }
        Ok(())
    }
}

/// The format that a network is written in.
pub(super) fn format_of(mlp: &Mlp) -> &'static str {
    match mlp.head {
        Head::Plain => formats::PLAIN,
        Head::Dueling(_) => formats::DUELING,
    }
}

/// Nodes and weights: Gemm, then Relu and Gemm for each further layer, then the head, then the masked argmax.
fn body(mlp: &Mlp) -> (Vec<NodeProto>, Vec<TensorProto>) {
    let mut body = Body::default();
    let mut flow = values::STATE.to_owned();
    let last = mlp.layers.len() - 1;
    for (index, layer) in mlp.layers[..last].iter().enumerate() {
        let (sum, hidden) = (format!("z{index}"), format!("h{index}"));
        body.gemm(&flow, &index.to_string(), layer, &sum);
        body.nodes.push(node("Relu", &[&sum], &hidden));
        flow = hidden;
    }
    let (number, layer) = (last.to_string(), &mlp.layers[last]);
    match &mlp.head {
        Head::Plain => body.gemm(&flow, &number, layer, values::Q_VALUES),
        Head::Dueling(value) => {
            body.gemm(&flow, &number, layer, "advantages");
            body.gemm(&flow, VALUE, value, "value");
            let mut mean = node("ReduceMean", &["advantages"], "mean_advantage");
            mean.attribute = attributes(&MEAN);
            body.nodes.push(mean);
            body.nodes.push(node("Sub", &["advantages", "mean_advantage"], "centred_advantages"));
            body.nodes.push(node("Add", &["value", "centred_advantages"], values::Q_VALUES));
        }
    }
    body.tensors.push(tensor("masked_value", &[], &[f32::NEG_INFINITY]));
    body.nodes.push(node("Where", &[values::ACTION_MASK, values::Q_VALUES, "masked_value"], "masked_q_values"));
    let mut argmax = node("ArgMax", &["masked_q_values"], values::ACTION);
    argmax.attribute = attributes(&ARGMAX);
    body.nodes.push(argmax);
    (body.nodes, body.tensors)
}

/// What a graph is made of.
#[derive(Default)]
struct Body {
    nodes: Vec<NodeProto>,
    tensors: Vec<TensorProto>,
}

impl Body {
    /// A layer from the value called `input` to the one called `output`.
    fn gemm(&mut self, input: &str, suffix: &str, layer: &Linear, output: &str) {
        let (weights, bias) = (format!("w{suffix}"), format!("b{suffix}"));
        self.tensors.push(tensor(&weights, &[layer.inputs, layer.outputs], &layer.weights));
        self.tensors.push(tensor(&bias, &[layer.outputs], &layer.bias));
        self.nodes.push(node("Gemm", &[input, &weights, &bias], output));
    }
}

/// What an attribute of the format holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Setting {
    /// An integer.
    One(i64),
    /// A list of integers.
    Many(&'static [i64]),
}

/// Attributes of `ArgMax`: over the actions, without keeping their axis, the first of equals.
pub(super) const ARGMAX: [(&str, Setting); 3] =
    [("axis", Setting::One(1)), ("keepdims", Setting::One(0)), ("select_last_index", Setting::One(0))];

/// Attributes of `ReduceMean`: over the actions, keeping their axis.
pub(super) const MEAN: [(&str, Setting); 2] = [("axes", Setting::Many(&[1])), ("keepdims", Setting::One(1))];

/// The attributes of a node, in this order.
pub(super) fn attributes(settings: &[(&str, Setting)]) -> Vec<AttributeProto> {
    let attribute = |&(name, setting): &(&str, Setting)| {
        let (i, ints, kind) = match setting {
            Setting::One(value) => (Some(value), Vec::new(), ATTRIBUTE_INT),
            Setting::Many(values) => (None, values.to_vec(), ATTRIBUTE_INTS),
        };
        AttributeProto { name: Some(name.to_owned()), i, ints, r#type: Some(kind), ..AttributeProto::default() }
    };
    settings.iter().map(attribute).collect()
}

fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        name: Some(format!("{output}_node")),
        op_type: Some(operator.to_owned()),
        ..NodeProto::default()
    }
}

fn tensor(name: &str, dims: &[usize], values: &[f32]) -> TensorProto {
    TensorProto {
        dims: dims.iter().map(|&dim| dim as i64).collect(),
        data_type: Some(FLOAT),
        name: Some(name.to_owned()),
        raw_data: Some(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
    }
}

/// An input or output: the symbolic batch, then `dims`.
pub(super) fn value(name: &str, elem_type: i32, dims: &[usize]) -> ValueInfoProto {
    let batch = DimensionProto { dim_value: None, dim_param: Some(values::BATCH.to_owned()) };
    let fixed = dims.iter().map(|&dim| DimensionProto { dim_value: Some(dim as i64), dim_param: None });
    let shape = TensorShapeProto { dim: std::iter::once(batch).chain(fixed).collect() };
    let tensor = TensorTypeProto { elem_type: Some(elem_type), shape: Some(shape) };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}
