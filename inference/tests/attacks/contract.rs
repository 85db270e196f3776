//! What the file says that it is for, and the inputs and outputs that must bear it out.

use super::onnx::{DimensionProto, GraphProto};
use super::*;

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
fn inputs_and_outputs_are_those_of_the_format() {
    let graph = |change: &dyn Fn(&mut GraphProto)| changed(|model| change(model.graph.as_mut().unwrap()));
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
