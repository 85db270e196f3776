//! The integer layer on AVX2 (`vpmaddwd`) and AVX-512 VNNI (`vpdpwssd`).
//!
//! Rows are reached through slices, as in the f32 kernels: the only promise that a caller makes is the instruction set.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_load_ps,
    _mm256_load_si256, _mm256_madd_epi16, _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256,
    _mm256_store_ps, _mm256_unpackhi_epi16, _mm256_unpacklo_epi16, _mm512_cvtepi32_ps, _mm512_dpwssd_epi32,
    _mm512_fmadd_ps, _mm512_load_ps, _mm512_load_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_si512, _mm512_store_ps, _mm512_unpackhi_epi16, _mm512_unpacklo_epi16,
};

use super::integer::{IntegerLayer, Words};
use super::{Active, Split, chunk};
use crate::engine::slab::{LANES, Lane};

/// Two 16-bit parts, as the multiplier wants them.
#[inline(always)]
fn pair(parts: [i16; 2]) -> i32 {
    i32::from(parts[0] as u16) | i32::from(parts[1]) << 16
}

/// See [`super::Kernel::integer`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn layer_vnni(layer: &IntegerLayer, inputs: &Active, split: &Split, out: &mut [Lane]) {
    let row = out.len() / 2;
    let mut first = 0;
    while first < row {
        first += match row - first {
            4.. => tile_vnni::<4>(layer, inputs, split, out, first),
            2.. => tile_vnni::<2>(layer, inputs, split, out, first),
            _ => tile_vnni::<1>(layer, inputs, split, out, first),
        };
    }
}

/// `N` words of outputs from word `first` on; gives `N`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile_vnni<const N: usize>(
    layer: &IntegerLayer,
    inputs: &Active,
    split: &Split,
    out: &mut [Lane],
    first: usize,
) -> usize {
    let row = out.len() / 2;
    // Per word: the upper part of its first and second sixteen outputs, then the lower part.
    let mut sums: [[__m512i; 4]; N] = [[_mm512_setzero_si512(); 4]; N];
    for ((&[a, b], &upper), &lower) in inputs.index_pairs().iter().zip(split.upper_pairs()).zip(split.lower_pairs()) {
        let row_a = chunk::<_, N>(&layer.rows, a as usize * row + first);
        let row_b = chunk::<_, N>(&layer.rows, b as usize * row + first);
        let (upper, lower) = (_mm512_set1_epi32(pair(upper)), _mm512_set1_epi32(pair(lower)));
        for (word, sums) in sums.iter_mut().enumerate() {
            let (a, b) = (whole(&row_a[word]), whole(&row_b[word]));
            let (low, high) = (_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b));
            sums[0] = _mm512_dpwssd_epi32(sums[0], upper, low);
            sums[1] = _mm512_dpwssd_epi32(sums[1], upper, high);
            sums[2] = _mm512_dpwssd_epi32(sums[2], lower, low);
            sums[3] = _mm512_dpwssd_epi32(sums[3], lower, high);
        }
    }
    let (step, fine) = (_mm512_set1_ps(split.step), _mm512_set1_ps(split.fine));
    let (scale, bias) = (pairs::<N>(&layer.scale, first), pairs::<N>(&layer.bias, first));
    let Some(out) = out.as_chunks_mut::<2>().0[first..].first_chunk_mut::<N>() else { return N };
    // An array whose place is computed at run time would not stay in registers.
    for (word, out) in out.iter_mut().enumerate() {
        let [upper_low, upper_high, lower_low, lower_high] = sums[word];
        let value = number_vnni(upper_low, lower_low, step, fine, &scale[word][0], &bias[word][0]);
        // SAFETY: a lane is sixteen f32, aligned to 64 bytes.
        unsafe { _mm512_store_ps(out[0].0.as_mut_ptr(), value) };
        let value = number_vnni(upper_high, lower_high, step, fine, &scale[word][1], &bias[word][1]);
        // SAFETY: as above.
        unsafe { _mm512_store_ps(out[1].0.as_mut_ptr(), value) };
    }
    N
}

/// Sums into numbers; see [`super::Kernel::integer`].
#[inline]
#[target_feature(enable = "avx512f")]
fn number_vnni(upper: __m512i, lower: __m512i, step: __m512, fine: __m512, scale: &Lane, bias: &Lane) -> __m512 {
    let scale = lane_of(scale);
    let inner = _mm512_fmadd_ps(_mm512_cvtepi32_ps(lower), _mm512_mul_ps(scale, fine), lane_of(bias));
    _mm512_fmadd_ps(_mm512_cvtepi32_ps(upper), _mm512_mul_ps(scale, step), inner)
}

/// The lanes of `N` words of outputs from word `first` on.
#[inline(always)]
fn pairs<const N: usize>(lanes: &[Lane], first: usize) -> &[[Lane; 2]; N] {
    chunk(lanes.as_chunks().0, first)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn whole(words: &Words) -> __m512i {
    // SAFETY: 32 words of 16 bits, aligned to 64 bytes.
    unsafe { _mm512_load_si512(words.0.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn lane_of(lane: &Lane) -> __m512 {
    // SAFETY: a lane is sixteen f32, aligned to 64 bytes.
    unsafe { _mm512_load_ps(lane.0.as_ptr()) }
}

/// See [`super::Kernel::integer`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn layer_avx2(layer: &IntegerLayer, inputs: &Active, split: &Split, out: &mut [Lane]) {
    let row = out.len() / 2;
    let (step, fine) = (_mm256_set1_ps(split.step), _mm256_set1_ps(split.fine));
    for word in 0..row {
        // For each half of the sixteen: the upper part of eight outputs and of the eight sixteen further on, then the lower.
        let mut sums: [[__m256i; 4]; 2] = [[_mm256_setzero_si256(); 4]; 2];
        for ((&[a, b], &upper), &lower) in inputs.index_pairs().iter().zip(split.upper_pairs()).zip(split.lower_pairs())
        {
            let (row_a, row_b) = (&layer.rows[a as usize * row + word], &layer.rows[b as usize * row + word]);
            let (upper, lower) = (_mm256_set1_epi32(pair(upper)), _mm256_set1_epi32(pair(lower)));
            for (half, sums) in sums.iter_mut().enumerate() {
                let (a, b) = (half_words(row_a, half), half_words(row_b, half));
                let (low, high) = (_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b));
                sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(upper, low));
                sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(upper, high));
                sums[2] = _mm256_add_epi32(sums[2], _mm256_madd_epi16(lower, low));
                sums[3] = _mm256_add_epi32(sums[3], _mm256_madd_epi16(lower, high));
            }
        }
        for (half, &[upper_low, upper_high, lower_low, lower_high]) in sums.iter().enumerate() {
            for (lane, upper, lower) in [(2 * word, upper_low, lower_low), (2 * word + 1, upper_high, lower_high)] {
                let (scale, bias) = (half_lane(&layer.scale[lane], half), half_lane(&layer.bias[lane], half));
                let inner = _mm256_fmadd_ps(_mm256_cvtepi32_ps(lower), _mm256_mul_ps(scale, fine), bias);
                let value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(upper), _mm256_mul_ps(scale, step), inner);
                // SAFETY: half of a lane is eight f32, aligned to 32 bytes.
                unsafe { _mm256_store_ps(out[lane].0[half * (LANES / 2)..].as_mut_ptr(), value) };
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn half_words(words: &Words, half: usize) -> __m256i {
    // SAFETY: `half` is 0 or 1, and half of the words is sixteen of them, aligned to 32 bytes.
    unsafe { _mm256_load_si256(words.0[half * LANES..].as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn half_lane(lane: &Lane, half: usize) -> __m256 {
    // SAFETY: `half` is 0 or 1, and half of a lane is eight f32, aligned to 32 bytes.
    unsafe { _mm256_load_ps(lane.0[half * (LANES / 2)..].as_ptr()) }
}
