//! What surrounds the layers: checks of a state, activations into two integer parts, norms.
//!
//! Plain Rust over sixteen independent chains, compiled for each instruction set: the operations, and so the bytes, are the
//! same everywhere.

use super::dispatch::for_each_isa;
use super::{Active, Kernel};
use crate::engine::slab::{LANES, Lane};

/// Added to and taken from a number of less than 2^22, it rounds to an integer, ties to even; before it is taken, the low bits
/// of the sum are that integer.
const ROUNDER: f32 = 12_582_912.0;

/// The active inputs of a layer in two integer parts: `x = step * (upper + remainder)`, and `lower` is the remainder in units
/// of `fine`, to the nearest.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct Split {
    upper: Vec<i16>,
    lower: Vec<i16>,
    len: usize,
    /// What a unit of the upper part is worth: a power of two.
    pub step: f32,
    /// What a unit of the lower part is worth: a power of two.
    pub fine: f32,
}

/// Sums of squares that were measured on the way, each of at most `len / 16 + 6` roundings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::engine) struct Measured {
    /// Of the activations, in units of the step.
    pub squares: f32,
    /// Of what the two parts leave out, in units of `fine`.
    pub residual_squares: f32,
}

impl Split {
    /// Makes room for layers of up to `inputs` inputs.
    pub(in crate::engine) fn grow(&mut self, inputs: usize) {
        let room = inputs.next_multiple_of(LANES);
        if self.upper.len() < room {
            self.upper.resize(room, 0);
            self.lower.resize(room, 0);
        }
    }

    /// Inputs that there is room for.
    pub(in crate::engine) fn room(&self) -> usize {
        self.upper.len()
    }

    pub(super) fn upper(&self) -> &[i16] {
        &self.upper[..self.len]
    }

    pub(super) fn lower(&self) -> &[i16] {
        &self.lower[..self.len]
    }

    /// Pairs of neighbours; the last one is filled up with zero.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn upper_pairs(&self) -> &[[i16; 2]] {
        self.upper[..self.len.next_multiple_of(2)].as_chunks().0
    }

    /// As [`Split::upper_pairs`].
    #[cfg(target_arch = "x86_64")]
    pub(super) fn lower_pairs(&self) -> &[[i16; 2]] {
        self.lower[..self.len.next_multiple_of(2)].as_chunks().0
    }

    /// Splits the active inputs, of which `value * inverse` is at most 2^14 in absolute value: the caller's `step` is what
    /// one unit of that product is worth, and `lower_bits + 1` are the bits of the lower part.
    ///
    /// # Panics
    /// When there is no room.
    pub(in crate::engine) fn fill(
        &mut self,
        kernel: Kernel,
        active: &mut Active,
        inverse: f32,
        step: f32,
        lower_bits: u32,
    ) -> Measured {
        let fineness = (1_u32 << (lower_bits + 1)) as f32;
        (self.step, self.fine, self.len) = (step, step / fineness, active.value().len());
        let values = active.padded_value();
        let (upper, lower) = (&mut self.upper[..values.len()], &mut self.lower[..values.len()]);
        split(kernel, values, inverse, fineness, upper, lower)
    }
}

for_each_isa! {
    fn split(values: &[f32], inverse: f32, fineness: f32, upper: &mut [i16], lower: &mut [i16]) -> Measured {
        let (mut squares, mut residuals) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let parts = upper.as_chunks_mut::<LANES>().0.iter_mut().zip(lower.as_chunks_mut::<LANES>().0);
        for (values, (upper, lower)) in values.as_chunks::<LANES>().0.iter().zip(parts) {
            for lane in 0..LANES {
                let value = values[lane] * inverse;
                let whole = value + ROUNDER;
                let rest = (value - (whole - ROUNDER)) * fineness;
                let rounded = rest + ROUNDER;
                let residual = rest - (rounded - ROUNDER);
                // The low half of the bits is the integer in two's complement.
                upper[lane] = whole.to_bits() as i16;
                lower[lane] = rounded.to_bits() as i16;
                squares[lane] = value.mul_add(value, squares[lane]);
                residuals[lane] = residual.mul_add(residual, residuals[lane]);
            }
        }
        Measured { squares: tree(squares), residual_squares: tree(residuals) }
    }
}

for_each_isa! {
    /// The largest absolute value, 0 of none; NaN may be passed over.
    fn largest(values: &[f32]) -> f32 {
        let mut most = [0.0_f32; LANES];
        for values in values.as_chunks::<LANES>().0 {
            for lane in 0..LANES {
                let value = values[lane].abs();
                most[lane] = if value > most[lane] { value } else { most[lane] };
            }
        }
        most.into_iter().fold(0.0, f32::max)
    }
}

for_each_isa! {
    /// The sum of squares, with at most `len / 16 + 6` roundings of each term. `values` are whole lanes.
    fn squares(values: &[f32]) -> f32 {
        let mut squares = [0.0_f32; LANES];
        for values in values.as_chunks::<LANES>().0 {
            for lane in 0..LANES {
                squares[lane] = values[lane].mul_add(values[lane], squares[lane]);
            }
        }
        tree(squares)
    }
}

for_each_isa! {
    /// Whether all values are finite and within the limits.
    fn all_within(values: &[f32], low: f32, high: f32) -> bool {
        // Limits may be infinite. A comparison with NaN is false, and no branch stops the pass.
        let (low, high) = (low.max(f32::MIN), high.min(f32::MAX));
        // One flat sum of flags: a loop over lanes within would be turned inside out by the compiler, into gathers.
        let outside = |value: f32| u32::from(!((value >= low) & (value <= high)));
        values.iter().fold(0, |any, &value| any | outside(value)) == 0
    }
}

for_each_isa! {
    /// `out = values * factors`, all as long as `out`.
    fn products(values: &[f32], factors: &[f32], out: &mut [f32]) {
        for ((out, value), factor) in out.iter_mut().zip(values).zip(factors) {
            *out = value * factor;
        }
    }
}

for_each_isa! {
    /// The sum of squares of `weights[k] . direction` over the rows `k` whose `sum` is above `floor`, each product a chain of at
    /// most `direction / 16 + 5` roundings of each term.
    fn directions(weights: &[Lane], direction: &[f32], sums: &[f32], floor: f32) -> f32 {
        let row = direction.len() / LANES;
        let directions = direction.as_chunks::<LANES>().0;
        let mut squares = 0.0_f32;
        for (weights, &sum) in weights.chunks_exact(row).zip(sums) {
            if sum > floor {
                let mut products = [0.0_f32; LANES];
                for (weights, direction) in weights.iter().zip(directions) {
                    for lane in 0..LANES {
                        products[lane] = weights.0[lane].mul_add(direction[lane], products[lane]);
                    }
                }
                let product = tree(products);
                squares = product.mul_add(product, squares);
            }
        }
        squares
    }
}

/// Sixteen sums into one, in a fixed order.
#[inline(always)]
fn tree(mut sums: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for place in 0..half {
            sums[place] += sums[place + half];
        }
        half /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::isa::Isa;

    proptest! {
        #[test]
        fn the_parts_and_what_is_measured_of_the_rest_make_up_the_value(
            values in proptest::collection::vec(prop_oneof![1 => Just(1.0_f32), 1 => 0.0_f32..1e-30, 4 => -1.0_f32..1.0], 1..60),
            bits in 0_u32..15,
            lower_bits in 0_u32..15,
        ) {
            let mut padded = values.clone();
            padded.resize(values.len().next_multiple_of(LANES), 0.0);
            let (inverse, fineness) = ((1_u32 << bits) as f32, (1_u32 << (lower_bits + 1)) as f32);
            let mut all = Vec::new();
            for isa in Isa::ALL {
                let Some(kernel) = Kernel::new(isa) else { continue };
                let (mut upper, mut lower) = (vec![7_i16; padded.len()], vec![7_i16; padded.len()]);
                let measured = split(kernel, &padded, inverse, fineness, &mut upper, &mut lower);
                let (mut squares, mut residuals) = (0.0_f64, 0.0_f64);
                for (k, &value) in padded.iter().enumerate() {
                    let scaled = f64::from(value) * f64::from(inverse);
                    let whole = f64::from(upper[k]) + f64::from(lower[k]) / f64::from(fineness);
                    let rest = (scaled - whole) * f64::from(fineness);
                    prop_assert!(rest.abs() <= 0.5 && i32::from(lower[k]).abs() <= 1 << lower_bits, "{value} on {isa}");
                    prop_assert!(i32::from(upper[k]).abs() <= 1 << bits);
                    squares += scaled * scaled;
                    residuals += rest * rest;
                }
                prop_assert!((f64::from(measured.squares) - squares).abs() <= 1e-5 * squares + 1e-37);
                prop_assert!((f64::from(measured.residual_squares) - residuals).abs() <= 1e-5 * residuals + 1e-37);
                let most = largest(kernel, &padded);
                prop_assert_eq!(most, values.iter().fold(0.0, |most: f32, value| most.max(value.abs())));
                prop_assert!((f64::from(super::squares(kernel, &padded)) * f64::from(inverse).powi(2) - squares).abs() <= 1e-5 * squares + 1e-30);
                all.push((upper, lower, measured.squares.to_bits(), measured.residual_squares.to_bits()));
            }
            prop_assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
        }

        #[test]
        fn a_value_outside_is_found_wherever_it_stands(
            mut values in proptest::collection::vec(0.0_f32..=1.0, 0..70),
            place: usize,
            wrong in prop::sample::select(vec![-0.001_f32, 1.001, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX]),
        ) {
            for isa in Isa::ALL {
                let Some(kernel) = Kernel::new(isa) else { continue };
                prop_assert!(all_within(kernel, &values, 0.0, 1.0));
            }
            if values.is_empty() {
                return Ok(());
            }
            let place = place % values.len();
            values[place] = wrong;
            for isa in Isa::ALL {
                let Some(kernel) = Kernel::new(isa) else { continue };
                prop_assert!(!all_within(kernel, &values, 0.0, 1.0));
                prop_assert_eq!(all_within(kernel, &values, f32::NEG_INFINITY, f32::INFINITY), wrong.is_finite());
            }
        }
    }
}
