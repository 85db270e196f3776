//! How large the values of a general graph become: the shape of each, from those of the inputs and tensors through the operators.
//!
//! Shapes are exact and those of a batch of one, in which a graph is evaluated. A shape that no attribute and no tensor of the file
//! settles is refused: whoever cannot say how large a value is cannot say that memory holds it.

use std::collections::BTreeMap;

use super::onnx::{
    ATTRIBUTE_INT, ATTRIBUTE_INTS, AttributeProto, BOOL, FLOAT, GraphProto, INT32, INT64, NodeProto, TensorProto,
};
use super::{ModelError, limits};

/// A shape: the outermost dimension first, none for a single number.
type Dims = Vec<usize>;

/// ONNX attribute type of a single number.
const ATTRIBUTE_FLOAT: i32 = 1;
/// ONNX attribute type of a tensor.
const ATTRIBUTE_TENSOR: i32 = 4;
/// ONNX attribute type of a list of numbers.
const ATTRIBUTE_FLOATS: i32 = 6;

/// What is known of the values so far.
struct Known<'a> {
    shapes: BTreeMap<&'a str, Dims>,
    /// Integers that stand in the file: axes, starts, ends.
    integers: BTreeMap<&'a str, Vec<i64>>,
    /// Elements of all that nodes produced.
    elements: usize,
}

/// A node whose shapes are found out.
struct At<'g, 'k> {
    index: usize,
    node: &'g NodeProto,
    known: &'k Known<'g>,
}

/// Checks that all values that the nodes produce for one state have at most [`limits::MAX_ELEMENTS`] elements together, no more than
/// [`limits::MAX_RANK`] dimensions each, and sizes that follow from the file alone.
///
/// Names are known to stand for one thing each and tensors to be as long as they say.
///
/// # Errors
/// [`ModelError::Sizes`] where a size does not follow or operands do not fit; [`ModelError::ValuesTooLarge`].
pub(super) fn check(graph: &GraphProto, width: usize, actions: usize) -> Result<(), ModelError> {
    let mut known = Known { shapes: BTreeMap::new(), integers: BTreeMap::new(), elements: 0 };
    for (input, wide) in graph.input.iter().zip([width, actions]) {
        known.shapes.insert(input.name.as_deref().unwrap_or(""), vec![1, wide]);
    }
    for tensor in &graph.initializer {
        let name = tensor.name.as_deref().unwrap_or("");
        known.shapes.insert(name, dims_of(tensor));
        known.integers.extend(integers_of(tensor).map(|integers| (name, integers)));
    }
    for (index, node) in graph.node.iter().enumerate() {
        let at = At { index, node, known: &known };
        let (shapes, integers) = (at.shapes()?, at.constant_integers());
        if shapes.len() < node.output.len() {
            return Err(at.refused(format!("it has {} outputs, expected {}", node.output.len(), shapes.len())));
        }
        for (name, shape) in node.output.iter().zip(shapes) {
            known.produce(index, name, shape)?;
        }
        known.integers.extend(node.output.first().zip(integers).map(|(name, integers)| (name.as_str(), integers)));
    }
    Ok(())
}

impl<'a> Known<'a> {
    fn produce(&mut self, node: usize, name: &'a str, shape: Dims) -> Result<(), ModelError> {
        if shape.len() > limits::MAX_RANK {
            let reason = format!("{name:?} has {} dimensions, at most {} are permitted", shape.len(), limits::MAX_RANK);
            return Err(ModelError::Sizes { node, reason });
        }
        // Dimensions of nothing are left out, so that no product hides another.
        let large = shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim.max(1)));
        match large.and_then(|large| self.elements.checked_add(large)) {
            Some(elements) if elements <= limits::MAX_ELEMENTS => self.elements = elements,
            _ => return Err(ModelError::ValuesTooLarge { node, shape, limit: limits::MAX_ELEMENTS }),
        }
        if !name.is_empty() {
            self.shapes.insert(name, shape);
        }
        Ok(())
    }
}

impl At<'_, '_> {
    /// The shapes of the outputs, as ai.onnx 17 defines them.
    fn shapes(&self) -> Result<Vec<Dims>, ModelError> {
        let one = |shape: Result<Dims, ModelError>| shape.map(|shape| vec![shape]);
        match self.operator() {
            "Add" | "And" | "Div" | "Equal" | "Greater" | "Less" | "Max" | "Min" | "Mul" | "Or" | "PRelu" | "Pow"
            | "Sub" | "Where" => one(self.broadcast()),
            "ArgMax" => one(self.reduced(vec![self.int("axis", 0)?])),
            "Cast" => one(self.cast()),
            "Concat" => one(self.concatenated()),
            "Constant" => one(self.constant()),
            "Flatten" => one(self.flattened()),
            "Gather" => one(self.gathered()),
            "Gemm" => one(self.gemm()),
            "MatMul" => one(self.matmul()),
            "ReduceMax" | "ReduceMean" | "ReduceMin" => one(self.reduced(self.ints("axes")?.unwrap_or_default())),
            "ReduceSum" => one(match self.integers(1)?.unwrap_or_default() {
                none if none.is_empty() && self.int("noop_with_empty_axes", 0)? != 0 => self.input(0),
                axes => self.reduced(axes),
            }),
            "Slice" => one(self.sliced()),
            "Split" => self.split(),
            "Squeeze" => one(self.squeezed()),
            "Transpose" => one(self.transposed()),
            // All others on the list give what is as large as their first operand.
            _ => one(self.input(0)),
        }
    }

    fn operator(&self) -> &str {
        self.node.op_type.as_deref().unwrap_or("")
    }

    fn broadcast(&self) -> Result<Dims, ModelError> {
        let mut all = self.input(0)?;
        for operand in 1..self.node.input.len() {
            all = self.joined(&all, &self.input(operand)?)?;
        }
        Ok(all)
    }

    /// Two shapes stretched to one another: aligned at the end, a dimension of 1 gives way.
    fn joined(&self, left: &[usize], right: &[usize]) -> Result<Dims, ModelError> {
        let rank = left.len().max(right.len());
        let dim = |shape: &[usize], at: usize| (at + shape.len()).checked_sub(rank).map_or(1, |at| shape[at]);
        let join = |at: usize| match (dim(left, at), dim(right, at)) {
            (same, other) if same == other => Ok(same),
            (1, other) | (other, 1) => Ok(other),
            _ => Err(self.refused(format!("{left:?} and {right:?} do not fit each other"))),
        };
        (0..rank).map(join).collect()
    }

    /// Texts, and numbers that take more room than those of the format, are kept out.
    fn cast(&self) -> Result<Dims, ModelError> {
        let to = self.int("to", 0)?;
        if [FLOAT, INT32, INT64, BOOL].map(i64::from).contains(&to) {
            return self.input(0);
        }
        Err(self.refused(format!("it makes values of ONNX type {to}, expected one of 1, 6, 7 and 9")))
    }

    fn concatenated(&self) -> Result<Dims, ModelError> {
        let mut all = self.input(0)?;
        let axis = self.axis(self.required("axis")?, all.len())?;
        for operand in 1..self.node.input.len() {
            let more = self.input(operand)?;
            let fits = more.len() == all.len() && (0..all.len()).all(|at| at == axis || all[at] == more[at]);
            let long = more.get(axis).filter(|_| fits).and_then(|dim| all[axis].checked_add(*dim));
            all[axis] = long.ok_or_else(|| self.refused(format!("{all:?} and {more:?} do not fit each other")))?;
        }
        Ok(all)
    }

    fn constant(&self) -> Result<Dims, ModelError> {
        let [attribute] = self.node.attribute.as_slice() else {
            return Err(self.refused("a constant wants one attribute, its value"));
        };
        let shape = match (attribute.name.as_deref(), attribute.r#type) {
            (Some("value"), Some(ATTRIBUTE_TENSOR)) => attribute.t.as_ref().map(dims_of),
            (Some("value_float"), Some(ATTRIBUTE_FLOAT)) | (Some("value_int"), Some(ATTRIBUTE_INT)) => Some(Vec::new()),
            (Some("value_floats"), Some(ATTRIBUTE_FLOATS)) => Some(vec![attribute.floats.len()]),
            (Some("value_ints"), Some(ATTRIBUTE_INTS)) => Some(vec![attribute.ints.len()]),
            _ => None,
        };
        shape.ok_or_else(|| self.refused("a constant is a tensor, a number or a list of numbers"))
    }

    /// The integers of a constant, for whoever reads them as axes or bounds.
    fn constant_integers(&self) -> Option<Vec<i64>> {
        let attribute = self.node.attribute.first().filter(|_| self.operator() == "Constant")?;
        match attribute.name.as_deref()? {
            "value" => integers_of(attribute.t.as_ref()?),
            "value_int" => attribute.i.map(|integer| vec![integer]),
            "value_ints" => Some(attribute.ints.clone()),
            _ => None,
        }
    }

    fn flattened(&self) -> Result<Dims, ModelError> {
        let shape = self.input(0)?;
        let axis = match self.int("axis", 1)? {
            before if before < 0 => self.axis(before, shape.len())?,
            // It may stand behind the last dimension too.
            axis => self.axis(axis, shape.len() + 1)?,
        };
        Ok(vec![self.product(&shape[..axis])?, self.product(&shape[axis..])?])
    }

    fn gathered(&self) -> Result<Dims, ModelError> {
        let (data, indices) = (self.input(0)?, self.input(1)?);
        let axis = self.axis(self.int("axis", 0)?, data.len())?;
        Ok([&data[..axis], &indices, &data[axis + 1..]].concat())
    }

    fn gemm(&self) -> Result<Dims, ModelError> {
        let operand = |index: usize, transposed: i64| match (self.input(index)?.as_slice(), transposed) {
            (&[rows, columns], 0) => Ok((rows, columns)),
            (&[rows, columns], _) => Ok((columns, rows)),
            (shape, _) => Err(self.refused(format!("{shape:?} is no matrix"))),
        };
        let (rows, inner) = operand(0, self.int("transA", 0)?)?;
        let (depth, columns) = operand(1, self.int("transB", 0)?)?;
        if inner != depth {
            return Err(self.refused(format!("{inner} columns meet {depth} rows")));
        }
        let shape = vec![rows, columns];
        if self.given(2) && self.joined(&shape, &self.input(2)?)? != shape {
            return Err(self.refused(format!("its third operand does not fit {shape:?}")));
        }
        Ok(shape)
    }

    fn matmul(&self) -> Result<Dims, ModelError> {
        let (left, right) = (self.input(0)?, self.input(1)?);
        let unfit = || self.refused(format!("{left:?} and {right:?} do not fit each other"));
        let (&inner, outer) = left.split_last().ok_or_else(unfit)?;
        // A list is a row on the left and a column on the right, and its one dimension of 1 is left out of the result.
        let (rows, left_batch) = outer.split_last().map_or((None, outer), |(rows, batch)| (Some(*rows), batch));
        let (depth, columns, right_batch) = match right.as_slice() {
            [] => return Err(unfit()),
            &[depth] => (depth, None, &[][..]),
            [batch @ .., depth, columns] => (*depth, Some(*columns), batch),
        };
        if inner != depth {
            return Err(unfit());
        }
        let mut shape = self.joined(left_batch, right_batch)?;
        shape.extend(rows.into_iter().chain(columns));
        Ok(shape)
    }

    /// Some dimensions, or all where none is named, become 1 or are left out.
    fn reduced(&self, axes: Vec<i64>) -> Result<Dims, ModelError> {
        let shape = self.input(0)?;
        let axes: Vec<usize> = axes.into_iter().map(|axis| self.axis(axis, shape.len())).collect::<Result<_, _>>()?;
        let keep = self.int("keepdims", 1)? != 0;
        let is_reduced = |at: usize| axes.is_empty() || axes.contains(&at);
        let dim = |(at, dim): (usize, usize)| if is_reduced(at) { keep.then_some(1) } else { Some(dim) };
        Ok(shape.into_iter().enumerate().filter_map(dim).collect())
    }

    fn sliced(&self) -> Result<Dims, ModelError> {
        let mut shape = self.input(0)?;
        let settled = |operand: usize| {
            let missing = || self.refused("a slice wants starts and ends");
            self.integers(operand)?.ok_or_else(missing)
        };
        let (starts, ends) = (settled(1)?, settled(2)?);
        let axes = self.integers(3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = self.integers(4)?.unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
            return Err(self.refused("a slice wants as many starts as ends, axes and steps"));
        }
        let mut seen = Vec::new();
        for (((start, end), axis), step) in starts.into_iter().zip(ends).zip(axes).zip(steps) {
            let axis = self.axis(axis, shape.len())?;
            if seen.contains(&axis) || step == 0 {
                return Err(self.refused(format!("axis {axis} is sliced twice, or by steps of 0")));
            }
            seen.push(axis);
            let long = shape[axis] as i128;
            let from_end = |at: i64| if at < 0 { i128::from(at) + long } else { i128::from(at) };
            let (low, high) = if step > 0 { (0, long) } else { (-1, long - 1) };
            let (start, end) = (from_end(start).clamp(low.max(0), high.max(0)), from_end(end).clamp(low, high));
            let span = if step > 0 { end - start } else { start - end };
            let by = i128::from(step).abs();
            shape[axis] = usize::try_from((span.max(0) + by - 1) / by).unwrap_or(shape[axis]).min(shape[axis]);
        }
        Ok(shape)
    }

    fn split(&self) -> Result<Vec<Dims>, ModelError> {
        let shape = self.input(0)?;
        let axis = self.axis(self.int("axis", 0)?, shape.len())?;
        let (long, parts) = (shape[axis], self.node.output.len());
        let lengths = match self.integers(1)? {
            Some(lengths) => lengths,
            None if parts > 0 && long % parts == 0 => vec![(long / parts) as i64; parts],
            None => return Err(self.refused(format!("{long} do not fall into {parts} equal parts"))),
        };
        let lengths: Option<Vec<usize>> = lengths.into_iter().map(|length| usize::try_from(length).ok()).collect();
        let whole = |lengths: &Vec<usize>| {
            let sum = lengths.iter().try_fold(0_usize, |sum, length| sum.checked_add(*length));
            lengths.len() == parts && sum == Some(long)
        };
        let lengths = lengths.filter(whole);
        let lengths = lengths.ok_or_else(|| self.refused(format!("its parts are not {parts} that make up {long}")))?;
        let part = |length: usize| {
            let mut part = shape.clone();
            part[axis] = length;
            part
        };
        Ok(lengths.into_iter().map(part).collect())
    }

    fn squeezed(&self) -> Result<Dims, ModelError> {
        let shape = self.input(0)?;
        let Some(axes) = self.integers(1)? else {
            return Ok(shape.into_iter().filter(|dim| *dim != 1).collect());
        };
        let axes: Vec<usize> = axes.into_iter().map(|axis| self.axis(axis, shape.len())).collect::<Result<_, _>>()?;
        if let Some(axis) = axes.iter().find(|axis| shape[**axis] != 1) {
            return Err(self.refused(format!("axis {axis} of {shape:?} is not 1, so it cannot be left out")));
        }
        Ok(shape.iter().enumerate().filter(|(at, _)| !axes.contains(at)).map(|(_, dim)| *dim).collect())
    }

    fn transposed(&self) -> Result<Dims, ModelError> {
        let shape = self.input(0)?;
        let Some(order) = self.ints("perm")? else { return Ok(shape.into_iter().rev().collect()) };
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..shape.len() as i64) {
            return Err(self.refused(format!("{order:?} is no order of {} dimensions", shape.len())));
        }
        Ok(order.into_iter().map(|at| shape[at as usize]).collect())
    }

    /// The shape of an operand that must be there.
    fn input(&self, operand: usize) -> Result<Dims, ModelError> {
        let name = self.node.input.get(operand).map_or("", String::as_str);
        let shape = self.known.shapes.get(name).cloned();
        shape.ok_or_else(|| self.refused(format!("operand {operand} is missing")))
    }

    /// Whether an operand that may be left out is there.
    fn given(&self, operand: usize) -> bool {
        self.node.input.get(operand).is_some_and(|name| !name.is_empty())
    }

    /// The integers of an operand, which must stand in the file; `None` where it is left out.
    fn integers(&self, operand: usize) -> Result<Option<Vec<i64>>, ModelError> {
        if !self.given(operand) {
            return Ok(None);
        }
        let integers = self.known.integers.get(self.node.input[operand].as_str());
        let settled = integers.cloned().ok_or_else(|| {
            self.refused(format!("operand {operand} settles a size, so it must be integers that stand in the file"))
        });
        settled.map(Some)
    }

    /// An axis, counted from the end where it is negative.
    fn axis(&self, axis: i64, rank: usize) -> Result<usize, ModelError> {
        let positive = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
        let found = positive.and_then(|axis| usize::try_from(axis).ok()).filter(|axis| *axis < rank);
        found.ok_or_else(|| self.refused(format!("it has no axis {axis} among {rank} dimensions")))
    }

    fn product(&self, dims: &[usize]) -> Result<usize, ModelError> {
        let product = dims.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim));
        product.ok_or_else(|| self.refused("its size overflows"))
    }

    fn int(&self, name: &str, default: i64) -> Result<i64, ModelError> {
        let found = self.attribute(name, ATTRIBUTE_INT)?;
        Ok(found.map_or(default, |attribute| attribute.i.unwrap_or(0)))
    }

    fn required(&self, name: &str) -> Result<i64, ModelError> {
        match self.attribute(name, ATTRIBUTE_INT)? {
            Some(attribute) => Ok(attribute.i.unwrap_or(0)),
            None => Err(self.refused(format!("the attribute {name:?} is missing"))),
        }
    }

    fn ints(&self, name: &str) -> Result<Option<Vec<i64>>, ModelError> {
        Ok(self.attribute(name, ATTRIBUTE_INTS)?.map(|attribute| attribute.ints.clone()))
    }

    /// The one attribute of a name, which must be of this type.
    fn attribute(&self, name: &str, kind: i32) -> Result<Option<&AttributeProto>, ModelError> {
        let mut found = self.node.attribute.iter().filter(|attribute| attribute.name.as_deref() == Some(name));
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some(one), None) if one.r#type == Some(kind) => Ok(Some(one)),
            _ => Err(self.refused(format!("the attribute {name:?} stands twice or is of another type than {kind}"))),
        }
    }

    fn refused(&self, reason: impl Into<String>) -> ModelError {
        let reason = format!("{}: {}", self.operator(), reason.into());
        ModelError::Sizes { node: self.index, reason }
    }
}

/// The shape of a tensor, whose dimensions were checked.
fn dims_of(tensor: &TensorProto) -> Dims {
    tensor.dims.iter().map(|dim| usize::try_from(*dim).unwrap_or(usize::MAX)).collect()
}

/// The integers of a tensor of i64 with at most one dimension.
fn integers_of(tensor: &TensorProto) -> Option<Vec<i64>> {
    let is_list = tensor.data_type == Some(INT64) && tensor.dims.len() <= 1;
    let raw = tensor.raw_data.as_deref().filter(|_| is_list)?;
    Some(raw.as_chunks::<8>().0.iter().map(|word| i64::from_le_bytes(*word)).collect())
}
