//! Dueling heads that are none.

use super::*;

pub(super) fn dueling() -> Mlp {
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
    offer(&model.encode_to_vec())
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
