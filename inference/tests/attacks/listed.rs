//! The attacks that model servers are known to have met, one test each.

use bellwether_artifact::release::{Companions, ONNX_FILE, publish};
use bellwether_artifact::{ArtifactError, durable};
use bellwether_inference::load_release;

use super::*;

#[test]
fn truncated() {
    let bytes = bytes();
    for length in 0..bytes.len() {
        assert!(offer(&bytes[..length]).is_err(), "{length}");
    }
    refused!(offer(&bytes[..bytes.len() - 1]), Malformed, "left");
}

#[test]
fn wrong_hash() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("release");
    let (manifest, onnx) = sealed(&mlp(), &contract(), |_| {});
    publish(&folder, &manifest, &onnx, Companions::default()).unwrap();
    let mut other = onnx;
    *other.last_mut().unwrap() ^= 1;
    durable::write_bytes(folder.join(ONNX_FILE), &other).unwrap();
    let error = load_release(&folder, &Expectation::new(contract()), Isa::best()).unwrap_err();
    assert!(matches!(error, ReleaseError::Artifact(ArtifactError::HashMismatch { .. })), "{error}");
}

#[test]
fn external_data() {
    // As ONNX writes it: key and value of an entry of external_data, and data_location EXTERNAL.
    let location = [field(1, b"location"), field(2, b"../../../etc/passwd")].concat();
    refused!(appended("tensor", &field(13, &location)), ExternalData, "outside the file");
    refused!(appended("tensor", &[14 << 3, 1]), ExternalData, "outside the file");
}

#[test]
fn huge_dimensions() {
    let huge = |dims: &[i64]| changed(|model| tensor(model, 0).dims = dims.to_vec());
    refused!(huge(&[1 << 40, 4]), Dimension, "1099511627776");
    refused!(huge(&[3, i64::MAX]), Dimension, "9223372036854775807");
    refused!(huge(&[3, -4]), Dimension, "-4");
}

#[test]
fn integer_overflow_in_sizes() {
    // 2^32 times 2^32 elements: zero in 64 bits, as long as the data that is there.
    let both = |model: &mut ModelProto| {
        tensor(model, 0).dims = vec![1 << 32, 1 << 32];
        tensor(model, 0).raw_data = Some(Vec::new());
    };
    refused!(changed(both), Dimension, "4294967296");
    // Within the limit of a dimension it takes more of them than a layer has.
    refused!(changed(|model| tensor(model, 0).dims = vec![65_536; 4]), Shape, "w0");
    refused!(changed(|model| tensor(model, 0).dims = vec![65_536, 4]), DataLength, "48 bytes");
    // A length that runs past the end of the address space.
    let mut length = vec![7 << 3 | 2];
    prost::encoding::encode_varint(u64::MAX, &mut length);
    refused!(offer(&length), Malformed, "18446744073709551615 bytes are announced");
}

#[test]
fn cyclic_graph() {
    refused!(changed(|model| node(model, 0).input[0] = "h1".to_owned()), Cycle, "h1");
    refused!(changed(|model| node(model, 2).input[0] = "z1".to_owned()), Cycle, "z1");
}

#[test]
fn unknown_operator() {
    refused!(changed(|model| node(model, 1).op_type = Some("Loop".to_owned())), UnknownOperator, "Loop");
    // Its domain is not part of the native formats at all.
    refused!(
        changed(|model| node(model, 1).domain = Some("com.example".to_owned())),
        UnknownField,
        "field 7 of NodeProto"
    );
}

#[test]
fn weights_that_are_no_numbers() {
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let poisoned = |model: &mut ModelProto| {
            tensor(model, 4).raw_data.as_mut().unwrap()[..4].copy_from_slice(&poison.to_le_bytes())
        };
        refused!(changed(poisoned), NonFinite, "\"w2\": value 0");
    }
}

#[test]
fn wrong_specification() {
    let other = Sha256::of(b"another specification").to_string();
    refused!(changed(|model| model.metadata_props[1].value = Some(other.clone())), FeatureSpec, &other);
}

#[test]
fn swapped_actions() {
    let swapped = |model: &mut ModelProto| model.metadata_props[3].value = Some("right,left".to_owned());
    refused!(changed(swapped), ActionSet, "right,left");
}

#[test]
fn raw_data_that_unpacks_to_more_than_there_is() {
    // Nothing of the format is compressed: what a shape promises must lie in the file, byte for byte.
    let promised = |model: &mut ModelProto| {
        tensor(model, 0).dims = vec![65_536, 65_536];
        tensor(model, 1).dims = vec![65_536];
    };
    refused!(changed(promised), DataLength, "its shape wants 17179869184");
    let stuffed = |model: &mut ModelProto| tensor(model, 0).raw_data.as_mut().unwrap().resize(1 << 20, 0);
    refused!(changed(stuffed), DataLength, "1048576 bytes of data, its shape wants 48");
    // Many small messages, each of which would take far more memory than its two bytes.
    let many = field(5, &[]).repeat(1 << 20);
    refused!(offer(&field(7, &many)), TooManyFields, "2048");
}

#[test]
fn metadata_of_another_model() {
    let (mut manifest, onnx) = sealed(&mlp(), &contract(), |_| {});
    let (other, _) = sealed(&heads::dueling(), &contract(), |_| {});
    (manifest.format_version, manifest.graph) = (other.format_version, other.graph);
    let error =
        check_release(manifest.sealed().unwrap(), &onnx, &Expectation::new(contract()), Isa::best()).unwrap_err();
    assert!(matches!(error, ReleaseError::Binding { field: "graph", .. }), "{error}");
    // Of the same shape: only what it computes tells them apart.
    let mut twin = mlp();
    twin.layers[2].bias[1] += 1.0;
    let (mut twin, _) = sealed(&twin, &contract(), |_| {});
    twin.onnx = OnnxFile { sha256: Sha256::of(&onnx), bytes: onnx.len() as u64 };
    let error = check_release(twin.sealed().unwrap(), &onnx, &Expectation::new(contract()), Isa::best()).unwrap_err();
    assert!(matches!(error, ReleaseError::Golden(_)), "{error}");
}
