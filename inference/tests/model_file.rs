//! The model file: the same bytes for the same network, and the same network back.

mod nets;

use bellwether_artifact::Sha256;
use bellwether_env_adapter::Action;
use bellwether_inference::model::{Contract, Expectation, Linear, Mlp, ModelError, encode, load, read};
use nets::{Draw, arbitrary_mlp};
use proptest::prelude::*;

fn contract_of(mlp: &Mlp) -> Contract {
    let actions = (0..mlp.outputs()).map(|action| format!("action_{action}")).collect();
    Contract { width: mlp.inputs(), feature_spec: Sha256::of(b"spec"), action_set: 3, actions }
}

proptest! {
    #[test]
    fn a_model_survives_its_file(mlp in arbitrary_mlp()) {
        let contract = contract_of(&mlp);
        let bytes = encode(&mlp, &contract).unwrap();
        prop_assert_eq!(&encode(&mlp.clone(), &contract).unwrap(), &bytes);
        let found = load(&bytes, &Expectation::new(contract.clone())).unwrap();
        for (found, expected) in found.layers.iter().zip(&mlp.layers) {
            // Equality of floats would let the sign of a zero slip.
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&found.weights), bits(&expected.weights));
            prop_assert_eq!(bits(&found.bias), bits(&expected.bias));
        }
        prop_assert_eq!(read(&bytes, usize::MAX).unwrap(), (mlp, contract));
    }

    #[test]
    fn one_other_bit_in_a_weight_gives_another_file(mlp in arbitrary_mlp(), at: prop::sample::Index) {
        let contract = contract_of(&mlp);
        let mut other = mlp.clone();
        let weights = &mut other.layers[0].weights;
        let at = at.index(weights.len());
        weights[at] = f32::from_bits(weights[at].to_bits() ^ 1);
        prop_assert_ne!(encode(&mlp, &contract).unwrap(), encode(&other, &contract).unwrap());
    }
}

#[test]
fn the_contract_of_the_sandbox_names_its_actions() {
    let contract = Contract::sandbox(8, Sha256::of(b"spec"));
    assert_eq!(contract.actions, ["continue", "raise_isolation", "release", "terminate", "quarantine"]);
    assert_eq!((contract.action_set, contract.width), (Action::SET_VERSION, 8));
    let mlp = Draw(1).mlp(&[8, 16, 5]);
    let bytes = encode(&mlp, &contract).unwrap();
    assert_eq!(load(&bytes, &Expectation::new(contract)), Ok(mlp));
}

#[test]
fn an_unsound_network_is_not_written() {
    let good = Draw(1).mlp(&[3, 4, 2]);
    let check = |change: &dyn Fn(&mut Vec<Linear>), text: &str| {
        let mut mlp = good.clone();
        change(&mut mlp.layers);
        let error = encode(&mlp, &contract_of(&good)).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    };
    let value = |inputs: usize, outputs: usize| Linear {
        inputs,
        outputs,
        weights: vec![0.0; inputs * outputs],
        bias: vec![0.0; outputs],
    };
    for (value, text) in [
        (value(3, 1), "\"w_value\" has shape [3, 1], expected [4, 1]"),
        (value(4, 2), "\"b_value\" has shape [2], expected [1]"),
        (Linear { bias: vec![f32::NAN], ..value(4, 1) }, "\"b_value\": value 0 is not finite"),
    ] {
        let error = encode(&Mlp::dueling(good.layers.clone(), value), &contract_of(&good)).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
    check(&|layers| layers.clear(), "0 layers");
    check(&|layers| layers[1].inputs = 5, "\"w1\" has shape [5, 2], expected [4, 2]");
    check(&|layers| layers[0].inputs = 0, "\"w0\" has a dimension of 0");
    check(&|layers| layers[1].outputs = 1 << 20, "\"b1\" has a dimension of 1048576");
    check(&|layers| layers[0].weights.truncate(11), "\"w0\" has 44 bytes of data, its shape wants 48");
    check(&|layers| layers[1].bias.push(0.0), "\"b1\" has 12 bytes of data, its shape wants 8");
    check(&|layers| layers[1].weights[3] = f32::NAN, "\"w1\": value 3 is not finite");
    check(&|layers| layers[0].bias[0] = f32::INFINITY, "\"b0\": value 0 is not finite");
}

#[test]
fn a_contract_must_fit_the_network_and_be_legible() {
    let mlp = Draw(1).mlp(&[3, 2]);
    let check = |change: &dyn Fn(&mut Contract)| {
        let mut contract = contract_of(&mlp);
        change(&mut contract);
        encode(&mlp, &contract).unwrap_err()
    };
    assert_eq!(check(&|contract| contract.width = 4), ModelError::Width { found: 3, expected: 4 });
    assert_eq!(check(&|contract| drop(contract.actions.pop())), ModelError::Outputs { found: 2, expected: 1 });
    for name in ["", "a,b", "action_1"] {
        let error = check(&|contract| contract.actions[0] = name.to_owned());
        assert!(matches!(error, ModelError::Metadata { .. }), "{error:?}");
    }
}
