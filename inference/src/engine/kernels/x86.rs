//! AVX2 and AVX-512. A tile of outputs stays in registers while its inputs stream by; lanes are outputs, so every output
//! is the same chain as in the reference.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, __m512, _mm256_fmadd_ps, _mm256_load_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_store_ps,
    _mm512_fmadd_ps, _mm512_load_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_store_ps,
};

use super::Active;
use crate::engine::slab::{LANES, Lane, Layer};

/// See [`super::Kernel::affine`].
///
/// # Safety
/// The processor has AVX-512F. `out.len() == layer.bias.len()`, and `layer.weights` has at least `inputs.bound()`
/// rows of that length.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn affine_avx512(layer: &Layer<'_>, inputs: &Active, out: &mut [Lane]) {
    let mut first = 0;
    while first < out.len() {
        let left = out.len() - first;
        // SAFETY: each tile spans at most the lanes that are left; the rest is the caller's promise.
        first += unsafe {
            match left {
                16.. => tile_avx512::<16>(layer, inputs, out, first),
                8.. => tile_avx512::<8>(layer, inputs, out, first),
                4.. => tile_avx512::<4>(layer, inputs, out, first),
                2.. => tile_avx512::<2>(layer, inputs, out, first),
                _ => tile_avx512::<1>(layer, inputs, out, first),
            }
        };
    }
}

/// `N` lanes of outputs from lane `first` on; gives `N`.
///
/// # Safety
/// As [`affine_avx512`], and `first + N <= out.len()`.
#[target_feature(enable = "avx512f")]
unsafe fn tile_avx512<const N: usize>(layer: &Layer<'_>, inputs: &Active, out: &mut [Lane], first: usize) -> usize {
    let row_lanes = out.len();
    let bias = layer.bias[first..first + N].as_ptr().cast::<f32>();
    let weights = layer.weights.as_ptr();
    let mut sums: [__m512; N] = [_mm512_setzero_ps(); N];
    for (lane, sum) in sums.iter_mut().enumerate() {
        // SAFETY: `bias` points at `N` whole lanes, each aligned to 64 bytes.
        *sum = unsafe { _mm512_load_ps(bias.add(lane * LANES)) };
    }
    for (&index, &value) in inputs.index().iter().zip(inputs.value()) {
        // SAFETY: `index` is below the bound, so the row lies within the weights, and `first + N` is at most its length.
        let row = unsafe { weights.add(index as usize * row_lanes + first) }.cast::<f32>();
        let value = _mm512_set1_ps(value);
        for (lane, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `row` points at `N` whole lanes, each aligned to 64 bytes.
            *sum = _mm512_fmadd_ps(value, unsafe { _mm512_load_ps(row.add(lane * LANES)) }, *sum);
        }
    }
    for (lane, &sum) in out[first..first + N].iter_mut().zip(&sums) {
        // SAFETY: a lane is sixteen values, aligned to 64 bytes.
        unsafe { _mm512_store_ps(lane.0.as_mut_ptr(), sum) };
    }
    N
}

/// See [`super::Kernel::affine`].
///
/// # Safety
/// The processor has AVX2 and FMA; otherwise as [`affine_avx512`].
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn affine_avx2(layer: &Layer<'_>, inputs: &Active, out: &mut [Lane]) {
    let mut first = 0;
    while first < out.len() {
        let left = out.len() - first;
        // SAFETY: each tile spans at most the lanes that are left; the rest is the caller's promise.
        first += unsafe {
            match left {
                4.. => tile_avx2::<4>(layer, inputs, out, first),
                2.. => tile_avx2::<2>(layer, inputs, out, first),
                _ => tile_avx2::<1>(layer, inputs, out, first),
            }
        };
    }
}

/// `N` lanes of outputs from lane `first` on, each in two registers; gives `N`.
///
/// # Safety
/// As [`affine_avx2`], and `first + N <= out.len()`.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_avx2<const N: usize>(layer: &Layer<'_>, inputs: &Active, out: &mut [Lane], first: usize) -> usize {
    const HALF: usize = LANES / 2;
    let row_lanes = out.len();
    let bias = layer.bias[first..first + N].as_ptr().cast::<f32>();
    let weights = layer.weights.as_ptr();
    let mut sums: [[__m256; 2]; N] = [[_mm256_setzero_ps(); 2]; N];
    for (lane, sum) in sums.iter_mut().enumerate() {
        // SAFETY: `bias` points at `N` whole lanes, each aligned to 64 bytes, and a half at 32.
        *sum = unsafe { [_mm256_load_ps(bias.add(lane * LANES)), _mm256_load_ps(bias.add(lane * LANES + HALF))] };
    }
    for (&index, &value) in inputs.index().iter().zip(inputs.value()) {
        // SAFETY: `index` is below the bound, so the row lies within the weights, and `first + N` is at most its length.
        let row = unsafe { weights.add(index as usize * row_lanes + first) }.cast::<f32>();
        let value = _mm256_set1_ps(value);
        for (lane, [low, high]) in sums.iter_mut().enumerate() {
            // SAFETY: `row` points at `N` whole lanes, each aligned to 64 bytes, and a half at 32.
            let (a, b) =
                unsafe { (_mm256_load_ps(row.add(lane * LANES)), _mm256_load_ps(row.add(lane * LANES + HALF))) };
            *low = _mm256_fmadd_ps(value, a, *low);
            *high = _mm256_fmadd_ps(value, b, *high);
        }
    }
    for (lane, &[low, high]) in out[first..first + N].iter_mut().zip(&sums) {
        // SAFETY: a lane is sixteen values, aligned to 64 bytes.
        unsafe {
            _mm256_store_ps(lane.0.as_mut_ptr(), low);
            _mm256_store_ps(lane.0.as_mut_ptr().add(HALF), high);
        }
    }
    N
}
