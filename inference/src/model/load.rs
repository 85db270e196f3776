//! From the bytes of a model file to a network: exactly the graph that [`super::encode`] writes, or an error.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_artifact::Sha256;
use prost::Message;

use super::encode::{ARGMAX, IR_VERSION, MEAN, OPSET, Setting, attributes, format_of, formats, keys, value, values};
use super::onnx::{
    BOOL, FLOAT, GraphProto, INT64, ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto,
};
use super::wire::Kinds;
use super::{Contract, Expectation, Head, Linear, Mlp, ModelError, limits, wire};

/// The network of a model file that keeps the caller's expectation.
///
/// The size is checked before anything is read, every field against an allow-list before anything is allocated, and
/// every number before it is used. The file's hash is the caller's to check: a loader cannot know it.
///
/// # Errors
/// The first violation. No input panics.
pub fn load(bytes: &[u8], expectation: &Expectation) -> Result<Mlp, ModelError> {
    let (mlp, found) = read(bytes, expectation.max_bytes)?;
    matches(&found, &expectation.contract)?;
    Ok(mlp)
}

/// Checks the contract of a file against the expected one.
pub(super) fn matches(found: &Contract, expected: &Contract) -> Result<(), ModelError> {
    if found.feature_spec != expected.feature_spec {
        let (found, expected) = (found.feature_spec, expected.feature_spec);
        return Err(ModelError::FeatureSpec { found, expected });
    }
    if found.action_set != expected.action_set || found.actions != expected.actions {
        let name = |contract: &Contract| format!("set {} ({})", contract.action_set, contract.actions.join(","));
        return Err(ModelError::ActionSet { found: name(found), expected: name(expected) });
    }
    if found.width != expected.width {
        return Err(ModelError::Width { found: found.width, expected: expected.width });
    }
    Ok(())
}

/// The network of a model file and the contract that the file states, whatever that is.
///
/// For tools that look at models; what decides goes through [`load`].
///
/// # Errors
/// As [`load`], save for the contract.
pub fn read(bytes: &[u8], max_bytes: usize) -> Result<(Mlp, Contract), ModelError> {
    if is_general(bytes, max_bytes) {
        return Err(ModelError::General);
    }
    let model = decode(bytes, max_bytes, Kinds::Native)?;
    let Metadata { format, feature_spec, action_set, actions } = metadata(&model)?;
    if ![formats::PLAIN, formats::DUELING].contains(&format.as_str()) {
        let expected = format!("{} or {}", formats::PLAIN, formats::DUELING);
        return Err(ModelError::FormatVersion { found: format, expected });
    }
    let graph = model.graph.ok_or_else(|| ModelError::Missing { what: "the graph".to_owned() })?;
    let mlp = network(&graph)?;
    mlp.check()?;
    if format != format_of(&mlp) {
        return Err(ModelError::FormatVersion { found: format, expected: format_of(&mlp).to_owned() });
    }
    if mlp.outputs() != actions.len() {
        return Err(ModelError::Outputs { found: mlp.outputs(), expected: actions.len() });
    }
    interface(&graph, mlp.inputs(), mlp.outputs())?;
    let contract = Contract { width: mlp.inputs(), feature_spec, action_set, actions };
    contract.check()?;
    Ok((mlp, contract))
}

/// Whether a file says that it is for ONNX Runtime alone. Of a file that is refused in any case it is not said.
pub fn is_general(bytes: &[u8], max_bytes: usize) -> bool {
    /// The metadata; the decoder passes over the rest.
    #[derive(Clone, PartialEq, Message)]
    struct Label {
        #[prost(message, repeated, tag = "14")]
        metadata_props: Vec<StringStringEntryProto>,
    }
    let format = |entry: &StringStringEntryProto| {
        entry.key.as_deref() == Some(keys::FORMAT) && entry.value.as_deref() == Some(formats::GENERAL)
    };
    // The walk bounds the number of entries before any is allocated.
    bytes.len() <= max_bytes
        && wire::check(bytes, Kinds::General).is_ok()
        && Label::decode(bytes).is_ok_and(|label| label.metadata_props.iter().any(format))
}

/// The messages of a file: size, fields, spelling and container checked.
pub(super) fn decode(bytes: &[u8], max_bytes: usize, kinds: Kinds) -> Result<ModelProto, ModelError> {
    if bytes.len() > max_bytes {
        return Err(ModelError::TooLarge { bytes: bytes.len(), limit: max_bytes });
    }
    wire::check(bytes, kinds)?;
    let model = ModelProto::decode(bytes)
        .map_err(|error| ModelError::Malformed { offset: bytes.len(), reason: error.to_string() })?;
    canonical(&model, bytes)?;
    header(&model)?;
    Ok(model)
}

/// What was understood must be all that there is: writing it again gives the same bytes.
fn canonical(model: &ModelProto, bytes: &[u8]) -> Result<(), ModelError> {
    let again = model.encode_to_vec();
    if again == bytes {
        return Ok(());
    }
    let offset = again.iter().zip(bytes).position(|(a, b)| a != b).unwrap_or(again.len().min(bytes.len()));
    Err(ModelError::NotCanonical { offset })
}

fn header(model: &ModelProto) -> Result<(), ModelError> {
    let found = model.ir_version.unwrap_or(0);
    if found != IR_VERSION {
        return Err(ModelError::IrVersion { found });
    }
    match model.opset_import.as_slice() {
        [only] if only.domain.as_deref().unwrap_or("").is_empty() && only.version == Some(OPSET) => Ok(()),
        sets => {
            let name = |set: &super::onnx::OperatorSetIdProto| {
                format!("{} {}", set.domain.as_deref().unwrap_or("ai.onnx"), set.version.unwrap_or(0))
            };
            Err(ModelError::Opset { found: format!("{:?}", sets.iter().map(name).collect::<Vec<_>>()) })
        }
    }
}

/// What a file says about itself.
pub(super) struct Metadata {
    pub(super) format: String,
    pub(super) feature_spec: Sha256,
    pub(super) action_set: u32,
    pub(super) actions: Vec<String>,
}

pub(super) fn metadata(model: &ModelProto) -> Result<Metadata, ModelError> {
    let refuse = |key: &str, reason: &str| ModelError::Metadata { key: key.to_owned(), reason: reason.to_owned() };
    let mut found = BTreeMap::new();
    for entry in &model.metadata_props {
        let (key, value) = (entry.key.as_deref().unwrap_or(""), entry.value.as_deref().unwrap_or(""));
        if ![keys::FORMAT, keys::FEATURE_SPEC, keys::ACTION_SET, keys::ACTIONS].contains(&key) {
            return Err(refuse(key, "not a key of the format"));
        }
        if found.insert(key, value).is_some() {
            return Err(refuse(key, "stands twice"));
        }
    }
    let take = |key| found.get(key).copied().ok_or_else(|| ModelError::Missing { what: format!("metadata {key}") });
    let format = take(keys::FORMAT)?.to_owned();
    let set = take(keys::ACTION_SET)?;
    let action_set = set.parse::<u32>().ok().filter(|number| number.to_string() == set);
    let action_set = action_set.ok_or_else(|| refuse(keys::ACTION_SET, "not a version number"))?;
    let actions = take(keys::ACTIONS)?.split(',').map(str::to_owned).collect();
    let feature_spec = take(keys::FEATURE_SPEC)?.parse::<Sha256>();
    let feature_spec = feature_spec.map_err(|error| refuse(keys::FEATURE_SPEC, &error.to_string()))?;
    Ok(Metadata { format, feature_spec, action_set, actions })
}

/// The graph's tensors by name; [`Tensors::take`] hands each out once.
pub(super) struct Tensors<'a>(pub(super) BTreeMap<&'a str, &'a TensorProto>);

/// The one chain of layers that the nodes spell out, and its head. Nodes stand in the order in which they are written: a chain has
/// no other, and of the two branches of a dueling head the advantages come first.
fn network(graph: &GraphProto) -> Result<Mlp, ModelError> {
    let mut tensors = names(graph, false)?;
    let mut nodes = Nodes { graph, next: 0 };
    let (mut layers, mut head) = (Vec::new(), Head::Plain);
    let mut flow = values::STATE;
    loop {
        let (index, node) = nodes.take("Gemm", &[flow, "", ""], &[])?;
        if layers.len() == limits::MAX_LAYERS {
            return Err(ModelError::Layers { found: layers.len() + 1 });
        }
        layers.push(tensors.linear(index, &node.input[1], &node.input[2])?);
        let output = &node.output[0];
        if output == values::Q_VALUES {
            break;
        }
        if nodes.is_next("Gemm") {
            head = dueling(&mut nodes, &mut tensors, flow, output)?;
            break;
        }
        flow = &nodes.take("Relu", &[output], &[])?.1.output[0];
    }
    let (index, node) = nodes.take("Where", &[values::ACTION_MASK, values::Q_VALUES, ""], &[])?;
    tensors.masked_value(index, &node.input[2])?;
    let (index, node) = nodes.take("ArgMax", &[&node.output[0]], &ARGMAX)?;
    if node.output[0] != values::ACTION {
        return Err(structure(index, format!("its output is {:?}, expected \"action\"", node.output[0])));
    }
    if let Some(extra) = graph.node.get(nodes.next) {
        let operator = extra.op_type.as_deref().unwrap_or("");
        return Err(structure(nodes.next, format!("{operator} after the end of the permitted graph")));
    }
    match tensors.0.keys().next() {
        Some(&name) => Err(ModelError::UnusedTensor { tensor: name.to_owned() }),
        None => Ok(Mlp { layers, head }),
    }
}

/// The rest of a dueling head: the value from `flow`, and how it joins the `advantages`.
fn dueling(nodes: &mut Nodes<'_>, tensors: &mut Tensors<'_>, flow: &str, advantages: &str) -> Result<Head, ModelError> {
    let (index, node) = nodes.take("Gemm", &[flow, "", ""], &[])?;
    let layer = tensors.linear(index, &node.input[1], &node.input[2])?;
    let value = &node.output[0];
    let mean = &nodes.take("ReduceMean", &[advantages], &MEAN)?.1.output[0];
    let centred = &nodes.take("Sub", &[advantages, mean], &[])?.1.output[0];
    let (index, node) = nodes.take("Add", &[value, centred], &[])?;
    if node.output[0] != values::Q_VALUES {
        return Err(structure(index, format!("its output is {:?}, expected \"q_values\"", node.output[0])));
    }
    Ok(Head::Dueling(layer))
}

/// Checks that every name stands for one thing and that every node reads what exists by then. Where names may be left `blank`, an
/// empty one stands for an input or output that is not given.
pub(super) fn names(graph: &GraphProto, blank: bool) -> Result<Tensors<'_>, ModelError> {
    let produced: BTreeSet<&str> = graph.node.iter().flat_map(|node| &node.output).map(String::as_str).collect();
    let mut known = BTreeSet::new();
    let define = |known: &mut BTreeSet<String>, name: &str| match name {
        "" => Err(ModelError::Missing { what: "the name of a value".to_owned() }),
        name if known.insert(name.to_owned()) => Ok(()),
        name => Err(ModelError::DuplicateName { name: name.to_owned() }),
    };
    for input in &graph.input {
        define(&mut known, input.name.as_deref().unwrap_or(""))?;
    }
    let mut tensors = BTreeMap::new();
    for tensor in &graph.initializer {
        let name = tensor.name.as_deref().unwrap_or("");
        define(&mut known, name)?;
        tensors.insert(name, tensor);
    }
    for (index, node) in graph.node.iter().enumerate() {
        let given = |name: &&String| !(blank && name.is_empty());
        if let Some(value) = node.input.iter().filter(given).find(|name| !known.contains(name.as_str())) {
            let (node, cyclic, value) = (index, produced.contains(value.as_str()), value.clone());
            return Err(if cyclic {
                ModelError::Cycle { node, value }
            } else {
                ModelError::UndefinedValue { node, value }
            });
        }
        for name in node.output.iter().filter(given) {
            define(&mut known, name)?;
        }
    }
    Ok(Tensors(tensors))
}

impl<'a> Tensors<'a> {
    /// The tensor called `name`, which node `index` reads; no other may read it again.
    fn take(&mut self, index: usize, name: &str) -> Result<&'a TensorProto, ModelError> {
        self.0
            .remove(name)
            .ok_or_else(|| structure(index, format!("{name:?} is not a tensor of its own, read here and nowhere else")))
    }

    fn linear(&mut self, index: usize, weights: &str, bias: &str) -> Result<Linear, ModelError> {
        let (weights_proto, bias_proto) = (self.take(index, weights)?, self.take(index, bias)?);
        let &[inputs, outputs] = weights_proto.dims.as_slice() else {
            let (found, expected) = (weights_proto.dims.clone(), vec![-1, -1]);
            return Err(ModelError::Shape { tensor: weights.to_owned(), found, expected });
        };
        let (inputs, outputs) = (dimension(weights, inputs)?, dimension(weights, outputs)?);
        if bias_proto.dims != [outputs as i64] {
            let (found, expected) = (bias_proto.dims.clone(), vec![outputs as i64]);
            return Err(ModelError::Shape { tensor: bias.to_owned(), found, expected });
        }
        let count = inputs
            .checked_mul(outputs)
            .filter(|count| count.checked_mul(4).is_some())
            .ok_or_else(|| ModelError::SizeOverflow { tensor: weights.to_owned() })?;
        let (weights, bias) = (floats(weights_proto, count)?, floats(bias_proto, outputs)?);
        Ok(Linear { inputs, outputs, weights, bias })
    }

    fn masked_value(&mut self, index: usize, name: &str) -> Result<(), ModelError> {
        let proto = self.take(index, name)?;
        if !proto.dims.is_empty() {
            let (found, expected) = (proto.dims.clone(), Vec::new());
            return Err(ModelError::Shape { tensor: name.to_owned(), found, expected });
        }
        match floats(proto, 1)?.as_slice() {
            [value] if *value == f32::NEG_INFINITY => Ok(()),
            _ => Err(ModelError::MaskedValue { tensor: name.to_owned() }),
        }
    }
}

pub(super) fn dimension(tensor: &str, found: i64) -> Result<usize, ModelError> {
    match usize::try_from(found) {
        Ok(dim) if dim > 0 && dim <= limits::MAX_WIDTH => Ok(dim),
        _ => Err(ModelError::Dimension { tensor: tensor.to_owned(), found }),
    }
}

/// The `count` numbers of a tensor; `4 * count` is known not to overflow.
fn floats(proto: &TensorProto, count: usize) -> Result<Vec<f32>, ModelError> {
    let tensor = proto.name.clone().unwrap_or_default();
    let found = proto.data_type.unwrap_or(0);
    if found != FLOAT {
        return Err(ModelError::DataType { tensor, found });
    }
    let raw = proto.raw_data.as_deref().unwrap_or(&[]);
    let (words, rest) = raw.as_chunks::<4>();
    if words.len() != count || !rest.is_empty() {
        return Err(ModelError::DataLength { tensor, found: raw.len(), expected: count * 4 });
    }
    Ok(words.iter().map(|&word| f32::from_le_bytes(word)).collect())
}

/// Hands out the nodes in order.
struct Nodes<'a> {
    graph: &'a GraphProto,
    next: usize,
}

impl<'a> Nodes<'a> {
    /// Whether the next node is `operator`.
    fn is_next(&self, operator: &str) -> bool {
        self.graph.node.get(self.next).is_some_and(|node| node.op_type.as_deref() == Some(operator))
    }

    /// The next node, which must be `operator` with these inputs, where any will do for an empty name, with these attributes, and
    /// with one output.
    fn take(
        &mut self,
        operator: &str,
        inputs: &[&str],
        settings: &[(&str, Setting)],
    ) -> Result<(usize, &'a NodeProto), ModelError> {
        let index = self.next;
        let node = self.graph.node.get(index).ok_or_else(|| structure(index, format!("{operator} is missing")))?;
        let found = node.op_type.as_deref().unwrap_or("");
        if !OPERATORS.contains(&found) {
            return Err(ModelError::UnknownOperator { node: index, operator: found.to_owned() });
        }
        if found != operator {
            return Err(structure(index, format!("{found} stands where {operator} belongs")));
        }
        if node.input.len() != inputs.len() || node.output.len() != 1 {
            let inputs = inputs.len();
            return Err(structure(index, format!("{operator} takes {inputs} inputs and gives one output")));
        }
        if node.attribute != attributes(settings) {
            return Err(ModelError::Attribute { node: index, reason: format!("expected {settings:?}") });
        }
        for (found, &expected) in node.input.iter().zip(inputs) {
            if !expected.is_empty() && found != expected {
                return Err(structure(index, format!("it reads {found:?}, expected {expected:?}")));
            }
        }
        self.next += 1;
        Ok((index, node))
    }
}

/// The operators of the format.
const OPERATORS: [&str; 7] = ["Gemm", "Relu", "ReduceMean", "Sub", "Add", "Where", "ArgMax"];

fn structure(node: usize, reason: String) -> ModelError {
    ModelError::Structure { node, reason }
}

/// Checks the graph's inputs and outputs against the widths of a state and of the q-values.
pub(super) fn interface(graph: &GraphProto, width: usize, actions: usize) -> Result<(), ModelError> {
    let inputs = [value(values::STATE, FLOAT, &[width]), value(values::ACTION_MASK, BOOL, &[actions])];
    let outputs = [value(values::Q_VALUES, FLOAT, &[actions]), value(values::ACTION, INT64, &[])];
    ports("input", &graph.input, &inputs)?;
    ports("output", &graph.output, &outputs)
}

fn ports(role: &'static str, found: &[ValueInfoProto], expected: &[ValueInfoProto]) -> Result<(), ModelError> {
    for (index, want) in expected.iter().enumerate() {
        let name = want.name.clone().unwrap_or_default();
        let reason = match found.get(index) {
            None => "it is missing".to_owned(),
            Some(port) if port.name != want.name => format!("{:?} stands in its place", port.name),
            Some(port) if port.r#type != want.r#type => "its type or shape does not fit the layers".to_owned(),
            Some(_) => continue,
        };
        return Err(ModelError::Interface { role, name, reason });
    }
    match found.get(expected.len()) {
        None => Ok(()),
        Some(extra) => Err(ModelError::Interface {
            role,
            name: extra.name.clone().unwrap_or_default(),
            reason: "not part of the format".to_owned(),
        }),
    }
}
