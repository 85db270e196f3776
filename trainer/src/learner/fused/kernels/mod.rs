//! The kernels of the fused learner behind one safe border: operands are checked here, and what is computed is the same
//! to the last bit whichever instruction set computes it.
#![allow(unsafe_code)]

mod elementwise;
mod matrix;
mod vector;

use serde::{Deserialize, Serialize};

pub(super) use elementwise::AdamStep;

/// An instruction set that the kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isa {
    /// Plain Rust; slow where the processor's fused multiply-add is not part of the target's base.
    Scalar,
    /// AVX2 with FMA, eight lanes.
    Avx2,
    /// AVX-512F, sixteen lanes.
    Avx512,
}

impl Isa {
    /// All of them, from the plainest to the widest.
    pub const ALL: [Isa; 3] = [Isa::Scalar, Isa::Avx2, Isa::Avx512];

    /// Whether this processor has it.
    pub fn available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => is_x86_feature_detected!("avx512f") && Isa::Avx2.available(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The widest that this processor has.
    pub fn best() -> Isa {
        Isa::ALL.into_iter().rev().find(|isa| isa.available()).unwrap_or(Isa::Scalar)
    }

    /// The name used in configurations and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }
}

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
        isa.available().then_some(Kernels { isa })
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
