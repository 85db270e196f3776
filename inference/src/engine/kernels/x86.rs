//! AVX2 and AVX-512. A tile of outputs stays in registers while its inputs stream by; lanes are outputs, so every output
//! is the same chain as in the reference.
//!
//! Weights are reached through slices, with one bounds check for each input and tile, so the only promise that a caller
//! makes is the instruction set.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, __m512, __mmask16, _CMP_GT_OQ, _CMP_LT_OQ, _CMP_NEQ_UQ, _mm256_add_ps, _mm256_fmadd_ps, _mm256_load_ps,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_store_ps, _mm512_abs_ps, _mm512_add_epi32, _mm512_add_ps,
    _mm512_fmadd_ps, _mm512_load_ps, _mm512_mask_cmp_ps_mask, _mm512_maskz_compress_epi32, _mm512_maskz_compress_ps,
    _mm512_maskz_loadu_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32, _mm512_setzero_ps, _mm512_store_ps,
    _mm512_storeu_ps, _mm512_storeu_si512,
};

use super::active::Gathered;
use super::interleaved::CHAINS;
use super::{Active, chunk};
use crate::engine::slab::{LANES, Lane, Layer};

/// See [`super::Kernel::affine`].
#[target_feature(enable = "avx512f")]
pub(super) fn affine_avx512(layer: &Layer<'_>, inputs: &Active, out: &mut [Lane]) {
    let mut first = 0;
    while first < out.len() {
        first += match out.len() - first {
            16.. => tile_avx512::<16>(layer, inputs, out, first),
            8.. => tile_avx512::<8>(layer, inputs, out, first),
            4.. => tile_avx512::<4>(layer, inputs, out, first),
            2.. => tile_avx512::<2>(layer, inputs, out, first),
            _ => tile_avx512::<1>(layer, inputs, out, first),
        };
    }
}

/// `N` lanes of outputs from lane `first` on; gives `N`.
#[target_feature(enable = "avx512f")]
fn tile_avx512<const N: usize>(layer: &Layer<'_>, inputs: &Active, out: &mut [Lane], first: usize) -> usize {
    let row_lanes = out.len();
    let mut sums: [__m512; N] = [_mm512_setzero_ps(); N];
    let bias = chunk::<_, N>(layer.bias, first);
    for (lane, sum) in sums.iter_mut().enumerate() {
        *sum = whole(&bias[lane]);
    }
    for (&index, &value) in inputs.index().iter().zip(inputs.value()) {
        let row = chunk::<_, N>(layer.weights, index as usize * row_lanes + first);
        let value = _mm512_set1_ps(value);
        // Two zipped iterators would be unrolled too late for the sums to stay in registers.
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum = _mm512_fmadd_ps(value, whole(&row[lane]), *sum);
        }
    }
    for (lane, &sum) in out[first..][..N].iter_mut().zip(&sums) {
        // SAFETY: as in `whole`.
        unsafe { _mm512_store_ps(lane.0.as_mut_ptr(), sum) };
    }
    N
}

/// A lane in one register.
#[inline]
#[target_feature(enable = "avx512f")]
fn whole(lane: &Lane) -> __m512 {
    // SAFETY: a lane is sixteen f32, aligned to 64 bytes.
    unsafe { _mm512_load_ps(lane.0.as_ptr()) }
}

/// See [`super::Kernel::affine`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn affine_avx2(layer: &Layer<'_>, inputs: &Active, out: &mut [Lane]) {
    let mut first = 0;
    while first < out.len() {
        first += match out.len() - first {
            4.. => tile_avx2::<4>(layer, inputs, out, first),
            2.. => tile_avx2::<2>(layer, inputs, out, first),
            _ => tile_avx2::<1>(layer, inputs, out, first),
        };
    }
}

/// `N` lanes of outputs from lane `first` on, each in two registers; gives `N`.
#[target_feature(enable = "avx2,fma")]
fn tile_avx2<const N: usize>(layer: &Layer<'_>, inputs: &Active, out: &mut [Lane], first: usize) -> usize {
    let row_lanes = out.len();
    let mut sums: [[__m256; 2]; N] = [[_mm256_setzero_ps(); 2]; N];
    let bias = chunk::<_, N>(layer.bias, first);
    for (lane, sum) in sums.iter_mut().enumerate() {
        *sum = halves(&bias[lane]);
    }
    for (&index, &value) in inputs.index().iter().zip(inputs.value()) {
        let row = chunk::<_, N>(layer.weights, index as usize * row_lanes + first);
        let value = _mm256_set1_ps(value);
        for (lane, [low, high]) in sums.iter_mut().enumerate() {
            let [a, b] = halves(&row[lane]);
            *low = _mm256_fmadd_ps(value, a, *low);
            *high = _mm256_fmadd_ps(value, b, *high);
        }
    }
    for (lane, &[low, high]) in out[first..][..N].iter_mut().zip(&sums) {
        // SAFETY: as in `halves`.
        unsafe {
            _mm256_store_ps(lane.0.as_mut_ptr(), low);
            _mm256_store_ps(lane.0.as_mut_ptr().add(LANES / 2), high);
        }
    }
    N
}

/// A lane in two registers.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn halves(lane: &Lane) -> [__m256; 2] {
    // SAFETY: a lane is sixteen f32, aligned to 64 bytes, and its upper half to 32.
    unsafe { [_mm256_load_ps(lane.0.as_ptr()), _mm256_load_ps(lane.0.as_ptr().add(LANES / 2))] }
}

/// See [`super::Kernel::interleaved`].
#[target_feature(enable = "avx512f")]
pub(super) fn interleaved_avx512(layer: &Layer<'_>, inputs: &Active, out: &mut [Lane]) {
    let row = out.len();
    let (indices, last_indices) = inputs.index().as_chunks::<CHAINS>();
    let (values, last_values) = inputs.value().as_chunks::<CHAINS>();
    for (lane, out) in out.iter_mut().enumerate() {
        let mut sums: [__m512; CHAINS] = [_mm512_setzero_ps(); CHAINS];
        for (indices, values) in indices.iter().zip(values) {
            for (chain, sum) in sums.iter_mut().enumerate() {
                let weights = whole(&layer.weights[indices[chain] as usize * row + lane]);
                *sum = _mm512_fmadd_ps(_mm512_set1_ps(values[chain]), weights, *sum);
            }
        }
        for (chain, sum) in sums.iter_mut().enumerate().take(CHAINS - 1) {
            if let (Some(&index), Some(&value)) = (last_indices.get(chain), last_values.get(chain)) {
                let weights = whole(&layer.weights[index as usize * row + lane]);
                *sum = _mm512_fmadd_ps(_mm512_set1_ps(value), weights, *sum);
            }
        }
        let [a, b, c, d] = sums;
        let sum = _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d));
        // SAFETY: as in `whole`.
        unsafe { _mm512_store_ps(out.0.as_mut_ptr(), _mm512_add_ps(sum, whole(&layer.bias[lane]))) };
    }
}

/// See [`super::Kernel::interleaved`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn interleaved_avx2(layer: &Layer<'_>, inputs: &Active, out: &mut [Lane]) {
    let row = out.len();
    let (indices, last_indices) = inputs.index().as_chunks::<CHAINS>();
    let (values, last_values) = inputs.value().as_chunks::<CHAINS>();
    for (lane, out) in out.iter_mut().enumerate() {
        let mut sums: [[__m256; 2]; CHAINS] = [[_mm256_setzero_ps(); 2]; CHAINS];
        for (indices, values) in indices.iter().zip(values) {
            for (chain, [low, high]) in sums.iter_mut().enumerate() {
                let [a, b] = halves(&layer.weights[indices[chain] as usize * row + lane]);
                let value = _mm256_set1_ps(values[chain]);
                *low = _mm256_fmadd_ps(value, a, *low);
                *high = _mm256_fmadd_ps(value, b, *high);
            }
        }
        for (chain, [low, high]) in sums.iter_mut().enumerate().take(CHAINS - 1) {
            if let (Some(&index), Some(&value)) = (last_indices.get(chain), last_values.get(chain)) {
                let [a, b] = halves(&layer.weights[index as usize * row + lane]);
                let value = _mm256_set1_ps(value);
                *low = _mm256_fmadd_ps(value, a, *low);
                *high = _mm256_fmadd_ps(value, b, *high);
            }
        }
        let bias = halves(&layer.bias[lane]);
        let [[a, e], [b, f], [c, g], [d, h]] = sums;
        let low = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
        let high = _mm256_add_ps(_mm256_add_ps(e, f), _mm256_add_ps(g, h));
        // SAFETY: as in `halves`.
        unsafe {
            _mm256_store_ps(out.0.as_mut_ptr(), _mm256_add_ps(low, bias[0]));
            _mm256_store_ps(out.0.as_mut_ptr().add(LANES / 2), _mm256_add_ps(high, bias[1]));
        }
    }
}

/// Keeps what is not zero of `values` (what is above zero, if `RECTIFY`): numbers into `index`, values into `kept`.
///
/// # Panics
/// When one of the two is not at least a lane longer than `values`.
#[target_feature(enable = "avx512f,popcnt")]
pub(super) fn gather_avx512<const RECTIFY: bool>(values: &[f32], index: &mut [u32], kept: &mut [f32]) -> Gathered {
    // At most as much was kept as was read, so a whole lane can always be stored behind it.
    assert!(index.len() >= values.len() + LANES && kept.len() >= values.len() + LANES);
    let (mut len, mut broken): (usize, __mmask16) = (0, 0);
    let mut numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let step = _mm512_set1_epi32(LANES as i32);
    let (zero, infinity) = (_mm512_setzero_ps(), _mm512_set1_ps(f32::INFINITY));
    for part in values.chunks(LANES) {
        let valid: __mmask16 = u16::MAX >> (LANES - part.len());
        // SAFETY: masked elements are not read, and the others lie in `part`.
        let value = unsafe { _mm512_maskz_loadu_ps(valid, part.as_ptr()) };
        let finite = _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(valid, _mm512_abs_ps(value), infinity);
        broken |= valid & !finite;
        let keep = if RECTIFY {
            _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(valid, value, zero)
        } else {
            _mm512_mask_cmp_ps_mask::<_CMP_NEQ_UQ>(valid, value, zero)
        };
        // SAFETY: `len` is at most the number of values read before, so both lists have a lane left there.
        unsafe {
            _mm512_storeu_ps(kept.as_mut_ptr().add(len), _mm512_maskz_compress_ps(keep, value));
            _mm512_storeu_si512(index.as_mut_ptr().add(len).cast(), _mm512_maskz_compress_epi32(keep, numbers));
        }
        len += keep.count_ones() as usize;
        numbers = _mm512_add_epi32(numbers, step);
    }
    Gathered { len, finite: broken == 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::active::gather;
    use super::*;
    use crate::engine::isa::Isa;

    fn value() -> impl Strategy<Value = f32> {
        let special = prop::sample::select(vec![
            0.0,
            -0.0,
            f32::MIN_POSITIVE / 2.0,
            -f32::MIN_POSITIVE / 2.0,
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
        ]);
        prop_oneof![3 => special, 5 => -1.0_f32..1.0]
    }

    fn agree<const RECTIFY: bool>(values: &[f32]) {
        let room = values.len() + LANES;
        let (mut index, mut kept) = (vec![0; room], vec![0.0; room]);
        let expected = gather::<RECTIFY>(values, &mut index, &mut kept);
        let (mut vector_index, mut vector_kept) = (vec![7; room], vec![7.0; room]);
        // SAFETY: the caller checked for AVX-512F.
        let found = unsafe { gather_avx512::<RECTIFY>(values, &mut vector_index, &mut vector_kept) };
        assert_eq!(found, expected);
        assert_eq!(vector_index[..found.len], index[..found.len]);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&vector_kept[..found.len]), bits(&kept[..found.len]));
    }

    proptest! {
        #[test]
        fn both_ways_of_gathering_agree(values in proptest::collection::vec(value(), 0..70)) {
            if Isa::Avx512.is_available() {
                agree::<false>(&values);
                agree::<true>(&values);
            }
        }
    }
}
