//! The network in tensors: its parameters in parts, its passes, and what its outputs tell.

use super::library::{Library, Tensor};
use crate::network::{NetworkShape, Returns};
use std::ops::Range;

/// A matrix of a library.
pub(super) type Matrix<L> = <L as Library>::Tensor<2>;

/// A part of the canonical layout that is one matrix; a bias is a row.
pub(super) struct Part {
    pub(super) range: Range<usize>,
    pub(super) dims: [usize; 2],
    /// Whether the penalty and the decay of weights are for it.
    pub(super) decays: bool,
}

/// Weights and bias of a layer.
pub(super) type Layer<L> = [Matrix<L>; 2];

/// What outputs tell, for each of their rows.
pub(super) struct Told<L: Library> {
    /// `[rows, actions, atoms]`: for each action its q-value, its quantiles or the logits of its categories.
    pub(super) atoms: L::Tensor<3>,
    /// `[rows, actions]`: q-values.
    pub(super) q: Matrix<L>,
}

/// How a network of a shape is computed.
pub(super) struct Network {
    pub(super) shape: NetworkShape,
    pub(super) parts: Vec<Part>,
}

impl Network {
    pub(super) fn new(shape: NetworkShape) -> Network {
        let mut parts = Vec::new();
        for layer in shape.layers() {
            parts.push(Part { range: layer.weights, dims: [layer.inputs, layer.outputs], decays: true });
            parts.push(Part { range: layer.bias, dims: [1, layer.outputs], decays: false });
        }
        for noisy in shape.noisy() {
            let dims = parts[2 * noisy.layer].dims;
            let split = noisy.sigma.start + dims[0] * dims[1];
            parts.push(Part { range: noisy.sigma.start..split, dims, decays: false });
            parts.push(Part { range: split..noisy.sigma.end, dims: [1, dims[1]], decays: false });
        }
        Network { shape, parts }
    }

    /// Parameters in canonical layout as matrices.
    pub(super) fn split<L: Library>(&self, library: &L, parameters: &[f32]) -> Vec<Matrix<L>> {
        self.parts.iter().map(|part| library.tensor(&parameters[part.range.clone()], part.dims)).collect()
    }

    /// Matrices as parameters in canonical layout.
    pub(super) fn join<L: Library>(&self, parts: &[Matrix<L>]) -> Vec<f32> {
        let mut parameters = Vec::with_capacity(self.shape.parameter_count());
        for part in parts {
            parameters.extend(L::values(part.clone()));
        }
        parameters
    }

    /// The layers, those that are noisy with `weight + sigma * e_in * e_out` and `bias + sigma * e_out` (Fortunato et al. 2018,
    /// equations 9 to 11); without factors there is no noise.
    pub(super) fn layers<L: Library>(&self, library: &L, parts: &[Matrix<L>], factors: &[f32]) -> Vec<Layer<L>> {
        let (plain, sizes) = parts.split_at(2 * self.shape.layer_count());
        let mut layers: Vec<Layer<L>> =
            plain.chunks_exact(2).map(|layer| [layer[0].clone(), layer[1].clone()]).collect();
        if factors.is_empty() {
            return layers;
        }
        for (noisy, sigma) in self.shape.noisy().zip(sizes.chunks_exact(2)) {
            let [inputs, outputs] = self.parts[2 * noisy.layer].dims;
            let (left, right) = factors[noisy.factors].split_at(inputs);
            let (left, right) = (library.tensor(left, [inputs, 1]), library.tensor(right, [1, outputs]));
            let [weight, bias] = layers[noisy.layer].clone();
            let weight = weight + sigma[0].clone() * (left * right.clone());
            layers[noisy.layer] = [weight, bias + sigma[1].clone() * right];
        }
        layers
    }

    /// The outputs of the last layer for rows of inputs; `keep` has the scales of drop-out of the layers that have it.
    pub(super) fn outputs<L: Library>(
        &self,
        layers: &[Layer<L>],
        states: Matrix<L>,
        keep: &[Option<Matrix<L>>],
    ) -> Matrix<L> {
        let last = layers.len() - 1;
        layers.iter().enumerate().fold(states, |input, (l, [weight, bias])| {
            let input = match keep.get(l) {
                Some(Some(keep)) => input * keep.clone(),
                _ => input,
            };
            let output = L::product(input, weight.clone()) + bias.clone();
            if l == last { output } else { output.relu() }
        })
    }

    /// Reads `rows` rows of outputs. A dueling head joins as `V + (A - mean A)` (Wang et al. 2016, equation 9).
    pub(super) fn tell<L: Library>(&self, library: &L, outputs: Matrix<L>, rows: usize) -> Told<L> {
        let (actions, atoms) = (self.shape.actions(), self.shape.returns().atoms());
        let told = if self.shape.is_dueling() {
            let advantages = L::columns(outputs.clone(), 0, actions * atoms);
            let advantages: L::Tensor<3> = L::reshape(advantages, [rows, actions, atoms]);
            let value = L::columns(outputs, actions * atoms, (actions + 1) * atoms);
            let value: L::Tensor<3> = L::reshape(value, [rows, 1, atoms]);
            let mean = advantages.clone().sum_along(1) * (1.0 / actions as f32);
            value + (advantages - mean)
        } else {
            L::reshape(outputs, [rows, actions, atoms])
        };
        let q = match self.shape.returns() {
            Returns::Mean => told.clone(),
            Returns::Quantiles(_) => told.clone().sum_along(2) * (1.0 / atoms as f32),
            returns @ Returns::Categorical { .. } => {
                let support = library.tensor(&support(returns), [1, 1, atoms]);
                (log_softmax(told.clone(), 2).exp() * support).sum_along(2)
            }
        };
        Told { atoms: told, q: L::reshape(q, [rows, actions]) }
    }
}

/// The values of the categories of categorical returns; none of others.
pub(super) fn support(returns: Returns) -> Vec<f32> {
    let Returns::Categorical { atoms, minimum, maximum } = returns else { return Vec::new() };
    (0..atoms).map(|k| (k as f32 / (atoms - 1) as f32).mul_add(maximum - minimum, minimum)).collect()
}

/// The logarithms of the softmax along a dimension.
pub(super) fn log_softmax<const D: usize, T: Tensor<D>>(logits: T, dim: usize) -> T {
    let highest = logits.clone().max_along(dim).detach();
    let gaps = logits - highest;
    gaps.clone() - gaps.exp().sum_along(dim).ln()
}

/// `temperature * ln softmax(q / temperature)` over the allowed actions; what stands at the others means nothing.
pub(super) fn log_policy<T: Tensor<2>>(temperature: f32, q: T, allowed: T) -> T {
    let q = q.only(allowed, f32::MIN);
    let gaps = q.clone() - q.max_along(1).detach();
    gaps.clone() - (gaps * (1.0 / temperature)).exp().sum_along(1).ln() * temperature
}
