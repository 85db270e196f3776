//! Graphs for ONNX Runtime: what is refused before any engine sees them.

use bellwether_inference::model::{GENERAL_OPERATORS, check_general};

use super::graphs::{Operand, cases, ints, node, through};
use super::onnx::{AttributeProto, GraphProto};
use super::*;
use std::collections::BTreeSet;

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
    let known: BTreeSet<&str> = cases().iter().map(|case| case.operator).collect();
    assert!(known.into_iter().eq(GENERAL_OPERATORS));
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
fn every_operator_gives_the_shape_that_its_definition_says() {
    for case in cases() {
        let of_size = |size: usize| checked(|graph| through(graph, &case, size));
        assert_eq!(of_size(case.elements()), Ok(()), "{case:?}");
        refused!(of_size(case.elements() + 1), Sizes, "do not fit");
    }
}

/// A node: its operator, what it reads, its attributes.
type Made<'a> = (&'a str, &'a [&'a str], &'a [AttributeProto]);

/// The sound graph with these nodes in front, each of which makes a value of the ones before it.
fn grown(nodes: &[Made<'_>], tensors: &[(&str, Operand)]) -> Result<(), ModelError> {
    checked(|graph| {
        graph.initializer.extend(tensors.iter().map(|(name, operand)| operand.tensor(name)));
        let made = nodes.iter().enumerate();
        let made =
            made.map(|(at, (operator, inputs, attributes))| node(operator, inputs, &format!("v{at}"), attributes));
        graph.node.splice(0..0, made);
    })
}

#[test]
fn no_small_file_makes_large_values() {
    let twice = [ints("axis", None, 1)];
    let names: Vec<String> = (0..40).map(|at| format!("v{at}")).collect();
    let doubling = |count: usize| {
        let operands: Vec<[&str; 2]> =
            (0..count).map(|at| [at.checked_sub(1).map_or("state", |before| names[before].as_str()); 2]).collect();
        let nodes: Vec<Made<'_>> = operands.iter().map(|operands| ("Concat", &operands[..], &twice[..])).collect();
        grown(&nodes, &[])
    };
    // Three values, doubled: 6 + 12 + ... elements together.
    assert_eq!(doubling(19), Ok(()));
    refused!(doubling(20), ValuesTooLarge, "node 19");
    refused!(doubling(40), ValuesTooLarge, "4194304");
    // A column and a row.
    let column = ("column", Operand::Floats(&[65_536, 1]));
    let row = ("row", Operand::Floats(&[1, 65_536]));
    for operator in ["Add", "MatMul", "Gemm", "Max"] {
        let outer: &[Made<'_>] = &[(operator, &["column", "row"], &[])];
        refused!(grown(outer, &[column, row]), ValuesTooLarge, "[65536, 65536]");
    }
    let outer: &[Made<'_>] = &[("Where", &["action_mask", "column", "column"], &[])];
    assert_eq!(grown(outer, &[column]), Ok(()));
    // Many values, each of which is small enough.
    let many: Vec<Made<'_>> = vec![("Relu", &["column"][..], &[][..]); 65];
    refused!(grown(&many, &[column]), ValuesTooLarge, "node 64");
    // One row, taken again and again, and dimensions that double.
    let again = ("again", Operand::Zeros(&[65_536]));
    let taken: &[Made<'_>] = &[("Gather", &["row", "again"], &[]), ("Gather", &["v0", "again"], &[])];
    refused!(grown(taken, &[row, again]), ValuesTooLarge, "[65536, 65536]");
    let deep = ("deep", Operand::Zeros(&[1, 1, 1, 1, 1, 1, 1, 1]));
    refused!(grown(&[("Gather", &["state", "deep"], &[])], &[deep]), Sizes, "9 dimensions");
    // An empty part hides no large one.
    let empty: &[Made<'_>] = &[("Slice", &["column", "none", "none"], &[]), ("MatMul", &["column", "row"], &[])];
    refused!(grown(empty, &[column, row, ("none", Operand::Ints(&[0]))]), ValuesTooLarge, "node 1");
}

#[test]
fn sizes_follow_from_the_file_alone() {
    let cast = [ints("to", None, 7)];
    let computed: &[Made<'_>] = &[("Cast", &["state"], &cast), ("Slice", &["state", "v0", "v0"], &[])];
    refused!(grown(computed, &[]), Sizes, "stand in the file");
    refused!(grown(&[("Cast", &["state"], &[ints("to", None, 8)])], &[]), Sizes, "ONNX type 8");
    refused!(grown(&[("Concat", &["state"], &[])], &[]), Sizes, "missing");
    refused!(grown(&[("Concat", &["state"], &[ints("axis", None, 2)])], &[]), Sizes, "no axis 2");
    refused!(grown(&[("Concat", &["state"], &[ints("axis", None, i64::MIN)])], &[]), Sizes, "no axis");
    let doubled = [ints("axis", None, 1), ints("axis", None, 0)];
    refused!(grown(&[("Concat", &["state"], &doubled)], &[]), Sizes, "twice");
    refused!(grown(&[("Relu", &[], &[])], &[]), Sizes, "operand 0 is missing");
    refused!(grown(&[("Transpose", &["state"], &[ints("perm", Some(&[0, 0]), 0)])], &[]), Sizes, "no order");
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
