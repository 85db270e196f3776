//! Sizes, types and values.

use super::*;

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
