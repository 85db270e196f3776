//! The operators and how they are wired.

use bellwether_inference::model::{limits, read};

use super::onnx::AttributeProto;
use super::*;

#[test]
fn the_unchanged_model_is_accepted() {
    assert_eq!(changed(|_| {}), Ok(mlp()));
    assert_eq!(changed(|model| model.graph.as_mut().unwrap().initializer.reverse()), Ok(mlp()));
    assert_eq!(changed(|model| model.metadata_props.reverse()), Ok(mlp()));
    assert_eq!(changed(|model| model.producer_name = Some("another tool".to_owned())), Ok(mlp()));
    assert_eq!(changed(|model| model.opset_import[0].domain = Some(String::new())), Ok(mlp()));
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
