//! From the outputs of the last layer to q-values.

use super::kernels::flat;
use super::slab::{Lane, Slab};

/// Writes a q-value for each slot of `q_values`, from the last layer's `columns`: the q-values themselves, or advantages with the
/// value behind them.
///
/// Part of the numeric contract: with `A` the advantages and `V` the value, `m = (((A_0 + A_1) + A_2) + ...) / n`, and then
/// `q_a = V + (A_a - m)`, each operation rounded to f32 (Wang et al. 2016, equation 9). A zero is given as `+0`.
#[inline]
pub(super) fn join(slab: &Slab, columns: &[Lane], q_values: &mut [f32]) {
    let columns = flat(columns);
    let (outputs, rest) = columns.split_at(q_values.len());
    if !slab.is_dueling() {
        for (slot, &value) in q_values.iter_mut().zip(outputs) {
            // A sum of -0 and +0 is +0; every other value stays as it is.
            *slot = value + 0.0;
        }
        return;
    }
    let sum = outputs.iter().copied().reduce(|sum, advantage| sum + advantage).unwrap_or(0.0);
    // At most 2^16 actions: exact.
    let mean = sum / outputs.len() as f32;
    for (slot, advantage) in q_values.iter_mut().zip(outputs) {
        *slot = (rest[0] + (advantage - mean)) + 0.0;
    }
}
