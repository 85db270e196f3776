//! A hidden layer in 16-bit integers, on each instruction set, all with the same bytes.
//!
//! Two active inputs at a time: their rows are interleaved, so that one instruction multiplies both and adds the pair to the
//! sum of an output. Sums are exact as long as none exceeds an i32, which the layer's maker guarantees.

#[cfg(target_arch = "x86_64")]
use super::x86_integer;
use super::{Active, Kernel, Split};
use crate::engine::isa::Isa;
use crate::engine::slab::{LANES, Lane};

/// The integer weights of one input for 32 outputs, in the order in which interleaving leaves sums sorted.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub(in crate::engine) struct Words(pub [i16; Words::LEN]);

impl Words {
    /// Outputs in it.
    pub(in crate::engine) const LEN: usize = 2 * LANES;

    pub(in crate::engine) const ZERO: Words = Words([0; Words::LEN]);

    /// Where output `j` of 32 stands. The processor interleaves within 128 bits: of each eight words the first four go to
    /// one register and the last four to another, so the first of these hold outputs 0 to 15 and the second 16 to 31.
    pub(in crate::engine) const fn place(j: usize) -> usize {
        let (half, rest) = (j / LANES, j % LANES);
        8 * (rest / 4) + 4 * half + rest % 4
    }
}

/// Integer weights with what turns their sums into numbers.
#[derive(Debug)]
pub(in crate::engine) struct IntegerLayer {
    /// The rows, input after input, each as long as half of `bias`.
    pub rows: Vec<Words>,
    /// The biases, padded with zeros to whole rows.
    pub bias: Vec<Lane>,
    /// What one unit of a sum is worth, per output, padded with zeros.
    pub scale: Vec<Lane>,
    /// Number of outputs without the padding.
    pub outputs: usize,
}

impl Kernel {
    /// `out_j = bias_j + scale_j (step * sum of upper parts + fine * sum of lower parts)`, the inner product and sum first.
    /// `step` and `fine` are powers of two.
    ///
    /// # Panics
    /// When `out` is not as long as the layer's biases, or an input has no row.
    pub(in crate::engine) fn integer(self, layer: &IntegerLayer, inputs: &Active, split: &Split, out: &mut [Lane]) {
        assert!(out.len() == layer.bias.len() && out.len() == layer.scale.len());
        match self.integer_isa() {
            Isa::Scalar => scalar(layer, inputs, split, out),
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            // SAFETY: a `Kernel` exists only where the processor has its instruction set.
            Isa::Avx2 => unsafe { x86_integer::layer_avx2(layer, inputs, split, out) },
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            // SAFETY: `has_integers` looked for VNNI and BW before this kernel was made.
            Isa::Avx512 => unsafe { x86_integer::layer_vnni(layer, inputs, split, out) },
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => scalar(layer, inputs, split, out),
        }
    }
}

/// The reference. In builds with overflow checks it shows that no sum overflows.
fn scalar(layer: &IntegerLayer, inputs: &Active, split: &Split, out: &mut [Lane]) {
    let row = out.len() / 2;
    for line in 0..row {
        let mut sums = [[0_i32; 2]; Words::LEN];
        for ((&input, &upper), &lower) in inputs.index().iter().zip(split.upper()).zip(split.lower()) {
            let weights = &layer.rows[input as usize * row + line];
            for (sum, &weight) in sums.iter_mut().zip(&weights.0) {
                sum[0] += i32::from(upper) * i32::from(weight);
                sum[1] += i32::from(lower) * i32::from(weight);
            }
        }
        for j in 0..Words::LEN {
            let [upper, lower] = sums[Words::place(j)];
            let (lane, place) = (2 * line + j / LANES, j % LANES);
            let scale = layer.scale[lane].0[place];
            let inner = (lower as f32).mul_add(scale * split.fine, layer.bias[lane].0[place]);
            out[lane].0[place] = (upper as f32).mul_add(scale * split.step, inner);
        }
    }
}
