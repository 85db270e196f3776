//! One affine layer in f32 with four chains for each output instead of one: a quarter of the time to wait for, but not the
//! canonical bytes. All instruction sets give the same ones.

#[cfg(target_arch = "x86_64")]
use super::x86;
use super::{Active, Kernel};
use crate::engine::isa::Isa;
use crate::engine::slab::{LANES, Lane, Layer};

/// Chains for each output: input `k` of the active ones goes to chain `k mod 4`.
pub(super) const CHAINS: usize = 4;

impl Kernel {
    /// `out_j = ((chain 0 + chain 1) + (chain 2 + chain 3)) + bias_j`.
    ///
    /// # Panics
    /// When `out` is not as long as the layer's rows, or an input has no row.
    pub(in crate::engine) fn interleaved(self, layer: &Layer<'_>, inputs: &Active, out: &mut [Lane]) {
        assert_eq!(out.len(), layer.bias.len());
        match self.isa() {
            Isa::Scalar => scalar(layer, inputs, out),
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            // SAFETY: a `Kernel` exists only where the processor has its instruction set.
            Isa::Avx2 => unsafe { x86::interleaved_avx2(layer, inputs, out) },
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            // SAFETY: as for AVX2.
            Isa::Avx512 => unsafe { x86::interleaved_avx512(layer, inputs, out) },
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => scalar(layer, inputs, out),
        }
    }
}

/// The reference.
fn scalar(layer: &Layer<'_>, inputs: &Active, out: &mut [Lane]) {
    let row = out.len();
    for (lane, out) in out.iter_mut().enumerate() {
        let mut sums = [[0.0_f32; LANES]; CHAINS];
        for (k, (&index, &value)) in inputs.index().iter().zip(inputs.value()).enumerate() {
            let weights = &layer.weights[index as usize * row + lane].0;
            for (sum, weight) in sums[k % CHAINS].iter_mut().zip(weights) {
                *sum = value.mul_add(*weight, *sum);
            }
        }
        for (place, out) in out.0.iter_mut().enumerate() {
            let [a, b, c, d] = [0, 1, 2, 3].map(|chain: usize| sums[chain][place]);
            *out = ((a + b) + (c + d)) + layer.bias[lane].0[place];
        }
    }
}
