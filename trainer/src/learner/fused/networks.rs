//! The online and the target network: their parameters, and those with the noise of noisy layers.

use super::aligned::Aligned;
use super::head::Head;
use super::kernels::Kernels;
use super::worker::Shared;
use crate::learner::{Noise, TargetSync};
use crate::network::{LayerShape, NetworkShape};

/// Two networks of one shape.
pub(super) struct Networks {
    pub(super) shape: NetworkShape,
    pub(super) layers: Vec<LayerShape>,
    pub(super) kernels: Kernels,
    pub(super) online: Aligned,
    pub(super) target: Aligned,
    /// The plain parameters with the noise of noisy layers; empty without such layers.
    noisy_online: Aligned,
    noisy_target: Aligned,
}

impl Networks {
    /// Both with these parameters, which belong to the shape.
    pub(super) fn new(shape: NetworkShape, parameters: &[f32], kernels: Kernels) -> Networks {
        Networks {
            layers: shape.layers().collect(),
            online: Aligned::from_slice(parameters),
            target: Aligned::from_slice(parameters),
            noisy_online: Aligned::default(),
            noisy_target: Aligned::default(),
            shape,
            kernels,
        }
    }

    /// What threads share in passes without noise.
    pub(super) fn plain(&self) -> Shared<'_> {
        self.with(&self.online, &self.target)
    }

    /// What threads share in passes with the noise that was last applied.
    pub(super) fn noisy(&self) -> Shared<'_> {
        if self.shape.factor_count() == 0 { self.plain() } else { self.with(&self.noisy_online, &self.noisy_target) }
    }

    fn with<'a>(&'a self, online: &'a [f32], target: &'a [f32]) -> Shared<'a> {
        Shared { kernels: self.kernels, layers: &self.layers, head: Head::of(&self.shape), online, target }
    }

    /// Applies the noise of an update to both networks.
    pub(super) fn apply(&mut self, noise: Noise<'_>) {
        self.apply_online(noise.online);
        apply(self.kernels, &self.shape, &self.layers, &self.target, noise.target, &mut self.noisy_target);
    }

    /// Applies noise to the online network.
    pub(super) fn apply_online(&mut self, factors: &[f32]) {
        apply(self.kernels, &self.shape, &self.layers, &self.online, factors, &mut self.noisy_online);
    }

    /// Writes the slopes by the sizes of noise behind those of the plain parameters.
    pub(super) fn noise_slopes(&self, factors: &[f32], gradient: &mut [f32]) {
        let (plain, sizes) = gradient.split_at_mut(self.shape.plain_count());
        for noisy in self.shape.noisy() {
            let (layer, factors) = (&self.layers[noisy.layer], &factors[noisy.factors]);
            let (left, right) = factors.split_at(layer.inputs);
            let slopes = &plain[layer.weights.start..layer.bias.end];
            let sizes = &mut sizes[noisy.sigma.start - plain.len()..noisy.sigma.end - plain.len()];
            let rows = sizes.chunks_exact_mut(layer.outputs).zip(slopes.chunks_exact(layer.outputs));
            for ((sizes, slopes), left) in rows.zip(left.iter().chain(&[1.0])) {
                self.kernels.noise_slopes(sizes, slopes, *left, right);
            }
        }
    }

    /// Moves the target network.
    pub(super) fn follow(&mut self, sync: TargetSync) {
        follow(self.kernels, sync, &self.online, &mut self.target);
    }
}

/// Moves a part of the target network.
pub(super) fn follow(kernels: Kernels, sync: TargetSync, online: &[f32], target: &mut [f32]) {
    match sync {
        TargetSync::Keep => {}
        TargetSync::Hard => target.copy_from_slice(online),
        TargetSync::Soft(tau) => kernels.follow(target, online, tau),
    }
}

/// The plain parameters, those of noisy layers with their noise; the biases are one more row whose factor is 1.
fn apply(
    kernels: Kernels,
    shape: &NetworkShape,
    layers: &[LayerShape],
    parameters: &[f32],
    factors: &[f32],
    out: &mut Aligned,
) {
    if factors.is_empty() {
        return;
    }
    let plain = shape.plain_count();
    out.reserve(plain);
    out[..plain].copy_from_slice(&parameters[..plain]);
    for noisy in shape.noisy() {
        let (layer, factors) = (&layers[noisy.layer], &factors[noisy.factors]);
        let (left, right) = factors.split_at(layer.inputs);
        let whole = layer.weights.start..layer.bias.end;
        let rows =
            out[whole.clone()].chunks_exact_mut(layer.outputs).zip(parameters[whole].chunks_exact(layer.outputs));
        let sigma = parameters[noisy.sigma].chunks_exact(layer.outputs);
        for (((out, means), sigma), left) in rows.zip(sigma).zip(left.iter().chain(&[1.0])) {
            kernels.add_noise(out, means, sigma, *left, right);
        }
    }
}
