//! The kernels of the fused learner behind one safe border: operands are checked here, and what is computed is the same
//! to the last bit whichever instruction set computes it.
#![allow(unsafe_code)]

mod elementwise;
mod matrix;
mod transpose;
mod vector;

pub(super) use elementwise::{AdamStep, Decay};

use bellwether_inference::Isa;

/// The left operand of a product, read element by element.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) data: &'a [f32],
    /// Distance in `data` between neighbours in the rows of the result.
    pub(super) row: usize,
    /// Distance in `data` between neighbours in the sum.
    pub(super) step: usize,
}

/// Rows that start `stride` values apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) data: &'a [f32],
    pub(super) stride: usize,
}

/// Rows that are written, `stride` values apart.
pub(super) struct RowsMut<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) stride: usize,
}

/// What the sums of a product start from.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    /// From 0.
    Zero,
    /// From one value per column.
    Row(&'a [f32]),
    /// From what the result holds: the sums go on.
    Continue,
}

/// The kernels of one instruction set. A value exists only where the processor has the set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernels {
    isa: Isa,
}

/// Panics unless `count` rows of `width` values, `stride` apart, lie within `len` values.
fn check_rows(what: &str, len: usize, count: usize, width: usize, stride: usize) {
    let needed = if count == 0 || width == 0 { 0 } else { (count - 1) * stride + width };
    assert!(needed <= len, "{what}: {count} rows of {width}, {stride} apart, do not lie within {len} values");
}

impl Kernels {
    /// The kernels of `isa`, if the processor has it.
    pub(super) fn new(isa: Isa) -> Option<Kernels> {
        isa.is_available().then_some(Kernels { isa })
    }

    /// The instruction set.
    pub(super) fn isa(self) -> Isa {
        self.isa
    }

    /// `C[i, j] = start + sum_s A[i, s] * B[s, j]` for `i < m`, `j < n`, `s < k`: one chain of fused multiply-adds per
    /// element, in the order of `s`.
    ///
    /// # Panics
    /// If an operand is too short.
    pub(super) fn product(
        self,
        (m, n, k): (usize, usize, usize),
        start: Start<'_>,
        a: Left<'_>,
        b: Rows<'_>,
        c: RowsMut<'_>,
    ) {
        if k > 0 && m > 0 {
            let last = (m - 1) * a.row + (k - 1) * a.step;
            assert!(last < a.data.len(), "left operand: element {last} of {}", a.data.len());
        }
        check_rows("right operand", b.data.len(), k, n, b.stride);
        check_rows("result", c.data.len(), m, n, c.stride);
        assert!(m <= 1 || n <= c.stride, "rows of the result overlap");
        let start = match start {
            Start::Zero => matrix::Start::Zero,
            Start::Row(row) => {
                assert!(row.len() >= n, "start row: {} of {n} values", row.len());
                matrix::Start::Row(row.as_ptr())
            }
            Start::Continue => matrix::Start::Continue,
        };
        let product = matrix::Product {
            m,
            n,
            k,
            start,
            a: a.data.as_ptr(),
            a_row: a.row,
            a_step: a.step,
            b: b.data.as_ptr(),
            b_row: b.stride,
            c: c.data.as_mut_ptr(),
            c_row: c.stride,
        };
        match self.isa {
            // SAFETY: the operands were checked above; the portable lanes need no instruction set.
            Isa::Scalar => unsafe { matrix::product::<vector::Portable>(&product) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the operands were checked above; `new` checked the instruction set.
            Isa::Avx2 => unsafe { product_avx2(&product) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the operands were checked above; `new` checked the instruction set.
            Isa::Avx512 => unsafe { product_avx512(&product) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("`new` refuses an instruction set that the processor lacks"),
        }
    }

    /// `rounds` rounds of multiply-adds in registers; gives the number of floating-point operations.
    pub(super) fn multiply_adds(self, rounds: u64) -> u64 {
        let (sum, operations) = match self.isa {
            // SAFETY: the portable lanes need no instruction set.
            Isa::Scalar => unsafe { matrix::multiply_adds::<vector::Portable>(rounds) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `new` checked the instruction set.
            Isa::Avx2 => unsafe { multiply_adds_avx2(rounds) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `new` checked the instruction set.
            Isa::Avx512 => unsafe { multiply_adds_avx512(rounds) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("`new` refuses an instruction set that the processor lacks"),
        };
        std::hint::black_box(sum);
        operations
    }

    /// `to[j, i] = from[i, j]` for `i < rows`, `j < columns`.
    ///
    /// # Panics
    /// If an operand is too short.
    pub(super) fn transpose(self, from: Rows<'_>, rows: usize, columns: usize, to: RowsMut<'_>) {
        check_rows("what is transposed", from.data.len(), rows, columns, from.stride);
        check_rows("the transposed", to.data.len(), columns, rows, to.stride);
        let turn = transpose::Transposition {
            from: from.data.as_ptr(),
            from_stride: from.stride,
            rows,
            columns,
            to: to.data.as_mut_ptr(),
            to_stride: to.stride,
        };
        match self.isa {
            Isa::Scalar => {
                // SAFETY: blocks lie within the operands, which were checked above.
                let block = |from, to| unsafe { transpose::block(from, turn.from_stride, to, turn.to_stride) };
                // SAFETY: the operands were checked above, and a shared slice does not overlap an exclusive one.
                unsafe { transpose::transpose(&turn, block) }
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the operands were checked above; `new` checked the instruction set, and AVX-512 includes AVX2.
            Isa::Avx2 | Isa::Avx512 => unsafe { transpose_avx2(&turn) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("`new` refuses an instruction set that the processor lacks"),
        }
    }
}

/// # Safety
/// As for [`transpose::transpose`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn transpose_avx2(turn: &transpose::Transposition) {
    // SAFETY: blocks lie within the operands, by the promise of the caller.
    let block = |from, to| unsafe { transpose::block_avx(from, turn.from_stride, to, turn.to_stride) };
    // SAFETY: the caller's promise.
    unsafe { transpose::transpose(turn, block) }
}

/// # Safety
/// As for [`matrix::product`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn product_avx2(product: &matrix::Product) {
    // SAFETY: the caller's promise, and the instruction set of this function.
    unsafe { matrix::product::<vector::Avx2>(product) }
}

/// # Safety
/// As for [`matrix::product`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn product_avx512(product: &matrix::Product) {
    // SAFETY: the caller's promise, and the instruction set of this function.
    unsafe { matrix::product::<vector::Avx512>(product) }
}

/// # Safety
/// AVX2 and FMA must be there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply_adds_avx2(rounds: u64) -> (f32, u64) {
    // SAFETY: the instruction set of this function.
    unsafe { matrix::multiply_adds::<vector::Avx2>(rounds) }
}

/// # Safety
/// AVX-512 must be there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn multiply_adds_avx512(rounds: u64) -> (f32, u64) {
    // SAFETY: the instruction set of this function.
    unsafe { matrix::multiply_adds::<vector::Avx512>(rounds) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::stream;
    use proptest::prelude::*;
    use rand::Rng;

    fn all() -> impl Iterator<Item = Kernels> {
        Isa::ALL.into_iter().filter_map(Kernels::new)
    }

    fn values(rng: &mut impl Rng, count: usize) -> Vec<f32> {
        (0..count).map(|_| (rng.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    /// What lies between and behind the rows of a result, and must stay there.
    const GUARD: f32 = 12_345.0;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Every shape, stride and start gives the chain of fused multiply-adds, and nothing else is written.
        #[test]
        fn a_product_is_one_chain_per_element(
            m in 0..30usize, n in 1..70usize, k in 0..20usize, gap in 0..3usize, start in 0..3u8, across: bool, seed: u64,
        ) {
            let mut rng = stream(seed, "product");
            let (a_row, a_step) = if across { (1, m + gap) } else { (k + gap, 1) };
            let a = values(&mut rng, (m + gap) * (k + gap));
            let b = values(&mut rng, k * (n + gap));
            let row = values(&mut rng, n);
            let before = values(&mut rng, m * n);
            let stride = n + gap;
            let mut expected = vec![GUARD; m * stride];
            for i in 0..m {
                for j in 0..n {
                    let first = [0.0, row[j], before[i * n + j]][usize::from(start)];
                    expected[i * stride + j] = (0..k).fold(first, |sum, s| {
                        a[i * a_row + s * a_step].mul_add(b[s * stride + j], sum)
                    });
                }
            }
            for kernels in all() {
                let mut c = vec![GUARD; m * stride];
                for (c, before) in c.chunks_mut(stride).zip(before.chunks(n)) {
                    c[..n].copy_from_slice(before);
                }
                let start = [Start::Zero, Start::Row(&row), Start::Continue][usize::from(start)];
                let left = Left { data: &a, row: a_row, step: a_step };
                kernels.product((m, n, k), start, left, Rows { data: &b, stride }, RowsMut { data: &mut c, stride });
                prop_assert!(c.iter().map(|v| v.to_bits()).eq(expected.iter().map(|v| v.to_bits())), "{:?}", kernels);
            }
        }

        #[test]
        fn transposing_moves_every_element_and_writes_nothing_else(
            rows in 0..40usize, columns in 0..40usize, gap in 0..3usize, seed: u64,
        ) {
            let (stride, to_stride) = (columns + gap, rows + gap);
            let from = values(&mut stream(seed, "transpose"), rows * stride);
            let mut expected = vec![GUARD; columns * to_stride];
            for i in 0..rows {
                for j in 0..columns {
                    expected[j * to_stride + i] = from[i * stride + j];
                }
            }
            for kernels in all() {
                let mut to = vec![GUARD; columns * to_stride];
                let turned = RowsMut { data: &mut to, stride: to_stride };
                kernels.transpose(Rows { data: &from, stride }, rows, columns, turned);
                prop_assert_eq!(&to, &expected);
            }
        }

        #[test]
        fn squares_sum_to_the_same_bytes_and_to_the_right_value(count in 0..200usize, seed: u64) {
            let values = values(&mut stream(seed, "squares"), count);
            let exact: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
            let sums: Vec<f64> = all().map(|kernels| kernels.sum_of_squares(&values)).collect();
            prop_assert!(sums.iter().all(|sum| sum.to_bits() == sums[0].to_bits()), "{:?}", sums);
            prop_assert!((sums[0] - exact).abs() <= 1e-12 * exact.max(1.0));
        }
    }

    #[test]
    fn relu_keeps_what_is_not_a_number_and_drops_the_sign_of_zero() {
        for kernels in all() {
            let mut values = vec![-1.0, -0.0, 0.0, 2.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
            values.extend([-3.0; 30]);
            kernels.relu(&mut values);
            assert!(values[4].is_nan());
            values[4] = 0.0;
            let mut expected = [0.0; 37];
            expected[3] = 2.0;
            expected[5] = f32::INFINITY;
            assert!(values.iter().map(|v| v.to_bits()).eq(expected.iter().map(|v: &f32| v.to_bits())), "{values:?}");
        }
    }

    #[test]
    fn exponentials_are_close_and_the_same_everywhere() {
        let values: Vec<f32> = (0..100_000).map(|i| -(i as f32) * 1e-3 + 3.0).collect();
        let all: Vec<Vec<f32>> = all()
            .map(|kernels| {
                let mut values = values.clone();
                kernels.exponentials(&mut values, 3.0);
                values
            })
            .collect();
        for (found, x) in all[0].iter().zip(&values) {
            let exact = f64::from(x - 3.0).exp();
            let allowed = if x - 3.0 < -86.9 { 1e-37 } else { 2.5e-7 * exact };
            assert!((f64::from(*found) - exact).abs() <= allowed, "{x}: {found} and {exact}");
        }
        assert!(all.iter().all(|values| values.iter().map(|v| v.to_bits()).eq(all[0].iter().map(|v| v.to_bits()))));
        for kernels in self::all() {
            let mut odd = [f32::NAN, f32::NEG_INFINITY, 0.0];
            kernels.exponentials(&mut odd, 0.0);
            assert!(odd[0].is_nan());
            assert_eq!(odd[1..], [0.0, 1.0]);
        }
    }

    #[test]
    fn logarithms_are_those_of_libm() {
        // A logarithm is made of that of a number between these two.
        let (low, high) = (std::f32::consts::FRAC_1_SQRT_2, std::f32::consts::SQRT_2);
        let few = [1.0, f32::MIN_POSITIVE, f32::from_bits(1), f32::MAX, low, low.next_up(), high];
        let values: Vec<f32> = (1..0x7f80_0000).step_by(9973).map(f32::from_bits).chain(few).collect();
        for kernels in all() {
            let mut found = vec![0.0; values.len()];
            kernels.logarithms(&values, &mut found);
            for (found, value) in found.iter().zip(&values) {
                assert_eq!(found.to_bits(), libm::log(f64::from(*value)).to_bits(), "{value:e}");
            }
        }
    }

    #[test]
    fn the_highest_value_is_found_anywhere_and_what_is_no_number_wins() {
        for kernels in all() {
            for at in 0..53 {
                let mut values = [-7.5; 53];
                values[at] = -2.0;
                assert_eq!(kernels.highest(&values), -2.0);
                values[(at + 20) % 53] = f32::NEG_INFINITY;
                assert_eq!(kernels.highest(&values), -2.0);
                values[at] = f32::NAN;
                assert!(kernels.highest(&values).is_nan(), "{at}");
            }
        }
    }

    #[test]
    fn moments_fade_to_nothing_without_a_gradient() {
        let step = AdamStep {
            clip: 1.0,
            beta2: 0.9,
            one_minus_beta1: 0.1,
            one_minus_beta2: 0.1,
            step_size: 1e-3,
            root_correction: 1.0,
            epsilon: 1e-8,
        };
        for kernels in all() {
            let (mut values, mut first, mut second) = ([1.0; 37], [-1.0; 37], [1.0; 37]);
            for _ in 0..1000 {
                let decay = Decay { l2: 0.0, factor: 1.0 };
                kernels.adam(step, decay, &[0.0; 37], &mut values, &mut first, &mut second);
                assert!(first.iter().chain(&second).all(|moment| !moment.is_subnormal()));
            }
            assert_eq!((first, second), ([0.0; 37], [0.0; 37]));
        }
    }

    #[test]
    fn one_value_that_is_not_finite_is_found_anywhere() {
        for kernels in all() {
            let mut values = vec![f32::MAX; 67];
            assert!(kernels.all_finite(&values));
            for at in 0..values.len() {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    values[at] = bad;
                    assert!(!kernels.all_finite(&values), "{bad} at {at}");
                }
                values[at] = f32::MIN;
            }
        }
    }

    #[test]
    #[should_panic(expected = "right operand")]
    fn a_short_operand_is_refused() {
        let left = Left { data: &[0.0; 4], row: 2, step: 1 };
        let (b, mut c) = ([0.0; 5], [0.0; 6]);
        let result = RowsMut { data: &mut c, stride: 3 };
        Kernels { isa: Isa::Scalar }.product((2, 3, 2), Start::Zero, left, Rows { data: &b, stride: 3 }, result);
    }
}
