//! What surrounds the graph: size, fields, spelling, versions.

use bellwether_inference::model::{limits, read};

use super::onnx::OperatorSetIdProto;
use super::*;

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
