//! Graphs for ONNX Runtime: what is refused before any engine sees them.

use bellwether_inference::model::{GENERAL_OPERATORS, check_general};

use super::onnx::{AttributeProto, GraphProto};
use super::*;

/// The sound network as a general graph, after a change, before the check.
fn checked(change: impl FnOnce(&mut GraphProto)) -> Result<(), ModelError> {
    check(&file(change))
}

fn check(bytes: &[u8]) -> Result<(), ModelError> {
    check_general(bytes, &Expectation::new(contract()))
}

fn file(change: impl FnOnce(&mut GraphProto)) -> Vec<u8> {
    let mut model = ModelProto::decode(bytes().as_slice()).unwrap();
    model.metadata_props[0].value = Some("3".to_owned());
    change(model.graph.as_mut().unwrap());
    model.encode_to_vec()
}

fn attribute(change: impl FnOnce(&mut AttributeProto)) -> Result<(), ModelError> {
    let mut attribute = AttributeProto { name: Some("alpha".to_owned()), ..AttributeProto::default() };
    change(&mut attribute);
    checked(|graph| graph.node[1].attribute.push(attribute))
}

#[test]
fn a_sound_one_is_accepted_and_no_swap_takes_it_unasked() {
    let tanh = |graph: &mut GraphProto| graph.node[1].op_type = Some("Tanh".to_owned());
    assert_eq!(checked(tanh), Ok(()));
    refused!(offer(&file(tanh)), General, "feature `ort`");
}

#[test]
fn operators_are_those_of_the_list() {
    assert!(GENERAL_OPERATORS.is_sorted());
    for operator in GENERAL_OPERATORS {
        assert_eq!(checked(|graph| graph.node[1].op_type = Some(operator.to_owned())), Ok(()));
    }
    for operator in
        ["", "If", "Loop", "Scan", "RandomNormal", "Multinomial", "Expand", "Tile", "ConstantOfShape", "Range"]
    {
        refused!(checked(|graph| graph.node[1].op_type = Some(operator.to_owned())), OperatorNotListed, operator);
    }
    refused!(
        checked(|graph| graph.node[1].domain = Some("com.microsoft".to_owned())),
        OperatorNotListed,
        "com.microsoft.Relu"
    );
}

#[test]
fn attributes_hold_finite_numbers_and_no_graph() {
    assert_eq!(attribute(|attribute| attribute.floats = vec![0.5, -1.0]), Ok(()));
    refused!(attribute(|attribute| attribute.f = Some(f32::NAN)), Attribute, "alpha");
    refused!(attribute(|attribute| attribute.floats = vec![0.5, f32::INFINITY]), Attribute, "alpha");
    let nan = TensorProto { data_type: Some(1), raw_data: Some(vec![0xff; 4]), ..TensorProto::default() };
    refused!(attribute(|attribute| attribute.t = Some(nan.clone())), NonFinite, "alpha of node 1");
    // A branch: field 6 of an attribute, within the first node, within the graph.
    let branch = field(5, &[field(1, b"then_branch"), field(6, b"")].concat());
    let node = [field(1, b"state"), field(2, b"out"), field(4, b"If"), branch].concat();
    refused!(check(&[[1 << 3, 8].as_slice(), &field(7, &field(1, &node))].concat()), Subgraph, "loops and branches");
    // An f32 that is cut off.
    let short = field(5, &[field(1, b"alpha"), vec![2 << 3 | 5, 0, 0]].concat());
    refused!(check(&field(7, &field(1, &short))), Malformed, "wire type 5");
}

#[test]
fn tensors_are_bounded_finite_and_read() {
    let first = |change: &dyn Fn(&mut TensorProto)| checked(|graph| change(&mut graph.initializer[0]));
    refused!(first(&|tensor| tensor.data_type = Some(10)), DataType, "type 10");
    refused!(first(&|tensor| tensor.dims = vec![65_537, 4]), Dimension, "65537");
    refused!(first(&|tensor| tensor.dims = vec![0, 4]), Dimension, "0");
    refused!(first(&|tensor| tensor.dims = vec![65_536; 8]), SizeOverflow, "w0");
    refused!(first(&|tensor| tensor.dims = vec![1; 9]), Shape, "w0");
    refused!(first(&|tensor| tensor.dims = vec![65_536, 65_536]), DataLength, "17179869184");
    refused!(first(&|tensor| tensor.raw_data = None), DataLength, "0 bytes");
    let minus = f32::NEG_INFINITY.to_le_bytes();
    refused!(first(&|tensor| tensor.raw_data.as_mut().unwrap()[4..8].copy_from_slice(&minus)), NonFinite, "value 1");
    let spare =
        TensorProto { data_type: Some(9), raw_data: Some(vec![1]), name: Some("spare".to_owned()), dims: Vec::new() };
    refused!(checked(|graph| graph.initializer.push(spare)), UnusedTensor, "spare");
    refused!(checked(|graph| graph.node[0].input[0] = "h1".to_owned()), Cycle, "h1");
    refused!(checked(|graph| graph.node[0].input[0] = "ghost".to_owned()), UndefinedValue, "ghost");
    refused!(checked(|graph| graph.node[1].output[0] = "w0".to_owned()), DuplicateName, "w0");
    // An input that is left out has no name, and is no cycle.
    assert_eq!(checked(|graph| graph.node[1].input.push(String::new())), Ok(()));
}

#[test]
fn the_interface_and_the_contract_are_those_of_the_format() {
    refused!(checked(|graph| graph.output.swap(0, 1)), Interface, "stands in its place");
    refused!(checked(|graph| drop(graph.output.pop())), Interface, "it is missing");
    refused!(checked(|graph| graph.input.push(graph.input[0].clone())), DuplicateName, "state");
    let wide = Expectation::new(Contract { width: 4, ..contract() });
    refused!(check_general(&file(|_| {}), &wide), Interface, "state");
    let other = Expectation::new(Contract { feature_spec: Sha256::of(b"other"), ..contract() });
    refused!(check_general(&file(|_| {}), &other), FeatureSpec, "expected");
    refused!(check(&bytes()), FormatVersion, "\"1\", expected 3");
    let expectation = Expectation { max_bytes: 100, ..Expectation::new(contract()) };
    refused!(check_general(&file(|_| {}), &expectation), TooLarge, "100");
    let mut hidden = file(|_| {});
    hidden.extend([1 << 3, 8]);
    refused!(check(&hidden), RepeatedField, "field 1 of ModelProto");
}
