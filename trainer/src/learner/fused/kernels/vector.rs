//! Lanes of `f32` for the matrix kernel: AVX-512, AVX2 with FMA, and plain arrays.
//!
//! Each operation is one IEEE operation per lane, so a value does not depend on which of the three computed it.
//!
//! Whole vectors are read and written through masks of all lanes, which compile to plain moves: the plain moves of the
//! standard library carry checks in builds with debug assertions, and those cost the kernel two thirds of its speed.

/// Lanes of `f32` that the matrix kernel computes with.
pub(super) trait Lanes: Copy {
    /// Number of lanes.
    const COUNT: usize;
    /// Rows of the largest register tile.
    const TILE_ROWS: usize;
    /// All lanes the same.
    ///
    /// # Safety
    /// As for all operations here, the instruction set must be there.
    unsafe fn splat(value: f32) -> Self;
    /// All lanes the value at `from`.
    ///
    /// # Safety
    /// One value must be readable at `from`.
    unsafe fn splat_from(from: *const f32) -> Self;
    /// Reads `COUNT` values.
    ///
    /// # Safety
    /// `COUNT` values must be readable at `from`.
    unsafe fn load(from: *const f32) -> Self;
    /// Reads `count` values, at most `COUNT`; the other lanes are 0.
    ///
    /// # Safety
    /// `count` values must be readable at `from`.
    unsafe fn load_first(from: *const f32, count: usize) -> Self;
    /// Writes `COUNT` values.
    ///
    /// # Safety
    /// `COUNT` values must be writable at `to`.
    unsafe fn store(self, to: *mut f32);
    /// Writes the first `count` values, at most `COUNT`.
    ///
    /// # Safety
    /// `count` values must be writable at `to`.
    unsafe fn store_first(self, to: *mut f32, count: usize);
    /// `self * by + plus`, rounded once.
    ///
    /// # Safety
    /// The instruction set must be there.
    unsafe fn multiply_add(self, by: Self, plus: Self) -> Self;
}

/// Eight lanes in an array: the reference, and what other processors run.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 8]);

impl Lanes for Portable {
    const COUNT: usize = 8;
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Portable([value; 8])
    }
    #[inline(always)]
    unsafe fn splat_from(from: *const f32) -> Self {
        // SAFETY: the caller promises a readable value.
        Portable([unsafe { from.read() }; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises eight readable values; the read asks for no alignment.
        Portable(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; 8];
        for (i, lane) in lanes.iter_mut().enumerate().take(count) {
            // SAFETY: the caller promises `count` readable values.
            *lane = unsafe { from.add(i).read() };
        }
        Portable(lanes)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises eight writable values; the write asks for no alignment.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        for (i, lane) in self.0.iter().enumerate().take(count) {
            // SAFETY: the caller promises `count` writable values.
            unsafe { to.add(i).write(*lane) }
        }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, by: Self, plus: Self) -> Self {
        let mut lanes = plus.0;
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane = self.0[i].mul_add(by.0[i], *lane);
        }
        Portable(lanes)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    /// Eight lanes of AVX2 with FMA.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2(__m256);

    /// All bits set in the first `count` of eight lanes.
    ///
    /// # Safety
    /// AVX2 must be there.
    #[inline(always)]
    unsafe fn first_lanes(count: usize) -> __m256i {
        // SAFETY: register operations of an instruction set that the caller promises.
        unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
    }

    impl Lanes for Avx2 {
        const COUNT: usize = 8;
        const TILE_ROWS: usize = 6;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the caller promises AVX2.
            Avx2(unsafe { _mm256_set1_ps(value) })
        }
        #[inline(always)]
        unsafe fn splat_from(from: *const f32) -> Self {
            // SAFETY: the caller promises AVX2 and a readable value.
            Avx2(unsafe { _mm256_broadcastss_ps(_mm_load_ss(from)) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller promises AVX2 and eight readable values.
            Avx2(unsafe { _mm256_maskload_ps(from, _mm256_set1_epi32(-1)) })
        }
        #[inline(always)]
        unsafe fn load_first(from: *const f32, count: usize) -> Self {
            // SAFETY: the caller promises AVX2; masked lanes are not touched in memory.
            Avx2(unsafe { _mm256_maskload_ps(from, first_lanes(count)) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller promises AVX2 and eight writable values.
            unsafe { _mm256_maskstore_ps(to, _mm256_set1_epi32(-1), self.0) }
        }
        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, count: usize) {
            // SAFETY: the caller promises AVX2; masked lanes are not touched in memory.
            unsafe { _mm256_maskstore_ps(to, first_lanes(count), self.0) }
        }
        #[inline(always)]
        unsafe fn multiply_add(self, by: Self, plus: Self) -> Self {
            // SAFETY: the caller promises AVX2 with FMA.
            Avx2(unsafe { _mm256_fmadd_ps(self.0, by.0, plus.0) })
        }
    }

    /// Sixteen lanes of AVX-512.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512(__m512);

    /// A mask of the first `count` of sixteen lanes.
    #[inline(always)]
    const fn first_sixteen(count: usize) -> __mmask16 {
        ((1u32 << count) - 1) as __mmask16
    }

    impl Lanes for Avx512 {
        const COUNT: usize = 16;
        const TILE_ROWS: usize = 8;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the caller promises AVX-512.
            Avx512(unsafe { _mm512_set1_ps(value) })
        }
        #[inline(always)]
        unsafe fn splat_from(from: *const f32) -> Self {
            // SAFETY: the caller promises AVX-512 and a readable value.
            Avx512(unsafe { _mm512_broadcastss_ps(_mm_load_ss(from)) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller promises AVX-512 and sixteen readable values.
            Avx512(unsafe { _mm512_maskz_loadu_ps(!0, from) })
        }
        #[inline(always)]
        unsafe fn load_first(from: *const f32, count: usize) -> Self {
            // SAFETY: the caller promises AVX-512; masked lanes are not touched in memory.
            Avx512(unsafe { _mm512_maskz_loadu_ps(first_sixteen(count), from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller promises AVX-512 and sixteen writable values.
            unsafe { _mm512_mask_storeu_ps(to, !0, self.0) }
        }
        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, count: usize) {
            // SAFETY: the caller promises AVX-512; masked lanes are not touched in memory.
            unsafe { _mm512_mask_storeu_ps(to, first_sixteen(count), self.0) }
        }
        #[inline(always)]
        unsafe fn multiply_add(self, by: Self, plus: Self) -> Self {
            // SAFETY: the caller promises AVX-512.
            Avx512(unsafe { _mm512_fmadd_ps(self.0, by.0, plus.0) })
        }
    }
}
