//! The network that a model file holds.

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

/// A multi-layer perceptron with ReLU between its layers: state in, one q-value per action out.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    /// At least one layer; the widths of neighbours match.
    pub layers: Vec<Linear>,
}
