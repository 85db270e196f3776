//! Everything that can be wrong with a model.

use bellwether_artifact::Sha256;
use thiserror::Error;

/// Why a network or a model file was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file is larger than the caller allows; nothing of it was read.
    #[error("the model has {bytes} bytes, more than the limit of {limit}: raise the limit if you trust its origin")]
    TooLarge {
        /// Size of the file.
        bytes: usize,
        /// The caller's limit.
        limit: usize,
    },
    /// The bytes are not protobuf, or end in the middle of a field.
    #[error("byte {offset}: {reason}: the file is truncated or no ONNX model; copy or export it again")]
    Malformed {
        /// Position of the violation in the file.
        offset: usize,
        /// What was found.
        reason: String,
    },
    /// More protobuf fields than any permitted graph has.
    #[error("byte {offset}: more than {limit} fields, which no permitted graph has")]
    TooManyFields {
        /// Position of the first field past the limit.
        offset: usize,
        /// The limit.
        limit: usize,
    },
    /// A field that the format does not use.
    #[error("byte {offset}: field {field} of {message} is not part of the format")]
    UnknownField {
        /// Position of the field in the file.
        offset: usize,
        /// ONNX message that holds it.
        message: &'static str,
        /// Field number.
        field: u32,
    },
    /// A field that may stand once stands again.
    #[error("byte {offset}: field {field} of {message} stands twice")]
    RepeatedField {
        /// Position of the second one.
        offset: usize,
        /// ONNX message that holds it.
        message: &'static str,
        /// Field number.
        field: u32,
    },
    /// A tensor refers to data outside the file.
    #[error("byte {offset}: a tensor keeps its data outside the file; export the model with its data inside")]
    ExternalData {
        /// Position in the file.
        offset: usize,
    },
    /// The model defines functions of its own.
    #[error("byte {offset}: the model defines functions, which are never permitted")]
    Functions {
        /// Position in the file.
        offset: usize,
    },
    /// A node holds a graph of its own.
    #[error("byte {offset}: an attribute holds a graph; loops and branches are never permitted")]
    Subgraph {
        /// Position in the file.
        offset: usize,
    },
    /// The graph has sparse weights.
    #[error("byte {offset}: the graph has sparse weights; export them dense")]
    SparseInitializer {
        /// Position in the file.
        offset: usize,
    },
    /// The same content can be written in fewer or other bytes: something is hidden or was written by an unknown tool.
    #[error("byte {offset}: not in canonical form: fields out of order, or a number longer than needed")]
    NotCanonical {
        /// First byte that differs from the canonical form.
        offset: usize,
    },
    /// A text is longer than the limit.
    #[error("byte {offset}: a text of {bytes} bytes in {message}, more than {limit}")]
    TextTooLong {
        /// Position in the file.
        offset: usize,
        /// ONNX message that holds it.
        message: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Another version of the ONNX container.
    #[error("ONNX IR version {found}, expected 8")]
    IrVersion {
        /// What the file says; 0 when it says nothing.
        found: i64,
    },
    /// Another operator set, more than one, or one of another domain.
    #[error("operator sets {found}, expected ai.onnx 17 alone")]
    Opset {
        /// What the file says.
        found: String,
    },
    /// A part that every model has is missing.
    #[error("{what} is missing")]
    Missing {
        /// The part.
        what: String,
    },
    /// A metadata entry is unknown, stands twice or cannot be read.
    #[error("metadata {key:?}: {reason}")]
    Metadata {
        /// Key of the entry.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The version of the model format is none that this program reads, or not that of the file's graph.
    #[error("model format {found:?}, expected {expected}: use a program of the same age")]
    FormatVersion {
        /// What the file says.
        found: String,
        /// What this program reads.
        expected: String,
    },
    /// The file holds a graph that the native engine does not evaluate, and says so by its format.
    #[error(
        "model format \"3\" is a graph for ONNX Runtime: use a program built with the feature `ort`, and let it load such models"
    )]
    General,
    /// The model was trained on states of another specification.
    #[error("the model wants states of feature specification {found}, expected {expected}: train it on this one")]
    FeatureSpec {
        /// Hash in the file.
        found: Sha256,
        /// Hash that the caller expects.
        expected: Sha256,
    },
    /// The model chooses among other actions, or the same in another order.
    #[error("the model's actions are {found}, expected {expected}")]
    ActionSet {
        /// Version and names in the file.
        found: String,
        /// Version and names that the caller expects.
        expected: String,
    },
    /// The model wants states of another width.
    #[error("the model wants states of {found} values, expected {expected}")]
    Width {
        /// Width in the file.
        found: usize,
        /// Width that the caller expects.
        expected: usize,
    },
    /// The model has another number of outputs than its contract has actions.
    #[error("the model has {found} outputs for {expected} actions")]
    Outputs {
        /// Number of outputs.
        found: usize,
        /// Number of actions.
        expected: usize,
    },
    /// No layer, or too many.
    #[error("{found} layers, expected 1 to 16")]
    Layers {
        /// Number of layers.
        found: usize,
    },
    /// Two things of the graph carry one name.
    #[error("the name {name:?} stands for two things")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A node reads what it or a later node produces.
    #[error("node {node} reads {value:?} before it exists: the graph has a cycle or is out of order")]
    Cycle {
        /// Position of the node in the graph.
        node: usize,
        /// Name of the value.
        value: String,
    },
    /// A node reads what nothing produces.
    #[error("node {node} reads {value:?}, which nothing produces")]
    UndefinedValue {
        /// Position of the node in the graph.
        node: usize,
        /// Name of the value.
        value: String,
    },
    /// An operator that the format does not use.
    #[error(
        "node {node} is {operator:?}; only Gemm, Relu, ReduceMean, Sub, Add, Where and ArgMax of ai.onnx are permitted"
    )]
    UnknownOperator {
        /// Position of the node in the graph.
        node: usize,
        /// Name of the operator.
        operator: String,
    },
    /// An operator of a general graph that is of another domain, or not on the list.
    #[error(
        "node {node} is {operator:?}, which is not on the list for graphs of ONNX Runtime, see docs/formats/model.md"
    )]
    OperatorNotListed {
        /// Position of the node in the graph.
        node: usize,
        /// Name of the operator, with its domain where it is not ai.onnx.
        operator: String,
    },
    /// An operator stands where another belongs, or is wired otherwise.
    #[error("node {node} does not fit the permitted graph: {reason}")]
    Structure {
        /// Position of the node in the graph; the number of nodes when the graph ends too early.
        node: usize,
        /// What was expected.
        reason: String,
    },
    /// An operator has an attribute that the format does not use, or lacks one.
    #[error("node {node}: its attributes are not those of the permitted graph: {reason}")]
    Attribute {
        /// Position of the node in the graph.
        node: usize,
        /// What was expected.
        reason: String,
    },
    /// How large a value of a general graph is does not follow from the file, or an operator's operands do not fit.
    #[error("node {node}: {reason}: export the graph with fixed shapes")]
    Sizes {
        /// Position of the node in the graph.
        node: usize,
        /// What is wrong.
        reason: String,
    },
    /// The values of a general graph would take more memory than is given to them.
    #[error(
        "node {node} makes a value of shape {shape:?}, and with it more than the {limit} elements that the values of a graph may have together: use a smaller graph"
    )]
    ValuesTooLarge {
        /// Position of the node in the graph.
        node: usize,
        /// Shape of its value, for one state.
        shape: Vec<usize>,
        /// The limit.
        limit: usize,
    },
    /// An input or output of the graph is not as the format says.
    #[error("graph {role} {name:?}: {reason}")]
    Interface {
        /// `input` or `output`.
        role: &'static str,
        /// Its name.
        name: String,
        /// What was expected.
        reason: String,
    },
    /// A tensor of another type than f32; in a general graph, than f32, i32, i64 and bool.
    #[error("tensor {tensor:?} has ONNX type {found}; only f32 (1) is permitted, in a general graph also 6, 7 and 9")]
    DataType {
        /// Name of the tensor.
        tensor: String,
        /// ONNX number of the type.
        found: i32,
    },
    /// A dimension is zero, negative or past the limit.
    #[error("tensor {tensor:?} has a dimension of {found}, expected 1 to 65536")]
    Dimension {
        /// Name of the tensor.
        tensor: String,
        /// The dimension.
        found: i64,
    },
    /// The shape of a tensor does not fit its place in the graph.
    #[error("tensor {tensor:?} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Name of the tensor.
        tensor: String,
        /// Its shape.
        found: Vec<i64>,
        /// The shape that fits.
        expected: Vec<i64>,
    },
    /// The size of a tensor does not fit into a machine word.
    #[error("tensor {tensor:?}: its size overflows")]
    SizeOverflow {
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor has more or fewer bytes than its shape says.
    #[error("tensor {tensor:?} has {found} bytes of data, its shape wants {expected}")]
    DataLength {
        /// Name of the tensor.
        tensor: String,
        /// Bytes in the file.
        found: usize,
        /// Bytes that the shape wants.
        expected: usize,
    },
    /// A weight or bias is infinite or not a number.
    #[error("tensor {tensor:?}: value {index} is not finite: the training diverged, or the file is damaged")]
    NonFinite {
        /// Name of the tensor.
        tensor: String,
        /// Position in the tensor.
        index: usize,
    },
    /// The constant that stands in for masked actions is not minus infinity.
    #[error("tensor {tensor:?}: a masked action must count as minus infinity")]
    MaskedValue {
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor that no node reads.
    #[error("tensor {tensor:?} is used by nothing")]
    UnusedTensor {
        /// Name of the tensor.
        tensor: String,
    },
}
