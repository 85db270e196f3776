//! The network that a model file holds, and the contract it was trained for.
//!
//! A model file is ONNX, restricted to one graph for each format (`docs/formats/model.md`). [`encode`] writes it, the same bytes
//! for the same network; [`load`] reads those graphs and refuses everything else. What ONNX Runtime alone evaluates is a format
//! of its own, which [`check_general`] checks.

mod encode;
mod error;
pub mod fuzz;
mod general;
mod load;
mod onnx;
mod sizes;
mod wire;

pub use encode::encode;
pub use error::ModelError;
pub use general::{GENERAL_OPERATORS, check_general};
pub use load::{is_general, load, read};

use bellwether_artifact::{Graph, Sha256};
use bellwether_env_adapter::Action;

/// One affine layer, `y_j = bias_j + sum_i x_i * weights[i * outputs + j]`: input-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Width of the input.
    pub inputs: usize,
    /// Width of the output.
    pub outputs: usize,
    /// `inputs * outputs` weights, the outputs of one input together.
    pub weights: Vec<f32>,
    /// `outputs` biases.
    pub bias: Vec<f32>,
}

/// A multi-layer perceptron with `ReLU` between its layers: state in, one q-value per action out.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    /// At least one layer; the widths of neighbours match. The last one gives what `head` makes q-values of.
    pub layers: Vec<Linear>,
    /// From the last layer to q-values.
    pub head: Head,
}

/// How the last layer of an [`Mlp`] becomes q-values.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Head {
    /// It gives the q-values.
    #[default]
    Plain,
    /// It gives advantages `A_a`; this layer, of one output, gives the value `V` of the state from the same inputs, and
    /// `q_a = V + (A_a - mean A)` (Wang et al. 2016, equation 9).
    Dueling(Linear),
}

/// What a model was trained for: what its inputs and its outputs mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    /// Width of a state.
    pub width: usize,
    /// SHA-256 of the feature specification of the state.
    pub feature_spec: Sha256,
    /// Version of the action set.
    pub action_set: u32,
    /// Names of the actions, by number.
    pub actions: Vec<String>,
}

/// What a caller of [`load`] insists on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The contract that the model must state, to the letter.
    pub contract: Contract,
    /// Largest file that is looked at, in bytes.
    pub max_bytes: usize,
}

/// Limits of the format. They bound what a hostile file can make the loader allocate or loop over.
pub mod limits {
    /// Largest file by default, in bytes: some 16 million weights.
    pub const MAX_BYTES: usize = 64 << 20;
    /// Most affine layers.
    pub const MAX_LAYERS: usize = 16;
    /// Largest width of a state, of a hidden layer or of the action set.
    pub const MAX_WIDTH: usize = 65_536;
    /// Most protobuf fields in a file; the largest permitted graph has fewer than half of them.
    pub const MAX_FIELDS: usize = 2_048;
    /// Most elements that the values of a general graph have together, for one state: 32 MiB at the widest type.
    pub const MAX_ELEMENTS: usize = 4 << 20;
    /// Most dimensions of a value or tensor of a general graph.
    pub const MAX_RANK: usize = 8;
    /// Longest name or text, in bytes.
    pub const MAX_TEXT_BYTES: usize = 4_096;
}

impl Contract {
    /// The contract of a model over the sandbox's own actions, for states of `width` under the specification with the
    /// hash `feature_spec`.
    pub fn sandbox(width: usize, feature_spec: Sha256) -> Self {
        Contract {
            width,
            feature_spec,
            action_set: Action::SET_VERSION,
            actions: Action::ALL.iter().map(|action| action.name().to_owned()).collect(),
        }
    }
}

impl Expectation {
    /// Insists on `contract`, in a file of at most [`limits::MAX_BYTES`].
    pub fn new(contract: Contract) -> Self {
        Expectation { contract, max_bytes: limits::MAX_BYTES }
    }
}

impl Mlp {
    /// A network whose last layer gives the q-values.
    pub fn plain(layers: Vec<Linear>) -> Self {
        Mlp { layers, head: Head::Plain }
    }

    /// A network whose last layer gives advantages, beside a layer that gives the value.
    pub fn dueling(layers: Vec<Linear>, value: Linear) -> Self {
        Mlp { layers, head: Head::Dueling(value) }
    }

    /// The layer of the value, where the head is dueling.
    pub fn value(&self) -> Option<&Linear> {
        match &self.head {
            Head::Plain => None,
            Head::Dueling(value) => Some(value),
        }
    }

    /// Widths of the layers, from the state to the q-values.
    pub fn widths(&self) -> impl Iterator<Item = usize> {
        std::iter::once(self.inputs()).chain(self.layers.iter().map(|layer| layer.outputs))
    }

    /// What a manifest calls the network; `None` for the plain one.
    pub fn graph(&self) -> Option<Graph> {
        self.value().map(|_| Graph::Dueling)
    }

    /// Width of a state; 0 for a network without layers, which nothing accepts.
    pub fn inputs(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.inputs)
    }

    /// Number of actions; 0 for a network without layers, which nothing accepts.
    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.outputs)
    }

    /// Number of weights and biases.
    pub fn parameters(&self) -> usize {
        self.layers.iter().chain(self.value()).map(|layer| layer.weights.len() + layer.bias.len()).sum()
    }

    /// Checks what every consumer relies on: between 1 and [`limits::MAX_LAYERS`] layers, widths between 1 and
    /// [`limits::MAX_WIDTH`], neighbours that match, a value of width 1, as many numbers as the widths say, all of them finite.
    ///
    /// # Errors
    /// The first violation, by layer.
    pub fn check(&self) -> Result<(), ModelError> {
        if self.layers.is_empty() || self.layers.len() > limits::MAX_LAYERS {
            return Err(ModelError::Layers { found: self.layers.len() });
        }
        let mut width = self.inputs();
        let mut before = width;
        for (index, layer) in self.layers.iter().enumerate() {
            layer.check(&index.to_string(), width)?;
            before = std::mem::replace(&mut width, layer.outputs);
        }
        let Some(value) = self.value() else { return Ok(()) };
        value.check(VALUE, before)?;
        if value.outputs != 1 {
            let (found, expected) = (vec![value.outputs as i64], vec![1]);
            return Err(ModelError::Shape { tensor: format!("b{VALUE}"), found, expected });
        }
        Ok(())
    }
}

/// What the names of a value's tensors end in, where those of a layer end in its number.
const VALUE: &str = "_value";

impl Linear {
    /// Checks a layer that must take `width` inputs; its tensors are called `w` and `b` with this `suffix`.
    fn check(&self, suffix: &str, width: usize) -> Result<(), ModelError> {
        let (weights, bias) = (format!("w{suffix}"), format!("b{suffix}"));
        for (name, found) in [(&weights, self.inputs), (&bias, self.outputs)] {
            if found == 0 || found > limits::MAX_WIDTH {
                return Err(ModelError::Dimension { tensor: name.clone(), found: found as i64 });
            }
        }
        if self.inputs != width {
            return Err(ModelError::Shape {
                tensor: weights,
                found: vec![self.inputs as i64, self.outputs as i64],
                expected: vec![width as i64, self.outputs as i64],
            });
        }
        // Both widths are at most 2^16, so the product fits any usize of 33 bits or more.
        let count = self
            .inputs
            .checked_mul(self.outputs)
            .ok_or_else(|| ModelError::SizeOverflow { tensor: weights.clone() })?;
        for (name, values, expected) in [(weights, &self.weights, count), (bias, &self.bias, self.outputs)] {
            if values.len() != expected {
                let (found, expected) = (values.len() * 4, expected * 4);
                return Err(ModelError::DataLength { tensor: name, found, expected });
            }
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                return Err(ModelError::NonFinite { tensor: name, index });
            }
        }
        Ok(())
    }
}
