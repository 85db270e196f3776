//! Hostile and damaged model files, each refused with its own error.

use bellwether_artifact::Sha256;
use proptest::prelude::*;
use prost::Message;

use super::onnx::{AttributeProto, DimensionProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto};
use super::{Contract, Expectation, Linear, Mlp, ModelError, encode, fuzz, limits, load, read};

fn contract() -> Contract {
    let actions = ["left", "right"].map(str::to_owned).to_vec();
    Contract { width: 3, feature_spec: Sha256::of(b"spec"), action_set: 7, actions }
}

fn mlp() -> Mlp {
    let linear = |inputs: usize, outputs: usize| Linear {
        inputs,
        outputs,
        weights: (0..inputs * outputs).map(|index| index as f32 / 8.0 - 1.0).collect(),
        bias: (0..outputs).map(|index| index as f32).collect(),
    };
    Mlp::plain(vec![linear(3, 4), linear(4, 5), linear(5, 2)])
}

fn bytes() -> Vec<u8> {
    encode(&mlp(), &contract()).unwrap()
}

/// Loads a good model after `change` was applied to its messages.
fn changed(change: impl FnOnce(&mut ModelProto)) -> Result<Mlp, ModelError> {
    let mut model = ModelProto::decode(bytes().as_slice()).unwrap();
    change(&mut model);
    load(&model.encode_to_vec(), &Expectation::new(contract()))
}

fn tensor(model: &mut ModelProto, index: usize) -> &mut TensorProto {
    &mut model.graph.as_mut().unwrap().initializer[index]
}

fn node(model: &mut ModelProto, index: usize) -> &mut NodeProto {
    &mut model.graph.as_mut().unwrap().node[index]
}

/// `payload` as field `number` of wire type 2.
fn field(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(number << 3 | 2, &mut out);
    prost::encoding::encode_varint(payload.len() as u64, &mut out);
    out.extend_from_slice(payload);
    out
}

/// Loads a model whose first tensor (`in_tensor`), graph or outermost message has `extra` behind it.
fn appended(to: &str, extra: &[u8]) -> Result<Mlp, ModelError> {
    let mut model = ModelProto::decode(bytes().as_slice()).unwrap();
    let mut graph = model.graph.take().unwrap();
    let mut tail = Vec::new();
    match to {
        "model" => tail.extend(field(7, &graph.encode_to_vec())),
        "graph" => tail.extend(field(7, &[&graph.encode_to_vec(), extra].concat())),
        _ => {
            let tensor = graph.initializer.remove(0);
            let tensor = field(5, &[&tensor.encode_to_vec(), extra].concat());
            tail.extend(field(7, &[graph.encode_to_vec(), tensor].concat()));
        }
    }
    let outer = if to == "model" { extra } else { &[] };
    load(&[&model.encode_to_vec(), tail.as_slice(), outer].concat(), &Expectation::new(contract()))
}

/// Checks that the result is a refusal of this variant with this text.
macro_rules! refused {
    ($result:expr, $variant:ident, $text:expr) => {{
        let error = $result.expect_err("the model must be refused");
        assert!(matches!(error, ModelError::$variant { .. }), "{error:?}");
        assert!(error.to_string().contains($text), "{error}");
    }};
}

#[test]
fn the_unchanged_model_is_accepted() {
    assert_eq!(changed(|_| {}), Ok(mlp()));
    assert_eq!(changed(|model| model.graph.as_mut().unwrap().initializer.reverse()), Ok(mlp()));
    assert_eq!(changed(|model| model.metadata_props.reverse()), Ok(mlp()));
    assert_eq!(changed(|model| model.producer_name = Some("another tool".to_owned())), Ok(mlp()));
    assert_eq!(changed(|model| model.opset_import[0].domain = Some(String::new())), Ok(mlp()));
}

#[test]
fn truncation_is_refused_at_every_byte() {
    let bytes = bytes();
    for length in 0..bytes.len() {
        assert!(load(&bytes[..length], &Expectation::new(contract())).is_err(), "{length}");
    }
    refused!(load(&bytes[..bytes.len() - 1], &Expectation::new(contract())), Malformed, "left");
}

#[test]
fn a_file_past_the_limit_is_not_even_parsed() {
    let expectation = Expectation { contract: contract(), max_bytes: 100 };
    refused!(load(&[0xff; 101], &expectation), TooLarge, "101 bytes");
}

#[test]
fn many_tiny_fields_are_refused_before_they_are_allocated() {
    let mut model = Vec::new();
    for _ in 0..=limits::MAX_FIELDS {
        model.extend(field(8, &[]));
    }
    refused!(read(&model, usize::MAX), TooManyFields, "2048");
}

#[test]
fn what_the_format_does_not_use_is_refused_by_name() {
    // external_data and data_location of a tensor.
    refused!(appended("tensor", &field(13, b"")), ExternalData, "outside the file");
    refused!(appended("tensor", &[14 << 3, 1]), ExternalData, "outside the file");
    refused!(appended("model", &field(25, b"")), Functions, "functions");
    refused!(appended("graph", &field(15, b"")), SparseInitializer, "sparse");
    // doc_string, training_info, quantization_annotation, float_data, and a number nobody uses.
    refused!(appended("model", &field(6, b"hello")), UnknownField, "field 6 of ModelProto");
    refused!(appended("model", &field(20, b"")), UnknownField, "field 20 of ModelProto");
    refused!(appended("graph", &field(14, b"")), UnknownField, "field 14 of GraphProto");
    refused!(appended("tensor", &field(4, b"")), UnknownField, "field 4 of TensorProto");
    refused!(appended("model", &field(4_000_000, b"")), UnknownField, "field 4000000");
}

#[test]
fn nothing_can_hide_in_the_encoding() {
    // A second ir_version, a second graph, a version in two bytes, fields out of order.
    refused!(appended("model", &[1 << 3, 8]), RepeatedField, "field 1 of ModelProto");
    refused!(appended("model", &field(7, b"")), RepeatedField, "field 7 of ModelProto");
    let mut long = bytes();
    assert_eq!(long[..2], [1 << 3, 8]);
    long.splice(1..2, [0x88, 0]);
    refused!(read(&long, usize::MAX), NotCanonical, "byte 1");
    let mut turned = bytes()[2..].to_vec();
    turned.extend([1 << 3, 8]);
    refused!(read(&turned, usize::MAX), NotCanonical, "byte 0");
    refused!(read(&[1 << 3 | 5, 0, 0, 0, 0], usize::MAX), Malformed, "wire type 5");
    refused!(read(&[0x80; 11], usize::MAX), Malformed, "past 64 bits");
    refused!(read(&[1 << 3, 0xff], usize::MAX), Malformed, "cut off");
    refused!(read(&[2 << 3 | 2, 1, 0xff], usize::MAX), Malformed, "UTF-8");
    refused!(read(&field(2, &[b'x'; 5_000]), usize::MAX), TextTooLong, "5000 bytes");
}

#[test]
fn another_container_is_refused() {
    refused!(changed(|model| model.ir_version = Some(9)), IrVersion, "9");
    refused!(changed(|model| model.ir_version = None), IrVersion, "0");
    refused!(changed(|model| model.opset_import[0].version = Some(18)), Opset, "18");
    refused!(changed(|model| model.opset_import.clear()), Opset, "[]");
    refused!(changed(|model| model.opset_import[0].domain = Some("com.example".to_owned())), Opset, "com.example");
    let other = OperatorSetIdProto { domain: Some("com.example".to_owned()), version: Some(1) };
    refused!(changed(|model| model.opset_import.push(other)), Opset, "com.example");
    refused!(changed(|model| model.graph = None), Missing, "graph");
    refused!(read(&[], usize::MAX), IrVersion, "0");
}

#[test]
fn another_contract_is_refused() {
    let entry = |index: usize, value: &str| changed(|model| model.metadata_props[index].value = Some(value.to_owned()));
    refused!(entry(0, "4"), FormatVersion, "\"4\"");
    refused!(entry(1, &"cd".repeat(32)), FeatureSpec, "cdcd");
    refused!(entry(1, "cd"), Metadata, "SHA-256");
    refused!(entry(1, &"CD".repeat(32)), Metadata, "SHA-256");
    refused!(entry(2, "8"), ActionSet, "set 8");
    refused!(entry(2, "+7"), Metadata, "version number");
    refused!(entry(3, "right,left"), ActionSet, "right,left");
    refused!(entry(3, "left,left"), Metadata, "doubled");
    refused!(entry(3, "left,right,up"), Outputs, "2 outputs for 3 actions");
    refused!(changed(|model| drop(model.metadata_props.remove(1))), Missing, "feature_spec");
    refused!(changed(|model| model.metadata_props[1].key = Some("note".to_owned())), Metadata, "note");
    refused!(changed(|model| model.metadata_props.push(model.metadata_props[1].clone())), Metadata, "twice");
    let wide = Expectation::new(Contract { width: 4, ..contract() });
    refused!(load(&bytes(), &wide), Width, "3 values, expected 4");
}

#[test]
fn another_graph_is_refused() {
    refused!(changed(|model| node(model, 1).op_type = Some("Sigmoid".to_owned())), UnknownOperator, "Sigmoid");
    refused!(changed(|model| node(model, 1).op_type = None), UnknownOperator, "\"\"");
    refused!(changed(|model| node(model, 1).op_type = Some("ArgMax".to_owned())), Structure, "Relu belongs");
    refused!(changed(|model| node(model, 0).input[0] = "h1".to_owned()), Cycle, "h1");
    refused!(changed(|model| node(model, 0).input[0] = "z0".to_owned()), Cycle, "z0");
    refused!(changed(|model| model.graph.as_mut().unwrap().node.swap(0, 1)), Cycle, "z0");
    refused!(changed(|model| node(model, 0).input[0] = "ghost".to_owned()), UndefinedValue, "ghost");
    refused!(changed(|model| node(model, 2).input[0] = "z0".to_owned()), Structure, "expected \"h0\"");
    refused!(changed(|model| drop(node(model, 0).input.pop())), Structure, "3 inputs");
    refused!(changed(|model| node(model, 0).output.push("more".to_owned())), Structure, "one output");
    refused!(changed(|model| drop(model.graph.as_mut().unwrap().node.pop())), Structure, "ArgMax is missing");
    refused!(changed(|model| model.graph.as_mut().unwrap().node.clear()), Structure, "Gemm is missing");
    refused!(changed(|model| node(model, 6).output[0] = "other".to_owned()), Structure, "other");
    let relu = NodeProto { op_type: Some("Relu".to_owned()), ..NodeProto::default() };
    refused!(changed(|model| model.graph.as_mut().unwrap().node.push(relu)), Structure, "after the end");
    let alpha =
        AttributeProto { name: Some("transB".to_owned()), i: Some(1), r#type: Some(2), ..AttributeProto::default() };
    refused!(changed(|model| node(model, 0).attribute.push(alpha)), Attribute, "node 0");
    refused!(changed(|model| node(model, 6).attribute[2].i = Some(1)), Attribute, "select_last_index");
    refused!(changed(|model| node(model, 6).attribute.clear()), Attribute, "axis");
}

fn dueling() -> Mlp {
    let Mlp { mut layers, .. } = mlp();
    let value = Linear { inputs: 5, outputs: 1, weights: vec![0.5; 5], bias: vec![-0.25] };
    layers.truncate(3);
    Mlp::dueling(layers, value)
}

/// Loads a good model with a dueling head after `change` was applied to its messages.
fn changed_dueling(change: impl FnOnce(&mut ModelProto)) -> Result<Mlp, ModelError> {
    let bytes = encode(&dueling(), &contract()).unwrap();
    let mut model = ModelProto::decode(bytes.as_slice()).unwrap();
    change(&mut model);
    load(&model.encode_to_vec(), &Expectation::new(contract()))
}

#[test]
fn another_dueling_head_is_refused() {
    assert_eq!(changed_dueling(|_| {}), Ok(dueling()));
    // Gemm, Relu, Gemm, Relu, then 4: advantages, 5: value, 6: ReduceMean, 7: Sub, 8: Add.
    let rename = |index: usize, operator: &'static str| {
        changed_dueling(move |model| node(model, index).op_type = Some(operator.to_owned()))
    };
    refused!(rename(6, "ReduceMax"), UnknownOperator, "ReduceMax");
    refused!(rename(6, "Relu"), Structure, "ReduceMean belongs");
    refused!(rename(7, "Add"), Structure, "Sub belongs");
    refused!(rename(8, "Sub"), Structure, "Add belongs");
    refused!(changed_dueling(|model| node(model, 6).attribute[0].ints = vec![0]), Attribute, "node 6");
    refused!(changed_dueling(|model| node(model, 6).attribute[0].ints.clear()), Attribute, "node 6");
    refused!(changed_dueling(|model| node(model, 6).attribute[1].i = Some(0)), Attribute, "keepdims");
    refused!(changed_dueling(|model| drop(node(model, 6).attribute.pop())), Attribute, "keepdims");
    refused!(changed_dueling(|model| node(model, 7).input.reverse()), Structure, "it reads");
    refused!(changed_dueling(|model| node(model, 8).input.reverse()), Structure, "it reads");
    refused!(changed_dueling(|model| node(model, 5).input[0] = "h0".to_owned()), Structure, "expected \"h1\"");
    refused!(changed_dueling(|model| node(model, 5).input[2] = "b2".to_owned()), Structure, "nowhere else");
    let other = |model: &mut ModelProto| {
        node(model, 8).output[0] = "other".to_owned();
        node(model, 9).input[1] = "other".to_owned();
    };
    refused!(changed_dueling(other), Structure, "q_values");
    // A value for each action would be a plain head in disguise.
    let wide = |model: &mut ModelProto| {
        tensor(model, 6).dims = vec![5, 2];
        tensor(model, 6).raw_data = Some(vec![0; 40]);
        tensor(model, 7).dims = vec![2];
        tensor(model, 7).raw_data = Some(vec![0; 8]);
    };
    refused!(changed_dueling(wide), Shape, "b_value");
    let poison = |model: &mut ModelProto| tensor(model, 6).raw_data.as_mut().unwrap()[3] = 0x7f;
    refused!(
        changed_dueling(|model| {
            poison(model);
            tensor(model, 6).raw_data.as_mut().unwrap()[2] = 0xc0
        }),
        NonFinite,
        "w_value"
    );
    // Each format has one graph.
    let format =
        |version: &'static str| move |model: &mut ModelProto| model.metadata_props[0].value = Some(version.to_owned());
    refused!(changed_dueling(format("1")), FormatVersion, "\"1\", expected 2");
    refused!(changed(format("2")), FormatVersion, "\"2\", expected 1");
    refused!(changed_dueling(format("4")), FormatVersion, "\"4\", expected 1 or 2");
}

#[test]
fn names_are_unique_and_not_empty() {
    refused!(changed(|model| tensor(model, 1).name = Some("w0".to_owned())), DuplicateName, "w0");
    refused!(changed(|model| tensor(model, 1).name = Some("state".to_owned())), DuplicateName, "state");
    refused!(changed(|model| node(model, 1).output[0] = "z0".to_owned()), DuplicateName, "z0");
    refused!(changed(|model| node(model, 1).output[0] = "w2".to_owned()), DuplicateName, "w2");
    refused!(changed(|model| tensor(model, 1).name = None), Missing, "name of a value");
    refused!(changed(|model| node(model, 1).output[0] = String::new()), Missing, "name of a value");
}

#[test]
fn every_tensor_is_read_exactly_once() {
    refused!(changed(|model| node(model, 4).input[2] = "b1".to_owned()), Structure, "read here and nowhere else");
    let spare = TensorProto { name: Some("spare".to_owned()), ..TensorProto::default() };
    refused!(changed(|model| model.graph.as_mut().unwrap().initializer.push(spare)), UnusedTensor, "spare");
}

#[test]
fn inputs_and_outputs_are_those_of_the_format() {
    let graph = |change: &dyn Fn(&mut super::onnx::GraphProto)| changed(|model| change(model.graph.as_mut().unwrap()));
    refused!(graph(&|graph| graph.output.swap(0, 1)), Interface, "stands in its place");
    refused!(graph(&|graph| drop(graph.output.pop())), Interface, "it is missing");
    refused!(graph(&|graph| graph.output.push(graph.output[0].clone())), Interface, "not part of the format");
    refused!(graph(&|graph| graph.output[0].r#type = None), Interface, "type or shape");
    let dims = |change: &dyn Fn(&mut Vec<DimensionProto>)| {
        graph(&|graph| {
            let tensor = graph.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
            change(&mut tensor.shape.as_mut().unwrap().dim);
        })
    };
    refused!(dims(&|dims| dims[1].dim_value = Some(4)), Interface, "state");
    refused!(dims(&|dims| dims[0].dim_param = Some("N".to_owned())), Interface, "state");
    refused!(dims(&|dims| drop(dims.pop())), Interface, "state");
}

#[test]
fn sizes_are_checked_before_they_are_used() {
    let dims = |index: usize, dims: &[i64]| changed(|model| tensor(model, index).dims = dims.to_vec());
    refused!(dims(0, &[1 << 40, 4]), Dimension, "1099511627776");
    refused!(dims(0, &[i64::MAX, i64::MAX]), Dimension, "9223372036854775807");
    refused!(dims(0, &[-3, 4]), Dimension, "-3");
    refused!(dims(0, &[0, 4]), Dimension, "0");
    refused!(dims(0, &[65_536, 4]), DataLength, "48 bytes");
    refused!(dims(0, &[65_536, 65_536]), Shape, "b0");
    refused!(dims(0, &[12]), Shape, "w0");
    refused!(dims(0, &[3, 4, 1]), Shape, "w0");
    refused!(dims(1, &[1, 4]), Shape, "b0");
    refused!(dims(6, &[1]), Shape, "masked_value");
    refused!(changed(|model| tensor(model, 0).raw_data.as_mut().unwrap().truncate(47)), DataLength, "47 bytes");
    refused!(changed(|model| tensor(model, 0).raw_data = None), DataLength, "0 bytes");
    // The second layer takes 5 inputs where the first gives 4.
    let wider = |model: &mut ModelProto| {
        tensor(model, 2).dims = vec![5, 4];
        tensor(model, 3).dims = vec![4];
        tensor(model, 3).raw_data.as_mut().unwrap().truncate(16);
    };
    refused!(changed(wider), Shape, "w1");
}

#[test]
fn values_are_finite_f32() {
    refused!(changed(|model| tensor(model, 0).data_type = Some(11)), DataType, "type 11");
    refused!(changed(|model| tensor(model, 0).data_type = None), DataType, "type 0");
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let write = |model: &mut ModelProto, index: usize| {
            tensor(model, index).raw_data.as_mut().unwrap()[4..8].copy_from_slice(&poison.to_le_bytes());
        };
        refused!(changed(|model| write(model, 0)), NonFinite, "\"w0\": value 1");
        refused!(changed(|model| write(model, 3)), NonFinite, "\"b1\": value 1");
    }
    let masked = |value: f32| changed(|model| tensor(model, 6).raw_data = Some(value.to_le_bytes().to_vec()));
    refused!(masked(f32::MIN), MaskedValue, "minus infinity");
    refused!(masked(f32::NAN), MaskedValue, "minus infinity");
}

#[test]
fn a_tower_of_layers_is_refused() {
    let one = Linear { inputs: 1, outputs: 1, weights: vec![1.0], bias: vec![0.0] };
    let contract = Contract { width: 1, actions: vec!["only".to_owned()], ..contract() };
    let tall = |layers: usize| encode(&Mlp::plain(vec![one.clone(); layers]), &contract);
    assert!(read(&tall(limits::MAX_LAYERS).unwrap(), usize::MAX).is_ok());
    assert_eq!(tall(limits::MAX_LAYERS + 1), Err(ModelError::Layers { found: 17 }));
    // The same tower, stretched by hand.
    let mut model = ModelProto::decode(tall(limits::MAX_LAYERS).unwrap().as_slice()).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let (mut gemm, mut relu) = (graph.node[0].clone(), graph.node[1].clone());
    (gemm.input, gemm.output) = (["state", "w", "b"].map(str::to_owned).to_vec(), vec!["z".to_owned()]);
    (relu.input, relu.output) = (vec!["z".to_owned()], vec!["h".to_owned()]);
    graph.node[0].input[0] = "h".to_owned();
    graph.node.splice(0..0, [gemm, relu]);
    for (source, name) in [(0, "w"), (1, "b")] {
        let copy = TensorProto { name: Some(name.to_owned()), ..graph.initializer[source].clone() };
        graph.initializer.push(copy);
    }
    refused!(read(&model.encode_to_vec(), usize::MAX), Layers, "17 layers");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        fuzz::loader(&bytes);
    }

    #[test]
    fn damage_never_panics(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = if flips.len() > 1 { bytes() } else { encode(&dueling(), &contract()).unwrap() };
        for (index, value) in &flips {
            let at = index.index(bytes.len());
            bytes[at] ^= value;
        }
        fuzz::loader(&bytes);
    }

    #[test]
    fn cuts_and_repeats_never_panic(cut: prop::sample::Index, length in 0_usize..80, to: prop::sample::Index) {
        let mut bytes = bytes();
        let from = cut.index(bytes.len());
        let piece: Vec<u8> = bytes.drain(from..(from + length).min(bytes.len())).collect();
        fuzz::loader(&bytes);
        let to = to.index(bytes.len());
        bytes.splice(to..to, piece);
        fuzz::loader(&bytes);
    }
}
