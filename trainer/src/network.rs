//! The shape of a Q-network, the canonical layout of its parameters, and their first values.

use bellwether_inference::model::{Head, Linear, Mlp};
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What a user chooses about a Q-network: everything else follows from the environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Widths of the hidden layers, input side first; ReLU follows each. An empty list makes the network linear.
    pub hidden: Vec<usize>,
    /// Dueling head: the last layer gives advantages and the value of the state (Wang et al. 2016).
    pub dueling: bool,
    /// What the network tells about the return of an action.
    pub returns: Returns,
    /// Noisy layers, counted from the last (Fortunato et al. 2018, factorised noise); 0 for none. Their noise explores.
    pub noisy_layers: usize,
    /// First size of their noise, before it is divided by the root of a layer's inputs.
    pub noisy_sigma: f32,
}

/// What a network tells about the return of an action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Returns {
    /// Its mean: the q-value (Mnih et al. 2015).
    #[default]
    Mean,
    /// The probabilities of fixed values, evenly spread from `minimum` to `maximum`: C51 (Bellemare et al. 2017).
    Categorical {
        /// How many values, 2 to 1,024.
        atoms: usize,
        /// The smallest.
        minimum: f32,
        /// The largest.
        maximum: f32,
    },
    /// As many quantiles, 2 to 1,024, each as likely, at the middles of their shares: QR-DQN (Dabney et al. 2018).
    Quantiles(usize),
}

impl Default for NetworkConfig {
    fn default() -> Self {
        NetworkConfig {
            hidden: vec![256, 256],
            dueling: false,
            returns: Returns::Mean,
            noisy_layers: 0,
            noisy_sigma: 0.5,
        }
    }
}

/// A multi-layer perceptron and what its outputs mean.
///
/// The canonical layout of its parameters is one vector: layer by layer, first the weights, input-major (the outputs of
/// one input together), then the biases. Behind them, for the noisy layers alone, stand the sizes of the noise in the same
/// order. Output `action * atoms + k` of the last layer is atom `k` of an action (its advantage, where the head is
/// dueling); the atoms of the value of the state stand behind those of the last action.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkShape {
    widths: Vec<usize>,
    actions: usize,
    dueling: bool,
    returns: Returns,
    noisy_layers: usize,
    noisy_sigma: f32,
}

/// Why a network cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
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
    /// A setting of the head or of the noise is out of range.
    #[error("{key} = {value}: {reason}")]
    Setting {
        /// Name of the field of [`NetworkConfig`].
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        reason: &'static str,
    },
    /// The q-values are no weighted sums of the outputs.
    #[error(
        "a network with categorical returns is no multi-layer perceptron of the runtime; train one with `returns` of `mean` or `quantiles`"
    )]
    Categorical,
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

/// Most atoms of a return.
pub const MAX_ATOMS: usize = 1 << 10;

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

/// Where the noise of one noisy layer stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoisyShape {
    /// The layer, from 0.
    pub layer: usize,
    /// The sizes of the noise of its weights and then of its biases, in the parameter vector.
    pub sigma: Range<usize>,
    /// Its factors of the noise in the vector of all: one for each input, then one for each output.
    pub factors: Range<usize>,
}

impl Returns {
    /// How many outputs tell about one action.
    pub fn atoms(&self) -> usize {
        match *self {
            Returns::Mean => 1,
            Returns::Categorical { atoms, .. } | Returns::Quantiles(atoms) => atoms,
        }
    }

    fn validate(&self) -> Result<(), NetworkError> {
        let refuse = |key, value, reason| Err(NetworkError::Setting { key, value, reason });
        match *self {
            Returns::Mean => Ok(()),
            Returns::Quantiles(atoms) if !(2..=MAX_ATOMS).contains(&atoms) => {
                refuse("returns.quantiles", atoms.to_string(), "choose 2 to 1024")
            }
            Returns::Categorical { atoms, .. } if !(2..=MAX_ATOMS).contains(&atoms) => {
                refuse("returns.categorical.atoms", atoms.to_string(), "choose 2 to 1024")
            }
            Returns::Categorical { minimum, maximum, .. }
                if !(minimum < maximum && minimum.abs() <= 1e6 && maximum.abs() <= 1e6) =>
            {
                let reason = "choose a minimum below the maximum, both within a million";
                refuse("returns.categorical.minimum", minimum.to_string(), reason)
            }
            _ => Ok(()),
        }
    }
}

impl NetworkConfig {
    /// The shape for an environment with `inputs` elements per observation and `actions` actions.
    ///
    /// # Errors
    /// [`NetworkError`] if a width, a setting or the whole is out of bounds.
    pub fn shape(&self, inputs: usize, actions: usize) -> Result<NetworkShape, NetworkError> {
        self.returns.validate()?;
        let refuse = |key, value, reason| Err(NetworkError::Setting { key, value, reason });
        if self.noisy_layers > self.hidden.len() + 1 {
            let reason = "the network has fewer layers: choose at most the hidden ones and one more";
            return refuse("noisy_layers", self.noisy_layers.to_string(), reason);
        }
        if !(self.noisy_sigma > 0.0 && self.noisy_sigma <= 10.0) {
            return refuse("noisy_sigma", self.noisy_sigma.to_string(), "choose a value above 0, at most 10");
        }
        if actions > MAX_WIDTH {
            return Err(NetworkError::Width { position: self.hidden.len() + 1, width: actions });
        }
        let mut widths = Vec::with_capacity(self.hidden.len() + 2);
        widths.push(inputs);
        widths.extend_from_slice(&self.hidden);
        widths.push(if actions == 0 { 0 } else { (actions + usize::from(self.dueling)) * self.returns.atoms() });
        let shape = NetworkShape {
            widths,
            actions,
            dueling: self.dueling,
            returns: self.returns,
            noisy_layers: self.noisy_layers,
            noisy_sigma: self.noisy_sigma,
        };
        shape.validate()?;
        Ok(shape)
    }
}

impl NetworkShape {
    /// The shape of a network whose outputs are q-values, from all widths, input and output included.
    ///
    /// # Errors
    /// [`NetworkError`] if there are fewer than two, or one or the whole is out of bounds.
    pub fn new(widths: Vec<usize>) -> Result<NetworkShape, NetworkError> {
        let actions = widths.last().copied().unwrap_or(0);
        let NetworkConfig { dueling, returns, noisy_layers, noisy_sigma, .. } = NetworkConfig::default();
        let shape = NetworkShape { widths, actions, dueling, returns, noisy_layers, noisy_sigma };
        shape.validate()?;
        Ok(shape)
    }

    fn validate(&self) -> Result<(), NetworkError> {
        let widths = &self.widths;
        if widths.len() < 2 {
            return Err(NetworkError::TooFewWidths(widths.len()));
        }
        if widths.len() > MAX_LAYERS + 1 {
            return Err(NetworkError::TooLarge(widths.len() - 1));
        }
        if let Some((position, &width)) = widths.iter().enumerate().find(|(_, w)| !(1..=MAX_WIDTH).contains(*w)) {
            return Err(NetworkError::Width { position, width });
        }
        // 16 layers of at most 2^28 weights, twice, cannot overflow.
        let parameters = self.parameter_count();
        if parameters > MAX_PARAMETERS {
            return Err(NetworkError::TooLarge(parameters));
        }
        Ok(())
    }

    /// All widths, input and output included.
    pub fn widths(&self) -> &[usize] {
        &self.widths
    }

    /// Width of the input.
    pub fn inputs(&self) -> usize {
        self.widths[0]
    }

    /// Outputs of the last layer: for each action, and for the value of a dueling head, so many as there are atoms.
    pub fn outputs(&self) -> usize {
        self.widths[self.widths.len() - 1]
    }

    /// Number of actions.
    pub fn actions(&self) -> usize {
        self.actions
    }

    /// Whether the head gives advantages and a value.
    pub fn is_dueling(&self) -> bool {
        self.dueling
    }

    /// What the network tells about the return of an action.
    pub fn returns(&self) -> Returns {
        self.returns
    }

    /// Number of layers.
    pub fn layer_count(&self) -> usize {
        self.widths.len() - 1
    }

    /// Weights and biases, without the sizes of noise that stand behind them.
    pub fn plain_count(&self) -> usize {
        self.widths.windows(2).map(|w| (w[0] + 1) * w[1]).sum()
    }

    /// Number of parameters.
    pub fn parameter_count(&self) -> usize {
        self.plain_count() + self.noisy().map(|noisy| noisy.sigma.len()).sum::<usize>()
    }

    /// Number of factors of which the noise of all noisy layers is made; 0 without such layers.
    pub fn factor_count(&self) -> usize {
        self.noisy().last().map_or(0, |noisy| noisy.factors.end)
    }

    /// The noisy layers, input side first.
    pub fn noisy(&self) -> impl Iterator<Item = NoisyShape> + '_ {
        let first = self.layer_count() - self.noisy_layers;
        let start = (self.plain_count(), 0);
        self.widths.windows(2).enumerate().skip(first).scan(start, |(sigma, factors), (layer, w)| {
            let noisy = NoisyShape {
                layer,
                sigma: *sigma..*sigma + (w[0] + 1) * w[1],
                factors: *factors..*factors + w[0] + w[1],
            };
            (*sigma, *factors) = (noisy.sigma.end, noisy.factors.end);
            Some(noisy)
        })
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
    /// DQN recipes were tuned with, and what noisy layers start with too; the size of their noise is
    /// `noisy_sigma / sqrt(inputs)` (Fortunato et al. 2018, section 3.2).
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
        for noisy in self.noisy() {
            let sigma = self.noisy_sigma / (self.widths[noisy.layer] as f32).sqrt();
            parameters.resize(parameters.len() + noisy.sigma.len(), sigma);
        }
        parameters
    }

    /// The network with these parameters in canonical layout, for the runtime and for export: noisy layers without their
    /// noise, and quantiles by their mean.
    ///
    /// # Errors
    /// [`NetworkError::Parameters`] if their number is another, [`NetworkError::Categorical`] if the returns are.
    pub fn to_mlp(&self, parameters: &[f32]) -> Result<Mlp, NetworkError> {
        self.to_cautious_mlp(parameters, self.returns.atoms())
    }

    /// The same, with the mean of the `lowest` quantiles alone in place of the q-value, 1 to all of them: the expected return in
    /// the worst `lowest / atoms` of cases, known as conditional value at risk (Rockafellar and Uryasev 2000).
    ///
    /// # Errors
    /// As [`NetworkShape::to_mlp`], and [`NetworkError::Setting`] if there are fewer quantiles.
    pub fn to_cautious_mlp(&self, parameters: &[f32], lowest: usize) -> Result<Mlp, NetworkError> {
        let atoms = self.returns.atoms();
        if !(1..=atoms).contains(&lowest) {
            let reason = "choose 1 to the number of quantiles";
            return Err(NetworkError::Setting { key: "lowest", value: lowest.to_string(), reason });
        }
        let expected = self.parameter_count();
        if parameters.len() != expected {
            return Err(NetworkError::Parameters { expected, found: parameters.len() });
        }
        if matches!(self.returns, Returns::Categorical { .. }) {
            return Err(NetworkError::Categorical);
        }
        let mut layers: Vec<Linear> = self
            .layers()
            .map(|layer| Linear {
                inputs: layer.inputs,
                outputs: layer.outputs,
                weights: parameters[layer.weights].to_vec(),
                bias: parameters[layer.bias].to_vec(),
            })
            .collect();
        let mut head = Head::Plain;
        if let Some(last) = layers.pop() {
            let mean = average(&last, atoms, lowest);
            let (actions, value) = (self.actions, self.dueling.then(|| columns(&mean, self.actions..self.actions + 1)));
            layers.push(columns(&mean, 0..actions));
            head = value.map_or(Head::Plain, Head::Dueling);
        }
        Ok(Mlp { layers, head })
    }

    /// The shape and the canonical parameters of a network of the runtime.
    ///
    /// # Errors
    /// [`NetworkError`] if a width is out of bounds or a layer does not hold what its widths say.
    pub fn from_mlp(mlp: &Mlp) -> Result<(NetworkShape, Vec<f32>), NetworkError> {
        let mut widths: Vec<usize> = mlp.layers.iter().map(|layer| layer.inputs).collect();
        widths.extend(mlp.layers.last().map(|layer| layer.outputs));
        let mut shape = NetworkShape::new(widths)?;
        for (layer, linear) in shape.layers().zip(&mlp.layers) {
            let expected = (layer.weights.len(), layer.bias.len());
            if (linear.weights.len(), linear.bias.len()) != expected || linear.outputs != layer.outputs {
                return Err(NetworkError::Parameters {
                    expected: expected.0 + expected.1,
                    found: linear.weights.len() + linear.bias.len(),
                });
            }
        }
        let (last, before) = mlp.layers.split_last().ok_or(NetworkError::TooFewWidths(0))?;
        let mut parameters = Vec::with_capacity(shape.parameter_count());
        for linear in before {
            parameters.extend_from_slice(&linear.weights);
            parameters.extend_from_slice(&linear.bias);
        }
        if let Some(value) = mlp.value() {
            let (expected, found) = (last.inputs + 1, value.weights.len() + value.bias.len());
            if value.weights.len() != last.inputs || value.bias.len() != 1 {
                return Err(NetworkError::Parameters { expected, found });
            }
            shape.dueling = true;
            *shape.widths.last_mut().ok_or(NetworkError::TooFewWidths(0))? += 1;
            shape.validate()?;
            for (advantages, value) in last.weights.chunks_exact(last.outputs).zip(&value.weights) {
                parameters.extend_from_slice(advantages);
                parameters.push(*value);
            }
            parameters.extend_from_slice(&last.bias);
            parameters.extend_from_slice(&value.bias);
        } else {
            parameters.extend_from_slice(&last.weights);
            parameters.extend_from_slice(&last.bias);
        }
        Ok((shape, parameters))
    }
}

/// The layer whose outputs are the means of the first `lowest` of every `atoms` neighbours, taken in double precision.
fn average(layer: &Linear, atoms: usize, lowest: usize) -> Linear {
    if atoms == 1 {
        return layer.clone();
    }
    let mean = |values: &[f32]| -> Vec<f32> {
        let sum = |atoms: &[f32]| atoms[..lowest].iter().map(|value| f64::from(*value)).sum::<f64>();
        values.chunks_exact(atoms).map(|atoms| (sum(atoms) / lowest as f64) as f32).collect()
    };
    let outputs = layer.outputs / atoms;
    Linear { inputs: layer.inputs, outputs, weights: mean(&layer.weights), bias: mean(&layer.bias) }
}

/// The layer with some of the outputs.
fn columns(layer: &Linear, range: Range<usize>) -> Linear {
    let of = |row: &[f32]| row[range.clone()].to_vec();
    let weights = layer.weights.chunks_exact(layer.outputs).flat_map(of).collect();
    Linear { inputs: layer.inputs, outputs: range.len(), weights, bias: of(&layer.bias) }
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
    fn noise_stands_behind_the_plain_parameters() {
        let config = NetworkConfig { hidden: vec![7, 5], dueling: true, noisy_layers: 2, ..NetworkConfig::default() };
        let shape = config.shape(3, 2).unwrap();
        let noisy: Vec<NoisyShape> = shape.noisy().collect();
        let plain = (3 + 1) * 7 + (7 + 1) * 5 + (5 + 1) * 3;
        assert_eq!(shape.plain_count(), plain);
        assert_eq!(noisy[0], NoisyShape { layer: 1, sigma: plain..plain + 40, factors: 0..12 });
        assert_eq!(noisy[1], NoisyShape { layer: 2, sigma: plain + 40..plain + 58, factors: 12..20 });
        assert_eq!((shape.parameter_count(), shape.factor_count()), (plain + 58, 20));
        let parameters = shape.initial_parameters(&mut stream(1, "init"));
        assert_eq!(parameters.len(), plain + 58);
        assert!(parameters[noisy[1].sigma.clone()].iter().all(|sigma| *sigma == 0.5 / 5.0_f32.sqrt()));
    }

    #[test]
    fn dueling_heads_go_to_the_runtime_and_back_and_quantiles_go_by_their_mean() {
        let config = NetworkConfig { hidden: vec![4], dueling: true, ..NetworkConfig::default() };
        let shape = config.shape(3, 2).unwrap();
        let parameters = shape.initial_parameters(&mut stream(3, "init"));
        let mlp = shape.to_mlp(&parameters).unwrap();
        assert_eq!(mlp.layers[1].outputs, 2);
        assert_eq!(NetworkShape::from_mlp(&mlp).unwrap(), (shape, parameters));

        let shape = NetworkConfig { returns: Returns::Quantiles(3), ..config }.shape(3, 2).unwrap();
        assert_eq!((shape.outputs(), shape.actions()), (9, 2));
        let parameters = shape.initial_parameters(&mut stream(3, "init"));
        let (mlp, last) = (shape.to_mlp(&parameters).unwrap(), shape.layers().last().unwrap());
        let mean = |from: usize| parameters[from..from + 3].iter().sum::<f32>() / 3.0;
        assert!((mlp.layers[1].weights[3] - mean(last.weights.start + 9 + 3)).abs() < 1e-6);
        assert!((mlp.value().unwrap().bias[0] - mean(last.bias.start + 6)).abs() < 1e-6);
        let cautious = shape.to_cautious_mlp(&parameters, 1).unwrap();
        assert_eq!(cautious.layers[1].weights[3], parameters[last.weights.start + 9 + 3]);
        assert_eq!(cautious.value().unwrap().bias[0], parameters[last.bias.start + 6]);
        for lowest in [0, 4] {
            let refused = shape.to_cautious_mlp(&parameters, lowest);
            assert!(matches!(refused, Err(NetworkError::Setting { key: "lowest", .. })), "{refused:?}");
        }

        let returns = Returns::Categorical { atoms: 5, minimum: -1.0, maximum: 1.0 };
        let shape = NetworkConfig { returns, ..NetworkConfig::default() }.shape(3, 2).unwrap();
        assert_eq!(shape.to_mlp(&vec![0.0; shape.parameter_count()]), Err(NetworkError::Categorical));
    }

    #[test]
    fn settings_out_of_range_are_refused_by_their_key() {
        type Change = fn(&mut NetworkConfig);
        let categorical = |atoms, minimum, maximum| Returns::Categorical { atoms, minimum, maximum };
        let cases: [(&str, Change); 7] = [
            ("returns.quantiles", |c| c.returns = Returns::Quantiles(1)),
            ("returns.categorical.atoms", |c| {
                c.returns = Returns::Categorical { atoms: 2000, minimum: 0.0, maximum: 1.0 }
            }),
            ("returns.categorical.minimum", |c| {
                c.returns = Returns::Categorical { atoms: 2, minimum: 1.0, maximum: 1.0 }
            }),
            ("returns.categorical.minimum", |c| {
                c.returns = Returns::Categorical { atoms: 2, minimum: f32::NAN, maximum: 1.0 };
            }),
            ("noisy_layers", |c| c.noisy_layers = 4),
            ("noisy_sigma", |c| c.noisy_sigma = 0.0),
            ("noisy_sigma", |c| c.noisy_sigma = f32::NAN),
        ];
        for (key, change) in cases {
            let mut config = NetworkConfig { returns: categorical(51, -1.0, 1.0), ..NetworkConfig::default() };
            change(&mut config);
            match config.shape(3, 2) {
                Err(NetworkError::Setting { key: refused, .. }) => assert_eq!(refused, key),
                other => panic!("{key}: {other:?}"),
            }
        }
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
