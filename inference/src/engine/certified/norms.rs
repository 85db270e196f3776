//! Upper bounds of norms that hold, rounding and all: an estimate would make a certificate a guess.

use crate::engine::kernels::{Kernel, gram};

/// Covers the rounding of sums and products in f64 around a bound: a few thousand roundings of 2^-53 are below 1e-12, and the
/// longer sums below say what they add.
const SLACK: f64 = 1.0 + 1e-9;

/// Squarings of the Gram matrix. Each halves the logarithm of what the Frobenius norm overshoots by: after five, a spectrum of
/// 512 equal values is overestimated by 5 %.
const SQUARINGS: usize = 5;

/// Largest side of a Gram matrix, and most multiplications to form it: tenths of a second of load time. Beyond, cheaper norms serve.
const LARGEST_SIDE: usize = 512;
const MOST_PRODUCTS: usize = 1 << 31;

/// A matrix in f64, row after row.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    pub rows: usize,
    pub columns: usize,
    pub values: Vec<f64>,
}

/// `|values|_2`, not less.
pub(super) fn euclidean<V>(values: V) -> f64
where
    V: IntoIterator<Item = f64, IntoIter: Clone>,
{
    let values = values.into_iter();
    let squares: f64 = values.clone().map(|value| value * value).sum();
    // What underflows loses less than 1e-307 each, of a sum that is far above. NaN stays NaN.
    let plain = squares.is_nan() || (1e-200..1e200).contains(&squares);
    let norm = if plain { squares.sqrt() } else { scaled(values.clone()) };
    let count = values.count() as f64;
    // A square rounds once, a sum once for each of its terms; the scaled one three times more.
    norm * (1.0 + count * 1e-15) * SLACK
}

/// About `|values|_2`, of numbers whose squares may overflow or underflow; none is NaN.
fn scaled(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = values.clone().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let squares: f64 = values.map(|value| (value / largest) * (value / largest)).sum();
    if largest > 0.0 { largest * squares.sqrt() } else { 0.0 }
}

impl Matrix {
    pub(super) fn frobenius(&self) -> f64 {
        euclidean(self.values.iter().copied())
    }

    /// Largest sum of absolute values of a row and of a column, not less.
    fn sums(&self) -> (f64, f64) {
        let mut columns = vec![0.0; self.columns];
        let mut row = 0.0_f64;
        for values in self.values.chunks_exact(self.columns) {
            let mut sum = 0.0;
            for (column, value) in columns.iter_mut().zip(values) {
                *column += value.abs();
                sum += value.abs();
            }
            row = row.max(sum);
        }
        let slack = SLACK + (self.rows + self.columns) as f64 * 1e-15;
        (row * slack, columns.into_iter().fold(0.0, f64::max) * slack)
    }

    /// An upper bound of the spectral norm: the least of the Frobenius norm, the geometric mean of the norms of rows and
    /// columns, and, where it is cheap enough, the Frobenius norm of a power of the Gram matrix.
    pub(super) fn spectral(&self, kernel: Kernel) -> f64 {
        let (row, column) = self.sums();
        let cheap = self.frobenius().min((row * column).sqrt() * SLACK);
        let side = self.rows.min(self.columns);
        let products = side.saturating_mul(side).saturating_mul(self.rows.max(self.columns));
        if side > LARGEST_SIDE || products > MOST_PRODUCTS || !(cheap > 1e-100 && cheap < 1e100) {
            return cheap;
        }
        cheap.min(self.by_powers(kernel))
    }

    /// `|A|_2^2 = |A A'|_2`, and `|G|_2^2 = |G G|_2` for the symmetric `G` that was computed. Each product is off by at most
    /// `gamma` times the product of the Frobenius norms, and the last norm is bounded by Frobenius.
    fn by_powers(&self, kernel: Kernel) -> f64 {
        let side = self.rows.min(self.columns);
        let long = self.rows.max(self.columns);
        // Rows of the shorter side, divided by their norm so that no power overflows; a power of two divides exactly.
        let scale = self.frobenius().log2().ceil().exp2();
        let mut rows = vec![0.0; side * long];
        for (index, value) in self.values.iter().enumerate() {
            let (row, column) = (index / self.columns, index % self.columns);
            let place = if side == self.rows { row * long + column } else { column * long + row };
            rows[place] = value / scale;
        }
        let gamma = |terms: usize| (terms + 2) as f64 * f64::EPSILON;
        let mut power = gram(kernel, &rows, side);
        // Of each level: the error of its product, and what the matrix was divided by.
        let mut levels = vec![(gamma(long), 1.0)];
        for _ in 0..SQUARINGS {
            let scale = euclidean(power.iter().copied()).log2().ceil().exp2();
            power.iter_mut().for_each(|value| *value /= scale);
            levels.push((gamma(side), scale));
            power = gram(kernel, &power, side);
        }
        let mut bound = euclidean(power);
        for (error, scale) in levels.into_iter().rev() {
            // The factors of the product have Frobenius norm at most 1 after scaling.
            bound = scale * ((bound + error + 1e-290) * SLACK).sqrt();
        }
        bound * scale * SLACK
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::isa::Isa;

    fn kernel() -> Kernel {
        Kernel::new(Isa::best()).unwrap()
    }

    fn matrix() -> impl Strategy<Value = Matrix> {
        (1_usize..12, 1_usize..12, -60_i32..60, any::<u64>()).prop_map(|(rows, columns, exponent, seed)| {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5) * f64::from(exponent).exp2()
            };
            let values = (0..rows * columns).map(|_| next()).collect();
            Matrix { rows, columns, values }
        })
    }

    /// `|A x| / |x|` after some steps of power iteration: never above the norm.
    fn below(matrix: &Matrix) -> f64 {
        let mut x = vec![1.0; matrix.columns];
        let mut ratio = 0.0;
        for _ in 0..200 {
            let norm = x.iter().map(|v| v * v).sum::<f64>().sqrt();
            if norm == 0.0 {
                break;
            }
            x.iter_mut().for_each(|v| *v /= norm);
            let rows = matrix.values.chunks_exact(matrix.columns);
            let y: Vec<f64> = rows.map(|row| row.iter().zip(&x).map(|(a, b)| a * b).sum()).collect();
            ratio = y.iter().map(|v| v * v).sum::<f64>().sqrt();
            x = (0..matrix.columns)
                .map(|column| {
                    y.iter().enumerate().map(|(row, v)| v * matrix.values[row * matrix.columns + column]).sum()
                })
                .collect();
            x.iter_mut().for_each(|v| *v /= ratio.max(1e-300));
        }
        ratio
    }

    proptest! {
        #[test]
        fn the_bound_is_above_every_ratio_and_not_far_above(matrix in matrix()) {
            let (bound, ratio) = (matrix.spectral(kernel()), below(&matrix));
            prop_assert!(bound >= ratio, "{bound} {ratio}");
            // Power iteration may be slow to converge, but not that slow for what is drawn.
            prop_assert!(bound <= ratio * 1.2, "{bound} {ratio}");
            prop_assert!(bound <= matrix.frobenius());
        }
    }

    #[test]
    fn norms_of_extreme_numbers_neither_overflow_nor_vanish() {
        let check = |values: &[f64], low: f64, high: f64| {
            let norm = euclidean(values.iter().copied());
            assert!(norm >= low && norm <= high * (1.0 + 1e-8), "{values:?}: {norm}");
        };
        check(&[], 0.0, 0.0);
        check(&[0.0, -0.0], 0.0, 0.0);
        check(&[3e200, 4e200], 5e200, 5e200);
        check(&[3e-200, -4e-200], 5e-200, 5e-200);
        check(&[1e-300, 1e300], 1e300, 1e300);
        assert!(euclidean([f64::NAN, 1.0]).is_nan() && euclidean([1.0, f64::NAN]).is_nan());
        let wide = Matrix { rows: 1, columns: 3, values: vec![1e-120, 2e-120, -2e-120] };
        assert!(wide.spectral(kernel()) >= 3e-120 && wide.spectral(kernel()) < 3.1e-120);
    }
}
