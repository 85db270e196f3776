//! One affine layer, on each instruction set: the inner loops of the engine and its only unsafe code.

mod active;
mod dispatch;
mod gram;
mod integer;
mod interleaved;
mod scalar;
mod split;
#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
mod x86_integer;

pub(super) use active::Active;
pub(super) use gram::gram;
pub(super) use integer::{IntegerLayer, Words};
pub(super) use split::{Split, all_within, directions, largest, products, squares};

use super::isa::Isa;
use super::slab::{LANES, Lane, Layer};

/// The values of `lanes`, one after the other.
#[allow(unsafe_code)]
pub(super) fn flat(lanes: &[Lane]) -> &[f32] {
    // SAFETY: a lane is `LANES` values and nothing else: its size is that of the array, so an array of lanes has no gaps.
    unsafe { std::slice::from_raw_parts(lanes.as_ptr().cast(), lanes.len() * LANES) }
}

const _: () = assert!(size_of::<Lane>() == size_of::<[f32; LANES]>());

/// `N` elements from `first` on. Their number is in the type, which lets a loop over them be unrolled.
#[inline(always)]
fn chunk<T, const N: usize>(elements: &[T], first: usize) -> &[T; N] {
    match elements[first..].first_chunk() {
        Some(chunk) => chunk,
        None => panic!("element {first} and the {N} from there on must lie within {}", elements.len()),
    }
}

/// A kernel that this processor can run: its existence is the proof.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel {
    isa: Isa,
    integer: Isa,
}

impl Kernel {
    /// The kernel for `isa`, if this processor has it, with the integers that come with it.
    pub(super) fn new(isa: Isa) -> Option<Self> {
        // The integers of a processor with AVX-512F alone are done on AVX2, which comes with it.
        let integer = if isa == Isa::Avx512 && !has_integers(Isa::Avx512) { Isa::Avx2 } else { isa };
        isa.is_available().then_some(Kernel { isa, integer })
    }

    /// The same kernel with its integer layers on another instruction set, if this processor has that.
    pub(super) fn with_integers(self, integer: Isa) -> Option<Self> {
        has_integers(integer).then_some(Kernel { integer, ..self })
    }

    pub(super) fn isa(self) -> Isa {
        self.isa
    }

    /// What the integer layers run on; AVX-512 stands for VNNI and BW here.
    pub(super) fn integer_isa(self) -> Isa {
        self.integer
    }

    /// `out_j = bias_j + sum over the inputs`, as one chain for each output, in the order of the inputs.
    ///
    /// # Panics
    /// When `out` is not as long as the layer's rows, or an input has no row.
    #[inline]
    pub(super) fn affine(self, layer: &Layer<'_>, inputs: &Active, out: &mut [Lane]) {
        assert_eq!(out.len(), layer.bias.len());
        match self.isa {
            Isa::Scalar => scalar::affine(layer, inputs, out),
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            // SAFETY: a `Kernel` exists only where the processor has its instruction set.
            Isa::Avx2 => unsafe { x86::affine_avx2(layer, inputs, out) },
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            // SAFETY: as for AVX2.
            Isa::Avx512 => unsafe { x86::affine_avx512(layer, inputs, out) },
            // `Kernel::new` makes none of these elsewhere.
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => scalar::affine(layer, inputs, out),
        }
    }
}

/// Whether this processor has what the integer layers need of an instruction set.
fn has_integers(isa: Isa) -> bool {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 && !(is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni")) {
        return false;
    }
    isa.is_available()
}
