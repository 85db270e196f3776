//! Graphs with one operator of the list each, whose result is as large as they say.
#![allow(dead_code, reason = "each test file uses a part of it")]

use crate::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// What an operator reads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand {
    /// The state twice: f32 `[2, 3]`.
    Rows,
    /// The mask: bool `[1, 2]`.
    Mask,
    /// A tensor of f32 of this shape.
    Floats(&'static [i64]),
    /// A list of i64.
    Ints(&'static [i64]),
    /// A tensor of i64 of this shape, all of them 0.
    Zeros(&'static [i64]),
    /// Nothing.
    Left,
}

/// One operator, and the shape of its last output.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) operator: &'static str,
    inputs: Vec<Operand>,
    attributes: Vec<AttributeProto>,
    outputs: usize,
    dims: Vec<i64>,
}

impl Case {
    pub(crate) fn elements(&self) -> usize {
        self.dims.iter().product::<i64>() as usize
    }

    fn with(self, attributes: Vec<AttributeProto>) -> Case {
        Case { attributes, ..self }
    }
}

impl Operand {
    pub(crate) fn tensor(&self, name: &str) -> TensorProto {
        let long = |dims: &[i64]| dims.iter().product::<i64>() as usize;
        let (dims, data_type, raw_data) = match self {
            Operand::Floats(dims) => (dims.to_vec(), 1, 0.5_f32.to_le_bytes().repeat(long(dims))),
            Operand::Ints(ints) => {
                (vec![ints.len() as i64], 7, ints.iter().flat_map(|int| int.to_le_bytes()).collect())
            }
            Operand::Zeros(dims) => (dims.to_vec(), 7, vec![0; 8 * long(dims)]),
            Operand::Rows | Operand::Mask | Operand::Left => unreachable!("{self:?} is no tensor"),
        };
        TensorProto { dims, data_type: Some(data_type), name: Some(name.to_owned()), raw_data: Some(raw_data) }
    }
}

/// An attribute of integers, a single one where there is no list.
pub(crate) fn ints(name: &str, list: Option<&[i64]>, one: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        i: list.is_none().then_some(one),
        ints: list.unwrap_or_default().to_vec(),
        r#type: Some(if list.is_some() { 7 } else { 2 }),
        ..AttributeProto::default()
    }
}

pub(crate) fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[AttributeProto]) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        output: vec![output.to_owned()],
        op_type: Some(operator.to_owned()),
        attribute: attributes.to_vec(),
        ..NodeProto::default()
    }
}

/// Puts an operator in the place of a graph's network. Its result meets a matrix of `size` rows, which fits if it is as large.
pub(crate) fn through(graph: &mut GraphProto, case: &Case, size: usize) {
    let tail = graph.node.iter().position(|node| node.op_type.as_deref() == Some("Where")).unwrap();
    let masked = graph.node[tail].input[2].clone();
    graph.initializer.retain(|tensor| tensor.name.as_ref() == Some(&masked));
    let mut names = Vec::new();
    for (at, operand) in case.inputs.iter().enumerate() {
        names.push(match operand {
            Operand::Rows => "rows".to_owned(),
            Operand::Mask => "action_mask".to_owned(),
            Operand::Left => String::new(),
            tensor => {
                graph.initializer.push(tensor.tensor(&format!("t{at}")));
                format!("t{at}")
            }
        });
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut made = node(case.operator, &names, "o0", &case.attributes);
    made.output = (0..case.outputs).map(|at| format!("o{at}")).collect();
    let last = made.output.last().unwrap().clone();
    graph.initializer.push(TensorProto {
        dims: vec![size as i64, 2],
        data_type: Some(1),
        name: Some("weights".to_owned()),
        raw_data: Some(vec![0; 8 * size]),
    });
    let nodes = [
        node("Concat", &["state", "state"], "rows", &[ints("axis", None, 0)]),
        made,
        node("Cast", &[&last], "number", &[ints("to", None, 1)]),
        node("Flatten", &["number"], "flat", &[ints("axis", None, 0)]),
        node("MatMul", &["flat", "weights"], "q_values", &[]),
    ];
    graph.node.splice(..tail, nodes);
}

/// At least one of each operator of the list.
pub(crate) fn cases() -> Vec<Case> {
    use Operand::{Floats, Ints, Left, Mask, Rows, Zeros};
    let case = |operator, inputs: &[Operand], dims: &[i64]| Case {
        operator,
        inputs: inputs.to_vec(),
        attributes: Vec::new(),
        outputs: 1,
        dims: dims.to_vec(),
    };
    let one = |name: &str, value: i64| ints(name, None, value);
    let list = |name: &str, values: &[i64]| ints(name, Some(values), 0);
    let same = [
        "Abs",
        "Ceil",
        "Celu",
        "Clip",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Log",
        "LogSoftmax",
        "Neg",
        "Reciprocal",
        "Relu",
        "Selu",
        "Sigmoid",
        "Sign",
        "Softmax",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Tanh",
    ];
    let joined = ["Add", "Div", "Equal", "Greater", "Less", "Max", "Min", "Mul", "Pow", "Sub"];
    let reduced = ["ReduceMax", "ReduceMean", "ReduceMin"];
    let mut cases: Vec<Case> = same.iter().map(|operator| case(operator, &[Rows], &[2, 3])).collect();
    for operator in joined {
        cases.push(case(operator, &[Rows, Floats(&[4, 1, 3])], &[4, 2, 3]));
        cases.push(case(operator, &[Floats(&[]), Rows], &[2, 3]));
    }
    for operator in reduced {
        cases.push(case(operator, &[Rows], &[1, 1]));
        cases.push(case(operator, &[Rows], &[2]).with(vec![list("axes", &[-1]), one("keepdims", 0)]));
    }
    let constant = |attribute: AttributeProto, dims: &[i64]| case("Constant", &[], dims).with(vec![attribute]);
    let mut tensor = list("value", &[]);
    (tensor.r#type, tensor.t) = (Some(4), Some(Floats(&[2, 5]).tensor("")));
    let mut floats = list("value_floats", &[]);
    (floats.r#type, floats.floats) = (Some(6), vec![0.5; 4]);
    let norm = [Rows, Floats(&[3]), Floats(&[3]), Floats(&[3]), Floats(&[3])];
    cases.extend([
        case("And", &[Mask, Mask], &[1, 2]),
        case("Or", &[Mask, Mask], &[1, 2]),
        case("Not", &[Mask], &[1, 2]),
        case("ArgMax", &[Rows], &[1, 3]),
        case("ArgMax", &[Rows], &[2]).with(vec![one("axis", -1), one("keepdims", 0)]),
        case("BatchNormalization", &norm, &[2, 3]),
        case("Cast", &[Rows], &[2, 3]).with(vec![one("to", 6)]),
        case("Clip", &[Rows, Left, Floats(&[])], &[2, 3]),
        case("Concat", &[Rows, Floats(&[2, 4])], &[2, 7]).with(vec![one("axis", -1)]),
        constant(tensor, &[2, 5]),
        constant(floats, &[4]),
        constant(list("value_ints", &[1, 2, 3]), &[3]),
        constant(one("value_int", 3), &[]),
        case("Flatten", &[Floats(&[2, 3, 4])], &[6, 4]).with(vec![one("axis", -1)]),
        case("Flatten", &[Rows], &[6, 1]).with(vec![one("axis", 2)]),
        case("Gather", &[Rows, Zeros(&[4, 5])], &[4, 5, 3]),
        case("Gather", &[Rows, Zeros(&[])], &[2]).with(vec![one("axis", 1)]),
        case("Gemm", &[Rows, Floats(&[3, 4]), Floats(&[4])], &[2, 4]),
        case("Gemm", &[Rows, Floats(&[5, 2])], &[3, 5]).with(vec![one("transA", 1), one("transB", 1)]),
        case("LayerNormalization", &[Rows, Floats(&[3])], &[2, 3]),
        case("MatMul", &[Rows, Floats(&[3, 7])], &[2, 7]),
        case("MatMul", &[Rows, Floats(&[3])], &[2]),
        case("MatMul", &[Floats(&[2]), Rows], &[3]),
        case("MatMul", &[Floats(&[3]), Floats(&[3])], &[]),
        case("MatMul", &[Floats(&[5, 1, 4, 2]), Floats(&[6, 2, 3])], &[5, 6, 4, 3]),
        case("PRelu", &[Rows, Floats(&[3])], &[2, 3]),
        case("ReduceSum", &[Rows, Ints(&[0])], &[1, 3]),
        case("ReduceSum", &[Rows], &[1, 1]),
        case("ReduceSum", &[Rows], &[2, 3]).with(vec![one("noop_with_empty_axes", 1)]),
        case("Slice", &[Rows, Ints(&[1]), Ints(&[i64::MAX])], &[1, 3]),
        case("Slice", &[Rows, Ints(&[-1]), Ints(&[i64::MIN]), Ints(&[1]), Ints(&[-2])], &[2, 2]),
        case("Slice", &[Rows, Ints(&[-3, 0]), Ints(&[-1, 1]), Ints(&[-1, 0])], &[1, 2]),
        case("Slice", &[Rows, Ints(&[9]), Ints(&[0]), Ints(&[1]), Ints(&[-1])], &[2, 2]),
        Case { outputs: 3, ..case("Split", &[Rows], &[2, 1]).with(vec![one("axis", 1)]) },
        Case { outputs: 2, ..case("Split", &[Rows, Ints(&[1, 2])], &[2, 2]).with(vec![one("axis", -1)]) },
        case("Squeeze", &[Floats(&[1, 4, 1])], &[4]),
        case("Squeeze", &[Floats(&[1, 4, 1]), Ints(&[-1])], &[1, 4]),
        case("Transpose", &[Rows], &[3, 2]),
        case("Transpose", &[Floats(&[2, 3, 4])], &[3, 4, 2]).with(vec![list("perm", &[1, 2, 0])]),
        case("Where", &[Mask, Floats(&[3, 1]), Floats(&[])], &[3, 2]),
    ]);
    cases
}
