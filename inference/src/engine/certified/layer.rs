//! One hidden layer in 16-bit integers: its weights, its scales, and what its arithmetic can be off by.

use super::norms::{Matrix, euclidean};
use crate::engine::kernels::{IntegerLayer, Kernel, Words};
use crate::engine::slab::{LANES, Lane, Layer};

/// Largest integer weight.
const LARGEST: f64 = 32_767.0;

/// The sums of products must stay at or below this in absolute value.
const BUDGET: i64 = i32::MAX as i64;

/// Largest exponent of an activation's two parts: 2^14 fits i16 with room to spare.
const MOST_BITS: u32 = 14;

/// Largest factor of an input, as an exponent.
const MOST_FACTOR_BITS: i32 = 6;

/// Weights and ranges past 2^40 are left to the canonical kernel; scales below 2^-60 are not used, so that no scale underflows.
const LARGEST_WEIGHT: f32 = (1_u64 << 40) as f32;
const SMALLEST_SCALE: f64 = 1.0 / (1_u64 << 60) as f64;

/// A hidden layer, ready for integer arithmetic.
///
/// With inputs `x'_k = c_k x_k` and weights `w'_kj = w_kj / c_k` (`c_k` a power of two), output `j` is computed as
/// `b_j + s_j (step S_hi + fine S_lo)`: `S` are sums of integer weights `W_kj`, close to `w'_kj / s_j`, times the two integer
/// parts of the activations.
#[derive(Debug)]
pub(super) struct Hidden {
    /// Per input, then zeros up to a whole lane: `c_k` for the first layer's inputs; empty where all are 1.
    pub factors: Vec<f32>,
    /// The integer weights.
    pub integers: IntegerLayer,
    /// The upper parts of activations are at most `2^upper_bits` in absolute value; an input with factor `c_k` reaches
    /// `2^upper_bits c_k / max c`.
    pub upper_bits: u32,
    /// The lower parts are at most `2^lower_bits` in absolute value, in units of `2^-(lower_bits + 1)` of the upper ones.
    pub lower_bits: u32,
    /// Number of inputs.
    pub inputs: usize,
    /// At least `|W'|_2`.
    pub sigma: f64,
    /// At least `|s W - W'|_2`.
    pub delta: f64,
    /// At least `|b|_2`.
    pub bias: f64,
}

impl Hidden {
    /// A layer whose inputs are rescaled where `rescale`, which wants inputs that are at most `limit` in absolute value.
    /// `None` where the weights are beyond what the arithmetic is made for.
    pub(super) fn new(kernel: Kernel, layer: &Layer<'_>, inputs: usize, rescale: bool) -> Option<Self> {
        let outputs = layer.outputs;
        let weight =
            |input: usize, output: usize| layer.weights[input * layer.bias.len() + output / LANES].0[output % LANES];
        let all = || (0..inputs).flat_map(|k| (0..outputs).map(move |j| weight(k, j)));
        if all().any(|w| w.abs() > LARGEST_WEIGHT) {
            return None;
        }
        let factors = if rescale { factors(inputs, outputs, weight) } else { vec![1.0; inputs] };
        let most = factors.iter().copied().fold(1.0, f64::max);
        // Output-major, as every sum below runs over inputs.
        let matrix = Matrix {
            rows: outputs,
            columns: inputs,
            values: (0..outputs * inputs)
                .map(|i| f64::from(weight(i % inputs, i / inputs)) / factors[i % inputs])
                .collect(),
        };
        let sigma = matrix.spectral(kernel);
        let shares: Vec<f64> = factors.iter().map(|factor| factor / most).collect();
        let (scales, integers) = quantise(&matrix, &shares, sigma);
        let sums = |share: &dyn Fn(usize) -> f64| {
            let row = |row: &[i16]| row.iter().enumerate().map(|(k, w)| f64::from(*w).abs() * share(k)).sum::<f64>();
            // Sums of integers times powers of two, far below 2^53: exact.
            integers.chunks_exact(inputs).map(row).fold(1.0, f64::max)
        };
        let upper_bits = bits(sums(&|k| shares[k]));
        let lower_bits = bits(sums(&|_| 1.0));
        // An input with the least factor must keep at least one bit, or its bound would not be a whole number.
        if most > f64::from(1_u32 << upper_bits) {
            return None;
        }
        let error = matrix.values.iter().zip(&integers).enumerate();
        let error = error.map(|(i, (w, &integer))| f64::from(integer) * f64::from(scales[i / inputs]) - w).collect();
        let delta = Matrix { rows: outputs, columns: inputs, values: error }.spectral(kernel);
        let bias = euclidean(layer.bias.iter().flat_map(|lane| lane.0).map(f64::from));
        let exact = if rescale { padded(&factors) } else { Vec::new() };
        let integers = IntegerLayer {
            rows: pack(&integers, inputs, outputs),
            bias: lanes((0..outputs).map(|j| layer.bias[j / LANES].0[j % LANES])),
            scale: lanes(scales.iter().copied()),
            outputs,
        };
        Some(Hidden { factors: exact, integers, upper_bits, lower_bits, inputs, sigma, delta, bias })
    }

    /// The largest factor.
    pub(super) fn largest_factor(&self) -> f32 {
        self.factors.iter().copied().fold(1.0, f32::max)
    }
}

/// Powers of two by which inputs with large weights are multiplied, and their weights divided, so that a few of them do not
/// coarsen the scale of every output: 1 up to three quarters of the inputs with weights.
fn factors(inputs: usize, outputs: usize, weight: impl Fn(usize, usize) -> f32) -> Vec<f64> {
    let largest: Vec<f64> =
        (0..inputs).map(|k| (0..outputs).map(|j| f64::from(weight(k, j).abs())).fold(0.0, f64::max)).collect();
    let mut ranked: Vec<f64> = largest.iter().copied().filter(|largest| *largest > SMALLEST_SCALE).collect();
    ranked.sort_by(f64::total_cmp);
    let Some(&usual) = ranked.get(ranked.len() * 3 / 4) else {
        return vec![1.0; inputs];
    };
    let exponent = |largest: f64| (largest.max(usual) / usual).log2() as i32;
    largest.into_iter().map(|largest| f64::from(1 << exponent(largest).min(MOST_FACTOR_BITS))).collect()
}

/// Scales per output, and the integer weights, output after output.
///
/// Fine weights leave few bits to the activations. Of the ways to share the 31 bits of a sum the one is taken whose two errors
/// are estimated to add up to the least.
fn quantise(matrix: &Matrix, shares: &[f64], sigma: f64) -> (Vec<f32>, Vec<i16>) {
    let rows = || matrix.values.chunks_exact(matrix.columns);
    let largest: Vec<f64> = rows().map(|row| row.iter().fold(0.0_f64, |m, w| m.max(w.abs()))).collect();
    let sums: Vec<f64> = rows().map(|row| row.iter().map(|w| w.abs()).sum()).collect();
    let shared: Vec<f64> = rows().map(|row| row.iter().zip(shares).map(|(w, share)| w.abs() * share).sum()).collect();
    let scales = |lower_bits: u32| -> Vec<f64> {
        // Rounding adds at most half a unit for each input.
        let room = (BUDGET >> lower_bits) as f64 - matrix.columns as f64;
        let scale = |(largest, sum): (&f64, &f64)| {
            (largest / LARGEST).max(sum / room.max(1.0)).max(SMALLEST_SCALE) * (1.0 + 1e-6)
        };
        largest.iter().zip(&sums).map(scale).collect()
    };
    let error = |lower_bits: u32| {
        let scales = scales(lower_bits);
        let most = shared.iter().zip(&scales).map(|(sum, scale)| sum / scale).fold(1.0, f64::max);
        let upper_bits = bits(most);
        euclidean(scales) / 3.0 + sigma * (-f64::from(upper_bits + lower_bits + 1)).exp2()
    };
    let best = (0..=MOST_BITS).min_by(|&a, &b| error(a).total_cmp(&error(b))).unwrap_or(0);
    let scales: Vec<f32> = scales(best).into_iter().map(|scale| scale as f32).collect();
    // A scale that is a little too small for the largest weight is caught by the clamp, and the error is measured anyway.
    let integer = |(i, w): (usize, &f64)| {
        (w / f64::from(scales[i / matrix.columns])).round_ties_even().clamp(-LARGEST, LARGEST) as i16
    };
    let integers = matrix.values.iter().enumerate().map(integer).collect();
    (scales, integers)
}

/// The most bits of a factor of a sum that stays within the budget.
fn bits(sum: f64) -> u32 {
    (0..=MOST_BITS).rev().find(|&bits| sum * f64::from(1_u32 << bits) <= BUDGET as f64).unwrap_or(0)
}

fn padded(factors: &[f64]) -> Vec<f32> {
    // Powers of two up to 64: exact.
    let mut padded: Vec<f32> = factors.iter().map(|&factor| factor as f32).collect();
    padded.resize(factors.len().next_multiple_of(LANES), 0.0);
    padded
}

/// Values in lanes, as many as whole rows of words have outputs.
fn lanes(values: impl ExactSizeIterator<Item = f32>) -> Vec<Lane> {
    let mut lanes = vec![Lane::ZERO; values.len().div_ceil(Words::LEN) * (Words::LEN / LANES)];
    for (j, value) in values.enumerate() {
        lanes[j / LANES].0[j % LANES] = value;
    }
    lanes
}

/// Rows of words, input after input, from integers output after output.
fn pack(integers: &[i16], inputs: usize, outputs: usize) -> Vec<Words> {
    let row = outputs.div_ceil(Words::LEN);
    let mut rows = vec![Words::ZERO; inputs * row];
    for (i, &integer) in integers.iter().enumerate() {
        let (j, k) = (i / inputs, i % inputs);
        rows[k * row + j / Words::LEN].0[Words::place(j % Words::LEN)] = integer;
    }
    rows
}
