//! The shape of a Q-network, the canonical layout of its parameters, and their first values.

use bellwether_inference::model::{Linear, Mlp};
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What a user chooses about a Q-network: everything else follows from the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Widths of the hidden layers, input side first; ReLU follows each. An empty list makes the network linear.
    pub hidden: Vec<usize>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        NetworkConfig { hidden: vec![256, 256] }
    }
}

/// The widths of a multi-layer perceptron: input, hidden layers, output.
///
/// The canonical layout of its parameters is one vector: layer by layer, first the weights, input-major (the outputs of
/// one input together), then the biases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkShape {
    widths: Vec<usize>,
}

/// Why a network cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// There are fewer than two widths.
    #[error("a network needs an input and an output width; {0} given")]
    TooFewWidths(usize),
    /// A width is 0 or too large.
    #[error("width {width} at position {position} of the network; choose 1 to {MAX_WIDTH}")]
    Width {
        /// Position in the list of widths, the input being 0.
        position: usize,
        /// The width.
        width: usize,
    },
    /// There are too many layers or parameters.
    #[error(
        "the network would have {0} parameters or layers beyond the limit; choose at most {MAX_PARAMETERS} in {MAX_LAYERS} layers"
    )]
    TooLarge(usize),
    /// The network has a dueling head.
    #[error(
        "the network has a dueling head, which has no canonical layout of parameters here; give one with a plain head"
    )]
    Dueling,
    /// A vector of parameters belongs to another network.
    #[error("{found} parameters where the network has {expected}")]
    Parameters {
        /// Parameters of the network.
        expected: usize,
        /// Given.
        found: usize,
    },
}

/// Largest width of a layer.
pub const MAX_WIDTH: usize = 1 << 14;
/// Largest number of layers.
pub const MAX_LAYERS: usize = 16;
/// Largest number of parameters.
pub const MAX_PARAMETERS: usize = 1 << 26;

/// Where one layer stands in the canonical layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerShape {
    /// Width of the input.
    pub inputs: usize,
    /// Width of the output.
    pub outputs: usize,
    /// Its weights in the parameter vector, `inputs * outputs`, input-major.
    pub weights: Range<usize>,
    /// Its biases in the parameter vector, `outputs`.
    pub bias: Range<usize>,
}

impl NetworkConfig {
    /// The shape for an environment with `inputs` elements per observation and `actions` actions.
    ///
    /// # Errors
    /// [`NetworkError`] if a width or the whole is out of bounds.
    pub fn shape(&self, inputs: usize, actions: usize) -> Result<NetworkShape, NetworkError> {
        let mut widths = Vec::with_capacity(self.hidden.len() + 2);
        widths.push(inputs);
        widths.extend_from_slice(&self.hidden);
        widths.push(actions);
        NetworkShape::new(widths)
    }
}

impl NetworkShape {
    /// A shape from all widths, input and output included.
    ///
    /// # Errors
    /// [`NetworkError`] if there are fewer than two, or one or the whole is out of bounds.
    pub fn new(widths: Vec<usize>) -> Result<NetworkShape, NetworkError> {
        if widths.len() < 2 {
            return Err(NetworkError::TooFewWidths(widths.len()));
        }
        if widths.len() > MAX_LAYERS + 1 {
            return Err(NetworkError::TooLarge(widths.len() - 1));
        }
        if let Some((position, &width)) = widths.iter().enumerate().find(|(_, w)| !(1..=MAX_WIDTH).contains(*w)) {
            return Err(NetworkError::Width { position, width });
        }
        // 16 layers of at most 2^28 weights cannot overflow.
        let parameters: usize = widths.windows(2).map(|w| (w[0] + 1) * w[1]).sum();
        if parameters > MAX_PARAMETERS {
            return Err(NetworkError::TooLarge(parameters));
        }
        Ok(NetworkShape { widths })
    }

    /// All widths, input and output included.
    pub fn widths(&self) -> &[usize] {
        &self.widths
    }

    /// Width of the input.
    pub fn inputs(&self) -> usize {
        self.widths[0]
    }

    /// Width of the output.
    pub fn outputs(&self) -> usize {
        self.widths[self.widths.len() - 1]
    }

    /// Number of layers.
    pub fn layer_count(&self) -> usize {
        self.widths.len() - 1
    }

    /// Number of parameters.
    pub fn parameter_count(&self) -> usize {
        self.widths.windows(2).map(|w| (w[0] + 1) * w[1]).sum()
    }

    /// The layers, input side first.
    pub fn layers(&self) -> impl Iterator<Item = LayerShape> + '_ {
        self.widths.windows(2).scan(0, |start, w| {
            let weights = *start..*start + w[0] * w[1];
            let bias = weights.end..weights.end + w[1];
            *start = bias.end;
            Some(LayerShape { inputs: w[0], outputs: w[1], weights, bias })
        })
    }

    /// First values: weights and biases of a layer uniform in `±1 / sqrt(inputs)`, drawn in canonical order.
    ///
    /// This is what PyTorch's `nn.Linear` does (He's uniform with a negative slope of `sqrt(5)`), and so what the usual
    /// DQN recipes were tuned with.
    pub fn initial_parameters(&self, rng: &mut impl Rng) -> Vec<f32> {
        let mut parameters = Vec::with_capacity(self.parameter_count());
        for layer in self.layers() {
            let bound = 1.0 / (layer.inputs as f32).sqrt();
            for _ in layer.weights.start..layer.bias.end {
                // 24 bits are what an f32 in [0, 1) holds; both steps are exact.
                let unit = (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32;
                parameters.push((unit * 2.0 - 1.0) * bound);
            }
        }
        parameters
    }

    /// The network with these parameters in canonical layout, for the runtime and for export.
    ///
    /// # Errors
    /// [`NetworkError::Parameters`] if their number is another.
    pub fn to_mlp(&self, parameters: &[f32]) -> Result<Mlp, NetworkError> {
        let expected = self.parameter_count();
        if parameters.len() != expected {
            return Err(NetworkError::Parameters { expected, found: parameters.len() });
        }
        let layers = self
            .layers()
            .map(|layer| Linear {
                inputs: layer.inputs,
                outputs: layer.outputs,
                weights: parameters[layer.weights].to_vec(),
                bias: parameters[layer.bias].to_vec(),
            })
            .collect();
        Ok(Mlp::plain(layers))
    }

    /// The shape and the canonical parameters of a network of the runtime.
    ///
    /// # Errors
    /// [`NetworkError`] if the head is dueling, a width is out of bounds or a layer does not hold what its widths say.
    pub fn from_mlp(mlp: &Mlp) -> Result<(NetworkShape, Vec<f32>), NetworkError> {
        if mlp.value().is_some() {
            return Err(NetworkError::Dueling);
        }
        let mut widths: Vec<usize> = mlp.layers.iter().map(|layer| layer.inputs).collect();
        widths.extend(mlp.layers.last().map(|layer| layer.outputs));
        let shape = NetworkShape::new(widths)?;
        let mut parameters = Vec::with_capacity(shape.parameter_count());
        for (layer, linear) in shape.layers().zip(&mlp.layers) {
            let expected = (layer.weights.len(), layer.bias.len());
            if (linear.weights.len(), linear.bias.len()) != expected || linear.outputs != layer.outputs {
                return Err(NetworkError::Parameters {
                    expected: expected.0 + expected.1,
                    found: linear.weights.len() + linear.bias.len(),
                });
            }
            parameters.extend_from_slice(&linear.weights);
            parameters.extend_from_slice(&linear.bias);
        }
        Ok((shape, parameters))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::stream;

    #[test]
    fn layers_cover_the_parameters_without_a_gap() {
        let shape = NetworkConfig::default().shape(64, 6).unwrap();
        let mut end = 0;
        for layer in shape.layers() {
            assert_eq!(layer.weights.start, end);
            assert_eq!(layer.bias.start, layer.weights.end);
            end = layer.bias.end;
        }
        assert_eq!(end, shape.parameter_count());
        assert_eq!(end, 64 * 256 + 256 + 256 * 256 + 256 + 256 * 6 + 6);
    }

    #[test]
    fn first_values_depend_on_the_seed_alone_and_fill_their_range() {
        let shape = NetworkShape::new(vec![16, 32, 3]).unwrap();
        let one = shape.initial_parameters(&mut stream(1, "init"));
        assert_eq!(one, shape.initial_parameters(&mut stream(1, "init")));
        assert_ne!(one, shape.initial_parameters(&mut stream(2, "init")));
        for layer in shape.layers() {
            let bound = 1.0 / (layer.inputs as f32).sqrt();
            let largest = one[layer.weights].iter().fold(0.0f32, |largest, w| largest.max(w.abs()));
            assert!(largest <= bound && largest > 0.8 * bound, "{largest} of {bound}");
        }
    }

    #[test]
    fn a_network_survives_the_way_to_the_runtime_and_back() {
        let shape = NetworkShape::new(vec![5, 7, 2]).unwrap();
        let parameters = shape.initial_parameters(&mut stream(3, "init"));
        let mlp = shape.to_mlp(&parameters).unwrap();
        assert_eq!(mlp.layers[0].weights[7 + 2], parameters[7 + 2]);
        assert_eq!(NetworkShape::from_mlp(&mlp).unwrap(), (shape, parameters));
    }

    #[test]
    fn bad_widths_are_refused_by_position() {
        for (widths, error) in [
            (vec![3], NetworkError::TooFewWidths(1)),
            (vec![3, 0, 2], NetworkError::Width { position: 1, width: 0 }),
            (vec![3, usize::MAX, 2], NetworkError::Width { position: 1, width: usize::MAX }),
            (vec![1; 18], NetworkError::TooLarge(17)),
        ] {
            assert_eq!(NetworkShape::new(widths).unwrap_err(), error);
        }
        assert!(matches!(NetworkShape::new(vec![1 << 14; 3]), Err(NetworkError::TooLarge(_))));
    }
}
