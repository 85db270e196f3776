//! The reference: the numeric contract, spelled out.

use super::Active;
use crate::engine::slab::{LANES, Lane, Layer};

/// See [`super::Kernel::affine`].
pub(super) fn affine(layer: &Layer<'_>, inputs: &Active, out: &mut [Lane]) {
    out.copy_from_slice(layer.bias);
    let row_lanes = out.len();
    for (&index, &value) in inputs.index().iter().zip(inputs.value()) {
        let row = &layer.weights[index as usize * row_lanes..][..row_lanes];
        for (sums, weights) in out.iter_mut().zip(row) {
            for lane in 0..LANES {
                sums.0[lane] = value.mul_add(weights.0[lane], sums.0[lane]);
            }
        }
    }
}
