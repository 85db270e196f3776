//! Rows to columns.

/// Side of the square block that is turned at once.
const SIDE: usize = 8;

/// One transposition, by address: `to[j * to_stride + i] = from[i * from_stride + j]` for `i < rows`, `j < columns`.
#[derive(Clone, Copy)]
pub(super) struct Transposition {
    pub(super) from: *const f32,
    pub(super) from_stride: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) to: *mut f32,
    pub(super) to_stride: usize,
}

/// Turns everything, whole blocks by `block` and the rest one by one.
///
/// # Safety
/// All elements must be in bounds, the two sides must not overlap, and `block` must turn a block at the addresses given
/// it, rows being `from_stride` and `to_stride` values apart.
#[inline(always)]
pub(super) unsafe fn transpose(t: &Transposition, block: impl Fn(*const f32, *mut f32)) {
    let (whole_rows, whole_columns) = (t.rows - t.rows % SIDE, t.columns - t.columns % SIDE);
    for i in (0..whole_rows).step_by(SIDE) {
        for j in (0..whole_columns).step_by(SIDE) {
            block(t.from.wrapping_add(i * t.from_stride + j), t.to.wrapping_add(j * t.to_stride + i));
        }
    }
    for i in 0..t.rows {
        for j in if i < whole_rows { whole_columns } else { 0 }..t.columns {
            // SAFETY: `i` and `j` are within the bounds that the caller promises.
            unsafe { t.to.add(j * t.to_stride + i).write(t.from.add(i * t.from_stride + j).read()) };
        }
    }
}

/// Turns one block value by value.
///
/// # Safety
/// Eight rows of eight values must be in bounds on both sides.
pub(super) unsafe fn block(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    for i in 0..SIDE {
        for j in 0..SIDE {
            // SAFETY: the block is in bounds, by the promise of the caller.
            unsafe { to.add(j * to_stride + i).write(from.add(i * from_stride + j).read()) };
        }
    }
}

/// Turns one block in registers.
///
/// # Safety
/// AVX must be there, and eight rows of eight values must be in bounds on both sides.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn block_avx(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    use std::arch::x86_64::*;
    // SAFETY: the caller promises AVX and the bounds; masks of all lanes are plain moves.
    unsafe {
        let all = _mm256_set1_epi32(-1);
        let row = |i: usize| _mm256_maskload_ps(from.wrapping_add(i * from_stride), all);
        let (a0, a1, a2, a3) = (row(0), row(1), row(2), row(3));
        let (a4, a5, a6, a7) = (row(4), row(5), row(6), row(7));
        let (b0, b1) = (_mm256_unpacklo_ps(a0, a1), _mm256_unpackhi_ps(a0, a1));
        let (b2, b3) = (_mm256_unpacklo_ps(a2, a3), _mm256_unpackhi_ps(a2, a3));
        let (b4, b5) = (_mm256_unpacklo_ps(a4, a5), _mm256_unpackhi_ps(a4, a5));
        let (b6, b7) = (_mm256_unpacklo_ps(a6, a7), _mm256_unpackhi_ps(a6, a7));
        let (c0, c1) = (_mm256_shuffle_ps::<0x44>(b0, b2), _mm256_shuffle_ps::<0xee>(b0, b2));
        let (c2, c3) = (_mm256_shuffle_ps::<0x44>(b1, b3), _mm256_shuffle_ps::<0xee>(b1, b3));
        let (c4, c5) = (_mm256_shuffle_ps::<0x44>(b4, b6), _mm256_shuffle_ps::<0xee>(b4, b6));
        let (c6, c7) = (_mm256_shuffle_ps::<0x44>(b5, b7), _mm256_shuffle_ps::<0xee>(b5, b7));
        let columns = [
            _mm256_permute2f128_ps::<0x20>(c0, c4),
            _mm256_permute2f128_ps::<0x20>(c1, c5),
            _mm256_permute2f128_ps::<0x20>(c2, c6),
            _mm256_permute2f128_ps::<0x20>(c3, c7),
            _mm256_permute2f128_ps::<0x31>(c0, c4),
            _mm256_permute2f128_ps::<0x31>(c1, c5),
            _mm256_permute2f128_ps::<0x31>(c2, c6),
            _mm256_permute2f128_ps::<0x31>(c3, c7),
        ];
        for (j, column) in columns.into_iter().enumerate() {
            _mm256_maskstore_ps(to.wrapping_add(j * to_stride), all, column);
        }
    }
}
