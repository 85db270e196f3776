//! Questions and answers of the protocol, from HTTP bodies to its messages and back.
//!
//! A body is JSON, or JSON with the bytes of tensors behind it. Inside, all tensors are bytes.

use std::collections::HashMap;

use prost::bytes::Bytes;
use serde::de::DeserializeSeed;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use thiserror::Error;

use super::elements::{Datatype, Elements, Flat};
use super::few::{Few, Parameters};
use crate::serve::proto::inference::infer_parameter::ParameterChoice;
use crate::serve::proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::serve::proto::inference::{InferParameter, ModelInferRequest, ModelInferResponse};

/// A question, and in which form its answer is wanted.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) message: ModelInferRequest,
    form: Form,
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    /// Length of the JSON, where bytes of tensors follow.
    pub(super) json_length: Option<usize>,
}

/// Which outputs are wanted as bytes.
#[derive(Debug, Default)]
struct Form {
    all: bool,
    named: HashMap<String, bool>,
}

/// Why a body is no question.
#[derive(Debug, Error)]
pub(super) enum Malformed {
    /// The body is not what the protocol says, or has too much of something.
    #[error("{0}; send a body as the Open Inference Protocol, version 2, says")]
    Json(String),
    /// The header names more JSON than there is.
    #[error("the header says {json} bytes of JSON, the body has {body} bytes; give the length of the JSON")]
    JsonLength {
        /// What the header says.
        json: usize,
        /// What there is.
        body: usize,
    },
    /// A tensor is said in a way that cannot be read.
    #[error("input {name}: {reason}")]
    Input {
        /// The tensor.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A parameter is neither a number, nor text, nor a truth value, or not what its name wants.
    #[error("parameter {name} is {found}, expected {expected}")]
    Parameter {
        /// The parameter.
        name: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Bytes of tensors are left over.
    #[error("{found} bytes behind the JSON belong to no input; give each its binary_data_size")]
    LeftOver {
        /// How many.
        found: usize,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked<'a> {
    #[serde(default)]
    id: String,
    /// `KServe`'s client says the name here too; the path is what counts.
    #[serde(default, rename = "model_name")]
    _model_name: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow)]
    inputs: Few<Input<'a>, MAX_TENSORS>,
    #[serde(default)]
    outputs: Few<Output, MAX_TENSORS>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input<'a> {
    name: String,
    datatype: String,
    shape: Few<i64, MAX_DIMENSIONS>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Serialize)]
struct Answered<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    parameters: Map<String, Value>,
    outputs: Vec<Told<'a>>,
}

#[derive(Serialize)]
struct Told<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: &'a [i64],
    #[serde(skip_serializing_if = "Map::is_empty")]
    parameters: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Flat<'a>>,
}

/// Most inputs of a question and most outputs, far more than any model has.
const MAX_TENSORS: usize = 16;

/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

impl Question {
    /// Reads a body, of which `json_length` bytes are JSON, or all, with at most `most` elements in a tensor. What there is too much
    /// of is refused where it is met, so that no list takes much more memory than its limit.
    pub(super) fn read(body: &Bytes, json_length: Option<usize>, most: usize) -> Result<Question, Malformed> {
        let length = json_length.unwrap_or(body.len());
        let json = body.get(..length).ok_or(Malformed::JsonLength { json: length, body: body.len() })?;
        let mut behind = body.slice(length..);
        let Asked { id, parameters: Parameters(mut parameters), inputs, outputs, .. } =
            serde_json::from_slice(json).map_err(|error| Malformed::Json(error.to_string()))?;
        let mut form = Form { all: flag(&mut parameters, "binary_data_output")?.unwrap_or(false), ..Form::default() };
        let mut message = ModelInferRequest { id, parameters: choices(parameters)?, ..ModelInferRequest::default() };
        for input in inputs.0 {
            let Input { name, datatype, shape: Few(shape), parameters: Parameters(mut parameters), data } = input;
            let refused = |reason: String| Malformed::Input { name: short(&name), reason };
            let size = size(&mut parameters, "binary_data_size")?;
            let bytes = match (data, size) {
                (Some(_), Some(_)) => return Err(refused("has both data and binary_data_size; give one".to_owned())),
                (None, None) => return Err(refused("has neither data nor binary_data_size; give one".to_owned())),
                (None, Some(size)) if size > behind.len() => {
                    return Err(refused(format!("{} of its {size} bytes follow the JSON", behind.len())));
                }
                (None, Some(size)) => behind.split_to(size),
                (Some(data), None) => elements(&datatype, &shape, data, most).map_err(refused)?,
            };
            message.raw_input_contents.push(bytes);
            let parameters = choices(parameters)?;
            message.inputs.push(InferInputTensor { name, datatype, shape, parameters, contents: None });
        }
        if !behind.is_empty() {
            return Err(Malformed::LeftOver { found: behind.len() });
        }
        for Output { name, parameters: Parameters(mut parameters) } in outputs.0 {
            if let Some(binary) = flag(&mut parameters, "binary_data")? {
                form.named.insert(name.clone(), binary);
            }
            let parameters = choices(parameters)?;
            message.outputs.push(InferRequestedOutputTensor { name, parameters });
        }
        Ok(Question { message, form })
    }
}

impl Question {
    /// Writes an answer in the form that was asked for.
    pub(super) fn write(&self, answer: &ModelInferResponse) -> Result<Body, serde_json::Error> {
        let mut behind: Vec<&[u8]> = Vec::new();
        let mut outputs = Vec::new();
        for (output, bytes) in answer.outputs.iter().zip(&answer.raw_output_contents) {
            let binary = self.form.named.get(&output.name).copied().unwrap_or(self.form.all);
            let mut parameters = values(&output.parameters);
            let data = match Datatype::of(&output.datatype).filter(|_| !binary) {
                Some(datatype) => Some(Flat { datatype, bytes }),
                None => {
                    parameters.insert("binary_data_size".to_owned(), bytes.len().into());
                    behind.push(bytes);
                    None
                }
            };
            outputs.push(Told {
                name: &output.name,
                datatype: &output.datatype,
                shape: &output.shape,
                parameters,
                data,
            });
        }
        let ModelInferResponse { model_name, model_version, id, .. } = answer;
        let parameters = values(&answer.parameters);
        let mut bytes = serde_json::to_vec(&Answered { model_name, model_version, id, parameters, outputs })?;
        let json_length = (!behind.is_empty()).then_some(bytes.len());
        behind.into_iter().for_each(|part| bytes.extend_from_slice(part));
        Ok(Body { bytes, json_length })
    }
}

fn elements(datatype: &str, shape: &[i64], data: &RawValue, most: usize) -> Result<Bytes, String> {
    let Some(datatype) = Datatype::of(datatype) else {
        return Err(format!("is of {}; FP32, INT64 and BOOL are read", short(datatype)));
    };
    let sizes: Option<Vec<usize>> = shape.iter().map(|size| usize::try_from(*size).ok()).collect();
    let product = sizes.as_ref().and_then(|sizes| sizes.iter().try_fold(1_usize, |all, size| all.checked_mul(*size)));
    let (Some(shape), Some(product)) = (sizes, product) else {
        return Err(format!("has the shape {shape:?}, which no tensor has; give the rows and their width"));
    };
    if product > most {
        return Err(format!("has {product} elements, and at most {most} are read; send smaller batches"));
    }
    let mut json = serde_json::Deserializer::from_str(data.get());
    let read = Elements { datatype, shape: &shape }.deserialize(&mut json);
    Ok(read.map_err(|error| unplaced(&error))?.into())
}

/// An error without its line and column, which count from the beginning of the data and not of the body.
fn unplaced(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Takes a parameter out that says how tensors are sent.
fn flag(parameters: &mut Map<String, Value>, name: &str) -> Result<Option<bool>, Malformed> {
    match parameters.remove(name) {
        None => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(value)),
        Some(other) => Err(unlike(name, &other, "true or false")),
    }
}

fn size(parameters: &mut Map<String, Value>, name: &str) -> Result<Option<usize>, Malformed> {
    match parameters.remove(name) {
        None => Ok(None),
        Some(value) => match value.as_u64().and_then(|value| usize::try_from(value).ok()) {
            Some(size) => Ok(Some(size)),
            None => Err(unlike(name, &value, "a number of bytes")),
        },
    }
}

fn unlike(name: &str, found: &Value, expected: &'static str) -> Malformed {
    Malformed::Parameter { name: short(name), found: short(&found.to_string()), expected }
}

fn choices(parameters: Map<String, Value>) -> Result<HashMap<String, InferParameter>, Malformed> {
    let choice = |(name, value): (String, Value)| {
        let choice = match &value {
            Value::Bool(value) => Some(ParameterChoice::BoolParam(*value)),
            Value::String(text) => Some(ParameterChoice::StringParam(text.clone())),
            Value::Number(number) => (number.as_i64().map(ParameterChoice::Int64Param))
                .or_else(|| number.as_u64().map(ParameterChoice::Uint64Param))
                .or_else(|| number.as_f64().map(ParameterChoice::DoubleParam)),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        match choice {
            Some(_) => Ok((name, InferParameter { parameter_choice: choice })),
            None => Err(unlike(&name, &value, "a number, text, true or false")),
        }
    };
    parameters.into_iter().map(choice).collect()
}

fn values(parameters: &HashMap<String, InferParameter>) -> Map<String, Value> {
    let value = |(name, parameter): (&String, &InferParameter)| {
        let value = match parameter.parameter_choice.as_ref()? {
            ParameterChoice::BoolParam(value) => Value::from(*value),
            ParameterChoice::Int64Param(value) => Value::from(*value),
            ParameterChoice::Uint64Param(value) => Value::from(*value),
            ParameterChoice::DoubleParam(value) => Value::from(*value),
            ParameterChoice::StringParam(value) => Value::from(value.as_str()),
        };
        Some((name.clone(), value))
    };
    parameters.iter().filter_map(value).collect()
}

/// What a client wrote, in a length that an error can repeat.
pub(super) fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::serve::proto::inference::model_infer_response::InferOutputTensor;

    fn read(json: &str, behind: &[u8], announced: bool) -> Result<Question, String> {
        let body = [json.as_bytes(), behind].concat().into();
        Question::read(&body, announced.then_some(json.len()), 64).map_err(|error| error.to_string())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn json_and_bytes_ask_the_same(
            rows in proptest::collection::vec(proptest::array::uniform4(-1e3_f32..1e3), 1..5),
            mask in proptest::option::of(proptest::collection::vec(any::<bool>(), 5)),
        ) {
            let state: Vec<u8> = rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
            let flags: Vec<u8> = mask.iter().flatten().map(|flag| u8::from(*flag)).collect();
            let input = |name: &str, datatype: &str, shape: Value, content: (&str, Value)| {
                let mut input = serde_json::json!({"name": name, "datatype": datatype, "shape": shape});
                input[content.0] = content.1;
                input
            };
            let sized = |bytes: &[u8]| ("parameters", serde_json::json!({"binary_data_size": bytes.len()}));
            let shape = serde_json::json!([rows.len(), 4]);
            let mut inputs = [
                vec![input("state", "FP32", shape.clone(), ("data", serde_json::json!(rows)))],
                vec![input("state", "FP32", shape, sized(&state))],
            ];
            if let Some(mask) = &mask {
                let shape = serde_json::json!([1, 5]);
                inputs[0].push(input("action_mask", "BOOL", shape.clone(), ("data", serde_json::json!(mask))));
                inputs[1].push(input("action_mask", "BOOL", shape, sized(&flags)));
            }
            let [json, binary] =
                inputs.map(|inputs| serde_json::json!({"id": "7", "model_name": "other", "inputs": inputs}).to_string());
            let json = read(&json, b"", false).unwrap();
            let binary = read(&binary, &[state.clone(), flags.clone()].concat(), true).unwrap();
            prop_assert_eq!(&json.message, &binary.message);
            prop_assert_eq!(&json.message.raw_input_contents[0], &state);
            prop_assert_eq!(json.message.raw_input_contents.get(1).map(|bytes| bytes.to_vec()), mask.map(|_| flags));
        }

        #[test]
        fn no_body_makes_it_panic(json in "[\\[\\]{}\":,a-z0-9 ]{0,60}", behind in ".{0,9}", announced in any::<bool>()) {
            let _ = read(&json, behind.as_bytes(), announced);
        }
    }

    #[test]
    fn what_is_malformed_is_named() {
        let check = |json: &str, behind: &[u8], expected: &str| {
            let error = read(json, behind, true).unwrap_err();
            assert!(error.contains(expected), "{json}: {error:?} should contain {expected:?}");
        };
        let input =
            |rest: &str| format!(r#"{{"inputs": [{{"name": "state", "datatype": "FP32", "shape": [1, 2]{rest}}}]}}"#);
        check("{", b"", "EOF while parsing");
        check("{}", b"", "missing field `inputs`");
        check(r#"{"inputs": [], "surplus": 1}"#, b"", "unknown field `surplus`");
        check(&input(""), b"", "input state: has neither data nor binary_data_size");
        check(&input(r#", "data": [1]"#), b"", "input state: 1 elements where the shape has 2");
        check(&input(r#", "data": [1, "x"]"#), b"", "input state: element 1: text, expected a number");
        check(&input(r#", "data": [1, 2]"#), b"abc", "3 bytes behind the JSON belong to no input");
        check(&input(r#", "data": [1, 2], "parameters": {"binary_data_size": 8}"#), b"", "has both");
        check(&input(r#", "parameters": {"binary_data_size": 8}"#), b"1234567", "7 of its 8 bytes follow");
        check(&input(r#", "parameters": {"binary_data_size": -8}"#), b"", "is -8, expected a number of bytes");
        check(
            &input(r#", "data": [1, 2], "parameters": {"a": [1]}"#),
            b"",
            "parameter a is a list, expected a number, text",
        );
        check(r#"{"inputs": [], "parameters": {"binary_data_output": 1}}"#, b"", "expected true or false");
        let shaped = |shape: &str| {
            format!(r#"{{"inputs": [{{"name": "s", "datatype": "FP32", "shape": {shape}, "data": []}}]}}"#)
        };
        check(&shaped("[-1]"), b"", "has the shape [-1], which no tensor has");
        check(&shaped("[9223372036854775807, 9]"), b"", "which no tensor has");
        check(&shaped("[1, 1, 1, 1, 1, 1, 1, 1, 1]"), b"", "a list of more than 8; give at most 8 at line 1 column");
        check(&shaped("[5, 13]"), b"", "has 65 elements, and at most 64 are read");
        check(&input(r#", "data": [1, 2, 3"#), b"", "expected `,` or `]`");
        check(&input(r#", "data": [1, 2, 3, "x"]"#), b"", "element 2: more than the 2 of the shape");
        let one = r#"{"name": "a"}"#;
        check(&format!(r#"{{"inputs": [], "outputs": [{}]}}"#, [one; 17].join(",")), b"", "a list of more than 16");
        let tensor = r#"{"name": "a", "datatype": "FP32", "shape": []}"#;
        check(&format!(r#"{{"inputs": [{}]}}"#, [tensor; 17].join(",")), b"", "a list of more than 16");
        let many: Vec<String> = (0..65).map(|number| format!(r#""{number}": 1"#)).collect();
        check(&format!(r#"{{"inputs": [], "parameters": {{{}}}}}"#, many.join(",")), b"", "more than 64 parameters");
        let typed = r#"{"inputs": [{"name": "s", "datatype": "FP16", "shape": [1], "data": [1]}]}"#;
        check(typed, b"", "is of FP16; FP32, INT64 and BOOL are read");
        let body = Bytes::from_static(b"{}");
        assert!(matches!(Question::read(&body, Some(3), 64), Err(Malformed::JsonLength { json: 3, body: 2 })));
    }

    #[test]
    fn answers_have_the_form_that_was_asked_for() {
        let output = |name: &str, datatype: &str, shape: &[i64]| InferOutputTensor {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
            ..InferOutputTensor::default()
        };
        let (action, values) = (3_i64.to_le_bytes().to_vec(), [0.5_f32, -1.25].map(f32::to_le_bytes).concat());
        let answer = ModelInferResponse {
            model_name: "policy".to_owned(),
            model_version: "4".to_owned(),
            outputs: vec![output("action", "INT64", &[1]), output("q_values", "FP32", &[1, 2])],
            raw_output_contents: vec![action.clone(), values.clone()],
            ..ModelInferResponse::default()
        };
        let head =
            r#"{"model_name":"policy","model_version":"4","outputs":[{"name":"action","datatype":"INT64","shape":[1],"#;
        let between = r#"},{"name":"q_values","datatype":"FP32","shape":[1,2],"#;
        let sized = |bytes: &[u8]| format!(r#""parameters":{{"binary_data_size":{}}}"#, bytes.len());
        let check = |asked: &str, first: &str, second: &str, behind: &[u8]| {
            let body = read(asked, b"", false).unwrap().write(&answer).unwrap();
            let json = format!("{head}{first}{between}{second}}}]}}");
            assert_eq!(body.json_length, (!behind.is_empty()).then_some(json.len()));
            assert_eq!(body.bytes, [json.as_bytes(), behind].concat());
        };
        let (plain_action, plain_values) = (r#""data":[3]"#, r#""data":[0.5,-1.25]"#);
        check(r#"{"inputs": []}"#, plain_action, plain_values, b"");
        let all = r#"{"inputs": [], "parameters": {"binary_data_output": true}}"#;
        check(all, &sized(&action), &sized(&values), &[action.clone(), values.clone()].concat());
        let one = r#"{"inputs": [], "outputs": [{"name": "q_values", "parameters": {"binary_data": true}}]}"#;
        check(one, plain_action, &sized(&values), &values);
        let all_but_one = r#"{"inputs": [], "parameters": {"binary_data_output": true},
            "outputs": [{"name": "action", "parameters": {"binary_data": false}}]}"#;
        check(all_but_one, plain_action, &sized(&values), &values);
    }
}
